"""The log of a study: a journal of Optuna, one JSON record a line, that no torn end can spoil.

A process may die, or a disk fill up, in the middle of a record.  What is cut off was never acknowledged, so a reader
passes over it and the next writer takes it away before it appends.  A record that acknowledges a finished trial is
on the disk when `append_logs` returns; those before it are there at the latest then.

The file is what `optuna.storages.journal.JournalFileBackend` writes: ``optuna-dashboard FILE`` opens it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, final

from optuna.storages.journal import BaseJournalBackend

from spikequant.law.errors import ArtifactError

CREATE_STUDY, SET_STUDY_ATTR, SET_STATE = 0, 2, 6
"""Operations of Optuna's journal that must not be lost to a power failure either."""


@final
class StudyLog(BaseJournalBackend):
    """A journal file shared by any number of processes on machines that share the file's locks.

    Raises:
        ArtifactError: the file cannot be written (the old records stay as they are), or a record that is not the
            last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut_bytes = 0
        self._offsets = [0]
        try:
            path.touch()
            with self._open_locked() as file:
                self._mend(file)
        except OSError as error:
            raise ArtifactError(self._cannot("write", error)) from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on; an unfinished last one is passed over."""
        number = min(log_number_from, len(self._offsets) - 1)
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[number])
                lines = file.read().split(b"\n")
        except OSError as error:
            raise ArtifactError(self._cannot("read", error)) from error
        whole = lines[:-1]  # behind the last line end there is nothing, or a record that was cut off
        for position, line in enumerate(whole):
            record = _record(line)
            if record is None:
                if position == len(whole) - 1:
                    return
                raise ArtifactError(
                    f"{self.path}: record {number + 1} is damaged, and records follow it; the study cannot be read. "
                    "Take the file back from a copy, or choose another folder"
                )
            if number + 1 == len(self._offsets):
                self._offsets.append(self._offsets[number] + len(line) + 1)
            number += 1
            if number > log_number_from:
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records behind the last whole one."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            with self._open_locked() as file:
                end = self._mend(file)
                try:
                    file.write(text)
                    file.flush()
                    if any(log.get("op_code") in (CREATE_STUDY, SET_STUDY_ATTR, SET_STATE) for log in logs):
                        os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), end)
                    raise
        except OSError as error:
            raise ArtifactError(self._cannot("write", error)) from error

    @contextlib.contextmanager
    def _open_locked(self) -> Iterator[BinaryIO]:
        with self.path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by a process that is killed
            yield file

    def _mend(self, file: BinaryIO) -> int:
        """Leave whole records only, and stand at the end of them."""
        size = file.seek(0, os.SEEK_END)
        start = _start_of_last_line(file, size)
        file.seek(start)
        last = file.read(size - start)
        end = size
        if last and _record(last.rstrip(b"\n")) is None:
            end = start
        elif last and not last.endswith(b"\n"):
            file.write(b"\n")  # the record is whole, its line end is not there
            end = size + 1
        if end < size:
            self.cut_bytes += size - end
            file.truncate(end)
        return file.seek(end)

    def _cannot(self, what: str, error: OSError) -> str:
        return (
            f"cannot {what} the study {self.path}: {error.strerror or error}; what was recorded before is kept. "
            "Make room or give the right to write, then go on with --resume"
        )


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _start_of_last_line(file: BinaryIO, size: int, block: int = 1 << 16) -> int:
    """Where the last line starts that holds anything; 0 for an empty file."""
    end = max(size - 1, 0)  # a line end that closes the last line does not start another
    while end > 0:
        begin = max(0, end - block)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def locked(path: Path) -> BinaryIO:
    """The file `path`, locked for this process as long as it is open.

    Raises:
        ArtifactError: another process has it, or it cannot be written.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ArtifactError(
            f"{path.parent} is being explored by another process; wait for it, or share the study between workers "
            "with --storage"
        ) from error
    return file
