"""Buffers that a layer has only after something was done to it, and a `state_dict` that brings them along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def take_optional(module: nn.Module, names: Sequence[str], state: Mapping[str, Tensor], prefix: str) -> None:
    """Make room in `module` for those of its optional buffers that `state` holds, and drop those that it lacks.

    >>> layer = nn.Module()
    >>> layer.register_buffer("shift", None)
    >>> take_optional(layer, ["shift"], {"a.shift": torch.ones(3)}, "a.")
    >>> layer.shift.shape
    torch.Size([3])
    """
    for name in names:
        given = state.get(prefix + name)
        if given is None:
            setattr(module, name, None)
        elif getattr(module, name) is None:
            setattr(module, name, torch.empty_like(given))


__all__ = ["take_optional"]
