"""The unsupervised network as an object: weights, adaptive thresholds, and how far it has learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError
from spikequant.law.formats import IntArray
from spikequant.law.noise import mix
from spikequant.law.rounding import Rounding, shift_right
from spikequant.learn.arrays import Keys, Record, Work
from spikequant.learn.build import build
from spikequant.learn.config import DiehlCook, Precision
from spikequant.learn.numbers import Numbers, numbers, whole
from spikequant.learn.poisson import chance_table, check_images, stream_key

INFERENCE_LAYER = 0
"""The excitatory neurons are the first neuron node of the lowered network; their rounding noise is that layer's."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What a network did with a batch of images.

    Attributes:
        counts: spikes that were sent, int32 ``[N, neurons]``.
        order: the first spikes of every image in order, neuron numbers, -1 behind the last one; int32 ``[N, most]``.
        spikes, v, r: spikes, membranes and refractory counters of every step ``[T, N, neurons]``, if asked for.
    """

    counts: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32]
    spikes: npt.NDArray[Any] = field(repr=False)
    v: npt.NDArray[Any] = field(repr=False)
    r: npt.NDArray[Any] = field(repr=False)


class Network:
    """Diehl & Cook's network, float or quantized.

    Attributes:
        config, precision: what it is.
        numbers: its constants.
        weights: codes (or float32) ``[inputs, neurons]``.
        adaptive: adaptive thresholds ``[neurons]``, in their own units.
        common: what they all have besides, in these units with 16 fraction bits (`Precision.common_threshold`).
        seen: images it has learned from; the position in its random streams.
        engine: ``"auto"``, ``"numba"`` or ``"python"``.
    """

    def __init__(self, config: DiehlCook, precision: Precision | None = None, *, engine: str = "auto") -> None:
        self.config = config
        self.precision = precision or Precision()
        self.engine = engine
        self.numbers: Numbers = numbers(config, self.precision)
        self.table = chance_table(config.levels, rate_hz=config.rate_hz, dt_ms=config.dt_ms)
        self.weights: npt.NDArray[Any] = self.coded_weights(start_weights(config))
        self.adaptive: npt.NDArray[Any] = np.zeros(config.neurons, self.numbers.state_type)
        self.common = 0
        self.seen = 0

    def coded_weights(self, weights: npt.NDArray[np.float64], stream: str = "init") -> npt.NDArray[Any]:
        """Real weights on this network's grid, rounded as the plan says."""
        n = self.numbers
        if n.real:
            return weights.astype(np.float32)
        return coded(weights / n.w_lsb, n.roundings["weight"], n.w_max, self.config.seed, stream).astype(np.int32)

    def real_weights(self) -> npt.NDArray[np.float64]:
        """The weights in their real unit."""
        return np.asarray(self.weights, dtype=np.float64) * self.numbers.w_lsb

    def real_adaptive(self) -> npt.NDArray[np.float64]:
        """The adaptive thresholds in mV."""
        return (np.asarray(self.adaptive, dtype=np.float64) + whole(self.common)) * self.numbers.a_lsb

    def learn(self, images: Any) -> Activity:
        """Show `images` once, learning from each; the next call goes on behind them."""
        flat = self._checked(images)
        kernel = build(self.numbers, self.config, learns=True, engine=self.engine)
        activity = self._present(kernel, flat, self.seen, "train", self.config.steps, records=False)
        self.seen += len(flat)
        return activity

    def infer(self, images: Any, *, first: int = 0, records: bool = False) -> Activity:
        """Show `images` to the network as it is, every spike sent.

        Args:
            images: ``[N, ...]``.
            first: number of the first image in the stream of inputs and of rounding noise.
            records: keep every spike and state.
        """
        flat = self._checked(images)
        kernel = build(self.numbers, self.config, learns=False, engine=self.engine)
        most = 4 * self.config.steps
        while True:
            activity = self._present(kernel, flat, first, "infer", most, records=records)
            longest = int(activity.counts.sum(axis=1).max())
            if longest <= most:
                return activity
            most = longest  # more spikes than expected: the run replays, so look again with room for all

    def _checked(self, images: Any) -> npt.NDArray[np.uint8]:
        return check_images(images, levels=self.config.levels, inputs=self.config.inputs)

    def _present(self, kernel: Any, flat: Any, first: int, stream: str, most: int, *, records: bool) -> Activity:
        if not 0 <= first <= 2**32 - len(flat):
            raise DataError(f"image number {first} is outside the random streams, 0 to 2^32 - 1")
        config, learns = self.config, stream == "train"
        work = self._work()
        if not learns:
            work.per_neuron[:] = self.numbers.theta_of(self.adaptive, self.common)
        work.common[0], work.base[0] = self.common, self.numbers.base_of(self.common)
        shape = (config.steps, len(flat), config.neurons) if records else (0, 0, 0)
        record = Record(
            counts=np.zeros((len(flat), config.neurons), np.int32),
            order=np.full((len(flat), most), -1, np.int32),
            length=np.zeros(len(flat), np.int64),
            spikes=np.zeros(shape, np.int8),
            v=np.zeros(shape, self.numbers.state_type),
            r=np.zeros(shape, self.numbers.state_type),
        )
        kernel(flat, self.table, self.weights, self.adaptive, work, record, self._keys(stream), first, config.steps)
        self.common = int(work.common[0])
        longest = min(most, int(record.length.max()))
        return Activity(record.counts, record.order[:, :longest], record.spikes, record.v, record.r)

    def _keys(self, stream: str) -> Keys:
        keys = {name: stream_key(self.config.seed, name) for name in ("ties", "stdp", "norm", "adapt", "pre", "post")}
        return Keys(input=stream_key(self.config.seed, stream), seed=self.config.seed, **keys)

    def _work(self) -> Work:
        n, inputs, numbers = self.config.neurons, self.config.inputs, self.numbers
        types = {**dict.fromkeys(("x", "xi", "per_neuron", "base"), numbers.sum_type)}
        types |= dict.fromkeys(("v", "r", "out", "post", "vi", "ri", "si", "pre"), numbers.state_type)
        lengths = dict.fromkeys(("active", "chance", "pre", "noise_in", "spiking"), inputs)
        lengths |= {"base": 1, "common": 1}
        return Work(**{f: np.zeros(lengths.get(f, n), types.get(f, np.int64)) for f in Work._fields})


def start_weights(config: DiehlCook) -> npt.NDArray[np.float64]:
    """Weights uniform on ``[0, w_start)``: ``w_start * word / 2^32`` of the stream ``init``."""
    words = _words(stream_key(config.seed, "init"), config.inputs * config.neurons)
    weights: npt.NDArray[np.float64] = config.w_start * (words.astype(np.float64) / 2.0**32)
    return weights.reshape(config.inputs, config.neurons)


def coded(units: npt.NDArray[np.float64], rounding: Rounding, highest: int, seed: int, stream: str) -> IntArray:
    """Real units as codes ``0 .. highest`` under the law's rounding, with 24 fraction bits before it."""
    fine = np.rint(np.clip(units, 0, highest) * 2.0**24).astype(np.int64)
    words = _words(stream_key(seed, stream), fine.size).reshape(fine.shape)
    return np.clip(shift_right(fine, 24, rounding, noise=words), 0, highest)


def _words(key: int, count: int) -> IntArray:
    words: IntArray = mix(key, np.arange(count, dtype=np.int64))
    return words
