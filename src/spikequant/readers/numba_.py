"""`compile` where no C compiler is: the printed Python of every neuron layer, compiled by numba.

Neuron steps are the text of `emit_python.py` over flat int64 arrays; sums of synapses, pools and joins are the golden
model's own, in numpy.  Slower than the C, the same integers.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet, NeuronNode
from spikequant.law.noise import noise_words, step_key
from spikequant.law.widths import network_ranges, with_start
from spikequant.readers import golden
from spikequant.readers.emit import record
from spikequant.readers.emit_python import python_function
from spikequant.readers.golden import Machine

MOST_PLAIN_STEPS = 100_000
"""Neuron-steps that plain Python does about as fast as numba compiles."""


def numba_missing() -> str:
    """Why neuron steps cannot be compiled by numba here, or nothing."""
    return "" if importlib.util.find_spec("numba") is not None else "numba is not installed"


@lru_cache(maxsize=256)
def compiled(text: str, name: str, jit: bool) -> Callable[..., None]:
    """The function of a printed text, through numba or as it is."""
    scope: dict[str, Any] = {}
    exec(text, scope)  # our own text, printed from a checked network: generated names, whole numbers and operators
    function: Callable[..., None] = scope[name]
    if jit:
        import numba

        function = numba.njit(function)
    return function


class Layer:
    """The step of one neuron layer: a compiled function and its tables for a batch."""

    def __init__(self, net: IntNet, node: NeuronNode, ranges: dict[str, Any], batch: int, *, jit: bool) -> None:
        sources = [with_start(ranges[edge.source], edge.delay) for edge in node.inputs]
        program = record(node, sources)
        text, _, tables = python_function(program, "step")
        self.function = compiled(text, "step", jit)
        self.node, self.shape = node, (batch, *node.shape)
        self.size, self.inputs = batch * math.prod(node.shape), program.inputs
        self.tables = [
            np.ascontiguousarray(np.broadcast_to(np.asarray(table.known), self.shape)).reshape(-1) for table in tables
        ]
        self.results = tuple(program.outputs)

    def __call__(
        self, sources: list[IntArray], state: dict[str, IntArray], words: Any, tick: int
    ) -> dict[str, IntArray]:
        """New states, and ``out`` for a layer that spikes."""
        given = {f"x{k}": source for k, source in enumerate(sources)} | state
        read = [
            tick if name == "tick" else self._flat(words(name[6:]) if name.startswith("noise_") else given[name])
            for name in self.inputs
        ]
        written = [np.empty(self.size, dtype=np.int64) for _ in self.results]
        self.function(self.size, *read, *self.tables, *written)
        return {name: array.reshape(self.shape) for name, array in zip(self.results, written, strict=True)}

    def _flat(self, array: IntArray) -> IntArray:
        return np.ascontiguousarray(np.broadcast_to(array, self.shape), dtype=np.int64).reshape(-1)


class PrintedMachine(Machine):
    """The golden machine with the printed Python of every neuron layer, run as it is."""

    jit = False

    def __init__(self, net: IntNet, batch: int, first_sample: int) -> None:
        super().__init__(net, batch, first_sample)
        ranges = network_ranges(net)
        self.steps = {node.name: Layer(net, node, ranges, batch, jit=self.jit) for node in net.neurons}

    def neuron(self, node: NeuronNode, t: int, sources: list[IntArray]) -> IntArray:
        """One step of a layer."""

        def words(state: str) -> IntArray:
            return noise_words(step_key(node.seed, self.layer[node.name], state, t), self.samples, node.shape)

        tick = int((t + 1) % node.spec.adapt_every == 0)
        found = self.steps[node.name](sources, self.states[node.name], words, tick)
        output = found.pop("out") if node.spec.output == "spike" else found["v"]
        self.states[node.name] = found
        return output


class NumbaMachine(PrintedMachine):
    """The same, compiled by numba."""

    jit = True


def printed_run(net: IntNet, codes: IntArray) -> golden.Run:
    """The printed Python on input codes: as it is for a few neuron-steps, through numba for more.

    Raises:
        Unsupported: too many neuron-steps for plain Python, and no numba.
    """
    steps, batch = (net.steps, len(codes)) if net.input.static else codes.shape[:2]
    few = steps * batch * sum(math.prod(node.shape) for node in net.neurons) <= MOST_PLAIN_STEPS
    if not few and numba_missing():
        raise Unsupported(f"{numba_missing()}, and plain Python would take too long; pip install numba")
    return golden.run(net, codes, machine=PrintedMachine if few else NumbaMachine)


class NumbaNet:
    """A network compiled by numba, with the state of a batch between calls of `step`; the face of `Compiled`."""

    def __init__(self, net: IntNet) -> None:
        reason = numba_missing()
        if reason:
            raise Unsupported(f"{reason}; pip install numba, or a C compiler for engine='c'")
        self.net, self.samples, self.time = net, 0, 0
        self._machine: NumbaMachine | None = None
        self._values: dict[str, IntArray] = {}
        self._scores: IntArray | None = None

    def reset(self, samples: int = 1, *, first_sample: int = 0) -> None:
        """Forget everything and make room for a batch; sample numbers seed the noise of stochastic rounding."""
        self.samples, self.time, self._scores = samples, 0, None
        self._machine = NumbaMachine(self.net, samples, first_sample)

    def step(self, x: Any, *, encoded: bool = False) -> IntArray:
        """One time step on ``[N, ...]``; the scores so far, ``[N, ...]``.

        Raises:
            DataError: a wrong shape, or another number of samples than in the step before.
        """
        static = self.net.input.static
        codes = (
            np.asarray(x, dtype=np.int64)
            if encoded
            else golden.encode(self.net, np.asarray(x)[None] if not static else x)
        )
        codes = codes[0] if not (encoded or static) else codes
        if codes.ndim == 0 or codes.shape[1:] != self.net.input.shape or not len(codes):
            raise DataError(f"step takes [N, {', '.join(map(str, self.net.input.shape))}], got {codes.shape}")
        if self._machine is None:
            self.reset(len(codes))
        if self.samples != len(codes):
            raise DataError(
                f"the states are of {self.samples} samples, {len(codes)} were given; call reset({len(codes)})"
            )
        assert self._machine is not None
        self._values = self._machine.step(self.time, codes)
        self.time += 1
        self._scores = self._decoded(golden.decoded_value(self.net, self._machine, self._values))
        return self.scores()

    def _encode(self, x: Any) -> IntArray:
        return golden.encode(self.net, x) if self.net.input.static else golden.encode(self.net, x[None])[0]

    def _decoded(self, value: IntArray) -> IntArray:
        decoder = self.net.decoder
        now: IntArray = value if decoder.gains is None else value * decoder.gains
        if self._scores is None or decoder.name in ("spike_train", "membrane_train", "membrane_last"):
            return now
        return np.maximum(self._scores, now) if decoder.name == "membrane_max" else self._scores + now

    def scores(self) -> IntArray:
        """Scores after the last step, ``[N, ...]``."""
        if self._scores is None:
            return np.zeros((self.samples, *self.net.node(self.net.decoder.source).shape), dtype=np.int64)
        return self._scores.copy()

    def states(self) -> dict[str, dict[str, IntArray]]:
        """Copies of every stored state and of the spikes (``out``) of every neuron layer after the last step."""
        assert self._machine is not None
        kept = self._machine.states
        return {
            node.name: {k: v.copy() for k, v in kept[node.name].items()} | {"out": self._values[node.name].copy()}
            for node in self.net.neurons
        }

    def run(self, x: Any, *, encoded: bool = False, first_sample: int = 0) -> IntArray:
        """Scores of whole sequences ``[T, N, ...]`` (static input: ``[N, ...]``); leaves the state of `step` alone.

        Args:
            x: data as the network takes them, or its input codes.
            encoded: `x` are codes already; codes without it are taken for data and encoded a second time.
            first_sample: number of the first sample, on which the noise of stochastic rounding depends.

        Raises:
            DataError: data that do not fit the input.
        """
        codes = np.asarray(x, dtype=np.int64) if encoded else golden.encode(self.net, x)
        return golden.run(self.net, codes, first_sample=first_sample, trace=False, machine=NumbaMachine).scores

    def trace(self, codes: IntArray, *, first_sample: int = 0) -> golden.Run:
        """A run on input codes that keeps every spike and state, to be compared with the golden model's."""
        return golden.run(self.net, codes, first_sample=first_sample, machine=NumbaMachine)


__all__ = ["NumbaMachine", "NumbaNet", "PrintedMachine", "compiled", "numba_missing", "printed_run"]
