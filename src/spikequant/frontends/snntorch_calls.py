"""How snnTorch calls its neurons: states passed by hand or hidden, returned or not, reset by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikequant.frontends.library import check_axes
from spikequant.frontends.recurrent import RecurrentReading
from spikequant.nn import Dialect, NeuronLayer

ARGUMENTS = {"v": "mem", "i": "syn"}


def _membrane(state: str) -> property:
    """The attribute ``mem`` or ``syn``: what the layer stores, in real units; setting it starts from there."""

    def get(layer: NeuronLayer) -> Tensor:
        if layer.state is None:
            return torch.zeros(0)
        if state not in layer.answer:
            layer.answer = layer.in_real_units({n: code for n, code in layer.state.items() if n in ARGUMENTS})
        return layer.answer[state]

    def put(layer: NeuronLayer, value: Tensor) -> None:
        _take(layer, {state: value}, value)

    return property(get, put)


def _reset_mem(layer: NeuronLayer) -> Any:
    """Put the layer to rest; its states as zeros."""
    assert isinstance(layer.dialect, SnnCall)
    zeros = [torch.zeros_like(getattr(layer, ARGUMENTS[state])) for state in layer.dialect.states]
    layer.reset()
    return zeros[0] if len(zeros) == 1 else tuple(zeros)


@dataclass(frozen=True)
class SnnCall(Dialect):
    """``spk, mem = lif(x, mem)``, ``spk, syn, mem = lif(x, syn, mem)``, or ``spk = lif(x)`` with hidden states."""

    states: tuple[str, ...]
    """By the law's names, in the order of the arguments: ``("v",)`` or ``("i", "v")``."""
    init_hidden: bool
    gives_states: bool

    members: ClassVar[dict[str, Any]] = {
        "mem": _membrane("v"),
        "syn": _membrane("i"),
        "reset_mem": _reset_mem,
        "init_leaky": _reset_mem,
        "init_synaptic": _reset_mem,
        "init_lapicque": _reset_mem,
    }

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Input and given states; a state that was left out is None."""
        names = ("input_", *(ARGUMENTS[state] for state in self.states))
        given = dict(zip(names, args, strict=False)) | kwargs
        return given["input_"], {state: given.get(ARGUMENTS[state]) for state in self.states}

    def states_of(self, answer: Any) -> dict[str, Tensor]:
        """What follows the spikes in an answer."""
        return dict(zip(self.states, answer[1:], strict=True)) if isinstance(answer, tuple) else {}

    def enroll(self, layer: NeuronLayer) -> None:
        """SnnTorch resets the neurons of its own list."""
        if hasattr(layer, "instances"):  # not the cell of a recurrent layer
            layer.instances.append(layer)  # type: ignore[operator, union-attr]

    def call(self, layer: NeuronLayer, *args: Any, **kwargs: Any) -> Any:
        """One step."""
        x, given = self.split(args, kwargs)
        if self.init_hidden and any(state is not None for state in given.values()):
            raise TypeError("states should not be passed as arguments while `init_hidden=True`")
        _take(layer, given, x)
        spikes = layer.advance(x)
        if not self.gives_states:
            layer.answer = {}
            return spikes
        assert layer.state is not None
        layer.answer = layer.in_real_units({state: layer.state[state] for state in self.states})
        return (spikes, *(layer.answer[state] for state in self.states))


class SnnRecurrent(RecurrentReading):
    """``spk, mem = lif(x, spk, mem)`` of `RLeaky`, ``spk, syn, mem = lif(x, spk, syn, mem)`` of `RSynaptic`."""

    init_hidden: bool
    output: bool

    def forward(self, input_: Tensor, spk: Tensor | None = None, *states: Tensor | None, **named: Tensor | None) -> Any:
        """One step."""
        dialect = self.cell.dialect
        assert isinstance(dialect, SnnCall)
        names = [ARGUMENTS[state] for state in dialect.states]
        given = {**dict(zip(names, states, strict=False)), **named}
        if self.init_hidden and any(state is not None for state in (spk, *given.values())):
            raise TypeError("states should not be passed as arguments while `init_hidden=True`")
        answer = self.step(input_, self.spikes if spk is None else spk, **given)
        return answer if self.output or not self.init_hidden else answer[0]

    @property
    def spk(self) -> Tensor:
        """What left the layer in the step before."""
        return torch.zeros(0) if self.spikes is None else self.spikes

    @spk.setter
    def spk(self, value: Tensor) -> None:
        self.spikes = value

    @property
    def mem(self) -> Tensor:
        """The stored membrane."""
        return self.cell.mem  # type: ignore[return-value]

    @mem.setter
    def mem(self, value: Tensor) -> None:
        self.cell.mem = value

    @property
    def syn(self) -> Tensor:
        """The stored current."""
        return self.cell.syn  # type: ignore[return-value]

    @syn.setter
    def syn(self, value: Tensor) -> None:
        self.cell.syn = value

    def reset_mem(self) -> tuple[Tensor, ...]:
        """Put the layer to rest; spikes and states as zeros."""
        spikes, zeros = torch.zeros_like(self.spk), self.cell.reset_mem()  # type: ignore[operator]
        self.put_to_rest()
        return (spikes, *zeros) if isinstance(zeros, tuple) else (spikes, zeros)

    init_rleaky = init_rsynaptic = reset_mem

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is in snnTorch's list, too."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.instances.append(self)  # type: ignore[operator, union-attr]


def _take(layer: NeuronLayer, given: dict[str, Tensor | None], x: Tensor) -> None:
    """Set the layer to the states that the caller passes; its own last ones go on exactly as stored."""
    if layer.state is None:
        check_axes(layer, x)
    elif layer.state["v"].shape != x.shape:
        layer.reset()  # snnTorch starts anew on another shape
    passed: dict[str, Tensor] = {
        name: state for name, state in given.items() if state is not None and state.shape == x.shape
    }
    if any(state is not None for state in given.values()) and not passed:
        layer.reset()
    own, now = layer.answer, layer.state
    if now is not None and own and now["v"].requires_grad and not any(s.requires_grad for s in own.values()):
        layer.map_state(torch.Tensor.detach)  # the caller detached what the layer gave
    if not passed or all(state is own.get(name) for name, state in passed.items()):
        return
    if not any(bool(torch.any(state != 0)) for state in passed.values()) and len(passed) == len(given):
        layer.reset()
    elif all(name in own and torch.equal(state, own[name]) for name, state in passed.items()):
        layer.map_state(torch.Tensor.clone if any(s.requires_grad for s in passed.values()) else torch.Tensor.detach)
    else:
        states = dict(layer.in_real_units(now)) if now is not None else {}
        for name in layer.neuron_spec.state_formats():
            if name in ARGUMENTS and name not in states:
                states[name] = torch.zeros_like(x, dtype=torch.float32)
        states.update(passed)
        layer.start_from(states)
