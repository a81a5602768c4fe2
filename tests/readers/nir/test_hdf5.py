"""Our reader of HDF5 against h5py, and against files that make the HDF5 library hang."""

from __future__ import annotations

import numpy as np
import pytest

from spikequant.law.errors import DataError
from spikequant.readers.nir_.hdf5 import File, Group, Link
from spikequant.readers.nir_.hdf5_values import Dataset

h5py = pytest.importorskip("h5py")


def same(ours, theirs, path="/"):
    """Compare a whole tree; gives the number of values that were compared."""
    assert list(ours) == list(theirs), path
    count = 0
    for name in ours:
        found, wanted = ours.get(name), theirs[name]
        if isinstance(wanted, h5py.Group):
            assert isinstance(found, Group)
            count += same(found, wanted, f"{path}{name}/")
            continue
        assert isinstance(found, Dataset)
        assert found.shape == wanted.shape, f"{path}{name}"
        if wanted.shape is None:
            assert found.read() is None
            continue
        got, value = found.read(), wanted[()]
        assert np.array_equal(got, value, equal_nan=np.asarray(value).dtype.kind == "f"), f"{path}{name}"
        if not found.is_text:
            assert np.asarray(got).dtype == np.asarray(value).astype(np.asarray(got).dtype).dtype
            assert np.asarray(got).dtype.kind == {"b": "i"}.get(
                np.asarray(value).dtype.kind, np.asarray(value).dtype.kind
            )
        count += wanted.size
    return count


def test_every_nir_file_at_hand_is_read_as_h5py_reads_it(data_folder):
    files = sorted((data_folder / "nir").rglob("*.nir"))
    assert len(files) >= 10
    for path in files:
        with h5py.File(path, "r") as wanted:
            assert same(File(path.read_bytes()).root(), wanted) > 10


@pytest.mark.parametrize("seed", range(20))
def test_random_files_are_read_as_h5py_reads_them(seed, tmp_path):
    rng = np.random.default_rng(seed)
    types = ["<f4", "<f8", ">f4", "<f2", "i1", "<i2", ">i4", "<i8", "u1", "<u2", "<u4", ">u8", "?"]
    with h5py.File(tmp_path / "a.h5", "w", libver="earliest") as file:
        for k in range(int(rng.integers(1, 60))):
            group = file.require_group(f"g{rng.integers(0, 4)}/h{rng.integers(0, 30)}")
            shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(0, 4)))
            data = rng.integers(0, 100, shape).astype(rng.choice(types))
            packed = (
                {"compression": "gzip", "shuffle": bool(rng.random() < 0.5)} if shape and rng.random() < 0.5 else {}
            )
            chunks = tuple(int(rng.integers(1, n + 1)) for n in shape) if packed and rng.random() < 0.7 else None
            group.create_dataset(f"d{k}", data=data, chunks=chunks, **packed)
        words = [["input", "größe"], ["", "b" * 300]]
        file.create_dataset("words", data=words, dtype=h5py.string_dtype())
        file.create_dataset("word", data="one", dtype=h5py.string_dtype())
        file.create_dataset("fixed", data=np.array([b"abc", b"defg"]))
        file["empty"] = h5py.Empty("f4")
        file["none"] = np.zeros((0, 3))
    with h5py.File(tmp_path / "a.h5", "r") as wanted:
        assert same(File((tmp_path / "a.h5").read_bytes()).root(), wanted) > 5


def test_links_are_told_and_newer_layouts_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="earliest") as file:
        file["soft"] = h5py.SoftLink("/x")
        file.create_group("g")["external"] = h5py.ExternalLink("b.h5", "/")
    root = File((tmp_path / "a.h5").read_bytes()).root()
    assert isinstance(root.get("soft"), Link)
    assert isinstance(root.get("g").get("external"), Link)
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="newer layout of HDF5; write it with nir.write"):
        File((tmp_path / "b.h5").read_bytes()).root()


def test_loops_end():
    """A group whose tree, table or header leads back to itself."""
    from io import BytesIO

    stream = BytesIO()
    with h5py.File(stream, "w", libver="earliest") as file:
        file.create_group("g")["x"] = np.arange(3)
    sound = stream.getvalue()
    places = [k for k in range(0, len(sound) - 8, 8)]
    addresses = [int.from_bytes(sound[k : k + 8], "little") for k in places]
    starts = sorted({a for a in addresses if 96 <= a < len(sound)})
    tried = 0
    for place in places:
        for start in starts:
            data = bytearray(sound)
            data[place : place + 8] = start.to_bytes(8, "little")
            walk(bytes(data))
            tried += 1
    assert tried > 500


def walk(content):
    """Read everything; nothing but `DataError` may come out."""
    try:
        todo, seen = [File(content).root()], 0
        while todo and seen < 200:
            group, seen = todo.pop(), seen + 1
            for name in group:
                found = group.get(name)
                if isinstance(found, Group):
                    todo.append(found)
                elif isinstance(found, Dataset) and found.volume < 10**6:
                    found.read()
    except DataError:
        pass
