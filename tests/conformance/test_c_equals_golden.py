"""Compiled C = golden model on random graphs: every kind of node behind every other, delays anywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.conformance.graphs import graph
from tests.conformance.native_side import compare

EVERY = {"SynapseNode", "NeuronNode", "ReshapeNode", "MatmulNode", "PoolNode sum", "PoolNode max"}
EVERY |= {f"JoinNode {kind}" for kind in ("add", "max", "product", "iand", "concat")}


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.conformance) for k in range(60, 1500, 60))])
def test_random_graphs(first):
    cases, kinds = [], Counter()
    for seed in range(first, first + 60):
        net, codes, found = graph(seed)
        kinds.update(found)
        cases.append((f"graph {seed}", net, [codes]))
    tally = compare(cases, first_sample=3)
    print(tally, dict(kinds))
    if not tally.networks:
        pytest.skip("no C compiler was found")
    assert not EVERY - set(kinds)
    assert tally.spikes > 1000
