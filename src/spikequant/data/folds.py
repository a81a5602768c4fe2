"""Five-fold splits of a source."""

from __future__ import annotations

import numpy as np

from spikequant.data.dataset import Source, Split
from spikequant.data.splits import stratified_folds
from spikequant.law.errors import DataError

FOLDS = 5


def fold_splits(salt: str, source: Source, fold: int) -> dict[str, Split]:
    """Fold `fold` to test on, the next one (cyclically) as validation, three to train on.

    Folds are ``stratified_folds(salt, labels)``: every sample is tested in exactly one.

    Raises:
        DataError: no such fold.
    """
    if not 0 <= fold < FOLDS:
        raise DataError(f"{salt}: fold={fold}; expected 0 to {FOLDS - 1}")
    of = stratified_folds(salt, source.labels, FOLDS)
    validation = (fold + 1) % FOLDS
    return {
        "train": Split(source, np.flatnonzero((of != fold) & (of != validation))),
        "validation": Split(source, np.flatnonzero(of == validation)),
        "test": Split(source, np.flatnonzero(of == fold)),
    }
