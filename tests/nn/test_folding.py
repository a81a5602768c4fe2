"""Batch norm becomes thresholds (DESIGN rule 8), normalization becomes weights and padding codes (rule 9)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import IF, FoldedNorm, Normalize
from spikequant.nn.batch_norm import channel_moments
from spikequant.nn.over_time import OverTime

WIDE = sq.Plan.uniform(weight_bits=16, weight_clipping="max")
MARGIN = 2e-3


class OneStep(nn.Module):
    """``conv -> batch norm -> IF`` on one time step, so that a spike is a comparison of the batch norm's output."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.neuron = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), IF()
        with torch.no_grad():
            self.conv.weight.normal_(0, 0.6)
            self.norm.weight.copy_(torch.tensor([1.3, -0.9, 0.0, 0.7]))
            self.norm.bias.copy_(torch.tensor([0.4, 0.6, 1.2, 0.9]))
            self.norm.running_mean.copy_(torch.tensor([0.3, -0.4, 0.1, 0.2]))
            self.norm.running_var.copy_(torch.tensor([0.5, 1.7, 1.0, 0.8]))

    def forward(self, x):
        """Spikes ``[1, N, C, H, W]``."""
        return self.neuron(self.norm(self.conv(x)).unsqueeze(0))


def quantized(net, x, plan=WIDE):
    """A quantized copy and its report."""
    twin = copy.deepcopy(net)
    return twin, sq.quantize_(twin, plan, x, quiet=True)


def counts(*shape):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return OneStep()


def mismatches(got, real, current):
    """Spikes that differ, and the same away from the threshold."""
    wrong = got != real
    far = (current - 1.0).abs() > MARGIN
    return int(wrong.sum()), int((wrong & far).sum())


def test_running_statistics_fold_with_both_signs_of_gamma(net):
    x = counts(8, 2, 6, 6)
    twin, _ = quantized(net.eval(), x)
    with torch.no_grad():
        current, real, got = net.norm(net.conv(x)), net(x)[0], twin(x)[0]
    assert 0.1 < float(real.mean()) < 0.9
    for channel in range(4):
        assert mismatches(got[:, channel], real[:, channel], current[:, channel])[1] == 0
    assert all(0 < float(real[:, c].mean()) < 1 for c in (0, 1, 3))


def test_batch_statistics_form_the_thresholds_in_training(net):
    x = counts(8, 2, 6, 6)
    twin, _ = quantized(net, x)
    net.train(), twin.train()
    eval_net = copy.deepcopy(net).eval()
    with torch.enable_grad():
        current, real, got = net.norm(net.conv(x)).detach(), None, twin(x)[0].detach()
    real = (current >= 1.0).float()
    assert mismatches(got, real, current)[1] == 0
    with torch.no_grad():
        other = eval_net(x)[0]
    assert (other != real).float().mean() > 0.02  # batch and running statistics disagree here
    torch.testing.assert_close(twin.norm.running_mean, net.norm.running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(twin.norm.running_var, net.norm.running_var, rtol=1e-3, atol=1e-4)
    assert int(twin.norm.num_batches_tracked) == int(net.norm.num_batches_tracked) == 1


def test_running_statistics_can_be_chosen_in_training(net):
    x = counts(8, 2, 6, 6)
    twin, _ = quantized(net, x)
    net.eval(), twin.train()
    twin.norm.statistics, twin.norm.momentum = "running", 0.0
    with torch.no_grad():
        current, real = net.norm(net.conv(x)), net(x)[0]
    assert mismatches(twin(x)[0].detach(), real, current)[1] == 0


def test_a_gamma_of_zero_is_a_constant_neuron_and_is_reported(net):
    x = counts(4, 2, 6, 6)
    twin, report = quantized(net, x)
    assert report.notes == ("norm: gamma is (nearly) 0 in 1 channels; their neurons see a constant",)
    assert twin.norm.constant_channels().tolist() == [False, False, True, False]
    with torch.no_grad():
        assert twin.eval()(x)[0, :, 2].eq(1).all()  # beta = 1.2 is above the threshold


def test_the_sign_of_gamma_goes_into_the_codes(net):
    x = counts(4, 2, 6, 6)
    twin, _ = quantized(net, x)
    sq.freeze(twin)
    lowered = sq.lower(twin, x)
    codes = twin.conv.integer_codes().numpy()
    stored = lowered.node("conv").product.codes
    assert (stored[1] == -codes[1]).all()
    assert codes[1].any()
    assert (stored[[0, 3]] == codes[[0, 3]]).all()
    assert (lowered.node("neuron").gains[0] > 0).all()


def test_gradients_of_gamma_and_beta_equal_those_of_batch_norm(net):
    with torch.no_grad():
        net.norm.weight[2] = 0.5
    x = counts(8, 2, 6, 6)
    twin, _ = quantized(net, x)
    upstream = torch.randn(1, 8, 4, 6, 6)
    for each in (net, twin):
        each.train()
        (each(x) * upstream).sum().backward()
    for got, real in (
        (twin.norm.weight, net.norm.weight),
        (twin.norm.bias, net.norm.bias),
        (twin.conv.weight, net.conv.weight),
    ):
        assert float((got.grad - real.grad).abs().max()) < 5e-3 * float(real.grad.abs().max())


def test_the_moments_and_their_derivatives():
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    variance, mean = channel_moments(x)
    torch.testing.assert_close(mean, x.mean((0, 2)))
    torch.testing.assert_close(variance, x.var((0, 2), unbiased=False))
    assert torch.autograd.gradcheck(channel_moments, (x,))
    assert torch.autograd.gradgradcheck(channel_moments, (x,))


def test_batch_norm_that_cannot_fold():
    with pytest.raises(
        Unsupported, match="without running statistics cannot become thresholds; set track_running_stats"
    ):
        FoldedNorm(nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(Unsupported, match="LayerNorm is not a batch norm that folds"):
        FoldedNorm(nn.LayerNorm(3))


class Shown(nn.Module):
    """``normalize -> padded convolution -> IF`` on one step."""

    def __init__(self, mean, std, *, normalized=True):
        super().__init__()
        self.normalize = Normalize(mean, std) if normalized else nn.Identity()
        self.conv, self.neuron = nn.Conv2d(2, 6, 3, padding=1), IF()

    def forward(self, x):
        return self.neuron(self.conv(self.normalize(x)).unsqueeze(0))


def test_normalize_folds_with_its_padding_code():
    torch.manual_seed(4)
    pixels = torch.randint(0, 256, (6, 2, 5, 5))
    pixels[0, 0, 0, 0] = 255
    x = pixels / 255
    net = Shown([153 / 255, 51 / 255], [0.25, 0.5])
    with torch.no_grad():
        net.conv.weight.normal_(0, 0.5)
    twin, report = quantized(net, x)
    assert twin.conv.pad_codes().tolist() == [153, 51]  # codes of the mean: where the normalized image is 0
    with torch.no_grad():
        current, real, got = net.conv(net.normalize(x)), net(x)[0], twin(x)[0]
    total, far = mismatches(got, real, current)
    assert far == 0
    assert total < 10
    border = torch.ones(5, 5, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert 0.05 < float(real[..., border].mean()) < 0.95
    assert [r.role for r in report.rows if r.module == "(input)"] == ["input"]
    sq.freeze(twin)
    lowered = sq.lower(twin, x)
    assert lowered.node("conv").product.pad_code.tolist() == [153, 51]
    assert sq.verify(twin, lowered, x).differences == 0


def test_normalize_checks_its_numbers():
    with pytest.raises(DataError, match="expected one mean and one positive std per channel"):
        Normalize([0.5], [0.0])
    with pytest.raises(DataError, match="expected one mean and one positive std per channel"):
        Normalize([0.5, 0.1], [1.0])


def test_normalize_that_does_not_fold_is_refused():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.normalize, self.fc2, self.lif2 = (
                nn.Linear(3, 4),
                IF(),
                Normalize([0.5] * 4, [1.0] * 4),
                nn.Linear(4, 2),
                IF(),
            )

        def forward(self, x):
            spikes = self.lif(self.fc(x))
            return self.lif2(self.fc2(self.normalize(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])))

    with pytest.raises(Unsupported, match="normalize: Normalize folds only as the first layer of the network"):
        sq.quantize_(Late(), WIDE, counts(4, 3, 3), quiet=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(OverTime(nn.BatchNorm2d(2)), OverTime(nn.Conv2d(2, 3, 3, padding=1)), IF()),
         "0.layer: batch norm on spikes cannot fold into thresholds; expected a weighted layer in front of it"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)), IF()),
         "a second batch norm on the way to one neuron; merge them"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3)), IF()),
         "0.layer.1: a weighted layer on the currents of another; put a neuron between them"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2, padding=1)), IF()),
         "average pooling with padding behind batch norm does not fold"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2, ceil_mode=True)), IF()),
         "pooling with ceil_mode=True, dilation=1, count_include_pad=True; expected full windows of equal weight"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2, divisor_override=3)), IF()),
         "a pooling that sums (divisor_override) behind the bias or batch norm of 0.layer.0 does not fold"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3, padding="same")), IF()),
         "Conv2d: padding 'same' with mode 'zeros'; expected numbers and the mode 'zeros'"),
        (lambda: nn.Sequential(OverTime(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), IF()),
         "with mode 'circular'; expected numbers and the mode 'zeros'"),
    ],
)  # fmt: skip
def test_what_does_not_fold_is_refused_by_name(build, message):
    with pytest.raises(Unsupported, match=message.replace("(", r"\(").replace(")", r"\)")):
        sq.quantize_(build(), WIDE, counts(3, 2, 2, 6, 6), quiet=True)


def test_a_negative_gamma_behind_a_maximum_is_refused():
    net = nn.Sequential(OverTime(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3)), IF())
    sq.quantize_(copy.deepcopy(net), WIDE, counts(3, 2, 2, 6, 6), quiet=True)
    with torch.no_grad():
        net[0].layer[2].weight[1] = -1.0
    with pytest.raises(
        Unsupported, match="0.layer.2: batch norm with a negative gamma behind a maximum does not fold; put it in"
    ):
        sq.quantize_(net, WIDE, counts(3, 2, 2, 6, 6), quiet=True)
