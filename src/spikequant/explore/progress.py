"""What an exploration shows while it runs: trials, the best so far, the time that is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikequant.explore.ledger import Entry

OnTrial = Callable[[Entry, int], None]
"""Called with every trial that was finished, and how many there are to be in all."""


@contextlib.contextmanager
def shown(quiet: bool, total: int, on_trial: OnTrial | None) -> Iterator[Callable[[Entry], None]]:
    """Who is to be told of every finished trial; while the block runs a bar stands on standard error."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=quiet, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("explore", total=total)

        def told(entry: Entry) -> None:
            progress.update(task, completed=entry.number + 1, description=_words(entry))
            if on_trial is not None:
                on_trial(entry, total)

        yield told


def _words(entry: Entry) -> str:
    m = entry.measured
    if m is None or m.accuracy != m.accuracy:
        return "cannot be built"
    return f"{100 * m.accuracy:.1f} %, {m.flash_bytes + m.ram_bytes:,.0f} B"
