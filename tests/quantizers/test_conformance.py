"""Every quantizer passes the suite, every broken one is caught, and plain dictionaries bring them back."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from spikequant.law.errors import PlanError, Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import ROUNDINGS
from spikequant.quantizers import (
    CLIPPINGS,
    LSQ,
    QUANTIZERS,
    Binary,
    FixedClipping,
    FixedPoint,
    KLClipping,
    LQNet,
    MSEClipping,
    PercentileClipping,
    PowerOfTwo,
    ReScaW,
    SharedScale,
    SigmoidSum,
    SignPowerOfTwo,
    Ternary,
    ThresholdCentred,
    Uniform,
    check_quantizer,
    quantizer_from_dict,
    quantizer_to_dict,
)
from spikequant.quantizers.checks import CHECKS
from spikequant.quantizers.straight_through import round_ste, straight_through

ALL = [
    *(Uniform(bits, grid=grid) for bits in (2, 3, 8, 16) for grid in ("zero_preserving", "symmetric", "full_range")),
    *(Uniform(4, rounding=rounding) for rounding in ROUNDINGS),
    *(Uniform(4, grid="symmetric", rounding=rounding) for rounding in ROUNDINGS),
    Uniform(1, grid="symmetric"),
    Uniform(1, grid="full_range"),
    Uniform(1, signed=False),
    Uniform(8, signed=False, scale_mode="learned"),
    *(Uniform(4, clipping=c) for c in (PercentileClipping(99), MSEClipping(20), KLClipping(64), FixedClipping(1.5))),
    *(FixedPoint(f, r) for f in ("Q1.4", "Q4.4", "UQ0.8", "Q11.16") for r in ("TR", "RN", "SR")),
    FixedPoint("Q2.30"),
    *(PowerOfTwo(bits) for bits in (2, 3, 4, 5)),
    PowerOfTwo(4, clipping=MSEClipping(20), scale_mode="learned"),
    Ternary(),
    Binary(),
    Binary(0.5),
    *(LSQ(bits) for bits in (2, 4, 8, 16)),
    LSQ(1, signed=False),
    LSQ(4, rounding="stochastic"),
    *(SigmoidSum(bits) for bits in (1, 2, 3, 4)),
    SigmoidSum(3, level_set=(-2, -1, 0, 1, 2)),
    SigmoidSum(2, level_set=(-3, -1, 1, 3), start_from="inverse_beta"),
    SigmoidSum(2, level_set=(0, 1, 2), schedule="to_cap"),
    *(SharedScale(bits) for bits in (2, 4, 8)),
    SharedScale(3, start_from="published"),
    *(ReScaW(bits) for bits in (1, 2, 4, 8)),
    SignPowerOfTwo(),
    *(LQNet(bits) for bits in (1, 2, 4, 8)),
    LQNet(3, level_bits=16, momentum=0.5, ridge=1e-2, passes=5),
    *(ThresholdCentred(bits) for bits in (2, 3, 6)),
    ThresholdCentred(1, signed=False),
    ThresholdCentred(4, signed=False, density=16),
]


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_passes(q):
    assert check_quantizer(q) == tuple(CHECKS)


def test_every_registered_class_is_covered():
    assert {type(q) for q in ALL} == set(QUANTIZERS.values())
    assert all(cls.name == name for name, cls in {**QUANTIZERS, **CLIPPINGS}.items())


@dataclass(frozen=True)
class Sound:
    """A 4-bit quantizer that passes; the mutants below each break one thing."""

    name: ClassVar[str] = "sound"
    bits: ClassVar[int] = 4
    scale_mode: ClassVar[str] = "dynamic"
    rounding: ClassVar[str] = "half_even"
    code_format: ClassVar[IntFormat] = IntFormat(bits=4, narrow=True)
    levels: ClassVar[range] = range(-7, 8)

    def fit(self, x, *, channel_axis=None):
        return Uniform(4).fit(x, channel_axis=channel_axis)

    def codes(self, x, scale, *, noise=None):
        return Uniform(4).codes(x, scale)

    def graph_scale(self, scale, x):
        return scale


class Thawed(Sound):
    def __setattr__(self, name, value):
        pass


@dataclass(frozen=True)
class Forgetful(Sound):
    salt: list = field(default_factory=list, hash=False, compare=False)

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


class Lying(Sound):
    levels = range(-8, 8)


class Unsorted(Sound):
    levels = (0, -7, 7)


class Zero(Sound):
    def fit(self, x, *, channel_axis=None):
        return super().fit(x, channel_axis=channel_axis) * bool(x.any())


class Attached(Sound):
    def fit(self, x, *, channel_axis=None):
        return super().fit(x, channel_axis=channel_axis) + 0 * x.sum()


class NanBlind(Sound):
    def fit(self, x, *, channel_axis=None):
        return super().fit(torch.nan_to_num(x, posinf=1.0), channel_axis=channel_axis)


class Fractional(Sound):
    def codes(self, x, scale, *, noise=None):
        return super().codes(x, scale) / 2


class Beyond(Sound):
    def codes(self, x, scale, *, noise=None):
        return round_ste((x / scale).clamp(-9, 9) * 1.1, "half_even")


class Drifting(Sound):
    def codes(self, x, scale, *, noise=None):
        return round_ste(super().codes(x, scale) * 0.7, "half_even")


class Falling(Sound):
    def codes(self, x, scale, *, noise=None):
        return -super().codes(x.abs(), scale)


class Shared(Sound):
    def fit(self, x, *, channel_axis=None):
        return torch.full_like(super().fit(x, channel_axis=channel_axis), super().fit(x).item())


class Detached(Sound):
    def codes(self, x, scale, *, noise=None):
        return super().codes(x, scale.detach())


class Steep(Sound):
    def codes(self, x, scale, *, noise=None):
        return straight_through(super().codes(x, scale), 3 * super().codes(x, scale))


class Counting(Sound):
    loads: int = 0

    def __post_init__(self):
        object.__setattr__(self, "loads", self.loads + 1)


class Doubling(Sound):
    def graph_scale(self, scale, x):
        return scale * 2


MUTANTS = {
    Thawed: "frozen",
    Forgetful: "copies",
    Lying: "describes_levels",
    Unsorted: "describes_levels",
    Zero: "fits_positive",
    Attached: "fits_positive",
    NanBlind: "refuses_nan",
    Fractional: "codes_are_levels",
    Beyond: "codes_are_levels",
    Drifting: "idempotent",
    Falling: "monotone",
    Shared: "channels_are_independent",
    Detached: "gradients_keep_the_contract",
    Steep: "gradients_keep_the_contract",
    Counting: "round_trip",
    Doubling: "graph_scale_keeps_values",
}


for mutant in set(MUTANTS) - {Thawed, Forgetful}:
    dataclass(frozen=True)(mutant)


@pytest.fixture
def sound_registered(monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "sound", Sound)


@pytest.mark.usefixtures("sound_registered")
def test_sound_passes():
    assert check_quantizer(Sound()) == tuple(CHECKS)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught_by_the_check_meant_for_them(mutant, monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "sound", mutant)
    with pytest.raises(Unsupported, match=f"fails check {MUTANTS[mutant]!r}"):
        check_quantizer(mutant())


def test_an_unregistered_class_is_told_where_to_go():
    with pytest.raises(Unsupported, match=r"Sound is not in QUANTIZERS under its name 'sound'; add it to the dict"):
        check_quantizer(Sound())


@pytest.mark.parametrize("q", ALL, ids=repr)
def test_round_trip_through_json(q):
    entries = json.loads(json.dumps(quantizer_to_dict(q)))
    assert quantizer_from_dict(entries) == q
    assert entries["name"] == q.name


def test_a_clipping_may_be_its_name():
    entries = {"name": "uniform", "bits": 4, "clipping": "mse"}
    assert quantizer_from_dict(entries) == Uniform(4, clipping=MSEClipping())
    assert entries["clipping"] == "mse"  # the argument is left alone


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"bits": 4}, "quantizer: name is None; expected one of 'uniform', 'fixed_point'"),
        ({"name": "unifrom", "bits": 4}, "quantizer: name is 'unifrom'"),
        ({"name": "uniform", "bit": 4}, "quantizer 'uniform': unknown field 'bit'; its fields are: bits, grid, signed"),
        ({"name": "uniform"}, "quantizer 'uniform': field 'bits' is missing"),
        ({"name": "ternary", "bits": 2}, "quantizer 'ternary': unknown field 'bits'; its fields are: none"),
        ({"name": "uniform", "bits": 4, "clipping": "most"}, "clipping: name is 'most'; expected one of 'max'"),
        (
            {"name": "uniform", "bits": 4, "clipping": {"name": "mse", "bins": 9}},
            "clipping 'mse': unknown field 'bins'; its fields are: grid",
        ),
        ({"name": "uniform", "bits": 4, "clipping": 3}, "uniform: clipping is 3; expected an instance of MaxClipping"),
    ],
)
def test_refused_dictionaries(entries, text):
    with pytest.raises(PlanError, match=text):
        quantizer_from_dict(entries)
