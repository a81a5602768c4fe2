"""Tables for people: in colour on a terminal, as blocks where that is narrow, as plain columns in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

GAP = "  "


@dataclass(frozen=True)
class Table:
    """Cells as text.  The first column names the row and stands left, all others stand right.

    >>> print(Table(("layer", "bits"), (("conv1", "4"), ("fc", "16"))).plain())
    layer  bits
    conv1     4
    fc       16
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    left: frozenset[str] = frozenset()

    @property
    def widths(self) -> list[int]:
        """Columns that each column needs."""
        return [max(len(line[k]) for line in (self.header, *self.rows)) for k in range(len(self.header))]

    @property
    def width(self) -> int:
        """Columns that the whole table needs."""
        return sum(self.widths) + len(GAP) * (len(self.header) - 1)

    def line(self, cells: Sequence[str]) -> str:
        """One row, aligned."""
        parts = [
            cell.ljust(width) if k == 0 or self.header[k] in self.left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, self.widths, strict=True))
        ]
        return GAP.join(parts).rstrip()

    def plain(self) -> str:
        """Aligned columns without any sign of their own: one row is one line, for grep and awk."""
        lines = [self.line(self.header), *(self.line(row) for row in self.rows)]
        return "\n".join([self.title, *lines] if self.title else lines)

    def blocks(self) -> str:
        """One block a row, one line a cell: for terminals narrower than the table."""
        names = max(len(name) for name in self.header[1:]) if len(self.header) > 1 else 0
        found = [self.title] if self.title else []
        for row in self.rows:
            cells = [f"  {n.ljust(names)}  {c}" for n, c in zip(self.header[1:], row[1:], strict=True) if c]
            found.append("\n".join([row[0], *cells]))
        return "\n".join(found)

    def show(self, console: Console) -> None:
        """Print in the form that fits: terminal, narrow terminal, or pipe."""
        if not console.is_terminal:
            console.print(Text(self.plain()), soft_wrap=True)
        elif self.width > console.width:
            console.print(Text(self.blocks()), soft_wrap=True)
        else:
            if self.title:
                console.print(Text(self.title, style="bold"), soft_wrap=True)
            console.print(Text(self.line(self.header), style="bold cyan"), soft_wrap=True)
            console.print(Text("\n".join(self.line(row) for row in self.rows)), soft_wrap=True)
