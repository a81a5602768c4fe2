"""What the law allows and channels do not know: the layerwise run equals the golden model there, or says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, PoolNode, ReshapeNode, SynapseNode
from spikequant.law.presets import integrate_and_fire
from spikequant.law.products import Product
from spikequant.law.spec import StateFormat
from spikequant.nn.layerwise import LayerwiseNet, layerwise
from spikequant.nn.products import kernels
from spikequant.readers import golden
from spikequant.training.integers import IntegerRunner

pytestmark = pytest.mark.skipif(
    kernels.library() is None or not kernels.has_vnni(), reason="no C compiler, or no AVX-512 VNNI"
)
SPEC = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=12)))


def source(shape, bits=1, *, signed=False):
    return InputNode(name="input", shape=shape, format=IntFormat(bits=bits, signed=signed), static=False)


def synapse(name, before, shape, outputs):
    kernel = (3,) * (len(shape) - 1)
    codes = np.random.default_rng(len(name)).integers(-7, 8, (outputs, shape[0], *kernel))
    ones = (1,) * len(kernel)
    product = (
        Product(kind="conv", codes=codes, stride=ones, padding=ones, dilation=ones)
        if kernel
        else Product(kind="linear", codes=codes)
    )
    out = product.output_shape(shape)
    return SynapseNode(name=name, shape=out, inputs=(Edge(before),), product=product, format=IntFormat(bits=4), bits=4)


def layer(name, before, shape, outputs, gain=1, theta=9):
    first = synapse(f"{name}_map", before, shape, outputs)
    params = {"theta": np.array(theta), "reset": np.array(9), "v_load": np.array(1), "v_shift": np.array(0)}
    neurons = NeuronNode(name=name, shape=first.shape, inputs=(Edge(first.name),), gains=(np.array(gain),), spec=SPEC,
                         params=params)  # fmt: skip
    return first, neurons


def network(*nodes, decoder="spike_count", read=None):
    return IntNet(nodes=nodes, decoder=Decoder(name=decoder, source=read or nodes[-1].name), steps=5)


def batch(net):
    first = net.input
    x = np.random.default_rng(0).integers(first.format.min, first.format.max + 1, (5, 3, *first.shape))
    return x.astype(np.float32)


def of_golden(net, x):
    scores = golden.run(net, golden.encode(net, x), trace=False).scores
    assert len(np.unique(scores)) > 1
    return scores


def wide(outputs, **numbers):
    return network(source((2, 4, 3)), *layer("n", "input", (2, 4, 3), outputs, **numbers))


@pytest.mark.parametrize(
    "net",
    [
        wide(3, gain=[1, 4, 9]),  # three columns, three channels: one gain per column
        wide(4, gain=[[[1], [2], [3], [4]]]),
        wide(3, gain=[[1], [2], [3], [4]]),
        wide(3, gain=np.arange(36).reshape(3, 4, 3)),
        wide(3, theta=[3, 9, 30]),
    ],
)
def test_numbers_that_differ_within_a_channel_are_refused(net):
    assert "per channel" in layerwise(net)[1]
    x = batch(net)
    assert np.array_equal(IntegerRunner(net)(torch.from_numpy(x)).numpy(), of_golden(net, x))


@pytest.mark.parametrize("gain", [2, [[[1]], [[2]], [[3]]], [[[3]]]])
def test_numbers_per_channel_run(gain):
    net = wide(3, gain=gain)
    x = batch(net)
    assert np.array_equal(LayerwiseNet(net).run(torch.from_numpy(x)), of_golden(net, x))


def pooled(shape, axes):
    """Windows of two over the last `axes` axes of a layer of four channels."""
    kernel = (2,) * axes
    nodes = (source(shape), *layer("n", "input", shape, 4, theta=4))
    size = nodes[-1].shape
    out = (*size[: len(size) - axes], *(n // 2 for n in size[len(size) - axes :]))
    pool = PoolNode(name="pool", shape=out, inputs=(Edge("n"),), kind="sum", kernel=kernel, stride=kernel,
                    padding=(0,) * axes)  # fmt: skip
    return network(*nodes, pool)


@pytest.mark.parametrize(("shape", "axes"), [((6,), 1), ((2, 6), 2), ((2, 4, 4), 3)])
def test_a_pool_over_channels_is_refused(shape, axes):
    assert "a pool over channels" in layerwise(pooled(shape, axes))[1]


@pytest.mark.parametrize(("shape", "axes"), [((2, 6), 1), ((2, 4, 4), 1), ((2, 4, 4), 2)])
def test_a_pool_over_places_runs(shape, axes):
    net = pooled(shape, axes)
    x = batch(net)
    assert np.array_equal(LayerwiseNet(net).run(torch.from_numpy(x)), of_golden(net, x))


def test_a_shape_of_four_axes_is_refused():
    flat = ReshapeNode(name="flat", shape=(24,), inputs=(Edge("input"),))
    net = network(source((2, 2, 3, 2)), flat, *layer("n", "flat", (24,), 3))
    assert "input: a shape of more than three axes" in layerwise(net)[1]
    x = batch(net)
    assert np.array_equal(IntegerRunner(net)(torch.from_numpy(x)).numpy(), of_golden(net, x))


def test_a_decoder_may_read_a_signed_input():
    net = network(source((3,), 4, signed=True), *layer("n", "input", (3,), 3), read="input")
    x = batch(net)
    assert np.array_equal(LayerwiseNet(net).run(torch.from_numpy(x)), of_golden(net, x))
