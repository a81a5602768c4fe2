"""Training without labels: images in an order that replays, checkpoints, live progress."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikequant.law.errors import ArtifactError, DataError
from spikequant.law.noise import mix
from spikequant.learn.checkpoint import load_checkpoint, save_network
from spikequant.learn.network import Network
from spikequant.learn.poisson import check_images, stream_key

FORGET = 0.9
"""Share of the running answers that one chunk keeps."""
MOST_CLASSES = 2**16


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one chunk of images showed.

    Attributes:
        seen: images learned from so far.
        images: images of this chunk.
        spikes: spikes per image.
        threshold_mv: mean adaptive threshold.
        accuracy: of labels assigned by the chunks before, on this one; None without labels or in the first chunk.
        seconds: time it took.
    """

    seen: int
    images: int
    spikes: float
    threshold_mv: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Trained:
    """The chunks of a training, and whether Ctrl-C ended it."""

    chunks: tuple[Chunk, ...] = field(repr=False)
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time of all chunks, also of those before a resume."""
        return sum(chunk.seconds for chunk in self.chunks)


def epoch_order(count: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of `count` images in one pass: a function of seed and pass alone.

    >>> epoch_order(5, seed=0, epoch=0).tolist() == epoch_order(5, seed=0, epoch=0).tolist()
    True
    """
    words = mix(mix(stream_key(seed, "order"), epoch), np.arange(count, dtype=np.int64))
    return np.argsort(words, kind="stable")


def train(
    network: Network,
    images: Any,
    labels: Any = None,
    *,
    epochs: int = 1,
    checkpoint: Path | str | None = None,
    resume: bool = True,
    chunk: int = 500,
    quiet: bool = False,
    on_chunk: Callable[[Chunk], None] | None = None,
) -> Trained:
    """Learn from `images`, in place; the same bits whether or not it was cut off and resumed.

    Every random number depends on seed and position only, so a run of which nothing is left but its checkpoint
    continues as if it had never stopped.  Ctrl-C keeps the last finished chunk.

    Args:
        network: fresh, or one that has learned: then it goes on behind `network.seen` images.
        images: ``[N, ...]`` whole intensities.
        labels: classes ``[N]``, for the accuracy on screen only; learning never sees them.
        epochs: passes over `images` in all, those before a resume counted.
        checkpoint: file to write after every chunk, and to resume from.
        resume: False starts anew although the file is there.
        chunk: images between two checkpoints.
        quiet: no progress bar.
        on_chunk: called with every finished `Chunk`.

    Raises:
        DataError: images or labels that do not fit.
        ArtifactError: the checkpoint cannot be read or written, or belongs to another network or other images.
    """
    flat = check_images(images, levels=network.config.levels, inputs=network.config.inputs)
    y = None if labels is None else np.asarray(labels)
    if y is not None and (y.shape != (len(flat),) or y.dtype.kind not in "ui"):
        raise DataError(f"train: expected {len(flat)} labels as whole numbers, got {y.dtype} of shape {y.shape}")
    if y is not None and not 0 <= int(y.min()) <= int(y.max()) < MOST_CLASSES:
        raise DataError(f"train: labels from {y.min()} to {y.max()}; expected classes 0 to {MOST_CLASSES - 1} at most")
    if epochs < 0 or chunk < 1:
        raise DataError(f"train: epochs={epochs}, chunk={chunk}; expected 0 or more, and 1 or more")
    screen, shown = _Screen(network.config.neurons, y), hashlib.sha256(flat.tobytes()).hexdigest()
    chunks: list[Chunk] = []
    if checkpoint is not None and resume and Path(checkpoint).exists():
        chunks = _resumed(network, Path(checkpoint), screen, shown)
    interrupted = False
    try:
        with _bar(quiet) as progress:
            task = progress.add_task("learning", total=epochs * len(flat), completed=network.seen, note="")
            while network.seen < epochs * len(flat):
                chunks.append(_chunk(network, flat, screen, min(chunk, epochs * len(flat) - network.seen)))
                if checkpoint is not None:
                    facts = {"chunks": [c.__dict__ for c in chunks], "images": shown}
                    save_network(network, checkpoint, facts=facts, answers=screen.answers)
                progress.update(task, completed=network.seen, note=_note(chunks[-1]))
                if on_chunk is not None:
                    on_chunk(chunks[-1])
    except KeyboardInterrupt:
        interrupted = True
    return Trained(tuple(chunks), interrupted)


def _chunk(network: Network, flat: npt.NDArray[np.uint8], screen: _Screen, most: int) -> Chunk:
    """The next images; a chunk ends with its pass.  The network changes at the end only, so that Ctrl-C may come."""
    started = time.perf_counter()
    epoch, at = divmod(network.seen, len(flat))
    where = epoch_order(len(flat), seed=network.config.seed, epoch=epoch)[at : at + most]
    kept = network.weights.copy(), network.adaptive.copy(), network.common, network.seen
    try:
        activity = network.learn(flat[where])
    except BaseException:
        network.weights, network.adaptive, network.common, network.seen = kept
        raise
    return Chunk(
        seen=network.seen,
        images=len(where),
        spikes=float(activity.counts.sum() / len(where)),
        threshold_mv=float(network.real_adaptive().mean()),
        accuracy=screen.look(activity.counts, where),
        seconds=time.perf_counter() - started,
    )


class _Screen:
    """The running accuracy: neurons labelled by what they answered to lately."""

    def __init__(self, neurons: int, y: npt.NDArray[Any] | None) -> None:
        self.y = y
        self.answers = np.zeros((neurons, 1 if y is None else int(y.max()) + 1))

    def look(self, counts: npt.NDArray[np.int32], where: npt.NDArray[np.int64]) -> float | None:
        """Accuracy on these counts, then learn labels from them."""
        if self.y is None:
            return None
        y, accuracy = self.y[where], None
        if self.answers.any():
            mine = np.eye(self.answers.shape[1])[self.answers.argmax(axis=1)] * self.answers.any(axis=1, keepdims=True)
            scores = counts @ (mine / np.maximum(mine.sum(axis=0), 1.0))
            accuracy = float((scores.argmax(axis=1) == y).mean())
        self.answers *= FORGET
        for c in range(self.answers.shape[1]):
            if np.any(y == c):
                self.answers[:, c] += counts[y == c].mean(axis=0)
        return accuracy


def _resumed(network: Network, path: Path, screen: _Screen, shown: str) -> list[Chunk]:
    saved, facts, arrays = load_checkpoint(path)
    ours = (network.config, network.precision)
    theirs = (saved.config, saved.precision)
    if ours != theirs:
        what = next(f"{a}, not {b}" for a, b in zip(theirs, ours, strict=True) if a != b)
        raise ArtifactError(f"train: {path} holds another network: {what}; delete it or pass resume=False")
    if facts.get("images", shown) != shown:  # older files do not say
        raise ArtifactError(
            f"train: {path} has learned from other images; delete it, pass resume=False, or go on with "
            "load_network and another checkpoint"
        )
    if arrays["answers"].shape != screen.answers.shape:
        raise ArtifactError(f"train: {path} was written with other labels; delete it or pass resume=False")
    network.weights, network.adaptive, network.seen = saved.weights, saved.adaptive, saved.seen
    network.common = saved.common
    screen.answers = arrays["answers"].copy()
    return [Chunk(**record) for record in facts["chunks"]]


def _note(chunk: Chunk) -> str:
    accuracy = "" if chunk.accuracy is None else f", accuracy {chunk.accuracy:.1%}"
    return f"{chunk.spikes:.1f} spikes/image, threshold +{chunk.threshold_mv:.1f} mV{accuracy}"


def _bar(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=quiet, transient=True)
