"""The `.spq` file: what was written is what is read, and nothing else is ever read."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tests.conformance.handmade import net as random_net

from spikequant.law import artifact, atomic, network
from spikequant.law.artifact import content_hash, load, network_hash, save, smallest
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.law.formats import IntFormat
from spikequant.law.network import NETWORK_VERSION, IntNet
from spikequant.law.presets import integrate_and_fire
from spikequant.law.products import Product
from spikequant.law.spec import StateFormat
from spikequant.readers import golden

SEEDS = range(0, 40)


def small():
    """A small network with everything: a current, delays, vectors, metadata."""
    net, codes, _ = random_net(9)
    vectors = network.TestVectors(inputs=codes, scores=golden.run(net, codes).scores)
    return dataclasses.replace(
        net, vectors=vectors, metadata={"plan": {"bits": 4}, "words": ["a", "b"], "rate": 0.5, "none": None}
    )


def tiny():
    """The smallest network, for the tests that try every byte."""
    one = np.array(1, dtype=np.int64)
    spec = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=8)))
    params = {"theta": 3 * one, "reset": 3 * one, "v_load": one, "v_shift": 0 * one}
    product = Product(kind="linear", codes=np.array([[1, -2], [3, 4]]))
    nodes = (
        network.InputNode(name="in", shape=(2,), format=IntFormat(bits=1, signed=False), static=False),
        network.SynapseNode(
            name="fc", shape=(2,), inputs=(network.Edge("in"),), product=product, format=IntFormat(bits=4), bits=4
        ),
        network.NeuronNode(name="n", shape=(2,), inputs=(network.Edge("fc"),), gains=(one,), spec=spec, params=params),
    )
    return IntNet(nodes=nodes, decoder=network.Decoder(name="spike_count", source="n"), steps=2)


@pytest.fixture
def written(tmp_path):
    """A file and the network in it."""
    path = tmp_path / "net.spq"
    save(small(), path)
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_round_trip(seed, tmp_path):
    net, codes, _ = random_net(seed)
    path = tmp_path / "net.spq"
    net.save(path)
    again = IntNet.load(path)
    assert network_hash(again) == network_hash(net)
    wanted, got = golden.run(net, codes), golden.run(again, codes)
    assert np.array_equal(wanted.scores, got.scores)
    for name, states in wanted.states.items():
        assert np.array_equal(wanted.outputs[name], got.outputs[name])
        assert all(np.array_equal(value, got.states[name][state]) for state, value in states.items())
    assert [type(node) for node in again.nodes] == [type(node) for node in net.nodes]
    assert [node.spec for node in again.neurons] == [node.spec for node in net.neurons]


def test_everything_comes_back(written):
    net, again = small(), load(written)
    assert again.metadata == net.metadata
    assert (again.steps, again.target, again.version) == (net.steps, net.target, net.version)
    assert np.array_equal(again.vectors.inputs, net.vectors.inputs)
    assert np.array_equal(golden.run(again, again.vectors.inputs).scores, again.vectors.scores)
    assert all(np.asarray(v).dtype == np.int64 for node in again.neurons for v in node.params.values())


def test_bytes_depend_on_the_network_alone(tmp_path):
    first = None
    for k in range(20):
        path = tmp_path / f"{k}.spq"
        save(small(), path)
        first = first or path.read_bytes()
        assert path.read_bytes() == first
    other = dataclasses.replace(small(), metadata={"none": None, "rate": 0.5, "words": ["a", "b"], "plan": {"bits": 4}})
    save(other, tmp_path / "other.spq")
    assert (tmp_path / "other.spq").read_bytes() == first


def test_two_saves_give_identical_bytes(tmp_path):
    """Also after a file was read and written again."""
    for seed in SEEDS[:10]:
        net, *_ = random_net(seed)
        save(net, tmp_path / "one.spq")
        save(net, tmp_path / "two.spq")
        save(load(tmp_path / "one.spq"), tmp_path / "three.spq")
        content = (tmp_path / "one.spq").read_bytes()
        assert content == (tmp_path / "two.spq").read_bytes() == (tmp_path / "three.spq").read_bytes()


def test_bytes_are_the_same_in_another_process(written, tmp_path):
    program = "from tests.law.test_artifact import small; small().save('again.spq')"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "again.spq").read_bytes() == written.read_bytes()


def test_the_hash_sees_every_change():
    net = small()
    neuron = net.neurons[0]
    param = next(iter(neuron.params))
    changed = [
        dataclasses.replace(net, steps=net.steps + 1),
        dataclasses.replace(net, target="other/1"),
        dataclasses.replace(net, metadata={}),
        dataclasses.replace(net, vectors=None),
        dataclasses.replace(net, decoder=dataclasses.replace(net.decoder, scale=2.0)),
        replace_node(net, neuron, seed=neuron.seed ^ 1),
        replace_node(net, neuron, params={**neuron.params, param: neuron.params[param] + 2**20}),
    ]
    assert len({network_hash(n) for n in (net, *changed)}) == len(changed) + 1


def replace_node(net, node, **changes):
    """The network with one node changed."""
    nodes = tuple(dataclasses.replace(n, **changes) if n is node else n for n in net.nodes)
    return dataclasses.replace(net, nodes=nodes)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        ([-128, 127], "int8"),
        ([128], "int16"),
        ([-32769], "int32"),
        ([2**31], "int64"),
        ([], "int8"),
        ([0.5], "float64"),
    ],
)
def test_tensors_take_the_smallest_type(array, dtype):
    assert smallest(np.array(array, dtype=None if array else np.int64)).dtype == dtype


# -- broken files --------------------------------------------------------------------------


def loads(path, content):
    """Try to read some bytes; every failure must be an `ArtifactError` that names the file."""
    path.write_bytes(content)
    try:
        return load(path)
    except ArtifactError as error:
        return None if str(path) in str(error) else error


def test_truncated_anywhere(tmp_path):
    path, cut = tmp_path / "tiny.spq", tmp_path / "cut.spq"
    save(tiny(), path)
    content = path.read_bytes()
    for size in range(len(content)):
        assert loads(cut, content[:size]) is None, size


def test_longer_than_written(written, tmp_path):
    assert loads(tmp_path / "long.spq", written.read_bytes() + b"\0") is None
    assert loads(tmp_path / "twice.spq", written.read_bytes() * 2) is None


@pytest.mark.parametrize("flip", [0xFF])
def test_every_flipped_byte_is_found(tmp_path, flip):
    path = tmp_path / "tiny.spq"
    save(tiny(), path)
    content = path.read_bytes()
    for k in range(len(content)):
        assert loads(path, content[:k] + bytes([content[k] ^ flip]) + content[k + 1 :]) is None, k


def test_flipped_bytes_of_a_larger_file(written, tmp_path):
    content, generator = written.read_bytes(), np.random.default_rng(0)
    for k in generator.integers(0, len(content), 300):
        flipped = bytes([content[k] ^ int(generator.integers(1, 256))])
        assert loads(tmp_path / "flipped.spq", content[:k] + flipped + content[k + 1 :]) is None, k


def test_random_bytes(tmp_path):
    generator = np.random.default_rng(0)
    for size in (0, 1, 7, 8, 9, 100, 5000):
        assert loads(tmp_path / "noise.spq", generator.bytes(size)) is None
    huge = struct.pack("<Q", 2**62) + b"{}"
    assert loads(tmp_path / "huge.spq", huge) is None
    deep = b'{"__metadata__":' + b"[" * 20_000
    assert loads(tmp_path / "deep.spq", struct.pack("<Q", len(deep)) + deep) is None


def rewritten(source, target, change, *, tensors=None):
    """A file whose record was changed and hashed again, as a careful forger would."""
    with open(source, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        outer = json.loads(json.loads(file.read(length))["__metadata__"]["spikequant"])
    kept = load_file(source) | (tensors or {})
    network = outer["network"]
    change(network)
    text = json.dumps(network, sort_keys=True, separators=(",", ":"))
    header = {"spikequant": json.dumps({"network": network, "sha256": content_hash(text, kept)})}
    save_file(kept, target, metadata=header)
    return target


def neuron_record(record):
    return next(node for node in record["nodes"] if node["type"] == "neuron")


FORGERIES = {
    "version": (
        lambda r: r.update(version=NETWORK_VERSION + 1),
        f"version {NETWORK_VERSION + 1}; this release reads version {NETWORK_VERSION}",
    ),
    "unknown field": (lambda r: r.update(cookies=1), "unknown field 'cookies' in the header"),
    "missing field": (lambda r: r.pop("steps"), "the field 'steps' is missing in the header"),
    "node type": (
        lambda r: r["nodes"][0].update(type="oracle"),
        "unknown node type 'oracle'; expected one of input, synapse",
    ),
    "unknown node field": (lambda r: r["nodes"][0].update(colour=1), "InputNode: the field 'colour' is unknown"),
    "missing node field": (lambda r: r["nodes"][0].pop("static"), "InputNode: the field 'static' is missing"),
    "spec version": (
        lambda r: neuron_record(r)["spec"].update(version=9),
        "neuron spec: version 9, this release reads 1",
    ),
    "spec field": (lambda r: neuron_record(r)["spec"].update(tau=1), "NeuronSpec: the field 'tau' is unknown"),
    "spec phase": (lambda r: neuron_record(r)["spec"].update(order=["jump"]), "neuron spec: unknown phase 'jump'"),
    "edge": (
        lambda r: neuron_record(r)["inputs"][0].update(source="nowhere"),
        "its input 'nowhere' is not in the network",
    ),
    "tensor": (
        lambda r: neuron_record(r).update(scale={"tensor": "nothing"}),
        "'nothing' is no tensor of the file",
    ),
    "decoder": (lambda r: r["decoder"].update(name="vote"), "decoder 'vote'; expected one of spike_count"),
    "wide format": (
        lambda r: r["nodes"][0]["format"].update(bits=65),
        "format/bits: 65; expected a whole number from 1 to 64",
    ),
    "shape": (lambda r: r["nodes"][0].update(shape=[0]), "shape/0: 0; expected a whole number from 1"),
    "no list": (lambda r: r.update(nodes=5), "nodes: 5; expected a list of 1 to 4096 nodes"),
    "no record": (lambda r: r.update(decoder="spike_count"), "decoder: 'spike_count'; expected an object (Decoder)"),
    "no steps": (lambda r: r.update(steps="4"), "steps: '4'; expected a whole number from 1 to 1048576"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_record_with_a_valid_hash_is_still_checked(name, written, tmp_path):
    change, text = FORGERIES[name]
    with pytest.raises(ArtifactError) as caught:
        load(rewritten(written, tmp_path / "forged.spq", change))
    assert text in str(caught.value)
    assert str(tmp_path / "forged.spq") in str(caught.value)


def test_widths_are_proven_again_on_load(written, tmp_path):
    """A sum that no 64-bit reader could carry is refused, whatever its hash says."""

    def wide(record):
        neuron_record(record)["gains"][0] = 2**61

    gain = neuron_record(json.loads(header_of(written)["spikequant"])["network"])["gains"][0]["tensor"]
    with pytest.raises(ArtifactError, match="more than the 63 bits of the golden model"):
        load(rewritten(written, tmp_path / "wide.spq", lambda _: None, tensors={gain: np.array(2**61)}))
    with pytest.raises(ArtifactError, match="belongs to nothing"):
        load(rewritten(written, tmp_path / "wide.spq", wide))


def header_of(path):
    """The metadata of a file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))["__metadata__"]


def test_the_header_holds_one_string(written):
    header = header_of(written)
    assert list(header) == ["spikequant"]
    assert json.loads(header["spikequant"])["sha256"] == network_hash(small())


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", "{}", '{"sha256":""}', '{"network":{}}', "{", '{"network":NaN,"sha256":""}']
)
def test_a_header_of_another_form(text, tmp_path):
    save_file({}, tmp_path / "odd.spq", metadata={"spikequant": text})
    with pytest.raises(ArtifactError, match=r"odd\.spq"):
        load(tmp_path / "odd.spq")


def test_the_hash_tells_a_scalar_from_a_vector_of_one():
    one, row = np.array(1, np.int8), np.array([1], np.int8)
    assert content_hash("", {"a": one}) != content_hash("", {"a": row})


def test_a_tensor_that_belongs_to_nothing(written, tmp_path):
    path = rewritten(written, tmp_path / "more.spq", lambda _: None, tensors={"stowaway": np.zeros(3, np.int8)})
    with pytest.raises(ArtifactError, match="the tensor 'stowaway' belongs to nothing in the header"):
        load(path)
    assert network_hash(load(rewritten(written, tmp_path / "same.spq", lambda _: None))) == network_hash(load(written))


def test_another_safetensors_file(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="is a safetensors file, but not a spikequant network"):
        load(tmp_path / "model.safetensors")


def test_a_changed_tensor_is_named_as_a_change(written, tmp_path):
    content = bytearray(written.read_bytes())
    content[-1] ^= 1
    (tmp_path / "changed.spq").write_bytes(content)
    with pytest.raises(
        ArtifactError, match="it was changed after it was written: its SHA-256 does not match its content"
    ):
        load(tmp_path / "changed.spq")


def test_no_file(tmp_path):
    for path in (tmp_path / "nothing.spq", tmp_path):
        with pytest.raises(ArtifactError, match=r"is not a file; expected a network written by IntNet.save \(.spq\)"):
            load(path)


# -- writing -------------------------------------------------------------------------------


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"cannot write .*net.spq: .*; nothing was changed. Choose a folder that exists"
    ):
        save(small(), tmp_path / "nowhere" / "net.spq")
    assert not (tmp_path / "nowhere").exists()


def test_an_unwritable_folder_leaves_the_older_file_whole(written, monkeypatch):
    before = written.read_bytes()

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("spikequant.law.atomic.tempfile.mkstemp", refuse)  # root may write anywhere
    with pytest.raises(ArtifactError, match="cannot write .*Permission denied"):
        save(random_net(3)[0], written)
    assert written.read_bytes() == before


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_a_failure_half_way_leaves_the_older_file_whole(where, written, monkeypatch):
    before = written.read_bytes()

    def full(*_, **__):
        raise SafetensorError("no space") if where == "save_file" else OSError(errno.ENOSPC, "No space left on device")

    if where == "save_file":
        monkeypatch.setattr(artifact, "save_file", full)
    else:
        monkeypatch.setattr(atomic.os, where, full)
    with pytest.raises(ArtifactError, match=r"cannot write .*nothing was changed"):
        save(random_net(3)[0], written)
    monkeypatch.undo()
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == ["net.spq"]


def test_a_file_is_replaced_in_one_go(written):
    save(random_net(3)[0], written)
    assert network_hash(load(written)) == network_hash(random_net(3)[0])
    assert [p.name for p in written.parent.iterdir()] == ["net.spq"]


def test_metadata_must_be_plain(tmp_path):
    for metadata in ({"rate": float("nan")}, {"thing": object()}):
        with pytest.raises(ArtifactError, match="metadata or scales cannot be written as JSON"):
            save(dataclasses.replace(small(), metadata=metadata), tmp_path / "net.spq")
    assert not (tmp_path / "net.spq").exists()


def test_metadata_that_looks_like_a_tensor_stays_what_it_is(tmp_path):
    net = dataclasses.replace(small(), metadata={"plan": {"tensor": "weight"}})
    save(net, tmp_path / "net.spq")
    assert load(tmp_path / "net.spq").metadata == {"plan": {"tensor": "weight"}}


def test_nothing_is_executed_on_load(written):
    """No pickle, no import by name, no subprocess: the audit hooks of Python would see it."""
    program = (
        "import sys, spikequant.law.artifact as a\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, _: seen.append(event))\n"
        f"a.load({str(written)!r})\n"
        "bad = {'exec', 'compile', 'pickle.find_class', 'subprocess.Popen', 'os.system', 'socket.connect'}\n"
        "assert not bad & set(seen), bad & set(seen)\n"
    )
    root = Path(__file__).resolve().parents[2]
    for flags in ([], ["-O"]):
        subprocess.run(
            [sys.executable, *flags, "-c", program], env={**os.environ, "PYTHONPATH": str(root / "src")}, check=True
        )


def test_errors_are_one_family():
    assert issubclass(ArtifactError, SpikequantError)


def test_what_no_loader_takes_is_not_written(tmp_path):
    net = tiny()
    with pytest.raises(ArtifactError, match="nodes/n/scale: holds NaN or infinite values"):
        save(replace_node(net, net.neurons[0], scale=np.array([np.nan, 1.0])), tmp_path / "nan.spq")
    assert not (tmp_path / "nan.spq").exists()
    whole = replace_node(net, net.input, scale=2)
    save(whole, tmp_path / "whole.spq")
    assert network_hash(load(tmp_path / "whole.spq")) == network_hash(whole)


def test_tokens_with_values_per_feature_are_no_spread(tmp_path):
    """300 tokens of 400 features: parameters per feature, sums per feature."""
    one = np.ones(400, dtype=np.int64)
    spec = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=8)))
    params = {"theta": 3 * one, "reset": 3 * one, "v_load": one, "v_shift": 0 * one}
    product = Product(kind="linear", codes=np.ones((400, 2), dtype=np.int64))
    nodes = (
        network.InputNode(name="in", shape=(300, 2), format=IntFormat(bits=1, signed=False), static=False),
        network.SynapseNode(
            name="fc", shape=(300, 400), inputs=(network.Edge("in"),), product=product, format=IntFormat(bits=4), bits=4
        ),
        network.NeuronNode(
            name="n", shape=(300, 400), inputs=(network.Edge("fc"),), gains=(one,), spec=spec, params=params
        ),
    )
    net = IntNet(nodes=nodes, decoder=network.Decoder(name="spike_count", source="n"), steps=2)
    save(net, tmp_path / "tokens.spq")
    assert network_hash(load(tmp_path / "tokens.spq")) == network_hash(net)


def test_arrays_that_do_not_lie_in_order_come_back(tmp_path):
    """A view of transposed or repeated data has the same values; a file holds values."""
    net = small()
    codes = net.vectors.inputs
    scattered = np.moveaxis(np.moveaxis(codes, 0, -1).copy(), -1, 0)
    assert not scattered.flags.c_contiguous
    moved = dataclasses.replace(net, vectors=dataclasses.replace(net.vectors, inputs=scattered))
    save(moved, tmp_path / "net.spq")
    assert np.array_equal(load(tmp_path / "net.spq").vectors.inputs, codes)
    assert network_hash(moved) == network_hash(net)
