"""Reproducing a paper: its experiment in rows, each kept when it is done, and a table beside the paper's numbers.

A recipe is a file in ``recipes/papers`` with a `Recipe` called ``RECIPE``; its name is that of the file.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from spikequant.law.atomic import write_text
from spikequant.law.errors import ArtifactError, DataError, PlanError

Scale = Literal["smoke", "local", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
ROWS, WORK, TABLE = "rows", "work", "table.md"
STALE = "stale"
"""In a folder of checkpoints: they are from before a run anew."""
Rows = Mapping[str, Mapping[str, Any]]
"""Finished rows by name."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a row works with.

    Attributes:
        folder: of the reproduction; a row may keep checkpoints in it.
        data_dir: folder of the data sets, or None for the default places.
        seed: added to the seeds of the rows.
        say: called with a sentence about what happens.
    """

    folder: Path
    data_dir: Path | None = None
    seed: int = 0
    say: Callable[[str], None] = lambda _text: None

    def work(self, name: str) -> Path:
        """A folder for checkpoints; those from before a run anew are removed when it is first asked for."""
        path = self.folder / WORK / name
        if (path / STALE).exists():
            shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget_checkpoints(self) -> None:
        """Those that are there are of no use any more, also where the run that says so is cut off and resumed."""
        for path in (self.folder / WORK).glob("*/"):
            (path / STALE).touch()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One experiment: a name, the line of the table that it belongs to, and what runs it.

    ``run`` gives ``before`` and ``after`` (accuracies, shares), ``smaller`` (times less memory) and whatever else is
    to be kept; rows of one line are its seeds or folds.
    """

    name: str
    line: str
    seed: int
    run: Callable[[Bench], Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table: what the paper says, and the goal here; without points there is none."""

    name: str
    paper: str
    goal_smaller: float = 0.0
    goal_points: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A paper's experiment.

    Attributes:
        title: the paper.
        lines: of the table.
        rows: by scale.
        differences: what is not as in the paper, in sentences.
        sections: lines of Markdown besides the table, from the finished rows.
        drawings: pictures besides it, text by file name (SVG), from the finished rows.
    """

    title: str
    lines: tuple[Line, ...]
    rows: Callable[[Scale], Sequence[Row]]
    differences: tuple[str, ...]
    sections: Callable[[Rows], Sequence[str]] = lambda _rows: ()
    drawings: Callable[[Rows], Mapping[str, str]] = lambda _rows: {}


def recipe_names() -> tuple[str, ...]:
    """The recipes that there are, by their files.

    >>> "q-spinn" in recipe_names()
    True
    """
    files = (Path(__file__).parent / "papers").glob("*.py")
    return tuple(sorted(file.stem.replace("_", "-") for file in files if file.stem != "__init__"))


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        PlanError: there is none.
    """
    if name not in recipe_names():
        raise PlanError(f"no recipe {name!r}; expected one of {', '.join(recipe_names())}")
    found: Recipe = importlib.import_module(f"{__package__}.papers.{name.replace('-', '_')}").RECIPE
    return found


def reproduce(name: str, scale: Scale, bench: Bench, *, only: Sequence[str] = (), anew: bool = False) -> dict[str, Any]:
    """Run the rows that are not there yet, and write the table after each; returns it, JSON-able.

    With `anew` all rows are run, from the start.  With `only`, patterns of names (``*`` matches any text), the other
    rows are neither run nor removed; those that are there stay in the table, and the record says which are not.  A row
    whose data are not there is left out with the reason, and tried again next time.

    Raises:
        PlanError: no such recipe or scale, or a pattern that matches no row.
        ArtifactError: the folder cannot be written, or holds a broken row.
    """
    if scale not in SCALES:
        raise PlanError(f"scale {scale!r}; expected one of {', '.join(SCALES)}")
    found = recipe(name)
    rows = found.rows(scale)
    wanted = chosen_rows([row.name for row in rows], only)
    (bench.folder / ROWS).mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    if anew:
        bench.forget_checkpoints()
        for called in wanted:
            (bench.folder / ROWS / f"{called}.json").unlink(missing_ok=True)
    for number, row in enumerate(rows, start=1):
        file = bench.folder / ROWS / f"{row.name}.json"
        record = _read(file)
        if record is None and row.name not in wanted:
            continue
        if record is None:
            bench.say(f"row {number} of {len(rows)}: {row.name}")
            started = time.perf_counter()
            try:
                figures = dict(row.run(bench))
            except DataError as error:
                missing[row.name] = str(error)
                bench.say(f"row {row.name} is left out: {error}")
                continue
            record = {
                "line": row.line,
                "seed": row.seed + bench.seed,
                **figures,
                "seconds": time.perf_counter() - started,
            }
            write_text(file, json.dumps(record, indent=2) + "\n")
        done[row.name] = record
        _write(bench.folder, found, scale, done, missing)
    files = _write(bench.folder, found, scale, done, missing)
    text = files[TABLE]
    return {
        "recipe": name, "scale": scale, "title": found.title, "rows": done, "left_out": missing,
        "not_run": [row.name for row in rows if row.name not in done and row.name not in missing],
        "table": text, "files": list(files),
    }  # fmt: skip


def chosen_rows(names: Sequence[str], only: Sequence[str]) -> set[str]:
    """Names that one of the patterns matches; all where there are none.

    Raises:
        PlanError: a pattern that matches no row.

    >>> sorted(chosen_rows(["mnist-0", "mnist-1", "shd-0"], ["*-0"]))
    ['mnist-0', 'shd-0']
    """
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PlanError(f"rows {pattern!r} match nothing; the rows are {', '.join(names)}")
    return {name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)}


def _write(folder: Path, found: Recipe, scale: str, done: Rows, missing: Mapping[str, str]) -> dict[str, str]:
    files = {TABLE: table(found, scale, done, missing), **found.drawings(done)}
    for name, text in files.items():
        write_text(folder / name, text)
    return files


def table(found: Recipe, scale: str, done: Rows, missing: Mapping[str, str]) -> str:
    """The page: ours beside the paper's, means and 95 % intervals over seeds or folds."""
    lines = [
        f"# {found.title}", "",
        f"Scale `{scale}`. Change of accuracy in points, mean and 95 % interval over seeds or folds (Student's t), of "
        "a single row over its test samples (paired); a goal is met when the lower end of the interval meets it. "
        "Memory counts every parameter and every state.", "",
        "| experiment | paper | rows | real % | quantized % | change, points | times smaller | goal |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]  # fmt: skip
    for line in found.lines:
        rows = [record for record in done.values() if record["line"] == line.name]
        if rows:
            lines.append(_line(line, rows))
    lines += found.sections(done)
    lines += ["", "What differs from the paper:", "", *(f"- {sentence}" for sentence in found.differences)]
    if missing:
        lines += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in missing.items())]
    lines += [
        "",
        "| row | seed | real % | quantized % | times smaller | seconds | how |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, record in done.items():
        lines.append(
            f"| {name} | {record['seed']} | {100 * record['before']:.2f} | {100 * record['after']:.2f} | "
            f"{record['smaller']:.1f} | {record['seconds']:.0f} | {record.get('how', '')} |"
        )
    return "\n".join(lines) + "\n"


def _line(line: Line, rows: Sequence[Mapping[str, Any]]) -> str:
    mean, margin = change(rows)
    smaller = min(record["smaller"] for record in rows)
    goal = ""
    if line.goal_points is not None:
        met = smaller >= line.goal_smaller and mean - margin >= -line.goal_points
        goal = f"{line.goal_smaller:g} x within {line.goal_points:g}: {'met' if met else 'missed'}"
    before, after = (sum(record[key] for record in rows) / len(rows) for key in ("before", "after"))
    told = f"{mean:+.2f}" + ("" if math.isnan(margin) else f" ± {margin:.2f}")
    return (
        f"| {line.name} | {line.paper} | {len(rows)} | {100 * before:.2f} | {100 * after:.2f} | {told} | "
        f"at least {smaller:.1f} | {goal} |"
    )


def change(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Change of accuracy in points and half of its 95 % interval: over rows, of a single row over its test samples.

    NaN for the interval of a single row that has none.

    >>> change([{"before": 0.5, "after": 0.75, "interval_points": 3.0}])
    (25.0, 3.0)
    """
    mean, margin = mean_and_interval([100 * (row["after"] - row["before"]) for row in rows])
    return mean, float(rows[0].get("interval_points", math.nan)) if len(rows) == 1 else margin


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (NaN for one value).

    >>> mean_and_interval([1.0, 2.0, 3.0])
    (2.0, 2.4841...)
    """
    from scipy.special import stdtrit

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} is not readable ({error}); remove it, and its row is run again") from error
    if not isinstance(found, dict) or not {"line", "before", "after", "smaller"} <= set(found):
        raise ArtifactError(f"{file} is not a row of a reproduction; remove it, and its row is run again")
    return found


def plain_name(text: str) -> str:
    """A name for files.

    >>> plain_name("Fashion-MNIST, seed 1")
    'fashion-mnist-seed-1'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
