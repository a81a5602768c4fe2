"""The C of `kernels.c` behind tensors: packing, products and sparse gradients, shared among torch's threads."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikequant.law.errors import SpikequantError, Unsupported
from spikequant.readers.native import shared_object

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-ffp-contract=off")
FILES = (
    "products/kernels.c",
    "products/gradients.c",
    "products/conv_gradients.c",
    "layerwise/layers.c",
    "max_pool.c",
    "moments.c",
)
PARTS = tuple(Path(__file__).parents[1] / part for part in FILES)
_HOME = os.getpid()
_INSIDE = threading.local()
_PART = ctypes.CFUNCTYPE(None, ctypes.c_int)
SMALL = 1 << 17
"""Bytes of work below which a second thread costs more than it brings."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None without a compiler or with ``SPIKEQUANT_COMPILED_PRODUCTS=0``."""
    if os.environ.get("SPIKEQUANT_COMPILED_PRODUCTS") == "0":
        return None
    try:
        loaded = _compiled("\n".join(part.read_text(encoding="utf-8") for part in PARTS))
    except (SpikequantError, OSError):
        return None
    loaded.sq_linear_events.restype = ctypes.c_ssize_t
    loaded.sq_list.restype = ctypes.c_ssize_t
    loaded.sq_weight_gradient.restype = loaded.sq_conv.restype = loaded.sq_events.restype = None
    return loaded


def _compiled(text: str) -> ctypes.CDLL:
    """With threads where the compiler has OpenMP."""
    try:
        return shared_object(text, (*FLAGS, "-fopenmp"))
    except Unsupported as error:
        if "could not compile" not in str(error):
            raise
        return shared_object(text, FLAGS)


def has_vnni() -> bool:
    """Whether the compiled kernels use the processor's byte products."""
    loaded = library()
    return loaded is not None and bool(loaded.sq_has_vnni())


def sizes(*values: int) -> Any:
    """A C array of sizes."""
    return (ctypes.c_ssize_t * len(values))(*values)


def at(tensor: Tensor, offset: int = 0) -> ctypes.c_void_p:
    """The address of a tensor's first element, or of a later one."""
    return ctypes.c_void_p(tensor.data_ptr() + offset * tensor.element_size())


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix=f"spikequant-{process}")


def threads(cost: int, most: int) -> ctypes.c_int:
    """For how many threads a kernel that shares its own loop asks, at most `most`; 1 where the work is small.

    Nothing of Python runs on them: each would wait for its turn at the interpreter.
    """
    if getattr(_INSIDE, "part", False) or os.getpid() != _HOME:
        return ctypes.c_int(1)
    return ctypes.c_int(max(1, min(torch.get_num_threads(), most, cost // SMALL)))


def shared_among_threads(work: Callable[[int, int], Any], count: int, cost: int) -> list[Any]:
    """``work(start, stop)`` over ``0 .. count``, in as many parts as torch has threads; one part if it is small.

    A part that shares its own work does it on its thread.
    """
    parts = min(torch.get_num_threads(), count, max(1, cost // SMALL))
    if parts <= 1 or getattr(_INSIDE, "part", False):
        return [work(0, count)]
    edges = list(pairwise([count * k // parts for k in range(parts + 1)]))
    found: list[Any] = [None] * parts
    failed: list[BaseException] = []

    def part(k: int) -> None:
        _INSIDE.part = True
        try:
            found[k] = work(*edges[k])
        except BaseException as error:  # nothing may pass through C
            failed.append(error)
        finally:
            _INSIDE.part = False

    if not _by_openmp(part, parts):
        list(_pool(parts, os.getpid()).map(part, range(parts)))
    if failed:
        raise failed[0]
    return found


def _by_openmp(part: Callable[[int], None], parts: int) -> bool:
    """Whether the parts ran on torch's own threads; a forked process has none of them."""
    loaded = library()
    return loaded is not None and os.getpid() == _HOME and bool(loaded.sq_share(_PART(part), ctypes.c_int(parts)))
