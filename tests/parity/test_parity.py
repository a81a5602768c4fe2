"""Readings against their libraries on random configurations; the full sweep is marked `conformance`."""

from __future__ import annotations

import pytest
import torch
from tests.parity.harness import Family, drawn, families, gradients, parameters, sweep

from spikequant.frontends.check import check_layer

QUICK, FULL = 25, 200
FAMILIES = list(families())


def ids(family: Family) -> str:
    return f"{family.library.name} {family.name}"


if not FAMILIES:
    pytest.skip("no library with a front-end is installed", allow_module_level=True)


@pytest.mark.parametrize("family", FAMILIES, ids=ids)
def test_readings_give_the_spikes_of_their_library(family):
    check(sweep(family, range(QUICK)))


@pytest.mark.conformance
@pytest.mark.parametrize("family", FAMILIES, ids=ids)
def test_readings_give_the_spikes_of_their_library_in_full(family):
    check(sweep(family, range(FULL)))


def check(tally):
    assert tally.grades["refused"] == 0, tally.reasons
    assert tally.alive >= 0.6 * tally.configurations
    known = sum(tally.reasons.values())
    assert tally.grades["faithful"] == known
    assert tally.by_rounding <= 1e-4 * tally.neuron_steps


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", FAMILIES, ids=ids)
def test_gradients_are_those_of_the_library(family, seed):
    module, reading, x = drawn(family, seed)
    if reading.caveats and check_layer("layer", module, reading, x[:12]).grade != "exact":
        pytest.skip("; ".join(reading.caveats))
    names = {n for n, p in module.named_parameters() if p.requires_grad}
    assert names <= set(parameters(reading.module))
    wanted = gradients(family, module, x[:12])
    got = gradients(family, reading.module, x[:12])
    assert set(wanted) == set(got)
    if not float(wanted["input"].abs().max()) > 0:
        pytest.skip("a surrogate without a gradient where this layer is")
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(got[name] / scale, gradient / scale, rtol=2e-3, atol=2e-4)
