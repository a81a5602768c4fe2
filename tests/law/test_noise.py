"""The noise recipe: numpy, torch and the oracle give the same words; the words look uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.law.oracle_neuron import noise_word

from spikequant.law.noise import NOISE_ROLES, mix, noise_words, step_key
from spikequant.law.rounding import shift_right
from spikequant.nn.loop import torch_noise

PLACES = [(0, 0, 0), (7, 2, 3), (2**32 - 1, 5, 2**16), (123456789, 0, 2**31)]


@pytest.mark.parametrize("role", NOISE_ROLES)
@pytest.mark.parametrize(("seed", "layer", "step"), PLACES)
def test_numpy_torch_and_the_written_recipe_agree(seed, layer, step, role):
    samples, shape = np.array([0, 1, 9, 2**20]), (3, 2)
    words = noise_words(step_key(seed, layer, role, step), samples, shape)
    for n, sample in enumerate(samples.tolist()):
        for k in range(6):
            place = {"seed": seed, "layer": layer, "role": role, "step": step, "sample": sample, "neuron": k}
            assert int(words[n].reshape(-1)[k]) == noise_word(**place)
    got = torch_noise(seed, layer, 9, torch.Size((1, 3, 2)), torch.device("cpu"))(step)(role)
    assert torch.equal(got, torch.from_numpy(words[2:3]))


def test_mix_of_ints_arrays_and_tensors():
    rng = np.random.default_rng(1)
    h, w = rng.integers(0, 2**32, 1000), rng.integers(0, 2**32, 1000)
    arrays = mix(h, w)
    assert arrays.tolist() == [mix(int(a), int(b)) for a, b in zip(h, w, strict=True)]
    assert mix(torch.from_numpy(h), torch.from_numpy(w)).tolist() == arrays.tolist()
    assert arrays.min() >= 0
    assert arrays.max() < 2**32


def test_a_sample_has_its_words_whatever_the_batch():
    key = step_key(3, 1, "v", 4)
    together = noise_words(key, np.arange(8), (5,))
    for n in range(8):
        assert np.array_equal(noise_words(key, np.array([n]), (5,))[0], together[n])


def test_every_part_of_the_position_counts():
    place = {"seed": 1, "layer": 2, "role": "v", "step": 3, "sample": 4, "neuron": 5}
    others = [
        {**place, name: value}
        for name, value in (("seed", 2), ("layer", 1), ("role", "i"), ("step", 4), ("sample", 5), ("neuron", 4))
    ]
    words = {noise_word(**p) for p in (place, *others)}
    assert len(words) == 7


def test_words_are_uniform():
    words = noise_words(step_key(11, 0, "v", 0), np.arange(256), (256,)).reshape(-1)
    for bits in (words >> 24, words & 0xFF, (words >> 12) & 0xFF):
        counts = np.bincount(bits, minlength=256)
        chi2 = float(((counts - 256.0) ** 2 / 256.0).sum())
        assert 150 < chi2 < 370  # 255 degrees of freedom: mean 255, deviation 22.6
    ones = [(words >> k & 1).mean() for k in range(32)]
    assert max(abs(one - 0.5) for one in ones) < 0.01


def test_neighbours_do_not_correlate():
    words = noise_words(step_key(11, 0, "v", 0), np.arange(300), (300,)) / 2.0**32
    for a, b in ((words[:, :-1], words[:, 1:]), (words[:-1], words[1:])):
        assert abs(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]) < 0.02
    other = noise_words(step_key(11, 0, "v", 1), np.arange(300), (300,)) / 2.0**32
    assert abs(np.corrcoef(words.reshape(-1), other.reshape(-1))[0, 1]) < 0.02


@pytest.mark.parametrize("value", [-37, -1, 1, 5, 23])
def test_stochastic_rounding_is_unbiased(value):
    words = noise_words(step_key(5, 3, "v", 2), np.arange(200), (200,)).reshape(-1)
    got = shift_right(np.full(words.shape, value), 4, "stochastic", noise=words)
    assert set(got.tolist()) <= {value >> 4, (value >> 4) + 1}
    assert abs(got.mean() - value / 16) < 4 * 0.5 / np.sqrt(words.size)
