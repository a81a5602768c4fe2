"""A strict reader of the HDF5 files of SHD (and SSC), straight into bits.

A file holds ``spikes/times`` and ``spikes/units``, one list of any length a sample, and
``labels``.  Times are seconds, units 0 to 699.

Times are stored as 16-bit floats.  Multiplied by 10^6 in that type they overflow to infinity,
and near 1 s they have a resolution of 1 ms only.  So nothing is multiplied here: a time is
compared with the edges of the steps, and the edges are rounded to the type of the times, as
those who binned these data before did.

Step `i` holds the spikes with ``(i - 1) * step < t <= i * step``; step 0 those at ``t <= 0``.
Channel ``700 - unit`` is set; unit 0 has no channel.  This is the binning of B. Yin,
F. Corradi, S. Bohte (Nature Machine Intelligence, 2021), which the bit-packed file has, too.
Spikes after the last step are left out; two in one step count as one.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

CHANNELS = 700
PACKED_BYTES = 88
MOST_SAMPLES, MOST_STEPS, MOST_SPIKES = 200_000, 10_000, 1_000_000
_BLOCK = 256


def read_shd_hdf5(
    path: Path, *, steps: int, step_ms: float, classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Bit-packed spikes ``[samples, steps, 88]`` and labels ``[samples]`` of a file.

    Samples are read in blocks and packed at once, so memory is that of the result.

    Raises:
        DataError: h5py is not installed, no such file, not HDF5, a field missing or of another
            kind, an empty sample, a time that is negative or not finite, a unit above 699, a
            label that is no class.
    """
    try:
        h5py: Any = import_module("h5py")  # optional, slow to import
    except ImportError as error:
        raise DataError(f"{path}: reading HDF5 needs h5py; install it with: pip install h5py") from error
    if not (1 <= steps <= MOST_STEPS and 0 < step_ms < 1e6):
        raise DataError(f"{path}: steps={steps}, step_ms={step_ms}; expected 1 to {MOST_STEPS} steps, longer than 0")
    try:
        with h5py.File(path, "r") as file:
            times, units, labels = (_field(file, name, path) for name in ("spikes/times", "spikes/units", "labels"))
            y = _labels(labels, path, classes)
            _check_lists(h5py, times, units, len(y), path)
            packed = np.zeros((len(y), steps, PACKED_BYTES), np.uint8)
            for start in range(0, len(y), _BLOCK):
                block = slice(start, start + _BLOCK)
                for k, (t, u) in enumerate(zip(times[block], units[block], strict=True), start):
                    packed[k] = bin_sample(t, u, f"{path}: sample {k}", steps=steps, step_ms=step_ms)
            return packed, y
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: not a whole HDF5 file of SHD ({error}); fetch it again") from error


def bin_sample(
    t: npt.NDArray[Any], unit: npt.NDArray[Any], where: str, *, steps: int, step_ms: float
) -> npt.NDArray[np.uint8]:
    """One sample as bits ``[steps, 88]``.

    >>> bits = bin_sample(np.array([0.004, 0.02], np.float16), np.array([699, 1]), "toy", steps=3, step_ms=10)
    >>> [np.flatnonzero(row).tolist() for row in np.unpackbits(bits, axis=1, count=700)]
    [[], [1], [699]]
    """
    if len(t) == 0 or len(t) != len(unit) or len(t) > MOST_SPIKES:
        raise DataError(f"{where} has {len(t)} times and {len(unit)} units; expected 1 to {MOST_SPIKES} of each")
    if not np.isfinite(t).all() or float(t.min()) < 0:
        raise DataError(f"{where} has a time that is negative or not finite; expected seconds from 0 on")
    if int(unit.max()) >= CHANNELS or int(unit.min()) < 0:
        raise DataError(f"{where} has units from {unit.min()} to {unit.max()}, expected 0 to {CHANNELS - 1}")
    edges = (np.arange(steps) * (step_ms / 1000)).astype(t.dtype)
    step = np.searchsorted(edges, t, side="left")
    inside = (step < steps) & (unit > 0)
    spikes = np.zeros((steps, 8 * PACKED_BYTES), np.uint8)
    spikes[step[inside], CHANNELS - unit[inside].astype(np.int64)] = 1
    return np.packbits(spikes, axis=1)


def _field(file: Any, name: str, path: Path) -> Any:
    found = file.get(name)
    if found is None or not hasattr(found, "dtype"):
        raise DataError(f"{path}: no array {name}; expected spikes/times, spikes/units and labels, as SHD has them")
    if len(found.shape) != 1 or not 0 < found.shape[0] <= MOST_SAMPLES:
        raise DataError(f"{path}: {name} has the shape {list(found.shape)}; expected one axis of 1 to {MOST_SAMPLES}")
    return found


def _labels(labels: Any, path: Path, classes: int) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}, expected integers")
    y = np.asarray(labels[:]).astype(np.int64)
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise DataError(f"{path}: labels go from {y.min()} to {y.max()}, expected 0 to {classes - 1}")
    return y


def _check_lists(h5py: Any, times: Any, units: Any, samples: int, path: Path) -> None:
    for name, field, kinds in (("spikes/times", times, "f"), ("spikes/units", units, "iu")):
        inner = h5py.check_vlen_dtype(field.dtype)
        if inner is None or inner.kind not in kinds or field.shape[0] != samples:
            raise DataError(
                f"{path}: {name} is {inner or field.dtype} of {field.shape[0]} samples; expected lists of "
                f"{'floats' if kinds == 'f' else 'integers'}, one for each of {samples} labels"
            )
