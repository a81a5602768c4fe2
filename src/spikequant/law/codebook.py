"""Code books: weight codes that are signed sums of a few integers, row by row.

Of channel ``c`` with the integers ``k_c = codebook[c]`` every code is ``sum_j (+-1) k_c[j]``.  Field ``f`` of ``n``
bits stands for the sum with ``+`` where its bit ``j`` is set.  A codebook of one row serves all channels.
"""

from __future__ import annotations

import numpy as np

from spikequant.law.formats import IntArray

MOST_CODEBOOK_BITS = 8


def level_table(codebook: IntArray) -> IntArray:
    """The level of every field: ``[rows, 2^n]``.

    >>> level_table(np.array([[1, 3]])).tolist()
    [[-4, -2, 2, 4]]
    """
    bits = codebook.shape[1]
    signs = 2 * ((np.arange(2**bits)[:, None] >> np.arange(bits)) & 1) - 1
    levels: IntArray = codebook @ signs.T
    return levels


def code_fields(codes: IntArray, codebook: IntArray) -> IntArray | None:
    """The field of every code ``[out, ...]``; None where one is no level of its row.

    >>> code_fields(np.array([[4, -2]]), np.array([[1, 3]])).tolist(), code_fields(np.array([[3]]), np.array([[1, 3]]))
    ([[3, 1]], None)
    """
    rows = codes.reshape(len(codes), -1)
    table = np.broadcast_to(level_table(codebook), (len(codes), 2 ** codebook.shape[1]))
    order = np.argsort(table, axis=1, kind="stable")
    fields = np.empty_like(rows)
    for at, (row, levels, named) in enumerate(zip(rows, np.take_along_axis(table, order, 1), order, strict=True)):
        place = np.minimum(np.searchsorted(levels, row), len(levels) - 1)
        if not np.array_equal(levels[place], row):
            return None
        fields[at] = named[place]
    return fields.reshape(codes.shape)
