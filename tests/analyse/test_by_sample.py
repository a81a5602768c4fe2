"""Probes that differ from sample to sample: the mean of common ones, less variance, and only where they may be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.analyse import hessian_trace
from spikequant.analyse.curvature import Curvature
from spikequant.law.errors import DataError
from spikequant.nn.over_time import OverTime
from spikequant.nn.reset import reset_states


class Images(nn.Module):
    """A convolution over merged time and batch, one layer of neurons, a readout; the batch may lie in other ways."""

    def __init__(self, lies="time first"):
        super().__init__()
        torch.manual_seed(0)
        self.lies = lies
        self.conv, self.lif = nn.Conv2d(2, 4, 3, padding=1), sq.nn.LIF()
        self.fc = nn.Linear(4 * 16, 3)
        with torch.no_grad():
            self.conv.weight.mul_(4)

    def forward(self, x):
        if self.lies == "batch first":  # [N, T] merged: the batch is the slow axis
            swapped = x.transpose(0, 1)
            current = self.conv(swapped.flatten(0, 1)).unflatten(0, swapped.shape[:2]).transpose(0, 1)
        else:
            current = OverTime(self.conv)(x)
        if self.lies == "mixed":
            current = current - current.mean(1, keepdim=True)
        return self.fc(self.lif(current).flatten(2)).mean(0)


class Recurrent(nn.Module):
    """Spikes come back one step later through weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.back, self.lif = nn.Linear(6, 5), nn.Linear(5, 5), sq.nn.LIF(step_mode="s")
        self.c = nn.Linear(5, 3)
        with torch.no_grad():
            self.a.weight.mul_(3)

    def forward(self, x):
        spikes, total = x.new_zeros(x.shape[1], 5), 0
        for step in x:
            spikes = self.lif(self.a(step) + self.back(spikes))
            total = total + self.c(spikes)
        return total / len(x)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return (torch.rand(4, 12, 2, 4, 4) < 0.5).float(), torch.arange(12) % 3


@pytest.fixture(scope="module")
def events():
    torch.manual_seed(1)
    return (torch.rand(4, 12, 6) < 0.5).float(), torch.arange(12) % 3


def exact(model, batch, name, loss=F.cross_entropy):
    weight = dict(model.named_parameters())[name].detach()
    reset_states(model)
    full = torch.autograd.functional.hessian(
        lambda w: loss(torch.func.functional_call(model, {name: w}, (batch[0],)), batch[1]), weight
    )
    return float(full.reshape(weight.numel(), -1).trace())


def tapped(model, batch, loss=F.cross_entropy):
    with Curvature(model, loss, ("weight",), None) as at:
        at.run(*batch)
        return {p.layer for p in at.places if p.tap is not None}


@pytest.mark.parametrize("lies", ["time first", "batch first"])
def test_the_batch_is_found_in_merged_axes(images, lies):
    model = Images(lies)
    assert tapped(model, images) == {"conv", "fc"}
    traces = hessian_trace(model, F.cross_entropy, [images], most_probes=200, relative_error=1e-9)
    for layer in ("conv", "fc"):
        found = traces.row(layer)
        assert abs(found.trace - exact(model, images, f"{layer}.weight")) <= 3 * found.standard_error


@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton", "fisher"])
def test_common_probes_have_the_same_mean_and_more_variance(images, curvature):
    model, generator, found = Images(), torch.Generator().manual_seed(0), []
    for by_sample in (True, False):
        with Curvature(model, F.cross_entropy, ("weight",), None, by_sample=by_sample) as at:
            at.run(*images)
            draw = getattr(at, f"{curvature.replace('-', '_')}_sample")
            found.append(torch.tensor([draw(generator) for _ in range(200)]))
    apart, common = found
    error = (apart.var(0) / 200 + common.var(0) / 200).sqrt()
    assert bool(((apart.mean(0) - common.mean(0)).abs() <= 3.5 * error).all())
    assert bool((apart.var(0) < common.var(0)).all())


def test_samples_that_meet_in_the_model_share_their_probes(images):
    model = Images("mixed")
    assert tapped(model, images) == {"fc"}  # behind the mixing
    found = hessian_trace(model, F.cross_entropy, [images], most_probes=300, relative_error=1e-9).row("conv")
    assert abs(found.trace - exact(model, images, "conv.weight")) <= 3 * found.standard_error


def test_samples_that_meet_in_the_loss_share_their_probes(images):
    def pairs(outputs, y):
        return (outputs.std(0) ** 2).sum() + F.cross_entropy(outputs, y)

    assert tapped(Images(), images, pairs) == set()


def test_class_weights_leave_samples_apart(images):
    def weighted(outputs, y):
        return F.cross_entropy(outputs, y, weight=torch.tensor([1.0, 2.0, 3.0]))

    assert tapped(Images(), images, weighted) == {"conv", "fc"}


def test_a_layer_that_feeds_itself_is_probed_through_its_weights(events):
    model = Recurrent()
    assert tapped(model, events) == {"a", "c"}
    traces = hessian_trace(model, F.cross_entropy, [events], most_probes=300, relative_error=1e-9)
    for layer in ("a", "back", "c"):
        found = traces.row(layer)
        assert abs(found.trace - exact(model, events, f"{layer}.weight")) <= 3 * found.standard_error


@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton", "fisher"])
def test_a_batch_in_pieces_gives_the_traces_of_the_whole(images, curvature):
    options = {"curvature": curvature, "most_probes": 200, "relative_error": 1e-9, "roles": ("weight", "membrane")}
    whole = hessian_trace(Images(), F.cross_entropy, [images], **options)
    pieces = hessian_trace(Images(), F.cross_entropy, [images], at_once=5, **options)
    for a, b in zip(whole.rows, pieces.rows, strict=True):
        assert abs(a.trace - b.trace) <= 3.5 * (a.standard_error**2 + b.standard_error**2) ** 0.5 + 1e-5 * a.trace


def test_a_loss_that_is_no_mean_is_not_cut(images):
    with pytest.raises(DataError, match="at_once needs a loss that is a mean over samples"):
        hessian_trace(
            Images(), lambda o, y: F.cross_entropy(o, y, reduction="sum"), [images], at_once=4, most_probes=20
        )


def test_at_once_is_a_number_of_samples(images):
    with pytest.raises(DataError, match="at_once is 0; expected a number of samples"):
        hessian_trace(Images(), F.cross_entropy, [images], at_once=0)
