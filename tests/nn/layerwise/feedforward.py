"""Random integer networks without loops, as wide as bytes: what the layerwise run is made for, and its borders."""

from __future__ import annotations

import random

import numpy as np
from tests.conformance.handmade import ints, neuron

from spikequant.law.formats import IntFormat
from spikequant.law.network import (
    Decoder,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    NeuronNode,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.products import Product


class Maker:
    """Adds nodes one by one; ``last`` is the value that the next one reads."""

    def __init__(self, dice):
        self.dice, self.generator = dice, np.random.default_rng(dice.randint(0, 2**31))
        axes = dice.choice((0, 1, 2, 2, 2))
        shape = (dice.choice((1, 2, 3, 4, 17)), *(dice.randint(1, 7) for _ in range(axes)))
        signed = dice.random() < 0.3
        fmt = IntFormat(bits=dice.choice((2, 8)) if signed else dice.choice((1, 1, 3, 8)), signed=signed)
        scale = 0.25 if dice.random() < 0.3 else None
        self.nodes = [InputNode(name="input", shape=shape, format=fmt, static=dice.random() < 0.4, scale=scale)]
        self.last = "input"

    def shape(self, name):
        return next(n.shape for n in self.nodes if n.name == name)

    def add(self, node):
        self.nodes.append(node)
        self.last = node.name

    def synapse(self, name, source):
        shape, dice = self.shape(source), self.dice
        outputs = dice.choice((1, 3, 16, 20, 70))
        bits = dice.choice((2, 4, 8))
        fmt = IntFormat(bits=bits)
        size = (outputs, shape[0], *(dice.choice((1, 2, 3)) for _ in shape[1:]))
        codes = ints(self.generator.integers(fmt.min, fmt.max + 1, size))
        if len(shape) == 1:
            product = Product(kind="linear", codes=codes)
        else:
            axes = range(len(shape) - 1)
            dilation = tuple(dice.choice((1, 1, 2)) for _ in axes)
            reach = [(k - 1) * d + 1 for k, d in zip(size[2:], dilation, strict=True)]
            padding = tuple(max(dice.randint(0, 2), -(-(r - n) // 2)) for r, n in zip(reach, shape[1:], strict=True))
            pads = {}
            if source == "input" and dice.random() < 0.5:
                low, high = self.nodes[0].format.min, self.nodes[0].format.max
                pads["pad_code"] = ints(self.generator.integers(low, high + 1, dice.choice((shape[0], ()))))
            product = Product(
                kind="conv", codes=codes, stride=tuple(dice.choice((1, 2)) for _ in axes), padding=padding,
                dilation=dilation, **pads,
            )  # fmt: skip
        edge = (Edge(source),)
        out = product.output_shape(shape)
        self.add(SynapseNode(name=name, shape=out, inputs=edge, product=product, format=fmt, bits=bits))
        return max(1, int(np.abs(codes).max()))

    def neurons(self, name, unit, **options):
        shape, source = self.shape(self.last), self.last
        flat = (shape[0], *(1 for _ in shape[1:]))
        _, spec, params, drive = neuron(self.dice, flat, **options)
        size = self.dice.choice((flat, ()))
        gain = ints(self.generator.integers(max(1, drive // unit // 4), drive // unit + 2, size))
        self.add(
            NeuronNode(
                name=name, shape=shape, inputs=(Edge(source),), gains=(gain,), spec=spec, params=params,
                seed=self.dice.randint(0, 2**32 - 1),
            )
        )  # fmt: skip

    def layer(self, name):
        unit = self.synapse(f"{name}_map", self.last)
        self.neurons(name, unit)

    def pool(self, name):
        shape = self.shape(self.last)
        kernel = tuple(self.dice.randint(1, min(3, n)) for n in shape[1:])
        padding = tuple(self.dice.randint(0, k // 2) for k in kernel)
        stride = tuple(self.dice.randint(1, k) for k in kernel)
        out = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True))
        kind = self.dice.choice(("sum", "max"))
        edge = (Edge(self.last),)
        self.add(
            PoolNode(name=name, shape=(shape[0], *out), inputs=edge, kind=kind, kernel=kernel, stride=stride,
                     padding=padding)
        )  # fmt: skip

    def join(self, name):
        shape = self.shape(self.last)
        others = [n.name for n in self.nodes[1:] if n.shape == shape and not isinstance(n, SynapseNode)]
        kind = self.dice.choice(("add", "concat", "product", "max", "iand"))
        gains = (1, 1) if kind == "iand" else (self.dice.randint(1, 3), self.dice.randint(1, 3))
        shape = (2 * shape[0], *shape[1:]) if kind == "concat" else shape
        edges = (Edge(self.dice.choice(others)), Edge(self.last))
        self.add(JoinNode(name=name, shape=shape, inputs=edges, kind=kind, gains=gains))


def net(seed):
    """A network and data as it takes them (codes, or real values of a scaled input)."""
    dice = random.Random(seed)
    make = Maker(dice)
    for k in range(dice.randint(1, 3)):
        make.layer(f"n{k}")
        if len(make.shape(make.last)) > 1 and dice.random() < 0.6:
            make.pool(f"pool{k}")
        if dice.random() < 0.5:
            make.join(f"join{k}")
    if len(make.shape(make.last)) > 1:
        size = int(np.prod(make.shape(make.last)))
        make.add(ReshapeNode(name="flat", shape=(size,), inputs=(Edge(make.last),)))
    reads_state = dice.random() < 0.5
    unit = make.synapse("last_map", make.last)
    make.neurons("last", unit, like_readout=reads_state)
    kinds = (
        ("membrane_last", "membrane_max", "membrane_sum", "membrane_train")
        if reads_state
        else ("spike_count", "spike_train")
    )
    steps, batch = dice.choice((1, 3, 9)), dice.choice((1, 2, 7))
    first = make.nodes[0]
    found = IntNet(nodes=tuple(make.nodes), decoder=Decoder(name=dice.choice(kinds), source="last"), steps=steps)
    size = (batch, *first.shape) if first.static else (steps, batch, *first.shape)
    x = make.generator.integers(first.format.min, first.format.max + 1, size)
    if first.scale is not None:
        return found, (x * first.scale + make.generator.normal(0, 0.2, size)).astype(np.float32)
    return found, x.astype(np.float32)
