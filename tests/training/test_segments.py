"""Checkpointing over time: the gradients of the whole run, with the memory of a segment."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.capture import LayerwiseRunner, SegmentedRunner, capture
from spikequant.nn import LIF, CubaLIF, Delay, kernels
from spikequant.nn.over_time import OverTime

STEPS = 20


class Net(nn.Module):
    """Convolution, two layers of neurons, the mean over time."""

    def __init__(self, *between):
        super().__init__()
        self.stages = nn.Sequential(
            OverTime(nn.Conv2d(2, 6, 3), *between), LIF(leak=0.75, learn=("threshold",), reset="subtract"),
            nn.Flatten(2), nn.Linear(96, 10), CubaLIF(threshold=0.15),
        )  # fmt: skip

    def forward(self, x):
        return self.stages(x).mean(0)


def made(quantized, *between):
    torch.manual_seed(0)
    model, x = Net(*between), (torch.rand(STEPS, 4, 2, 6, 6) < 0.5).float()
    if quantized:
        plan = sq.Plan.uniform(
            weight_bits=4, membrane_bits=8, weight_quantizer="lsq", membrane_rounding="stochastic"
        )  # fmt: skip
        sq.quantize_(model, plan, x, quiet=True)
    return model, x


@pytest.mark.parametrize(("quantized", "how"), [(False, "plain"), (True, "plain"), (True, "fused")])
@pytest.mark.parametrize("steps", [1, 6, STEPS, 50])
def test_segments_give_the_gradients_of_the_whole(quantized, how, steps):
    model, x = made(quantized)
    graph, found = capture(model, x), []
    for run in (LayerwiseRunner(model, graph), SegmentedRunner(model, graph, steps)):
        model.train()
        model.zero_grad()
        with kernels.using(how):
            output = run(x)
            nn.functional.cross_entropy(output * 5, torch.arange(4)).backward()
        found.append((output.detach(), [p.grad.clone() for p in model.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    assert 0.02 < float(found[0][0].mean()) < 0.9
    for wanted, got in zip(found[0][1], found[1][1], strict=True):
        assert float((wanted - got).abs().max()) <= 2e-5 * float(wanted.abs().max())


def test_fit_in_segments_keeps_less_and_trains_the_same():
    model, x = made(True)
    batches, results, kept, numbers = [(x, torch.arange(4))], [], [], []
    for segment in (None, 5):
        one = copy.deepcopy(model)
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            outcome = sq.fit(one, batches, epochs=2, segment=segment, quiet=True)
        results.append([epoch.loss for epoch in outcome.epochs])
        kept.append(one)
        numbers.append(sum(sizes))  # of what is saved outside of segments
    assert numbers[1] < 0.3 * numbers[0]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    for a, b in zip(*(m.parameters() for m in kept), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_what_looks_over_the_border_is_refused():
    model, x = made(False, nn.BatchNorm2d(6))
    with pytest.raises(
        sq.CaptureError, match="measures all steps of a batch together; leave segment= away for this model"
    ):
        sq.fit(model, [(x, torch.arange(4))], epochs=1, segment=5, quiet=True)
    late = nn.Sequential(nn.Linear(6, 5), LIF(), Delay(2), nn.Linear(5, 5), LIF())
    y = torch.rand(9, 3, 6)
    with pytest.raises(sq.CaptureError, match="a recurrent connection or a delay|has a memory of its own"):
        SegmentedRunner(late, capture(late, y), 3)
    with pytest.raises(sq.DataError, match="segments of 0 time steps; expected at least 1"):
        SegmentedRunner(model, capture(model, x), 0)
    with pytest.raises(sq.DataError, match="batches that can be read again"):
        sq.fit(model, iter([(x, torch.arange(4))]), epochs=1, segment=5, quiet=True)
