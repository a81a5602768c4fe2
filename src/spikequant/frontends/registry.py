"""Which front-end reads a module, and the reading of a whole model in place."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from spikequant.frontends.cell import CellReading
from spikequant.frontends.library import Library, Reading
from spikequant.law.errors import Unsupported
from spikequant.nn import NeuronLayer
from spikequant.nn.hooks import move_hooks_

FRONTENDS: dict[str, str] = {
    "brevitas": "brevitas",
    "sinabs": "sinabs",
    "snntorch": "snntorch",
    "spikingjelly": "spikingjelly",
    "norse": "norse",
}
"""Package in which the classes of a library live -> module of this folder that has its `LIBRARY`."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """One module of the model that was read."""

    path: str
    library: Library
    original: nn.Module
    reading: Reading


@dataclass
class Readings:
    """Everything that was read in a model; `undo` puts the originals back."""

    model: nn.Module
    replaced: list[Replacement] = field(default_factory=list)

    def undo(self) -> None:
        """The model as it was."""
        for found in self.replaced:
            put(self.model, found.path, found.original)
        self.replaced.clear()


def library_of(module: nn.Module) -> Library | None:
    """The front-end for a module's class, or for the class that it derives from; None for plain torch."""
    if isinstance(module, (NeuronLayer, CellReading)):
        return None
    for kind in type(module).__mro__:
        name = FRONTENDS.get(kind.__module__.partition(".")[0])
        if name is not None:
            library: Library = importlib.import_module(f"spikequant.frontends.{name}").LIBRARY
            return library
    return None


def read_(model: nn.Module) -> Readings:
    """Read every neuron of another library in `model`, in place.

    Raises:
        Unsupported: a neuron has no spec, with its path, attribute, value and what to do.
    """
    found = Readings(model)
    try:
        _read_children(model, "", found, {})
    except BaseException:
        found.undo()
        raise
    return found


def _read_children(parent: nn.Module, prefix: str, found: Readings, done: dict[nn.Module, Reading | None]) -> None:
    for name, child in list(parent._modules.items()):  # named_children leaves out a module's second place
        if child is None:
            continue
        path = f"{prefix}{name}"
        library = library_of(child)
        if library is not None and child not in done:
            done[child] = library.read(path, child)
        reading = done.get(child)
        if library is None or reading is None:
            _read_children(child, f"{path}.", found, done)
            continue
        reading.module.train(child.training)
        move_hooks_(child, reading.module)
        setattr(parent, name, reading.module)
        found.replaced.append(Replacement(path=path, library=library, original=child, reading=reading))


@contextmanager
def read_or_undo(model: nn.Module) -> Iterator[Readings]:
    """Read `model`; everything is put back if the block raises."""
    library = library_of(model)
    if library is not None and library.read("the model", model) is not None:
        raise Unsupported(f"{type(model).__name__}: the model itself is one layer; put it in a torch.nn.Sequential")
    found = read_(model)
    try:
        yield found
    except BaseException:
        found.undo()
        raise


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
