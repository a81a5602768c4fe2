"""`export`: an integer network as files for another place, in one of the `FORMATS`."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikequant.law.artifact import network_hash
from spikequant.law.atomic import write_folder
from spikequant.law.errors import Unsupported
from spikequant.law.network import IntNet

MANIFEST = "manifest.json"
FORMATS: Mapping[str, str] = {
    "c99": "a C99 library of two files, with an example, build files and a size report",
    "nir": "a plain NIR graph that carries its integers for an exact way back",
    "onnx": "ONNX models of one step and of a whole sequence, integers and standard operators only",
    "vectors": "stimulus and expected spikes and states, as text and npz, for people who write hardware",
}
"""Formats by name; each is a module of `spikequant.readers` with a function ``files(net, **options)``."""
MODULES: Mapping[str, str] = {"nir": "nir_", "onnx": "onnx_"}
"""Module names that are not the format's, because a library has that name."""
VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        files: names and sizes in bytes.
        facts: what the manifest says besides (shapes, formats, sizes; see the format's page).
    """

    folder: Path
    files: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        total = sum(self.files.values())
        return f"{self.folder}: {len(self.files)} files, {total:,} bytes ({', '.join(sorted(self.files))})"


def export(net: IntNet, folder: str | os.PathLike[str], *, format: str, **options: Any) -> Exported:
    """Write `net` into `folder` in the named format, with a manifest that lists every file and its SHA-256.

    Args:
        net: the integer network.
        folder: made if absent.  Files of an earlier export are replaced; a file that is not from an export is not.
        format: one of `FORMATS`.
        **options: of the format, see its module (``inputs`` for all of them).

    Raises:
        Unsupported: an unknown format or option, or a network that the format cannot hold.
        ArtifactError: the folder cannot be written.

    >>> export(None, "build", format="pdf")
    Traceback (most recent call last):
    spikequant.law.errors.Unsupported: format = 'pdf'; expected one of c99, nir, onnx, vectors
    """
    if format not in FORMATS:
        raise Unsupported(f"format = {format!r}; expected one of {', '.join(FORMATS)}")
    module = importlib.import_module(f"spikequant.readers.{MODULES.get(format, format)}")
    for name in options:
        if name not in module.OPTIONS:
            raise Unsupported(f"format {format!r} has no option {name!r}; it has {', '.join(module.OPTIONS)}")
    if not isinstance(net, IntNet):
        raise Unsupported(f"expected an IntNet, got {type(net).__name__}; lower(model, example_input) makes one")
    files, facts = module.files(net, **options)
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {"format": format, "version": VERSION, "network": network_hash(net), **facts, "files": listing}
    text = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    write_folder(folder, {**files, MANIFEST: text}, ours=written_before(Path(folder)))
    sizes = {name: len(content) for name, content in files.items()} | {MANIFEST: len(text)}
    return Exported(Path(folder), sizes, facts)


def written_before(folder: Path) -> set[str]:
    """Names that the manifest in `folder` lists, and its own; nothing where there is no manifest of ours."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = {name for name in record["files"] if Path(name).name == name}
        return {*names, MANIFEST} if record["format"] in FORMATS else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
