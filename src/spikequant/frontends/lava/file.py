"""The layers of a lava-dl ``.net`` file as plain records, read strictly and within bounds.

Layout: ``/layer/0 .. n-1``, each with ``type``, ``shape``, ``weight``, ``neuron/{type, iDecay, vDecay, vThMant,
refDelay, ...}`` (lava-dl ``src/lava/lib/dl/netx/README.md``; written by ``export_hdf5`` of its blocks).  Weights and
biases are floats that hold whole numbers.  A dataset is looked at before it is loaded; links out of the file are
refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray

MOST_LAYERS = 1_000
MOST_VALUES = 2**26
MOST_AXES = 6
KINDS = ("input", "dense", "conv", "pool", "flatten")
REASONS = {
    "average": "lava-dl's own export of it fails (its block has no neuron); count the spikes of the layer before",
    "concat": "netx refuses it, too",
    "convT": "netx refuses it, too",
    "unpool": "netx refuses it, too",
    "dense_comp": "complex weights drive resonators, which have no membrane of the law",
}


@dataclass(frozen=True, kw_only=True)
class LavaNeuron:
    """Constants of a CUBA neuron: decays in 1/4096 of what is lost in a step, and the mantissa of the threshold."""

    i_decay: int
    v_decay: int
    threshold: int


@dataclass(frozen=True, kw_only=True, eq=False)
class LavaLayer:
    """One layer, as the file has it; arrays are int64."""

    name: str
    kind: str
    shape: tuple[int, ...]
    neuron: LavaNeuron | None = None
    weight: IntArray | None = None
    bias: IntArray | None = None
    delay: IntArray | None = None
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


def read_layers(path: str | os.PathLike[str], *, max_values: int = MOST_VALUES) -> tuple[LavaLayer, ...]:
    """All layers of a file, in order.

    Raises:
        DataError: no such file, damaged, or a value of another kind or size than the format says.
        Unsupported: h5py is not installed, or a layer, neuron or field that is not understood.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unsupported("reading lava-dl's files needs h5py; install spikequant[lava]") from error
    place = Path(path)
    if not place.is_file():
        raise DataError(f"{place}: there is no such file; expected a .net file as lava-dl's export_hdf5 writes it")
    try:
        with h5py.File(place, "r") as file:
            return _File(h5py, file, place.name, max_values).layers()
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError, TypeError) as error:
        raise DataError(f"{place.name}: no readable HDF5 file ({str(error)[:120]})") from error


class _File:
    """An open file and how many values were taken from it."""

    def __init__(self, h5py: Any, file: Any, name: str, most_values: int) -> None:
        self.h5py, self.file, self.name, self.left = h5py, file, name, most_values

    def layers(self) -> tuple[LavaLayer, ...]:
        """The numbered members of ``/layer``."""
        group = self.group(self.file, "layer", self.name)
        names = set(group)
        if not 1 <= len(names) <= MOST_LAYERS or names != {str(k) for k in range(len(names))}:
            shown = ", ".join(sorted(names)[:8])
            raise DataError(f"{self.name}: layers are called {shown or 'nothing'}; expected 0, 1, 2, ... without a gap")
        return tuple(self.layer(self.group(group, str(k), f"{self.name}: layer"), str(k)) for k in range(len(names)))

    def layer(self, group: Any, number: str) -> LavaLayer:
        """One layer; a field that this release does not know is refused, not skipped."""
        where = f"{self.name}: layer {number}"
        kind = self.text(group, "type", where)
        if kind not in KINDS:
            reason = REASONS.get(kind, f"expected one of {', '.join(KINDS)}")
            raise Unsupported(f"{where}: the type {kind[:40]!r} cannot be read; {reason}")
        known = {"type", "shape", "neuron", "weight", "bias", "delay", "inFeatures", "outFeatures", "inChannels"}
        known |= {"outChannels", "kernelSize", "stride", "padding", "dilation", "groups"}
        unknown = sorted(set(group) - known)
        if unknown:
            raise Unsupported(f"{where}: the field {unknown[0][:40]!r} is not understood; expected {sorted(known)}")
        fields: dict[str, Any] = {
            name: self.wholes(group, name, where) for name in ("weight", "bias", "delay") if name in group
        }
        for name, key in (("kernelSize", "kernel"), ("stride",) * 2, ("padding",) * 2, ("dilation",) * 2):
            if name in group and kind in ("conv", "pool"):
                fields[key] = _pair(self.wholes(group, name, where), f"{where}.{name}")
        if "groups" in group:
            fields["groups"] = int(_one(self.wholes(group, "groups", where), f"{where}.groups"))
        shape = tuple(int(n) for n in np.atleast_1d(self.wholes(group, "shape", where)))
        if not 1 <= len(shape) <= 3 or min(shape) < 1 or math.prod(shape) > MOST_VALUES:
            raise DataError(f"{where}: the shape {shape}; expected one to three axes of at least 1")
        neuron = self.neuron(self.group(group, "neuron", where), where) if "neuron" in group else None
        return LavaLayer(name=number, kind=kind, shape=shape, neuron=neuron, **fields)

    def neuron(self, group: Any, where: str) -> LavaNeuron:
        """The constants of a CUBA neuron; what Lava's fixed-point model would ignore is refused."""
        where = f"{where}.neuron"
        kind = self.text(group, "type", where)
        if kind not in ("LOIHI", "CUBA"):
            raise Unsupported(f"{where}: the type {kind[:40]!r}; expected 'CUBA' or 'LOIHI' (current-based LIF)")
        if any(name not in group for name in ("iDecay", "vDecay", "vThMant")):
            raise DataError(f"{where}: lacks iDecay, vDecay or vThMant; expected whole numbers")
        found = {n: int(_one(self.wholes(group, n, where), f"{where}.{n}")) for n in ("iDecay", "vDecay", "vThMant")}
        harmless = {"refDelay": (1,), "wgtExp": (0,), "gradedSpike": (0,), "messageBits": (0,)}
        for name, allowed in harmless.items():
            if name in group and int(_one(self.wholes(group, name, where), f"{where}.{name}")) not in allowed:
                raise Unsupported(
                    f"{where}.{name}: is not {allowed[0]}; Lava's bit-accurate LIF has no such thing and lava-dl's "
                    "reader skips it in silence. Set it to that in the file if your network was trained without it"
                )
        limits = {"iDecay": (0, 4096), "vDecay": (0, 4096), "vThMant": (0, 2**17 - 1)}
        for name, (low, high) in limits.items():
            if not low <= found[name] <= high:
                raise DataError(f"{where}.{name}: {found[name]}; Loihi takes {low} to {high}")
        return LavaNeuron(i_decay=found["iDecay"], v_decay=found["vDecay"], threshold=found["vThMant"])

    # -- members ---------------------------------------------------------------------------

    def member(self, group: Any, name: str, where: str) -> Any:
        link = group.get(name, getlink=True)
        if link is not None and not isinstance(link, self.h5py.HardLink):
            raise DataError(f"{where}.{name}: a link out of its place; expected the data themselves")
        return group.get(name)

    def group(self, group: Any, name: str, where: str) -> Any:
        found = self.member(group, name, where)
        if not isinstance(found, self.h5py.Group):
            raise DataError(f"{where}: lacks the group {name!r}; expected a network as lava-dl's export_hdf5 writes it")
        return found

    def dataset(self, group: Any, name: str, where: str) -> Any:
        found = self.member(group, name, where)
        if not isinstance(found, self.h5py.Dataset) or found.shape is None:
            raise DataError(f"{where}: lacks the field {name!r}, or it is empty or a group")
        if found.external or found.is_virtual:
            raise DataError(f"{where}.{name}: its values lie in another file; expected them in this one")
        return found

    def text(self, group: Any, name: str, where: str) -> str:
        found = self.dataset(group, name, where)
        if self.h5py.check_string_dtype(found.dtype) is None or found.size != 1 or found.dtype.itemsize > 64:
            raise DataError(f"{where}.{name}: has the type {found.dtype} and {found.size:,} values; expected one word")
        value = found[()] if found.shape == () else found[(0,) * found.ndim]
        return value.decode("ascii") if isinstance(value, bytes) else str(value)

    def wholes(self, group: Any, name: str, where: str) -> IntArray:
        found = self.dataset(group, name, where)
        place = f"{where}.{name}"
        if found.dtype.kind not in "iufb" or found.dtype.itemsize > 8 or found.ndim > MOST_AXES:
            raise DataError(f"{place}: {found.dtype} with {found.ndim} axes; expected whole numbers")
        self.left -= max(math.prod(found.shape), math.prod(found.chunks or (1,)))
        if self.left < 0 or found.size == 0:
            raise DataError(f"{place}: is empty, or the file holds too many values; pass max_values= if it really does")
        value = np.asarray(found[()])
        if not bool(np.isfinite(value).all()) or bool((np.abs(value.astype(np.float64)) >= 2**31).any()):
            raise DataError(f"{place}: holds NaN, infinite or huge values; expected whole numbers below 2^31")
        whole: IntArray = value.astype(np.int64)
        if bool((whole != value).any()):
            raise DataError(
                f"{place}: holds fractions; expected the whole numbers of a quantized network (was the block built "
                "with pre_hook_fx=neuron.quantize_8bit?)"
            )
        return whole


def _one(value: IntArray, where: str) -> int:
    if value.size != 1:
        raise DataError(f"{where}: {value.size} values; expected one")
    return int(value.reshape(-1)[0])


def _pair(value: IntArray, where: str) -> tuple[int, int]:
    numbers: Sequence[int] = [int(n) for n in value.reshape(-1)]
    if len(numbers) not in (1, 2) or min(numbers) < 0 or max(numbers) > 2**16:
        raise DataError(f"{where}: {numbers[:4]}; expected one or two whole numbers")
    return numbers[0], numbers[-1]
