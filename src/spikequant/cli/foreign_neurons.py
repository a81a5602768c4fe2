"""Networks with neurons of another library: which those are, whether our reading of them holds, and reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikequant.cli.screen import Screen
from spikequant.law.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn


def spiking_layers(model: nn.Module) -> int:
    """Number of neuron layers in `model`, ours and those of libraries that are known."""
    from spikequant.frontends import library_of
    from spikequant.nn import STATEFUL

    return sum(isinstance(module, STATEFUL) or library_of(module) is not None for module in model.modules())


def read_foreign_neurons(model: nn.Module, example: Tensor, screen: Screen) -> None:
    """Check the reading of every neuron of another library on `example`, say how well it holds, and read in place.

    Raises:
        Unsupported: a neuron that cannot be read.
    """
    from spikequant.frontends import check_reading, library_of, read_

    if not any(library_of(module) is not None for module in model.modules()):
        return
    report = check_reading(model, example, quiet=True)
    for layer in report.layers:
        differ = "" if layer.grade == "exact" else f"; {layer.difference}"
        screen.note(
            f"read {layer.path}: {layer.library} {layer.kind}, {layer.grade}, "
            f"{layer.differing:,} of {layer.neuron_steps:,} neuron-steps differ{differ}"
        )
    refused = [f"{layer.path}: {layer.difference}" for layer in report.layers if layer.grade == "refused"]
    if refused:
        raise Unsupported(f"these neurons cannot be read: {'; '.join(refused)}")
    read_(model)
