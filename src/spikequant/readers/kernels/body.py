"""The straight-line part of a kernel: lines that C and numba read alike.

A line is a name and an expression of ``+ - * /``, indexed arrays and functions in capitals that every language
defines for itself (`FLOOR`, `SELECT`, ...).  ``j`` is the place within a block, ``real`` the number type.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spikequant.law.errors import Unsupported
from spikequant.readers.kernels.tape import Tape, Value

Line = tuple[str, str]
SHIFTS = {
    "floor": "FLOOR({a} * {f})",
    "toward_zero": "TRUNC({a} * {f})",
    "half_even": "ROUND({a} * {f})",
    "half_up": "FLOOR(({a} + {h}) * {f})",
    "half_away": "SIGNED(FLOOR((ABS({a}) + {h}) * {f}), {a})",
    "stochastic": "FLOOR(({a} + LOW({noise}, {m})) * {f})",
}


@dataclass
class Body:
    """Lines of a step, and what has to stand in arrays before it.

    Attributes:
        lines: in order.
        names: the expression of every value of the tape, by its index.
        fixed: arrays that follow from parameters: name, function (``FACTOR``, ``HALF``, ``MASK``), expression of the
            shift over channels ``c``.
    """

    rounds: bool = True
    lines: list[Line] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    fixed: dict[tuple[str, str], str] = field(default_factory=dict)

    def derived(self, function: str, shift: Value) -> str:
        """The array element that a function of a shift fills."""
        key = (function, over_channels(shift))
        if key not in self.fixed:
            self.fixed[key] = f"{function.lower()}{len(self.fixed)}"
        return f"{self.fixed[key]}[j]"

    def of(self, value: Value) -> str:
        """Name or number of a value."""
        return self.names[value.index]


def over_channels(value: Value) -> str:
    """A value of parameters and numbers as an expression over channels.

    >>> from spikequant.readers.kernels.tape import TapeOps
    >>> ops = TapeOps()
    >>> over_channels(ops.add(ops.leaf("param", "v_shift"), ops.const(3)))
    '(AT(v_shift) + NUM(3))'
    """
    if value.word == "param":
        return f"AT({value.name})"
    if value.word == "number":
        return f"NUM({value.detail[0]})"
    signs = {"add": "+", "sub": "-", "mul": "*"}
    if value.word in signs:
        return f"({over_channels(value.args[0])} {signs[value.word]} {over_channels(value.args[1])})"
    if value.word == "detach":
        return over_channels(value.args[0])
    raise Unsupported(f"a shift computed with {value.word!r} has no kernel")


def step_body(tape: Tape, *, rounds: bool = True) -> Body:
    """The lines that compute one step.  `rounds`: a shift rounds (integers), or only divides (real numbers)."""
    body = Body(rounds)
    shifts = {v.args[1].index for v in tape.values if v.word == "shr"}
    plain = {a.index for v in tape.values for k, a in enumerate(v.args) if v.word != "shr" or k != 1}
    plain |= {v.index for v in (*tape.states.values(), tape.output)}
    for value in tape.values:
        if value.index in shifts and value.index not in plain:
            continue  # it stands in an array
        text = _leaf(value)
        if text is None:
            text = _expression(body, value)
        if value.word in ("number", "param"):
            body.names[value.index] = text
        elif value.word == "detach":
            body.names[value.index] = body.of(value.args[0])
        else:
            body.names[value.index] = f"t{value.index}"
            body.lines.append((f"t{value.index}", text))
    return body


def _leaf(value: Value) -> str | None:
    if value.word == "number":
        return f"NUM({value.detail[0]})"
    texts = {"param": f"p_{value.name}[j]", "state": f"s_{value.name}[j]", "tick": "tick", "x": "INPUT(j)"}
    texts |= {"noise": f"WORD(key_{value.name}, sample[j], neuron[j])", "detach": ""}
    return texts.get(value.word)


def _expression(body: Body, value: Value) -> str:
    args = [body.of(a) for a in (value.args[:1] if value.word == "shr" else value.args)]
    if value.word in ("add", "sub", "mul"):
        return f"{args[0]} {dict(add='+', sub='-', mul='*')[value.word]} {args[1]}"
    if value.word in ("ge", "max"):
        return f"{value.word.upper()}({args[0]}, {args[1]})"
    if value.word == "where":
        return f"SELECT({', '.join(args)})"
    if value.word == "clip":
        low, high = value.detail
        return f"CLIP({args[0]}, NUM({low}), NUM({high}))"
    rounding, shift = value.detail[0], value.args[1]
    factor = body.derived("FACTOR", shift)
    if not body.rounds:
        return f"{args[0]} * {factor}"
    half = body.derived("HALF", shift) if rounding in ("half_up", "half_away") else ""
    mask = body.derived("MASK", shift) if rounding == "stochastic" else ""
    noise = body.of(value.args[2]) if rounding == "stochastic" else ""
    return SHIFTS[rounding].format(a=args[0], f=factor, h=half, m=mask, noise=noise)
