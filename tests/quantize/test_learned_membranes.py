"""Learned levels of a membrane: placed by `calibrate`, kept in training, equal in every reader."""

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.law.errors import PlanError
from spikequant.nn import QuantizedNeuron
from spikequant.quantize.settle_levels import cuts_between, k_means_with_zero, placed, starts
from spikequant.readers.registry import verify_readers


class Small(nn.Module):
    def __init__(self, reset="zero"):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 24), sq.nn.LIF(leak=0.9, threshold=0.6, reset=reset)
        self.fc2, self.lif2 = nn.Linear(24, 5), sq.nn.LIF(leak=0.8, threshold=0.5)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)


def model(bits, reset="zero", **membrane):
    torch.manual_seed(bits)
    net, x = Small(reset), (torch.rand(8, 30, 12) < 0.3).float()
    rule = {"match": "*", "weight": {"bits": 8}, "membrane": {"bits": bits, "levels": "learned", **membrane}}
    sq.quantize_(net, sq.Plan.from_dict({"rules": [rule]}), x, quiet=True)
    return net, x


def neurons(net):
    return [m for m in net.modules() if isinstance(m, QuantizedNeuron)]


@pytest.mark.parametrize(("bits", "reset"), [(1, "zero"), (2, "zero"), (2, "subtract"), (3, "zero")])
def test_calibrated_trained_and_shipped(bits, reset):
    net, x = model(bits, reset)
    before = sq.calibrate(net, [x])
    tables = [(n.v_levels.clone(), n.v_cuts.clone()) for n in neurons(net)]
    assert all(layer.rate > 0 for layer in before.layers)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    net.train()
    for _ in range(3):
        optimizer.zero_grad()
        (net(x) - 3).square().mean().backward()
        assert all(p.grad.abs().sum() > 0 for name, p in net.named_parameters() if "weight" in name)
        optimizer.step()
    net.eval()
    for neuron, (levels, cuts) in zip(neurons(net), tables, strict=True):
        assert torch.equal(neuron.v_levels, levels)
        assert torch.equal(neuron.v_cuts, cuts)
        assert bool((levels == 0).any())
        assert len(levels) == 2**bits
    other, _ = model(bits, reset)
    other.load_state_dict(net.state_dict())
    assert torch.equal(copy.deepcopy(net)(x), other.eval()(x))
    sq.freeze(net)
    integers = sq.lower(net, x)
    report = sq.verify(net, integers, x)
    assert report.differences == 0
    assert report.spikes > 0
    for reader in verify_readers(integers, x.numpy()):
        assert reader.skipped or (reader.differences == 0 and reader.spikes > 0), reader
    assert all(node.spec.v.levels == 2**bits for node in integers.neurons)
    for node in integers.neurons:
        golden = sq.readers.golden.run(integers, sq.readers.golden.encode(integers, x.numpy())).states[node.name]["v"]
        assert all(len(set(golden[:, :, k].reshape(-1).tolist())) <= 2**bits for k in range(golden.shape[-1]))


def test_firing_is_nearer_than_with_uniform_levels():
    net, x = model(2)
    learned = sq.calibrate(net, [x]).layers[0].error
    for signed in (True, False):
        torch.manual_seed(2)
        plain = Small()
        rule = {"match": "*", "weight": {"bits": 8}, "membrane": {"bits": 2, "signed": signed}}
        sq.quantize_(plain, sq.Plan.from_dict({"rules": [rule]}), x, quiet=True)
        assert learned < sq.calibrate(plain, [x]).layers[0].error


@pytest.mark.parametrize(
    ("membrane", "what"),
    [({"bits": 5}, "too many"), ({"bits": 2, "overflow": "wrap"}, "overflow"), ({"bits": 2, "rounding": "stochastic"}, "rounding"),
     ({"bits": 2, "limit": 1.0}, "limit")],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(membrane, what):
    with pytest.raises(PlanError, match=what):
        model(**membrane)


def test_readouts_and_currents_are_refused():
    class Readout(nn.Module):
        def __init__(self, neuron):
            super().__init__()
            self.fc, self.neuron = nn.Linear(12, 3), neuron

        def forward(self, x):
            return self.neuron(self.fc(x)).sum(0)

    x = (torch.rand(4, 3, 12) < 0.3).float()
    role = {"bits": 2, "levels": "learned"}
    for neuron, name in (
        (sq.nn.LeakyIntegrator(leak=0.9), "membrane"),
        (sq.nn.CubaLIF(leak=0.9, leak_i=0.5), "current"),
    ):
        plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 8}, name: role}]})
        with pytest.raises(PlanError, match="learned"):
            sq.quantize_(Readout(neuron), plan, x, quiet=True)


def test_starts_hold_zero_and_cuts_lie_between():
    states = torch.randn(1000)
    for bits in (1, 2, 4):
        for levels in starts(states, bits, 1.0):
            assert len(levels) == 2**bits
            assert bool((levels == 0).any())
            assert bool((levels.diff() >= 0).all())
            for place in (0.5, 1.0):
                cuts = cuts_between(levels, place)
                assert bool(((cuts >= levels[:-1]) & (cuts <= levels[1:])).all())


def test_the_descent_goes_on_from_the_starts():
    wanted = torch.tensor([-0.7, 0.0, 0.3, 0.9], dtype=torch.float64)

    def judge(table):
        return float((table[0] - wanted).abs().sum()), 0.1

    states = torch.linspace(-1, 1, 500)
    found = placed(states, 2, 1.0, judge)
    assert found.error < 0.8 * min(judge((levels, levels))[0] for levels in starts(states, 2, 1.0))
    assert 0.0 in found.table[0].tolist()


def test_k_means_keeps_zero():
    values = torch.cat([torch.full((50,), -1.0), torch.full((500,), 0.02), torch.full((50,), 1.0)]).double()
    levels = k_means_with_zero(values, torch.tensor([-0.5, 0.0, 0.5]).double())
    assert levels.tolist() == [-1.0, 0.0, 1.0]
