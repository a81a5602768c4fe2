"""The ONNX export: equal to the golden model in every form, integers only, refusals, metadata, packed weights."""

from __future__ import annotations

import dataclasses
import importlib
import json

import numpy as np
import pytest
from tests.conformance.graphs import graph
from tests.conformance.handmade import net as handmade

import spikequant as sq
from spikequant.law.artifact import network_hash
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, SynapseNode
from spikequant.law.products import Product
from spikequant.readers import golden, onnx_
from spikequant.readers.compared import compare
from spikequant.readers.onnx_ import graph as building
from spikequant.readers.onnx_.check import check_model, graphs, prove
from spikequant.readers.onnx_.sums import byte_digits

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def ints(*values):
    return np.array(values if len(values) != 1 else values[0], dtype=np.int64)


@pytest.mark.parametrize("make", [handmade, graph])
def test_both_forms_with_and_without_optimisation_equal_the_golden_model(make):
    spikes = 0
    for seed in range(12):
        net, codes, _ = make(seed)
        models = onnx_.build(net)
        for model in models:
            check_model(model)
        reports = prove(models, codes)
        wanted = [f"{form}, optimisation {level}" for form in ("step", "sequence") for level in ("off", "on")]
        assert [r.reader for r in reports] == wanted
        spikes += reports[0].spikes
    assert spikes > 1000


@pytest.mark.parametrize(("opset", "packed"), [(18, False), (21, True), (25, True), (25, False)])
def test_newer_opsets_and_packed_weights(opset, packed):
    for seed in range(6):
        net, codes, _ = handmade(seed)
        models = onnx_.build(net, opset=opset, packed=packed)
        for model in models:
            check_model(model)
            assert model.proto.opset_import[0].version == opset
        prove(models, codes)


def small(codes, *, bits=8, low_bits=8, signed=True):
    """One linear layer of extreme codes before the neuron of another network."""
    product = Product(kind="linear", codes=np.asarray(codes, dtype=np.int64))
    neuron = handmade(3)[0].neurons[0]
    shape = (len(codes),)
    params = {k: v.reshape(-1)[:1].reshape(()) if v.ndim else v for k, v in neuron.params.items()}
    source, fmt = IntFormat(bits=bits, signed=signed), IntFormat(bits=low_bits)
    nodes = (
        InputNode(name="input", shape=(product.codes.shape[1],), format=source, static=False),
        SynapseNode(name="fc", shape=shape, inputs=(Edge("input"),), product=product, format=fmt, bits=low_bits),
        dataclasses.replace(neuron, name="n", shape=shape, inputs=(Edge("fc"),), gains=(ints(1),), params=params),
    )
    return IntNet(nodes=nodes, decoder=Decoder(name="spike_count", source="n"), steps=6)


def operators(model):
    return [node.op_type for inner in graphs(model.proto.graph) for node in inner.node]


@pytest.mark.parametrize(
    ("bits", "signed", "code_bits", "word", "times"),
    [
        (1, False, 2, "MatMulInteger", 1),
        (7, False, 8, "MatMulInteger", 1),
        (7, True, 8, "MatMulInteger", 1),
        (7, False, 15, "MatMulInteger", 2),
        (7, False, 16, "MatMulInteger", 3),
        (8, False, 8, "MatMul", 1),  # two products of 8 bits each do not fit the 16 bits of old kernels
        (16, True, 16, "MatMul", 1),
    ],
)
def test_extreme_codes_and_inputs_choose_exact_operators(bits, signed, code_bits, word, times):
    fmt, source = IntFormat(bits=code_bits), IntFormat(bits=bits, signed=signed)
    generator = np.random.default_rng(bits + code_bits)
    codes = generator.choice([fmt.min, fmt.max], (5, 40))
    codes[0], codes[1] = fmt.max, fmt.min
    net = small(codes, bits=bits, signed=signed, low_bits=code_bits)
    x = generator.choice([source.min, source.max], (9, 3, 40))
    x[0], x[1] = source.max, source.min
    for packed in (False, True):
        models = onnx_.build(net, packed=packed, opset=25 if packed else 17)
        assert operators(models[0]).count(word) == times
        assert not {"MatMul", "MatMulInteger"} - {word} & set(operators(models[0]))
        prove(models, ints(x))


def test_sums_beyond_32_bits():
    codes = np.full((2, 60), 2**15 - 1)
    net = small(codes, bits=24, low_bits=16)
    top = IntFormat(bits=24).max
    models = onnx_.build(net)
    prove(models, ints(np.full((4, 2, 60), top)))
    prove(models, ints(np.full((4, 2, 60), -top)))


def test_codes_are_sums_of_bytes():
    codes = ints(np.arange(-(2**15), 2**15).reshape(4, -1))
    digits = byte_digits(codes)
    assert all(d.min() >= -128 and d.max() <= 127 for _, d in digits)
    assert np.array_equal(sum(f * d for f, d in digits), codes)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("size", range(1, 18))
def test_packed_bytes_are_onnxs(bits, size):
    import onnx

    fmt = IntFormat(bits=bits)
    codes = np.random.default_rng(size).integers(fmt.min, fmt.max + 1, size)
    kind = getattr(onnx.TensorProto, f"INT{bits}")
    tensor = onnx.helper.make_tensor("w", kind, [size], building.packed(codes, bits), raw=True)
    assert np.array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int64), codes)


def test_packed_weights_are_smaller():
    codes = np.random.default_rng(0).integers(-2, 2, (64, 512))
    net = small(codes, bits=1, signed=False, low_bits=2)
    plain, two = (len(onnx_.build(net, opset=25, packed=p)[0].data) for p in (False, True))
    four = len(onnx_.build(net, opset=21, packed=True)[0].data)
    assert plain - four == pytest.approx(codes.size / 2, abs=200)
    assert plain - two == pytest.approx(codes.size * 3 / 4, abs=200)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_any_batch_and_any_number_of_steps(batch, steps):
    net, _, _ = handmade(3)
    assert not net.input.static
    fmt = net.input.format
    x = np.random.default_rng(steps).integers(fmt.min, fmt.max + 1, (steps, batch, *net.input.shape))
    prove(onnx_.build(net), ints(x))


def test_sample_numbers_reach_the_noise():
    for seed in range(40):
        net, codes, _ = handmade(seed)
        model = onnx_.build(net)[1]
        if not model.step.noise:
            continue
        opened = onnx_.session(model)
        first, later = (onnx_.trace(model, opened, codes, first_sample=k) for k in (0, 9))
        wanted = golden.run(net, codes, first_sample=9)
        assert compare("onnx", net, later, wanted, wanted.scores).differences == 0
        if any((first.states[n][s] != later.states[n][s]).any() for n in first.states for s in first.states[n]):
            return
    raise AssertionError("no network whose noise depends on the sample")


def test_a_model_says_where_it_comes_from(tmp_path):
    net, codes, _ = handmade(3)
    done = sq.export(net, tmp_path, format="onnx", inputs=codes)
    assert set(done.files) == {"step.onnx", "sequence.onnx", "vectors.npz", "README.md", "manifest.json"}
    assert all(run["differences"] == 0 and run["spikes"] > 0 for run in done.facts["check"]["runs"].values())
    opened = ort.InferenceSession(str(tmp_path / "sequence.onnx"), providers=["CPUExecutionProvider"])
    facts = json.loads(opened.get_modelmeta().custom_metadata_map["spikequant"])
    assert facts["network"] == network_hash(net)
    assert (facts["target"], facts["version"], facts["form"]) == (net.target, 1, "sequence")
    assert facts["decoder"]["scale"] == net.decoder.scale
    assert [layer["name"] for layer in facts["layers"]] == [n.name for n in net.neurons]
    stored = np.load(tmp_path / "vectors.npz")
    (scores,) = opened.run(["scores"], {e.name: stored[e.name] for e in opened.get_inputs()})
    assert np.array_equal(scores, golden.run(net, codes).scores)


def test_two_exports_have_the_same_bytes(tmp_path):
    net, codes, _ = handmade(5)
    for name in "ab":
        sq.export(net, tmp_path / name, format="onnx", inputs=codes, packed=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_without_a_trace_only_scores_leave(tmp_path):
    net, codes, _ = handmade(3)
    sq.export(net, tmp_path, format="onnx", inputs=codes, trace=False)
    opened = ort.InferenceSession(str(tmp_path / "sequence.onnx"), providers=["CPUExecutionProvider"])
    assert [o.name for o in opened.get_outputs()] == ["scores"]


def test_a_network_without_vectors_is_checked_with_noise(tmp_path):
    net, _, _ = handmade(3)
    assert net.vectors is None
    done = sq.export(net, tmp_path, format="onnx")
    assert done.facts["check"]["runs"]["step, optimisation off"]["neuron_steps"] > 0


def test_a_wrong_model_is_not_written(tmp_path, monkeypatch):
    net, codes, _ = handmade(3)
    monkeypatch.setattr(building.Graph, "maximum", lambda self, a, b: a)
    monkeypatch.setattr(building.Graph, "clip", lambda self, a, low, high: a)
    with pytest.raises(sq.MismatchError, match=r"does not give the golden model's integers \(step, optimisation off: "):
        sq.export(net, tmp_path / "out", format="onnx", inputs=codes)
    assert not (tmp_path / "out").exists()


def test_refusals(tmp_path):
    net, _, _ = handmade(3)
    for opset in (16, 26, "17", True):
        with pytest.raises(sq.Unsupported, match=rf"opset = {opset!r}; expected 17 to 25"):
            sq.export(net, tmp_path, format="onnx", opset=opset)
    with pytest.raises(sq.Unsupported, match=r"packed weights need opset 21 \(int4\) or 25 .*, got opset 17"):
        sq.export(net, tmp_path, format="onnx", opset=17, packed=True)
    empty = IntNet(
        nodes=(InputNode(name="input", shape=(3,), format=IntFormat(bits=2), static=False),),
        decoder=Decoder(name="spike_count", source="input"),
        steps=3,
    )
    with pytest.raises(sq.Unsupported, match="the network has no neurons, so there is no step to export"):
        sq.export(empty, tmp_path, format="onnx")


def test_a_missing_library_is_named(monkeypatch):
    net, _, _ = handmade(3)
    real = importlib.import_module

    def missing(name, *rest):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(building.importlib, "import_module", missing)
    with pytest.raises(sq.Unsupported, match=r"needs the package onnx, .*pip install 'spikequant\[onnx\]'"):
        sq.readers.onnx_.build(net)


def test_without_a_runtime_the_export_says_that_nothing_ran(tmp_path, monkeypatch):
    net, codes, _ = handmade(3)
    monkeypatch.setattr(onnx_, "runtime_missing", lambda: "the package onnxruntime is not installed")
    done = sq.export(net, tmp_path, format="onnx", inputs=codes)
    assert done.facts["check"]["runtime"] == "not run: the package onnxruntime is not installed"
