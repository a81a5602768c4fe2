"""Dense gradients of a product: float32 by oneDNN, or by links where pictures are small (`conv_gradients.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.nn.products import conv_gradients
from spikequant.nn.products.geometry import Geometry

LAST_UP_TO = 256
"""Channels up to which channels last is the faster order for gradients."""


def input_gradient(
    g: Tensor, x_shape: torch.Size, weight: Tensor, geometry: Geometry, gain: Tensor | None = None
) -> Tensor:
    """``dL/dx`` for ``[N, C, H, W]`` of ``gain * weight``, in the type of `g`; differentiable."""
    plain = g.dtype == weight.dtype == torch.float32 and g.device.type == "cpu" and not torch.is_grad_enabled()
    if plain and not geometry.is_flat(tuple(x_shape[2:])) and conv_gradients.suits_links(geometry, x_shape):
        return conv_gradients.input_gradient_of_links(g, x_shape, weight, geometry, gain)
    if gain is not None:
        weight = (weight * gain[:, None, None, None]).to(g.dtype)
    if geometry.is_flat(tuple(x_shape[2:])):
        return (g[:, :, 0, 0] @ weight[:, :, 0, 0])[:, :, None, None]
    stand_in = weight.new_zeros(()).expand(x_shape)
    return _backward(g, stand_in, weight, geometry, (True, False))[0]


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """``dL/dw`` for ``[out, in / groups, kh, kw]``; differentiable."""
    if geometry.is_flat(tuple(x.shape[2:])):
        return (g[:, :, 0, 0].t() @ x[:, :, 0, 0])[:, :, None, None]
    return _backward(g, x, weight, geometry, (False, True))[1]


def _backward(
    g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    if not torch.is_grad_enabled() and max(weight.shape[:2]) <= LAST_UP_TO:
        g, weight = (value.contiguous(memory_format=torch.channels_last) for value in (g, weight))
        x = x.contiguous(memory_format=torch.channels_last) if wanted[1] else x
    with torch.autocast(g.device.type, enabled=False):
        toward_x, toward_weight, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0], geometry.groups,
            [*wanted, False],
        )  # fmt: skip
    return toward_x, toward_weight
