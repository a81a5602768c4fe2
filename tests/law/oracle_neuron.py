"""One neuron, one step, in plain Python integers and fractions: what the words of the spec say.

Written from the prose (law/spec.py, law/neurons.py's unit table, DESIGN section 1), not from
the law's code; it imports nothing of it and uses no numpy.
"""

from __future__ import annotations

import math
from fractions import Fraction

MASK = 0xFFFFFFFF
ROLES = {"v": 0, "i": 1, "a": 2, "x": 3}


def fmix(h):
    """The 32-bit finaliser of MurmurHash3."""
    h ^= h >> 16
    h = h * 0x85EBCA6B & MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def noise_word(*, seed, layer, role, step, sample, neuron):
    """The word of rounding noise at one position."""
    h = 0
    for part in (seed, layer, ROLES[role], step, sample, neuron):
        h = fmix(h ^ (part * 0x9E3779B1 + 0x7F4A7C15 & MASK))
    return h


def rounded(q, how, *, word=0, cut=0):
    """The integer that a fraction becomes; `cut` is the number of binary digits that go."""
    q = Fraction(q)
    if how == "floor":
        return math.floor(q)
    if how == "toward_zero":
        return math.trunc(q)
    if how == "half_even":
        return round(q)
    if how == "half_up":
        return math.floor(q + Fraction(1, 2))
    if how == "half_away":
        return math.floor(abs(q) + Fraction(1, 2)) * (-1 if q < 0 else 1)
    assert how == "stochastic", how
    return math.floor(q + Fraction(word % 2**cut, 2**cut))


def held(code, register):
    """What a register holds of an integer."""
    bits, signed, narrow = register.format.bits, register.format.signed, register.format.narrow
    low = -(2 ** (bits - 1)) + (1 if narrow else 0) if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    if register.overflow == "wrap":
        code = (code - low) % 2**bits + low
    return min(max(code, low), high)


def shrunk(value, leak, amount, amount2):
    """A leak that ends on the grid on which it began."""
    how = leak.rounding or "floor"
    if leak.form == "multiply":
        return rounded(Fraction(value * amount, 2**leak.bits), how)
    if leak.form == "constant_signed":
        return value - amount
    if leak.form == "constant":
        return max(value - amount, 0) if value >= 0 else min(value + amount, 0)
    less = rounded(Fraction(value, 2**amount), how)
    if leak.form == "shift_forced" and less == 0:
        less = (value > 0) - (value < 0)
    if leak.form == "two_shifts":
        return value - less - rounded(Fraction(value, 2**amount2), how)
    return value - less


class Register:
    """A state during a step: the code as stored, until something adds to it."""

    def __init__(self, name, spec, params, code):
        self.name, self.code = name, code
        self.kind = getattr(spec, name)
        self.load, self.shift = params[f"{name}_load"], params[f"{name}_shift"]
        self.factor = params.get(f"{name}_mul", 1)
        self.value, self.cut = Fraction(code * self.load), 0

    def put(self, value):
        """A value in accumulator LSBs."""
        self.value, self.code = Fraction(value), None

    def put_code(self, code):
        """A value on the stored grid."""
        self.value, self.code = Fraction(code * self.load), code

    def leak(self, leak, amount, amount2):
        """Decay by the form that the spec names."""
        if leak.form == "none":
            return
        if leak.form == "multiply" and leak.rounding is None:
            self.cut += 0 if self.code is not None else leak.bits
            self.put(self.value * amount / 2**leak.bits)
            assert self.cut or self.value.denominator == 1, "the exact leak product is no whole number of LSBs"
        elif self.code is not None and leak.form not in ("constant", "constant_signed"):
            self.put_code(shrunk(self.code, leak, amount, amount2))
        else:
            assert self.value.denominator == 1
            self.put(shrunk(int(self.value), leak, amount, amount2))

    def narrow(self, word):
        """Round to the register's grid, once, and hold what fits."""
        if self.code is None:
            q = self.value * self.factor / 2**self.shift
            random = word(self.name) if self.kind.rounding == "stochastic" else 0
            whole = rounded(q, self.kind.rounding, word=random, cut=self.shift + self.cut)
            self.put_code(whole)
            self.cut = 0
        self.put_code(held(self.code, self.kind))
        return self.code


def neuron_step(spec, params, old, x, word, tick):
    """``(new states, output, facts)`` of one neuron.

    `params` and `old` are plain integers by name, `x` the input sum, `word(state)` the noise,
    `tick` whether the adaptive threshold decays now.  `facts` counts rare events.
    """
    p = params
    v = Register("v", spec, p, old["v"])
    i = Register("i", spec, p, old["i"]) if "add_current" in spec.order else None
    a, spikes = old.get("a"), 0
    waiting = spec.refractory > 0 and old["r"] > 0
    facts = {"equal": 0, "clipped": 0, "reset": 0}

    def raised():
        return 0 if a is None else (a >> p["a_shift"]) * p.get("a_load", 1)

    def after_reset(value):
        if spec.reset == "subtract":
            return value - p["reset"] - (raised() if spec.adapt_in_reset else 0)
        return p["reset"]

    for phase in spec.order:
        if phase == "decay_current":
            i.leak(spec.leak_i, p.get("leak_i"), p.get("leak_i2"))
        elif phase == "add_current":
            i.put(i.value + x + p.get("bias", 0))
        elif phase == "narrow_current":
            i.narrow(word)
        elif phase == "narrow_input":
            if spec.x is not None:
                random = word("x") if spec.x.rounding == "stochastic" else 0
                x = rounded(Fraction(x, 2 ** p["x_shift"]), spec.x.rounding, word=random, cut=p["x_shift"])
                x = held(x, spec.x) * p["x_load"]
        elif phase == "leak":
            v.leak(spec.leak, p.get("leak"), p.get("leak2"))
        elif phase == "leak_unless_fired":
            if not spikes:
                v.leak(spec.leak, p.get("leak"), p.get("leak2"))
            v.put(v.value)
        elif phase == "integrate":
            drive = (x + p.get("bias", 0) if i is None else i.value) + p.get("v_bias", 0)
            v.put(v.value + (0 if waiting else drive))
            if waiting and spec.refractory_mode == "hold_zero":
                v.put(0)
        elif phase == "bound":
            if v.value < p["floor"]:
                v.put(p["floor"] if spec.lower == "floor" else 0)
            else:
                v.put(v.value)
        elif phase == "narrow":
            v.narrow(word)
        elif phase == "decay_threshold":
            if tick:
                a = decayed_threshold(spec, p, a, word)
        elif phase == "fire":
            for _ in range(spec.spikes_max):
                theta = p["theta"] + raised()
                facts["equal"] += v.value == theta
                fires = v.value >= theta
                spikes += fires
                if spec.spikes_max > 1:
                    v.put(after_reset(v.value) if fires else v.value)
        elif phase in ("reset", "reset_delayed"):
            fired = spikes if phase == "reset" else old["s"]
            facts["reset"] += bool(fired)
            if spec.reset == "zero" and v.code is not None:
                v.put_code(0 if fired else v.code)
            else:
                v.put((0 if spec.reset == "zero" else after_reset(v.value)) if fired else v.value)
        elif phase == "raise_threshold":
            a = held(a + spikes * p["adapt"], spec.a)
        else:
            raise AssertionError(phase)

    new = {"v": v.narrow(word)}
    facts["clipped"] += (
        new["v"] in (held(-(2**70), spec.v), held(2**70, spec.v)) if spec.v.overflow == "saturate" else 0
    )
    if i is not None:
        new["i"] = i.narrow(word)
    if a is not None:
        new["a"] = a
    if spec.output == "state":
        return new, new["v"], facts
    if "reset_delayed" in spec.order:
        new["s"] = spikes
    if spec.refractory:
        new["r"] = spec.refractory if spikes else max(old["r"] - 1, 0)
    return new, spikes, facts


def decayed_threshold(spec, p, a, word):
    """The stored adaptive threshold after its decay."""
    leak = spec.leak_a
    if leak.form == "none":
        return a
    if leak.form != "multiply":
        return shrunk(a, leak, p["leak_a"], p.get("leak_a2"))
    how = leak.rounding or spec.a.rounding
    random = word("a") if how == "stochastic" else 0
    return rounded(Fraction(a * p["leak_a"], 2**leak.bits), how, word=random, cut=leak.bits)
