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


def with_gradient(family, seed):
    """A drawn layer whose spikes are the library's and whose gradient is alive, its reading, and the library's gradients."""
    for again in range(8):
        module, reading, x = drawn(family, seed + 6 * again)
        if reading.caveats and check_layer("layer", module, reading, x[:12]).grade != "exact":
            continue
        wanted = gradients(family, module, x[:12])
        if float(wanted["input"].abs().max()) > 0:
            return module, reading, x, wanted
    raise AssertionError(f"{family}: eight draws without a gradient to compare")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", FAMILIES, ids=ids)
def test_gradients_are_those_of_the_library(family, seed):
    module, reading, x, wanted = with_gradient(family, seed)
    names = {n for n, p in module.named_parameters() if p.requires_grad}
    assert names <= set(parameters(reading.module))
    got = gradients(family, reading.module, x[:12])
    assert set(wanted) == set(got)
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(got[name] / scale, gradient / scale, rtol=2e-3, atol=2e-4)
