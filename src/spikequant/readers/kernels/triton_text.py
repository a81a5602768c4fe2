"""Triton text of a fused neuron, for a GPU: the lines of `c_text.py` over blocks of places, states in registers.

Every program holds a block of places through all time steps.  The backward kernel keeps states of a segment in
scratch memory that only its own program reads.  Products and sums must not be contracted: a kernel is launched with
``enable_fp_fusion=False``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spikequant.readers.kernels.adjoint import LSB, Adjoint
from spikequant.readers.kernels.body import Body, Line
from spikequant.readers.kernels.c_text import SURROGATES, Surface, read_params
from spikequant.readers.kernels.numba_text import fixed_masks, fixed_reals
from spikequant.readers.kernels.tape import Tape

WORDS = """import triton
import triton.language as tl


@triton.jit
def FLOOR(a):
    return tl.floor(a)


@triton.jit
def TRUNC(a):
    return tl.where(a < 0, tl.ceil(a), tl.floor(a))


@triton.jit
def ROUND(a):
    below = tl.floor(a)
    rest = a - below
    odd = below - 2 * tl.floor(below * 0.5)
    return tl.where((rest > 0.5) | ((rest == 0.5) & (odd == 1)), below + 1, below)


@triton.jit
def ABS(a):
    return tl.abs(a)


@triton.jit
def SIGNED(a, b):
    return tl.where(b < 0, -a, a)


@triton.jit
def GE(a, b):
    return tl.where(a >= b, 1.0, 0.0)


@triton.jit
def SELECT(c, a, b):
    return tl.where(c != 0, a, b)


@triton.jit
def MAX(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def CLIP(a, low, high):
    return tl.where(a < low, low, tl.where(a > high, high, a))


@triton.jit
def SAME(a, b, g):
    return tl.where(a == b, g, 0.0)


@triton.jit
def LARGER(a, b):
    return tl.where(a > b, 1.0, tl.where(a == b, 0.5, 0.0))


@triton.jit
def LOW(word, mask):
    return word & mask


@triton.jit
def falling_exp(x):
    return tl.exp(x)


@triton.jit
def mixed(h, word):  # law/noise.py
    h = h ^ (word * 0x9E3779B1 + 0x7F4A7C15)
    h = h ^ (h >> 16)
    h = h * 0x85EBCA6B
    h = h ^ (h >> 13)
    h = h * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def WORD(key, sample, neuron):
    return mixed(mixed(key, sample), neuron)
"""
PLACES = """
    block = tl.program_id(0).to(tl.int64)
    wide = block * 0
    j = block * BLOCK + tl.arange(0, BLOCK)
    live = j < places
    channel = j // inner % channels
    place, space = j % per_sample, per_sample // channels
    sample = (first_sample + j // per_sample).to(tl.uint32)
    neuron = tl.where(channels_last != 0, place % channels * space + place // channels, place).to(tl.uint32)
    nothing = tl.zeros((BLOCK,), REAL)
"""
SIZES = "steps, places, channels, inner, x_step, grad_step, first_step, every, per_sample, first_sample, channels_last"
FORWARD = f"""

@triton.jit
def forward(x, out, keys, params, masks, OLD, NEW, {SIZES},
            HAS_OLD: tl.constexpr, HAS_NEW: tl.constexpr, BLOCK: tl.constexpr, REAL: tl.constexpr):
{PLACES}    PARAMS
    START
    for t in range(steps):
        INPUTS
        STEP
        tl.store(out + (wide + t) * places + j, OUTPUT, mask=live)
        MOVE
    if HAS_NEW:
        STORE_NEW
"""
BACKWARD = f"""

@triton.jit
def backward(x, grad, keys, slope_at, params, masks, OLD, GIVEN, BACK, dx, sums, scratch, {SIZES}, segments, segment,
             HAS_OLD: tl.constexpr, HAS_GIVEN: tl.constexpr, HAS_BACK: tl.constexpr, HAS_DX: tl.constexpr,
             STILL: tl.constexpr, BLOCK: tl.constexpr, REAL: tl.constexpr):
{PLACES}    slope = tl.load(slope_at).to(REAL)
    shown = nothing
    PARAMS
    START
    GIVE
    for part in range(segments):
        kept = (wide + part) * STATES
        KEEP
        for back in range(tl.where(part + 1 < segments, segment, 0)):
            t = part * segment + back
            INPUTS
            STEP
            MOVE
    tl.debug_barrier()
    for walked in range(segments):
        part = segments - 1 - walked
        kept = (wide + part) * STATES
        FETCH
        long = tl.minimum(segment, steps - part * segment)
        for back in range(long):
            kept = (wide + segments + back) * STATES
            KEEP
            t = part * segment + back
            INPUTS
            STEP
            MOVE
        tl.debug_barrier()
        ZERO
        for back in range(long):
            t = part * segment + long - 1 - back
            kept = (wide + segments + long - 1 - back) * STATES
            FETCH
            INPUTS
            up = tl.load(grad + (wide + t) * grad_step + j, mask=live, other=0.0)
            GRADIENTS
            DX
            BEFORE
        TOTAL
        tl.debug_barrier()
    if HAS_BACK:
        STORE_BACK
    if HAS_DX and STILL:
        tl.store(dx + j, shown, mask=live)
    SUMS
"""


def triton_forward(tape: Tape, body: Body) -> tuple[str, Surface]:
    """The kernel that runs a neuron over time, and what it takes."""
    face = Surface(tape.params, tuple(tape.states), tape.noises)
    text = _framed(FORWARD, tape, body, face, {"OUTPUT": [body.of(tape.output)]})
    return _finished(WORDS + text), face


def triton_backward(tape: Tape, body: Body, back: Adjoint, surrogate: str) -> tuple[str, Surface]:
    """The kernel that gives the gradients, and what it takes."""
    lines = [*body.lines, *back.lines]
    lsb = (LSB,) if LSB in read_params(lines) else ()
    face = Surface((*tape.params, *lsb), tuple(tape.states), tape.noises, tuple(sorted(back.params)))
    states, reduced = face.states, face.reduced
    dx = ["if HAS_DX:", "    if STILL:", f"        shown += {back.x}", "    else:",
          f"        tl.store(dx + (wide + t) * places + j, {back.x}, mask=live)"]  # fmt: skip
    parts = {
        "GIVE": [f"g_{n} = tl.load(given_{n} + j, mask=live, other=0.0) if HAS_GIVEN else nothing" for n in states]
        + [f"total_{n} = tl.zeros((BLOCK,), tl.float64)" for n in reduced],
        "KEEP": [f"tl.store(scratch + (kept + {k}) * places + j, s_{n}, mask=live)" for k, n in enumerate(states)],
        "FETCH": [f"s_{n} = tl.load(scratch + (kept + {k}) * places + j, mask=live, other=0.0)"
                  for k, n in enumerate(states)],
        "ZERO": [f"sum_{n} = nothing" for n in reduced],
        "GRADIENTS": [*_lines(lines), *(f"sum_{n} += {back.params[n]}" for n in reduced)],
        "DX": dx if back.x is not None else [],
        "BEFORE": [f"g_{n} = {back.states.get(n, 'nothing')}" for n in states],
        "TOTAL": [f"total_{n} += sum_{n}.to(tl.float64)" for n in reduced],
        "STORE_BACK": [f"tl.store(back_{n} + j, g_{n}, mask=live)" for n in states],
        "SUMS": [f"tl.store(sums + {k} * (wide + places) + j, total_{n}, mask=live)" for k, n in enumerate(reduced)],
        "STATES": [str(len(states))],
    }  # fmt: skip
    text = _surrogate(surrogate) + _framed(BACKWARD, tape, body, face, parts)
    text = text.replace("INPUT(j)", "value").replace("GRAD(j)", "up")
    return _finished(WORDS + text), face


def _framed(text: str, tape: Tape, body: Body, face: Surface, parts: dict[str, list[str]]) -> str:
    """A frame with its parts: names in capitals alone on a line become lines, others expressions."""
    for group in ("OLD", "GIVEN", "BACK", "NEW"):
        text = text.replace(f" {group},", "".join(f" {group.lower()}_{name}," for name in face.states))
    rows = [*(f"p_{name}" for name in face.params), *fixed_reals(body).values()]
    load = "tl.load({array} + {row} * channels + channel, mask=live, other=0)"
    words = fixed_masks(body).values()
    parts = parts | {
        "PARAMS": [f"{n} = {load.format(array='params', row=k)}" for k, n in enumerate(rows)]
        + [f"{n} = {load.format(array='masks', row=k)}.to(tl.uint32, bitcast=True)" for k, n in enumerate(words)],
        "START": [f"s_{n} = tl.load(old_{n} + j, mask=live, other=0.0) if HAS_OLD else nothing" for n in face.states],
        "INPUTS": _inputs(tape, face),
        "STEP": _lines(body.lines),
        "MOVE": [f"s_{n} = {body.of(value)}" for n, value in tape.states.items()],
        "STORE_NEW": [f"tl.store(new_{n} + j, s_{n}, mask=live)" for n in face.states],
    }
    for name, lines in parts.items():
        text = re.sub(
            rf"^( *){name}$",
            lambda found, lines=lines: "\n".join(found.group(1) + line for line in lines or ["pass"]),  # type: ignore[misc]
            text,
            flags=re.MULTILINE,
        )
        if len(lines) == 1:
            text = re.sub(rf"\b{name}\b", lambda found, lines=lines: lines[0], text)  # type: ignore[misc]
    return text


def _inputs(tape: Tape, face: Surface) -> list[str]:
    """What a step reads: its input, whether it ticks, where its noise starts."""
    lines = ["value = tl.load(x + (wide + t) * x_step + j, mask=live, other=0.0)"]
    if tape.ticks:
        lines.append("tick = nothing + tl.where((first_step + t + 1) % every == 0, 1.0, 0.0)")
    start = "tl.load(keys + t * {many} + {k}).to(tl.uint32, bitcast=True) + tl.zeros((BLOCK,), tl.uint32)"
    many = len(face.noises)
    return lines + [f"key_{name} = {start.format(many=many, k=k)}" for k, name in enumerate(face.noises)]


def _lines(lines: Sequence[Line]) -> list[str]:
    """Every value is a block of the number type, but for words of noise."""
    return [f"{name} = {text}" if text.startswith("WORD") else f"{name} = ({text}).to(REAL)" for name, text in lines]


def _surrogate(name: str) -> str:
    e = ["    e = falling_exp(-ABS(slope * u))"] if name == "sigmoid" else []
    text = re.sub(r"\bNUM\(([^()]*)\)", r"\1", SURROGATES[name]).replace("HALF_PI", "1.5707963267948966")
    return "\n".join(["", "", "@triton.jit", "def surrogate(u, slope):", *e, f"    return {text}", ""])


def _finished(text: str) -> str:
    """Places are blocks here, so that nothing is indexed; numbers are blocks of the number type."""
    text = text.replace("INPUT(j)", "value").replace("[j]", "")
    text = re.sub(r"\bNUM\(([^()]*)\)", r"tl.full((BLOCK,), \1, REAL)", text)
    return re.sub(r"\bSURROGATE\(([^()]*)\)", r"surrogate(\1, slope)", text)
