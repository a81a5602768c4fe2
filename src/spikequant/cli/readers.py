"""The readers of an integer network that ``spikequant verify`` runs against each other.

Adding one touches this file only: a function from a network and input codes to a
`Reading`, and its name in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from spikequant.law.formats import IntArray
    from spikequant.law.network import IntNet

ALL = "all"


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader gives: scores, and (if it can be watched) the outputs of each neuron node ``[T, N, ...]``."""

    scores: IntArray
    outputs: Mapping[str, IntArray] = field(default_factory=dict)


def _golden(net: IntNet, codes: IntArray) -> Reading:
    from spikequant.readers import golden

    run = golden.run(net, codes)
    return Reading(run.scores, run.outputs)


READERS: Mapping[str, Callable[[IntNet, IntArray], Reading]] = {"golden": _golden}


def choose_readers(text: str) -> tuple[str, ...]:
    """Names out of ``all`` or a list with commas; the golden model is always among them and first.

    Raises:
        DataError: an unknown name.

    >>> choose_readers("all")
    ('golden',)
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in READERS and name != ALL]
    if unknown or not names:
        raise DataError(f"--readers {text}: expected {ALL}, or some of {', '.join(READERS)} with commas between")
    return tuple(READERS) if ALL in names else tuple(dict.fromkeys(["golden", *names]))


def complete_readers(incomplete: str) -> Iterable[str]:
    """Names of readers for tab completion."""
    return [name for name in (ALL, *READERS) if name.startswith(incomplete)]
