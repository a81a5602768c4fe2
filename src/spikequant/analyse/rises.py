"""What is measured when one layer alone is quantized: the rise of the loss, or of the EMD of the firing rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.analyse.curvature import Loss
from spikequant.analyse.inputs import loss_of
from spikequant.analyse.layer_facts import Facts, facts_of, weight_role
from spikequant.analyse.probe import Probe
from spikequant.analyse.score import Score
from spikequant.analyse.widths import whole_widths
from spikequant.frontends.registry import read_
from spikequant.law.errors import DataError, PlanError, Unsupported
from spikequant.measure import emd
from spikequant.nn.copying import copied
from spikequant.nn.reset import reset_states
from spikequant.plan import Plan, literally
from spikequant.quantize import calibrate, quantize_
from spikequant.training import check_batch
from spikequant.training.evaluate import called, pairs

Measure = Literal["loss", "emd"]
Batch = tuple[Tensor, Tensor]
GROUPS = 16
"""Parts of the samples that the standard error of an EMD leaves out one by one."""


@dataclass(frozen=True)
class Rise:
    """What one layer in one role at one width adds, and its standard error over the samples."""

    layer: str
    role: str
    bits: int
    rise: float
    standard_error: float


@dataclass(frozen=True)
class Rises:
    """Measured rises of single layers.

    Attributes:
        measure: ``"loss"`` (mean over samples) or ``"emd"`` (mean over layers, spikes a step).
        before: of the real network: its loss, or 0.
        facts: counts and memory, for `allocate`.
    """

    rows: tuple[Rise, ...]
    measure: Measure
    before: float
    samples: int
    facts: Facts
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `sensitivity` calls the method."""
        return f"{self.measure}-rise"

    def places(self) -> list[tuple[str, str]]:
        """Layers with their roles."""
        return list(dict.fromkeys((row.layer, row.role) for row in self.rows))

    def widths(self, layer: str, role: str) -> tuple[int, ...]:
        """The bits that were tried."""
        return tuple(sorted(row.bits for row in self.rows if (row.layer, row.role) == (layer, role)))

    def expected_rise(self, layer: str, role: str, bits: int) -> Score:
        """As measured, evened out: more bits are never worse and nothing is below 0 (isotonic regression).

        Raises:
            PlanError: a width that was not tried.
        """
        from scipy.optimize import isotonic_regression

        mine = sorted((row for row in self.rows if (row.layer, row.role) == (layer, role)), key=lambda row: row.bits)
        place = next((k for k, row in enumerate(mine) if row.bits == bits), None)
        if place is None:
            tried = ", ".join(str(row.bits) for row in mine) or "none"
            raise PlanError(f"{layer} {role} was not tried at {bits} bits, only at {tried}")
        even = isotonic_regression([row.rise for row in mine], increasing=False).x
        return Score(max(float(even[place]), 0.0), mine[place].standard_error)

    def allocatable(self) -> Rises:
        """What bits are allocated by: these."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "method": self.name, "before": self.before, "samples": self.samples, "words": list(self.words),
            "rows": [vars(row) for row in self.rows],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.measure} rise of single layers, {self.samples} samples"]
        lines += [
            f"  {r.layer:24s} {r.role:10s} {r.bits:3d} bits {r.rise:12.5g} +- {r.standard_error:.2g}" for r in self.rows
        ]
        return "\n".join([*lines, *self.words])


def measured_rises(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    *,
    measure: Measure = "loss",
    roles: Sequence[str] = ("weight", "membrane"),
    weight_widths: Iterable[int] = (2, 3, 4, 6, 8),
    membrane_widths: Iterable[int] = (4, 6, 8),
    calibrated: bool = True,
) -> Rises:
    """Quantize one layer's weights or membrane at a time and measure what that adds on the same samples.

    Loss: ``mean_n (L_n(quantized) - L_n(real))``, its error that of a mean of pairs.  EMD: `measure.emd` between the
    rates before and after, mean over layers; its error by leaving out a sixteenth of the samples at a time.

    Args:
        model: real; left as it is.
        loss: of outputs and targets, a mean over samples.
        batches: ``(input, target)``; read once and kept.
        measure: ``"loss"`` or ``"emd"``.
        roles: ``"weight"``, ``"membrane"``.
        weight_widths: tried for weights.
        membrane_widths: tried for membranes.
        calibrated: whether each copy is calibrated on the batches (batch norms keep their statistics).

    Raises:
        DataError: no batch, one that the model or the loss cannot take, a loss that is not finite.
        PlanError: widths that are no whole bits.
        Unsupported: an unknown role or measure.
        SpikequantError: a network without an integer form.
    """
    if measure not in ("loss", "emd"):
        raise Unsupported(f"measure {measure!r}; expected loss or emd")
    if isinstance(roles, str) or not roles or set(roles) - {"weight", "membrane"}:
        raise Unsupported(
            f"roles = {roles!r}; single layers are quantized in the roles weight and membrane, as a tuple"
        )
    widths = {"weight": whole_widths("weight", weight_widths), "membrane": whole_widths("membrane", membrane_widths)}
    if not isinstance(model, nn.Module):
        raise DataError(f"sensitivity: expected a torch nn.Module as model, got {type(model).__name__}")
    if not callable(loss):
        raise DataError(f"sensitivity: expected a function (output, target) as loss, got {type(loss).__name__}")
    kept = list(pairs(batches))
    if not kept:
        raise DataError("sensitivity: no batch; expected at least one (input, target)")
    for x, _ in kept:
        check_batch(x)
    facts = facts_of(model, *kept[0])
    see = _losses if measure == "loss" else _rates
    before, rows = see(model, loss, kept), []
    for fact in facts.rows:
        for bits in widths[fact.role] if fact.role in roles else []:
            alone = _alone(model, fact.layer, fact.role, bits, kept, calibrated=calibrated)
            after = see(alone, loss, kept)
            rise, error = _pair(before, after) if measure == "loss" else _emd_pair(before, after)
            rows.append(Rise(fact.layer, fact.role, bits, rise, error))
    if not rows:
        raise DataError(f"sensitivity: no layer has {' or '.join(roles)} to quantize")
    start = float(before["loss"].mean()) if measure == "loss" else 0.0
    return Rises(tuple(rows), measure, start, sum(len(y) for _, y in kept), facts)


def _alone(
    model: nn.Module, layer: str, role: str, bits: int, batches: Sequence[Batch], *, calibrated: bool
) -> nn.Module:
    """A copy in which one layer in one role is quantized, and nothing else."""
    asked: dict[str, Any] = {"bits": bits}
    if role == "weight":
        asked = weight_role(bits).model_dump(mode="json", exclude_none=True)
    plan = Plan.from_dict({"rules": [{"match": literally(layer), role: asked}]})
    alone = copied(model)
    quantize_(alone, plan, batches[0][0], quiet=True)
    if calibrated:
        calibrate(alone, batches, max_batches=2, refit_norms=False)  # other statistics would be another change
    return alone


@torch.no_grad()
def _losses(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> Mapping[str, npt.NDArray[np.float64]]:
    """The loss of every sample."""
    modes = [(module, module.training) for module in model.modules()]
    readings, found = read_(model), []
    model.eval()
    try:
        for x, y in batches:
            reset_states(model)
            outputs = called(model, x)
            if outputs.dim() < 2 or len(outputs) != len(y):
                raise DataError(f"expected outputs [N, classes] for {len(y)} targets, got {tuple(outputs.shape)}")
            found += [_number(loss, outputs[n : n + 1], y[n : n + 1]) for n in range(len(y))]
    finally:
        reset_states(model)
        readings.undo()
        for module, mode in modes:
            module.training = mode
    if not all(map(math.isfinite, found)):
        raise DataError("the loss of a sample is not finite; expected a finite number for each")
    return {"loss": np.array(found)}


def _number(loss: Loss, outputs: Tensor, targets: Tensor) -> float:
    value = loss_of(loss, outputs, targets)
    if value.numel() != 1:
        raise DataError(f"the loss of one sample has the shape {tuple(value.shape)}; expected one number")
    return float(value)


def _rates(model: nn.Module, _loss: Loss, batches: Sequence[Batch]) -> Mapping[str, npt.NDArray[np.float64]]:
    """Spikes a step of every sample and neuron, by layer."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {}
    with Probe(model, operations=False) as probe:
        for x, y in batches:
            for layer, train in probe.run(x, y).items():
                rates = train.double().mean(0).flatten(1)
                found.setdefault(layer, []).append(rates.numpy(force=True))
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def _pair(
    before: Mapping[str, npt.NDArray[np.float64]], after: Mapping[str, npt.NDArray[np.float64]]
) -> tuple[float, float]:
    rises = after["loss"] - before["loss"]
    error = float(rises.std(ddof=1)) / math.sqrt(len(rises)) if len(rises) > 1 else math.inf
    return float(rises.mean()), error


def _emd_pair(
    before: Mapping[str, npt.NDArray[np.float64]], after: Mapping[str, npt.NDArray[np.float64]]
) -> tuple[float, float]:
    """The mean EMD over layers, and its jackknife error."""
    samples = len(next(iter(before.values())))

    def value(kept: npt.NDArray[np.bool_]) -> float:
        return float(np.mean([emd(r[kept].mean(0), after[layer][kept].mean(0)) for layer, r in before.items()]))

    groups = min(GROUPS, samples)
    if groups < 2:
        return value(np.ones(samples, dtype=bool)), math.inf
    which = np.arange(samples) % groups
    left = np.array([value(which != k) for k in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(((left - left.mean()) ** 2).sum()))
    return value(np.ones(samples, dtype=bool)), error
