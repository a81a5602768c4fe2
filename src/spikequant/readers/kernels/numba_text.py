"""Python text of a fused neuron for numba: what `c_text.py` prints as C, for a machine without a C compiler.

The same lines in the same order over blocks of places, so that results are equal in every bit.  Everything that a
step reads and writes beside input and output lies in one array ``w`` of rows of a block: rows at known distances let
the compiler see that they do not overlap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from spikequant.readers.kernels.adjoint import LSB, Adjoint
from spikequant.readers.kernels.body import Body, Line
from spikequant.readers.kernels.c_text import BLOCK, SURROGATES, Surface, read_params
from spikequant.readers.kernels.tape import Tape

WORDS = f"""
import numpy as np
from numba import njit

ONE, ZERO, HALF_ONE, HALF_PI = real(1), real(0), real(0.5), real(1.5707963267948966)
BLOCK = {BLOCK}


@njit
def FLOOR(a):
    return np.floor(a)


@njit
def TRUNC(a):
    return np.trunc(a)


@njit
def ROUND(a):
    return np.rint(a)


@njit
def ABS(a):
    return np.abs(a)


@njit
def SIGNED(a, b):
    return np.copysign(a, b)


@njit
def GE(a, b):
    return ONE if a >= b else ZERO


@njit
def SELECT(c, a, b):
    return a if c != ZERO else b


@njit
def MAX(a, b):
    return a if a > b or a != a else b


@njit
def CLIP(a, low, high):
    return low if a < low else (high if a > high else a)


@njit
def SAME(a, b, g):
    return g if a == b else ZERO


@njit
def LARGER(a, b):
    return ONE if a > b else (HALF_ONE if a == b else ZERO)


@njit
def LOW(word, mask):
    return real(word & mask)


@njit
def mixed(h, word):  # law/noise.py
    h = np.uint32(h ^ np.uint32(word * np.uint32(0x9E3779B1) + np.uint32(0x7F4A7C15)))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@njit
def WORD(key, sample, neuron):
    return mixed(mixed(key, sample), neuron)


@njit
def falling_exp(x):
    return np.exp(x)


@njit
def tick_at(n, t):
    return ONE if (n[6] + t + 1) % n[7] == 0 else ZERO


@njit
def lay_out(w, m, n, params, masks, first, size):
    channels, inner = n[2], n[3]
    channel, left = first // inner % channels, inner - first % inner
    for j in range(size):
        for k in range(params.shape[0]):
            w[(FIRST_PARAM + k) * BLOCK + j] = params[k, channel]
        for k in range(masks.shape[0]):
            m[k * BLOCK + j] = masks[k, channel]
        left -= 1
        if left == 0:
            left, channel = inner, channel + 1 if channel + 1 < channels else 0
    if NOISY:
        per_sample, space = n[9], n[9] // channels
        for j in range(size):
            place = (first + j) % per_sample
            m[masks.shape[0] * BLOCK + j] = n[10] + (first + j) // per_sample
            m[(masks.shape[0] + 1) * BLOCK + j] = place % channels * space + place // channels if n[11] else place


@njit
def load(w, row, source, first, size):
    for j in range(size):
        w[row * BLOCK + j] = source[first + j] if source.size else ZERO


@njit
def store(w, row, target, first, size):
    if target.size:
        for j in range(size):
            target[first + j] = w[row * BLOCK + j]
"""
FORWARD = """
@njit(nogil=True, cache=True)
def forward(n, x, out, keys, params, masks, OLD, NEW, start, stop):
    w, m = np.empty(ROWS * BLOCK, REAL), np.empty((masks.shape[0] + 2) * BLOCK, np.uint32)
    phase = largest = -1
    for block in range(start, stop):
        first = block * BLOCK
        size = min(BLOCK, n[1] - first)
        here = first % (n[2] * n[3]) if n[2] > 1 else 0
        if NOISY or phase != here or size > largest:
            lay_out(w, m, n, params, masks, first, size)
            phase, largest = here, size
        LOAD_OLD
        for t in range(n[0]):
            at, to = t * n[4] + first, t * n[1] + first
            step_forward(w, m, x[at : at + size], out[to : to + size], size, tick_at(n, t), keys, t)
        STORE_NEW
"""
BACKWARD = """
@njit(nogil=True, cache=True)
def backward(n, x, grad, keys, slope, params, masks, OLD, GIVEN, BACK, dx, sums, start, stop):
    w, m = np.empty(ROWS * BLOCK, REAL), np.empty((masks.shape[0] + 2) * BLOCK, np.uint32)
    steps, places, segment, still = n[0], n[1], n[13], n[14] != 0
    blocks, segments, wide = (places + BLOCK - 1) // BLOCK, (steps + segment - 1) // segment, STATES * BLOCK
    kept, seen = np.empty(segments * wide, REAL), np.empty(segment * wide, REAL)
    shown, one = np.empty(BLOCK, REAL), np.empty(BLOCK, REAL)
    for chunk in range(start, stop):
        for block in range(blocks * chunk // n[12], blocks * (chunk + 1) // n[12]):
            first = block * BLOCK
            size = min(BLOCK, places - first)
            lay_out(w, m, n, params, masks, first, size)
            LOAD_GIVEN
            LOAD_OLD
            for part in range(segments):
                kept[part * wide : (part + 1) * wide] = w[:wide]
                for t in range(part * segment, (part + 1) * segment if part + 1 < segments else 0):
                    at = t * n[4] + first
                    step_states(w, m, x[at : at + size], size, tick_at(n, t), keys, t)
            shown[:] = ZERO
            for part in range(segments - 1, -1, -1):
                begin, end = part * segment, min((part + 1) * segment, steps)
                w[:wide] = kept[part * wide : (part + 1) * wide]
                for t in range(begin, end):
                    seen[(t - begin) * wide : (t - begin + 1) * wide] = w[:wide]
                    if t + 1 < end:
                        at = t * n[4] + first
                        step_states(w, m, x[at : at + size], size, tick_at(n, t), keys, t)
                w[FIRST_SUM * BLOCK : (FIRST_SUM + REDUCED) * BLOCK] = ZERO
                for t in range(end - 1, begin - 1, -1):
                    w[:wide] = seen[(t - begin) * wide : (t - begin + 1) * wide]
                    into = one[:size] if still or not dx.size else dx[t * places + first : t * places + first + size]
                    at, up = t * n[4] + first, t * n[5] + first
                    step_backward(
                        w, m, x[at : at + size], grad[up : up + size], into, size, slope, tick_at(n, t), keys, t
                    )
                    if still and dx.size:
                        for j in range(size):
                            shown[j] += one[j]
                channel, left = first // n[3] % n[2], n[3] - first % n[3]
                for j in range(size):
                    for k in range(REDUCED):
                        sums[(chunk * REDUCED + k) * n[2] + channel] += w[(FIRST_SUM + k) * BLOCK + j]
                    left -= 1
                    if left == 0:
                        left, channel = n[3], channel + 1 if channel + 1 < n[2] else 0
            if still and dx.size:
                dx[first : first + size] = shown[:size]
            STORE_BACK
"""


def numba_forward(tape: Tape, body: Body, *, double: bool) -> tuple[str, Surface]:
    """The kernel that runs a neuron over time, and what it takes."""
    face = Surface(tape.params, tuple(tape.states), tape.noises)
    rows, first = _rows(face, body, body.lines)
    ends = [f"{_state(face, k)} = {body.of(v)}" for k, v in enumerate(tape.states.values())]
    step = _function(
        "step_forward(w, m, x, out, size, tick, keys, t)", face, body.lines, [*ends, f"out[j] = {body.of(tape.output)}"]
    )
    text = _framed(FORWARD, face, {"OLD": 0, "NEW": 0})
    return _file(face, rows, first, double, [step, text], 0), face


def numba_backward(tape: Tape, body: Body, back: Adjoint, surrogate: str, *, double: bool) -> tuple[str, Surface]:
    """The kernel that gives the gradients, and what it takes."""
    lines = [*body.lines, *back.lines]
    lsb = (LSB,) if LSB in read_params(lines) else ()
    face = Surface((*tape.params, *lsb), tuple(tape.states), tape.noises, tuple(sorted(back.params)))
    rows, first = _rows(face, body, lines)
    states = [f"{_state(face, k)} = {body.of(v)}" for k, v in enumerate(tape.states.values())]
    again = _function("step_states(w, m, x, size, tick, keys, t)", face, body.lines, states)
    results = [f"g_{name}[j] = {back.states.get(name, 'NUM(0)')}" for name in face.states]
    results += [f"sum_{name}[j] += {back.params[name]}" for name in face.reduced]
    results += [f"dx[j] = {back.x}"] if back.x is not None else []
    gradients = _function("step_backward(w, m, x, grad, dx, size, slope, tick, keys, t)", face, lines, results)
    text = _framed(BACKWARD, face, {"OLD": 0, "GIVEN": len(face.states), "BACK": len(face.states)})
    return _file(face, rows, first, double, [_surrogate(surrogate), again, gradients, text], len(face.reduced)), face


def _rows(face: Surface, body: Body, lines: Sequence[Line]) -> tuple[dict[str, str], int]:
    """Where the rows of a block stand, as ``array[row * BLOCK + j]`` by name, and the row behind them."""
    rows = {f"s_{name}": k for k, name in enumerate(face.states)}
    rows |= {f"g_{name}": len(face.states) + k for k, name in enumerate(face.states)}
    for name in (*(f"p_{name}" for name in face.params), *fixed_reals(body).values()):
        rows[name] = len(rows)
    first = len(rows)
    rows |= {f"sum_{name}": first + k for k, name in enumerate(face.reduced)}
    words = [*fixed_masks(body).values(), "sample", "neuron"]
    found = {name: f"w[{row * BLOCK} + j]" for name, row in rows.items()}
    return found | {name: f"m[{k * BLOCK} + j]" for k, name in enumerate(words)}, first


def fixed_reals(body: Body) -> dict[tuple[str, str], str]:
    """Arrays of numbers that follow from parameters: names by function and shift."""
    return {call: name for call, name in body.fixed.items() if call[0] != "MASK"}


def fixed_masks(body: Body) -> dict[tuple[str, str], str]:
    """The same of whole words."""
    return {call: name for call, name in body.fixed.items() if call[0] == "MASK"}


def _state(face: Surface, k: int) -> str:
    return f"s_{face.states[k]}[j]"


def _function(head: str, face: Surface, lines: Sequence[Line], results: Sequence[str]) -> str:
    keys = [f"    key_{name} = keys[t * {len(face.noises)} + {k}]" for k, name in enumerate(face.noises)]
    inside = [f"        {name} = {text}" for name, text in lines] + [f"        {text}" for text in results]
    return "\n".join(["", "", "@njit", f"def {head}:", *keys, "    for j in range(size):", *inside, ""])


def _surrogate(name: str) -> str:
    e = ["    e = falling_exp(-ABS(slope * u))"] if name == "sigmoid" else []
    return "\n".join(["", "", "@njit", "def surrogate(u, slope):", *e, f"    return {SURROGATES[name]}", ""])


def _framed(text: str, face: Surface, groups: Mapping[str, int]) -> str:
    """The frame with the arrays of its states written out; `groups`: their names and the first row of each."""
    for group, row in groups.items():
        names = [f"{group.lower()}_{name}" for name in face.states]
        text = text.replace(f" {group},", "".join(f" {name}," for name in names))
        for word in ("load", "store"):
            calls = [f"{word}(w, {row + k}, {name}, first, size)" for k, name in enumerate(names)]
            text = text.replace(f"{word.upper()}_{group}", "; ".join(calls) or "pass")
    return text


def _file(
    face: Surface, rows: Mapping[str, str], first_sum: int, double: bool, parts: Sequence[str], reduced: int
) -> str:
    """The whole text, numbers and rows written out."""
    text = "".join(parts)
    text = re.sub(r"\b(\w+)\[j\]", lambda found: rows.get(found.group(1), found.group(0)), text)
    text = re.sub(r"\bNUM\(", "real(", text)
    text = text.replace("INPUT(j)", "x[j]").replace("GRAD(j)", "grad[j]")
    text = re.sub(r"\bSURROGATE\(([^()]*)\)", r"surrogate(\1, slope)", text)
    names = {
        "REAL": "real", "ROWS": first_sum + reduced, "FIRST_SUM": first_sum, "REDUCED": reduced,
        "STATES": len(face.states), "FIRST_PARAM": 2 * len(face.states), "NOISY": bool(face.noises),
    }  # fmt: skip
    head = f"import numpy as np\n\nreal = np.{'float64' if double else 'float32'}\n"
    head += "".join(f"{name} = {value}\n" for name, value in names.items())
    return head + WORDS + text
