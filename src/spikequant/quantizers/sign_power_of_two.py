"""Signs around the mean of a channel, scaled by a power of two.

    codes = sign(w - m),  scale = 2^round(log2 mean|w - m|),  m = mean w
    training:  d codes/dw = k t (1 - tanh^2(t u)) / scale,  u = (w - m) / std(w - m),  k = max(1 / t, 1)

Means run over the values that share a scale.  The sharpness ``t`` grows log-linearly over the training, from nearly
straight-through to nearly the sign's own slope.  The source standardises the weights first and lets batch norm set the
magnitude; here the magnitude stays in the scale, so that a trained network can be quantized as it is.

Source: Wei, Zhang and others, *Q-SNNs: quantized spiking neural networks*, ACM MM 2024, section 4.1; the annealed
slope is that of Qin et al., *Forward and backward information retention for accurate binary neural networks*, CVPR
2020, equations 9 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode
from spikequant.quantizers.stateful import State
from spikequant.quantizers.straight_through import round_ste, straight_through


@final
@dataclass(frozen=True)
class SignPowerOfTwo:
    """Codes -1 and +1, stored in 1 bit, at a scale that is a power of two.

    Args:
        first_sharpness, last_sharpness: ``t`` at the start and at the end of a training.

    >>> q, x = SignPowerOfTwo(), torch.tensor([-3.0, -0.5, 0.0, 1.1])
    >>> q.codes(x, q.fit(x)).tolist(), q.fit(x).item()
    ([-1.0, 1.0, 1.0, 1.0], 1.0)

    Raises:
        PlanError: a sharpness that is not above 0, or one that falls.
    """

    _: KW_ONLY
    first_sharpness: float = 0.1
    last_sharpness: float = 10.0
    name: ClassVar[str] = "sign_power_of_two"
    bits: ClassVar[int] = 1
    scale_mode: ClassVar[ScaleMode] = "dynamic"
    rounding: ClassVar[Rounding] = "half_up"
    learned: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        first, last = self.first_sharpness, self.last_sharpness
        if any(isinstance(t, bool) or not isinstance(t, (int, float)) for t in (first, last)) or not 0 < first <= last:
            raise PlanError(
                f"sign_power_of_two: sharpness from {first!r} to {last!r}; expected two numbers above 0, not falling"
            )

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes (their arithmetic needs 2 bits, their storage 1)."""
        return IntFormat(bits=2, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return (-1, 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """The power of two nearest to ``mean|x - mean x|`` in the logarithm; 1 for a constant channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        values = finite(x)
        like = values.new_empty(scale_shape(x, channel_axis))
        size = mean_like((values - mean_like(values, like)).abs(), like)
        return torch.where(size > 0, torch.exp2(round_ste(torch.log2(usable_scale(size)), "half_up")), 1.0)

    def start(self, x: Tensor, *, channel_axis: int | None = None) -> State:
        """The sharpness of the start."""
        return {"sharpness": finite(x).new_tensor(float(self.first_sharpness))}

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Signs around the mean, straight-through within one scale of 0."""
        x = widened(x)
        return straight_through(self._signs(x, scale), (x / scale).clamp(-1, 1))

    def state_codes(self, x: Tensor, scale: Tensor, state: State, *, soft: bool, noise: Tensor | None = None) -> Tensor:
        """The same signs; in training with the annealed slope."""
        x = widened(x)
        signs = self._signs(x, scale)
        if not soft:
            return signs
        centred = x - mean_like(x.detach(), scale)
        spread = usable_scale(mean_like(centred.detach().square(), scale).sqrt())
        sharpness = state["sharpness"]
        gain = (1 / sharpness).clamp(min=1) * spread / scale
        return straight_through(signs, gain * torch.tanh(sharpness * centred / spread))

    def learn_(self, x: Tensor, scale: Tensor, state: State) -> None:
        """Nothing: all that changes without a gradient is the sharpness."""

    def progress_(self, state: State, done: float, epochs: int) -> None:
        """The sharpness of a moment, log-linear in the progress."""
        share = min(done / epochs, 1.0)
        state["sharpness"].fill_(self.first_sharpness * (self.last_sharpness / self.first_sharpness) ** share)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale

    def _signs(self, x: Tensor, scale: Tensor) -> Tensor:
        centred = x.detach() - mean_like(x.detach(), scale)
        signs = torch.where(centred >= 0, 1.0, -1.0).to(x.dtype)
        return torch.where(x.detach().isnan(), torch.nan, signs)
