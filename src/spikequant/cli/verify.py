"""``spikequant verify``: a network file (or all files of a run folder), read by every reader, compared for equality."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli.readers import READERS, Reading, choose_readers, complete_readers
from spikequant.cli.screen import Screen
from spikequant.cli.tables import Table
from spikequant.law.errors import ArtifactError, MismatchError

if TYPE_CHECKING:
    from spikequant.law.network import IntNet

Facts = dict[str, Any]


def verify(
    network: Annotated[
        Path, typer.Argument(metavar="NET", help="A network written by spikequant (.spq), or a run folder.")
    ],
    readers: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"Who reads the network: all, or some of {', '.join(READERS)} with commas between.",
            autocompletion=complete_readers,
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
    names = choose_readers(readers)
    found = [verify_network(path, names) for path in _networks(network)]
    _tell(found, screen)
    screen.document(found[0] if network.is_file() else {"command": "verify", "folder": network, "networks": found})
    for facts in found:
        wrong = {name: row["differences"] for name, row in facts["readers"].items() if row["differences"]}
        if "golden" in wrong:
            raise MismatchError(
                f"{facts['network']}: the embedded test vectors do not give the scores that the file states"
            )
        if wrong:
            raise MismatchError(f"{facts['network']}: {', '.join(wrong)} disagree with the golden model")


def verify_network(path: Path, names: tuple[str, ...]) -> Facts:
    """Run the embedded vectors of one file through the readers.

    Raises:
        ArtifactError: the file is damaged, carries no vectors, or is not the one that its run folder lists.
    """
    from spikequant.law.artifact import load, network_hash

    net = load(path)
    sha256 = network_hash(net)
    _check_listed(path)
    if net.vectors is None:
        raise ArtifactError(f"{path} carries no test vectors; lower the model again with an example input")
    readings = {name: READERS[name](net, net.vectors.inputs) for name in names}
    rows = {name: _compared(net, reading, readings["golden"]) for name, reading in readings.items()}
    return {"network": str(path), "sha256": sha256, "readers": rows}


def _compared(net: IntNet, reading: Reading, golden: Reading) -> Facts:
    """Differences from the stated scores and from the golden model's spikes; what was alive beside it."""
    assert net.vectors is not None
    differences = int((reading.scores != net.vectors.scores).sum())
    for name, train in reading.outputs.items():
        differences += int((train != golden.outputs[name]).sum())
    spiking = {node.name for node in net.neurons if node.spec.output == "spike"}
    return {
        "neuron_steps": sum(train.size for train in reading.outputs.values()),
        "spikes": sum(int(train.sum()) for name, train in reading.outputs.items() if name in spiking),
        "scores": int(reading.scores.size),
        "differences": differences,
    }


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


def _tell(found: list[Facts], screen: Screen) -> None:
    for facts in found:
        screen.command(f"{facts['network']}: SHA-256 {facts['sha256']}")
    header = ("network", "reader", "neuron-steps", "spikes", "scores", "differences")
    rows = tuple(
        (Path(facts["network"]).name, name, *(f"{row[key]:,}" for key in ("neuron_steps", *header[3:])))
        for facts in found
        for name, row in facts["readers"].items()
    )
    screen.table(Table(header, rows, left=frozenset({"reader"})))
    total = sum(row["differences"] for facts in found for row in facts["readers"].values())
    screen.say(f"{total:,} differences." if total else "Every reader agrees: 0 differences.")
    silent = [facts["network"] for facts in found if not facts["readers"]["golden"]["spikes"]]
    for name in silent:
        screen.say(
            f"warning: {name} did not spike once on its vectors; equality of silence proves nothing", style="yellow"
        )
