"""Traces of single blocks of the Hessian by curvlinops' estimators."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from spikequant.analyse.curvature import Curvature
from spikequant.law.errors import Unsupported


def block_trace(at: Curvature, place: int, method: str, products: int) -> float:
    """One estimate of the trace of a place's block from `products` products with it.

    Raises:
        Unsupported: curvlinops is not installed.
    """
    try:
        from curvlinops import hutchpp_trace, xtrace
        from curvlinops._torch_base import PyTorchLinearOperator
    except ImportError as error:
        raise Unsupported(
            f"method {method!r} is curvlinops'; pip install 'spikequant[hessian]', or use method='hutchinson'"
        ) from error

    class Block(PyTorchLinearOperator):  # type: ignore[misc]
        """The block of the Hessian that belongs to one place."""

        SELF_ADJOINT = True

        @property
        def device(self) -> torch.device:
            return at.places[place].tensors[0].device

        @property
        def dtype(self) -> torch.dtype:
            return at.places[place].tensors[0].dtype

        def _matmat(self, matrix: list[Tensor]) -> list[Tensor]:
            columns = [_product(at, place, [m[..., k] for m in matrix]) for k in range(matrix[0].shape[-1])]
            return [torch.stack(parts, dim=-1) for parts in zip(*columns, strict=True)]

    shapes: list[Any] = [tuple(t.shape) for t in at.places[place].tensors]
    block = Block(shapes, shapes)
    size = at.places[place].numel
    if size <= products:  # as cheap to take every diagonal element
        return float((block @ torch.eye(size, dtype=block.dtype, device=block.device)).trace())
    if method == "xtrace":
        with contextlib.suppress(RuntimeError):  # singular: of lower rank than the probes, where Hutch++ is exact
            return float(xtrace(block, products))
    return float(hutchpp_trace(block, products))


def _product(at: Curvature, place: int, vector: list[Tensor]) -> list[Tensor]:
    """The block times a vector: the whole Hessian times the vector padded with zeros."""
    padded: list[Tensor] = []
    mine = range(0)
    for k, other in enumerate(at.places):
        start = len(padded)
        padded += vector if k == place else [torch.zeros_like(t) for t in other.tensors]
        if k == place:
            mine = range(start, len(padded))
    found = at.times(padded)
    return [found[k] for k in mine]
