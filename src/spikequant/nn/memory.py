"""Memory for large results that is kept and given out again: fresh pages cost more than the work on them.

A tensor above 32 MB comes from the operating system page by page at every allocation (glibc never keeps such a
block); on the machine of `benchmarks/product_paths.md` that takes 8 ms for 38 MB, writing the same bytes again 0.9 ms.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections import deque
from math import prod
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 20
ALIGNMENT = 64
MOST_IDLE = 1 << 30


@final
class Pool:
    """Blocks of memory, handed out as tensors; a block comes back when the last tensor on it is gone.

    Attributes:
        most_idle: bytes that may lie unused; a block beyond it goes back to the system.
    """

    def __init__(self, most_idle: int = MOST_IDLE) -> None:
        self.most_idle = most_idle
        self._idle: dict[int, deque[Any]] = {}

    @property
    def idle_bytes(self) -> int:
        """Bytes that wait to be used again."""
        return sum(size * len(blocks) for size, blocks in list(self._idle.items()))

    def empty(self, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype, *, last: bool = False) -> Tensor:
        """An uninitialized CPU tensor; `last` puts axis 1 of ``[N, C, ...]`` innermost (channels last).

        >>> Pool().empty((2, 3, 4, 5), torch.float32, last=True).stride()
        (60, 1, 15, 3)
        """
        inner = (shape[0], *shape[2:], shape[1]) if last else tuple(shape)
        count = prod(inner)
        size = count * dtype.itemsize
        flat = torch.empty(count, dtype=dtype) if size < SMALLEST else self._block(size).view(dtype)[:count]
        tensor = flat.reshape(inner)
        return tensor.movedim(-1, 1) if last else tensor

    def empty_like(self, x: Tensor) -> Tensor:
        """An uninitialized tensor with the shape, type and order of axes in memory of a dense CPU tensor."""
        order = sorted(range(x.dim()), key=lambda axis: (x.stride(axis), x.shape[axis], -axis), reverse=True)
        inner = self.empty(tuple(x.shape[axis] for axis in order), x.dtype)
        return inner.permute([order.index(axis) for axis in range(x.dim())])

    def release(self) -> None:
        """Give all unused memory back to the system."""
        self._idle.clear()

    def _block(self, size: int) -> Tensor:
        rounded = size_class(size)
        waiting = self._idle.setdefault(rounded, deque())
        try:
            block = waiting.pop()
        except IndexError:
            block = _aligned(rounded)
        lent = block.view()
        # The tensor holds `lent`; when its storage goes, so does `lent`, and the block waits for the next one.
        weakref.finalize(lent, self._take_back, rounded, block).atexit = False
        return torch.from_numpy(lent)

    def _take_back(self, size: int, block: Any) -> None:
        if self.idle_bytes + size <= self.most_idle:
            self._idle.setdefault(size, deque()).append(block)


def size_class(size: int) -> int:
    """`size` rounded up to an eighth of a power of two, so that batches of nearly one size share blocks.

    >>> size_class(1 << 20), size_class((1 << 20) + 1) - (1 << 20) == 1 << 18
    (1048576, True)
    """
    grain = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // grain) * grain


def _aligned(size: int) -> Any:
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


@final
class FreedMemory:
    """Gives freed memory back to the system once the process has grown by `most` bytes since it last did.

    Blocks below glibc's threshold (up to 32 MB) are cut out of a heap that shrinks at its end only; a few small lasting
    ones between many large passing ones keep all of it, and a process of 1 GB of data grew to 22 GB.  Elsewhere than on
    Linux with glibc nothing is done.
    """

    def __init__(self, most: int = MOST_IDLE // 4) -> None:
        self.most = most
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._before = resident_bytes() if self._trim is not None else 0

    def give_back(self) -> bool:
        """Give back what is free if the process has grown; whether it did."""
        if self._trim is None or resident_bytes() - self._before < self.most:
            return False
        self._trim(0)
        self._before = resident_bytes()
        return True


def resident_bytes() -> int:
    """Bytes of this process in memory, as Linux counts them."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


POOL = Pool()
"""The pool of this process."""

__all__ = ["POOL", "FreedMemory", "Pool", "resident_bytes", "size_class"]
