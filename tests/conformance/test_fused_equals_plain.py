"""Fused kernel = plain loop = golden model on hand-made neurons: every spike, every state; gradients by the same rules.

The C, and the same lines printed for numba: many neurons as plain Python over numpy numbers, a few compiled.

In float64 both ways round so little that equal rules give equal gradients; in float32 the kernel may be as far from
float64 as the plain loop is.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tests.conformance.fused_side import both, case, golden, stepwise

from spikequant.readers.compiler import find_compiler
from spikequant.readers.kernels import native, numba_kernel

compiled = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
QUICK, CHUNK, SLOW = 40, 10, 400
LONG_RUN = 130


@pytest.fixture(autouse=True)
def _compiles_quickly(monkeypatch):
    """Hundreds of kernels are compiled here; what an optimiser does to one is tested with networks."""
    monkeypatch.setattr(native, "FLAGS", tuple("-O1" if f == "-O3" else f for f in native.FLAGS))


def check(seed, engine="c"):
    """Compare one neuron; what it was and how alive."""
    one = case(seed, LONG_RUN if seed % 5 == 0 else 14)
    wanted, states = golden(one)
    dtype = torch.float32 if one.bits <= 24 else torch.float64
    where = f"seed {seed}: {one.name}, {one.form}, {one.spec}"
    outputs, seen = stepwise(one, dtype, engine=engine)
    assert np.array_equal(outputs.numpy(), wanted), where
    for t, expected in enumerate(states):
        for name, value in expected.items():
            assert np.array_equal(seen[t][name].numpy(), value), f"{where}: state {name} of step {t}"
    reference, exact = both(one, torch.float64, keeps=seed % 3 > 0, engine=engine)
    for output, last, _ in (reference, exact):
        assert np.array_equal(output.numpy(), wanted), where
        assert all(np.array_equal(last[n].numpy(), states[-1][n]) for n in last), where
    compare(reference[2], exact[2], 1e-10, where)
    if dtype == torch.float32:
        plain, fused = both(one, dtype, keeps=seed % 3 > 0, engine=engine)
        assert torch.equal(plain[0], fused[0]), where
        assert all(torch.equal(plain[1][n], fused[1][n]) for n in plain[1]), where
        for name, expected in reference[2].items():
            scale = float(expected.abs().max())
            errors = [float((g[2][name].double() - expected).abs().max()) for g in (plain, fused)]
            assert errors[1] <= 3 * errors[0] + 3e-6 * scale, f"{where}: {name} {errors} of {scale}"
    fired = 0.02 < float((wanted != 0).mean()) < 0.98
    moved = sum(float(g.abs().max()) > 0 for g in reference[2].values())
    return Counter({"fired": fired, "neurons": 1, "float32": dtype == torch.float32, "gradients": moved, one.form: 1,
                    f"surrogate {one.surrogate.name}": 1, f"order {one.name}": 1})  # fmt: skip


def compare(wanted, got, share, where):
    """Gradients are equal up to a share of the largest one."""
    for name, expected in wanted.items():
        scale = float(expected.abs().max())
        assert float((got[name] - expected).abs().max()) <= share * scale, f"{where}: gradient of {name}"


@compiled
@pytest.mark.parametrize("first", range(0, QUICK, CHUNK))
def test_hand_made_neurons(first):
    tally = sum((check(seed) for seed in range(first, first + CHUNK)), Counter())
    print(dict(tally))
    assert tally["fired"] >= 0.6 * tally["neurons"]
    assert tally["gradients"] >= 3 * tally["neurons"]


@compiled
@pytest.mark.conformance
@pytest.mark.parametrize("first", range(QUICK, QUICK + SLOW, 40))
def test_many_hand_made_neurons(first):
    tally = sum((check(seed) for seed in range(first, first + 40)), Counter())
    print(dict(tally))
    assert tally["fired"] >= 0.6 * tally["neurons"]


class AsPython:
    """The printed text as it stands, nothing compiled."""

    def __init__(self, text):
        self.scope = {}
        exec(text.replace("from numba import njit", "def njit(*a, **k):\n    return a[0] if a else njit"), self.scope)

    def __getattr__(self, name):
        return self.quietly(self.scope[name])

    @staticmethod
    def quietly(function):
        """Words of noise overflow by design."""

        def run(*arguments):
            with np.errstate(all="ignore"):
                function(*arguments)

        return run


@pytest.fixture
def forget_kernels():
    """What a test compiled in its own way does not outlive it."""
    yield
    numba_kernel.numba_forward_kernel.cache_clear()
    numba_kernel.numba_backward_kernel.cache_clear()


@pytest.mark.parametrize("first", range(0, 16, 4))
def test_hand_made_neurons_as_python(first, monkeypatch, forget_kernels):
    monkeypatch.setattr(numba_kernel, "loaded", AsPython)
    tally = sum((check(seed, "numba") for seed in range(first, first + 4)), Counter())
    assert tally["fired"] >= 2
    assert tally["gradients"] >= 3 * tally["neurons"]


@pytest.mark.conformance
@pytest.mark.parametrize("first", range(QUICK, QUICK + SLOW, 40))
def test_many_hand_made_neurons_as_python(first, monkeypatch, forget_kernels):
    monkeypatch.setattr(numba_kernel, "loaded", AsPython)
    tally = sum((check(seed, "numba") for seed in range(first, first + 40)), Counter())
    assert tally["fired"] >= 0.6 * tally["neurons"]


@pytest.mark.parametrize("seed", [3])
def test_hand_made_neurons_by_numba(seed):
    pytest.importorskip("numba", reason="numba is not installed")
    assert check(seed, "numba")["fired"]
