"""`hessian_trace`: how curved the loss is in every layer and role, with standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikequant.analyse.block_traces import block_trace
from spikequant.analyse.curvature import FLAT_SURROGATES, Curvature, Loss, Role
from spikequant.analyse.layer_facts import Facts, facts_of
from spikequant.law.errors import DataError, SpikequantError, Unsupported
from spikequant.nn import QuantizedNeuron, Surrogate, Synapse
from spikequant.training import check_batch
from spikequant.training.evaluate import pairs

CurvatureName = Literal["hessian", "gauss-newton", "fisher"]
METHODS = ("hutchinson", "hutch++", "xtrace")
LEAST_PROBES = 8
GROUP = 6
"""Products with the Hessian of a block that one run of Hutch++ or XTrace takes."""


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


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    roles: Sequence[Role] = ("weight",),
    curvature: CurvatureName = "hessian",
    method: str = "hutchinson",
    relative_error: float | None = None,
    confidence: float = 0.95,
    most_probes: int = 400,
    surrogate: Surrogate | None = None,
    seed: int = 0,
) -> Traces:
    """Trace of the loss's second derivative by layer and role, through time by back-propagation.

    Hutchinson: ``Tr H = E[v' H v]`` for vectors of random signs; one product with the whole Hessian gives a sample for
    every layer.  Probe k runs on batch ``k mod B`` and counts by its samples, so the mean is that over all samples and
    the standard error holds the spread of the data, too; it ends with whole rounds over the batches.
    ``hutch++`` (Meyer et al. 2021) and ``xtrace`` (Epperly et al. 2024) work layer by layer through curvlinops and run
    on the first batch; they pay where a block has few large eigenvalues.

    With surrogate gradients the "Hessian" is the derivative of the surrogate gradient: symmetric, but its trace may be
    negative.  The Gauss-Newton trace cannot be.

    It stops when every relative standard error is below `relative_error`, or, without one, when the order of the layers
    of each role is settled at `confidence` (of a single layer: when its error is below a tenth).  It looks for that
    after 8, 16, 32, ... probes.  At look j each pair of neighbours in the ranking must differ by a one-sided Student
    test at ``(1 - confidence) / (j (j + 1))``, divided by the number of all pairs of layers, so that having looked
    many times does not raise the share of wrong orders.  The model is in evaluation mode and comes back as it was.

    Args:
        model: real or quantized, not frozen.
        loss: of ``(outputs [N, classes], targets)``, a mean over samples.
        batches: ``(input, target)``; read once and kept.
        roles: ``"weight"``, ``"membrane"`` (before it fires, of all steps and samples; of a neuron with a synaptic
            current that current, and `Traces.words` says so), ``"threshold"``.
        curvature: ``"hessian"``, ``"gauss-newton"``, or ``"fisher"`` (empirical: mean squared gradient of a sample).
        method: ``"hutchinson"``; for the Hessian also ``"hutch++"`` or ``"xtrace"``.
        relative_error: see above.
        confidence: see above.
        most_probes: it ends here in any case, and `Traces.settled` says so.
        surrogate: takes the place of all surrogates; needed where one has no second derivative.
        seed: of the probes.

    Raises:
        Unsupported: unknown names, a frozen layer, a surrogate without a second derivative.
        DataError: no batch, a loss or an output of the wrong form, fewer probes than batches or than fourteen.
    """
    _check(curvature, method, relative_error, confidence, most_probes)
    if not callable(loss):
        raise DataError(f"hessian_trace: expected a function (output, target) as loss, got {type(loss).__name__}")
    kept = list(pairs(batches))
    if not kept:
        raise DataError("hessian_trace: no batch; expected at least one (input, target)")
    for x, _ in kept:
        check_batch(x)
    if method == "hutchinson" and most_probes < len(kept):
        raise DataError(
            f"hessian_trace: {len(kept)} batches and at most {most_probes} probes; every batch needs a probe: raise "
            "most_probes, or pass fewer batches"
        )
    with Curvature(model, loss, roles, surrogate) as at:
        if curvature == "hessian":
            _check_surrogates(at.surrogates)
        if method == "hutchinson":
            rows, settled = _hutchinson(at, kept, curvature, _Stop(relative_error, confidence), most_probes, seed)
        else:
            rows, settled = _blocks(at, kept[0], method, _Stop(relative_error, confidence), most_probes, seed)
        names, words, beside = dict(at.surrogates), _words(rows, at, settled), None
        if any(row.trace < 0 for row in rows):
            stop = _Stop(relative_error, confidence)
            other, sure = _hutchinson(at, kept, "gauss-newton", stop, most_probes, seed)
            beside = Traces(tuple(other), "gauss-newton", "hutchinson", names, sure, sum(len(y) for _, y in kept))
    samples = sum(len(y) for _, y in (kept if method == "hutchinson" else kept[:1]))
    facts = None
    try:
        facts = None if _is_quantized(model) else facts_of(model, *kept[0])
    except SpikequantError as error:  # traces tell something of a network that has no integer form, too
        words = (*words, f"no counts and errors of quantization for allocate: {error}")
    return Traces(tuple(rows), curvature, method, names, settled, samples, words, beside, facts)


def _hutchinson(
    at: Curvature, batches: Sequence[tuple[Tensor, Tensor]], curvature: str, stop: _Stop, most: int, seed: int
) -> tuple[list[LayerTrace], bool]:
    draw = {"hessian": at.hessian_sample, "gauss-newton": at.gauss_newton_sample, "fisher": at.fisher_sample}[curvature]
    generator = torch.Generator().manual_seed(seed)
    found: list[list[float]] = []
    sizes: list[int] = []
    rows: list[LayerTrace] = []
    last = most - most % len(batches)
    for k in range(last):
        x, y = batches[k % len(batches)]
        if len(batches) > 1 or k == 0:
            at.run(x, y)
        found.append(draw(generator))
        sizes.append(len(y))
        whole = (k + 1) % len(batches) == 0
        if (whole and k + 1 >= LEAST_PROBES) or k + 1 == last:
            rows = _rows(at, found, sizes)
            if stop(rows, len(found)):
                return rows, True
    return rows, False


def _blocks(
    at: Curvature, batch: tuple[Tensor, Tensor], method: str, stop: _Stop, most: int, seed: int
) -> tuple[list[LayerTrace], bool]:
    at.run(*batch)
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    found: list[list[float]] = []
    rows: list[LayerTrace] = []
    try:
        for _ in range(most // GROUP):
            found.append([block_trace(at, place, method, GROUP) for place in range(len(at.places))])
            if len(found) * GROUP >= LEAST_PROBES and len(found) > 1:
                rows = [replace(r, probes=len(found) * GROUP) for r in _rows(at, found, [1] * len(found))]
                if stop(rows, len(found)):
                    return rows, True
    finally:
        torch.random.set_rng_state(torch_state)
    return rows, False


def _is_quantized(model: nn.Module) -> bool:
    return any(isinstance(module, (Synapse, QuantizedNeuron)) for module in model.modules())


def _rows(at: Curvature, found: Sequence[Sequence[float]], sizes: Sequence[int]) -> list[LayerTrace]:
    """Means weighted by the samples behind each probe, and their standard errors (of a ratio of means)."""
    n, samples = len(found), torch.tensor(found, dtype=torch.float64)
    shares = (torch.tensor(sizes, dtype=torch.float64) / sum(sizes))[:, None]
    means = (shares * samples).sum(0)
    errors = ((shares * (samples - means)) ** 2).sum(0).sqrt() * math.sqrt(n / (n - 1))
    return [
        LayerTrace(place.layer, place.role, float(mean), float(error), place.numel, len(found))
        for place, mean, error in zip(at.places, means, errors, strict=True)
    ]


class _Stop:
    """Whether the traces are known well enough; of one run, since it remembers how often it has looked."""

    def __init__(self, relative_error: float | None, confidence: float) -> None:
        self.relative_error, self.confidence = relative_error, confidence
        self.looks, self.next_look = 0, 0

    def __call__(self, rows: Sequence[LayerTrace], estimates: int) -> bool:
        if self.relative_error is not None:
            # The size of the mean, not its sign: a negative running mean must not look settled.
            return all(r.standard_error <= self.relative_error * abs(r.trace) for r in rows)
        ranked = [_by_rank(rows, role) for role in {r.role for r in rows}]
        pairs = [pair for one in ranked for pair in itertools.pairwise(one)]
        if not pairs:
            return all(r.standard_error <= 0.1 * abs(r.trace) for r in rows)
        if estimates < self.next_look:
            return False
        self.looks, self.next_look = self.looks + 1, 2 * estimates
        # Which pairs are neighbours is chosen by the data, so the level is shared by all pairs.
        level = (1 - self.confidence) / sum(math.comb(len(one), 2) for one in ranked)
        return all(_differ(a, b, level / (self.looks * (self.looks + 1)), estimates) for a, b in pairs)


def _by_rank(rows: Sequence[LayerTrace], role: str) -> list[LayerTrace]:
    return sorted((r for r in rows if r.role == role), key=lambda r: -r.mean_curvature)


def _differ(a: LayerTrace, b: LayerTrace, level: float, estimates: int) -> bool:
    """One-sided test of Welch's kind, with the fewest degrees of freedom that it may have."""
    from scipy.special import stdtr

    gap = abs(a.mean_curvature - b.mean_curvature)
    error = math.hypot(a.standard_error / a.numel, b.standard_error / b.numel)
    return error == 0.0 or float(stdtr(estimates - 1, -gap / error)) < level


def _check(curvature: str, method: str, relative_error: float | None, confidence: float, most_probes: int) -> None:
    if curvature not in ("hessian", "gauss-newton", "fisher"):
        raise Unsupported(f"curvature {curvature!r}; expected hessian, gauss-newton or fisher")
    if method not in METHODS:
        raise Unsupported(f"method {method!r}; expected one of {', '.join(METHODS)}")
    if method != "hutchinson" and curvature != "hessian":
        raise Unsupported(f"method {method!r} works on the Hessian; for {curvature} use 'hutchinson'")
    if relative_error is not None and not relative_error > 0:
        raise DataError(f"relative_error is {relative_error}; expected a positive number, such as 0.05, or None")
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95")
    if most_probes < LEAST_PROBES + GROUP:
        raise DataError(f"most_probes is {most_probes}; a standard error needs at least {LEAST_PROBES + GROUP}")


def _check_surrogates(names: dict[str, str]) -> None:
    flat = {layer: name for layer, name in names.items() if name in FLAT_SURROGATES}
    if flat:
        layer, name = next(iter(flat.items()))
        raise Unsupported(
            f"{layer}: the second derivative of the surrogate {name!r} is 0 almost everywhere, so a Hessian trace "
            "would miss the spikes; pass surrogate=Surrogate('atan', 2.0) to replace it, or curvature='gauss-newton'"
        )


def _words(rows: Sequence[LayerTrace], at: Curvature, settled: bool) -> tuple[str, ...]:
    words = list(at.caveats)
    if at.surrogate is not None:
        words.append(f"every surrogate was replaced by {at.surrogate.name} of slope {at.surrogate.slope:g}")
    negative = [f"{r.layer} {r.role}" for r in rows if r.trace < 0]
    if negative:
        words.append(f"negative: {', '.join(negative)}; bits are allocated by the Gauss-Newton traces, which cannot be")
    if not settled:
        words.append("not settled: more probes would tell more")
    return tuple(words)
