"""NIR files: the ones at hand, those that `nir.write` makes, old forms, damaged and hostile ones."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import spikequant as sq
from spikequant import from_nir

h5py = pytest.importorskip("h5py")

CHOICES = {"dt": 1e-4, "integrator": "euler", "reset": "v_reset", "current": "same_step"}
OLD = {"rename": {"lif1.lif": "lif1"}}
FILES = {
    "nir_paper/cnn_sinabs.nir": {"dt": 1},
    "nir_paper/braille_noDelay_bias_zero.nir": {},
    "nir_paper/braille_noDelay_bias_zero_subgraph.nir": OLD,
    "nir_paper/braille_noDelay_noBias_subtract.nir": {"reset": "subtract"},
    "nir_paper/braille_noDelay_noBias_subtract_subgraph.nir": {"reset": "subtract", **OLD},
    "nir_paper/lif_norse.nir": {},
    "nir_paper/lif_rockpool.nir": {"integrator": "impulse"},
    "nir_paper/two_lif_neurons.nir": {},
    "nirtorch/braille.nir": {},
    "nirtorch/feedback_graph.nir": {"dt": 1e-3},
    "norse/braille.nir": {},
    "rockpool/braille.nir": {"dt": 1.0},
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_at_hand_is_read_and_runs(name, data_folder):
    network = from_nir(data_folder / "nir" / name, **CHOICES | FILES[name])
    torch.manual_seed(0)
    x = (torch.rand(6, 2, *network.input_shape) < 0.3).float()
    with torch.no_grad():
        out = network(x)
    assert out.shape[:2] == (6, 2)
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("kind", ["bias_zero", "noBias_subtract"])
def test_old_forms_are_the_same_network(kind, data_folder):
    """The file with a subgraph names a node that it does not have; read with the name that is meant it is the flat one."""
    flat, nested = (data_folder / "nir" / "nir_paper" / f"braille_noDelay_{kind}{end}.nir" for end in ("", "_subgraph"))
    with pytest.raises(sq.DataError, match=r"pass rename=\{'lif1.lif': 'lif1'\} if it is meant"):
        from_nir(nested, **CHOICES)
    x = (torch.rand(40, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    wanted = from_nir(flat, **CHOICES)(x).detach()
    assert torch.equal(from_nir(nested, **CHOICES, **OLD)(x), wanted)
    assert float(wanted.sum()) > 20


def test_a_written_file_is_the_graph_that_was_written(tmp_path):
    nir = pytest.importorskip("nir")
    from tests.frontends.test_nir import EULER, pools, recurrent, spikes, subgraph

    for make in (pools, recurrent, subgraph):
        graph = make()
        nir.write(tmp_path / "graph.nir", graph)
        x = spikes(graph)
        assert torch.equal(from_nir(tmp_path / "graph.nir", **EULER)(x), from_nir(graph, **EULER)(x))


# -- files that are none ---------------------------------------------------------------


def write(path: Path, change=None) -> Path:
    """A sound file, changed."""
    with h5py.File(path, "w") as file:
        file["version"] = "1.0.8"
        graph = file.create_group("node")
        graph["type"] = "NIRGraph"
        text = h5py.string_dtype()
        graph.create_dataset("edges", data=[["input", "fc"], ["fc", "if"], ["if", "output"]], dtype=text)
        for name, fields in {
            "input": {"type": "Input", "shape": np.array([3])},
            "fc": {"type": "Linear", "weight": np.eye(2, 3)},
            "if": {"type": "IF", "r": np.ones(2), "v_threshold": np.ones(2)},
            "output": {"type": "Output", "shape": np.array([2])},
        }.items():
            node = graph.create_group(f"nodes/{name}")
            for field, value in fields.items():
                node[field] = value
        if change is not None:
            change(graph)
    return path


def replaced(place: str, value, **options):
    """A change that puts another dataset at a place."""

    def change(graph):
        if place in graph:
            del graph[place]
        graph.create_dataset(place, data=value, **options)

    return change


def removed(place: str):
    def change(graph):
        del graph[place]

    return change


def bomb(graph):
    """Compressed zeros: 8 TB in a file of a few kB."""
    del graph["nodes/fc/weight"]
    graph.create_dataset("nodes/fc/weight", shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000), compression="gzip")


def big_chunk(graph):
    del graph["nodes/fc/weight"]
    graph.create_dataset(
        "nodes/fc/weight", shape=(2, 3), maxshape=(None, None), dtype="f8", chunks=(16384, 16384), compression="gzip"
    )


def circle(graph):
    graph["nodes/inner"] = graph


def soft_link(graph):
    del graph["nodes/fc"]
    graph["nodes/fc"] = h5py.SoftLink("/node/nodes/if")


def external_link(graph):
    del graph["nodes/fc"]
    graph["nodes/fc"] = h5py.ExternalLink("/etc/passwd", "/")


def external_data(graph):
    del graph["nodes/fc/weight"]
    graph.create_dataset("nodes/fc/weight", shape=(2, 3), dtype="u1", external=[("/etc/passwd", 0, 6)])


def deep(graph):
    group = graph
    for _ in range(40):
        group = group.create_group("nodes/sub" if group is graph else "sub")
        group["type"] = "NIRGraph"
        group.create_dataset("edges", data=np.zeros((0, 2)))
        group = group.create_group("nodes")


def many(graph):
    for k in range(2100):
        graph.create_group(f"nodes/n{k}")["type"] = "Threshold"
        graph[f"nodes/n{k}/threshold"] = np.ones(1)


def wide_input(graph):
    replaced("nodes/input/shape", np.array([2**30, 2**30]))(graph)


HOSTILE = {
    "unknown node type": (replaced("nodes/fc/type", "os.system"), "the primitive 'os.system' is unknown"),
    "unknown field": (replaced("nodes/if/colour", np.ones(2)), "a IF has no field 'colour'"),
    "unknown field of the graph": (replaced("type_check", np.ones(1)), "a NIRGraph has no field 'type_check'"),
    "missing field": (removed("nodes/if/r"), "this IF lacks the field 'r'"),
    "missing type": (removed("nodes/if/type"), "expected one text"),
    "missing edges": (removed("edges"), "lacks the edges"),
    "missing nodes": (removed("nodes"), "lacks the group 'nodes'"),
    "edges of numbers": (replaced("edges", np.zeros((3, 2))), "expected node names"),
    "edges of three": (replaced("edges", [["a", "b", "c"]], dtype=h5py.string_dtype()), "has the shape (1, 3)"),
    "an edge twice": (
        replaced("edges", [["input", "fc"], ["input", "fc"]], dtype=h5py.string_dtype()),
        "the edge ('input', 'fc') is there twice",
    ),
    "no edge": (replaced("edges", np.zeros((0, 2))), "does not depend on the Input"),
    "NaN": (replaced("nodes/fc/weight", np.full((2, 3), np.nan)), "holds NaN or infinite values"),
    "empty": (replaced("nodes/fc/weight", np.zeros((0, 3))), "is empty"),
    "text for numbers": (replaced("nodes/fc/weight", "weight"), "expected an array of real numbers"),
    "complex": (replaced("nodes/fc/weight", np.ones((2, 3), complex)), "expected numbers or text"),
    "a shape of fractions": (replaced("nodes/input/shape", np.array([2.5])), "expected whole numbers"),
    "a negative shape": (replaced("nodes/input/shape", np.array([-3])), "every axis must be at least 1"),
    "a wide input": (wide_input, "expected 1 to 67,108,864 values"),
    "wrong weight": (replaced("nodes/fc/weight", np.ones((2, 4))), "gets (3,), its weight is (2, 4)"),
    "too large for float32": (replaced("nodes/fc/weight", np.full((2, 3), 1e300)), "which float32 cannot hold"),
    "compressed zeros": (bomb, "more than 67,108,864 values"),
    "a huge chunk": (big_chunk, "more than 67,108,864 values"),
    "a graph in itself": (circle, "a graph that contains itself"),
    "soft link": (soft_link, "a link out of its place"),
    "external link": (external_link, "a link out of its place"),
    "external data": (external_data, "its values lie in another file"),
    "deep": (deep, "nested deeper than 16"),
    "many nodes": (many, "more than 2,000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once(name, tmp_path):
    change, words = HOSTILE[name]
    path = write(tmp_path / "bad.nir", change)
    started = time.perf_counter()
    with pytest.raises(sq.SpikequantError) as error:
        from_nir(path, **CHOICES | {"dt": 1})
    assert words in str(error.value)
    assert time.perf_counter() - started < 5


def test_the_sound_file_is_read(tmp_path):
    path = write(tmp_path / "good.nir")
    ones = torch.ones(4, 2, 3)
    late = from_nir(path, dt=1, reset="subtract")(ones)  # at its threshold in step 0, above it from step 1 on
    assert late.detach()[:, 0, 0].tolist() == [0, 1, 1, 1]
    assert bool((from_nir(path, dt=1, reset="subtract", compare=">=")(ones) == 1).all())


@pytest.mark.parametrize("size", [0, 10, 600, 4000])
def test_a_cut_file_is_refused(size, tmp_path):
    path = write(tmp_path / "cut.nir")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(sq.DataError, match=r"cut.nir: no readable HDF5 file"):
        from_nir(path, **CHOICES)


def test_changed_bytes_never_hang_or_crash(tmp_path):
    sound = write(tmp_path / "sound.nir").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(120):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), 12):
            data[place] = rng.integers(256)
        (tmp_path / "changed.nir").write_bytes(data)
        try:
            from_nir(tmp_path / "changed.nir", dt=1, reset="subtract")
            outcomes.add("read")
        except sq.SpikequantError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(sq.DataError, match="there is no such file"):
        from_nir(tmp_path / "none.nir")
    with pytest.raises(sq.Unsupported, match="got a int; expected the path of a .nir file or a nir.NIRGraph"):
        from_nir(3)
