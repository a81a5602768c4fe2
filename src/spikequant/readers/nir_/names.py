"""Names of nodes in a NIR graph: those of the network, where a group of an HDF5 file can have them."""

from __future__ import annotations

import re

from spikequant.readers.nir_.records import MOST_NAME


class NodeNames:
    """Gives every node a name that is free, printable, and no path.

    >>> names = NodeNames()
    >>> names.take("conv.1"), names.take("a/b"), names.take("a_b"), names.take("..")
    ('conv.1', 'a_b', 'a_b_2', '__')
    """

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.origin: dict[str, str] = {}

    def take(self, node: str) -> str:
        """The name of a node of the network."""
        self.given[node] = self.fresh(node, node)
        return self.given[node]

    def fresh(self, base: str, origin: str = "") -> str:
        """A name like `base` that no other node has; `origin` is the node of the network behind it."""
        plain = re.sub(r"[^\w.\-]", "_", base, flags=re.ASCII)[: MOST_NAME - 8]
        plain = plain if plain.strip(".") else re.sub(r"\.", "_", plain) or "node"
        name, count = plain, 1
        while name in self.origin:
            count += 1
            name = f"{plain}_{count}"
        self.origin[name] = origin
        return name
