"""The input of the unsupervised network: Poisson spike trains that replay.

A pixel of intensity ``q`` out of ``q_max`` spikes in a step with probability
``rate_hz * dt_ms / 1000 * q / q_max``.  With `mix` and its arithmetic of `law/noise.py`::

    word(seed, stream, sample, step, pixel)
        = mix(mix(mix(mix(mix(0, seed), stream), sample), step), pixel)
    spike = word < ceil(probability * 2^32)

so that a spike depends on its position only: a run replays from any sample on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError
from spikequant.law.formats import IntArray
from spikequant.law.noise import mix

STREAMS = {"train": 0x10000, "infer": 0x10001, "ties": 0x10002, "stdp": 0x10003, "norm": 0x10004, "adapt": 0x10005}
STREAMS |= {"pre": 0x10006, "post": 0x10007, "init": 0x10008, "order": 0x10009, "ptq": 0x1000A}
"""Numbers of the random streams; those below 2^16 belong to the layers of `law/noise.py`."""

Images = npt.NDArray[np.uint8]


def stream_key(seed: int, stream: str) -> int:
    """The hash that all words of one stream share.

    >>> stream_key(0, "train")
    4141650379
    """
    key: int = mix(mix(0, seed), STREAMS[stream])
    return key


def chance_table(levels: int, *, rate_hz: float, dt_ms: float) -> IntArray:
    """For every intensity ``0 .. levels``, below which word a pixel spikes: int64 ``[levels + 1]``.

    Raises:
        DataError: the brightest pixel would spike more than once a step.

    >>> chance_table(2, rate_hz=500.0, dt_ms=1.0).tolist()
    [0, 1073741824, 2147483648]
    """
    highest = rate_hz * dt_ms / 1000.0
    if levels < 1 or not 0.0 < highest <= 1.0:
        raise DataError(
            f"Poisson input: {rate_hz} Hz in steps of {dt_ms} ms is {highest:g} spikes a step for the brightest of "
            f"{levels} levels; expected more than 0, at most 1, and at least one level"
        )
    return np.array([math.ceil(highest * q / levels * 2**32) for q in range(levels + 1)], dtype=np.int64)


def poisson_spikes(
    images: Images, table: IntArray, *, steps: int, seed: int, stream: str = "infer", first_sample: int = 0
) -> IntArray:
    """Spike trains of a batch of images: 0 / 1 int64 ``[steps, N, pixels]``.

    Args:
        images: intensities ``[N, ...]``, flattened per sample.
        table: see `chance_table`.
        steps: time steps.
        seed: seed of the run.
        stream: ``"train"`` or ``"infer"``.
        first_sample: number of the first image in the stream.

    >>> table = chance_table(1, rate_hz=500.0, dt_ms=1.0)
    >>> poisson_spikes(np.ones((1, 4), np.uint8), table, steps=2, seed=1).tolist()
    [[[1, 0, 1, 0]], [[1, 0, 1, 0]]]
    """
    flat = check_images(images, levels=len(table) - 1)
    samples = np.arange(first_sample, first_sample + len(flat), dtype=np.int64)
    pixels = np.arange(flat.shape[1], dtype=np.int64)
    per_sample = mix(stream_key(seed, stream), samples)
    chance = table[flat]
    spikes: IntArray = np.empty((steps, *flat.shape), dtype=np.int64)
    for t in range(steps):
        words = mix(mix(per_sample, t)[:, None], pixels[None, :])
        spikes[t] = words < chance
    return spikes


def check_images(images: Any, *, levels: int, inputs: int | None = None) -> Images:
    """`images` as uint8 ``[N, pixels]``.

    Raises:
        DataError: no samples, fractions, intensities outside ``0 .. levels``, or another number of pixels.
    """
    array = np.asarray(images)
    if array.ndim < 2 or array.shape[0] == 0 or array.size == 0:
        raise DataError(f"images: expected [N, ...] with at least one image, got the shape {array.shape}")
    if array.dtype.kind not in "ui":
        raise DataError(f"images: expected whole intensities 0 to {levels} (uint8), got {array.dtype}")
    flat = array.reshape(len(array), -1)
    if flat.min() < 0 or flat.max() > levels:
        raise DataError(f"images: intensities from {flat.min()} to {flat.max()}; this network takes 0 to {levels}")
    if inputs is not None and flat.shape[1] != inputs:
        raise DataError(f"images: {flat.shape[1]} pixels; this network takes {inputs}")
    return np.ascontiguousarray(flat, dtype=np.uint8)
