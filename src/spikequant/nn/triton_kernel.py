"""The kernels of `readers/kernels/triton_text.py` behind the call of the C ones: tensors on a GPU instead of addresses.

With ``TRITON_INTERPRET=1`` Triton runs them in numpy on the CPU, which is how they are tested where no GPU is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikequant.law.errors import Unsupported
from spikequant.readers.kernels import BackwardKey, ForwardKey, Surface, adjoint
from spikequant.readers.kernels.body import Body
from spikequant.readers.kernels.c_text import BLOCK
from spikequant.readers.kernels.numba_kernel import module_of
from spikequant.readers.kernels.numba_text import fixed_masks, fixed_reals
from spikequant.readers.kernels.triton_text import triton_backward, triton_forward

Operands = Sequence[Tensor | None]


def triton_missing() -> str:
    """Why there are no Triton kernels here, or nothing."""
    return "" if importlib.util.find_spec("triton") is not None else "triton is not installed"


def interpreted() -> bool:
    """Whether Triton runs kernels in numpy."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class TritonKernel:
    """A Triton function, called with sizes and operands in the order of `frame.c`."""

    block = BLOCK

    def __init__(self, face: Surface, body: Body, function: Any, *, back: bool) -> None:
        self.face, self.body, self.function, self.back = face, body, function, back

    def __call__(self, sizes: Sequence[int], operands: Operands) -> None:
        """Run; an operand that is None is absent."""
        first, many = 3 + self.back, len(self.face.params)
        x, other, keys = operands[0], operands[1], operands[2]
        assert x is not None and other is not None
        channels, places = sizes[2], sizes[1]
        params, masks = self.laid_out(operands[first : first + many], channels)
        words = x if keys is None else keys
        groups = _groups(operands[first + many :], len(self.face.states), 3 if self.back else 2)
        shown = [[x if t is None else t for t in group] for group in groups]
        counts = [*sizes[:8], *sizes[9:12]]
        grid = (-(-places // BLOCK),)
        options: dict[str, Any] = {"BLOCK": BLOCK, "REAL": _named(x.dtype), "enable_fp_fusion": False}
        if not self.back:
            self.function[grid](
                x, other, words, params, masks, *shown[0], *shown[1], *counts, HAS_OLD=groups[0][0] is not None,
                HAS_NEW=groups[1][0] is not None, **options,
            )  # fmt: skip
            return
        steps, segment, still = sizes[0], sizes[13], bool(sizes[14])
        segments = -(-steps // segment)
        dx, sums = operands[-2], operands[-1]
        assert sums is not None
        back = [x.new_empty(places) if t is None else t for t in groups[2]]
        partial = torch.empty(max(1, len(self.face.reduced)), places, dtype=torch.float64, device=x.device)
        scratch = x.new_empty((segments + segment) * len(self.face.states) * places)
        self.function[grid](
            x, other, words, operands[3], params, masks, *shown[0], *shown[1], *back, x if dx is None else dx, partial,
            scratch, *counts, segments, segment, HAS_OLD=any(t is not None for t in groups[0]),
            HAS_GIVEN=any(t is not None for t in groups[1]), HAS_BACK=any(t is not None for t in groups[2]),
            HAS_DX=dx is not None, STILL=still, **options,
        )  # fmt: skip
        inner = sizes[3]
        for total, part in zip(sums.view(-1, channels), partial, strict=False):
            total.copy_(part.view(-1, channels, inner).sum((0, 2)) if channels > 1 else part.sum())

    def laid_out(self, given: Operands, channels: int) -> tuple[Tensor, Tensor]:
        """Parameters and what follows from them, one row each, and the masks of noise."""
        values = {name: value for name, value in zip(self.face.params, given, strict=True) if value is not None}
        like = next(iter(values.values()))
        words = {"AT": lambda v: v.reshape(-1), "NUM": like.new_tensor, "FACTOR": _factor, "HALF": _half, "MASK": _mask}
        scope = {**words, **values}
        rows = [*values.values(), *(_valued(call, scope) for call in fixed_reals(self.body))]
        masks = [_valued(call, scope) for call in fixed_masks(self.body)] or [rows[0].to(torch.int32)]
        return tuple(torch.stack([row.reshape(-1).expand(channels) for row in some]) for some in (rows, masks))  # type: ignore[return-value]


def _groups(tensors: Operands, states: int, count: int) -> list[list[Tensor | None]]:
    return [list(tensors[k * states : (k + 1) * states]) for k in range(count)]


def _valued(call: tuple[str, str], scope: dict[str, Any]) -> Tensor:
    """A function of a shift, both of our own text (`body.py`)."""
    value: Tensor = eval(f"{call[0]}({call[1]})", {"__builtins__": {}}, scope)
    return value


def _factor(n: Tensor) -> Tensor:
    return torch.exp2(-n)


def _half(n: Tensor) -> Tensor:
    return torch.where(n > 0, torch.exp2(n - 1), torch.zeros_like(n))


def _mask(n: Tensor) -> Tensor:
    return (torch.exp2(n).to(torch.int64) - 1).to(torch.int32)


def _named(dtype: torch.dtype) -> Any:
    language = importlib.import_module("triton.language")
    return language.float64 if dtype == torch.float64 else language.float32


@cache
def triton_forward_kernel(key: ForwardKey) -> TritonKernel:
    """The forward pass on a GPU.

    Raises:
        Unsupported: the spec has no kernel, or Triton is not installed.
    """
    tape, body = key.recorded()
    text, face = triton_forward(tape, body)
    return TritonKernel(face, body, _loaded(text).forward, back=False)


@cache
def triton_backward_kernel(key: BackwardKey) -> TritonKernel:
    """The backward pass on a GPU.

    Raises:
        Unsupported: the spec has no kernel, or Triton is not installed.
    """
    tape, body = key.forward.recorded()
    text, face = triton_backward(tape, body, adjoint(tape, body, key.wanted), key.surrogate)
    return TritonKernel(face, body, _loaded(text).backward, back=True)


def _loaded(text: str) -> Any:
    if triton_missing():
        raise Unsupported(triton_missing())
    return module_of(text, "triton")


__all__ = ["TritonKernel", "interpreted", "triton_backward_kernel", "triton_forward_kernel", "triton_missing"]
