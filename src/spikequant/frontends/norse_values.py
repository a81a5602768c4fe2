"""The numbers of a Norse layer: its parameters `p` as tensors, and what the law computes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikequant.frontends.library import attribute, check_value, one_axis, refuse

NAME = "Norse"


def decay(dt: Tensor, rate: Tensor) -> Tensor:
    """``1 - dt rate``, of the product in the type in which Norse has it."""
    return 1 - gain(dt, rate).to(torch.float64)


def gain(dt: Tensor, rate: Tensor) -> Tensor:
    """``dt rate``."""
    return one_axis(dt.to(rate.dtype) * rate)


def difference(value: Tensor, rest: Tensor) -> Tensor:
    """``value - rest``."""
    return one_axis(value) - one_axis(rest)


def check_rate(path: str, p: Any, name: str, dt: float) -> None:
    """Refuse a rate with which a state would not decay, or would change its sign."""
    value = getattr(p, name)
    check_value(path, name, value, least=0.0)
    if bool((value * dt > 1).any()) or (name == "tau_mem_inv" and bool((value == 0).any())):
        why = f"expected more than 0 and at most 1 / dt = {1 / dt:g}, else the state does not decay"
        raise refuse(path, name, float(value.max()), why)


def parameters_of(path: str, module: Any, names: tuple[str, ...]) -> Any:
    """The parameters `p` of a module as tensors, checked."""
    p = attribute(path, module, "p", NAME)
    found = {name: torch.as_tensor(attribute(path, p, name, NAME)) for name in names}
    for name, value in found.items():
        check_value(path, name, value)
        if value.requires_grad and not value.is_leaf:
            raise refuse(path, name, "the result of a calculation", "expected a parameter or a number")
    return p._replace(**{name: value for name, value in found.items() if name in p._fields})
