"""Learning by local losses: it learns, goes on after a stop, and what it made is a network like any other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikequant as sq
from spikequant.law.errors import DataError, Unsupported
from spikequant.models.decolle import Decolle
from spikequant.nn import SingleState, Surrogate
from spikequant.nn.over_time import OverTime
from spikequant.training.local import LocalRun, fit_local


def moving_bars(samples: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Events of bars that stand upright (class 0) or lie (class 1), ``[10, N, 2, 8, 8]``."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % 2
    x = (torch.rand(10, samples, 2, 8, 8, generator=generator) < 0.02).float()
    for n in range(samples):
        for t in range(10):
            place = (t + n) % 8
            if y[n]:
                x[t, n, 0, place] = 1
            else:
                x[t, n, 0, :, place] = 1
    return [(x, y)]


def small(seed: int = 0) -> Decolle:
    torch.manual_seed(seed)
    return Decolle(size=8, channels=(6, 8), kernel=3, classes=2)


def test_it_learns_and_becomes_integers() -> None:
    batches = moving_bars(32)
    model = small()
    done = fit_local(model, batches, epochs=12, lr=5e-3, burn_in=2)
    assert done.epochs[-1].loss < done.epochs[0].loss
    assert sq.evaluate(model, batches).accuracy >= 0.8
    x = batches[0][0][:, :6]
    sq.quantize_(model, sq.Plan.uniform(weight_bits=6, membrane_bits=8, membrane_rounding="half_up"), x, quiet=True)
    sq.calibrate(model, batches)
    sq.freeze(model)
    assert sq.evaluate(model, batches).accuracy >= 0.75
    proof = sq.verify(model, sq.lower(model, x), x)
    assert proof.differences == 0
    assert proof.spikes > 50


def test_all_layers_agree_in_both_forms() -> None:
    model, (x, _) = small().double(), moving_bars(4)[0]
    run, fired = LocalRun(model), []
    for frame in x.double():
        fired.append([one.spikes for one in run.step(frame)])
    flow = x.double()
    with torch.no_grad():
        for k, (synapse, neuron) in enumerate(model.stages()):
            flow = neuron(synapse(flow))
            assert torch.equal(torch.stack([step[k] for step in fired]), flow)
            assert 0 < float(flow.mean()) < 1


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    batches = moving_bars(8)
    whole, parts = small(), small()
    fit_local(whole, batches, epochs=3)
    fit_local(parts, batches, epochs=1, checkpoint=tmp_path / "c.safetensors")
    again = small(seed=5)
    done = fit_local(again, batches, epochs=3, checkpoint=tmp_path / "c.safetensors")
    assert len(done.epochs) == 3
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_readout_stays() -> None:
    model = small()
    before = model.readout.weight.clone()
    weights = model.stages()[0][0].layer.weight.clone()  # type: ignore[union-attr,operator]
    fit_local(model, moving_bars(8), epochs=1)
    assert torch.equal(before, model.readout.weight)
    assert not torch.equal(weights, model.stages()[0][0].layer.weight)  # type: ignore[union-attr,arg-type]


def test_states_are_counted() -> None:
    model = small()
    inputs, neurons = 2 * 8 * 8 + 6 * 4 * 4, 6 * 4 * 4 + 8 * 2 * 2
    assert model.states("original") == 2 * inputs + 2 * neurons
    assert model.states("training") == inputs + 2 * neurons
    assert model.states("inference") == neurons


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(Unsupported, match="stages"):
        fit_local(nn.Linear(2, 2), moving_bars(4))
    model = small()
    with pytest.raises(DataError, match="burn_in = 10; expected 0 to 9"):
        fit_local(model, moving_bars(4), burn_in=10)
    with pytest.raises(DataError, match="no batch"):
        fit_local(model, [])
    with pytest.raises(DataError, match="NaN"):
        fit_local(model, [(torch.full((2, 1, 2, 8, 8), torch.nan), torch.zeros(1, dtype=torch.int64))])
    sq.quantize_(model, sq.Plan.uniform(membrane_bits=8), moving_bars(2)[0][0], quiet=True)
    model.conv1.layer = nn.Conv2d(2, 6, 3)
    with pytest.raises(Unsupported, match="one synapse with a bias that takes spikes"):
        fit_local(model, moving_bars(4))


def quantized(model: nn.Module, batches: list[tuple[Tensor, Tensor]], weight: int, membrane: int) -> nn.Module:
    copied = copy.deepcopy(model)
    plan = sq.Plan.uniform(weight_bits=weight, membrane_bits=membrane, membrane_rounding="half_up")
    sq.quantize_(copied, plan, batches[0][0][:, :6], quiet=True)
    sq.calibrate(copied, batches)
    return copied


def local_gradients(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    (x, y), run = batches[0], LocalRun(model)
    wanted = F.one_hot(y, 2).float()
    loss = torch.stack([F.smooth_l1_loss(one.scores, wanted) for frame in x for one in run.step(frame)]).sum()
    return list(torch.autograd.grad(loss, [form.synapse.weight for form in run.forms]))


@pytest.mark.parametrize(("weight", "membrane"), [(16, 16), (3, 4)])
def test_a_quantized_network_fires_in_its_training_form_as_it_does_by_itself(weight: int, membrane: int) -> None:
    batches = moving_bars(12)
    real = small()
    fit_local(real, batches, epochs=4, lr=5e-3, burn_in=2)
    model = quantized(real, batches, weight, membrane).eval()
    own: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: own.append(out)) for layer in (model.lif1, model.lif2)]
    model(batches[0][0])
    for hook in hooks:
        hook.remove()
    run, mine = LocalRun(model), ([], [])
    for frame in batches[0][0]:
        for one in run.step(frame):
            mine[one.layer].append(one.spikes.detach())
    assert all(torch.equal(torch.stack(a), b) for a, b in zip(mine, own, strict=True))
    assert own[0].sum() > 50
    if weight == 16:  # so fine a grid leaves the gradient of the real form
        for a, b in zip(local_gradients(real, batches), local_gradients(model, batches), strict=True):
            assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_a_quantized_network_learns_locally_and_stays_integers() -> None:
    batches = moving_bars(24)
    real = small()
    fit_local(real, batches, epochs=6, lr=5e-3, burn_in=2)
    model = quantized(real, batches, 3, 4)
    done = fit_local(model, batches, epochs=5, lr=2e-3, burn_in=2)
    assert done.epochs[-1].loss < done.epochs[0].loss
    sq.freeze(model)
    x = batches[0][0][:, :6]
    proof = sq.verify(model, sq.lower(model, x), x)
    assert proof.differences == 0
    assert proof.spikes > 50
    with pytest.raises(Unsupported, match="before freeze"):
        fit_local(model, batches, epochs=1)


@pytest.mark.parametrize("quantizer", ["power_of_two", "ternary", "lqnet"])
def test_layers_whose_scale_follows_the_weights_learn_locally(quantizer: str) -> None:
    batches, model = moving_bars(8), small()
    bits = None if quantizer == "ternary" else 3
    plan = sq.Plan.uniform(weight_bits=bits, weight_quantizer=quantizer, membrane_bits=6, membrane_rounding="half_up")
    sq.quantize_(model, plan, batches[0][0], quiet=True)
    done = fit_local(model, batches, epochs=3, lr=2e-3, burn_in=2)
    assert done.epochs[-1].loss < done.epochs[0].loss


class Averaging(nn.Module):
    """One layer that takes averages of spikes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.conv = OverTime(nn.AvgPool2d(2)), OverTime(nn.Conv2d(2, 6, 3, padding=1))
        self.lif = SingleState(leak=0.86, surrogate=Surrogate("boxcar", 1.0))
        self.readout = nn.Linear(96, 2, bias=False)
        nn.init.constant_(self.conv.layer.bias, -0.05)  # type: ignore[union-attr,arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lif(self.conv(self.pool(x))).flatten(2)).mean(0)  # type: ignore[no-any-return]

    def stages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.conv, self.lif)]


def test_the_membrane_of_a_layer_that_takes_averages_decides_its_spikes() -> None:
    model, (x, _) = Averaging(), moving_bars(8)[0]
    plan = sq.Plan.uniform(weight_bits=8, membrane_bits=12, membrane_rounding="half_up")
    sq.quantize_(model, plan, x, quiet=True)
    assert model.conv.layer.unit == 0.25
    run, fired = LocalRun(model.eval()), 0.0
    for frame in model.pool(x):
        for one in run.step(frame):
            assert torch.equal(one.membrane >= 0, one.spikes > 0)
            fired += float(one.spikes.detach().sum())
    assert fired > 50


def test_schedules_advance_in_local_learning() -> None:
    batches, model = moving_bars(8), small()
    plan = sq.Plan.uniform(weight_bits=2, weight_quantizer="sigmoid_sum", membrane_bits=6)
    sq.quantize_(model, plan, batches[0][0], quiet=True)
    fit_local(model, batches, epochs=3, burn_in=2)
    assert float(model.conv1.layer.weight_temperature) == 60.0  # 20 an epoch, as in fit


def test_a_quantized_layer_with_batch_norm_cannot_learn_locally() -> None:
    batches = moving_bars(6)
    model = small()
    model.conv2.layer = nn.Sequential(model.conv2.layer, nn.BatchNorm2d(8))
    with pytest.raises(Unsupported, match="Conv2d or Linear"):
        fit_local(model, batches, epochs=1)
