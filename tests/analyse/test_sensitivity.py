"""Five methods behind one interface: what they measure, what bits follow, and how they stand side by side."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.analyse import SENSITIVITY_METHODS, allocation, measured_rises, side_by_side
from spikequant.analyse.layer_facts import weight_role
from spikequant.law.errors import DataError, PlanError, Unsupported
from spikequant.measure import emd

WIDTHS = {"weight_widths": (2, 4, 8), "membrane_widths": (4, 8)}


class Net(nn.Module):
    """Two layers of neurons and a readout; everything fires."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.l1 = nn.Linear(8, 12), sq.nn.LIF()
        self.b, self.l2 = nn.Linear(12, 10), sq.nn.LIF()
        self.c = nn.Linear(10, 3)
        with torch.no_grad():
            self.a.weight.mul_(3)
            self.b.weight.mul_(3)

    def forward(self, x):
        return self.c(self.l2(self.b(self.l1(self.a(x))))).mean(0)


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    return (torch.rand(6, 24, 8) < 0.5).float(), torch.arange(24) % 3


@pytest.fixture(scope="module")
def found(batch):
    result = {}
    for method in SENSITIVITY_METHODS:
        options = WIDTHS if method.endswith("rise") else {"most_probes": 40}
        result[method] = sq.sensitivity(Net(), F.cross_entropy, [batch], method=method, **options)
    return result


def test_the_loss_rise_is_that_of_one_layer_quantized_alone(batch):
    model = Net()
    rises = measured_rises(model, F.cross_entropy, [batch], calibrated=False, **WIDTHS)
    alone = copy.deepcopy(model)
    role = weight_role(2).model_dump(mode="json", exclude_none=True)
    sq.quantize_(alone, sq.Plan.from_dict({"rules": [{"match": "b", "weight": role}]}), batch[0], quiet=True)
    with torch.no_grad():
        before = F.cross_entropy(model(batch[0]), batch[1], reduction="none").double()
        after = F.cross_entropy(alone(batch[0]), batch[1], reduction="none").double()
    row = next(r for r in rises.rows if (r.layer, r.role, r.bits) == ("b", "weight", 2))
    assert row.rise == pytest.approx(float((after - before).mean()), rel=1e-5)
    assert row.standard_error == pytest.approx(float((after - before).std() / 24**0.5), rel=1e-4)
    assert row.rise != 0
    assert rises.before == pytest.approx(float(before.mean()))


def test_the_emd_rise_is_that_of_compare(batch):
    model = Net()
    rises = measured_rises(model, F.cross_entropy, [batch], measure="emd", calibrated=False, **WIDTHS)
    alone = copy.deepcopy(model)
    role = weight_role(2).model_dump(mode="json", exclude_none=True)
    sq.quantize_(alone, sq.Plan.from_dict({"rules": [{"match": "a", "weight": role}]}), batch[0], quiet=True)
    layers = sq.compare(model, alone, [batch]).layers
    row = next(r for r in rises.rows if (r.layer, r.role, r.bits) == ("a", "weight", 2))
    assert row.rise == pytest.approx(np.mean([emd(layer.reference_rates, layer.rates) for layer in layers]), rel=1e-5)
    assert row.rise > 0
    assert row.standard_error > 0


def test_more_bits_are_never_expected_to_be_worse(found):
    for method in ("loss-rise", "emd-rise"):
        for layer, role in found[method].places():
            scores = [found[method].expected_rise(layer, role, b).value for b in found[method].widths(layer, role)]
            assert scores == sorted(scores, reverse=True)
            assert scores[-1] >= 0


def test_the_model_is_left_as_it_was(batch):
    model = Net().train()
    before = copy.deepcopy(model.state_dict())
    for method in ("loss-rise", "emd-rise"):
        sq.sensitivity(model, F.cross_entropy, [batch], method=method, weight_widths=(2,), membrane_widths=(4,))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert type(model.l1) is type(Net().l1)


@pytest.mark.parametrize("method", SENSITIVITY_METHODS)
def test_bits_are_chosen_by_any_method(found, batch, method):
    sensitivities = found[method]
    chosen = allocation(sensitivities, "0.2x")
    assert chosen.share <= 0.2
    for (layer, role), bits in chosen.allocation.bits.items():
        assert bits in sensitivities.allocatable().widths(layer, role)
    quantized = Net()
    sq.quantize_(quantized, chosen.plan, batch[0], quiet=True)
    wider = allocation(sensitivities, "0.3x").allocation.rise
    assert wider <= chosen.allocation.rise


def test_a_width_that_was_not_tried_is_refused(found):
    with pytest.raises(PlanError, match=r"a weight: 3 bits; known: \[2, 4, 8\]"):
        allocation(found["loss-rise"], "0.2x", weight_widths=(3,))
    with pytest.raises(PlanError, match="not tried at 5 bits, only at 2, 4, 8"):
        found["loss-rise"].expected_rise("a", "weight", 5)


def test_methods_stand_side_by_side(found):
    rows = side_by_side(list(found.values()), weight_bits=2, membrane_bits=4)
    assert {row.method for row in rows} == set(SENSITIVITY_METHODS)
    for method in SENSITIVITY_METHODS:
        for role, layers in (("weight", {"a", "b", "c"}), ("membrane", {"l1", "l2"})):
            mine = [row for row in rows if (row.method, row.role) == (method, role)]
            assert {row.layer for row in mine} == layers
            assert sorted(row.rank for row in mine) == list(range(1, len(mine) + 1))
            assert max(abs(row.share) for row in mine) == pytest.approx(1.0)
            assert [r.layer for r in sorted(mine, key=lambda r: -r.score)] == [
                r.layer for r in sorted(mine, key=lambda r: r.rank)
            ]
    assert {row.bits for row in rows if row.role == "weight"} == {2}
    with pytest.raises(DataError, match="different methods, got fisher, fisher"):
        side_by_side([found["fisher"], found["fisher"]])


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"method": "hesian"}, Unsupported, "Did you mean hessian"),
        ({"method": "loss-rise", "most_probes": 4}, Unsupported, "has no option 'most_probes'"),
        ({"method": "fisher", "mst_probes": 4}, Unsupported, "Did you mean most_probes"),
        ({"method": "loss-rise", "roles": ("threshold",)}, Unsupported, "in the roles weight and membrane"),
        ({"method": "emd-rise", "roles": "weight"}, Unsupported, "as a tuple"),
        (
            {"method": "loss-rise", "weight_widths": (0, 8)},
            PlanError,
            r"weight_widths=\(0, 8\); expected whole bits, 1 to",
        ),
        ({"method": "loss-rise", "weight_widths": 4}, PlanError, "weight_widths=4; expected whole bits"),
        ({"method": "emd-rise", "membrane_widths": (4.0,)}, PlanError, "expected whole bits, 1 to 32"),
    ],
)
def test_wrong_options_are_refused(batch, options, kind, text):
    with pytest.raises(kind, match=text):
        sq.sensitivity(Net(), F.cross_entropy, [batch], **options)


def test_no_data_and_a_loss_of_nan_are_refused(batch):
    with pytest.raises(DataError, match="no batch"):
        sq.sensitivity(Net(), F.cross_entropy, [], method="loss-rise")
    with pytest.raises(DataError, match="not finite"):
        sq.sensitivity(Net(), lambda o, y: o.sum() * float("nan"), [batch], method="loss-rise")


@pytest.mark.parametrize("method", ["gauss-newton", "loss-rise"])
def test_what_model_and_loss_cannot_take_is_told(batch, method):
    x, y = batch

    def tried(model, loss, rows):
        sq.sensitivity(model, loss, rows, method=method)

    with pytest.raises(
        DataError, match=r"the loss cannot take scores of shape .* and targets .*int64: .*out of bounds"
    ):
        tried(Net(), F.cross_entropy, [(x, y + 7)])
    with pytest.raises(DataError, match="torch.float32"):
        tried(Net(), F.cross_entropy, [(x, y.float())])
    with pytest.raises(DataError, match="the loss gave float"):
        tried(Net(), lambda out, y: 3.0, [batch])
    with pytest.raises(DataError, match="an input of shape"):
        tried(Net(), F.cross_entropy, [(x[:, :, :4], y)])
    with pytest.raises(DataError, match="expected a torch nn.Module"):
        tried(lambda x: x, F.cross_entropy, [batch])
    with pytest.raises(DataError, match="as loss, got str"):
        tried(Net(), "cross entropy", [batch])


def test_a_loss_that_does_not_depend_on_the_outputs_has_no_curvature(batch):
    with pytest.raises(DataError, match="does not depend on the outputs"):
        sq.hessian_trace(Net(), lambda out, y: F.cross_entropy(out.detach(), y), [batch])


def test_a_misspelt_option_of_allocate_is_named(found):
    with pytest.raises(PlanError, match="no option 'keeep'.*Did you mean keep"):
        sq.allocate(found["fisher"], "0.2x", keeep={"a": 4})


@pytest.mark.parametrize("widths", [8, "8", (0, 8), (4.0,), (True,)])
def test_widths_to_choose_from_are_whole_bits(found, widths):
    with pytest.raises(PlanError, match="weight_widths=.*; expected whole bits, 1 to 16"):
        sq.allocate(found["fisher"], "0.2x", weight_widths=widths)
