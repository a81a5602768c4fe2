"""Modules in multi-step mode: sequential, residual, joined, pooled, flattened, encoded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.capture.nets import BATCH, HIDDEN, INPUTS, STEPS, MultiStep, edges, model, spikes
from torch import nn

import spikequant as sq
from spikequant.capture import capture
from spikequant.models import digits_net
from spikequant.nn import LIF, LatencyEncoder, LeakyIntegrator, Normalize, PoissonEncoder
from spikequant.nn.over_time import OverTime


def test_sequential():
    net = nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Sequential(nn.Linear(HIDDEN, 2), LIF()))
    graph = capture(net, spikes(STEPS, BATCH, INPUTS))
    assert edges(graph) == {"0": [("input", 0)], "1": [("0", 0)], "2.0": [("1", 0)], "2.1": [("2.0", 0)]}
    assert graph.output.reduction == "train"


JOINS = {
    "add": lambda a, b: a + b,
    "iand": lambda a, b: (1 - a) * b,
    "product": lambda a, b: a * b,
    "concat": lambda a, b: torch.cat([a, b], dim=-1),
    "maximum": torch.maximum,
}


@pytest.mark.parametrize("kind", JOINS)
def test_two_trains_meet(kind):
    def forward(self, x):
        a = self.lif1(self.fc1(x))
        b = self.lif3(self.fc3(a))
        return self.lif2(self.fc2(JOINS[kind](a, b))).mean(0)

    width = 2 * HIDDEN if kind == "concat" else HIDDEN
    layers = {"fc3": nn.Linear(HIDDEN, HIDDEN), "lif3": LIF(), "fc2": nn.Linear(width, 2)}
    graph = capture(model(forward, MultiStep, **layers), spikes(STEPS, BATCH, INPUTS))
    assert graph.node(kind).kind == kind
    assert edges(graph)[kind] == [("lif1", 0), ("lif3", 0)]
    assert edges(graph)["fc2"] == [(kind, 0)]


def test_iand_knows_which_side_is_negated():
    def forward(self, x):
        a = self.lif1(self.fc1(x))
        b = self.lif3(self.fc3(a))
        return self.lif2(self.fc2(a * (1 - b))).mean(0)

    net = model(forward, MultiStep, fc3=nn.Linear(HIDDEN, HIDDEN), lif3=LIF())
    assert edges(capture(net, spikes(STEPS, BATCH, INPUTS)))["iand"] == [("lif3", 0), ("lif1", 0)]


def test_residual_inside_a_loop():
    def forward(self, x):
        out = 0
        for xt in x:
            a = self.lif1(self.fc1(xt))
            out = out + self.lif2(self.fc2(a + self.lif3(self.fc3(a))))
        return out

    net = model(forward, fc3=nn.Linear(HIDDEN, HIDDEN), lif3=LIF(step_mode="s"))
    graph = capture(net, spikes(STEPS, BATCH, INPUTS))
    assert edges(graph)["add"] == [("lif1", 0), ("lif3", 0)]
    assert (graph.output.source, graph.output.reduction) == ("lif2", "sum")


POOLS = {
    "max module": OverTime(nn.MaxPool2d(2)),
    "average module": OverTime(nn.AvgPool2d(2)),
    "max function": lambda x: F.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2]),
    "average function": lambda x: F.avg_pool2d(x.flatten(0, 1), kernel_size=2).view(*x.shape[:2], 2, 3, 3),
    "adaptive module": OverTime(nn.AdaptiveAvgPool2d(3)),
}
FLATTENS = {
    "flatten": lambda x: x.flatten(2),
    "torch.flatten": lambda x: torch.flatten(x, start_dim=2),
    "view": lambda x: x.view(x.shape[0], x.shape[1], -1),
    "reshape": lambda x: x.reshape(*x.shape[:2], x[0, 0].numel()),
    "module": OverTime(nn.Flatten()),
}


class Image(nn.Module):
    """Convolution, pooling, flatten, readout."""

    def __init__(self, pool, flatten):
        super().__init__()
        self.conv, self.lif, self.fc = OverTime(nn.Conv2d(1, 2, 3, padding=1)), LIF(), nn.Linear(18, 3)
        self.pool = pool if isinstance(pool, nn.Module) else None
        self.flat = flatten if isinstance(flatten, nn.Module) else None
        self.functions = {"pool": pool, "flatten": flatten}

    def forward(self, x):
        x = self.functions["pool"](self.lif(self.conv(x)))
        return self.fc(self.functions["flatten"](x)).mean(0)


@pytest.mark.parametrize("flatten", FLATTENS)
@pytest.mark.parametrize("pool", POOLS)
def test_pooling_and_flatten(pool, flatten):
    graph = capture(Image(POOLS[pool], FLATTENS[flatten]), spikes(STEPS, 2, 1, 6, 6))
    names = [n.name for n in graph.nodes]
    pooled = "pool.layer" if "module" in pool else "pool"
    assert names == ["input", "conv.layer", "lif", pooled, "flatten", "fc"]
    assert [n.shape for n in graph.nodes][-3:] == [(2, 3, 3), (18,), (3,)]
    assert graph.node("flatten").kind == "reshape"
    assert (graph.output.source, graph.output.reduction) == ("fc", "mean")


@pytest.mark.parametrize("encoder", [PoissonEncoder(STEPS), LatencyEncoder(STEPS)])
def test_encoders_make_the_time(encoder):
    graph = capture(nn.Sequential(encoder, nn.Linear(INPUTS, 2), LIF()), torch.rand(BATCH, INPUTS))
    assert graph.input_layout == "static"
    assert edges(graph) == {"0": [("input", 0)], "1": [("0", 0)], "2": [("1", 0)]}
    assert [n.per_step for n in graph.nodes] == [False, True, True, True]


def test_a_static_image_is_computed_once():
    graph = capture(digits_net(), torch.rand(2, 1, 8, 8))
    static = [n.name for n in graph.nodes if not n.per_step]
    assert static == ["input", "conv1", "norm1", "pool1"]
    assert (graph.input_layout, graph.steps) == ("static", 8)


def test_normalize_and_batch_norm_are_nodes_and_dropout_is_none():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = Normalize([0.5], [0.2]), nn.Conv1d(1, 2, 3)
            self.bn, self.drop, self.lif = nn.BatchNorm1d(2), nn.Dropout(0.5), LIF()
            self.read = nn.Linear(4, 2)
            self.out = LeakyIntegrator()

        def forward(self, x):
            current = self.bn(self.fc(self.norm(x)))
            spk = self.drop(self.lif(current.unsqueeze(0).repeat(STEPS, 1, 1, 1)))
            return self.out(self.read(spk.flatten(2)))[-1]

    graph = capture(Net(), torch.rand(BATCH, 1, 4))
    assert [n.name for n in graph.nodes] == ["input", "norm", "fc", "bn", "lif", "flatten", "read", "out"]
    assert graph.output.reduction == "last"


def test_capture_leaves_the_mode_and_the_numbers_alone():
    net = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Dropout(0.5), LIF()).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    capture(net, spikes(STEPS, BATCH, INPUTS))
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_graph_answers_questions():
    net = nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF())
    graph = capture(net, spikes(STEPS, BATCH, INPUTS))
    assert [n.name for n in graph.consumers("0")] == ["1"]
    assert graph.modules(net) == {"0": net[0], "1": net[1]}
    with pytest.raises(sq.CaptureError, match="no node 'x' in the captured graph"):
        graph.node("x")


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_a_loop_over_layers_is_no_loop_over_time(steps):
    """Four layers in a loop of one line each, shown as many steps as there are layers, and one more."""

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
            self.neurons = nn.ModuleList(LIF() for _ in range(4))

        def forward(self, x):
            for layer, neuron in zip(self.layers, self.neurons, strict=True):
                x = neuron(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return x.sum(0)

    found = edges(capture(Stack(), spikes(steps, 3, 4)))
    wanted = {"layers.0": [("input", 0)], "neurons.0": [("layers.0", 0)]}
    for k in range(1, 4):
        wanted |= {f"layers.{k}": [(f"neurons.{k - 1}", 0)], f"neurons.{k}": [(f"layers.{k}", 0)]}
    assert found == wanted


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_modules_of_one_class_share_lines_but_not_places(steps):
    net = nn.Sequential(*(m for _ in range(3) for m in (OverTime(nn.Linear(4, 4)), LIF())))
    found = edges(capture(net, spikes(steps, 3, 4)))
    assert found["2.layer"] == [("1", 0)]
    assert found["4.layer"] == [("3", 0)]
    assert len(found) == 6


def test_values_read_for_their_shape_alone_are_no_part_of_the_graph():
    def forward(self, x):
        self.size = x[0].numel() + x[1, 0].numel()
        return self.one(x).sum(0)

    net = model(forward, MultiStep)
    assert [n.name for n in capture(net, spikes(STEPS, BATCH, INPUTS)).nodes] == ["input", "fc1", "lif1", "fc2", "lif2"]
    assert net.size == BATCH * INPUTS + INPUTS
