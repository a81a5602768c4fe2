"""What a layer of real neurons and its quantized twin share: values, state, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError, Unsupported
from spikequant.law.spec import NeuronSpec
from spikequant.nn.dialect import Dialect, ValueSource, blank
from spikequant.nn.loop import States
from spikequant.nn.surrogate import Surrogate

REAL_VALUES = (
    "threshold",
    "reset_by",
    "reset_to",
    "leak",
    "leak2",
    "leak_i",
    "leak_a",
    "adapt",
    "floor",
    "gain",
    "v_bias",
)


class NeuronLayer(nn.Module):
    """A layer of neurons.

    Attributes:
        sources: the values of the law by name, and the tensors of this layer they come from.
        state: stored codes of single-step mode; None at rest.
        spike_unit: real value of one spike.
        carries: whether multi-step calls, too, go on from the state that the last one left, until `reset`.
        dialect: how the layer is called, where it came from another library.
        told: plain attributes of the layer that was read, for users who look at them.
        watch: a list that collects every new state, or None.
        kernel: what the last call ran on (`nn/kernels.py`).
    """

    def __init__(
        self,
        sources: Mapping[str, ValueSource],
        *,
        step_mode: str = "m",
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        spike_unit: float = 1.0,
        carries: bool = False,
    ) -> None:
        super().__init__()
        if step_mode not in ("m", "s"):
            raise Unsupported(f"step_mode {step_mode!r}; expected 'm' (multi-step, [T, N, ...]) or 's' (single-step)")
        unknown = sorted(set(sources) - set(REAL_VALUES))
        if unknown:
            raise Unsupported(f"neuron: unknown value {unknown[0]!r}; expected some of {', '.join(REAL_VALUES)}")
        self.sources = {name: sources[name] for name in REAL_VALUES if name in sources}
        self.step_mode = step_mode
        self.surrogate = surrogate if surrogate is not None else Surrogate()
        self.detach_reset, self.spike_unit, self.carries = detach_reset, spike_unit, carries
        self.dialect: Dialect | None = None
        self.own_class: type = type(self)
        self.foreign_class: type[nn.Module] | None = None
        self.told: dict[str, Any] = {}
        self.state: States | None = None
        self.answer: dict[str, Tensor] = {}
        self.steps_done = 0
        self.watch: list[States] | None = None
        self.kernel = ""

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the layer's values."""
        return tuple(self.sources)

    @property
    def neuron_spec(self) -> NeuronSpec:
        """What the neuron is, over real numbers."""
        raise NotImplementedError

    @property
    def compares(self) -> int:
        """How many comparisons of one step share one surrogate."""
        return self.neuron_spec.spikes_max if self.surrogate.whole else 1

    def real_value(self, name: str) -> Tensor:
        """A value of the neuron in real units."""
        return self.sources[name].of(self)

    # -- running -----------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Spikes (or the membrane of a readout) for the input currents; a read layer answers its library's call."""
        if self.dialect is None:
            return self.advance(*args, **kwargs)
        return self.dialect.call(self, *args, **kwargs)

    def advance(self, x: Tensor) -> Tensor:
        """``[T, N, *shape]`` in multi-step mode, one step of ``[N, *shape]`` in single-step mode."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the state."""
        self.state, self.steps_done, self.answer = None, 0, {}

    def in_real_units(self, states: States) -> States:
        """Stored states as real numbers."""
        raise NotImplementedError

    def stored(self, states: States) -> States:
        """Real states as this layer stores them."""
        raise NotImplementedError

    def start_from(self, states: States) -> None:
        """Go on from real states (``v``, ``i``); a stored spike is where ``v`` passed the threshold."""
        kept = self.stored(states)
        if self.neuron_spec.stores_spike:
            v, theta = states["v"], self.real_value("threshold").to(states["v"])
            kept["s"] = (v > theta if self.neuron_spec.compare == ">" else v >= theta).to(v.dtype)
        self.state = kept

    def map_state(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply a function (``detach``, a move to a device) to every stored state."""
        if self.state is not None:
            self.state = {name: change(value) for name, value in self.state.items()}
            self.answer = {}

    def check_features(self, x: Tensor) -> int:
        """Feature axes of an input."""
        features = x.dim() - (2 if self.step_mode == "m" else 1)
        if features < 1:
            wanted = "[T, N, ...]" if self.step_mode == "m" else "[N, ...]"
            raise DataError(f"a neuron layer in step_mode {self.step_mode!r} takes {wanted}, got {tuple(x.shape)}")
        return features

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NeuronLayer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.map_state(fn)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies start from rest: a state may hold a graph that cannot be copied."""
        return {**self.__dict__, "state": None, "answer": {}, "steps_done": 0, "watch": None}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A layer that is of a foreign class, too, is made anew from both: their join has no name to be found by."""
        if self.foreign_class is None:
            return super().__reduce_ex__(protocol)
        return blank, (self.own_class, self.foreign_class, type(self.dialect)), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of a read layer is as known to its library as the layer itself."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.dialect is not None:
            self.dialect.enroll(self)
