"""DVS128 Gesture, CIFAR10-DVS and N-Caltech101: files written from their formats, tonic as oracle, hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spikequant as sq
from spikequant.data import frame_cache, load, read_aedat3
from spikequant.data.aedat3 import PACKET, parse_aedat3
from spikequant.data.event_files import CIFAR10_CLASSES
from spikequant.data.frames import EqualCounts
from spikequant.law.errors import DataError

HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "frames"


def drawn(seed: int, count: int, end: int = 1_000_000) -> np.ndarray:
    """x, y, p, t of random events, in the order of time."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, end, count))
    return np.stack([rng.integers(0, 128, count), rng.integers(0, 128, count), rng.integers(0, 2, count), t], 1)


def aedat3(events: np.ndarray, *, per_packet: int = 50, valid: int = 1) -> bytes:
    parts = [HEADER]
    for start in range(0, len(events), per_packet):
        x, y, p, t = events[start : start + per_packet].T
        overflow = int(t[0]) >> 31
        words = np.stack([x << 17 | y << 2 | p << 1 | valid, t & 0x7FFFFFFF], 1).astype("<u4")
        parts += [PACKET.pack(1, 1, 8, 4, overflow, len(x), len(x), len(x)), words.tobytes()]
    return b"".join(parts)


def aedat2(events: np.ndarray) -> bytes:
    x, y, p, t = events.T
    return b"#!AER-DAT2.0\r\n" + np.stack([y << 8 | x << 1 | p, t], 1).astype(">u4").tobytes()


def atis(events: np.ndarray) -> bytes:
    x, y, p, t = events.T
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes()


def frames(events: np.ndarray, steps: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Counts, event by event."""
    made = np.zeros((steps, *shape))
    for k, (x, y, p, _) in enumerate(events):
        made[k * steps // len(events), p, y, x] += 1
    return made


# --- AEDAT 3.1 ----------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 200), st.sampled_from([1, 7, 1000]))
def test_aedat3_round_trip(seed: int, count: int, per_packet: int) -> None:
    events = drawn(seed, count)
    found = parse_aedat3(aedat3(events, per_packet=per_packet), "toy")
    assert np.array_equal(np.stack([found.x, found.y, found.p, found.t_us], 1), events)


def test_time_goes_on_behind_an_overflow_and_invalid_events_are_left_out() -> None:
    late = drawn(0, 5)
    late[:, 3] += 3 << 31
    raw = aedat3(drawn(1, 4)) + aedat3(drawn(2, 3), valid=0)[len(HEADER) :] + aedat3(late)[len(HEADER) :]
    special = PACKET.pack(0, 1, 8, 4, 0, 2, 2, 2) + bytes(16)
    found = parse_aedat3(raw + special, "toy")
    assert len(found) == 9
    assert found.t_us[-1] == late[-1, 3] > 3 << 31


def test_tonic_decodes_aedat3_alike(tmp_path: Path) -> None:
    io = pytest.importorskip("tonic.io")
    events = drawn(0, 300)
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3(events, per_packet=64))
    ours = read_aedat3(path)
    header = len(HEADER)
    theirs = io.get_aer_events_from_file(str(path), 3.1, header)
    word = theirs["address"].astype(np.int64)
    assert np.array_equal(ours.x, word >> 17 & 0x1FFF)
    assert np.array_equal(ours.y, word >> 2 & 0x1FFF)
    assert np.array_equal(ours.p, word >> 1 & 1)
    assert np.array_equal(ours.t_us, theirs["timeStamp"])


BODY = aedat3(drawn(0, 10))[len(HEADER) :]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with b''"),
        (b"#!AER-DAT2.0\r\n", "an AEDAT 3.1 file with '#!AER-DAT3.1'"),
        (b"#!AER-DAT3.1" + b"x" * 50, "the header does not end"),
        (HEADER, "holds no polarity event"),
        (HEADER + BODY[:20], "is cut off in its header"),
        (HEADER + BODY[:-1], "announces 80 bytes, 79 are left"),
        (HEADER + PACKET.pack(1, 1, 8, 4, 0, 2**31 - 1, 1, 1) + BODY, "announces 17179869176 bytes"),
        (HEADER + PACKET.pack(1, 1, 8, 4, 0, -1, 0, 0), "the file is damaged"),
        (HEADER + PACKET.pack(1, 1, 0, 4, 0, 10, 10, 10), "the file is damaged"),
        (HEADER + PACKET.pack(1, 1, 4, 4, 0, 2, 2, 2) + bytes(8), "polarity events of 4 bytes; expected 8"),
        (aedat3(np.array([[128, 0, 0, 0]])), "event 0 has x=128, expected 0 to 127"),
    ],
)
def test_hostile_aedat3(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_aedat3(raw, "toy")


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(noise: bytes) -> None:
    try:
        found = parse_aedat3(HEADER + noise, "toy")
    except DataError:
        return
    assert len(found) > 0


# --- DVS128 Gesture -----------------------------------------------------------------------


def gestures(root: Path) -> dict[str, np.ndarray]:
    folder = root / "DvsGesture"
    folder.mkdir()
    recordings = {}
    for k in (1, 2, 3):
        name = f"user{k:02}_led"
        recordings[name] = drawn(k, 400)
        (folder / f"{name}.aedat").write_bytes(aedat3(recordings[name]))
        rows = [f"{1 + (k + j) % 11},{j * 200_000 + 1000},{(j + 1) * 200_000}" for j in range(5)]
        (folder / f"{name}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "\n".join(rows) + "\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user03_led.aedat\n\n")
    return recordings


def test_published_gestures(tmp_path: Path, cache: Path) -> None:
    recordings = gestures(tmp_path)
    data = load("dvs-gesture", folder=tmp_path, steps=3, counts=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9, "validation": 1, "test": 5}
    assert data.step_ms is None
    assert data.splits["test"].y.tolist() == [3, 4, 5, 6, 7]
    x, _ = next(iter(data.batches("test", batch_size=5)))
    assert x.shape == (3, 5, 2, 128, 128)
    for j in range(5):
        t = recordings["user03_led"][:, 3]
        inside = recordings["user03_led"][(t >= j * 200_000 + 1000) & (t < (j + 1) * 200_000)]
        assert np.array_equal(x[:, j].numpy(), frames(inside, 3, (2, 128, 128)))
    assert len(list(cache.glob("*/*.npz"))) == 5
    binary, _ = next(iter(load("dvs-gesture", folder=tmp_path, steps=3).batches("test", batch_size=5)))
    assert np.array_equal(binary.numpy(), (x > 0).float().numpy())


def test_gestures_by_time(tmp_path: Path) -> None:
    recordings = gestures(tmp_path)
    data = load("dvs-gesture", folder=tmp_path, step_ms=100, counts=True)
    assert data.steps == 60
    x, _ = next(iter(data.batches("test", batch_size=1)))
    t = recordings["user03_led"][:, 3] - 1000
    assert x[:3].sum((1, 2, 3, 4)).tolist() == [((t >= 0) & (t < 1e5)).sum(), ((t >= 1e5) & (t < 199_000)).sum(), 0]


def test_gestures_as_tonic_cuts_them(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic")
    folder = tmp_path / "DVSGesture"
    kept = {}
    for part, users in (("ibmGestureTrain", (1, 2)), ("ibmGestureTest", (3,))):
        for user in users:
            (folder / part / f"user{user:02}_led").mkdir(parents=True)
            for label in (0, 4, 10):
                events = drawn(user * 20 + label, 100) // [1, 1, 1, 1000]
                kept[part, user, label] = events
                np.save(folder / part / f"user{user:02}_led" / f"{label}.npy", events.astype(np.float64))
    data = load("dvs-gesture", folder=tmp_path, steps=2, counts=True)
    assert data.splits["test"].y.tolist() == [0, 4, 10]
    x, _ = next(iter(data.batches("test", batch_size=3)))
    for k, label in enumerate((0, 4, 10)):
        assert np.array_equal(x[:, k].numpy(), frames(kept["ibmGestureTest", 3, label], 2, (2, 128, 128)))
    assert tonic.datasets.DVSGesture.classes[3].lower().replace("cw", "clockwise") == data.class_names[3]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("user03_led_labels.csv", "class,start,end\n12,0,5\n", "line 2 is '12,0,5'; expected class 1 to 11"),
        ("user03_led_labels.csv", "class,start,end\n", "no gestures"),
        ("user03_led_labels.csv", "class,start,end\n1,9,9\n", "expected class 1 to 11, start and a later end"),
        ("trials_to_test.txt", "../etc/passwd\n", "is no recording beside it"),
        ("trials_to_test.txt", "user09_led.aedat\n", "is no recording beside it"),
    ],
)
def test_labels_and_lists_that_are_none(tmp_path: Path, file: str, content: str, message: str) -> None:
    gestures(tmp_path)
    (tmp_path / "DvsGesture" / file).write_text(content)
    with pytest.raises(DataError, match=message):
        load("dvs-gesture", folder=tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5)), r"expected real numbers, \[events, 4\]"),
        (np.full((3, 4), np.nan), "NaN or infinity"),
        (np.full((3, 4), 200.0), "event 0 has x=200"),
        (np.zeros((0, 4)), "holds no polarity event"),
        (np.array([{"a": 1}] * 4, object).reshape(1, 4), "expected real numbers"),
    ],
)
def test_cut_gestures_that_are_none(tmp_path: Path, array: np.ndarray, message: str) -> None:
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        (tmp_path / part / "user01_led").mkdir(parents=True)
        for label in range(3):
            np.save(tmp_path / part / "user01_led" / f"{label}.npy", array, allow_pickle=True)
    data = load("dvs-gesture", folder=tmp_path)
    with pytest.raises(DataError, match=message):
        next(iter(data.batches("test")))


def test_a_cut_gesture_that_announces_too_much(tmp_path: Path) -> None:
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        (tmp_path / part / "user01_led").mkdir(parents=True)
        for label in range(2):
            np.save(tmp_path / part / "user01_led" / f"{label}.npy", np.zeros((9, 4)))
            path = tmp_path / part / "user01_led" / f"{label}.npy"
            path.write_bytes(path.read_bytes().replace(b"(9, 4), }      ", b"(999999999, 4)}"))
    with pytest.raises(DataError, match="user01_led/0.npy"):
        next(iter(load("dvs-gesture", folder=tmp_path).batches("test")))


# --- CIFAR10-DVS and N-Caltech101 ---------------------------------------------------------


def test_cifar10_dvs(tmp_path: Path) -> None:
    for c, name in enumerate(CIFAR10_CLASSES):
        (tmp_path / "cifar10-dvs" / name).mkdir(parents=True)
        for k in range(11):
            (tmp_path / "cifar10-dvs" / name / f"cifar10_{name}_{k}.aedat").write_bytes(aedat2(drawn(11 * c + k, 40)))
    data = load("cifar10-dvs", folder=tmp_path, steps=4, counts=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 81, "validation": 9, "test": 20}
    x, y = next(iter(data.batches("test", batch_size=20)))
    assert y.tolist() == [k // 2 for k in range(20)]
    for place, k in ((0, 9), (1, 10)):  # the last two of the first class, in the order of numbers, not of letters
        assert np.array_equal(x[:, place].numpy(), frames(drawn(k, 40), 4, (2, 128, 128)))


def test_n_caltech101(tmp_path: Path, data_folder: Path) -> None:
    sample = data_folder / "event-samples" / "ncaltech101_faces_easy_0001.bin"
    for name in ("Faces_easy", "accordion"):
        (tmp_path / "Caltech101" / name).mkdir(parents=True)
        for k in range(1, 11):
            (tmp_path / "Caltech101" / name / f"image_{k:04}.bin").write_bytes(atis(drawn(k, 50, 1 << 20)))
    if not sample.is_file():
        pytest.skip(f"no {sample}")
    for path in (tmp_path / "Caltech101" / "Faces_easy").iterdir():
        path.write_bytes(sample.read_bytes())
    data = load("n-caltech101", folder=tmp_path, counts=True)
    assert data.class_names == ("Faces_easy", "accordion")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 17, "validation": 1, "test": 2}
    tonic = pytest.importorskip("tonic.io")
    theirs = tonic.read_mnist_file(str(sample), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    x, y = next(iter(data.batches("train", batch_size=17)))
    faces = x[:, y == 0][:, 0].numpy()
    table = np.stack([theirs["x"], theirs["y"], theirs["p"], theirs["t"]], 1)
    assert np.array_equal(faces, frames(table, 10, (2, 180, 240)))


def test_tonic_has_x_and_y_of_a_dvs128_the_other_way_round(tmp_path: Path) -> None:
    """Its reader takes the bits of x for y; jAER, whose format it is, has x in bits 1 to 7."""
    pytest.importorskip("tonic.io")
    events = sq.data.read_aedat2(_written(tmp_path / "a.aedat", aedat2(drawn(3, 20))))
    assert np.array_equal(events.events.x, drawn(3, 20)[:, 0])


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("cifar10-dvs", "airplane/x.aedat", b"#!AER-DAT2.0\r\n", "no number in its name"),
        ("n-caltech101", "a/image_1.bin", b"", "1 recordings; expected enough|of 1 samples"),
    ],
)
def test_folders_that_are_none(tmp_path: Path, name: str, file: str, content: bytes, message: str) -> None:
    if name == "cifar10-dvs":
        for c in CIFAR10_CLASSES:
            (tmp_path / name / c).mkdir(parents=True)
            (tmp_path / name / c / f"{c}_1.aedat").write_bytes(content)
    (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(name, folder=tmp_path)


# --- binning and the cache ----------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 50))
def test_equal_counts_are_equal(events: int, steps: int) -> None:
    counts = np.bincount(EqualCounts(steps).steps_of(np.zeros(events, np.int64)), minlength=steps)
    assert len(counts) == steps
    assert counts.sum() == events
    assert counts.max() - counts.min() <= 1


def test_the_cache_is_used_keyed_and_repaired(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gestures(tmp_path)
    first, _ = next(iter(load("dvs-gesture", folder=tmp_path, steps=3).batches("test")))
    files = sorted(cache.glob("*/*"))
    made = []
    original = frame_cache.CachedFrames._bin
    monkeypatch.setattr(frame_cache.CachedFrames, "_bin", lambda self, k: made.append(k) or original(self, k))
    again, _ = next(iter(load("dvs-gesture", folder=tmp_path, steps=3).batches("test")))
    assert not made
    assert np.array_equal(first.numpy(), again.numpy())
    files[0].write_bytes(b"damaged")
    files[1].write_bytes(files[1].read_bytes()[:-30])
    repaired, _ = next(iter(load("dvs-gesture", folder=tmp_path, steps=3).batches("test")))
    assert len(made) == 2
    assert np.array_equal(first.numpy(), repaired.numpy())
    next(iter(load("dvs-gesture", folder=tmp_path, steps=4).batches("test")))
    assert len(made) == 7
    (tmp_path / "DvsGesture" / "user03_led.aedat").write_bytes(aedat3(drawn(77, 400)))
    other, _ = next(iter(load("dvs-gesture", folder=tmp_path, steps=3).batches("test")))
    assert len(made) == 12
    assert not np.array_equal(first.numpy(), other.numpy())
    assert not list(cache.glob("*/*.part"))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gestures(tmp_path)
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "file"))
    x, _ = next(iter(load("dvs-gesture", folder=tmp_path).batches("test")))
    assert x.any()


def test_a_gesture_without_events_is_named(tmp_path: Path) -> None:
    gestures(tmp_path)
    (tmp_path / "DvsGesture" / "user03_led_labels.csv").write_text("class,start,end\n1,5000000,6000000\n")
    with pytest.raises(DataError, match="no event from 5000000 to 6000000 us"):
        next(iter(load("dvs-gesture", folder=tmp_path).batches("test")))


assert struct.calcsize("<hhiiiiii") == PACKET.size == 28
