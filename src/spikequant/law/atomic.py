"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from spikequant.law.errors import ArtifactError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary file beside `path` that is synced and renamed onto it if the block succeeds.

    Raises:
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    target = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {target}: {error}; nothing was changed. Choose a folder that exists and can be written"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_folder(folder: str | os.PathLike[str], files: Mapping[str, bytes], *, ours: Collection[str] = ()) -> None:
    """Write `files` (name to content, the last one last) into `folder`.

    A new folder appears whole or not at all: it is filled beside its place and renamed.  In a folder that is there,
    everything is first written beside it, so a full disk changes nothing; then file after file is renamed into place,
    and those of `ours` that are no longer written are removed.

    Args:
        folder: made if absent, with its parents.
        files: plain names, no folders.
        ours: names that an earlier export wrote and this one may replace.

    Raises:
        ArtifactError: the folder cannot be written, or holds a file of that name that is not ours.
    """
    target = Path(folder)
    _refuse_strangers(target, files, ours)
    staging = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.chmod(staging, 0o777 & ~_umask())
        for name, content in files.items():
            with open(Path(staging, name), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            _move_into(Path(staging), target, list(files), ours)
        else:
            os.replace(staging, target)
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error}. Choose a folder that can be written") from error
    finally:
        if staging:
            shutil.rmtree(staging, ignore_errors=True)


def _refuse_strangers(target: Path, files: Mapping[str, bytes], ours: Collection[str]) -> None:
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{target} is a file; expected a folder to write into")
    for name in files:
        if os.path.lexists(target / name) and name not in ours:
            raise ArtifactError(
                f"{target / name} is there and was not written by an export; nothing was changed. "
                "Choose an empty folder, or move that file away"
            )


def _move_into(staging: Path, target: Path, names: list[str], ours: Collection[str]) -> None:
    (target / names[-1]).unlink(missing_ok=True)  # the listing comes last: a folder without one is unfinished
    for name in sorted(set(ours) - set(names)):
        (target / name).unlink(missing_ok=True)
    for name in names:
        os.replace(staging / name, target / name)
