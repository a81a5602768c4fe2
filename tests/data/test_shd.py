from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.data import load, read_shd_hdf5, shd
from spikequant.data.shd import PackedSpikes, read_packed_shd
from spikequant.data.shd_hdf5 import bin_sample
from spikequant.law.errors import DataError

Sample = tuple[list[float], list[int]]


def write_hdf5(path: Path, samples: list[Sample], labels: list[int], *, times: str = "f2", units: str = "u2") -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        lists = file.create_group("spikes")
        for name, kind, column in (("times", times, 0), ("units", units, 1)):
            field = lists.create_dataset(name, (len(samples),), h5py.vlen_dtype(np.dtype(kind)))
            for i, sample in enumerate(samples):
                field[i] = np.array(sample[column], kind)
        file["labels"] = np.array(labels, np.uint16)
        file["extra/speaker"] = np.zeros(len(labels), np.uint16)


def unpack(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed, axis=-1)[..., :700]


def slow_binning(times: np.ndarray, units: np.ndarray, steps: int, step_s: float) -> np.ndarray:
    """The published recipe as it is written: step by step, what was not taken before and is not later than the edge."""
    frames = np.zeros((steps, 700), np.uint8)
    left = np.ones(len(times), bool)
    for i in range(steps):
        now = left & (times <= times.dtype.type(i * step_s))
        for unit in units[now]:
            if unit > 0:
                frames[i, 700 - int(unit)] = 1
        left &= ~now
    return frames


# --- HDF5 ---------------------------------------------------------------------------------


def test_hdf5_round_trip(tmp_path: Path) -> None:
    samples: list[Sample] = [([0.0, 0.5, 1.3], [699, 350, 2]), ([0.004, 0.02, 0.0201], [1, 0, 10])]
    write_hdf5(tmp_path / "f.h5", samples, [3, 19])
    packed, labels = read_shd_hdf5(tmp_path / "f.h5", steps=100, step_ms=10, classes=20)
    assert labels.tolist() == [3, 19]
    assert [tuple(where) for where in np.argwhere(unpack(packed)).tolist()] == [
        (0, 0, 1),
        (0, 50, 350),
        (1, 1, 699),
        (1, 3, 690),
    ]


def test_late_times_do_not_overflow_sixteen_bits(tmp_path: Path) -> None:
    """1.37 s times 10^6 is infinity in float16; nothing is multiplied here."""
    write_hdf5(tmp_path / "f.h5", [([1.37, 0.07], [5, 5])], [0])
    packed, _ = read_shd_hdf5(tmp_path / "f.h5", steps=140, step_ms=10, classes=20)
    assert np.argwhere(unpack(packed)[0]).tolist() == [[7, 695], [137, 695]]


@given(
    st.lists(st.tuples(st.floats(0, 1.5, width=16), st.integers(0, 699)), min_size=1, max_size=50),
    st.sampled_from(["f2", "f4", "f8"]),
)
def test_binning_is_the_published_recipe(spikes: list[tuple[float, int]], kind: str) -> None:
    times, units = np.array([t for t, _ in spikes], kind), np.array([u for _, u in spikes], np.uint16)
    found = unpack(bin_sample(times, units, "f", steps=100, step_ms=10))
    np.testing.assert_array_equal(found, slow_binning(times, units, 100, 0.01))


@pytest.mark.parametrize(
    ("samples", "labels", "message"),
    [
        ([([], [])], [0], "sample 0 has 0 times and 0 units; expected 1 to 1000000 of each"),
        ([([0.1], [1]), ([0.1, 0.2], [1])], [0, 0], "sample 1 has 2 times and 1 units"),
        ([([0.1], [700])], [0], "sample 0 has units from 700 to 700, expected 0 to 699"),
        ([([-0.1], [7])], [0], "negative or not finite"),
        ([([float("nan")], [7])], [0], "negative or not finite"),
        ([([float("inf")], [7])], [0], "negative or not finite"),
        ([([0.1], [1])], [20], "labels go from 20 to 20, expected 0 to 19"),
        ([([0.1], [1])], [0, 1], "of 1 samples; expected lists of floats, one for each of 2 labels"),
    ],
)
def test_bad_hdf5_samples(tmp_path: Path, samples: list[Sample], labels: list[int], message: str) -> None:
    write_hdf5(tmp_path / "f.h5", samples, labels)
    with pytest.raises(DataError, match=message):
        read_shd_hdf5(tmp_path / "f.h5", steps=10, step_ms=10, classes=20)


def test_bad_hdf5_layouts(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "f.h5"

    def read() -> None:
        read_shd_hdf5(path, steps=10, step_ms=10, classes=20)

    with pytest.raises(DataError, match="f.h5: not a whole HDF5 file"):
        read()
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match="not a whole HDF5 file"):
        read()
    with h5py.File(path, "w") as file:
        file["labels"] = np.zeros(1, np.uint16)
    with pytest.raises(DataError, match="no array spikes/times"):
        read()
    with h5py.File(path, "w") as file:
        file["spikes/times"], file["spikes/units"], file["labels"] = np.zeros(1), np.zeros(1), np.zeros(1, np.int64)
    with pytest.raises(DataError, match="spikes/times is float64 of 1 samples; expected lists of floats"):
        read()
    write_hdf5(path, [([0.1], [1])], [0], times="i4")
    with pytest.raises(DataError, match="spikes/times is int32"):
        read()
    with h5py.File(path, "a") as file:
        del file["labels"]
        file.create_dataset("labels", (1 << 40,), "u1", chunks=(1 << 20,))
    with pytest.raises(DataError, match=r"labels has the shape \[1099511627776\]; expected one axis of 1 to 200000"):
        read()
    write_hdf5(path, [([0.1], [1])] * 50, [0] * 50)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError):
        read()


# --- packed -------------------------------------------------------------------------------


def test_packed_spikes_come_out_time_first() -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (5, 4, 700), dtype=np.uint8)
    source = PackedSpikes(np.packbits(spikes, axis=2), np.arange(5))
    taken = source.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken, spikes[[3, 1]].transpose(1, 0, 2))


def test_bad_packed_spikes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with a label for each sample; got \[2, 3, 88\] and 1 labels"):
        PackedSpikes(np.zeros((2, 3, 88), np.uint8), np.zeros(1, np.int64))
    wrong = np.zeros((1, 1, 88), np.uint8)
    wrong[0, 0, 87] = 0b1000
    with pytest.raises(DataError, match="uses? 700 bits of 704; a bit behind them is set"):
        PackedSpikes(wrong, np.zeros(1, np.int64))
    np.savez(tmp_path / "f.npz", spikes=np.zeros((1, 1, 88), np.uint8), labels=np.array([20], np.uint8))
    with pytest.raises(DataError, match="labels go up to 20, expected 0 to 19"):
        read_packed_shd(tmp_path / "f.npz")


# --- data sets ----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 training and 20 test samples in the published form; sample i has one spike at step 1 + i in channel 1."""
    for part, count in (("train", 40), ("test", 20)):
        samples: list[Sample] = [([0.01 * (i + 1) - 0.005], [699]) for i in range(count)]
        write_hdf5(tmp_path / f"shd_{part}.h5", samples, [i % 20 for i in range(count)])
    monkeypatch.setattr(shd, "TRAIN_SAMPLES", 40)
    monkeypatch.setattr(shd, "TEST_SAMPLES", 20)
    return tmp_path


def test_published_split(small: Path) -> None:
    data = load("shd-train-test", folder=small)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [36, 4, 20]
    x, y = next(iter(data.batches("test", batch_size=20)))
    assert list(x.shape) == [100, 20, 700]
    assert np.argwhere(x.numpy()).tolist() == [[i + 1, i, 1] for i in range(20)]
    assert y.tolist() == list(range(20))


def test_other_steps_from_hdf5(small: Path) -> None:
    fine = load("shd-train-test", folder=small, step_ms=5)
    assert (fine.steps, fine.step_ms) == (200, 5)
    cut = load("shd-train-test", folder=small, steps=3)
    assert sum(float(x.sum()) for x, _ in cut.batches("test")) == 2
    with pytest.raises(DataError, match="steps=0"):
        load("shd-train-test", folder=small, step_ms=-1.0)


def test_folds_from_hdf5_say_so(small: Path) -> None:
    data = load("shd", folder=small, fold=1)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [12, 4, 4]
    assert "binned here from its HDF5 file" in str(data)


def test_another_number_of_samples(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shd, "TEST_SAMPLES", 2264)
    with pytest.raises(DataError, match="20 samples, the published file has 2264"):
        load("shd", folder=small)


def test_real_shd(real: Callable[..., Path]) -> None:
    data_folder = real("shd/shd_test_10ms.npz")
    data = load("shd", folder=data_folder, fold=3)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [1359, 452, 453]
    assert np.bincount(data.splits["test"].source.labels).tolist() == [
        *(103, 108, 105, 102, 116, 110, 109, 109, 114, 103, 122, 121, 121, 120, 115, 112, 118, 121, 123, 112)
    ]
    digest = hashlib.sha256(data.splits["test"].indices.astype("<i8").tobytes()).hexdigest()
    assert digest == "2d81b5faac0dfb0ed2a2ecfe72e2d9a0cf4cb0324271a60e4067b7aa8fe1dfa6"
    ones = sum(int(x.sum()) for part in data.splits for x, _ in data.batches(part))
    assert ones == 14_701_743
    first = load("shd", folder=data_folder, fold=3, steps=20)
    x, _ = next(iter(data.batches("test")))
    assert np.array_equal(next(iter(first.batches("test")))[0], x[:20])


def test_real_shd_has_the_edges_of_the_recipe(real: Callable[..., Path]) -> None:
    """Unit 0 has no channel (channel 0 never fires), and the last step is empty."""
    data_folder = real("shd/shd_test_10ms.npz")
    source = load("shd", folder=data_folder).splits["test"].source
    x = source.take(np.arange(400))
    assert x[:, :, 0].sum() == 0
    assert x[-1].sum() == 0
    assert x[:, :, 1:].any(axis=(0, 1)).all()


def test_packed_shd_refuses_other_steps(real: Callable[..., Path]) -> None:
    data_folder = real("shd/shd_test_10ms.npz")
    with pytest.raises(DataError, match="has steps of 10 ms, got step_ms=5; other steps need shd_test.h5"):
        load("shd", folder=data_folder, step_ms=5)
    with pytest.raises(DataError, match="has 100 steps, got steps=101"):
        load("shd", folder=data_folder, steps=101)
