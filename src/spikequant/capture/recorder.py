"""Recorded execution: what a forward pass called, on which tensors, from which line.

The model runs once.  Modules of known types are atoms: their calls are recorded, not what
happens inside.  Everything else that touches a recorded tensor is an operation with a call
site (file, line, bytecode offset), so that a user's own loop over time can be folded.
A value that leaves the tensor world (``if spikes.sum() > 3``) is refused with its line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikequant.capture.known import check_forward
from spikequant.law.errors import CaptureError
from spikequant.nn import NeuronLayer

LEAVES_TENSORS = {
    "item", "__bool__", "__int__", "__float__", "__index__", "tolist", "numpy", "nonzero", "__len__",
    "unique", "__contains__", "__array__", "equal", "allclose", "is_nonzero",
}  # fmt: skip
HARMLESS = {
    "size", "dim", "numel", "__get__", "stride", "is_contiguous", "contiguous", "detach", "clone", "to", "float",
    "requires_grad_", "type", "double", "cpu", "is_floating_point", "zeros_like", "ones_like", "new_zeros",
    "__repr__", "is_complex", "data_ptr", "backward", "register_hook", "retain_grad", "__hash__", "element_size",
}  # fmt: skip
_PACKAGE = Path(__file__).parents[1]
NOT_THE_USERS = (
    *(f"{_PACKAGE / unit}{os.sep}" for unit in ("capture", "quantize", "nn")),
    f"{Path(torch.__file__).parent}{os.sep}",
    "<frozen",
)
"""Files whose frames are no part of a call site: this package's own, torch's, and the interpreter's."""
PASSES_THROUGH = {"contiguous", "detach", "clone", "to", "float", "type", "cpu"}


@dataclass(frozen=True)
class Site:
    """Where a call was made: the frames of the user's code down to the call."""

    frames: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        if not self.frames:
            return "an unknown line"
        file, line, _ = self.frames[-1]
        return f"{file}:{line}"


@dataclass
class Event:
    """One recorded call; `inputs` are value numbers, or raw constants."""

    kind: str
    """``module``, ``op``, ``alias``, or ``state`` (a stored state that a neuron gives besides its spikes)"""
    name: str
    """Module path or function name."""
    site: Site
    after: str
    """Path of the last module that was called before: tells apart passes of a loop over layers."""
    inputs: list[Any]
    outputs: list[int]
    constants: dict[str, Any] = field(default_factory=dict)
    scope: str = ""
    """Path of the innermost module around an operation: tells apart two modules of one class."""


@dataclass
class Recording:
    """All events of one forward pass and the tensors behind the value numbers."""

    events: list[Event]
    values: list[Tensor]
    input_value: int
    output_values: list[int]
    modules: dict[str, nn.Module]


@dataclass(frozen=True)
class Value:
    """A recorded tensor among the arguments of an event."""

    number: int


class Recorder(TorchFunctionMode):
    """Collects events while the model runs."""

    def __init__(self, model: nn.Module, atoms: dict[nn.Module, str]) -> None:
        super().__init__()
        self.atoms, self.inside = atoms, 0
        self.numbers: dict[int, int] = {}
        self.values: list[Tensor] = []
        self.kept: list[Any] = []
        self.events: list[Event] = []
        self.last_module = ""
        self.paths = {m: path for path, m in model.named_modules()}
        self.scopes: list[str] = []
        self.own_states: dict[tuple[str, str], Tensor] = {}

    def number(self, tensor: Tensor) -> int:
        """Give a tensor a new value number (an in-place operation makes a new value of the same tensor)."""
        self.values.append(tensor)
        self.kept.append(tensor)
        self.numbers[id(tensor)] = len(self.values) - 1
        return len(self.values) - 1

    def known(self, thing: Any) -> Any:
        """`thing` with recorded tensors replaced by their numbers, in nested lists and tuples."""
        if isinstance(thing, Tensor):
            return Value(self.numbers[id(thing)]) if id(thing) in self.numbers else thing
        if isinstance(thing, (list, tuple)):
            return [self.known(item) for item in thing]
        return thing

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        inputs = self.known(list(args))
        constants = {k: self.known(v) for k, v in kwargs.items()}
        touched = _has_value(inputs) or _has_value(list(constants.values()))
        if touched and name in LEAVES_TENSORS and not (name == "__len__"):
            raise CaptureError(
                f"{call_site()}: {name} turns recorded values into a Python value, so that the graph depends on the "
                "data; keep the computation in tensors, or call it on a constant"
            )
        if touched and name.endswith("_"):  # it overwrites its first argument, whose value before the call counts
            inputs = [thing.clone() if isinstance(thing, Tensor) else thing for thing in inputs]
        result = func(*args, **kwargs)
        if not touched or (name in HARMLESS and name not in PASSES_THROUGH):
            return result
        if name in PASSES_THROUGH:
            if isinstance(result, Tensor) and isinstance(inputs[0], Value):
                self.kept.append(result)
                self.numbers[id(result)] = inputs[0].number
            return result
        tensors = [r for r in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(r, Tensor)]
        if tensors:
            outputs = [self.number(t) for t in tensors]
            scope = self.scopes[-1] if self.scopes else ""
            self.events.append(Event("op", name, call_site(), self.last_module, inputs, outputs, constants, scope))
        return result

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A module is about to run."""
        if self.inside:
            self.inside += 1
        elif module in self.atoms:
            check_forward(self.atoms[module], module)
            self.inside = 1
        else:
            self.scopes.append(self.paths.get(module, ""))

    def leave(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        """A module has run."""
        if not self.inside:
            self.scopes.pop()
            return
        self.inside -= 1
        if self.inside:
            return
        path = self.atoms[module]
        states: dict[str, Tensor] = {}
        if isinstance(module, NeuronLayer) and module.dialect is not None:
            x, given = module.dialect.split(arguments, named)
            self.check_states(path, given)
            arguments, states = (x,), module.dialect.states_of(result)
        inputs = self.known([*arguments, *(named.values() if not states else ())])
        output = result[0] if isinstance(result, tuple) else result
        if isinstance(output, Tensor) and id(output) in self.numbers and not _is_stateful(module):
            self.last_module = path
            self.events.append(Event("alias", path, call_site(), path, inputs, [self.numbers[id(output)]]))
            return
        event = Event("module", path, call_site(), self.last_module, inputs, [self.number(output)])
        self.events.append(event)
        self.last_module = path
        for name, state in states.items():
            self.own_states[path, name] = state
            self.events.append(
                Event("state", f"{path}:{name}", event.site, path, [Value(event.outputs[0])], [self.number(state)])
            )

    def check_states(self, path: str, given: dict[str, Any]) -> None:
        """A state that the caller passes must be the one that the layer gave before, or zeros before the first step."""
        for name, state in given.items():
            own = self.own_states.get((path, name))
            if own is None:
                fine = state is None or (id(state) not in self.numbers and not bool(torch.any(state != 0)))
            else:
                fine = state is None or self.numbers.get(id(state)) == self.numbers[id(own)]
            if not fine:
                what = "not zeros" if own is None else "not the one that it gave in the step before"
                raise CaptureError(
                    f"{call_site()}: {path}: is given a state {name!r} that is {what}; "
                    "an integer network starts from rest and keeps its own states"
                )


def _is_stateful(module: nn.Module) -> bool:
    return hasattr(module, "step_mode")


def _has_value(things: Any) -> bool:
    if isinstance(things, Value):
        return True
    return isinstance(things, (list, tuple)) and any(_has_value(item) for item in things)


def call_site() -> Site:
    """The user's frames: those outside torch and outside this package."""
    frames = []
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(NOT_THE_USERS):
            frames.append((file, frame.f_lineno, frame.f_lasti))
        elif frame.f_code.co_name == "record":
            break
        frame = frame.f_back  # type: ignore[assignment]
    return Site(tuple(reversed(frames)))


@contextmanager
def _hooks(recorder: Recorder) -> Iterator[None]:
    pre = nn.modules.module.register_module_forward_pre_hook(recorder.enter)
    post = nn.modules.module.register_module_forward_hook(recorder.leave, with_kwargs=True)
    try:
        yield
    finally:
        pre.remove()
        post.remove()


def record(model: nn.Module, example_input: Tensor, atom_types: tuple[type[nn.Module], ...]) -> Recording:
    """Run ``model(example_input)`` once in evaluation mode, without gradients, and record it."""
    atoms: dict[nn.Module, str] = {m: path for path, m in model.named_modules() if isinstance(m, atom_types)}
    recorder = Recorder(model, atoms)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    first = recorder.number(example_input)
    try:
        with torch.no_grad(), _hooks(recorder), recorder:
            result = model(example_input)
    finally:
        for module, mode in modes:
            module.training = mode
    outputs = [
        recorder.numbers[id(t)]
        for t in (result if isinstance(result, (list, tuple)) else [result])
        if isinstance(t, Tensor) and id(t) in recorder.numbers
    ]
    if not outputs:
        raise CaptureError(
            f"{type(model).__name__}: its output does not come from its input through recorded operations"
        )
    modules = {path: m for m, path in atoms.items()}
    return Recording(_used(recorder.events, outputs), recorder.values, first, outputs, modules)


def _used(events: list[Event], outputs: list[int]) -> list[Event]:
    """The events without operations whose result nothing reads, such as the ``x[0]`` of ``x[0].numel()``."""
    read, kept = set(outputs), []
    all_read = set(_numbers([[e.inputs, list(e.constants.values())] for e in events])) | read
    states = {e.name for e in events if e.kind == "state" and all_read.intersection(e.outputs)}
    for event in reversed(events):
        if event.kind == "op" and not read.intersection(event.outputs):
            continue
        if event.kind == "state" and event.name not in states:
            continue
        read |= set(_numbers([event.inputs, list(event.constants.values())]))
        kept.append(event)
    return kept[::-1]


def _numbers(things: Any) -> Iterator[int]:
    for thing in things:
        if isinstance(thing, Value):
            yield thing.number
        elif isinstance(thing, list):
            yield from _numbers(thing)
