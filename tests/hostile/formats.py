"""The formats under attack: sound files, how they are damaged with valid checksums, and what loading may do."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as with_tensors
from tests.conformance.handmade import net as handmade
from tests.hostile.mutations import as_json, changed_bytes, changed_record

from spikequant.law import network
from spikequant.law.artifact import content_hash, network_hash, parse_bytes, to_bytes
from spikequant.law.errors import ArtifactError, DataError, PlanError, Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.presets import lif_leak_first
from spikequant.law.products import Product
from spikequant.law.spec import Leak, StateFormat
from spikequant.plan import Plan


@dataclass(frozen=True)
class Case:
    """A damaged file: its content, how it was damaged, and what a blind change may at best still be."""

    content: bytes
    kind: str
    unchanged: Any = None  # what a successful load must give; None: anything sound
    suffix: str = ""


@dataclass(frozen=True)
class Format:
    """A format: how files are damaged, how they are loaded, and what loading may raise."""

    suffix: str
    damaged: Callable[[random.Random], Case]
    load: Callable[[Path], Any]  # gives what was read, for comparison; asserts nothing
    errors: tuple[type[Exception], ...]


# -- .spq ----------------------------------------------------------------------------------


@cache
def spq_files() -> tuple[bytes, ...]:
    return tuple(to_bytes(handmade(seed)[0]) for seed in (0, 1, 2, 5, 9))


def spq_case(dice: random.Random) -> Case:
    sound = dice.choice(spq_files())
    if dice.random() < 0.35:
        content, kind = changed_bytes(sound, dice)
        return Case(content, kind, network_hash(parse_bytes(sound)))
    length = struct.unpack("<Q", sound[:8])[0]
    record = json.loads(json.loads(sound[8 : 8 + length])["__metadata__"]["spikequant"])["network"]
    tensors = tensors_of(sound)
    kind = "tensors"
    if dice.random() < 0.75:
        record, kind = changed_record(record, dice)
    if kind == "tensors" or dice.random() < 0.1:
        kind = _changed_tensor(tensors, dice)
    text, more = as_json({"network": record, "sha256": "?"}, dice)
    try:
        canonical = json.dumps(json.loads(text)["network"], sort_keys=True, separators=(",", ":"))
        text = text.replace('"?"', f'"{content_hash(canonical, tensors)}"')
    except (ValueError, RecursionError):
        pass
    return Case(with_tensors(tensors, metadata={"spikequant": text}), f"hashed {kind}{more}")


def _changed_tensor(tensors: dict[str, Any], dice: random.Random) -> str:
    name = dice.choice(sorted(tensors))
    array = tensors[name]
    kind = dice.choice(("huge", "negative", "other shape", "other type", "empty", "lost", "more", "wide"))
    changes: dict[str, Callable[[], Any]] = {
        "huge": lambda: np.full(array.shape, 2**62, dtype=np.int64),
        "negative": lambda: -array.astype(np.int64) - 1,
        "other shape": lambda: array.reshape(-1)[: dice.randint(0, 3)],
        "other type": lambda: array.astype(dice.choice((np.float64, np.float32, np.uint8, np.int64, bool))),
        "empty": lambda: np.zeros((0, 3), dtype=np.int8),
        "wide": lambda: np.zeros((1, *array.shape, dice.choice((1, 2, 2**12))), dtype=np.int8),
    }
    if kind == "lost":
        del tensors[name]
    else:
        tensors["more" if kind == "more" else name] = array if kind == "more" else np.ascontiguousarray(changes[kind]())
    return f"tensor: {kind}"


def load_spq(path: Path) -> str:
    from spikequant.law.artifact import load

    net = load(path)
    found = network_hash(net)
    if network_hash(parse_bytes(to_bytes(net))) != found:
        raise AssertionError("a network that was read is written as another one")
    return found


# -- .nir ----------------------------------------------------------------------------------


def small_net() -> network.IntNet:
    """A network that NIR can hold: a convolution, pooling, LIF, and a linear layer with LIF."""
    leak = Leak(form="multiply", bits=4)
    spec = lif_leak_first(reset="zero").replace(leak=leak, v=StateFormat(format=IntFormat(bits=12)))

    def lif(name: str, shape: tuple[int, ...], source: str) -> network.NeuronNode:
        params = {"theta": 40, "v_load": 16, "v_shift": 4, "leak": 12, "bias": 3}
        return network.NeuronNode(
            name=name, shape=shape, inputs=(network.Edge(source),), gains=(np.array(2),), spec=spec,
            params={key: np.array(value, dtype=np.int64) for key, value in params.items()}, scale=np.array(0.05),
        )  # fmt: skip

    rng = np.random.default_rng(0)
    conv = Product(kind="conv", codes=rng.integers(-8, 8, (3, 1, 3, 3)), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    linear = Product(kind="linear", codes=rng.integers(-8, 8, (4, 12)))
    synapse = {"format": IntFormat(bits=4), "bits": 4}
    nodes = (
        network.InputNode(name="input", shape=(1, 4, 4), format=IntFormat(bits=1, signed=False), static=False),
        network.SynapseNode(name="conv", shape=(3, 4, 4), inputs=(network.Edge("input"),), product=conv, **synapse),
        lif("lif1", (3, 4, 4), "conv"),
        network.PoolNode(
            name="pool",
            shape=(3, 2, 2),
            inputs=(network.Edge("lif1"),),
            kind="sum",
            kernel=(2, 2),
            stride=(2, 2),
            padding=(0, 0),
        ),
        network.ReshapeNode(name="flat", shape=(12,), inputs=(network.Edge("pool"),)),
        network.SynapseNode(name="fc", shape=(4,), inputs=(network.Edge("flat"),), product=linear, **synapse),
        lif("lif2", (4,), "fc"),
    )
    return network.IntNet(nodes=nodes, decoder=network.Decoder(name="spike_count", source="lif2"), steps=4)


@cache
def nir_file() -> tuple[bytes, str]:
    from spikequant.readers.nir_ import files

    return files(small_net())[0]["network.nir"], network_hash(small_net())


def nir_case(dice: random.Random) -> Case:
    sound, known = nir_file()
    if dice.random() < 0.6:
        content, kind = changed_bytes(sound, dice)
        return Case(content, kind, known)
    import h5py  # type: ignore[import-untyped]

    stream = io.BytesIO(sound)
    try:
        with h5py.File(stream, "r+") as file:
            kind, forged = _changed_tree(file, dice)
    except (KeyError, ValueError, RuntimeError, OSError):  # a change that h5py does not make
        content, kind = changed_bytes(sound, dice)
        return Case(content, kind, known)
    content = stream.getvalue()
    return Case(content, f"tree: {kind}", None if forged else known)


def _changed_tree(file: Any, dice: random.Random) -> tuple[str, bool]:
    """One change of the tree; and whether it touched the record, so that another sound network may come out."""
    import h5py

    places: list[str] = []
    file.visit(places.append)
    place = dice.choice(places)
    kind = dice.choice(("drop", "odd array", "rename", "copy", "link", "huge", "deep", "text", "record", "network"))
    values = (
        np.nan,
        np.inf,
        -1,
        0,
        2**62,
        np.zeros((0, 2)),
        np.ones((2, 2, 2)),
        -np.ones(4),
        np.ones(4, "i1"),
        1 + 2j,
        b"x",
        "x" * 70000,
    )
    if kind == "drop":
        del file[place]
    elif kind in ("odd array", "text"):
        del file[place]
        file[place] = (
            dice.choice(values) if kind == "odd array" else dice.choice(("LIF", "NIRGraph", "os.system", "", "\u202e"))
        )
    elif kind == "rename":
        file.move(place, place + dice.choice(("_", ".", "x" * 300, "\n")))
    elif kind == "copy":
        file.copy(place, file, name=f"{place.rpartition('/')[0]}/again" if "/" in place else "again")
    elif kind == "link":
        del file[place]
        file[place] = dice.choice((h5py.SoftLink("/node"), h5py.ExternalLink("/etc/passwd", "/"), file["/"]))
    elif kind == "huge":
        del file[place]
        file.create_dataset(place, shape=(2**20, 2**20), dtype="f4", chunks=(64, 64), compression="gzip")
    elif kind == "deep":
        file.create_group(f"node/nodes/{'/'.join(['nodes'] * dice.choice((3, 40, 400)))}")
    else:
        return f"{kind} {_changed_record_group(file, kind, dice)}", True
    return kind, False


def _changed_record_group(file: Any, key: str, dice: random.Random) -> str:
    raw = file[f"spikequant/{key}"][()].tobytes()
    if key == "network":
        raw, how = changed_bytes(raw, dice) if dice.random() < 0.5 else (lambda c: (c.content, c.kind))(spq_case(dice))
    else:
        record, how = changed_record(json.loads(raw), dice)
        text, more = as_json(record, dice)
        raw, how = text.encode("utf-8", "surrogatepass"), how + more
    del file[f"spikequant/{key}"]
    file[f"spikequant/{key}"] = np.frombuffer(raw, dtype=np.uint8)
    return how


def load_nir_integers(path: Path) -> str:
    from spikequant.readers.nir_ import load_nir

    return network_hash(load_nir(path))


def load_nir_graph(path: Path) -> None:
    """The plain graph has no checksum: a changed value is another graph, and no more can be said."""
    from spikequant.frontends import from_nir

    from_nir(path, dt=1e-3, integrator="euler", reset="v_reset")


# -- plans ---------------------------------------------------------------------------------

PLAN = {
    "rules": [
        {"match": "fc1", "weight": {"bits": 8, "clipping": "mse"}, "input": {"bits": 8, "limit": 1.5}},
        {
            "match": "fc*",
            "weight": {"quantizer": "lsq", "bits": 4, "options": {"grid": "symmetric"}},
            "bias": {"bits": 8},
        },
        {"match": "lif*", "membrane": {"bits": 6, "rounding": "stochastic", "limit": 2.0}, "leak": {"bits": 8}},
    ],
    "fraction_bits": 4,
    "seed": 7,
}


def plan_case(dice: random.Random) -> Case:
    toml = dice.random() < 0.5
    plan = Plan.from_dict(PLAN)
    text = plan.to_toml() if toml else json.dumps(plan.to_dict())
    suffix = ".toml" if toml else ".json"
    if toml or dice.random() < 0.3:
        content, kind = changed_bytes(text.encode(), dice)
        if toml and dice.random() < 0.5:
            content, kind = _changed_toml(text, dice)
        return Case(content, kind, suffix=suffix)
    record, kind = changed_record(plan.to_dict(), dice)
    text, more = as_json(record, dice)
    return Case(text.encode("utf-8", "surrogatepass"), kind + more, suffix=suffix)


def _changed_toml(text: str, dice: random.Random) -> tuple[bytes, str]:
    lines = text.splitlines()
    kind = dice.choice(("double line", "drop line", "odd value", "deep", "section"))
    k = dice.randrange(len(lines))
    if kind == "double line":
        lines.insert(k, lines[k])
    elif kind == "drop line":
        del lines[k]
    elif kind == "odd value":
        value = dice.choice(
            ("nan", "inf", "-1", "1e400", "'x'", "[]", "1979-05-27", "true", "{}", "9" * 5000, "0x7fffffffffffffffff")
        )
        lines[k] = f"{lines[k].partition('=')[0] or 'more'} = {value}"
    elif kind == "deep":
        lines.append("deep = " + "[" * dice.choice((10, 5000)) + "]" * 10)
    else:
        lines.append(dice.choice(("[rules]", "[[seed]]", "[a.b.c]", "[rules.weight]")))
    return "\n".join(lines).encode(), f"toml: {kind}"


def load_plan(path: Path) -> None:
    """A plan that is read says what the file says: every value in the file is in the plan, as it stands there."""
    import tomllib

    plan = Plan.load(path)
    text = path.read_text(encoding="utf-8")
    raw = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    if Plan.from_dict(plan.to_dict()) != plan or not _within(raw, plan.to_dict()):
        raise AssertionError(f"the plan {plan.to_dict()} is not what the file says: {raw}")


def _within(part: Any, whole: Any) -> bool:
    """Whether all values of `part` stand in `whole`; a null says as much as nothing."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            v is None or (k in whole and _within(v, whole[k])) for k, v in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole) and isinstance(part, str) == isinstance(whole, str)


FORMATS = {
    "spq": Format(".spq", spq_case, load_spq, (ArtifactError,)),
    "nir integers": Format(".nir", nir_case, load_nir_integers, (ArtifactError,)),
    "nir graph": Format(".nir", nir_case, load_nir_graph, (DataError, Unsupported)),
    "plan": Format("", plan_case, load_plan, (PlanError,)),
}
