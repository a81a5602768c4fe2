"""`shrink`: the smallest network that keeps an accuracy limit, after training or in training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.analyse import compare, diagnose, observe
from spikequant.capture import capture
from spikequant.frontends import read_
from spikequant.law.errors import DataError, WidthError
from spikequant.nn.copying import copied
from spikequant.quantize import lower, verify
from spikequant.shrinking.descent import Descent
from spikequant.shrinking.journal import Journal, belonging
from spikequant.shrinking.ladder import MEMBRANE_BITS, WEIGHT_BITS, Ladder, roles_of
from spikequant.shrinking.progress import Show
from spikequant.shrinking.result import Shrunk, Trial
from spikequant.shrinking.trial import Bench
from spikequant.shrinking.words import account
from spikequant.training import Loss
from spikequant.training.held_out import Batch, at_first_epoch, divided

VERIFY_SAMPLES = 32


def shrink(
    model: nn.Module,
    batches: Iterable[Batch],
    max_drop: float = 0.5,
    *,
    validation: Iterable[Batch] | None = None,
    example_input: Tensor | None = None,
    strict: bool = False,
    epochs: int = 5,
    lr: float = 1e-3,
    loss: Loss = F.cross_entropy,
    max_trainings: int = 4,
    weight_bits: Sequence[int] = WEIGHT_BITS,
    membrane_bits: Sequence[int] = MEMBRANE_BITS,
    seed: int = 0,
    quiet: bool = False,
    checkpoint_folder: str | os.PathLike[str] | None = None,
    resume: bool = True,
    on_step: Callable[[Trial], None] | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> Shrunk:
    """The smallest quantized network that loses at most `max_drop` points of accuracy.

    Bits go down a ladder of weight bits x membrane bits.
    First after training (quantize, calibrate; seconds a trial): from the top, always the
    role whose next step saves more bytes; a rung that fails is tried with the other sign of
    membrane, then with the old bits for single layers, before that role stays where it is.
    Then in training: from the lowest rung that held, with both roles a step down, until
    rungs fail or `max_trainings` are spent.  The smallest network (flash and RAM together)
    that keeps the limit is frozen, lowered to integers and verified.

    ``drop = 100 * mean(right_float - right_quantized)`` over the held-out samples, with its
    paired 95 % interval.  The same samples decide at every rung, so the figures of the
    chosen one are optimistic: measure it once more on data that took no part.

    Args:
        model: a trained float network; never changed, trials work on copies.
        batches: ``(input, target)`` to calibrate and train on.  An iterator is read into memory.
        max_drop: points of accuracy that may be lost.
        validation: ``(input, target)`` that decide.  None: every fourth sample of `batches`
            is held out, and all are read into memory; a float network that was trained on
            them has seen these samples, so the drop then comes out too large.
        example_input: for the capture; None takes the first batch.
        strict: the upper end of the interval must keep the limit, not the drop alone.
        epochs: of each training; 0 for none.
        lr: learning rate of the trainings (Adam, cosine).
        loss: ``(output, target) -> scalar`` of the trainings.
        max_trainings: how many trainings there may be.
        weight_bits: of the ladder, from high to low (1 is `Binary`).
        membrane_bits: of the ladder, from high to low.
        seed: of every trial and of the noise of stochastic rounding.
        quiet: no progress, no sentences.
        checkpoint_folder: keeps every finished trial (JSON lines, safetensors) and the epochs
            of a training under way; a second call goes on from there.
        resume: False starts anew in that folder.
        on_step: called with every trial that this call runs.
        on_progress: called with ``(trial, batches done, batches in all)`` while one trains.

    Ctrl-C ends the search: the result is made of the trials so far, with ``interrupted``
    set; before the first trial is done it is raised on.

    Raises:
        DataError: no data, NaN, targets that do not fit, or a network without class scores.
        SpikequantError: the network has no integer form; the message says where.
        ArtifactError: the folder belongs to another run or cannot be written.
        PlanError: a ladder that does not go down.
        WidthError: no rung could be built at all.
    """
    started = time.perf_counter()
    _check(max_drop, epochs, max_trainings)
    ladder = Ladder(tuple(weight_bits), tuple(membrane_bits))
    bench, is_split = _bench(
        copied(model), batches, validation, example_input, ladder=ladder, epochs=epochs, lr=lr, loss=loss, seed=seed
    )
    settings = {"epochs": epochs, "lr": lr, "seed": seed, "loss": getattr(loss, "__name__", "loss")}
    journal = Journal(
        None if checkpoint_folder is None else Path(checkpoint_folder),
        belonging(bench.reference, bench.before, bench.example, **settings),
    )
    journal.open(resume=resume)
    with Show(quiet, on_progress) as show:
        descent = Descent(bench, journal, max_drop, strict, max_trainings, show, on_step)
        interrupted = descent.search()
        show.say("freeze, lower, verify, compare")
        shrunk = _finished(bench, descent, max_drop=max_drop, strict=strict)
    shrunk = replace(shrunk, interrupted=interrupted, seconds=time.perf_counter() - started)
    shrunk = replace(shrunk, words=account(shrunk, bench, is_split=is_split, trainings=max_trainings))
    if not quiet:
        print(shrunk)  # noqa: T201
    return shrunk


def _check(max_drop: float, epochs: int, max_trainings: int) -> None:
    if max_drop != max_drop:
        raise DataError("shrink: max_drop is NaN; expected points of accuracy, such as 0.5")
    if epochs < 0 or max_trainings < 0:
        raise DataError(f"shrink: epochs={epochs}, max_trainings={max_trainings}; expected 0 or more")


def _bench(
    model: nn.Module,
    batches: Iterable[Batch],
    validation: Iterable[Batch] | None,
    example_input: Tensor | None,
    *,
    ladder: Ladder,
    epochs: int,
    lr: float,
    loss: Loss,
    seed: int,
) -> tuple[Bench, bool]:
    axis = 0

    def axis_of(first: Tensor) -> int:
        """Which axis of an input counts the samples, off the captured graph."""
        nonlocal axis
        readable = copied(model)
        read_(readable)
        graph = capture(readable, example_input if example_input is not None else first)
        axis = 1 if graph.input_layout == "time_first" else 0
        return axis

    data = divided(batches, validation, axis_of=axis_of, seed=seed)
    first = example_input if example_input is not None else next(iter(at_first_epoch(data.learn)))[0]
    axis = axis_of(first)
    roles = roles_of(model, first)
    before = observe(model, data.decide, operations=False)
    bench = Bench(
        reference=model, roles=roles, ladder=ladder, example=first, sample_axis=axis, learn=data.learn,
        decide=data.decide, before=before, epochs=epochs, lr=lr, loss=loss, seed=seed,
    )  # fmt: skip
    return bench, data.is_split


def _finished(bench: Bench, descent: Descent, *, max_drop: float, strict: bool) -> Shrunk:
    """The result, made of the best trial."""
    if descent.best is None:
        raise WidthError(f"shrink: no rung could be built; the last one said: {descent.trials[-1].verdict}")
    trial, attempt = descent.best
    network, report = descent.network_of_best()
    few = bench.example.narrow(bench.sample_axis, 0, min(VERIFY_SAMPLES, bench.example.shape[bench.sample_axis]))
    plan = bench.plan(attempt)
    net = lower(network, few, metadata={"name": trial.name, "plan": plan.to_dict()})
    readable = copied(bench.reference)
    read_(readable)  # the graph of a recurrent neuron of another library names parts that only its reading has
    comparison = compare(readable, network, bench.decide)
    return Shrunk(
        plan=plan,
        model=network,
        report=report,
        net=net,
        verified=verify(network, net, few),
        comparison=comparison,
        findings=diagnose(bench.reference, network, at_first_epoch(bench.learn), comparison=comparison),
        trials=tuple(descent.trials),
        best=trial,
        met=trial.met,
        max_drop=max_drop,
        strict=strict,
        words=(),
    )
