"""The integer network: nodes, edges with delays, one file (`law/artifact.py`).

An `IntNet` is a directed graph that every reader runs or prints.  Each node produces one
integer array per sample and time step.  Edges carry a delay of ``n`` steps (recurrent
connections have 1); what lies before the first step is 0.  The schema holds from its
first version what later parts need: signed counts beside binary spikes, sums, maxima,
concatenations and products of inputs, a product of two activations, per-neuron
parameters, a named decoder, embedded test vectors, a target profile.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.law.nodes import (
    DECODERS,
    JOINS,
    Decoder,
    DecoderName,
    Edge,
    InputNode,
    JoinKind,
    JoinNode,
    MatmulNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
    TestVectors,
)
from spikequant.law.spec import needed_params
from spikequant.law.units import common_unit
from spikequant.law.validation import NETWORK_VERSION, pooled_shape, validate

__all__ = [
    "DECODERS", "JOINS", "NETWORK_VERSION", "Decoder", "DecoderName", "Edge", "InputNode", "IntNet", "JoinKind",
    "JoinNode", "MatmulNode", "NeuronNode", "Node", "PoolNode", "ReshapeNode", "SynapseNode", "TestVectors",
    "common_unit", "needed_params", "pooled_shape", "validate",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class IntNet:
    """A whole integer network.

    Attributes:
        nodes: in an order in which every edge of delay 0 points back.
        decoder: how the output is read.
        steps: number of time steps that a static input is shown.
        target: profile whose rules it follows.
        vectors: embedded test vectors, if any.
        metadata: JSON-able facts for people (plan, versions, seeds); no reader needs them.
    """

    nodes: tuple[Node, ...]
    decoder: Decoder
    steps: int
    target: str = "reference/1"
    vectors: TestVectors | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: int = NETWORK_VERSION

    def __post_init__(self) -> None:
        validate(self)

    def node(self, name: str) -> Node:
        """The node called `name`; raises with the names there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise Unsupported(f"no node {name!r} in this network; there are {', '.join(n.name for n in self.nodes)}")

    @property
    def input(self) -> InputNode:
        """The input node."""
        return next(n for n in self.nodes if isinstance(n, InputNode))

    @property
    def neurons(self) -> tuple[NeuronNode, ...]:
        """The neuron nodes in order; their index is the layer number of the rounding noise."""
        return tuple(n for n in self.nodes if isinstance(n, NeuronNode))

    @property
    def synapses(self) -> tuple[SynapseNode, ...]:
        """The synapse nodes in order."""
        return tuple(n for n in self.nodes if isinstance(n, SynapseNode))

    def save(self, path: Any) -> None:
        """Write the network as one `.spq` file; see `law/artifact.py`."""
        from spikequant.law.artifact import save

        save(self, path)

    @staticmethod
    def load(path: Any) -> IntNet:
        """Read a `.spq` file, checking its hash; see `law/artifact.py`."""
        from spikequant.law.artifact import load

        return load(path)

    def paths(self) -> Any:
        """By which reader and arithmetic each layer's sums are made on this machine: `spikequant.paths` of it.

        This module knows no reader; the package around it, which is there whenever this module is, does (ADR 0033).
        """
        return sys.modules[__name__.partition(".")[0]].paths(self)
