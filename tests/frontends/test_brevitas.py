"""Brevitas layers between snnTorch neurons: their bits and scales are kept, or refused with what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq

pytestmark = pytest.mark.filterwarnings("ignore")
snn = pytest.importorskip("snntorch")
qnn = pytest.importorskip("brevitas.nn")
quant = pytest.importorskip("brevitas.quant")

MEMBRANE = sq.Plan.uniform(membrane_bits=8)


class Net(nn.Module):
    """A convolution and a linear layer of Brevitas, snnTorch's neurons."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.conv = qnn.QuantConv2d(1, 4, 3, weight_bit_width=3, weight_quant=quant.Int8WeightPerChannelFloat)
        self.lif1 = snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True)
        self.fc = qnn.QuantLinear(4 * 16, 5, bias=True, weight_bit_width=4, **options)
        self.lif2 = snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True)

    def forward(self, x):
        self.lif1.reset_mem(), self.lif2.reset_mem()
        return torch.stack([self.lif2(self.fc(self.lif1(self.conv(x)).flatten(1))) for _ in range(5)]).sum(0)


def made(**options):
    torch.manual_seed(0)
    return Net(**options), torch.rand(4, 1, 6, 6) * 2


@pytest.mark.parametrize("plan", [MEMBRANE, sq.Plan.from_dict({"rules": [{"match": "lif2", "membrane": {"bits": 8}}]})])
def test_weights_keep_the_codes_that_brevitas_gave_them(plan):
    net, x = made()
    assert [layer.path for layer in sq.check_reading(net, x, quiet=True).layers] == ["lif1", "lif2"]
    codes = {name: getattr(net, name).quant_weight().int() for name in ("conv", "fc")}
    parameters = dict(net.named_parameters())
    report = sq.quantize_(net, plan, x, quiet=True)
    for name, wanted in codes.items():
        assert torch.equal(getattr(net, name).codes().to(torch.int8), wanted)
        assert wanted.abs().max() > 2
    assert all(parameters[name] is parameter for name, parameter in net.named_parameters())
    assert {row.module: row.bits for row in report.rows if row.role == "weight"} == {"conv": 3, "fc": 4}
    net(x).sum().backward()
    sq.calibrate(net, [x])
    sq.freeze(net)
    result = sq.verify(net, sq.lower(net, x), x)
    assert result.differences == 0
    assert result.spikes > 50


def test_a_plan_with_other_bits_is_refused_and_the_model_stays():
    net, x = made()
    modules = dict(net.named_modules())
    with pytest.raises(
        sq.PlanError, match="conv: the plan asks for 4 weight bits, but Brevitas quantizes .* to 3 already"
    ):
        sq.quantize_(net, sq.Plan.uniform(weight_bits=4), x, quiet=True)
    assert all(a is b for a, b in zip(modules.values(), net.modules(), strict=True))


def test_quantized_activations_are_refused():
    net, x = made(input_quant=quant.Int8ActPerTensorFloat)
    with pytest.raises(sq.Unsupported, match="fc: input_quant = 'on': the sums of a spiking layer are exact"):
        sq.quantize_(net, MEMBRANE, x, quiet=True)
    net, x = made()
    net.lif1 = qnn.QuantReLU()
    with pytest.raises(
        sq.Unsupported, match="lif1: Brevitas' QuantReLU: activations between spiking layers are spikes"
    ):
        sq.quantize_(net, MEMBRANE, x, quiet=True)


def test_another_grid_is_refused():
    net, x = made(weight_quant=quant.ShiftedUint8WeightPerTensorFloat)
    with pytest.raises(sq.Unsupported, match="fc: weight_quant = 'asymmetric'"):
        sq.quantize_(net, MEMBRANE, x, quiet=True)
