"""The command line: `spikequant demo`, `spikequant verify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: 0 good, 1 a check failed, 2 bad input; never a traceback for a known error."""
    from spikequant.cli.app import app
    from spikequant.law.errors import MismatchError, SpikequantError

    try:
        app(args=list(arguments) if arguments is not None else None)
    except MismatchError as error:
        print(f"spikequant: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except SpikequantError as error:
        print(f"spikequant: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("spikequant: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
