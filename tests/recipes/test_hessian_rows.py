"""Rows of `reproduce hessian-aware`: how the quantized copies of the N-MNIST network learn."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.training.test_local import moving_bars

import spikequant as sq
from spikequant.analyse.local_hessian import local_hessian_trace
from spikequant.models.decolle import Decolle
from spikequant.recipes import hessian_rows
from spikequant.recipes.budgeted import Trial, by_hand, compared
from spikequant.recipes.hessian_rows import Amount, trained_locally, trained_on
from spikequant.recipes.plans_of_a_size import Widths
from spikequant.training import KeptBatches
from spikequant.training.local import LocalRun, fit_local


def test_they_learn_by_local_losses_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Decolle(size=8, channels=(6, 8), kernel=3, classes=2)
    batches = KeptBatches(tuple(moving_bars(24)), 0)
    fit_local(model, batches, epochs=6, lr=5e-3, burn_in=2)
    model.eval()
    traces = local_hessian_trace(model, list(batches), probes=8, burn_in=2)
    monkeypatch.setattr(hessian_rows, "fit", None)  # nothing of it goes through time
    how = Amount(epochs=6, again=4, briefly=24, burn_in=2)
    trial = Trial(
        model=model, traces=traces, learn=list(batches), test=list(batches), share=0.3,
        widths=Widths(weight=(3, 4), membrane=(5, 6), template=trained_on(signed=True)),
        **trained_locally(batches, how, lr=2e-3, seed=0, work=tmp_path),
    )  # fmt: skip
    found = compared(trial, lambda _: None)
    assert found["differences"] == 0
    assert found["outcomes"]["allocated"]["bytes"] <= found["outcomes"]["equal"]["bytes"]
    assert found["outcomes"]["allocated"]["after"] != found["outcomes"]["allocated"]["before_training"]
    assert list(tmp_path.glob("*.safetensors"))
    hand = by_hand(trial, lambda _: None, [(8, 8)])
    assert hand[0]["hand"]["differences"] == 0


@torch.no_grad()
def local_loss(model: Decolle, batches: KeptBatches) -> float:
    (x, y), run = batches.kept[0], LocalRun(model.eval())
    wanted = F.one_hot(y, 2).float()
    return sum(float(F.smooth_l1_loss(one.scores, wanted)) for frame in x for one in run.step(frame))


def test_learned_steps_move_slower_than_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decolle(size=8, channels=(6, 8), kernel=3, classes=2)
    batches = KeptBatches(tuple(moving_bars(8)), 0)
    plan = sq.Plan.uniform(weight_bits=4, weight_quantizer="lsq", membrane_bits=8, membrane_rounding="half_up")
    sq.quantize_(model, plan, batches.kept[0][0], quiet=True)
    sq.calibrate(model, batches)
    before, loss = copy.deepcopy(model.state_dict()), local_loss(model, batches)
    trained_locally(batches, Amount(epochs=1, again=1, burn_in=2), lr=1e-3, seed=0, work=tmp_path)["train"](model, "x")
    after = model.state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before if "conv1" in name}
    assert 0 < moved["conv1.layer.weight_scale"] < 0.2 * moved["conv1.layer.weight"]
    assert torch.equal(after["readout.weight"], before["readout.weight"])
    assert not model.training
    assert local_loss(model, batches) < loss
