"""Quantization error minimization: alternating least squares between codes in {-1, +1}^n and a basis of n numbers.

    levels  l = v . q,  q in {-1, +1}^n;  boundaries halfway between neighbouring levels
    codes   B = the nearest level of every value
    basis   v = (B^T B + ridge I)^-1 (B^T w + ridge v_old)

One pass needs of the values only how many lie at each level and their sum, so the rows are sorted once, with their
running sums, and a pass costs a search for ``2^n - 1`` boundaries per row instead of a look at every value.
Source: Zhang, Yang, Ye, Hua, *LQ-Nets*, ECCV 2018, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STARTS = (1.5, 2.5, 4.0)
"""Reaches of the first, evenly spaced levels in mean magnitudes; the largest magnitude is a further start."""


@dataclass(frozen=True)
class Rows:
    """Values ``[C, M]``, each row ascending, and their running sums ``[C, M + 1]``, float64."""

    values: Tensor
    sums: Tensor

    @staticmethod
    def of(rows: Tensor) -> Rows:
        """Sort the rows."""
        values = rows.sort(dim=1).values
        sums = values.to(torch.float64).cumsum(1)
        return Rows(values.contiguous(), torch.cat([torch.zeros_like(sums[:, :1]), sums], 1))


def signs(bits: int, like: Tensor) -> Tensor:
    """All codes: ``[2^n, n]`` of -1 and +1; row ``k`` has +1 where bit ``j`` of ``k`` is set.

    >>> signs(2, torch.zeros(0)).tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    numbers = torch.arange(2**bits, device=like.device)[:, None]
    return (2 * ((numbers >> torch.arange(bits, device=like.device)) & 1) - 1).to(like.dtype)


def middles(levels: Tensor) -> Tensor:
    """Boundaries between neighbours of ascending ``levels [..., L]``: ``[..., L - 1]``."""
    return (levels[..., 1:] + levels[..., :-1]) / 2


def one_pass(rows: Rows, basis: Tensor, *, ridge: float) -> tuple[Tensor, Tensor]:
    """The least-squares basis ``[C, n]`` for the codes that `basis` gives, and the squared error that is left ``[C]``.

    The error is short of the sum of the squared values, which no basis changes.
    """
    table = signs(basis.shape[1], basis)
    levels, order = (basis @ table.T).sort(dim=1)
    cuts = torch.searchsorted(rows.values, middles(levels).to(rows.values.dtype).contiguous())
    ends = torch.cat([torch.zeros_like(cuts[:, :1]), cuts, torch.full_like(cuts[:, :1], rows.values.shape[1])], 1)
    counts = torch.zeros_like(levels).scatter_(1, order, ends.diff(dim=1).to(levels.dtype))
    sums = torch.zeros_like(levels).scatter_(1, order, rows.sums.gather(1, ends).diff(dim=1))
    n = basis.shape[1]
    products = (table[:, :, None] * table[:, None, :]).reshape(-1, n * n)
    gram, moment = (counts @ products).reshape(-1, n, n), sums @ table
    kept = ridge * torch.eye(n, dtype=basis.dtype, device=basis.device)
    found = torch.linalg.solve(gram + kept, moment + ridge * basis)
    error = (found * (gram @ found[:, :, None])[:, :, 0]).sum(1) - 2 * (found * moment).sum(1)
    return found, error


def ordered(basis: Tensor) -> Tensor:
    """The same levels from magnitudes, smallest first."""
    return basis.abs().sort(dim=1).values


def converged_basis(rows: Tensor, bits: int, *, ridge: float, passes: int) -> Tensor:
    """Basis ``[C, n]``, float64, of least error among several starts, each followed until it stands still."""
    sorted_rows = Rows.of(rows)
    size = rows.abs().to(torch.float64)
    mean, most = size.mean(1), size.amax(1)
    steps = 2.0 ** torch.arange(bits, dtype=torch.float64, device=rows.device) / (2**bits - 1)
    best = torch.zeros(rows.shape[0], bits, dtype=torch.float64, device=rows.device)
    least = torch.full_like(mean, torch.inf)
    for reach in (most, *(torch.minimum(factor * mean, most) for factor in STARTS)):
        basis, error = _followed(sorted_rows, reach[:, None] * steps, ridge, passes)
        better = error < least
        best, least = torch.where(better[:, None], basis, best), torch.where(better, error, least)
    return ordered(best)


def _followed(rows: Rows, basis: Tensor, ridge: float, passes: int) -> tuple[Tensor, Tensor]:
    error = torch.full_like(basis[:, 0], torch.inf)
    for _ in range(passes):
        found, error = one_pass(rows, basis, ridge=ridge)
        still = bool(((found - basis).abs() <= 1e-6 * found.abs().amax(1, keepdim=True)).all())
        basis = found
        if still:
            break
    return basis, error
