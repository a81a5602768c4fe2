"""Shrinking: the smallest quantized network that keeps an accuracy limit."""

from spikequant.shrinking.ladder import MEMBRANE_BITS, WEIGHT_BITS, Ladder, Rung
from spikequant.shrinking.result import Shrunk, Trial, trial_table
from spikequant.shrinking.search import shrink

__all__ = ["MEMBRANE_BITS", "WEIGHT_BITS", "Ladder", "Rung", "Shrunk", "Trial", "shrink", "trial_table"]
