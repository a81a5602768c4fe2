"""Schedules of a whole model: temperatures that rise, whatever a quantizer changes with the progress of training."""

from __future__ import annotations

from torch import nn

from spikequant.law.errors import DataError


def advance_schedules(model: nn.Module, done: float, epochs: int) -> None:
    """Tell every layer of `model` that `done` of `epochs` epochs are over.

    `fit` calls it before every step; a training loop of your own calls it once per epoch or step.  A layer takes part
    by a method ``progress_(done, epochs)``; layers without schedules are not touched.

    Args:
        model: quantized, not frozen; a real one has no schedules.
        done: epochs that are over, with the fraction of the epoch that runs: 0 at the start.
        epochs: epochs in all.

    Raises:
        DataError: `epochs` is below 1, or `done` is negative.
    """
    if epochs < 1 or not done >= 0:
        raise DataError(f"schedules: {done} of {epochs} epochs; expected at least 0 of at least 1")
    for module in model.modules():
        if hasattr(module, "progress_"):
            module.progress_(done, epochs)  # type: ignore[operator]


__all__ = ["advance_schedules"]
