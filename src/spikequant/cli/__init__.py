"""The command line.  `main` is the program; one file per command, shared pieces named after what they are.

Importing this package loads neither torch nor the rest of spikequant: commands import what
they need when they run, so that help and tab completion answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0 good, 1 a check failed, 2 bad input, 130 interrupted."""
    from spikequant.cli.app import app

    app(args=None if arguments is None else list(arguments), prog_name="spikequant")
