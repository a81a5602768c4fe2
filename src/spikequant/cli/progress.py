"""Progress bars with the time that is left, drawn on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from torch import Tensor


@final
class WatchedBatches:
    """The same batches in the same order; `tick` is called after each."""

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], tick: Callable[[], None]) -> None:
        self._batches, self._tick = batches, tick

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._batches:
            yield batch
            self._tick()

    def __len__(self) -> int:
        if not isinstance(self._batches, Sized):
            raise TypeError("batches without a length")
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to the batches, if they care."""
        if hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(epoch)


@final
class Bar:
    """One bar: a title, the share that is done, and the time that is left."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def watch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> WatchedBatches:
        """Batches that move the bar by one each."""
        return WatchedBatches(batches, self.tick)

    def tick(self, count: int = 1) -> None:
        """So many more are done."""
        self._progress.advance(self._task, count)

    def total(self, count: int) -> None:
        """How many there are in all, once it is known."""
        self._progress.update(self._task, total=count)

    def at(self, done: float, total: float, left: str) -> None:
        """How much is done, and in words how long the rest takes, where the bar itself cannot know."""
        self._progress.update(self._task, completed=done, total=total, left=left)

    def title(self, text: str) -> None:
        """Change the words before the bar."""
        self._progress.update(self._task, description=text)


@contextlib.contextmanager
def bar(console: Console, title: str, total: int | None, *, in_words: bool = False) -> Iterator[Bar]:
    """A bar while the block runs, if `console` is a terminal; it leaves no trace.

    `in_words`: the time that is left is what `Bar.at` says, not the mean of the steps so far.
    """
    narrow = console.width < 60
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=10 if narrow else 30)]
    elapsed = [] if narrow else [TimeElapsedColumn()]
    if in_words:
        columns += [*elapsed, TextColumn("{task.fields[left]}")]
    else:
        columns += [TaskProgressColumn(), *elapsed, *([] if narrow else [TextColumn("left")]), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(title, total=total, left=""))
