"""`fit`: train (or train on, quantized) with progress, checkpoints and exact resume; `evaluate`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spikequant.capture import LayerwiseRunner, capture
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, CaptureError, DataError, Unsupported
from spikequant.nn.reset import reset_states

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[Tensor], Any]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch."""

    epoch: int
    loss: float
    accuracy: float
    validation: float | None = None


@dataclass(frozen=True)
class FitResult:
    """The history of a training, also across resumes."""

    epochs: tuple[Epoch, ...] = field(default=())
    interrupted: bool = False

    @property
    def loss(self) -> float:
        """Loss of the last epoch."""
        return self.epochs[-1].loss if self.epochs else float("nan")


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    epochs: int = 5,
    lr: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss = F.cross_entropy,
    validation: Batches | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    schedule: str = "cosine",
    quiet: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> FitResult:
    """Train `model` on ``(input, target)`` batches.

    With `checkpoint` every epoch is written to that file (safetensors: weights, optimizer,
    random state, history); called again with the same arguments, training goes on behind
    the last finished epoch and ends with the same weights as without the interruption, if
    `batches` has ``set_epoch`` or an order of its own.

    Args:
        model: ordinary module, real or quantized and not frozen.
        batches: re-iterable of ``(input, target)``.
        epochs: passes over `batches` in all.
        lr: learning rate of Adam, if no `optimizer` is given.
        optimizer: any torch optimizer over the model's parameters.
        loss: ``(output, target) -> scalar``.
        validation: batches whose accuracy is measured after each epoch.
        checkpoint: file to write and resume from.
        resume: False starts anew although the file is there.
        schedule: ``"cosine"`` (step by step, to 1 % of the rate) or ``"constant"``.
        quiet: no progress bar.
        on_epoch: called with every finished `Epoch`.

    Raises:
        DataError: an empty loader, or data that are not finite.
        ArtifactError: the checkpoint cannot be read or written.
    """
    if schedule not in ("cosine", "constant"):
        raise DataError(f"fit: schedule {schedule!r}; expected 'cosine' or 'constant'")
    run = layerwise(model, batches)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise DataError("fit: the model has no parameter to train; a frozen model is integers for good")
    optimizer = optimizer if optimizer is not None else torch.optim.Adam(parameters, lr=lr)
    rates = _Schedule(tuple(group["lr"] for group in optimizer.param_groups), schedule == "cosine", epochs)
    history: list[Epoch] = []
    if checkpoint is not None and resume and Path(checkpoint).exists():
        history = _load(Path(checkpoint), model, optimizer)
    with _bar(quiet) as progress:
        for number in range(len(history), epochs):
            done = _epoch(model, run, batches, optimizer, loss, number, rates, progress)
            accuracy = None if validation is None else evaluate(model, validation).accuracy
            history.append(Epoch(epoch=number + 1, loss=done[0], accuracy=done[1], validation=accuracy))
            if checkpoint is not None:
                _save(Path(checkpoint), model, optimizer, history)
            if on_epoch is not None:
                on_epoch(history[-1])
    rates.apply(optimizer, 0.0)  # a second training starts with the rate that was given
    return FitResult(tuple(history))


@dataclass(frozen=True)
class _Schedule:
    """Learning rates over the whole training: cosine down to 1 % of the start, or constant."""

    rates: tuple[float, ...]
    cosine: bool
    epochs: int

    def apply(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Set the rates after `done` epochs, a fraction within an epoch."""
        share = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done / self.epochs, 1.0))) if self.cosine else 1.0
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share


def _epoch(
    model: nn.Module,
    run: Forward,
    batches: Batches,
    optimizer: Any,
    loss: Loss,
    number: int,
    rates: _Schedule,
    progress: Progress,
) -> tuple[float, float]:
    if hasattr(batches, "set_epoch"):
        batches.set_epoch(number)
    model.train()
    total, right, count = 0.0, 0, 0
    length = len(batches) if isinstance(batches, Sized) else None
    task = progress.add_task(f"epoch {number + 1}/{rates.epochs}", total=length, loss=float("nan"))
    for step, (x, y) in enumerate(batches):
        rates.apply(optimizer, number + (step / length if length else 0.0))
        reset_states(model)
        optimizer.zero_grad(set_to_none=True)
        output = _called(run, x)
        value = loss(output, y)
        if not bool(torch.isfinite(value)):
            raise DataError(
                f"fit: the loss is {float(value.detach())} in epoch {number + 1}; "
                "check the data for NaN, or lower the learning rate"
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(value.detach()) * len(y)
        right += int((output.detach().argmax(-1) == y).sum()) if output.dim() == 2 else 0
        count += len(y)
        progress.update(task, advance=1, loss=total / count)
    progress.remove_task(task)
    reset_states(model)
    if count == 0:
        raise DataError("fit: the loader gave no batch; expected at least one (input, target)")
    return total / count, right / count


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy over all samples, with the predictions for paired comparisons."""

    accuracy: float
    samples: int
    predictions: Tensor
    targets: Tensor


def evaluate(model: nn.Module, batches: Batches) -> Evaluation:
    """Accuracy of a torch model on ``(input, target)`` batches, in evaluation mode.

    Raises:
        DataError: no batch, or an output that is not ``[N, classes]``.
    """
    run = layerwise(model, batches)
    was_training = model.training
    model.eval()
    predictions, targets = [], []
    try:
        with torch.no_grad():
            for x, y in batches:
                reset_states(model)
                output = _called(run, x)
                if output.dim() != 2 or len(output) != len(y):
                    raise DataError(
                        f"evaluate: expected scores [N, classes] for {len(y)} targets, got {tuple(output.shape)}"
                    )
                predictions.append(output.argmax(-1).cpu())
                targets.append(y.cpu())
    finally:
        model.train(was_training)
        reset_states(model)
    if not targets:
        raise DataError("evaluate: the loader gave no batch; expected at least one (input, target)")
    p, t = torch.cat(predictions), torch.cat(targets)
    return Evaluation(accuracy=float((p == t).float().mean()), samples=len(t), predictions=p, targets=t)


def layerwise(model: nn.Module, batches: Batches) -> Forward:
    """What `fit` and `evaluate` call: the model itself, or, if it loops over time, its graph layer by layer.

    A model that cannot be captured, or does one step per call, is called as it is.
    """
    if not any(getattr(m, "step_mode", "m") == "s" for m in model.modules()):
        return model
    rows = iter(batches)
    if rows is batches:  # an iterator gives its first batch only once
        return model
    first = next(rows, None)
    if first is None or len(first[0]) < 2:
        return model
    try:
        reset_states(model)
        runner = LayerwiseRunner(model, capture(model, first[0]))
    except (CaptureError, Unsupported, RuntimeError):  # a RuntimeError comes again when the model runs
        return model
    finally:
        reset_states(model)
    return lambda x: runner(x) if runner.fits(x) else model(x)


def check_batch(x: Tensor) -> None:
    """Raise `DataError` on data that hold NaN or infinity: spikes would hide them."""
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise DataError(f"a batch of shape {tuple(x.shape)} holds NaN or infinite values; remove them first")


def _called(run: Forward, x: Tensor) -> Tensor:
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


def _bar(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        disable=quiet,
        transient=True,
    )


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch]) -> None:
    tensors = {f"model/{k}": v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach().clone().contiguous()
            else:
                scalars.setdefault(str(index), {})[key] = value
    tensors["random"] = torch.get_rng_state()
    facts = {
        "history": [e.__dict__ for e in history],
        "groups": state["param_groups"],
        "scalars": scalars,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"fit: cannot make the folder {path.parent}: {error}") from error
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"fit": json.dumps(facts)})
        except SafetensorError as error:
            raise ArtifactError(
                f"fit: cannot write the checkpoint {path}: {error}; the last one is unchanged"
            ) from error


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    try:
        with safe_open(str(path), framework="pt") as opened:
            facts = json.loads((opened.metadata() or {})["fit"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        random, scalars, groups = tensors["random"], facts["scalars"], facts["groups"]
        history = [Epoch(**epoch) for epoch in facts["history"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"fit: {path} is not a checkpoint of fit ({error}); delete it or pass resume=False"
        ) from error
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"fit: the checkpoint {path} belongs to another model: {error}") from error
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in scalars.items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state.setdefault(int(index), {})[key] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as error:
        raise ArtifactError(f"fit: the checkpoint {path} belongs to another optimizer: {error}") from error
    torch.set_rng_state(random)
    return history
