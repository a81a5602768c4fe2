"""An exploration at the shell: run it, write the chosen network, tell the front and the tolerances."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from spikequant.cli.figures import near_chance, what_was_quantized
from spikequant.cli.fixed_plan import VERIFY_SAMPLES, went_wrong
from spikequant.cli.outcome import Outcome, tell_outcome, write_outcome
from spikequant.cli.progress import bar
from spikequant.cli.run_folder import NETWORK, PLAN, REPORT, RESULT, STUDY_PAGE, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.search_clock import clock
from spikequant.cli.starting_point import StartingPoint
from spikequant.cli.tables import Table

if TYPE_CHECKING:
    from spikequant.cli.explore import Exploration
    from spikequant.explore import Space, Study, Trial
    from spikequant.explore.ledger import Entry

STUDY = "study"
"""Folder in the run folder: the journal of all trials, which optuna-dashboard opens."""
SHOWN = 12


def explored(
    asked: Exploration, space: Space, start: StartingPoint, folder: RunFolder, screen: Screen
) -> tuple[dict[str, Any], bool, bool]:
    """The JSON document, whether a candidate keeps the target, and whether Ctrl-C ended it."""
    study = _run(asked, space, start, folder, screen)
    chosen = study.chosen
    if chosen is None:
        return _nothing_kept(study, folder, screen), False, study.interrupted
    outcome = _outcome(study, chosen, start, screen)
    _write_page(study, folder, screen)
    record = write_outcome(outcome, folder, screen)
    for table in _tables(study):
        screen.table(table)
        screen.say()
    tell_outcome(outcome, folder, record["files"], screen)
    screen.command(f"  optuna-dashboard {folder / STUDY / 'journal.log'}")
    return record, True, study.interrupted


def _run(asked: Exploration, space: Space, start: StartingPoint, folder: RunFolder, screen: Screen) -> Study:
    from spikequant.explore.search import explore

    begun = time.monotonic()
    seen = 0
    with bar(screen.progress, "real network", None, in_words=True) as shown:

        def on_trial(entry: Entry, total: int) -> None:
            nonlocal seen
            seen += 1
            m = entry.measured
            assert m is not None
            text = f"{m.accuracy:.2%}, {m.flash_bytes + m.ram_bytes:,.0f} B" if m.accuracy == m.accuracy else "refused"
            done = min(entry.number + 1, total)
            left = (time.monotonic() - begun) / seen * (total - done)
            shown.title(f"trial {done} of {total}: {text}")
            shown.at(done, total, f"about {clock(left)} left")
            if not screen.progress.is_terminal and (done % max(1, total // 10) == 0 or done == total):
                screen.note(f"trial {done} of {total}: {text} (about {clock(left)} left)")

        return explore(
            start.model, space, start.data.train, asked.target_accuracy, max_drop=asked.max_drop,
            validation=start.data.validation, example_input=start.data.first(VERIFY_SAMPLES), sampler=asked.sampler,
            trials=asked.trials, staged=asked.staged, wanted=asked.objectives,
            reward="multiplicative" if asked.reward == "multiplicative" else "additive", mu=asked.mu, lr=asked.lr,
            seed=asked.seed, folder=folder / STUDY, storage=asked.storage, name=asked.name, resume=folder.resuming,
            ray=asked.ray, quiet=True, on_trial=on_trial,
        )  # fmt: skip


def _outcome(study: Study, chosen: Trial, start: StartingPoint, screen: Screen) -> Outcome:
    """The chosen network: built for real, lowered, verified, compared on the test data."""
    from spikequant.analyse import compare
    from spikequant.cli.quantize import short_name
    from spikequant.explore import prepared
    from spikequant.quantize import lower, verify

    model, report = study.apply(chosen)
    weights = model.state_dict()
    example = start.data.first(VERIFY_SAMPLES)
    plan = chosen.candidate.plan()
    net = lower(model, example, metadata={"name": chosen.candidate.key, "plan": plan.to_dict()})
    alike = {k: v for k, v in chosen.candidate.settings.items() if k == "steps"}
    real = prepared(start.model, dataclasses.replace(chosen.candidate, settings=alike), example).eval()
    with bar(screen.progress, "compare", 2 * len(start.data.test)) as shown:
        comparison = compare(real, model, shown.watch(start.data.test))
    same_steps = f" (the real network beside it runs {alike['steps']} steps, too)" if alike else ""
    return Outcome(
        name=short_name(plan),
        plan=plan,
        report=report,
        net=net,
        comparison=comparison,
        verified=verify(model, net, example),
        weights=weights,
        words=(
            *study.words(),
            f"Quantized: {what_was_quantized(report)}. Below, on the test data, which took no part in the "
            f"search{same_steps}:",
            *report.notes,
        ),
        warnings=(*near_chance(comparison, start.data.classes), *went_wrong(start, model, comparison)),
        facts={"study": study.to_dict()},
        interrupted=study.interrupted,
    )


def _write_page(study: Study, folder: RunFolder, screen: Screen) -> None:
    """The page of the study, beside that of the chosen network; without the extra that it needs, say so and go on."""
    from spikequant.law.errors import Unsupported
    from spikequant.report import Provenance, write_report

    assert folder.config is not None
    config = folder.config
    source = Provenance(command=config.command_line, seed=config.seed, versions=config.versions)
    links = {"What it did to the network": REPORT, "Its integers": NETWORK, "Its plan": PLAN}
    try:
        write_report(study, folder / STUDY_PAGE, provenance=source, links=links)
    except Unsupported as error:
        screen.note(f"note: no {STUDY_PAGE}: {error}")


def _nothing_kept(study: Study, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    assert folder.config is not None
    record = {"command": "explore", "out": folder.path, "study": study.to_dict(), "files": [RESULT]}
    folder.write_json(RESULT, record)
    folder.end("interrupted" if study.interrupted else "finished", [RESULT])
    for table in _tables(study):
        screen.table(table)
    for word in study.words():
        screen.say(word)
    return record


def _tables(study: Study) -> list[Table]:
    """What each role tolerates, then the front."""
    tables = []
    if study.tolerance is not None:
        rows = tuple(
            (f"{'+' if row.kept else '-'} {row.factor}", row.option,
             *(("given up", "-") if row.stopped_early else (_share(row.accuracy), f"{row.drop:+.2f}")),
             f"{row.memory_bytes:,.0f}")
            for row in study.tolerance.rows
        )  # fmt: skip
        header = ("role alone", "option", "accuracy", "drop, points", "bytes")
        title = "What each role tolerates alone (+ keeps the target)"
        tables.append(Table(header, rows, title=title, left=frozenset({"option"})))
    columns = ("front", "accuracy", "flash B", "RAM B", "energy nJ", "EMD", "settings")
    front = [_front_row(study, trial) for trial in study.front]
    left_out = f", {SHOWN} of {len(front)}; the others are in {RESULT}" if len(front) > SHOWN else ""
    title = f"The front on the validation data (> was chosen){left_out}"
    front.sort(key=lambda row: row[0][0] != ">")
    return [*tables, Table(columns, tuple(front[:SHOWN]), title=title, left=frozenset({"settings"}))]


def _front_row(study: Study, trial: Trial) -> tuple[str, ...]:
    from spikequant.explore.factors import label

    m = trial.measured
    mark = ">" if trial is study.chosen else " "
    settings = "; ".join(
        f"{pattern}: {label({k: v for k, v in trial.candidate.settings.items() if k.rpartition('.')[0] == pattern})}"
        for pattern in dict.fromkeys(k.rpartition(".")[0] for k in trial.candidate.settings if ":" in k)
    )
    whole = label({k: v for k, v in trial.candidate.settings.items() if ":" not in k})
    return (f"{mark} {trial.name}", f"{m.accuracy:.2%}", f"{m.flash_bytes:,.0f}", f"{m.ram_bytes:,.0f}",
            f"{m.energy_pj / 1000:,.1f}", f"{m.emd:.4f}", f"{whole}; {settings}")  # fmt: skip


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.2%}"
