"""The rounding noise: a counter-based generator, so that a stochastic run replays.

A word depends on its position only.  With ``fmix`` the 32-bit finaliser of MurmurHash3
(A. Appleby, public domain) and all arithmetic modulo 2^32::

    fmix(h):  h ^= h >> 16;  h *= 0x85EBCA6B;  h ^= h >> 13;  h *= 0xC2B2AE35;  h ^= h >> 16
    mix(h, w) = fmix(h ^ (w * 0x9E3779B1 + 0x7F4A7C15))
    word(seed, layer, role, step, sample, neuron)
        = mix(mix(mix(mix(mix(mix(0, seed), layer), role), step), sample), neuron)

``layer`` is the index of the neuron node among the neuron nodes of the network, ``role``
0 for the membrane, 1 for the current, 2 for the adaptive threshold, 3 for the input register, ``neuron`` the flat
index inside the layer.  numpy, torch and C give the same words.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from spikequant.law.formats import IntArray

MASK = 0xFFFFFFFF
NOISE_ROLES = {"v": 0, "i": 1, "a": 2, "x": 3}
A = TypeVar("A", int, IntArray, Any)


def mix(h: A, word: A) -> A:
    """Fold one 32-bit `word` into the hash `h`; ints, int64 arrays or int64 tensors.

    >>> mix(0, 0), mix(1, 2)
    (1270938603, 2828379078)
    """
    h = (h ^ ((word * 0x9E3779B1 + 0x7F4A7C15) & MASK)) & MASK
    h = h ^ (h >> 16)
    h = (h * 0x85EBCA6B) & MASK
    h = h ^ (h >> 13)
    h = (h * 0xC2B2AE35) & MASK
    return h ^ (h >> 16)


def step_key(seed: int, layer: int, role: str, step: int) -> int:
    """The hash of everything that one step of one layer shares."""
    key: int = mix(mix(mix(mix(0, seed), layer), NOISE_ROLES[role]), step)
    return key


def noise_words(key: int, samples: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Words for every sample and neuron: int64 ``[len(samples), *shape]`` in ``[0, 2^32)``.

    >>> noise_words(step_key(7, 0, "v", 3), np.array([0, 1]), (2,)).tolist()
    [[1717208222, 1100253333], [3612999113, 1077670804]]
    """
    per_sample = mix(np.int64(key), np.asarray(samples, dtype=np.int64))
    neurons = np.arange(int(np.prod(shape)), dtype=np.int64)
    words: IntArray = mix(per_sample[:, None], neurons[None, :])
    return words.reshape(len(samples), *shape)
