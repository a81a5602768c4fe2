from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikequant.data import load
from spikequant.law.errors import DataError


def write(path: Path, events: list[tuple[int, int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for x, y, p, t in events)
    path.write_bytes(b"#!AER-DAT2.0\r\n" + body)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two classes, recordings of ten and a half windows of 1 ms; window w has w + 1 events."""
    for part, y in (("train", 3), ("test", 4)):
        for p, name in enumerate(("cup", "pen")):
            events = [(w, y, p, 500 + 1000 * w + k) for w in range(10) for k in range(w + 1)]
            write(tmp_path / part / f"{name}.aedat", [*events, (99, 99, p, 11_000)])
    return tmp_path


def test_recordings_are_cut_into_whole_windows(own: Path) -> None:
    data = load("aedat2", folder=own, window_ms=1, steps=2, counts=True)
    assert data.class_names == ("cup", "pen")
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [16, 4, 20]
    assert data.splits["train"].indices.tolist() == [*range(8), *range(10, 18)]
    assert data.splits["validation"].indices.tolist() == [8, 9, 18, 19], "the last fifth of each recording"
    x, y = next(iter(data.batches("test", batch_size=20)))
    assert list(x.shape) == [2, 20, 2, 128, 128]
    assert y.tolist() == [0] * 10 + [1] * 10
    for sample in range(20):
        window, polarity = sample % 10, sample // 10
        assert x[:, sample].sum() == x[0, sample, polarity, 4, window] == window + 1
    assert x[..., 99, 99].sum() == 0, "the event after the last whole window is in none"


def test_a_window_is_no_longer_than_a_recording(own: Path) -> None:
    with pytest.raises(DataError, match=r"train/cup.aedat: lasts 0.011 s; expected at least one window of 0.2 s"):
        load("aedat2", folder=own)


@pytest.mark.parametrize("window_ms", [0, -1, float("nan"), 0.0001])
def test_bad_windows(own: Path, window_ms: float) -> None:
    with pytest.raises(DataError, match=f"window_ms={window_ms}; expected the length of a sample"):
        load("aedat2", folder=own, window_ms=window_ms)


def test_a_class_on_one_side_only(own: Path) -> None:
    (own / "test" / "pen.aedat").rename(own / "test" / "key.aedat")
    with pytest.raises(DataError, match="key, pen on one side only"):
        load("aedat2", folder=own, window_ms=1)


def test_a_damaged_recording_is_named(own: Path) -> None:
    path = own / "train" / "pen.aedat"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=f"{path}: .*the last one is cut off"):
        load("aedat2", folder=own, window_ms=1)


def test_real_objects(real: Callable[..., Path]) -> None:
    data_folder = real("dvs128-objects/dvs128_objects_aedat2.tar.xz")
    data = load("dvs128-objects", folder=data_folder, counts=True)
    train, test = data.splits["train"].source, data.splits["test"].source
    assert data.class_names == ("Caixa", "Caneca", "Estilete", "Lapiseira", "Tesoura")
    assert np.bincount(train.labels).tolist() == [163, 167, 167, 182, 165]
    assert (len(train.labels), len(test.labels)) == (844, 470)
    assert [len(t) for t in train.recordings.times] == [374_039, 518_133, 413_436, 249_545, 263_941]
    assert [len(t) for t in test.recordings.times] == [201_523, 351_217, 314_257, 126_164, 143_655]
    everything = sum(len(test.recordings.events(i)[0]) for i in range(470))
    in_whole_windows = sum(
        int(np.searchsorted(t, (len(t) and t[-1]) // 200_000 * 200_000)) for t in test.recordings.times
    )
    assert everything == in_whole_windows, "no event between two windows is lost"
    x, y = next(iter(data.batches("test", batch_size=2)))
    assert list(x.shape) == [10, 2, 2, 128, 128]
    assert float(x.sum()) == sum(len(test.recordings.events(i)[0]) for i in range(2))
    assert y.tolist() == [0, 0]
