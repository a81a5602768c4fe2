"""The trained SHD network: 1,727 of 2,264 in float, and equal integers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import spikequant as sq
from spikequant.law.errors import DataError
from spikequant.models.adaptive_recurrent import ADAPTATION, BASE_THRESHOLD, AdaptiveRecurrent

NETWORK = Path(os.environ.get("SPIKEQUANT_DATA", "data")) / "shd" / "srnn_700_128_128_20.npz"
here = pytest.mark.skipif(not NETWORK.is_file(), reason="the trained SHD network is not here")


def small(seed=0, inputs=20, hidden=12, classes=4):
    dice = np.random.default_rng(seed)
    sizes = {"i_2_h1": (hidden, inputs), "h1_2_h1": (hidden, hidden), "h1_2_h2": (hidden, hidden)}
    sizes |= {"h2_2_h2": (hidden, hidden), "h2_2_o": (classes, hidden)}
    arrays = {f"weights_{name}": dice.normal(0, 0.6, shape) for name, shape in sizes.items()}
    for layer in ("h1", "h2"):
        arrays |= {f"bias_{layer}": dice.normal(0, 0.1, hidden), f"tau_m_{layer}": dice.uniform(2, 12, hidden)}
        arrays[f"tau_adp_{layer}"] = dice.uniform(45, 110, hidden)
    return {name: value.astype(np.float32) for name, value in {**arrays, "tau_m_o": np.full(classes, 15.0)}.items()}


def reference(w, x, start):
    """The equations of the data's README, step by step: membranes of the readout."""
    w = {name: torch.as_tensor(value) for name, value in w.items()}
    layers = {}
    for name in ("h1", "h2"):
        zeros = torch.zeros(x.shape[1], len(w[f"bias_{name}"]))
        layers[name] = [zeros, zeros, torch.full_like(zeros, start)]
    m_o, train = torch.zeros(x.shape[1], len(w["tau_m_o"])), []
    for step in x:
        s1, s2 = layers["h1"][1], layers["h2"][1]
        a_o = torch.exp(-1 / w["tau_m_o"])
        m_o = a_o * m_o + (1 - a_o) * (s2 @ w["weights_h2_2_o"].T)
        train.append(m_o)
        inputs = {
            "h1": step @ w["weights_i_2_h1"].T + s1 @ w["weights_h1_2_h1"].T,
            "h2": s1 @ w["weights_h1_2_h2"].T + s2 @ w["weights_h2_2_h2"].T,
        }
        for name, (m, s, b) in layers.items():
            a, r = torch.exp(-1 / w[f"tau_m_{name}"]), torch.exp(-1 / w[f"tau_adp_{name}"])
            b = r * b + (1 - r) * s
            big = BASE_THRESHOLD + ADAPTATION * b
            m = a * m + (1 - a) * inputs[name] - big * s
            layers[name] = [m, ((m - big + w[f"bias_{name}"]) > 0).float(), b]
    return torch.stack(train)


@pytest.mark.parametrize("as_trained", [True, False])
def test_it_computes_the_trained_dynamics(as_trained):
    arrays = small()
    x = (torch.rand(40, 3, 20, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    net = AdaptiveRecurrent(arrays, readout="train")
    if as_trained:
        net.start_as_trained(3)
    with torch.no_grad():
        found = net(x)
    wanted = reference(arrays, x, BASE_THRESHOLD if as_trained else 0.0)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert wanted.abs().max() > 0.1


@pytest.mark.parametrize("readout", ["sum", "train"])
def test_integers_are_equal(readout):
    x = (torch.rand(40, 3, 20, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    net = AdaptiveRecurrent(small(), readout=readout)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, x), x)
    assert proof.differences == 0
    assert proof.spikes > 20


def test_a_missing_array_is_named():
    arrays = small()
    del arrays["weights_h2_2_o"]
    with pytest.raises(DataError, match="lacks 'weights_h2_2_o'"):
        AdaptiveRecurrent(arrays)


@here
def test_the_trained_network_gets_what_its_repository_states():
    """1,727 of all 2,264 samples, by the summed softmax; integers equal on real samples."""
    data, right = sq.data.load("shd"), 0
    net = AdaptiveRecurrent.load(NETWORK, readout="train").eval()
    for name in ("train", "validation", "test"):
        for image, label in data.batches(name, batch_size=512):
            x = torch.as_tensor(np.asarray(image), dtype=torch.float32)
            sq.reset(net)
            net.start_as_trained(x.shape[1])
            with torch.no_grad():
                membranes = net(x)
            answers = torch.softmax(membranes, -1)[1:].sum(0).argmax(1)
            right += int((answers == torch.as_tensor(np.asarray(label))).sum())
    assert abs(right - 1727) <= 2
    sq.reset(net)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x[:, :4], quiet=True)
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, x[:, :4]), x[:, :4])
    assert proof.differences == 0
    assert proof.spikes > 1000
