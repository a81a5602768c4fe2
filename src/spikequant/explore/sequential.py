"""When to give up on a candidate: a paired sequential test against the target accuracy, with a stated error.

The validation set is finite and its order random, the real network's answers to all of it are known, and a candidate
is compared with them sample by sample, as in McNemar's test: where both are right or both are wrong nothing is learned
but that the rest must make up for it.  With ``d_i = right_i - reference_i`` in {-1, 0, 1} and ``m`` the mean of d that
the target asks for over all N samples, the hypothesis "the candidate keeps the target" is bet against::

    m_t = (N m - sum_{i<t} d_i) / (N - t + 1)            mean of what is left, if it keeps the target exactly
    W_t = W_{t-1} (1 - c / (1 - m_t) (d_t - m_t))        0 < c < 1; a fortune that cannot grow on average if it does

The mean of `BETS` of such fortunes is a supermartingale in a random order of a candidate that keeps the target, so it
ever reaches ``1 / error`` with a probability of at most `error` (Ville's inequality): the boundary.  It may be looked
at after every sample without correction.  Besides, a candidate that the target allows no more mistakes is given up
with no error at all.

Source: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024, section
5 (sampling without replacement); Q. McNemar, Psychometrika 12, 1947 (pairs).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

BETS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of the largest bet that is allowed: small ones for candidates near the target, large ones for bad ones."""
ERROR: Final = 1e-4
"""Default probability that a candidate which keeps the target is given up."""
Right = npt.NDArray[np.bool_]


def hopeless_at(right: Right, reference: Right, target_accuracy: float, *, error: float = ERROR) -> int | None:
    """After how many samples a candidate is given up; None if it is not.

    Shapes: `right` ``[t]``, the samples seen so far, `reference` ``[N]``, the real network on all of them, in the same
    random order.

    Raises:
        DataError: more samples than the reference has, no reference, an error outside (0, 1).

    >>> reference = np.ones(100, dtype=bool)
    >>> hopeless_at(np.zeros(100, dtype=bool), reference, 0.9, error=0.001)
    11
    >>> hopeless_at(reference, reference, 0.9) is None
    True
    """
    n, seen = len(reference), len(right)
    if not 0 < seen <= n or not 0.0 < error < 1.0:
        raise DataError(f"hopeless_at: {seen} of {n} samples, error {error}; expected 1 to {n}, and an error in (0, 1)")
    needed = math.ceil(target_accuracy * n - 1e-9)
    mistakes = np.cumsum(~right)
    stops = [int(found[0]) + 1 for found in (np.flatnonzero(mistakes > n - needed),) if len(found)]
    difference = right.astype(np.float64) - reference[:seen]
    left = needed - float(reference.sum()) - np.concatenate([[0.0], np.cumsum(difference)[:-1]])
    mean = left / (n - np.arange(seen))
    crossed = np.flatnonzero(_log_fortune(difference, mean) >= -math.log(error))
    stops += [int(crossed[0]) + 1] if len(crossed) else []
    return min(stops, default=None)


def _log_fortune(difference: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the mean fortune after every sample; the bets end where the rest can no longer fail the target."""
    over = np.flatnonzero(mean <= -1.0)
    if len(over):
        difference, mean = difference[: over[0]], mean[: over[0]]
    room = np.maximum(1.0 - mean, 1e-12)
    bets = np.array(BETS)[:, None]
    steps = 1.0 - bets / room * (difference - mean)
    logs = np.cumsum(np.log(np.maximum(steps, 1e-300)), axis=1)
    fortunes: npt.NDArray[np.float64] = np.logaddexp.reduce(logs, axis=0) - math.log(len(BETS))
    return fortunes
