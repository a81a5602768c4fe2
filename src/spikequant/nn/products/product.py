"""The product that layers call: exact sums forward by the fastest path, gradients backward in float32 or bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikequant.nn.products import float_paths, gradients
from spikequant.nn.products.byte_input import ByteInput
from spikequant.nn.products.event_gradients import event_gradient, is_sparse_matrix, matrix_gradient_of_events
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.gradient_type import gradient_type
from spikequant.nn.products.work import Work, run


class _Handle(torch.autograd.Function):
    """Zeros in the shape of `x`, in no memory, with the gradient of `x`: what stands for it in a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)  # a first backward pass brings nothing here: no zeros for it
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Tensor | None:
        return grad_outputs[0]


class _Product(torch.autograd.Function):
    """``x * w`` (`Work`); keeps `x` as bytes where it was packed, and rebuilds it for the gradient of the weights.

    Where the work knows how its codes came about, `weight` are the float weights before that.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor | None, weight: Tensor, work: Work, seen: list[str]) -> Tensor:
        sums, packed, name = run(work, x, weight)
        seen[:] = name
        ctx.work, ctx.packed, ctx.x_shape, ctx.x_dtype = work, packed, x.shape, x.dtype
        ctx.half = gradient_type() is torch.bfloat16 and x.dtype == torch.float32
        scale = None if work.coding is None else work.coding.scale  # kept so that its change is an error
        kept = (weight, handle, scale) if packed is not None else (weight, x, scale)
        ctx.save_for_backward(*(value for value in kept if value is not None))
        return sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,), work, packed = grad_outputs, ctx.work, ctx.packed
        weight, *rest = ctx.saved_tensors
        geometry: Geometry = work.weights.geometry
        if g.dtype != weight.dtype:
            g = g.to(weight.dtype)
        wants_x, _, wants_weight = ctx.needs_input_grad[:3]
        if work.coding is not None:
            return _through_codes(ctx, g, weight, rest[:-1], wants_x, wants_weight)
        half = ctx.half and not torch.is_grad_enabled()
        g, w = (g.bfloat16(), weight.bfloat16()) if half else (g, weight)
        toward_x = gradients.input_gradient(g, ctx.x_shape, w, geometry).to(weight.dtype) if wants_x else None
        if not wants_weight:
            return toward_x, None, None, None, None
        return toward_x, None, _toward_weight(g, w, packed, rest, work).to(weight.dtype), None, None


def _through_codes(
    ctx: Any, g: Tensor, weight: Tensor, rest: list[Tensor], wants_x: bool, wants_weight: bool
) -> tuple[Tensor | None, ...]:
    """The way back where `weight` are the float weights that the codes were made of."""
    work: Work = ctx.work
    coding, codes, gain = work.coding, work.weights.plain, work.weights.gains()
    assert coding is not None
    again = torch.is_grad_enabled()
    if again:
        codes = coding.codes(weight, codes).reshape(codes.shape)
    half = ctx.half and not again
    g = g.bfloat16() if half else g
    w, toward_x, toward = codes.bfloat16() if half else codes, None, None
    if wants_x:
        toward_x = gradients.input_gradient(g, ctx.x_shape, codes, work.weights.geometry, gain).to(codes.dtype)
    if wants_weight:
        whole = not again and work.pad is None and coding.part is None
        if ctx.packed is not None and whole and is_sparse_matrix(g, ctx.packed):
            toward = matrix_gradient_of_events(g, ctx.packed, coding, gain)
        else:
            toward = coding.gradient(_toward_weight(g, w, ctx.packed, rest, work).to(codes.dtype), weight, gain)
        toward = toward.reshape(weight.shape)
    coding.passed()
    return toward_x, None, toward, None, None


def _toward_weight(g: Tensor, weight: Tensor, packed: ByteInput | None, rest: list[Tensor], work: Work) -> Tensor:
    """The gradient of the weights in the type of `weight`; of events always in float32, from gradients as they are."""
    geometry = work.weights.geometry
    again = torch.is_grad_enabled()
    has_border = work.pad is not None and geometry.padding != (0, 0)
    if packed is None:
        x = rest[0].to(weight.dtype)
    else:
        whole = g.float() if g.dtype == torch.bfloat16 else g
        found = None if again or has_border else event_gradient(whole, packed)
        if found is not None:
            return found
        x = packed.floats(weight.dtype)
        if again and rest:
            x = x + rest[0]
    if has_border:
        assert work.pad is not None
        x, geometry = float_paths.padded(x, geometry, work.pad), geometry.unpadded()
    return gradients.weight_gradient(g, x, weight, geometry)


def product(x: Tensor, weight: Tensor, work: Work, seen: list[str]) -> Tensor:
    """Exact sums of ``x: [N, C, H, W]`` with `weight`; `seen` takes the name of the path."""
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        sums, _, name = run(work, x, weight)
        seen[:] = name
        return sums
    handle: Tensor | None = _Handle.apply(x) if x.requires_grad else None  # type: ignore[no-untyped-call]
    result: Tensor = _Product.apply(x, handle, weight, work, seen)  # type: ignore[no-untyped-call]
    return result
