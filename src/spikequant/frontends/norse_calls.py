"""How Norse calls its neurons: ``z, state = cell(x, state)``, the state a named tuple that the caller carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikequant.frontends.cell import CellReading
from spikequant.frontends.library import check_axes
from spikequant.nn import Dialect, NeuronLayer


def _call_of(layer: NeuronLayer) -> NorseCall:
    assert isinstance(layer.dialect, NorseCall)
    return layer.dialect


def _forward(layer: NeuronLayer, input_tensor: Tensor, state: Any = None) -> Any:
    """Norse's containers look for the argument `state`."""
    if layer.dialect is None:
        return layer.advance(input_tensor)
    return layer.dialect.call(layer, input_tensor, state)


@dataclass(frozen=True)
class NorseCall(Dialect):
    """One step, or all steps of ``[T, ...]`` for a layer over time.

    Attributes:
        states: by the law's names, ``("v",)`` or ``("v", "i")``; Norse has the same.
        state_class: the named tuple of the library.
        p, dt: of the original.
        rest: the field of `p` that Norse's membrane rests at.
        records: give the states of all steps, not the last one.
    """

    states: tuple[str, ...]
    state_class: type
    p: Any
    dt: float
    rest: str
    records: bool

    members: ClassVar[dict[str, Any]] = {
        "forward": _forward,
        "p": property(lambda layer: _call_of(layer).p),
        "dt": property(lambda layer: _call_of(layer).dt),
        "record_states": property(lambda layer: _call_of(layer).records),
    }

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Input and given states; those that were left out are None."""
        given = dict(zip(("input_tensor", "state"), args, strict=False)) | kwargs
        return given["input_tensor"], self.by_name(given.get("state"))

    def by_name(self, state: Any) -> dict[str, Any]:
        """The fields of Norse's tuple under the law's names."""
        return {name: None if state is None else getattr(state, name) for name in self.states}

    def states_of(self, answer: Any) -> dict[str, Tensor]:
        """The states in an answer."""
        return self.by_name(answer[1])

    def call(self, layer: NeuronLayer, *args: Any, **kwargs: Any) -> Any:
        """Spikes (or the membrane of a readout) and the states behind them."""
        x, given = self.split(args, kwargs)
        take(layer, given, x[0] if layer.step_mode == "m" else x, self.offset(layer))
        kept, seen = layer.watch, layer.watch if layer.watch is not None else []
        layer.watch, done = (seen, len(seen)) if self.records else (kept, 0)
        left = layer.advance(x)
        layer.watch = kept
        assert layer.state is not None
        layer.answer = self.as_norse(layer, layer.state)
        if not self.records:
            return left, self.state_of(layer.answer, left)
        steps = [self.as_norse(layer, states) for states in seen[done:]]
        return left, self.state_of({n: torch.stack([s[n] for s in steps]) for n in self.states}, left)

    def state_of(self, states: dict[str, Tensor], spikes: Tensor) -> Any:
        """The tuple of the library."""
        spiking = {"z": spikes} if "z" in self.state_class._fields else {}  # type: ignore[attr-defined]
        return self.state_class(**spiking, **states)

    def offset(self, layer: NeuronLayer) -> Tensor:
        """What Norse's membrane is above that of the reading."""
        rest: Tensor = layer.get_buffer(self.rest)
        return rest

    def as_norse(self, layer: NeuronLayer, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """Stored states in the units of the library."""
        found = layer.in_real_units({name: states[name] for name in self.states})
        rest = self.offset(layer)
        v = found["v"] if not rest.requires_grad and not bool(rest.any()) else found["v"] + rest.to(found["v"])
        return {"v": v} | ({"i": found["i"] / shaped(layer, found["i"])} if "i" in self.states else {})


def shaped(layer: NeuronLayer, like: Tensor) -> Tensor:
    """The gain of a layer, along the axes on which Norse has it."""
    given: Tensor = layer.get_buffer("tau_mem_inv")
    return layer.real_value("gain").to(like.dtype).reshape(given.shape)


def take(layer: NeuronLayer, given: dict[str, Any], like: Tensor, rest: Tensor) -> None:
    """Set the layer to the states that the caller passes; its own last ones go on exactly as stored."""
    own, now = layer.answer, layer.state
    if all(state is None for state in given.values()):
        check_axes(layer, like)
        layer.reset()
    elif now is not None and all(state is own.get(name) for name, state in given.items()):
        return
    elif now is not None and all(name in own and torch.equal(state, own[name]) for name, state in given.items()):
        layer.map_state(torch.Tensor.detach if not given["v"].requires_grad else torch.Tensor.clone)
    else:
        layer.reset()
        real = {"v": (given["v"] - rest).expand(like.shape)}
        if "i" in given:
            real["i"] = (given["i"] * shaped(layer, like)).expand(like.shape)
        layer.start_from(real)


def weighted(weight: Tensor) -> nn.Linear:
    """A linear layer with this very weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
    return layer


class NorseLinear(CellReading):
    """``v, state = cell(x W, state)`` of `LILinearCell`."""

    names: ClassVar[dict[str, str]] = {"input.weight": "input_weights"}

    def __init__(self, cell: NeuronLayer, source: Any) -> None:
        super().__init__(cell)
        self.input = weighted(source.input_weights)

    @property
    def input_weights(self) -> Tensor:
        """Under the name that Norse gives them."""
        return self.input.weight

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        """One step."""
        return self.cell(self.input(input_tensor), state)


class NorseRecurrent(CellReading):
    """``z, state = cell(x W + z_before R, state)`` of `LIFRecurrentCell`, and all steps of it for `LIFRecurrent`."""

    names: ClassVar[dict[str, str]] = {"input.weight": "input_weights", "recurrent.weight": "recurrent_weights"}
    record_states: bool

    def __init__(self, cell: NeuronLayer, source: Any) -> None:
        super().__init__(cell)
        self.input, self.recurrent = weighted(source.input_weights), weighted(source.recurrent_weights)
        self.over_time = hasattr(source, "record_states")

    @property
    def input_weights(self) -> Tensor:
        """Under the name that Norse gives them."""
        return self.input.weight

    @property
    def recurrent_weights(self) -> Tensor:
        """Under the name that Norse gives them."""
        return self.recurrent.weight

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        """One step, or all of them."""
        if not self.over_time:
            return self.step(input_tensor, state)
        spikes, states = [], []
        for x in input_tensor:
            z, state = self.step(x, state)
            spikes.append(z)
            states.append(state)
        if self.record_states:
            state = type(state)(*(torch.stack(field) for field in zip(*states, strict=True)))
        return torch.stack(spikes), state

    def step(self, x: Tensor, state: Any) -> Any:
        """One step of the cell on the input and on what the layer fired before."""
        current = self.input(x)
        rest = torch.zeros_like(current, dtype=self.recurrent.weight.dtype)  # the currents may be wide integers
        return self.cell(current + self.recurrent(rest if state is None else state.z), state)
