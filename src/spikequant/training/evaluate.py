"""`evaluate`: accuracy on batches, and how a model is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.capture import LayerwiseRunner, SegmentedRunner, capture
from spikequant.law.errors import CaptureError, DataError, Unsupported
from spikequant.law.network import IntNet
from spikequant.nn.reset import count_samples_from, reset_states
from spikequant.training.integers import IntegerRunner

Batches = Iterable[tuple[Tensor, Tensor]]
Forward = Callable[[Tensor], Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy over all samples, with the predictions for paired comparisons."""

    accuracy: float
    samples: int
    predictions: Tensor
    targets: Tensor

    def __str__(self) -> str:
        return f"{self.accuracy:.2%} of {self.samples:,} samples right"


def evaluate(model: nn.Module | IntNet, batches: Batches) -> Evaluation:
    """Accuracy of a torch model, or of an integer network, on ``(input, target)`` batches, in evaluation mode.

    An `IntNet` takes ``[T, N, ...]``, or ``[N, ...]`` for a static input; it runs as compiled C on all cores
    where there is a compiler, else as the golden model, with the same integers.

    Samples are numbered through all batches, so that the noise of stochastic rounding, and with it every figure, does
    not depend on the batch size.

    Raises:
        DataError: no batch, or an output that is not ``[N, classes]``.
    """
    if isinstance(model, IntNet):
        return _scored(IntegerRunner(model), batches)
    run = layerwise(model, batches)
    was_training = model.training
    model.eval()

    def fresh(x: Tensor, first_sample: int) -> Tensor:
        reset_states(model)
        count_samples_from(model, first_sample)
        return called(run, x)

    try:
        with torch.no_grad():
            return _scored(fresh, batches)
    finally:
        model.train(was_training)
        reset_states(model)
        count_samples_from(model, 0)


def _scored(run: Callable[[Tensor, int], Tensor], batches: Batches) -> Evaluation:
    """Predictions of `run`, which is given every input and the number of its first sample."""
    predictions: list[Tensor] = []
    targets: list[Tensor] = []
    for x, y in pairs(batches):
        output = run(x, sum(len(t) for t in targets))
        if output.dim() != 2 or len(output) != len(y):
            raise DataError(f"evaluate: expected scores [N, classes] for {len(y)} targets, got {tuple(output.shape)}")
        predictions.append(output.argmax(-1).cpu())
        targets.append(y.cpu())
    if not targets:
        raise DataError("evaluate: the loader gave no batch; expected at least one (input, target)")
    p, t = torch.cat(predictions), torch.cat(targets)
    return Evaluation(accuracy=float((p == t).float().mean()), samples=len(t), predictions=p, targets=t)


def layerwise(model: nn.Module, batches: Batches) -> Forward:
    """What `fit` and `evaluate` call: the model itself, or, if it loops over time, its graph layer by layer.

    A model that cannot be captured, or does one step per call, is called as it is.
    """
    if not isinstance(model, nn.Module):
        raise DataError(f"expected a torch nn.Module as model, got {type(model).__name__}")
    if not any(getattr(m, "step_mode", "m") == "s" for m in model.modules()):
        return model
    rows = pairs(batches) if iter_again(batches) else None
    if rows is None:  # an iterator gives its first batch only once
        return model
    first = next(rows, None)
    if first is None or len(first[0]) < 2:
        return model
    try:
        reset_states(model)
        runner = LayerwiseRunner(model, capture(model, first[0]))
    except (CaptureError, DataError, Unsupported):  # a wrong shape comes again when the model runs
        return model
    finally:
        reset_states(model)
    return lambda x: runner(x) if runner.fits(x) else model(x)


def segmented(model: nn.Module, batches: Batches, steps: int) -> Forward:
    """The model's graph run in segments of `steps` time steps, each computed again in the backward pass.

    Raises:
        CaptureError: the model cannot be captured, or something in it looks over the border of a segment.
        DataError: the batches cannot be read twice, or `steps` is no length.
    """
    if not isinstance(steps, int) or steps < 1:
        raise DataError(f"segment = {steps!r}; expected a whole number of time steps, 1 or more")
    rows = pairs(batches) if iter_again(batches) else None
    first = None if rows is None else next(rows, None)
    if first is None:
        raise DataError(
            "segments of time need batches that can be read again: the first one is run to record the model"
        )
    reset_states(model)
    try:
        return SegmentedRunner(model, capture(model, first[0]), steps)
    finally:
        reset_states(model)


def iter_again(batches: Any) -> bool:
    """Whether a second pass over `batches` begins anew."""
    return isinstance(batches, Iterable) and iter(batches) is not batches


def pairs(batches: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, or a `DataError` that says what came instead of ``(input, target)`` tensors."""
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise DataError(f"expected batches, an iterable of (input, target), got {type(batches).__name__}")
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError(f"expected (input, target) as a batch, got {_described(batch)}")
        x, y = batch
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise DataError(
                f"expected torch tensors in a batch, got {type(x).__name__} and {type(y).__name__}; "
                "torch.from_numpy makes a tensor of an array"
            )
        yield x, y


def _described(batch: Any) -> str:
    shape = getattr(batch, "shape", None)
    many = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"{type(batch).__name__}{many}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def check_batch(x: Tensor) -> None:
    """Raise `DataError` on data that hold NaN or infinity: spikes would hide them."""
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise DataError(f"a batch of shape {tuple(x.shape)} holds NaN or infinite values; remove them first")


def called(run: Forward, x: Tensor) -> Tensor:
    """The model's output, or a clear word about an input that it cannot take."""
    check_batch(x)
    try:
        return first_output(run(x))
    except RuntimeError as error:
        raise DataError(f"the model cannot take an input of shape {tuple(x.shape)}: {error}") from error


def first_output(result: Any) -> Tensor:
    """The output of a model that may return a tuple."""
    output: Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return output
