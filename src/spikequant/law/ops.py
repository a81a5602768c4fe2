"""The vocabulary of the law, and the two numpy readers of it.

A neuron step is straight-line code over ten words::

    const add sub mul shr clip ge where max dot

`Ops` says what a reader offers.  `IntOps` (numpy int64) *is* the truth; `RealOps` does
not round, and reproduces the library that a network came from; `RangeOps`
(`law/bounds.py`) proves widths; `TorchOps` (`nn/torch_ops.py`) trains.  An eleventh word
needs a decision in docs/adr.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from spikequant.law.formats import IntArray
from spikequant.law.products import Product
from spikequant.law.rounding import Rounding, shift_right

V = TypeVar("V")


class Ops(Protocol[V]):
    """The ten words.  Values broadcast; spikes are 0 / 1 numbers."""

    def const(self, value: Any) -> V:
        """A value that nothing is learned through."""
        ...

    def add(self, a: V, b: V) -> V:
        """``a + b``."""
        ...

    def sub(self, a: V, b: V) -> V:
        """``a - b``."""
        ...

    def mul(self, a: V, b: V) -> V:
        """``a * b``."""
        ...

    def shr(self, a: V, n: V, rounding: Rounding, noise: V | None = None) -> V:
        """``a / 2^n``, brought to an integer by the named rounding."""
        ...

    def clip(self, a: V, low: int, high: int) -> V:
        """`a`, held inside ``[low, high]``."""
        ...

    def ge(self, a: V, b: V) -> V:
        """1 where ``a >= b``, else 0: the one comparator."""
        ...

    def where(self, condition: V, a: V, b: V) -> V:
        """`a` where `condition` is 1, `b` where it is 0."""
        ...

    def max(self, a: V, b: V) -> V:
        """The larger of two."""
        ...

    def dot(self, x: V, product: Product) -> V:
        """The exact sum of codes times inputs of one linear map."""
        ...


class IntOps:
    """The golden reader: numpy int64.

    >>> ops = IntOps()
    >>> ops.shr(np.array([-5, 5]), np.array(1), "floor").tolist()
    [-3, 2]
    """

    def const(self, value: Any) -> IntArray:
        """`value` as int64."""
        return np.asarray(value, dtype=np.int64)

    def add(self, a: IntArray, b: IntArray) -> IntArray:
        """``a + b``."""
        return a + b

    def sub(self, a: IntArray, b: IntArray) -> IntArray:
        """``a - b``."""
        return a - b

    def mul(self, a: IntArray, b: IntArray) -> IntArray:
        """``a * b``."""
        return a * b

    def shr(self, a: IntArray, n: IntArray, rounding: Rounding, noise: IntArray | None = None) -> IntArray:
        """``a / 2^n`` under the named rounding."""
        return shift_right(a, n, rounding, noise=noise)

    def clip(self, a: IntArray, low: int, high: int) -> IntArray:
        """`a` inside ``[low, high]``."""
        return np.clip(a, low, high)

    def ge(self, a: IntArray, b: IntArray) -> IntArray:
        """1 where ``a >= b``."""
        return (a >= b).astype(np.int64)

    def where(self, condition: IntArray, a: IntArray, b: IntArray) -> IntArray:
        """`a` where `condition`, else `b`."""
        return np.where(condition != 0, a, b)

    def max(self, a: IntArray, b: IntArray) -> IntArray:
        """The larger of two."""
        return np.maximum(a, b)

    def dot(self, x: IntArray, product: Product) -> IntArray:
        """Exact sum of codes times inputs."""
        return product.apply(x)


RealArray = npt.NDArray[np.float64]


class RealOps:
    """The reader that does not round: float64 arithmetic of the real neuron.

    >>> float(RealOps().shr(np.float64(5.0), np.float64(1.0), "floor"))
    2.5
    """

    def const(self, value: Any) -> RealArray:
        """`value` as float64."""
        return np.asarray(value, dtype=np.float64)

    def add(self, a: RealArray, b: RealArray) -> RealArray:
        """``a + b``."""
        return a + b

    def sub(self, a: RealArray, b: RealArray) -> RealArray:
        """``a - b``."""
        return a - b

    def mul(self, a: RealArray, b: RealArray) -> RealArray:
        """``a * b``."""
        return a * b

    def shr(self, a: RealArray, n: RealArray, rounding: Rounding, noise: RealArray | None = None) -> RealArray:
        """``a / 2^n``, not rounded."""
        return a * np.exp2(-np.asarray(n, dtype=np.float64))

    def clip(self, a: RealArray, low: int, high: int) -> RealArray:
        """`a` inside ``[low, high]``."""
        return np.clip(a, low, high)

    def ge(self, a: RealArray, b: RealArray) -> RealArray:
        """1.0 where ``a >= b``."""
        return (a >= b).astype(np.float64)

    def where(self, condition: RealArray, a: RealArray, b: RealArray) -> RealArray:
        """`a` where `condition`, else `b`."""
        return np.where(condition != 0, a, b)

    def max(self, a: RealArray, b: RealArray) -> RealArray:
        """The larger of two."""
        return np.maximum(a, b)

    def dot(self, x: RealArray, product: Product) -> RealArray:
        """Sum of codes times inputs in float64."""
        return product.apply_real(x)
