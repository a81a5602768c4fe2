"""Batch norm that never touches the currents: it becomes thresholds and biases (DESIGN rule 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.nn.moments import is_plain, joined, moments_of
from spikequant.nn.untraced import untraced

if TYPE_CHECKING:
    from spikequant.nn.branch import Branch

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
SMALLEST_GAMMA = 1e-6


class _Moments(torch.autograd.Function):
    """Variance and mean per channel of ``[N, C, ...]``; about four times as fast as `torch.var_mean` on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.detach().reshape(x.shape[0], x.shape[1], -1)
        count = x.numel() // x.shape[1]
        mean = flat.sum(2).sum(0, dtype=torch.float64) / count
        square = torch.linalg.vecdot(flat, flat, dim=2).sum(0, dtype=torch.float64) / count
        ctx.save_for_backward(x, mean)
        ctx.count = count
        return (square - mean**2).clamp_min(0), mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        toward_variance, toward_mean = gradients
        slope = 2 * toward_variance / ctx.count
        offset = toward_mean / ctx.count - slope * mean
        shape = (1, -1, *([1] * (x.dim() - 2)))
        toward_x: Tensor = x * slope.to(x.dtype).reshape(shape) + offset.to(x.dtype).reshape(shape)
        return toward_x


class _Measured(torch.autograd.Function):
    """`x` as it is, and variance and mean per channel; for float32, channels last.

    On the way back what comes through the moments joins what comes through `x` in one pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = moments_of(x.detach())
        ctx.save_for_backward(x, mean)
        ctx.set_materialize_grads(False)
        return x.view_as(x), variance, mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        x, mean = ctx.saved_tensors
        through, toward_variance, toward_mean = gradients
        if toward_variance is None and toward_mean is None:
            return through
        slope, offset = _line(toward_variance, toward_mean, mean, x.numel() // x.shape[1])
        if torch.is_grad_enabled() or (through is not None and through.dtype != torch.float32):
            shape = (1, -1, *([1] * (x.dim() - 2)))
            toward_x: Tensor = x * slope.to(x.dtype).reshape(shape) + offset.to(x.dtype).reshape(shape)
            return toward_x if through is None else through + toward_x
        return joined(through, x, slope, offset)


def _line(
    toward_variance: Tensor | None, toward_mean: Tensor | None, mean: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Slope and offset of ``dL/dx`` as a function of x: what the moments send back."""
    none = torch.zeros_like(mean)
    slope = 2 * (none if toward_variance is None else toward_variance) / count
    return slope, (none if toward_mean is None else toward_mean) / count - slope * mean


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of every channel of ``[N, C, ...]``, in float64, differentiable.

    >>> channel_moments(torch.tensor([[1.0, 4.0], [3.0, 4.0]]))
    (tensor([1., 0.], dtype=torch.float64), tensor([2., 4.], dtype=torch.float64))
    """
    moments: tuple[Tensor, Tensor] = _Moments.apply(x)  # type: ignore[no-untyped-call]
    return moments


class FoldedNorm(nn.Module):
    """Batch norm ``y = gamma (x - mean) / sigma + beta`` as numbers, not as a pass over the data.

    Its input, integer sums in accumulator LSBs, leaves it unchanged.  In training with
    ``statistics="batch"`` it measures them, updates the running statistics, and the neuron
    behind it forms its thresholds from the batch; otherwise from the running statistics.

    Attributes:
        statistics: ``"batch"`` or ``"running"``: what forms the thresholds in training.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        if not isinstance(source, NORMS):
            raise Unsupported(f"{type(source).__name__} is not a batch norm that folds; expected BatchNorm1d or 2d")
        if source.running_mean is None or source.running_var is None:
            raise Unsupported("batch norm without running statistics cannot become thresholds; set track_running_stats")
        self.weight, self.bias, self.eps, self.momentum = source.weight, source.bias, source.eps, source.momentum
        self.register_buffer("running_mean", source.running_mean)
        self.register_buffer("running_var", source.running_var)
        self.register_buffer("num_batches_tracked", source.num_batches_tracked)
        self.statistics = "batch"
        self.branch: list[Branch] = []
        self._batch: tuple[Tensor, Tensor] | None = None
        self._kept: tuple[Tensor, tuple[Tensor, Tensor, Tensor], bool] | None = None

    def sign(self) -> Tensor:
        """Sign of gamma, which goes into the codes: ``[C]`` of +1 and -1."""
        if self._kept is not None:
            return self._kept[0]
        if self.weight is None:
            return torch.ones_like(self.running_mean)
        return torch.where(self.weight.detach() < 0, -1.0, 1.0)

    def gamma(self) -> Tensor:
        """``|gamma|``, kept above `SMALLEST_GAMMA` so that an LSB never vanishes."""
        if self.weight is None:
            return torch.ones_like(self.running_mean)
        return (self.weight * self.sign()).clamp_min(SMALLEST_GAMMA)

    def constant_channels(self) -> Tensor:
        """Channels whose gamma is (nearly) 0: their neurons see a constant, ``beta``."""
        return self.gamma() <= SMALLEST_GAMMA

    def fold(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(|gamma| / sigma, mean, beta)``, each ``[C]``, in float64."""
        if self._kept is not None and self._kept[2] == torch.is_grad_enabled():
            return self._kept[1]
        measured = self._batch if self.training else None  # the last batch of a training is not what counts behind it
        mean, variance = measured if measured is not None else (self.running_mean, self.running_var)
        factor = self.gamma().to(torch.float64) / torch.sqrt(variance.to(torch.float64) + self.eps)
        beta = self.bias if self.bias is not None else torch.zeros_like(self.running_mean)
        return factor, mean.to(torch.float64), beta.to(torch.float64)

    @torch.no_grad()
    def refit(self, seen: Sequence[Tensor]) -> None:
        """Running statistics from what flows in now, with the quantized weights: integer sums, any number of calls."""
        variance, mean = channel_moments(torch.cat([self._merged(x.detach()) for x in seen]).contiguous())
        real_variance, real_mean = self._real_moments(variance, mean)
        self._update_running(real_mean, real_variance, 1.0)

    @property
    def uses_batch(self) -> bool:
        """Whether the thresholds of this forward pass come from the batch."""
        return self.training and self.statistics == "batch" and bool(self.branch)

    @property
    def measures(self) -> bool:
        """Whether the thresholds of now come from a batch that was just measured."""
        return self.training and self._batch is not None

    @untraced
    def forward(self, x: Tensor) -> Tensor:
        """`x` itself; measures it where that is asked."""
        self._batch = self._kept = None
        if self.training and self.branch and self.momentum != 0.0 and torch.is_grad_enabled():
            return self._measure(x)
        return x.view_as(x)  # a value of its own, so that a recording sees this layer

    def forget(self) -> None:
        """Sign and fold of a batch that was measured are kept until the neuron behind has formed its integers."""
        self._kept = None

    def train(self, mode: bool = True) -> FoldedNorm:
        """Set the mode."""
        self._kept = None
        return super().train(mode)

    def _merged(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` as it is, ``[T, N, C, ...]`` with time and batch in one axis."""
        return x.flatten(0, 1) if x.dim() > self.branch[0].synapse.weight.dim() else x

    def _measure(self, given: Tensor) -> Tensor:
        """`given` itself, measured."""
        x = self._merged(given)
        if is_plain(x):
            seen, *found = _Measured.apply(x)  # type: ignore[no-untyped-call]
            given = seen if seen.dim() == given.dim() else seen.unflatten(0, given.shape[:2])
        else:
            found, given = channel_moments(x), given.view_as(given)
        variance, mean = self._real_moments(*found)
        with torch.no_grad():
            self.num_batches_tracked += 1
            tracked = float(self.num_batches_tracked)
            weight = 1.0 / tracked if self.momentum is None else self.momentum
            count = x.numel() // x.shape[1]
            self._update_running(mean.detach(), variance.detach() * count / max(count - 1, 1), weight)
        if self.uses_batch:
            self._batch = (mean, variance)
            self._kept = (self.sign(), self.fold(), True)
        return given

    def _real_moments(self, variance: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the real input, from those of the integer sums."""
        branch = self.branch[0]
        lsb = branch.raw_lsb()
        real_mean = self.sign() * mean.to(lsb.dtype) * lsb
        bias = branch.synapse.real_bias()
        return variance.to(lsb.dtype) * lsb**2, real_mean if bias is None else real_mean + bias

    def _update_running(self, mean: Tensor, variance: Tensor, weight: float) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return f"{self.running_mean.numel()} channels, folded into thresholds"

    def __getstate__(self) -> dict[str, object]:
        """Copies carry no graph of the last batch."""
        return {**self.__dict__, "_batch": None, "_kept": None}
