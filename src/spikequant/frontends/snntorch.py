"""snnTorch 0.9 to 1.0: `Leaky`, `Synaptic`, `Lapicque`, `RLeaky`, `RSynaptic` become specs.

All fire on ``mem > threshold``.  The reset of the default (`reset_delay`) acts one step
later, by a comparison that in real numbers is the emitted spike.  Where it acts within the
step is a matter of each class: `Leaky` clears its membrane before the leak, the others
after the new input was added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import (
    Library,
    Reading,
    attribute,
    check_value,
    clamped,
    one_axis,
    read_neuron,
    refuse,
)
from spikequant.frontends.snntorch_calls import SnnCall, SnnRecurrent
from spikequant.frontends.snntorch_surrogate import read_surrogate
from spikequant.law.errors import Unsupported
from spikequant.law.presets import MULTIPLY
from spikequant.law.spec import NeuronSpec, Phase, ResetKind
from spikequant.nn import ValueSource, joined

NAME = "snnTorch"
NO_SPEC = {
    "Alpha": "two currents of different decay and no membrane of its own; use Synaptic",
    "SLSTM": "an LSTM cell; use Leaky or RLeaky",
    "SConv2dLSTM": "a convolutional LSTM cell; use Leaky or RLeaky",
    "LeakyParallel": "a hidden RNN that sees all steps at once; train with Leaky",
    "StateLeaky": "its membrane has no reset and is a convolution over time; use Leaky(reset_mechanism='none')",
    "LinearLeaky": "its membrane has no reset and is a convolution over time; use Leaky(reset_mechanism='none')",
    "AssociativeLeaky": "an associative memory, not a neuron with a membrane; use Leaky",
    "DeltaLeaky": "it fires on changes of the membrane; use Leaky",
    "GradedSpikes": "one learned size per spike between layers; fold it into the weights of the next layer",
}
RESETS: dict[str, ResetKind] = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
AT_END: dict[bool, tuple[Phase, ...]] = {True: ("reset_delayed", "fire"), False: ("fire", "reset")}
"""By `reset_delay`: the last phases of a step."""
TWICE = (
    "snnTorch compares the stored membrane again in the next step: where it is still above the threshold after its "
    "reset, the neuron there fires only above twice the threshold; read as a reset in the same step"
)


def read(path: str, module: nn.Module) -> Reading | None:
    """The reading of one module; None for what is no neuron."""
    kind = next(k for k in type(module).__mro__ if k.__module__.partition(".")[0] == "snntorch")
    if kind.__name__ in READERS:
        return READERS[kind.__name__](path, module, kind)
    if kind.__name__ in NO_SPEC:
        raise Unsupported(f"{path}: snnTorch's {kind.__name__} has no neuron spec ({NO_SPEC[kind.__name__]})")
    if hasattr(module, "spike_grad"):
        raise Unsupported(f"{path}: snnTorch's {kind.__name__} is not known; expected {', '.join(READERS)}")
    return None


def read_leaky(path: str, module: nn.Module, kind: type[nn.Module]) -> Reading:
    """`Leaky`: ``mem = beta mem + x``."""
    reset, delayed = _checked(path, module, kind)
    order: tuple[Phase, ...] = ("leak", "integrate", "fire", "reset")
    if delayed:
        order = ("leak", "integrate", "reset_delayed", "fire")
        if reset == "zero":
            order = ("reset_delayed", "leak", "integrate", "fire")
    return _reading(path, module, kind, order, reset, states=("v",))


def read_synaptic(path: str, module: nn.Module, kind: type[nn.Module]) -> Reading:
    """`Synaptic`: ``syn = alpha syn + x``; ``mem = beta mem + syn``."""
    reset, delayed = _checked(path, module, kind)
    check_value(path, "alpha", attribute(path, module, "alpha", NAME))
    order: tuple[Phase, ...] = ("decay_current", "add_current", "leak", "integrate", *AT_END[delayed])
    return _reading(path, module, kind, order, reset, states=("i", "v"))


def read_lapicque(path: str, module: nn.Module, kind: type[nn.Module]) -> Reading:
    """`Lapicque`: ``mem = (1 - dt / (R C)) mem + (dt / C) x``; its `beta` is only what R or C came from."""
    reset, _ = _checked(path, module, kind)
    for name in ("R", "C", "time_step"):
        value = attribute(path, module, name, NAME)
        if value.requires_grad:
            why = (
                "snnTorch computes it once when the neuron is built, so that learn_beta=True learns nothing; use Leaky"
            )
            raise refuse(path, name, "a function of the learned beta", why)
        check_value(path, name, value, least=0.0)
    if bool((lapicque_leak(module.R, module.C, module.time_step) < 0).any()):  # type: ignore[arg-type]
        raise refuse(path, "R C", "less than time_step", "the membrane would change its sign; use a smaller time_step")
    order: tuple[Phase, ...] = ("leak", "integrate", "reset_delayed", "fire")
    circuit = ("R", "C", "time_step")
    sources = {"leak": ValueSource(circuit, lapicque_leak), "gain": ValueSource(circuit, lapicque_gain)}
    return _reading(path, module, kind, order, reset, states=("v",), sources=sources, keeps=circuit)


def lapicque_leak(r: Tensor, c: Tensor, dt: Tensor) -> Tensor:
    """``1 - dt / (R C)``."""
    return 1 - one_axis(dt) / (one_axis(r) * one_axis(c))


def lapicque_gain(r: Tensor, c: Tensor, dt: Tensor) -> Tensor:
    """``dt / C``, as ``R (1 / (R C)) dt``."""
    return one_axis(r) * (1 / (one_axis(r) * one_axis(c))) * one_axis(dt)


def read_rleaky(path: str, module: nn.Module, kind: type[nn.Module]) -> Reading:
    """`RLeaky`: a `Leaky` that also sees ``recurrent(spk)`` of the step before; it clears after the sum."""
    reset, delayed = _checked(path, module, kind)
    order: tuple[Phase, ...] = ("leak", "integrate", *AT_END[delayed])
    return _recurrent(path, module, kind, _reading(path, module, None, order, reset, states=("v",)))


def read_rsynaptic(path: str, module: nn.Module, kind: type[nn.Module]) -> Reading:
    """`RSynaptic`: a `Synaptic` whose current also takes ``recurrent(spk)``."""
    reset, delayed = _checked(path, module, kind)
    check_value(path, "alpha", attribute(path, module, "alpha", NAME))
    if not delayed:
        why = "snnTorch 1.0 raises an error in the forward pass of this class; use reset_delay=True"
        raise refuse(path, "reset_delay", False, why)
    order: tuple[Phase, ...] = ("decay_current", "add_current", "leak", "integrate", *AT_END[True])
    return _recurrent(path, module, kind, _reading(path, module, None, order, reset, states=("i", "v")))


def _recurrent(path: str, module: Any, kind: type[nn.Module], reading: Reading) -> Reading:
    """The neurons and the recurrent weights as two layers in one module."""
    weights = attribute(path, module, "recurrent", NAME)
    if not module.all_to_all:
        why = "one weight back to each neuron is no layer of the law; use all_to_all=True with a diagonal weight"
        raise refuse(path, "all_to_all", False, why)
    cell = reading.neuron
    assert cell is not None
    whole = SnnRecurrent(cell, weights)
    whole.__class__ = joined(SnnRecurrent, kind)  # type: ignore[arg-type]
    whole.__dict__.update(_plain_attributes(module))
    whole.instances.append(whole)  # type: ignore[operator, union-attr]
    return Reading(module=whole, caveats=reading.caveats)


READERS = {
    "Leaky": read_leaky,
    "Synaptic": read_synaptic,
    "Lapicque": read_lapicque,
    "RLeaky": read_rleaky,
    "RSynaptic": read_rsynaptic,
}


def _checked(path: str, module: nn.Module, kind: type[nn.Module]) -> tuple[ResetKind, bool]:
    """Kind and time of the reset; raises on what no spec holds."""
    if type(module).forward is not kind.forward:
        raise Unsupported(
            f"{path}: {type(module).__name__} overrides the forward of {kind.__name__}; use the class itself"
        )
    for name, least in (("threshold", 0.0), ("beta", None)):
        check_value(path, name, attribute(path, module, name, NAME), least=least)
    if attribute(path, module, "inhibition", NAME):
        why = "a winner-take-all across the layer is no property of a neuron; train with inhibition=False"
        raise refuse(path, "inhibition", True, why)
    if attribute(path, module, "state_quant", NAME):
        why = (
            "its levels are no integers times the scale of the weights, so no register holds them; "
            f"build the neuron with state_quant=False and put {_bits_of(module.state_quant)} into the plan"
        )
        raise refuse(path, "state_quant", module.state_quant, why)
    graded = attribute(path, module, "graded_spikes_factor", NAME)
    if graded.numel() > 1 or isinstance(graded, nn.Parameter) or not float(graded) > 0:
        why = "expected one positive number that is not learned; fold it into the next layer's weights"
        raise refuse(path, "graded_spikes_factor", graded, why)
    return _reset(path, module), bool(getattr(module, "reset_delay", True))


def _bits_of(state_quant: Any) -> str:
    """The bits that a `state_quant` function has, in words of a plan."""
    for cell in getattr(state_quant, "__closure__", None) or ():
        if isinstance(cell.cell_contents, Tensor):
            return f"membrane = {{bits = {max(1, cell.cell_contents.numel() - 1).bit_length()}}}"
    return "its bits as those of the membrane"


def _reset(path: str, module: nn.Module) -> ResetKind:
    """What the bound state function does, which must be what the stored mechanism says."""
    function = getattr(attribute(path, module, "state_function", NAME), "__name__", "?")
    said = attribute(path, module, "reset_mechanism", NAME)
    stored = ("subtract", "zero", "none")[int(attribute(path, module, "reset_mechanism_val", NAME))]
    if RESETS.get(function) != said or stored != said:
        why = f"its update is {function}, its stored mechanism {stored!r}; build the neuron with the one you mean"
        raise refuse(path, "reset_mechanism", said, why)
    return RESETS[function]


def _reading(
    path: str,
    module: Any,
    kind: type[nn.Module] | None,
    order: tuple[Phase, ...],
    reset: ResetKind,
    *,
    states: tuple[str, ...],
    sources: Mapping[str, ValueSource] | None = None,
    keeps: tuple[str, ...] = (),
) -> Reading:
    """A neuron of the law; without `kind` the cell of a recurrent layer, whose states always go in and out."""
    delayed = bool(getattr(module, "reset_delay", True))
    has_current = "i" in states
    spec = NeuronSpec(
        order=order if reset != "none" else tuple(p for p in order if not p.startswith("reset")),
        leak=MULTIPLY,
        leak_i=MULTIPLY if has_current else None,
        reset=reset,
        compare=">",
    )
    values = {"threshold": ValueSource(("threshold",), one_axis), "leak": ValueSource(("beta",), clamped)}
    if has_current:
        values["leak_i"] = ValueSource(("alpha",), clamped)
    hidden = kind is not None and bool(module.init_hidden)
    names = ("threshold", "graded_spikes_factor", "reset_mechanism_val", "beta", *(["alpha"] if has_current else []))
    neuron = read_neuron(
        module,
        spec,
        {**values, **(sources or {})},
        SnnCall(states, hidden, bool(module.output) or not hidden),
        keeps=(*names, *keeps),
        foreign=kind,
        step_mode="s",
        surrogate=read_surrogate(path, module.spike_grad),
        detach_reset=delayed or reset == "none",
        spike_unit=float(module.graded_spikes_factor),
    )
    neuron.told = _plain_attributes(module)
    neuron.__dict__.update(neuron.told)
    return Reading(module=neuron, caveats=(TWICE,) if reset == "subtract" and not delayed else ())


def _plain_attributes(module: Any) -> dict[str, Any]:
    """What users read of a neuron besides its tensors."""
    names = ("init_hidden", "output", "inhibition", "state_quant", "reset_delay", "_reset_mechanism")
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def run(module: Any, x: Tensor) -> Tensor:
    """Spikes of a module over ``[T, N, ...]`` from rest, states handed on by hand unless they are hidden."""
    module.reset_mem()
    states: tuple[Any, ...] = ()
    spikes = []
    for current in x:
        answer = module(current, *states)
        handed = answer if hasattr(module, "recurrent") else answer[1:]
        states = () if module.init_hidden else tuple(handed)
        spikes.append(answer[0] if isinstance(answer, tuple) else answer)
    module.reset_mem()
    return torch.stack(spikes)


def reset(module: Any) -> None:
    """Put an original or a reading to rest."""
    module.reset_mem()


LIBRARY = Library(name=NAME, read=read, run=run, reset=reset)
