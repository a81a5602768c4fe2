"""PLIF networks, VGGs and SEW-ResNets: as many parameters as published, the same outputs, and integers."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.models import (
    PLIFNet,
    SpikingVGG,
    cifar10dvs_net,
    gesture_net,
    nmnist_net,
    parametric_lif,
    sew_resnet18,
    sew_resnet34,
    vgg9,
    vgg11,
    vgg16,
)

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8, weight_clipping="max")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def events(*shape: int) -> torch.Tensor:
    return (torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@torch.no_grad()
def awake_(net: nn.Module, x: torch.Tensor) -> nn.Module:
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train()(x)
    for norm in norms:
        norm.momentum = 0.1
        norm.bias.fill_(1.0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.abs_().mul_(3.0)
    sq.reset(net)
    return net.eval()


NETS = {
    "N-MNIST": (lambda: nmnist_net(width=4, hidden=16), (2, 34, 34)),
    "CIFAR10-DVS": (lambda: cifar10dvs_net(width=4, size=32, hidden=16), (2, 32, 32)),
    "DVS Gesture": (lambda: gesture_net(width=4, size=32, hidden=16), (2, 32, 32)),
    "VGG-9": (lambda: vgg9(width=1 / 16, hidden=16, in_channels=2), (2, 32, 32)),
    "VGG-11": (lambda: vgg11(width=1 / 16, hidden=16, in_channels=2, size=32, pooled=1), (2, 32, 32)),
    "VGG-16": (lambda: vgg16(width=1 / 16, hidden=16, in_channels=2, size=64, pooled=1), (2, 64, 64)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_network_becomes_verified_integers(name):
    make, shape = NETS[name]
    torch.manual_seed(0)
    x = events(*shape)
    net = awake_(make(), x)
    sq.quantize_(net, PLAN, x, quiet=True)
    net.train()
    net(x).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    sq.freeze(net.eval())
    lowered = sq.lower(net, x)
    assert sq.verify(net, lowered, x).differences == 0
    trains = sq.readers.golden.run(lowered, lowered.vectors.inputs).outputs
    assert not [name for name, train in trains.items() if not train.any()]


def test_an_image_shown_to_a_vgg():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32)
    shown = awake_(vgg9(width=1 / 16, hidden=16, steps=3), x)
    whole = vgg9(width=1 / 16, hidden=16)
    renamed = {k.replace("features.0.", "features.0.layer."): v for k, v in shown.state_dict().items()}
    whole.load_state_dict(renamed)
    torch.testing.assert_close(whole.eval()(x.expand(3, *x.shape)).mean(0), shown(x))
    sq.quantize_(shown, PLAN, x, quiet=True)
    sq.freeze(shown)
    assert sq.verify(shown, sq.lower(shown, x), x).differences == 0


@pytest.mark.parametrize(("make", "published"), [(vgg11, 132_868_840), (vgg16, 138_365_992)])
def test_parameters_of_the_vggs(make, published):
    with torch.device("meta"):
        assert count(make()) == published


@pytest.fixture(scope="module")
def zoo() -> Any:
    """SpikingJelly's model zoo; of torchvision it needs one function."""
    pytest.importorskip("spikingjelly")
    names = ("torchvision", "torchvision._internally_replaced_utils")
    stubs = {} if "torchvision" in sys.modules else {name: ModuleType(name) for name in names}
    if stubs:
        vars(stubs[names[1]])["load_state_dict_from_url"] = None
        sys.modules.update(stubs)
    try:
        from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spiking_vgg
    finally:
        for name in stubs:
            del sys.modules[name]
    found = ModuleType("zoo")
    vars(found).update(plif=parametric_lif_net, sew=sew_resnet, vgg=spiking_vgg)
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(nmnist_net, "NMNISTNet"), (cifar10dvs_net, "CIFAR10DVSNet"), (gesture_net, "DVSGestureNet")],
)
def test_plif_networks_are_those_of_the_paper(zoo, ours, theirs):
    from spikingjelly.activation_based import functional, neuron

    width, small = 4, {} if theirs == "NMNISTNet" else {"size": 128}
    x = events(2, 34, 34) if theirs == "NMNISTNet" else events(2, 128, 128)
    published = getattr(zoo.plif, theirs)
    options = {"spiking_neuron": neuron.ParametricLIFNode, "init_tau": 2.0, "detach_reset": True}
    with torch.device("meta"):
        assert count(ours()) == count(published(128, **options))
    torch.manual_seed(0)
    mine = awake_(ours(width=width, **small), x)
    with torch.no_grad():
        for layer in (
            m for m in mine.modules() if isinstance(m, nn.Linear)
        ):  # all on one side, every neuron would fire
            layer.weight.mul_(torch.randn_like(layer.weight) + 0.1)
    other = published(width, **options)
    functional.set_step_mode(other, "m")
    own = [t for name, t in mine.state_dict().items() if not name.endswith("threshold")]
    keys = [name for name in other.state_dict() if "memory" not in name]
    assert [t.shape for t in own] == [other.state_dict()[key].shape for key in keys]
    other.load_state_dict(dict(zip(keys, own, strict=True)), strict=False)
    with torch.no_grad():
        answer = mine(x)
        assert answer.std() > 0
        torch.testing.assert_close(answer, other.eval()(x).mean(0))


@pytest.mark.parametrize(("ours", "theirs"), [(sew_resnet18, "sew_resnet18"), (sew_resnet34, "sew_resnet34")])
@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_resnets_are_those_of_the_paper(zoo, ours, theirs, connect):
    from spikingjelly.activation_based import neuron

    with torch.device("meta"):
        published = getattr(zoo.sew, theirs)(cnf=connect, spiking_neuron=neuron.IFNode)
        assert count(ours(connect=connect)) == count(published)


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_a_sew_resnet_answers_as_spikingjellys(zoo, connect):
    from spikingjelly.activation_based import functional, neuron, surrogate

    torch.manual_seed(0)
    x = events(3, 32, 32)
    mine = awake_(sew_resnet18(classes=5, connect=connect), x)
    options = {"surrogate_function": surrogate.ATan(), "decay_input": False, "tau": 2.0}
    other = zoo.sew.sew_resnet18(cnf=connect, spiking_neuron=neuron.LIFNode, num_classes=5, **options)
    functional.set_step_mode(other, "m")
    values = dict(mine.state_dict())
    stem = {"conv1.": "stem.layer.0.", "bn1.": "stem.layer.1.", "fc.": "head.layer.2."}
    block = {"conv1.": "conv1.layer.0.", "bn1.": "conv1.layer.1.", "conv2.": "conv2.layer.0.", "bn2.": "conv2.layer.1."}
    block |= {"downsample.0.0.": "shortcut.0.layer.0.", "downsample.0.1.": "shortcut.0.layer.1."}
    block |= {"downsample.0.": "shortcut.0.layer.0.", "downsample.1.": "shortcut.0.layer.1."}
    taken = {}
    for key, tensor in other.state_dict().items():
        if key.startswith("layer"):
            stage, k, rest = key.removeprefix("layer").split(".", 2)
            start, table = f"blocks.{2 * (int(stage) - 1) + int(k)}.", block
        else:
            start, table, rest = "", stem, key
        name = next((f"{start}{new}{rest.removeprefix(old)}" for old, new in table.items() if rest.startswith(old)), "")
        if name in values and values[name].shape == tensor.shape:
            taken[key] = values[name]
    assert len(taken) == len(other.state_dict())
    other.load_state_dict(taken)
    with torch.no_grad():
        answer = mine(x)
        assert answer.std() > 0
        torch.testing.assert_close(answer, other.eval()(x), rtol=1e-4, atol=1e-5)


def test_settings_that_make_no_network_are_refused():
    with pytest.raises(sq.Unsupported, match="PLIFNet: convs=6.*a size of at least 64"):
        PLIFNet(6, size=32, hidden=8, classes=2)
    with pytest.raises(sq.Unsupported, match="4 poolings leave 2 of 32 rows; pooled=7 does not divide them"):
        vgg9(pooled=7)
    with pytest.raises(sq.Unsupported, match="SpikingVGG: .*width=0"):
        SpikingVGG(((4,),), width=0, size=8, pooled=4)
    with pytest.raises(sq.Unsupported, match="parametric_lif: init_tau = 1.0"):
        parametric_lif(init_tau=1.0)
