"""Fold a recording over time: T calls from one place become one node with delays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikequant.capture.recorder import Event, Recording, Value
from spikequant.law.errors import CaptureError

INPUT = "input"


@dataclass(frozen=True)
class Operand:
    """One argument of a folded call: the value of a node `delay` steps ago, all steps of it, or a constant."""

    key: str | None
    delay: int = 0
    constant: Any = None
    all_steps: bool = False
    last_step: bool = False
    starts_with: str | None = None


@dataclass
class Call:
    """All calls from one place: one per step, or one in all."""

    key: str
    event: Event
    per_step: bool
    operands: list[Any] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    yields_steps: bool = False


@dataclass(frozen=True)
class Folded:
    """The calls by key in order of their first occurrence, and where the result comes from."""

    calls: dict[str, Call]
    steps: int
    result: Operand
    looped: bool
    input_shape: tuple[int, ...]


def count_steps(recording: Recording, is_neuron: Callable[[str], bool]) -> tuple[int, bool]:
    """Number of time steps, and whether the model steps itself (single-step neurons)."""
    calls = Counter(e.name for e in recording.events if e.kind == "module" and is_neuron(e.name))
    if not calls:
        raise CaptureError(
            "no spiking neuron module was called; expected spikequant.nn neurons (LIF, IF, ...) in the model"
        )
    single = {p for p in calls if recording.modules[p].step_mode == "s"}
    multi = set(calls) - single
    for path in multi:
        if calls[path] > 1:
            raise CaptureError(
                f"{_calls(recording, path)[1].site}: {path}: a multi-step neuron was called {calls[path]} times in one "
                "pass; give each place its own module, or use step_mode='s' in a loop over time"
            )
    found = {p: calls[p] if p in single else _steps_of(recording, p) for p in calls}
    if len(set(found.values())) != 1:
        parts = ", ".join(f"{p} {steps} ({_calls(recording, p)[0].site})" for p, steps in found.items())
        raise CaptureError(f"the neurons disagree on the number of time steps: {parts}; expected one number")
    return next(iter(found.values())), bool(single)


def _calls(recording: Recording, path: str) -> list[Event]:
    return [e for e in recording.events if e.kind == "module" and e.name == path]


def _steps_of(recording: Recording, path: str) -> int:
    """Steps that a multi-step neuron was given."""
    call = _calls(recording, path)[0]
    if not call.inputs or not isinstance(call.inputs[0], Value):
        raise CaptureError(f"{call.site}: {path}: is fed by a constant; expected a recorded value")
    return recording.values[call.inputs[0].number].shape[0]


def fold(recording: Recording, is_neuron: Callable[[str], bool]) -> Folded:
    """Group the events of a recording into calls over `T` steps."""
    steps, looped = count_steps(recording, is_neuron)
    keys = _keys(recording.events, steps, looped)
    produced: dict[int, tuple[str, int, int]] = {recording.input_value: (INPUT, 0, 1)}
    groups: dict[str, list[Event]] = {}
    for event, key in zip(recording.events, keys, strict=True):
        if event.kind != "alias":
            groups.setdefault(key, []).append(event)
    calls: dict[str, Call] = {}
    for key, events in groups.items():
        first_step = _first_step(key, events, steps)
        call = Call(key, events[0], per_step=len(events) > 1 or (looped and steps == 1))
        call.shape = tuple(recording.values[events[0].outputs[0]].shape)
        call.yields_steps = events[0].kind == "op" and len(events) == 1 and len(events[0].outputs) == steps > 1
        for k, event in enumerate(events):
            for j, number in enumerate(event.outputs):
                produced[number] = (key, j if call.yields_steps else k + first_step, len(events))
        calls[key] = call
    for key, call in calls.items():
        call.operands = _operands(call, groups[key], steps, produced, recording)
    result = _result_operand(recording, produced, calls, steps)
    return Folded(calls, steps, result, looped, tuple(recording.values[recording.input_value].shape))


def _keys(events: Sequence[Event], steps: int, looped: bool) -> list[str]:
    """Names of the places: a module's path, an operation's line (told apart by the modules around and before it)."""
    plain = [
        e.name if e.kind != "op" else f"{e.name.rstrip('_')}@{e.site}#{hash((e.site, e.scope)) & 0xFFFFFF:06x}"
        for e in events
    ]
    before: dict[str, list[str]] = {}
    for name, event in zip(plain, events, strict=True):
        before.setdefault(name, []).append(event.after)
    return [
        name if e.kind != "op" or _is_over_time(before[name], steps, looped) else f"{name}/{e.after}"
        for name, e in zip(plain, events, strict=True)
    ]


def _is_over_time(before: list[str], steps: int, looped: bool) -> bool:
    """Whether one line ran in a loop over time, not over layers: then the same module came before it in every step."""
    if len(before) == 1:
        return True
    if len(before) not in (steps, steps - 1):
        return False
    return looped if len(before) == 2 else len(set(before[1:])) == 1


def _first_step(key: str, events: list[Event], steps: int) -> int:
    """0 for calls on every step, 1 for accumulations that begin with the second; raises otherwise."""
    if len(events) in (1, steps):
        return 0
    if len(events) == steps - 1 and events[0].kind == "op":
        return 1
    why = "a shared layer needs a module per use"
    if len(events) == steps - 1:
        why = "begin with a state of zeros instead of leaving the layer out of the first step"
    raise CaptureError(
        f"{events[0].site}: {events[0].name} ran {len(events)} times in {steps} time steps; "
        f"expected once, or once per step ({why})"
    )


def _operands(
    call: Call, events: list[Event], steps: int, produced: dict[int, tuple[str, int, int]], recording: Recording
) -> list[Any]:
    first_step = 1 if len(events) == steps - 1 and steps > 2 and len(events) > 1 else 0
    flat = [_flatten(e.inputs) for e in events]
    if len({len(f) for f in flat}) != 1:
        raise CaptureError(
            f"{events[0].site}: {events[0].name} takes a different number of arguments from step to step"
        )
    if len(events) == 1 and not call.per_step:
        return _single_operands(events[0], steps, produced)
    return [
        _operand(call, [row[j] for row in flat], first_step, produced, recording, events[0])
        for j in range(len(flat[0]))
    ]


def _flatten(things: Sequence[Any]) -> list[Any]:
    out: list[Any] = []
    for thing in things:
        out.extend(_flatten(thing) if isinstance(thing, list) else [thing])
    return out


def _operand(
    call: Call,
    column: list[Any],
    first_step: int,
    produced: dict[int, tuple[str, int, int]],
    recording: Recording,
    event: Event,
) -> Operand:
    """One argument over all steps of a call: a delayed value, a static value, a running index, or a constant."""
    found = [(k + first_step, *produced[v.number]) for k, v in enumerate(column) if isinstance(v, Value)]
    if not found:
        return _constant(column, event)
    sources = {key for _, key, _, _ in found}
    start = None
    if len(sources) == 2 and found[0][1] != found[-1][1]:  # an accumulation that starts with another value
        start, found = found[0][1], found[1:]
    elif len(sources) != 1:
        raise CaptureError(f"{event.site}: an argument of {event.name} comes from different places: {sorted(sources)}")
    key = found[0][1]
    if all(count == 1 for *_, count in found) and not _steps_apart(found):
        return Operand(key)
    delays = {t - t_source for t, _, t_source, _ in found}
    if len(delays) != 1 or min(delays) < 0:
        raise CaptureError(
            f"{event.site}: {event.name} reads {key} with changing delays {sorted(delays)}; expected one"
        )
    delay = delays.pop()
    missing = [v for v in column[: len(column) - len(found)] if not isinstance(v, Value)]
    if start is None and not all(_is_zero(v) for v in missing):
        raise CaptureError(
            f"{event.site}: {event.name} starts from values that are not 0; expected a zero initial state"
        )
    return Operand(key, delay, starts_with=start)


def _steps_apart(found: list[tuple[int, str, int, int]]) -> bool:
    return len({t_source for _, _, t_source, _ in found}) > 1


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not bool(torch.any(value != 0))
    return value is None or value == 0


def _constant(column: list[Any], event: Event) -> Operand:
    if len(column) > 1 and all(type(v) is int for v in column) and column == list(range(len(column))):
        return Operand(None, constant="step")
    first = column[0]
    if isinstance(first, Tensor):
        if all(isinstance(v, Tensor) and v.shape == first.shape and torch.equal(v, first) for v in column):
            return Operand(None, constant=first)
    elif all(type(v) is type(first) and v == first for v in column):
        return Operand(None, constant=first)
    raise CaptureError(f"{event.site}: an argument of {event.name} changes from step to step; expected one constant")


def _single_operands(event: Event, steps: int, produced: dict[int, tuple[str, int, int]]) -> list[Any]:
    """Arguments of a call that happened once: a list of all steps of one value becomes one operand."""
    operands: list[Any] = []
    for thing in event.inputs:
        if isinstance(thing, list) and thing and all(isinstance(v, Value) for v in thing):
            sources = [produced[v.number] for v in thing]
            same = {key for key, _, _ in sources}
            if len(same) == 1 and len(thing) == steps and len({t for _, t, _ in sources}) in (1, steps):
                operands.append(Operand(same.pop(), all_steps=True))
            else:
                operands.extend(_last(s, steps) for s in sources)
        else:
            operands.extend(
                _last(produced[v.number], steps) if isinstance(v, Value) else Operand(None, constant=v)
                for v in _flatten([thing])
            )
    return operands


def _last(source: tuple[str, int, int], steps: int) -> Operand:
    key, t, count = source
    if count == 1:
        return Operand(key)
    if t != steps - 1:
        raise CaptureError(f"the value of {key} at step {t} leaves the loop; expected all steps of it, or the last one")
    return Operand(key, last_step=True)


def _result_operand(
    recording: Recording, produced: dict[int, tuple[str, int, int]], calls: dict[str, Call], steps: int
) -> Operand:
    numbers = recording.output_values
    sources = [produced[n] for n in numbers]
    if len(numbers) == steps > 1 and len({key for key, _, _ in sources}) == 1:
        return Operand(sources[0][0], all_steps=True)
    key = sources[0][0]
    if calls[key].per_step and steps > 1:
        return _last(sources[0], steps)
    return Operand(key)
