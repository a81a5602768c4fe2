"""`match_firing`: thresholds and biases of a quantized network, moved until it fires like the float one.

Post-training and without gradients: nothing but forward passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError, NotFrozen
from spikequant.measure import emd, matched_l1
from spikequant.nn import QuantizedNeuron
from spikequant.nn.reset import reset_states as reset
from spikequant.quantize.calibrate import materialized
from spikequant.quantize.firing_rates import Halves, float_rates, layer_rates, spiking
from spikequant.quantize.firing_search import Shifts, search
from spikequant.quantize.scales import flows_into


@dataclass(frozen=True, kw_only=True)
class MatchedLayer:
    """One neuron layer before and after, on the samples that were *not* searched on.

    Attributes:
        emd, emd_before: distance of the distributions of its rates from the float network's, in spikes per step.
        matched, matched_before: mean distance of each neuron's rate.
        rate, rate_before, float_rate: mean rates.
        moved: channels that kept a shift; the others were no better on these samples.
        channels: all of them.
    """

    path: str
    emd: float
    emd_before: float
    matched: float
    matched_before: float
    rate: float
    rate_before: float
    float_rate: float
    moved: int
    channels: int

    def __str__(self) -> str:
        return (
            f"{self.path}: EMD {self.emd_before:.4f} -> {self.emd:.4f}, rate {self.rate_before:.4f} -> {self.rate:.4f} "
            f"(float {self.float_rate:.4f}), {self.moved} of {self.channels} channels moved"
        )


@dataclass(frozen=True)
class FiringReport:
    """All spiking layers, front to back."""

    layers: tuple[MatchedLayer, ...]

    @property
    def emd(self) -> float:
        """Mean over layers, after."""
        return sum(layer.emd for layer in self.layers) / len(self.layers)

    @property
    def emd_before(self) -> float:
        """Mean over layers, before."""
        return sum(layer.emd_before for layer in self.layers) / len(self.layers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


@torch.no_grad()
def match_firing(
    model: nn.Module, float_model: nn.Module, batches: Iterable[Any], *, max_batches: int | None = 8
) -> FiringReport:
    """Move thresholds and biases, per channel, until each layer fires as it does in the float network; in place.

    Front to back, each layer on what the layers before it now give::

        min over (theta_c, b_c) of   mean_i |r_i - R_i| + |mean_i r_i - mean_i R_i|

    over the neurons i of a channel, r their rates and R those of the float network on the same
    data.  The search is a pattern search with five step sizes, all channels at once; it sees
    every other sample, and a channel keeps its shift only if the remaining samples agree.
    A layer whose firing in the whole network got no better, by the matched distance and by the EMD, goes back, and so
    does everything if the network as a whole is no better in the end.  Only the threshold that decides firing moves;
    what a soft reset takes away stays.  On a chip, biases stay.  Interrupted, the model is as it was.

    Call it between `calibrate` and `freeze`.  No label is used and no weight changes.

    Args:
        model: quantized and calibrated, not frozen.
        float_model: the network as it was before `quantize_`, layers under the same names.
        batches: ``(input, target)`` pairs (or inputs), as the models take them.
        max_batches: how many of them to look at.

    Raises:
        NotFrozen: nothing is quantized, or everything is frozen already.
        DataError: no batch, a single sample, values that are not finite, or a layer that `float_model` lacks.
    """
    neurons = {path: m for path, m in model.named_modules() if isinstance(m, QuantizedNeuron) and spiking(m)}
    if not neurons:
        raise NotFrozen(
            "there is no quantized spiking layer; call spikequant.quantize_(model, plan, example_input) first"
        )
    if any(neuron.is_frozen for neuron in neurons.values()):
        raise NotFrozen("the model is frozen; match its firing before spikequant.freeze(model)")
    inputs = materialized("match_firing", batches, max_batches)
    was_training = model.training
    model.eval()
    given = {path: Shifts.of(neuron) for path, neuron in neurons.items()}
    try:
        wanted = float_rates(float_model, inputs, list(neurons))
        return FiringReport(_matched(model, neurons, inputs, wanted, given))
    except BaseException as error:
        for path, neuron in neurons.items():
            given[path].put(neuron)
        if isinstance(error, RuntimeError):
            raise DataError(
                f"match_firing: a model cannot take an input of shape {tuple(inputs[0].shape)}: {error}"
            ) from error
        raise
    finally:
        model.train(was_training)
        reset(model)


Rates = dict[str, Halves]


def _matched(
    model: nn.Module, neurons: dict[str, QuantizedNeuron], inputs: list[Tensor], wanted: Rates, given: dict[str, Shifts]
) -> tuple[MatchedLayer, ...]:
    """Search layer by layer, keep what holds, and look at the network as a whole."""
    first = now = layer_rates(model, inputs, list(neurons))
    for path, neuron in neurons.items():
        now = _settled(model, path, neuron, inputs, wanted, now)
    if _distance(wanted, now) > _distance(wanted, first):
        now = first
        for path, neuron in neurons.items():
            given[path].put(neuron)
    return tuple(
        _told(path, given[path], Shifts.of(neuron), was=first[path], now=now[path], wanted=wanted[path])
        for path, neuron in neurons.items()
    )


def _settled(
    model: nn.Module, path: str, neuron: QuantizedNeuron, inputs: list[Tensor], wanted: Rates, before: Rates
) -> Rates:
    """Search one layer; what holds stays.  `before` and the result are the rates of all layers."""
    if before[path].searched.shape != wanted[path].searched.shape:
        raise DataError(
            f"match_firing: {path} has {tuple(before[path].searched.shape)} neurons, in the float model "
            f"{tuple(wanted[path].searched.shape)}; expected the network from before quantize_"
        )
    start = Shifts.of(neuron)
    flows = flows_into(model, neuron, inputs)
    currents = [calls[0] if neuron.step_mode == "m" else torch.stack(calls) for calls in flows]
    search(neuron, currents, wanted[path], start).put(neuron)
    after = layer_rates(model, inputs, list(before))
    r, was, now = (_held(rates[path]) for rates in (wanted, before, after))
    if matched_l1(r, now) < matched_l1(r, was) and emd(r, now) <= emd(r, was):
        return after
    start.put(neuron)
    return before


def _held(halves: Halves) -> npt.NDArray[np.float64]:
    """The rates that judge, in a row."""
    return halves.held.reshape(-1).numpy(force=True)


def _distance(wanted: Rates, rates: Rates) -> float:
    """What the whole network is judged by: EMD and matched distance, summed over layers."""
    pairs = [(_held(wanted[path]), _held(rates[path])) for path in rates]
    return sum(emd(r, s) + matched_l1(r, s) for r, s in pairs)


def _told(path: str, given: Shifts, found: Shifts, *, was: Halves, now: Halves, wanted: Halves) -> MatchedLayer:
    before, after, r = map(_held, (was, now, wanted))
    return MatchedLayer(
        path=path,
        emd=emd(r, after),
        emd_before=emd(r, before),
        matched=matched_l1(r, after),
        matched_before=matched_l1(r, before),
        rate=float(after.mean()),
        rate_before=float(before.mean()),
        float_rate=float(r.mean()),
        moved=found.differ_from(given),
        channels=found.bias.numel(),
    )
