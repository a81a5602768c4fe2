"""The float type of a group: the quick proof never says more than the exact one, and is kept only while it holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import IF, LIF, CubaLIF, coded_weight
from spikequant.nn.group_widths import prove_group, proven_single


def quantized(neuron, weight_bits, membrane_bits, seed=0, **options):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 20), neuron())
    plan = sq.Plan.uniform(weight_bits=weight_bits, membrane_bits=membrane_bits, **options)
    x = (torch.rand(4, 3, 12) < 0.4).float()
    sq.quantize_(net, plan, x, quiet=True)
    return net, x


NEURONS = {"lif": LIF, "if": IF, "cuba": CubaLIF, "leak last": lambda: LIF(order="leak_last", leak=0.9)}


@pytest.mark.parametrize("bits", [(2, 4), (8, 8), (12, 12), (16, 16)])
@pytest.mark.parametrize("name", NEURONS)
def test_what_the_quick_proof_says_holds(name, bits):
    net, _ = quantized(NEURONS[name], *bits)
    found = net[1].integers()
    quick = proven_single(net[1], found, None)
    exact = prove_group(net[1], found, reach=False)
    assert quick is None or exact.accumulator_bits <= 24
    if bits == (8, 8) and name in ("lif", "if"):
        assert quick is not None
    net.train()
    assert net[1].needs_double == (exact.accumulator_bits > 24)


def test_a_proof_is_kept_while_it_holds_and_no_longer():
    net, _ = quantized(LIF, 8, 8)
    neuron = net[1]
    first = proven_single(neuron, neuron.integers(), None)
    assert first is not None
    with torch.no_grad():
        net[0].weight.mul_(1.01)
    net[0].refit()
    assert proven_single(neuron, neuron.integers(), first) is first
    with torch.no_grad():
        net[0].weight.mul_(1.6)
    net[0].refit()
    moved = neuron.integers()
    again = proven_single(neuron, moved, first)
    assert again is not first


def test_weights_that_outgrow_float32_between_two_modes_are_seen():
    net, x = quantized(lambda: LIF(leak=0.9), 16, 16)
    net.train()
    needed = net[1].needs_double
    with torch.no_grad():
        net[0].weight[:] = net[0].weight.abs().max()
    net[0].refit()
    net.train()
    exact = prove_group(net[1], net[1].integers(), reach=False)
    assert net[1].needs_double == (exact.accumulator_bits > 24)
    assert needed or net[1].needs_double
    net(x).sum().backward()


def test_codes_are_made_once_behind_train(monkeypatch):
    calls, real = [], coded_weight.encoded
    monkeypatch.setattr(coded_weight, "encoded", lambda *a, **o: calls.append(a) or real(*a, **o))
    net, x = quantized(LIF, 8, 8)
    for _ in range(2):
        calls.clear()
        net.train()
        net(x).sum().backward()
        assert len(calls) == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_a_loaded_state_is_proven_anew(frozen):
    one, x = quantized(LIF, 8, 8)
    other, _ = quantized(LIF, 8, 8)
    with torch.no_grad():
        other[0].weight.mul_(1e-6)  # the threshold then counts millions of LSBs
        other[0].bias.fill_(0.6)
    other[0].refit()
    for net in (one, other):
        if frozen:
            sq.freeze(net)
        net.eval()
    with torch.no_grad():
        one(x), other(x)
        assert (one[1].needs_double, other[1].needs_double) == (False, True)
        one.load_state_dict(other.state_dict())
        assert one[1].needs_double
        assert torch.equal(one(x), other(x))
        assert one(x).any()
