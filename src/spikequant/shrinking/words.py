"""The account of a search in sentences: what it did, and what it could not do."""

from __future__ import annotations

from spikequant.shrinking.result import Shrunk, Trial
from spikequant.shrinking.trial import Bench


def account(shrunk: Shrunk, bench: Bench, *, is_split: bool, trainings: int) -> tuple[str, ...]:
    """Plain sentences, most important first."""
    return (
        _headline(shrunk),
        *_after_training(shrunk),
        *_in_training(shrunk, bench, trainings),
        *_silent(shrunk),
        *_honesty(shrunk, is_split),
        f"Every spike and state of the integers was checked: {shrunk.verified}.",
        *(["The search was interrupted; this is the best of what was tried until then."] if shrunk.interrupted else []),
    )


def _headline(shrunk: Shrunk) -> str:
    best, reference = shrunk.best, shrunk.comparison.reference
    size = f"{_bytes(best.flash_bytes)} of flash and {_bytes(best.ram_bytes)} of RAM"
    float_size = f"{_bytes(reference.flash_bytes)} and {_bytes(reference.ram_bytes)} as float"
    figures = (
        f"{100 * best.accuracy:.2f} % instead of {100 * reference.accuracy:.2f} % ({_change(best)}), "
        f"{size} ({float_size})."
    )
    limit = f"at most {shrunk.max_drop:g} points"
    if shrunk.met:
        return f"{best.name} is the smallest network found that loses {limit}: {figures}"
    return f"Nothing that was tried loses {limit}. The nearest is {best.name}: {figures}"


def _change(trial: Trial) -> str:
    return f"a loss of {trial.drop:.2f} +- {trial.interval:.2f} points"


def _after_training(shrunk: Shrunk) -> list[str]:
    tried = [t for t in shrunk.trials if t.scheme == "ptq"]
    held = [t for t in tried if t.met]
    if not held:
        return ["Quantized after training, no rung keeps the limit, not even the widest."]
    lowest = min(held, key=lambda t: t.size_bytes)
    return [
        f"Quantized after training, {len(held)} of {len(tried)} trials keep the limit; the smallest is {lowest.name}."
    ]


def _in_training(shrunk: Shrunk, bench: Bench, trainings: int) -> list[str]:
    tried = [t for t in shrunk.trials if t.scheme == "qat"]
    if not tried:
        why = "epochs=0" if not bench.epochs else "max_trainings=0" if not trainings else "no lower rung was left"
        return [f"No network was trained on ({why})."] if not shrunk.interrupted else []
    held = [t.name for t in tried if t.met]
    failed = [f"{t.name} ({t.verdict})" for t in tried if not t.met]
    sentence = f"Trained on for {bench.epochs} epochs each: {len(held)} of {len(tried)} keep the limit"
    return [sentence + (f"; not {', '.join(failed)}." if failed else ".")]


def _silent(shrunk: Shrunk) -> list[str]:
    return [f"In {t.name} the layers {', '.join(t.silent)} fall silent." for t in shrunk.trials if t.silent]


def _honesty(shrunk: Shrunk, is_split: bool) -> list[str]:
    samples = shrunk.comparison.samples
    source = "every fourth sample of the batches, held out of calibration and training," if is_split else "validation"
    words = [
        f"Decided on {samples} samples ({source}); all {len(shrunk.trials)} trials were judged on them, "
        "so the figures of the chosen one are optimistic: measure it once more on other data."
    ]
    best = shrunk.best
    if shrunk.met and not shrunk.strict and best.drop + best.interval > shrunk.max_drop:
        words.append(
            f"The loss may be up to {best.drop + best.interval:.2f} points (upper end of its 95 % interval); "
            "for a limit that this end keeps, pass strict=True or more validation data."
        )
    return words


def _bytes(count: float) -> str:
    return f"{count / 1024:.1f} KiB" if count >= 10240 else f"{count:.0f} B"
