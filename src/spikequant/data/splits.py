"""Splits that are functions of indices and labels alone.

No random generator takes part, so a split is the same with every version of numpy and in
every language: each sample has the key ``SHA-256("<salt>:<index>")`` in hexadecimal, and the
samples of one class are taken in ascending order of their keys.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError


def hash_ranks(salt: str, y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each sample among those of its class, in ascending order of keys.

    Shapes: ``y [N]`` labels; result ``[N]``, from 0 to the size of the class minus 1.

    >>> hash_ranks("toy", np.array([0, 1, 0, 1, 0])).tolist()
    [1, 1, 2, 0, 0]
    """
    keys = np.array([hashlib.sha256(f"{salt}:{index}".encode()).hexdigest() for index in range(len(y))])
    ranks = np.empty(len(y), np.int64)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        ranks[members[np.argsort(keys[members])]] = np.arange(len(members))
    return ranks


def held_out(salt: str, y: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """True for `count` samples, from each class in proportion to its size.

    A class of `n` out of `N` samples gives ``floor(count * n / N)``; what is then still
    missing comes one each from the classes with the largest remainders, lower labels first.
    Within a class the samples with the smallest keys are held out.

    Raises:
        DataError: `count` is below 1, or as many as there are samples.

    >>> held_out("toy", np.array([0, 0, 0, 0, 1, 1]), 3).tolist()
    [False, True, False, True, True, False]
    """
    if not 0 < count < len(y):
        raise DataError(f"of {len(y)} samples 1 to {len(y) - 1} can be held out, got {count}")
    classes, sizes = np.unique(y, return_counts=True)
    quotas = count * sizes // len(y)
    remainders = count * sizes - quotas * len(y)
    extra = np.argsort(-remainders, kind="stable")[: count - int(quotas.sum())]
    quotas[extra] += 1
    return hash_ranks(salt, y) < quotas[np.searchsorted(classes, y)]


def stratified_folds(salt: str, y: npt.NDArray[np.int64], count: int = 5) -> npt.NDArray[np.int64]:
    """The fold of each sample, `count` folds that differ by at most one sample in size.

    Class by class in ascending order, the samples go to folds 0, 1, 2, ... in turn, in
    ascending order of their keys; the next class goes on where the last one stopped.  Each
    class differs by at most one sample between folds, too.

    >>> stratified_folds("toy", np.array([0, 0, 0, 1, 1, 1]), count=2).tolist()
    [1, 0, 0, 1, 0, 1]
    """
    if not 2 <= count <= len(y):
        raise DataError(f"{len(y)} samples make 2 to {len(y)} folds, got {count}")
    classes, sizes = np.unique(y, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    fold: npt.NDArray[np.int64] = (hash_ranks(salt, y) + starts[np.searchsorted(classes, y)]) % count
    return fold
