"""Networks of SpikingJelly's own model zoo, unchanged: read, quantized, trained a step, lowered, verified."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq

pytest.importorskip("spikingjelly")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

STEPS, BATCH = 4, 2
PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8, weight_clipping="max")  # whose scales cost no search
NODE = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


@pytest.fixture(scope="module")
def zoo() -> Any:
    """`spikingjelly.activation_based.model`; of torchvision it needs one function, which torch has, too."""
    stubs = {}
    try:
        import torchvision  # noqa: F401
    except ImportError:
        stubs = {name: ModuleType(name) for name in ("torchvision", "torchvision._internally_replaced_utils")}
        stubs["torchvision._internally_replaced_utils"].load_state_dict_from_url = torch.hub.load_state_dict_from_url
        sys.modules.update(stubs)
    try:
        from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spiking_vgg
    finally:
        for name in stubs:
            del sys.modules[name]
    found = ModuleType("zoo")
    vars(found).update(plif=parametric_lif_net, sew=sew_resnet, vgg=spiking_vgg)
    return found


def sew(zoo: Any, cnf: str, layers: list[int]) -> nn.Module:
    return zoo.sew.SEWResNet(
        zoo.sew.BasicBlock, layers, cnf=cnf, spiking_neuron=neuron.IFNode, num_classes=10, v_reset=None, **NODE
    )


def vgg(zoo: Any, small: bool = True) -> nn.Module:
    """VGG-11 with batch norm; its classifier of 120 million weights only where there is time for it."""
    net = zoo.vgg.spiking_vgg11_bn(
        spiking_neuron=neuron.LIFNode, num_classes=10, init_weights=not small, tau=2.0, **NODE
    )
    if small:
        net.classifier = nn.Sequential(
            layer.Linear(512 * 49, 32), neuron.LIFNode(tau=2.0, **NODE), layer.Dropout(), layer.Linear(32, 10)
        )
    return net


def plif(zoo: Any, name: str, channels: int) -> nn.Module:
    """A network of Fang et al. (2021) with its neurons: init_tau 2, input not decayed."""
    kind = getattr(zoo.plif, name)
    return kind(channels, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0, decay_input=False, **NODE)


NETS: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]] = {
    "SEW-ResNet-10 AND": (lambda zoo: sew(zoo, "AND", [1, 1, 1, 1]), (3, 32, 32)),
    "SEW-ResNet-10 IAND": (lambda zoo: sew(zoo, "IAND", [1, 1, 1, 1]), (3, 32, 32)),
    "VGG-11": (vgg, (3, 32, 32)),
    "PLIF MNIST": (lambda zoo: plif(zoo, "MNISTNet", 16), (1, 28, 28)),
    "PLIF Fashion-MNIST": (lambda zoo: plif(zoo, "FashionMNISTNet", 16), (1, 28, 28)),
    "PLIF N-MNIST": (lambda zoo: plif(zoo, "NMNISTNet", 16), (2, 34, 34)),
    "PLIF CIFAR-10": (lambda zoo: plif(zoo, "CIFAR10Net", 16), (3, 32, 32)),
    "PLIF CIFAR10-DVS": (lambda zoo: plif(zoo, "CIFAR10DVSNet", 8), (2, 128, 128)),
    "PLIF DVS Gesture": (lambda zoo: plif(zoo, "DVSGestureNet", 8), (2, 128, 128)),
}


def data(shape: tuple[int, ...]) -> torch.Tensor:
    """Two polarities of events, or one image over all steps."""
    draw = torch.Generator().manual_seed(1)
    if shape[0] == 2:
        return (torch.rand(STEPS, BATCH, *shape, generator=draw) < 0.3).float()
    return torch.rand(BATCH, *shape, generator=draw).expand(STEPS, BATCH, *shape).contiguous()


@torch.no_grad()
def awake_(net: nn.Module, x: torch.Tensor, mode: str = "m") -> nn.Module:
    """Batch norm that has seen the data, so that neurons fire through the whole network."""
    functional.set_step_mode(net, "m")
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train()(x)
    functional.reset_net(net)
    for norm in norms:
        norm.momentum = 0.1
        norm.bias.fill_(0.3)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(3.0)
    functional.set_step_mode(net, mode)
    return net.eval()


def through_all_verbs(net: nn.Module, x: torch.Tensor) -> Any:
    """Quantize, train a step, calibrate, freeze, lower, verify."""
    names = set(net.state_dict())
    sq.quantize_(net, PLAN, x, quiet=True)
    assert names <= set(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    net.train()
    net(x).square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert not missing
    optimizer.step()
    functional.reset_net(net)
    net.eval()
    sq.freeze(net)
    lowered = sq.lower(net, x)
    proof = sq.verify(net, lowered, x)
    assert proof.differences == 0
    rates = sq.readers.golden.run(lowered, lowered.vectors.inputs).outputs
    silent = [name for name, train in rates.items() if not train.any()]
    assert not silent
    return proof


@pytest.mark.parametrize("name", NETS)
def test_networks_of_the_zoo_become_verified_integers(zoo, name):
    torch.manual_seed(0)
    make, shape = NETS[name]
    mode = "s" if name in ("SEW-ResNet-10 AND", "PLIF N-MNIST") else "m"
    x = data(shape)
    net = awake_(make(zoo), x, mode)
    through_all_verbs(net, x if mode == "m" else x[0])


@pytest.fixture
def images() -> torch.Tensor:
    """Real CIFAR-10 images, the same at every step, where the data are there; else noise."""
    try:
        pixels = sq.data.load_cifar10().test.x[:BATCH]
    except (sq.DataError, ImportError):
        return data((3, 32, 32))
    return torch.from_numpy(pixels.astype(np.float32) / 255).expand(STEPS, BATCH, 3, 32, 32).contiguous()


@torch.no_grad()
def differences_by_layer(real: nn.Module, quantized: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Share of differing spikes of each real convolution, norm and neuron on what the quantized one was given.

    Layer by layer, because a random deep network doubles a difference in almost every layer, however small it began.
    """
    seen: dict[str, torch.Tensor] = {}
    for path, module in quantized.named_modules():
        module.register_forward_pre_hook(lambda _m, args, path=path: seen.setdefault(f"{path} in", args[0].clone()))
        module.register_forward_hook(lambda _m, _a, out, path=path: seen.setdefault(f"{path} out", out.clone()))
    quantized(x)
    found = {}
    blocks = [path for path in dict(real.named_modules()) if path.endswith(("conv1", "conv2", "downsample.0"))]
    for conv in blocks:
        stem, _, name = conv.rpartition(".")
        stem = f"{stem}." if stem else ""
        norm = f"{stem}1" if name == "0" else f"{stem}bn{name[-1]}"
        spiking = f"{stem.removesuffix('downsample.')}downsample_sn" if name == "0" else f"{stem}sn{name[-1]}"
        y = seen[f"{conv} in"]
        for path in (conv, norm, spiking):
            y = real.get_submodule(path)(y)
        assert y.any()
        found[spiking] = float((y != seen[f"{spiking} out"]).float().mean())
    functional.reset_net(real)
    return found


def test_sew_resnet_18_on_cifar(zoo, images):
    torch.manual_seed(0)
    net = awake_(sew(zoo, "ADD", [2, 2, 2, 2]), images)
    reading = sq.check_reading(net, images, quiet=True)
    assert reading.exact
    assert len(reading.layers) == 20
    assert min(row.spikes for row in reading.layers) > 0
    twin = copy.deepcopy(net)
    sq.quantize_(twin, sq.Plan.uniform(weight_bits=8, membrane_bits=16), images, quiet=True)
    assert max(differences_by_layer(net, twin, images).values()) < 0.03
    through_all_verbs(net, images)


@pytest.mark.conformance
@pytest.mark.parametrize("name", ["SEW-ResNet-34", "VGG-11"])
def test_large_networks_of_the_zoo(zoo, images, name):
    torch.manual_seed(0)
    net = sew(zoo, "ADD", [3, 4, 6, 3]) if name == "SEW-ResNet-34" else vgg(zoo, small=False)
    through_all_verbs(awake_(net, images), images)


def test_a_prepared_network_saves_and_loads(zoo, tmp_path: Path):
    x = data((2, 34, 34))
    torch.manual_seed(0)
    make, _ = NETS["PLIF N-MNIST"]
    real = awake_(make(zoo), x)
    net = copy.deepcopy(real)
    sq.quantize_(net, PLAN, x, quiet=True)
    sq.save_prepared(net, tmp_path / "net.safetensors")
    again = sq.load_prepared(copy.deepcopy(real), tmp_path / "net.safetensors").eval()
    assert torch.equal(again(x), net(x))
    assert isinstance(again.conv_fc[2], neuron.ParametricLIFNode)
