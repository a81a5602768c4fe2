"""Which modules may be taken for what their class says: those whose forward pass is torch's, or a vouched library's."""

from __future__ import annotations

from torch import nn

from spikequant.law.errors import Unsupported

VOUCHED = ("torch", "spikequant", "spikingjelly")
"""Packages whose layers of a torch class compute what torch's do; their front-ends refuse the exceptions."""
COMPUTES = ("forward", "_conv_forward")


def check_forward(path: str, module: nn.Module) -> None:
    """Refuse a layer whose forward pass somebody else has written: it may compute anything.

    Raises:
        Unsupported: with the class that writes it, and what to do.
    """
    for name in COMPUTES:
        owner = next((kind for kind in type(module).__mro__ if name in vars(kind)), None)
        package = "" if owner is None else owner.__module__.partition(".")[0]
        if name in vars(module) or (owner is not None and package not in VOUCHED):
            where = "on the object itself" if name in vars(module) else f"by {type(module).__name__}"
            plain = next(kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn."))
            raise Unsupported(
                f"{path}: its {name} is overridden {where}, so that it cannot be read as torch.nn.{plain}; use "
                f"torch.nn.{plain} itself, and make what the layer does besides a module or function of its own"
            )
