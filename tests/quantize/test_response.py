"""The Hessian of a layer against explicit kernels and explicit patches in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.quantize.nets import awake_, spikes
from torch import nn

import spikequant as sq
from spikequant.nn import IF, LIF, CubaLIF
from spikequant.nn.over_time import OverTime
from spikequant.quantize.response import Response, clock_of, hessians, over_steps, response_of
from spikequant.quantize.scales import flows_into

STEPS, BATCH = 6, 4


def quantized(net, x):
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    return net


def kernel(leaks, steps=STEPS):
    """``M`` of a chain of leaks, as a matrix."""
    matrix = np.eye(steps)
    for leak in leaks:
        matrix = np.array([[leak ** (i - j) if i >= j else 0.0 for j in range(steps)] for i in range(steps)]) @ matrix
    return matrix


def by_hand(x, leaks, *, free_bias=False):
    """``2 sum (M X)^T (M X)`` of ``[T, N, fan-in]``."""
    m = kernel(leaks)
    rows = np.concatenate([m @ x[:, n] for n in range(x.shape[1])])
    if free_bias:
        ones = np.concatenate([m @ np.ones(len(m))] * x.shape[1])
        rows = rows - np.outer(ones, ones @ rows) / (ones @ ones)
    return 2 * rows.T @ rows


@pytest.mark.parametrize(
    ("neuron", "leaks"),
    [(LIF(leak=0.75), [0.75]), (IF(), [1.0]), (CubaLIF(leak=0.5, leak_i=0.25), [0.25, 0.5])],
    ids=["lif", "if", "cuba"],
)
def test_a_linear_layer(neuron, leaks):
    x = spikes(STEPS, BATCH, 5)
    net = quantized(awake_(nn.Sequential(nn.Linear(5, 4), neuron, nn.Linear(4, 3), LIF())), x)
    response = response_of(net[1])
    assert response.leaks == pytest.approx(tuple(leaks))
    found = hessians(net[0], response, flows_into(net, net[0], [x, x]), clock_of(net, [x, x]))
    assert np.allclose(found[0].numpy(), 2 * by_hand(x.numpy(), leaks))
    centred = Response(response.leaks, free_bias=True)
    found = hessians(net[0], centred, flows_into(net, net[0], [x]), clock_of(net, [x]))
    assert np.allclose(found[0].numpy(), by_hand(x.numpy(), leaks, free_bias=True))


def patches(x, kernel_size, stride, padding):
    """``[T, N * places, fan-in]`` of ``[T, N, C, H, W]``, place by place."""
    t, n, _, h, w = x.shape
    wide = np.pad(x, ((0, 0), (0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = []
    for i in range(0, h + 2 * padding - kernel_size + 1, stride):
        for j in range(0, w + 2 * padding - kernel_size + 1, stride):
            rows.append(wide[..., i : i + kernel_size, j : j + kernel_size].reshape(t, n, -1))
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize(("groups", "stride", "padding"), [(1, 1, 1), (2, 2, 0)])
def test_a_convolution_over_merged_time(groups, stride, padding):
    x = spikes(STEPS, BATCH, 4, 6, 5)
    conv = nn.Conv2d(4, 6, 3, stride=stride, padding=padding, groups=groups)
    net = quantized(awake_(nn.Sequential(OverTime(conv), LIF(leak=0.5))), x)
    synapse = net[0].layer
    found = hessians(synapse, response_of(net[1]), flows_into(net, synapse, [x]), clock_of(net, [x]))
    assert found.shape == (groups, 36 // groups, 36 // groups)
    for g, part in enumerate(np.split(x.numpy(), groups, axis=2)):
        assert np.allclose(found[g].numpy(), by_hand(patches(part, 3, stride, padding), [0.5]))


def test_one_call_per_step_is_the_same_and_a_readout_sums():
    x = spikes(STEPS, BATCH, 5)
    net = quantized(awake_(nn.Sequential(nn.Linear(5, 4), LIF(), nn.Linear(4, 3), LIF())), x)
    once = hessians(net[0], Response((0.5,)), [[x]], [(STEPS, BATCH)])
    assert torch.equal(once, hessians(net[0], Response((0.5,)), [list(x)], [(STEPS, BATCH)]))
    assert torch.equal(once, hessians(net[0], Response((0.5,)), [[x.flatten(0, 1)]], [(STEPS, BATCH)]))
    total = x.sum(0).numpy()
    assert np.allclose(hessians(net[0], response_of(None), [[x]], [(STEPS, BATCH)])[0].numpy(), 2 * total.T @ total)


def test_a_normalized_real_input_is_seen_without_its_mean_and_a_static_one_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 4, bias=False), LIF()

        def forward(self, x):
            current = self.fc(x)
            return self.lif(current.unsqueeze(0).expand(STEPS, *current.shape)).mean(0)

    x = torch.rand(BATCH, 5, generator=torch.Generator().manual_seed(0))
    net = quantized(awake_(Net()), x)
    assert clock_of(net, [x]) == [(STEPS, BATCH)]
    assert over_steps(net.fc, [x], STEPS, BATCH).shape == (1, BATCH, 5)
    found = hessians(net.fc, response_of(net.lif), flows_into(net, net.fc, [x]), clock_of(net, [x]))[0]
    real = net.fc.integer_input(x).numpy()
    assert np.allclose(found.numpy(), 2 * real.T @ real, rtol=1e-5)


def test_a_call_of_no_known_shape_is_refused():
    x = spikes(STEPS, BATCH, 5)
    net = quantized(awake_(nn.Sequential(nn.Linear(5, 4), LIF())), x)
    with pytest.raises(sq.Unsupported, match=r"a layer was called with \(7, 5\) where 4 samples of 6 steps run"):
        over_steps(copy.deepcopy(net[0]), [x[:, 0].repeat(2, 1)[:7]], STEPS, BATCH)
