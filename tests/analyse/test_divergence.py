"""Side by side: the first spike that differs, the share of samples, the rasters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import spikequant as sq
from spikequant.analyse.divergence import DivergenceSearch, raster, shown_neurons
from spikequant.measure import first_divergence
from spikequant.nn import LIF


@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 6), st.integers(0, 5)), max_size=6),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_the_streamed_search_is_the_search_over_everything(seed, flips, sizes):
    rng = np.random.default_rng(seed)
    samples = sum(sizes)
    a = {"first": rng.integers(0, 2, (4, samples, 2, 3)), "second": rng.integers(0, 2, (4, samples, 6))}
    b = {name: train.copy() for name, train in a.items()}
    diverged = set()
    for layer, step, sample, neuron in flips:
        train = list(b.values())[layer].reshape(4, samples, 6)
        train[step, sample % samples, neuron] = 5
        diverged.add(sample % samples)
    search, start = DivergenceSearch(), 0
    for size in sizes:
        cut = slice(start, start + size)
        parts = [{k: torch.from_numpy(v[:, cut]).float() for k, v in side.items()} for side in (a, b)]
        search.update(*parts)
        start += size
    assert search.first == first_divergence(a, b)
    assert search.share == pytest.approx(len(diverged) / samples)


def test_a_spike_that_is_not_a_number_differs():
    search = DivergenceSearch()
    search.update({"fc": torch.zeros(1, 2, 3)}, {"fc": torch.tensor([0, 0, 0, 0, float("nan"), 0]).reshape(1, 2, 3)})
    assert (search.first.sample, search.first.neuron, search.share) == (1, 1, 0.5)


@given(st.integers(1, 5000))
def test_shown_neurons_are_evenly_spaced(total):
    shown = shown_neurons(total)
    assert len(shown) == min(total, 200)
    assert shown[0] == 0
    assert shown[-1] < total
    gaps = np.diff(shown)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_a_raster_shows_one_sample():
    train = torch.arange(2 * 3 * 4).reshape(2, 3, 2, 2).float()
    found = raster("conv", 7, 1, train, train + 1)
    assert (found.layer, found.sample, found.total, found.neurons.tolist()) == ("conv", 7, 4, [0, 1, 2, 3])
    assert found.reference.tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert found.quantized.dtype == np.int32
    np.testing.assert_array_equal(found.quantized, found.reference + 1)


class Two(nn.Module):
    """Two layers in a loop of their own, or multi-step."""

    def __init__(self, mode="s"):
        super().__init__()
        torch.manual_seed(2)
        self.fc1, self.lif1 = nn.Linear(5, 7), LIF(leak=0.75, step_mode=mode)
        self.fc2, self.lif2 = nn.Linear(7, 3), LIF(step_mode=mode)
        self.mode = mode
        with torch.no_grad():
            self.fc1.weight.normal_(0.3, 0.5)
            self.fc2.weight.normal_(0.3, 0.5)

    def forward(self, x):
        if self.mode == "m":
            return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)
        total = 0
        for xt in x:
            total = total + self.lif2(self.fc2(self.lif1(self.fc1(xt))))
        return total


def data(count=3):
    torch.manual_seed(4)
    return [((torch.rand(10, 8, 5) < 0.4).float(), torch.randint(0, 3, (8,))) for _ in range(count)]


def test_first_divergence_of_two_networks():
    net, other = Two(), Two()
    with torch.no_grad():
        other.fc2.weight[1] += 0.3
    found = sq.compare(net, other, data())
    trains = [[], []]
    for k, model in enumerate((net, other)):
        model.lif2.register_forward_hook(lambda _m, _i, out, kept=trains[k]: kept.append(out.clone()))
        with torch.no_grad():
            for x, _ in data():
                sq.reset(model)
                model(x)
    whole = [torch.stack(t).unflatten(0, (3, 10)).transpose(0, 1).flatten(1, 2).numpy() for t in trains]
    assert found.first_divergence == first_divergence({"lif2": whole[0]}, {"lif2": whole[1]})
    assert found.first_divergence.layer == "lif2"
    assert found.diverged_samples == pytest.approx((whole[0] != whole[1]).any((0, 2)).mean())
    assert 0 < found.diverged_samples <= 1
    assert found.layers[0].matched_l1 == 0 < found.layers[1].matched_l1
    shown = next(r for r in found.rasters if r.layer == "lif2")
    np.testing.assert_array_equal(shown.reference, whole[0][:, 0])
    np.testing.assert_array_equal(shown.quantized, whole[1][:, 0])


def test_the_raster_of_a_later_sample():
    net, other = Two("m"), Two("m")
    with torch.no_grad():
        other.fc1.weight += 0.2
    found = sq.compare(net, other, data(), raster_sample=11)
    x = data()[1][0][:, 3:4]
    with torch.no_grad():
        wanted = net.lif1(net.fc1(x))[:, 0].numpy()
    assert (found.rasters[0].sample, found.rasters[0].layer) == (11, "lif1")
    np.testing.assert_array_equal(found.rasters[0].reference, wanted)
    assert wanted.sum() > 0
    with pytest.raises(sq.DataError, match="raster_sample 24, but the data hold 24 samples, counted from 0"):
        sq.compare(net, other, data(), raster_sample=24)


def test_a_loop_of_its_own_is_counted_as_the_multi_step_network():
    """The same figures whether the network loops over time, is run layer by layer, or is multi-step."""
    loop, multi = sq.compare(Two(), Two(), data()), sq.compare(Two("m"), Two("m"), data())
    assert loop.to_dict() == multi.to_dict()
    assert loop.reference.effective_acs > 0
