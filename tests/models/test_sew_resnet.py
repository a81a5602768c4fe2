"""SEW-ResNets: counted, joined in three ways, and made integers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.models import SEWResNet, sew_resnet8, sew_resnet18, sew_resnet34

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8, weight_clipping="max")


@torch.no_grad()
def awake_(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Batch norm that has seen the data, so that neurons fire through the whole network."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train()(x)
    for norm in norms:
        norm.momentum = 0.1
        norm.bias.fill_(0.5)
    sq.reset(net)
    return net.eval()


def becomes_verified_integers(net: nn.Module, x: torch.Tensor) -> None:
    sq.quantize_(net, PLAN, x, quiet=True)
    net.train()
    net(x).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    sq.reset(net)
    sq.freeze(net.eval())
    lowered = sq.lower(net, x)
    assert sq.verify(net, lowered, x).differences == 0
    trains = sq.readers.golden.run(lowered, lowered.vectors.inputs).outputs
    assert not [name for name, train in trains.items() if not train.any()]


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_resnet_8_becomes_verified_integers(connect):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    net = awake_(sew_resnet8(width=4, connect=connect, steps=4), x)
    becomes_verified_integers(net, x)


@pytest.mark.parametrize(("make", "connect"), [(sew_resnet18, "IAND"), (sew_resnet34, "ADD")])
def test_deep_networks_become_verified_integers(make, connect):
    torch.manual_seed(0)
    x = (torch.rand(3, 2, 2, 32, 32) < 0.3).float()
    net = nn.Sequential(make(width=2, classes=3, in_channels=2, connect=connect, stem="cifar"))
    becomes_verified_integers(awake_(net, x), x)


def test_an_image_and_its_repetition_give_the_same():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    shown = awake_(sew_resnet8(width=4, steps=4), x)
    whole = sew_resnet8(width=4)
    whole.load_state_dict({k.replace("stem.", "stem.layer."): v for k, v in shown.state_dict().items()})
    torch.testing.assert_close(whole.eval()(x.expand(4, *x.shape)).mean(0), shown(x))


@pytest.mark.parametrize("wrong", [{"connect": "XOR"}, {"stem": "7x7"}, {"width": 0}, {"steps": 0}, {"blocks": (1, 0)}])
def test_settings_that_make_no_network_are_refused(wrong):
    with pytest.raises(sq.Unsupported, match=f"SEWResNet: {next(iter(wrong))} = .*expected"):
        SEWResNet(**{"blocks": (1, 1), **wrong})
