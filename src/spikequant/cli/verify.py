"""``spikequant verify``: a network file (or all files of a run folder), read by every reader, compared for equality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli.datasets import TAKEN, DataChoice, complete_data, open_data
from spikequant.cli.progress import bar
from spikequant.cli.screen import Screen
from spikequant.cli.tables import Table
from spikequant.data import names
from spikequant.law.errors import ArtifactError, DataError, MismatchError, Unsupported
from spikequant.readers.registry import READERS, ReaderReport, verify_readers

if TYPE_CHECKING:
    from spikequant.cli.datasets import ShellData


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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Run the test samples of a data set instead: {', '.join(names())}.",
            show_default="the file's own test vectors",
            autocompletion=complete_data,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    data_dir: options.DataDirOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --data: take at most N samples.",
            show_default="all",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    fold: options.FoldOption = None,
    steps: options.StepsOption = None,
    step_ms: options.StepMsOption = None,
    window_ms: options.WindowMsOption = None,
    counts: options.CountsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check that a network file is whole and that every reader of it gives the same integers.

    Examples:
      spikequant verify runs/w4u8/network.spq --readers all
      spikequant verify runs/w4u8/network.spq --data mnist --limit 500

    The file's hash must match its content, its widths are proven again, and its embedded test
    vectors are run by each reader: scores and spikes must be equal, without tolerance. For a
    run folder every network in it is checked, and that each is the one that the run wrote.
    With --data the readers run real samples in place of the vectors.
    """
    screen = Screen(as_json=as_json)
    choice = DataChoice(
        name=data, folder=data_dir, limit=limit, fold=fold, steps=steps, step_ms=step_ms,
        window_ms=window_ms, counts=counts,
    )  # fmt: skip
    paths = _networks(network)
    samples = _samples(choice)
    if samples is None:
        found = [verify_file(path, readers) for path in paths]
    else:
        screen.say(f"On {samples.record['samples']['test']:,} test samples of {samples.record['name']}:")
        found = [verify_on_data(path, readers, samples, screen) for path in paths]
    _tell(found, screen, "its vectors" if samples is None else "these samples")
    facts = {} if samples is None else {"data": samples.record}
    records = [{**checked.to_dict(), **facts} for checked in found]
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
    return Checked(path, network_hash(net), _some_ran(verify_readers(net, readers=readers)))


def verify_on_data(path: Path, readers: str, data: ShellData, screen: Screen) -> Checked:
    """Run the test samples of a data set through the readers.

    Raises:
        ArtifactError: the file is damaged, or is not the one that its run folder lists.
        DataError: the samples do not fit the network.
        Unsupported: an unknown reader, or none of those asked for can run here.
    """
    from spikequant.law.artifact import load, network_hash

    net = load(path)
    _check_listed(path)
    sums: dict[str, ReaderReport] = {}
    with bar(screen.progress, f"verify {path.name}", len(data.test)) as shown:
        for batch, (x, _) in enumerate(shown.watch(data.test)):
            for found in _some_ran(verify_readers(net, x.numpy(), readers=readers)):
                report = replace(found, first=f"{found.first} (batch {batch})" if found.first else "")
                sums[report.reader] = _added(sums[report.reader], report) if report.reader in sums else report
    return Checked(path, network_hash(net), tuple(sums.values()))


def _samples(choice: DataChoice) -> ShellData | None:
    if choice.name is not None:
        return open_data(choice, batch_size=1, seed=0)
    given = [n for n in ("limit", *TAKEN) if getattr(choice, n) is not None]
    if given:
        raise DataError(f"--{given[0].replace('_', '-')} is about samples; name their data set with --data NAME")
    return None


def _added(before: ReaderReport, batch: ReaderReport) -> ReaderReport:
    counts = ("neuron_steps", "spikes", "states", "differences")
    first = before.first or batch.first
    return replace(before, first=first, **{n: getattr(before, n) + getattr(batch, n) for n in counts})


def _some_ran(reports: list[ReaderReport]) -> tuple[ReaderReport, ...]:
    if all(report.skipped for report in reports):
        raise Unsupported("; ".join(f"reader {report.reader}: {report.skipped}" for report in reports))
    return tuple(reports)


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


def _tell(found: list[Checked], screen: Screen, stimulus: str) -> None:
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
                f"warning: {checked.path} never spiked on {stimulus}; equal silence proves nothing", style="yellow"
            )
