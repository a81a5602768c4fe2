"""Widths of whole networks: nothing that runs leaves them, and what has none is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conformance.handmade import net as handmade

from spikequant.law import network as law
from spikequant.law.errors import WidthError
from spikequant.law.formats import IntFormat
from spikequant.law.presets import integrate_and_fire
from spikequant.law.products import Product
from spikequant.law.spec import StateFormat
from spikequant.law.widths import prove_network
from spikequant.readers import golden

ONE = np.array(1, dtype=np.int64)
V8 = StateFormat(format=IntFormat(bits=8))
PARAMS = {"theta": 3 * ONE, "reset": 3 * ONE, "v_load": ONE, "v_shift": 0 * ONE}
IF = integrate_and_fire().replace(v=V8)


def entry(*shape, bits=1):
    return law.InputNode(name="input", shape=shape, format=IntFormat(bits=bits, signed=False), static=False)


def neuron(source, shape, *, gain=1, name="n", delay=0):
    edge = (law.Edge(source, delay),)
    return law.NeuronNode(name=name, shape=shape, inputs=edge, gains=(gain * ONE,), spec=IF, params=PARAMS)


def net(*nodes):
    return law.IntNet(nodes=nodes, decoder=law.Decoder(name="spike_count", source="n"), steps=4)


@pytest.mark.parametrize("seed", range(60))
def test_sums_that_enter_a_neuron_stay_inside(seed, monkeypatch):
    network, codes, _ = handmade(seed)
    proven = prove_network(network)
    largest = dict.fromkeys(proven, 0)
    original = golden.Machine.neuron

    def neuron(self, node, t, sources):
        x = sum(gain * source for gain, source in zip(node.gains, sources, strict=True))
        largest[node.name] = max(largest[node.name], int(np.abs(x).max()))
        return original(self, node, t, sources)

    monkeypatch.setattr(golden.Machine, "neuron", neuron)
    extremes = network.input.format
    for x in (codes, np.full_like(codes, extremes.max), np.full_like(codes, extremes.min)):
        run = golden.run(network, x)
    for node in network.neurons:
        assert largest[node.name] < 2 ** (proven[node.name].accumulator_bits - 1)
        low, high = proven[node.name].output_low, proven[node.name].output_high
        assert low <= int(run.outputs[node.name].min()) <= int(run.outputs[node.name].max()) <= high


def test_a_matrix_product_sums_over_its_inner_axis():
    """Eight terms of 1 reach 8, though the result has one column."""
    mix = law.MatmulNode(name="mix", shape=(1, 1), inputs=(law.Edge("row"), law.Edge("column")))
    row = law.ReshapeNode(name="row", shape=(1, 8), inputs=(law.Edge("input"),))
    column = law.ReshapeNode(name="column", shape=(8, 1), inputs=(law.Edge("input"),))
    network = net(entry(8), row, column, mix, neuron("mix", (1, 1), gain=2**20))
    assert prove_network(network)["n"].accumulator_bits == 25


def test_a_delayed_edge_may_come_from_a_later_node():
    join = law.JoinNode(name="join", shape=(2,), inputs=(law.Edge("n"), law.Edge("input")), kind="add", gains=(1, 1))
    network = net(entry(2), neuron("join", (2,), gain=2**10, delay=1), join)
    assert prove_network(network)["n"].accumulator_bits >= 12
    assert golden.run(network, np.ones((4, 1, 2), np.int64)).scores.shape == (1, 2)


def test_a_sum_without_end_is_refused():
    join = law.JoinNode(
        name="join", shape=(2,), inputs=(law.Edge("join", 1), law.Edge("input")), kind="add", gains=(1, 1)
    )
    with pytest.raises(WidthError) as caught:
        prove_network(net(entry(2), join, neuron("join", (2,))))
    assert str(caught.value) == (
        "join: it adds up over time without a neuron in the circle, so no width holds it; put a neuron into the circle"
    )


def test_a_sum_beyond_the_golden_model_is_refused():
    product = Product(kind="linear", codes=np.full((2, 4), 2**31 - 1))
    synapse = law.SynapseNode(
        name="fc", shape=(2,), inputs=(law.Edge("input"),), product=product, format=IntFormat(bits=32), bits=32
    )
    assert prove_network(net(entry(4, bits=24), synapse, neuron("fc", (2,), gain=2**4)))["n"].accumulator_bits <= 63
    with pytest.raises(WidthError, match=r"fc: its sums reach from 0 to .* more than the 63 bits of the golden model"):
        prove_network(net(entry(4, bits=32), synapse, neuron("fc", (2,))))
    with pytest.raises(WidthError, match=r"n: its sums reach from 0 to .* more than the 63 bits of the golden model"):
        prove_network(net(entry(4, bits=24), synapse, neuron("fc", (2,), gain=2**10)))
