"""Layers that only look like torch's own, weights that are computed of others, and hooks of the user."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import spikequant as sq

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


class Doubled(nn.Linear):
    """A layer with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Named(nn.Linear):
    """A layer that computes what torch's does."""


class Windowed(nn.Conv2d):
    """A convolution whose inner function is overridden."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input.relu(), weight, bias)


class HalfPool(nn.AvgPool1d):
    """A pool that is no mean."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def network(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, sq.nn.LIF(leak=0.9), nn.Linear(6, 3), sq.nn.LIF(leak=0.9))


def test_a_layer_with_its_own_forward_is_refused_and_the_model_left_alone():
    x = torch.rand(5, 4, 8)
    model = network(Doubled(8, 6))
    with pytest.raises(sq.Unsupported, match=r"0: its forward is overridden by Doubled.*use torch\.nn\.Linear itself"):
        sq.quantize_(model, PLAN, x, quiet=True)
    assert isinstance(model[0], Doubled)
    sq.quantize_(network(Named(8, 6)), PLAN, x, quiet=True)


def test_a_forward_set_on_the_object_is_refused():
    layer = nn.Linear(8, 6)
    layer.forward = lambda x: nn.functional.linear(x, layer.weight)
    with pytest.raises(sq.Unsupported, match="overridden on the object itself"):
        sq.quantize_(network(layer), PLAN, torch.rand(5, 4, 8), quiet=True)


def test_inner_functions_and_pools_are_looked_at_as_well():
    net = nn.Sequential(Windowed(1, 2, 3), sq.nn.LIF(leak=0.9, step_mode="s"), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(sq.Unsupported, match="_conv_forward is overridden by Windowed"):
        sq.quantize_(net, PLAN, torch.rand(2, 1, 4, 4), quiet=True)
    net = nn.Sequential(nn.Conv1d(1, 2, 3), sq.nn.LIF(leak=0.9, step_mode="s"), HalfPool(2), nn.Flatten(),
                        nn.Linear(4, 3))  # fmt: skip
    with pytest.raises(sq.Unsupported, match="HalfPool"):
        sq.quantize_(net, PLAN, torch.rand(2, 1, 6), quiet=True)


@pytest.mark.parametrize(
    "change",
    [lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), parametrizations.weight_norm],
    ids=["pruning", "weight_norm"],
)
def test_a_weight_that_is_computed_of_others_is_refused(change):
    model = network(change(nn.Linear(8, 6)))
    with pytest.raises(sq.Unsupported, match="make it permanent first"):
        sq.quantize_(model, PLAN, torch.rand(5, 4, 8), quiet=True)


def test_hooks_stay_and_their_handles_still_remove_them():
    model, seen = network(nn.Linear(8, 6)), []
    handles = [model[k].register_forward_hook(lambda m, a, out: seen.append(out)) for k in (0, 1)]
    report = sq.quantize_(model, PLAN, torch.rand(5, 4, 8), quiet=True)
    assert any("forward hooks stay" in note for note in report.notes)
    seen.clear()
    model(torch.rand(5, 4, 8))
    assert len(seen) == 2
    assert set(seen[1].unique().tolist()) <= {0.0, 1.0}
    for handle in handles:
        handle.remove()
    model(torch.rand(5, 4, 8))
    assert len(seen) == 2


def test_hooks_of_neurons_of_other_libraries_stay():
    snn = pytest.importorskip("snntorch")
    model, seen = nn.Sequential(nn.Linear(8, 6), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(6, 3)), []
    handle = model[1].register_forward_hook(lambda *_: seen.append(1))
    sq.quantize_(model, PLAN, torch.rand(4, 8), quiet=True)
    seen.clear()
    model(torch.rand(4, 8))
    assert seen == [1]
    handle.remove()
    model(torch.rand(4, 8))
    assert seen == [1]
