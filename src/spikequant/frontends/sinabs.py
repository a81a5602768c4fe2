"""sinabs 3.1: `IAF`, `LIF`, `ExpLeak` and their squeezed forms become specs; `SumPool2d` a pooling that sums.

All fire on ``v >= spike_threshold``, `MultiSpike` as often as the threshold fits into the membrane:

    i <- a_syn (i + x)  where `tau_syn` is given, else i = x          a = exp(-1 / tau)
    v <- a_mem v + i                                 ``+ (1 - a_mem) i`` with `norm_input`
    n = trunc(v / threshold),  v <- v - n threshold,  v <- max(v, min_v_mem)

The current is read as ``k = i / a_syn``, which decays before the input is added; its factors fold into the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Library, Reading, attribute, check_value, one_axis, refuse
from spikequant.frontends.sinabs_calls import CellOfSinabs, SinabsReading, SumPool
from spikequant.frontends.sinabs_surrogate import read_surrogate
from spikequant.law.errors import Unsupported
from spikequant.law.presets import MULTIPLY
from spikequant.law.spec import Leak, NeuronSpec, Phase, ResetKind
from spikequant.nn import Neuron, ValueSource, adopt, joined

NAME = "sinabs"
MOST_SPIKES = 31
NEURONS = ("IAF", "IAFSqueeze", "LIF", "LIFSqueeze", "ExpLeak", "ExpLeakSqueeze")
NO_SPEC = {
    "ALIF": "its surrogate has no gradient toward its adaptive threshold, and ours would",
    "IAFRecurrent": "write the loop over time with a single-step neuron of spikequant.nn",
    "LIFRecurrent": "write the loop over time with a single-step neuron of spikequant.nn",
    "SpikingMaxPooling2dLayer": "it compares counts over all steps so far; use SumPool2d or torch.nn.MaxPool2d",
    "NeuromorphicReLU": "convert the network with sinabs.from_torch.from_model first",
    "QuantizeLayer": "spikes are whole already; leave it out",
    "Cropping2dLayer": "crop the data, or the weights of the next layer",
    "ChannelShift": "order the channels of the next layer's weights instead",
    "Img2SpikeLayer": "it draws spikes at random; encode the data in front of the network",
    "Sig2SpikeLayer": "it draws spikes at random; encode the data in front of the network",
}
UNCAPPED = (
    f"MultiSpike has no cap and an integer neuron fires at most {MOST_SPIKES} times in a step: where a membrane is "
    f"above {MOST_SPIKES + 1} thresholds the rest stays for the next step"
)


def read(path: str, module: nn.Module) -> Reading | None:
    """The reading of one module; None for a container."""
    kind: Any = next(k for k in type(module).__mro__ if k.__module__.partition(".")[0] == "sinabs")
    name = kind.__name__
    if name in NEURONS:
        if type(module).forward is not kind.forward:
            raise Unsupported(f"{path}: {type(module).__name__} overrides the forward of {name}; use the class itself")
        return _read_neuron(path, module, kind)
    if name == "SumPool2d":
        return _read_sum_pool(path, module)
    for start, why in NO_SPEC.items():
        if name.startswith(start):
            raise Unsupported(f"{path}: sinabs' {name} has no integer form here ({why})")
    if hasattr(module, "does_spike"):
        raise Unsupported(f"{path}: sinabs' {name} is not known; expected {', '.join(NEURONS)}")
    return None


def _read_sum_pool(path: str, module: Any) -> Reading:
    if module.ceil_mode:
        raise refuse(path, "ceil_mode", True, "its last windows are not full; use ceil_mode=False")
    return Reading(module=SumPool(module.kernel_size, module.stride, divisor_override=1))


# -- values ----------------------------------------------------------------------------


def decay_of(tau: Tensor) -> Tensor:
    """``exp(-1 / tau)``."""
    return one_axis(torch.exp(-1.0 / tau))


def the_rest_of(tau: Tensor) -> Tensor:
    """``1 - exp(-1 / tau)``."""
    return 1 - decay_of(tau)


def gain_of_both(tau: Tensor, tau_syn: Tensor) -> Tensor:
    """``exp(-1 / tau_syn) (1 - exp(-1 / tau))``."""
    return decay_of(tau_syn) * the_rest_of(tau)


def rest(alpha: Tensor) -> Tensor:
    """``1 - alpha``."""
    return 1 - one_axis(alpha)


def rest_of_both(alpha: Tensor, alpha_syn: Tensor) -> Tensor:
    """``alpha_syn (1 - alpha)``."""
    return one_axis(alpha_syn) * rest(alpha)


Functions = tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]
FUNCTIONS: dict[bool, Functions] = {
    False: (decay_of, the_rest_of, gain_of_both),
    True: (one_axis, rest, rest_of_both),
}
"""By `train_alphas`: decay, input gain of the membrane, and gain with a current."""


def _decays(path: str, module: Any) -> dict[str, ValueSource]:
    """Leaks and gain, from the parameters that the layer has."""
    by_alpha = bool(attribute(path, module, "train_alphas", NAME))
    stem = "alpha" if by_alpha else "tau"
    decay, remainder, both = FUNCTIONS[by_alpha]
    mem = f"{stem}_mem" if getattr(module, f"{stem}_mem", None) is not None else None
    syn = f"{stem}_syn" if getattr(module, f"{stem}_syn", None) is not None else None
    for name in (n for n in (mem, syn) if n is not None):
        value = getattr(module, name)
        check_value(path, name, value, least=0.0)
        if (by_alpha and bool((value >= 1).any())) or (not by_alpha and bool((value == 0).any())):
            raise refuse(path, name, float(value.max()), "expected a decay between 0 and 1")
    found: dict[str, ValueSource] = {}
    if mem is not None:
        found["leak"] = ValueSource((mem,), decay)
    if syn is not None:
        found["leak_i"] = ValueSource((syn,), decay)
    if module.norm_input and mem is not None:
        found["gain"] = ValueSource((mem,), remainder) if syn is None else ValueSource((mem, syn), both)
    elif syn is not None:
        found["gain"] = ValueSource((syn,), decay)
    return found


# -- neurons ---------------------------------------------------------------------------


def _read_neuron(path: str, module: Any, kind: type[nn.Module]) -> Reading:
    sources = _decays(path, module)
    fires = attribute(path, module, "spike_fn", NAME) is not None
    most, caveats = _spikes(path, module) if fires else (1, ())
    reset = _reset(path, module, most) if fires else "none"
    order: tuple[Phase, ...] = ("decay_current", "add_current") if "leak_i" in sources else ()
    order += ("leak", "integrate") if "leak" in sources else ("integrate",)
    if fires:
        order += ("fire",) if most > 1 else ("fire", "reset")
        check_value(path, "spike_threshold", module.spike_threshold, least=torch.finfo(torch.float32).tiny)
        sources["threshold"] = ValueSource(("spike_threshold",), one_axis)
    floor = module.min_v_mem is not None
    if floor:
        if not fires:
            raise refuse(path, "min_v_mem", float(module.min_v_mem), "what leaves this readout is not bounded by it")
        check_value(path, "min_v_mem", module.min_v_mem)
        sources["floor"] = ValueSource(("min_v_mem",), one_axis)
        order += ("bound",)
    spec = NeuronSpec(
        order=order,
        leak=MULTIPLY if "leak" in sources else Leak(),
        leak_i=MULTIPLY if "leak_i" in sources else None,
        reset=reset,
        lower="floor" if floor else "none",
        spikes_max=most,
        output="spike" if fires else "state",
    )
    surrogate = read_surrogate(path, module, whole=most > 1) if fires else None
    neuron = Neuron(spec, {}, sources=sources, surrogate=surrogate, detach_reset=reset == "zero", carries=True)
    _move(path, module, neuron)
    adopt(neuron, next(k for k in kind.__mro__ if k.__name__ == "StatefulLayer"), CellOfSinabs())
    whole = SinabsReading(neuron, module)
    whole.__class__ = joined(SinabsReading, kind)  # type: ignore[arg-type]
    return Reading(module=whole, caveats=caveats)


def _move(path: str, module: Any, neuron: Neuron) -> None:
    """The parameters of the layer under their names, and what a soft reset subtracts."""
    for name, parameter in module.named_parameters(recurse=False):
        setattr(neuron, name, parameter)
    if neuron.spec.reset == "subtract" and neuron.spec.spikes_max == 1:
        amount = module.reset_fn.subtract_value
        if amount is not None:
            neuron.register_buffer("subtract_value", torch.as_tensor(float(amount)), persistent=False)
            neuron.sources["reset_by"] = ValueSource(("subtract_value",))


def _spikes(path: str, module: Any) -> tuple[int, tuple[str, ...]]:
    """How often a neuron may fire in a step, and what that leaves out."""
    function = module.spike_fn
    kind = function if isinstance(function, type) else type(function)
    if kind.__module__.partition(".")[0] == "sinabs":
        if kind.__name__ == "SingleSpike":
            return 1, ()
        most: Any = getattr(function, "max_num_spikes_per_bin", None)
        if kind.__name__ == "MultiSpike" or (kind.__name__ == "MaxSpike" and (most is None or most > MOST_SPIKES)):
            return MOST_SPIKES, (UNCAPPED,)
        if kind.__name__ == "MaxSpike" and most >= 1:
            return int(most), ()
    raise refuse(path, "spike_fn", function, "expected MultiSpike, SingleSpike or MaxSpike of at least 1")


def _reset(path: str, module: Any, most: int) -> ResetKind:
    function = module.reset_fn
    kind = type(function).__name__
    if type(function).__module__.partition(".")[0] != "sinabs" or kind not in ("MembraneSubtract", "MembraneReset"):
        raise refuse(path, "reset_fn", function, "expected MembraneSubtract or MembraneReset")
    if kind == "MembraneReset":
        if most > 1:
            why = "after several spikes in a step an integer neuron subtracts; use MembraneSubtract, or SingleSpike"
            raise refuse(path, "reset_fn", function, why)
        if function.reset_value != 0:
            why = "sinabs adds it to every membrane in every step, fired or not; use MembraneReset()"
            raise refuse(path, "reset_fn.reset_value", function.reset_value, why)
        return "zero"
    amount = function.subtract_value
    if most > 1 and amount is not None and bool((module.spike_threshold != amount).any()):
        why = "with several spikes in a step each subtracts the threshold; use subtract_value=None, or SingleSpike"
        raise refuse(path, "reset_fn.subtract_value", amount, why)
    return "subtract"


# -- the whole library -----------------------------------------------------------------


def run(module: Any, x: Tensor) -> Tensor:
    """What leaves a module over ``[T, N, ...]`` from rest, in its own layout of time and batch."""
    module.reset_states()
    given = x.transpose(0, 1)
    squeezed = hasattr(module, "num_timesteps")
    left: Tensor = module(given.flatten(0, 1) if squeezed else given)
    module.reset_states()
    apart = left.unflatten(0, given.shape[:2]) if squeezed else left  # type: ignore[no-untyped-call]
    found: Tensor = apart.transpose(0, 1)
    return found


def reset(module: Any) -> None:
    """Put an original or a reading to rest."""
    module.reset_states()


def gather(module: Any, calls: list[Tensor]) -> Tensor:
    """The steps of all calls in a row, time first: the state goes on from call to call."""
    if hasattr(module, "num_timesteps"):
        calls = [x.reshape(module.batch_size, module.num_timesteps, *x.shape[1:]) for x in calls]
    return torch.cat(calls, dim=1).transpose(0, 1)


LIBRARY = Library(name=NAME, read=read, run=run, reset=reset, gather=gather)
