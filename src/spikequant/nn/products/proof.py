"""Which path gives the exact sums, proven from widths before anything runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.nn.products.force import PATHS
from spikequant.nn.products.geometry import Geometry

FLOAT32, FLOAT64, INT32 = 2**24, 2**53, 2**31
BF16 = 2**8
WITH_VNNI = ("DEFAULT", "ALL", "VNNI", "AMX", "BF16", "FP16", "AVX10")


@dataclass(frozen=True)
class Widths:
    """What the operands can be, from their formats, and the largest sum of one output's ``|code|``."""

    x_low: int
    x_high: int
    w_low: int
    w_high: int
    l1: int

    @property
    def sums(self) -> int:
        """Largest magnitude of a sum, whatever the order of its terms (the L1 bound)."""
        return self.l1 * max(abs(self.x_low), abs(self.x_high))

    @property
    def shift(self) -> int:
        """What makes the inputs bytes from 0 to 255."""
        return 128 if self.x_low < 0 else 0


def layer_widths(inputs: tuple[int, int], code_format: IntFormat, codes: Tensor) -> Widths:
    """From the formats alone, or, where those say too much for float32, from the codes themselves.

    >>> layer_widths((0, 1), IntFormat(bits=4), torch.ones(2, 3)).sums
    24
    """
    fan_in = codes[0].numel()
    found = Widths(*inputs, code_format.min, code_format.max, fan_in * max(abs(code_format.min), code_format.max))
    if found.sums < FLOAT32:
        return found
    return replace(found, l1=int(codes.detach().abs().flatten(1).sum(1, dtype=torch.float64).max()))


@dataclass(frozen=True)
class Machine:
    """What the arithmetic of this computer can do exactly."""

    vnni: bool
    bf16: bool
    compiled: bool
    compiled_vnni: bool


def refusal(path: str, widths: Widths, geometry: Geometry, machine: Machine) -> str | None:
    """Why a path is not proven exact here; None where it is."""
    if path == "float64":
        return None if widths.sums < FLOAT64 else f"sums reach {widths.sums}, float64 is exact below 2^53"
    if widths.sums >= FLOAT32:
        return f"sums reach {widths.sums}, float32 is exact below 2^24"
    if path == "float32":
        return None
    if path == "float32_last":
        return None if geometry.is_conv else "channels last is for convolutions"
    if path == "bf16":
        return _bf16(widths, machine)
    return _bytes(widths) or _integer(path, widths, geometry, machine)


def refusals(widths: Widths, geometry: Geometry, machine: Machine) -> dict[str, str]:
    """The paths that are not proven exact here, with the reason."""
    found = {path: refusal(path, widths, geometry, machine) for path in PATHS}
    return {path: reason for path, reason in found.items() if reason is not None}


def _bf16(widths: Widths, machine: Machine) -> str | None:
    if not machine.bf16:
        return "this processor has no bfloat16 products"
    largest = max(abs(widths.x_low), widths.x_high, abs(widths.w_low), widths.w_high)
    return None if largest <= BF16 else f"operands reach {largest}, bfloat16 is exact to 256"


def _bytes(widths: Widths) -> str | None:
    if widths.w_low < -128 or widths.w_high > 127:
        return f"codes from {widths.w_low} to {widths.w_high} do not fit 8 bits"
    if widths.x_low + widths.shift < 0 or widths.x_high + widths.shift > 255:
        return f"inputs from {widths.x_low} to {widths.x_high} do not fit 8 bits"
    reach = widths.l1 * max(widths.x_high + widths.shift, 128) * 2
    return None if reach < INT32 else f"sums of bytes reach {reach}, int32 is exact below 2^31"


def _integer(path: str, widths: Widths, geometry: Geometry, machine: Machine) -> str | None:
    if path == "int8_onednn":
        if not machine.vnni and (not geometry.is_conv or widths.x_high + widths.shift > 127):
            return "without VNNI pairs of byte products saturate at 16 bits"
        return None
    if not machine.compiled:
        return "there is no C compiler"
    if geometry.groups != 1:
        return "groups are not in this kernel"
    if path == "events":
        return None if widths.x_low >= 0 else "events are counts from 0 up"
    return None if machine.compiled_vnni else "this processor has no VNNI"


@cache
def machine_of(compiled: bool, compiled_vnni: bool) -> Machine:
    """What torch says of this processor, less what ``ONEDNN_MAX_CPU_ISA`` forbids."""
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    vnni = bool(torch.cpu._is_vnni_supported()) and any(word in limit for word in WITH_VNNI)
    bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    bf16 = bool(bf16) and any(word in limit for word in ("DEFAULT", "ALL", "AMX", "BF16", "FP16", "AVX10"))
    return Machine(vnni=vnni, bf16=bf16, compiled=compiled, compiled_vnni=compiled_vnni)


__all__ = ["Machine", "Widths", "layer_widths", "machine_of", "refusal", "refusals"]
