"""Exploring a space of quantized networks, and choosing among them."""

from spikequant.explore.records import Candidate, Evaluator, Measured

__all__ = ["Candidate", "Evaluator", "Measured"]
