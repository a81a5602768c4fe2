"""What `quantize_` did: one row per module and role, or why not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

SECOND_OUTPUT = "feeds no neuron and is not the first output of the model: stays real"
"""Of a layer that the plan asks for."""


@dataclass(frozen=True, kw_only=True)
class QuantizedRow:
    """One role of one module.

    ``bits`` is None where the role was left alone; ``note`` then says why.  ``sqnr_db`` is
    ``10 log10(sum x^2 / sum (x - q)^2)`` of the tensor against its codes.
    """

    module: str
    kind: str
    role: str
    quantizer: str = ""
    bits: int | None = None
    low: float | None = None
    high: float | None = None
    sqnr_db: float | None = None
    note: str = ""


@dataclass(frozen=True)
class QuantizeReport:
    """Every module of the model with what became of it."""

    rows: tuple[QuantizedRow, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def quantized(self) -> tuple[QuantizedRow, ...]:
        """The rows that were quantized."""
        return tuple(row for row in self.rows if row.bits is not None)

    @property
    def skipped(self) -> tuple[QuantizedRow, ...]:
        """The rows that were not."""
        return tuple(row for row in self.rows if row.bits is None)

    def tell(self, *, quiet: bool) -> None:
        """Print the table; where that is not wanted, warn of layers that the plan asks for and that stay real."""
        if not quiet:
            print(self)  # noqa: T201
            return
        for row in self.skipped:
            if row.note == SECOND_OUTPUT:
                warnings.warn(f"quantize_: {row.module} {row.note}", stacklevel=3)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"rows": [row.__dict__ for row in self.rows], "notes": list(self.notes)}

    def __str__(self) -> str:
        """A plain table."""
        header = ("module", "kind", "role", "quantizer", "bits", "range", "SQNR dB", "note")
        lines = [header, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
        text = "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
        return "\n".join([text, *self.notes])


def _cells(row: QuantizedRow) -> tuple[str, ...]:
    span = "" if row.low is None or row.high is None else f"{row.low:.3g} .. {row.high:.3g}"
    sqnr = "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
    bits = "-" if row.bits is None else str(row.bits)
    return (row.module, row.kind, row.role, row.quantizer or "-", bits, span, sqnr, row.note)
