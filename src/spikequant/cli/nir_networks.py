"""NIR graphs as networks of a command: ``net.nir``, or ``net.nir:dt=1e-3,integrator=euler,reset=v_reset,steps=10``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spikequant.law.errors import DataError, SpikequantError, Unsupported

if TYPE_CHECKING:
    from torch import nn

    from spikequant.cli.networks import NetworkSource

OPTIONS: dict[str, Callable[[str], Any]] = {
    "dt": float, "integrator": str, "reset": str, "current": str, "compare": str, "readout": str, "output": str,
    "steps": int,
}  # fmt: skip
"""What can stand behind the file; the words are those of `spikequant.from_nir`."""
EXAMPLE = "net.nir:dt=1e-3,integrator=euler,reset=v_reset"


def build_nir(source: NetworkSource) -> nn.Module:
    """The network of a graph; its output is the sum over time unless ``readout`` says another reading.

    Raises:
        DataError, Unsupported: a damaged file, an unknown option, or a choice that is missing.
    """
    from spikequant.frontends import from_nir

    options = {"readout": "sum", **nir_options(source.text, source.function)}
    try:
        return from_nir(source.file, **options)
    except SpikequantError as error:
        kind = Unsupported if isinstance(error, Unsupported) else DataError
        raise kind(f"{source.text}: {error}. At the shell choices stand behind the file, as in {EXAMPLE}") from error


def nir_options(text: str, words: str) -> dict[str, Any]:
    """The options behind a file.

    >>> nir_options("net.nir:dt=1e-3,steps=10", "dt=1e-3,steps=10")
    {'dt': 0.001, 'steps': 10}
    """
    found: dict[str, Any] = {}
    for part in filter(None, words.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in OPTIONS or not equals or name in found:
            raise DataError(
                f"{text}: {part!r} is no option, or there twice; expected some of {', '.join(OPTIONS)}, as in {EXAMPLE}"
            )
        try:
            found[name] = OPTIONS[name](value)
        except ValueError as error:
            raise DataError(f"{text}: {part!r}: expected a number behind {name}") from error
    return found
