"""How a layer of another library is called and what it answers.

A neuron that was read from another library keeps its call.  One `Dialect` serves the real
reading and the quantized neuron that takes its place; `Neuron` and `QuantizedNeuron` know
only `advance`, one input to one output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from spikequant.nn.layer import NeuronLayer


@dataclass(frozen=True)
class ValueSource:
    """Where a value of the law comes from: attributes of the layer, and what is computed of them.

    The attributes are parameters or buffers under the names that the other library gave
    them, so that checkpoints keep fitting; `compute` is a function of a module (no lambda:
    layers are copied).
    """

    attributes: tuple[str, ...]
    compute: Callable[..., Tensor] | None = None

    def of(self, module: nn.Module) -> Tensor:
        """The value now, differentiable."""
        tensors = [getattr(module, name) for name in self.attributes]
        value: Tensor = tensors[0] if self.compute is None else self.compute(*tensors)
        return value


class Dialect:
    """The conventions of one kind of neuron layer; subclasses are frozen dataclasses without tensors.

    Attributes:
        members: what the class of the layer gets besides (``reset_mem``, ``mem``, ...).
    """

    members: ClassVar[dict[str, Any]] = {}

    def call(self, layer: NeuronLayer, *args: Any, **kwargs: Any) -> Any:
        """One call of the layer as its own library would make it."""
        raise NotImplementedError

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The input of a call, and the states given with it by the law's names (``v``, ``i``)."""
        return args[0], {}

    def states_of(self, answer: Any) -> dict[str, Tensor]:
        """The states in an answer by the law's names; its first part is what left the neuron."""
        return {}

    def enroll(self, layer: NeuronLayer) -> None:
        """Tell the library of a new layer or copy, where it keeps a list of its layers."""


@cache
def joined(own: type, foreign: type, dialect: type[Dialect] = Dialect) -> type:
    """A class that is both, every method of `own` in front, under the name of `foreign`."""
    name = own.__name__ if foreign is nn.Module else foreign.__name__
    return type(name, (own, foreign), {"__module__": own.__module__, **dialect.members})


def blank(own: type, foreign: type, dialect: type[Dialect]) -> object:
    """An object of the joined class whose state is still to be set: how copies and pickles begin."""
    return object.__new__(joined(own, foreign, dialect))  # type: ignore[arg-type]


def adopt(layer: NeuronLayer, foreign: type[nn.Module], dialect: Dialect) -> None:
    """Make `layer` an instance of `foreign`, too, with every method of its own in front.

    ``isinstance`` tests in the user's code and in the library's resets then hold.
    """
    own = layer.own_class if layer.dialect is not None else type(layer)
    layer.own_class, layer.foreign_class, layer.dialect = own, foreign, dialect
    layer.__class__ = joined(own, foreign, type(dialect))  # type: ignore[arg-type]
    dialect.enroll(layer)
