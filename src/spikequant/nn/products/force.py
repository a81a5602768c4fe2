"""Which path is asked for: a context, an environment variable, or none (the fastest that is proven)."""

from __future__ import annotations

from contextlib import AbstractContextManager

from spikequant.nn.asked import Asked

PATHS = ("float32", "float32_last", "bf16", "int8_onednn", "int8_vnni", "events", "float64")
"""Every path; those in front win a tie."""
ASKED = Asked("path", "SPIKEQUANT_PATH", PATHS)


def forced() -> str | None:
    """The path that is asked for here."""
    return ASKED.now()


def use_path(name: str) -> AbstractContextManager[None]:
    """Within it every layer takes this path, or raises `Unsupported` where it is not proven exact.

    >>> with use_path("float32"):
    ...     forced()
    'float32'

    Raises:
        Unsupported: there is no path of this name.
    """
    return ASKED.within(name)
