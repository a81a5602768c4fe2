"""N-MNIST from its published event files."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from spikequant.data.archives import tar_members
from spikequant.data.checked_files import check_file, read_file
from spikequant.data.dataset import DataSet, Split
from spikequant.data.frames import FrameSource, TimeSteps, choose_steps
from spikequant.data.nmnist import FOLDERS, SHAPE, SIDE, WINDOW_US
from spikequant.data.nmnist_events import LARGEST_RECORDING, parse_nmnist
from spikequant.data.places import Form, Places
from spikequant.data.splits import held_out
from spikequant.law.errors import DataError

SUBSET_FILE = "nmnist_1100_raw.tar.xz"
SUBSET_SHA256 = "f2fd83f82e214f23c33e61ad3bdf618b7a1232592d89fc1cdb085b3b67e275ef"
ZIP_MD5 = {"train.zip": "20959b8e626244a1b502305a9e6e2031", "test.zip": "69ca8762b2fe404d9b9bad1103e97832"}
_UNPACKED = Form("the event files unpacked", ("Train/*/*.bin", "Test/*/*.bin"))
_ZIPPED = Form("the two published zip files", ("train.zip", "test.zip"))
_SUBSET = Form("1,100 of the event files", (SUBSET_FILE,))
RAW_PLACES = Places(
    "n-mnist-raw",
    FOLDERS,
    (_UNPACKED, _ZIPPED, _SUBSET),
    "They are published at www.garrickorchard.com/datasets/n-mnist; with a network, download=True (at the shell "
    "--download) fetches them by the library tonic.",
)
_NAME = re.compile(r"(?:Train|Test)/([0-9])/([0-9]{1,6})[.]bin")
Read = Callable[[str], bytes]


@final
class RawRecordings:
    """Event files that are read and checked when they are asked for."""

    def __init__(self, read: Callable[[str], bytes], names: tuple[str, ...], where: Path) -> None:
        self._read = read
        self._names = names
        self._where = where

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and microsecond of each event of a sample."""
        name = self._names[sample]
        events = parse_nmnist(self._read(name), f"{self._where}/{name}")
        return (events.p * SIDE + events.y) * SIDE + events.x, events.t_us


def load_nmnist_raw(
    folder: Path | str | None = None,
    *,
    steps: int | None = None,
    step_ms: float | None = None,
    counts: bool = False,
) -> DataSet:
    """N-MNIST from its published event files, with the published training and test sets.

    Reads ``Train/<digit>/<number>.bin`` and ``Test/...``, or ``train.zip`` and ``test.zip``, or
    the subset of 1,000 + 100 of them in one tar.xz.  Samples are in the order of their numbers,
    which is that of MNIST.  A tenth of the training set is held out as validation by
    ``held_out("n-mnist-raw-validation", labels, N // 10)``.

    Layout ``[T, N, 2, 34, 34]``, channel 1 brighter, 1 where the pixel sent an event in the
    step, with `counts` how many; by default 10 steps of 34 ms, events after 340 ms are left
    out.  Files are read when a batch needs them.

    Raises:
        DataError: files are not there or of another layout; on a batch, a damaged file.
    """
    found, form = RAW_PLACES.find(folder)
    time = choose_steps("n-mnist-raw", WINDOW_US, 1, steps, step_ms)
    names, read, where = _open(found, form)
    train, test = (_source(names, read, where, part, (time, counts)) for part in ("Train", "Test"))
    is_validation = held_out("n-mnist-raw-validation", train.labels, len(train.labels) // 10)
    notes = ("1,000 of 60,000 training and 100 of 10,000 test recordings",) if form is _SUBSET else ()
    return DataSet(
        name="n-mnist-raw",
        splits={
            "train": Split(train, np.flatnonzero(~is_validation)),
            "validation": Split(train, np.flatnonzero(is_validation)),
            "test": Split(test, np.arange(len(test.labels))),
        },
        class_names=tuple("0123456789"),
        sample_shape=SHAPE,
        layout="TNCHW",
        scale=1.0,
        steps=time.steps,
        step_ms=time.step_ms,
        notes=notes,
    )


def _open(found: Path, form: Form) -> tuple[list[str], Read, Path]:
    """Names of the event files, how to read one, and where they lie."""
    if form is _UNPACKED:
        names = [
            path.relative_to(found).as_posix() for part in ("Train", "Test") for path in found.glob(f"{part}/*/*.bin")
        ]
        return names, lambda name: read_file(found / name, largest=LARGEST_RECORDING), found
    if form is _ZIPPED:
        archives = {part: _Zip(found / f"{part.lower()}.zip") for part in ("Train", "Test")}
        names = [name for part, archive in archives.items() for name in archive.names(f"{part}/")]
        return names, lambda name: archives[name.split("/")[0]].read(name), found
    check_file(found / SUBSET_FILE, sha256=SUBSET_SHA256)
    files = dict(tar_members(found / SUBSET_FILE, "(Train|Test)/.*[.]bin", largest=LARGEST_RECORDING))
    return list(files), files.__getitem__, found / SUBSET_FILE


def _source(names: list[str], read: Read, where: Path, part: str, frames: tuple[TimeSteps, bool]) -> FrameSource:
    """The recordings of ``Train`` or ``Test``, sorted by their numbers."""
    mine = [name for name in names if name.startswith(f"{part}/")]
    numbered = [(int(match.group(2)), int(match.group(1)), name) for name in mine if (match := _NAME.fullmatch(name))]
    if not numbered:
        raise DataError(f"{where}: no {part}/<digit>/<number>.bin in it; expected the layout of the published N-MNIST")
    if len(numbered) < len(mine):
        strange = next(name for name in mine if not _NAME.fullmatch(name))
        raise DataError(f"{where}: {strange} is not {part}/<digit 0 to 9>/<number>.bin; move it elsewhere")
    numbered.sort()
    labels = np.array([digit for _, digit, _ in numbered], np.int64)
    return FrameSource(RawRecordings(read, tuple(name for *_, name in numbered), where), labels, SHAPE, *frames)


@final
class _Zip:
    """A published zip file; its members are read one at a time."""

    def __init__(self, path: Path) -> None:
        check_file(path, md5=ZIP_MD5[path.name])
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path}: not a whole zip file ({error}); fetch it again") from error

    def names(self, start: str) -> list[str]:
        """Event files whose names begin with `start`."""
        return [name for name in self._archive.namelist() if name.startswith(start) and name.endswith(".bin")]

    def read(self, name: str) -> bytes:
        """One member, if it does not announce an absurd size."""
        info = self._archive.getinfo(name)
        if info.file_size > LARGEST_RECORDING:
            raise DataError(
                f"{self._path}: {name} announces {info.file_size} bytes, at most {LARGEST_RECORDING} are read"
            )
        try:
            return self._archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise DataError(f"{self._path}: {name} is damaged ({error}); fetch the file again") from error
