"""The network as integers: `lower` gives an `IntNet`, `verify` compares every spike and every state with it.

Nodes: ``input`` (spikes), ``weights``, ``neurons`` (fixed thresholds: base plus adaptive part), and the lateral
inhibition as edges of delay 1: ``all`` sums the spikes, ``inhibition`` spreads the sum to everybody, and each neuron
takes its own share back, so that ``N`` neurons need ``2 N`` codes instead of ``N^2``.  With a separate layer, ``relay``
holds the inhibitory neurons, fed by the spikes of the step before.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from spikequant.law.errors import MismatchError, NotFrozen
from spikequant.law.formats import IntArray, IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode, TestVectors
from spikequant.law.products import Product
from spikequant.law.widths import prove_network
from spikequant.learn.network import Network
from spikequant.learn.poisson import check_images, poisson_spikes
from spikequant.learn.voting import Labels
from spikequant.quantize.verify import Difference, VerifyReport
from spikequant.readers import golden

VOTE_BITS = 8


def lower(network: Network, *, labels: Labels | None = None, vectors: Any = None) -> IntNet:
    """The frozen network as integers.

    Scores are spike counts per neuron; with `labels`, votes per class (each neuron's shares of the classes as codes of
    8 bits, over their sum).

    Args:
        network: quantized; its weights and thresholds are copied.
        labels: append the vote.
        vectors: images to embed as a self-test.

    Raises:
        NotFrozen: the network is float; train it quantized, or `quantized` it.
        WidthError: a sum that needs more than 63 bits.
    """
    if network.numbers.real:
        raise NotFrozen("lower: a float network has no integers; learn under a Precision, or use learn.quantized")
    n = network.config.neurons
    layered = network.config.inhibition == "layer"
    source = Edge("relay" if layered else "neurons", 1)
    nodes: list[Any] = [
        InputNode(
            name="input",
            shape=(network.config.inputs,),
            format=IntFormat(bits=1, signed=False),
            static=False,
            scale=None,
        ),
        _synapse("weights", Edge("input"), network.weights.T, network.precision.register("weight").bits, signed=False),
        _synapse("all", source, np.ones((1, n)), 1, signed=False),
        _synapse("inhibition", Edge("all"), np.ones((n, 1)), 1, signed=False),
        _excitatory(network, source),
    ]
    nodes += [_relay(network)] if layered else []
    decoder = Decoder(name="spike_count", source="neurons")
    if labels is not None:
        node, decoder = _votes(labels)
        nodes.append(node)
    facts = {"config": network.config.to_dict(), "precision": network.precision.to_dict(), "seen": network.seen}
    net = IntNet(nodes=tuple(nodes), decoder=decoder, steps=network.config.steps, metadata={"learn": facts})
    prove_network(net)
    return net if vectors is None else _with_vectors(network, net, vectors)


def _synapse(name: str, source: Edge, codes: Any, bits: int, *, signed: bool) -> SynapseNode:
    codes = np.ascontiguousarray(codes, dtype=np.int64)
    product = Product(kind="linear", codes=codes)
    return SynapseNode(
        name=name,
        shape=(len(codes),),
        inputs=(source,),
        product=product,
        format=IntFormat(bits=bits, signed=signed),
        bits=bits,
    )


def _gain(value: int) -> IntArray:
    return np.array(value, dtype=np.int64)


def _excitatory(network: Network, source: Edge) -> NeuronNode:
    numbers = network.numbers
    theta = np.asarray(numbers.theta_of(network.adaptive, network.common), dtype=np.int64)
    params = {k: _gain(v) for k, v in numbers.params["inferring"].items() if not isinstance(v, str)}
    return NeuronNode(
        name="neurons",
        shape=(network.config.neurons,),
        inputs=(Edge("weights"), Edge("inhibition"), source),
        gains=(_gain(numbers.gain), _gain(-numbers.inhibit), _gain(numbers.inhibit)),
        spec=numbers.inferring,
        params={**params, "theta": theta},
        seed=network.config.seed,
    )


def _relay(network: Network) -> NeuronNode:
    numbers = network.numbers
    return NeuronNode(
        name="relay",
        shape=(network.config.neurons,),
        inputs=(Edge("neurons", 1),),
        gains=(_gain(numbers.excite),),
        spec=numbers.inhibitory,
        params={k: _gain(v) for k, v in numbers.params["inhibitory"].items()},
        seed=network.config.seed,
    )


def _votes(labels: Labels) -> tuple[SynapseNode, Decoder]:
    shares = np.rint(labels.proportions.T * (2**VOTE_BITS - 1)).astype(np.int64)
    sizes = np.maximum(shares.sum(axis=1), 1)
    gains = np.rint(2.0**30 / sizes).astype(np.int64)
    node = _synapse("votes", Edge("neurons"), shares, VOTE_BITS, signed=False)
    return node, Decoder(name="spike_count", source="votes", gains=gains, scale=2.0**-30)


def _with_vectors(network: Network, net: IntNet, images: Any) -> IntNet:
    codes = input_spikes(network, images)
    scores = golden.run(net, codes, trace=False).scores
    return dataclasses.replace(net, vectors=TestVectors(inputs=codes, scores=scores))


def input_spikes(network: Network, images: Any, *, first: int = 0) -> IntArray:
    """The spikes that `Network.infer` feeds to `images`: ``[steps, N, inputs]``."""
    c = network.config
    flat = check_images(images, levels=c.levels, inputs=c.inputs)
    return poisson_spikes(flat, network.table, steps=c.steps, seed=c.seed, first_sample=first)


def verify(
    network: Network, net: IntNet, images: Any, *, first: int = 0, raise_on_difference: bool = True
) -> VerifyReport:
    """Run the kernel and the golden model on `images` and compare every spike and every stored state, exactly.

    Raises:
        MismatchError: they differ; the message names the first difference.
    """
    activity = network.infer(images, first=first, records=True)
    expected = golden.run(net, input_spikes(network, images, first=first), first_sample=first)
    states = expected.states["neurons"]
    pairs: list[tuple[str, IntArray, Any]] = [("output", expected.outputs["neurons"], activity.spikes)]
    pairs += [("state v", states["v"], activity.v)]
    pairs += [("state r", states["r"], activity.r)] if "r" in states else []
    found = [d for d in (_difference(*pair) for pair in pairs) if d is not None]
    first_difference = min(found, key=lambda d: d.step, default=None)
    report = VerifyReport(
        neuron_steps=int(expected.outputs["neurons"].size),
        spikes=int(expected.outputs["neurons"].sum()),
        states_compared=sum(int(w.size) for what, w, _ in pairs if what != "output"),
        differences=sum(int((w != g).sum()) for _, w, g in pairs),
        first=first_difference,
        layers=("neurons",),
    )
    if first_difference is not None and raise_on_difference:
        raise MismatchError(f"{first_difference}; {report.differences:,} differences in all")
    return report


def _difference(what: str, wanted: IntArray, got: Any) -> Difference | None:
    wrong = np.argwhere(wanted != got)
    if not len(wrong):
        return None
    step, sample, neuron = (int(k) for k in wrong[0])
    place = (step, sample, neuron)
    return Difference(
        layer="neurons",
        what=what,
        step=step,
        sample=sample,
        neuron=neuron,
        expected=int(wanted[place]),
        got=int(got[place]),
    )
