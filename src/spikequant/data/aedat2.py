r"""A strict reader of AEDAT 2.0 recordings of a DVS128, 128 x 128 pixels.

A recording is a header of lines that start with ``#``, the first one ``#!AER-DAT2.0``, and then
eight bytes an event: address and time in microseconds, both 32 bits, high byte first.

Address of a DVS128, as jAER lays it out (class DVS128, its extractor):

    bit 0        polarity as sent: 0 is ON (brighter), 1 is OFF
    bits 1 - 7   x as sent; jAER displays 127 - x
    bits 8 - 14  y
    bit 15, 31   a special event (external input), no pixel

The reader takes x and the polarity bit as sent and flips neither.  Time is a 32-bit counter;
it may wrap once or more, but between two events it never falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from spikequant.data.checked_files import read_file
from spikequant.data.frames import Events, check_events
from spikequant.law.errors import DataError

SIDE = 128
RECORD = 8
LARGEST_RECORDING = 1 << 30
_MAGIC = b"#!AER-DAT"
_SPECIAL = 1 << 15 | 1 << 31
_LONGEST_HEADER = 1 << 20


@final
@dataclass(frozen=True, eq=False)
class Recording:
    """One recording: its header lines, its events (time from the first one), how many special events were left out."""

    header: tuple[str, ...]
    events: Events
    special: int


def read_aedat2(path: Path | str) -> Recording:
    """The recording in an ``.aedat`` file.

    Raises:
        DataError: no such file, another version or chip, no events, an event cut off, an
            address that is no DVS128 pixel, time that falls.
    """
    path = Path(path)
    return parse_aedat2(read_file(path, largest=LARGEST_RECORDING), str(path))


def parse_aedat2(raw: bytes, where: str) -> Recording:
    r"""The recording in the content of a file; see `read_aedat2`.

    >>> recording = parse_aedat2(b"#!AER-DAT2.0\r\n" + bytes([0, 0, 3, 7, 0, 0, 0, 9]), "toy")
    >>> events = recording.events
    >>> events.x.tolist(), events.y.tolist(), events.p.tolist(), events.t_us.tolist()
    ([3], [3], [1], [0])
    """
    start, header = _header(raw, where)
    body = len(raw) - start
    if body % RECORD:
        raise DataError(f"{where}: {body} bytes after the header; expected {RECORD} an event, the last one is cut off")
    table = np.frombuffer(raw, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    address, t = table[:, 0], table[:, 1]
    is_special = (address & _SPECIAL) != 0
    strange = np.flatnonzero((address > 0x7FFF) & ~is_special)
    if len(strange):
        event = int(strange[0])
        raise DataError(
            f"{where}: event {event} has the address {address[event]:#x}, a DVS128 has 0 to 0x7fff; another camera?"
        )
    # Differences of a 32-bit counter as signed 32-bit numbers: a wrap is no fall.
    steps = (np.diff(t, prepend=t[:1]) + (1 << 31)) % (1 << 32) - (1 << 31)
    t_us, pixel = np.cumsum(steps), address[~is_special]
    events = Events(pixel >> 1 & 127, pixel >> 8 & 127, pixel & 1, t_us[~is_special])
    return Recording(header, check_events(events, where, SIDE, SIDE), int(is_special.sum()))


def _header(raw: bytes, where: str) -> tuple[int, tuple[str, ...]]:
    if not raw.startswith(_MAGIC):
        raise DataError(f"{where}: starts with {raw[:12]!r}, an AEDAT 2.0 file with '#!AER-DAT2.0'")
    start, lines = 0, list[str]()
    while raw[start : start + 1] == b"#":
        end = raw.find(b"\n", start, _LONGEST_HEADER)
        if end < 0:
            raise DataError(f"{where}: the header does not end within {_LONGEST_HEADER} bytes")
        lines.append(raw[start:end].decode("latin-1").strip())
        start = end + 1
    if lines[0] != "#!AER-DAT2.0":
        raise DataError(f"{where}: is {lines[0]!r}; only AEDAT 2.0 is read, convert it with jAER")
    chips = [line for line in lines if "AEChip:" in line]
    if chips and "DVS128" not in chips[0]:
        raise DataError(f"{where}: recorded with {chips[0].split('AEChip:')[1].strip()}; only the DVS128 is read")
    return start, tuple(lines)
