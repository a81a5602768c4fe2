"""What it takes to run a command again: versions, and the command line itself."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from contextvars import ContextVar

_WORDS: ContextVar[tuple[str, ...]] = ContextVar("words of the command line", default=())
ONCE = ("--resume", "--overwrite", "--json")  # about this call, not about what was computed


def remember_words(words: Sequence[str]) -> None:
    """Keep the words behind ``spikequant``; called once, by the program."""
    _WORDS.set(tuple(words))


def command_line() -> str:
    """This run's command line, as it can be pasted into a shell to get the same result."""
    return shlex.join(["spikequant", *(word for word in _WORDS.get() if word not in ONCE)])


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import numpy
    import torch

    import spikequant

    return {
        "spikequant": spikequant.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
