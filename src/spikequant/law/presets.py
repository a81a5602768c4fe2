"""The neurons by name: an order of phases for each behaviour that the field uses.

Each returns a *real* spec (no widths); `quantize_` or `dataclasses.replace` adds the
integer formats.  `docs/semantics.md` shows the equations and a trace worked by hand.
"""

from __future__ import annotations

from collections.abc import Callable

from spikequant.law.spec import Leak, NeuronSpec, Phase, ResetKind

MULTIPLY = Leak(form="multiply")


def _with_reset(order: tuple[Phase, ...], reset: ResetKind) -> tuple[Phase, ...]:
    """The order, without its reset phase for a neuron that is never reset."""
    return order if reset != "none" else tuple(p for p in order if p not in ("reset", "reset_delayed"))


def integrate_and_fire(*, reset: ResetKind = "subtract") -> NeuronSpec:
    """IF: ``v += x``; fire; reset now."""
    return NeuronSpec(order=_with_reset(("integrate", "fire", "reset"), reset), reset=reset)


def lif_leak_first(*, reset: ResetKind = "zero") -> NeuronSpec:
    """LIF: ``v = leak * v + x``; fire; reset now (SpikingJelly, Loihi)."""
    return NeuronSpec(order=_with_reset(("leak", "integrate", "fire", "reset"), reset), leak=MULTIPLY, reset=reset)


def lif_leak_last(*, reset: ResetKind = "zero") -> NeuronSpec:
    """LIF: ``v += x``; fire; reset; ``v = leak * v`` before it is stored (MINT)."""
    return NeuronSpec(order=_with_reset(("integrate", "fire", "reset", "leak"), reset), leak=MULTIPLY, reset=reset)


def lif_delayed_reset(*, reset: ResetKind = "subtract") -> NeuronSpec:
    """LIF whose reset acts one step after the spike (snnTorch's default, which subtracts).

    ``subtract``: ``v = leak * v + x - theta * s[t-1]``; ``zero``: the stored membrane is
    cleared before it leaks.
    """
    if reset == "zero":
        order: tuple[Phase, ...] = ("reset_delayed", "leak", "integrate", "fire")
    else:
        order = ("leak", "integrate", "reset_delayed", "fire")
    return NeuronSpec(order=_with_reset(order, reset), leak=MULTIPLY, reset=reset)


def cuba_lif(*, reset: ResetKind = "zero") -> NeuronSpec:
    """Current-based LIF, two states: ``i = leak_i * i + x + bias``; ``v = leak * v + i``; fire; reset."""
    order: tuple[Phase, ...] = ("decay_current", "add_current", "leak", "integrate", "fire", "reset")
    return NeuronSpec(order=_with_reset(order, reset), leak=MULTIPLY, leak_i=MULTIPLY, reset=reset)


def single_state(*, reset: ResetKind = "zero") -> NeuronSpec:
    """The one-state neuron of Lui & Neftci (2021): ``u = leak * (1 - s[t-1]) * u[t-1] + x + b``.

    It fires at ``u > 0``: the bias plays the threshold.  Clearing ``u`` as it is stored is
    the same as ``1 - s[t-1]`` in the next step and needs no stored spike.
    Source: arXiv 2104.14117, inference form.
    """
    order = _with_reset(("leak", "integrate", "fire", "reset"), reset)
    return NeuronSpec(order=order, leak=MULTIPLY, reset=reset, compare=">")


def adaptive_lif(*, reset: ResetKind = "zero", refractory: int = 5) -> NeuronSpec:
    """LIF with an adaptive threshold and a refractory time (Diehl & Cook 2015).

    ``a`` decays, the neuron fires at ``v >= theta + a``, and each spike raises ``a``;
    input is ignored for `refractory` steps after a spike.
    """
    order: tuple[Phase, ...] = ("decay_threshold", "leak", "integrate", "fire", "reset", "raise_threshold")
    order = _with_reset(order, reset)
    return NeuronSpec(order=order, leak=MULTIPLY, leak_a=MULTIPLY, reset=reset, refractory=refractory)


def multi_spike_if(*, spikes_max: int = 15) -> NeuronSpec:
    """IF that may fire up to `spikes_max` times in a step, subtracting each time (sinabs, Xylo)."""
    return NeuronSpec(order=("integrate", "fire"), reset="subtract", spikes_max=spikes_max)


def leaky_integrator() -> NeuronSpec:
    """A readout that does not spike: ``v = leak * v + x``; its membrane leaves it."""
    return NeuronSpec(order=("leak", "integrate"), leak=MULTIPLY, output="state")


PRESETS: dict[str, Callable[..., NeuronSpec]] = {
    "if": integrate_and_fire,
    "lif_leak_first": lif_leak_first,
    "lif_leak_last": lif_leak_last,
    "lif_delayed_reset": lif_delayed_reset,
    "cuba_lif": cuba_lif,
    "single_state": single_state,
    "adaptive_lif": adaptive_lif,
    "multi_spike_if": multi_spike_if,
    "leaky_integrator": leaky_integrator,
}
