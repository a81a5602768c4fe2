"""SpikingJelly 2.0: `IFNode`, `LIFNode`, `ParametricLIFNode`, their simple forms and `CUBALIFNode` become specs.

All fire on ``v >= v_threshold``, and reset within the step: by subtraction where `v_reset`
is None, else to `v_reset`.  The leak pulls toward `v_reset`, and the first step starts
there, so everything is read in ``u = v - v_reset``: a neuron that leaks toward 0, starts at
0 and is reset to 0, with the threshold ``v_threshold - v_reset``.

    LIF, decay_input        u = (1 - 1/tau) u + x / tau
    LIF, not decay_input    u = (1 - 1/tau) u + x
    parametric LIF          the same with 1/tau = sigmoid(w)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Library, Reading, attribute, refuse
from spikequant.frontends.spikingjelly_calls import SpikingJellyCall
from spikequant.frontends.spikingjelly_layers import LAYERS, NO_LAYER
from spikequant.frontends.spikingjelly_surrogate import read_surrogate
from spikequant.law.errors import Unsupported
from spikequant.law.presets import MULTIPLY, cuba_lif, integrate_and_fire, lif_leak_first
from spikequant.law.spec import NeuronSpec, ResetKind
from spikequant.nn import Neuron, ValueSource, adopt

NAME = "SpikingJelly"
KNOWN = "IFNode, LIFNode, ParametricLIFNode, SimpleIFNode, SimpleLIFNode and CUBALIFNode"
NO_NEURON = {
    "QIFNode": "its membrane grows with its square",
    "EIFNode": "its membrane grows exponentially",
    "IzhikevichNode": "two states with a quadratic drive",
    "AdaptBaseNode": "its adaptation current has no place in a spec",
    "KLIFNode": "a ReLU with a learned slope stands between its membrane and its threshold",
    "GatedLIFNode": "learned gates mix its leaks and resets",
    "ComplementaryLIFNode": "a second state subtracts from its membrane after a spike",
    "LIAFNode": "what leaves it is a function of the membrane, not a spike",
    "PSN": "it sees all steps at once and has no reset",
    "MaskedPSN": "it sees many steps at once and has no reset",
    "SlidingPSN": "it sees a window of steps and has no reset",
    "RAFNode": "its state is a complex oscillation",
    "TernaryIFNode": "its spikes have a sign",
    "TernaryLIFNode": "its spikes have a sign",
    "ILIFNode": "what leaves it is a count of up to max_spike_count that a trained quantizer rounds",
    "HalfThresholdIFNode": "it starts at half its threshold, and an integer network starts from rest",
    "ActivationAwareIFNode": "it starts from a learned offset, and an integer network starts from rest",
    "STBIFNode": "it fires negative spikes and remembers how many it sent",
    "MPBNBaseNode": "batch norm stands between its membrane and its threshold",
    "DSRIFNode": "it works on rates, not on steps",
    "DSRLIFNode": "it works on rates, not on steps",
    "OTTTLIFNode": "in training it hands on traces besides spikes",
    "SLTTLIFNode": "its training cuts the gradient through time",
    "NonSpikingBaseNode": "it gives membranes as a list or decoded; put spikequant.nn.LeakyIntegrator in its place",
    "NoisyBaseNode": "noise moves its membrane",
    "NoisyNonSpikingBaseNode": "noise moves its membrane",
    "ILCBaseNode": "a second input comes from another layer's membrane",
    "FewSpikeNode": "its threshold and reset change from step to step",
    "FlexSN": "its dynamics are a function of the user's own",
}
METHODS = (
    "forward", "single_step_forward", "multi_step_forward", "single_step_functional_forward",
    "multi_step_functional_forward", "materialize_states", "neuronal_charge", "neuronal_fire", "neuronal_reset",
)  # fmt: skip


def read(path: str, module: nn.Module) -> Reading | None:
    """The reading of one module; None for what needs none."""
    kinds = [k for k in type(module).__mro__ if k.__module__.partition(".")[0] == "spikingjelly"]
    for kind in kinds:
        if kind.__name__ in NEURONS:
            return _read_neuron(path, module, kind)
        if kind.__name__ in NO_NEURON:
            raise Unsupported(
                f"{path}: SpikingJelly's {kind.__name__} has no neuron spec ({NO_NEURON[kind.__name__]}); "
                f"expected {KNOWN}"
            )
        if kind.__name__ in LAYERS:
            return LAYERS[kind.__name__](path, module)
        if kind.__name__ in NO_LAYER:
            raise Unsupported(f"{path}: SpikingJelly's {kind.__name__}: {NO_LAYER[kind.__name__]}")
        if kind.__name__ in ("BaseNode", "SimpleBaseNode"):
            raise Unsupported(f"{path}: {type(module).__name__} is not a neuron that is known; expected {KNOWN}")
    return None


# -- neurons ---------------------------------------------------------------------------

Values = tuple[NeuronSpec, dict[str, Tensor], dict[str, ValueSource]]


def _double(value: float) -> Tensor:
    """A Python number in full; a scalar of any type leaves the type of a calculation as it is."""
    return torch.tensor(value, dtype=torch.float64)


def remains(w: Tensor) -> Tensor:
    """``1 - sigmoid(w)``: the share of the membrane that a parametric LIF keeps."""
    return torch.sigmoid(-w)


def _if(path: str, module: Any, reset: ResetKind) -> Values:
    """``u = u + x``."""
    return integrate_and_fire(reset=reset), {}, {}


def _lif(path: str, module: Any, reset: ResetKind) -> Values:
    """``u = (1 - 1/tau) u + x``, or ``+ x / tau``."""
    tau = _number(path, module, "tau")
    if tau < 1.0:
        raise refuse(path, "tau", tau, "expected a time constant of at least one step")
    values = {"leak": _double(1.0 - 1.0 / tau)}
    if module.decay_input:
        values["gain"] = _double(1.0 / tau)
    return lif_leak_first(reset=reset), values, {}


def _parametric(path: str, module: Any, reset: ResetKind) -> Values:
    """The same with ``1/tau = sigmoid(w)``; `w` stays what is learned."""
    w = attribute(path, module, "w", NAME)
    if w.numel() != 1 or not bool(torch.isfinite(w).all()):
        raise refuse(path, "w", tuple(w.shape), "expected one finite number")
    sources = {"leak": ValueSource(("w",), remains)}
    if module.decay_input:
        sources["gain"] = ValueSource(("w",), torch.sigmoid)
    return lif_leak_first(reset=reset), {"w": w}, sources


def _cuba(path: str, module: Any, reset: ResetKind) -> Values:
    """``c = c_decay c + x``; ``v = v_decay v + c``."""
    if module.v_reset not in (None, 0.0):
        raise refuse(path, "v_reset", module.v_reset, "its leak pulls toward 0 while it is reset elsewhere; use 0.0")
    values = {
        "leak": _double(_number(path, module, "v_decay")),
        "leak_i": _double(_number(path, module, "c_decay")),
    }
    return cuba_lif(reset=reset), values, {}


NEURONS: dict[str, Callable[[str, Any, ResetKind], Values]] = {
    "IFNode": _if,
    "SimpleIFNode": _if,
    "LIFNode": _lif,
    "SimpleLIFNode": _lif,
    "ParametricLIFNode": _parametric,
    "CUBALIFNode": _cuba,
}


def _read_neuron(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    _check(path, module, kind)
    v_reset = None if module.v_reset is None else _number(path, module, "v_reset")
    spec, values, sources = NEURONS[kind.__name__](path, module, "subtract" if v_reset is None else "zero")
    threshold = _number(path, module, "v_threshold") - (v_reset or 0.0)
    starts_at_zero = kind.__name__.startswith("Simple") and v_reset
    if starts_at_zero:
        spec, values = _reset_to_a_value(spec, values, v_reset or 0.0)
        threshold = module.v_threshold
    values["threshold"] = _double(threshold)
    own = {name: ValueSource((name,)) for name in values if name != "w"}
    neuron = Neuron(
        spec,
        {},
        sources={**own, **sources},
        step_mode=module.step_mode,
        surrogate=read_surrogate(path, module.surrogate_function),
        detach_reset=bool(module.detach_reset),
        carries=True,
    )
    for name, value in values.items():
        if isinstance(value, nn.Parameter):
            setattr(neuron, name, value)
        else:  # Python numbers of the library: no part of its checkpoints
            neuron.register_buffer(name, value, persistent=False)
    call = SpikingJellyCall(
        v_threshold=float(module.v_threshold),
        v_reset=v_reset,
        offset=0.0 if starts_at_zero else v_reset or 0.0,
        facts=tuple(
            (n, getattr(module, n)) for n in ("tau", "decay_input", "c_decay", "v_decay") if hasattr(module, n)
        ),
        surrogate_function=module.surrogate_function,
    )
    adopt(neuron, kind, call)
    neuron.store_v_seq = bool(getattr(module, "store_v_seq", False))  # type: ignore[assignment]
    return Reading(module=neuron)


def _reset_to_a_value(
    spec: NeuronSpec, values: Mapping[str, Tensor], v_reset: float
) -> tuple[NeuronSpec, dict[str, Tensor]]:
    """The simple neurons start at 0, not at `v_reset`: ``v = (1 - 1/tau) v + x + v_reset / tau``."""
    found = {**values, "reset_to": _double(v_reset)}
    if spec.leak == MULTIPLY:
        found["v_bias"] = (1.0 - found["leak"]) * v_reset
    return spec.replace(reset="value"), found


def _number(path: str, module: Any, name: str) -> float:
    """A Python number of a module."""
    value = attribute(path, module, name, NAME)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
        value = float(value)
    if not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise refuse(path, name, value, "expected one finite Python number")
    return float(value)


def _check(path: str, module: Any, kind: type[nn.Module]) -> None:
    """Raise on what the reading would drop."""
    changed = [m for m in METHODS if getattr(type(module), m, None) is not getattr(kind, m, None)]
    if changed:
        raise Unsupported(
            f"{path}: {type(module).__name__} overrides {changed[0]} of {kind.__name__}; use the class itself"
        )
    if getattr(module, "_neuron_precision", None) is not None:
        why = "its state is stored in reduced precision; train on with the default and put its bits into the plan"
        raise refuse(path, "_neuron_precision", module._neuron_precision, why)
    simple = kind.__name__.startswith("Simple")
    rest = 0.0 if simple or module.v_reset is None else module.v_reset
    if module.get_reset_value("v") != rest:
        why = f"it starts there, and an integer network starts from rest, {rest}"
        raise refuse(path, "the reset value of v", module.get_reset_value("v"), why)
    if kind.__name__ == "SimpleLIFNode" and module.v_reset is None:
        raise refuse(path, "v_reset", None, "SimpleLIFNode cannot run without one; use LIFNode")


# -- the whole library -----------------------------------------------------------------


def run(module: Any, x: Tensor) -> Tensor:
    """Spikes of a module over ``[T, N, ...]`` from rest, in its own step mode."""
    module.reset()
    spikes: Tensor = module(x) if module.step_mode == "m" else torch.stack([module(step) for step in x])
    module.reset()
    return spikes


def reset(module: Any) -> None:
    """Put an original or a reading to rest."""
    module.reset()


def gather(module: Any, calls: list[Tensor]) -> Tensor:
    """The steps of all calls in a row: in either mode the state goes on from call to call."""
    return torch.cat(calls) if module.step_mode == "m" else torch.stack(calls)


LIBRARY = Library(name=NAME, read=read, run=run, reset=reset, gather=gather)
