"""`fit` and `evaluate`: they learn, they resume exactly, and they say what is wrong."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikequant as sq
from spikequant.data import ArrayBatches
from spikequant.nn import LIF
from spikequant.training import Epoch

SAMPLES, INPUTS, STEPS = 96, 8, 4


class Net(nn.Module):
    """A static input, shown for four steps."""

    def __init__(self, *, mode="m", dropout=0.0, hidden=12):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, hidden), LIF(leak=0.75, step_mode=mode)
        self.drop, self.fc2, self.mode = nn.Dropout(dropout), nn.Linear(hidden, 2), mode

    def forward(self, x):
        current = self.fc1(x)
        if self.mode == "m":
            return self.fc2(self.drop(self.lif1(current.unsqueeze(0).expand(STEPS, *current.shape)))).mean(0)
        return torch.stack([self.fc2(self.drop(self.lif1(current))) for _ in range(STEPS)]).mean(0)


def data(seed=0):
    """Two classes that a line divides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, INPUTS)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)


def batches(**options):
    return ArrayBatches(*data(), batch_size=16, shuffle=True, seed=1, **options)


def loader():
    x, y = data()
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=16, shuffle=True)


def model(**options):
    torch.manual_seed(0)
    return Net(**options)


def quantized(**options):
    net = model(**options)
    sq.quantize_(
        net,
        sq.Plan.uniform(weight_bits=3, weight_quantizer="lsq", membrane_bits=5, membrane_rounding="half_up"),
        torch.from_numpy(data()[0]),
        quiet=True,
    )
    return net


@pytest.mark.parametrize("build", [model, quantized])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_fit_learns(build, mode):
    net = build(mode=mode)
    before = sq.evaluate(net, batches())
    seen = []
    result = sq.fit(net, batches(), epochs=5, lr=0.03, quiet=True, validation=batches(), on_epoch=seen.append)
    after = sq.evaluate(net, batches())
    assert tuple(seen) == result.epochs
    assert [e.epoch for e in seen] == [1, 2, 3, 4, 5]
    assert result.loss == seen[-1].loss < 0.75 * seen[0].loss
    assert after.accuracy >= max(0.8, before.accuracy)
    assert seen[-1].validation == after.accuracy
    assert after.samples == SAMPLES


def weights(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(v, b[k]) for k, v in a.items())


class Stop(Exception):
    """The light went out."""


def interrupt(epoch):
    def stop(done: Epoch):
        if done.epoch == epoch:
            raise Stop

    return stop


@pytest.mark.parametrize(
    ("build", "source", "mode"),
    [
        (quantized, loader, "m"),
        (quantized, batches, "s"),
        (quantized, loader, "s"),
        (model, loader, "m"),
        (model, batches, "m"),
    ],
)
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, build, source, mode):
    options = {"epochs": 3, "lr": 0.02, "quiet": True}
    whole = build(mode=mode, dropout=0.2)
    torch.manual_seed(5)
    straight = sq.fit(whole, source(), checkpoint=tmp_path / "whole.ckpt", **options)
    for epoch in (1, 2):
        path = tmp_path / f"cut{epoch}.ckpt"
        first = build(mode=mode, dropout=0.2)
        torch.manual_seed(5)
        with pytest.raises(Stop):
            sq.fit(first, source(), checkpoint=path, on_epoch=interrupt(epoch), **options)
        second = build(mode=mode, dropout=0.2)
        torch.manual_seed(999)
        with torch.no_grad():
            second.fc1.weight.add_(1.0)
        result = sq.fit(second, source(), checkpoint=path, **options)
        assert result == straight
        assert same(weights(second), weights(whole))
    start = build(mode=mode, dropout=0.2)
    assert not same(weights(start), weights(whole))


def test_a_finished_training_is_not_repeated(tmp_path):
    net = model()
    first = sq.fit(net, batches(), epochs=2, checkpoint=tmp_path / "a" / "b.ckpt", quiet=True)
    end = weights(net)
    again = sq.fit(net, batches(), epochs=2, checkpoint=tmp_path / "a" / "b.ckpt", quiet=True)
    assert again == first
    assert same(weights(net), end)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.ckpt"]
    anew = sq.fit(net, batches(), epochs=1, checkpoint=tmp_path / "a" / "b.ckpt", resume=False, quiet=True)
    assert len(anew.epochs) == 1
    assert not same(weights(net), end)


def checkpoint(path, net=None, **options):
    sq.fit(net if net is not None else model(), batches(), epochs=1, checkpoint=path, quiet=True, **options)
    return path


def test_a_checkpoint_of_another_model(tmp_path):
    path = checkpoint(tmp_path / "net.ckpt")
    before = path.read_bytes()
    with pytest.raises(sq.ArtifactError, match=re.escape(f"fit: the checkpoint {path} belongs to another model: ")):
        sq.fit(model(hidden=5), batches(), epochs=2, checkpoint=path, quiet=True)
    with pytest.raises(sq.ArtifactError, match="belongs to another model"):
        sq.fit(quantized(), batches(), epochs=2, checkpoint=path, quiet=True)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_optimizer(tmp_path):
    path = checkpoint(tmp_path / "net.ckpt")
    net = model()
    halves = torch.optim.SGD([{"params": [net.fc1.weight]}, {"params": [net.fc2.weight]}], lr=0.1)
    with pytest.raises(sq.ArtifactError, match=re.escape(f"fit: the checkpoint {path} belongs to another optimizer: ")):
        sq.fit(net, batches(), epochs=2, checkpoint=path, optimizer=halves, quiet=True)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other safetensors", "no random state", "directory"])
def test_damaged_checkpoints(tmp_path, damage):
    path = checkpoint(tmp_path / "net.ckpt")
    whole = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage == "other safetensors":
        save_file({"x": torch.ones(2)}, path)
    elif damage == "no random state":
        facts = {"history": [], "groups": [], "scalars": {}}
        save_file({f"model/{k}": v for k, v in model().state_dict().items()}, path, metadata={"fit": json.dumps(facts)})
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"weights"}[damage])
    with pytest.raises(
        sq.ArtifactError,
        match=rf"fit: {re.escape(str(path))} is not a checkpoint of fit \(.*\); delete it or pass resume=False",
    ):
        sq.fit(model(), batches(), epochs=2, checkpoint=path, quiet=True)


def test_a_failed_load_leaves_the_model_alone(tmp_path):
    path = checkpoint(tmp_path / "net.ckpt")
    path.write_bytes(path.read_bytes()[:-20])
    net = model()
    before = weights(net)
    with pytest.raises(sq.ArtifactError):
        sq.fit(net, batches(), epochs=2, checkpoint=path, quiet=True)
    assert same(weights(net), before)


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(sq.ArtifactError, match="fit: cannot make the folder "):
        checkpoint(tmp_path / "file" / "net.ckpt")


def test_without_batches():
    with pytest.raises(sq.DataError, match=r"fit: the loader gave no batch; expected at least one \(input, target\)"):
        sq.fit(model(), [], quiet=True)
    with pytest.raises(
        sq.DataError, match=r"evaluate: the loader gave no batch; expected at least one \(input, target\)"
    ):
        sq.evaluate(model(), [])


def test_data_that_are_not_finite():
    x, y = data()
    bad = [
        (torch.from_numpy(x), torch.from_numpy(y)),
        (torch.full((4, INPUTS), float("nan")), torch.zeros(4, dtype=torch.long)),
    ]

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(INPUTS, 2)

        def forward(self, x):
            return self.fc(x)

    with pytest.raises(
        sq.DataError, match=r"a batch of shape \(4, \d+\) holds NaN or infinite values; remove them first"
    ):
        sq.fit(Plain(), bad, quiet=True)
    diverged = Plain()
    with torch.no_grad():
        diverged.fc.weight.fill_(float("nan"))
    with pytest.raises(
        sq.DataError, match="fit: the loss is nan in epoch 1; check the data for NaN, or lower the learning rate"
    ):
        sq.fit(diverged, bad[:1], quiet=True)


def test_nan_does_not_hide_behind_spikes():
    """NaN >= threshold is 0: without a check the loss stays finite while the weights are lost."""
    net, (x, y) = model(), data()
    broken = torch.from_numpy(x).clone()
    broken[0] = float("nan")
    rows = [(broken, torch.from_numpy(y))]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for verb in (lambda: sq.fit(net, rows, epochs=1, quiet=True), lambda: sq.evaluate(net, rows)):
        with pytest.raises(sq.DataError, match="holds NaN or infinite values"):
            verb()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_frozen_model_and_an_unknown_schedule():
    net = model()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(
        sq.DataError, match="fit: the model has no parameter to train; a frozen model is integers for good"
    ):
        sq.fit(net, batches(), quiet=True)
    with pytest.raises(
        sq.DataError, match="fit: schedule 'linear'; expected 'cosine', 'constant', 'restarts' or a Schedule"
    ):
        sq.fit(model(), batches(), schedule="linear", quiet=True)


def test_outputs_that_are_no_scores():
    class Train(Net):
        def forward(self, x):
            return self.lif1(self.fc1(x).unsqueeze(0))

    with pytest.raises(
        sq.DataError, match=re.escape("evaluate: expected scores [N, classes] for 16 targets, got (1, 16, 12)")
    ):
        sq.evaluate(Train(), batches())


@pytest.mark.parametrize("mode", ["m", "s"])
def test_evaluate_counts_right(mode):
    net = model(mode=mode).train()
    x, y = data()
    found = sq.evaluate(net, ArrayBatches(x, y, batch_size=7))
    net.eval()
    sq.reset(net)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).argmax(1)
    assert torch.equal(found.predictions, wanted)
    assert found.accuracy == pytest.approx(float((wanted.numpy() == y).mean()))
    assert torch.equal(found.targets, torch.from_numpy(y))


@pytest.mark.parametrize("mode", ["m", "s"])
def test_evaluate_reads_a_generator_from_its_first_batch(mode):
    net = model(mode=mode)
    x, y = data()
    once = ((a, b) for a, b in ArrayBatches(x, y, batch_size=16))
    assert sq.evaluate(net, once).samples == SAMPLES


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_keeps_the_mode(training):
    net = model(dropout=0.5).train(training)
    assert sq.evaluate(net, batches()).accuracy == sq.evaluate(net, batches()).accuracy
    assert net.training == training


def test_cosine_and_constant_rates():
    seen = {}
    for schedule in ("cosine", "constant"):
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        rates = []
        sq.fit(
            net,
            batches(),
            epochs=4,
            optimizer=optimizer,
            schedule=schedule,
            quiet=True,
            on_epoch=lambda e, o=optimizer, r=rates: r.append(o.param_groups[0]["lr"]),
        )
        seen[schedule] = rates
    assert seen["constant"] == [0.1] * 4
    assert all(a > b for a, b in zip(seen["cosine"], seen["cosine"][1:], strict=False))
    assert seen["cosine"][0] > 0.08
    assert 0.001 <= seen["cosine"][-1] < 0.01


def test_every_epoch_has_its_own_order():
    class Told(list):
        epochs = ()

        def set_epoch(self, epoch):
            self.epochs += (epoch,)

    told = Told(batches())
    sq.fit(model(), told, epochs=3, quiet=True)
    assert told.epochs == (0, 1, 2)


def test_progress_can_be_silenced(capsys):
    sq.fit(model(), batches(), epochs=1, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_the_given_optimizer_and_loss_are_used():
    net, twin = model(), copy.deepcopy(model())
    sq.fit(net, batches(), epochs=1, optimizer=torch.optim.SGD([net.fc2.weight], lr=0.5), quiet=True)
    assert torch.equal(net.fc1.weight, twin.fc1.weight)
    assert not torch.equal(net.fc2.weight, twin.fc2.weight)
    with pytest.raises(sq.DataError, match="the loss is inf"):
        sq.fit(net, batches(), epochs=1, loss=lambda out, _: out.sum() * 0 + float("inf"), quiet=True)
