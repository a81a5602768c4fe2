"""How far a search for the smallest network is, and how long it still takes at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from spikequant.shrinking import Trial

MOST_TRAININGS = 4
"""Trainings that the search of the command runs at most; the default of `spikequant.shrink`."""


@final
class SearchClock:
    """Counts trials and trainings, and bounds what is left from above.

    A step down the ladder takes at most two trials without training (one for each sign of the
    membranes), each role gives up once after at most two more (old bits for single layers),
    and one trial joins the two.  The time left is that of the longest trial so far for each
    of them: an upper estimate, as most searches end before the ladder does.
    """

    def __init__(self, trainings: int, *, now: Callable[[], float] = time.monotonic) -> None:
        from spikequant.shrinking.ladder import Ladder

        self._ladder, self._now = Ladder(), now
        self._steps = len(self._ladder.weight_bits) + len(self._ladder.membrane_bits) - 2
        self._plain, self._trainings = 1 + self._bound(), trainings
        self._longest: dict[str, float] = {}
        self._since = now()
        self._training: tuple[float, int] | None = None
        self.done, self.share = 0, 0.0

    @property
    def most(self) -> int:
        """Trials in all, at most."""
        return self.done + self._plain + self._trainings

    def trial(self, trial: Trial) -> None:
        """A trial has ended."""
        now = self._now()
        took = now - self._since if self.done else trial.seconds  # before the first one the float network was measured
        self._longest[trial.scheme] = max(took, self._longest.get(trial.scheme, 0.0))
        self._since, self._training, self.share = now, None, 0.0
        self.done += 1
        if trial.scheme == "qat":
            self._plain, self._trainings = 0, max(0, self._trainings - 1)
            return
        top = self._ladder.top
        if not trial.met and (trial.weight_bits, trial.membrane_bits) == (top.weight_bits, top.membrane_bits):
            # what follows are trainings
            self._plain = 0
            return
        if trial.met and not trial.relief:
            weight, membrane = self._ladder.weight_bits, self._ladder.membrane_bits
            below = len(weight) + len(membrane) - 2 - weight.index(trial.weight_bits)
            self._steps = min(self._steps, below - membrane.index(trial.membrane_bits))
        self._plain = min(max(0, self._plain - 1), self._bound())

    def training(self, done: int, total: int | None) -> None:
        """The training of a trial has done so many of its batches."""
        now = self._now()
        if self._training is None:
            self._plain, self._training = 0, (now, done)
        since, first = self._training
        if not total or done <= first:
            return
        self.share = done / total
        self._longest["qat"] = max((now - since) * total / (done - first), self._longest.get("qat", 0.0))

    def left(self) -> str:
        """``at most about 1:20 left``, with what is not known yet."""
        passed = self._now() - self._since
        seconds = self._plain * self._longest.get("ptq", 0.0) + self._trainings * self._longest.get("qat", 0.0)
        # the trial under way has used some of its time already
        running = self._longest.get("qat" if self._training is not None or not self._plain else "ptq", 0.0)
        text = f"at most about {clock(seconds - min(passed, running))} left" if seconds else "time left not known yet"
        if self._trainings and "qat" not in self._longest:
            text += f", then up to {self._trainings} trainings" if seconds else ""
        return text

    def __str__(self) -> str:
        rest = self.left() if self.done < self.most else "the last one"
        return f"trial {self.done} of at most {self.most}, {rest}"

    def _bound(self) -> int:
        return 2 * self._steps + 2 * 2 + 1


def clock(seconds: float) -> str:
    """Minutes and seconds, hours before them where there are any.

    >>> clock(80.2), clock(3671)
    ('1:20', '1:01:11')
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
