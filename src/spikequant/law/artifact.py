"""The `.spq` file: one safetensors file with a JSON header.  docs/format.md has the bytes.

The header's ``__metadata__`` holds one string, ``spikequant``: JSON with ``network`` (schema
version, nodes, edges, specs, decoder, metadata; arrays are named there and stored as
tensors of the smallest integer type) and ``sha256`` over the canonical text of ``network``
and every tensor.  One key, because safetensors does not fix the order of several.
Nothing is executed on load, no pickle is involved, and the widths are proven again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as as_bytes
from safetensors.numpy import save_file

from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.law.network import IntNet
from spikequant.law.record import NODE_TYPES as NODE_TYPES
from spikequant.law.record import Tensors, pack, unpack
from spikequant.law.record import smallest as smallest
from spikequant.law.widths import prove_network

MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Python and numpy raise where a value has a form that no rule foresaw."""
TYPES = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}


def save(net: IntNet, path: str | os.PathLike[str]) -> None:
    """Write `net` to `path`: a temporary file in the same folder, synced, then renamed.

    Raises:
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    tensors, header = _content(net)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}; nothing was changed") from error


def to_bytes(net: IntNet) -> bytes:
    """What `save` writes."""
    tensors, header = _content(net)
    content: bytes = as_bytes(tensors, metadata=header)
    return content


def _content(net: IntNet) -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    text = _text(pack(net, tensors))
    tensors = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    return tensors, {"spikequant": f'{{"network":{text},"sha256":"{content_hash(text, tensors)}"}}'}


def load(path: str | os.PathLike[str]) -> IntNet:
    """Read a network; its hash must match its content.

    Raises:
        ArtifactError: missing, truncated or changed file, unknown version or field.
    """
    source = Path(path)
    if not os.path.isfile(source):  # Path.is_file raises where a name is too long
        raise ArtifactError(f"{source} is not a file; expected a network written by IntNet.save (.spq)")
    try:
        return parse_bytes(source.read_bytes())
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"{source}: {error}") from error


def parse_bytes(content: bytes) -> IntNet:
    """The network in the bytes of a `.spq` file.

    Raises:
        ArtifactError: the bytes are no whole and sound file; nothing else is raised for any bytes.
    """
    try:
        header, tensors = _opened(content)
        outer = strict_json(header["spikequant"], "the header")
        if not isinstance(outer, dict) or set(outer) != {"network", "sha256"}:
            raise ArtifactError("the header is malformed: expected an object of network and sha256")
        if content_hash(_text(outer["network"]), tensors) != outer["sha256"]:
            raise ArtifactError("it was changed after it was written: its SHA-256 does not match its content")
        net = unpack(outer["network"], tensors)
        prove_network(net)
        return net
    except ArtifactError:
        raise
    except SpikequantError as error:
        raise ArtifactError(str(error)) from error
    except MALFORMED as error:
        raise ArtifactError(f"the header is malformed ({type(error).__name__}: {error})") from error


def _opened(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """The metadata and the tensors of a safetensors file."""
    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]
        header = strict_json(content[8 : 8 + int.from_bytes(content[:8], "little")], "the header of safetensors")
        metadata = header.get("__metadata__") or {}
        if "spikequant" not in metadata:
            raise ArtifactError("it is a safetensors file, but not a spikequant network")
        return metadata, {name: _tensor(entry) for name, entry in entries}
    except ArtifactError:
        raise
    except (SafetensorError, *MALFORMED) as error:
        raise ArtifactError(f"it is not a readable .spq file ({error}); copy or export it again") from error


def _tensor(entry: dict[str, Any]) -> Any:
    if entry["dtype"] not in TYPES:
        raise ArtifactError(f"it holds a tensor of the type {entry['dtype']}; expected some of {', '.join(TYPES)}")
    dtype = np.dtype(TYPES[entry["dtype"]]).newbyteorder("<")
    return np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])


def strict_json(text: str | bytes, where: str) -> Any:
    """JSON without a key that is there twice, and without NaN or infinity.

    Raises:
        ArtifactError: anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ArtifactError(f"{where}: the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
        return found

    def refuse(word: str) -> None:
        raise ArtifactError(f"{where}: {word} is no number of JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except ArtifactError:
        raise
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ArtifactError(f"{where} is malformed ({type(error).__name__}: {error})") from error


def content_hash(text: str, tensors: Tensors) -> str:
    """SHA-256 over the JSON text and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def network_hash(net: IntNet) -> str:
    """The hash that a saved file of this network carries."""
    tensors: Tensors = {}
    return content_hash(_text(pack(net, tensors)), tensors)


def _text(record: dict[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN."""
    try:
        return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the network's metadata or scales cannot be written as JSON: {error}") from error
