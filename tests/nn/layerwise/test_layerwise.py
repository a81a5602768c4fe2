"""An integer network layer by layer gives the golden model's scores, or says why it does not run so."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from tests.conformance.handmade import ints, neuron
from tests.nn.layerwise.feedforward import net as random_net

from spikequant.law.errors import DataError, SpikequantError, Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode
from spikequant.law.products import Product
from spikequant.nn.layerwise import LayerwiseNet, layerwise
from spikequant.nn.products import kernels
from spikequant.readers import golden
from spikequant.training.integers import IntegerRunner

pytestmark = pytest.mark.skipif(
    kernels.library() is None or not kernels.has_vnni(), reason="no C compiler, or no AVX-512 VNNI"
)


def compared(seeds):
    """Runs networks that have stages against the golden model; how many ran, how many of them told samples apart."""
    ran = alive = 0
    for seed in seeds:
        try:
            net, x = random_net(seed)
        except SpikequantError:
            continue
        if layerwise(net)[1]:
            continue
        wanted = golden.run(net, golden.encode(net, x), first_sample=seed % 5, trace=False).scores
        found = LayerwiseNet(net).run(torch.from_numpy(x), first_sample=seed % 5)
        assert found.shape == wanted.shape, seed
        assert np.array_equal(found, wanted), seed
        ran, alive = ran + 1, alive + (len(np.unique(wanted)) > 1)
    return ran, alive


@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_scores_are_golden(seed):
    ran, _ = compared((seed, seed + 1))
    assert ran >= 1


def test_they_do_run():
    ran, alive = compared(range(3))
    assert ran >= 2
    assert alive >= 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("density", [0.05, 0.6])
@pytest.mark.parametrize("outputs", [128, 131, 300])
def test_wide_matrices_on_two_threads(two_threads, outputs, density, counts):
    """Rows of codes where few inputs are not 0, tiles elsewhere and for counts; both on every thread."""
    generator = np.random.default_rng(outputs)
    x = (generator.random((5, 37, 203)) < density).astype(np.float32)
    if counts:
        x[:, ::3] *= 3  # rows of ones between rows of counts
    fmt = IntFormat(bits=8)
    codes = [generator.integers(-127, 128, size).astype(np.int64) for size in ((outputs, 203), (10, outputs))]
    nodes = [InputNode(name="input", shape=(203,), format=IntFormat(bits=2, signed=False), static=False)]
    dice, last = random.Random(outputs), "input"
    for k, matrix in enumerate(codes):
        product = Product(kind="linear", codes=matrix)
        out = (len(matrix),)
        nodes.append(SynapseNode(name=f"map{k}", shape=out, inputs=(Edge(last),), product=product, format=fmt, bits=8))
        _, spec, params, drive = neuron(dice, out, like_readout=k == 1)
        gains = (ints(generator.integers(max(1, drive // 508), drive // 127 + 2, out)),)
        last = f"n{k}"
        nodes.append(
            NeuronNode(name=last, shape=out, inputs=(Edge(f"map{k}"),), gains=gains, spec=spec, params=params, seed=k)
        )
    net = IntNet(nodes=tuple(nodes), decoder=Decoder(name="membrane_sum", source=last), steps=5)
    layers, why = layerwise(net)
    if layers is None:
        pytest.fail(why)
    wanted = golden.run(net, golden.encode(net, x), trace=False).scores
    assert np.array_equal(layers.run(torch.from_numpy(x)), wanted)
    assert len(np.unique(wanted)) > 10


@pytest.mark.conformance
def test_many_networks():
    ran, alive = compared(range(100, 500))
    assert ran > 250
    assert alive > 120


@pytest.fixture(scope="module")
def runs():
    """A network that has stages, whose input are events, and data."""
    for seed in range(100):
        net, x = random_net(seed)
        first = net.input
        plain = not first.static and first.scale is None and first.format.min == 0 and first.format.max == 1
        if plain and not layerwise(net)[1] and net.decoder.name in ("spike_count", "membrane_last", "membrane_sum"):
            return net, torch.from_numpy(x)
    raise AssertionError("no such network")


def test_an_input_shown_at_every_step(runs):
    net, x = runs
    shown = x[:1].expand(4, *x.shape[1:])
    wanted = golden.run(net, golden.encode(net, shown.numpy()), trace=False).scores
    layers = LayerwiseNet(net)
    assert np.array_equal(layers.run(shown), wanted)
    assert np.array_equal(layers.run(shown.double().numpy().astype(np.int64)), wanted)


@pytest.mark.parametrize("bad", ["fraction", "nan", "large", "shape", "empty"])
def test_data_that_do_not_fit_are_refused_as_by_the_golden_model(runs, bad):
    net, x = runs
    x = x.clone()
    if bad in ("fraction", "nan", "large"):
        x.view(-1)[-1] = {"fraction": 0.5, "nan": float("nan"), "large": 2.0}[bad]
    x = x[..., :0] if bad == "empty" else x.repeat(1, 1, 2, *([1] * (x.dim() - 3))) if bad == "shape" else x
    with pytest.raises(DataError) as by_layers:
        LayerwiseNet(net).run(x)
    with pytest.raises(DataError) as by_golden:
        golden.encode(net, x.numpy())
    assert str(by_layers.value) == str(by_golden.value)


def test_a_loop_is_refused_with_its_reason(runs):
    net, _ = runs
    last = net.neurons[-1]
    late = dataclasses.replace(last, inputs=(Edge(last.inputs[0].source, 1),))
    nodes = tuple(late if node is last else node for node in net.nodes)
    delayed = IntNet(nodes=nodes, decoder=net.decoder, steps=net.steps)
    assert "an earlier step" in layerwise(delayed)[1]
    with pytest.raises(Unsupported, match="an earlier step"):
        LayerwiseNet(delayed)
    assert IntegerRunner(delayed).reader == "c99"
    assert "an earlier step" in IntegerRunner(delayed).refused


def test_a_wide_input_is_refused(runs):
    net, _ = runs
    wide = dataclasses.replace(net.input, format=IntFormat(bits=9, signed=False))
    nodes = tuple(wide if node is net.input else node for node in net.nodes)
    assert "wider than a byte" in layerwise(IntNet(nodes=nodes, decoder=net.decoder, steps=net.steps))[1]


def test_a_membrane_of_spiking_neurons_is_refused(runs):
    net, _ = runs
    spiking = next((n for n in net.neurons if n.spec.output == "spike"), None)
    assert spiking is not None
    kept = net.nodes[: net.nodes.index(spiking) + 1]
    read = IntNet(nodes=kept, decoder=Decoder(name="membrane_last", source=spiking.name), steps=net.steps)
    assert "reads the membrane" in layerwise(read)[1]
