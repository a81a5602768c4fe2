"""``spikequant demo``: everything once, on data that come with the installation."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.figures import equality, figures_table
from spikequant.cli.outcome import add_page
from spikequant.cli.progress import Bar, bar
from spikequant.cli.provenance import command_line, versions
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen

if TYPE_CHECKING:
    from spikequant.recipes.demo import DemoResult
    from spikequant.training import Epoch

DATA = {
    "name": "digits",
    "samples": {"train": 1437, "test": 360},
    "input": "scikit-learn's handwritten digits, 8 x 8, T = 8",
}
MEANINGS = {"c99": "the same networks as C", "vectors": "stimulus and expected spikes, for hardware"}
EXPORTS = tuple(MEANINGS)


def demo(
    out: options.OutOption = Path("runs/demo"),
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Train a small spiking network on handwritten digits, quantize it twice, and prove its integers.

    Example:
      spikequant demo --out runs/demo

    Needs no data and no options, and takes half a minute. It leaves two integer networks with
    their plans, figures and exports. An earlier demo in the same folder is replaced.
    """
    screen = Screen(as_json=as_json)
    again = _holds_a_demo(out)
    with RunFolder.open(out, "demo", overwrite=overwrite or again) as folder:
        folder.begin(_config(seed))
        with _watching(screen) as watcher:
            from spikequant.recipes.demo import run_demo

            result = run_demo(watcher, seed=seed)
        record = _write(result, folder, screen)
    _tell(result, record["files"], out, screen)
    screen.document(record)
    if any(row.verified.differences for row in result.rows):
        raise typer.Exit(1)


class _Watcher:
    """Shows the stages of the demo: a numbered line each, and one bar over all training."""

    def __init__(self, screen: Screen, shown: Bar) -> None:
        self.screen, self.shown, self.number = screen, shown, 0

    def stage(self, words: str) -> None:
        """The next stage begins."""
        self.number += 1
        self.screen.note(f"{self.number}/4  {words}")

    def tick(self, count: int = 1) -> None:
        """So much more is done."""
        self.shown.tick(count)

    def epoch(self, network: str, epoch: Epoch) -> None:
        """The bar says what is trained."""
        self.shown.title(f"{network}, epoch {epoch.epoch}")


@contextlib.contextmanager
def _watching(screen: Screen) -> Iterator[_Watcher]:
    with bar(screen.progress, "loading", None) as shown:
        from spikequant.recipes.demo import work

        shown.total(work())
        yield _Watcher(screen, shown)


def _holds_a_demo(out: Path) -> bool:
    return (out / run_folder.CONFIG).is_file() and run_folder.read_config(out).command == "demo"


def _config(seed: int) -> RunConfig:
    network = {"source": "spikequant.models:digits_net", "file": None, "function": "digits_net", "sha256": None}
    return RunConfig(
        command="demo", command_line=command_line(), seed=seed, network=network, data=DATA, versions=versions()
    )


def _write(result: DemoResult, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    """Networks, plans, comparisons and exports; every file whole or not at all."""
    from spikequant.cli.weights import save_weights
    from spikequant.readers.export import FORMATS, export

    save_weights(result.reference, folder / run_folder.WEIGHTS, facts={"kind": "real", "network": "digits_net"})
    written = [run_folder.WEIGHTS]
    for row in result.rows:
        row.net.save(folder / f"{row.stem}.spq")
        row.plan.save(folder / f"{row.stem}.toml")
        row.comparison.save(folder / f"{row.stem}.comparison.safetensors")
        written += [f"{row.stem}.spq", f"{row.stem}.toml", f"{row.stem}.comparison.safetensors"]
        for name in EXPORTS:
            if name in FORMATS:
                done = export(row.net, folder / f"{row.stem}-{name}", format=name)
                written += [f"{row.stem}-{name}/{file}" for file in done.files]
    written.append(run_folder.RESULT)
    record = {"command": "demo", "out": folder.path, **result.to_dict(), "files": written}
    folder.write_json(run_folder.RESULT, record)
    record["files"] = [*add_page(folder, screen), *written]
    folder.write_json(run_folder.RESULT, record)
    folder.end("finished", record["files"])
    return record


def _tell(result: DemoResult, files: list[str], out: Path, screen: Screen) -> None:
    first = result.rows[0].comparison
    screen.say()
    screen.say(f"scikit-learn digits, {first.samples} test images, T = {first.steps}", style="bold")
    screen.table(figures_table({row.name: row.comparison for row in result.rows}))
    screen.say()
    for row in result.rows:
        screen.say(f"{row.name}. {equality(row.verified)}")
    screen.say()
    screen.say(f"Done in {result.seconds:.0f} s. Files in {out}:", style="bold green")
    screen.pairs(dict(_files(result, files)))
    screen.say()
    screen.say("Try next:", style="bold")
    where = shlex.quote(str(out))
    screen.command(f"  spikequant verify {where}")
    screen.command(f"  spikequant compare {where}")
    screen.command("  spikequant train digits_net --data digits --epochs 10 --out runs/digits")
    screen.command("  spikequant quantize runs/digits --max-drop 0.5 --out runs/small")


def _files(result: DemoResult, files: list[str]) -> list[tuple[str, str]]:
    def names(ending: str) -> str:
        return ", ".join(f"{row.stem}{ending}" for row in result.rows)

    formats = [name for name in EXPORTS if f"{result.rows[0].stem}-{name}/manifest.json" in files]
    page = [(run_folder.REPORT, "open it in a browser")] if run_folder.REPORT in files else []
    return [
        *page,
        (names(".spq"), "the integer networks, with test vectors"),
        (names(".toml"), "their plans"),
        *((names(f"-{name}/"), MEANINGS[name]) for name in formats),
        (run_folder.RESULT, "all figures"),
    ]
