"""Readers by name, and `verify_readers`: every reader against the golden model, every spike and stored state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.readers import golden, native, onnx_
from spikequant.readers.compared import ReaderReport as ReaderReport
from spikequant.readers.compared import compare
from spikequant.readers.numba_ import printed_run
from spikequant.readers.vectors import stimulus

Runner = Callable[[IntNet, IntArray], golden.Run]


def _golden(net: IntNet, codes: IntArray) -> golden.Run:
    return golden.run(net, codes)


def _c99(net: IntNet, codes: IntArray) -> golden.Run:
    return native.compile(net, engine="c").trace(codes)


def _python(net: IntNet, codes: IntArray) -> golden.Run:
    return printed_run(net, codes)


def _c99_missing() -> str:
    return "" if native.find_compiler() is not None else "no C compiler was found (tried $CC, cc, gcc, clang)"


def _onnx(net: IntNet, codes: IntArray) -> golden.Run:
    return onnx_.run(net, codes)


READERS: Mapping[str, Runner] = {"golden": _golden, "c99": _c99, "python": _python, "onnx": _onnx}
"""Name -> function of a network and input codes; adding a reader is one line here."""
MISSING: Mapping[str, Callable[[], str]] = {
    "c99": _c99_missing,
    "onnx": onnx_.runtime_missing,
}
"""Name -> why this computer cannot run the reader, or nothing."""


def chosen(readers: str | Iterable[str]) -> tuple[str, ...]:
    """Names of readers from ``"all"``, ``"golden,c99"`` or a list.

    >>> chosen("all"), chosen("c99")
    (('golden', 'c99', 'python', 'onnx'), ('c99',))
    """
    if readers == "all":
        return tuple(READERS)
    names = [n.strip() for n in readers.split(",")] if isinstance(readers, str) else list(readers)
    for name in names:
        if name not in READERS:
            raise Unsupported(f"reader {name!r}; expected 'all' or some of {', '.join(READERS)}")
    return tuple(names)


def verify_readers(net: IntNet, inputs: Any = None, *, readers: str | Iterable[str] = "all") -> list[ReaderReport]:
    """Run readers on the same inputs and compare them with the golden model, value by value.

    Scores of embedded test vectors are compared too (under ``golden``): they say what the file promises.

    Args:
        net: the network.
        inputs: data as the network takes them; the embedded test vectors where absent.
        readers: ``"all"`` or names; a reader that cannot run here says why, and is no failure.

    Raises:
        DataError: neither inputs nor embedded vectors, or inputs that do not fit.
        Unsupported: an unknown reader.
    """
    names, codes = chosen(readers), stimulus(net, inputs)
    wanted = golden.run(net, codes)
    reports = []
    for name in names:
        reason = MISSING[name]() if name in MISSING else ""
        if reason:
            reports.append(ReaderReport(name, skipped=reason))
            continue
        promised = (
            net.vectors.scores if name == "golden" and inputs is None and net.vectors is not None else wanted.scores
        )
        try:
            found = wanted if name == "golden" else READERS[name](net, codes)
        except Unsupported as error:
            reports.append(ReaderReport(name, skipped=f"refused: {error}"))
            continue
        reports.append(compare(name, net, found, wanted, promised))
    return reports
