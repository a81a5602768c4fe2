"""Ctrl-C in `fit`: the epochs so far, the weights that belong to them, and a resume that changes nothing."""

from __future__ import annotations

import json

import pytest
import torch
from tests.training.test_training import batches, model, quantized, same, weights

import spikequant as sq
from spikequant.training import Epoch, FitResult


class Pressed(list):
    """Batches in a fixed order; Ctrl-C comes before one of them, counted over all epochs (and a look at the first)."""

    def __init__(self, rows, at):
        super().__init__(rows)
        self.at, self.epoch, self.is_training = at, 0, False

    def set_epoch(self, epoch):
        self.epoch, self.is_training = epoch, True

    def __iter__(self):
        for position, row in enumerate(super().__iter__()):
            if self.is_training and (self.epoch, position) == self.at:
                raise KeyboardInterrupt
            yield row


@pytest.mark.parametrize("build", [model, quantized])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_history_and_weights_belong_together(build, mode):
    rows = list(batches())
    seen = []
    wanted = build(mode=mode)
    sq.fit(
        wanted,
        rows,
        epochs=3,
        lr=0.02,
        quiet=True,
        on_epoch=lambda e: seen.append(weights(wanted)) if e.epoch == 2 else 0,
    )
    net = build(mode=mode)
    result = sq.fit(net, Pressed(rows, (2, 3)), epochs=3, lr=0.02, quiet=True)
    assert result.interrupted
    assert [e.epoch for e in result.epochs] == [1, 2]
    assert same(weights(net), seen[0])


def test_before_the_first_epoch_is_done_nothing_has_changed():
    net = model()
    before = weights(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    result = sq.fit(net, Pressed(list(batches()), (0, 3)), epochs=3, optimizer=optimizer, quiet=True)
    assert result == FitResult((), True)
    assert same(weights(net), before)
    assert optimizer.state_dict()["state"] == {}
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_a_resume_behind_ctrl_c_ends_with_the_same_bits(tmp_path):
    rows = list(batches())
    whole, cut = model(dropout=0.2), model(dropout=0.2)
    torch.manual_seed(3)
    straight = sq.fit(whole, rows, epochs=3, lr=0.02, quiet=True)
    torch.manual_seed(3)
    first = sq.fit(cut, Pressed(rows, (1, 2)), epochs=3, lr=0.02, quiet=True, checkpoint=tmp_path / "c")
    assert first.interrupted
    assert first.epochs == straight.epochs[:1]
    again = sq.fit(cut, rows, epochs=3, lr=0.02, quiet=True, checkpoint=tmp_path / "c")
    assert again == straight
    assert not again.interrupted
    assert same(weights(cut), weights(whole))


def test_it_says_so_and_other_errors_still_raise(capsys):
    sq.fit(model(), Pressed(list(batches()), (1, 0)), epochs=2)
    assert "fit: interrupted; the weights are those after epoch 1" in capsys.readouterr().err

    def fail(_: Epoch):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        sq.fit(model(), batches(), epochs=2, quiet=True, on_epoch=fail)


def test_an_epoch_is_a_line_of_a_log():
    lines = []
    result = sq.fit(
        model(), batches(), epochs=2, lr=0.02, quiet=True, on_epoch=lambda e: lines.append(json.dumps(e.to_dict()))
    )
    first = json.loads(lines[0])
    assert list(first) == ["epoch", "loss", "accuracy", "validation", "lr", "samples", "seconds", "terms"]
    assert first["samples"] == 96
    assert 0.01 < first["lr"] < 0.02
    assert first["seconds"] > 0
    assert Epoch(**first) == result.epochs[0]
