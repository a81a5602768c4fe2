"""Plans: rules, files, and messages that name the field."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.law.errors import PlanError
from spikequant.nn import LIF
from spikequant.plan import ROLES, LayerPlan, Plan, StateRole, TensorRole

FULL = {
    "fraction_bits": 6,
    "seed": 7,
    "rules": [
        {
            "match": "conv*",
            "weight": {"quantizer": "uniform", "bits": 4, "clipping": {"name": "percentile", "percent": 99.5}, "options": {"grid": "full_range"}},
            "membrane": {"bits": 8, "signed": False, "rounding": "stochastic", "limit": 2.5, "attach": "before_fire"},
            "threshold": {"quantizer": "fixed_point", "options": {"format": "Q4.4"}},
        },
        {"match": "*", "weight": {"quantizer": "binary"}, "leak": {"bits": 3, "rounding": "floor"}, "input": {"bits": 5}, "bias": {"bits": 6}, "current": {"bits": 7}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("ending", [".toml", ".json"])
def test_files_round_trip(tmp_path, ending):
    plan = Plan.from_dict(FULL)
    plan.save(tmp_path / f"plan{ending}")
    again = Plan.load(tmp_path / f"plan{ending}")
    assert again == plan
    assert again.to_dict() == plan.to_dict()
    assert (again.seed, again.fraction_bits) == (7, 6)
    assert again.rules[0].weight.options == {"grid": "full_range"}
    assert again.rules[0].membrane.limit == 2.5


def test_defaults_are_written_and_read():
    plan = Plan.from_dict({"rules": [{"match": "*", "membrane": {"bits": 4}}]})
    assert plan.layer("any").membrane == StateRole(
        bits=4, signed=True, rounding="auto", overflow="saturate", limit=None
    )
    assert json.loads(json.dumps(plan.to_dict()))["rules"][0]["membrane"]["rounding"] == "auto"


def test_the_first_match_wins():
    plan = Plan.from_dict(
        {
            "rules": [
                {"match": "a.?", "weight": {"bits": 2}},
                {"match": "a.*", "weight": {"bits": 3}},
                {"match": "*", "weight": {"bits": 8}},
            ]
        }
    )
    assert [plan.layer(name).weight.bits for name in ("a.1", "a.12", "b")] == [2, 3, 8]
    assert Plan().layer("b") == LayerPlan()
    assert plan.layer("a.1").asked() == ("weight",)
    assert not plan.rules[0].matches("A.1")


def test_uniform_asks_for_what_is_given():
    plan = Plan.uniform(
        weight_bits=4, membrane_bits=8, input_bits=3, leak_bits=5, threshold_bits=6, bias_bits=7, current_bits=9
    )
    layer = plan.layer("x")
    assert layer.asked() == ROLES
    assert [getattr(layer, role).bits for role in ROLES] == [4, 7, 3, 9, 8, 6, 5]
    assert Plan.uniform() == Plan()
    assert Plan.uniform(weight_bits=1).layer("x").weight.quantizer == "binary"
    assert Plan.uniform(weight_quantizer="ternary").layer("x").weight.quantizer == "ternary"
    lsq = Plan.uniform(weight_bits=2, weight_quantizer="lsq").layer("x").weight
    assert lsq.build("x").bits == 2


BAD = {
    "unknown role": ({"rules": [{"match": "*", "wieght": {"bits": 4}}]},
                     "plan: unknown field 'rules.0.wieght'; expected some of weight, bias, input, current, membrane, threshold, leak, match"),
    "unknown field of the plan": ({"rulez": []}, "plan: unknown field 'rulez'; expected some of rules, fraction_bits, seed, target"),
    "unknown field of a weight": ({"rules": [{"match": "*", "weight": {"bitz": 4}}]},
                                  "plan: unknown field 'rules.0.weight.bitz'; expected some of quantizer, bits, per_channel, clipping"),
    "unknown field of a state": ({"rules": [{"match": "*", "membrane": {"bits": 4, "quantizer": "lsq"}}]},
                                 "plan: unknown field 'rules.0.membrane.quantizer'; expected some of bits, signed, narrow, rounding"),
    "unknown field of a leak": ({"rules": [{"match": "*", "leak": {"width": 4}}]}, "expected some of bits, rounding, quantizer, options"),
    "no pattern": ({"rules": [{"weight": {"bits": 4}}]}, "plan: field 'rules.0.match': field required"),
    "too few bits": ({"rules": [{"match": "*", "weight": {"bits": 0}}]},
                     "plan: field 'rules.0.weight.bits': input should be greater than or equal to 1, got 0"),
    "too many bits": ({"rules": [{"match": "*", "membrane": {"bits": 33}}]}, "plan: field 'rules.0.membrane.bits': input should be less than or equal to 32, got 33"),
    "no bits": ({"rules": [{"match": "*", "membrane": {"signed": True}}]}, "plan: field 'rules.0.membrane.bits': field required"),
    "text for bits": ({"rules": [{"match": "*", "weight": {"bits": "four"}}]}, "field 'rules.0.weight.bits': input should be a valid integer"),
    "rounding": ({"rules": [{"match": "*", "membrane": {"bits": 4, "rounding": "nearest"}}]}, "plan: field 'rules.0.membrane.rounding': input should be 'floor', 'toward_zero', 'half_up', 'half_away', 'half_even' or 'stochastic', or input should be 'auto', got 'nearest'"),
    "clipping": ({"rules": [{"match": "*", "weight": {"bits": 4, "clipping": 3}}]}, "plan: field 'rules.0.weight.clipping': input should be a valid string, or input"),
    "overflow": ({"rules": [{"match": "*", "membrane": {"bits": 4, "overflow": "clamp"}}]}, "'saturate' or 'wrap', got 'clamp'"),
    "limit": ({"rules": [{"match": "*", "membrane": {"bits": 4, "limit": 0}}]}, "field 'rules.0.membrane.limit': input should be greater than 0"),
    "seed": ({"seed": -1}, "plan: field 'seed': input should be greater than or equal to 0, got -1"),
    "fraction bits": ({"fraction_bits": 25}, "plan: field 'fraction_bits': input should be less than or equal to 24, got 25"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_name_the_field(case):
    record, message = BAD[case]
    with pytest.raises(PlanError, match=re.escape(message)):
        Plan.from_dict(record)


def test_two_mistakes_are_both_told():
    with pytest.raises(PlanError) as caught:
        Plan.from_dict({"seed": -1, "rules": [{"match": "*", "x": 1}]})
    assert "'seed'" in str(caught.value)
    assert "'rules.0.x'" in str(caught.value)


def test_plans_cannot_be_changed():
    plan = Plan.uniform(weight_bits=4)
    with pytest.raises(ValueError, match="frozen"):
        plan.seed = 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.toml", "rules = [", "plan.toml is not valid TOML"),
        ("plan.json", "{", "plan.json is not valid JSON"),
        ("plan.toml", "seed = -1", "plan.toml: plan: field 'seed'"),
        ("plan.json", '{"rules": 3}', "plan.json: plan: field 'rules'"),
    ],
)
def test_files_with_mistakes_name_the_file(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(PlanError, match=re.escape(message)):
        Plan.load(tmp_path / name)


def test_a_missing_file():
    with pytest.raises(PlanError, match="cannot read the plan /nowhere/plan.toml: "):
        Plan.load("/nowhere/plan.toml")


def test_a_binary_file_and_a_list(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="is not valid JSON"):
        Plan.load(tmp_path / "plan.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(PlanError, match="list.json: plan: field 'plan'"):
        Plan.load(tmp_path / "list.json")


QUANTIZERS = {
    "unknown quantizer": ({"quantizer": "lqq", "bits": 4}, "fc.weight: quantizer: name is 'lqq'; expected one of 'uniform', 'fixed_point'"),
    "unknown option": ({"bits": 4, "options": {"gird": "symmetric"}}, "fc.weight: quantizer 'uniform': unknown field 'gird'; its fields are: bits, grid"),
    "bits of ternary": ({"quantizer": "ternary", "bits": 4}, "fc.weight: quantizer 'ternary': unknown field 'bits'"),
    "missing bits": ({}, "fc.weight: quantizer 'uniform': field 'bits' is missing; its fields are: bits"),
    "too many bits": ({"bits": 17}, "fc.weight: uniform: bits is 17; expected an integer from 1 to 16"),
    "clipping": ({"bits": 4, "clipping": "best"}, "fc.weight: clipping: name is 'best'; expected one of "),
    "rounding": ({"bits": 4, "rounding": "up"}, "fc.weight: uniform: rounding is 'up'; expected one of "),
}  # fmt: skip


@pytest.mark.parametrize("case", QUANTIZERS)
def test_quantizer_mistakes_name_the_layer(case):
    role, message = QUANTIZERS[case]
    with pytest.raises(PlanError, match=re.escape(message)):
        TensorRole(**role).build("fc.weight")


# -- rules against a model -------------------------------------------------------------------


def model():
    net = nn.Sequential()
    net.add_module("fc1", nn.Linear(4, 5))
    net.add_module("lif1", LIF())
    net.add_module("fc2", nn.Linear(5, 2))
    net.add_module("lif2", LIF())
    return net


def quantize(record, net=None):
    example = torch.ones(3, 2, 4)
    return sq.quantize_(net if net is not None else model(), Plan.from_dict(record), example, quiet=True)


UNUSED = {
    "matches nothing": ([{"match": "conv*", "weight": {"bits": 4}}], "plan: the rule 'conv*' matches no layer; there are fc1, lif1, fc2, lif2"),
    "never used": ([{"match": "*", "weight": {"bits": 4}}, {"match": "fc1", "weight": {"bits": 8}}],
                   "plan: the rule 'fc1' is never used; rules above it match all of its layers first"),
    "weight of a neuron": ([{"match": "lif*", "weight": {"bits": 4}}], "plan: the role 'weight' of the rule 'lif*' applies to none of lif1, lif2"),
    "membrane of a layer": ([{"match": "fc*", "weight": {"bits": 4}, "membrane": {"bits": 4}}],
                            "plan: the role 'membrane' of the rule 'fc*' applies to none of fc1, fc2"),
    "leak of a layer": ([{"match": "fc1", "leak": {"bits": 4}}], "plan: the role 'leak' of the rule 'fc1' applies to none of fc1"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSED)
def test_rules_and_roles_that_apply_to_nothing(case):
    rules, message = UNUSED[case]
    net = model()
    with pytest.raises(PlanError, match=re.escape(message)):
        quantize({"rules": rules}, net)
    assert all(type(m) is not sq.nn.Synapse for m in net.modules())


def test_a_rule_without_roles_keeps_layers_as_they_are():
    net = model()
    report = quantize(
        {
            "rules": [
                {"match": "fc2"},
                {"match": "lif2"},
                {"match": "*", "weight": {"bits": 4}, "membrane": {"bits": 8}},
            ]
        },
        net,
    )
    assert isinstance(net.fc1, sq.nn.Synapse)
    assert type(net.fc2) is nn.Linear
    assert {r.module: r.note for r in report.skipped} == {
        "fc2": "no rule of the plan asks for it",
        "lif2": "no rule of the plan asks for it",
    }


def test_a_mistake_in_a_late_layer_leaves_the_model_alone():
    net = model()
    with pytest.raises(PlanError, match="fc2.weight: uniform: bits is 20"):
        quantize({"rules": [{"match": "fc2", "weight": {"bits": 20}}, {"match": "*", "weight": {"bits": 4}}]}, net)
    assert [type(m).__name__ for m in net] == ["Linear", "Neuron", "Linear", "Neuron"]


def test_a_misspelt_option_is_told_with_the_nearest_one():
    with pytest.raises(PlanError, match=r"no option 'mebrane_bits'; expected some of .* Did you mean membrane_bits\?"):
        Plan.uniform(mebrane_bits=4)


def test_levels_of_a_membrane_need_its_bits():
    with pytest.raises(PlanError, match="membrane_levels='learned' needs membrane_bits"):
        Plan.uniform(weight_bits=4, membrane_levels="learned")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ({"membrane_signed": False}, "membrane_signed=False.* needs membrane_bits"),
        ({"weight_bits": 4, "membrane_rounding": "floor"}, "membrane_rounding='floor'.* needs membrane_bits"),
        ({"membrane_bits": 4, "weight_clipping": "max"}, "weight_clipping='max' needs weight_bits"),
    ],
)
def test_what_is_said_of_a_role_without_bits_is_refused(words, needed):
    with pytest.raises(PlanError, match=needed):
        Plan.uniform(**words)
