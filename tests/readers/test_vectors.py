"""``format="vectors"``: text and npz hold exactly what the golden model computed, whatever the layers are called."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.handmade import net as handmade

from spikequant.law import network
from spikequant.law.artifact import network_hash
from spikequant.law.errors import DataError
from spikequant.law.network import IntNet
from spikequant.readers import golden
from spikequant.readers.export import export
from spikequant.readers.vectors import files, hex_words

SEEDS = range(12)


def read_hex(text, bits, signed):
    raw = [int(word, 16) for word in text.split()]
    return [w - 2**bits if signed and w >= 2 ** (bits - 1) else w for w in raw]


@given(st.integers(1, 64), st.booleans(), st.data())
def test_words_read_back(bits, signed, data):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2 ** min(bits, 63) - 1)
    rows = data.draw(st.lists(st.lists(st.integers(low, high), min_size=3, max_size=3), min_size=1, max_size=4))
    text = hex_words(np.array(rows, dtype=np.int64), bits).decode()
    assert re.fullmatch(rf"([0-9a-f]{{{-(-bits // 4)}}}[ \n])+", text)
    assert [read_hex(line, bits, signed) for line in text.splitlines()] == rows


@pytest.mark.parametrize("seed", SEEDS)
def test_the_files_hold_the_golden_run(seed, tmp_path):
    net, codes, _ = handmade(seed)
    done = export(net, tmp_path / "out", format="vectors", inputs=codes)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["network"] == network_hash(net)
    assert set(done.files) == {path.name for path in (tmp_path / "out").iterdir()}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    run, spikes = golden.run(net, codes), 0
    with np.load(tmp_path / "out" / "vectors.npz") as arrays:
        for signal in manifest["signals"]:
            text = (tmp_path / "out" / signal["file"]).read_text()
            assert len(text.splitlines()) == signal["lines"]
            got = np.array(read_hex(text, signal["bits"], signal["signed"])).reshape(signal["shape"])
            assert np.array_equal(got, arrays[signal["npz"]])
            wanted = expected(net, codes, run, signal)
            assert np.array_equal(got.swapaxes(0, 1) if "step" in signal["axes"] else got, wanted)
            spikes += int(got.sum()) if signal["kind"] == "spikes" else 0
        for layer in manifest["layers"]:
            for p in layer["parameters"]:
                text = (tmp_path / "out" / p["file"]).read_text()
                assert read_hex(text, p["bits"], p["signed"]) == arrays[p["npz"]].reshape(-1).tolist()
    assert spikes > 0


def expected(net, codes, run, signal):
    kind, layer = signal["kind"], signal["layer"]
    if kind == "input":
        return codes
    if kind == "scores":
        return run.scores
    return run.outputs[layer] if kind == "spikes" else run.states[layer][kind.removeprefix("state ")]


def test_every_layer_and_parameter_is_there():
    net, codes, _ = handmade(3)
    _, facts = files(net, inputs=codes)
    assert [layer["name"] for layer in facts["layers"]] == [node.name for node in net.nodes]
    for layer in facts["layers"]:
        if layer["type"] == "neuron":
            names = {p["name"] for p in layer["parameters"]}
            assert set(net.node(layer["name"]).params) <= names
            assert layer["spec"] == net.node(layer["name"]).spec.to_dict()


def with_vectors(net, codes):
    vectors = network.TestVectors(inputs=codes, scores=golden.run(net, codes).scores)
    return IntNet(nodes=net.nodes, decoder=net.decoder, steps=net.steps, vectors=vectors)


def test_embedded_vectors_are_the_default():
    net, codes, _ = handmade(1)
    assert files(with_vectors(net, codes)) == files(net, inputs=codes)
    with pytest.raises(DataError, match=r"no test vectors and no inputs were given; pass inputs="):
        files(net)


def test_inputs_that_do_not_fit_are_refused():
    net, codes, _ = handmade(1)
    with pytest.raises(DataError, match="expected"):
        files(net, inputs=codes[..., :1])


def test_the_same_network_gives_the_same_bytes():
    net, codes, _ = handmade(2)
    assert files(net, inputs=codes) == files(net, inputs=codes)
