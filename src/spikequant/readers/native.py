"""`compile`: an integer network as machine code of this computer, the C export behind a numpy face.

The C text goes through the system's compiler once and is kept (`readers/compiler.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.readers import golden
from spikequant.readers.c.program import CProgram, build
from spikequant.readers.c.text import header, source
from spikequant.readers.c.types import CType
from spikequant.readers.compiler import cache_folder, find_compiler, machine, shared_object
from spikequant.readers.numba_ import NumbaNet, numba_missing

ENGINES = ("auto", "c", "numba")
FLAGS = ("-std=c99", "-O3", "-march=native")
GLUE = """
#include <stddef.h>

extern const size_t @P_native_layout[];
const size_t @P_native_layout[] = {@L};

void @P_native_init(@P_state *s, size_t samples, uint32_t first);
void @P_native_init(@P_state *const s, const size_t samples, const uint32_t first)
{
    for (size_t n = 0; n < samples; ++n) {
        @P_init(s + n, first + (uint32_t)n);
    }
}

void @P_native_step(@P_state *s, size_t samples, const @P_input *x);
void @P_native_step(@P_state *const s, const size_t samples, const @P_input *const x)
{
    for (size_t n = 0; n < samples; ++n) {
        @P_step(s + n, x + n * @N);
    }
}

void @P_native_run(@P_state *s, size_t samples, uint32_t first, size_t steps, const @P_input *x, size_t step,
                   size_t sample, @P_score *scores, size_t train);
void @P_native_run(@P_state *const s, const size_t samples, const uint32_t first, const size_t steps,
                   const @P_input *const x, const size_t step, const size_t sample, @P_score *const scores,
                   const size_t train)
{
    for (size_t n = 0; n < samples; ++n) {
        @P_init(s, first + (uint32_t)n);
        for (size_t t = 0; t < steps; ++t) {
            @P_step(s, x + t * step + n * sample);
            for (size_t i = 0; i < @O && (train || t + 1u == steps); ++i) {
                scores[train * t + n * @O + i] = s->scores[i];
            }
        }
    }
}
"""


def glue(program: CProgram) -> str:
    """What the shared library offers besides the exported functions: many samples in one call, and the layout."""
    members = ["scores", *(m for places in program.neurons.values() for m, _ in places.values())]
    layout = ", ".join(
        [f"sizeof({program.prefix}_state)", *(f"offsetof({program.prefix}_state, {m})" for m in members)]
    )
    text = GLUE
    inputs = int(np.prod(program.net.input.shape))
    marks = {"@P": program.prefix, "@L": layout, "@N": f"{inputs}u", "@O": f"{program.outputs}u"}
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def library(programs: Sequence[CProgram], flags: Sequence[str] = FLAGS) -> ctypes.CDLL:
    """The compiled programs as one shared library, from the cache if it is there.

    Raises:
        Unsupported: there is no C compiler, or it failed.
    """
    text = "\n".join(header(p) + source(p, None).replace(f'#include "{p.prefix}.h"', "") + glue(p) for p in programs)
    return shared_object(text, flags)


class Compiled:
    """A network as native code, with the state of a batch between calls of `step`.

    ``threads`` share the batch in `run`; `step` is one C call on all samples.
    """

    def __init__(self, program: CProgram, loaded: ctypes.CDLL, threads: int = 1) -> None:
        self.program, self.net, self.threads = program, program.net, threads
        self.loaded = loaded
        self._names = [(node, name) for node, places in program.neurons.items() for name in places]
        count = 2 + len(self._names)
        layout = (ctypes.c_size_t * count).in_dll(loaded, f"{program.prefix}_native_layout")
        self._size, self._scores_at, *self._offsets = (int(v) for v in layout)
        self._memory: Any = None
        self.samples = 0

    def _call(self, name: str, *arguments: Any) -> None:
        getattr(self.loaded, f"{self.program.prefix}_native_{name}")(*arguments)

    def reset(self, samples: int = 1, *, first_sample: int = 0) -> None:
        """Forget everything and make room for a batch; sample numbers seed the noise of stochastic rounding."""
        if samples != self.samples:
            self._memory = np.zeros(samples * self._size + 64, dtype=np.uint8)
        self.samples = samples
        self._call("init", _aligned(self._memory), ctypes.c_size_t(samples), ctypes.c_uint32(first_sample))

    def _view(self, offset: int, ctype: CType, shape: tuple[int, ...], last: bool) -> Any:
        address = int(self._memory.ctypes.data)
        inner = (*shape[1:], shape[0]) if last else shape
        steps = [ctype.bytes * int(np.prod(inner[k + 1 :])) for k in range(len(inner))]
        view: Any = np.ndarray(
            (self.samples, *inner), ctype.numpy, self._memory, offset + (-address) % 64, (self._size, *steps)
        )
        return np.moveaxis(view, -1, 1) if last else view

    def step(self, x: Any, *, encoded: bool = False) -> IntArray:
        """One time step on ``[N, ...]``; the scores so far, ``[N, ...]``.

        Args:
            x: data as the network takes them, or its input codes.
            encoded: `x` are codes already; that they are in range is not checked here.

        Raises:
            DataError: a wrong shape, or another number of samples than in the step before.
        """
        codes = np.asarray(x) if encoded else self._encode(x)
        shape = self.net.input.shape
        if codes.ndim == 0 or codes.shape != (len(codes), *shape) or not len(codes):
            raise DataError(f"step takes [N, {', '.join(map(str, shape))}], got {codes.shape}")
        if self.samples == 0:
            self.reset(len(codes))
        if self.samples != len(codes):
            raise DataError(
                f"the states are of {self.samples} samples, {len(codes)} were given; call reset({len(codes)})"
            )
        self._step(np.ascontiguousarray(codes, dtype=self.program.input_type.numpy))
        return self.scores()

    def _encode(self, x: Any) -> IntArray:
        values = np.asarray(x)
        return golden.encode(self.net, values if self.net.input.static else values[None])[
            () if self.net.input.static else 0
        ]

    def _step(self, codes: Any) -> None:
        self._call("step", _aligned(self._memory), ctypes.c_size_t(self.samples), ctypes.c_void_p(codes.ctypes.data))

    def scores(self) -> IntArray:
        """Scores after the last step, ``[N, ...]``."""
        shape = self.net.node(self.net.decoder.source).shape
        return np.array(self._view(self._scores_at, self.program.score, shape, False), dtype=np.int64)

    def states(self) -> dict[str, dict[str, IntArray]]:
        """Copies of every stored state and of the spikes (``out``) of every neuron layer after the last step."""
        found: dict[str, dict[str, IntArray]] = {}
        for (node, name), offset in zip(self._names, self._offsets, strict=True):
            value, ctype = self.program.layout.values[node], self.program.neurons[node][name][1]
            array = np.array(self._view(offset, ctype, value.shape, value.last), dtype=np.int64)
            found.setdefault(node, {})[name] = array
        return found

    def run(self, x: Any, *, encoded: bool = False, first_sample: int = 0) -> IntArray:
        """Scores of whole sequences ``[T, N, ...]`` (static input: ``[N, ...]``); leaves the state of `step` alone.

        Args:
            x: data as the network takes them, or its input codes.
            encoded: `x` are codes already; codes without it are taken for data and encoded a second time.
            first_sample: number of the first sample, on which the noise of stochastic rounding depends.

        Raises:
            DataError: data that do not fit the input.
        """
        codes = golden.check_codes(self.net, np.asarray(x)) if encoded else golden.encode(self.net, x)
        data = np.ascontiguousarray(codes, dtype=self.program.input_type.numpy)
        static, inputs = self.net.input.static, int(np.prod(self.net.input.shape))
        steps, batch = (self.net.steps, data.shape[0]) if static else data.shape[:2]
        train = self.net.decoder.name.endswith("_train")
        shape = self.net.node(self.net.decoder.source).shape
        scores = np.zeros((*((steps,) if train else ()), batch, *shape), dtype=self.program.score.numpy)
        stride = batch * self.program.outputs if train else 0

        def part(start: int, stop: int) -> None:
            own = np.zeros(self._size + 64, dtype=np.uint8)
            where = ctypes.c_void_p(data.ctypes.data + start * inputs * data.itemsize)
            into = ctypes.c_void_p(scores.ctypes.data + start * self.program.outputs * scores.itemsize)
            sizes = [ctypes.c_size_t(v) for v in (stop - start, steps, 0 if static else batch * inputs, inputs, stride)]
            first = ctypes.c_uint32(first_sample + start)
            self._call("run", _aligned(own), sizes[0], first, sizes[1], where, sizes[2], sizes[3], into, sizes[4])

        if self.threads == 1:
            part(0, batch)
            return scores.astype(np.int64)
        edges = np.linspace(0, batch, min(self.threads, batch) + 1).astype(int).tolist()
        with ThreadPoolExecutor(max_workers=self.threads) as pool:
            list(pool.map(part, edges[:-1], edges[1:]))
        return scores.astype(np.int64)

    def trace(self, codes: IntArray, *, first_sample: int = 0) -> golden.Run:
        """A run on input codes that keeps every spike and state, to be compared with the golden model's."""
        codes = golden.check_codes(self.net, np.asarray(codes, dtype=np.int64))
        static = self.net.input.static
        steps, batch = (self.net.steps, codes.shape[0]) if static else codes.shape[:2]
        data = np.ascontiguousarray(codes, dtype=self.program.input_type.numpy)
        self.reset(batch, first_sample=first_sample)
        seen, trains = [], []
        for t in range(steps):
            self._step(data if static else data[t])
            seen.append(self.states())
            trains.append(self.scores())
        outputs = {node: np.stack([s[node]["out"] for s in seen]) for node in seen[0]}
        states = {
            node: {name: np.stack([s[node][name] for s in seen]) for name in places if name != "out"}
            for node, places in seen[0].items()
        }
        return golden.Run(np.stack(trains) if self.net.decoder.name.endswith("_train") else trains[-1], outputs, states)


def _aligned(memory: Any) -> ctypes.c_void_p:
    """The first address in `memory` that is a multiple of 64."""
    address = int(memory.ctypes.data)
    return ctypes.c_void_p(address + (-address) % 64)


def compile(net: IntNet, *, threads: int = 1, engine: str = "auto") -> Compiled | NumbaNet:
    """`net` as native code: ``step`` for streams, ``run`` for whole sequences.

    Args:
        net: the integer network.
        threads: how many share the batch in `run`; numba's engine runs in one.
        engine: ``c``: the C export through the system's compiler; ``numba``: the printed Python through numba, slower
            and with the same integers; ``auto``: C, or numba where no compiler is.

    Raises:
        Unsupported: no `IntNet`, an unknown engine, or what it needs is not here.
    """
    if not isinstance(net, IntNet):
        raise Unsupported(f"expected an IntNet, got {type(net).__name__}; lower(model, example_input) makes one")
    if threads < 1:
        raise DataError(f"threads = {threads}; expected at least 1")
    if engine not in ENGINES:
        raise Unsupported(f"engine = {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "numba" or (engine == "auto" and find_compiler() is None):
        if engine == "auto" and numba_missing():
            raise Unsupported(
                "neither a C compiler (tried $CC, cc, gcc, clang) nor numba is here; install a compiler, or "
                "pip install numba. spikequant.readers.golden.run needs neither"
            )
        return NumbaNet(net)
    program = build(net, "snn")
    return Compiled(program, library([program]), threads)


__all__ = ["Compiled", "cache_folder", "compile", "find_compiler", "library", "machine", "shared_object"]
