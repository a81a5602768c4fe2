"""A quantized network with everything that was found out about it, and how it is written and told."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder
from spikequant.cli.figures import equality, figures_table, headline, layer_table
from spikequant.cli.run_folder import RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.tables import Table

if TYPE_CHECKING:
    from torch import Tensor

    from spikequant.analyse import Comparison
    from spikequant.law.network import IntNet
    from spikequant.plan import Plan
    from spikequant.quantize import QuantizeReport, VerifyReport

MEANINGS = {
    run_folder.NETWORK: "the integer network, with test vectors",
    run_folder.PLAN: "bits and quantizers of every layer",
    run_folder.WEIGHTS: "the weights from which the integers were made",
    run_folder.COMPARISON: "all figures, also per neuron",
    run_folder.RESULT: "the same as --json prints",
    run_folder.METRICS: "loss and accuracy, one line per epoch",
    run_folder.CONFIG: "command, options, versions",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a quantization gave; `words` say what was done, `warnings` what to look at.

    `table` shows how it was found; `facts` are added to the JSON document; `interrupted`:
    Ctrl-C ended the search, and this is the best until then.
    """

    name: str
    plan: Plan
    report: QuantizeReport
    net: IntNet
    comparison: Comparison
    verified: VerifyReport
    weights: dict[str, Tensor]
    words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    table: Table | None = None
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        from spikequant.law.artifact import network_hash

        return {
            "name": self.name,
            "plan": self.plan.to_dict(),
            "quantized": self.report.to_dict(),
            "sha256": network_hash(self.net),
            "comparison": self.comparison.to_dict(),
            "verify": {
                "neuron_steps": self.verified.neuron_steps,
                "spikes": self.verified.spikes,
                "states": self.verified.states_compared,
                "differences": self.verified.differences,
            },
            "words": list(self.words),
            "warnings": list(self.warnings),
            **self.facts,
        }


def write_outcome(outcome: Outcome, folder: RunFolder) -> dict[str, Any]:
    """Write all files of a quantization; returns the JSON document.  The config, last, says that all are there."""
    from spikequant.cli.weights import save_tensors

    outcome.plan.save(folder / run_folder.PLAN)
    outcome.net.save(folder / run_folder.NETWORK)
    save_tensors(outcome.weights, folder / run_folder.WEIGHTS, facts={"kind": "quantized"})
    outcome.comparison.save(folder / run_folder.COMPARISON)
    written = [name for name in MEANINGS if name != run_folder.CONFIG and (folder / name).is_file()]
    if run_folder.RESULT not in written:
        written.append(run_folder.RESULT)
    assert folder.config is not None
    record = {
        "command": folder.config.command,
        "out": folder.path,
        "data": folder.config.data,
        "seed": folder.config.seed,
        **outcome.to_dict(),
        "files": [*written, run_folder.CONFIG],
    }
    folder.write_json(run_folder.RESULT, record)
    folder.end("interrupted" if outcome.interrupted else "finished", written)
    return record


def tell_outcome(outcome: Outcome, folder: RunFolder, files: list[str], screen: Screen) -> None:
    """Words, tables, files, and what to do next."""
    if outcome.table is not None:
        screen.table(outcome.table)
        screen.say()
    for word in outcome.words:
        screen.say(word)
    screen.say()
    screen.table(figures_table({outcome.name: outcome.comparison}))
    screen.say()
    screen.table(layer_table(outcome.comparison))
    screen.say()
    screen.say(headline(outcome.comparison), style="bold green")
    screen.say(equality(outcome.verified))
    for warning in outcome.warnings:
        screen.say(warning, style="yellow")
    screen.say()
    screen.files(folder.path, {name: MEANINGS[name] for name in MEANINGS if name in files})
    screen.say(f"Next: spikequant verify {shlex.quote(str(folder / run_folder.NETWORK))}")
