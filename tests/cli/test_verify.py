"""`spikequant verify`, and what all commands share: exit codes, one JSON document, sentences instead of tracebacks."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

import spikequant as sq
from spikequant.law.artifact import network_hash


def test_version(run):
    done = run("--version")
    assert (done.code, done.out, done.err) == (0, f"{sq.__version__}\n", "")


def test_help_lists_the_commands(run):
    done = run("--help")
    assert done.code == 0
    assert "demo" in done.out
    assert "verify" in done.out


@pytest.mark.parametrize(
    "arguments",
    [["paint"], ["verify"], ["verify", "a.spq", "--loud"], ["demo", "--seed", "-1"], ["demo", "--seed", "x"]],
)
def test_wrong_commands_and_options(run, arguments):
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Usage" in done.err


def test_verify_a_good_network(run, network):
    done = run("verify", network)
    assert (done.code, done.err) == (0, "")
    net = sq.IntNet.load(network)
    assert network_hash(net) in done.out
    assert "0 differences" in done.out
    steps = f"{net.steps * 2 * 8:,}"
    header, row = done.out.splitlines()[1:3]
    assert header.split() == ["network", "reader", "neuron-steps", "spikes", "states", "differences"]
    assert row.split()[:3] + row.split()[-1:] == ["net.spq", "golden", steps, "0"]


def test_verify_as_json(run, network):
    done = run("verify", network, "--json")
    facts = json.loads(done.out)
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "0 differences" in done.err  # words go to standard error
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
    return path, "it is not a readable .spq file"


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "text", "one byte of a tensor"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_a_damaged_network(run, network, tmp_path, how, options):
    path, message = damaged(network, tmp_path, how)
    done = run("verify", path, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith((f"spikequant: {path} {message}", f"spikequant: {path}: {message}"))
    assert len(done.err.splitlines()) == 1


def test_verify_a_folder_and_another_safetensors_file(run, tmp_path):
    from safetensors.torch import save_file

    done = run("verify", tmp_path)
    assert done.code == 2
    assert "holds no network (.spq)" in done.err
    save_file({"x": torch.ones(2)}, tmp_path / "x.spq")
    done = run("verify", tmp_path / "x.spq")
    assert done.code == 2
    assert "is a safetensors file, but not a spikequant network" in done.err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_a_network_whose_vectors_are_wrong(run, network, tmp_path, options):
    net = sq.IntNet.load(network)
    vectors = dataclasses.replace(net.vectors, scores=net.vectors.scores + 1)
    dataclasses.replace(net, vectors=vectors).save(tmp_path / "wrong.spq")
    done = run("verify", tmp_path / "wrong.spq", *options)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"spikequant: {tmp_path / 'wrong.spq'}: the embedded test vectors do not give the scores that the file states"
    )
    count = net.vectors.scores.size
    assert (
        json.loads(done.out)["readers"]["golden"]["differences"] if options else done.out.count(f"{count} differences")
    ) == (count if options else 1)


def test_verify_a_network_without_vectors(run, network, tmp_path):
    dataclasses.replace(sq.IntNet.load(network), vectors=None).save(tmp_path / "bare.spq")
    done = run("verify", tmp_path / "bare.spq")
    assert (done.code, done.out) == (2, "")
    assert "carries no test vectors; lower the model again with an example input" in done.err


def test_the_module_runs_as_a_program(network, tmp_path):
    cut = tmp_path / "cut.spq"
    cut.write_bytes(network.read_bytes()[:100])
    done = subprocess.run(
        [sys.executable, "-m", "spikequant", "verify", str(cut)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"spikequant: {cut}: it is not a readable .spq file")
    assert "Traceback" not in done.stderr
