"""What every measure of sensitivity gives: what a layer at a width is expected to cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from spikequant.analyse.layer_facts import Facts


class Score(NamedTuple):
    """An expected rise with its standard error."""

    value: float
    standard_error: float


class Sensitivities(Protocol):
    """Traces and measured rises alike; `allocate` takes any of them."""

    @property
    def name(self) -> str:
        """As `sensitivity` calls the method."""

    @property
    def facts(self) -> Facts | None:
        """Counts, errors of quantization and memory; None of a quantized model."""

    @property
    def words(self) -> tuple[str, ...]:
        """What a reader must know."""

    def places(self) -> list[tuple[str, str]]:
        """Layers with their roles."""

    def widths(self, layer: str, role: str) -> tuple[int, ...]:
        """Bits for which a rise is known."""

    def expected_rise(self, layer: str, role: str, bits: int) -> Score:
        """What these bits are expected to add, in the units of the method."""

    def allocatable(self) -> Sensitivities:
        """The same, or what stands in for it where its rises are negative."""
