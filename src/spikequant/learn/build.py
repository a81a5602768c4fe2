"""Kernels: the printed law bound into `kernel.py`, compiled by numba or left to Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from types import FunctionType
from typing import Any, Literal

from spikequant.law.errors import Unsupported
from spikequant.law.noise import mix
from spikequant.learn.config import DiehlCook
from spikequant.learn.kernel import NETWORK
from spikequant.learn.kernel_plasticity import PLASTICITY
from spikequant.learn.numbers import COMMON_BITS, SLOW_BITS, Numbers
from spikequant.learn.printed import TextOps, loop_text, scalar_text, step_text
from spikequant.learn.stdp import Rates, decayed_trace, land, rescaled, rule_named

Engine = Literal["auto", "numba", "python"]
ENGINES = ("auto", "numba", "python")
IDENTITY = "def {}(x):\n    return x\n"
"""What is compiled but never called in a network without a common part of its thresholds."""


def chosen_engine(engine: str) -> str:
    """``"numba"`` or ``"python"``: `engine`, or for ``"auto"`` numba where it is installed.

    Raises:
        Unsupported: an unknown name, or numba is not installed.
    """
    if engine not in ENGINES:
        raise Unsupported(f"engine {engine!r}; expected one of {', '.join(ENGINES)}")
    there = find_spec("numba") is not None
    if engine == "numba" and not there:
        raise Unsupported(
            "the fast kernel needs numba, which is not installed: pip install 'spikequant[numba]', "
            "or engine='python', some hundred times slower"
        )
    return "numba" if engine != "python" and there else "python"


def texts(numbers: Numbers, config: DiehlCook, *, learns: bool) -> dict[str, str]:
    """The printed functions by name: everything in which the arithmetic of a network differs from another's."""
    real, rule, phase = numbers.real, rule_named(config.rule), "learning" if learns else "inferring"
    spec = numbers.learning if learns else numbers.inferring
    weight = {"fine_bits": numbers.fine_bits, "w_max": numbers.w_max, "rounding": numbers.roundings["weight"]}
    scale = {**weight, "fine_bits": numbers.scale_bits}
    leak, leak_bits, trace_rounding = numbers.trace_leak, numbers.trace_bits, numbers.roundings["trace"]

    def landed(change: Callable[..., str]) -> Callable[[TextOps], str]:
        return lambda ops: land(ops, "w", change(ops, "w", "trace", numbers.rates), noise="noise", **weight)

    def unchanged(ops: TextOps, w: str, trace: str, rates: Rates) -> str:
        return ops.const(0)

    def shorter(ops: TextOps) -> str:
        return decayed_trace(ops, "value", leak, bits=leak_bits, rounding=trace_rounding, noise="noise[j]")

    drawn = numbers.roundings["threshold"]
    return {
        "advance": step_text(spec, numbers.params[phase], "advance"),
        "advance_inhibitory": step_text(numbers.inhibitory, numbers.params["inhibitory"], "advance_inhibitory"),
        "decay": loop_text("decay", real, shorter),
        "land_post": scalar_text("land_post", ("w", "trace", "noise"), real, landed(rule.on_post)),
        "land_pre": scalar_text("land_pre", ("w", "trace", "noise"), real, landed(rule.on_pre or unchanged)),
        "rescale": scalar_text(
            "rescale", ("w", "factor", "noise"), real, lambda o: rescaled(o, "w", "factor", noise="noise", **scale)
        ),
        "factor_of": f"def factor_of(total):\n    return {_factor(numbers)}\n",
        "adapt_of": scalar_text(
            "adapt_of",
            ("noise",),
            real,
            lambda o: o.shr(o.const(numbers.adapt), o.const(numbers.adapt_bits), drawn, "noise"),
        ),
        **(
            _common_texts(numbers)
            if numbers.carry
            else {f: IDENTITY.format(f) for f in ("base_of", "faded", "lowered")}
        ),
    }


def _common_texts(numbers: Numbers) -> dict[str, str]:
    """How the common part of the thresholds decays, what is left of a neuron's own, and the threshold that all have."""
    learning, most = numbers.params["learning"], numbers.full + numbers.carry

    def based(ops: TextOps) -> str:
        part = ops.mul(ops.shr("common", ops.const(COMMON_BITS), "half_up"), ops.const(numbers.adapt_unit))
        return ops.add(ops.const(numbers.theta), ops.shr(part, ops.const(learning["a_shift"]), "floor"))

    def faded(ops: TextOps) -> str:
        return ops.shr(ops.mul("common", ops.const(learning["leak_a"])), ops.const(SLOW_BITS), "half_up")

    def lowered(ops: TextOps) -> str:
        return ops.clip(ops.sub("own", ops.const(numbers.carry)), 0, most)

    return {
        "base_of": scalar_text("base_of", ("common",), False, based),
        "faded": scalar_text("faded", ("common",), False, faded),
        "lowered": scalar_text("lowered", ("own",), False, lowered),
    }


def _factor(numbers: Numbers) -> str:
    """A division, once per neuron and image: it scales, it is no word of the law."""
    if numbers.real:
        return f"{numbers.norm!r} / total"
    return f"{numbers.norm << numbers.scale_bits} // total"


def constants(numbers: Numbers, config: DiehlCook, *, learns: bool) -> dict[str, Any]:
    """The upper-case names of the kernel."""
    rule = rule_named(config.rule)
    random = {role: rounding == "stochastic" for role, rounding in numbers.roundings.items()}
    return {
        "LEARNS": learns,
        "LAYERED": config.inhibition == "layer",
        "ONE_SPIKE": config.one_spike,
        "SILENT_INPUTS": rule.silent_inputs,
        "HAS_PRE_RULE": rule.on_pre is not None,
        "ADD_TRACES": config.trace == "add",
        "V_NOISE": random["membrane"],
        "A_NOISE": random["threshold"],
        "W_NOISE": random["weight"],
        "TRACE_NOISE": random["trace"],
        "COMMON": numbers.carry > 0,
        "CARRY": numbers.carry << COMMON_BITS,
        "FULL": numbers.full,
        "COMMON_MOST": numbers.common_most,
        "GAIN": numbers.gain,
        "INHIBIT": numbers.inhibit,
        "EXCITE": numbers.excite,
        "wide": numbers.sum_type,
        "ZERO": 0.0 if numbers.real else 0,
        "TRACE_ONE": numbers.trace_one,
        "TRACE_MAX": numbers.trace_max,
    }


def build(numbers: Numbers, config: DiehlCook, *, learns: bool, engine: str = "auto") -> Any:
    """`kernel.present` for these numbers."""
    printed = texts(numbers, config, learns=learns)
    fixed = constants(numbers, config, learns=learns)
    return _bound(tuple(printed.items()), tuple(fixed.items()), chosen_engine(engine))


@functools.lru_cache(maxsize=64)
def _bound(printed: tuple[tuple[str, str], ...], fixed: tuple[tuple[str, Any], ...], engine: str) -> Any:
    compiled: Callable[[Any], Any] = _numba if engine == "numba" else lambda function: function
    space: dict[str, Any] = {"mix": compiled(mix), **dict(fixed)}
    for name, text in printed:
        exec(compile(text, f"<printed {name}>", "exec"), space)
        space[name] = compiled(space[name])
    for function in (*PLASTICITY, *NETWORK):
        space[function.__name__] = compiled(FunctionType(function.__code__, space, function.__name__))
    return space["present"]


def _numba(function: Any) -> Any:
    import numba

    return numba.njit(function, error_model="numpy", nogil=True)
