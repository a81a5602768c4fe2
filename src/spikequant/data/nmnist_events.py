"""A strict reader of the event files of N-MNIST and N-Caltech101.

Five bytes an event: x, y, then one bit of polarity (1: brighter) and 23 bits of time in
microseconds, high bits first.  The address y = 240 is no pixel: such a record stands for an
overflow, after which 2^13 microseconds are added to all times.

Source: G. Orchard, A. Jayawant, G. Cohen, N. Thakor, "Converting static image datasets to
spiking neuromorphic datasets using saccades", Frontiers in Neuroscience 9:437, 2015, and the
readers published with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikequant.data.checked_files import read_file
from spikequant.data.frames import Events, check_events
from spikequant.law.errors import DataError

RECORD = 5
OVERFLOW_Y = 240
OVERFLOW_US = 1 << 13
LARGEST_RECORDING = 1 << 24


def read_nmnist(path: Path | str, *, width: int = 34, height: int = 34) -> Events:
    """The events of one ``.bin`` file; N-Caltech101 has ``width=240, height=180``.

    Raises:
        DataError: no such file, empty, an event cut off, a pixel outside the sensor, time that
            falls.
    """
    path = Path(path)
    return parse_nmnist(read_file(path, largest=LARGEST_RECORDING), str(path), width=width, height=height)


def parse_nmnist(raw: bytes, where: str, *, width: int = 34, height: int = 34) -> Events:
    """The events of the content of one file; see `read_nmnist`.

    >>> parse_nmnist(bytes([3, 4, 0x80, 0x01, 0x02]), "toy").t_us.tolist()
    [258]
    """
    if len(raw) % RECORD:
        raise DataError(f"{where}: {len(raw)} bytes; expected {RECORD} bytes an event, the last one is cut off")
    a = np.frombuffer(raw, np.uint8).reshape(-1, RECORD).astype(np.int64)
    t_us = (a[:, 2] & 127) << 16 | a[:, 3] << 8 | a[:, 4]
    is_overflow = a[:, 1] == OVERFLOW_Y
    if is_overflow.any():
        t_us = t_us + OVERFLOW_US * np.cumsum(is_overflow)
        a, t_us = a[~is_overflow], t_us[~is_overflow]
    return check_events(Events(a[:, 0], a[:, 1], a[:, 2] >> 7, t_us), where, width, height)
