"""`ann_baseline`: what the same layers do at the same weight bits without spikes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.analyse.ann_network import QuantizedReLU, StaticNetwork, equivalent_bits, static_network
from spikequant.analyse.counting import counter_of, events_of
from spikequant.analyse.inputs import bits_of_data, few_samples
from spikequant.analyse.memory import REAL_BITS, connection_sparsity
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.capture import capture
from spikequant.law.errors import CaptureError, DataError, Unsupported
from spikequant.measure import MemoryRow, SynOps, energy_pj, total_synops
from spikequant.nn import NORMS, SYNAPSES, NeuronLayer, Synapse
from spikequant.quantizers import LSQ, Quantizer
from spikequant.training import evaluate, fit

Batches = Iterable[tuple[Tensor, Tensor]]
CALIBRATION_BATCHES = 8
SAME = (
    "layers, connections and pooling",
    "bits, quantizer and grain of every layer's weights",
    "bits and scale of the input",
    "training data, loss and optimizer (Adam)",
)
DIFFERENT = (
    "activations of {bits} bits once, not spikes over {steps} steps",
    "no membranes, thresholds or leaks; a layer ends with a scale and a bias of 32 bits per channel",
    "trained from fresh weights (seed {seed}) for {epochs} + {qat} epochs, whatever the spiking network had",
    "the scores are the last layer's sums; a spiking last layer counts its spikes",
    "every operation behind the input is a multiply-accumulate (1-bit activations: an accumulate)",
)


def ann_baseline(
    model: nn.Module,
    train: Batches,
    test: Batches,
    *,
    epochs: int = 5,
    qat_epochs: int = 0,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    lr: float = 1e-3,
    seed: int = 0,
    quiet: bool = True,
) -> AnnBaseline:
    """Train and quantize the network that `model` is without spikes and time, and measure it.

    It answers whether the spiking network beats an ordinary quantized one of the same size.

    The same: layers and connections; bits, quantizer and grain of the weights, layer by
    layer; bits of the input; data, loss and optimizer.  Not the same: every neuron layer is a
    clipped ReLU with activations of `activation_bits` bits, once and not over time, so that
    there are no membranes, thresholds or leaks, but a scale and a bias of 32 bits per
    channel; weights start fresh; a spiking last layer becomes a linear one; operations are
    MACs.  Give as many `epochs` (and `qat_epochs`, training at these bits) as the spiking
    network had: nobody can read that off it.  With ``qat_epochs=0`` it is quantized after
    training: scales by mean square error, batch norm measured anew.

    Its RAM is the largest sum of activations that are alive together; its effective
    operations leave zeros out, as those of the spiking network do.

    Args:
        model: the spiking network, quantized (its bits are taken) or real (`weight_bits` is needed).
        train: re-iterable of ``(input, target)`` to train on.
        test: re-iterable of ``(input, target)`` to measure on.
        epochs: passes over `train` before quantization.
        qat_epochs: passes over `train` after it, at a fifth of the rate.
        weight_bits: the same bits (LSQ, per channel) for all layers of a real model.
        activation_bits: bits of an activation; None: ``ceil(log2(steps * spikes_max + 1))``, as
            many values as a neuron's spikes can be counted to.
        lr: learning rate.
        seed: of the fresh weights; torch's own random state is left as it was.
        quiet: no progress bar.

    Raises:
        Unsupported: a network that has no meaning without time: event input, recurrent or
            delayed connections, one step per call; or one that cannot be captured.
        DataError: no data, or no bits to take.
    """
    example = _example(train)
    try:
        graph = capture(model, example)
    except CaptureError as error:
        raise Unsupported(f"ann_baseline: the network cannot be read as a graph: {error}") from error
    quantizers = dict(_weight_quantizers(model, weight_bits))
    bits = activation_bits if activation_bits is not None else equivalent_bits(graph.steps, _most_spikes(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = static_network(model, graph, activation_bits=bits)
        if epochs:
            fit(network, train, epochs=epochs, lr=lr, quiet=quiet)
        float_accuracy = _accuracy(network, test)
        network.quantize_(quantizers, [x for x, _ in islice(iter(train), CALIBRATION_BATCHES)])
        if qat_epochs:
            fit(network, train, epochs=qat_epochs, lr=lr / 5, quiet=quiet)
    words = {"bits": bits, "steps": graph.steps, "seed": seed, "epochs": epochs, "qat": qat_epochs}
    return AnnBaseline(
        side=_side(network, test, _accuracy(network, test), bits),
        float_accuracy=float_accuracy,
        activation_bits=bits,
        epochs=(epochs, qat_epochs),
        same=SAME,
        different=tuple(line.format(**words) for line in DIFFERENT),
    )


def _accuracy(network: nn.Module, test: Batches) -> float:
    found = evaluate(network, test)
    return float((found.predictions == found.targets).to(torch.float64).mean())


def _example(batches: Batches) -> Tensor:
    rows = iter(batches)
    if rows is batches:
        raise DataError("ann_baseline: the training data are a one-shot iterator; give a list or a loader")
    first = next(rows, None)
    if first is None:
        raise DataError("ann_baseline: the loader gave no batch; expected at least one (input, target)")
    return few_samples(first[0], len(first[1]))


def _weight_quantizers(model: nn.Module, bits: int | None) -> Iterator[tuple[str, tuple[Quantizer, bool]]]:
    for path, module in model.named_modules():
        if isinstance(module, Synapse) and bits is None:
            yield path, (module.quantizer, module.per_channel)
        elif isinstance(module, (Synapse, *SYNAPSES)):
            if bits is None:
                raise DataError(f"ann_baseline: {path} is not quantized; quantize the model first or give weight_bits")
            yield path, (LSQ(bits), True)


def _most_spikes(model: nn.Module) -> int:
    return max((m.neuron_spec.spikes_max for m in model.modules() if isinstance(m, NeuronLayer)), default=1)


def _side(network: StaticNetwork, test: Batches, accuracy: float, bits: int) -> Side:
    counters, zeros, values, samples, input_bits = _count(network, test, bits)
    rows = (*_flash(network), *_ram(network, bits, input_bits))
    counts = {path: counter.count().per(samples) for path, counter in counters.items()}
    total = total_synops(counter.count() for counter in counters.values()).per(samples)
    widths = {row.layer: row.bits for row in rows if row.role == "weight"}
    moved = 2 * bits * sum(math.prod(network.graph.node(name).shape) for name in network.activations)
    return Side(
        accuracy=accuracy,
        memory=rows,
        operations=tuple(
            LayerOperations(layer=p, effective_acs=c.effective_acs, effective_macs=c.effective_macs, dense=c.dense)
            for p, c in counts.items()
        ),
        energy=energy_pj(
            total.effective_macs,
            total.effective_acs,
            weight_bits_read=sum(widths[p] * (c.effective_acs + c.effective_macs) for p, c in counts.items()),
            state_bits_moved=moved,
        ),
        connection_sparsity=connection_sparsity(network),
        activation_sparsity=zeros / max(values, 1),
    )


@torch.no_grad()
def _count(network: StaticNetwork, test: Batches, bits: int) -> tuple[dict[str, SynOps], int, int, int, int]:
    """Operations by layer, zero activations of all activations, samples, bits of the input."""
    counters: dict[str, SynOps] = {}
    tally = {"zeros": 0, "values": 0}

    def weights(path: str, module: Any, x: Tensor) -> None:
        features = x.shape[-(module.weight.dim() - 1) :]
        x = x.reshape(1, -1, *features)
        if bits == 1 and len(torch.unique(x[x != 0])) == 1:  # 0 and one other value, which lies in the next scale
            x = (x != 0).to(x.dtype)
        counters.setdefault(path, counter_of(path, module, tuple(features)))
        events, spiking = events_of(x)
        counters[path].add(events, spiking, samples=x.shape[1])

    def activations(_module: nn.Module, _inputs: object, out: Tensor) -> None:
        tally["zeros"] += int((out == 0).sum())
        tally["values"] += out.numel()

    handles = [
        layer.register_forward_pre_hook(lambda m, inputs, p=path: weights(p, m, inputs[0]))
        for path, layer in network.layers(Synapse).items()
    ]
    handles += [relu.register_forward_hook(activations) for relu in network.layers(QuantizedReLU).values()]
    network.eval()
    samples, input_bits = 0, 1
    try:
        for x, y in test:
            network(x)
            samples += len(y)
            input_bits = max(input_bits, bits_of_data(x))
    finally:
        for handle in handles:
            handle.remove()
    return (
        counters,
        tally["zeros"],
        tally["values"],
        samples,
        input_bits if network.grid is None else network.grid[1].bits,
    )


def _flash(network: StaticNetwork) -> Iterator[MemoryRow]:
    """Codes at their bits; the scale to the next activations, per channel where it differs; biases and folded norms."""
    normed = {_source(network, path) for path in network.layers(*NORMS)}
    biased = normed | {path for path, layer in network.layers(Synapse).items() if layer.bias is not None}
    for path, layer in network.layers(Synapse).items():
        outputs = len(layer.weight)
        yield MemoryRow(path, "weight", layer.weight.numel(), layer.quantizer.bits, rows=outputs)
        yield MemoryRow(path, "scale", outputs if layer.per_channel or path in normed else 1, REAL_BITS)
        if path in biased:
            yield MemoryRow(path, "bias", outputs, REAL_BITS)
    if network.grid is not None:
        yield MemoryRow("input", "scale", 1, REAL_BITS)


def _source(network: StaticNetwork, path: str) -> str:
    """The weighted layer in front of a batch norm."""
    node = next(n for n in network.graph.nodes if n.path == path)
    while not isinstance(network.body.get_submodule(node.path) if node.path else None, Synapse):
        node = network.graph.node(node.inputs[0].source)
    return node.path


def _ram(network: StaticNetwork, bits: int, input_bits: int) -> list[MemoryRow]:
    """The activations that are alive together where they need the most; what lies between them is fused."""
    graph = network.graph
    kept = {"input": input_bits, graph.output.source: REAL_BITS} | dict.fromkeys(network.activations, bits)
    order = {node.name: k for k, node in enumerate(graph.nodes)}
    last = {name: order[name] for name in kept}
    for node in graph.nodes:  # a value lives until the last kept value that is computed from it
        if node.name in kept:
            for name in _feeding(network, node.name, kept):
                last[name] = max(last[name], order[node.name])
    best: list[MemoryRow] = []
    for now in (order[name] for name in kept):
        alive = [name for name in kept if order[name] <= now <= last[name]]
        rows = [
            MemoryRow(name, _role(name, graph.output.source), math.prod(graph.node(name).shape), kept[name])
            for name in alive
        ]
        best = max(best, rows, key=lambda group: sum(row.total_bits for row in group))
    return best


def _role(name: str, output: str) -> str:
    return {"input": "input", output: "readout"}.get(name, "activation")


def _feeding(network: StaticNetwork, name: str, kept: dict[str, int]) -> set[str]:
    """The kept values from which one is computed without another between."""
    found: set[str] = set()
    waiting = [edge.source for edge in network.graph.node(name).inputs]
    while waiting:
        source = waiting.pop()
        if source in kept:
            found.add(source)
        else:
            waiting += [edge.source for edge in network.graph.node(source).inputs]
    return found
