"""What was computed of candidates that agree from the first stage on: a tree, one node per stage and choice.

A node holds its calibrated layers and, batch by batch, what its stage did: counts, and its spikes packed as bits.
`Tree` keeps these records below a bound in bytes and drops the longest unused.  What was dropped is computed again when
it is asked for, with the same result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.measure import SynOps, SynOpsCount
from spikequant.quantize.calibrate import Wides

Slot = tuple[str, int]
"""``("calibration", k)`` or ``("validation", k)``: a batch."""


@dataclass(frozen=True)
class Packed:
    """A tensor of zeros and one other value as bits, or any other as it is.

    `order` names the axes as memory held them, and `shape` is the shape in that order.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    unit: float
    bits: npt.NDArray[np.uint8] | None
    dense: Tensor | None

    @property
    def size(self) -> int:
        """Bytes."""
        if self.bits is not None:
            return self.bits.nbytes
        return 0 if self.dense is None else self.dense.numel() * self.dense.element_size()

    def unpacked(self) -> Tensor:
        """The tensor again, in float32 and in its order in memory."""
        if self.dense is not None:
            return self.dense
        assert self.bits is not None
        flat = np.unpackbits(self.bits, count=int(np.prod(self.shape)))
        held = torch.from_numpy(flat).to(torch.float32).mul_(self.unit).reshape(self.shape)
        return held.permute(*(self.order.index(axis) for axis in range(len(self.order))))


def packed(x: Tensor, unit: float | None = None) -> Packed:
    """Bits where they say it all; `unit`: it is known that all values are 0 or this one.

    >>> x = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    >>> packed(x).size, torch.equal(packed(x).unpacked(), x), packed(torch.tensor([1.0, 2.0])).size
    (1, True, 8)
    """
    order = tuple(sorted(range(x.dim()), key=x.stride, reverse=True))
    held = x.permute(*order)
    flat = held.reshape(-1)
    on = flat != 0
    if unit is None:
        unit = float(flat.max()) if flat.numel() else 0.0
        if x.dtype != torch.float32 or unit <= 0.0 or not bool((on == (flat == unit)).all()):
            return Packed((), (), 0.0, None, x.contiguous())  # an expanded view says how large it will be
    return Packed(order, tuple(held.shape), unit, np.packbits(on.numpy(force=True)), None)


@dataclass(frozen=True, eq=False)
class Record:
    """What a stage did on one batch.

    Attributes:
        counts: spikes of every neuron over samples and steps, by path; a readout has none.
        operations: synaptic operations by path.
        right: of the last stage: which samples were classified right.
        exports: packed values that later stages read.
        summed: spikes over time in their place, uint8 ``[N, ...]``, where that is all that the last stage asks for.
    """

    counts: dict[str, npt.NDArray[np.float64]]
    operations: dict[str, SynOpsCount]
    right: npt.NDArray[np.bool_] | None
    exports: dict[str, Packed]
    summed: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        summed = 0 if self.summed is None else self.summed.numel()
        return summed + sum(c.nbytes for c in self.counts.values()) + sum(value.size for value in self.exports.values())


@dataclass(eq=False)
class Node:
    """A choice for one stage, behind the same choices for all stages before it."""

    parent: Node | None
    number: int
    key: str
    weight_key: str = ""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)
    refused: str = ""
    weights: dict[str, dict[str, tuple[Tensor, Tensor | None]]] = field(default_factory=dict)
    """Scales and codes that the layers of the next stage were given on this node's spikes, by its weight key."""
    norms: dict[Hashable, list[dict[str, Tensor]]] = field(default_factory=dict)
    """What its batch norms measured on these spikes, by its weight key and the grid of the sums."""
    wides: dict[str, Wides] = field(default_factory=dict)
    """What its neurons did there with a wide membrane, by weight key."""
    counters: dict[str, SynOps] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def child(self, key: str, weight_key: str, *, kept: bool) -> Node:
        """The node of a choice for the next stage; `kept`: found again when it is asked for the next time."""
        with self.lock:
            node = self.children.get(key) or Node(self, self.number + 1, key, weight_key)
            if kept:
                self.children[key] = node
            return node


class Tree:
    """The memory of all nodes, of one network or several.

    Args:
        bound: bytes of records that are kept at most; 0 keeps none.
    """

    def __init__(self, bound: int) -> None:
        self.bound, self.bytes = bound, 0
        self._kept: OrderedDict[tuple[Node, Slot], Record] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, node: Node, slot: Slot, record: Record) -> None:
        """Keep a record, and drop what is longest unused until all fit."""
        if record.size > self.bound:
            return
        with self._lock:
            old = self._kept.pop((node, slot), None)
            self.bytes += record.size - (0 if old is None else old.size)
            self._kept[node, slot] = record
            while self.bytes > self.bound:
                self.bytes -= self._kept.popitem(last=False)[1].size

    def kept(self, node: Node, slot: Slot) -> Record | None:
        """What is kept of a batch, now used last; None if it was dropped or never computed."""
        with self._lock:
            if (node, slot) not in self._kept:
                return None
            self._kept.move_to_end((node, slot))
            return self._kept[node, slot]
