"""The space of an exploration: what it holds, how many candidates there are, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.explore import Candidate, Space
from spikequant.law.errors import PlanError

RULE: dict[str, Any] = {
    "match": "*",
    "weight": {"bits": [1, 2, 4, "float"], "quantizer": ["uniform", "lsq", "ternary"], "clipping": ["max", "mse"]},
    "membrane": {"bits": [4, 8], "rounding": ["floor", "stochastic"]},
    "leak": {"form": ["multiply", "shift"], "bits": [4, 8]},
}
WIDE: dict[str, Any] = {"scheme": ["ptq", "qat"], "epochs": [1, 2], "steps": [4, 8], "rules": [RULE]}


def test_size_counts_different_candidates_only() -> None:
    # scheme: ptq, qat 1, qat 2. weight: binary, ternary, float, uniform 2 and 4 times two clippings, lsq 2 and 4.
    space = Space.from_dict(WIDE)
    assert {factor.name: len(factor.options) for factor in space.factors} == {
        "scheme": 3, "steps": 2, "*:weight": 9, "*:membrane": 4, "*:leak": 3
    }  # fmt: skip
    assert space.size == 3 * 2 * 9 * 4 * 3
    keys = [candidate.key for candidate in space.candidates()]
    assert len(set(keys)) == len(keys) == space.size


@given(index=st.integers(0, 647))
def test_a_number_a_point_and_a_candidate_are_one_thing(index: int) -> None:
    space = Space.from_dict(WIDE)
    point = space.point_at(index)
    assert set(point) == {axis.name for axis in space.axes}
    assert space.candidate(point) == space.at(index)
    space.at(index).plan()  # every candidate has a plan


@given(data=st.data())
@settings(max_examples=50)
def test_every_choice_of_the_axes_is_a_candidate(data: st.DataObject) -> None:
    space = Space.from_dict(WIDE)
    point = {axis.name: data.draw(st.sampled_from(axis.choices), label=axis.name) for axis in space.axes}
    found = space.candidate(point)
    assert any(found == candidate for candidate in space.candidates())


def test_what_does_not_matter_is_left_out() -> None:
    space = Space.from_dict(WIDE)
    point = {"scheme": "ptq", "epochs": 2, "steps": 4, "*:weight.bits": 4, "*:weight.quantizer": "ternary",
             "*:weight.clipping": "mse", "*:membrane.bits": 4, "*:membrane.rounding": "floor",
             "*:leak.form": "shift", "*:leak.bits": 4}  # fmt: skip
    assert dict(space.candidate(point).settings) == {
        "*:leak.form": "shift", "*:membrane.bits": 4, "*:membrane.rounding": "floor",
        "*:weight.quantizer": "ternary", "scheme": "ptq", "steps": 4,
    }  # fmt: skip


def test_a_role_may_stay_real() -> None:
    space = Space.from_dict({"rules": [{"match": "fc*", "weight": {"bits": [4, "float"]}, "membrane": "float"}]})
    assert [candidate.plan().layer("fc1").asked() for candidate in space.candidates()] == [("weight",), ()]


def test_tables_side_by_side() -> None:
    either = [
        {"quantizer": "fixed_point", "options": {"format": ["Q1.4", "Q1.2"]}, "rounding": ["floor", "half_up"]},
        {"bits": [4]},
    ]
    space = Space.from_dict({"rules": [{"match": "*", "weight": either}]})
    assert [axis.choices for axis in space.axes] == [
        (
            "options {\"format\": \"Q1.4\"}, quantizer fixed_point, rounding floor",
            "options {\"format\": \"Q1.4\"}, quantizer fixed_point, rounding half_up",
            "options {\"format\": \"Q1.2\"}, quantizer fixed_point, rounding floor",
            "options {\"format\": \"Q1.2\"}, quantizer fixed_point, rounding half_up",
            "bits 4, quantizer uniform",
        )
    ]  # fmt: skip
    assert space.at(2).plan().layer("fc").weight == space.candidate(space.point_at(2)).plan().layer("fc").weight
    assert space.at(2).plan().layer("fc").weight.build("fc").bits == 3  # type: ignore[union-attr]


def test_within_keeps_some_options() -> None:
    space = Space.from_dict(WIDE)
    small = space.within({"*:membrane": [1, 3], "scheme": [0]})
    assert small.size == 2 * 9 * 2 * 3
    assert {c.settings["*:membrane.rounding"] for c in small.candidates()} == {"stochastic"}
    assert {c.key for c in small.candidates()} < {c.key for c in space.candidates()}
    assert small.candidate(small.point_at(7)) == small.at(7)


def test_fields_before_the_plan_are_found_by_layer() -> None:
    candidate = Candidate({"*:leak.form": "shift", "lif2:leak.form": "multiply", "*:weight.sparsity": 0.5})
    assert [candidate.of_layer(name, "leak", "form") for name in ("lif1", "lif2")] == ["shift", "multiply"]
    assert candidate.of_layer("fc", "weight", "sparsity") == 0.5
    assert candidate.plan().rules == ()


def test_files(tmp_path: Path) -> None:
    toml = 'scheme = ["ptq", "qat"]\nepochs = 1\n[[rules]]\nmatch = "*"\nweight = { bits = [2, 4] }\n'
    (tmp_path / "space.toml").write_text(toml)
    record = {"scheme": ["ptq", "qat"], "epochs": 1, "rules": [{"match": "*", "weight": {"bits": [2, 4]}}]}
    (tmp_path / "space.json").write_text(json.dumps(record))
    one, other = Space.load(tmp_path / "space.toml"), Space.load(tmp_path / "space.json")
    assert one.key() == other.key() == Space.from_dict(record).key()
    assert one.size == 4
    (tmp_path / "space.toml").write_text(toml.replace("bits", "bitz"))
    with pytest.raises(PlanError, match=r"space.toml: space: rule '\*': weight: unknown field 'bitz'"):
        Space.load(tmp_path / "space.toml")
    with pytest.raises(PlanError, match="cannot read the space"):
        Space.load(tmp_path / "absent.toml")
    (tmp_path / "space.toml").write_text("[[rules")
    with pytest.raises(PlanError, match="not valid TOML"):
        Space.load(tmp_path / "space.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rulez": []}, "unknown field 'rulez'; expected some of rules, scheme"),
        ({"rules": []}, "field 'rules'"),
        ({"rules": [{"match": "*", "wait": {"bits": 4}}]}, "unknown field 'rules.0.wait'; expected some of match, weight"),
        ({"rules": [{"match": "*"}]}, "names no role"),
        ({"rules": [{"match": "*", "weight": 7}]}, "weight: got 7; expected a table"),
        ({"rules": [{"match": "*", "weight": []}]}, "weight: an empty list"),
        ({"rules": [{"match": "*", "weight": {"bits": []}}]}, "weight.bits: got \\[\\]"),
        ({"rules": [{"match": "*", "weight": {"bits": [4, 4]}}]}, "weight.bits: got \\[4, 4\\]; expected one value, or a list of different"),
        ({"rules": [{"match": "*", "weight": {"bits": [4, 40]}}]}, "weight.bits.*less than or equal to 32, got 40"),
        ({"rules": [{"match": "*", "weight": {"bits": 17}}]}, "weight: uniform: bits is 17"),
        ({"rules": [{"match": "*", "weight": {"quantizer": "ternary", "bits": 4}}]}, "'bits' changes nothing"),
        ({"rules": [{"match": "*", "weight": {"bits": 4, "quantizer": "fine"}}]}, "name is 'fine'"),
        ({"rules": [{"match": "*", "weight": {"bits": 4, "sparsity": 1.0}}]}, "sparsity: got 1.0"),
        ({"rules": [{"match": "*", "membrane": {"bits": 4, "rounding": "near"}}]}, "membrane.rounding"),
        ({"rules": [{"match": "*", "membrane": {"rounding": "floor"}}]}, "membrane.bits': field required"),
        ({"rules": [{"match": "*", "leak": {"form": "cubic"}}]}, "leak.form: got 'cubic'; expected one of multiply"),
        ({"rules": [RULE, {"match": "*", "weight": {"bits": 4}}]}, "given twice"),
        ({"scheme": "best"}, "field 'scheme.0'"),
        ({"scheme": ["ptq"]}, "epochs need one of them"),
        ({"epochs": []}, "need epochs"),
        ({"epochs": [0]}, "field 'epochs': got 0; expected 1"),
        ({"steps": [4, 4]}, "field 'steps': got \\[4, 4\\]"),
        ({"sparsity": [1.5]}, "field 'sparsity'"),
    ],
)  # fmt: skip
def test_mistakes_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Space.from_dict({**WIDE, **change})
