"""What `compare` says to data, models and files that it cannot take, and that it leaves no trace."""

from __future__ import annotations

import copy
import json
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikequant as sq
from spikequant.nn import LIF


class Net(nn.Module):
    """Two layers on ``[T, N, 5]``."""

    def __init__(self, hidden=6, seed=1, **kinds):
        super().__init__()
        torch.manual_seed(seed)
        self.fc1, self.lif1 = nn.Linear(5, hidden), LIF(leak=0.75)
        self.fc2, self.lif2 = nn.Linear(hidden, 3), LIF()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(5)
        with torch.no_grad():
            self.fc1.weight.normal_(0.3, 0.5)
            self.fc2.weight.normal_(0.3, 0.5)

    def forward(self, x):
        return self.lif2(self.fc2(self.drop(self.lif1(self.fc1(x))))).sum(0)


def data(count=3, steps=10, samples=8):
    torch.manual_seed(3)
    return [((torch.rand(steps, samples, 5) < 0.4).float(), torch.randint(0, 3, (samples,))) for _ in range(count)]


def changed(**changes):
    """Data whose second batch is spoilt."""
    rows = data()
    x, y = rows[1]
    rows[1] = (changes.get("x", lambda v: v)(x), changes.get("y", lambda v: v)(y))
    return rows


def spoilt(value):
    def put(x):
        x = x.clone()
        x[2, 3, 1] = value
        return x

    return put


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"the loader gave no batch; expected at least one \(input, target\)"),
        (iter([]), "the loader gave no batch"),
        ([torch.zeros(10, 8, 5)], r"batch 0 is a Tensor; expected a pair \(input, target\) of tensors"),
        ([(torch.zeros(10, 8, 5),) * 3], "expected a pair"),
        ([([0.0], [1])], "a batch is .input, target., two tensors; got list and list"),
        (changed(x=spoilt(float("nan"))), r"a batch of shape \(10, 8, 5\) holds NaN or infinite values"),
        (changed(x=spoilt(float("inf"))), "NaN or infinite"),
        (changed(x=lambda x: x[..., :4]), r"fc1: expected inputs .T, N, 5., got .1, 80, 4."),
        (changed(y=lambda y: y.float()), r"one class per sample, integers \[N\]; got torch.float32 \(8,\)"),
        (changed(y=lambda y: nn.functional.one_hot(y)), r"integers \[N\]; got torch.int64 \(8, 3\)"),
        (changed(y=lambda y: y[:5]), r"expected scores \[N, classes\] for 5 targets, got \(8, 3\)"),
        ([(data()[0][0], torch.zeros(7, dtype=torch.int64))], "has 7 targets; expected one per sample"),
        ([(torch.zeros(10, 0, 5), torch.zeros(0, dtype=torch.int64))], "one class per sample"),
    ],
)
def test_data_that_cannot_be_compared_on(rows, message):
    net = Net()
    with pytest.raises(sq.DataError, match=message):
        sq.compare(net, copy.deepcopy(net), rows)
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_things_that_are_no_models_and_no_data():
    with pytest.raises(sq.DataError, match="model is a str; expected a torch module"):
        sq.compare(Net(), "net.spq", data())
    with pytest.raises(sq.DataError, match=r"the data are a NoneType; expected batches of \(input, target\)"):
        sq.compare(Net(), Net(), None)


def test_used_up_data():
    rows = iter(data())
    net = Net()
    sq.compare(net, net, rows)
    with pytest.raises(sq.DataError, match="the loader gave no batch"):
        sq.compare(net, net, rows)


def test_a_shuffled_loader_is_compared_batch_by_batch():
    x = torch.cat([x for x, _ in data()], dim=1).transpose(0, 1).contiguous()
    y = torch.cat([y for _, y in data()])

    class BatchFirst(Net):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    net, other = BatchFirst(), BatchFirst()
    with torch.no_grad():
        other.fc2.weight += 0.2
    rows = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    found = sq.compare(net, other, rows)
    plain = sq.compare(net, other, [(x, y)])
    assert found.samples == 24
    assert found.emd == pytest.approx(plain.emd)
    assert found.difference == pytest.approx(plain.difference)
    assert found.diverged_samples == pytest.approx(plain.diverged_samples)
    assert found.reference.memory == plain.reference.memory


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: Net(hidden=7), r"differ in lif1: spikes \[T, N, ...\] of \[10, 8, 6\] and \[10, 8, 7\]"),
        (
            lambda: nn.Sequential(nn.Linear(5, 3), LIF(), Sum()),
            r"different neuron layers, \['lif1', 'lif2'\] and \['1'\]",
        ),
        (lambda: Half(), "the same number of steps"),
    ],
)
def test_networks_that_are_not_the_same(other, message):
    with pytest.raises(sq.DataError, match=message):
        sq.compare(Net(), other(), data())
    with pytest.raises(sq.DataError, match="reference and other_seed"):
        sq.compare(Net(), Net(), data(), other_seed=other())


class Sum(nn.Module):
    def forward(self, x):
        return x.sum(0)


class Half(Net):
    def forward(self, x):
        return super().forward(x[:5])


def test_networks_without_spiking_layers():
    net = nn.Sequential(Sum(), nn.Linear(5, 3))
    with pytest.raises(sq.DataError, match="the reference has no layer of spiking neurons that spikequant knows"):
        sq.compare(net, net, data())


@pytest.mark.parametrize("layer", [nn.Conv3d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), nn.LSTMCell(2, 2), nn.GRU(2, 2)])
def test_layers_whose_operations_nobody_counts(layer):
    net = Net()
    net.extra = nn.Sequential(layer)
    with pytest.raises(sq.Unsupported, match=f"extra.0: operations of {type(layer).__name__} cannot be counted"):
        sq.compare(net, net, data())
    padded = Net()
    padded.conv = nn.Conv1d(8, 8, 3, padding="same")
    padded.forward = lambda x: padded.lif2(padded.fc2(padded.lif1(padded.fc1(padded.conv(x))))).sum(0)
    with pytest.raises(sq.Unsupported, match="conv: operations with padding 'same' of mode 'zeros' are not counted"):
        sq.compare(padded, padded, data())


def test_scores_that_still_have_time():
    class Train(Net):
        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))

    with pytest.raises(sq.DataError, match="reduce the spikes of the last layer over time"):
        sq.compare(Train(), Train(), data())


@pytest.mark.parametrize("options", [{"raster_sample": -1}, {"dead_below": 1.5}, {"dead_below": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises(sq.DataError, match="expected 0 or more, and a rate in"):
        sq.compare(Net(), Net(), data(), **options)


def test_every_module_is_left_in_its_mode():
    net, other = Net(), Net().eval()
    net.norm.eval()
    sq.compare(net, other, data())
    assert net.training
    assert net.drop.training
    assert not net.norm.training
    assert not any(m.training for m in other.modules())


def test_a_model_that_fails_half_way_is_left_clean():
    class Breaks(Net):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 2:
                raise KeyError("half way")
            return super().forward(x)

    net, broken = Net(), Breaks()
    with pytest.raises(KeyError, match="half way"):
        sq.compare(net, broken, data())
    for model in (net, broken):
        assert model.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_network_beside_itself_and_networks_that_share_layers():
    net = Net()
    found = sq.compare(net, net, data(), other_seed=net)
    assert found.reference == found.quantized
    assert (found.emd, found.seed_floor, found.first_divergence, found.diverged_samples) == (0.0, 0.0, None, 0.0)
    assert found.reference.effective_acs == sq.compare(net, copy.deepcopy(net), data()).reference.effective_acs


def test_the_seed_floor_is_the_emd_of_two_seeds():
    net, seed = Net(), Net(seed=2)
    found, direct = sq.compare(net, net, data(), other_seed=seed), sq.compare(net, seed, data())
    assert [layer.seed_floor for layer in found.layers] == [layer.emd for layer in direct.layers]
    assert found.seed_floor == direct.emd > 0
    assert sq.compare(net, net, data()).seed_floor is None


def test_samples_one_by_one_and_of_different_length():
    net = Net()
    rows = [(x[:, n : n + 1], y[n : n + 1]) for x, y in data(1) for n in range(8)]
    one, all_together = sq.compare(net, net, rows), sq.compare(net, net, data(1))
    assert one.layers == all_together.layers
    assert one.reference == all_together.reference
    longer = sq.compare(net, net, [*data(1), *data(1, steps=20)])
    assert longer.steps == 20
    assert longer.samples == 16
    energy = longer.reference.energy
    moved = energy.integer_ops_and_traffic - energy.integer_ops - 5 * longer.reference.effective_acs
    assert moved == pytest.approx(2 * 15 * (9 * 33 + 3 * 32) * 5 / 32)  # 15 steps on average


def test_as_many_steps_as_samples():
    net = Net()
    assert sq.compare(net, net, data(steps=8)).notes == ()


def test_a_network_that_is_no_graph_is_compared_and_says_so():
    class Branch(Net):
        def forward(self, x):
            return super().forward(x) * (2 if float(self.fc1(x).sum()) > 0 else 1)

    found = sq.compare(Branch(), Branch(), data())
    assert len(found.notes) == 2
    assert "its memory leaves out input, readout and delay lines: " in found.notes[0]
    assert "input" not in found.reference.by_role()
    assert found.reference.by_role()["weight"] > 0


# -- files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison():
    return sq.compare(Net(), Net(seed=2), data())


def test_files_that_are_no_comparison(comparison, tmp_path):
    path = tmp_path / "c.comparison"
    with pytest.raises(sq.ArtifactError, match="is not a file; expected one written by Comparison.save"):
        sq.Comparison.load(path)
    with pytest.raises(sq.ArtifactError, match="nothing was changed"):
        comparison.save(tmp_path / "nowhere" / "c")
    path.write_bytes(b"not safetensors")
    with pytest.raises(sq.ArtifactError, match="is not a readable comparison"):
        sq.Comparison.load(path)
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(sq.ArtifactError, match="not a comparison written by Comparison.save"):
        sq.Comparison.load(path)


def rewritten(path, change):
    """The file with another header."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["spikequant-comparison"])
    change(inner)
    header["__metadata__"]["spikequant-comparison"] = json.dumps(inner)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version 2 of the comparison file; this release reads 1"),
        (lambda c: c["comparison"].update(samples=5), "its SHA-256 does not match"),
        (lambda c: c["comparison"].pop("samples"), "its SHA-256 does not match"),
        (lambda c: c.pop("sha256"), "the header is malformed"),
        (lambda c: c.pop("version"), "the header is malformed"),
        (lambda c: c.update(comparison=[1]), "its SHA-256 does not match"),
    ],
)
def test_changed_headers(comparison, tmp_path, change, message):
    path = tmp_path / "c"
    comparison.save(path)
    rewritten(path, change)
    with pytest.raises(sq.ArtifactError, match=message):
        sq.Comparison.load(path)


def test_unknown_and_missing_fields(comparison, tmp_path):
    from spikequant.analyse import file
    from spikequant.law.artifact import content_hash

    for change, message in (
        (lambda record: record.update(colour=1), "Comparison: the field 'colour' is unknown"),
        (lambda record: record.pop("steps"), "Comparison: the field 'steps' is missing"),
        (lambda record: record["layers"][0].pop("emd"), "LayerBehaviour: the field 'emd' is missing"),
        (lambda record: record["rasters"][0].update(x=1), "Raster: the field 'x' is unknown"),
    ):
        tensors = {}
        record = file._pack(comparison, "comparison", tensors)
        change(record)
        text = file._text(record)
        outer = {"comparison": record, "sha256": content_hash(text, tensors), "version": 1}
        save_file(tensors, tmp_path / "c", metadata={file.KEY: json.dumps(outer)})
        with pytest.raises(sq.ArtifactError, match=message):
            sq.Comparison.load(tmp_path / "c")


def test_every_flipped_byte_is_noticed(comparison, tmp_path):
    path = tmp_path / "c"
    comparison.save(path)
    raw = bytearray(path.read_bytes())
    for place in range(0, len(raw), max(1, len(raw) // 150)):
        spoilt = bytearray(raw)
        spoilt[place] ^= 0x10
        path.write_bytes(bytes(spoilt))
        try:
            again = sq.Comparison.load(path)
        except sq.ArtifactError:
            continue
        assert again.to_dict() == comparison.to_dict()  # a space of the padding
    path.write_bytes(bytes(raw[: len(raw) // 2]))
    with pytest.raises(sq.ArtifactError):
        sq.Comparison.load(path)


def test_rasters_and_the_first_difference_survive_the_file(comparison, tmp_path):
    comparison.save(tmp_path / "c")
    again = sq.Comparison.load(tmp_path / "c")
    assert again == comparison
    assert again.first_divergence is not None
    for a, b in zip(again.rasters, comparison.rasters, strict=True):
        for name in ("neurons", "reference", "quantized"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)
