"""Where the figures of a page came from, so that somebody else can get them again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from spikequant.law.errors import ArtifactError


def versions_here() -> dict[str, str]:
    """Versions of what computes here: spikequant, torch, numpy, Python and the kind of platform.

    >>> sorted(versions_here())
    ['numpy', 'platform', 'python', 'spikequant', 'torch']
    """
    found = {name: _installed(name) for name in ("spikequant", "torch", "numpy")}
    return {**found, "python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree on the path, never installed
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How to get the figures again: what was run, on what, with which versions.

    ``hashes`` are SHA-256 by name ("integer network", "weights").  ``date`` is whatever the
    caller passes; nothing here reads a clock, so that the same input gives the same page.

    >>> Provenance(command="spikequant demo", seed=0, versions={"torch": "2.13.0"}).seed
    0
    """

    command: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=versions_here)
    hashes: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    split: str = ""
    date: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return {**asdict(self), "versions": dict(self.versions), "hashes": dict(self.hashes)}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Provenance:
        """The record that `to_dict` wrote.

        Raises:
            ArtifactError: an unknown field.
        """
        known = {f.name for f in fields(Provenance)}
        unknown = sorted(set(record) - known)
        if unknown:
            raise ArtifactError(f"provenance: unknown fields {unknown}; expected some of {', '.join(sorted(known))}")
        return Provenance(**record)
