"""What `shrink` shows while it works: the trial, and the training in it with its remaining time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Show:
    """A progress display on standard error that disappears when the work is done."""

    def __init__(self, quiet: bool, on_progress: Callable[[str, int, int | None], None] | None = None) -> None:
        self._on_progress, self._name = on_progress, ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
            transient=True,
        )
        self._task = self._progress.add_task("shrink", total=None)

    def __enter__(self) -> Show:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def trial(self, name: str, text: str) -> None:
        """A trial begins."""
        self._name = name
        self._progress.reset(self._task, total=None, description=text)

    def tick(self, done: int, total: int | None) -> None:
        """A training has done this many batches."""
        self._progress.update(self._task, completed=done, total=total)
        if self._on_progress is not None:
            self._on_progress(self._name, done, total)

    def say(self, what: str) -> None:
        """Something else is done."""
        self._progress.reset(self._task, total=None, description=what)
