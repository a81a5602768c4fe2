"""`paths`: by which arithmetic each quantized layer computes its sums, and why not by another."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from spikequant.law.errors import DataError
from spikequant.law.network import InputNode, IntNet, SynapseNode
from spikequant.nn.integer_readers import choose_reader
from spikequant.nn.products import kernels
from spikequant.nn.products.choice import timings
from spikequant.nn.products.proof import machine_of, refusals
from spikequant.nn.products.weights import LINE
from spikequant.nn.synapse import Synapse


@dataclass(frozen=True)
class PathOfLayer:
    """The path of one layer.

    Attributes:
        path: what its last sums were made by; None if it never ran.  Of an integer network: what makes its sums here.
        milliseconds: what each candidate took when this shape was timed; empty where nothing was to choose.
        refused: the other paths, with the reason why they are not proven exact; of an integer network the other
            readers, with the reason why they are not possible.
    """

    layer: str
    path: str | None
    milliseconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {time:.2f}" for name, time in sorted(self.milliseconds.items(), key=lambda i: i[1]))
        return f"{self.layer}: {self.path or 'not run yet'}" + (f" (ms: {times})" if times else "")


@dataclass(frozen=True)
class Paths:
    """The paths of a model, layer by layer; prints as a table.

    Attributes:
        reader: of an integer network: what scores it here (`nn/integer_readers.py`); empty for a model.
    """

    layers: tuple[PathOfLayer, ...]
    reader: str = ""

    def __getitem__(self, layer: str) -> PathOfLayer:
        """The row of a layer, by its path in the model."""
        for row in self.layers:
            if row.layer == layer:
                return row
        raise DataError(f"no quantized layer {layer!r}; the model has {', '.join(row.layer for row in self.layers)}")

    def __str__(self) -> str:
        return "\n".join([*([f"scored by: {self.reader}"] if self.reader else []), *map(str, self.layers)])


SUMS = {"layers": "int8_vnni", "c99": "events", "golden": "int64"}
"""What the readers of an integer network make its sums by: products of bytes, a walk over events, whole numbers."""


def paths(model: nn.Module | IntNet) -> Paths:
    """How the weighted layers of a quantized model computed their last sums, or those of an integer network will.

    Every path gives the same bits (`nn/products`); force one with ``with sq.nn.use_path("float32"):`` or
    ``SPIKEQUANT_PATH=float32``.  An integer network has one path for all layers, that of the reader which scores it in
    `evaluate`; force it with ``with sq.nn.use_reader("golden"):`` or ``SPIKEQUANT_READER=golden``.

    Raises:
        DataError: nothing in the model is quantized.
        Unsupported: the reader that is asked for is not possible for the network.
    """
    if isinstance(model, IntNet):
        choice = choose_reader(model)
        made = [(node.name, _made(model, node, choice.reader)) for node in model.synapses]
        return Paths(tuple(PathOfLayer(name, path, {}, choice.refused) for name, path in made), choice.reader)
    rows = tuple(_row(name, m) for name, m in model.named_modules() if isinstance(m, Synapse))
    if not rows:
        raise DataError("paths: the model has no quantized layer; call spikequant.quantize_ first")
    return Paths(rows)


def _made(net: IntNet, node: SynapseNode, reader: str) -> str:
    """What makes the sums of a layer: layer by layer, a wide matrix is walked by events where few inputs are live."""
    source = net.node(node.inputs[0].source)
    signed = isinstance(source, InputNode) and source.format.min < 0
    wide = node.product.kind == "linear" and len(node.product.codes) >= LINE
    return f"{SUMS[reader]} or events" if reader == "layers" and wide and not signed else SUMS[reader]


def _row(name: str, synapse: Synapse) -> PathOfLayer:
    product = synapse.product
    if product.widths is None:
        return PathOfLayer(name, None)
    machine = machine_of(kernels.library() is not None, kernels.has_vnni())
    times = {path: 1e3 * seconds for path, seconds in timings(product.key).items()}
    return PathOfLayer(name, product.path, times, refusals(product.widths, product.geometry, machine))
