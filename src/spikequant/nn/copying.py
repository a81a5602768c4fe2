"""Copies of models that have just been trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model whose layers hold a state with a graph.

    Neurons of other libraries keep their last membrane, as it left the training step;
    torch refuses to copy such a tensor.  In the copy it has no graph.
    """
    held = [t for m in model.modules() for t in _tensors(m.__dict__)]
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors of a module's own attributes; SpikingJelly keeps its states in a table by name."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(inner)
