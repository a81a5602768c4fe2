"""Names for files and symbols: what a network calls its layers never reaches a path or a program as it is."""

from __future__ import annotations

import re

from spikequant.law.errors import Unsupported

LONGEST = 40
C_WORDS = frozenset(
    re.findall(
        r"\w+",
        """auto break case char const continue default do double else enum extern float for goto if inline int long
        register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
        main class namespace template this new delete operator private public protected try catch throw""",
    )
)


def plain(name: str) -> str:
    """`name` with everything but ASCII letters and digits turned into single underscores.

    >>> plain("blocks.0.conv"), plain('x"; */ #include'), plain("")
    ('blocks_0_conv', 'x_include', 'layer')
    """
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return words[:LONGEST].strip("_") or "layer"


def stem(index: int, name: str) -> str:
    """A unique, sortable name for node number `index`.

    >>> stem(3, "lif.1")
    '03_lif_1'
    """
    return f"{index:02d}_{plain(name)}"


def identifier(name: str) -> str:
    """`name` if it can stand before C symbols and in file names.

    Raises:
        Unsupported: not a letter followed by letters, digits and underscores, or a word of C.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name) or name in C_WORDS:
        raise Unsupported(
            f"name = {name[:80]!r} cannot stand before C symbols; "
            "use a letter, then letters, digits and underscores, at most 40, no word of C"
        )
    return name
