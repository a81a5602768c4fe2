"""The user's own loop over time, in the shapes in which it is written."""

from __future__ import annotations

import pytest
import torch
from tests.capture.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, MultiStep, edges, model, spikes
from torch import nn

from spikequant.capture import capture
from spikequant.law.errors import CaptureError
from spikequant.nn import STATEFUL

CHAIN = {"fc1": [("input", 0)], "lif1": [("fc1", 0)], "fc2": [("lif1", 0)], "lif2": [("fc2", 0)]}


def stack_mean(self, x):
    out = []
    for t in range(x.shape[0]):
        out.append(self.one(x[t]))
    return torch.stack(out).mean(0)


def stack_named(self, x):
    return torch.stack([self.one(x[t]) for t in range(x.size(0))], dim=0).sum(dim=0)


def running_sum(self, x):
    total = 0
    for t in range(len(x)):
        total = total + self.one(x[t])
    return total / len(x)


def running_sum_in_place(self, x):
    total = 0
    for t in range(STEPS):
        total += self.one(x[t])
    return total


def running_sum_of_zeros(self, x):
    total = torch.zeros(x.shape[1], CLASSES)
    for t in range(STEPS):
        total += self.one(x[t])
    return total


def running_sum_of_none(self, x):
    total = None
    for xt in x:
        spk = self.one(xt)
        total = spk if total is None else total + spk
    return total


def builtin_sum(self, x):
    return sum(self.one(xt) for xt in x) / STEPS


def last_step(self, x):
    for xt in x:
        spk = self.one(xt)
    return spk


def last_of_stack(self, x):
    return torch.stack([self.one(xt) for xt in x])[-1]


def unbind(self, x):
    return torch.stack([self.one(xt) for xt in torch.unbind(x, 0)]).amax(0)


def enumerated(self, x):
    out = []
    for t, xt in enumerate(x):
        out.insert(t, self.one(xt))
    return torch.stack(out)


def list_of_steps(self, x):
    return [self.one(xt) for xt in x]


def weighted(self, x):
    return 0.25 * torch.stack([self.one(xt) for xt in x]).sum(0)


LOOPS = {
    stack_mean: ("mean", 1.0),
    stack_named: ("sum", 1.0),
    running_sum: ("sum", 1 / STEPS),
    running_sum_in_place: ("sum", 1.0),
    running_sum_of_zeros: ("sum", 1.0),
    running_sum_of_none: ("sum", 1.0),
    builtin_sum: ("sum", 1 / STEPS),
    last_step: ("last", 1.0),
    last_of_stack: ("last", 1.0),
    unbind: ("max", 1.0),
    enumerated: ("train", 1.0),
    list_of_steps: ("train", 1.0),
    weighted: ("sum", 0.25),
}


@pytest.mark.parametrize("forward", LOOPS, ids=lambda f: f.__name__)
def test_a_loop_over_time_becomes_one_chain(forward):
    graph = capture(model(forward), spikes(STEPS, BATCH, INPUTS))
    assert edges(graph) == CHAIN
    assert (graph.output.source, graph.output.reduction, graph.output.factor) == ("lif2", *LOOPS[forward])
    assert (graph.steps, graph.input_layout) == (STEPS, "time_first")
    assert [n.shape for n in graph.nodes] == [(INPUTS,), (HIDDEN,), (HIDDEN,), (CLASSES,), (CLASSES,)]
    assert all(n.per_step for n in graph.nodes)


def shown_again(self, x):
    return torch.stack([self.one(x) for _ in range(STEPS)]).mean(0)


def shown_once(self, x):
    current = self.fc1(x)
    return torch.stack([self.lif2(self.fc2(self.lif1(current))) for _ in range(STEPS)]).mean(0)


@pytest.mark.parametrize("forward", [shown_again, shown_once])
def test_a_static_input_is_computed_once(forward):
    graph = capture(model(forward), torch.rand(BATCH, INPUTS))
    assert graph.input_layout == "static"
    assert edges(graph) == CHAIN
    assert [n.name for n in graph.nodes if not n.per_step] == ["input", "fc1"]


def transposed(self, x):
    x = x.transpose(0, 1)
    return torch.stack([self.one(xt) for xt in x]).mean(0)


def sliced(self, x):
    return torch.stack([self.one(x[:, t]) for t in range(x.shape[1])]).mean(0)


def selected(self, x):
    return torch.stack([self.one(x.select(1, t)) for t in range(x.shape[1])]).mean(0)


def unbound(self, x):
    return torch.stack([self.one(xt) for xt in x.unbind(1)]).mean(0)


@pytest.mark.parametrize("forward", [transposed, sliced, selected, unbound])
@pytest.mark.parametrize("batch", [BATCH, STEPS], ids=["", "as many samples as steps"])
def test_time_on_the_second_axis(forward, batch):
    graph = capture(model(forward), spikes(batch, STEPS, INPUTS))
    assert graph.input_layout == "batch_first"
    assert edges(graph) == CHAIN


@pytest.mark.parametrize("forward", [stack_mean, unbind])
def test_as_many_samples_as_steps_with_time_first(forward):
    assert capture(model(forward), spikes(STEPS, STEPS, INPUTS)).input_layout == "time_first"


def test_a_permuted_input_in_multi_step_mode():
    def forward(self, x):
        return self.one(x.permute(1, 0, 2)).sum(0)

    graph = capture(model(forward, MultiStep), spikes(BATCH, STEPS, INPUTS))
    assert (graph.input_layout, edges(graph)) == ("batch_first", CHAIN)


def test_one_step_per_call():
    graph = capture(model(lambda self, x: self.one(x)), spikes(BATCH, INPUTS))
    assert (graph.input_layout, graph.steps, edges(graph)) == ("step", 1, CHAIN)


def test_a_loop_of_one_step_asks_for_a_longer_example():
    with pytest.raises(CaptureError, match="needs an example of at least 2 time steps"):
        capture(model(stack_mean), spikes(1, BATCH, INPUTS))


def test_a_recurrent_loop_of_one_step_asks_for_a_longer_example():
    """The tensor of zeros that it starts from was compared with a list of numbers."""

    def forward(self, x):
        spk, out = torch.zeros(x.shape[1], HIDDEN), 0
        for xt in x:
            spk = self.lif1(self.fc1(xt) + spk)
            out = out + self.lif2(self.fc2(spk))
        return out

    with pytest.raises(CaptureError, match="needs an example of at least 2 time steps"):
        capture(model(forward), spikes(1, BATCH, INPUTS))


def test_a_recurrent_loop_has_a_delay_of_one():
    def forward(self, x):
        spk, out = torch.zeros(x.shape[1], HIDDEN), 0
        for xt in x:
            spk = self.lif1(self.fc1(xt) + self.back(spk))
            out = out + self.lif2(self.fc2(spk))
        return out

    graph = capture(model(forward, back=nn.Linear(HIDDEN, HIDDEN)), spikes(STEPS, BATCH, INPUTS))
    assert edges(graph) == {
        "fc1": [("input", 0)], "back": [("lif1", 1)], "add": [("fc1", 0), ("back", 0)], "lif1": [("add", 0)],
        "fc2": [("lif1", 0)], "lif2": [("fc2", 0)],
    }  # fmt: skip


def test_feedback_from_a_later_layer_and_a_longer_delay():
    def forward(self, x):
        last, older, out = torch.zeros(x.shape[1], CLASSES), torch.zeros(x.shape[1], CLASSES), []
        for xt in x:
            spk = self.lif1(self.fc1(xt) + self.back(older))
            older, last = last, self.lif2(self.fc2(spk))
            out.append(last)
        return torch.stack(out).sum(0)

    graph = capture(model(forward, back=nn.Linear(CLASSES, HIDDEN)), spikes(STEPS, BATCH, INPUTS))
    assert edges(graph)["back"] == [("lif2", 2)]


def test_a_running_sum_reads_the_same_as_torch():
    net = model(running_sum_in_place)
    x = spikes(STEPS, BATCH, INPUTS)
    with torch.no_grad():
        wanted = net(x)
    assert wanted.sum() > 0
    for module in net.modules():
        if isinstance(module, STATEFUL):
            module.reset()
    capture(net, x)
    for module in net.modules():
        if isinstance(module, STATEFUL):
            module.reset()
    with torch.no_grad():
        assert torch.equal(net(x), wanted)
