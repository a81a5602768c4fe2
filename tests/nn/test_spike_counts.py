"""Spikes added up by a kernel are those of the train."""

import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.nn import QuantizedNeuron, kernels
from spikequant.nn.spike_counts import spikes_over_samples, spikes_over_time
from spikequant.readers.compiler import find_compiler

STEPS = 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 6, 3, padding=1), sq.nn.LIF(leak=0.75, reset="subtract")

    def forward(self, x: Tensor) -> Tensor:
        current = self.conv(x)
        spikes: Tensor = self.lif(current.unsqueeze(0).expand(STEPS, *current.shape))
        return spikes.sum(0)


def _layer(rounding: str) -> QuantizedNeuron:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(7, 2, 8, 8)
    plan = sq.Plan.from_dict(
        {"rules": [{"match": "*", "weight": {"bits": 4}, "membrane": {"bits": 4, "rounding": rounding}}]}
    )
    sq.quantize_(model, plan, x, quiet=True)
    assert isinstance(model.lif, QuantizedNeuron)
    return model.lif


@pytest.mark.parametrize("rounding", ["toward_zero", "half_even", "stochastic"])
@pytest.mark.parametrize("layout", ["channels last", "contiguous", "shown"])
def test_sums_are_those_of_the_train(rounding: str, layout: str) -> None:
    neuron = _layer(rounding)
    theta = int(neuron.integers().params["theta"].max())
    x = torch.randint(-theta // 2, theta, (STEPS, 7, 6, 8, 8)).float()
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "shown":
        x = x[0].unsqueeze(0).expand(STEPS, *x.shape[1:])
    with torch.no_grad():
        train = neuron.advance(x)
    neuron.reset()
    assert 0.0 < float(train.mean()) < 1.0
    assert torch.equal(spikes_over_samples(neuron, x), train.sum((0, 1)))
    if find_compiler() is None:
        assert spikes_over_time(neuron, x) is None
        return
    with kernels.using("fused"):
        counts = spikes_over_time(neuron, x)
    assert counts is not None
    assert counts.dtype == torch.uint8
    assert torch.equal(counts.float(), train.sum(0))


def test_what_a_byte_or_a_kernel_does_not_hold_is_left_to_the_train() -> None:
    neuron = _layer("half_even")
    x = torch.randint(-400, 900, (300, 1, 6, 2, 2)).float()
    with kernels.using("fused"):
        assert spikes_over_time(neuron, x) is None
    with kernels.using("plain"):
        assert spikes_over_time(neuron, x[:STEPS]) is None
    with torch.no_grad():
        assert torch.equal(spikes_over_samples(neuron, x), neuron.advance(x).sum((0, 1)))
