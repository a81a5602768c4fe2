"""Export to NIR: the stock package reads the graph, the integers come back exactly, the graph alone still works."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from tests.conformance.handmade import net as handmade
from tests.readers.nir.networks import MAKERS, lowered

import spikequant as sq
from spikequant.law.artifact import network_hash
from spikequant.law.network import Decoder, Edge, JoinNode, MatmulNode, PoolNode, ReshapeNode
from spikequant.law.presets import adaptive_lif, multi_spike_if
from spikequant.law.spec import Leak, StateFormat
from spikequant.readers import golden
from spikequant.readers.nir_ import plain_graph

h5py = pytest.importorskip("h5py")


@cache
def made(kind, weight_bits=8, membrane_bits=16):
    return lowered(kind, weight_bits=weight_bits, membrane_bits=membrane_bits)


@pytest.fixture
def written(tmp_path):
    """``kind -> (network, input, path of the file, what export says)``."""

    def write(kind, **bits):
        net, x = made(kind, **bits)
        done = sq.export(net, tmp_path / "out", format="nir")
        return net, x, tmp_path / "out" / "network.nir", done

    return write


def real_input(net, x):
    """What the plain graph is shown: data over time."""
    return x.expand(net.steps, *x.shape) if net.input.static else x


def float_run(path, net, x, names):
    """Spikes of every layer and the output train of the plain graph."""
    model, seen = sq.from_nir(path), {}
    for name, layer in model.named_modules():
        if isinstance(layer, sq.nn.NeuronLayer):
            layer.register_forward_hook(lambda _m, _i, out, name=name: seen.setdefault(name, []).append(out))
    with torch.no_grad():
        train = model(real_input(net, x))
    return {
        n: torch.stack(seen[names[n].replace(".", "_")]).numpy() for n in (m.name for m in net.neurons)
    }, train.numpy()


# -- the plain graph ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_stock_nir_reads_it(kind, written):
    nir = pytest.importorskip("nir")
    net, _, path, done = written(kind)
    graph = nir.read(path)  # with its type check
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds.count("Input") == kinds.count("Output") == 1
    assert sum(k in ("LIF", "IF", "CubaLIF", "LI", "I") for k in kinds) == len(net.neurons)
    assert graph.metadata["dt"] == 1e-3
    assert all(
        v.dtype == np.float32
        for node in graph.nodes.values()
        for v in vars(node).values()
        if hasattr(v, "dtype") and v.dtype.kind == "f"
    )
    assert done.facts["nodes"].keys() >= {node.name for node in net.neurons}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_graph_alone_gives_nearly_the_same_spikes(kind, written):
    """Wide registers: what differs is rounding, so a spike in some hundred moves."""
    net, x, path, done = written(kind)
    run = golden.run(net, golden.encode(net, x.numpy()))
    spikes, train = float_run(path, net, x, done.facts["nodes"])
    for node in net.neurons:
        if node.spec.output == "spike":
            wanted, got = run.outputs[node.name], spikes[node.name]
            assert 0.1 < wanted.mean() < 0.9, "a silent layer proves nothing"
            assert (wanted == got).mean() > 0.96, node.name
            assert abs(wanted.mean() - got.mean()) < 0.005, node.name
    scores = train.sum(0) if net.decoder.name == "spike_count" else train[-1]
    assert (scores.argmax(1) == run.scores.argmax(1)).all()
    real = run.scores * net.decoder.scale
    assert np.abs(scores * done.facts["score_scale"] - real).max() <= (2 if net.decoder.name == "spike_count" else 0.02)


def test_few_bits_stay_close(written):
    net, x, path, done = written("chain", weight_bits=4, membrane_bits=8)
    run = golden.run(net, golden.encode(net, x.numpy()))
    spikes, _ = float_run(path, net, x, done.facts["nodes"])
    for node in net.neurons:
        assert abs(run.outputs[node.name].mean() - spikes[node.name].mean()) < 0.03


def test_weights_are_codes_times_scale(written):
    nir = pytest.importorskip("nir")
    net, _, path, _ = written("chain")
    weight, synapse, neuron = nir.read(path).nodes["fc1"].weight, net.synapses[0], net.neurons[0]
    lsb = np.asarray(neuron.scale).reshape(-1, 1) * np.asarray(neuron.gains[0]).reshape(-1, 1)
    assert np.array_equal(weight, (synapse.product.codes * lsb).astype(np.float32))


def test_another_step_scales_the_times(written, tmp_path):
    net, _ = made("chain")
    sq.export(net, tmp_path / "a", format="nir", dt=0.01)
    slow, fast = (plain_graph(net, dt=dt).record.nodes["lif1"].fields for dt in (0.01, 1e-3))
    assert np.allclose(slow["tau"], 10 * fast["tau"])
    assert network_hash(sq.load_nir(tmp_path / "a" / "network.nir")) == network_hash(net)
    for dt in (0, -1.0, float("nan"), float("inf"), "1", True):
        with pytest.raises(sq.Unsupported, match="expected a positive number, the length of one step"):
            sq.export(net, tmp_path / "b", format="nir", dt=dt)


def test_a_threshold_is_the_same_for_both_comparators():
    """theta_int - 1/2 (hard) or within a LSB below theta_int (soft): no sum of integers lies on it."""
    for kind in ("chain", "skip"):
        net, _ = made(kind)
        for node in net.neurons:
            level = plain_graph(net).record.nodes[node.name].fields["v_threshold"] / np.asarray(node.scale)
            below = np.broadcast_to(node.params["theta"], node.shape) - level
            assert (below > 0.2).all()
            assert (below < 0.8).all()


# -- the way back ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_the_integers_come_back(kind, written, tmp_path):
    net, x, path, done = written(kind)
    again = sq.load_nir(path)
    assert (
        network_hash(again) == network_hash(net) == json.loads((done.folder / "manifest.json").read_text())["network"]
    )
    codes = golden.encode(net, x.numpy())
    assert np.array_equal(golden.run(again, codes).scores, golden.run(net, codes).scores)
    again.save(tmp_path / "again.spq")
    net.save(tmp_path / "net.spq")
    assert (tmp_path / "again.spq").read_bytes() == (tmp_path / "net.spq").read_bytes()


def refusal(net, folder):
    """The words of a refusal, or None."""
    try:
        sq.export(net, folder, format="nir")
    except sq.Unsupported as error:
        return str(error)
    return None


def test_hand_made_networks_come_back_or_are_refused_by_name(tmp_path):
    exported = 0
    for seed in range(100):
        net, *_ = handmade(seed)
        words = refusal(net, tmp_path)
        if words is None:
            exported += 1
            assert network_hash(sq.load_nir(tmp_path / "network.nir")) == network_hash(net)
        else:
            assert any(f"node {node.name} (" in words for node in net.nodes), words
            assert "NIR cannot express" in words
    assert exported >= 2


def test_the_same_network_gives_the_same_bytes(written, tmp_path):
    net, _, path, _ = written("loop")
    sq.export(net, tmp_path / "twice", format="nir")
    assert (tmp_path / "twice" / "network.nir").read_bytes() == path.read_bytes()


def edit(place, change):
    def run(file):
        value = file[place][()]
        del file[place]
        file[place] = change(value)

    return run


def rename(file):
    file.move("node/nodes/lif1", "node/nodes/lif9")


def drop_edge(file):
    edges = file["node/edges"][()]
    del file["node/edges"]
    file.create_dataset("node/edges", data=[[a.decode(), b.decode()] for a, b in edges[1:]], dtype=h5py.string_dtype())


def more(file):
    file.create_group("node/nodes/more")["type"] = "Output"


EDITS = {
    "nodes/fc1/weight": edit("node/nodes/fc1/weight", lambda w: w * np.float32(1.0000002)),
    "nodes/lif1/v_threshold": edit("node/nodes/lif1/v_threshold", lambda v: v + np.float32(0.5)),
    "nodes/lif1/tau": edit("node/nodes/lif1/tau", lambda v: v.astype(np.float64)),
    "metadata/dt": edit("node/metadata/dt", lambda _: 0.002),
    "metadata/reset": edit("node/metadata/reset", lambda _: "v_reset"),
    "edges": drop_edge,
    "nodes/lif1/": rename,
    "nodes/more/type": more,
}


@pytest.mark.parametrize("place", EDITS)
def test_an_edited_graph_is_refused_with_its_place(place, written):
    _, _, path, _ = written("chain")
    with h5py.File(path, "r+") as file:
        EDITS[place](file)
    with pytest.raises(sq.ArtifactError) as caught:
        sq.load_nir(path)
    assert f"disagree at '{place}" in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_edited_record_is_refused(written, tmp_path):
    _, _, path, _ = written("chain")
    other, _ = made("skip")
    sq.export(other, tmp_path / "other", format="nir")

    def forged(change):
        copy = shutil.copy(path, tmp_path / "forged.nir")
        with h5py.File(copy, "r+") as file, h5py.File(tmp_path / "other" / "network.nir", "r") as source:
            change(file, source)
        with pytest.raises(sq.ArtifactError) as caught:
            sq.load_nir(copy)
        return str(caught.value)

    def put(file, key, content):
        del file[f"spikequant/{key}"]
        file[f"spikequant/{key}"] = np.frombuffer(content, np.uint8)

    def both(file, source):
        for key in ("network", "record"):
            put(file, key, source[f"spikequant/{key}"][()].tobytes())

    def graph_of_the_record(file, source):
        """A record that fits the integers of one network and claims the graph of another."""
        record = json.loads(source["spikequant/record"][()].tobytes())
        record["graph"] = json.loads(file["spikequant/record"][()].tobytes())["graph"]
        put(file, "network", source["spikequant/network"][()].tobytes())
        put(file, "record", json.dumps(record).encode())

    def version(file, _):
        put(file, "record", b'{"version": 2}')

    def no_record(file, _):
        del file["spikequant"]

    assert "is not the network that the record was written for" in forged(
        lambda f, s: put(f, "network", s["spikequant/network"][()].tobytes())
    )
    assert "it was changed after it was exported" in forged(both)
    assert "the record does not belong to this graph" in forged(graph_of_the_record)
    assert "version 2; this release reads version 1" in forged(version)
    assert "has no quantization record; read it as a real-valued network" in forged(no_record)
    assert "the key 'version' is there twice" in forged(lambda f, _: put(f, "record", b'{"version": 1, "version": 1}'))


def test_a_graph_that_another_tool_wrote_again_is_a_float_graph(written, tmp_path):
    """Stock NIR drops what it does not know: nothing stale is left."""
    nir = pytest.importorskip("nir")
    _, x, path, _ = written("chain")
    nir.write(tmp_path / "again.nir", nir.read(path))
    with pytest.raises(sq.ArtifactError, match="has no quantization record"):
        sq.load_nir(tmp_path / "again.nir")
    with torch.no_grad():
        assert torch.equal(sq.from_nir(tmp_path / "again.nir")(x), sq.from_nir(path)(x))


def test_from_nir_says_that_there_are_integers(written):
    _, _, path, _ = written("chain")
    assert any("spikequant.load_nir" in note for note in sq.from_nir(path).reading.notes)


# -- what NIR cannot express -----------------------------------------------------------------


def changed(net, name, **fields):
    nodes = tuple(dataclasses.replace(n, **fields) if n.name == name else n for n in net.nodes)
    return dataclasses.replace(net, nodes=nodes, vectors=None)


def with_spec(net, name, spec, **params):
    node = net.node(name)
    return changed(net, name, spec=spec, params={**node.params, **params})


def refused():
    """Networks with one thing that NIR does not have, and the words of the refusal."""
    net, _ = made("skip")
    spec, one = net.node("lif2").spec, np.array(1, dtype=np.int64)
    wide = dataclasses.replace(spec.v, rounding="floor")
    adaptive = adaptive_lif(refractory=0).replace(
        leak=spec.leak,
        v=wide,
        a=StateFormat(format=wide.format),
        leak_a=Leak(form="multiply", bits=4),
        fraction_bits=spec.fraction_bits,
    )
    several = multi_spike_if(spikes_max=3).replace(v=wide)
    yield (
        with_spec(net, "lif2", adaptive, leak_a=one, a_shift=0 * one, adapt=one),
        "node lif2 (NeuronNode): NIR cannot express an adaptive threshold",
    )
    yield (
        with_spec(net, "lif2", several, reset=one),
        "node lif2 (NeuronNode): NIR cannot express up to 3 spikes of a neuron in one step",
    )
    yield with_spec(net, "lif2", spec.replace(refractory=2)), "a refractory time (2 steps)"
    constant = spec.replace(leak=Leak(form="constant"))
    yield with_spec(net, "lif2", constant), "a leak by a constant (leak: constant)"
    endless = spec.replace(reset="none", order=tuple(p for p in spec.order if p != "reset"))
    yield with_spec(net, "lif2", endless), "a neuron that fires and is never reset"
    old = spec.replace(order=("fire", "reset", "leak", "integrate"))
    yield with_spec(net, "lif2", old), "a neuron that fires before it integrates"
    yield (
        with_spec(net, "lif2", spec.replace(reset="subtract"), reset=one),
        "reset = 'subtract' here and 'v_reset' in lif1",
    )
    nodes = list(net.nodes)
    join = next(n for n in nodes if isinstance(n, JoinNode))
    for kind in ("max", "product"):
        yield changed(net, join.name, kind=kind), f"a join of the kind '{kind}', only sums"
    yield (
        dataclasses.replace(net, decoder=Decoder(name="membrane_max", source="lif3"), vectors=None),
        "an output that is the membrane of a neuron that spikes",
    )
    rows = ReshapeNode(name="rows", shape=(4, 4), inputs=(Edge("lif1"),))
    squared = MatmulNode(name="squared", shape=(4, 4), inputs=(Edge("rows"), Edge("rows")))
    yield (
        dataclasses.replace(net, nodes=(*nodes, rows), vectors=None),
        "a change of shape from (16,) to (4, 4), only to a flat one",
    )
    yield dataclasses.replace(net, nodes=(*nodes, rows, squared), vectors=None), "a "
    image, _ = made("image")
    pool = next(n for n in image.nodes if isinstance(n, PoolNode))
    yield (
        changed(image, pool.name, kind="max"),
        f"node {pool.name} (PoolNode): NIR cannot express a max over 2-dimensional windows",
    )


def test_what_nir_cannot_express_is_refused_with_node_and_reason(tmp_path):
    count = 0
    for net, words in refused():
        with pytest.raises(sq.Unsupported) as caught:
            sq.export(net, tmp_path / "out", format="nir")
        assert words in str(caught.value)
        count += 1
    assert count == 13
    assert not (tmp_path / "out").exists()


def test_deviations_are_said(tmp_path):
    net, _ = made("chain")
    spec = net.node("lif1").spec
    late = spec.replace(order=("leak", "integrate", "reset_delayed", "fire"))
    done = sq.export(with_spec(net, "lif1", late), tmp_path, format="nir")
    assert done.facts["deviations"] == [
        "values are real numbers: nothing is rounded, saturated or wrapped",
        "the integers reset one step after the spike, the plain neuron at once (lif1)",
    ]


def test_names_that_no_group_can_have(tmp_path):
    net, x = made("chain")
    names = {node.name: f"../{k}\n/{node.name}" for k, node in enumerate(net.nodes)}
    nodes = [
        dataclasses.replace(n, name=names[n.name], **({"inputs": tuple(Edge(names[e.source], e.delay) for e in n.inputs)} if n.inputs else {}))
        for n in net.nodes
    ]  # fmt: skip
    odd = dataclasses.replace(
        net, nodes=tuple(nodes), decoder=dataclasses.replace(net.decoder, source=names[net.decoder.source])
    )
    done = sq.export(odd, tmp_path, format="nir")
    assert network_hash(sq.load_nir(tmp_path / "network.nir")) == network_hash(odd)
    assert all("/" not in name and name.isprintable() for name in done.facts["nodes"].values())
    with torch.no_grad():
        assert sq.from_nir(tmp_path / "network.nir")(x).sum() > 0
