"""A layer's weights as integer codes on a scale: made once per version of the parameters, frozen once for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import NotFrozen
from spikequant.nn.kept import Seen, shared
from spikequant.nn.optional_buffers import take_optional
from spikequant.nn.products.encode import Coding, encoded, fitted_and_encoded, is_compiled, reach_of
from spikequant.quantizers import Quantizer
from spikequant.quantizers.stateful import HasCodebook, State, is_stateful

if TYPE_CHECKING:
    from spikequant.nn.synapse import Link


class CodedWeight(nn.Module):
    """The part of a `Synapse` that knows its quantizer; abstract.

    Attributes:
        weight: the float master copy.
        weight_scale: ``s``, one per output channel or one for all.
        scale_held: a mark that a dynamic scale no longer follows the weights; None where it does.
        state_names: what a stateful quantizer keeps besides, as parameters or buffers ``weight_<name>``.
    """

    weight: Tensor
    weight_scale: Tensor
    frozen_codes: Tensor | None
    scale_held: Tensor | None
    input_std: Tensor | None
    quantizer: Quantizer
    per_channel: bool
    link: Link | None
    state_names: tuple[str, ...]
    _cache: dict[str, Any]

    def _fit_scale(self) -> None:
        scale = self.fitted_scale()
        if self.quantizer.scale_mode == "learned":
            self.weight_scale = nn.Parameter(scale)
        else:
            self.register_buffer("weight_scale", scale)
        self._start_state()

    def _start_state(self) -> None:
        self.state_names = ()
        if not is_stateful(self.quantizer):
            return
        started = self._started()
        self.state_names = tuple(started)
        for name, value in started.items():
            if name in self.quantizer.learned:
                setattr(self, f"weight_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"weight_{name}", value)

    def _started(self) -> State:
        assert is_stateful(self.quantizer)
        return self.quantizer.start(self.folded_weight().detach(), channel_axis=0 if self.per_channel else None)

    @property
    def weight_state(self) -> State:
        """What a stateful quantizer keeps of this layer; empty for the others."""
        return {name: getattr(self, f"weight_{name}") for name in self.state_names}

    @property
    def is_soft(self) -> bool:
        """Whether the codes of now may be real numbers: in training, of a quantizer that has a soft form."""
        keeps_integers = not self.state_names or isinstance(self.quantizer, HasCodebook)
        return not keeps_integers and self.training and not self.is_frozen

    def codebook(self) -> Tensor | None:
        """Integers ``[C, bits]`` whose signed sums are the codes of a channel, where the quantizer learns them."""
        if not isinstance(self.quantizer, HasCodebook):
            return None
        return self.quantizer.codebook(self.current_scale(), self.weight_state)

    def fitted_scale(self) -> Tensor:
        """What the quantizer fits on the weights of now."""
        return self.quantizer.fit(self.folded_weight().detach(), channel_axis=0 if self.per_channel else None)

    def folded_weight(self) -> Tensor:
        """The weights with the deviation of the input's normalization folded in (DESIGN rule 9)."""
        if self.input_std is None:
            return self.weight
        return self.weight / self.input_std.reshape(1, -1, *([1] * (self.weight.dim() - 2)))

    @property
    def is_frozen(self) -> bool:
        """Whether the codes are fixed integers."""
        return self.frozen_codes is not None

    def scale(self) -> Tensor:
        """The weight scale as the graph uses it; a dynamic one follows the weights."""
        if self.quantizer.scale_mode != "dynamic" or self.scale_held is not None:
            return self.quantizer.graph_scale(self.weight_scale, self.folded_weight())
        shared = self.link is not None and self.link.branch.shared
        with torch.no_grad():
            self._follow(self.link.branch.joint_scale() if self.link and shared else self.fitted_scale())
        return self.weight_scale

    @torch.no_grad()
    def refit(self) -> None:
        """Fit the scale anew to the weights of now, and start the state of a stateful quantizer from them."""
        self.scale_held = None
        self.weight_scale.copy_(self.fitted_scale())
        if self.state_names:
            for name, value in self._started().items():
                getattr(self, f"weight_{name}").copy_(value)
        self._cache = {}

    @torch.no_grad()
    def hold_scale(self) -> None:
        """From now on the scale stays what it is, also where the quantizer would refit it to moved weights."""
        self.scale()
        if self.quantizer.scale_mode == "dynamic":
            self.scale_held = torch.ones((), dtype=torch.bool)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        take_optional(self, ["scale_held"], state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def change_quantizer(self, quantizer: Quantizer) -> None:
        """Other codes for the same weights: scale and state are fitted anew, nothing of them learns."""
        for name in ("scale", *self.state_names):
            delattr(self, f"weight_{name}")
        self.quantizer, self.scale_held = quantizer, None
        self._fit_scale()
        for name in ("scale", *self.state_names):
            value = getattr(self, f"weight_{name}")
            if isinstance(value, nn.Parameter):
                delattr(self, f"weight_{name}")
                self.register_buffer(f"weight_{name}", value.data)
        self._cache = {}

    @torch.no_grad()
    def progress_(self, done: float, epochs: int) -> None:
        """Bring the schedules of the quantizer to `done` of `epochs` epochs."""
        if is_stateful(self.quantizer) and not self.is_frozen:
            self.quantizer.progress_(self.weight_state, done, epochs)

    def codes(self) -> Tensor:
        """Integer codes in a float tensor, with straight-through gradients; once per parameter version.

        In training the codes of a stateful quantizer are those of its soft form.
        ``weight.data.add_()`` makes no new version; `train` and `eval` begin anew.
        """
        if self.frozen_codes is not None:
            return self._frozen_as_floats(self.frozen_codes)
        made_from = self._cache.get("made_from", ())
        now = (self.weight, self.weight_scale, *self.weight_state.values())
        same = bool(made_from) and self._cache["graphed"] == torch.is_grad_enabled()
        if not same or not all(then.holds(t) for then, t in zip(made_from, now, strict=True)):
            codes, scale = shared(self._made(), now)
            made_from = tuple(Seen(t) for t in now)
            self._cache = {"made_from": made_from, "graphed": torch.is_grad_enabled(), "codes": codes, "scale": scale}
            if codes.requires_grad:
                # What is changed behind autograd's back between two training steps is seen by the second.
                codes.register_hook(lambda _, cache=self._cache: cache.clear())  # type: ignore[no-untyped-call]
                self._cache["coding"] = self._coding(scale, self._cache.clear)
        return self._cache["codes"]  # type: ignore[no-any-return]

    def reach(self) -> Tensor:
        """``sum |code|`` of each output channel, ``[C]``, float64; once per version of the codes."""
        codes, kept = self.codes(), self._cache.get("reach")
        if kept is None or kept[0] is not codes:
            kept = self._cache["reach"] = (codes, reach_of(codes))
        reach: Tensor = kept[1]
        return reach

    def _made(self) -> tuple[Tensor, Tensor]:
        """Codes and the scale that belongs to them."""
        if not is_stateful(self.quantizer):
            return self._fitted() or self._encoded(self.scale())
        weight, state = self.folded_weight(), self.weight_state
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.quantizer.learn_(weight.detach(), self.weight_scale, state)
        scale = self.scale()
        return self.quantizer.state_codes(weight, scale, state, soft=self.is_soft, noise=self._noise()), scale

    def _encoded(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        return encoded(self.quantizer, self.folded_weight(), scale, self._noise()), scale

    def _fitted(self) -> tuple[Tensor, Tensor] | None:
        """The same for a scale that follows the weights of this layer alone, where one pass makes both."""
        joint = self.link is not None and self.link.branch.shared
        if self.quantizer.scale_mode != "dynamic" or self.scale_held is not None or joint or not self.per_channel:
            return None
        found = fitted_and_encoded(self.quantizer, self.folded_weight())
        if found is None:
            return None
        self._follow(found[1])
        return found[0], self.weight_scale

    @torch.no_grad()
    def _follow(self, found: Tensor) -> None:
        if not torch.equal(self.weight_scale, found):  # a graph of the same weights may still need it
            self.weight_scale.copy_(found)

    def _coding(self, scale: Tensor, passed: Callable[[], None]) -> Coding | None:
        """How the codes came about, where their gradient need not go through them."""
        if is_stateful(self.quantizer) or self.input_std is not None or not self.weight.requires_grad:
            return None
        if not is_compiled(self.quantizer, self.weight, scale):
            return None
        fmt = self.quantizer.code_format
        return Coding(self.weight, scale.detach(), fmt.min, fmt.max, passed)

    def _frozen_as_floats(self, stored: Tensor) -> Tensor:
        seen = self._cache.get("frozen")
        if seen is None or not seen.holds(stored) or self._cache["codes"].dtype != self.weight.dtype:
            self._cache = {"frozen": Seen(stored), "codes": stored.to(self.weight.dtype)}
        codes: Tensor = self._cache["codes"]
        return codes

    def current_scale(self) -> Tensor:
        """The scale that belongs to `codes`."""
        if self.frozen_codes is not None:
            return self.weight_scale
        self.codes()
        scale: Tensor = self._cache["scale"]
        return scale

    def _noise(self) -> Tensor | None:
        if self.quantizer.rounding != "stochastic":
            return None
        if self.training:
            self.get_buffer("noise_step").add_(1)
        generator = torch.Generator().manual_seed(int(self.get_buffer("noise_step")))
        return torch.rand(self.weight.shape, generator=generator).to(self.weight)

    def freeze(self) -> None:
        """Store the codes of evaluation as integers; they no longer follow the weights."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            codes = self.codes().detach()
            self.weight_scale.copy_(self.current_scale())
        self._cache = {}
        self.frozen_codes = codes.to(torch.int32)
        self.train(was_training)

    def integer_codes(self) -> Tensor:
        """The frozen codes as int64.

        Raises:
            NotFrozen: the layer still trains.
        """
        if self.frozen_codes is None:
            raise NotFrozen("the codes of this layer can still move; call spikequant.freeze(model) first")
        return self.frozen_codes.to(torch.int64)


__all__ = ["CodedWeight"]
