"""`from_lava`: a lava-dl ``.net`` file becomes an `IntNet` with Loihi's arithmetic.

The file holds integers for a chip, so the result is the integer network itself: a float model in between would only
invite a second rounding.  What is fixed here, and where it comes from:

=====================  ===========================================================================================
input of a layer       ``64 * sum w * s``: Lava ``proc/lif/models.py``, ``act_shift = 6``
current                ``u = trunc(u * (4096 - iDecay) / 4096) + input``, 24 bits, wraps: same file.  netx hands over
                       ``du = iDecay - 1`` and Lava adds ``ds_offset = 1``, so the two hidden ones cancel
membrane               ``v = trunc(v * (4096 - vDecay) / 4096) + u + 64 * bias``, saturates at ``+-(2^23 - 1)``:
                       same file; ``bias_exp = 6`` from lava-dl ``netx/hdf5.py``
spike                  ``v > 64 * vThMant``, strict (Lava ``PyLifModelBitAcc.spiking_activation``); then ``v = 0``
input layer            the same neuron without synapses; its input is the bias mantissa (netx ``Input`` block)
kernels                in the order of PyTorch (netx turns them around because Lava's ``Conv`` does, too)
=====================  ===========================================================================================

One value differs by design: Lava leaves a current of exactly ``+2^23`` where a 24-bit register wraps to ``-2^23``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from spikequant.frontends.lava.file import MOST_VALUES, LavaLayer, LavaNeuron, read_layers
from spikequant.frontends.lava.weights import (
    BIAS_MANTISSA,
    SHIFT,
    axonal_delays,
    input_features,
    membrane_bias,
    product_of,
    split_by_delay,
)
from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray, IntFormat, signed_bits_for
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, Node, ReshapeNode, SynapseNode
from spikequant.law.products import Product
from spikequant.law.spec import Leak, NeuronSpec, StateFormat
from spikequant.law.widths import prove_network

Timing = Literal["aligned", "lava", "slayer"]
ADVICE = (
    "timing: 'aligned' (every layer starts with the spikes of the layer before: netx with reset_interval=), 'lava' "
    "(every synapse takes one step, all layers start together: netx without it), 'slayer' (every neuron's spikes leave "
    "one step later: the training, delay_shift=True)"
)
LEAK = Leak(form="multiply", bits=12, rounding="toward_zero")
CURRENT = StateFormat(format=IntFormat(bits=24), overflow="wrap")
MEMBRANE = StateFormat(format=IntFormat(bits=24, narrow=True))
CUBA = NeuronSpec(
    order=("decay_current", "add_current", "narrow_current", "leak", "integrate", "narrow", "fire", "reset"),
    leak=LEAK,
    leak_i=LEAK,
    reset="zero",
    v=MEMBRANE,
    i=CURRENT,
)
ENCODER = NeuronSpec(order=("leak", "integrate", "narrow", "fire", "reset"), leak=LEAK, reset="zero", v=MEMBRANE)


def from_lava(
    path: str | os.PathLike[str],
    *,
    steps: int,
    timing: Timing | None = None,
    first_layer: int = 0,
    layers: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    max_values: int = MOST_VALUES,
) -> IntNet:
    """Read a lava-dl ``.net`` file as an integer network with Loihi's arithmetic.

    The network takes binary spikes ``[T, N, *shape]``; where it begins with an input layer that has neurons, it takes
    their bias mantissas ``[N, *shape]`` (13 bits), which stay the same over time.  Its score is the spike count.

    Args:
        path: the file.
        steps: how many steps a sample lasts; the file does not say it.
        timing: ``"aligned"``, ``"lava"`` or ``"slayer"``: when a spike reaches the next layer.  The file does not say
            it, and with biases it changes the spikes; needed where there is more than one layer.
        first_layer: leave out the layers before this one (netx: ``skip_layers``).
        layers: end before this layer (netx: ``num_layers``).
        input_shape: features of the input, where a convolution comes first and the file has no layer before it.
        max_values: refuse a file with more numbers.

    Raises:
        DataError: the file is damaged or contradicts itself.
        Unsupported: a layer, neuron or value without a counterpart, or a choice is missing.
    """
    found = read_layers(path, max_values=max_values)
    if not 0 <= first_layer < len(found) or (layers is not None and not first_layer < layers <= len(found)):
        raise DataError(f"first_layer={first_layer}, layers={layers}: the file has the layers 0 to {len(found) - 1}")
    chosen = found[first_layer:layers]
    if timing is not None and timing not in get_args(Timing):
        raise Unsupported(f"timing={timing!r}; expected one of {', '.join(get_args(Timing))}")
    if timing is None and sum(layer.neuron is not None for layer in chosen) > 1:
        raise Unsupported(
            f"{os.fspath(path)}: the file does not say when a spike reaches the next layer. Give {ADVICE}"
        )
    before = found[first_layer - 1].shape if first_layer else None
    build = _Build(timing or "aligned", os.path.basename(os.fspath(path)))
    build.start(chosen[0], input_shape or before)
    for layer in chosen[1 if chosen[0].kind == "input" else 0 :]:
        build.add(layer)
    net = build.finish(steps)
    prove_network(net)
    return net


class _Build:
    """The nodes so far, and what the next layer reads."""

    def __init__(self, timing: Timing, name: str) -> None:
        self.timing, self.name = timing, name
        self.nodes: list[Node] = []
        self.edge = Edge("input")
        self.shape: tuple[int, ...] = ()
        self.delay: IntArray | None = None
        self.facts: dict[str, Any] = {}

    def start(self, first: LavaLayer, before: tuple[int, ...] | None) -> None:
        """The input node, and the neurons of an input layer."""
        encodes = first.kind == "input" and first.neuron is not None
        self.shape = first.shape if first.kind == "input" else before or input_features(first, self.where(first))
        fmt = BIAS_MANTISSA if encodes else IntFormat(bits=1, signed=False)
        self.nodes.append(InputNode(name="input", shape=self.shape, format=fmt, static=encodes))
        if first.kind != "input" or first.neuron is None:
            return
        transform = {
            n: int(v.reshape(-1)[0]) for n, v in (("weight", first.weight), ("bias", first.bias)) if v is not None
        }
        self.facts["input"] = {"transform": transform, "takes": "bias mantissas, before the shift by 6"}
        node = NeuronNode(
            name=f"layer{first.name}", shape=self.shape, inputs=(Edge("input"),), gains=(_array(2**SHIFT),),
            spec=ENCODER, params=_params(first.neuron, current=False),
        )  # fmt: skip
        self.put(node, first)

    def where(self, layer: LavaLayer) -> str:
        return f"{self.name}: layer {layer.name}"

    def put(self, node: NeuronNode, layer: LavaLayer) -> None:
        """A neuron node; the next layer reads it."""
        self.nodes.append(node)
        self.edge = Edge(node.name, 1 if self.timing == "slayer" else 0)
        self.shape, self.delay = node.shape, axonal_delays(layer, self.where(layer))

    def add(self, layer: LavaLayer) -> None:
        """A layer behind the first."""
        if layer.kind == "input":
            raise DataError(f"{self.where(layer)}: an input layer behind another one")
        if layer.kind == "flatten":
            self.flatten(f"layer{layer.name}")
            return
        if layer.neuron is None:
            raise Unsupported(f"{self.where(layer)}: has no neuron, so its currents would be the output; drop it")
        if layer.kind == "dense" and len(self.shape) > 1:
            self.flatten(f"layer{layer.name}_flat")
        product, shape = product_of(layer, self.shape, self.where(layer))
        synapses = self.synapses(layer, product, shape)
        params = _params(layer.neuron, current=True)
        if layer.bias is not None:
            params["v_bias"] = membrane_bias(layer.bias, shape, self.where(layer))
        self.nodes += synapses
        edges = tuple(Edge(node.name) for node in synapses)
        gains = (_array(2**SHIFT),) * len(edges)
        name = f"layer{layer.name}"
        self.put(NeuronNode(name=name, shape=shape, inputs=edges, gains=gains, spec=CUBA, params=params), layer)

    def flatten(self, name: str) -> None:
        """C order, as in PyTorch."""
        size = int(np.prod(self.shape))
        if self.delay is not None and self.delay.size == self.shape[0] != size:
            self.delay = np.repeat(self.delay, size // self.shape[0])
        self.nodes.append(ReshapeNode(name=name, shape=(size,), inputs=(self.edge,)))
        self.edge, self.shape = Edge(name), (size,)

    def synapses(self, layer: LavaLayer, product: Product, shape: tuple[int, ...]) -> list[SynapseNode]:
        """One synapse node, or one for each axonal delay of the layer before."""
        own = 1 if self.timing == "lava" else 0
        parts = [(0, product)] if self.delay is None else split_by_delay(product, self.delay, self.where(layer))
        nodes = []
        for delay, part in parts:
            bits = signed_bits_for(int(part.codes.min()), int(part.codes.max()))
            name = f"layer{layer.name}_weights" + (f"_{delay}" if len(parts) > 1 else "")
            edge = replace(self.edge, delay=self.edge.delay + own + delay)
            fmt = IntFormat(bits=max(bits, 2))
            nodes.append(
                SynapseNode(name=name, shape=shape, inputs=(edge,), product=part, format=fmt, bits=max(bits, 2))
            )
        return nodes

    def finish(self, steps: int) -> IntNet:
        """The network, with the spike count of its last layer."""
        if not any(isinstance(node, NeuronNode) for node in self.nodes):
            raise DataError(f"{self.name}: no layer with neurons is left")
        late = 0 if self.delay is None else int(self.delay[0])
        if self.delay is not None and bool((self.delay != late).any()):
            raise Unsupported(f"{self.name}: the delays of the last layer differ from neuron to neuron; drop them")
        if late or self.edge.delay:
            inputs = (replace(self.edge, delay=self.edge.delay + late),)
            self.nodes.append(ReshapeNode(name="output", shape=self.shape, inputs=inputs))
            self.edge = Edge("output")
        facts = {"from": "lava-dl", "file": self.name, "timing": self.timing, **self.facts}
        decoder = Decoder(name="spike_count", source=self.edge.source)
        return IntNet(nodes=tuple(self.nodes), decoder=decoder, steps=steps, target="loihi-cuba/1", metadata=facts)


def _array(value: Any) -> IntArray:
    return np.asarray(value, dtype=np.int64)


def _params(neuron: LavaNeuron, *, current: bool) -> dict[str, IntArray]:
    values = {"v_load": 1, "v_shift": 0, "leak": 4096 - neuron.v_decay, "theta": neuron.threshold * 2**SHIFT + 1}
    if current:
        values |= {"i_load": 1, "i_shift": 0, "leak_i": 4096 - neuron.i_decay}
    return {name: _array(value) for name, value in values.items()}
