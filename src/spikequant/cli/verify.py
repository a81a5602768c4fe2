"""``spikequant verify``: a network file (or all files of a run folder), read by every reader, compared for equality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli.screen import Screen
from spikequant.cli.tables import Table
from spikequant.law.errors import ArtifactError, MismatchError, Unsupported
from spikequant.readers.registry import READERS, ReaderReport, verify_readers


def _complete_readers(incomplete: str) -> Iterable[str]:
    return [name for name in ("all", *READERS) if name.startswith(incomplete)]


@dataclass(frozen=True)
class Checked:
    """One network file and what its readers gave."""

    path: Path
    sha256: str
    reports: tuple[ReaderReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        readers = {report.reader: report.to_dict() for report in self.reports}
        return {"network": str(self.path), "sha256": self.sha256, "readers": readers}


def verify(
    network: Annotated[
        Path, typer.Argument(metavar="NET", help="A network written by spikequant (.spq), or a run folder.")
    ],
    readers: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"Who reads the network: all, or some of {', '.join(READERS)} with commas between.",
            autocompletion=_complete_readers,
        ),
    ] = "all",
    as_json: options.JsonOption = False,
) -> None:
    """Check that a network file is whole and that every reader of it gives the same integers.

    Example:
      spikequant verify runs/w4u8/network.spq --readers all

    The file's hash must match its content, its widths are proven again, and its embedded test
    vectors are run by each reader: scores and spikes must be equal, without tolerance. For a
    run folder every network in it is checked, and that each is the one that the run wrote.
    """
    screen = Screen(as_json=as_json)
    found = [verify_file(path, readers) for path in _networks(network)]
    _tell(found, screen)
    records = [checked.to_dict() for checked in found]
    screen.document(records[0] if network.is_file() else {"command": "verify", "run": network, "networks": records})
    for checked in found:
        _judge(checked)


def verify_file(path: Path, readers: str) -> Checked:
    """Run the embedded vectors of one file through the readers.

    Raises:
        ArtifactError: the file is damaged, carries no vectors, or is not the one that its run folder lists.
        Unsupported: an unknown reader, or none of those asked for can run here.
    """
    from spikequant.law.artifact import load, network_hash

    net = load(path)
    _check_listed(path)
    if net.vectors is None:
        raise ArtifactError(f"{path} carries no test vectors; lower the model again with an example input")
    reports = tuple(verify_readers(net, readers=readers))
    if all(report.skipped for report in reports):
        raise Unsupported("; ".join(f"reader {report.reader}: {report.skipped}" for report in reports))
    return Checked(path, network_hash(net), reports)


def _judge(checked: Checked) -> None:
    """Raise `MismatchError` if a reader differs."""
    for report in checked.reports:
        if not report.differences:
            continue
        if report.reader == "golden":
            raise MismatchError(
                f"{checked.path}: the embedded test vectors do not give the scores that the file states"
            )
        raise MismatchError(f"{checked.path}: {report.reader} differs from the golden model, first {report.first}")


def _networks(path: Path) -> list[Path]:
    """The file itself, or the networks of a run folder."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.spq"))
    if not found:
        raise ArtifactError(f"{path} holds no network (.spq); quantize writes one: spikequant quantize --help")
    return found


def _check_listed(path: Path) -> None:
    """If a run wrote down the hash of this file, it must still be that."""
    from spikequant.cli.run_folder import CONFIG, read_config

    if not (path.parent / CONFIG).is_file():
        return
    stated = read_config(path.parent).files.get(path.name)
    given = hashlib.sha256(path.read_bytes()).hexdigest()
    if stated is not None and stated != given:
        raise ArtifactError(f"{path} is not the file that its run wrote (SHA-256 {given}, the run wrote {stated})")


def _tell(found: list[Checked], screen: Screen) -> None:
    for checked in found:
        screen.command(f"{checked.path}: SHA-256 {checked.sha256}")
    ran = [(checked, report) for checked in found for report in checked.reports if not report.skipped]
    counts = ("neuron_steps", "spikes", "states", "differences")
    rows = tuple((c.path.name, r.reader, *(f"{getattr(r, name):,}" for name in counts)) for c, r in ran)
    header = ("network", "reader", "neuron-steps", "spikes", "states", "differences")
    screen.table(Table(header, rows, left=frozenset({"reader"})))
    for name, why in {r.reader: r.skipped for c in found for r in c.reports if r.skipped}.items():
        screen.say(f"note: the reader {name} did not run: {why}")
    total = sum(report.differences for _, report in ran)
    screen.say(f"{total:,} differences." if total else "Every reader agrees: 0 differences.")
    for checked, report in ran:
        if not report.spikes and report.reader == checked.reports[0].reader:
            screen.say(
                f"warning: {checked.path} never spiked on its vectors; equal silence proves nothing", style="yellow"
            )
