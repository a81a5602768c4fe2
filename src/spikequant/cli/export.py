"""``spikequant export``: an integer network as files for another place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.screen import Screen
from spikequant.law.errors import ArtifactError
from spikequant.readers.export import FORMATS


def _complete_format(incomplete: str) -> Iterable[tuple[str, str]]:
    return [(name, text) for name, text in FORMATS.items() if name.startswith(incomplete)]


def export(
    network: Annotated[
        Path, typer.Argument(metavar="NET", help="A network written by spikequant (.spq), or a run folder with one.")
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="; ".join(f"{name}: {text}" for name, text in FORMATS.items()) + ".",
            autocompletion=_complete_format,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to write; files of an earlier export in it are replaced.")
    ] = Path("build"),
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="onnx: operator set, 17 to 25; 17 if not given, 25 with --packed.")
    ] = None,
    packed: Annotated[
        bool | None, typer.Option("--packed", help="onnx: weights of up to 4 bits as int4, of up to 2 as int2.")
    ] = None,
    trace: Annotated[
        bool | None,
        typer.Option("--trace/--no-trace", help="onnx: whether the sequence model also gives spikes and states."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write an integer network as files for hardware, firmware or another tool.

    Example:
      spikequant export runs/w4u8/network.spq --format vectors --out build/
      spikequant export runs/w4u8/network.spq --format onnx --packed --out build/

    The folder gets a manifest with the SHA-256 of every file.
    """
    from spikequant.law.artifact import load
    from spikequant.readers.export import export as write

    path = network_file(network)
    asked = {"opset": opset, "packed": packed, "trace": trace}
    done = write(load(path), out, format=format, **{name: v for name, v in asked.items() if v is not None})
    screen = Screen(as_json=as_json)
    screen.say(f"{path} as {format}:")
    screen.files(out, {name: f"{size:,} bytes" for name, size in sorted(done.files.items())})
    screen.document(
        {"command": "export", "network": path, "format": format, "out": out, "files": done.files, "facts": done.facts}
    )


def network_file(path: Path) -> Path:
    """The file itself, or the network of a run folder.

    Raises:
        ArtifactError: a folder without a network, or with several.
    """
    if not path.is_dir():
        return path
    if (path / run_folder.NETWORK).is_file():
        return path / run_folder.NETWORK
    found = sorted(path.glob("*.spq"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ArtifactError(f"{path} holds several networks; name one of {', '.join(str(file) for file in found)}")
    raise ArtifactError(f"{path} holds no network (.spq); quantize writes one: spikequant quantize --help")
