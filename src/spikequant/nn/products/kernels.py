"""The C of `kernels.c` behind tensors: packing, products and sparse gradients, shared among torch's threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikequant.law.errors import SpikequantError
from spikequant.readers.native import shared_object

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-ffp-contract=off")
PARTS = (Path(__file__).with_name("kernels.c"), Path(__file__).parents[1] / "layerwise" / "layers.c")
SMALL = 1 << 17
"""Bytes of work below which a second thread costs more than it brings."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None without a compiler or with ``SPIKEQUANT_COMPILED_PRODUCTS=0``."""
    if os.environ.get("SPIKEQUANT_COMPILED_PRODUCTS") == "0":
        return None
    try:
        loaded = shared_object("\n".join(part.read_text(encoding="utf-8") for part in PARTS), FLAGS)
    except (SpikequantError, OSError):
        return None
    loaded.sq_weight_gradient.restype = loaded.sq_conv.restype = loaded.sq_events.restype = None
    return loaded


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


def shared_among_threads(work: Callable[[int, int], Any], count: int, cost: int) -> list[Any]:
    """``work(start, stop)`` over ``0 .. count``, in as many parts as torch has threads; one part if it is small."""
    parts = min(torch.get_num_threads(), count, max(1, cost // SMALL))
    if parts <= 1:
        return [work(0, count)]
    edges = [count * k // parts for k in range(parts + 1)]
    pool = _pool(parts - 1, os.getpid())
    waiting = [pool.submit(work, start, stop) for start, stop in pairwise(edges[1:])]
    first = work(0, edges[1])
    return [first, *(part.result() for part in waiting)]
