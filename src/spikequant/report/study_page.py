"""The page of a study: its front, what mattered, what each role tolerates, and the chosen candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikequant.explore import Study, Trial
from spikequant.law.errors import DataError
from spikequant.report import study_plots, study_tables
from spikequant.report.assets import filled
from spikequant.report.numerals import count, decimal, energy, percent, size, times
from spikequant.report.provenance import Provenance
from spikequant.report.view import Tile


def render_study(
    study: Study, title: str | None, provenance: Provenance | None, warnings: tuple[str, ...], links: Mapping[str, str]
) -> str:
    """The page as text.

    Raises:
        DataError: no trial; a link that leaves the place of the page.
    """
    if not study.trials:
        raise DataError("write_report: the study has no trial yet; expected at least one")
    for name, place in links.items():
        if ":" in place.split("/", 1)[0] or place.startswith(("/", "\\")):
            raise DataError(
                f"write_report: the link {name!r} leads to {place!r}; "
                "expected a path from the page, such as chosen.html"
            )
    chosen = study.chosen
    return filled(
        "study.html.j2",
        "study.js",
        title=title or "What the exploration found",
        lead=lead(study),
        study=study,
        tiles=tiles(study),
        front=study_tables.front_table(study),
        tolerance=study_tables.tolerance_table(study.tolerance) if study.tolerance is not None else None,
        importance=study_tables.importance_table(study),
        candidates=study_tables.candidates_table(study),
        chosen=chosen,
        chosen_toml=None if chosen is None else toml_of(chosen),
        words=study.words(),
        links=links,
        parallel_words=study_plots.parallel_words(study),
        objectives=study_plots.AXES,
        provenance=provenance,
        warnings=warnings,
        data={
            "axes": [{"name": a.name, "label": a.label, "log": a.log} for a in study_plots.AXES],
            "groups": study_plots.groups(study),
            "plans": {str(place): toml_of(trial) for place, trial in enumerate(study.trials) if not trial.was_refused},
            "target": 100 * study.target_accuracy,
            "plots": {"importance": study_plots.importance(study), "parallel": study_plots.parallel(study)},
        },
    )


def toml_of(trial: Trial) -> str:
    """The plan of a trial as a file, with what is no part of a plan as comments in front."""
    candidate = trial.candidate
    rest = [f"# {name} = {value}" for name, value in candidate.settings.items() if ":" not in name]
    return "\n".join([f"# trial {trial.name}, {candidate.key}", *rest, candidate.plan().to_toml()])


def lead(study: Study) -> str:
    """What was found, in one sentence."""
    chosen, kept = study.chosen, len(study.selection.kept)
    start = f"Of {count(len(study.trials))} candidates {count(kept)} keep {percent(study.target_accuracy)} accuracy"
    if chosen is None:
        return f"{start}: no candidate was chosen."
    m, real = chosen.measured, study.reference
    ratio = times((real.flash_bytes + real.ram_bytes) / (m.flash_bytes + m.ram_bytes))
    return f"{start}; the chosen one has {percent(m.accuracy)} and is {ratio} times smaller than the real network."


def tiles(study: Study) -> tuple[Tile, ...]:
    """The key figures of the chosen candidate beside the real network."""
    found, chosen = [], study.chosen
    early = sum(t.measured.stopped_early for t in study.trials)
    refused = sum(t.was_refused for t in study.trials)
    if chosen is not None:
        m, real = chosen.measured, study.reference
        found += [
            Tile(label="Accuracy", value=percent(m.accuracy), against=f"real network {percent(real.accuracy)}",
                 verdict=f"target {percent(study.target_accuracy)}"),
            Tile(label="Memory", value=size(m.flash_bytes + m.ram_bytes),
                 against=f"real network {size(real.flash_bytes + real.ram_bytes)}",
                 verdict=f"flash {size(m.flash_bytes)}, RAM {size(m.ram_bytes)}"),
            Tile(label="Energy per sample", value=energy(m.energy_pj), against=f"real network {energy(real.energy_pj)}",
                 verdict="integer operations and memory traffic"),
            Tile(label="Firing rates, EMD", value=decimal(m.emd), against=f"dead {percent(m.dead, 1)}",
                 verdict=f"dead in the real network {percent(real.dead, 1)}"),
        ]  # fmt: skip
    best = study.selection.hypervolume
    found.append(
        Tile(
            label="Candidates",
            value=count(len(study.trials)),
            against=f"{count(len(study.selection.front))} on the front, "
            f"{count(len(study.selection.kept))} keep the target",
            verdict=f"stopped early {count(early)}, impossible {count(refused)}; "
            f"hypervolume {'0' if not math.isfinite(best) else f'{best:.3g}'}",
        )
    )
    return tuple(found)
