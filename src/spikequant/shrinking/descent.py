"""The way down the ladder: which rung next, and what is tried before a rung is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from torch import nn

from spikequant.analyse import diagnose
from spikequant.quantize import QuantizeReport
from spikequant.shrinking.journal import Journal, reached_drop, with_verdict
from spikequant.shrinking.ladder import Rung, Scheme
from spikequant.shrinking.progress import Show
from spikequant.shrinking.result import Trial
from spikequant.shrinking.trial import Attempt, Bench, Tried, rebuilt, run_trial
from spikequant.training.held_out import at_first_epoch

Step = Literal["weight", "membrane", "both"]
STEPS: dict[Scheme, tuple[Step, ...]] = {"ptq": ("weight", "membrane"), "qat": ("both", "weight", "membrane")}


class Descent:
    """One search: what was tried, what is best, and what may still be spent."""

    def __init__(
        self,
        bench: Bench,
        journal: Journal,
        max_drop: float,
        strict: bool,
        max_trainings: int,
        show: Show,
        on_step: Callable[[Trial], None] | None,
    ) -> None:
        self.bench, self.journal, self.show, self.on_step = bench, journal, show, on_step
        self.max_drop, self.strict = max_drop, strict
        self.trainings_left = max_trainings if bench.epochs else 0
        self.trials: list[Trial] = []
        self.best: tuple[Trial, Attempt] | None = None
        self._held: Tried | None = None
        self._relieved: Attempt | None = None

    def search(self) -> bool:
        """Go down by calibration, then by training; True if Ctrl-C cut it short.

        Raises:
            KeyboardInterrupt: Ctrl-C before there is anything to return.
        """
        try:
            start = Attempt(rung=self.bench.ladder.top, scheme="ptq")
            lowest = self._descend(start) if self._run(start).met else None
            if lowest is not None:
                self._join(lowest)
            if self.trainings_left:
                self._train_down(lowest)
        except KeyboardInterrupt:
            if self.best is None:
                raise
            return True
        return False

    def network_of_best(self) -> tuple[nn.Module, QuantizeReport]:
        """The frozen network of the best trial."""
        assert self.best is not None
        trial, attempt = self.best
        if self._held is not None and self._held.trial.name == trial.name and self._held.model is not None:
            assert self._held.report is not None
            return self._held.model, self._held.report
        return rebuilt(self.bench, attempt, self.journal.weights(attempt))

    # -- the way down --------------------------------------------------------------------

    def _join(self, lowest: Attempt) -> None:
        """Fewer weight bits held with old ones for some layers: now with the membranes that held since."""
        if self._relieved is None or self._relieved.rung.membrane_bits == lowest.rung.membrane_bits:
            return
        synapses = self.bench.roles.synapses
        relief = {path: bits for path, bits in self._relieved.relief.items() if path in synapses}
        rung = Rung(self._relieved.rung.weight_bits, lowest.rung.membrane_bits)
        if relief and rung.weight_bits < lowest.rung.weight_bits:
            self._run(replace(self._relieved, rung=rung, relief=relief, signed=lowest.signed))

    def _train_down(self, lowest: Attempt | None) -> None:
        if lowest is None:
            lowest = Attempt(rung=self.bench.ladder.top, scheme="qat")
            if not self._run(lowest).met:
                return
        self._descend(Attempt(rung=lowest.rung, scheme="qat", signed=lowest.signed))

    def _descend(self, now: Attempt) -> Attempt:
        """From an attempt that holds to the lowest one that does; its plain rung, without relief."""
        failed: list[Rung] = []
        while True:
            rungs = {
                what: rung
                for what in STEPS[now.scheme]
                if (rung := self.bench.ladder.below(now.rung, what)) is not None
            }
            open_rungs = {what: r for what, r in rungs.items() if not any(r.is_within(f) for f in failed)}
            if not open_rungs or self._is_spent(now.scheme):
                return now
            rung = min(open_rungs.values(), key=self.bench.bits_of)
            found = self._rung(now, rung)
            if found is None:
                failed.append(rung)
            else:
                now = found

    def _is_spent(self, scheme: Scheme) -> bool:
        return scheme == "qat" and self.trainings_left <= 0

    def _rung(self, now: Attempt, rung: Rung) -> Attempt | None:
        """The plain attempt at a rung that holds, if any; relieved ones are tried, and only count as results."""
        first: Trial | None = None
        for signed in (now.signed, not now.signed) if now.scheme == "ptq" else (now.signed,):
            attempt = Attempt(rung=rung, scheme=now.scheme, signed=signed)
            trial = self._run(attempt)
            if trial.met:
                return attempt
            if first is None or first.was_refused or trial.drop < first.drop:
                first, best_attempt = trial, attempt
        assert first is not None
        for relief in self._reliefs(first, now.rung, rung):
            if self._is_spent(now.scheme):
                break
            relieved = Attempt(rung=rung, scheme=now.scheme, signed=best_attempt.signed, relief=relief)
            if self._run(relieved).met:
                self._relieved = relieved
                break
        return None

    def _reliefs(self, trial: Trial, above: Rung, rung: Rung) -> Iterator[dict[str, int]]:
        """The old bits for the layer of largest EMD; then for the first and the last layer."""
        roles = self.bench.roles
        everything = self._old_bits(roles.synapses, above, rung)
        seen: list[dict[str, int]] = [{}, everything]
        worst = max(trial.layer_emd, key=lambda path: trial.layer_emd[path], default=None)
        groups = [[p for p in roles.synapses if roles.feeds.get(p) == worst]] if worst is not None else []
        groups += [[roles.synapses[0], roles.synapses[-1]]]
        for group in groups:
            relief = self._old_bits(tuple(group), above, rung)
            if relief not in seen:
                seen.append(relief)
                yield relief
            if trial.scheme == "qat":
                return

    def _old_bits(self, synapses: tuple[str, ...], above: Rung, rung: Rung) -> dict[str, int]:
        """What these layers had on the rung above, where it was more; their neurons likewise."""
        feeds = self.bench.roles.feeds
        relief: dict[str, int] = {}
        if above.weight_bits > rung.weight_bits:
            relief.update(dict.fromkeys(synapses, above.weight_bits))
        if above.membrane_bits > rung.membrane_bits:
            relief.update({feeds[path]: above.membrane_bits for path in synapses if path in feeds})
        return relief

    # -- one trial -----------------------------------------------------------------------

    def _run(self, attempt: Attempt) -> Trial:
        """Run an attempt, or take it from the journal; keep it, judge it."""
        name, tried = str(attempt), None
        self.trainings_left -= attempt.scheme == "qat"
        if name in self.journal.done:
            trial = self.journal.done[name]
        else:
            self.show.trial(name, self._announcement(name))
            tried = run_trial(self.bench, attempt, tick=self.show.tick, checkpoint=self.journal.checkpoint(attempt))
            tried = self._explained(tried)
            trial = tried.trial
            self.journal.keep(tried)
        trial = with_verdict(trial, max_drop=self.max_drop, strict=self.strict)
        self.trials.append(trial)
        if self._is_better(trial):
            self.best, self._held = (trial, attempt), tried
        if tried is not None and self.on_step is not None:
            self.on_step(trial)
        return trial

    def _announcement(self, name: str) -> str:
        """The trial, and how much training there may still be."""
        trained = [t.seconds for t in self.trials if t.scheme == "qat"]
        text = f"trial {len(self.trials) + 1}: {name}"
        if not trained or not self.trainings_left:
            return text
        seconds = self.trainings_left * sum(trained) / len(trained)
        return f"{text} (then at most {self.trainings_left} trainings, {seconds / 60:.0f} min {seconds % 60:.0f} s)"

    def _explained(self, tried: Tried) -> Tried:
        """A trial over the limit, with the causes of what its layers do."""
        if tried.model is None or with_verdict(tried.trial, max_drop=self.max_drop, strict=self.strict).met:
            return tried
        found = diagnose(self.bench.reference, tried.model, at_first_epoch(self.bench.learn), try_remedies=False)
        return replace(tried, trial=replace(tried.trial, findings=tuple(str(finding) for finding in found)))

    def _is_better(self, trial: Trial) -> bool:
        if trial.was_refused:
            return False
        if self.best is None:
            return True
        best = self.best[0]
        if trial.met != best.met:
            return trial.met
        if trial.met:
            return (trial.size_bytes, trial.drop) < (best.size_bytes, best.drop)
        now, then = (reached_drop(t, strict=self.strict) for t in (trial, best))
        return (now, trial.size_bytes) < (then, best.size_bytes)
