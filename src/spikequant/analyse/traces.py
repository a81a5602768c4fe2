"""Traces by layer and role, as records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from spikequant.analyse.layer_facts import Facts
from spikequant.analyse.score import Score
from spikequant.law.errors import DataError, PlanError

CurvatureName = Literal["hessian", "gauss-newton", "fisher"]


@dataclass(frozen=True)
class LayerTrace:
    """The trace of one layer in one role: mean over probes, standard error of that mean."""

    layer: str
    role: str
    trace: float
    standard_error: float
    numel: int
    probes: int

    @property
    def mean_curvature(self) -> float:
        """Trace over count: the mean eigenvalue, HAWQ-V2's sensitivity."""
        return self.trace / self.numel


@dataclass(frozen=True)
class Traces:
    """Traces of all layers.

    Attributes:
        curvature: ``"hessian"``, ``"gauss-newton"`` or ``"fisher"``.
        surrogates: name of the surrogate by neuron layer, whose derivative the curvature contains.
        settled: whether the order of the layers is settled at the confidence that was asked for, or the error reached.
        words: what a reader must know: caveats of readings, negative traces.
        gauss_newton: the Gauss-Newton traces, made where a Hessian trace came out negative.
        facts: counts, errors of quantization and memory, for `allocate`; None of a quantized model.
    """

    rows: tuple[LayerTrace, ...]
    curvature: CurvatureName
    method: str
    surrogates: dict[str, str]
    settled: bool
    samples: int
    words: tuple[str, ...] = ()
    gauss_newton: Traces | None = None
    facts: Facts | None = None

    @property
    def name(self) -> str:
        """As `sensitivity` calls the method."""
        return self.curvature

    def places(self) -> list[tuple[str, str]]:
        """Layers with their roles, where their bits can be chosen."""
        facts = self._facts()
        return [(r.layer, r.role) for r in self.rows if facts.row(r.layer, r.role) is not None]

    def widths(self, layer: str, role: str) -> tuple[int, ...]:
        """The bits of which the error of quantization is known."""
        fact = self._facts().row(layer, role)
        return () if fact is None else tuple(sorted(fact.squared_error))

    def expected_rise(self, layer: str, role: str, bits: int) -> Score:
        """``1/2 Tr(H)/n |Q(x) - x|^2``, the squared error as a mean over the n numbers that the trace sums over.

        Raises:
            DataError: traces without facts, or no such layer.
            PlanError: an unknown width.
        """
        row, fact = self.row(layer, role), self._facts().row(layer, role)
        if fact is None or bits not in fact.squared_error:
            raise PlanError(f"{layer} {role}: {bits} bits; known: {self.widths(layer, role)}")
        half = 0.5 * fact.squared_error[bits]
        return Score(half * row.trace, half * row.standard_error)

    def allocatable(self) -> Traces:
        """Traces that are not negative: these, or the Gauss-Newton ones.

        Raises:
            DataError: negative ones, and no others.
        """
        if all(row.trace >= 0 for row in self.rows):
            return self
        if self.gauss_newton is None:
            names = ", ".join(f"{r.layer} {r.role}" for r in self.rows if r.trace < 0)
            raise DataError(f"negative traces ({names}) and no Gauss-Newton ones; use curvature='gauss-newton'")
        return replace(self.gauss_newton, facts=self.facts)

    def _facts(self) -> Facts:
        if self.facts is None:
            said = next((word for word in self.words if word.startswith("no counts")), "")
            raise DataError(
                f"these traces have {said or 'no counts and errors: the model is quantized already; take the real one'}"
            )
        return self.facts

    def row(self, layer: str, role: str = "weight") -> LayerTrace:
        """The trace of one layer in one role.

        Raises:
            DataError: there is none.
        """
        found = next((r for r in self.rows if (r.layer, r.role) == (layer, role)), None)
        if found is None:
            names = ", ".join(f"{r.layer} {r.role}" for r in self.rows)
            raise DataError(f"no trace of {layer!r} {role!r}; there are {names}")
        return found

    def ranked(self, role: str = "weight") -> list[LayerTrace]:
        """Layers of a role by mean curvature, the most sensitive first."""
        return sorted((r for r in self.rows if r.role == role), key=lambda r: -r.mean_curvature)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "curvature": self.curvature, "method": self.method, "surrogates": self.surrogates, "settled": self.settled,
            "samples": self.samples, "words": list(self.words),
            "rows": [{**vars(r), "mean_curvature": r.mean_curvature} for r in self.rows],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.curvature} by {self.method}, {self.samples} samples"]
        lines += [f"  {r.layer:24s} {r.role:10s} {r.trace:12.5g} +- {r.standard_error:.2g}" for r in self.rows]
        return "\n".join([*lines, *self.words])
