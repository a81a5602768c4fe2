"""Training: `fit` and `evaluate`, what may add to the loss, and what may accompany a training."""

from spikequant.training.distillation import Distillation, RateDistillation, Teacher
from spikequant.training.engine import Loss
from spikequant.training.evaluate import Batches, Evaluation, Forward, check_batch, evaluate, first_output, layerwise
from spikequant.training.fit import fit
from spikequant.training.frozen_scales import FrozenScales
from spikequant.training.gradual_bits import GradualBits
from spikequant.training.held_out import Batch, Divided, KeptBatches, at_first_epoch, divided, length_of
from spikequant.training.history import Epoch, FitResult
from spikequant.training.level_pull import LevelPull
from spikequant.training.local import fit_local
from spikequant.training.parameter_groups import parameter_groups
from spikequant.training.rate_distribution import RateDistribution
from spikequant.training.routines import Routine
from spikequant.training.schedules import Constant, Cosine, Schedule, WarmRestarts
from spikequant.training.step import LossTerm, Step
from spikequant.training.temporal import TemporalLoss
from spikequant.training.weight_average import WeightAverage

__all__ = [
    "Batch",
    "Batches",
    "Constant",
    "Cosine",
    "Distillation",
    "Divided",
    "Epoch",
    "Evaluation",
    "FitResult",
    "Forward",
    "FrozenScales",
    "GradualBits",
    "KeptBatches",
    "LevelPull",
    "Loss",
    "LossTerm",
    "RateDistillation",
    "RateDistribution",
    "Routine",
    "Schedule",
    "Step",
    "Teacher",
    "TemporalLoss",
    "WarmRestarts",
    "WeightAverage",
    "at_first_epoch",
    "check_batch",
    "divided",
    "evaluate",
    "first_output",
    "fit",
    "fit_local",
    "layerwise",
    "length_of",
    "parameter_groups",
]
