"""Networks that no reader could run are refused, with the name of the node."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from spikequant.law.errors import SpikequantError, Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.network import (
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
    common_unit,
    needed_params,
    pooled_shape,
)
from spikequant.law.presets import (
    adaptive_lif,
    cuba_lif,
    integrate_and_fire,
    leaky_integrator,
    lif_leak_first,
    lif_leak_last,
)
from spikequant.law.products import Product
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

V8 = StateFormat(format=IntFormat(bits=8))
SPIKES = IntFormat(bits=1, signed=False)


def ints(**values):
    return {name: np.asarray(value, dtype=np.int64) for name, value in values.items()}


ONE = np.array(1, dtype=np.int64)
IF = integrate_and_fire().replace(v=V8)
IF_PARAMS = ints(theta=[10, 12, 14], reset=10, v_load=1, v_shift=0)
INPUT = InputNode(name="input", shape=(4,), format=SPIKES, static=False)
FC = SynapseNode(
    name="fc", shape=(3,), inputs=(Edge("input"),), product=Product(kind="linear", codes=np.ones((3, 4), np.int64)),
    format=IntFormat(bits=2), bits=2,
)  # fmt: skip
NEURON = NeuronNode(name="n", shape=(3,), inputs=(Edge("fc"),), gains=(ONE,), spec=IF, params=IF_PARAMS)
OTHER = dataclasses.replace(NEURON, name="m")
PAIR = (Edge("n"), Edge("m"))
DECODER = Decoder(name="spike_count", source="n")
IMAGE = InputNode(name="input", shape=(2, 5, 5), format=SPIKES, static=False)
POOL = PoolNode(
    name="pool", shape=(2, 2, 2), inputs=(Edge("input"),), kind="sum", kernel=(2, 2), stride=(2, 2), padding=(0, 0)
)


def net(*nodes, decoder=DECODER, steps=4, **more):
    return IntNet(nodes=nodes, decoder=decoder, steps=steps, **more)


def changed(node, **changes):
    return dataclasses.replace(node, **changes)


def neuron(spec, params, **changes):
    return changed(NEURON, spec=spec, params=params, **changes)


def without(params, name):
    return {k: v for k, v in params.items() if k != name}


def join(**changes):
    node = JoinNode(name="j", shape=(3,), inputs=PAIR, kind="add", gains=(1, 1))
    return changed(node, **changes)


MIX = MatmulNode(name="mix", shape=(3,), inputs=(Edge("n"),))
CHAIN = (INPUT, FC, NEURON)
BOTH = (*CHAIN, OTHER)

REFUSALS = {
    "version": (lambda: net(*CHAIN, version=2), "network version 2; this release runs version 1"),
    "no steps": (lambda: net(*CHAIN, steps=0), "a network of 0 steps; expected 1 to 1048576"),
    "too many steps": (lambda: net(*CHAIN, steps=2**20 + 1), "a network of 1048577 steps"),
    "same name": (lambda: net(INPUT, FC, changed(FC), NEURON), "two nodes of the network have the same name"),
    "no input": (
        lambda: net(changed(NEURON, inputs=(Edge("n", 1),))),
        "a network has exactly one input node",
    ),
    "two inputs": (
        lambda: net(INPUT, changed(INPUT, name="again"), FC, NEURON),
        "a network has exactly one input node",
    ),
    "no such source": (
        lambda: net(INPUT, changed(FC, inputs=(Edge("image"),)), NEURON),
        "node fc: its input 'image' is not in the network",
    ),
    "negative delay": (
        lambda: net(INPUT, FC, changed(NEURON, inputs=(Edge("fc", -1),))),
        "node n: a delay of -1 steps; expected 0 to 65536",
    ),
    "long delay": (lambda: net(INPUT, FC, changed(NEURON, inputs=(Edge("fc", 2**16 + 1),))), "a delay of 65537 steps"),
    "forward edge": (
        lambda: net(INPUT, NEURON, FC),
        "node n: the edge from 'fc' has no delay but points forward or in a circle; "
        "a recurrent connection needs a delay of at least 1",
    ),
    "circle": (
        lambda: net(INPUT, FC, changed(NEURON, inputs=(Edge("fc"), Edge("n")), gains=(ONE, ONE))),
        "node n: the edge from 'n' has no delay but points forward or in a circle",
    ),
    "empty shape": (lambda: net(changed(INPUT, shape=(0,)), FC, NEURON), "node input: the shape (0,) is empty"),
    "synapse inputs": (
        lambda: net(INPUT, changed(FC, inputs=(Edge("input"), Edge("input"))), NEURON),
        "node fc (SynapseNode): takes one input",
    ),
    "synapse shape": (
        lambda: net(INPUT, changed(FC, shape=(5,)), NEURON),
        "node fc (SynapseNode): does not give the shape (5,)",
    ),
    "synapse input shape": (
        lambda: net(changed(INPUT, shape=(9,)), FC, NEURON),
        "a linear product of 4 inputs was given the shape (9,)",
    ),
    "synapse codes": (
        lambda: net(INPUT, changed(FC, format=IntFormat(bits=1)), NEURON),
        "node fc (SynapseNode): has codes outside IntFormat(bits=1",
    ),
    "synapse bits": (lambda: net(INPUT, changed(FC, bits=0), NEURON), "node fc (SynapseNode): stores codes of 0 bits"),
    "many synapse bits": (
        lambda: net(INPUT, changed(FC, bits=33), NEURON),
        "node fc (SynapseNode): stores codes of 33 bits; expected 1 to 32",
    ),
    "product kind": (
        lambda: net(INPUT, changed(FC, product=changed(FC.product, kind="dense")), NEURON),
        "a product of the kind 'dense'; expected 'linear' or 'conv'",
    ),
    "neuron gains": (
        lambda: net(INPUT, FC, changed(NEURON, gains=())),
        "node n (NeuronNode): needs one gain per input",
    ),
    "neuron inputs": (
        lambda: net(INPUT, FC, changed(NEURON, inputs=(), gains=())),
        "node n (NeuronNode): needs one gain per input",
    ),
    "comparator": (
        lambda: net(INPUT, FC, neuron(IF.replace(compare=">"), IF_PARAMS)),
        "node n (NeuronNode): compares with '>'; integer networks know one comparator, '>='",
    ),
    "real neuron": (
        lambda: net(INPUT, FC, neuron(integrate_and_fire(), IF_PARAMS)),
        "node n (NeuronNode): has a state without an integer format",
    ),
    "real current": (
        lambda: net(INPUT, FC, neuron(cuba_lif().replace(v=V8), IF_PARAMS)),
        "node n (NeuronNode): has a state without an integer format",
    ),
    "neuron shape": (
        lambda: net(INPUT, FC, changed(NEURON, shape=(2,), params=ints(theta=10, reset=10, v_load=1, v_shift=0))),
        "node n (NeuronNode): of shape (2,) is fed by fc of (3,)",
    ),
    "parameter shape": (
        lambda: net(INPUT, FC, neuron(IF, {**IF_PARAMS, "theta": np.zeros(2, np.int64)})),
        "node n (NeuronNode): has theta of shape (2,), which does not fit (3,)",
    ),
    "parameter too large": (
        lambda: net(INPUT, FC, neuron(IF, {**IF_PARAMS, "theta": np.zeros((2, 3), np.int64)})),
        "node n (NeuronNode): has theta of shape (2, 3), which does not fit (3,)",
    ),
    "parameter type": (
        lambda: net(INPUT, FC, neuron(IF, {**IF_PARAMS, "theta": np.array(10.0)})),
        "node n (NeuronNode): has theta of type float64, not int64",
    ),
    "gain type": (
        lambda: net(INPUT, FC, changed(NEURON, gains=(np.array(1, np.int32),))),
        "node n (NeuronNode): has gain 0 of type int32, not int64",
    ),
    "gain shape": (
        lambda: net(INPUT, FC, changed(NEURON, gains=(np.ones(4, np.int64),))),
        "node n (NeuronNode): has gain 0 of shape (4,), which does not fit (3,)",
    ),
    "exact leak": (
        lambda: net(
            INPUT,
            FC,
            neuron(
                lif_leak_first().replace(v=V8, leak=Leak(form="multiply", bits=3)),
                ints(theta=9, leak=5, v_load=4, v_shift=2),
            ),
        ),
        "node n (NeuronNode): leaks exactly by 2^-3, but v_load is no multiple of 2^3",
    ),
    "exact leak of a current": (
        lambda: net(
            INPUT,
            FC,
            neuron(
                cuba_lif().replace(v=V8, i=V8, leak=Leak(form="shift"), leak_i=Leak(form="multiply", bits=3)),
                ints(theta=9, leak=1, leak_i=5, v_load=4, v_shift=2, i_load=4, i_shift=2),
            ),
        ),
        "node n (NeuronNode): leaks exactly by 2^-3, but i_load is no multiple of 2^3",
    ),
    "pool kind": (
        lambda: net(IMAGE, changed(POOL, kind="mean"), decoder=Decoder(name="spike_count", source="pool")),
        "node pool (PoolNode): pools by 'mean'; expected 'sum' or 'max'",
    ),
    "pool shape": (lambda: net(IMAGE, changed(POOL, shape=(2, 3, 3))), "node pool (PoolNode): has a wrong shape"),
    "pool padding": (
        lambda: net(IMAGE, changed(POOL, padding=(2, 2), shape=(2, 4, 4))),
        "node pool (PoolNode): pads over half a window",
    ),
    "reshape": (
        lambda: net(IMAGE, ReshapeNode(name="r", shape=(51,), inputs=(Edge("input"),))),
        "node r (ReshapeNode): changes the size",
    ),
    "join of one": (
        lambda: net(*BOTH, join(inputs=PAIR[:1], gains=(1,))),
        "node j (JoinNode): joins two or more inputs, one gain each",
    ),
    "join gains": (lambda: net(*BOTH, join(gains=(1,))), "node j (JoinNode): joins two or more inputs, one gain each"),
    "join kind": (
        lambda: net(*BOTH, join(kind="xor")),
        "node j (JoinNode): is a join of the kind 'xor'; expected one of add, concat",
    ),
    "iand gains": (
        lambda: net(*BOTH, join(kind="iand", gains=(1, 2))),
        "node j (JoinNode): (iand) takes two spike inputs without gains",
    ),
    "iand of three": (
        lambda: net(*BOTH, join(kind="iand", inputs=(*PAIR, Edge("n")), gains=(1, 1, 1))),
        "node j (JoinNode): (iand) takes two spike inputs without gains",
    ),
    "concat": (
        lambda: net(*BOTH, join(kind="concat")),
        "node j (JoinNode): concatenates [(3,), (3,)] along axis 0 into (3,)",
    ),
    "concat axis": (
        lambda: net(*BOTH, join(kind="concat", shape=(6,), axis=1)),
        "node j (JoinNode): concatenates [(3,), (3,)] along axis 1 into (6,)",
    ),
    "concat of different pictures": (
        lambda: net(IMAGE, POOL, join(kind="concat", inputs=(Edge("input"), Edge("pool")), shape=(4, 5, 5))),
        "node j (JoinNode): concatenates [(2, 5, 5), (2, 2, 2)] along axis 0 into (4, 5, 5)",
    ),
    "join shapes": (
        lambda: net(*BOTH, join(inputs=(Edge("n"), Edge("input")))),
        "node j (JoinNode): joins [(3,), (4,)]",
    ),
    "matmul": (lambda: net(*CHAIN, MIX), "node mix (MatmulNode): takes two inputs"),
    "matmul of vectors": (
        lambda: net(*BOTH, changed(MIX, inputs=PAIR)),
        "node mix (MatmulNode): multiplies (3,) by (3,) into (3,)",
    ),
    "matmul shapes": (
        lambda: net(IMAGE, changed(MIX, inputs=(Edge("input"), Edge("input")), shape=(2, 5, 4))),
        "node mix (MatmulNode): multiplies (2, 5, 5) by (2, 5, 5) into (2, 5, 4)",
    ),
    "decoder name": (
        lambda: net(*CHAIN, decoder=Decoder(name="vote", source="n")),
        "decoder 'vote'; expected one of spike_count, spike_train, membrane_last",
    ),
    "decoder source": (
        lambda: net(*CHAIN, decoder=Decoder(name="spike_count", source="out")),
        "the decoder reads 'out', which is not in the network",
    ),
    "decoder gains": (
        lambda: net(*CHAIN, decoder=Decoder(name="spike_count", source="n", gains=np.ones(2, np.int64))),
        "the decoder's gains (2,) do not fit its source",
    ),
    "decoder scale": (
        lambda: net(*CHAIN, decoder=Decoder(name="spike_count", source="n", scale=float("nan"))),
        "the decoder's scale is nan; expected a finite number",
    ),
    "infinite decoder scale": (
        lambda: net(*CHAIN, decoder=Decoder(name="spike_count", source="n", scale=float("inf"))),
        "the decoder's scale is inf; expected a finite number",
    ),
    "decoder scale type": (
        lambda: net(*CHAIN, decoder=Decoder(name="spike_count", source="n", scale=1)),
        "the decoder's scale is 1; expected a finite number",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    build, text = REFUSALS[name]
    with pytest.raises(Unsupported) as caught:
        build()
    assert text in str(caught.value)
    assert isinstance(caught.value, SpikequantError)


@pytest.mark.parametrize("missing", ["theta", "reset", "v_load", "v_shift"])
def test_each_needed_parameter(missing):
    with pytest.raises(Unsupported, match=f"lacks the parameter {missing}"):
        net(INPUT, FC, neuron(IF, without(IF_PARAMS, missing)))


def test_what_a_spec_needs():
    multiply, a16 = Leak(form="multiply"), StateFormat(format=IntFormat(bits=16))
    assert set(needed_params(IF)) == {"v_load", "v_shift", "theta", "reset"}
    assert set(needed_params(cuba_lif())) == {"v_load", "v_shift", "theta", "leak", "leak_i", "i_load", "i_shift"}
    assert set(needed_params(adaptive_lif())) == {"v_load", "v_shift", "theta", "leak", "leak_a", "a_shift", "adapt"}
    assert set(needed_params(leaky_integrator())) == {"v_load", "v_shift", "leak"}
    two = NeuronSpec(
        order=("decay_current", "add_current", "leak", "integrate", "fire", "raise_threshold"),
        leak=Leak(form="two_shifts"), leak_i=Leak(form="two_shifts"), leak_a=Leak(form="none"), v=V8, i=V8, a=a16,
    )  # fmt: skip
    assert {"leak", "leak2", "leak_i", "leak_i2", "a_shift", "adapt"} <= set(needed_params(two))
    assert "leak_a" not in needed_params(two)
    bounded = IF.replace(order=("narrow_input", "integrate", "bound", "fire", "reset"), lower="zero", x=V8)
    assert {"floor", "x_load", "x_shift"} <= set(needed_params(bounded))
    assert multiply.rounding is None


def test_a_sound_network():
    loop = changed(NEURON, inputs=(Edge("fc"), Edge("n", 1)), gains=(ONE, np.ones(3, np.int64)))
    good = net(INPUT, FC, loop, decoder=Decoder(name="spike_count", source="n", gains=np.ones(3, np.int64)))
    assert good.input is INPUT
    assert good.neurons == (loop,)
    assert good.synapses == (FC,)
    assert good.node("fc") is FC
    with pytest.raises(Unsupported, match="no node 'fc2' in this network; there are input, fc, n"):
        good.node("fc2")


def test_leaks_that_need_no_multiple():
    params = ints(theta=9, leak=5, v_load=4, v_shift=2)
    leak = Leak(form="multiply", bits=3)
    first, last = lif_leak_first().replace(v=V8, leak=leak), lif_leak_last().replace(v=V8, leak=leak)
    rounded = first.replace(leak=dataclasses.replace(leak, rounding="floor"))
    for spec in (last, rounded, first.replace(leak=Leak(form="shift"))):
        assert net(INPUT, FC, neuron(spec, params)).neurons[0].spec == spec
    whole = {**params, **ints(v_load=8, v_shift=3)}
    assert net(INPUT, FC, neuron(first, whole)).neurons[0].params["v_load"] == 8


def test_pooled_shapes():
    assert pooled_shape(POOL, (2, 5, 5)) == (2, 2, 2)
    assert pooled_shape(changed(POOL, padding=(1, 1)), (2, 5, 5)) == (2, 3, 3)
    assert pooled_shape(changed(POOL, kernel=(3,), stride=(1,), padding=(1,)), (2, 5)) == (2, 5)


def test_common_units():
    assert common_unit([Fraction(1, 4), Fraction(1, 6)]) == Fraction(1, 12)
    assert common_unit([Fraction(1, 9)]) == Fraction(1, 9)
    for units in ([Fraction(1), Fraction(1, 4), Fraction(1, 9)], [Fraction(2, 3), Fraction(1, 2)]):
        unit = common_unit(units)
        assert all((u / unit).denominator == 1 for u in units)
