"""Prepared models and weights: damaged ones, and ones whose hash a forger made right."""

from __future__ import annotations

import json
import pickle
import random
import struct

import pytest
import torch
from safetensors.torch import load, save
from tests.hostile.mutations import changed_bytes, changed_record
from torch import nn

import spikequant as sq
from spikequant.cli.weights import load_weights
from spikequant.nn import LIF
from spikequant.quantize import prepared


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5), LIF(leak=0.75)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(self.fc(x)).sum(0)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A prepared model, as bytes."""
    torch.manual_seed(0)
    model, path = Net(), tmp_path_factory.mktemp("prepared") / "model.safetensors"
    sq.quantize_(
        model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), (torch.rand(5, 3, 6) < 0.5).float(), quiet=True
    )
    sq.freeze(model)
    sq.save_prepared(model, path)
    return path.read_bytes()


def forged(sound, dice):
    """One value of the record changed, and the hash made right."""
    length = struct.unpack("<Q", sound[:8])[0]
    header = json.loads(sound[8 : 8 + length])["__metadata__"]
    key, tensors = next(iter(header)), load(sound)
    record, _ = changed_record(json.loads(json.loads(header[key])["record"]), dice)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return save(tensors, metadata={key: json.dumps({"record": text, "sha256": prepared._digest(text, tensors)})})


def test_damaged_and_forged_models(sound, tmp_path):
    path, ends = tmp_path / "m.safetensors", {"read": 0, "refused": 0}
    for seed in range(120):
        dice = random.Random(seed)
        blind = seed % 2 == 0
        path.write_bytes(changed_bytes(sound, dice)[0] if blind else forged(sound, dice))
        try:
            sq.load_prepared(Net(), path)
            ends["read"] += 1
            assert not blind, "a changed file was read"
        except sq.ArtifactError:
            ends["refused"] += 1
    assert ends["refused"] > 80
    assert ends["read"] > 0


def test_a_refused_model_is_as_before(sound, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(forged(sound, random.Random(3)))
    model = Net()
    kinds = [type(m) for m in model.modules()]
    refused = 0
    for seed in range(12):
        (tmp_path / "m.safetensors").write_bytes(forged(sound, random.Random(seed)))
        try:
            sq.load_prepared(Net(), tmp_path / "m.safetensors")
        except sq.ArtifactError:
            refused += 1
            with pytest.raises(sq.ArtifactError):
                sq.load_prepared(model, tmp_path / "m.safetensors")
            assert [type(m) for m in model.modules()] == kinds
    assert refused > 3


class Trap:
    """What a pickle would run."""

    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('trapped').touch()",))


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"fc.weight": Trap()}, tmp_path / "torch.pt")
    for name in ("plain.pt", "torch.pt"):
        with pytest.raises(sq.ArtifactError, match=rf"{name} cannot be read as plain weights"):
            load_weights(Net(), tmp_path / name)
    assert not (tmp_path / "trapped").exists()
