"""``spikequant targets``: the hardware profiles, one of them in detail, or a network checked against it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikequant.cli import options
from spikequant.cli.export import network_file
from spikequant.cli.program import CHECK_FAILED
from spikequant.cli.screen import Screen

if TYPE_CHECKING:
    from spikequant.targets import Target

PROMISES = {"equal": "equal step by step", "limits": "sizes only"}


def complete_target(incomplete: str) -> Iterable[tuple[str, str]]:
    """Names of targets for the shell."""
    from spikequant.targets import TARGETS

    return [(name, found.title) for name, found in TARGETS.items() if name.startswith(incomplete)]


def targets(
    name: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="One target in detail.", autocompletion=complete_target)
    ] = None,
    network: Annotated[
        Path | None,
        typer.Argument(metavar="NET", help="Check this network (.spq), or the one of a run folder, against TARGET."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List hardware profiles, show one, or check a network against one.

    Examples:
      spikequant targets
      spikequant targets xylo
      spikequant targets xylo runs/small/network.spq

    A check names every layer and limit that does not fit, and ends with exit code 1 if there is one. A network is made
    for a target with spikequant quantize --target.
    """
    from spikequant.targets import TARGETS, describe, target

    screen = Screen(as_json=as_json)
    if name is None:
        column = max(len(found.tag) for found in TARGETS.values())
        for found in TARGETS.values():
            screen.say(f"{found.tag.ljust(column)}  {PROMISES[found.promise].ljust(18)}  {found.title}")
        screen.document({"command": "targets", "targets": [found.to_dict() for found in TARGETS.values()]})
        return
    profile = target(name)
    if network is None:
        screen.say(describe(profile))
        screen.document({"command": "targets", "target": profile.to_dict()})
        return
    _check(profile, network, screen)


def _check(profile: Target, network: Path, screen: Screen) -> None:
    from spikequant.law.artifact import load
    from spikequant.targets import check

    path = network_file(network)
    report = check(load(path), profile)
    screen.say(f"{path} on {report}")
    screen.document({"command": "targets", "network": path, **report.to_dict()})
    if not report.passed:
        raise typer.Exit(CHECK_FAILED)
