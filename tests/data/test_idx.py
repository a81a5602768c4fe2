from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spikequant.data import read_idx
from spikequant.data.idx import _parse
from spikequant.law.errors import DataError


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def image() -> np.ndarray:
    return np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path: Path, image: np.ndarray) -> Path:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(image)))
    return path


def test_reads_what_was_written(path: Path, image: np.ndarray) -> None:
    np.testing.assert_array_equal(read_idx(path), image)
    np.testing.assert_array_equal(read_idx(str(path), md5=hashlib.md5(path.read_bytes()).hexdigest()), image)


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=5)))
def test_every_shape_round_trips(array: np.ndarray) -> None:
    np.testing.assert_array_equal(_parse(idx_bytes(array), Path("x")), array)


@given(st.binary(max_size=40))
def test_garbage_is_refused_or_read_never_a_crash(raw: bytes) -> None:
    try:
        array = _parse(raw, Path("x"))
    except DataError:
        return
    assert idx_bytes(array) == raw


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "none.gz")


def test_another_md5(path: Path) -> None:
    with pytest.raises(DataError, match="the published file has 000"):
        read_idx(path, md5="000")


@pytest.mark.parametrize("keep", [0, 5, 15, -1, -9])
def test_truncated_gzip(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError):
        read_idx(path)


def test_not_gzip(path: Path) -> None:
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_idx(path)


def test_flipped_byte_in_the_stream(path: Path) -> None:
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(bytes(packed))
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_idx(path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "nothing"),
        (b"\1\0\x08\1\0\0\0\1\7", "two zero bytes"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "idx type 0x0d"),
        (b"\0\0\x08\0", "incomplete"),
        (b"\0\0\x08\3\0\0\0\1", "incomplete"),
        (b"\0\0\x08\1\0\0\0\3ab", "3 = 3 values, the file holds fewer"),
        (b"\0\0\x08\1\0\0\0\1ab", "1 = 1 values, the file holds more"),
    ],
)
def test_malformed_idx(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(DataError, match=message):
        read_idx(path)
