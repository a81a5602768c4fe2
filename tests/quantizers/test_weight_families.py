"""SharedScale, ReScaW and SignPowerOfTwo: their published formulas, and that networks train, freeze and verify."""

import copy
import math

import pytest
import torch

import spikequant as sq
from spikequant.law.errors import PlanError
from spikequant.quantizers import Binary, ReScaW, SharedScale, SignPowerOfTwo


def weights(shape=(4, 60), seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_shared_scale_starts_as_published():
    x = weights()
    scale = SharedScale(4, start_from="published").fit(x, channel_axis=0)
    torch.testing.assert_close(scale[:, 0], 2 * x.abs().mean(1) / math.sqrt(7) / 7)
    assert float((SharedScale(4).codes(x, SharedScale(4).fit(x)) * SharedScale(4).fit(x) - x).square().mean()) < 0.02


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_rescaw_is_its_formula(bits):
    x, q, top = weights(), ReScaW(bits), 2**bits - 1
    gamma = x.abs().mean()
    expected = gamma * (2 / top * torch.floor(top / 2 * ((x / gamma).clamp(-1, 1) + 1) + 0.5) - 1)
    torch.testing.assert_close(q.codes(x, q.fit(x)) * q.fit(x), expected)
    if bits == 1:
        assert torch.equal(q.codes(x, q.fit(x)), Binary().codes(x, q.fit(x)))


def test_sign_power_of_two_is_its_formula_and_its_slope():
    x, q = (weights() + 0.4).requires_grad_(), SignPowerOfTwo()
    scale, state = q.fit(x, channel_axis=0), q.start(x, channel_axis=0)
    centred = (x - x.mean(1, keepdim=True)).detach()
    assert torch.equal(scale.log2(), scale.log2().round())
    assert bool(((centred.abs().mean(1, keepdim=True) / scale).log2().abs() <= 0.5).all())
    for done, sharpness in ((0, 0.1), (1, 1.0), (2, 10.0)):
        q.progress_(state, done, 2)
        codes = q.state_codes(x, scale, state, soft=True)
        (slope,) = torch.autograd.grad(codes.sum(), x)
        u = centred / centred.square().mean(1, keepdim=True).sqrt()
        expected = max(1 / sharpness, 1) * sharpness * (1 - torch.tanh(sharpness * u) ** 2) / scale
        torch.testing.assert_close(slope, expected)
        assert torch.equal(codes.detach(), torch.where(centred >= 0, 1.0, -1.0).double())
    with pytest.raises(PlanError, match="not falling"):
        SignPowerOfTwo(first_sharpness=2.0, last_sharpness=1.0)


@pytest.mark.parametrize(
    ("name", "bits"), [("shared_scale", 3), ("rescaw", 2), ("sign_power_of_two", None)], ids=lambda v: str(v)
)
def test_trains_freezes_and_verifies(digits, name, bits):
    model, train, test = copy.deepcopy(digits[0]), *digits[1:]
    x = next(iter(test))[0]
    sq.quantize_(model, sq.Plan.uniform(weight_bits=bits, weight_quantizer=name, membrane_bits=6), x, quiet=True)
    sq.calibrate(model, train, max_batches=2)
    sq.fit(model, train, epochs=2, lr=2e-3, quiet=True)
    before = sq.evaluate(model, test)
    assert before.accuracy > 0.7
    sq.freeze(model)
    assert torch.equal(sq.evaluate(model, test).predictions, before.predictions)
    found = sq.verify(model, sq.lower(model, x), x)
    assert found.differences == 0
    assert found.spikes > 0


class TwoLayers(torch.nn.Module):
    """Input to weights to a neuron that does not leak: what MINT's comparison is about."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(12, 8, bias=False)
        self.neuron = sq.nn.IF(threshold=0.7, reset="zero")

    def forward(self, x):
        return self.neuron(self.fc(x))


def test_membrane_counts_weight_codes_and_the_threshold_is_a_rounded_up_quotient():
    torch.manual_seed(2)
    model, x = TwoLayers(), (torch.rand(9, 5, 12) < 0.4).float()
    plan = sq.Plan.uniform(weight_bits=4, membrane_bits=6, weight_quantizer="shared_scale")
    assert plan.layer("neuron").membrane.unit == "weight"
    sq.quantize_(model, plan, x, quiet=True)
    sq.calibrate(model, [x])
    sq.freeze(model)
    found, scale = model.neuron.frozen_integers(), model.fc.channel_scale().detach().double()
    torch.testing.assert_close(found.params["v_load"].expand(8) * found.lsb, scale)
    assert float(model.neuron.v_limit) == pytest.approx(31 * float(scale.min()))
    codes, k_h = model.fc.integer_codes(), torch.zeros(5, 8, dtype=torch.int64)
    theta = torch.ceil(0.7 / scale).to(torch.int64)
    expected = []
    for step in x:
        k_h = k_h + step.to(torch.int64) @ codes.T
        spikes = k_h >= theta
        k_h = torch.where(spikes, 0, k_h).clamp(-32, 31)
        expected.append(spikes)
    assert torch.equal(model(x).bool(), torch.stack(expected))
    assert torch.stack(expected).any()


def test_unit_of_the_weights_has_no_limit_of_its_own():
    model, x = TwoLayers(), torch.zeros(9, 5, 12)
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "membrane": {"bits": 6, "unit": "weight", "limit": 2.0}}]})
    with pytest.raises(PlanError, match="leave out limit"):
        sq.quantize_(model, plan, x, quiet=True)
