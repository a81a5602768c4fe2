"""DESIGN rule 4: the gradients are those of the real units.

The reference is an ordinary fake-quantized LIF in real units, written here without any of
the package's code: weights ``s * round(w / s)``, threshold and bias on the LSB, membrane
stored as ``Delta * round(v / Delta)``, straight-through everywhere.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, QuantizedNeuron, Surrogate, Synapse

STEPS, BATCH, INPUTS, NEURONS = 12, 6, 7, 5
NUDGE = 1e-7
"""A quotient that is an integer may come out one unit in the last place too small; rounding looks this far beyond."""


def ste(value, x):
    """`value` forward, gradient of `x`."""
    return value.detach() + (x - x.detach())


def nearest(x):
    return ste(torch.round(x), x)


def upward(x):
    return ste(torch.ceil(x - NUDGE), x)


def truncated(x):
    return ste(torch.trunc(x + NUDGE * torch.sign(x)), x)


class RealUnits:
    """One layer of LIF neurons in real units, float64."""

    def __init__(self, fc, lif, *, low, high, step_gradient, state_bits, fraction_bits, code_exponent, slope=2.0):
        self.w, self.b, self.s, self.theta = (t.detach().double().clone().requires_grad_() for t in (*fc, lif[0]))
        self.leak, self.reset, self.detach, self.leak_last = lif[1:]
        self.low, self.high, self.gradient = low, high, step_gradient
        self.state_bits, self.f, self.exponent, self.slope = state_bits, fraction_bits, code_exponent, slope

    def run(self, x):
        """Spikes ``[T, N, C]``."""
        s = self.s.detach() + (self.s - self.s.detach()) * self.gradient
        weight = s * nearest((self.w / s).clamp(self.low - NUDGE * 10, self.high + NUDGE * 10))
        lsb = s.reshape(-1) * 2.0**-self.f
        theta, bias = lsb * upward(self.theta / lsb), lsb * nearest(self.b / lsb)
        down = lsb * nearest(self.theta / lsb)
        delta = lsb * 2.0**self.exponent
        top = 2 ** (self.state_bits - 1) - 1
        v, out = torch.zeros(x.shape[1], len(lsb), dtype=torch.float64), []
        for xt in x:
            v = (v if self.leak_last else self.leak * v) + xt @ weight.T + bias
            u = v - theta
            smooth = torch.atan(math.pi / 2 * self.slope * u) / math.pi + 0.5
            spike = ste((u / lsb > -NUDGE).double(), smooth)
            gate = spike.detach() if self.detach else spike
            v = v * (1 - gate) if self.reset == "zero" else v - down * gate
            v = self.leak * v if self.leak_last else v
            v = delta * truncated(v / delta).clamp(-top - 1, top)
            out.append(spike)
        return torch.stack(out)


def pair(quantizer, reset, order, detach_reset, seed=0):
    """The quantized layer and its reference, and an input."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(INPUTS, NEURONS),
        LIF(
            leak=0.75,
            threshold=0.9,
            reset=reset,
            order=order,
            detach_reset=detach_reset,
            learn=("threshold",),
            surrogate=Surrogate("atan", 2.0),
        ),
    )
    with torch.no_grad():
        net[0].weight.normal_(0.15, 0.5)
        net[0].bias.uniform_(-0.1, 0.2)
    x = (torch.rand(STEPS, BATCH, INPUTS) < 0.4).float()
    plan = sq.Plan.uniform(weight_bits=4, weight_quantizer=quantizer, membrane_bits=6, membrane_rounding="toward_zero")
    sq.quantize_(net, plan, x, quiet=True)
    fc, lif = net
    learned = quantizer == "lsq"
    low, high = fc.quantizer.code_format.min, fc.quantizer.code_format.max
    with torch.no_grad():
        exponent = torch.log2(lif.integers().params["v_load"])
    reference = RealUnits(
        (fc.weight, fc.bias, fc.weight_scale), (lif.threshold, 0.75, reset, detach_reset, order == "leak_last"),
        low=low, high=high, step_gradient=1 / math.sqrt(INPUTS * high) if learned else 0.0,
        state_bits=6, fraction_bits=lif.fraction_bits, code_exponent=exponent,
    )  # fmt: skip
    return net, reference, x, learned


@pytest.mark.parametrize("order", ["leak_first", "leak_last"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("quantizer", ["uniform", "lsq"])
def test_spikes_and_gradients_equal_the_real_unit_reference(quantizer, reset, detach_reset, order):
    net, reference, x, learned = pair(quantizer, reset, order, detach_reset)
    fc, lif = net
    assert isinstance(fc, Synapse)
    assert isinstance(lif, QuantizedNeuron)
    upstream = torch.randn(STEPS, BATCH, NEURONS)
    spikes, wanted = net(x), reference.run(x.double())
    assert torch.equal(spikes.double(), wanted)
    assert 0.1 < float(spikes.detach().mean()) < 0.7
    (spikes * upstream).sum().backward()
    (wanted * upstream).sum().backward()
    pairs = [(fc.weight, reference.w), (fc.bias, reference.b), (lif.threshold, reference.theta)]
    for got, expected in pairs + ([(fc.weight_scale, reference.s)] if learned else []):
        scale = float(expected.grad.abs().max())
        assert scale > 1e-3
        assert float((got.grad - expected.grad).abs().max()) < 1e-5 * scale
    assert learned == (fc.weight_scale.requires_grad)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_second_derivatives_equal_the_reference(reset):
    net, reference, x, _ = pair("lsq", reset, "leak_first", False, seed=3)
    fc = net[0]
    upstream = torch.randn(STEPS, BATCH, NEURONS)
    first = torch.autograd.grad((net(x) * upstream).sum(), (fc.weight, fc.weight_scale), create_graph=True)
    wanted = torch.autograd.grad(
        (reference.run(x.double()) * upstream).sum(), (reference.w, reference.s), create_graph=True
    )
    second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), (fc.weight, fc.bias, fc.weight_scale))
    expected = torch.autograd.grad(sum(g.pow(2).sum() for g in wanted), (reference.w, reference.b, reference.s))
    for got, real in zip(second, expected, strict=True):
        assert real.abs().max() > 1e-3
        assert float((got - real).abs().max()) < 1e-4 * float(real.abs().max())


def test_the_real_neuron_has_the_gradients_of_plain_torch():
    torch.manual_seed(1)
    lif = LIF(leak=0.75, reset="subtract", learn=("leak", "threshold"), surrogate=Surrogate("atan", 2.0))
    x = torch.randn(STEPS, BATCH, NEURONS, requires_grad=True)
    spikes = lif(x)
    leak, theta, same = (t.detach().clone().requires_grad_() for t in (lif.leak, lif.threshold, x))
    v, out = torch.zeros(BATCH, NEURONS), []
    for xt in same:
        v = leak * v + xt
        smooth = torch.atan(math.pi * (v - theta)) / math.pi + 0.5
        spike = ste((v >= theta).float(), smooth)
        v = v - theta * spike
        out.append(spike)
    upstream = torch.randn(STEPS, BATCH, NEURONS)
    (spikes * upstream).sum().backward()
    (torch.stack(out) * upstream).sum().backward()
    assert torch.equal(spikes, torch.stack(out))
    for got, real in ((x, same), (lif.leak, leak), (lif.threshold, theta)):
        torch.testing.assert_close(got.grad, real.grad, rtol=1e-4, atol=1e-5)
