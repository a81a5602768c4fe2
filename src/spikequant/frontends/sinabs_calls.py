"""How sinabs calls its layers: ``[N, T, ...]`` or squeezed ``[N * T, ...]``, state inside until `reset_states`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikequant.frontends.cell import CellReading
from spikequant.frontends.library import check_axes
from spikequant.law.errors import Unsupported
from spikequant.nn import Dialect, NeuronLayer

FACTS = (
    "spike_fn", "reset_fn", "surrogate_grad_fn", "train_alphas", "norm_input", "record_states", "batch_size",
    "num_timesteps",
)  # fmt: skip
STATES = {"v_mem": "v", "i_syn": "i"}


def _of_cell(name: str) -> property:
    """A parameter of the layer that was read; None where it had none."""
    return property(lambda layer: getattr(layer.cell, name, None))


def _reset_states(layer: Any, randomize: bool = False, value_ranges: Any = None) -> None:
    """Put a layer to rest."""
    if randomize:
        raise Unsupported("reset_states(randomize=True): an integer network starts from rest; leave it out")
    (layer.reset if isinstance(layer, NeuronLayer) else layer.put_to_rest)()


def _zero_grad(layer: Any, set_to_none: bool = True) -> None:
    """Drop the gradients of the parameters, and the graph behind the states."""
    nn.Module.zero_grad(layer, set_to_none)
    (layer if isinstance(layer, NeuronLayer) else layer.cell).map_state(torch.Tensor.detach)


def _deepcopy(layer: Any, memo: dict[int, Any]) -> Any:
    """As any module; sinabs would build the layer anew."""
    made: Any = object.__new__(type(layer))
    memo[id(layer)] = made
    made.__setstate__(copy.deepcopy(layer.__getstate__(), memo))
    return made


@dataclass(frozen=True)
class CellOfSinabs(Dialect):
    """The neurons inside: one tensor in, one out.  sinabs' resets look for layers without children."""

    members: ClassVar[dict[str, Any]] = {
        "reset_states": _reset_states,
        "zero_grad": _zero_grad,
        "is_state_initialised": lambda layer: layer.state is not None,
        "__deepcopy__": _deepcopy,
        "__repr__": nn.Module.__repr__,
    }

    def call(self, layer: NeuronLayer, *args: Any, **kwargs: Any) -> Any:
        """All steps of ``[T, N, ...]``."""
        return layer.advance(args[0])


class SinabsReading(CellReading):
    """A layer of sinabs around neurons that run over ``[T, N, ...]``.

    Attributes:
        recordings: with `record_states`, all states of the last call, ``[N, T, ...]``.
        last: what left the layer in the last call.
    """

    spike_threshold, min_v_mem = _of_cell("spike_threshold"), _of_cell("min_v_mem")
    tau_mem, tau_syn = _of_cell("tau_mem"), _of_cell("tau_syn")
    alpha_mem, alpha_syn = _of_cell("alpha_mem"), _of_cell("alpha_syn")
    record_states: bool
    batch_size: int
    num_timesteps: int

    def __init__(self, cell: NeuronLayer, source: Any) -> None:
        super().__init__(cell)
        self.__dict__.update({name: getattr(source, name) for name in FACTS if hasattr(source, name)})
        self.squeezed = hasattr(source, "num_timesteps")
        self.buffers_before = tuple(name for name, _ in source.named_buffers(recurse=False))
        self.recordings: dict[str, Tensor] = {}
        self.last: Tensor | None = None
        self.register_state_dict_post_hook(_add_states)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_drop_states)  # type: ignore[no-untyped-call]

    def forward(self, input_data: Tensor) -> Tensor:
        """Spikes in the layout of the input."""
        x = input_data
        if self.squeezed:
            x = x.reshape(self.batch_size, self.num_timesteps, *x.shape[1:])
        x = x.transpose(0, 1)
        if self.cell.state is None:
            check_axes(self.cell, x[0])
        elif self.cell.state["v"].shape != x.shape[1:]:
            self.cell.reset()
        left = self._recorded(x) if self.record_states else self.cell(x)
        left = left.transpose(0, 1)
        self.last = left.flatten(0, 1) if self.squeezed else left
        return self.last

    def _recorded(self, x: Tensor) -> Tensor:
        kept, seen = self.cell.watch, self.cell.watch if self.cell.watch is not None else []
        self.cell.watch, done = seen, len(seen)
        left: Tensor = self.cell(x)
        self.cell.watch = kept
        steps = [self.real_states(states) for states in seen[done:]]
        self.recordings = {name: torch.stack([s[name] for s in steps], 1) for name in steps[0]}
        return left

    def real_states(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """Stored states in the units and under the names of sinabs."""
        found = self.cell.in_real_units({law: states[law] for law in STATES.values() if law in states})
        if "i" in found and self.__dict__["norm_input"] and "leak" in self.cell.sources:
            given = getattr(self.cell, self.cell.sources["leak"].attributes[0])
            found["i"] = found["i"] / (1 - self.cell.real_value("leak").to(found["i"]).reshape(given.shape))
        return {name: found[law] for name, law in STATES.items() if law in found}

    def _state(self, name: str) -> Tensor:
        if self.cell.state is None:
            return torch.zeros(0)
        return self.real_states(self.cell.state)[name]

    @property
    def own_names(self) -> tuple[str, ...]:
        """The states in checkpoints of sinabs."""
        return self.buffers_before

    @property
    def v_mem(self) -> Tensor:
        """The membrane; empty at rest."""
        return self._state("v_mem")

    @property
    def i_syn(self) -> Tensor | None:
        """The synaptic current; None for a layer without one."""
        return self._state("i_syn") if "i_syn" in self.buffers_before else None

    @property
    def firing_rate(self) -> Tensor:
        """Spikes per neuron and step in the last call."""
        if self.last is None:
            raise AttributeError("firing_rate: the layer was not called yet")
        return self.last.mean()

    def is_state_initialised(self) -> bool:
        """Whether the layer holds a state."""
        return self.cell.state is not None

    reset_states, zero_grad, __deepcopy__ = _reset_states, _zero_grad, _deepcopy

    def put_to_rest(self) -> None:
        """Forget all states and records."""
        super().put_to_rest()
        self.last, self.recordings = None, {}

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)

    def __getstate__(self) -> dict[str, Any]:
        """Copies start from rest."""
        return {**self.__dict__, "last": None, "recordings": {}}


class SumPool(nn.AvgPool2d):
    """A pooling that sums.  As in sinabs, nothing is learned through a window whose sum is 0."""

    def forward(self, input: Tensor) -> Tensor:
        """The sum of each window."""
        pooled = super().forward(input)
        return torch.where(pooled != 0, pooled, pooled.detach()) if pooled.requires_grad else pooled


def _add_states(module: nn.Module, record: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Checkpoints of sinabs hold states; empty ones stand for rest."""
    assert isinstance(module, SinabsReading)
    for name in module.buffers_before:
        record[prefix + name] = torch.zeros(0)


def _drop_states(module: nn.Module, record: dict[str, Any], prefix: str, *_rest: Any) -> None:
    assert isinstance(module, SinabsReading)
    for name in module.buffers_before:
        record.pop(prefix + name, None)
