"""Which integrator, reset and delay are those of which simulator, measured on the NIR paper's traces."""

from __future__ import annotations

import pytest

pytest.importorskip("nir")
from tests.frontends.nir_traces import SIMULATORS, compare, traces


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_reading_fires_when_the_simulator_does(name, data_folder):
    found = traces(data_folder)
    compared = compare(SIMULATORS[name], found[name], (found["exact"][:, 0] != 0).astype(float))
    assert len(compared.wanted) == 4
    assert compared.got == compared.wanted
    assert compared.difference <= SIMULATORS[name].tolerance
