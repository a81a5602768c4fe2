"""What turns data into spikes before the first layer, and the normalization that folds into it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.law.noise import MASK, mix, step_key


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel of a ``[N, C, ...]`` input.

    In front of a quantized layer it disappears: the deviation goes into the weights before
    they are quantized, the mean into the bias, and the border is padded with the code of
    the mean (DESIGN rule 9).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise DataError(f"Normalize: expected one mean and one positive std per channel, got {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """The normalized input; the raw one once a quantized layer has taken it over."""
        if self.folded:
            return x
        shape = (1, -1, *([1] * (x.dim() - 2)))
        return (x - self.mean.reshape(shape)) / self.std.reshape(shape)


class PoissonEncoder(nn.Module):
    """Spikes with probability ``x`` in each of `steps` steps: ``[N, ...]`` in [0, 1] to ``[T, N, ...]``.

    A spike is ``word(seed, step, sample, pixel) < x * 2^32`` with the words of
    `law/noise.py`, so that the same data give the same spikes everywhere.
    """

    def __init__(self, steps: int, *, seed: int = 0) -> None:
        super().__init__()
        self.steps, self.seed, self.first_sample = steps, seed, 0

    def forward(self, x: Tensor) -> Tensor:
        """Spike trains ``[T, N, ...]``."""
        _check_unit_range(x, "PoissonEncoder")
        samples = torch.arange(self.first_sample, self.first_sample + x.shape[0], device=x.device)
        pixels = torch.arange(x[0].numel(), device=x.device)
        below = (x.to(torch.float64) * 2.0**32).reshape(x.shape[0], -1)
        train = []
        for t in range(self.steps):
            key = torch.full_like(samples, step_key(self.seed, 0xE0C0DE, "v", t))
            words = mix(mix(key, samples)[:, None], pixels[None, :]) & MASK
            train.append((words < below).to(x.dtype).reshape(x.shape))
        return torch.stack(train)


class LatencyEncoder(nn.Module):
    """One spike per pixel, the earlier the brighter: at step ``(1 - x) * (T - 1)``, none for ``x = 0``."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Spike trains ``[T, N, ...]``."""
        _check_unit_range(x, "LatencyEncoder")
        when = ((1 - x) * (self.steps - 1) + 0.5).to(torch.int64)
        steps = torch.arange(self.steps, device=x.device).reshape(-1, *([1] * x.dim()))
        return ((steps == when) & (x > 0)).to(x.dtype)


def _check_unit_range(x: Tensor, name: str) -> None:
    if not bool(torch.isfinite(x).all()) or bool((x < 0).any()) or bool((x > 1).any()):
        raise DataError(
            f"{name}: expected values in [0, 1], got {float(x.min())} to {float(x.max())}; scale the data first"
        )
