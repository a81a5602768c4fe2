"""`diagnose`: every cause of a silent layer, made on purpose, is recognised; what it advises works."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.quantize.nets import spikes
from torch import nn

import spikequant as sq
from spikequant.analyse import compare, diagnose, observe
from spikequant.analyse.silence import symptom
from spikequant.nn import IF, LIF
from spikequant.nn.over_time import OverTime

STEPS, BATCH, INPUTS, CLASSES = 24, 6, 4, 3
X = spikes(STEPS, BATCH, INPUTS, rate=0.5)
WIDE = {"bits": 14, "rounding": "half_even"}
FINE = {"bits": 10}


class Counted(nn.Sequential):
    """Counts the spikes of its last layer."""

    def forward(self, x):
        return super().forward(x).sum(0)


def net(neuron=None, *, drive=0.2, bias=0.0, hidden=4):
    """Every hidden neuron gets `drive` for each of four inputs; the second layer passes spikes on."""
    made = Counted()
    made.add_module("fc1", nn.Linear(INPUTS, hidden))
    made.add_module("lif1", neuron if neuron is not None else IF())
    made.add_module("fc2", nn.Linear(hidden, CLASSES))
    made.add_module("lif2", IF())
    with torch.no_grad():
        made.fc1.weight.fill_(drive)
        made.fc1.bias.fill_(bias)
        made.fc2.weight.fill_(0.4)
        made.fc2.bias.fill_(0.0)
    return made


def plan(weight=FINE, membrane=WIDE, *, top=None, **roles):
    """Wide everywhere but in the first layer."""
    synapse = {k: roles.pop(k) for k in ("bias", "input") if k in roles}
    return {
        "rules": [
            {"match": "fc1", "weight": weight, **synapse},
            {"match": "lif1", "membrane": membrane, **roles},
            {"match": "fc2", "weight": FINE},
            {"match": "lif2", "membrane": WIDE},
        ],
        **(top or {}),
    }


def case(real, asked, x=X, *, frozen=True):
    model = copy.deepcopy(real)
    sq.quantize_(model, sq.Plan.from_dict(asked), x, quiet=True)
    if frozen:
        sq.freeze(model)
    return model, [(x, torch.zeros(x.shape[1], dtype=torch.long))]


def first(real, asked, x=X, *, frozen=True, **options):
    model, rows = case(real, asked, x, frozen=frozen)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = diagnose(real, model, rows, **options)
    assert found, "the layer was meant to fall silent"
    assert found[0].layer == "lif1"
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return found[0]


def test_a_healthy_network_has_no_finding():
    real = net()
    model, rows = case(real, plan())
    assert observe(real, rows).firing["lif1"].rates().mean() > 0.1
    assert diagnose(real, model, rows) == ()


def test_the_register_ends_before_the_threshold():
    """v_max * lsb < theta: accumulation stops at 0.3, and the largest input of a step is 0.4."""
    asked = plan(membrane={"bits": 8, "rounding": "half_even", "limit": 0.3})
    found = first(net(drive=0.1), asked, frozen=False)
    assert (found.symptom, found.cause, found.rate) == ("silent", "membrane_reach", 0.0)
    assert "membrane ends at 0.3" in found.evidence
    assert "threshold is 1" in found.evidence
    assert found.remedies[0].field == "membrane.limit"
    assert float(found.remedies[0].value) > 0.6
    assert found.remedies[0].rate == pytest.approx(found.reference_rate, rel=0.25)


@pytest.mark.parametrize("rounding", ["toward_zero", "floor", "half_even"])
def test_the_stored_membrane_swallows_the_input(rounding):
    """Steps of at most 0.2 in a register whose LSB is half a threshold."""
    membrane = {"bits": 3, "rounding": rounding, "limit": 1.6}
    found = first(net(drive=0.05), plan(membrane=membrane), frozen=False)
    assert (found.symptom, found.cause) == ("silent", "membrane_rounding")
    assert f"{rounding} keeps nothing of a step below" in found.evidence
    assert "100 % of its inputs" in found.evidence
    assert {r.field for r in found.remedies} <= {"membrane.rounding", "membrane.bits", "membrane.bits, membrane.limit"}
    assert any(r.value in ("stochastic", "half_up") or r.field == "membrane.bits" for r in found.remedies)


def test_the_stored_membrane_swallows_the_leak_product():
    """Truncation takes a whole LSB with every leak: 0.9 * v + 0.15 stays below the threshold."""
    found = first(net(LIF(leak=0.95), drive=0.06), plan(membrane={"bits": 4, "rounding": "toward_zero", "limit": 1.7}))
    assert found.cause == "membrane_rounding"
    assert found.rate < 0.5 * found.reference_rate


def test_rounding_up_never_lets_go():
    """Half of one LSB is rounded up to one: what leaks in the real layer stays in the stored one."""
    real = net(LIF(leak=0.5), drive=0.17)
    found = first(real, plan(membrane={"bits": 3, "rounding": "half_up", "limit": 1.7}))
    assert (found.symptom, found.cause) == ("raised", "membrane_rounding")
    assert (found.remedies[0].field, found.remedies[0].value) == ("membrane.bits", "4")


def test_weight_codes_are_zero():
    """One large weight, of an input that never fires, takes the whole grid."""
    x = X.clone()
    x[..., 0] = 0.0
    real = net(drive=0.2)
    with torch.no_grad():
        real.fc1.weight[:, 0] = 3.0
    found = first(real, plan(weight={"bits": 3, "clipping": "max"}), x)
    assert (found.symptom, found.cause) == ("silent", "weight")
    assert "75 % of its uniform 3-bit weight codes are zero" in found.evidence
    assert found.remedies[0].field in ("weight.clipping", "weight.bits")


def test_whole_channels_without_a_code():
    real = net(drive=0.3, hidden=8)
    with torch.no_grad():
        real.fc1.weight[1:] = 0.25
        real.fc1.weight[0, 0] = 5.0
    found = first(real, plan(weight={"bits": 4, "clipping": "max", "per_channel": False}))
    assert found.cause == "weight"
    assert "7 of 8 channels have no other" in found.evidence


def test_the_threshold_leaves_its_grid():
    """Two bits hold 0 and 4: three thresholds of 1 become 0."""
    real = net(IF(threshold=torch.tensor([1.0, 1.0, 1.0, 4.0])), drive=0.1)
    found = first(real, plan(threshold={"bits": 2}))
    assert (found.symptom, found.cause) == ("saturated", "threshold")
    assert "3 of 4 values" in found.evidence
    assert found.remedies[0].field == "threshold.bits"


def test_the_bias_is_lost():
    """The bias drives; a large one beside it takes the grid."""
    real = net(drive=0.001, bias=0.2, hidden=8)
    with torch.no_grad():
        real.fc1.bias[0] = -3.0
    found = first(real, plan(bias={"bits": 3}))
    assert (found.symptom, found.cause) == ("silent", "bias")
    assert found.remedies[0].field == "bias.bits"


def test_the_leak_is_stored_as_zero():
    real = net(LIF(leak=0.4), drive=0.18)
    found = first(real, plan(leak={"bits": 1}))
    assert found.cause == "leak"
    assert "0.4 is stored as 0" in found.evidence
    assert found.remedies[0].field == "leak.bits"


def test_too_few_fraction_bits():
    """The bias is a tenth of a weight LSB; without fraction bits it is zero."""
    real = net(drive=0.001, bias=0.1)
    with torch.no_grad():
        real.fc1.weight[:, 0] = -3.0
    x = X.clone()
    x[..., 0] = 0.0
    found = first(real, plan(weight={"bits": 2, "clipping": "max"}, top={"fraction_bits": 2}), x)
    assert found.cause == "fraction_bits"
    assert found.remedies[0].field == "fraction_bits"


def images(scale=1.0):
    return scale * (0.2 + 0.8 * torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(0)))


def test_the_input_is_clipped():
    found = first(net(drive=0.15), plan(input={"bits": 8, "limit": 0.05}), images())
    assert found.cause == "input"
    assert "100 % lie beyond" in found.evidence
    assert found.remedies[0].field == "input.limit"
    assert float(found.remedies[0].value) == pytest.approx(float(images().max()), rel=1e-3)


def test_the_input_is_too_coarse():
    found = first(net(drive=0.15), plan(input={"bits": 4, "limit": 60.0}), images())
    assert (found.symptom, found.cause) == ("silent", "input")
    assert "100 % become zero" in found.evidence


def test_the_reference_is_silent_itself():
    found = first(net(drive=0.0001), plan())
    assert (found.symptom, found.cause, found.reference_rate) == ("silent", "reference", 0.0)
    assert found.remedies == ()


def test_what_flows_in_is_the_cause():
    real = net(drive=0.1)
    model, rows = case(real, plan(membrane={"bits": 8, "rounding": "half_even", "limit": 0.3}), frozen=False)
    first_layer, second = diagnose(real, model, rows)
    assert (first_layer.cause, second.cause) == ("membrane_reach", "inflow")
    assert "mend lif1 first" in second.evidence
    assert "0.000" in str(second)


def test_weights_that_moved_in_training():
    real = net()
    moved = copy.deepcopy(real)
    with torch.no_grad():
        moved.fc1.weight.fill_(-0.1)
    model, rows = case(moved, plan(), frozen=False)
    found = diagnose(real, model, rows)[0]
    assert (found.symptom, found.cause) == ("silent", "training")


def test_two_roles_together():
    real = net(IF(), drive=0.05)
    with torch.no_grad():
        real.fc1.weight[:, 0] = 0.45
    x = X.clone()
    x[..., 0] = 0.0
    asked = plan(weight={"bits": 2, "clipping": "max"}, membrane={"bits": 3, "rounding": "toward_zero", "limit": 1.6})
    found = first(real, asked, x)
    assert found.cause == "several"
    assert "membrane" in found.evidence
    assert "weights" in found.evidence


def test_the_advice_works_when_it_is_followed():
    """Not only in the experiment: a plan with the advised field wakes the layer."""
    real = net(drive=0.1)
    membrane = {"bits": 8, "rounding": "half_even", "limit": 0.3}
    found = first(real, plan(membrane=membrane), frozen=False)
    remedy = found.remedies[0]
    model, rows = case(real, plan(membrane={**membrane, "limit": float(remedy.value)}))
    assert float(observe(model, rows).firing["lif1"].rates().mean()) == pytest.approx(remedy.rate)


def test_a_comparison_narrows_the_search_and_batches_may_be_inputs():
    real = net(drive=0.1)
    model, rows = case(real, plan(membrane={"bits": 8, "rounding": "half_even", "limit": 0.3}), frozen=False)
    comparison = compare(real, model, rows)
    assert diagnose(real, model, rows, comparison=comparison) == diagnose(real, model, [X])
    assert all(f.remedies == () for f in diagnose(real, model, rows, try_remedies=False))
    assert diagnose(real, model, rows)[0].to_dict()["cause"] == "membrane_reach"


def test_bad_data_and_other_networks():
    real = net()
    model, rows = case(real, plan())
    with pytest.raises(sq.DataError, match="diagnose: the loader gave no batch"):
        diagnose(real, model, [])
    with pytest.raises(sq.DataError, match="NaN"):
        diagnose(real, model, [(X * float("nan"), rows[0][1])])
    with pytest.raises(sq.DataError, match="the reference has no neuron layer 'lif1'"):
        diagnose(Counted(nn.Linear(INPUTS, 2), IF()), model, rows)


class Looped(nn.Module):
    """A recurrent layer in a loop of its own."""

    def __init__(self):
        super().__init__()
        self.fc, self.rec, self.lif = nn.Linear(INPUTS, 4), nn.Linear(4, 4, bias=False), IF(step_mode="s")
        with torch.no_grad():
            self.fc.weight.fill_(0.1)
            self.fc.bias.fill_(0.0)
            self.rec.weight.fill_(0.02)

    def forward(self, x):
        spike = torch.zeros(x.shape[1], 4)
        count = 0
        for t in range(x.shape[0]):
            spike = self.lif(self.fc(x[t]) + self.rec(spike))
            count = count + spike
        return count


def test_a_recurrent_layer_in_its_own_loop():
    real, model = Looped(), Looped()
    asked = {
        "rules": [
            {"match": "lif", "membrane": {"bits": 8, "rounding": "half_even", "limit": 0.3}},
            {"match": "*", "weight": FINE},
        ]
    }
    sq.quantize_(model, sq.Plan.from_dict(asked), X, quiet=True)
    (found,) = diagnose(real, model, [X])
    assert found.cause == "membrane_reach"
    assert found.remedies


@pytest.mark.parametrize(
    ("rates", "reference", "wanted"),
    [
        ([0.0, 0.0], [0.1, 0.1], "silent"),
        ([0.0, 0.0], [0.0, 0.0], None),
        ([0.04, 0.05], [0.1, 0.1], "collapsed"),
        ([0.3, 0.3], [0.1, 0.1], "raised"),
        ([1.0, 0.1], [0.5, 0.6], "saturated"),
        ([0.0, 0.4], [0.2, 0.2], "thinned"),
        ([0.2, 0.1], [0.2, 0.2], None),
    ],
)
def test_symptoms(rates, reference, wanted):
    assert symptom(np.array(rates), np.array(reference)) == wanted


def test_a_layer_of_another_library():
    snn = pytest.importorskip("snntorch")

    class Tutorial(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(INPUTS, 4), snn.Leaky(beta=0.9)
            with torch.no_grad():
                self.fc1.weight.fill_(0.1)
                self.fc1.bias.zero_()

        def forward(self, x):
            mem, spikes = self.lif1.init_leaky(), []
            for t in range(x.shape[0]):
                spk, mem = self.lif1(self.fc1(x[t]), mem)
                spikes.append(spk)
            return torch.stack(spikes).sum(0)

    real = Tutorial()
    asked = {
        "rules": [
            {"match": "fc1", "weight": FINE},
            {"match": "lif1", "membrane": {"bits": 8, "rounding": "half_even", "limit": 0.3}},
        ]
    }
    model, rows = case(real, asked, frozen=False)
    (found,) = diagnose(real, model, rows)
    assert (found.layer, found.cause) == ("lif1", "membrane_reach")
    assert type(real.lif1) is snn.Leaky


def test_a_batch_norm_that_calibration_measured_anew():
    real = Counted()
    real.add_module("fc1", nn.Linear(INPUTS, 4, bias=False))
    real.add_module("norm", OverTime(nn.BatchNorm1d(4)))
    real.add_module("lif1", IF())
    real.add_module("fc2", nn.Linear(4, CLASSES))
    real.eval()
    with torch.no_grad():
        real.norm.layer.running_var.fill_(100.0)  # as after too few batches: it has not arrived at the data's
        real.norm.layer.bias.fill_(0.03)
    model, rows = case(real, {"rules": [
        {"match": "fc*", "weight": FINE}, {"match": "lif1", "membrane": WIDE},
    ]}, frozen=False)  # fmt: skip
    sq.calibrate(model, rows)
    found = diagnose(real, model, rows)[0]
    assert (found.layer, found.symptom, found.cause) == ("lif1", "raised", "norm")
    assert "moved in training" not in found.evidence
