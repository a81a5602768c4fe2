"""What `shrink` returns: every rung that it tried, and the smallest network that keeps the limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from spikequant.analyse import Comparison, Finding
from spikequant.law.network import IntNet
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport, VerifyReport
from spikequant.shrinking.ladder import Scheme


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One quantized network that was tried.

    Attributes:
        name: rung, scheme and what differs from the rung: ``W4/U6 QAT``, ``W3/U6 PTQ, fc1 at W4``.
        scheme: ``"ptq"``: after training; ``"qat"``: trained on.
        weight_bits, membrane_bits: of the rung.
        relief: other bits by layer.
        signed: whether spiking membranes have a sign.
        accuracy: share of the held-out samples that it classifies right; NaN where it was refused.
        drop: points of accuracy lost against the float network on the same samples (negative: won).
        interval: half of the paired 95 % interval of `drop`, in points.
        emd: mean over layers of the distance between the firing-rate distributions.
        layer_emd: the same for each layer.
        flash_bytes, ram_bytes: true bits / 8.
        seconds: wall time of this trial.
        met: whether it keeps the limit.
        verdict: one sentence.
        silent: layers that fell silent.
        findings: what `diagnose` says of layers that fire wrongly; looked for where the limit fails.
    """

    name: str
    scheme: Scheme
    weight_bits: int
    membrane_bits: int
    relief: dict[str, int] = field(default_factory=dict)
    signed: bool = True
    accuracy: float = float("nan")
    drop: float = float("nan")
    interval: float = float("nan")
    emd: float = float("nan")
    layer_emd: dict[str, float] = field(default_factory=dict)
    flash_bytes: float = float("nan")
    ram_bytes: float = float("nan")
    seconds: float = 0.0
    met: bool = False
    verdict: str = ""
    silent: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> float:
        """Flash and RAM together: what `shrink` makes small."""
        return self.flash_bytes + self.ram_bytes

    @property
    def was_refused(self) -> bool:
        """Whether there is no such network: the law refused its widths."""
        return self.accuracy != self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a figure that there is none of is None."""
        return {k: None if v != v else list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Trial:
        """Read `to_dict` back."""
        known = {k: v for k, v in record.items() if v is not None}
        return Trial(**{**known, **{k: tuple(known.get(k, ())) for k in ("silent", "findings")}})


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """The smallest network that keeps the limit, or the best there was, and how it was found.

    Attributes:
        plan: what was asked of every layer and role.
        model: the quantized, frozen torch module.
        report: what `quantize_` did to every module.
        net: the same network in integers.
        verified: that `model` and `net` are equal spike by spike.
        comparison: float against quantized network on the held-out data.
        findings: layers of `model` that fire unlike the float network, with cause and advice.
        trials: every rung tried, in the order in which it was.
        best: the trial that `model` comes from.
        met: whether `best` keeps the limit.
        max_drop, strict: the limit; strict: the upper end of the interval must keep it.
        words: what was done and what could not be, in sentences.
        interrupted: Ctrl-C ended the search.
        seconds: wall time of the whole search.
    """

    plan: Plan
    model: nn.Module
    report: QuantizeReport
    net: IntNet
    verified: VerifyReport
    comparison: Comparison
    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...]
    best: Trial
    met: bool
    max_drop: float
    strict: bool
    words: tuple[str, ...]
    interrupted: bool = False
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: everything but the networks."""
        return {
            "plan": self.plan.to_dict(),
            "best": self.best.to_dict(),
            "met": self.met,
            "max_drop": self.max_drop,
            "strict": self.strict,
            "interrupted": self.interrupted,
            "seconds": self.seconds,
            "words": list(self.words),
            "findings": [finding.to_dict() for finding in self.findings],
            "trials": [trial.to_dict() for trial in self.trials],
            "comparison": self.comparison.to_dict(),
            "verify": {
                "neuron_steps": self.verified.neuron_steps,
                "spikes": self.verified.spikes,
                "states": self.verified.states_compared,
                "differences": self.verified.differences,
            },
        }

    def __str__(self) -> str:
        """The table of trials, then the sentences."""
        return "\n".join([trial_table(self.trials, self.best), "", *self.words])


def trial_table(trials: tuple[Trial, ...], best: Trial | None = None) -> str:
    """Every trial as a line; the chosen one is marked with ``>``."""
    header = ("", "tried", "accuracy", "drop, points", "EMD", "flash B", "RAM B", "seconds", "verdict")
    lines = [header, *(_cells(trial, trial == best) for trial in trials)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    rows = (
        "  ".join(c.rjust(w) if 2 <= k <= 7 else c.ljust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
    return "\n".join(row.rstrip() for row in rows)


def _cells(trial: Trial, chosen: bool) -> tuple[str, ...]:
    if trial.was_refused:
        figures = ("-",) * 5
    else:
        figures = (
            f"{100 * trial.accuracy:.1f} %",
            f"{trial.drop:+.2f} +- {trial.interval:.2f}",
            f"{trial.emd:.4f}",
            f"{trial.flash_bytes:.0f}",
            f"{trial.ram_bytes:.0f}",
        )
    return (">" if chosen else "", trial.name, *figures, f"{trial.seconds:.1f}", trial.verdict)
