"""Tables of a study: the front, all candidates, importance, tolerance."""

from __future__ import annotations

import math

from spikequant.explore import Study, Tolerance, Trial
from spikequant.report.numerals import count, decimal, energy, percent, size
from spikequant.report.study_plots import importances, shown, varied
from spikequant.report.tables import Cell, Column, Table, number_cell

MOST_ROWS = 1000
FIGURES = ("Accuracy", "Flash", "RAM", "Energy", "EMD", "Dead", "Reward")


def front_table(study: Study) -> Table:
    """Every candidate of the front; the chosen one and the knee say so."""
    return _table(study, [study.trials[k] for k in study.selection.front], "The front")


def candidates_table(study: Study) -> Table:
    """All that were measured, the front first, at most `MOST_ROWS`."""
    front = set(study.selection.front)
    rows = sorted(
        (k for k, t in enumerate(study.trials) if not t.was_refused),
        key=lambda k: (k not in front, -study.trials[k].measured.accuracy),
    )
    caption = "All candidates" if len(rows) <= MOST_ROWS else f"The best {MOST_ROWS:,} of {len(rows):,} candidates"
    return _table(study, [study.trials[k] for k in rows[:MOST_ROWS]], caption)


def _table(study: Study, trials: list[Trial], caption: str) -> Table:
    names = list(varied(study))
    columns = [Column(label="Trial", numeric=False), *(Column(label=name) for name in FIGURES)]
    columns += [Column(label=name, numeric=False) for name in names]
    rows = tuple((*_figures(study, trial), *(_setting(trial, name) for name in names)) for trial in trials)
    return Table(caption=caption, columns=tuple(columns), rows=rows, sorts=True)


def _figures(study: Study, trial: Trial) -> tuple[Cell, ...]:
    m, best, knee = trial.measured, study.selection.best, study.selection.knee
    marks = [word for word, k in (("chosen", best), ("knee", knee)) if k is not None and study.trials[k] is trial]
    stopped = [f"stopped after {count(m.samples)}"] if m.stopped_early else []
    name = ", ".join([trial.name, *marks, *stopped])
    return (
        Cell(text=name, value=float(trial.number)),
        number_cell(m.accuracy, percent),
        number_cell(m.flash_bytes, size),
        number_cell(m.ram_bytes, size),
        number_cell(m.energy_pj, energy),
        number_cell(m.emd, decimal),
        number_cell(m.dead, lambda v: percent(v, 1)),
        number_cell(math.nan if m.stopped_early else study.reward_of(trial), decimal, "stopped early"),
    )


def _setting(trial: Trial, name: str) -> Cell:
    text = shown(trial.candidate.settings.get(name))
    return Cell(text=text, value=text)


def importance_table(study: Study) -> Table | None:
    """The numbers behind the plot of importance; None where nothing varies."""
    rows = importances(study)
    if not rows:
        return None
    columns = (Column(label="Setting", numeric=False), Column(label="Accuracy"), Column(label="Memory"))
    cells = tuple((Cell(text=name), number_cell(a, decimal), number_cell(m, decimal)) for name, a, m in rows)
    return Table(caption="Share of the variance that a setting explains alone", columns=columns, rows=cells)


def tolerance_table(tolerance: Tolerance) -> Table:
    """What each role tolerates when all others stay real."""
    names = ("Role alone", "Option", "Accuracy", "Drop, points", "Memory", "Keeps the target")
    columns = tuple(Column(label=n, numeric=n in ("Accuracy", "Drop, points", "Memory")) for n in names)
    rows = tuple(
        (
            Cell(text=row.factor, value=float(place)),
            Cell(text=row.option, value=row.option),
            *(
                number_cell(
                    math.nan if row.stopped_early else value, form, "given up" if row.stopped_early else "impossible"
                )
                for value, form in ((row.accuracy, percent), (row.drop, lambda v: f"{v:.2f}"))
            ),
            number_cell(row.memory_bytes, size, "impossible"),
            Cell(text="yes" if row.kept else "no", value=float(row.kept)),
        )
        for place, row in enumerate(tolerance.rows)
    )
    return Table(caption="Tolerance of each role alone", columns=columns, rows=rows, sorts=True)
