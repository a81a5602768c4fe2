"""Quantized networks with their figures, as run folders hold them: one of ``quantize``, several of ``demo``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder
from spikequant.cli.run_folder import RunConfig, read_config
from spikequant.law.errors import ArtifactError

if TYPE_CHECKING:
    from spikequant.analyse import Comparison
    from spikequant.plan import Plan
    from spikequant.quantize import QuantizeReport

ENDING = ".comparison.safetensors"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One quantized network of a run folder."""

    name: str
    folder: Path
    config: RunConfig
    comparison: Comparison
    plan: Plan
    report: QuantizeReport
    warnings: tuple[str, ...]
    sha256: str


def measured_networks(folder: Path) -> list[Measured]:
    """All quantized networks of a run folder.

    Raises:
        ArtifactError: not a run folder, a run that is not finished, without figures, or a damaged file.
    """
    from spikequant.analyse import Comparison
    from spikequant.plan import Plan

    config = read_config(folder)
    several = bool(list(folder.glob(f"*{ENDING}")))
    if not several and not (folder / run_folder.COMPARISON).is_file():
        raise ArtifactError(
            f"{folder} is a run of `{config.command}` ({config.state}) and holds no comparison; "
            f"quantize it first: spikequant quantize {folder} --weight-bits 4 --membrane-bits 8"
        )
    result = _result(folder)
    rows = result["rows"] if several else [result]
    return [
        Measured(
            name=str(row["name"]),
            folder=folder,
            config=config,
            comparison=Comparison.load(folder / (f"{row['stem']}{ENDING}" if several else run_folder.COMPARISON)),
            plan=Plan.load(folder / (f"{row['stem']}.toml" if several else run_folder.PLAN)),
            report=_report(row["quantized"]),
            warnings=tuple(row.get("warnings", ())),
            sha256=str(row["sha256"]),
        )
        for row in rows
    ]


def _result(folder: Path) -> dict[str, Any]:
    file = folder / run_folder.RESULT
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be read ({error}); run the command again with --overwrite") from error
    if not isinstance(record, dict) or not {"rows", "quantized"} & set(record):
        raise ArtifactError(f"{file} holds no record; run the command again with --overwrite")
    return record


def _report(record: dict[str, Any]) -> QuantizeReport:
    from spikequant.quantize.report import QuantizedRow, QuantizeReport

    return QuantizeReport(tuple(QuantizedRow(**row) for row in record["rows"]), tuple(record["notes"]))
