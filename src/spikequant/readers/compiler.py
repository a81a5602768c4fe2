"""The system's C compiler, and the cache of what it made.

A library is kept in a cache folder under the hash of text, compiler, options and processor (``SPIKEQUANT_CACHE``,
else ``$XDG_CACHE_HOME/spikequant``, else ``~/.cache/spikequant``).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from spikequant.law.errors import ArtifactError, Unsupported

DIGEST = 32


def find_compiler() -> str | None:
    """Path of the system's C compiler: ``$CC``, cc, gcc or clang; None without one."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    return None


def cache_folder() -> Path:
    """Where compiled networks and kernels are kept; made if absent, for this user only.

    Raises:
        ArtifactError: it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SPIKEQUANT_CACHE") or Path(home) / "spikequant")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ArtifactError(f"cannot make {folder}: {error}; set SPIKEQUANT_CACHE to a folder of yours") from error
    return folder


def shared_object(text: str, flags: Sequence[str], *, libraries: Sequence[str] = ()) -> ctypes.CDLL:
    """C text as a loaded shared library, from the cache if it is there.

    Raises:
        Unsupported: there is no C compiler, or it failed.
    """
    compiler = find_compiler()
    if compiler is None:
        raise Unsupported(
            "no C compiler was found (tried $CC, cc, gcc, clang); install one, or use sq.readers.golden.run"
        )
    key = hashlib.sha256("\n".join([compiler, *flags, *libraries, machine(), text]).encode()).hexdigest()
    folder = cache_folder()
    path = folder / f"{key}.so"
    if _is_whole(path):
        with contextlib.suppress(OSError):  # one of another system is made again
            return ctypes.CDLL(str(path))
    _compile(compiler, flags, libraries, text, path)
    return ctypes.CDLL(str(path))


def _is_whole(path: Path) -> bool:
    """Whether a library ends in the digest of the rest: to load one that was cut short kills the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


@cache
def machine() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return f"{platform.machine()} {platform.processor()} {flags}"


def _compile(compiler: str, flags: Sequence[str], libraries: Sequence[str], text: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build.") as folder:
        written, made = Path(folder, "network.c"), Path(folder, "network.so")
        written.write_text(text, encoding="utf-8")
        command = [compiler, *flags, "-fPIC", "-shared", "-o", str(made), str(written), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unsupported(f"{compiler} could not compile the network:\n{done.stderr[:2000]}")
        content = made.read_bytes()
        made.write_bytes(content + hashlib.sha256(content).digest())  # loaders ignore what follows the last section
        os.replace(made, path)
