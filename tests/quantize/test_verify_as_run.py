"""`verify` sees what `evaluate` runs, too: a fused kernel that is wrong is found."""

from __future__ import annotations

import pytest
import torch

import spikequant as sq
from spikequant.law.errors import MismatchError
from spikequant.nn import kernels


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    model, x = sq.models.digits_net(), torch.rand(32, 1, 8, 8)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(model)
    return model, sq.lower(model, x), x


def test_the_pass_without_watching_is_compared(frozen, monkeypatch):
    model, net, x = frozen
    assert sq.verify(model, net, x).differences == 0
    original = kernels.run_fused

    def wrong(*args, **kwargs):
        output, states = original(*args, **kwargs)
        output[0, 0, 0] = 1 - output[0, 0, 0]
        return output, states

    monkeypatch.setattr(kernels, "run_fused", wrong)
    with kernels.using("fused"):
        model(x)
        if "fused" not in kernels.used(model).values():
            pytest.skip("no compiler here: the plain loop runs, and it was compared")
        with pytest.raises(MismatchError, match="without watching states"):
            sq.verify(model, net, x)
