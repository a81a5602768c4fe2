"""Kernels compiled by numba, where there is no C compiler: they take what the C ones take, addresses and all."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import RLock
from types import ModuleType
from typing import Any

import numpy as np

from spikequant.law.atomic import write_text
from spikequant.law.errors import Unsupported
from spikequant.readers.compiler import cache_folder
from spikequant.readers.kernels.adjoint import adjoint
from spikequant.readers.kernels.body import Body
from spikequant.readers.kernels.c_text import BLOCK, Surface
from spikequant.readers.kernels.keys import BackwardKey, ForwardKey
from spikequant.readers.kernels.numba_text import fixed_masks, fixed_reals, numba_backward, numba_forward
from spikequant.readers.numba_ import numba_missing

_LOADING = RLock()
COUNTS = 15
"""Sizes in front of one flag per parameter (`frame.c`)."""


class NumbaKernel:
    """A function compiled by numba behind the call of `native.Kernel`."""

    block = BLOCK

    def __init__(self, face: Surface, body: Body, function: Callable[..., None], *, double: bool, back: bool) -> None:
        self.face, self.body, self.function, self.back = face, body, function, back
        self.dtype: Any = np.float64 if double else np.float32

    def __call__(self, sizes: Sequence[int], pointers: Sequence[int | None]) -> None:
        """Run on addresses; see `frame.c` for their order."""
        n = np.array(sizes[:COUNTS], dtype=np.int64)
        steps, places, channels, x_step, grad_step = (int(n[k]) for k in (0, 1, 2, 4, 5))
        given = [
            self.array(p, channels if many else 1) for p, many in zip(self.of(pointers), sizes[COUNTS:], strict=True)
        ]
        params, masks = self.laid_out(dict(zip(self.face.params, given, strict=True)), channels)
        keys = _words(pointers[2], steps * len(self.face.noises))
        x = self.array(pointers[0], (steps - 1) * x_step + places)
        behind = 3 + self.back + len(self.face.params)
        states = [
            self.array(p, places) for p in pointers[behind : behind + (3 if self.back else 2) * len(self.face.states)]
        ]
        if not self.back:
            out = self.array(pointers[1], steps * places)
            blocks = -(-places // BLOCK)
            _shared(lambda a, b: self.function(n, x, out, keys, params, masks, *states, a, b), blocks, int(n[8]))
            return
        grad = self.array(pointers[1], (steps - 1) * grad_step + places)
        slope = self.dtype(_view(pointers[3], 1, np.float64)[0])
        dx = self.array(pointers[-2], places if n[14] else steps * places)
        sums = _view(pointers[-1], int(n[12]) * len(self.face.reduced) * channels, np.float64)
        rest = (keys, slope, params, masks, *states, dx, sums)
        _shared(lambda a, b: self.function(n, x, grad, *rest, a, b), int(n[12]), int(n[8]))

    def of(self, pointers: Sequence[int | None]) -> Sequence[int | None]:
        """The addresses of the parameters."""
        first = 3 + self.back
        return pointers[first : first + len(self.face.params)]

    def array(self, address: int | None, count: int) -> Any:
        """Numbers at an address; empty for none."""
        return _view(address, count if address else 0, self.dtype)

    def laid_out(self, params: dict[str, Any], channels: int) -> tuple[Any, Any]:
        """Parameters and what follows from them, one row each, and the masks of noise."""
        words = {name: value.astype(np.float64) for name, value in params.items()}
        scope = {"AT": lambda value: value, "NUM": float, "FACTOR": _factor, "HALF": _half, "MASK": _mask, **words}
        rows = [*params.values(), *(_valued(call, scope) for call in fixed_reals(self.body))]
        masks = [_valued(call, scope) for call in fixed_masks(self.body)]
        return _rows(rows, channels, self.dtype), _rows(masks, channels, np.uint32)


def _valued(call: tuple[str, str], scope: dict[str, Any]) -> Any:
    """A function of a shift, both of our own text (`body.py`)."""
    return eval(f"{call[0]}({call[1]})", {"__builtins__": {}}, scope)


def _rows(values: Sequence[Any], channels: int, dtype: Any) -> Any:
    rows = np.empty((len(values), channels), dtype=dtype)
    for row, value in zip(rows, values, strict=True):
        row[:] = value
    return rows


def _factor(n: Any) -> Any:
    return np.exp2(-n)


def _half(n: Any) -> Any:
    return np.where(n > 0, np.exp2(n - 1), 0.0)


def _mask(n: Any) -> Any:
    return np.exp2(n).astype(np.int64) - 1


def _view(address: int | None, count: int, dtype: Any) -> Any:
    if not address or not count:
        return np.empty(0, dtype=dtype)
    memory = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype=dtype)


def _words(address: int | None, count: int) -> Any:
    return _view(address, count, np.uint32)


def _shared(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """``work(start, stop)`` over ``0 .. count``; numba's functions run beside each other without Python's lock."""
    parts = max(1, min(threads, count))
    if parts == 1:
        work(0, count)
        return
    edges = [count * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(max_workers=parts) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(edges)]:
            done.result()


@cache
def numba_forward_kernel(key: ForwardKey) -> NumbaKernel:
    """The forward pass by numba.

    Raises:
        Unsupported: the spec has no kernel, or numba is not installed.
    """
    tape, body = key.recorded()
    text, face = numba_forward(tape, body, double=key.double)
    return NumbaKernel(face, body, loaded(text).forward, double=key.double, back=False)


@cache
def numba_backward_kernel(key: BackwardKey) -> NumbaKernel:
    """The backward pass by numba.

    Raises:
        Unsupported: the spec has no kernel, or numba is not installed.
    """
    tape, body = key.forward.recorded()
    text, face = numba_backward(tape, body, adjoint(tape, body, key.wanted), key.surrogate, double=key.forward.double)
    return NumbaKernel(face, body, loaded(text).backward, double=key.forward.double, back=True)


def loaded(text: str) -> Any:
    """The text as a module, from a file in the cache folder: numba keeps what it compiled beside the file."""
    if numba_missing():
        raise Unsupported(f"there is no C compiler, and {numba_missing()}")
    return module_of(text, "neuron")


def module_of(text: str, kind: str) -> ModuleType:
    """A printed text as a module of its own; where threads ask for one at once, the others wait for the first."""
    name = f"spikequant_{kind}_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    with _LOADING:
        return sys.modules[name] if name in sys.modules else _executed(name, text)


def _executed(name: str, text: str) -> ModuleType:
    path = cache_folder() / f"{name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
        os.chmod(path, 0o600)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half a module is none
        raise
    return module


__all__ = ["NumbaKernel", "loaded", "module_of", "numba_backward_kernel", "numba_forward_kernel"]
