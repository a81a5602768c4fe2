from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spikequant.data.archives import tar_members
from spikequant.data.checked_files import check_file, read_file
from spikequant.data.npz import read_npz
from spikequant.law.errors import DataError

FIELDS = {"a": ("uint8", 2), "names": ("str", 1)}


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def write_npz(path: Path, a: bytes) -> None:
    np.savez(path, names=np.array(["x", "yy"]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.npy", a)


# --- npz ----------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path: Path, save: object) -> None:
    a = np.arange(6, dtype=np.uint8).reshape(2, 3)
    save(tmp_path / "f.npz", a=a, names=np.array(["x", "yy"]))  # type: ignore[operator]
    found = read_npz(tmp_path / "f.npz", FIELDS)
    np.testing.assert_array_equal(found["a"], a)
    assert found["names"].tolist() == ["x", "yy"]


def test_an_absurd_header_takes_no_memory(tmp_path: Path) -> None:
    write_npz(tmp_path / "f.npz", header((1 << 40, 3)) + b"abc")
    with pytest.raises(DataError, match="a: the header announces 3298534883328 bytes, the file holds"):
        read_npz(tmp_path / "f.npz", FIELDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((2, 2)) + b"abc", "announces 4 bytes, the file holds more or fewer"),
        (header((2, 2)) + b"abcde", "announces 4 bytes, the file holds more or fewer"),
        (header((4,)) + b"abcd", r"uint8 of shape \[4\]; expected uint8 with 2 axes"),
        (header((2, 2), "<f8") + bytes(32), r"float64 of shape \[2, 2\]; expected uint8"),
        (header((2, 2), "|O") + bytes(32), "object of shape"),
        (b"\x93NUMPY\x07\x00", "no array header"),
        (b"", "no array header"),
    ],
)
def test_bad_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    write_npz(tmp_path / "f.npz", content)
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "f.npz", FIELDS)


def test_fields_are_compared(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=np.zeros((1, 1), np.uint8), b=np.zeros(1))
    with pytest.raises(DataError, match="holds a, b; expected a, names"):
        read_npz(tmp_path / "f.npz", FIELDS)


@pytest.mark.parametrize("keep", [0, 10, 100, -30])
def test_damaged_npz(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "f.npz"
    np.savez_compressed(path, a=np.arange(200, dtype=np.uint8).reshape(2, 100), names=np.array(["x"]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a whole npz file"):
        read_npz(path, FIELDS)


def test_flipped_byte_in_npz(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, a=np.zeros((20, 20), np.uint8), names=np.array(["x"]))
    raw = bytearray(path.read_bytes())
    raw[300] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="not a whole npz file"):
        read_npz(path, FIELDS)


# --- tar ----------------------------------------------------------------------------------


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w:xz") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_members_that_are_wanted(tmp_path: Path, mode: str) -> None:
    write_tar(
        tmp_path / "t", [("a/1.bin", b"one"), ("readme", b"no"), ("./a/2.bin", b"two"), ("../a/3.bin", b"no")], mode
    )
    assert dict(tar_members(tmp_path / "t", r"a/\d[.]bin")) == {"a/1.bin": b"one", "a/2.bin": b"two"}


def test_members_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_tar(path, [("a", b"12345")])
    with pytest.raises(DataError, match="a announces 5 bytes, expected at most 4"):
        list(tar_members(path, "a", largest=4))
    write_tar(path, [("a", b"1"), ("./a", b"2")])
    with pytest.raises(DataError, match="is there twice"):
        list(tar_members(path, "a"))
    write_tar(path, [("a", b"123"), ("b", b"123")])
    with pytest.raises(DataError, match="more than 5 bytes together"):
        list(tar_members(path, ".", largest_total=5))
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="a is not a plain file"):
        list(tar_members(path, "a"))


def test_a_header_that_lies_about_its_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.size = 1 << 40
    (tmp_path / "t").write_bytes(info.tobuf() + b"x" * 512)
    with pytest.raises(DataError, match="a announces 1099511627776 bytes"):
        list(tar_members(tmp_path / "t", "a"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("keep", [0, 20, 0.3])
def test_damaged_tar(tmp_path: Path, mode: str, keep: float) -> None:
    path = tmp_path / "t"
    write_tar(path, [("a", np.random.default_rng(0).bytes(9000))], mode)
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(DataError, match="t: "):
        list(tar_members(path, "a"))


# --- files --------------------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for read in (read_file, lambda path: check_file(path, md5="0")):
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(DataError, match=f"{path}: cannot be read"):
                read(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    with pytest.raises(DataError, match="5 bytes; expected at most 4"):
        read_file(tmp_path / "f", largest=4)
