from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.data import read_aedat2, read_nmnist
from spikequant.data.aedat2 import parse_aedat2
from spikequant.data.frames import FrameSource, TimeSteps, choose_steps
from spikequant.data.nmnist_events import parse_nmnist
from spikequant.law.errors import DataError

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
EVENT = tuple[int, int, int, int]


def nmnist_bytes(events: list[EVENT]) -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, p, t in events)


def aedat_bytes(events: list[EVENT], header: bytes = HEADER) -> bytes:
    return header + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t % (1 << 32)) for x, y, p, t in events)


def events_on(side: int, last: int) -> st.SearchStrategy[list[EVENT]]:
    event = st.tuples(*[st.integers(0, side - 1)] * 2, st.integers(0, 1), st.integers(0, last))
    return st.lists(event, min_size=1, max_size=40).map(lambda found: sorted(found, key=lambda e: e[3]))


# --- N-MNIST ------------------------------------------------------------------------------


@given(events_on(34, (1 << 23) - 1))
def test_nmnist_round_trip(events: list[EVENT]) -> None:
    found = parse_nmnist(nmnist_bytes(events), "f")
    assert list(zip(*(a.tolist() for a in (found.x, found.y, found.p, found.t_us)), strict=True)) == events


def test_nmnist_overflow_adds_to_all_later_times() -> None:
    events = [(1, 2, 0, 8000), (0, 240, 0, 0), (3, 4, 1, 100), (0, 240, 1, 0), (5, 6, 0, 0)]
    found = parse_nmnist(nmnist_bytes(events), "f")
    assert found.t_us.tolist() == [8000, 8292, 16384]
    assert found.x.tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "f: holds no events; an empty recording is no sample"),
        (nmnist_bytes([(0, 240, 0, 0)]), "holds no events"),
        (nmnist_bytes([(1, 1, 1, 1)]) + b"x", "6 bytes; expected 5 bytes an event, the last one is cut off"),
        (nmnist_bytes([(1, 1, 0, 1), (34, 1, 1, 2)]), "event 1 has x=34, expected 0 to 33"),
        (nmnist_bytes([(1, 239, 0, 1)]), "event 0 has y=239, expected 0 to 33"),
        (nmnist_bytes([(1, 1, 0, 9), (1, 1, 0, 8)]), "time falls from 9 to 8 us after event 0"),
    ],
)
def test_bad_nmnist(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_nmnist(raw, "f")


def test_nmnist_file_equals_the_reader_of_tonic(real: Callable[..., Path]) -> None:
    data_folder = real("event-samples/nmnist_sample.bin", "event-samples/ncaltech101_faces_easy_0001.bin")
    io = pytest.importorskip("tonic.io")
    for name, size in (("nmnist_sample.bin", (34, 34)), ("ncaltech101_faces_easy_0001.bin", (240, 180))):
        path = data_folder / "event-samples" / name
        events = read_nmnist(path, width=size[0], height=size[1])
        theirs = io.read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        for axis, field in (("x", "x"), ("y", "y"), ("t_us", "t"), ("p", "p")):
            np.testing.assert_array_equal(getattr(events, axis), theirs[field])


# --- AEDAT 2 ------------------------------------------------------------------------------


@given(events_on(128, (1 << 31) - 1), st.integers(0, (1 << 32) - 1))
def test_aedat2_round_trip_from_any_start(events: list[EVENT], start: int) -> None:
    """The clock is 32 bits wide and may wrap; times count from the first event."""
    found = parse_aedat2(aedat_bytes([(x, y, p, t + start) for x, y, p, t in events]), "f")
    assert found.events.t_us.tolist() == [t - events[0][3] for *_, t in events]
    assert found.events.x.tolist() == [x for x, *_ in events]
    assert found.events.y.tolist() == [y for _, y, *_ in events]
    assert found.events.p.tolist() == [p for _, _, p, _ in events]
    assert (found.special, len(found.header)) == (0, 3)


def test_special_events_are_counted_and_left_out(tmp_path: Path) -> None:
    raw = HEADER + struct.pack(">8I", 0x0302, 5, 0x8000, 6, 0x80000001, 7, 0x0304, 8)
    (tmp_path / "a.aedat").write_bytes(raw)
    recording = read_aedat2(tmp_path / "a.aedat")
    assert recording.special == 2
    assert recording.events.t_us.tolist() == [0, 3]


def test_an_address_that_starts_like_a_header_line_is_none() -> None:
    """0x23 is '#': it may only be the first byte of an address above 0x7fff, which is refused, not swallowed."""
    with pytest.raises(DataError, match="the header does not end|no events|cut off"):
        parse_aedat2(HEADER + struct.pack(">II", 0x23000000, 1), "f")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with b'', an AEDAT 2.0 file with"),
        (b"\0\0\1\2", "an AEDAT 2.0 file with '#!AER-DAT2.0'"),
        (b"#!AER-DAT3.1\r\n#End\r\n" + bytes(8), "is '#!AER-DAT3.1'; only AEDAT 2.0 is read"),
        (b"#!AER-DAT2.0", "the header does not end"),
        (b"#!AER-DAT2.0" + b"x" * (1 << 20) + b"\n" + bytes(8), "the header does not end within 1048576 bytes"),
        (b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n" + bytes(8), "only the DVS128 is read"),
        (HEADER, "holds no events"),
        (HEADER + struct.pack(">II", 0x8000, 1), "holds no events"),
        (HEADER + bytes(12), "12 bytes after the header; expected 8 an event, the last one is cut off"),
        (HEADER + struct.pack(">4I", 2, 0, 0x10000, 1), "event 1 has the address 0x10000, a DVS128 has 0 to 0x7fff"),
        (HEADER + struct.pack(">4I", 2, 9, 2, 8), "time falls from 0 to -1 us after event 0"),
    ],
)
def test_bad_aedat2(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_aedat2(raw, "f")


# --- frames -------------------------------------------------------------------------------


class Toy:
    """Two samples of given cells and ticks."""

    def events(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        if sample == 0:
            return np.array([0, 0, 3, 7]), np.array([0, 9, 10, 29])
        return np.array([1, 1, 1]), np.array([5, 25, 30])


def test_frames_count_events_by_step_and_cell() -> None:
    source = FrameSource(Toy(), np.array([0, 1]), (2, 2, 2), TimeSteps(3, 10, 1), counts=True)
    frames = source.take(np.array([1, 0, 1]))
    assert (frames.shape, frames.dtype) == ((3, 3, 2, 2, 2), np.float32)
    flat = frames.reshape(3, 3, 8)
    assert flat[0, 1].tolist() == [2, 0, 0, 0, 0, 0, 0, 0]
    assert flat[1, 1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert flat[2, 1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert flat[:, 0, 1].tolist() == [1, 0, 1], "the event at tick 30 is after the last step"
    np.testing.assert_array_equal(flat[:, 0], flat[:, 2])
    assert frames.sum() == 4 + 2 * 2
    spikes = FrameSource(Toy(), np.array([0, 1]), (2, 2, 2), TimeSteps(3, 10, 1)).take(np.array([1, 0, 1]))
    np.testing.assert_array_equal(spikes, np.minimum(frames, 1))


@given(st.integers(1, 400), st.one_of(st.none(), st.integers(1, 300)), st.one_of(st.none(), st.integers(1, 50)))
def test_steps_cover_the_window_unless_both_are_given(ticks: int, steps: int | None, step_ms: int | None) -> None:
    if steps is None and step_ms is None and ticks < 10:
        return
    if step_ms is None and steps is not None and steps > ticks:
        return
    time = choose_steps("toy", ticks * 1000, 1000, steps, step_ms)
    assert time.steps == (steps or time.steps)
    assert time.step_ms == (step_ms or time.step_ms)
    if steps is None or step_ms is None:
        assert time.steps * time.width >= ticks


@pytest.mark.parametrize(
    ("steps", "step_ms", "message"),
    [
        (0, None, "steps=0; expected 1 to 10000"),
        (-3, 1.0, "steps=-3"),
        (20_000, 1.0, "steps=20000"),
        (11, None, "10 ticks of 1000 us make at most as many steps, got 11"),
        (None, 0.5, "step_ms=0.5; expected a multiple of 1.0 ms"),
        (None, 0.0, "step_ms=0.0; expected a multiple"),
        (None, -1.0, "step_ms=-1.0; expected a multiple"),
        (None, float("nan"), "step_ms=nan; expected a multiple"),
        (None, float("inf"), "step_ms=inf; expected a multiple"),
    ],
)
def test_bad_steps(steps: int | None, step_ms: float | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_steps("toy", 10_000, 1000, steps, step_ms)
