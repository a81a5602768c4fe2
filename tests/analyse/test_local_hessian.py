"""Traces of local losses against explicit second derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import spikequant as sq
from spikequant.analyse.local_hessian import local_hessian_trace
from spikequant.law.errors import DataError, Unsupported
from spikequant.models.decolle import Decolle
from spikequant.nn import Surrogate
from spikequant.training.local import LocalRun

ATAN = Surrogate("atan", 2.0)


def network(surrogate: Surrogate | None = None) -> Decolle:
    torch.manual_seed(3)
    return Decolle(size=6, channels=(2, 3), kernel=3, classes=3, surrogate=surrogate)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    x = (torch.rand(4, 3, 2, 6, 6, generator=generator) < 0.4).float()
    return [(x, torch.tensor([0, 1, 2]))]


def exact(model: Decolle, burn_in: int, *, gauss_newton: bool) -> list[float]:
    """Traces by weight and by membrane of every layer, one coordinate after the other."""
    ((x, y),) = batches()
    wanted = F.one_hot(y, 3).float()
    run = LocalRun(model)
    weights, membranes = [0.0, 0.0], [0.0, 0.0]
    for t, frame in enumerate(x):
        for one in run.step(frame, perturbed=True):
            if t < burn_in:
                continue
            form = run.forms[one.layer]
            for leaf, totals in ((form.synapse.weight, weights), (form.moved, membranes)):
                assert isinstance(leaf, Tensor)
                error = (one.scores - wanted).flatten()
                if gauss_newton:
                    for k in range(len(error)):
                        if abs(float(error[k].detach())) < 1:
                            (row,) = torch.autograd.grad(error[k], leaf, retain_graph=True)
                            totals[one.layer] += float((row**2).sum()) / len(error)
                    continue
                loss = F.smooth_l1_loss(one.scores, wanted)
                (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
                flat = gradient.flatten()
                for k in range(len(flat)):
                    (row,) = torch.autograd.grad(flat[k], leaf, retain_graph=True)
                    totals[one.layer] += float(row.flatten()[k])
    return weights + membranes


@pytest.mark.parametrize("gauss_newton", [True, False])
def test_equals_the_exact_trace_within_three_standard_errors(gauss_newton: bool) -> None:
    model = network(ATAN)
    found = local_hessian_trace(
        model, batches(), curvature="gauss-newton" if gauss_newton else "hessian", burn_in=1, probes=200
    )
    expected = exact(model, 1, gauss_newton=gauss_newton)
    assert [row.role for row in found.rows] == ["weight", "weight", "membrane", "membrane"]
    for row, value in zip(found.rows, expected, strict=True):
        assert value != 0
        assert abs(row.trace - value) <= 3 * row.standard_error + 1e-9, row


def test_a_boxcar_has_no_hessian_of_its_own() -> None:
    with pytest.raises(Unsupported, match="lif1: boxcar: its second derivative is 0"):
        local_hessian_trace(network(), batches(), curvature="hessian")
    found = local_hessian_trace(network(), batches(), curvature="hessian", surrogate=ATAN, probes=8)
    assert "every surrogate was replaced by atan of slope 2" in found.words
    assert set(found.surrogates.values()) == {"atan"}


def test_the_model_stays_and_the_allocator_takes_the_traces() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = local_hessian_trace(model, batches(), probes=8)
    assert model.stages()[0][1].surrogate.name == "boxcar"  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(row.trace >= 0 for row in found.rows)
    plan = sq.allocate(found, "0.3x")
    assert plan.layer("conv1.layer").weight is not None
    assert plan.layer("lif2").membrane is not None


def test_it_ends_when_the_errors_are_small() -> None:
    found = local_hessian_trace(network(), batches(), probes=400, relative_error=0.2)
    assert found.settled
    assert found.rows[0].probes < 400
    assert not local_hessian_trace(network(), batches(), probes=8, relative_error=1e-6).settled


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(Unsupported, match="hessian or gauss-newton"):
        local_hessian_trace(network(), batches(), curvature="fisher")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 8"):
        local_hessian_trace(network(), batches(), probes=3)
    with pytest.raises(DataError, match="no batch"):
        local_hessian_trace(network(), [])
    with pytest.raises(DataError, match="burn_in = 4"):
        local_hessian_trace(network(), batches(), burn_in=4)


def test_traces_of_a_quantized_network() -> None:
    model = network(ATAN)  # a boxcar would jump where U is moved a little
    real = local_hessian_trace(model, batches(), probes=8)
    x = batches()[0][0]
    sq.quantize_(model, sq.Plan.uniform(weight_bits=12, membrane_bits=12, membrane_rounding="half_up"), x, quiet=True)
    found = local_hessian_trace(model, batches(), probes=8)
    assert [(r.layer, r.role, r.numel) for r in found.rows] == [(r.layer, r.role, r.numel) for r in real.rows]
    assert found.facts is None
    for one, other in zip(found.rows, real.rows, strict=True):  # the same signs, and nearly the same network
        assert one.trace == pytest.approx(other.trace, rel=0.1)
        assert one.trace > 0
