from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.data import cifar as module
from spikequant.data import load_cifar10, load_cifar100
from spikequant.data.cifar_batches import PIXELS, parse_binary_batch, parse_python_batch
from spikequant.data.cifar_sheets import read_sheet
from spikequant.law.errors import DataError


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return (b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<I", len(raw))) + raw


def python2_pickle(x: np.ndarray, labels: list[int], key: str = "labels", dtype: str = "u1") -> bytes:
    """A batch as Python 2 wrote the published ones: protocol 2, strings, numpy.core.multiarray."""
    flat = x.reshape(len(x), -1)
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text("b") + b"\x87Rq\x09"
    array += b"(K\x01" + b"".join(b"M" + struct.pack("<H", size) for size in flat.shape) + b"\x86"
    array += b"cnumpy\ndtype\nq\x0a" + text(dtype) + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN"
    array += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(flat.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(text(f"image_{i}.png") for i in range(len(x))) + b"e"
    items = [(key, numbers), ("batch_label", text("training batch 1 of 5")), ("data", array), ("filenames", names)]
    return b"\x80\x02}q\x01(" + b"".join(text(name) + value for name, value in items) + b"u."


def binary(x: np.ndarray, *labels: list[int]) -> bytes:
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, x.reshape(len(x), -1)], axis=1).tobytes()


def parse(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    return parse_python_batch(raw, "batch", label_key="labels", classes=10)


# --- batches ------------------------------------------------------------------------------


def test_python_2_pickle() -> None:
    x = images(300)
    labels = [i % 10 for i in range(300)]
    raw = python2_pickle(x, labels)
    assert pickle.loads(raw, encoding="bytes")[b"labels"] == labels, "the test writes what pickle reads"
    found, y = parse(raw)
    np.testing.assert_array_equal(found, x)
    assert y.tolist() == labels


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_of_this_numpy(protocol: int) -> None:
    x = images(3)
    found, y = parse(pickle.dumps({"data": x.reshape(3, -1), "labels": [1, 2, 3]}, protocol=protocol))
    np.testing.assert_array_equal(found, x)
    assert y.tolist() == [1, 2, 3]


def test_binary_records() -> None:
    x = images(4)
    found, y = parse_binary_batch(binary(x, [3, 1, 4, 1]), "f", label_bytes=1, classes=10)
    np.testing.assert_array_equal(found, x)
    assert y.tolist() == [3, 1, 4, 1]
    found, y = parse_binary_batch(binary(x, [19, 19, 19, 19], [99, 0, 5, 7]), "f", label_bytes=2, classes=100)
    np.testing.assert_array_equal(found, x)
    assert y.tolist() == [99, 0, 5, 7]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes; expected records of 3073 bytes"),
        (bytes(PIXELS), "3072 bytes; expected records of 3073"),
        (bytes(2 * PIXELS + 3), "none cut off"),
        (b"\x0a" + bytes(PIXELS), "sample 0 has the label 10, expected 0 to 9"),
    ],
)
def test_bad_binary_records(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_binary_batch(raw, "f", label_bytes=1, classes=10)


class Evil:
    def __init__(self, call: tuple[object, tuple[object, ...]]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def test_a_pickle_may_not_run_anything(tmp_path: Path) -> None:
    import os

    flag = tmp_path / "ran"
    for call in ((os.mkdir, (str(flag),)), (eval, ("1",)), (getattr, ("", "join")), (np.zeros, (10**12,))):
        with pytest.raises(DataError, match="the pickle asks for .*, which no published batch does; it was not run"):
            parse(pickle.dumps({"data": Evil(call), "labels": [1]}))
    assert not flag.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # ndarray((2147483647,)): would take 16 GiB
        b"cnumpy.core.multiarray\nscalar\n.",
        b"cnumpy\nload\n.",
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo index of 2^31
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of length 2^63
        b"Pid\n.",
        b"\x80\x02\x82\x01.",
        b"}(U\x01aK\x01ub.",
    ],
)
def test_hostile_programs_are_refused(program: bytes) -> None:
    with pytest.raises(DataError):
        parse(program)


@given(st.binary(max_size=60))
def test_garbage_never_crashes(raw: bytes) -> None:
    with pytest.raises(DataError):
        parse(raw)


def test_truncated_and_flipped_pickles() -> None:
    raw = python2_pickle(images(1), [1])
    for keep in range(0, len(raw), 97):
        with pytest.raises(DataError):
            parse(raw[:keep])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list, expected the dictionary"),
        ({"data": images(1).reshape(1, -1)}, "no labels; it has data"),
        ({"labels": [1]}, "no data; it has labels"),
        ({"data": b"abc", "labels": [1]}, "data is a bytes"),
        ({"data": images(1).reshape(1, -1).astype(np.int64), "labels": [1]}, "data is i8"),
        ({"data": images(2).reshape(1, -1), "labels": [1]}, r"of shape \[1, 6144\]"),
        ({"data": np.asfortranarray(images(2).reshape(2, -1)), "labels": [1, 1]}, "in rows"),
        ({"data": np.array([[1]], object), "labels": [1]}, "not plain bytes"),
        ({"data": images(1).reshape(1, -1), "labels": [1, 2]}, "a list of 2, expected a list of 1 integers"),
        ({"data": images(1).reshape(1, -1), "labels": [True]}, "expected a list of 1 integers"),
        ({"data": images(1).reshape(1, -1), "labels": [-1]}, "labels go from -1 to -1"),
        ({"data": images(1).reshape(1, -1), "labels": [10**30]}, "expected small classes"),
        ({"data": images(1).reshape(1, -1), "labels": [10]}, "sample 0 has the label 10"),
    ],
)
def test_batches_that_hold_something_else(content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(pickle.dumps(content, protocol=4))


def test_a_pickle_that_lies_about_its_size() -> None:
    raw = python2_pickle(images(1), [1]).replace(b"M\x01\x00M\x00\x0c\x86", b"M\xff\xffM\x00\x0c\x86")
    with pytest.raises(DataError, match=r"of shape \[65535, 3072\] in 3072 bytes"):
        parse(raw)


# --- whole data sets ----------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray, np.ndarray]:
    """CIFAR-10 with 10 + 2 images: python and binary version, unpacked and packed, each in its own folder."""
    x, y = images(12), np.arange(12) % 10
    parts = [slice(2 * k, 2 * k + 2) for k in range(6)]
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    python = {name: python2_pickle(x[part], y[part].tolist()) for name, part in zip(names, parts, strict=True)}
    records = {f"{name}.bin": binary(x[part], y[part].tolist()) for name, part in zip(names, parts, strict=True)}
    published = {}
    for version, files in ((module._CIFAR10.python, python), (module._CIFAR10.binary, records)):
        kind = "python" if files is python else "binary"
        (tmp_path / f"{kind}-files").mkdir()
        (tmp_path / f"{kind}-archive").mkdir()
        archive = tmp_path / f"{kind}-archive" / version.archive
        with tarfile.open(archive, "w:gz") as tar:
            for name, raw in {**files, "readme.html": b"<html>"}.items():
                (tmp_path / f"{kind}-files" / name).write_bytes(raw)
                info = tarfile.TarInfo(f"{version.folder}/{name}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
        sums = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
        test = {name: sums.pop(name) for name in list(sums)[-1:]}
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        published[kind] = replace(version, md5=md5, train=sums, test=test)
    monkeypatch.setattr(module, "_CIFAR10", replace(module._CIFAR10, **published, images=(10, 2)))
    return tmp_path, x, y


@pytest.mark.parametrize("kind", ["python-files", "python-archive", "binary-files", "binary-archive"])
def test_every_published_form_gives_the_same(small: tuple[Path, np.ndarray, np.ndarray], kind: str) -> None:
    folder, x, y = small
    data = load_cifar10(folder / kind)
    np.testing.assert_array_equal(data.train.x, x[:10])
    np.testing.assert_array_equal(data.test.x, x[10:])
    assert data.train.y.tolist() == y[:10].tolist()
    assert data.test.y.tolist() == y[10:].tolist()


@pytest.mark.parametrize(
    "kind", ["python-files/data_batch_3", "binary-files/test_batch.bin", "binary-archive/cifar-10-binary.tar.gz"]
)
def test_a_changed_byte_is_found(small: tuple[Path, np.ndarray, np.ndarray], kind: str) -> None:
    path = small[0] / kind
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=f"{path}: MD5 is .*, the published file has"):
        load_cifar10(path.parent)


def test_another_number_of_images(small: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CIFAR10", replace(module._CIFAR10, images=(50_000, 10_000)))
    with pytest.raises(DataError, match="cifar10 has 10 train images here, expected 50000"):
        load_cifar10(small[0] / "binary-files")


def test_cifar100_takes_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(3)
    (tmp_path / "train").write_bytes(python2_pickle(x[:2], [99, 5], "fine_labels"))
    (tmp_path / "test").write_bytes(python2_pickle(x[2:], [42], "fine_labels"))
    sums = {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest() for name in ("train", "test")}
    version = replace(module._CIFAR100.python, train={"train": sums["train"]}, test={"test": sums["test"]})
    monkeypatch.setattr(module, "_CIFAR100", replace(module._CIFAR100, python=version, images=(2, 1)))
    data = load_cifar100(tmp_path)
    assert (data.train.y.tolist(), data.test.y.tolist(), data.classes) == ([99, 5], [42], 100)


# --- sheets -------------------------------------------------------------------------------


def write_sheet(path: Path, x: np.ndarray) -> None:
    image_library = pytest.importorskip("PIL.Image")
    rows = -(-len(x) // 100)
    tiles = np.zeros((rows * 100, 3, 32, 32), np.uint8)
    tiles[: len(x)] = x
    pixels = tiles.reshape(rows, 100, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(rows * 32, 3200, 3)
    image_library.fromarray(pixels).save(path, lossless=True)


def test_a_sheet_is_read_tile_by_tile(tmp_path: Path) -> None:
    x = images(130)
    write_sheet(tmp_path / "s.webp", x)
    np.testing.assert_array_equal(read_sheet(tmp_path / "s.webp", 130), x)


def test_bad_sheets(tmp_path: Path) -> None:
    path = tmp_path / "s.webp"
    write_sheet(path, images(100))
    with pytest.raises(DataError, match="3200 x 32 pixels, expected 3200 x 64"):
        read_sheet(path, 101)
    with pytest.raises(DataError, match="SHA-256 is .*, the published file has 00"):
        read_sheet(path, 100, sha256="00")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a whole WebP picture"):
        read_sheet(path, 100)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="not a whole WebP picture"):
        read_sheet(path, 100)
    with pytest.raises(DataError, match="s.webp"):
        read_sheet(tmp_path / "none" / "s.webp", 100)
