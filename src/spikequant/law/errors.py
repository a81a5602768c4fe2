"""Every error that spikequant raises on purpose.

    SpikequantError
    ├── Unsupported      a module, option or graph that no spec can honour
    ├── WidthError       an integer that does not fit the width it must fit
    ├── NotFrozen        integers were asked of a model that is still soft
    ├── PlanError        a plan with an unknown field, a dead rule, a bad value
    ├── CaptureError     a forward pass that cannot be read as a graph
    ├── DataError        data with a wrong shape, NaN, no samples, or not there
    ├── ArtifactError    a file that is truncated, changed, or of another version
    └── MismatchError    two readers of one network disagree

A message says what was expected, what was given, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that tells the known word nearest to a wrong one; nothing where none is near.

    >>> nearest("hesian", ["hessian", "fisher"]), nearest("x", ["hessian"])
    ('. Did you mean hessian?', '')
    """
    near = difflib.get_close_matches(word, list(known), 1)
    return f". Did you mean {near[0]}?" if near else ""


class SpikequantError(ValueError):
    """Root of all errors that spikequant raises on purpose."""


class Unsupported(SpikequantError):
    """A module, option or graph that no integer spec can honour."""


class WidthError(SpikequantError):
    """An integer that does not fit the width it must fit."""


class NotFrozen(SpikequantError):
    """Integers were asked of a model whose codes can still move."""


class PlanError(SpikequantError):
    """A plan with an unknown field, a rule that matches nothing, or a bad value."""


class CaptureError(SpikequantError):
    """A forward pass that cannot be read as a static graph."""


class DataError(SpikequantError):
    """Data of a wrong shape, with NaN, without samples, or missing."""


class ArtifactError(SpikequantError):
    """A file that is truncated, was changed, or has another version."""


class MismatchError(SpikequantError):
    """Two readers of the same network disagree."""
