"""Firing rates of one layer run alone with other membranes, and the one whose rates are nearest to a wide one's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from spikequant.nn import QuantizedNeuron, Register
from spikequant.nn.branch import NeuronChoice
from spikequant.nn.spike_counts import spikes_over_samples
from spikequant.quantize.settle_levels import sampled

CANDIDATES = ("toward_zero", "floor", "half_up", "half_even", "stochastic")
WIDE = Register(bits=24, rounding="half_even", asked=False)
Found = tuple[float, str, float, float]
"""``(error, rounding, reach, rate)`` of a candidate."""
MOST_EQUAL = 4
"""Reaches in a row that may do the same before a search downwards ends."""
Run = Callable[[Register, float], Tensor]
"""Rates of a layer in which one state has this register with this reach."""


def best_reach(
    run: Run,
    asked: Register,
    roundings: Sequence[str],
    limits: tuple[float, ...],
    wide: Tensor,
    *,
    step: float,
    farthest: float,
) -> Found:
    """The best of `limits` and, where none is better than the last, of `step` times that, as long as it does no harm.

    Short registers may all do the same: an inhibited membrane is back at its threshold at once, whether it may owe one
    threshold or eight; in one that is far too long all of a state rounds to 0.  Upwards the search ends at `farthest`,
    downwards after `MOST_EQUAL` equals.
    Each rounding has its own reach: one that truncates may be nearest in a short register, where its bias and that of
    clipping happen to cancel.
    """
    found = []
    for rounding in roundings:
        tried = [best(run, asked, (rounding,), (limit,), wide) for limit in limits]
        one, equal = min(tried, key=_error), 0
        while (
            one[0] > 0.0 and tried[-1][0] <= one[0] and (equal <= MOST_EQUAL if step < 1 else tried[-1][2] < farthest)
        ):
            tried.append(best(run, asked, (rounding,), (tried[-1][2] * step,), wide))
            equal = equal + 1 if tried[-1][0] == one[0] else 0
            one = min(one, tried[-1], key=_error)
        found.append(one)
    return min(found, key=lambda one: (one[0], one[2]))


def _error(found: Found) -> float:
    return found[0]


def best(run: Run, asked: Register, roundings: Sequence[str], limits: tuple[float, ...], wide: Tensor) -> Found:
    """The candidate whose rates are nearest to the wide ones."""
    found: list[Found] = []
    for limit in limits:
        for rounding in roundings:
            rates = run(dataclasses.replace(asked, rounding=rounding), limit)
            found.append((rate_error(rates, wide), rounding, limit, float(rates.mean())))
    return min(found, key=_error)


def roundings_of(neuron: QuantizedNeuron, asked: Register) -> tuple[str, ...]:
    """What to try; without negative codes `floor` is `toward_zero`, as what lies below 0 becomes 0."""
    if not asked.choose_rounding:
        return (asked.rounding,)
    alike = not asked.signed and asked.overflow == "saturate" and neuron.choice.chip is None
    return tuple(rounding for rounding in CANDIDATES if not (alike and rounding == "floor"))


def rate_error(rates: Tensor, wide: Tensor) -> float:
    """Matched L1 of the per-neuron rates plus the shift of their mean: neither noise nor bias goes unseen.

    In float64 and one order, so that near ties do not depend on how memory holds the rates.
    """
    rates, wide = (r.to(torch.float64).contiguous() for r in (rates, wide))
    return float((rates - wide).abs().mean() + (rates.mean() - wide.mean()).abs())


def alone(
    neuron: QuantizedNeuron,
    currents: list[Tensor],
    register: Register,
    limit: float,
    inflow: tuple[Register, float] | None = None,
) -> Tensor:
    """Per-neuron rates of a layer run alone with another membrane, and another inflow where one is given.

    Of a readout: the membranes of every sample, averaged over time.
    Where all that is given is `WIDE`, the layer keeps the peaks of its states, and which of them met the end of their
    register.  Who settles the layer proves its widths anew.
    """
    watches = register is WIDE and (inflow is None or inflow[0] is WIDE)
    found: list[Tensor] = []
    count, peaks, ended = 0, [], set()
    with _dressed(neuron, register, limit, inflow) as learned:
        neuron.seen = [] if learned and watches else neuron.seen
        for current in currents:
            neuron.watch = [] if watches else None
            neuron.reset()
            if neuron.real_spec.output == "state":
                found.append(neuron.advance(current).mean(0))
            else:
                found.append(spikes_over_samples(neuron, current))
            if neuron.watch:
                peaks.append({name: neuron.real_peaks(neuron.watch, name) for name in neuron.watch[0] if name in "vi"})
                ended |= {name for name in peaks[-1] if neuron.meets_the_end(neuron.watch, name)}
                if learned:
                    neuron.seen += [sampled(neuron.in_real_units(state)["v"]) for state in neuron.watch]
            count += current.shape[0] * current.shape[1]
        if peaks:
            neuron.peaks = {name: torch.stack([each[name] for each in peaks]).amax(0) for name in peaks[0]}
            neuron.ended = frozenset(ended)
    if neuron.real_spec.output == "state":
        return torch.cat(found)
    return sum(found[1:], found[0]) / (count * neuron.spike_unit)


@contextmanager
def _dressed(
    neuron: QuantizedNeuron, register: Register, limit: float, inflow: tuple[Register, float] | None
) -> Iterator[bool]:
    """Other registers for a while; gives whether the layer's own membrane has learned levels."""
    limits = [neuron.v_limit, neuron.get_buffer(f"{inflow_state(neuron)}_limit")]
    kept = (neuron.choice, neuron.step_mode, [buffer.clone() for buffer in limits])
    neuron.choice = dataclasses.replace(neuron.choice, membrane=register)
    neuron.v_limit.fill_(limit)
    if inflow is not None:
        set_inflow(neuron, *inflow)
    neuron.step_mode = "m"
    try:
        neuron.prove(neuron.integers())
        yield kept[0].membrane.learned
    finally:
        neuron.choice, neuron.step_mode, neuron.watch = kept[0], kept[1], None
        for buffer, was in zip(limits, kept[2], strict=True):
            buffer.copy_(was)


def inflow_state(neuron: QuantizedNeuron) -> str:
    """Which state the role `current` is: the synaptic current, or the sum of a step where there is none."""
    return "i" if neuron.real_spec.has_current else "x"


def with_inflow(neuron: QuantizedNeuron, register: Register) -> NeuronChoice:
    """A layer's choice with another register for what flows into its membranes."""
    if neuron.real_spec.has_current:
        return dataclasses.replace(neuron.choice, current=register)
    return dataclasses.replace(neuron.choice, input=register)


def set_inflow(neuron: QuantizedNeuron, register: Register, limit: float) -> None:
    """Give a layer that register, with this reach."""
    neuron.choice = with_inflow(neuron, register)
    neuron.get_buffer(f"{inflow_state(neuron)}_limit").fill_(limit)
