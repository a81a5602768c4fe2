"""The targets by name."""

from __future__ import annotations

import difflib

from spikequant.law.errors import Unsupported
from spikequant.targets.loihi import LOIHI_CUBA
from spikequant.targets.mcu import MCU_INT8
from spikequant.targets.profile import Target
from spikequant.targets.reference import REFERENCE
from spikequant.targets.speck import SPECK
from spikequant.targets.xylo import XYLO

TARGETS: dict[str, Target] = {t.name: t for t in (REFERENCE, MCU_INT8, LOIHI_CUBA, XYLO, SPECK)}


def target(name: str | Target) -> Target:
    """The profile called `name`, with or without its version.

    Raises:
        Unsupported: an unknown name, or a version that this release does not have.

    >>> target("xylo").tag, target("loihi-cuba/1").tag
    ('xylo/1', 'loihi-cuba/1')
    >>> target("loihi")
    Traceback (most recent call last):
    spikequant.law.errors.Unsupported: target = 'loihi'; expected one of reference, mcu-int8, loihi-cuba, xylo, speck; did you mean 'loihi-cuba'?
    """  # noqa: E501
    if isinstance(name, Target):
        return name
    if not isinstance(name, str):
        raise Unsupported(f"target = {name!r}; expected the name of a target: {', '.join(TARGETS)}")
    plain, _, version = name.partition("/")
    found = TARGETS.get(plain)
    if found is None:
        near = difflib.get_close_matches(plain, TARGETS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Unsupported(f"target = {name!r}; expected one of {', '.join(TARGETS)}{hint}")
    if version and version != str(found.version):
        raise Unsupported(f"target = {name!r}; this release has {found.tag}")
    return found
