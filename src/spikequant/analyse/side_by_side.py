"""Several sensitivities of one network, layer by layer: scores at the same bits, errors and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spikequant.analyse.score import Sensitivities
from spikequant.law.errors import DataError


@dataclass(frozen=True)
class Standing:
    """How one method judges one layer in one role at a width.

    Attributes:
        score: the expected rise: of the loss, or of the EMD.
        share: it over the largest of the method and role; its error likewise.
        rank: 1 is the most sensitive layer of the role.
    """

    method: str
    layer: str
    role: str
    bits: int
    score: float
    standard_error: float
    share: float
    share_error: float
    rank: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def side_by_side(
    found: Sequence[Sensitivities], *, weight_bits: int = 4, membrane_bits: int = 8
) -> tuple[Standing, ...]:
    """What each method expects from the same bits in every layer.

    Curvatures give ``1/2 Tr/n |Q(x) - x|^2`` (a rise of the loss), rises what was measured; of a Hessian with negative
    traces its own values are shown, not those that stand in for them.

    Raises:
        DataError: nothing to compare, or a method twice.
        PlanError: a width that a method does not know.
    """
    if not isinstance(found, Sequence):
        raise DataError(f"side_by_side: expected a list of sensitivities, got {type(found).__name__} alone")
    names = [one.name for one in found]
    if not found or len(set(names)) < len(names):
        raise DataError(f"side_by_side: expected sensitivities by different methods, got {', '.join(names) or 'none'}")
    rows = []
    for one in found:
        for role, bits in (("weight", weight_bits), ("membrane", membrane_bits)):
            layers = [layer for layer, other in one.places() if other == role]
            scores = {layer: one.expected_rise(layer, role, bits) for layer in layers}
            largest = max((abs(s.value) for s in scores.values()), default=0.0) or 1.0
            order = sorted(layers, key=lambda layer: -scores[layer].value)
            rows += [
                Standing(
                    method=one.name, layer=layer, role=role, bits=bits, score=scores[layer].value,
                    standard_error=scores[layer].standard_error, share=scores[layer].value / largest,
                    share_error=scores[layer].standard_error / largest, rank=order.index(layer) + 1,
                )
                for layer in layers
            ]  # fmt: skip
    return tuple(rows)
