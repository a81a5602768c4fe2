"""The gradients of a recorded step: reverse mode over its straight-line code, with the rules of `TorchOps`.

``shr`` passes ``2^-n``, ``clip`` passes where nothing was clipped, ``ge`` passes the surrogate in real units,
``where`` passes to the branch that was taken and, unless the reset is detached, to its condition; equal arguments of
``max`` share; ``const`` passes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spikequant.readers.kernels.body import Body, Line
from spikequant.readers.kernels.tape import Tape, Value

LSB = "lsb"


@dataclass(frozen=True)
class Wanted:
    """What gradients a kernel gives.

    Attributes:
        x: towards the input.
        params: towards which parameters; `LSB` is one of them.
        states: the last states leave the kernel, and gradients come back through them.
        detach_reset: no gradient through the spike that decides a ``where``.
    """

    x: bool
    params: frozenset[str]
    states: bool
    detach_reset: bool


@dataclass
class Adjoint:
    """Lines behind those of the step, and the expressions of the results.

    Attributes:
        lines: in order; they read ``GRAD(j)``, the gradient of the output, and ``g_NAME[j]``, that of a new state.
        x: gradient towards the input, None where nothing reaches it.
        states: towards the old states; those that nothing reaches are missing.
        params: what one step adds to the gradients of parameters.
    """

    lines: list[Line] = field(default_factory=list)
    x: str | None = None
    states: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


def adjoint(tape: Tape, body: Body, wanted: Wanted) -> Adjoint:
    """The gradients of one step.

    A state whose gradient is zero at every step (a refractory counter) is found by iteration and left out.
    """
    live = set(tape.states) if wanted.states else set()
    while True:
        found = _Reverse(tape, body, wanted, live).run()
        reached = live | set(found.states)
        if reached == live:
            return found
        live = reached


class _Reverse:
    """One pass backwards over a tape."""

    def __init__(self, tape: Tape, body: Body, wanted: Wanted, live: Iterable[str]) -> None:
        self.tape, self.body, self.wanted = tape, body, wanted
        self.parts: dict[int, list[str]] = {}
        self.carries: dict[int, bool] = {}
        self.result = Adjoint()
        for value in tape.values:
            self.carries[value.index] = self._moves(value)
        self.give(tape.output, "GRAD(j)")
        for name in sorted(live):
            self.give(tape.states[name], f"g_{name}[j]")

    def _moves(self, value: Value) -> bool:
        """Whether a gradient towards `value` is of use."""
        if value.word == "x":
            return self.wanted.x
        if value.word == "param":
            return value.name in self.wanted.params
        if value.word in ("detach", "number", "noise", "tick"):
            return False
        if value.word == "state":
            return True
        below = [self.carries.get(a.index, False) for a in value.args]
        if value.word == "ge":
            return bool(value.detail[0]) and (any(below) or LSB in self.wanted.params)
        if value.word == "shr":
            return below[0]
        return any(below[1:]) or (below[0] and not self.wanted.detach_reset) if value.word == "where" else any(below)

    def give(self, value: Value, text: str) -> None:
        """Add a part to the gradient of a value."""
        if self.carries[value.index]:
            self.parts.setdefault(value.index, []).append(text)

    def let(self, name: str, text: str) -> str:
        """A line of its own."""
        self.result.lines.append((name, text))
        return name

    def run(self) -> Adjoint:
        """Backwards from the results to the leaves."""
        for value in reversed(self.tape.values):
            parts = self.parts.get(value.index)
            if not parts:
                continue
            total = " + ".join(parts)
            if value.word == "x":
                self.result.x = self.let("d_x", total)
            elif value.word == "state":
                self.result.states[value.name] = self.let(f"d_state_{value.name}", total)
            elif value.word == "param":
                self.result.params[value.name] = self.let(f"d_param_{value.name}", total)
            else:
                self.pass_on(value, self.let(f"d{value.index}", total))
        lsb = self.parts.get(-1)
        if lsb:
            self.result.params[LSB] = self.let(f"d_param_{LSB}", " + ".join(lsb))
        return self.result

    def pass_on(self, value: Value, g: str) -> None:
        """Give the arguments of a word their share."""
        of, args = self.body.of, value.args
        if value.word == "add":
            self.give(args[0], g)
            self.give(args[1], g)
        elif value.word == "sub":
            self.give(args[0], g)
            self.give(args[1], f"(-{g})")
        elif value.word == "mul":
            self.give(args[0], f"{g} * {of(args[1])}")
            self.give(args[1], f"{g} * {of(args[0])}")
        elif value.word == "shr":
            self.give(args[0], f"{g} * {self.body.derived('FACTOR', args[1])}")
        elif value.word == "clip":
            self.give(args[0], f"SAME({of(args[0])}, {of(value)}, {g})")
        elif value.word == "max":
            self.give(args[0], f"{g} * LARGER({of(args[0])}, {of(args[1])})")
            self.give(args[1], f"{g} * LARGER({of(args[1])}, {of(args[0])})")
        elif value.word == "where":
            self._where(args, g)
        else:
            self._fire(value, g)

    def _where(self, args: tuple[Value, ...], g: str) -> None:
        of, (condition, a, b) = self.body.of, args
        self.give(a, f"SELECT({of(condition)}, {g}, NUM(0))")
        self.give(b, f"SELECT({of(condition)}, NUM(0), {g})")
        if not self.wanted.detach_reset:
            self.give(condition, f"{g} * ({of(a)} - {of(b)})")

    def _fire(self, value: Value, g: str) -> None:
        a, b, k = self.body.of(value.args[0]), self.body.of(value.args[1]), value.index
        difference = self.let(f"u{k}", f"{a} - {b}")
        local = self.let(f"l{k}", f"{g} * SURROGATE({difference} * p_{LSB}[j])")
        toward = self.let(f"w{k}", f"{local} * p_{LSB}[j]")
        self.give(value.args[0], toward)
        self.give(value.args[1], f"(-{toward})")
        if LSB in self.wanted.params:
            self.parts.setdefault(-1, []).append(f"{local} * {difference}")
