"""What an outside review found: data that do not fit the example, lost branches, readouts, tiny states, states left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, LeakyIntegrator


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.l = nn.Linear(16, 10), LIF(leak=0.8, step_mode="s", reset="subtract")
        self.c, self.o = nn.Linear(10, 5), LIF(leak=0.8, step_mode="s", reset="subtract")

    def forward(self, x):
        total = 0
        for _ in range(6):
            total = total + self.o(self.c(self.l(self.a(x))))
        return total


PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=6)


def rows(x):
    return [(x, torch.zeros(len(x), dtype=torch.long))]


def test_real_data_after_an_example_of_spikes_are_refused():
    net = Loop()
    sq.quantize_(net, PLAN, torch.ones(4, 16), quiet=True)
    with pytest.raises(sq.DataError, match="the example input was whole numbers from 0 to 1, these data go from"):
        sq.evaluate(net, rows(torch.rand(4, 16)))


def test_negative_data_after_an_example_without_are_refused():
    net = Loop()
    sq.quantize_(net, PLAN, torch.rand(4, 16), quiet=True)
    with pytest.raises(sq.DataError, match="the data hold negative values, the example input did not"):
        sq.calibrate(net, rows(torch.rand(4, 16) - 0.5))


def test_states_are_forgotten_around_every_verb():
    net, x = Loop(), torch.rand(4, 16)
    net(torch.rand(7, 16))
    sq.quantize_(net, PLAN, x, quiet=True)
    net(torch.rand(7, 16))
    sq.freeze(net)
    sq.reset(net)
    lowered = sq.lower(net, x)
    assert sq.verify(net, lowered, x[:2]).differences == 0


def test_a_signed_state_of_one_bit_is_refused():
    with pytest.raises(sq.PlanError, match="a signed state of 1 bit holds only -1 and 0"):
        sq.quantize_(Loop(), sq.Plan.uniform(membrane_bits=1), torch.rand(4, 16), quiet=True)


def test_a_double_model_is_refused():
    with pytest.raises(sq.DataError, match="a.weight is torch.float64"):
        sq.quantize_(Loop().double(), PLAN, torch.rand(4, 16).double(), quiet=True)


def test_an_input_role_of_an_inner_layer_applies_to_nothing():
    plan = sq.Plan.from_dict({"rules": [{"match": "c", "input": {"bits": 2}}]})
    with pytest.raises(sq.PlanError, match="the role 'input' of the rule 'c' applies to none of c"):
        sq.quantize_(Loop(), plan, torch.rand(4, 16), quiet=True)


def test_a_wrong_shape_is_a_data_error():
    net = Loop()
    with pytest.raises(sq.DataError, match=r"the model cannot take an input of shape \(4, 17\)"):
        sq.evaluate(net, rows(torch.rand(4, 17)))


def test_a_hidden_readout_is_refused():
    net = nn.Sequential(nn.Linear(8, 6), LeakyIntegrator(), nn.Linear(6, 3), LIF())
    with pytest.raises(sq.Unsupported, match="can only be the network's last layer|can only be the last layer"):
        sq.quantize_(net, PLAN, torch.ones(5, 3, 8), quiet=True)


def test_autocast_does_not_round_the_sums():
    net = nn.Sequential(nn.Linear(64, 16), LIF(leak=0.5))
    x = (torch.rand(8, 4, 64) < 0.5).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=8), x, quiet=True)
    sq.freeze(net)
    net.eval()
    plain = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(x), plain)


def test_stochastic_weights_travel_with_the_state_dict():
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 4, "rounding": "stochastic"}}]})
    nets, x = [Loop(), Loop()], torch.rand(4, 16)
    for net in nets:
        sq.quantize_(net, plan, x, quiet=True)
    sq.fit(nets[0], rows(x), epochs=2, quiet=True)
    nets[1].load_state_dict(nets[0].state_dict())
    for one, other in ((nets[0].a, nets[1].a), (nets[0].c, nets[1].c)):
        assert torch.equal(one.eval().codes(), other.eval().codes())
