"""Names of layers are texts of strangers: in no export do they become paths or program text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.hostile.formats import small_net

import spikequant as sq
from spikequant.law import network
from spikequant.law.network import Edge
from spikequant.readers import golden

NAMES = [
    "../../escaped",
    "/etc/passwd",
    'a"; system("true"); //',
    "*/ int main(void) {",
    "new\nline",
    "nul\x00l",
    "\u202eevil",
]


def hostile_net():
    """The small network with hostile names and test vectors."""
    net = small_net()
    new = dict(zip([node.name for node in net.nodes], NAMES, strict=True))
    nodes = tuple(
        dataclasses.replace(
            n,
            name=new[n.name],
            **({"inputs": tuple(Edge(new[e.source], e.delay) for e in n.inputs)} if n.inputs else {}),
        )
        for n in net.nodes
    )
    net = dataclasses.replace(
        net, nodes=nodes, decoder=dataclasses.replace(net.decoder, source=new[net.decoder.source])
    )
    codes = (np.random.default_rng(0).random((4, 2, 1, 4, 4)) < 0.5).astype(np.int64)
    return dataclasses.replace(net, vectors=network.TestVectors(inputs=codes, scores=golden.run(net, codes).scores))


@pytest.mark.parametrize("format", ["c99", "nir", "onnx", "vectors"])
def test_hostile_names_in_exports(format, tmp_path):
    for library in {"nir": ("h5py",), "onnx": ("onnx",)}.get(format, ()):
        pytest.importorskip(library)
    done = sq.export(hostile_net(), tmp_path / "deep" / "out", format=format)
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    for name in done.files:
        assert Path(name).name == name
        assert name.isascii()
        assert name.isprintable()
    if format == "c99":
        program = "".join(
            (done.folder / n).read_text() for n in done.files if n.endswith((".c", ".h", "Makefile", ".txt"))
        )
        assert not any(part in program for part in ("system(", "int main(void) {\n\n", "/etc/passwd", "\u202e", "\x00"))


def test_the_exported_c_still_runs():
    from spikequant.readers import native

    if native.find_compiler() is None:
        pytest.skip("no C compiler")
    net = hostile_net()
    run = sq.compile(net)
    assert np.array_equal(run.run(net.vectors.inputs), net.vectors.scores)
    assert net.vectors.scores.sum() > 0


def test_names_come_back_as_they_were(tmp_path):
    net = hostile_net()
    net.save(tmp_path / "a.spq")
    assert [n.name for n in sq.IntNet.load(tmp_path / "a.spq").nodes] == NAMES
