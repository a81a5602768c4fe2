"""Training: `fit` and `evaluate`."""

from spikequant.training.evaluate import Batches, Evaluation, Forward, check_batch, evaluate, first_output, layerwise
from spikequant.training.fit import Loss, fit
from spikequant.training.history import Epoch, FitResult

__all__ = [
    "Batches",
    "Epoch",
    "Evaluation",
    "FitResult",
    "Forward",
    "Loss",
    "check_batch",
    "evaluate",
    "first_output",
    "fit",
    "layerwise",
]
