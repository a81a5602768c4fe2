r"""A strict reader of the polarity events of AEDAT 3.1 recordings, as DVS128 Gesture has them.

A recording is a header of lines that start with ``#``, the first one ``#!AER-DAT3.1``, and then packets, low byte
first.  A packet is a header of 28 bytes

    int16 type, int16 source, int32 size, int32 offset of the time, int32 overflow, int32 capacity, number, valid

and `capacity` events of `size` bytes.  A polarity event (type 1, 8 bytes) is two 32-bit words:

    bit 0       1 where the event is valid; others are left out
    bit 1       polarity, 1 is ON
    bits 2-16   y
    bits 17-31  x
    second word time in microseconds, 31 bits; `overflow` of the packet has the higher ones

Packets of other types are passed over.  Source: the file format AEDAT 3.1 of iniVation.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from spikequant.data.checked_files import read_file
from spikequant.data.frames import Events
from spikequant.law.errors import DataError

PACKET = struct.Struct("<hhiiiiii")
POLARITY, POLARITY_BYTES = 1, 8
LARGEST_RECORDING = 1 << 30
_MAGIC = b"#!AER-DAT3.1"
_LONGEST_HEADER = 1 << 20


def read_aedat3(path: Path | str, *, width: int = 128, height: int = 128) -> Events:
    """The valid polarity events of a file, in the order of the file, time as the camera counted it.

    Raises:
        DataError: no such file, another version, no events, a packet cut off or one that contradicts itself, a pixel
            outside the sensor.
    """
    path = Path(path)
    return parse_aedat3(read_file(path, largest=LARGEST_RECORDING), str(path), width=width, height=height)


def parse_aedat3(raw: bytes, where: str, *, width: int = 128, height: int = 128) -> Events:
    """The events of the content of a file; see `read_aedat3`.

    >>> packet = PACKET.pack(1, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<II", 3 << 17 | 5 << 2 | 0b11, 70)
    >>> events = parse_aedat3(bytes([*b"#!AER-DAT3.1", 13, 10]) + packet, "toy")
    >>> events.x.tolist(), events.y.tolist(), events.p.tolist(), events.t_us.tolist()
    ([3], [5], [1], [70])
    """
    at, parts = _header(raw, where), []
    while at < len(raw):
        if len(raw) - at < PACKET.size:
            raise DataError(f"{where}: the packet at byte {at} is cut off in its header; fetch the file again")
        kind, _, size, _, overflow, capacity, number, _ = PACKET.unpack_from(raw, at)
        body, at = at + PACKET.size, at + PACKET.size + size * capacity
        if size < 1 or capacity < 0 or not 0 <= number <= capacity or overflow < 0:
            raise DataError(
                f"{where}: the packet at byte {body - PACKET.size} announces {number} of {capacity} events of {size} "
                f"bytes, overflow {overflow}; the file is damaged"
            )
        if at > len(raw):
            raise DataError(
                f"{where}: the packet at byte {body - PACKET.size} announces {size * capacity} bytes, "
                f"{len(raw) - body} are left; the file is cut off"
            )
        if kind == POLARITY:
            if size != POLARITY_BYTES:
                raise DataError(f"{where}: polarity events of {size} bytes; expected {POLARITY_BYTES}")
            words = np.frombuffer(raw, "<u4", count=2 * number, offset=body).reshape(-1, 2)
            valid = words[words[:, 0] & 1 == 1].astype(np.int64)
            valid[:, 1] = (valid[:, 1] & 0x7FFFFFFF) | overflow << 31
            parts.append(valid)
    table = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    word = table[:, 0]
    return on_sensor(Events(word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, table[:, 1]), where, width, height)


def on_sensor(events: Events, where: str, width: int, height: int) -> Events:
    """`events`, if there are any and all are pixels of the sensor.

    Raises:
        DataError: no events, or a coordinate outside.
    """
    if len(events) == 0:
        raise DataError(f"{where}: holds no polarity event; an empty recording is no sample")
    for axis, values, size in (("x", events.x, width), ("y", events.y, height), ("polarity", events.p, 2)):
        outside = (values < 0) | (values >= size)
        if outside.any():
            event = int(np.argmax(outside))
            raise DataError(f"{where}: event {event} has {axis}={values[event]}, expected 0 to {size - 1}")
    return events


def _header(raw: bytes, where: str) -> int:
    if not raw.startswith(_MAGIC):
        raise DataError(f"{where}: starts with {raw[:12]!r}, an AEDAT 3.1 file with '#!AER-DAT3.1'")
    at = 0
    while raw[at : at + 1] == b"#":
        end = raw.find(b"\n", at, _LONGEST_HEADER)
        if end < 0:
            raise DataError(f"{where}: the header does not end within {_LONGEST_HEADER} bytes")
        is_last, at = raw[at:end].strip() == b"#!END-HEADER", end + 1
        if is_last:
            break
    return at


__all__ = ["PACKET", "on_sensor", "parse_aedat3", "read_aedat3"]
