"""The profiles against public simulators, where a Python has them; see benchmarks/target_oracles.md for all cases."""

from __future__ import annotations

import numpy as np
import pytest
from tests.targets import oracle_cases as cases


def python_with(module):
    """An interpreter with an oracle, or a skip."""
    found = cases.interpreter_with(module)
    if found is None:
        pytest.skip(f"{module} is not installed; {cases.VARIABLE} may name a Python that has it")
    return found


@pytest.mark.parametrize("rule", ["lava", "nengo_loihi", "brian2_loihi"])
def test_decays_of_loihi(rule, tmp_path):
    python = python_with(rule)
    value, decay = cases.decays(20_000, 4096 if rule != "brian2_loihi" else 6)
    np.savez(tmp_path / "cases.npz", value=value, decay=decay)
    cases.call(python, "run_decays.py", rule, tmp_path / "cases.npz", tmp_path / "results.npz")
    found = np.load(tmp_path / "results.npz")
    for key, offset in (("u", 1), ("v", 0)):
        assert np.array_equal(found[key], cases.law_decay(value, decay + offset))


def test_networks_of_xylo(tmp_path):
    python = python_with("xylosim")
    nets, arrays = cases.xylo_cases(range(12), 100)
    np.savez(tmp_path / "cases.npz", **arrays)
    cases.call(python, "run_xylosim.py", tmp_path / "cases.npz", tmp_path / "results.npz")
    results = np.load(tmp_path / "results.npz")
    counted = [cases.xylo_differences(net, spikes, results, k) for k, (net, spikes) in enumerate(nets)]
    wrong, values, spikes = (sum(column) for column in zip(*counted, strict=True))
    assert len(nets) > 6
    assert wrong == 0
    assert values > 50_000
    assert spikes > 1000


def test_networks_of_loihi(tmp_path):
    python = python_with("lava")
    nets, arrays = cases.loihi_cases(range(10), 40)
    np.savez(tmp_path / "cases.npz", **arrays)
    cases.call(python, "run_lava.py", tmp_path / "cases.npz", tmp_path / "results.npz")
    results = np.load(tmp_path / "results.npz")
    counted = [cases.loihi_differences(net, spikes, name, results) for net, spikes, name in nets]
    wrong, values, spikes = (sum(column) for column in zip(*counted, strict=True))
    assert wrong == 0
    assert values > 10_000
    assert spikes > 500
