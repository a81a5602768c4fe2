"""The compiled maximum over windows is torch's, value for value and gradient for gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import spikequant as sq
from spikequant.nn.max_pool import SpikeMaxPool2d
from spikequant.nn.over_time import OverTime
from spikequant.nn.products import kernels

WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 1, "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2},
]


def image(channels, size=(7, 9), batch=3, values="spikes"):
    generator = torch.Generator().manual_seed(channels)
    x = torch.rand(batch, channels, *size, generator=generator)
    x = (x < 0.3).float() if values == "spikes" else x - 0.5
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 5, 16, 33])
@pytest.mark.parametrize("values", ["spikes", "reals"])
@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_values_and_gradients_are_those_of_torch(options, values, channels):
    theirs, given = nn.MaxPool2d(**options), image(channels, values=values)
    ours, results = SpikeMaxPool2d(theirs), []
    for pool in (theirs, ours):
        x = given.clone(memory_format=torch.preserve_format).requires_grad_()
        out = pool(x)
        out.backward(torch.arange(1.0, out.numel() + 1).reshape(out.shape).cos())
        results.append((out, x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1].abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(ours(given), results[0][0])


def test_its_own_kernels_run():
    if kernels.library() is None:
        pytest.skip("no C compiler")
    out = SpikeMaxPool2d(nn.MaxPool2d(2))(image(4).requires_grad_())
    assert out.grad_fn.name() == "_MaxPoolBackward"


def test_nan_and_infinity_are_kept():
    x = image(3, values="reals")
    x[0, 0, 0, 0], x[0, 1, :2, :2], x[1, 2, 2, 2] = float("nan"), -float("inf"), float("inf")
    expected = nn.MaxPool2d(2)(x)
    assert torch.equal(SpikeMaxPool2d(nn.MaxPool2d(2))(x).nan_to_num(7.0), expected.nan_to_num(7.0))
    assert expected.isnan().sum() == 1


def test_second_derivatives():
    x = image(2, size=(4, 6), batch=1, values="reals").double()
    pools = [nn.MaxPool2d(2), SpikeMaxPool2d(nn.MaxPool2d(2))]
    found = []
    for pool in pools:
        given = x.float().contiguous(memory_format=torch.channels_last).requires_grad_()
        (slope,) = torch.autograd.grad((pool(given**2) ** 2).sum(), given, create_graph=True)
        found.append(torch.autograd.grad((slope**2).sum(), given)[0])
    assert torch.equal(found[0], found[1])
    assert found[0].abs().sum() > 0


def test_other_memory_types_and_no_batch_run_as_torch_does():
    pool = SpikeMaxPool2d(nn.MaxPool2d(2))
    for x in (image(3).contiguous(), image(3).double(), image(3)[0], image(3).to(torch.bfloat16)):
        assert torch.equal(pool(x), nn.MaxPool2d(2)(x))
    with pytest.raises(RuntimeError):
        pool(torch.rand(1, 1, 1, 1).contiguous(memory_format=torch.channels_last))


def test_quantize_puts_it_in_place_and_the_network_lowers():
    torch.manual_seed(0)
    model = nn.Sequential(
        OverTime(nn.Conv2d(1, 4, 3, padding=1)), sq.nn.LIF(), OverTime(nn.MaxPool2d(2)),
        OverTime(nn.Flatten(), nn.Linear(64, 3)), sq.nn.LIF(),
    )  # fmt: skip
    x = (torch.rand(4, 2, 1, 8, 8) < 0.5).float()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=6), x, quiet=True)
    assert isinstance(copy.deepcopy(model)[2].layer, SpikeMaxPool2d)
    model.eval()
    sq.freeze(model)
    net = sq.lower(model, x)
    sq.verify(model, net, x)


def test_forward_mode_has_its_tangent():
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    found = []
    for pool in (nn.MaxPool2d(2), SpikeMaxPool2d(nn.MaxPool2d(2))):
        with forward_ad.dual_level():
            found.append(forward_ad.unpack_dual(pool(forward_ad.make_dual(x, torch.cos(x)))))
    assert torch.equal(found[1].primal, found[0].primal)
    assert torch.equal(found[1].tangent, found[0].tangent)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_runs_on_other_images():
    x, other = torch.randn(2, 2, 3, 4, 4).unbind(0)
    layer = nn.Conv2d(3, 3, 1).to(memory_format=torch.channels_last)
    traced = torch.jit.trace(nn.Sequential(layer, SpikeMaxPool2d(nn.MaxPool2d(2))), x)
    assert torch.equal(traced(other), nn.MaxPool2d(2)(layer(other)))
