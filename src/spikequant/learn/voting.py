"""From spikes to classes: neurons get labels by what they answer to, then they vote."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError
from spikequant.learn.network import Activity

Vote = Literal["all", "proportional", "ngram"]
VOTES: tuple[Vote, ...] = get_args(Vote)


@dataclass(frozen=True, eq=False)
class Labels:
    """What every neuron stands for.

    Attributes:
        assigned: class per neuron, -1 for one that never fired; int64 ``[neurons]``.
        proportions: share of each class in a neuron's activity ``[neurons, classes]``.
        ngrams: for the vote by order: ``(neuron, ..., neuron) -> counts per class``.
        n: length of an n-gram.
    """

    assigned: npt.NDArray[np.int64]
    proportions: npt.NDArray[np.float64]
    ngrams: dict[tuple[int, ...], npt.NDArray[np.float64]]
    n: int = 2

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.proportions.shape[1])


def assign_labels(activity: Activity, y: Any, *, classes: int, n: int = 2) -> Labels:
    """Labels from a labelled run.

    A neuron's activity per class is its mean count over the images of that class; it gets the class of the highest.

    Raises:
        DataError: as many labels as images were not given, or they are not ``0 .. classes - 1``.
    """
    y = _checked(activity, y, classes)
    rates = np.zeros((activity.counts.shape[1], classes))
    for c in range(classes):
        members = activity.counts[y == c]
        if len(members):
            rates[:, c] = members.mean(axis=0)
    total = rates.sum(axis=1, keepdims=True)
    proportions = np.divide(rates, total, out=np.zeros_like(rates), where=total > 0)
    assigned = np.where(total[:, 0] > 0, rates.argmax(axis=1), -1)
    return Labels(assigned.astype(np.int64), proportions, _ngrams(activity, y, classes, n), n)


def _ngrams(
    activity: Activity, y: npt.NDArray[np.int64], classes: int, n: int
) -> dict[tuple[int, ...], npt.NDArray[np.float64]]:
    counts: dict[tuple[int, ...], Counter[int]] = {}
    for order, label in zip(activity.order, y, strict=True):
        for gram in _grams(order, n):
            counts.setdefault(gram, Counter())[int(label)] += 1
    return {gram: np.array([found[c] for c in range(classes)], float) for gram, found in counts.items()}


def _grams(order: npt.NDArray[np.int32], n: int) -> list[tuple[int, ...]]:
    neurons = [int(j) for j in order if j >= 0]
    return [tuple(neurons[k : k + n]) for k in range(len(neurons) - n + 1)]


def votes(activity: Activity, labels: Labels, *, vote: Vote = "all") -> npt.NDArray[np.float64]:
    """Scores ``[N, classes]``.

    ``all``: mean count of the neurons of a class; ``proportional``: counts weighted by each neuron's share of the
    class, over the sum of these shares; ``ngram``: how often the image's n-grams of spikes came with the class.

    Raises:
        DataError: an unknown vote.
    """
    if vote == "ngram":
        return _ngram_votes(activity, labels)
    if vote not in VOTES:
        raise DataError(f"vote {vote!r}; expected one of {', '.join(VOTES)}")
    weights = labels.proportions
    if vote == "all":
        weights = (labels.assigned[:, None] == np.arange(labels.classes)).astype(float)
    sizes = weights.sum(axis=0)
    scores: npt.NDArray[np.float64] = np.divide(
        activity.counts @ weights, sizes, out=np.zeros((len(activity.counts), len(sizes))), where=sizes > 0
    )
    return scores


def _ngram_votes(activity: Activity, labels: Labels) -> npt.NDArray[np.float64]:
    scores = np.zeros((len(activity.counts), labels.classes))
    for score, order in zip(scores, activity.order, strict=True):
        for gram in _grams(order, labels.n):
            if gram in labels.ngrams:
                score += labels.ngrams[gram]
    return scores


def predict(activity: Activity, labels: Labels, *, vote: Vote = "all") -> npt.NDArray[np.int64]:
    """Classes ``[N]``: the highest vote, the first of equal ones."""
    classes: npt.NDArray[np.int64] = votes(activity, labels, vote=vote).argmax(axis=1)
    return classes


def confusion(predicted: Any, y: Any, *, classes: int) -> npt.NDArray[np.int64]:
    """How many images of class ``row`` were taken for class ``column``.

    >>> confusion([0, 1, 1], [0, 0, 1], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(y), np.asarray(predicted)), 1)
    return table


def _checked(activity: Activity, y: Any, classes: int) -> npt.NDArray[np.int64]:
    array = np.asarray(y)
    if array.shape != (len(activity.counts),):
        raise DataError(f"labels: expected {len(activity.counts)} of them, one per image, got the shape {array.shape}")
    if array.dtype.kind not in "ui" or array.min() < 0 or array.max() >= classes:
        raise DataError(f"labels: expected whole numbers 0 to {classes - 1}, got {array.dtype} up to {array.max()}")
    return array.astype(np.int64)
