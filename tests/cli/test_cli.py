"""The command line: exit codes, one JSON document, sentences instead of tracebacks."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.cli import main
from spikequant.law.artifact import network_hash
from spikequant.models import ConvSNN
from spikequant.nn import LIF
from spikequant.recipes import demo


def run(capsys, *arguments):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    code = caught.value.code
    assert "Traceback" not in captured.err
    return 0 if code is None else code, captured.out, captured.err


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), LIF(), nn.Linear(5, 3), LIF())
    with torch.no_grad():
        net[0].weight.normal_(0.3, 0.4)
        net[2].weight.normal_(0.3, 0.4)
    x = (torch.rand(8, 4, 6) < 0.5).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(net)
    path = tmp_path_factory.mktemp("net") / "net.spq"
    sq.lower(net, x).save(path)
    return path


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"{sq.__version__}\n", "")


def test_help_lists_the_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "demo" in out
    assert "verify" in out


@pytest.mark.parametrize(
    "arguments",
    [["paint"], ["verify"], ["verify", "a.spq", "--loud"], ["demo", "--seed", "-1"], ["demo", "--seed", "x"]],
)
def test_wrong_commands_and_options(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert "Usage" in err


def test_verify_a_good_network(capsys, network):
    code, out, err = run(capsys, "verify", network)
    assert (code, err) == (0, "")
    net = sq.IntNet.load(network)
    assert network_hash(net) in out
    assert "0 differences" in out
    assert f"{net.steps * 2 * 8:,} neuron-steps" in out


def test_verify_as_json(capsys, network):
    code, out, err = run(capsys, "verify", network, "--json")
    facts = json.loads(out)
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert facts["network"] == str(network)
    assert facts["sha256"] == network_hash(sq.IntNet.load(network))
    assert facts["readers"]["golden"]["differences"] == 0
    assert facts["readers"]["golden"]["spikes"] > 5


def damaged(network, tmp_path, how):
    """A damaged copy, and what the message must say."""
    data, path = bytearray(network.read_bytes()), tmp_path / "bad.spq"
    if how == "missing":
        return path, "is not a file; expected a network written by IntNet.save (.spq)"
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    elif how == "text":
        data = bytearray(b"hello, world" * 10)
    elif how == "one byte of a tensor":
        data[-1] ^= 1
        path.write_bytes(data)
        return path, "it was changed after it was written: its SHA-256 does not match its content"
    path.write_bytes(data)
    return path, "is not a readable .spq file"


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "text", "one byte of a tensor"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_a_damaged_network(capsys, network, tmp_path, how, options):
    path, message = damaged(network, tmp_path, how)
    code, out, err = run(capsys, "verify", path, *options)
    assert (code, out) == (2, "")
    assert err.startswith((f"spikequant: {path} {message}", f"spikequant: {path}: {message}"))
    assert len(err.splitlines()) == 1


def test_verify_a_folder_and_another_safetensors_file(capsys, tmp_path):
    from safetensors.torch import save_file

    code, _, err = run(capsys, "verify", tmp_path)
    assert code == 2
    assert "is not a file" in err
    save_file({"x": torch.ones(2)}, tmp_path / "x.spq")
    code, _, err = run(capsys, "verify", tmp_path / "x.spq")
    assert code == 2
    assert "is a safetensors file, but not a spikequant network" in err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_a_network_whose_vectors_are_wrong(capsys, network, tmp_path, options):
    net = sq.IntNet.load(network)
    vectors = dataclasses.replace(net.vectors, scores=net.vectors.scores + 1)
    dataclasses.replace(net, vectors=vectors).save(tmp_path / "wrong.spq")
    code, out, err = run(capsys, "verify", tmp_path / "wrong.spq", *options)
    assert code == 1
    assert (
        err
        == f"spikequant: {tmp_path / 'wrong.spq'}: the embedded test vectors do not give the scores that the file states\n"
    )
    count = net.vectors.scores.size
    assert (json.loads(out)["readers"]["golden"]["differences"] if options else out.count(f"{count} differences")) == (
        count if options else 1
    )


def test_verify_a_network_without_vectors(capsys, network, tmp_path):
    dataclasses.replace(sq.IntNet.load(network), vectors=None).save(tmp_path / "bare.spq")
    code, out, err = run(capsys, "verify", tmp_path / "bare.spq")
    assert (code, out) == (2, "")
    assert "carries no test vectors; lower the model again with an example input" in err


def test_the_module_runs_as_a_program(network, tmp_path):
    cut = tmp_path / "cut.spq"
    cut.write_bytes(network.read_bytes()[:100])
    done = subprocess.run(
        [sys.executable, "-m", "spikequant", "verify", str(cut)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"spikequant: {cut} is not a readable .spq file")
    assert "Traceback" not in done.stderr


# -- the demo, shortened --------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    """A demo of one epoch on a few digits."""
    monkeypatch.setattr(demo, "FLOAT_EPOCHS", 1)
    monkeypatch.setattr(demo, "QAT_EPOCHS", 1)
    whole = demo.digit_batches

    def few(seed):
        return tuple([(x[:24], y[:24]) for x, y in list(part)[:2]] for part in whole(seed))

    monkeypatch.setattr(demo, "digit_batches", few)
    monkeypatch.setattr(demo, "digits_net", lambda: ConvSNN(size=8, channels=(4, 6), kernel=3, pool=1, steps=4))


def test_the_demo_writes_networks_plans_and_figures(capsys, short, tmp_path):
    out = tmp_path / "new" / "folder"
    code, text, err = run(capsys, "demo", "--out", out, "--json")
    facts = json.loads(text)
    assert code == 0
    assert err.splitlines()[0].startswith("1/4  train the float network")  # words go to standard error
    assert sorted(p.name for p in out.iterdir()) == ["demo.json", "w2u4.spq", "w2u4.toml", "w4u8.spq", "w4u8.toml"]
    assert json.loads((out / "demo.json").read_text()) == facts
    assert facts["version"] == sq.__version__
    assert [row["verify"]["differences"] for row in facts["rows"]] == [0, 0]
    assert all(row["verify"]["spikes"] > 100 for row in facts["rows"])
    for row, stem in zip(facts["rows"], ("w4u8", "w2u4"), strict=True):
        net = sq.IntNet.load(out / f"{stem}.spq")
        assert network_hash(net) == row["sha256"]
        assert sq.Plan.load(out / f"{stem}.toml").to_dict() == row["plan"] == net.metadata["plan"]
        assert run(capsys, "verify", out / f"{stem}.spq")[0] == 0
    assert (
        facts["rows"][0]["comparison"]["quantized"]["flash_bytes"]
        < facts["rows"][0]["comparison"]["reference"]["flash_bytes"] / 4
    )


@pytest.fixture
def no_training(monkeypatch):
    """A demo that must not be run."""
    monkeypatch.setattr(demo, "fit", lambda *_a, **_k: pytest.fail("it trained before it looked at the folder"))


def test_the_demo_into_a_folder_that_cannot_be(capsys, no_training, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, out, err = run(capsys, "demo", "--out", tmp_path / "file" / "demo", "--json")
    assert (code, out) == (2, "")
    assert err.startswith(f"spikequant: cannot make or write the folder {tmp_path / 'file' / 'demo'}: ")
    assert err.rstrip().endswith("choose another --out")
    assert (tmp_path / "file").read_text() == "mine"
