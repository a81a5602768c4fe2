"""A layer's products over any leading axes: time merges into the batch, a shown input is summed once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spikequant.nn.products import float_paths
from spikequant.nn.products.encode import Coding
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.product import product
from spikequant.nn.products.proof import Widths
from spikequant.nn.products.weights import Packs, Weights
from spikequant.nn.products.work import Work

FLOATS = (torch.float32, torch.float64)


@dataclass
class LayerProduct:
    """What a layer multiplies with, and what its last product was.

    Attributes:
        taken: path of the last product, and the name under which its times are kept; empty before the first.
        widths: what its operands could be.
    """

    geometry: Geometry
    taken: list[str] = field(default_factory=list)
    widths: Widths | None = None

    @property
    def path(self) -> str | None:
        """The path of the last product."""
        return self.taken[0] if self.taken else None

    @property
    def key(self) -> str:
        """Under which name the last choice was made; empty where there was nothing to choose."""
        return self.taken[1] if len(self.taken) > 1 else ""

    def sums(
        self, x: Tensor, codes: Tensor, gain: Tensor | None, *, widths: Widths, packs: Packs,
        pad: Tensor | None = None, gained: Tensor | None = None, exact: bool = True, coding: Coding | None = None,
    ) -> Tensor:  # fmt: skip
        """``gain * (codes . x)``, exactly, in float32 or, where only that holds it, float64.

        Args:
            x: ``[..., features]`` or ``[..., C, *size]`` with one or two leading axes.
            codes: whole numbers; their gradient flows through `gained`.
            gain: whole numbers per output channel; None means 1.
            widths: what operands and sums can be.
            packs: what was made of this version of the codes so far.
            pad: input codes of the value zero, per channel, where they are not 0.
            gained: ``gain * codes``, which gradients need; without it the gain is multiplied to the sums.
            coding: where the codes came from; their gradient then goes straight to the weights, without `gained`.
            exact: False for the real codes of a soft quantizer, for which no proof holds: torch's own operation.
        """
        weight, self.widths = codes if gained is None else gained, widths
        if x.dtype != weight.dtype and x.dtype in (torch.float16, torch.bfloat16, torch.float64):
            x = x.to(weight.dtype)
        steps = x.shape[0]
        features = len(self.geometry.weight_shape) - 1 if self.geometry.is_conv else 1
        if x.dim() > features + 1 and steps > 1 and x.stride(0) == 0:
            once = self.sums(
                x[:1], codes, gain, widths=widths, packs=packs, pad=pad, gained=gained, exact=exact, coding=coding
            )
            return once.expand(steps, *once.shape[1:])
        if not exact or not self._is_ours(x, weight):
            sums = self._plainly(x, weight, widths, pad)
            return sums if gained is not None or gain is None else sums * self._over_channels(gain.to(sums))
        apart = gain is not None and gained is None
        return self._merged(x, weight, codes, gain, widths, packs, pad, apart, coding if gained is None else None)

    def _is_ours(self, x: Tensor, weight: Tensor) -> bool:
        ours = x.device.type == "cpu" and x.dtype == torch.float32 and weight.dtype == torch.float32
        return (
            ours
            and x.numel() > 0
            and not torch.compiler.is_compiling()
            and not torch._C._functorch.maybe_current_level()
        )

    def _over_channels(self, value: Tensor) -> Tensor:
        return value.reshape(-1, *([1] * len(self.geometry.stride)))

    def _merged(
        self, x: Tensor, weight: Tensor, codes: Tensor, gain: Tensor | None, widths: Widths, packs: Packs,
        pad: Tensor | None, gain_apart: bool, coding: Coding | None,
    ) -> Tensor:  # fmt: skip
        geometry, lead = self.geometry, x.shape
        if geometry.is_conv:
            features = len(geometry.weight_shape) - 1
            lead, size = x.shape[:-features], x.shape[-features:]
            x = x.reshape(-1, *size) if len(lead) != 1 else x
            x = x if features == 3 else x.unsqueeze(2)
        else:
            lead = x.shape[:-1]
            x = x.reshape(-1, x.shape[-1])[:, :, None, None]
        plane = geometry.in_two_axes()
        cut = plane.trimmed(tuple(x.shape[2:])) if geometry.is_conv and pad is None else None
        weight = (weight if coding is None else coding.weight).reshape(plane.weight_shape)
        codes = codes.reshape(plane.weight_shape)
        if cut is not None:
            plane, codes = cut[0], codes[cut[1]]
            weight, coding = (weight[cut[1]], None) if coding is None else (weight, replace(coding, part=cut[1]))
            packs = packs.setdefault(str(cut[1]), {})
        weights = Weights(codes, gain, plane, packs, not geometry.is_conv, gain_apart)
        work = Work(geometry if cut is None else plane, weights, widths, pad, codes.requires_grad, coding)
        out = product(x, weight, work, self.taken)
        if not geometry.is_conv:
            return out.flatten(1).reshape(*lead, out.shape[1])
        out = out if len(geometry.stride) == 2 else out.squeeze(2)
        if len(lead) == 1:
            return out
        apart: Tensor = out.unflatten(0, lead)  # type: ignore[no-untyped-call]
        return apart

    def _plainly(self, x: Tensor, weight: Tensor, widths: Widths, pad: Tensor | None) -> Tensor:
        """By torch's own operation: on another device, in another type, under a compiler or a transform."""
        geometry = self.geometry
        if widths.sums >= 2**24:
            x, weight = x.to(torch.float64), weight.to(torch.float64)
        self.taken[:] = [str(x.dtype).removeprefix("torch.")]
        if geometry.is_conv and x.dim() > len(geometry.weight_shape):
            merged = self._plainly(x.flatten(0, 1), weight, widths, pad)
            return merged.reshape(*x.shape[:2], *merged.shape[1:])
        with float_paths.float32_products("ieee"):
            if pad is not None and any(geometry.padding):
                x, geometry = float_paths.padded(x, geometry, pad), geometry.unpadded()
            return geometry.apply(x, weight)
