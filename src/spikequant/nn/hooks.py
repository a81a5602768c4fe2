"""Hooks of a module that another one replaces."""

from __future__ import annotations

from torch import nn

FORWARD = ("_forward_hooks", "_forward_pre_hooks")
KEPT = (
    *FORWARD, "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
    "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def move_hooks_(source: nn.Module, target: nn.Module) -> int:
    """Give `target` the very hooks of `source`, so that their handles still remove them; how many there are."""
    found = sum(len(getattr(source, name)) for name in (*FORWARD, "_backward_hooks", "_backward_pre_hooks"))
    if found:
        for name in KEPT:
            target.__dict__[name] = source.__dict__[name]
    return found
