"""The batch files of CIFAR-10 and CIFAR-100: binary records, and the Python version's pickle.

A binary record is the label (CIFAR-100: the coarse, then the fine label), one byte each, and
3,072 bytes of pixels: 1,024 red, 1,024 green, 1,024 blue, rows of 32.  The Python version is a
pickled dictionary of the same pixels and labels.

A pickle is a program.  The one here may do nothing but describe an array: every name that it
asks for is refused except numpy's three for arrays, and those stand for inert records.  No
numpy function, no memory beyond the size of the file, is reachable from it.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

PIXELS = 3 * 32 * 32
Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Images ``[N, 3, 32, 32]`` and labels ``[N]``."""


def parse_binary_batch(raw: bytes, where: str, *, label_bytes: int, classes: int) -> Batch:
    """Images and (fine) labels of a ``.bin`` file, the last of `label_bytes` bytes being the label.

    Raises:
        DataError: no records, half a record, or a label that is no class.
    """
    record = label_bytes + PIXELS
    if not raw or len(raw) % record:
        raise DataError(
            f"{where}: {len(raw)} bytes; expected records of {record} bytes "
            f"({label_bytes} of label, {PIXELS} of pixels), at least one and none cut off"
        )
    table = np.frombuffer(raw, np.uint8).reshape(-1, record)
    y = table[:, label_bytes - 1].astype(np.int64)
    _check_labels(y, where, classes)
    return np.ascontiguousarray(table[:, label_bytes:]).reshape(-1, 3, 32, 32), y


def parse_python_batch(raw: bytes, where: str, *, label_key: str, classes: int) -> Batch:
    """Images and labels of a pickled batch, `label_key` being ``labels`` or ``fine_labels``.

    Raises:
        DataError: not a pickle, one that asks for a name outside arrays, or one that holds
            something else than published batches do.
    """
    try:
        content = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except Exception as error:  # a damaged pickle program can fail in any way
        raise DataError(
            f"{where}: not a whole pickled batch ({type(error).__name__}: {error}); fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds a {type(content).__name__}, expected the dictionary of a CIFAR batch")
    fields = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    missing = [key for key in ("data", label_key) if key not in fields]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(missing)}; it has {', '.join(map(str, fields))}")
    x = _pixels(fields["data"], where)
    y = _labels(fields[label_key], where, len(x))
    _check_labels(y, where, classes)
    return x, y


def _pixels(data: object, where: str) -> npt.NDArray[np.uint8]:
    if not isinstance(data, _Array):
        raise DataError(f"{where}: data is a {type(data).__name__}, expected a uint8 array [N, {PIXELS}]")
    shape, kind, by_columns, content = data.state
    good = kind == "u1" and len(shape) == 2 and shape[1] == PIXELS and shape[0] > 0 and not by_columns
    if not good or len(content) != shape[0] * PIXELS:
        raise DataError(
            f"{where}: data is {kind} of shape {list(shape)} in {len(content)} bytes; "
            f"expected uint8 [N, {PIXELS}] in rows"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, 3, 32, 32)


def _labels(labels: object, where: str, count: int) -> npt.NDArray[np.int64]:
    if not isinstance(labels, list) or len(labels) != count or not all(type(label) is int for label in labels):
        size = f" of {len(labels)}" if isinstance(labels, list) else ""
        raise DataError(f"{where}: labels are a {type(labels).__name__}{size}, expected a list of {count} integers")
    if max(labels) > 255 or min(labels) < 0:
        raise DataError(f"{where}: labels go from {min(labels)} to {max(labels)}, expected small classes")
    return np.array(labels, np.int64)


def _check_labels(y: npt.NDArray[np.int64], where: str, classes: int) -> None:
    if int(y.max()) >= classes:
        sample = int(np.argmax(y))
        raise DataError(f"{where}: sample {sample} has the label {y[sample]}, expected 0 to {classes - 1}")


@final
class _Array:
    """What stands for a numpy array while the pickle runs: its state, checked and never executed."""

    def __init__(self) -> None:
        self.state: tuple[tuple[int, ...], str, bool, bytes] = ((), "", False, b"")

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise DataError("an array in the pickle has another state than numpy's five fields")
        _, shape, kind, by_columns, content = state
        sizes_good = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not (sizes_good and isinstance(kind, _Type) and isinstance(content, bytes)):
            raise DataError("an array in the pickle is not plain bytes with a shape and a type")
        self.state = (shape, kind.name, bool(by_columns), content)


@final
class _Type:
    """What stands for a numpy dtype."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like; a uint8 has none that matters."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _make_type(name: object, *_: object) -> _Type:
    return _Type(name.decode("latin-1") if isinstance(name, bytes) else str(name))


def _array_class(*_: object) -> None:
    raise DataError("the pickle makes an array in a way that published batches do not")


@final
class _ArraysOnly(pickle._Unpickler):
    """The unpickler in Python (its memo is a dictionary: an absurd index costs nothing)."""

    allowed: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _array_class,
        ("numpy", "dtype"): _make_type,
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The inert stand-in of an allowed name."""
        if (module, name) not in self.allowed:
            raise DataError(f"the pickle asks for {module}.{name}, which no published batch does; it was not run")
        return self.allowed[module, name]
