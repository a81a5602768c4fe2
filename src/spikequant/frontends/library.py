"""What a front-end is: one record per library, and the pieces that all of them use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.law.spec import NeuronSpec
from spikequant.nn import Dialect, Neuron, NeuronLayer, ValueSource, adopt


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one module of a library became.

    Attributes:
        module: takes the place of the original and answers its calls.
        caveats: where the reading is known to differ from the library, and when.
    """

    module: nn.Module
    caveats: tuple[str, ...] = ()

    @property
    def neuron(self) -> NeuronLayer | None:
        """The layer of neurons in it, if it has one."""
        return next((m for m in self.module.modules() if isinstance(m, NeuronLayer)), None)


@dataclass(frozen=True, kw_only=True)
class Library:
    """How one library is read.

    Attributes:
        name: as its users write it.
        read: ``(path, module) -> Reading``, or None for a module that needs none; raises
            `Unsupported` on neurons that no spec can hold.
        run: ``(module, x [T, N, ...]) -> spikes [T, N, ...]``: the module from rest over all
            steps, called as the library calls it; the same for an original and its reading.
        reset: put one module (original or reading) to rest.
        gather: the inputs ``[T, N, ...]`` of a module out of those of its calls in one forward pass.
    """

    name: str
    read: Callable[[str, nn.Module], Reading | None]
    run: Callable[[nn.Module, Tensor], Tensor]
    reset: Callable[[nn.Module], object]
    gather: Callable[[nn.Module, list[Tensor]], Tensor] = lambda _module, calls: torch.stack(calls)


def attribute(path: str, module: nn.Module, name: str, library: str) -> Any:
    """An attribute of a foreign module; `Unsupported` where this version of the library lacks it."""
    if not hasattr(module, name):
        raise Unsupported(
            f"{path}: this {type(module).__name__} has no attribute {name!r}; expected a {library} release that has it "
            "(pyproject.toml names the tested ones)"
        )
    return getattr(module, name)


def refuse(path: str, name: str, value: object, why: str) -> Unsupported:
    """The error for an attribute that no spec can hold: where, what, which value, and what to do."""
    return Unsupported(f"{path}: {name} = {value!r}: {why}")


def clamped(value: Tensor) -> Tensor:
    """A decay as snnTorch uses it: clipped to 0 ... 1."""
    return one_axis(value).clamp(0, 1)


def one_axis(value: Tensor) -> Tensor:
    """A real value as a scalar or one number per channel, out of ``()``, ``[1]``, ``[C]`` or ``[C, 1, 1]``."""
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return value.reshape(()) if value.numel() == 1 else value.flatten()


def check_value(path: str, name: str, value: Tensor, *, least: float | None = None) -> None:
    """Refuse a value with one number per pixel, one that is not finite, or one below `least`.

    Raises:
        Unsupported: with what to do.
    """
    if value.numel() > 1 and value.dim() > 1 and value.numel() != value.shape[0]:
        why = "one number per pixel; give every channel one number, [C, 1, 1]"
        raise refuse(path, name, tuple(value.shape), why)
    if not bool(torch.isfinite(value).all()):
        raise refuse(path, name, "NaN or infinite", "expected finite numbers (did the training diverge?)")
    if least is not None and bool((value < least).any()):
        raise refuse(path, name, float(value.min()), f"expected at least {least:g}")


def check_axes(layer: NeuronLayer, x: Tensor) -> None:
    """Refuse a plain vector of values on a feature map: libraries spread it over the last axis, which is the width.

    Raises:
        Unsupported: with what to do.
    """
    for name, source in layer.sources.items():
        for part in source.attributes:
            value = getattr(layer, part)
            if x.dim() > 2 and value.dim() == 1 and value.numel() > 1:
                raise Unsupported(
                    f"{part} ({name}) has the shape {tuple(value.shape)}, which runs along the last of the axes "
                    f"{tuple(x.shape[1:])}; give every channel one number, [C, 1, 1], or all of them one"
                )


def read_neuron(
    original: nn.Module,
    spec: NeuronSpec,
    sources: Mapping[str, ValueSource],
    dialect: Dialect,
    *,
    keeps: tuple[str, ...],
    foreign: type[nn.Module] | None,
    **options: Any,
) -> Neuron:
    """A neuron over real numbers that holds the very parameters and buffers of `original`, under their names.

    With `foreign` it becomes an instance of that class, too.
    """
    neuron = Neuron(spec, {}, sources=sources, **options)
    for name in keeps:
        value = getattr(original, name)
        if isinstance(value, nn.Parameter):
            setattr(neuron, name, value)
        else:
            neuron.register_buffer(name, value)
    adopt(neuron, nn.Module if foreign is None else foreign, dialect)
    return neuron
