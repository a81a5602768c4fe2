"""Synaptic operations as NeuroBench counts them.

An operation is *effective* if a non-zero activation meets a non-zero weight, *dense* if
it is done on hardware that cannot skip zeros.  It is an accumulate (AC) if all activations
of the layer at that step are in {-1, 0, 1}, a multiply-accumulate (MAC) otherwise.  Biases,
pooling and normalisation are not counted, nor is padding.

Tests compare with NeuroBench 2.3.0 itself.  Five things to know about its numbers:

- They follow the calls of a layer, not the network: a static image whose first layer is called
  in a loop of T steps costs T times what it costs if the layer is called once.
- One value outside {-1, 0, 1} makes the whole call a MAC, so that counts depend on which
  samples share a batch.
- "Per sample" divides by the first axis of the data, which for time-first data is T.
- Counts are float32 sums, rounded above 2^24 operations of one call; ours are integers.
- Layers that are not torch's own, quantized ones among them, are not seen and count nothing.

Source: J. Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing
algorithms and systems", Nature Communications 16, 2025, metric `SynapticOperations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

FanOut = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SynOpsCount:
    """Operations over all samples and steps seen."""

    effective_macs: int
    effective_acs: int
    dense: int

    def per(self, runs: int) -> SynOpsMean:
        """Mean over `runs`: samples (as NeuroBench divides), or samples times steps."""
        if runs < 1:
            raise DataError(f"a mean needs at least 1 run, got {runs}")
        return SynOpsMean(self.effective_macs / runs, self.effective_acs / runs, self.dense / runs)


@dataclass(frozen=True)
class SynOpsMean:
    """Operations per sample, or per sample and step: whatever `SynOpsCount.per` divided by."""

    effective_macs: float
    effective_acs: float
    dense: float


@final
class SynOps:
    """Operations of one layer, counted batch by batch.

    ``effective = sum_{t,n,i} [a_tni != 0] * fan_out_i``, ``dense = T * N * dense_per_step``

    `fan_out` is the number of non-zero weights that each input element meets (see
    `fan_out_linear`, `fan_out_conv2d`), of the shape of the input's features;
    `dense_per_step` is the same sum with all weights taken as non-zero:
    ``fan_out_conv2d(np.ones_like(weight), ...).sum()``.  `layer` names the layer in messages.

    >>> weight = np.array([[2, 0, 1], [1, 0, 0]])
    >>> ops = SynOps(fan_out_linear(weight), weight.size)
    >>> ops.update(np.array([[[1, 1, 0]], [[0, 0, 3]]]))  # T=2, N=1; the second step is graded
    >>> ops.count()
    SynOpsCount(effective_macs=1, effective_acs=2, dense=12)
    >>> ops.count().per(ops.samples)
    SynOpsMean(effective_macs=1.0, effective_acs=2.0, dense=12.0)
    """

    def __init__(self, fan_out: FanOut, dense_per_step: int, *, layer: str = "layer") -> None:
        if fan_out.size == 0 or fan_out.min() < 0 or int(fan_out.sum()) > dense_per_step:
            raise DataError(
                f"{layer}: fan_out sums to {int(fan_out.sum())} non-zero synapses of "
                f"{dense_per_step} dense ones; expected at least one input and no more than the dense ones"
            )
        self.layer = layer
        self.samples = 0
        self._fan_out = fan_out.astype(np.int64)
        self._dense_per_step = dense_per_step
        self._macs = 0
        self._acs = 0
        self._dense = 0

    def update(self, activations: npt.NDArray[Any]) -> None:
        """Add one batch of inputs of the layer.

        Shapes: ``activations [T, N, *features]``.  AC or MAC is decided for each step over
        the whole batch, as NeuroBench's hook does for each call.

        Raises:
            DataError: the features are not those of `fan_out`, or there are no samples.
        """
        self._check(activations.shape, activations.shape[2:], activations.size)
        steps, samples = activations.shape[:2]
        flat = activations.reshape(steps, -1)
        spiking = ((flat == 0) | (np.abs(flat) == 1)).all(axis=1)
        self.add((activations != 0).sum(axis=1, dtype=np.int64), spiking, samples=samples)

    def add(
        self, events: npt.NDArray[np.int64], spiking: npt.NDArray[np.bool_], *, samples: int, repeats: int = 1
    ) -> None:
        """Add one batch whose inputs were counted already.

        Shapes: `events` ``[T, *features]``, how many of `samples` values were not 0; `spiking`
        ``[T]``, whether all of them were -1, 0 or 1.  With `repeats` the same steps are shown
        that often.

        Raises:
            DataError: the features are not those of `fan_out`, or there are no samples.
        """
        self._check((len(events), samples, *events.shape[1:]), events.shape[1:], events.size * samples)
        operations = events.reshape(len(events), -1) @ self._fan_out.reshape(-1) * repeats
        self._acs += int(operations[spiking].sum())
        self._macs += int(operations[~spiking].sum())
        self._dense += len(events) * samples * repeats * self._dense_per_step
        self.samples += samples

    def _check(self, shape: tuple[int, ...], features: tuple[int, ...], size: int) -> None:
        if len(shape) < 2 or features != self._fan_out.shape or size == 0:
            raise DataError(
                f"{self.layer}: expected inputs [T, N, {', '.join(map(str, self._fan_out.shape))}], got {list(shape)}"
            )

    def count(self) -> SynOpsCount:
        """Operations so far."""
        return SynOpsCount(self._macs, self._acs, self._dense)


def total_synops(counts: Iterable[SynOpsCount]) -> SynOpsCount:
    """Sum over layers.

    >>> total_synops([SynOpsCount(1, 2, 12), SynOpsCount(0, 5, 20)])
    SynOpsCount(effective_macs=1, effective_acs=7, dense=32)
    """
    rows = list(counts)
    return SynOpsCount(
        sum(row.effective_macs for row in rows),
        sum(row.effective_acs for row in rows),
        sum(row.dense for row in rows),
    )


def fan_out_linear(weight: npt.NDArray[Any]) -> FanOut:
    """Non-zero weights of each input: ``[out, in]`` to int64 ``[in]``.

    >>> fan_out_linear(np.array([[2, 0, 1], [1, 0, 0]])).tolist()
    [2, 0, 1]
    """
    if weight.ndim != 2:
        raise DataError(f"a linear weight is [out, in], got {list(weight.shape)}")
    fan_out: FanOut = (weight != 0).sum(axis=0, dtype=np.int64)
    return fan_out


def fan_out_conv1d(
    weight: npt.NDArray[Any],
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> FanOut:
    """Non-zero weights that each input element meets: weight ``[out, in / groups, k]`` to ``[in, L]``.

    As `fan_out_conv2d`, over one axis.

    >>> fan_out_conv1d(np.ones((1, 1, 3)), (1, 4)).tolist()
    [[1, 2, 2, 1]]
    """
    return _fan_out_conv(weight, input_shape, 1, stride, padding, dilation, groups)


def fan_out_conv2d(
    weight: npt.NDArray[Any],
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> FanOut:
    """Non-zero weights that each input element meets, counted exactly, borders included.

    ``fan_out[c, y, x]`` = number of ``(o, i, j)`` with ``weight[o, c, i, j] != 0`` and an output
    row ``p`` with ``p * stride + i * dilation - padding = y`` (columns likewise).

    Shapes: weight ``[out, in / groups, kh, kw]``, `input_shape` ``(in, H, W)``, result int64
    ``[in, H, W]``.  Zero padding, which costs nothing.

    Raises:
        DataError: shapes that do not fit each other, or a kernel larger than the input.

    >>> fan_out_conv2d(np.ones((2, 1, 3, 3)), (1, 3, 3), padding=1)[0].tolist()
    [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
    """
    return _fan_out_conv(weight, input_shape, 2, stride, padding, dilation, groups)


def _fan_out_conv(
    weight: npt.NDArray[Any],
    input_shape: Sequence[int],
    axes: int,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> FanOut:
    if weight.ndim != axes + 2 or len(input_shape) != axes + 1:
        raise DataError(f"a conv{axes}d has a weight of {axes + 2} axes, got {weight.shape} for {tuple(input_shape)}")
    outputs, inputs_per_group, *kernel = weight.shape
    channels, *sizes = input_shape
    if groups < 1 or outputs % groups or channels != inputs_per_group * groups:
        raise DataError(f"weight {weight.shape} with groups={groups} does not take inputs {tuple(input_shape)}")
    strides, dilations = _per_axis(stride, axes, least=1), _per_axis(dilation, axes, least=1)
    pads = _per_axis(padding, axes, least=0)
    by_group = (weight != 0).reshape(groups, -1, inputs_per_group, *kernel)
    counts = by_group.sum(axis=1, dtype=np.int64).reshape(channels, *kernel)
    reach = [
        [_reached(tap, *shape) for tap in range(shape[1])]
        for shape in zip(sizes, kernel, strides, pads, dilations, strict=True)
    ]
    fan_out = np.zeros(tuple(input_shape), dtype=np.int64)
    for taps in product(*(range(size) for size in kernel)):
        place = tuple(reach[axis][tap] for axis, tap in enumerate(taps))
        fan_out[(slice(None), *place)] += counts[(slice(None), *taps)].reshape(-1, *[1] * axes)
    return fan_out


def _reached(tap: int, size: int, kernel: int, stride: int, pad: int, dilation: int) -> slice:
    """Input positions that the kernel's tap lands on; positions in the padding left out."""
    outputs = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        raise DataError(f"a kernel of {kernel} (dilation {dilation}) does not fit {size} values padded by {pad}")
    start = tap * dilation - pad
    first = max(0, -(start // stride))  # the first output whose tap is not left of the input
    stop = min(start + outputs * stride, size)
    return slice(start + first * stride, max(stop, 0), stride)


def _per_axis(value: int | Sequence[int], axes: int, *, least: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or min(values) < least:
        raise DataError(f"expected one number or {axes} of them, {least} or more, got {value}")
    return values
