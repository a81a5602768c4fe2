"""Weight codes in the layouts of the byte paths, made once per version of the codes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikequant.nn.products import kernels
from spikequant.nn.products.geometry import Geometry

LINE, LISTED = 128, 16384
"""Outputs of one pass over rows of codes, and the longest row that is walked by events (`kernels.c`)."""
Packs = dict[str, Any]
"""What was made of one version of a layer's codes; lives and goes with them."""


@dataclass(frozen=True)
class Weights:
    """Codes of a layer: as floats, and what was packed of them so far.

    Attributes:
        gain_apart: whether the weights that float paths are given lack the gain.
    """

    codes: Tensor
    gain: Tensor | None
    geometry: Geometry
    packs: Packs
    is_linear: bool
    gain_apart: bool = False

    @property
    def plain(self) -> Tensor:
        """``[out, in / groups, *kernel]``, detached."""
        return self.codes.detach().reshape(self.geometry.weight_shape)

    def gains(self) -> Tensor:
        """What a sum is worth, per output channel, in float32."""
        kept = self.packs.get("gains")
        if kept is None or kept[0] is not self.gain:  # with batch norm it moves while the codes stay
            out = self.geometry.weight_shape[0]
            gain = torch.ones(out) if self.gain is None else self.gain.detach().to(torch.float32).reshape(-1)
            kept = self.packs["gains"] = (self.gain, gain.expand(out).contiguous())
        gains: Tensor = kept[1]
        return gains

    def tiles(self) -> tuple[Tensor, Tensor] | None:
        """``[out/16][taps][in/4][16][4]`` bytes and the sum of every channel's codes; None if a code is no int8."""
        tiles: tuple[Tensor, Tensor] | None = self._once("tiles", self._tiles)
        return tiles

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept; where threads make it at once, all take the first: a kernel may be reading it."""
        return self.packs[name] if name in self.packs else self.packs.setdefault(name, make())

    def _tiles(self) -> tuple[Tensor, Tensor] | None:
        loaded, plain = kernels.library(), self.plain.to(torch.float32).contiguous()
        assert loaded is not None
        out, inputs, taps = plain.shape[0], plain.shape[1], plain[0, 0].numel()
        blocks, quads = -(-out // 16), -(-inputs // 4)
        packed = torch.zeros(blocks * taps * quads * 64, dtype=torch.int8)
        sums = torch.zeros(out, dtype=torch.int32)

        threads = kernels.threads(plain.numel(), out)
        room = torch.zeros(threads.value * quads * 4 * taps, dtype=torch.int8)
        failed = loaded.sq_pack_weights(
            kernels.at(plain), *(ctypes.c_ssize_t(size) for size in (out, inputs, taps)), kernels.at(packed),
            kernels.at(sums), kernels.at(room), threads,
        )  # fmt: skip
        return None if failed else (packed, sums)

    def bytes(self) -> Tensor | None:
        """``[out, in / groups, *kernel]`` as int8, inputs filled up to a multiple of 4; None if a code is no int8."""
        packed: Tensor | None = self._once("bytes", self._bytes)
        return packed

    def _bytes(self) -> Tensor | None:
        plain = self.plain
        found = plain.to(torch.int8)
        if not bool((found.to(plain.dtype) == plain).all()):
            return None
        if self.geometry.groups != 1 or plain.shape[1] % 4 == 0:
            return found
        fill = found.new_zeros(plain.shape[0], -plain.shape[1] % 4, *plain.shape[2:])
        return torch.cat([found, fill], 1)

    def byte_rows(self) -> Tensor | None:
        """Codes of a matrix, bytes ``[out / LINE][in][LINE]``, inputs to a multiple of 4; None if one is no int8."""
        made: Tensor | None = self._once("byte_rows", self._byte_rows)
        return made

    def _byte_rows(self) -> Tensor | None:
        loaded, plain = kernels.library(), self.plain.flatten(1).to(torch.float32).contiguous()
        assert loaded is not None
        out, inputs = plain.shape
        rows = torch.zeros(-(-out // LINE), -(-inputs // 4) * 4, LINE, dtype=torch.int8)
        failed = loaded.sq_pack_rows(
            kernels.at(plain), *(ctypes.c_ssize_t(size) for size in (out, inputs, rows.shape[1])), kernels.at(rows),
            kernels.threads(plain.numel(), -(-out // 16)),
        )  # fmt: skip
        return None if failed else rows

    def sums_of_codes(self) -> Tensor:
        """The sum of every output channel's codes, int32."""
        sums: Tensor = self._once("sums", lambda: self.plain.flatten(1).sum(1, dtype=torch.float64).to(torch.int32))
        return sums

    def rows(self) -> Tensor:
        """``[taps][in][out]`` as int16, inputs to a multiple of 4 and outputs to one of 32."""
        made: Tensor = self._once("rows", self._rows)
        return made

    def _rows(self) -> Tensor:
        plain = self.plain
        out, inputs = plain.shape[:2]
        taps = plain[0, 0].numel()
        rows = torch.zeros(taps, -(-inputs // 4) * 4, -(-out // 32) * 32, dtype=torch.int16)
        rows[:, :inputs, :out] = plain.reshape(out, inputs, taps).permute(2, 1, 0).to(torch.int16)
        return rows
