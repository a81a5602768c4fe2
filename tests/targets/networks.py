"""Random integer networks that keep to a profile, built by hand: what `check` accepts and the scalar oracles run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode
from spikequant.law.products import Product
from spikequant.law.spec import Leak, NeuronSpec, StateFormat
from spikequant.targets import target

SHIFTED = Leak(form="shift_forced")
MULTIPLIED = Leak(form="multiply", bits=12, rounding="toward_zero")
V24 = StateFormat(format=IntFormat(bits=24, narrow=True))
U24 = StateFormat(format=IntFormat(bits=24), overflow="wrap")
S16 = StateFormat(format=IntFormat(bits=16))


def number(value):
    """A parameter for all neurons."""
    return np.asarray(value, dtype=np.int64)


def synapse(name, source, codes, *, delay=0, bits=8):
    """Dense weights."""
    codes = np.asarray(codes, dtype=np.int64)
    fmt = IntFormat(bits=bits)
    product = Product(kind="linear", codes=codes)
    edge = Edge(source, delay)
    return SynapseNode(name=name, shape=(len(codes),), inputs=(edge,), product=product, format=fmt, bits=bits)


def xylo_neuron(name, size, sources, params, *, output=False, shift=0):
    """A layer of Xylo."""
    order = target("xylo").neurons[1 if output else 0].order
    spec = NeuronSpec(order=order, leak=SHIFTED, leak_i=SHIFTED, reset="subtract", spikes_max=1 if output else 31,
                      v=S16, i=S16)  # fmt: skip
    fixed = {"v_load": 1, "v_shift": 0, "i_load": 1, "i_shift": 0}
    return NeuronNode(name=name, shape=(size,), inputs=tuple(Edge(s) for s in sources),
                      gains=(number(2**shift),) * len(sources), spec=spec,
                      params={k: number(v) for k, v in {**fixed, **params}.items()})  # fmt: skip


def loihi_neuron(name, size, sources, params, *, cuba=True, exponent=0):
    """A layer of Loihi."""
    order = target("loihi-cuba").neurons[0 if cuba else 1].order
    spec = NeuronSpec(order=order, leak=MULTIPLIED, leak_i=MULTIPLIED if cuba else None, reset="zero", v=V24,
                      i=U24 if cuba else None)  # fmt: skip
    fixed = {"v_load": 1, "v_shift": 0} | ({"i_load": 1, "i_shift": 0} if cuba else {})
    return NeuronNode(name=name, shape=(size,), inputs=tuple(Edge(s) for s in sources),
                      gains=(number(64 * 2**exponent),) * len(sources), spec=spec,
                      params={k: number(v) for k, v in {**fixed, **params}.items()})  # fmt: skip


def entry(size, most=1):
    """The input."""
    fmt = IntFormat(bits=max(1, most.bit_length()), signed=False)
    return InputNode(name="input", shape=(size,), format=fmt, static=False)


def network(nodes, last, *, name="reference/1", steps=20):
    """Nodes as a network that counts spikes."""
    return IntNet(nodes=tuple(nodes), decoder=Decoder(name="spike_count", source=last), steps=steps, target=name)


def xylo_network(seed, *, most_weight=20, recurrent=True, most_input=15):
    """Inputs -> recurrent hidden layer -> outputs; weights small enough, or not, to saturate."""
    dice = np.random.default_rng(seed)
    inputs, hidden, outputs = int(dice.integers(2, 17)), int(dice.integers(2, 24)), int(dice.integers(1, 9))
    most_input = int(dice.choice([1, 3, most_input]))

    def weights(rows, columns):
        found = dice.integers(-most_weight, most_weight + 1, (rows, columns))
        return found * (dice.random((rows, columns)) < 0.6)

    def params(size):
        drawn = {"leak": dice.integers(1, 6, size), "leak_i": dice.integers(1, 4, size)}
        theta = dice.integers(20, 400, size)
        drawn |= {"theta": theta, "reset": theta}
        return drawn | ({"v_bias": dice.integers(-8, 9, size)} if dice.random() < 0.5 else {})

    nodes = [entry(inputs, most_input), synapse("w_in", "input", weights(hidden, inputs))]
    feeds = ["w_in"]
    if recurrent and dice.random() < 0.7:
        few = weights(hidden, hidden) // 4
        nodes.append(synapse("w_rec", "hidden", few, delay=1))
        feeds.append("w_rec")
    nodes.append(xylo_neuron("hidden", hidden, feeds, params(hidden)))
    nodes.append(synapse("w_out", "hidden", weights(outputs, hidden) // 4))
    nodes.append(xylo_neuron("out", outputs, ["w_out"], params(outputs), output=True))
    return network(nodes, "out", name="xylo/1")


def loihi_network(seed):
    """One to three layers, with recurrence, biases and weight exponents."""
    dice = np.random.default_rng(seed)
    sizes = [int(n) for n in dice.integers(2, 16, int(dice.integers(2, 5)))]
    nodes, last = [entry(sizes[0])], "input"
    for k, (before, size) in enumerate(pairwise(sizes)):
        mixed = dice.random() < 0.8
        codes = dice.integers(-128, 128, (size, before)) * 2 if mixed else dice.integers(0, 256, (size, before))
        codes = codes * (dice.random(codes.shape) < 0.7)
        nodes.append(synapse(f"w{k}", last, codes, bits=9 if codes.max() < 256 else 10))
        feeds, cuba, exponent = [f"w{k}"], bool(dice.random() < 0.7), int(dice.choice([0, 0, 1]))
        if dice.random() < 0.4:
            nodes.append(synapse(f"r{k}", f"n{k}", dice.integers(-40, 40, (size, size)) * 2, delay=1, bits=9))
            feeds.append(f"r{k}")
        params = {"leak": dice.integers(2000, 4097), "theta": 64 * dice.integers(40, 900) + 1}
        if cuba:
            params["leak_i"] = dice.integers(0, 4096)
        if dice.random() < 0.5:
            params["v_bias"] = dice.integers(-4096, 4096, size) * 2
        nodes.append(loihi_neuron(f"n{k}", size, feeds, params, cuba=cuba, exponent=exponent))
        last = f"n{k}"
    return network(nodes, last, name="loihi-cuba/1")
