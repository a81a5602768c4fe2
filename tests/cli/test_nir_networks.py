"""A `.nir` file as NETWORK of `train` and `quantize`."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

import spikequant as sq
from spikequant.cli.networks import build_network, network_source

nir = pytest.importorskip("nir")
pytest.importorskip("h5py")
CHOICES = "dt=1e-3,integrator=euler,reset=v_reset"


@pytest.fixture
def graph(tmp_path):
    """64 pixels, 32 LIF, 10 LIF."""
    rng = np.random.default_rng(0)

    def lif(n):
        ones = np.ones(n, dtype=np.float32)
        return nir.LIF(tau=4e-3 * ones, r=4 * ones, v_leak=0 * ones, v_threshold=ones)

    nodes = {
        "input": nir.Input(np.array([64])),
        "fc1": nir.Affine(rng.normal(0.03, 0.2, (32, 64)).astype(np.float32), np.zeros(32, np.float32)),
        "lif1": lif(32),
        "fc2": nir.Affine(rng.normal(0.05, 0.3, (10, 32)).astype(np.float32), np.zeros(10, np.float32)),
        "lif2": lif(10),
        "output": nir.Output(np.array([10])),
    }
    names = list(nodes)
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, list(pairwise(names))))
    return tmp_path / "net.nir"


def test_a_graph_is_built_with_its_choices(graph):
    model = build_network(network_source(f"{graph}:{CHOICES},steps=6"), seed=0)
    assert model.reading.choices.dt == 1e-3
    still = model(torch.rand(3, 1, 8, 8))
    assert still.shape == (3, 10)
    x = torch.rand(3, 64)
    train = sq.from_nir(graph, dt=1e-3, integrator="euler", reset="v_reset")(x.expand(6, 3, 64))
    assert torch.equal(model(x), train.sum(0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "a NIR graph does not say how to run it. Give dt"),
        (":dt=fast", "'dt=fast': expected a number behind dt"),
        (":speed=3", "'speed=3' is no option, or there twice; expected some of dt, integrator"),
        (":dt=1,dt=2", "'dt=2' is no option, or there twice"),
        (f":{CHOICES},readout=vote", "readout='vote'; expected one of train, sum"),
        (f":{CHOICES},steps=0", "steps=0; expected 1 to"),
    ],
)
def test_what_is_wrong_is_said(words, said, graph):
    with pytest.raises(sq.SpikequantError) as caught:
        build_network(network_source(f"{graph}{words}"), seed=0)
    assert said in str(caught.value)
    assert "net.nir" in str(caught.value)


def test_no_file_and_a_damaged_one(tmp_path):
    with pytest.raises(sq.DataError, match=r"none.nir is not a file .*a NIR graph \(net.nir\)"):
        network_source(str(tmp_path / "none.nir"))
    (tmp_path / "bad.nir").write_bytes(b"no HDF5")
    with pytest.raises(sq.DataError, match="no readable HDF5 file"):
        build_network(network_source(f"{tmp_path / 'bad.nir'}"), seed=0)


def test_train_and_quantize(graph, tmp_path):
    from typer.testing import CliRunner

    from spikequant.cli.app import app

    def run(*words):
        done = CliRunner().invoke(app, [str(w) for w in words])
        assert done.exit_code == 0, done.output
        return done

    network = f"{graph}:{CHOICES},steps=6"
    run("train", network, "--data", "digits", "--epochs", 1, "--limit", 300, "--out", tmp_path / "a", "--json")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["network"]["file"] == str(graph)
    assert config["network"]["function"] == f"{CHOICES},steps=6"
    assert len(config["network"]["sha256"]) == 64
    bits = ("--weight-bits", 8, "--membrane-bits", 12)
    run("quantize", tmp_path / "a", *bits, "--out", tmp_path / "b", "--json")
    net = sq.IntNet.load(tmp_path / "b" / "network.spq")
    assert [node.name for node in net.neurons] == ["lif1", "lif2"]
    assert sq.readers.golden.run(net, net.vectors.inputs).outputs["lif1"].sum() > 0
