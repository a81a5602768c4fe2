"""Exploring a space of quantized networks, and choosing among them."""

from spikequant.explore.records import Candidate, Evaluator, Measured
from spikequant.explore.space import Space

__all__ = ["Candidate", "Evaluator", "Measured", "Space"]
