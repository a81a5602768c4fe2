"""What an unsupervised network is, and in how many bits it is held: two frozen records."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spikequant.law.errors import PlanError
from spikequant.law.rounding import ROUNDINGS, Rounding
from spikequant.quantizers.fixed_point import PAPER_ROUNDINGS

Inhibition = Literal["direct", "layer"]
TraceMode = Literal["set", "add"]
ROLES = ("weight", "membrane", "threshold", "trace")
REACHES = ("membrane_reach_mv", "threshold_reach_mv")
SWITCHES = ("common_threshold",)
MOST_BITS = 16
WHOLE = ("inputs", "neurons", "levels", "steps", "refractory", "seed")
POSITIVE = (
    *("inputs", "neurons", "levels", "steps", "dt_ms", "rate_hz", "threshold_mv", "tau_ms", "w_max", "tau_adapt_ms"),
    *("w_start", "norm", "tau_trace_ms", "excite_mv", "inhibit_mv"),
)


def _expect(name: str, given: Any, good: bool, wanted: str) -> None:
    if not good:
        raise PlanError(f"unsupervised network: {name} is {given!r}; expected {wanted}")


@dataclass(frozen=True, kw_only=True)
class DiehlCook:
    """The network of Diehl & Cook (2015): Poisson inputs, N adaptive neurons, lateral inhibition, STDP.

    Potentials are in mV above rest (the membrane is stored as ``v - v_rest``).  The defaults are those of
    BindsNET's replication, except `inhibition`: with one inhibitory neuron per excitatory one, which always fires
    one step after it, the separate layer (``"layer"``) does what ``"direct"`` does one step later, for twice the
    neurons; ``"direct"`` is therefore the default.

    Attributes:
        inputs: number of pixels.
        neurons: excitatory neurons.
        levels: intensity of the brightest pixel.
        steps: time steps per image, `dt_ms` each.
        rate_hz: firing rate of the brightest pixel.
        threshold_mv, reset_mv, tau_ms, refractory: the excitatory neuron; `refractory` in steps.
        floor_mv: lowest membrane, below rest; None for no bound.
        adapt_mv, tau_adapt_ms: rise of a neuron's threshold per spike of its own, and the time constant of its decay
            (applied once per image).
        inhibition: ``"direct"`` or ``"layer"``.
        inhibit_mv: what a spike takes from all other neurons, one step later.
        excite_mv: what a spike gives to its inhibitory neuron (``"layer"`` only).
        w_max, w_start, norm: largest weight; weights start uniform on ``[0, w_start)``; mean weight of a neuron after
            normalisation (``norm * inputs`` is their sum).
        rule: name of an STDP rule, see `stdp.RULES`.
        nu_post, nu_pre: learning rates on a spike of the neuron and of the input.
        target: the trace that the rule ``target_trace`` aims at.
        tau_trace_ms, trace: decay of the spike traces, and whether a spike sets them to 1 or adds 1.
        one_spike: while learning, of several neurons that fire in one step one is drawn and its spike sent; all are
            reset and adapt.  Inference sends every spike.
        seed: seed of all random streams.
    """

    inputs: int = 784
    neurons: int = 400
    levels: int = 255
    steps: int = 250
    dt_ms: float = 1.0
    rate_hz: float = 128.0
    threshold_mv: float = 13.0
    reset_mv: float = 5.0
    tau_ms: float = 100.0
    refractory: int = 5
    floor_mv: float | None = None
    adapt_mv: float = 0.05
    tau_adapt_ms: float = 1e7
    inhibition: Inhibition = "direct"
    inhibit_mv: float = 120.0
    excite_mv: float = 22.5
    w_max: float = 1.0
    w_start: float = 0.3
    norm: float = 0.1
    rule: str = "post_pre"
    nu_post: float = 1e-2
    nu_pre: float = 1e-4
    target: float = 0.4
    tau_trace_ms: float = 20.0
    trace: TraceMode = "set"
    one_spike: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in WHOLE:
            given = getattr(self, name)
            _expect(name, given, isinstance(given, int) and not isinstance(given, bool), "a whole number")
        for name in POSITIVE:
            _expect(name, getattr(self, name), 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("adapt_mv", "nu_post", "nu_pre", "refractory", "seed"):
            _expect(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "0 or more")
        _expect("levels", self.levels, self.levels <= 255, "at most 255")
        _expect("seed", self.seed, self.seed < 2**32, "a number below 2^32")
        low = -math.inf < self.reset_mv < self.threshold_mv
        _expect("reset_mv", self.reset_mv, low, "below threshold_mv")
        _expect("target", self.target, math.isfinite(self.target), "a finite number")
        _expect("floor_mv", self.floor_mv, self.floor_mv is None or self.floor_mv < 0, "below 0, or None")
        _expect("inhibition", self.inhibition, self.inhibition in get_args(Inhibition), "'direct' or 'layer'")
        _expect("trace", self.trace, self.trace in get_args(TraceMode), "'set' or 'add'")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> DiehlCook:
        """A copy with some fields changed; checked again."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Register:
    """Bits and rounding of one role: 1 to 16 bits; ``TR``, ``RN``, ``SR`` or a rounding of the law.

    >>> Register(4, "SR").rounding
    'stochastic'
    """

    bits: int
    rounding: Rounding = "half_up"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounding", PAPER_ROUNDINGS.get(self.rounding, self.rounding))
        whole = isinstance(self.bits, int) and not isinstance(self.bits, bool)
        _expect("bits", self.bits, whole and 1 <= self.bits <= 24, f"an integer from 1 to {MOST_BITS}")
        _expect("rounding", self.rounding, self.rounding in ROUNDINGS, f"TR, RN, SR or one of {', '.join(ROUNDINGS)}")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The registers of the four roles; None leaves a role as wide as float (see `FREE`).

    A precision of four None is the float network.

    Attributes:
        weight: of the plastic synapses; unsigned, ``0 .. w_max``.
        membrane: of the excitatory neurons (and of the inhibitory ones); signed.
        threshold: the adaptive part; unsigned.
        trace: of inputs and neurons; unsigned.
        membrane_reach_mv: what the membrane's register must hold, above and below rest.
        threshold_reach_mv: what the register of the adaptive part holds.  The base threshold and this must lie within
            `membrane_reach_mv`: a threshold that the membrane's register cannot reach silences its neuron for good.
        common_threshold: hold what all adaptive parts have in common once, in one word: they rise together, and the
            register of a neuron then holds only what it has above it.  `threshold_reach_mv` is the reach of that.
    """

    weight: Register | None = None
    membrane: Register | None = None
    threshold: Register | None = None
    trace: Register | None = None
    membrane_reach_mv: float = 128.0
    threshold_reach_mv: float = 112.0
    common_threshold: bool = False

    def __post_init__(self) -> None:
        for role in ROLES:
            given = getattr(self, role)
            good = given is None or (isinstance(given, Register) and given.bits <= MOST_BITS)
            _expect(role, given, good, f"None, or a Register(bits, rounding) of at most {MOST_BITS} bits")
        for name in REACHES:
            _expect(name, getattr(self, name), 0 < getattr(self, name) < math.inf, "a number above 0")
        good = self.common_threshold in (False, True) and (not self.common_threshold or self.threshold is not None)
        _expect("common_threshold", self.common_threshold, good, "False, or True with a Register as threshold")

    @property
    def is_real(self) -> bool:
        """Whether nothing is quantized."""
        return all(getattr(self, role) is None for role in ROLES)

    def register(self, role: str) -> Register:
        """The register of a role; a free one where the plan names none."""
        given: Register | None = getattr(self, role)
        return given if given is not None else FREE[role]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Precision:
        """A copy with some fields changed; checked again."""
        return dataclasses.replace(self, **changes)

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Precision:
        """Read `to_dict` back; an unknown role raises."""
        known = (*ROLES, *REACHES, *SWITCHES)
        for name in sorted(set(record) - set(known)):
            raise PlanError(f"precision: unknown role {name!r}; expected some of {', '.join(known)}")
        fields: dict[str, Any] = {k: Register(**v) if isinstance(v, dict) else v for k, v in record.items()}
        return Precision(**fields)


FREE = {"weight": Register(24), "membrane": Register(24), "threshold": Register(24), "trace": Register(16)}
"""Registers of the roles that a mixed plan leaves alone: integers that act like float32; counted as 32 bits."""
