"""``format="vectors"``: what a testbench needs: stimulus, parameters, expected spikes and states.

Text files hold words of hexadecimal digits and white space, nothing else, so that Verilog's ``$readmemh`` and VHDL's
``hread`` take them as they are; ``vectors.npz`` holds the same integers as arrays; the manifest says what each file is.
docs/vectors.md describes all of it.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.artifact import NODE_TYPES
from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray, IntFormat, signed_bits_for
from spikequant.law.network import IntNet, NeuronNode, Node
from spikequant.law.products import Product
from spikequant.law.spec import NeuronSpec
from spikequant.readers import golden
from spikequant.readers.names import stem

OPTIONS = ("inputs",)
DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Table:
    """Integers of one file: `rows` lines of equally many words."""

    name: str
    array: IntArray
    rows: int
    bits: int
    signed: bool

    @property
    def file(self) -> str:
        """Name of the text file."""
        return f"{self.name}.hex"

    def text(self) -> bytes:
        """The words, ``ceil(bits / 4)`` digits each, two's complement in `bits` bits."""
        return hex_words(self.array.reshape(self.rows, -1), self.bits)

    def record(self) -> dict[str, Any]:
        """What the manifest says of it."""
        words = self.array.size // self.rows
        shape = {"shape": list(self.array.shape), "lines": self.rows, "words": words}
        return {"file": self.file, "npz": self.name, **shape, "bits": self.bits, "signed": self.signed}


def files(net: IntNet, *, inputs: Any = None) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Contents by file name, and what the manifest says about them.

    Args:
        net: the network.
        inputs: data as the network takes them (``[N, ...]`` static, ``[T, N, ...]`` otherwise), real where its input
            has a scale; the embedded test vectors where absent.

    Raises:
        DataError: no inputs and no embedded test vectors, or inputs that do not fit.
    """
    codes = stimulus(net, inputs)
    run = golden.run(net, codes)
    signals = _signals(net, codes, run)
    layers, parameters = _layers(net)
    decoder: dict[str, Any] = {"name": net.decoder.name, "source": net.decoder.source, "scale": net.decoder.scale}
    if net.decoder.gains is not None:
        parameters.append(_parameter("decoder.gains", net.decoder.gains))
        decoder["gains"] = parameters[-1].record()
    tables = [signal for signal, _ in signals] + parameters
    contents = {table.file: table.text() for table in tables}
    contents["vectors.npz"] = _npz(tables)
    static = net.input.static
    facts = {
        "words": "hexadecimal, two's complement, one line per step of a sample, sample by sample",
        "target": net.target,
        "samples": int(codes.shape[0 if static else 1]),
        "steps": net.steps if static else int(codes.shape[0]),
        "static_input": static,
        "first_sample": 0,
        "decoder": decoder,
        "signals": [{**about, **signal.record()} for signal, about in signals],
        "layers": layers,
    }
    return contents, facts


def stimulus(net: IntNet, inputs: Any) -> IntArray:
    """Input codes: of `inputs`, or the embedded test vectors."""
    if inputs is not None:
        return golden.encode(net, inputs)
    if net.vectors is None:
        raise DataError("the network carries no test vectors and no inputs were given; pass inputs=")
    return golden.check_codes(net, net.vectors.inputs)


def seeded(net: IntNet, samples: int = 1) -> IntArray:
    """Input codes for a self-test of a network without data: random over its format, every second one 0."""
    dice, fmt = np.random.default_rng(0), net.input.format
    shape = (samples, *net.input.shape) if net.input.static else (net.steps, samples, *net.input.shape)
    codes = dice.integers(fmt.min, fmt.max + 1, shape) * (dice.random(shape) < 0.5)
    return np.clip(codes // fmt.multiple_of * fmt.multiple_of, fmt.min, fmt.max)


def hex_words(rows: IntArray, bits: int) -> bytes:
    r"""Lines of words.

    >>> hex_words(np.array([[-1, 5], [0, -8]]), 4)
    b'f 5\n0 8\n'
    >>> hex_words(np.array([[-1, 5]]), 6)
    b'3f 05\n'
    """
    digits = -(-bits // 4)
    raw = np.asarray(rows, dtype=np.int64).astype(np.uint64)
    if bits < 64:
        raw &= np.uint64(2**bits - 1)
    text = np.full((*raw.shape, digits + 1), ord(" "), dtype=np.uint8)
    for k in range(digits):
        text[..., k] = DIGITS[(raw >> np.uint64(4 * (digits - 1 - k))) & np.uint64(15)]
    text[:, -1, -1] = ord("\n")
    return text.tobytes()


def _signals(net: IntNet, codes: IntArray, run: golden.Run) -> list[tuple[Table, dict[str, Any]]]:
    index = {node.name: k for k, node in enumerate(net.nodes)}
    signals: list[tuple[Table, dict[str, Any]]] = []

    def add(array: IntArray, layer: str, kind: str, fmt: tuple[int, bool], *, over_time: bool, name: str) -> None:
        by_sample = np.ascontiguousarray(array.swapaxes(0, 1) if over_time else array)
        rows = by_sample.shape[0] * (by_sample.shape[1] if over_time else 1)
        table = Table(name, by_sample, rows, *fmt)
        signals.append((table, {"layer": layer, "kind": kind, "axes": ["sample", "step"] if over_time else ["sample"]}))

    source = net.input
    fmt = (source.format.bits, source.format.signed)
    add(codes, source.name, "input", fmt, over_time=not source.static, name=stem(index[source.name], source.name))
    for node in net.neurons:
        name = stem(index[node.name], node.name)
        if node.spec.output == "spike":
            spikes = run.outputs[node.name]
            width = (node.spec.spikes_max.bit_length(), False)
            add(spikes, node.name, "spikes", width, over_time=True, name=f"{name}.spikes")
        for state, fmt_ in node.spec.state_formats().items():
            assert fmt_ is not None
            values, width = run.states[node.name][state], (fmt_.bits, fmt_.signed)
            add(values, node.name, f"state {state}", width, over_time=True, name=f"{name}.{state}")
    trains = net.decoder.name.endswith("_train")
    width = (_whole_bytes(run.scores), True)
    add(run.scores, net.decoder.source, "scores", width, over_time=trains, name="scores")
    return signals


def _whole_bytes(array: IntArray) -> int:
    bits = signed_bits_for(int(array.min()), int(array.max()))
    return next(width for width in (8, 16, 32, 64) if bits <= width)


def _layers(net: IntNet) -> tuple[list[dict[str, Any]], list[Table]]:
    layers, tables = [], []
    for index, node in enumerate(net.nodes):
        found: list[Table] = []
        record = _describe(node, stem(index, node.name), found)
        tables += found
        values = [{"name": t.name.partition(".")[2], **t.record(), **_single(t.array)} for t in found]
        layers.append({"type": _kind(node), **record, "parameters": values})
    return layers, tables


def _kind(node: Node) -> str:
    return next(kind for kind, cls in NODE_TYPES.items() if isinstance(node, cls))


def _single(array: IntArray) -> dict[str, int]:
    return {"value": int(array.reshape(-1)[0])} if array.size == 1 else {}


def _describe(thing: Any, name: str, found: list[Table]) -> dict[str, Any]:
    """The fields of a node as JSON; integer arrays become tables."""
    record: dict[str, Any] = {}
    for f in dataclasses.fields(thing):
        value = getattr(thing, f.name)
        if f.name == "scale" and not isinstance(value, (float, int, type(None))):
            record["scale"] = np.asarray(value, dtype=np.float64).reshape(-1).tolist()
        elif f.name == "params":
            found += [_parameter(f"{name}.{key}", array) for key, array in value.items()]
        elif f.name == "gains" and isinstance(thing, NeuronNode):
            found += [_parameter(f"{name}.gain{k}", array) for k, array in enumerate(value)]
        elif isinstance(value, Product):
            record |= _describe(value, name, found)
        elif f.name == "codes":
            fmt = thing.codes
            found.append(_parameter(f"{name}.codes", fmt, rows=len(fmt)))
        elif f.name == "pad_code":
            found += [_parameter(f"{name}.pad_code", value)] if np.any(value) else []
        else:
            record[f.name] = _plain(value)
    return record


def _parameter(name: str, value: Any, *, rows: int = 1) -> Table:
    array = np.asarray(value, dtype=np.int64)
    bits = signed_bits_for(int(array.min()), int(array.max()))
    return Table(name, array, rows, bits, True)


def _plain(value: Any) -> Any:
    if isinstance(value, NeuronSpec):
        return value.to_dict()
    if isinstance(value, IntFormat) or dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)  # type: ignore[arg-type]
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise Unsupported(f"the vectors cannot describe a value of type {type(value).__name__}")


def _npz(tables: list[Table]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{table.name: table.array for table in tables})  # type: ignore[arg-type]
    return stream.getvalue()
