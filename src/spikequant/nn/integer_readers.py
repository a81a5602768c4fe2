"""Which reader scores an integer network on this machine, and why not another; every one gives the same integers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from spikequant.law.errors import Unsupported
from spikequant.law.network import IntNet
from spikequant.nn.asked import Asked
from spikequant.nn.layerwise import LayerwiseNet, layerwise
from spikequant.readers import native

READERS = ("layers", "c99", "golden")
"""In the order in which they are taken; the last one is always possible."""
ASKED = Asked("reader", "SPIKEQUANT_READER", READERS)
COMPILED_UP_TO = 4_000_000
"""Weights up to which the C text compiles in seconds."""


def use_reader(name: str) -> AbstractContextManager[None]:
    """Within it integer networks are scored by this reader, or `Unsupported` is raised where that is not possible.

    ``layers``: layer by layer on bytes (`nn/layerwise`); ``c99``: the exported C, compiled; ``golden``: the golden
    model in numpy.  ``SPIKEQUANT_READER`` does the same for a process.

    >>> with use_reader("golden"):
    ...     forced_reader()
    'golden'

    Raises:
        Unsupported: there is no reader of this name.
    """
    return ASKED.within(name)


def forced_reader() -> str | None:
    """The reader that is asked for here."""
    return ASKED.now()


@dataclass(frozen=True, eq=False)
class ReaderChoice:
    """The reader of a network.

    Attributes:
        layers: the network layer by layer, if that is the reader.
        refused: the readers that are not possible, with the reason.
    """

    reader: str
    layers: LayerwiseNet | None
    refused: dict[str, str]


def choose_reader(net: IntNet) -> ReaderChoice:
    """The first reader that is possible, or the one that is asked for.

    Raises:
        Unsupported: the one that is asked for is not possible.
    """
    layers, why = layerwise(net)
    refused = {name: reason for name, reason in (("layers", why), ("c99", _no_compiled(net))) if reason}
    asked = forced_reader()
    if asked in refused:
        raise Unsupported(f"reader {asked} is not possible for this network here: {refused[asked]}")
    reader = asked or next(name for name in READERS if name not in refused)
    return ReaderChoice(reader, layers if reader == "layers" else None, refused)


def _no_compiled(net: IntNet) -> str:
    weights = sum(node.product.codes.size for node in net.synapses)
    if weights > COMPILED_UP_TO:
        return f"{weights:,} weights; C text of up to {COMPILED_UP_TO:,} compiles in seconds"
    return "" if native.find_compiler() is not None else "there is no C compiler"


__all__ = ["READERS", "ReaderChoice", "choose_reader", "forced_reader", "use_reader"]
