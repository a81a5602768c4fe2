"""`lower` and `verify`: the same integers, one scale for a readout, and the first difference by name."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from tests.quantize.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, W4U8, awake_, chain, frozen, spikes
from torch import nn

import spikequant as sq
from spikequant.law.artifact import network_hash
from spikequant.nn import IF, LIF, LeakyIntegrator, PoissonEncoder
from spikequant.nn.over_time import OverTime
from spikequant.readers import golden

X = spikes(STEPS, BATCH, INPUTS)


# -- lower ------------------------------------------------------------------------------------


def test_lower_before_freeze():
    net = chain()
    with pytest.raises(
        sq.NotFrozen, match="fc1: a real Linear; the plan must quantize every layer before the model is lowered"
    ):
        sq.lower(net, X)
    sq.quantize_(net, W4U8, X, quiet=True)
    with pytest.raises(sq.NotFrozen, match=r"fc1: still trains; call spikequant.freeze\(model\) before lower"):
        sq.lower(net, X)


def test_lower_copies_integers():
    net = chain(threshold=0.9)
    lowered = frozen(net, W4U8, X)
    assert [n.name for n in lowered.nodes] == ["input", "fc1", "lif1", "fc2", "lif2"]
    assert (lowered.node("fc1").product.codes == net.fc1.integer_codes().numpy()).all()
    found = net.lif1.frozen_integers()
    for name, value in found.params.items():
        assert (lowered.node("lif1").params[name] == value.long().numpy()).all()
    assert lowered.node("lif1").spec == found.spec
    assert lowered.decoder.name == "spike_train"
    assert lowered.node("input").format.max == 1
    assert (lowered.vectors.inputs == X[:, :2].numpy()).all()


def test_metadata_and_files(tmp_path):
    net = chain()
    frozen(net, W4U8, X)
    lowered = sq.lower(net, X, metadata={"data": "none", "seed": 3})
    lowered.save(tmp_path / "net.spq")
    again = sq.IntNet.load(tmp_path / "net.spq")
    assert again.metadata == {"data": "none", "seed": 3}
    assert network_hash(again) == network_hash(lowered)
    assert sq.verify(net, again, X).differences == 0


# -- verify -------------------------------------------------------------------------------------


def tampered(lowered, name, **params):
    """The network with other parameters in one node."""
    node = lowered.node(name)
    other = dataclasses.replace(node, params={**node.params, **params})
    return dataclasses.replace(
        lowered, nodes=tuple(other if n.name == name else n for n in lowered.nodes), vectors=None
    )


def test_verify_names_the_first_difference_of_a_tampered_threshold():
    net = chain(reset="none")
    lowered = frozen(net, W4U8, X)
    theta = np.broadcast_to(lowered.node("lif1").params["theta"], (HIDDEN,)).copy()
    theta[4] += 10**6
    bad = tampered(lowered, "lif1", theta=theta)
    fired = net.lif1(net.fc1(X))[..., 4].nonzero()
    step, sample = fired[0].tolist()
    with pytest.raises(sq.MismatchError) as caught:
        sq.verify(net, bad, X)
    wanted = f"lif1: output of neuron 4, sample {sample}, step {step}: the golden model has 0, the simulation 1; "
    assert str(caught.value).startswith(wanted)
    assert re.search(r"[\d,]+ differences in all$", str(caught.value))
    report = sq.verify(net, bad, X, raise_on_difference=False)
    first = report.first
    assert (first.layer, first.what, first.step, first.sample, first.neuron, first.expected, first.got) == (
        "lif1",
        "output",
        step,
        sample,
        4,
        0,
        1,
    )
    assert report.differences >= len(fired)


@pytest.mark.parametrize("name", ["theta", "leak", "bias", "reset", "v_shift"])
def test_verify_sees_every_parameter(name):
    net = chain(leak=0.75, reset="subtract")
    lowered = frozen(net, W4U8, X)
    value = lowered.node("lif1").params[name]
    changed = value + (np.abs(value) // 2 + 1 if name != "v_shift" else 1)
    more = {"v_load": lowered.node("lif1").params["v_load"] * 2} if name == "v_shift" else {}
    assert (
        sq.verify(net, tampered(lowered, "lif1", **{name: changed}, **more), X, raise_on_difference=False).differences
        > 0
    )
    assert sq.verify(net, lowered, X).differences == 0


def test_verify_reports_that_it_was_alive():
    net = chain()
    lowered = frozen(net, W4U8, X)
    report = sq.verify(net, lowered, X)
    assert report.neuron_steps == STEPS * BATCH * (HIDDEN + CLASSES) == report.states_compared
    assert report.spikes == int(golden.run(lowered, X.numpy()).outputs["lif1"].sum() + net(X).sum())
    assert report.spikes > 50
    assert report.layers == ("lif1", "lif2")
    assert (
        str(report)
        == f"verify: {report.neuron_steps:,} neuron-steps, {report.spikes:,} spikes, {report.states_compared:,} states, 0 differences"
    )


def test_verify_with_inputs_that_do_not_fit():
    net = chain()
    lowered = frozen(net, W4U8, X)
    with pytest.raises(sq.DataError, match="the inputs hold NaN or infinite values; remove them first"):
        sq.verify(net, lowered, X.clone().fill_(float("nan")))
    with pytest.raises(
        sq.DataError, match="input input: codes from 0 to 3|whole numbers from 0 to 1, these data go from 0 to 3"
    ):
        sq.verify(net, lowered, X * 3)
    with pytest.raises(sq.DataError, match="whole numbers from 0 to 1, these data go from 0 to 0.5"):
        sq.verify(net, lowered, X * 0.5)
    with pytest.raises(
        sq.DataError, match=re.escape("input input: expected whole numbers (spikes or counts), got float64 fractions")
    ):
        golden.encode(lowered, X.numpy().astype(float) * 0.5)


def test_verify_of_another_network():
    net, other = chain(), awake_(chain(), seed=9)
    frozen(net, W4U8, X)
    lowered = frozen(other, W4U8, X)
    with pytest.raises(sq.MismatchError, match="differences in all"):
        sq.verify(net, lowered, X)


class InPlace(nn.Module):
    """A loop that adds onto the first step's spikes in place."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(INPUTS, CLASSES), LIF(step_mode="s")

    def forward(self, x):
        total = None
        for xt in x:
            spk = self.lif(self.fc(xt))
            if total is None:
                total = spk
            else:
                total += spk
        return total


def test_a_model_that_adds_in_place_still_verifies():
    net = awake_(InPlace())
    lowered = frozen(net, W4U8, X)
    report = sq.verify(net, lowered, X)
    assert report.differences == 0
    assert report.spikes == int(golden.run(lowered, X.numpy()).scores.sum())
    assert report.spikes > 20


def test_noise_follows_the_sample_number():
    net = nn.Sequential(PoissonEncoder(STEPS, seed=5), nn.Linear(INPUTS, HIDDEN), LIF(leak=0.75))
    awake_(net)
    x = torch.rand(BATCH, INPUTS)
    lowered = frozen(net, sq.Plan.uniform(weight_bits=4, membrane_bits=4, membrane_rounding="stochastic"), x)
    assert sq.verify(net, lowered, x).differences == 0


# -- rule 7: one scale for a readout ------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("reading", ["mean", "sum", "last", "max"])
@pytest.mark.parametrize("end", ["weights", "integrator"])
def test_argmax_of_integer_scores_is_argmax_of_the_outputs(end, reading):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Linear(HIDDEN, CLASSES))
            self.out = LeakyIntegrator(leak=0.75) if end == "integrator" else nn.Identity()

        def forward(self, x):
            y = self.out(self.body(x))
            return {
                "mean": lambda: y.mean(0),
                "sum": lambda: y.sum(0),
                "last": lambda: y[-1],
                "max": lambda: y.amax(0),
            }[reading]()

    net = awake_(Net(), drive=0.0)
    net.body[2].weight.mul_(torch.tensor([[0.05], [1.0], [8.0]]))  # channels of very different size
    x = spikes(STEPS, 64, INPUTS)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x, quiet=True)
    sq.calibrate(net, [x])
    sq.freeze(net)
    lowered = sq.lower(net, x)
    assert sq.verify(net, lowered, x).differences == 0
    outputs, scores = net(x), golden.run(lowered, x.numpy()).scores
    assert scores.shape == (64, CLASSES)
    assert (scores.argmax(1) == outputs.argmax(1).numpy()).all()
    assert len(set(scores.argmax(1))) > 1
    assert np.allclose(scores * lowered.decoder.scale, outputs.numpy(), rtol=1e-5, atol=1e-6)
    assert np.size(lowered.decoder.scale) == 1


def test_a_maximum_of_spikes_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(INPUTS, 2), LIF()

        def forward(self, x):
            return self.lif(self.fc(x)).amax(0)

    net = awake_(Net())
    with pytest.raises(
        sq.Unsupported, match="the result is the max of spikes over time; expected their sum, mean or train"
    ):
        frozen(net, W4U8, X)


# -- rule 6: one LSB per neuron --------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.back, self.lif = (
            nn.Linear(INPUTS, HIDDEN),
            nn.Linear(HIDDEN, HIDDEN, bias=False),
            LIF(step_mode="s"),
        )

    def forward(self, x):
        spk, out = torch.zeros(x.shape[1], HIDDEN), 0
        for xt in x:
            spk = self.lif(self.fc(xt) + self.back(spk))
            out = out + spk
        return out


@torch.no_grad()
@pytest.mark.parametrize("quantizer", ["uniform", "lsq"])
def test_synapses_that_meet_share_one_scale(quantizer):
    net = awake_(Recurrent())
    net.back.weight.mul_(0.3)
    report = sq.quantize_(
        net,
        sq.Plan.uniform(weight_bits=6, weight_quantizer=quantizer, weight_clipping="max", membrane_bits=8),
        X,
        quiet=True,
    )
    assert torch.equal(net.fc.weight_scale, net.back.weight_scale)
    assert not [note for note in report.notes if "rescale" in note]
    limits = [m.weight.abs().amax(1) for m in (net.fc, net.back)]
    if quantizer == "uniform":
        torch.testing.assert_close(net.fc.weight_scale.flatten(), torch.stack(limits).amax(0) / 31)
    sq.freeze(net)
    lowered = sq.lower(net, X)
    first, second = lowered.node("lif").gains
    assert (first == second).all()
    assert (
        lowered.node("back").inputs[0].delay + next(e for e in lowered.node("lif").inputs if e.source == "back").delay
        == 1
    )
    assert sq.verify(net, lowered, X).differences == 0


class TwoScales(nn.Module):
    """Spikes, and averaged spikes, into one neuron."""

    def __init__(self):
        super().__init__()
        self.first, self.lif1 = OverTime(nn.Conv2d(1, 2, 3, padding=1)), LIF()
        self.pool = OverTime(nn.AvgPool2d(3))
        self.left, self.right, self.lif2 = nn.Linear(8, 5), nn.Linear(72, 5), LIF()

    def forward(self, x):
        s = self.lif1(self.first(x))
        return self.lif2(self.left(self.pool(s).flatten(2)) + self.right(s.flatten(2))).sum(0)


def test_scales_that_cannot_be_one_are_rescaled_and_reported():
    net, x = awake_(TwoScales()), spikes(STEPS, BATCH, 1, 6, 6)
    report = sq.quantize_(net, W4U8, x, quiet=True)
    assert (
        "lif2: several scales meet in one neuron: its other inputs are rescaled by a rounded integer gain"
        in report.notes
    )
    before = net(x)
    sq.freeze(net)
    assert torch.equal(net(x), before)
    lowered = sq.lower(net, x)
    one, other = lowered.node("lif2").gains
    found = net.lif2.frozen_integers()
    wanted = [b.scale() / found.lsb for b in net.lif2.branches]
    assert np.allclose(np.broadcast_to(one, (5,)), wanted[0].detach().numpy(), atol=0.5 + 1e-6)
    assert np.allclose(np.broadcast_to(other, (5,)), wanted[1].detach().numpy(), atol=0.5 + 1e-6)
    assert not np.allclose(one, other)
    report = sq.verify(net, lowered, x)
    assert report.differences == 0
    assert report.spikes > 100


@torch.no_grad()
@pytest.mark.parametrize("where", ["spikes", "currents"])
def test_averages_over_three_by_three_are_exact(where):
    """1/9 is no binary fraction: the sum of the window is what is exact."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif1, self.pool = (
                OverTime(nn.Conv2d(1, 3, 3, padding=1, bias=False)),
                IF(),
                OverTime(nn.AvgPool2d(3)),
            )
            self.fc, self.lif2 = nn.Linear(12, 4), LIF(leak=0.75)

        def forward(self, x):
            y = self.lif1(self.conv(x)) if where == "spikes" else self.conv(x)
            y = self.pool(y)
            return self.lif2(self.fc((y if where == "spikes" else self.lif1(y)).flatten(2))).sum(0)

    net, x = awake_(Net(), drive=0.3), spikes(STEPS, BATCH, 1, 6, 6)
    lowered = frozen(net, sq.Plan.uniform(weight_bits=5, membrane_bits=10), x)
    node = next(n for n in lowered.nodes if type(n).__name__ == "PoolNode")
    assert (node.kind, node.kernel) == ("sum", (3, 3))
    report = sq.verify(net, lowered, x)
    assert report.differences == 0
    assert 0.05 < report.spikes / report.neuron_steps < 0.95
    if where == "spikes":
        assert net.fc.unit == pytest.approx(1 / 9)
        s = net.lif1(net.conv(x))
        counts = net.pool(s).flatten(2) * 9
        assert net.fc.integer_input(net.pool(s).flatten(2)).equal(counts.round())
        currents = counts.round().double() @ net.fc.integer_codes().double().T * net.fc.channel_scale().double()
        assert torch.allclose(
            currents,
            net.pool(s).flatten(2).double() @ (net.fc.integer_codes() * net.fc.weight_scale).double().T,
            rtol=1e-6,
        )


class TwoQuantizers(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.lif = nn.Linear(INPUTS, 5), nn.Linear(INPUTS, 5), LIF()

    def forward(self, x):
        return self.lif(self.left(x) + self.right(x)).sum(0)


def test_a_fixed_format_keeps_its_scale_beside_another_quantizer():
    net = awake_(TwoQuantizers())
    plan = {"rules": [{"match": "left", "weight": {"quantizer": "fixed_point", "options": {"format": "Q2.3"}}},
                      {"match": "right", "weight": {"bits": 6}}, {"match": "lif", "membrane": {"bits": 9}}]}  # fmt: skip
    report = sq.quantize_(net, sq.Plan.from_dict(plan), X, quiet=True)
    assert report.notes == (
        "lif: several scales meet in one neuron: its other inputs are rescaled by a rounded integer gain",
    )
    assert net.left.weight_scale.unique().tolist() == [0.125]
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, X), X)
    assert report.differences == 0
    assert report.spikes > 20
