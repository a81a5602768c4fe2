"""Random graphs of every kind of node in any order that a network allows: for readers that plan memory and layouts."""

from __future__ import annotations

import random

import numpy as np
from tests.conformance.handmade import ints, neuron

from spikequant.law.bounds import prove_step
from spikequant.law.errors import SpikequantError
from spikequant.law.formats import IntFormat
from spikequant.law.network import (
    DECODERS,
    Decoder,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    MatmulNode,
    NeuronNode,
    PoolNode,
    ReshapeNode,
    SynapseNode,
    pooled_shape,
)
from spikequant.law.products import Product
from spikequant.law.widths import prove_network

SHAPES = ((6,), (2, 5), (4, 3), (2, 4, 4), (3, 5, 4), (2, 2, 3))
MOST = 2**34


class Graph:
    """A network that grows node by node; what the law refuses is left out."""

    def __init__(self, seed):
        self.dice, self.generator = random.Random(seed), np.random.default_rng(seed)
        bits, signed = self.dice.choice((1, 2, 4, 7)), self.dice.random() < 0.4
        fmt = IntFormat(bits=bits + signed, signed=signed)
        static = self.dice.random() < 0.3
        self.nodes = [InputNode(name="input", shape=self.dice.choice(SHAPES), format=fmt, static=static)]
        self.kinds = set()

    def edge(self, node):
        """An edge from a node, now and then with a delay."""
        return Edge(node.name, self.dice.choice((0, 0, 0, 1, 2, 3)))

    def pick(self, fits=lambda node: True):
        """A node that fits, a late one rather than an early one."""
        found = [node for node in self.nodes if fits(node)]
        return found[-1 - min(int(self.dice.expovariate(0.7)), len(found) - 1)] if found else None

    def add(self, node):
        """Keep a node if the network is still one that can be proven."""
        try:
            net = IntNet(nodes=(*self.nodes, node), decoder=Decoder(name="membrane_last", source=node.name), steps=2)
            prove_network(net)
        except SpikequantError:
            return
        self.nodes.append(node)
        self.kinds.add(type(node).__name__ + (f" {node.kind}" if isinstance(node, (JoinNode, PoolNode)) else ""))

    def grow(self):
        """Try to add a node of a random kind."""
        kind = self.dice.choice(
            (
                "linear",
                "conv",
                "conv",
                "pool",
                "reshape",
                "reshape",
                "join",
                "concat",
                "matmul",
                "neuron",
                "neuron",
                "loop",
            )
        )
        source = self.pick()
        getattr(self, kind)(f"{kind}{len(self.nodes)}", source)

    def linear(self, name, source):
        bits, outputs = self.dice.choice((1, 2, 3, 4, 5, 8, 12, 16)), self.dice.randint(1, 9)
        fmt = IntFormat(bits=max(bits, 2))
        codes = self.generator.integers(fmt.min, fmt.max + 1, (outputs, source.shape[-1]))
        codes = (
            np.where(codes < 0, -1, 1)
            if bits == 1
            else codes * (self.generator.random(codes.shape) < self.dice.choice((0.15, 1)))
        )
        product = Product(kind="linear", codes=ints(codes))
        shape = (*source.shape[:-1], outputs)
        self.add(
            SynapseNode(name=name, shape=shape, inputs=(self.edge(source),), product=product, format=fmt, bits=bits)
        )

    def conv(self, name, source):
        axes = len(source.shape) - 1
        if axes not in (1, 2):
            return
        groups = self.dice.choice([g for g in (1, 2) if source.shape[0] % g == 0])
        kernel = tuple(self.dice.choice((1, 2, 3)) for _ in range(axes))
        codes = self.generator.integers(-4, 8, (2 * groups, source.shape[0] // groups, *kernel))
        options = {
            key: tuple(self.dice.choice(v) for _ in range(axes))
            for key, v in (("stride", (1, 1, 2)), ("padding", (0, 1, 2)), ("dilation", (1, 1, 2)))
        }
        pad = ints(self.generator.integers(0, 3, source.shape[0])) if self.dice.random() < 0.3 else 0
        product = Product(kind="conv", codes=ints(codes), groups=groups, pad_code=pad, **options)
        try:
            shape = product.output_shape(source.shape)
        except SpikequantError:
            return
        self.add(
            SynapseNode(
                name=name, shape=shape, inputs=(self.edge(source),), product=product, format=IntFormat(bits=4), bits=4
            )
        )

    def pool(self, name, source):
        axes = self.dice.randint(1, len(source.shape))
        kernel = tuple(self.dice.randint(1, 2) for _ in range(axes))
        padding = tuple(self.dice.choice((0, k // 2)) for k in kernel)
        stride = tuple(self.dice.choice((1, 2)) for _ in range(axes))
        node = PoolNode(
            name=name,
            shape=(),
            inputs=(self.edge(source),),
            kind=self.dice.choice(("sum", "max")),
            kernel=kernel,
            stride=stride,
            padding=padding,
        )
        shape = pooled_shape(node, source.shape)
        if min(shape) >= 1:
            self.add(
                PoolNode(
                    name=name,
                    shape=shape,
                    inputs=node.inputs,
                    kind=node.kind,
                    kernel=kernel,
                    stride=stride,
                    padding=padding,
                )
            )

    def reshape(self, name, source):
        size = int(np.prod(source.shape))
        first = self.dice.choice([k for k in range(1, size + 1) if size % k == 0])
        shape = self.dice.choice(((size,), (first, size // first), (first, 1, size // first)))
        self.add(ReshapeNode(name=name, shape=shape, inputs=(self.edge(source),)))

    def join(self, name, source):
        other = self.pick(lambda node: node.shape == source.shape)
        kind = self.dice.choice(("add", "max", "product", "iand"))
        gains = (1, 1) if kind == "iand" else (self.dice.randint(-3, 3), self.dice.randint(1, 3))
        edges = (self.edge(source), self.edge(other))
        self.add(JoinNode(name=name, shape=source.shape, inputs=edges, kind=kind, gains=gains))

    def concat(self, name, source):
        axis = self.dice.randrange(len(source.shape))
        rest = source.shape[:axis] + source.shape[axis + 1 :]
        other = self.pick(lambda n: len(n.shape) == len(source.shape) and n.shape[:axis] + n.shape[axis + 1 :] == rest)
        shape = (*source.shape[:axis], source.shape[axis] + other.shape[axis], *source.shape[axis + 1 :])
        edges = (self.edge(source), self.edge(other))
        self.add(
            JoinNode(name=name, shape=shape, inputs=edges, kind="concat", gains=(1, self.dice.randint(1, 2)), axis=axis)
        )

    def matmul(self, name, source):
        if len(source.shape) < 2:
            return
        turned = self.dice.random() < 0.5

        def fits(n):
            same = len(n.shape) == len(source.shape) and n.shape[:-2] == source.shape[:-2]
            return same and n.shape[-1 if turned else -2] == source.shape[-1]

        other = self.pick(fits)
        if other is not None:
            shape = (*source.shape[:-1], other.shape[-2 if turned else -1])
            self.add(
                MatmulNode(
                    name=name, shape=shape, inputs=(self.edge(source), self.edge(other)), transpose_second=turned
                )
            )

    def neuron(self, name, source, *, back=False):
        """Neurons, with themselves as a second input if `back`."""
        _, spec, params, drive = neuron(self.dice, source.shape, like_readout=self.dice.random() < 0.15)
        edges = [self.edge(source), *([Edge(name, self.dice.randint(1, 2))] if back else [])]
        gains = [ints(max(1, drive // 8)) for _ in edges]
        node = NeuronNode(
            name=name,
            shape=source.shape,
            inputs=tuple(edges),
            gains=tuple(gains),
            spec=spec,
            params=params,
            seed=self.dice.randint(0, 2**32 - 1),
        )
        try:
            prove_step(spec, params, -MOST, MOST, check_reach=False)
        except SpikequantError:
            return
        self.add(node)

    def loop(self, name, source):
        self.neuron(name, source, back=True)


def graph(seed):
    """``(network, input codes, kinds of nodes)``."""
    made = Graph(seed)
    for _ in range(made.dice.randint(4, 14)):
        made.grow()
    made.neuron("last", made.nodes[-1])
    source = made.pick()
    gains = ints(made.generator.integers(1, 4, source.shape)) if made.dice.random() < 0.3 else None
    decoder = Decoder(name=made.dice.choice(DECODERS), source=source.name, gains=gains)
    net = IntNet(nodes=tuple(made.nodes), decoder=decoder, steps=7)
    fmt, lead = net.input.format, (2,) if net.input.static else (9, 2)
    codes = made.generator.integers(fmt.min, fmt.max + 1, (*lead, *net.input.shape))
    return net, ints(codes * (made.generator.random(codes.shape) < 0.6)), made.kinds
