"""Copies of models that have just been trained."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model whose layers hold a state with a graph.

    Neurons of other libraries keep their last membrane, as it left the training step;
    torch refuses to copy such a tensor.  In the copy it has no graph.
    """
    held = [value for m in model.modules() for value in (*m.__dict__.values(), *m._buffers.values())]
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf})
