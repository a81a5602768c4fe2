"""Codes of least quadratic error under a Hessian: the optimal brain surgeon for levels instead of zeros.

For one output channel with weights ``w`` and codes ``q`` of scale ``s``,

    E(q) = (s q - w)^T H (s q - w)

is minimised greedily.  The columns are fixed in turn; each error is spread over those that
are still free by the optimal update of the surgeon, ``dw = -e_i / [H^-1]_ii * H^-1[:, i]``,
taken from one Cholesky factor of the inverse.  Afterwards every code moves to the best
level given all others, until none moves.

Sources: Hassibi & Stork 1993 (the update); Frantar et al., *GPTQ*, ICLR 2023 (one order for
all rows, the Cholesky form, blocks); *OSBC / Spiking Brain Compression*, arXiv 2506.03996
(the Hessian of a spiking layer, `response.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikequant.law.errors import DataError

DAMPING = 0.01
BLOCK = 128
SWEEPS = 8
MOST_TRIALS = 4

Nearest = Callable[[Tensor], Tensor]
"""The level nearest to each value in units of the scale."""


def damped(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """``H + damping mean(diag H) I`` in float64; the identity where H is 0 (a silent input).

    >>> damped(torch.diag(torch.tensor([1.0, 3.0])), 0.5).tolist()
    [[2.0, 0.0], [0.0, 4.0]]

    Raises:
        DataError: `hessian` is not finite, or not square.
    """
    if hessian.dim() != 2 or hessian.shape[0] != hessian.shape[1]:
        raise DataError(f"a Hessian is square, got {tuple(hessian.shape)}")
    if not bool(torch.isfinite(hessian).all()):
        raise DataError("the Hessian of a layer holds NaN or infinity; look at the data that the layer is given")
    found = hessian.to(torch.float64)
    mean = float(found.diagonal().mean())
    return found + torch.eye(len(found)).to(found) * (damping * mean if mean > 0 else 1.0)


def quadratic_error(change: Tensor, hessian: Tensor) -> Tensor:
    """``c^T H c`` of every row, ``[rows]``.

    >>> quadratic_error(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])).tolist()
    [2.0]
    """
    return ((change.to(hessian) @ hessian) * change).sum(1)


def surgeon(weight: Tensor, scale: Tensor, hessian: Tensor, nearest: Nearest, *, largest_first: bool = True) -> Tensor:
    """Codes of every row, column by column, each error spread over the columns behind it.

    Args:
        weight: ``[rows, columns]``.
        scale: ``[rows]``.
        hessian: positive definite (`damped`), ``[columns, columns]``.
        nearest: the level of each value in units of the scale.
        largest_first: columns in falling order of the diagonal; False: as they stand.
    """
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    order = order if largest_first else torch.arange(len(hessian), device=hessian.device)
    free = weight.to(torch.float64)[:, order].clone()
    upper = _upper_of_inverse(hessian[order][:, order])
    codes, scale = torch.empty_like(free), scale.to(torch.float64)
    for start in range(0, free.shape[1], BLOCK):
        stop = min(start + BLOCK, free.shape[1])
        rows, part = upper[start:stop, start:stop], free[:, start:stop]
        wrong = torch.empty_like(part)
        for k in range(stop - start):
            column = part[:, k]
            codes[:, start + k] = nearest(column / scale)
            wrong[:, k] = (column - codes[:, start + k] * scale) / rows[k, k]
            part[:, k:] -= wrong[:, k, None] * rows[k, k:]
        free[:, stop:] -= wrong @ upper[start:stop, stop:]
    return codes[:, torch.argsort(order)]


def _upper_of_inverse(hessian: Tensor) -> Tensor:
    """``U`` with ``U^T U = H^-1``; a Hessian that rounding left indefinite is damped until it has one.

    Raises:
        DataError: it has none even then.
    """
    for trial in range(MOST_TRIALS):
        lower, failed = torch.linalg.cholesky_ex(hessian if trial == 0 else damped(hessian, DAMPING * 10**trial))
        if not bool(failed):
            upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
            return upper
    raise DataError("the Hessian of a layer is not positive definite; give the solver more or other data")


def descend(codes: Tensor, weight: Tensor, scale: Tensor, hessian: Tensor, nearest: Nearest) -> Tensor:
    """Move every code to the best level given all others, at most `SWEEPS` times over; the error never rises.

    With all others fixed, E is a parabola in one weight, so that its best level is the one nearest to the vertex
    ``s q_i - [H (s q - w)]_i / H_ii``.
    """
    codes, scale = codes.to(torch.float64).clone(), scale.to(torch.float64)
    slope = (codes * scale[:, None] - weight.to(torch.float64)) @ hessian
    curve = hessian.diagonal()
    for _ in range(SWEEPS):
        moved = False
        for k in range(codes.shape[1]):
            now = codes[:, k]
            best = nearest(now - slope[:, k] / (curve[k] * scale))
            step = (best - now) * scale
            if bool(step.any()):
                slope += step[:, None] * hessian[k]
                codes[:, k], moved = best, True
        if not moved:
            break
    return codes
