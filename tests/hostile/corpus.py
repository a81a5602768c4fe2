"""Hand-made hostile files: what was done to a sound file, and words that the refusal must say.

The checksums of all `.spq` cases are right: a careful forger made them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as with_tensors
from tests.hostile.formats import small_net

from spikequant.law.artifact import content_hash, to_bytes

Record = dict[str, Any]
Change = Callable[[Record, dict[str, Any]], Any]


def forged(change: Change) -> bytes:
    """The small network with a change and a hash that fits it."""
    sound = to_bytes(small_net())
    record = json.loads(json.loads(sound[8 : 8 + struct.unpack("<Q", sound[:8])[0]])["__metadata__"]["spikequant"])[
        "network"
    ]
    tensors = dict(tensors_of(sound))
    change(record, tensors)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    outer = f'{{"network":{text},"sha256":"{content_hash(text, tensors)}"}}'
    return with_tensors(tensors, metadata={"spikequant": outer})


def node(name: str, *path: Any, to: Any) -> Change:
    """Sets a field of a node."""

    def change(record: Record, _: dict[str, Any]) -> None:
        holder = next(n for n in record["nodes"] if n["name"] == name)
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to

    return change


def top(key: str, to: Any) -> Change:
    return lambda record, _: record.update({key: to})


def tensor(name: str, array: Any) -> Change:
    return lambda _, tensors: tensors.update({name: np.ascontiguousarray(array)})


def append(**fields: Any) -> Change:
    return lambda record, _: record["nodes"].append(fields)


def edge(source: str, delay: int = 0) -> Record:
    return {"source": source, "delay": delay}


def many_nodes(record: Record, _: dict[str, Any]) -> None:
    record["nodes"] += [
        {"type": "reshape", "name": f"r{k}", "shape": [4], "inputs": [edge("lif2")]} for k in range(5000)
    ]


def product_of_sums(record: Record, _: dict[str, Any]) -> None:
    """Each join squares the last: 2^k bits."""
    for k in range(40):
        last = "lif2" if k == 0 else f"j{k - 1}"
        kind = {"kind": "add" if k < 2 else "product", "gains": [2**31, 2**31], "axis": 0}
        record["nodes"].append(
            {"type": "join", "name": f"j{k}", "shape": [4], "inputs": [edge(last), edge(last)], **kind}
        )


def circle_without_neuron(record: Record, _: dict[str, Any]) -> None:
    common = {"type": "join", "shape": [4], "kind": "add", "gains": [1, 1], "axis": 0}
    record["nodes"].append({**common, "name": "a", "inputs": [edge("lif2"), edge("b", 1)]})
    record["nodes"].append({**common, "name": "b", "inputs": [edge("a"), edge("lif2")]})


def spread(record: Record, tensors: dict[str, Any]) -> None:
    """Two parameters of 16 kB that are 2^28 values together."""
    n = 2**14
    record["nodes"] = [record["nodes"][0], record["nodes"][2]]
    record["nodes"][0]["shape"] = record["nodes"][1]["shape"] = [n, n]
    record["nodes"][1]["inputs"] = [edge("input")]
    record["decoder"]["source"] = "lif1"
    for name in [name for name in tensors if not name.startswith("nodes/lif1")]:
        del tensors[name]
    tensors["nodes/lif1/params/theta"] = np.full((n, 1), 40, np.int8)
    tensors["nodes/lif1/params/bias"] = np.full((1, n), 1, np.int8)


SPQ: dict[str, tuple[Change, str]] = {
    "format version": (top("version", 2), "version 2; this release reads version 1"),
    "version true": (top("version", True), "version True; this release reads version 1"),
    "steps negative": (top("steps", -1), "steps: -1; expected a whole number from 1"),
    "steps a fraction": (top("steps", 2.5), "steps: 2.5; expected a whole number"),
    "steps true": (top("steps", True), "steps: True; expected a whole number"),
    "steps huge": (top("steps", 10**30), "expected a whole number from 1 to 1048576"),
    "no nodes": (top("nodes", []), "nodes: list; expected a list of 1 to 4096 nodes"),
    "nodes a text": (top("nodes", "conv"), "nodes: 'conv'; expected a list"),
    "5,007 nodes": (many_nodes, "expected a list of 1 to 4096 nodes"),
    "a node that is a number": (lambda r, _: r["nodes"].append(7), "nodes/7: 7; expected an object with a type"),
    "a type that is a list": (node("conv", "type", to=["synapse"]), "nodes/1: dict; expected an object with a type"),
    "metadata a list": (top("metadata", []), "metadata: list; expected an object"),
    "a target of 5,000 letters": (top("target", "x" * 5000), "expected a text of at most 1000 characters"),
    "decoder null": (top("decoder", None), "decoder: None; expected an object (Decoder)"),
    "decoder scale NaN as text": (lambda r, _: r["decoder"].update(scale="nan"), "decoder/scale: 'nan'; expected a finite number"),
    "decoder of another shape": (lambda r, _: r["decoder"].update(gains=3), "the decoder's gains () do not fit"),
    "negative bit width": (node("lif1", "spec", "v", "format", "bits", to=-8), "nodes/lif1/spec/v/format/bits: -8; expected"),
    "bits of 2^40": (node("conv", "format", "bits", to=2**40), "nodes/conv/format/bits: 1099511627776; expected"),
    "bits a text": (node("conv", "bits", to="4"), "nodes/conv/bits: '4'; expected a whole number"),
    "multiples of 0": (node("conv", "format", "multiple_of", to=0), "format/multiple_of: 0; expected"),
    "leak of a billion bits": (node("lif1", "spec", "leak", "bits", to=10**9), "spec/leak/bits: 1000000000; expected"),
    "leak without bits": (node("lif1", "spec", "leak", to={"form": "multiply"}), "the field 'bits' is missing"),
    "leak form": (node("lif1", "spec", "leak", "form", to="__import__"), "leak.form = '__import__'; expected one of"),
    "phase": (node("lif1", "spec", "order", to=["integrate", "fire", "exec"]), "unknown phase 'exec'"),
    "phases twice": (node("lif1", "spec", "order", to=["integrate", "integrate", "fire", "reset"]), "more than once"),
    "10,000 phases": (node("lif1", "spec", "order", to=["narrow"] * 10000), "order: list; expected a list of at most 32"),
    "phases a number": (node("lif1", "spec", "order", to=5), "nodes/lif1/spec/order: 5; expected a list"),
    "spikes_max of 10^6": (node("lif1", "spec", "spikes_max", to=10**6), "spec/spikes_max: 1000000; expected"),
    "refractory negative": (node("lif1", "spec", "refractory", to=-1), "spec/refractory: -1; expected"),
    "adapt_every 0": (node("lif1", "spec", "adapt_every", to=0), "spec/adapt_every: 0; expected"),
    "spec version": (node("lif1", "spec", "version", to=99), "neuron spec: version 99, this release reads 1"),
    "compare >": (node("lif1", "spec", "compare", to=">"), "compares with '>'"),
    "an edge to nowhere": (node("lif1", "inputs", 0, "source", to="nowhere"), "node lif1: its input 'nowhere' is not in the network"),
    "an edge to itself": (node("conv", "inputs", 0, "source", to="conv"), "has no delay but points forward or in a circle"),
    "a circle without delay": (node("conv", "inputs", 0, "source", to="lif1"), "has no delay but points forward or in a circle"),
    "a circle without a neuron": (circle_without_neuron, "it adds up over time without a neuron in the circle"),
    "a delay below 0": (node("lif1", "inputs", 0, "delay", to=-1), "inputs/0/delay: -1; expected"),
    "a delay of 2^40": (node("lif1", "inputs", 0, "delay", to=2**40), "inputs/0/delay: 1099511627776; expected"),
    "an edge with more fields": (node("lif1", "inputs", 0, to={**edge("conv"), "weight": 1}), "Edge: the field 'weight' is unknown"),
    "no inputs": (node("fc", "inputs", to=[]), "node fc (SynapseNode): takes one input"),
    "two inputs of the network": (
        append(type="input", name="i2", shape=[1], format={"bits": 1, "signed": False, "narrow": False, "multiple_of": 1}, static=True, scale=None),
        "a network has exactly one input node",
    ),
    "two nodes of one name": (node("fc", "name", to="conv"), "two nodes of the network have the same name"),
    "a shape of 2^60": (node("flat", "shape", to=[2**30, 2**30]), "has more than 2,147,483,648 values"),
    "a shape without axes": (node("flat", "shape", to=[]), "the shape () is empty"),
    "a shape with a negative axis": (node("flat", "shape", to=[-12]), "nodes/flat/shape/0: -12; expected"),
    "a shape of fractions": (node("flat", "shape", to=[12.0]), "nodes/flat/shape/0: 12.0; expected a whole number"),
    "a shape of 5,000 axes": (node("flat", "shape", to=[1] * 5000), "expected a list of at most 8 values"),
    "a pool of stride 0": (node("pool", "stride", to=[0, 0]), "nodes/pool/stride/0: 0; expected"),
    "a pool without windows": (node("pool", "kernel", to=[]), "has windows that do not fit"),
    "a pool of more axes than its input": (node("pool", "kernel", to=[1] * 5), "has windows that do not fit"),
    "a pool of another kind": (node("pool", "kind", to="mean"), "pools by 'mean'; expected 'sum' or 'max'"),
    "a convolution of stride 0": (node("conv", "product", "stride", to=[0, 1]), "product/stride/0: 0; expected"),
    "a convolution of dilation -1": (node("conv", "product", "dilation", to=[-1, 1]), "product/dilation/0: -1; expected"),
    "a convolution padded by 10^9": (node("conv", "product", "padding", to=[10**9] * 2), "does not give the shape (3, 4, 4)"),
    "no groups": (node("conv", "product", "groups", to=0), "product/groups: 0; expected"),
    "groups that do not divide": (node("conv", "product", "groups", to=2), "which the groups must divide"),
    "a border of another size": (node("conv", "product", "pad_code", to={"tensor": "p"}), "'p' is no tensor of the file"),
    "a product of another kind": (node("fc", "product", "kind", to="eval"), "a product of the kind 'eval'"),
    "codes that are one number": (node("fc", "product", "codes", to=5), "product/codes: expected a tensor of 2 to 8 axes"),
    "codes outside their format": (tensor("nodes/fc/product/codes", np.full((4, 12), 100, np.int16)), "has codes outside"),
    "codes of reals": (tensor("nodes/fc/product/codes", np.full((4, 12), np.nan)), "product/codes: holds float64; expected integers"),
    "codes of nothing": (tensor("nodes/fc/product/codes", np.zeros((0, 12), np.int8)), "product/codes: expected a tensor of 2 to 8 axes with values"),
    "a scale of NaN": (tensor("nodes/lif1/scale", np.array(np.nan)), "nodes/lif1/scale: holds NaN or infinite values"),
    "a scale of infinity": (tensor("nodes/lif1/scale", np.array(np.inf)), "nodes/lif1/scale: holds NaN or infinite values"),
    "an input scale of 0": (node("input", "scale", to=0.0), "nodes/input/scale: 0.0; expected a positive number"),
    "one tensor for two fields": (node("lif1", "params", "bias", to={"tensor": "nodes/lif1/params/theta"}), "belongs to another field already"),
    "a tensor that nobody wants": (tensor("__proto__", np.zeros(3, np.int8)), "the tensor '__proto__' belongs to nothing in the header"),
    "a tensor reference with a path": (node("lif1", "params", "bias", to={"tensor": "../../etc/passwd"}), "is no tensor of the file"),
    "a tensor of float16": (tensor("nodes/lif1/scale", np.array(1, np.float16)), "a tensor of the type F16; expected some of I8"),
    "a missing parameter": (lambda r, _: r["nodes"][2]["params"].pop("v_load"), "lacks the parameter v_load"),
    "an unknown parameter": (lambda r, _: r["nodes"][2]["params"].update(thetta=3), "has the parameter 'thetta', which no neuron reads"),
    "a parameter of another shape": (tensor("nodes/lif1/params/theta", np.ones(7, np.int8)), "has theta of shape (7,), which does not fit"),
    "a gain of 2^62": (tensor("nodes/lif1/gains/0", np.array(2**62)), "more than the 63 bits of the golden model"),
    "a shift of 1,000": (tensor("nodes/lif1/params/v_shift", np.array(1000)), "a right shift takes 0 to"),
    "a negative shift": (tensor("nodes/lif1/params/v_shift", np.array(-4, np.int8)), "a right shift takes 0 to"),
    "parameters that are huge together": (spread, "spread over 268,435,456 values together, of 16,384 at most each"),
    "a tower of products": (product_of_sums, "more than the 63 bits of the golden model"),
    "a concat out of range": (
        append(type="join", name="j", shape=[8], inputs=[edge("lif2")] * 2, kind="concat", gains=[1, 1], axis=7),
        "concatenates [(4,), (4,)] along axis 7 into (8,)",
    ),
    "a concat of other axes": (
        append(type="join", name="j", shape=[8], inputs=[edge("lif2"), edge("lif1")], kind="concat", gains=[1, 1], axis=0),
        "concatenates [(4,), (3, 4, 4)]",
    ),
    "a join of one": (append(type="join", name="j", shape=[4], inputs=[edge("lif2")], kind="add", gains=[1], axis=0), "joins two or more inputs"),
    "a product of vectors": (append(type="matmul", name="m", shape=[4], inputs=[edge("lif2")] * 2, transpose_second=False), "multiplies (4,)"),
    "vectors of text": (top("vectors", {"inputs": "x", "scores": 0}), "vectors/inputs: 'x'; expected a tensor or one number"),
}  # fmt: skip
"""Name -> change of the small network, words of the refusal."""


def raw_spq() -> dict[str, tuple[bytes, str]]:
    """Files that are wrong below the record."""
    sound = to_bytes(small_net())
    length = struct.unpack("<Q", sound[:8])[0]
    header = json.loads(sound[8 : 8 + length])

    def with_header(text: str) -> bytes:
        raw = text.encode()
        raw += b" " * (-len(raw) % 8)
        return struct.pack("<Q", len(raw)) + raw + sound[8 + length :]

    name = "nodes/fc/product/codes"
    far = json.loads(json.dumps(header))
    far[name]["data_offsets"] = [0, 2**60]
    overlap = json.loads(json.dumps(header))
    overlap[name]["data_offsets"] = header["nodes/conv/product/codes"]["data_offsets"]
    inner = header["__metadata__"]["spikequant"]
    huge = json.loads(json.dumps(header))
    huge[name]["shape"] = [2**40, 2**40]
    deep = json.loads(json.dumps(header))
    deep["__metadata__"]["spikequant"] = '{"network":' + "[" * 100_000
    doubled = inner[:-1] + ',"sha256":"0"}'
    twice = json.loads(json.dumps(header))
    twice["__metadata__"]["spikequant"] = doubled
    again = json.loads(json.dumps(header))
    again["__metadata__"]["spikequant"] = inner.replace('"steps":4', '"steps":4,"steps":4')
    nan = json.loads(json.dumps(header))
    nan["__metadata__"]["spikequant"] = inner.replace('"scale":1.0', '"scale":NaN')
    return {
        "nothing": (b"", "not a readable .spq file"),
        "a header of 2^62 bytes": (struct.pack("<Q", 2**62) + b"{}", "not a readable .spq file"),
        "a header that is cut": (sound[:20], "not a readable .spq file"),
        "offsets outside the file": (with_header(json.dumps(far)), "not a readable .spq file"),
        "tensors that overlap": (with_header(json.dumps(overlap)), "not a readable .spq file"),
        "a declared shape of 2^80": (with_header(json.dumps(huge)), "not a readable .spq file"),
        "100,000 brackets": (with_header(json.dumps(deep)), "the header is malformed (RecursionError"),
        "a doubled key": (with_header(json.dumps(twice)), "the key 'sha256' is there twice"),
        "a doubled key inside": (with_header(json.dumps(again)), "the key 'steps' is there twice"),
        "a NaN": (with_header(json.dumps(nan)), "NaN is no number of JSON"),
        "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.", "not a readable .spq file"),
        "a zip": (b"PK\x03\x04" + bytes(60), "not a readable .spq file"),
    }
