"""Norse 1.1: `LIFCell`, `LIF`, `LIFBoxCell`, `IAFCell`, `IAF`, recurrent LIF and the leaky integrators as specs.

All fire on ``v > v_th``.  In LIF and LI the membrane sees the current with the new input, which
decays afterwards; ``g = dt tau_mem_inv``, ``h = dt tau_syn_inv``:

    LIF, LI         i <- i + x;  v <- (1 - g) v + g v_leak + g i;  i <- (1 - h) i
    LIFBox, LIBox   v <- (1 - g) v + g v_leak + g x
    IAF             v <- v + x

The first step starts at ``v_leak`` (IAF: at ``v_reset``), so everything is read in ``u = v - v_leak``: a
neuron that leaks toward 0 and starts there, with the threshold ``v_th - v_leak``, reset to ``v_reset - v_leak``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Library, Reading, attribute, one_axis, refuse
from spikequant.frontends.norse_calls import NorseCall, NorseLinear, NorseRecurrent
from spikequant.frontends.norse_surrogate import read_surrogate
from spikequant.frontends.norse_values import NAME, check_rate, decay, difference, gain, parameters_of
from spikequant.law.errors import Unsupported
from spikequant.law.presets import MULTIPLY
from spikequant.law.spec import NeuronSpec, Phase, ResetKind
from spikequant.nn import Neuron, NeuronLayer, ValueSource, adopt, joined

KNOWN = "LIFCell, LIF, LIFBoxCell, IAFCell, IAF, LIFRecurrentCell, LIFRecurrent, LICell, LI, LILinearCell, LIBoxCell"
NO_SPEC = {
    "LIFRefrac": "it holds its membrane during the refractory time while its current goes on",
    "LIFAdExRefrac": "its membrane grows exponentially",
    "LIFAdEx": "its membrane grows exponentially",
    "LIFEx": "its membrane grows exponentially",
    "LIFMC": "its membranes pull at each other",
    "LIFCorrelation": "it gathers correlations besides spikes",
    "CobaLIF": "its inputs change its time constant",
    "LSNN": "its threshold rises by a decaying part of each spike, with one decay and one gain from the same constant",
    "Izhikevich": "two states with a quadratic drive",
}
NO_LAYER = {
    "LConv2d": "use Lift(torch.nn.Conv2d(...))",
    "RegularizationCell": "take it out of the network; it is only part of a loss",
    "RecurrentSequential": "it adds spikes of the step before to the input; use LIFRecurrent",
}
Order = tuple[Phase, ...]
CURRENT_FIRST: Order = ("add_current", "leak", "integrate", "decay_current")
FIRE: Order = ("fire", "reset")


def read(path: str, module: nn.Module) -> Reading | None:
    """The reading of one module; None for a container."""
    kind: Any = next(k for k in type(module).__mro__ if k.__module__.partition(".")[0] == "norse")
    name = kind.__name__
    if name in READERS:
        if type(module).forward is not kind.forward:
            raise Unsupported(f"{path}: {type(module).__name__} overrides the forward of {name}; use the class itself")
        return READERS[name](path, module, kind)
    for start, why in NO_SPEC.items():
        if name.startswith(start):
            raise Unsupported(f"{path}: Norse's {name} has no neuron spec ({why}); expected {KNOWN}")
    if name in NO_LAYER:
        raise Unsupported(f"{path}: Norse's {name}: {NO_LAYER[name]}")
    if hasattr(module, "state_fallback"):
        raise Unsupported(f"{path}: Norse's {name} is not a neuron that is known; expected {KNOWN}")
    return None


def _neuron(
    path: str, module: Any, p: Any, order: Order, *, current: bool, reset: ResetKind = "zero", rest: str = "v_leak"
) -> tuple[Neuron, Any]:
    """A neuron over real numbers that has the parameters of `p` as buffers, and `p`."""
    fires = "fire" in order
    sources: dict[str, ValueSource] = {}
    tensors: dict[str, Tensor] = {}
    if "leak" in order:
        dt = float(attribute(path, module, "dt", NAME))
        tensors["time_step"] = torch.tensor(dt, dtype=torch.float64)
        for name, value in (("tau_mem_inv", "leak"), ("tau_syn_inv", "leak_i"))[: 1 + current]:
            check_rate(path, p, name, dt)
            sources[value], tensors[name] = ValueSource(("time_step", name), decay), getattr(p, name)
        sources["gain"] = ValueSource(("time_step", "tau_mem_inv"), gain)
    tensors[rest] = getattr(p, rest)
    if fires:
        tensors["v_th"] = p.v_th
        sources["threshold"] = ValueSource(("v_th", rest), difference)
        if reset == "subtract":
            sources["reset_by"] = ValueSource(("v_th",), one_axis)
        if reset == "value":
            tensors["v_reset"] = p.v_reset
            sources["reset_to"] = ValueSource(("v_reset", rest), difference)
    spec = NeuronSpec(
        order=order,
        leak=MULTIPLY if "leak" in order else NeuronSpec.leak,
        leak_i=MULTIPLY if current else None,
        reset=reset if fires else "none",
        compare=">",
        output="spike" if fires else "state",
    )
    surrogate = read_surrogate(path, p) if fires else None
    neuron = Neuron(spec, {}, sources=sources, step_mode="s", surrogate=surrogate)
    for name, tensor in tensors.items():
        neuron.register_buffer(name, tensor, persistent=False)  # in Norse they are no part of checkpoints
    return neuron, p


def _reset(p: Any, rest: str) -> ResetKind:
    """To rest, or to a value."""
    fixed = not (p.v_reset.requires_grad or getattr(p, rest).requires_grad)
    return "zero" if fixed and bool((p.v_reset == getattr(p, rest)).all()) else "value"


def _adopted(neuron: Neuron, module: Any, kind: type[nn.Module], p: Any, states: tuple[str, ...], rest: str) -> Reading:
    neuron.step_mode = "m" if over_time(module) else "s"
    neuron.carries = True
    records = bool(getattr(module, "record_states", False))
    adopt(neuron, kind, NorseCall(states, _state_class(kind), p, float(module.dt), rest, records))
    return Reading(module=neuron)


def _state_class(kind: type[nn.Module]) -> type:
    """The named tuple in which Norse hands the states on."""
    names = {"LIF": "LIFFeedForwardState", "LIFCell": "LIFFeedForwardState", "LIFBoxCell": "LIFBoxFeedForwardState",
             "IAF": "IAFFeedForwardState", "IAFCell": "IAFFeedForwardState", "LI": "LIState", "LICell": "LIState",
             "LILinearCell": "LIState", "LIBoxCell": "LIBoxState", "LIFRecurrent": "LIFState",
             "LIFRecurrentCell": "LIFState"}  # fmt: skip
    found: type = getattr(sys.modules[kind.__module__], names[kind.__name__])
    return found


# -- neurons ---------------------------------------------------------------------------


def _activation(path: str, module: Any, expected: str) -> None:
    name = getattr(attribute(path, module, "activation", NAME), "__name__", "?")
    if name != expected:
        why = f"expected {expected}; build the layer with method='super' (its spikes are the same)"
        raise refuse(path, "activation", name, why)


def read_lif(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LIFCell` and `LIF`."""
    _activation(path, module, "lif_feed_forward_step")
    p = parameters_of(path, module, ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset"))
    neuron, p = _neuron(path, module, p, (*CURRENT_FIRST, *FIRE), current=True, reset=_reset(p, "v_leak"))
    return _adopted(neuron, module, kind, p, ("v", "i"), "v_leak")


def read_box(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LIFBoxCell`; its reset is a function of the user's choice."""
    _activation(path, module, "lif_box_feed_forward_step")
    p = parameters_of(path, module, ("tau_mem_inv", "v_leak", "v_th", "v_reset"))
    name = getattr(p.reset_method, "__name__", "?")
    if name not in ("reset_value", "reset_subtract"):
        raise refuse(path, "p.reset_method", name, "expected Norse's reset_value or reset_subtract")
    reset = "subtract" if name == "reset_subtract" else _reset(p, "v_leak")
    neuron, p = _neuron(path, module, p, ("leak", "integrate", *FIRE), current=False, reset=reset)
    return _adopted(neuron, module, kind, p, ("v",), "v_leak")


def read_iaf(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`IAFCell` and `IAF`; they start at `v_reset`, which is subtracted."""
    _activation(path, module, "iaf_feed_forward_step")
    p = parameters_of(path, module, ("v_th", "v_reset"))
    neuron, p = _neuron(path, module, p, ("integrate", *FIRE), current=False, rest="v_reset")
    return _adopted(neuron, module, kind, p, ("v",), "v_reset")


def read_recurrent(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LIFRecurrentCell` and `LIFRecurrent`: input and recurrent weights around a `LIFCell` whose reset is detached."""
    _activation(path, module, "lif_step")
    p = parameters_of(path, module, ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset"))
    neuron, p = _neuron(path, module, p, (*CURRENT_FIRST, *FIRE), current=True, reset=_reset(p, "v_leak"))
    neuron.detach_reset, neuron.carries = True, True
    adopt(neuron, nn.Module, NorseCall(("v", "i"), _state_class(kind), p, module.dt, "v_leak", False))
    return _joined(NorseRecurrent(neuron, module), module, kind)


def _joined(whole: nn.Module, module: Any, kind: type[nn.Module]) -> Reading:
    whole.__class__ = joined(type(whole), kind)  # type: ignore[arg-type]
    names = ("p", "dt", "input_size", "hidden_size", "autapses", "record_states")
    whole.__dict__.update({name: getattr(module, name) for name in names if hasattr(module, name)})
    return Reading(module=whole)


# -- readouts --------------------------------------------------------------------------


def _readout(path: str, module: Any, order: Order) -> tuple[Neuron, Any]:
    current = "add_current" in order
    p = parameters_of(path, module, ("tau_syn_inv", "tau_mem_inv", "v_leak")[0 if current else 1 :])
    if p.v_leak.requires_grad or bool((p.v_leak != 0).any()):
        raise refuse(path, "v_leak", p.v_leak, "what leaves this layer would be shifted by it; use v_leak = 0")
    return _neuron(path, module, p, order, current=current)


def read_li(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LICell` and `LI`: the membrane leaves the layer."""
    _activation(path, module, "li_feed_forward_step")
    return _adopted(*_swap(_readout(path, module, CURRENT_FIRST), module, kind), ("v", "i"), "v_leak")


def read_li_box(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LIBoxCell`."""
    _activation(path, module, "li_box_feed_forward_step")
    return _adopted(*_swap(_readout(path, module, ("leak", "integrate")), module, kind), ("v",), "v_leak")


def _swap(found: tuple[Neuron, Any], module: Any, kind: type[nn.Module]) -> tuple[Neuron, Any, type[nn.Module], Any]:
    return found[0], module, kind, found[1]


def read_li_linear(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    """`LILinearCell`: a weight in front of a `LICell`."""
    neuron, p = _readout(path, module, CURRENT_FIRST)
    neuron.carries = True
    adopt(neuron, nn.Module, NorseCall(("v", "i"), _state_class(kind), p, module.dt, "v_leak", False))
    return _joined(NorseLinear(neuron, module), module, kind)


READERS: dict[str, Callable[[str, Any, type[nn.Module]], Reading]] = {
    "LIFCell": read_lif,
    "LIF": read_lif,
    "LIFBoxCell": read_box,
    "IAFCell": read_iaf,
    "IAF": read_iaf,
    "LIFRecurrentCell": read_recurrent,
    "LIFRecurrent": read_recurrent,
    "LICell": read_li,
    "LI": read_li,
    "LIBoxCell": read_li_box,
    "LILinearCell": read_li_linear,
}


# -- the whole library -----------------------------------------------------------------


def over_time(module: Any) -> bool:
    """Whether a call of an original or a reading takes all steps."""
    return module.step_mode == "m" if isinstance(module, NeuronLayer) else hasattr(module, "record_states")


def run(module: Any, x: Tensor) -> Tensor:
    """What leaves a module over ``[T, N, ...]`` from rest, the state handed on by hand where it does one step."""
    if over_time(module):
        train: Tensor = module(x)[0]
        return train
    state, spikes = None, []
    for step in x:
        z, state = module(step, state)
        spikes.append(z)
    return torch.stack(spikes)


def reset(module: Any) -> None:
    """Nothing: the state is with the caller."""


def gather(module: Any, calls: list[Tensor]) -> Tensor:
    """The steps of all calls in a row."""
    return torch.cat(calls) if over_time(module) else torch.stack(calls)


LIBRARY = Library(name=NAME, read=read, run=run, reset=reset, gather=gather)
