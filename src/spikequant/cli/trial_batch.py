"""One real batch through a network before anything is trained or quantized: wrong shapes are found in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikequant.cli.datasets import ShellData
from spikequant.cli.networks import NetworkSource, user_frames
from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from torch import nn

SAMPLES = 8


def check_with_batch(model: nn.Module, data: ShellData, source: NetworkSource) -> None:
    """Run `model` on a few samples in evaluation mode; its states and torch's random state stay as they were.

    Raises:
        DataError: it raises, or does not give one finite score per class and sample.
    """
    import torch

    from spikequant.nn.reset import reset_states

    few = data.first(SAMPLES)
    count = few.shape[data.sample_axis]
    was_training = model.training
    model.eval()
    reset_states(model)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            what = f"{source.text} cannot take a batch of shape {list(few.shape)}, which this data set gives"
            with user_frames(source, what):
                result = model(few)
    finally:
        model.train(was_training)
        reset_states(model)
    scores = result[0] if isinstance(result, (tuple, list)) and result else result
    _check_scores(scores, count, data.classes, source.text)


def _check_scores(scores: object, samples: int, classes: int, name: str) -> None:
    import torch

    wanted = f"expected scores of shape [{samples}, {classes}] (samples, classes)"
    if not isinstance(scores, torch.Tensor):
        raise DataError(f"{name}: forward returned a {type(scores).__name__}; {wanted}")
    if scores.dim() != 2 or len(scores) != samples or scores.shape[1] < classes:
        over_time = " - sum or average over the time steps" if scores.dim() == 3 else ""
        raise DataError(
            f"{name}: forward returned shape {list(scores.shape)} for {samples} samples; {wanted}{over_time}"
        )
    if not bool(torch.isfinite(scores).all()):
        raise DataError(f"{name}: the scores hold NaN or infinite values already before training; check the weights")
