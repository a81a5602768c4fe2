"""The check of a freshly quantized model against its target: a copy is frozen, lowered and checked."""

from __future__ import annotations

from torch import Tensor, nn

from spikequant.law.errors import WidthError
from spikequant.nn.copying import copied
from spikequant.quantize.freeze import freeze_layers
from spikequant.quantize.lower import integer_network
from spikequant.targets import Target, require


def rehearse(model: nn.Module, example_input: Tensor, target: Target) -> str:
    """The report about what `lower` would give today; a sentence where today's integers cannot be frozen yet.

    Raises:
        Unsupported: the target cannot do the network; every layer and limit is named.
    """
    trial = copied(model)
    try:
        freeze_layers(trial, refuse_dead=False)
        return str(require(integer_network(trial, example_input), target))
    except WidthError as error:
        return f"{target.tag} is checked when the model is lowered; before calibration: {error}"
