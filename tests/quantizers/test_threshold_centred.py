"""ThresholdCentred: its levels, and membranes that hold them exactly in every reader."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spikequant as sq
from spikequant.law.errors import PlanError
from spikequant.quantizers import ThresholdCentred
from spikequant.readers.registry import verify_readers


@given(st.integers(1, 6), st.booleans(), st.floats(1, 16))
def test_levels_crowd_below_the_threshold(bits, signed, density):
    if signed and bits == 1:
        return
    q = ThresholdCentred(bits, signed=signed, density=density)
    levels, top = q.levels, q.per_threshold
    assert len(levels) == 2**bits
    assert 0 in levels
    assert signed == (min(levels) < 0)
    up = [level for level in levels if level >= 0]
    gaps = [high - low for low, high in itertools.pairwise(up)]
    assert all(later <= before + 1 for before, later in itertools.pairwise(gaps))  # 1: the levels are rounded
    assert min(gaps) > 0
    assert up[-1] < top
    if bits > 1:  # half a further gap is the threshold
        factor = density ** (-1 / (len(up) - 1))
        assert top - up[-1] == pytest.approx(gaps[-1] * factor / 2, abs=1.5)


@pytest.mark.parametrize("fields", [{"bits": 1}, {"bits": 7}, {"bits": 2, "density": 0.5}, {"bits": 2, "signed": 3}])
def test_refuses(fields):
    with pytest.raises(PlanError, match="threshold_centred"):
        ThresholdCentred(**fields)


def plan_with(**membrane):
    role = {"bits": 2, "levels": "threshold_centred", **membrane}
    return sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 6}, "membrane": role}]})


@pytest.mark.parametrize("signed", [False, True])
def test_trains_freezes_and_runs_alike_everywhere(digits, signed, tmp_path):
    model, train, test = copy.deepcopy(digits[0]), *digits[1:]
    x = next(iter(test))[0][:24]
    sq.quantize_(model, plan_with(signed=signed), x, quiet=True)
    sq.calibrate(model, train, max_batches=1)
    sq.fit(model, train, epochs=1, lr=1e-3, quiet=True)
    before = sq.evaluate(model, test)
    assert before.accuracy > 0.7
    sq.freeze(model)
    net = sq.lower(model, x)
    assert sq.verify(model, net, x).differences == 0
    net.save(tmp_path / "net.spq")
    again = sq.IntNet.load(tmp_path / "net.spq")
    codes = sq.readers.golden.encode(again, x.numpy())
    reports = verify_readers(again, codes)
    assert all(report.differences == 0 for report in reports)
    assert max(report.spikes for report in reports) > 0
    node = next(node for node in again.nodes if getattr(node, "spec", None) is not None)
    assert node.spec.v.levels == 4
    stored = sq.readers.golden.run(again, codes).states[node.name]["v"]
    for channel in range(4):
        values = {name: int(np.broadcast_to(v, (16, 1, 1))[channel, 0, 0]) for name, v in node.params.items()}
        levels = [values["v_level0"] + sum(values[f"v_rise{k}"] for k in range(1, n + 1)) for n in range(4)]
        assert set(np.unique(stored[:, :, channel])) <= set(levels)
        theta = values["theta"] / values["v_load"]  # in codes: halfway between the last level and where a next would be
        assert levels[-1] < theta
        assert levels[-1] == pytest.approx(theta * role_table(signed)[-1], abs=1)


def role_table(signed):
    q = ThresholdCentred(2, signed=signed)
    return [level / q.per_threshold for level in q.levels]


@pytest.mark.parametrize(
    ("membrane", "words"),
    [
        ({"limit": 1.0}, "no choice of unit, limit"),
        ({"unit": "weight"}, "no choice of unit"),
        ({"overflow": "wrap"}, "overflow"),
        ({"bits": 5}, "5 bits are too many"),
        ({"options": {"ratio": 2}}, "unknown field 'ratio'"),
        ({"levels": "uniform", "options": {"density": 2}}, "no options"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(digits, membrane, words):
    with pytest.raises(PlanError, match=words):
        sq.quantize_(copy.deepcopy(digits[0]), plan_with(**membrane), next(iter(digits[2]))[0], quiet=True)
