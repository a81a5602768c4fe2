"""How SpikingJelly calls its neurons: one tensor in, one out; state inside, in both step modes, until reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikequant.nn import Dialect, NeuronLayer


def _call_of(layer: NeuronLayer) -> SpikingJellyCall:
    assert isinstance(layer.dialect, SpikingJellyCall)
    return layer.dialect


def _fact(name: str) -> property:
    """An attribute of the original that the reading was made from; it can be read, and no longer be changed."""

    def get(layer: NeuronLayer) -> Any:
        call = _call_of(layer)
        facts = {**dict(call.facts), "v_threshold": call.v_threshold, "v_reset": call.v_reset,
                 "surrogate_function": call.surrogate_function}  # fmt: skip
        if name not in facts:
            raise AttributeError(f"{type(layer).__name__} has no attribute {name!r}")
        return facts[name]

    def put(layer: NeuronLayer, value: object) -> None:
        raise AttributeError(f"{name} was read into the neuron's spec; set it before spikequant reads the model")

    return property(get, put)


def _get_v(layer: NeuronLayer) -> Tensor | float:
    """The membrane as SpikingJelly would hold it: a number before the first step."""
    call = _call_of(layer)
    if layer.state is None:
        return call.v_reset if call.v_reset is not None and call.offset else 0.0
    return layer.in_real_units({"v": layer.state["v"]})["v"] + call.offset


def _put_v(layer: NeuronLayer, value: Tensor | float) -> None:
    if not isinstance(value, Tensor):
        if float(value) != _call_of(layer).offset:
            raise AttributeError(f"v can be set to a tensor, or to the number at rest, {_call_of(layer).offset:g}")
        layer.reset()
        return
    given = {"v": value - _call_of(layer).offset}
    for name in layer.neuron_spec.state_formats():
        given.setdefault(name, torch.zeros_like(value))
    layer.start_from(given)


def _get_step_mode(layer: NeuronLayer) -> str:
    mode: str = layer.__dict__["step_mode"]
    return mode


def _put_step_mode(layer: NeuronLayer, mode: str) -> None:
    if mode not in ("s", "m"):
        raise ValueError(f'step_mode can only be "s" or "m", but got "{mode}"!')
    layer.__dict__["step_mode"] = mode


def _get_store(layer: NeuronLayer) -> bool:
    return bool(layer.__dict__.get("store_v_seq", False))


def _put_store(layer: NeuronLayer, value: bool) -> None:
    layer.__dict__["store_v_seq"], layer.__dict__["v_seq"] = bool(value), None


def _detach(layer: NeuronLayer) -> None:
    """Cut the gradient through time (`functional.detach_net`)."""
    layer.map_state(torch.Tensor.detach)
    if isinstance(layer.__dict__.get("v_seq"), Tensor):
        layer.__dict__["v_seq"] = layer.__dict__["v_seq"].detach()


def _reset(layer: NeuronLayer) -> None:
    NeuronLayer.reset(layer)
    layer.__dict__["v_seq"] = None


def _named_memories(layer: Any) -> Iterator[tuple[str, Tensor | float]]:
    yield "v", layer.v


def _memories(layer: Any) -> Iterator[Tensor | float]:
    yield layer.v


def _apply(layer: NeuronLayer, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NeuronLayer:
    """The library's own takes no `recurse`."""
    nn.Module._apply(layer, fn, recurse)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.map_state(fn)
    return layer


@dataclass(frozen=True)
class SpikingJellyCall(Dialect):
    """``spikes = node(x)``, ``[N, ...]`` in step mode ``"s"`` and ``[T, N, ...]`` in ``"m"``.

    The state goes on from call to call in both modes; an input of another shape starts from rest.

    Attributes:
        v_threshold, v_reset: of the original.
        offset: what SpikingJelly's membrane is above that of the reading.
        facts: further attributes of the original (``tau``, ``decay_input``, ...).
    """

    v_threshold: float
    v_reset: float | None
    offset: float
    facts: tuple[tuple[str, Any], ...]
    surrogate_function: Any

    members: ClassVar[dict[str, Any]] = {
        **{n: _fact(n) for n in ("v_threshold", "v_reset", "tau", "decay_input", "c_decay", "v_decay",
                                 "surrogate_function")},
        "v": property(_get_v, _put_v),
        "step_mode": property(_get_step_mode, _put_step_mode),
        "store_v_seq": property(_get_store, _put_store),
        "v_seq": property(lambda layer: layer.__dict__.get("v_seq")),
        "detach": _detach,
        "reset": _reset,
        "memories": _memories,
        "named_memories": _named_memories,
        "_apply": _apply,
        "_replicate_for_data_parallel": nn.Module._replicate_for_data_parallel,
        "__delattr__": nn.Module.__delattr__,
        "__dir__": nn.Module.__dir__,
    }  # fmt: skip

    def call(self, layer: NeuronLayer, *args: Any, **kwargs: Any) -> Any:
        """Spikes of one step, or of all steps."""
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        one = x[0] if layer.step_mode == "m" else x
        if layer.state is not None and layer.state["v"].shape != one.shape:
            layer.reset()
        if not _get_store(layer):
            return layer.advance(x)
        kept, seen = layer.watch, layer.watch if layer.watch is not None else []
        layer.watch, done = seen, len(seen)
        spikes = layer.advance(x)
        layer.watch = kept
        self._store(layer, torch.stack([layer.in_real_units({"v": s["v"]})["v"] + self.offset for s in seen[done:]]))
        return spikes

    def _store(self, layer: NeuronLayer, membranes: Tensor) -> None:
        """`v_seq`: of this call in step mode ``"m"``, of all steps since the reset in ``"s"``."""
        before = layer.__dict__.get("v_seq")
        goes_on = layer.step_mode == "s" and isinstance(before, Tensor) and before.shape[1:] == membranes.shape[1:]
        layer.__dict__["v_seq"] = torch.cat([before, membranes]) if goes_on else membranes  # type: ignore[list-item]
