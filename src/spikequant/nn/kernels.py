"""Which kernel runs a neuron layer: one fused over time, or the plain loop, and why.

Results are the same; what differs is speed, and gradients in the last bit of a float.  The choice depends on the
layer and on shapes alone, so that a run repeats.  ``SPIKEQUANT_KERNELS`` (``auto``, ``plain``, ``fused`` or ``all``)
sets it for a process, `using` for a block of code.  Kernels are C, or numba's where there is no compiler,
and Triton's on a GPU; ``SPIKEQUANT_KERNEL_ENGINE`` (``c``, ``numba``, ``triton``) or `using` takes one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from spikequant.law.errors import SpikequantError
from spikequant.law.spec import NeuronSpec
from spikequant.nn.asked import Asked
from spikequant.nn.first_use import disagreement
from spikequant.nn.fused import Call, layout_of, run_fused
from spikequant.nn.loop import Noise, States, add_per_step, run_over_time, zero_states
from spikequant.nn.torch_ops import TorchOps
from spikequant.nn.triton_kernel import interpreted, triton_forward_kernel, triton_missing
from spikequant.readers.kernels import ENGINES, LSB, ForwardKey, forward_of

if TYPE_CHECKING:
    from spikequant.nn.layer import NeuronLayer

Choice = Literal["auto", "plain", "fused", "all"]
SMALLEST = 2**14
"""Neuron-steps in one call from which a fused kernel is worth being compiled."""
SMALLEST_OF = {"c": SMALLEST, "numba": 2**17, "triton": 2**17}
"""The same by engine: numba and Triton compile for seconds, once per machine."""
CHOICE = Asked("choice of neuron kernels", "SPIKEQUANT_KERNELS", get_args(Choice))
ENGINE = Asked("kernel engine", "SPIKEQUANT_KERNEL_ENGINE", tuple(SMALLEST_OF))


def choice() -> str:
    """The choice that holds now."""
    return CHOICE.now() or "auto"


def engines(device: str = "cpu") -> tuple[str, ...]:
    """What may compile kernels for a type of device now, in the order in which it is tried."""
    asked = ENGINE.now()
    return (asked,) if asked else ENGINES if device == "cpu" else ("triton",)


@contextlib.contextmanager
def using(chosen: Choice, *, engine: str | None = None) -> Iterator[None]:
    """Run neuron layers in this block by the given choice.

    ``auto``: quantized layers fused where it is possible and large enough to pay; ``fused``: wherever it is possible;
    ``all``: as ``auto``, and layers of real neurons, too, whose float sums may then end in another last bit;
    ``plain``: the loop over `TorchOps`.  `engine`: only this one compiles kernels.

    >>> with using("plain"):
    ...     choice()
    'plain'
    """
    with CHOICE.within(chosen), ENGINE.within(engine):
        yield


def used(model: nn.Module) -> dict[str, str]:
    """What each neuron layer ran on last: ``fused`` (C), ``fused by numba`` or ``triton``, or ``plain`` and why."""
    return {name: module.kernel for name, module in model.named_modules() if getattr(module, "kernel", "")}


@dataclass(frozen=True, eq=False)
class Run:
    """One call of a layer: what it is given.

    Attributes:
        bias: added to the input of every step, besides the law's own; None without one.
        single: the input is one step without an axis of time.
    """

    ops: TorchOps
    spec: NeuronSpec
    params: Mapping[str, Tensor]
    bias: Tensor | None
    noise: Noise | None
    first_step: int
    keeps: bool
    single: bool = False


def run(layer: NeuronLayer, given: Run, x: Tensor, states: States | None) -> tuple[Tensor, States]:
    """Outputs ``[T, N, ...]`` (one step: ``[N, ...]``) and last states, by the kernel that choice and shapes ask for.

    `states` is None at rest.
    """
    if torch.compiler.is_compiling():
        return _looped(layer, given, x, states)
    reason, call, still = _fusable(layer, given, x)
    layer.kernel = f"plain: {reason}" if call is None else "fused" if call.engine == "c" else f"fused by {call.engine}"
    if call is not None:
        params = given.params if given.bias is None else {**given.params, "bias": given.bias}
        return run_fused(call, still, given.ops.lsb, params, states)
    return _looped(layer, given, x, states)


def _looped(layer: NeuronLayer, given: Run, x: Tensor, states: States | None) -> tuple[Tensor, States]:
    """The plain loop."""
    x = x[None] if given.single else x
    watch = layer.watch.append if layer.watch is not None else None
    noise_at = given.noise.words(x.shape[1:], x.device) if given.noise is not None else None
    if given.bias is not None:
        x = add_per_step(x, given.bias)
    start = zero_states(given.spec, x[0]) if states is None else states
    output, last = run_over_time(
        given.ops, given.spec, given.params, x, start, noise_at=noise_at, first_step=given.first_step, watch=watch
    )
    return (output[0] if given.single else output), last


def _fusable(layer: NeuronLayer, given: Run, x: Tensor) -> tuple[str, Call | None, Tensor]:
    """The call for a kernel and its input, or the reason why there is none."""
    chosen = choice()
    reason = _reason(layer, given, x, chosen)
    if reason:
        return reason, None, x
    params = dict(given.params) if given.bias is None else {**given.params, "bias": given.bias}
    base = x if given.single else _shown(x)
    still = base is not None
    step = base if base is not None else x[0]
    every = {**params, LSB: given.ops.lsb}
    layout = layout_of(step, every, noisy=given.noise is not None)
    if layout is None:
        still, base = given.single, x.contiguous()
        layout = layout_of(base if still else base[0], every, noisy=given.noise is not None)
    if layout is None:
        return "parameters that are no scalar and not one per channel", None, x
    base = x if base is None else base
    names = tuple(sorted(params))
    call = Call(
        given.spec, names, 1 if given.single else x.shape[0], still, given.single, given.keeps,
        given.ops.surrogate, given.ops.detach_reset, given.ops.compares, given.ops.rounds, layout, given.noise,
        given.first_step,
    )  # fmt: skip
    engine, missing = _engine(call.forward_key(base), x, chosen)
    call = replace(call, engine=engine)
    if engine == "triton":
        missing = disagreement(call, base, given.ops.lsb, params)
    return missing, None if missing else call, x if missing else base


def summing(layer: NeuronLayer, given: Run, x: Tensor) -> tuple[Any, Call, Tensor] | None:
    """A kernel in C that adds the spikes of each neuron up over all steps, its call and its input, or None."""
    reason, call, base = _fusable(layer, given, x)
    if call is None or call.engine != "c" or given.ops.dtype != torch.float32 or given.spec.output != "spike":
        return None
    key = replace(call.forward_key(base), bytes=True, summed=True)
    return None if reason or _missing("c", key) else (forward_of("c", key), call, base)


def _engine(key: ForwardKey, x: Tensor, chosen: str) -> tuple[str, str]:
    """The first engine that has this kernel, and why there is none."""
    reasons, places, device = {}, x.numel(), x.device.type
    for engine in engines(device):
        reason = _elsewhere(engine, device) or _missing(engine, key)
        if not reason and chosen != "fused" and places < SMALLEST_OF[engine]:
            reason = f"fewer than {SMALLEST_OF[engine]} neuron-steps"
        if not reason:
            return engine, ""
        reasons[engine] = reason
    return "", "; ".join(dict.fromkeys(reasons.values()))


def _elsewhere(engine: str, device: str) -> str:
    """Why an engine cannot serve a device; empty where it can."""
    if engine == "triton":
        return "" if device == "cuda" or interpreted() else "Triton is for a GPU"
    return "" if device == "cpu" else f"{engine} is for the CPU"


@cache
def _missing(engine: str, key: ForwardKey) -> str:
    """Why an engine has no kernel of a kind; empty where it has one.  Asked once: a compiler that fails is slow."""
    try:
        triton_forward_kernel(key) if engine == "triton" else forward_of(engine, key)
    except (SpikequantError, OSError) as error:  # no compiler, or no folder to keep what it makes
        return str(error).splitlines()[0]
    return ""


def _shown(x: Tensor) -> Tensor | None:
    """The one step that an expanded tensor shows at every step, as a part of the graph; None if there is none."""
    if x.shape[0] == 1 or x.stride(0) != 0:
        return None
    if not x.requires_grad:
        return x[0]
    base: Any = x._base
    plain = x.grad_fn is not None and x.grad_fn.name() == "ExpandBackward0" and not x._backward_hooks
    return (
        base if plain and base is not None and base.shape == x.shape[1:] and base.stride() == x.stride()[1:] else None
    )


def _reason(layer: NeuronLayer, given: Run, x: Tensor, chosen: str) -> str:
    """Why the plain loop runs; empty where nothing speaks against a kernel."""
    ops = given.ops
    if chosen == "plain":
        return "asked for"
    if not ops.rounds and (chosen != "all" or _shifts(given.spec)):
        return "real numbers" if chosen != "all" else "a leak of real numbers by shifts"
    if type(ops) is not TorchOps:
        return "another reader"
    if layer.watch is not None:
        return "states are watched"
    if type(x) is not Tensor or x.device.type not in ("cpu", "cuda") or _transformed():
        return "no plain tensor on the CPU or a GPU"
    if x.device.type == "cuda" and triton_missing():
        return triton_missing()
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != ops.dtype:
        return f"numbers of type {x.dtype}"
    if ops.surrogate.spike is not None:
        return "a spike function of another library"
    if x.numel() == 0:
        return "an empty input"
    if chosen in ("auto", "all") and x.numel() < SMALLEST:  # of every engine
        return f"fewer than {SMALLEST} neuron-steps"
    return ""


def _shifts(spec: NeuronSpec) -> bool:
    """Whether a leak of the spec shifts: over real numbers the length of the shift can be learned."""
    return any(leak is not None and "shift" in leak.form for leak in (spec.leak, spec.leak_i, spec.leak_a))


def _transformed() -> bool:
    """Inside a transform of torch.func."""
    return torch._C._functorch.peek_interpreter_stack() is not None


__all__ = ["Choice", "Run", "choice", "engines", "run", "used", "using"]
