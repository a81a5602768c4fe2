"""Networks as snnTorch's tutorials write them: quantized, trained a step, lowered, verified."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq

snn = pytest.importorskip("snntorch")
functional = pytest.importorskip("snntorch.functional")
surrogate = pytest.importorskip("snntorch.surrogate")
utils = pytest.importorskip("snntorch.utils")

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


def conv_net() -> nn.Sequential:
    """Tutorial 6."""
    options = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25), "init_hidden": True, "threshold": 0.3}
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), snn.Leaky(**options, output=True),
    )  # fmt: skip


def forward_pass(net, steps, data):
    """Its loop, outside of the network."""
    mem_rec, spk_rec = [], []
    utils.reset(net)
    for _ in range(steps):
        spk_out, mem_out = net(data)
        spk_rec.append(spk_out)
        mem_rec.append(mem_out)
    return torch.stack(spk_rec), torch.stack(mem_rec)


class Whole(nn.Module):
    """The same as one module, to lower all steps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, data):
        return forward_pass(self.net, 5, data)


def train_step(net, loss):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    before = [p.clone() for p in net.parameters()]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)) >= 4


def test_the_convolutional_network_in_its_own_loop():
    torch.manual_seed(0)
    net, x = conv_net(), torch.rand(3, 1, 28, 28)
    target = torch.tensor([1, 2, 3])
    sq.quantize_(net, PLAN, x, quiet=True)
    spikes, membranes = forward_pass(net, 5, x)
    assert spikes.shape == membranes.shape == (5, 3, 10)
    train_step(net, functional.ce_rate_loss()(spikes, target))
    whole = Whole(net)
    sq.calibrate(whole, [x])
    sq.freeze(whole)
    lowered = sq.lower(whole, x)
    assert lowered.steps == 5
    report = sq.verify(whole, lowered, x)
    assert report.differences == 0
    assert report.spikes > 500


def test_the_membrane_loss_of_tutorial_5():
    """A loss on the recorded membranes of the last layer reaches all weights, also quantized."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(20, 16), snn.Leaky(beta=0.95)
            self.fc2, self.lif2 = nn.Linear(16, 4), snn.Leaky(beta=0.95)

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            spk2_rec, mem2_rec = [], []
            for _ in range(6):
                cur1 = self.fc1(x)
                spk1, mem1 = self.lif1(cur1, mem1)
                cur2 = self.fc2(spk1)
                spk2, mem2 = self.lif2(cur2, mem2)
                spk2_rec.append(spk2)
                mem2_rec.append(mem2)
            return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)

    net, x, target = Net(), torch.rand(5, 20) * 2, torch.tensor([0, 1, 2, 3, 0])
    sq.quantize_(net, PLAN, x, quiet=True)
    _, mem_rec = net(x)
    loss = sum(nn.functional.cross_entropy(mem, target) for mem in mem_rec)
    train_step(net, loss)
    sq.calibrate(net, [x])
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, x), x)
    assert report.differences == 0
    assert report.spikes > 50


def test_truncated_backpropagation_by_detaching_states():
    """``mem = mem.detach()`` between chunks: the state goes on, its graph does not."""
    torch.manual_seed(0)
    layer, fc = snn.Leaky(beta=0.9), nn.Linear(6, 5)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = fc, layer

        def forward(self, x):
            mem, total = self.lif.reset_mem(), 0
            for _ in range(4):
                spk, mem = self.lif(self.fc(x), mem)
                total = total + spk
            return total

    net, x = Net(), torch.rand(4, 6) * 3
    sq.quantize_(net, PLAN, x, quiet=True)
    whole = net(x)
    mem, total = net.lif.reset_mem(), torch.zeros(4, 5)
    for _ in range(4):
        spk, mem = net.lif(net.fc(x), mem)
        total = total + spk
        (spk.sum() + mem.sum()).backward()
        mem = mem.detach()
    assert torch.equal(total, whole)
    net.lif.reset_mem()
    spk, mem = net.lif(net.fc(x), mem)
    assert mem.shape == (4, 5)


@pytest.mark.parametrize("quantized", [False, True])
def test_detach_hidden_cuts_the_graph_of_hidden_states(quantized):
    torch.manual_seed(0)
    net, x = conv_net()[6:], torch.rand(3, 1024)
    if quantized:
        sq.quantize_(net, PLAN, x, quiet=True)
    else:
        sq.frontends.read_(net)
    utils.reset(net)
    for _ in range(3):
        spikes, membrane = net(x)
        (spikes.sum() + membrane.sum()).backward()
        snn.Leaky.detach_hidden()
    assert membrane.abs().max() > 0


def test_one_layer_at_two_places_is_one_reading():
    layer = snn.Leaky(beta=0.9, init_hidden=True)
    places = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Sequential(layer)})
    readings = sq.frontends.read_(places)
    assert isinstance(places["a"], sq.nn.NeuronLayer)
    assert places["a"] is places["b"] is places["c"][0]
    readings.undo()
    assert places["a"] is places["b"] is places["c"][0] is layer


def test_states_of_the_users_own_go_on_from_there():
    """A membrane that the caller makes: the real reading takes it exactly, the quantized one on its grid."""
    original, x = snn.Leaky(beta=0.8), torch.rand(4, 5)
    mem = torch.rand(4, 5) * 1.5
    wanted = original(x, mem)
    reading = sq.frontends.snntorch.LIBRARY.read("lif", original).module
    assert all(torch.equal(a, b) for a, b in zip(wanted, reading(x, mem), strict=True))
    syn = snn.Synaptic(alpha=0.7, beta=0.8)
    wanted = syn(x, mem * 0.3, mem)
    reading = sq.frontends.snntorch.LIBRARY.read("lif", syn).module
    assert all(torch.equal(a, b) for a, b in zip(wanted, reading(x, mem * 0.3, mem), strict=True))
    hidden = sq.frontends.snntorch.LIBRARY.read("lif", snn.Leaky(beta=0.5, init_hidden=True)).module
    with pytest.raises(TypeError, match="init_hidden=True"):
        hidden(x, mem)


def test_import_loads_no_library_of_neurons():
    import subprocess
    import sys

    names = ("snntorch", "spikingjelly", "norse", "sinabs", "nir", "brevitas")
    code = (
        f"import sys, spikequant as sq; sq.quantize_; sq.check_reading; print([m for m in {names} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_one_of_two_states_may_be_passed():
    original, x = snn.Synaptic(alpha=0.7, beta=0.8), torch.rand(4, 5)
    reading = sq.frontends.snntorch.LIBRARY.read("lif", snn.Synaptic(alpha=0.7, beta=0.8)).module
    for layer in (original, reading):
        _, syn, _ = layer(x)
        layer.last = layer(x, syn.clone())
    assert all(torch.equal(a, b) for a, b in zip(original.last, reading.last, strict=True))
