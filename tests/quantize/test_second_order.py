"""`calibrate(weight_solver="second_order")`: less error and the same integers, for every quantizer and kind of layer."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.quantize.nets import BATCH, HIDDEN, INPUTS, STEPS, awake_, chain, spikes
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, Synapse

X = [spikes(STEPS, BATCH, INPUTS, seed=seed) for seed in range(12)]


def solved(net=None, x=X, **plan):
    net = net if net is not None else chain()
    sq.quantize_(net, sq.Plan.uniform(membrane_bits=8, **plan), x[0], quiet=True)
    return net, sq.calibrate(net, x, max_batches=None, weight_solver="second_order")


QUANTIZERS = [
    {"weight_bits": 4},
    {"weight_bits": 2},
    {"weight_bits": 3, "weight_clipping": "max"},
    {"weight_bits": 1},
    {"weight_quantizer": "ternary"},
    {"weight_bits": 3, "weight_quantizer": "power_of_two"},
    {"weight_bits": 3, "weight_quantizer": "lsq"},
]


@pytest.mark.parametrize("plan", QUANTIZERS, ids=str)
def test_less_error_and_integers_equal_what_was_measured(plan):
    net, report = solved(**plan)
    assert [layer.path for layer in report.solved] == ["fc1", "fc2"]
    assert all(layer.solved <= layer.nearest for layer in report.solved)
    assert any(layer.solved < 0.9 * layer.nearest for layer in report.solved)
    assert "response error" in str(report)
    before = net(X[0])
    assert before.sum() > 0
    codes = {name: m.codes().detach().clone() for name, m in net.named_modules() if isinstance(m, Synapse)}
    sq.freeze(net)
    assert torch.equal(before, net(X[0]))
    assert all(torch.equal(net.get_submodule(name).integer_codes().float(), code) for name, code in codes.items())
    assert sq.verify(net, sq.lower(net, X[0]), X[0]).differences == 0


def test_the_codes_survive_a_copy_a_file_and_a_refit(tmp_path):
    net, _ = solved(weight_bits=3, weight_clipping="max")
    sq.save_prepared(net, tmp_path / "net.safetensors")
    again = sq.load_prepared(chain, tmp_path / "net.safetensors")
    loaded = chain()
    sq.quantize_(loaded, sq.Plan.uniform(membrane_bits=8, weight_bits=3, weight_clipping="max"), X[0], quiet=True)
    loaded.load_state_dict(net.state_dict())
    for other in (copy.deepcopy(net), again, loaded, net.train().eval()):
        assert torch.equal(other.fc1.codes(), net.fc1.codes())
        assert torch.equal(other(X[0]), net(X[0]))


def test_fixed_point_keeps_its_scale():
    net = chain()
    rule = {"match": "*", "weight": {"quantizer": "fixed_point", "options": {"format": "Q1.3"}}}
    sq.quantize_(net, sq.Plan.from_dict({"rules": [rule]}), X[0], quiet=True)
    report = sq.calibrate(net, X, weight_solver="second_order")
    assert float(net.fc1.weight_scale.max()) == float(net.fc1.weight_scale.min()) == 0.125
    assert report.solved[0].solved < report.solved[0].nearest


def test_a_quantizer_whose_boundaries_are_its_own_is_refused_and_the_layer_stays():
    net = chain()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, weight_quantizer="sigmoid_sum"), X[0], quiet=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(sq.Unsupported, match="fc.: the quantizer 'sigmoid_sum' does not give back the codes"):
        sq.calibrate(net, X, weight_solver="second_order")
    assert torch.equal(before["fc2.weight"], net.fc2.weight)
    assert torch.equal(before["fc2.weight_beta"], net.fc2.weight_beta)


class Recurrent(nn.Module):
    """One layer that hears itself, step by step."""

    def __init__(self):
        super().__init__()
        self.fc, self.back = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.lif = LIF(step_mode="s")

    def forward(self, x):
        spikes, out = x.new_zeros(x.shape[1], HIDDEN), []
        for step in x:
            spikes = self.lif(self.fc(step) + self.back(spikes))
            out.append(spikes)
        return torch.stack(out)


def test_a_recurrent_layer_shares_one_scale_before_and_after():
    net, report = solved(awake_(Recurrent()), weight_bits=3, weight_clipping="max")
    assert {layer.path for layer in report.solved} == {"fc", "back"}
    assert all(layer.solved < layer.nearest for layer in report.solved)
    assert torch.equal(net.fc.scale(), net.back.scale())
    sq.freeze(net)
    assert net(X[0]).sum() > 0
    assert sq.verify(net, sq.lower(net, X[0]), X[0]).differences == 0


def test_batch_norm_and_convolutions():
    torch.manual_seed(0)
    model = sq.models.conv.ConvSNN(size=8, channels=(4, 6), kernel=3, pool=1, steps=4)
    x = [torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    net, report = solved(model, x, weight_bits=2)
    assert [layer.path for layer in report.solved] == ["conv1", "conv2.layer.0", "fc"]
    assert all(layer.solved < layer.nearest for layer in report.solved)
    sq.freeze(net)
    assert sq.verify(net, sq.lower(net, x[0]), x[0]).differences == 0


def test_nearest_is_the_default_and_an_unknown_solver_is_refused():
    net = chain()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4), X[0], quiet=True)
    weight = net.fc1.weight.detach().clone()
    assert sq.calibrate(net, X).solved == ()
    assert torch.equal(weight, net.fc1.weight)
    with pytest.raises(sq.PlanError, match="weight_solver 'gptq'; expected one of nearest, second_order"):
        sq.calibrate(net, X, weight_solver="gptq")
