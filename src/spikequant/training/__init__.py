"""Training: `fit` and `evaluate`."""

from spikequant.training.evaluate import Batches, Evaluation, Forward, check_batch, evaluate, first_output, layerwise
from spikequant.training.fit import Loss, fit
from spikequant.training.held_out import Batch, Divided, KeptBatches, at_first_epoch, divided, length_of
from spikequant.training.history import Epoch, FitResult

__all__ = [
    "Batch",
    "Batches",
    "Divided",
    "Epoch",
    "Evaluation",
    "FitResult",
    "Forward",
    "KeptBatches",
    "Loss",
    "at_first_epoch",
    "check_batch",
    "divided",
    "evaluate",
    "first_output",
    "fit",
    "layerwise",
    "length_of",
]
