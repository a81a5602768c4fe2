"""Quantized linear maps: integer codes times spikes, summed in the LSB of the neuron that they feed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntFormat
from spikequant.nn.coded_weight import CodedWeight
from spikequant.nn.counts import check_counts
from spikequant.nn.inference import ordinary_tensors
from spikequant.nn.kept import Seen, shared
from spikequant.nn.products import Geometry, LayerProduct, layer_widths
from spikequant.nn.products.encode import Coding
from spikequant.nn.products.weights import Packs
from spikequant.nn.torch_ops import encode_ste
from spikequant.nn.untraced import untraced
from spikequant.quantizers import Quantizer, round_ste

if TYPE_CHECKING:
    from spikequant.nn.branch import Branch

SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Link:
    """A reference to the neuron group that a synapse feeds; hides it from the module tree."""

    branch: Branch


@dataclass(frozen=True)
class WeightGrid:
    """The quantizer that a layer's weights have already, from another library; `quantize_` keeps it."""

    quantizer: Quantizer
    per_channel: bool
    library: str


class Synapse(CodedWeight):
    """The quantized form of `nn.Linear`, `nn.Conv1d` and `nn.Conv2d`; same parameter names.

    Until it is linked to a neuron group it returns real currents,
    ``s * (codes . x) + bias``; linked, it returns integers in accumulator LSBs, and the
    group adds the bias.

    Attributes:
        weight, bias: the float master copies.
        weight_scale: ``s``, one per output channel or one for all.
        input_scale: scale of a real network input, else None.
        unit: real value of one unit of its input when that is not 1 (average pooling).
    """

    input_scale: Tensor | None
    input_mean: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def __init__(self, source: nn.Module, quantizer: Quantizer, *, per_channel: bool = True) -> None:
        super().__init__()
        if not isinstance(source, SYNAPSES):
            raise Unsupported(f"{type(source).__name__} is not a layer with weights; expected Linear, Conv1d or Conv2d")
        self.kind = "linear" if isinstance(source, nn.Linear) else "conv"
        if isinstance(source, nn.Linear):
            self.stride, self.padding, self.dilation, self.groups = (), (), (), 1
        else:
            self._read_convolution(source)
        self.weight, self.bias = source.weight, source.bias
        self.quantizer, self.per_channel = quantizer, per_channel
        self.bias_quantizer: Quantizer | None = None
        self.input_format: IntFormat | None = None
        self.unit = 1.0
        self.link: Link | None = None
        self.register_buffer("frozen_codes", None)
        self.register_buffer("scale_held", None)
        self.register_buffer("input_scale", None)
        self.register_buffer("input_mean", None)
        self.register_buffer("input_std", None)
        self.input_bound = 1
        self.input_limit: float | None = None
        self.checks_input = False
        self.readout_bits = 0
        self.watch: list[Tensor] | None = None
        if quantizer.rounding == "stochastic":
            self.register_buffer("noise_step", torch.zeros((), dtype=torch.int64))
        self.product = LayerProduct(
            Geometry(tuple(self.weight.shape), self.stride, self.padding, self.dilation, self.groups)
        )
        self._cache: dict[str, Any] = {}
        self._fit_scale()

    def _read_convolution(self, source: nn.Conv1d | nn.Conv2d) -> None:
        if source.padding_mode != "zeros" or isinstance(source.padding, str):
            raise Unsupported(
                f"{type(source).__name__}: padding {source.padding!r} with mode {source.padding_mode!r}; "
                "expected numbers and the mode 'zeros'"
            )
        self.stride, self.padding = tuple(source.stride), tuple(source.padding)
        self.dilation, self.groups = tuple(source.dilation), source.groups

    @torch.no_grad()
    def set_input_limit(self, limit: float) -> None:
        """The scale of a real input whose codes reach `limit`."""
        assert self.input_format is not None
        self.input_scale = torch.tensor(limit / self.input_format.max if limit > 0 else 1.0)

    def channel_scale(self) -> Tensor:
        """Real value of one unit of the integer sum, per output channel: ``[out]``."""
        scale = self.current_scale().reshape(-1).expand(self.weight.shape[0])
        if self.input_scale is not None:
            scale = scale * self.input_scale
        return scale * self.unit

    def real_bias(self) -> Tensor | None:
        """The bias with the mean of the input's normalization folded in, ``[out]``; None if there is none."""
        if self.input_mean is None:
            return self.bias
        per_tap = self.codes().flatten(2).sum(2) if self.kind == "conv" else self.codes()
        scale = self.current_scale().reshape(-1).expand(self.weight.shape[0])
        offset = -(per_tap @ self.input_mean.to(per_tap)) * scale
        return offset if self.bias is None else self.bias + offset

    def pad_codes(self) -> Tensor | None:
        """Input codes of the value zero, per input channel, where that is not 0."""
        if self.input_mean is None or self.input_scale is None or self.input_format is None:
            return None
        low, high = self.input_format.min, self.input_format.max
        return encode_ste(self.input_mean, self.input_scale, low, high)

    def integer_input(self, x: Tensor) -> Tensor:
        """The input in whole units: codes of a real input, counts of averaged spikes."""
        if self.input_scale is not None:
            assert self.input_format is not None
            return encode_ste(x, self.input_scale, self.input_format.min, self.input_format.max)
        if self.checks_input and not self.training:
            check_counts(x, self.input_bound)
        if self.unit != 1.0:
            x = x / self.unit
            return x if self.training else round_ste(x, "half_even")
        return x

    @untraced
    def forward(self, x: Tensor) -> Tensor:
        """Integer sums in accumulator LSBs when linked, real currents when not."""
        with ordinary_tensors():  # codes, gains and sums are kept for later calls
            return self._readout(self.integer_input(x)) if self.link is None else self._kept_or_new_sums(x, self.link)

    def _kept_or_new_sums(self, x: Tensor, link: Link) -> Tensor:
        gain, wide = link.branch.gain()
        codes = self.codes()
        reads_data = self.input_scale is not None or self.checks_input
        if not reads_data or x.requires_grad or x.is_inference() or self._is_new_view(x):
            return self._integer_sums(x, gain, wide)
        made_from, shown = (codes, gain, x), self._cache.get("shown")
        if shown is not None and all(then.holds(now) for now, then in zip(made_from, shown[0], strict=True)):
            sums, version = shown[1]
            if sums._version == version:  # a static input is summed once, not at every step of a loop (DESIGN rule 9)
                again: Tensor = sums.view_as(sums)  # a value of its own, so that a recording sees every call
                return again
        sums = self._integer_sums(x, gain, wide)
        straight = not wide and self._coding_of(gain) is not None
        made_of = self.weight if straight else self._cache.get("gained", (codes,))[-1]
        [sums] = shared([sums], [codes, gain] if wide else [made_of])
        self._cache["shown"] = ([Seen(codes), Seen(gain), Seen(x, values=True)], (sums, sums._version))
        return sums

    def _is_new_view(self, x: Tensor) -> bool:
        """Whether `x` is a view that was not given in the call before: made on the way, never given again."""
        last, self._cache["view"] = self._cache.get("view"), weakref.ref(x) if x._is_view() else None
        return x._is_view() and (last is None or last() is not x)

    def _integer_sums(self, x: Tensor, gain: Tensor, wide: bool) -> Tensor:
        x, codes = self.integer_input(x), self.codes()
        if not wide:
            coding = self._coding_of(gain)
            gained = self._gained_codes(gain) if torch.is_grad_enabled() and coding is None else None
            return self.sums(x, codes, gain, gained, coding)
        return self.sums(x, codes).to(torch.float64) * self._over_channels(gain)

    def _coding_of(self, gain: Tensor) -> Coding | None:
        """How the codes of now came about, where gradients go straight to the weights: the gain is a constant."""
        if not torch.is_grad_enabled() or gain.requires_grad:
            return None
        coding: Coding | None = self._cache.get("coding")
        return coding

    def _gained_codes(self, gain: Tensor) -> Tensor:
        """Codes in accumulator LSBs; once per version of codes and gain where the gain is a constant."""
        codes, kept = self.codes(), self._cache.get("gained")
        if kept is not None and kept[0] is codes and kept[1] is gain:
            gained: Tensor = kept[2]
            return gained
        gained = codes * gain.reshape(-1, *([1] * (self.weight.dim() - 1))).to(self.weight.dtype)
        [gained] = shared([gained], [codes, gain])
        if self._cache.get("codes") is codes and not gain.requires_grad:
            self._cache["gained"] = (codes, gain, gained)
        return gained

    def _over_channels(self, value: Tensor) -> Tensor:
        return value if self.kind == "linear" else value.reshape(-1, *([1] * (self.weight.dim() - 2)))

    def readout_lsb(self) -> Tensor:
        """LSB of a layer that feeds no neuron: ``s * 2^-readout_bits``, in float64."""
        return self.channel_scale().to(torch.float64) * 2.0**-self.readout_bits

    def readout_bias(self) -> Tensor | None:
        """Its bias in that LSB, rounded half to even."""
        bias = self.real_bias()
        return None if bias is None else round_ste(bias.to(torch.float64) / self.readout_lsb(), "half_even")

    def _readout(self, x: Tensor) -> Tensor:
        return self.currents(self.sums(x, self.codes()))

    def currents(self, sums: Tensor) -> Tensor:
        """Real currents of a layer that feeds no neuron: whole accumulator LSBs times what one is worth."""
        total = sums.to(torch.float64) * 2.0**self.readout_bits
        bias = self.readout_bias()
        if bias is not None:
            total = total + self._over_channels(bias)
        if self.watch is not None:
            self.watch.append(total.detach())
        return (total * self._over_channels(self.readout_lsb())).to(self.weight.dtype)

    def sums(
        self,
        x: Tensor,
        codes: Tensor,
        gain: Tensor | None = None,
        gained: Tensor | None = None,
        coding: Coding | None = None,
    ) -> Tensor:
        """The exact integer sums ``gain (codes . x)``, in the narrowest float type for them; soft ones as they are."""
        kept = self._cache.get("packs")
        if kept is None or kept[0] is not codes:
            kept = (codes, {})
            self._cache["packs"] = kept
        packs: Packs = kept[1]
        if "widths" not in packs:
            given = self.input_format if self.input_scale is not None else None
            inputs = (0, self.input_bound) if given is None else (given.min, given.max)
            packs["widths"] = layer_widths(inputs, self.quantizer.code_format, codes)
        return self.product.sums(
            x,
            codes,
            gain,
            widths=packs["widths"],
            packs=packs,
            pad=self.pad_codes(),
            gained=gained,
            coding=coding,
            exact=not self.is_soft,
        )

    @property
    def geometry(self) -> Geometry:
        """The shape of the map."""
        return self.product.geometry

    def linear_map(self, x: Tensor, codes: Tensor) -> Tensor:
        """The plain linear map with any weights; a convolution takes ``[N, C, ...]`` and ``[T, N, C, ...]``."""
        if self.kind == "conv" and x.dim() > self.weight.dim():
            merged = self.linear_map(x.flatten(0, 1), codes)
            return merged.reshape(*x.shape[:2], *merged.shape[1:])
        return self.geometry.apply(x, codes)

    def train(self, mode: bool = True) -> Synapse:
        """Set the mode; codes are computed anew, also after weights were changed behind autograd's back."""
        self._cache = {}
        return super().train(mode)

    def extra_repr(self) -> str:
        """Shape and quantizer, for printing."""
        state = ", frozen" if self.is_frozen else ""
        return f"{self.kind} {tuple(self.weight.shape)}, {self.quantizer.name} {self.quantizer.bits} bits{state}"

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry no cached graph."""
        return {**self.__dict__, "_cache": {}}
