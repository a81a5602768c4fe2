"""lava-dl's HDF5 networks: its own expected arrays, a plain re-statement of its rules, and damaged files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import spikequant as sq
from spikequant.law.errors import DataError, SpikequantError, Unsupported
from spikequant.readers import golden
from spikequant.readers.native import find_compiler

h5py = pytest.importorskip("h5py")

FOLDER = Path(os.environ.get("SPIKEQUANT_DATA", "data")) / "reference-nets" / "lava_dl"
here = pytest.mark.skipif(not (FOLDER / "tiny.net").is_file(), reason="lava-dl's reference networks are not here")


def expected(name):
    """``[T, C, H, W]`` from lava-dl's ``[1, C, H, W, T]``; its step 0 comes before the network starts."""
    return np.load(FOLDER / f"tinynet_{name}.npy")[0].transpose(3, 0, 1, 2).astype(np.int64)[1:]


@pytest.fixture
def bias_mantissas():
    return np.load(FOLDER / "tinynet_input_bias.npy").transpose(2, 1, 0).astype(np.int64)[None]


@here
def test_tiny_net_gives_its_stored_arrays(bias_mantissas):
    net = sq.from_lava(FOLDER / "tiny.net", steps=15, timing="aligned")
    run = golden.run(net, bias_mantissas)
    for layer, name in (("layer0", "input"), ("layer1", "layer1"), ("layer2", "output")):
        assert np.array_equal(run.outputs[layer][:, 0], expected(name)), name
        assert expected(name).sum() > 50
    assert np.array_equal(run.states["layer1"]["i"][:, 0], 64 * expected("current"))
    kernel, bias = (np.load(FOLDER / f"tinynet_layer1_{name}.npy") for name in ("kernel", "bias"))
    codes = net.node("layer1_weights").product.codes
    assert np.array_equal(codes[:, :, ::-1, ::-1].transpose(0, 3, 2, 1), kernel)
    assert np.array_equal(net.node("layer1").params["v_bias"].reshape(-1), 64 * bias)
    assert net.metadata["input"]["transform"] == {"weight": 36, "bias": 34}


@here
def test_each_layer_alone_gives_its_stored_spikes():
    for first, source, wanted in ((1, "input", "layer1"), (2, "layer1", "output")):
        net = sq.from_lava(FOLDER / "tiny.net", steps=15, first_layer=first, layers=first + 1)
        assert np.array_equal(
            golden.run(net, expected(source)[:, None]).outputs[f"layer{first}"][:, 0], expected(wanted)
        )


@here
@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("timing", ["aligned", "lava", "slayer"])
def test_c_equals_golden(timing, tmp_path):
    net = sq.from_lava(FOLDER / "tiny.net", steps=15, timing=timing, first_layer=1)
    spikes = expected("input")[:, None]
    wanted = golden.run(net, spikes)
    found = sq.compile(net).trace(spikes)
    assert np.array_equal(found.scores, wanted.scores)
    assert wanted.scores.sum() > 0
    for name, states in wanted.states.items():
        assert np.array_equal(found.outputs[name], wanted.outputs[name])
        assert all(np.array_equal(found.states[name][state], value) for state, value in states.items())
    net.save(tmp_path / "tiny.spq")
    assert np.array_equal(golden.run(sq.IntNet.load(tmp_path / "tiny.spq"), spikes).scores, wanted.scores)


@here
def test_the_tutorial_network_reads_mnist():
    """Encoded as its tutorial does: v += pixel / 255, a spike above 1, v = 0; 20 steps, the first without input."""
    net = sq.from_lava(FOLDER / "mnist_784_128_64_10.net", steps=20, timing="aligned")
    image, label = next(iter(sq.data.load("mnist").batches("test", batch_size=300)))
    pixels = np.rint(np.asarray(image) * 255).astype(np.int64).reshape(len(label), -1)
    spikes, v = np.zeros((20, *pixels.shape), np.int64), np.zeros_like(pixels)
    for t in range(1, 20):
        v += pixels
        spikes[t] = v > 255
        v[v > 255] = 0
    scores = golden.run(net, spikes, trace=False).scores
    assert (scores.argmax(1) == np.asarray(label)).mean() > 0.93  # 95.3 % of all 10,000


# -- files of our own ----------------------------------------------------------------------


def neuron(**changes):
    return {
        "type": b"CUBA",
        "iDecay": 1000,
        "vDecay": 300,
        "vThMant": 40,
        "refDelay": 1,
        "gradedSpike": False,
        **changes,
    }


def write(path, *layers):
    with h5py.File(path, "w") as file:
        for number, fields in enumerate(layers):
            group = file.create_group(f"layer/{number}")
            for name, value in fields.items():
                if isinstance(value, dict):
                    for key, constant in value.items():
                        group[f"{name}/{key}"] = constant
                else:
                    group[name] = value
    return path


def dense(inputs, outputs, seed=0, **changes):
    weight = np.random.default_rng(seed).integers(-40, 60, (outputs, inputs)).astype(np.float32)
    return {"type": np.array([b"dense"]), "shape": np.array([outputs]), "weight": weight, "neuron": neuron(), **changes}


def spikes_of(steps=30, batch=3, features=12, seed=1):
    return (np.random.default_rng(seed).random((steps, batch, features)) < 0.3).astype(np.int64)


def toward_zero(value, factor):
    return np.sign(value) * ((np.abs(value) * factor) >> 12)


def lava(layers, x, timing):
    """Lava's fixed-point LIF, step by step, with delays of outputs; the train of the last layer."""
    for layer in layers:
        weight, bias = layer["weight"].astype(np.int64), np.asarray(layer.get("bias", 0)).astype(np.int64)
        u = v = np.zeros((x.shape[1], len(weight)), np.int64)
        if timing == "lava":
            x = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
        train = []
        for spikes in x:
            u = toward_zero(u, 4096 - layer["neuron"]["iDecay"]) + 64 * (spikes @ weight.T)
            v = np.clip(toward_zero(v, 4096 - layer["neuron"]["vDecay"]) + u + 64 * bias, -(2**23) + 1, 2**23 - 1)
            fired = v > 64 * layer["neuron"]["vThMant"]
            v = np.where(fired, 0, v)
            train.append(fired.astype(np.int64))
        late = np.asarray(layer.get("delay", 0)).astype(int) + (timing == "slayer") + np.zeros(len(weight), int)
        out = np.stack(train)
        x = np.zeros_like(out)
        for k, steps in enumerate(late):
            x[steps:, :, k] = out[: len(out) - steps, :, k]
    return x


@pytest.mark.parametrize("timing", ["aligned", "lava", "slayer"])
@pytest.mark.parametrize("delays", [False, True])
def test_timings_biases_and_delays(timing, delays, tmp_path):
    layers = [
        dense(12, 8, bias=np.arange(-3.0, 5.0), neuron=neuron(vThMant=90)),
        dense(8, 6, seed=4, bias=np.full(6, 4.0)),
    ]
    if delays:
        layers[0]["delay"] = np.array([0, 1, 2, 2, 5, 0, 1, 3], np.float32)
        layers[1]["delay"] = np.full(6, 2, np.float32)
    net = sq.from_lava(write(tmp_path / "a.net", *layers), steps=30, timing=timing)
    x = spikes_of()
    wanted = lava(layers, x, timing).sum(0)
    assert np.array_equal(golden.run(net, x).scores, wanted)
    assert wanted.sum() > 20
    if find_compiler() is not None:
        assert np.array_equal(sq.compile(net).run(x, encoded=True), wanted)


def test_the_timings_differ(tmp_path):
    path = write(tmp_path / "a.net", dense(12, 8, bias=np.arange(-3.0, 5.0)), dense(8, 6, bias=np.full(6, 4.0)))
    x = spikes_of()
    nets = [sq.from_lava(path, steps=30, timing=t) for t in ("aligned", "lava", "slayer")]
    found = [golden.run(net, x).outputs["layer1"] for net in nets]
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


def test_a_pooling_layer_is_a_sum_with_one_weight(tmp_path):
    conv = {
        "type": b"conv", "shape": [3, 4, 4], "weight": np.ones((3, 2, 3, 3, 1), np.float32) * 9, "neuron": neuron(),
        "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "kernelSize": [3, 3],
    }  # fmt: skip
    pool = {
        "type": b"pool", "shape": [3, 2, 2], "weight": np.full((1, 1, 1, 1, 1), 50.0), "neuron": neuron(),
        "kernelSize": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1],
    }  # fmt: skip
    path = write(tmp_path / "a.net", conv, pool, {"type": b"flatten", "shape": [12, 1, 1]}, dense(12, 5))
    with pytest.raises(Unsupported, match="input_shape"):
        sq.from_lava(path, steps=10, timing="aligned")
    net = sq.from_lava(path, steps=10, timing="aligned", input_shape=(2, 4, 4))
    run = golden.run(net, spikes_of(10, 2, 32).reshape(10, 2, 2, 4, 4))
    pooled = run.outputs["layer0"].reshape(10, 2, 3, 2, 2, 2, 2).sum((4, 6))
    assert np.array_equal(run.states["layer1"]["i"][0], 64 * 50 * pooled[0])
    assert run.outputs["layer1"].sum() > 0
    assert run.scores.sum() > 0


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"type": b"concat"}, Unsupported, "concat.*netx refuses it"),
        ({"type": b"average"}, Unsupported, "own export of it fails"),
        ({"type": b"dense_rec"}, Unsupported, "expected one of input, dense"),
        ({"neuron": neuron(type=b"SDNN")}, Unsupported, "layer 0.neuron: the type 'SDNN'"),
        ({"neuron": neuron(refDelay=3)}, Unsupported, "refDelay: is not 1"),
        ({"neuron": neuron(wgtExp=2)}, Unsupported, "wgtExp"),
        ({"neuron": neuron(gradedSpike=True)}, Unsupported, "gradedSpike"),
        ({"neuron": neuron(iDecay=5000)}, DataError, "iDecay: 5000; Loihi takes 0 to 4096"),
        ({"neuron": {"type": b"CUBA", "iDecay": 1}}, DataError, "lacks iDecay, vDecay or vThMant"),
        ({"weight": np.full((8, 12), 0.5)}, DataError, "fractions.*pre_hook_fx"),
        ({"weight": np.full((8, 12), np.nan)}, DataError, "NaN"),
        ({"weight": np.full((8, 12), 300.0)}, Unsupported, "Loihi's go from -256 to 255"),
        ({"weight": np.zeros(95)}, Unsupported, "size of its input"),
        ({"weight": np.array([b"x"])}, DataError, "expected whole numbers"),
        ({"bias": np.zeros(3)}, DataError, "3 biases for 8 channels"),
        ({"bias": np.full(8, 5000.0)}, DataError, "13 bits"),
        ({"delay": np.full(8, 63.0)}, DataError, "0 to 62"),
        ({"delay": np.arange(8.0)}, Unsupported, "delays of the last layer differ"),
        ({"shape": np.array([2**40])}, DataError, "huge values"),
        ({"shape": np.array([0])}, DataError, "the shape"),
        ({"surprise": 1}, Unsupported, "the field 'surprise' is not understood"),
    ],
)
def test_what_is_refused(changes, kind, message, tmp_path):
    path = write(tmp_path / "a.net", {**dense(12, 8), **changes})
    with pytest.raises(kind, match=message):
        sq.from_lava(path, steps=5)


def test_the_choice_that_the_file_does_not_make(tmp_path):
    path = write(tmp_path / "a.net", dense(12, 8), dense(8, 6))
    with pytest.raises(Unsupported, match=r"does not say when a spike reaches the next layer.*'lava'"):
        sq.from_lava(path, steps=5)
    with pytest.raises(Unsupported, match="timing='late'"):
        sq.from_lava(path, steps=5, timing="late")
    with pytest.raises(DataError, match="has the layers 0 to 1"):
        sq.from_lava(path, steps=5, first_layer=2)


def test_hostile_files(tmp_path):
    bomb = tmp_path / "bomb.net"
    with h5py.File(bomb, "w") as file:
        group = file.create_group("layer/0")
        group["type"], group["shape"] = b"dense", [8]
        group.create_dataset("weight", shape=(2**40,), dtype="f4", chunks=(1024,), fillvalue=1.0, compression="gzip")
    linked = tmp_path / "linked.net"
    with h5py.File(linked, "w") as file:
        file["layer/0"] = h5py.ExternalLink(str(bomb), "/layer/0")
    round_trip = tmp_path / "round.net"
    with h5py.File(round_trip, "w") as file:
        file["layer"] = h5py.SoftLink("/")
    for path, message in ((bomb, "too many values"), (linked, "a link out of its place"), (round_trip, "a link out")):
        with pytest.raises(DataError, match=message):
            sq.from_lava(path, steps=5)
    with pytest.raises(DataError, match="there is no such file"):
        sq.from_lava(tmp_path / "no.net", steps=5)


def test_damaged_files_raise_our_errors_only(tmp_path):
    path = write(tmp_path / "a.net", dense(12, 8))
    whole, dice = path.read_bytes(), np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(150):
        bad = bytearray(whole[: dice.integers(1, len(whole))] if trial % 3 == 0 else whole)
        for place in dice.integers(0, len(bad), 8):
            bad[place] = dice.integers(0, 256)
        path.write_bytes(bytes(bad))
        try:
            sq.from_lava(path, steps=5)
            outcomes["read"] += 1
        except SpikequantError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 30
