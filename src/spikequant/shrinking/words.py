"""The account of a search in sentences: what it did, and what it could not do."""

from __future__ import annotations

import torch

from spikequant.shrinking.journal import reached_drop
from spikequant.shrinking.ladder import Scheme
from spikequant.shrinking.result import Shrunk, Trial
from spikequant.shrinking.trial import Bench

MOST_FINDINGS = 3


def account(shrunk: Shrunk, bench: Bench, *, is_split: bool, trainings: int) -> tuple[str, ...]:
    """Plain sentences, most important first."""
    return (
        _headline(shrunk),
        *(["The search was interrupted; this is the best of what was tried until then."] if shrunk.interrupted else []),
        *_chance(shrunk, bench),
        *_after_training(shrunk),
        *_in_training(shrunk, bench, trainings),
        *(f"In the result {finding}" for finding in shrunk.findings),
        *_obstacles(shrunk),
        *([] if shrunk.met else _what_to_change(shrunk, bench, trainings)),
        *_honesty(shrunk, is_split),
        f"Integers and simulation are equal: {shrunk.verified}.",
    )


def _headline(shrunk: Shrunk) -> str:
    best, reference = shrunk.best, shrunk.comparison.reference
    size = f"{_bytes(best.flash_bytes)} of flash and {_bytes(best.ram_bytes)} of RAM"
    float_size = f"{_bytes(reference.flash_bytes)} and {_bytes(reference.ram_bytes)} as float"
    figures = (
        f"{100 * best.accuracy:.2f} % instead of {100 * reference.accuracy:.2f} % ({_change(best)}), "
        f"{size} ({float_size})."
    )
    limit = f"at most {shrunk.max_drop:g} points{_strictly(shrunk)}"
    if shrunk.met:
        return f"{best.name} is the smallest network found that loses {limit}: {figures}"
    return f"Nothing that was tried loses {limit}. The nearest is {best.name}: {figures}"


def _chance(shrunk: Shrunk, bench: Bench) -> list[str]:
    """A float network that knows nothing loses nothing."""
    targets = torch.cat(bench.before.targets)
    most = float(torch.bincount(targets).max()) / len(targets)
    if shrunk.comparison.reference.accuracy > most:
        return []
    return [
        f"The float network is no better than always answering the most frequent class ({100 * most:.1f} %): "
        "train it first, else there is nothing to lose."
    ]


def _strictly(shrunk: Shrunk) -> str:
    return " with its interval" if shrunk.strict else ""


def _change(trial: Trial) -> str:
    kind = "loss" if trial.drop >= 0 else "gain"
    return f"a {kind} of {abs(trial.drop):.2f} +- {trial.interval:.2f} points"


def _after_training(shrunk: Shrunk) -> list[str]:
    tried = [t for t in shrunk.trials if t.scheme == "ptq"]
    held = [t for t in tried if t.met]
    if not held:
        return [f"Quantized after training, none of {_trials(tried)} keeps the limit."]
    lowest = min(held, key=lambda t: t.size_bytes)
    return [
        f"Quantized after training, {_kept(held, tried)} the limit; the smallest is {lowest.name}, "
        f"{_bytes(lowest.size_bytes)} in all.{_missed(tried)}"
    ]


def _epochs(bench: Bench) -> str:
    return f"{bench.epochs} epoch{'' if bench.epochs == 1 else 's'}"


def _kept(held: list[Trial], tried: list[Trial]) -> str:
    return f"{len(held)} of {_trials(tried)} {'keeps' if len(held) == 1 else 'keep'}"


def _trials(tried: list[Trial]) -> str:
    return f"{len(tried)} trial{'' if len(tried) == 1 else 's'}"


def _missed(tried: list[Trial]) -> str:
    missed = [f"{t.name} ({t.verdict})" for t in tried if not t.met]
    return f" The others: {'; '.join(missed)}." if missed else ""


def _in_training(shrunk: Shrunk, bench: Bench, trainings: int) -> list[str]:
    tried = [t for t in shrunk.trials if t.scheme == "qat"]
    if not tried:
        why = "epochs=0" if not bench.epochs else "max_trainings=0" if not trainings else "no lower rung was left"
        return [f"No network was trained on ({why})."] if not shrunk.interrupted else []
    held = [t for t in tried if t.met]
    words = [f"Trained on for {_epochs(bench)} each, {_kept(held, tried)} the limit."]
    words[0] += _missed(tried)
    if shrunk.best.scheme == "qat":
        words.append(f"The result was trained for {_epochs(bench)} more than the float network, which might gain, too.")
    return words


def _obstacles(shrunk: Shrunk) -> list[str]:
    """Why the lowest trials failed, where a layer shows it: the last trial of each scheme that has something to say."""
    words = []
    schemes: tuple[Scheme, ...] = ("ptq", "qat")
    for scheme in schemes:
        told = [t for t in shrunk.trials if t.scheme == scheme and t.findings and not t.met]
        if told:
            words += [f"In {told[-1].name} {finding}" for finding in told[-1].findings[:MOST_FINDINGS]]
    return words


def _what_to_change(shrunk: Shrunk, bench: Bench, trainings: int) -> list[str]:
    """What could bring a network under the limit."""
    best = shrunk.best
    margin = reached_drop(best, strict=True)
    words = []
    if shrunk.strict and best.drop <= shrunk.max_drop:
        words.append(
            f"The drop itself keeps the limit; its interval of {best.interval:.2f} points does not on "
            f"{shrunk.comparison.samples} samples: give more validation data, or strict=False."
        )
    if not bench.epochs or not trainings:
        words.append("No training was allowed: pass epochs and max_trainings of 1 or more.")
    else:
        words.append(
            f"To get nearer: more than {_epochs(bench)}, another learning rate than {bench.lr:g}, or a float "
            "network that was trained longer."
        )
    reached = margin if shrunk.strict else best.drop
    words.append(f"A limit of {reached:.2f} points would take {best.name}.")
    return words


def _honesty(shrunk: Shrunk, is_split: bool) -> list[str]:
    samples = shrunk.comparison.samples
    source = "every fourth of the batches, held out of calibration and training" if is_split else "validation"
    words = [
        f"Decided on {samples} samples ({source}); all {_trials(list(shrunk.trials))} were judged on them, "
        "so the figures of the chosen one are optimistic: measure it once more on other data."
    ]
    if is_split:
        words.append(
            "If the float network was trained on these batches, it has seen these samples and its quantized copies "
            "have not: the loss is then too large. Pass validation=... with data that it has not seen."
        )
    best, one = shrunk.best, 100 / samples
    if one > shrunk.max_drop >= 0:
        words.append(f"One sample of {samples} is {one:.2f} points: the limit asks that not one is lost.")
    if shrunk.met and not shrunk.strict and best.drop + best.interval > shrunk.max_drop:
        words.append(
            f"The loss may be up to {best.drop + best.interval:.2f} points (upper end of its 95 % interval); "
            "for a limit that this end keeps, pass strict=True or more validation data."
        )
    return words


def _bytes(count: float) -> str:
    return f"{count / 1024:.1f} KiB" if count >= 10240 else f"{count:.0f} B"
