"""What has no place in a static graph is refused, with the line that caused it."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from tests.capture.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, Layers, MultiStep, marked_line, model, spikes
from torch import nn

from spikequant.capture import capture
from spikequant.law.errors import CaptureError
from spikequant.nn import LIF


def branch_on_data(self, x):
    out = 0
    for xt in x:
        spk = self.one(xt)
        if spk.sum() > 3:  # <-
            out = out + spk
    return out


def leaves_the_tensors(self, x):
    count = 0
    for xt in x:
        count += self.one(xt).sum().item()  # <-
    return x.sum() * count


def shared_layer(self, x):
    out = 0
    for xt in x:
        a = self.lif1(self.fc1(xt))
        out = out + self.lif2(self.fc2(self.lif3(self.same(self.lif4(self.same(a))))))  # <-
    return out


def nonzero_state(self, x):
    spk, out = torch.ones(x.shape[1], HIDDEN), 0
    for xt in x:
        spk = self.lif1(self.fc1(xt) + self.same(spk))  # <-
        out = out + self.lif2(self.fc2(spk))
    return out


def first_step_differs(self, x):
    spk, out = None, 0
    for xt in x:
        current = self.fc1(xt)
        if spk is not None:
            current = current + self.same(spk)  # <-
        spk = self.lif1(current)
        out = out + self.lif2(self.fc2(spk))
    return out


def scales_in_the_loop(self, x):
    out = 0
    for xt in x:
        out = out + self.lif2(self.fc2(self.lif1(self.fc1(xt)) * 0.5))  # <-
    return out


def running_sum_inside(self, x):
    trace, out = 0, 0
    for xt in x:
        trace = trace + self.lif1(self.fc1(xt))
        out = out + self.lif2(self.fc2(trace))  # <-
    return out


def backwards(self, x):
    out = 0
    for t in range(STEPS):
        out = out + self.one(x[STEPS - 1 - t])  # <-
    return out


def every_second_step(self, x):
    out = 0
    for t in range(STEPS):
        spk = self.lif1(self.fc1(x[t]))
        if t % 2 == 0:
            out = out + self.lif2(self.fc2(spk))  # <-
    return out


def other_start(self, x):
    out = torch.ones(x.shape[1], CLASSES)
    for xt in x:
        out = out + self.one(xt)  # <-
    return out


SINGLE = {
    branch_on_data: "__bool__ turns recorded values into a Python value, so that the graph depends on the data",
    leaves_the_tensors: "item turns recorded values into a Python value",
    shared_layer: f"same ran {2 * STEPS} times in {STEPS} time steps; expected once, or once per step (a shared layer needs a module",
    nonzero_state: "same starts from values that are not 0; expected a zero initial state",
    first_step_differs: "same ran 4 times in 5 time steps; expected once, or once per step (begin with a state of zeros",
    scales_in_the_loop: "mul: scales a value inside the network by 0.5; fold it into the next layer's weights",
    running_sum_inside: "fc2: uses a running sum inside the loop; only its last value can be read",
    backwards: "an argument of __getitem__ changes from step to step; expected one constant",
    every_second_step: "the neurons disagree on the number of time steps: lif1 5 (",
    other_start: "add starts from values that are not 0; expected a zero initial state",
}


def refusal(forward, parent, **layers):
    """The message for a network with this forward."""
    with pytest.raises(CaptureError) as caught:
        capture(model(forward, parent, **layers), spikes(STEPS, BATCH, INPUTS))
    return str(caught.value)


@pytest.mark.parametrize("forward", SINGLE, ids=lambda f: f.__name__)
def test_single_step_refusals_name_the_line(forward):
    more = {name: LIF(step_mode="s") for name in ("lif3", "lif4")}
    message = refusal(forward, Layers, same=nn.Linear(HIDDEN, HIDDEN), **more)
    assert SINGLE[forward] in message
    assert marked_line(forward) in message


def shared_neuron(self, x):
    return self.lif2(self.fc2(self.lif1(self.same(self.lif1(self.fc1(x)))))).sum(0)  # <-


def shared_weights(self, x):
    return self.lif2(self.fc2(self.lif1(self.fc1(x) + self.fc1(x)))).sum(0)  # <-


def scales_inside(self, x):
    spk = self.lif1(self.fc1(x)) * 0.5
    return self.lif2(self.fc2(spk)).sum(0)  # <-


def scales_the_input(self, x):
    x = x / 2
    return self.one(self.other(x)).sum(0)  # <-


def scales_a_factor(self, x):
    a = self.lif1(self.fc1(x))
    return self.lif2(self.fc2((a * 0.5) * a)).sum(0)  # <-


def not_of_spikes(self, x):
    quiet = 1 - self.lif1(self.fc1(x))
    return self.lif2(self.fc2(quiet)).sum(0)  # <-


def two_nots(self, x):
    a = self.lif1(self.fc1(x))
    return self.lif2(self.fc2((1 - a) * (1 - a))).sum(0)  # <-


def permutes(self, x):
    return self.lif2(self.fc2(self.lif1(self.fc1(x)).permute(0, 2, 1).transpose(1, 2))).sum(0)  # <-


def adds_a_constant(self, x):
    return self.lif2(self.fc2(self.lif1(self.fc1(x) + 0.1))).sum(0)  # <-


def subtracts(self, x):
    a = self.lif1(self.fc1(x))
    return self.lif2(self.fc2(a - a)).sum(0)  # <-


def unknown_function(self, x):
    return self.lif2(self.fc2(F.relu(self.lif1(self.fc1(x))))).sum(0)  # <-


def unknown_module(self, x):
    return self.lif2(self.fc2(self.lif1(self.strange(self.fc1(x))))).sum(0)  # <-


def reads_over_features(self, x):
    return self.one(x).mean(2)  # <-


def softmax_at_the_end(self, x):
    return self.one(x).mean(0).softmax(-1)  # <-


def concatenates_samples(self, x):
    a = self.lif1(self.fc1(x))
    return self.lif2(self.fc2(torch.cat([a, a], dim=1))).sum(0)  # <-


def mixes_time(self, x):
    a = self.lif1(self.fc1(x)).reshape(BATCH, STEPS, HIDDEN)  # <-
    return self.lif2(self.fc2(a.reshape(STEPS, BATCH, HIDDEN))).sum(0)


def slices_features(self, x):
    return self.one(x)[..., :1].sum(0)  # <-


MULTI = {
    shared_neuron: "lif1: a multi-step neuron was called 2 times in one pass; give each place its own module",
    shared_weights: "fc1 ran 2 times in 5 time steps; expected once, or once per step (a shared layer needs a module per use)",
    scales_inside: "fc2: takes a value scaled by 0.5 inside the network; fold the factor into weights or thresholds",
    scales_the_input: "other: takes a value scaled by 0.5 inside the network",
    scales_a_factor: "mul: multiplies two values one of which is scaled",
    not_of_spikes: "fc2: takes 1 - spikes; only their product with other spikes (IAND) is understood",
    two_nots: "mul: multiplies two values of the form 1 - spikes; only one of them may be (IAND)",
    permutes: "permute: permutes axes; only exchanging time and batch, [N, T, ...] and [T, N, ...], is understood",
    adds_a_constant: "add: adds a constant [0.1]; give it to a layer as its bias",
    subtracts: "sub: subtracts; only 1 - spikes (for IAND) is understood",
    unknown_function: "relu: is not understood between spiking layers; use a layer, a sum, a concatenation or a pooling",
    unknown_module: "layer_norm: is not understood between spiking layers",
    reads_over_features: "mean: reduces dim 2; only a reduction over time (dim 0 of [T, N, ...]) is understood",
    softmax_at_the_end: "softmax: is not understood between spiking layers",
    concatenates_samples: "cat: concatenates along time or samples (dim 1); only feature axes are understood",
    mixes_time: "reshape: mixes samples, steps and features: time (6,) became (3, 5, 6)",
    slices_features: "only x[t] and the last step are understood",
}


@pytest.mark.parametrize("forward", MULTI, ids=lambda f: f.__name__)
def test_multi_step_refusals_name_the_line(forward):
    more = {"same": nn.Linear(HIDDEN, HIDDEN), "other": nn.Linear(INPUTS, INPUTS), "strange": nn.LayerNorm(HIDDEN)}
    message = refusal(forward, MultiStep, **more)
    assert MULTI[forward] in message
    assert marked_line(forward) in message


def test_a_network_without_neurons():
    with pytest.raises(
        CaptureError, match=re.escape("no spiking neuron module was called; expected spikequant.nn neurons (LIF")
    ):
        capture(nn.Sequential(nn.Linear(INPUTS, 2)), spikes(STEPS, BATCH, INPUTS))


def test_an_output_that_is_not_from_the_input():
    def forward(self, x):
        self.one(x)
        return torch.zeros(BATCH, CLASSES)

    message = refusal(forward, MultiStep)
    assert message == "Net: its output does not come from its input through recorded operations"


def test_a_neuron_fed_by_a_constant():
    def alone(self, x):
        return self.lif2(torch.ones(STEPS, BATCH, CLASSES)).sum(0) + self.fc1(x).sum()

    assert "lif2: is fed by a constant; expected a recorded value" in refusal(alone, MultiStep)


def test_a_step_that_leaves_the_loop():
    def forward(self, x):
        for t, xt in enumerate(x):
            spk = self.one(xt)
            if t == 2:
                kept = spk
        return kept

    assert "the value of lif2 at step 2 leaves the loop; expected all steps of it, or the last one" in refusal(
        forward, Layers
    )


def test_a_failed_capture_leaves_no_hooks_and_no_mode():
    net = model(branch_on_data).train()
    with pytest.raises(CaptureError):
        capture(net, spikes(STEPS, BATCH, INPUTS))
    assert net.training
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks
