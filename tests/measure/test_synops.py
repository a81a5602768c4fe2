from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spikequant.law.errors import DataError
from spikequant.measure import (
    SynOps,
    SynOpsCount,
    SynOpsMean,
    fan_out_conv1d,
    fan_out_conv2d,
    fan_out_linear,
    total_synops,
)


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-2, 3, shape)


def brute_force_conv2d(
    weight: np.ndarray,
    shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    outputs, per_group, kh, kw = weight.shape
    channels, height, width = shape
    rows = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    fan_out = np.zeros(shape, np.int64)
    for o, p, q, c, i, j in product(*map(range, (outputs, rows, columns, per_group, kh, kw))):
        channel = o // (outputs // groups) * per_group + c
        y, x = p * stride[0] + i * dilation[0] - padding[0], q * stride[1] + j * dilation[1] - padding[1]
        if 0 <= y < height and 0 <= x < width and weight[o, c, i, j] != 0:
            fan_out[channel, y, x] += 1
    assert channels == per_group * groups
    return fan_out


@given(
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**16),
)
def test_conv2d_fan_out_is_the_brute_force_count(
    groups: int,
    kernel: tuple[int, int],
    sizes: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    seed: int,
) -> None:
    for size, taps, pad, step in zip(sizes, kernel, padding, dilation, strict=True):
        assume(size + 2 * pad >= step * (taps - 1) + 1)
    weight = weights(np.random.default_rng(seed), 2 * groups, 2, *kernel)
    shape = (2 * groups, *sizes)
    got = fan_out_conv2d(weight, shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    np.testing.assert_array_equal(got, brute_force_conv2d(weight, shape, stride, padding, dilation, groups))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": 3, "padding": 2, "dilation": 2},
        {"groups": 2, "padding": (0, 2), "stride": (2, 1)},
    ],
)
def test_conv2d_fan_out_times_events_is_torchs_convolution(options: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    weight = weights(rng, 4, 4 // groups, 3, 3)
    events = rng.integers(0, 2, (5, 4, 9, 8))
    binary = torch.from_numpy((weight != 0).astype(np.float64))
    meets = torch.nn.functional.conv2d(torch.from_numpy(events.astype(np.float64)), binary, **options).sum()
    assert int((events * fan_out_conv2d(weight, (4, 9, 8), **options)).sum()) == int(meets)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 3, "dilation": 2}, {"groups": 2, "padding": 1}])
def test_conv1d_fan_out_times_events_is_torchs_convolution(options: dict[str, int]) -> None:
    rng = np.random.default_rng(1)
    weight = weights(rng, 6, 4 // options.get("groups", 1), 3)
    events = rng.integers(0, 2, (5, 4, 11))
    binary = torch.from_numpy((weight != 0).astype(np.float64))
    meets = torch.nn.functional.conv1d(torch.from_numpy(events.astype(np.float64)), binary, **options).sum()
    assert int((events * fan_out_conv1d(weight, (4, 11), **options)).sum()) == int(meets)


def test_linear_fan_out() -> None:
    weight = np.array([[1, 0, -3], [0, 0, 2]])
    assert fan_out_linear(weight).tolist() == [1, 0, 2]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"linear weight is \[out, in\]"):
        fan_out_linear(np.ones(3))
    with pytest.raises(DataError, match="weight of 4 axes"):
        fan_out_conv2d(np.ones((2, 1, 3)), (1, 5, 5))
    with pytest.raises(DataError, match="groups=2 does not take"):
        fan_out_conv2d(np.ones((2, 1, 3, 3)), (1, 5, 5), groups=2)
    with pytest.raises(DataError, match=r"kernel of 3 \(dilation 2\) does not fit 4 values padded by 0"):
        fan_out_conv2d(np.ones((2, 1, 3, 3)), (1, 4, 5), dilation=2)
    with pytest.raises(DataError, match="1 or more, got 0"):
        fan_out_conv1d(np.ones((2, 1, 3)), (1, 5), stride=0)


# --- a network counted by hand ------------------------------------------------------------
#
#   layer 1: 3 inputs -> 2 neurons, weight [[5, 0, 1], [-1, 0, 0]]: fan-out 2, 0, 1; 6 synapses
#   layer 2: 2 inputs -> 1 neuron,  weight [[0, 7]]:                fan-out 0, 1;    2 synapses


def test_network_by_hand() -> None:
    first = SynOps(fan_out_linear(np.array([[5, 0, 1], [-1, 0, 0]])), 6, layer="fc1")
    second = SynOps(fan_out_linear(np.array([[0, 7]])), 2, layer="fc2")
    graded = np.array([[[0.5, 1.0, 0.0], [0.0, 2.0, 2.0]]] * 3)  # 3 steps, 2 samples: 2 + 0 and 0 + 1 meet weights
    spikes = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [-1, -1]]])  # 1, 1 and 1
    first.update(graded)
    second.update(spikes)
    assert first.count() == SynOpsCount(effective_macs=9, effective_acs=0, dense=36)
    assert second.count() == SynOpsCount(effective_macs=0, effective_acs=3, dense=12)
    total = total_synops([first.count(), second.count()])
    assert total == SynOpsCount(9, 3, 48)
    assert total.per(first.samples) == SynOpsMean(4.5, 1.5, 24.0)
    assert total.per(6) == SynOpsMean(1.5, 0.5, 8.0)


def test_accumulate_or_multiply_is_decided_step_by_step() -> None:
    ops = SynOps(np.array([1, 1]), 2)
    ops.update(np.array([[[1, 0]], [[1, 2]], [[-1, -1]]]))
    assert ops.count() == SynOpsCount(effective_macs=2, effective_acs=3, dense=6)


@given(st.integers(0, 2**16))
def test_batches_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spikes = rng.integers(-1, 2, (4, 6, 2, 3, 3))
    weight = weights(rng, 3, 2, 2, 2)
    fan_out = fan_out_conv2d(weight, (2, 3, 3))
    dense = int(fan_out_conv2d(np.ones_like(weight), (2, 3, 3)).sum())
    whole, parts = SynOps(fan_out, dense), SynOps(fan_out, dense)
    whole.update(spikes)
    for part in np.split(spikes, 3, axis=1):
        parts.update(part)
    assert whole.count() == parts.count()
    assert whole.samples == parts.samples == 6
    assert whole.count().effective_acs == int((np.abs(spikes) * fan_out).sum())


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
def test_every_number_type_counts_the_same(dtype: type) -> None:
    ops = SynOps(np.full(1, 3), 3)
    ops.update(np.ones((400, 2, 1), dtype))
    assert ops.count() == SynOpsCount(0, 2400, 2400)


def test_bad_counts_are_refused() -> None:
    with pytest.raises(DataError, match="fc1: fan_out sums to 3"):
        SynOps(np.array([1, 2]), 2, layer="fc1")
    with pytest.raises(DataError, match=r"expected inputs \[T, N, 2\], got \[1, 1, 3\]"):
        SynOps(np.array([1, 2]), 4).update(np.zeros((1, 1, 3)))
    with pytest.raises(DataError, match="at least 1 run"):
        SynOpsCount(1, 1, 1).per(0)


def test_a_tap_that_only_ever_lands_in_the_padding() -> None:
    # 3 values padded by 3, kernel 3, dilation 4: one output, whose taps lie at -3, 1 and 5.
    assert fan_out_conv1d(np.ones((1, 1, 3)), (1, 3), padding=3, dilation=4).tolist() == [[0, 1, 0]]
