"""The page of a run folder, made from its files alone, so that it can be made again at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder

if TYPE_CHECKING:
    from spikequant.cli.measured import Measured
    from spikequant.cli.run_folder import RunConfig
    from spikequant.report import Provenance


def write_page(networks: Sequence[Measured], folder: Path, *, title: str | None = None) -> Path:
    """Write ``report.html`` about the networks of one run (or of several, against one reference).

    Raises:
        Unsupported: plotly or jinja2 is not installed.
        ArtifactError: the folder cannot be written.
    """
    from spikequant.report import write_report

    names = unique_names(networks)
    warnings = [f"{name}: {text}" if len(names) > 1 else text for name, n in names.items() for text in n.warnings]
    return write_report(
        {name: network.comparison for name, network in names.items()},
        folder / run_folder.REPORT,
        title=title,
        plan={name: network.plan for name, network in names.items()},
        quantize_report={name: network.report for name, network in names.items()},
        provenance=_provenance(networks),
        warnings=[text.removeprefix("warning: ") for text in warnings],
    )


def unique_names(networks: Sequence[Measured]) -> dict[str, Measured]:
    """Short names; where two are the same, the folder tells them apart.

    Raises:
        DataError: the same run twice.
    """
    from spikequant.law.errors import DataError

    names = [network.name for network in networks]
    folders = [f"{network.folder.name}: {network.name}" for network in networks]
    full = [f"{network.folder}: {network.name}" for network in networks]
    for chosen in (names, folders, full):
        if len(set(chosen)) == len(networks):
            return dict(zip(chosen, networks, strict=True))
    raise DataError("the same run is named twice; name each run once")


def _provenance(networks: Sequence[Measured]) -> Provenance:
    from spikequant.report import Provenance

    config = networks[0].config
    commands = list(dict.fromkeys(network.config.command_line for network in networks))
    data: dict[str, Any] = config.data or {}
    samples = ", ".join(f"{name} {count:,}" for name, count in data.get("samples", {}).items())
    return Provenance(
        command="\n".join(commands),
        seed=config.seed,
        versions=config.versions,
        hashes={f"{network.name}, integer network": network.sha256 for network in networks} | _source_hashes(config),
        data=str(data.get("input", data.get("name", ""))),
        split=samples,
    )


def _source_hashes(config: RunConfig) -> dict[str, str]:
    found = {"network code": (config.network or {}).get("sha256"), "weights": config.options.get("weights_sha256")}
    return {name: str(value) for name, value in found.items() if value}
