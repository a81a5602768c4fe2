"""A quantized network with everything that was found out about it, and how it is written and told."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder
from spikequant.cli.figures import equality, figures_table, headline, layer_table
from spikequant.cli.progress import bar
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
    run_folder.REPORT: "open it in a browser",
    run_folder.STUDY_PAGE: "the front, what mattered, plans to copy",
    run_folder.NETWORK: "the integer network, with test vectors",
    run_folder.PLAN: "bits and quantizers of every layer",
    run_folder.WEIGHTS: "the weights from which the integers were made",
    run_folder.COMPARISON: "all figures, also per neuron",
    run_folder.RESULT: "the same as --json prints",
    run_folder.CURVES: "the same as a picture",
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


def write_outcome(outcome: Outcome, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    """Write all files of a quantization; returns the JSON document.  The config, last, says that all are there."""
    from spikequant.cli.weights import save_tensors

    outcome.plan.save(folder / run_folder.PLAN)
    outcome.net.save(folder / run_folder.NETWORK)
    save_tensors(outcome.weights, folder / run_folder.WEIGHTS, facts={"kind": "quantized"})
    outcome.comparison.save(folder / run_folder.COMPARISON)
    left_out = (run_folder.REPORT, run_folder.RESULT, run_folder.CONFIG)
    written = [name for name in MEANINGS if name not in left_out and (folder / name).is_file()] + [run_folder.RESULT]
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
    page = add_page(folder, screen)
    record["files"] = [*page, *record["files"]]
    folder.write_json(run_folder.RESULT, record)
    folder.end("interrupted" if outcome.interrupted else "finished", [*page, *written])
    return record


def add_page(folder: RunFolder, screen: Screen) -> list[str]:
    """Write the page out of what is in the folder; without the extra that it needs, say so and go on."""
    from spikequant.cli.measured import measured_networks
    from spikequant.cli.pages import write_page
    from spikequant.law.errors import Unsupported

    try:
        with bar(screen.progress, "report", None):
            write_page(measured_networks(folder.path), folder.path)
    except Unsupported as error:
        screen.note(f"note: no {run_folder.REPORT}: {error}")
        return []
    return [run_folder.REPORT]


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
    screen.say("Next:")
    screen.command(f"  spikequant verify {shlex.quote(str(folder.path))}")
    screen.command(f"  spikequant export {shlex.quote(str(folder.path))} --format vectors --out build")
