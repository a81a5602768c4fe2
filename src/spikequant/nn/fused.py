"""A neuron layer over all time steps in one kernel: the torch side of `readers/kernels`.

The kernel reads the input and writes the output once; its backward pass computes the states of a block again instead
of keeping them.  A gradient of a gradient goes through the plain loop (`nn/loop.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikequant.law.spec import NeuronSpec
from spikequant.nn.loop import Noise, Prepared, States, run_over_time
from spikequant.nn.memory import POOL
from spikequant.nn.surrogate import Surrogate
from spikequant.nn.torch_ops import TorchOps
from spikequant.nn.triton_kernel import TritonKernel, triton_backward_kernel, triton_forward_kernel
from spikequant.readers.kernels import (
    LSB,
    BackwardKey,
    ForwardKey,
    Wanted,
    backward_of,
    forward_of,
)

PARALLEL_FROM = 2**16
"""Neuron-steps from which several threads pay."""
MOST_CHUNKS = 32
LONG = 64
"""Steps up to which the backward pass keeps the state of every step of a block."""


@dataclass(frozen=True)
class Layout:
    """How the places of one step lie in memory.

    Attributes:
        channels, inner: place ``p`` belongs to channel ``p // inner % channels``.
        channels_last: the channel is the fastest axis, though not the last one of the shape.
    """

    channels: int
    inner: int
    channels_last: bool


def layout_of(x: Tensor, params: Mapping[str, Tensor], *, noisy: bool) -> Layout | None:
    """The layout of one step ``x: [N, ...]``; None where it is not dense, or the parameters vary over several axes."""
    axis = _channel_axis(x, params)
    order = _order_in_memory(x)
    if axis is None or order is None:
        return None
    if order == sorted(order):
        if axis < 0:
            return Layout(1, max(1, x.numel()), False)
        return Layout(x.shape[axis], math.prod(x.shape[axis + 1 :]), False)
    if order[-1] == 1 and order[:-1] == sorted(order[:-1]) and axis in (-1, 1):
        return Layout(x.shape[1], 1, True)
    if noisy:  # its words count neurons in the order of the shape
        return None
    if axis < 0:
        return Layout(1, max(1, x.numel()), False)
    return Layout(x.shape[axis], math.prod(x.shape[k] for k in order[order.index(axis) + 1 :]), False)


def _order_in_memory(x: Tensor) -> list[int] | None:
    """Axes of more than one element from the slowest to the fastest; None if they leave gaps."""
    order = sorted((k for k in range(x.dim()) if x.shape[k] > 1), key=lambda k: x.stride(k), reverse=True)
    expected = 1
    for k in reversed(order):
        if x.stride(k) != expected:
            return None
        expected *= x.shape[k]
    return order


def _channel_axis(x: Tensor, params: Mapping[str, Tensor]) -> int | None:
    """The one axis over which parameters vary: -1 if none does, None if several do or one does not fit."""
    axes = set()
    for value in params.values():
        if value.numel() == 1:
            continue
        wide = [k for k in range(-value.dim(), 0) if value.shape[k] != 1]
        if len(wide) != 1 or value.dim() > x.dim() or x.shape[wide[0]] != value.numel():
            return None
        axes.add(wide[0] % x.dim())
    return None if len(axes) > 1 else (axes.pop() if axes else -1)


@dataclass(frozen=True, eq=False)
class Call:
    """Everything about one run of a layer that is no tensor to be learned through.

    Attributes:
        names: of the parameters, in the order in which they are given.
        steps: time steps; a `still` input ``[N, ...]`` is shown in each of them.
        single: one step, whose output has no axis of time.
        keeps: the last states leave the layer.
        engine: what compiles the kernel (`readers/kernels/engines.py`).
    """

    spec: NeuronSpec
    names: tuple[str, ...]
    steps: int
    still: bool
    single: bool
    keeps: bool
    surrogate: Surrogate
    detach_reset: bool
    compares: int
    rounds: bool
    layout: Layout
    noise: Noise | None
    first_step: int
    engine: str = "c"

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self.spec.state_formats())

    def forward_key(self, x: Tensor) -> ForwardKey:
        """The kernel that this call needs."""
        return ForwardKey(self.spec, self.names, self.compares, self.rounds, x.dtype == torch.float64)

    def sizes(
        self, x: Tensor, given: Mapping[str, Tensor], face: Any, *, grad_step: int = 0, chunks: int = 1
    ) -> list[int]:
        """The integers of `frame.c`."""
        step = x if self.still else x[0]
        places, shape = step.numel(), step.shape
        x_step = 0 if self.still else (x.stride(0) if self.steps > 1 else places)
        threads = torch.get_num_threads() if places * self.steps >= PARALLEL_FROM else 1
        segment = self.steps if self.steps <= LONG else math.isqrt(self.steps - 1) + 1
        first_sample = self.noise.first_sample if self.noise is not None else 0
        return [
            self.steps, places, self.layout.channels, self.layout.inner, x_step, grad_step, self.first_step,
            self.spec.adapt_every, threads, math.prod(shape[1:]), first_sample, int(self.layout.channels_last), chunks,
            segment, int(self.still), *(int(given[name].numel() > 1) for name in face.params),
        ]  # fmt: skip

    def keys(self, roles: tuple[str, ...], like: Tensor) -> Tensor | None:
        """What the noise of a step starts from, ``[steps, roles]`` words in int32; None without roles."""
        if not roles:
            return None
        assert self.noise is not None
        words = self.noise.keys(roles, self.first_step, self.steps).view(np.int32)
        return torch.from_numpy(words).to(like.device)


def run_forward(call: Call, x: Tensor, params: tuple[Tensor, ...], states: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Output ``[T, N, ...]`` in the memory format of `x`, and the last states if the call keeps them."""
    key = call.forward_key(x)
    kernel = triton_forward_kernel(key) if call.engine == "triton" else forward_of(call.engine, key)
    given = dict(zip(call.names, params, strict=True))
    step = x if call.still else x[0]
    shape, strides = (call.steps, *step.shape), (step.numel(), *step.stride())
    output = _empty(shape[1:], strides[1:], x) if call.single else _empty(shape, strides, x)
    new = [_empty(step.shape, step.stride(), x) for _ in call.states] if call.keeps else []
    values = [_plain(given[name], x.dtype) for name in kernel.face.params]
    old = [None if s is None else _like(s, step) for s in states]
    last: list[Tensor | None] = [*new] or [None] * len(call.states)
    operands = [x, output, call.keys(kernel.face.noises, x), *values, *old, *last]
    _launch(kernel, call.sizes(x, given, kernel.face), operands)
    return [output, *new]


def _launch(kernel: Any, sizes: list[int], operands: list[Tensor | None]) -> None:
    """Run a kernel: on tensors, or on their addresses."""
    if isinstance(kernel, TritonKernel):
        kernel(sizes, operands)
    else:
        kernel(sizes, [None if t is None else t.data_ptr() for t in operands])


def run_backward(
    call: Call,
    wanted: Wanted,
    x: Tensor,
    lsb: Tensor,
    params: tuple[Tensor, ...],
    states: tuple[Tensor | None, ...],
    gradients: tuple[Tensor | None, ...],
    needs_states: tuple[bool, ...],
) -> tuple[Tensor | None, dict[str, Tensor], list[Tensor | None]]:
    """Gradients of input, parameters (`LSB` among them) and old states."""
    key = BackwardKey(call.forward_key(x), wanted, call.surrogate.name)
    kernel = triton_backward_kernel(key) if call.engine == "triton" else backward_of(call.engine, key)
    face = kernel.face
    given = {**dict(zip(call.names, params, strict=True)), LSB: lsb}
    step = x if call.still else x[0]
    places = step.numel()
    grad, grad_step = _over_time(gradients[0], step, call)
    dx = None
    if wanted.x:
        shape, strides = (step.shape, step.stride()) if call.still else (x.shape, (places, *step.stride()))
        dx = _empty(shape, strides, x)
    blocks = -(-places // kernel.block)
    chunks = min(blocks, max(1, min(MOST_CHUNKS, 2**18 // (call.layout.channels * max(1, len(face.reduced))))))
    sums = torch.zeros(chunks, len(face.reduced), call.layout.channels, dtype=torch.float64, device=x.device)
    back = [_empty(step.shape, step.stride(), x) if need else None for need in needs_states]
    slope = torch.tensor([call.surrogate.slope], dtype=torch.float64, device=x.device)
    values = [_plain(given[name], x.dtype) for name in face.params]
    old = [None if s is None else _like(s, step) for s in states]
    above = [None if g is None else _like(g, step) for g in (gradients[1:] or (None,) * len(call.states))]
    operands = [x, grad, call.keys(face.noises, x), slope, *values, *old, *above, *back, dx, sums]
    _launch(kernel, call.sizes(x, given, face, grad_step=grad_step, chunks=chunks), operands)
    total = dict(zip(face.reduced, sums.sum(0), strict=True))
    reduced = {
        name: (value if given[name].numel() > 1 else value.sum()).reshape(given[name].shape).to(given[name].dtype)
        for name, value in total.items()
    }
    return dx, reduced, back


def _empty(shape: tuple[int, ...], strides: tuple[int, ...], like: Tensor) -> Tensor:
    """A dense tensor with the given strides that is no view: users may count in it in place."""
    if like.device.type != "cpu":
        return torch.empty_strided(shape, strides, dtype=like.dtype, device=like.device)
    memory = POOL.empty((math.prod(shape),), like.dtype).untyped_storage()
    return torch.empty(0, dtype=like.dtype).set_(memory, 0, shape, strides)


def _plain(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype).contiguous()


def _like(value: Tensor, step: Tensor) -> Tensor:
    """`value` as a tensor that lies in memory like one step of the input."""
    if value.dtype == step.dtype and _same_strides(value.stride(), step.stride(), step.shape):
        return value.detach()
    return _empty(step.shape, step.stride(), step).copy_(value.detach())


def _same_strides(one: tuple[int, ...], other: tuple[int, ...], shape: torch.Size) -> bool:
    return all(a == b or size == 1 for a, b, size in zip(one, other, shape, strict=True))


def _over_time(gradient: Tensor | None, step: Tensor, call: Call) -> tuple[Tensor, int]:
    """A gradient that lies like the output, and its stride over time (0: the same at every step)."""
    if gradient is None:
        return torch.zeros(step.numel(), dtype=step.dtype, device=step.device), 0
    if call.single or call.steps == 1 or gradient.stride(0) == 0:
        return _like(gradient if call.single else gradient[0], step), 0
    if gradient.dtype == step.dtype and _same_strides(gradient.stride()[1:], step.stride(), step.shape):
        return gradient, gradient.stride(0)
    whole = _empty((call.steps, *step.shape), (step.numel(), *step.stride()), step)
    return whole.copy_(gradient), step.numel()


class _FusedNeuron(torch.autograd.Function):
    """The kernel in the graph.  Arguments: call, x, lsb, parameters, old states (None: at rest)."""

    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, lsb: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(x, lsb, *rest)
        ctx.set_materialize_grads(False)
        count = len(call.names)
        return tuple(run_forward(call, x, rest[:count], rest[count:]))  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        x, lsb, *rest = ctx.saved_tensors
        count, needs = len(call.names), ctx.needs_input_grad
        params, states = tuple(rest[:count]), tuple(rest[count:])
        if torch.is_grad_enabled():
            return (None, *_differentiable(call, (x, lsb, *params, *states), needs[1:], gradients))
        moving = {name for name, need in zip(call.names, needs[3 : 3 + count], strict=True) if need}
        wanted = Wanted(needs[1], frozenset(moving | ({LSB} if needs[2] else set())), call.keeps, call.detach_reset)
        dx, reduced, back = run_backward(call, wanted, x, lsb, params, states, gradients, needs[3 + count :])
        return (
            None,
            dx,
            *(
                _given(reduced, n, t, need)
                for n, t, need in zip((LSB, *call.names), (lsb, *params), needs[2:], strict=False)
            ),
            *back,
        )


def _given(reduced: Mapping[str, Tensor], name: str, value: Tensor, need: bool) -> Tensor | None:
    if not need:
        return None
    return reduced[name] if name in reduced else torch.zeros_like(value)


def _differentiable(
    call: Call, inputs: tuple[Tensor | None, ...], needs: tuple[bool, ...], gradients: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The same gradients with a graph of their own, through the plain loop.

    Every input is seen through an alias: parameters that depend on each other must not share their gradients here.
    """
    with torch.enable_grad():
        alias = [None if t is None else t.view_as(t) for t in inputs]
        x, lsb, *rest = alias
        assert x is not None and lsb is not None
        outputs = run_plain(call, x, lsb, rest[: len(call.names)], rest[len(call.names) :])
        reached = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        asked = [t for t, need in zip(alias, needs, strict=True) if need and t is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in reached], asked, [g for _, g in reached], create_graph=True, allow_unused=True
            )
            if reached
            else [None] * len(asked)
        )
        return [next(found) if need and t is not None else None for t, need in zip(alias, needs, strict=True)]


def run_plain(call: Call, x: Tensor, lsb: Tensor, params: Any, states: Any) -> list[Tensor]:
    """What the kernel computes, by the loop over `TorchOps`."""
    train = x.expand(call.steps, *x.shape) if call.still else x
    ops = TorchOps(
        surrogate=call.surrogate, lsb=lsb if call.rounds else None, detach_reset=call.detach_reset, like=x,
        compares=call.compares,
    )  # fmt: skip
    start = {n: torch.zeros_like(train[0]) if s is None else s for n, s in zip(call.states, states, strict=True)}
    noise_at = call.noise.words(train.shape[1:], x.device) if call.noise is not None else None
    output, last = run_over_time(
        ops, call.spec, Prepared(zip(call.names, params, strict=True)), train, start, noise_at=noise_at,
        first_step=call.first_step,
    )  # fmt: skip
    output = output[0] if call.single else output
    return [output, *(last[name] for name in call.states)] if call.keeps else [output]


def run_fused(
    call: Call, x: Tensor, lsb: Tensor, params: Mapping[str, Tensor], states: Mapping[str, Tensor] | None
) -> tuple[Tensor, States]:
    """Outputs ``[T, N, ...]`` and, if the call keeps them, the last states."""
    rest = (*(params[name] for name in call.names), *(None if states is None else states[n] for n in call.states))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, lsb, *rest)):
        found = _FusedNeuron.apply(call, x, lsb, *rest)  # type: ignore[no-untyped-call]
    else:
        count = len(call.names)
        found = run_forward(call, x, rest[:count], rest[count:])  # type: ignore[arg-type]
    return found[0], dict(zip(call.states, found[1:], strict=False))
