"""C text of a fused neuron: all time steps of a block of neurons, whose state never leaves the cache.

Time runs inside a block, so that only the input is read and only the output written; the inner loop over a block's
neurons is straight-line code that a compiler turns into vector instructions.  The backward kernel computes the
states of a segment of time again (from checkpoints every ``sqrt(T)`` steps where T is long) and walks back over it.
What does not depend on the neuron stands in the ``.c`` files beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spikequant.readers.kernels.adjoint import LSB, Adjoint
from spikequant.readers.kernels.body import Body, Line
from spikequant.readers.kernels.tape import Tape

BLOCK = 256
SURROGATES = {
    "atan": "(slope * NUM(0.5)) / (NUM(1) + (HALF_PI * slope * u) * (HALF_PI * slope * u))",
    "sigmoid": "slope * e / ((NUM(1) + e) * (NUM(1) + e))",
    "fast_sigmoid": "NUM(1) / ((NUM(1) + slope * ABS(u)) * (NUM(1) + slope * ABS(u)))",
    "gaussian": "slope * NUM(0.3989422804014327) * falling_exp(-(slope * u) * (slope * u) * NUM(0.5))",
    "triangle": "slope * MAX(NUM(1) - ABS(slope * u), NUM(0))",
    "boxcar": "SELECT(GE(NUM(0.5), ABS(slope * u)), slope, NUM(0))",
    "straight_through": "slope",
}
"""The derivatives of `nn/surrogate.py` by name; ``u`` in real units, ``e = exp(-|slope u|)``."""


@dataclass(frozen=True)
class Surface:
    """The arrays of a kernel in the order in which it takes them.

    Attributes:
        params: parameters, `LSB` the last where the surrogate needs it.
        states: old states; the new ones have the same order.
        noises: states whose rounding reads noise.
        reduced: parameters whose gradients the backward kernel sums up.
    """

    params: tuple[str, ...]
    states: tuple[str, ...]
    noises: tuple[str, ...]
    reduced: tuple[str, ...] = ()


def forward_text(
    tape: Tape, body: Body, *, double: bool, as_bytes: bool = False, summed: bool = False
) -> tuple[str, Surface]:
    """The kernel that runs a neuron over time, and what it takes; `as_bytes`, `summed`: see `keys.ForwardKey`."""
    face = Surface(tape.params, tuple(tape.states), tape.noises)
    lines, to = _declared(body.lines), "to[j] +=" if summed else "to[j] ="
    steps = _function(
        "void step_forward(const tile_t *const tile, real (*const s)[BLOCK], const real *const from, out_t *const to, "
        "const int64_t size, const real tick, const uint32_t *const keys)",
        face, [*lines, *_new_states(tape, body, "s"), f"{to} (out_t)({body.of(tape.output)});"],
    )  # fmt: skip
    steps = [f"typedef {'uint8_t' if as_bytes else 'real'} out_t;", f"#define SUMMED {int(summed)}", *steps]
    return _file(face, body, body.lines, steps, double, "forward.c"), face


def backward_text(tape: Tape, body: Body, back: Adjoint, surrogate: str, *, double: bool) -> tuple[str, Surface]:
    """The kernel that gives the gradients, and what it takes."""
    lines = [*body.lines, *back.lines]
    lsb = (LSB,) if LSB in read_params(lines) else ()
    face = Surface((*tape.params, *lsb), tuple(tape.states), tape.noises, tuple(sorted(back.params)))
    again = _function(
        "void step_states(const tile_t *const tile, real (*const s)[BLOCK], real (*const new)[BLOCK], "
        "const real *const from, const int64_t size, const real tick, const uint32_t *const keys)",
        face, [*_declared(body.lines), *_new_states(tape, body, "new")],
    )  # fmt: skip
    results = [f"g[{k}][j] = {back.states.get(name, 'NUM(0)')};" for k, name in enumerate(face.states)]
    results += [f"sum[{k}][j] += {back.params[name]};" for k, name in enumerate(face.reduced)]
    results += [f"dx[j] = {back.x};"] if back.x is not None else []
    gradients = _function(
        "void step_backward(const tile_t *const tile, real (*const s)[BLOCK], real (*const g)[BLOCK], "
        "real (*const sum)[BLOCK], const real *const from, const real *const grad, real *const dx, "
        "const int64_t size, const real slope, const real tick, const uint32_t *const keys)",
        face, [*_declared(lines), *results],
    )  # fmt: skip
    names = ["#define GRAD(j) grad[j]", *(f"#define g_{name} g[{k}]" for k, name in enumerate(face.states))]
    steps = [*_surrogate(surrogate), *names, "#define SURROGATE(u) surrogate(u, slope)", *again, *gradients]
    return _file(face, body, lines, steps, double, "backward.c"), face


def _surrogate(name: str) -> list[str]:
    e = ["const real e = falling_exp(-ABS(slope * u));"] if name == "sigmoid" else []
    return [
        "static inline real surrogate(const real u, const real slope)",
        "{", *(["(void)u;"] if name == "straight_through" else []), *e, f"return {SURROGATES[name]};", "}",
    ]  # fmt: skip


def read_params(lines: Iterable[Line]) -> tuple[str, ...]:
    """Parameters that the lines read by place."""
    return tuple(sorted({name for _, text in lines for name in re.findall(r"\bp_(\w+)\[j\]", text)}))


def _declared(lines: Iterable[Line]) -> list[str]:
    """Lines as C; the words of noise are no real numbers."""
    return [f"const {'uint32_t' if text.startswith('WORD') else 'real'} {name} = {text};" for name, text in lines]


def _new_states(tape: Tape, body: Body, into: str) -> list[str]:
    """Stores of the new states; none of them is read again in its step."""
    return [f"{into}[{k}][j] = {body.of(value)};" for k, value in enumerate(tape.states.values())]


def _function(head: str, face: Surface, inside: Sequence[str]) -> list[str]:
    keys = [f"const uint32_t key_{name} = keys[{k}];" for k, name in enumerate(face.noises)]
    return [
        f"static inline {head}",
        "{", "(void)tick;", "(void)keys;", *keys,
        "#pragma omp simd",
        "for (int64_t j = 0; j < size; ++j) {", *inside, "}", "}",
    ]  # fmt: skip


def _file(face: Surface, body: Body, lines: Sequence[Line], steps: Sequence[str], double: bool, frame: str) -> str:
    places = read_params(lines)
    reals = {n: call for call, n in body.fixed.items() if call[0] != "MASK"}
    masks = {n: call for call, n in body.fixed.items() if call[0] == "MASK"}
    counts = {
        "SINGLE": 0 if double else 1, "BLOCK": BLOCK, "GIVEN": len(face.params), "STATES": len(face.states),
        "NOISES": len(face.noises), "REDUCED": len(face.reduced), "PARAMS": len(places), "FIXED": len(reals),
        "MASKS": len(masks),
    }  # fmt: skip
    text = [f"typedef {'double' if double else 'float'} real;", *(f"#define {k} {v}" for k, v in counts.items())]
    text += [_part("prelude.c"), *_tile(places, list(reals), list(masks), face)]
    text += [f"#define s_{name} s[{k}]" for k, name in enumerate(face.states)]
    text += ["#define INPUT(j) from[j]", *steps, *_fills(face, reals, masks), _part("frame.c"), _part(frame)]
    return "\n".join(text)


def _tile(places: Sequence[str], reals: Sequence[str], masks: Sequence[str], face: Surface) -> list[str]:
    which = ", ".join(str(face.params.index(name)) for name in places) or "0"
    return [
        "typedef struct {",
        "real p[PARAMS + 1][BLOCK], f[FIXED + 1][BLOCK];",
        "uint32_t m[MASKS + 1][BLOCK];",
        "uint32_t sample[NOISES ? BLOCK : 1], neuron[NOISES ? BLOCK : 1];",
        "int64_t phase, size;",
        "} tile_t;",
        f"static const int WHICH[PARAMS + 1] = {{{which}}};",
        *(f"#define p_{name} tile->p[{k}]" for k, name in enumerate(places)),
        *(f"#define {name} tile->f[{k}]" for k, name in enumerate(reals)),
        *(f"#define {name} tile->m[{k}]" for k, name in enumerate(masks)),
        *(["#define sample tile->sample", "#define neuron tile->neuron"] if face.noises else []),
    ]


def _fills(face: Surface, reals: dict[str, tuple[str, str]], masks: dict[str, tuple[str, str]]) -> list[str]:
    """Functions that compute, for one channel, what follows from the parameters."""
    text = ["#undef sample", "#undef neuron"]
    for name, kind, made in (("fill_reals", "real", reals), ("fill_masks", "uint32_t", masks)):
        lines = [f"to[{k} * stride] = {function}({shift});" for k, (function, shift) in enumerate(made.values())]
        numbered = [re.sub(r"AT\((\w+)\)", lambda m: _at(face, m.group(1)), line) for line in lines]
        text += [
            f"static void {name}({kind} *const to, const int64_t stride, const int64_t c, const int64_t *const many, "
            "void *const *const params)",
            "{", "(void)to;", "(void)stride;", "(void)c;", "(void)many;", "(void)params;", *numbered, "}",
        ]  # fmt: skip
    return text


def _at(face: Surface, name: str) -> str:
    k = face.params.index(name)
    return f"((const real *)params[{k}])[many[{k}] ? c : 0]"


@cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
