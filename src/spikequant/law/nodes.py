"""The nodes of an integer network, and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spikequant.law.formats import IntArray, IntFormat
from spikequant.law.products import Product
from spikequant.law.spec import NeuronSpec

DecoderName = Literal["spike_count", "spike_train", "membrane_last", "membrane_max", "membrane_sum", "membrane_train"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
JoinKind = Literal["add", "concat", "product", "iand", "max"]
JOINS: tuple[JoinKind, ...] = get_args(JoinKind)


@dataclass(frozen=True)
class Edge:
    """The output of `source`, `delay` steps ago."""

    source: str
    delay: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class InputNode:
    """What enters: integer codes of `shape`; ``static`` inputs are the same at every step.

    ``scale`` says how a real input becomes codes: ``clip(round_half_even(x / scale))`` in
    float32; ``None`` means that the data are integers already.
    """

    name: str
    shape: tuple[int, ...]
    format: IntFormat
    static: bool
    scale: float | None = None

    @property
    def inputs(self) -> tuple[Edge, ...]:
        """An input has no inputs."""
        return ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SynapseNode:
    """Codes times inputs, summed exactly. ``format`` and ``bits`` describe the codes as stored.

    ``scale`` is what one unit of the sum is worth, per output channel: for people, no reader needs it.

    ``codebook`` ``[out, bits]``, where there is one: each code of channel ``c`` is a signed sum of its row,
    ``sum_j (+-1) codebook[c, j]``, so that `bits` signs store it.
    """

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    product: Product
    format: IntFormat
    bits: int
    scale: Any = None
    codebook: IntArray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronNode:
    """Neurons: ``x = sum_k gains[k] * inputs[k]`` in accumulator LSBs, then the law's step."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    gains: tuple[IntArray, ...]
    spec: NeuronSpec
    params: Mapping[str, IntArray]
    seed: int = 0
    scale: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolNode:
    """Sum or maximum over windows; an average is a sum whose ``1 / k^2`` lies in the next weights."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    kind: Literal["sum", "max"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReshapeNode:
    """The same integers in another shape, in C order (flatten)."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinNode:
    """Several inputs become one: ``gains`` bring them to one unit; ``iand`` is ``(1 - a) * b``."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    kind: JoinKind
    gains: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class MatmulNode:
    """A product of two activations ``[..., n, k] @ [..., k, m]`` (spiking attention)."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    transpose_second: bool = False


Node = InputNode | SynapseNode | NeuronNode | PoolNode | ReshapeNode | JoinNode | MatmulNode


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """How the output node's train becomes scores: a named function on scaled integers.

    ``gains`` brings the channels to one scale (DESIGN rule 7); ``scores * scale`` is the
    model's real output.
    """

    name: DecoderName
    source: str
    gains: IntArray | None = None
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TestVectors:
    """Stimulus and what it must give: a self-test that travels with the file."""

    __test__ = False  # its name is no reason for pytest to collect it

    inputs: IntArray
    scores: IntArray
