"""docs/format.md is checked: its example byte for byte, its field tables, and what it says a loader refuses."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from spikequant.law import formats, network, products, spec
from spikequant.law.artifact import NODE_TYPES, content_hash, network_hash
from spikequant.law.errors import ArtifactError
from spikequant.law.network import IntNet
from spikequant.readers import golden

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(found) == 1
    text: str = found[0]
    return text


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[IntNet, dict[str, Any], bytes]:
    """The example's network, the header of its file and the bytes behind the header."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python"), names)
    raw = (tmp_path / "tiny.spq").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 8 == 0
    return names["net"], json.loads(raw[8 : 8 + length]), raw[8 + length :]


# --- the example --------------------------------------------------------------------------


def test_the_bytes_of_the_example(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    _, header, data = tiny
    assert data == bytes.fromhex(block("hex"))
    assert list(header["__metadata__"]) == ["spikequant"]
    text = header["__metadata__"]["spikequant"]
    outer = {"network": json.loads(block("json")), "sha256": block("sha256").strip()}
    assert text == json.dumps(outer, sort_keys=True, separators=(",", ":"))


def test_the_tensors_of_the_example(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    _, header, data = tiny
    table = PAGE.split("<!-- tensors -->\n")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]
    assert set(header) - {"__metadata__"} == {row[0] for row in rows}
    types = {"F64": "<f8", "I8": "|i1"}
    for name, dtype, shape, offsets, values in rows:
        entry = header[name]
        assert entry == {"dtype": dtype, "shape": json.loads(shape), "data_offsets": json.loads(offsets)}, name
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], dtype=types[dtype]).reshape(entry["shape"])
        assert array.tolist() == ast.literal_eval(values), name


def test_the_hash_of_the_example(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    """The recipe of the page, written out again."""
    net, header, data = tiny
    outer = json.loads(header["__metadata__"]["spikequant"])
    digest = hashlib.sha256(json.dumps(outer["network"], sort_keys=True, separators=(",", ":")).encode())
    types = {"F64": "<f8", "I8": "|i1"}
    for name in sorted(set(header) - {"__metadata__"}):
        entry = header[name]
        begin, end = entry["data_offsets"]
        digest.update(f"\n{name} {types[entry['dtype']]} {tuple(entry['shape'])}\n".encode() + data[begin:end])
    expected = block("sha256").strip()
    assert digest.hexdigest() == outer["sha256"] == network_hash(net) == expected


def test_two_files_of_one_network_are_the_same_bytes(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    net, *_ = tiny
    net.save("again.spq")
    assert Path("again.spq").read_bytes() == Path("tiny.spq").read_bytes()


def test_spaces_in_the_record_change_nothing(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    net, header, data = tiny
    rewritten(header, data, lambda record, tensors: None, indent=2)
    assert network_hash(IntNet.load("changed.spq")) == network_hash(net)


def test_the_example_comes_back_and_fires(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    net, *_ = tiny
    codes = np.array([[[1, 0]], [[1, 0]], [[0, 1]], [[1, 1]]])
    for network_read in (net, IntNet.load("tiny.spq")):
        assert golden.run(network_read, codes).outputs["lif"].ravel().tolist() == [0, 1, 0, 0]


def test_integers_take_the_smallest_type(tiny: tuple[IntNet, dict[str, Any], bytes], tmp_path: Path) -> None:
    net, *_ = tiny
    for value, dtype in ((127, "I8"), (128, "I16"), (-(2**15), "I16"), (2**15, "I32"), (2**31, "I64")):
        neuron = net.neurons[0]
        params = {**neuron.params, "theta": np.array(value)}
        changed = dataclasses.replace(net, nodes=(*net.nodes[:-1], dataclasses.replace(neuron, params=params)))
        changed.save(tmp_path / "theta.spq")
        raw = (tmp_path / "theta.spq").read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        assert header["nodes/lif/params/theta"]["dtype"] == dtype
        loaded = IntNet.load(tmp_path / "theta.spq").neurons[0].params["theta"]
        assert (int(loaded), loaded.dtype) == (value, np.int64)


# --- the field tables ---------------------------------------------------------------------

CLASSES = {
    name: getattr(module, name)
    for module in (network, products, spec, formats)
    for name in dir(module)
    if dataclasses.is_dataclass(getattr(module, name))
}
TABLES = dict(re.findall(r"<!-- fields: (\w+) -->\n((?:\|.*\n)+)", PAGE))


def test_every_class_of_the_file_has_a_table() -> None:
    assert set(TABLES) == set(CLASSES) - {"IntNet", "Edge"}
    assert set(re.findall(r'^`"type": "(\w+)"`', PAGE, flags=re.MULTILINE)) == set(NODE_TYPES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_the_fields(name: str) -> None:
    cells = [line.split("|")[1] for line in TABLES[name].splitlines()[2:]]
    listed = [field for cell in cells for field in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(f.name for f in dataclasses.fields(CLASSES[name]))


def test_the_record_and_its_words() -> None:
    table = PAGE.split("## The record")[1].split("### Nodes")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(listed) == sorted(f.name for f in dataclasses.fields(IntNet))
    for word in (*network.DECODERS, *network.JOINS):
        assert f'`"{word}"`' in PAGE, word


# --- what a loader refuses ----------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def setting(*path: Any, to: Any) -> Change:
    def change(record: dict[str, Any], tensors: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = to

    return change


def dropping(*path: Any) -> Change:
    def change(record: dict[str, Any], tensors: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


def adding_a_tensor(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["nodes/lif/params/more"] = np.zeros(1, np.int8)


def losing_a_tensor(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors["nodes/lif/params/theta"]


def a_wide_code(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["nodes/fc/product/codes"] = np.array([[8, 0]], np.int8)


def appending(*, inputs: int = 1, **fields: Any) -> Change:
    """A node behind the neuron, which it reads `inputs` times."""

    def change(record: dict[str, Any], tensors: dict[str, Any]) -> None:
        edges = [{"source": "lif", "delay": 0}] * inputs
        record["nodes"].append({"name": "more", "shape": [1], "inputs": edges, **fields})

    return change


def a_wide_sum(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["nodes/lif/gains/0"] = np.array(2**61)


def an_exact_leak(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    spec = record["nodes"][2]["spec"]
    spec["order"], spec["leak"]["form"], spec["leak"]["bits"] = ["leak", *spec["order"]], "multiply", 3
    tensors["nodes/lif/params/leak"] = np.array(5, np.int8)
    record["nodes"][2]["params"]["leak"] = {"tensor": "nodes/lif/params/leak"}


def a_real_parameter(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["nodes/lif/params/theta"] = np.array(41.0)


def a_large_parameter(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["nodes/lif/params/theta"] = np.array([41, 41], np.int8)


REFUSED: dict[str, Change] = {
    "3 version": setting("version", to=2),
    "3 spec version": setting("nodes", 2, "spec", "version", to=2),
    "4 unknown field": setting("more", to=1),
    "4 missing field": dropping("steps"),
    "4 unknown field of a node": setting("nodes", 1, "more", to=1),
    "4 missing field of a node": dropping("nodes", 1, "bits"),
    "4 unknown field of a product": setting("nodes", 1, "product", "more", to=1),
    "4 missing field of a product": dropping("nodes", 1, "product", "groups"),
    "4 missing field of a decoder": dropping("decoder", "gains"),
    "4 unknown field of vectors": setting("vectors", to={"inputs": 0, "scores": 0, "more": 0}),
    "4 unknown field of a spec": setting("nodes", 2, "spec", "more", to=1),
    "4 missing field of a spec": dropping("nodes", 2, "spec", "refractory"),
    "4 unknown field of a leak": setting("nodes", 2, "spec", "leak", "more", to=1),
    "4 unknown field of a register": setting("nodes", 2, "spec", "v", "more", to=1),
    "4 unknown field of a format": setting("nodes", 1, "format", "more", to=1),
    "5 node type": setting("nodes", 1, "type", to="dense"),
    "5 phase": setting("nodes", 2, "spec", "order", to=["integrate", "fire", "rest"]),
    "5 leak form": setting("nodes", 2, "spec", "leak", "form", to="exponential"),
    "5 reset": setting("nodes", 2, "spec", "reset", to="soft"),
    "5 rounding": setting("nodes", 2, "spec", "v", "rounding", to="nearest"),
    "5 overflow": setting("nodes", 2, "spec", "v", "overflow", to="clip"),
    "5 decoder": setting("decoder", "name", to="vote"),
    "5 product": setting("nodes", 1, "product", "kind", to="dense"),
    "5 pool": appending(type="pool", kind="mean", kernel=[1], stride=[1], padding=[0]),
    "5 join": appending(type="join", kind="xor", inputs=2, gains=[1, 1], axis=0),
    "6 missing tensor": losing_a_tensor,
    "6 tensor of nothing": adding_a_tensor,
    "7 two of one name": setting("nodes", 2, "name", to="fc"),
    "7 no input": dropping("nodes", 0),
    "7 edge to nowhere": setting("nodes", 2, "inputs", 0, "source", to="fd"),
    "7 circle": setting("nodes", 1, "inputs", 0, "source", to="lif"),
    "7 shapes": setting("nodes", 2, "shape", to=[2]),
    "8 codes": a_wide_code,
    "8 parameter": dropping("nodes", 2, "params", "theta"),
    "8 compare": setting("nodes", 2, "spec", "compare", to=">"),
    "8 no integers": setting("nodes", 2, "spec", "v", to=None),
    "8 bits": setting("nodes", 1, "bits", to=33),
    "8 real parameter": a_real_parameter,
    "8 large parameter": a_large_parameter,
    "8 reset before fire": setting("nodes", 2, "spec", "order", to=["integrate", "reset", "fire"]),
    "8 exact leak": an_exact_leak,
    "8 decoder scale": setting("decoder", "scale", to=1),
    "9 wide sum": a_wide_sum,
}


def rewritten(header: dict[str, Any], data: bytes, change: Change, *, indent: int | None = None) -> None:
    """The example with a change and a hash that fits it, as `changed.spq`."""
    record = json.loads(header["__metadata__"]["spikequant"])["network"]
    types = {"F64": "<f8", "I8": "|i1"}
    tensors: dict[str, Any] = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    change(record, tensors)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    outer = {"network": record, "sha256": content_hash(text, tensors)}
    save_file(tensors, "changed.spq", metadata={"spikequant": json.dumps(outer, indent=indent)})


def test_a_file_with_no_change_is_read(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    _, header, data = tiny
    rewritten(header, data, lambda record, tensors: None)
    assert network_hash(IntNet.load("changed.spq")) == json.loads(header["__metadata__"]["spikequant"])["sha256"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_changed_file_is_refused(tiny: tuple[IntNet, dict[str, Any], bytes], name: str) -> None:
    _, header, data = tiny
    rewritten(header, data, REFUSED[name])
    with pytest.raises(ArtifactError, match=r"changed\.spq"):
        IntNet.load("changed.spq")


def test_every_rule_of_the_page_is_tried() -> None:
    rules = re.findall(r"^(\d)\. ", PAGE.split("## What a loader refuses")[1], flags=re.MULTILINE)
    assert set(rules) - {"1", "2"} == {name[0] for name in REFUSED}


@pytest.mark.parametrize("text", ["[]", "5", "{}", '{"network": {}}', "{", '{"network": NaN, "sha256": ""}'])
def test_a_header_that_is_no_network_is_refused(text: str, tmp_path: Path) -> None:
    save_file({}, tmp_path / "odd.spq", metadata={"spikequant": text})
    with pytest.raises(ArtifactError, match=r"odd\.spq"):
        IntNet.load(tmp_path / "odd.spq")


def test_a_broken_file_is_refused(tiny: tuple[IntNet, dict[str, Any], bytes]) -> None:
    raw = Path("tiny.spq").read_bytes()
    flipped = bytearray(raw)
    flipped[-1] ^= 1
    broken = {"short": raw[:-1], "header": raw[:40], "empty": b"", "flipped": bytes(flipped)}
    for name, content in broken.items():
        Path(f"{name}.spq").write_bytes(content)
        with pytest.raises(ArtifactError, match=name):
            IntNet.load(f"{name}.spq")
    save_file({"a": np.zeros(1, np.int8)}, "other.spq")
    with pytest.raises(ArtifactError, match="not a spikequant network"):
        IntNet.load("other.spq")
    with pytest.raises(ArtifactError, match="not a file"):
        IntNet.load("nothing.spq")
