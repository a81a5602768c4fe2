"""`paths`: by which arithmetic each quantized layer computed its last sums, and why not by another."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from spikequant.law.errors import DataError
from spikequant.nn.products import kernels
from spikequant.nn.products.choice import timings
from spikequant.nn.products.proof import machine_of, refusals
from spikequant.nn.synapse import Synapse


@dataclass(frozen=True)
class PathOfLayer:
    """The path of one layer.

    Attributes:
        path: what its last sums were made by; None if it never ran.
        milliseconds: what each candidate took when this shape was timed; empty where nothing was to choose.
        refused: the other paths, with the reason why they are not proven exact.
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
    """The paths of a model, layer by layer; prints as a table."""

    layers: tuple[PathOfLayer, ...]

    def __getitem__(self, layer: str) -> PathOfLayer:
        """The row of a layer, by its path in the model."""
        for row in self.layers:
            if row.layer == layer:
                return row
        raise DataError(f"no quantized layer {layer!r}; the model has {', '.join(row.layer for row in self.layers)}")

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def paths(model: nn.Module) -> Paths:
    """How the weighted layers of a quantized model computed their last sums.

    Every path gives the same bits (`nn/products`); force one with
    ``with sq.nn.use_path("float32"):`` or ``SPIKEQUANT_PATH=float32``.

    Raises:
        DataError: nothing in the model is quantized.
    """
    rows = tuple(_row(name, m) for name, m in model.named_modules() if isinstance(m, Synapse))
    if not rows:
        raise DataError("paths: the model has no quantized layer; call spikequant.quantize_ first")
    return Paths(rows)


def _row(name: str, synapse: Synapse) -> PathOfLayer:
    product = synapse.product
    if product.widths is None:
        return PathOfLayer(name, None)
    machine = machine_of(kernels.library() is not None, kernels.has_vnni())
    times = {path: 1e3 * seconds for path, seconds in timings(product.key).items()}
    return PathOfLayer(name, product.path, times, refusals(product.widths, product.geometry, machine))
