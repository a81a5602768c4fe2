"""The smallest network within an accuracy limit: `sq.shrink` with a journal in the run folder."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from spikequant.cli.figures import near_chance, what_was_quantized
from spikequant.cli.fixed_plan import VERIFY_SAMPLES, went_wrong
from spikequant.cli.outcome import Outcome
from spikequant.cli.progress import bar
from spikequant.cli.run_folder import TRIALS, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.search_clock import MOST_TRAININGS, SearchClock
from spikequant.cli.starting_point import StartingPoint
from spikequant.cli.tables import Table
from spikequant.law.errors import ArtifactError

if TYPE_CHECKING:
    from spikequant.shrinking import Shrunk, Trial


def quantize_within(
    start: StartingPoint,
    folder: RunFolder,
    screen: Screen,
    *,
    max_drop: float,
    strict: bool,
    epochs: int,
    lr: float,
    seed: int,
) -> Outcome:
    """Search on training and validation data, then measure the network that was found on the test data.

    Raises:
        Interrupted: Ctrl-C before anything was found.
    """
    from spikequant.analyse import compare
    from spikequant.quantize import verify
    from spikequant.shrinking import shrink

    data = start.data
    example = data.first(VERIFY_SAMPLES)

    search = SearchClock(MOST_TRAININGS if epochs else 0)
    with bar(screen.progress, "trial 1", None, in_words=True) as shown, _shell_errors():

        def show(name: str = "") -> None:
            shown.title(f"trial {search.done + 1} of at most {max(search.most, search.done + 1)}{name and f': {name}'}")
            shown.at(search.done + search.share, search.most, search.left())

        def on_step(trial: Trial) -> None:
            search.trial(trial)
            screen.note(f"tried {trial.name}: {trial.verdict} ({search})")
            show()

        def on_progress(name: str, done: int, total: int | None) -> None:
            search.training(done, total)
            show(name)

        shrunk = shrink(
            copy.deepcopy(start.model), data.train, max_drop,
            validation=data.validation, example_input=example, strict=strict, epochs=epochs, lr=lr, seed=seed,
            quiet=True, checkpoint_folder=folder / TRIALS, resume=folder.resuming, on_step=on_step,
            on_progress=on_progress, max_trainings=MOST_TRAININGS,
        )  # fmt: skip
    with bar(screen.progress, "compare", 2 * len(data.test)) as shown:
        comparison = compare(start.model, shrunk.model, shown.watch(data.test))
    what = f"Quantized: {what_was_quantized(shrunk.report)}. Below, on the test data, which took no part in the search:"
    return Outcome(
        name=shrunk.best.name.partition(",")[0],
        plan=shrunk.plan,
        report=shrunk.report,
        net=shrunk.net,
        comparison=comparison,
        verified=verify(shrunk.model, shrunk.net, example),
        weights=shrunk.model.state_dict(),
        words=(*_shell_words(shrunk.words), what, *shrunk.report.notes),
        warnings=(*near_chance(comparison, data.classes), *went_wrong(start, shrunk.model, comparison)),
        facts={"search": shrunk.to_dict()},
        table=trial_table(shrunk),
        interrupted=shrunk.interrupted,
    )


@contextlib.contextmanager
def _shell_errors() -> Iterator[None]:
    """Errors of the Python function with the options that the command has."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace("pass resume=False", "give --overwrite")) from error


def _shell_words(words: tuple[str, ...]) -> list[str]:
    """Advice of the Python function with the names that it has on the command line."""
    return [word.replace("strict=True", "--strict").replace("max_trainings=", "trainings ") for word in words]


def trial_table(shrunk: Shrunk) -> Table:
    """Every trial of the search, short enough for a terminal; the verdicts in words are in the JSON document."""
    header = ("tried", "accuracy", "drop, points", "EMD", "flash B", "RAM B")
    rows = []
    for trial in shrunk.trials:
        mark = ">" if trial == shrunk.best else "+" if trial.met else "-"
        name = trial.name.replace("unsigned membranes", "unsigned").replace(" bits", "").replace(" at ", ": ")
        figures = ("-",) * 5
        if not trial.was_refused:
            figures = (f"{trial.accuracy:.2%}", f"{trial.drop:+.2f} ± {trial.interval:.2f}", f"{trial.emd:.4f}",
                       f"{trial.flash_bytes:,.0f}", f"{trial.ram_bytes:,.0f}")  # fmt: skip
        rows.append((f"{mark} {name}", *figures))
    title = "What was tried, on the validation data (+ keeps the limit, - does not, > was taken)"
    return Table(header, tuple(rows), title=title)
