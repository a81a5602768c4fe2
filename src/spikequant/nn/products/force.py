"""Which path is asked for: a context, an environment variable, or none (the fastest that is proven)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spikequant.law.errors import Unsupported

PATHS = ("float32", "float32_last", "bf16", "int8_onednn", "int8_vnni", "events", "float64")
"""Every path; those in front win a tie."""
ENVIRONMENT = "SPIKEQUANT_PATH"

_forced: ContextVar[str | None] = ContextVar("spikequant_path", default=None)


def forced() -> str | None:
    """The path that is asked for here."""
    name = _forced.get()
    return name if name is not None else _checked(os.environ.get(ENVIRONMENT) or None)


@contextmanager
def use_path(name: str) -> Iterator[None]:
    """Within it every layer takes this path, or raises `Unsupported` where it is not proven exact.

    >>> with use_path("float32"):
    ...     forced()
    'float32'

    Raises:
        Unsupported: there is no path of this name.
    """
    token = _forced.set(_checked(name))
    try:
        yield
    finally:
        _forced.reset(token)


def _checked(name: str | None) -> str | None:
    if name is not None and name not in PATHS:
        raise Unsupported(f"no path {name!r}; expected one of {', '.join(PATHS)}")
    return name
