"""Terms of the loss and routines of `fit`: what each does, that it resumes exactly, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.data import ArrayBatches
from spikequant.nn import LIF, Synapse
from spikequant.training import (
    Cosine,
    Distillation,
    FrozenScales,
    GradualBits,
    LevelPull,
    LossTerm,
    RateDistillation,
    Routine,
    Step,
    Teacher,
    TemporalLoss,
    WarmRestarts,
    WeightAverage,
)
from spikequant.training.watch import OverTimeRunner, SpikeWatch

SAMPLES, INPUTS, STEPS = 64, 8, 4


class Net(nn.Module):
    """A static input, shown for four steps."""

    def __init__(self, *, mode="m"):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, 12), LIF(leak=0.75, step_mode=mode)
        self.drop, self.fc2, self.mode = nn.Dropout(0.1), nn.Linear(12, 2), mode

    def forward(self, x):
        current = self.fc1(x)
        if self.mode == "m":
            return self.fc2(self.drop(self.lif1(current.unsqueeze(0).expand(STEPS, *current.shape)))).mean(0)
        return torch.stack([self.fc2(self.drop(self.lif1(current))) for _ in range(STEPS)]).mean(0)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, INPUTS)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)


def batches():
    return ArrayBatches(*data(), batch_size=16, shuffle=True, seed=1)


def model(mode="m"):
    torch.manual_seed(0)
    return Net(mode=mode)


def quantized(mode="m", quantizer="lsq", bits=3):
    net = model(mode)
    plan = sq.Plan.uniform(weight_bits=bits, weight_quantizer=quantizer, membrane_bits=6, membrane_rounding="half_up")
    sq.quantize_(net, plan, torch.from_numpy(data()[0]), quiet=True)
    return net


def fit(net, **options):
    return sq.fit(net, batches(), **{"epochs": 3, "lr": 0.004, "quiet": True, **options})


def weights(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(v, b[k]) for k, v in a.items())


class Stop(Exception):
    """The light went out."""


WAYS = {
    "distillation": lambda: {"terms": [Distillation(t := Teacher(model())), RateDistillation(t, weight=2.0)]},
    "temporal": lambda: {"terms": [TemporalLoss(0.1)], "loss": None},
    "restarts": lambda: {"schedule": WarmRestarts(first=1.5, factor=1.0, decay=0.5, warmup=0.5)},
    "scales": lambda: {"routines": [FrozenScales(0.4)]},
    "bits": lambda: {"routines": [GradualBits(6, over=0.7)]},
    "average": lambda: {"routines": [WeightAverage(0.9)]},
    "pull": lambda: {"terms": [LevelPull(0.1)]},
    "half": lambda: {"amp": "bfloat16"},
    "all": lambda: {
        "terms": [Distillation(model()), TemporalLoss(weight=0.5), LevelPull(1e-3)],
        "routines": [GradualBits(5), WeightAverage(0.8), FrozenScales(0.6)],
        "schedule": "restarts",
    },
}


@pytest.mark.parametrize(("way", "mode"), [*((way, "m") for way in WAYS), ("temporal", "s"), ("all", "s")])
def test_every_way_of_training_resumes_with_the_same_bits(tmp_path, way, mode):
    whole = quantized(mode)
    torch.manual_seed(5)
    straight = fit(whole, checkpoint=tmp_path / "whole", **WAYS[way]())
    assert not same(weights(quantized(mode)), weights(whole))
    for epoch in (1, 2):
        cut = quantized(mode)
        torch.manual_seed(5)

        def stop(done, epoch=epoch):
            if done.epoch == epoch:
                raise Stop

        with pytest.raises(Stop):
            fit(cut, checkpoint=tmp_path / f"cut{epoch}", on_epoch=stop, **WAYS[way]())
        again = quantized(mode)
        torch.manual_seed(999)
        result = fit(again, checkpoint=tmp_path / f"cut{epoch}", **WAYS[way]())
        assert result == straight
        assert same(weights(again), weights(whole))


def test_the_history_has_the_terms():
    result = fit(quantized(), terms=[LevelPull(0.1), LevelPull(0.2), Distillation(model())])
    assert list(result.epochs[0].terms) == ["LevelPull", "LevelPull 2", "Distillation"]
    assert result.epochs[0].terms["LevelPull"] == result.epochs[0].terms["LevelPull 2"] > 0


def test_a_term_of_weight_zero_changes_nothing():
    with_it, without = quantized(), quantized()
    torch.manual_seed(1)
    fit(with_it, terms=[LevelPull(0.0)])
    torch.manual_seed(1)
    fit(without)
    assert same(weights(with_it), weights(without))


def test_distillation_of_itself_is_zero_and_has_no_gradient():
    net = model().eval()
    x = torch.from_numpy(data()[0])
    teacher = Teacher(net)
    with SpikeWatch(net) as watch:
        output = net(x)
        step = Step(model=net, x=x, target=torch.zeros(SAMPLES), output=output, spikes=watch.take())
    assert step.spikes["lif1"].any()
    for term in (Distillation(teacher), RateDistillation(teacher)):
        value = term.of(step)
        assert value.item() == pytest.approx(0.0, abs=1e-6)
        gradients = torch.autograd.grad(value, net.fc1.weight, retain_graph=True)[0]
        assert gradients.abs().max().item() < 1e-5


def test_distillation_is_hintons_formula():
    teacher, student = model().eval(), model().eval()
    with torch.no_grad():
        student.fc2.weight.neg_()
    x = torch.from_numpy(data()[0])
    step = Step(model=student, x=x, target=torch.zeros(SAMPLES), output=student(x))
    p, q = (F.softmax(net(x).double() / 3.0, -1) for net in (teacher, student))
    wanted = 9 * (p * (p / q).log()).sum(-1).mean()
    assert Distillation(teacher, temperature=3.0).of(step).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_distillation_brings_the_student_closer_to_its_teacher():
    teacher = model()
    fit(teacher, epochs=4, lr=0.03)
    apart, near = quantized(), quantized()
    fit(near, loss=None, terms=[Distillation(t := Teacher(teacher), weight=1.0), RateDistillation(t, weight=10.0)])
    x = torch.from_numpy(data()[0])
    t = Teacher(teacher)

    def distance(net):
        net.eval()
        with SpikeWatch(net) as watch, torch.no_grad():
            step = Step(model=net, x=x, target=torch.zeros(SAMPLES), output=net(x), spikes=watch.take())
        return Distillation(t).of(step).item(), RateDistillation(t).of(step).item()

    assert distance(near)[0] < distance(apart)[0]
    assert distance(near)[1] < distance(apart)[1]


@pytest.mark.parametrize("mode", ["m", "s"])
def test_the_answer_over_time_is_the_models_own(mode):
    net = model(mode).eval()
    x = torch.from_numpy(data()[0])
    sq.reset(net)
    answer, train = OverTimeRunner(net, x)(x)
    assert train.shape == (STEPS, SAMPLES, 2)
    sq.reset(net)
    torch.testing.assert_close(answer, net(x))
    assert train.std(0).max() > 0


def test_bits_fall_to_the_plan_and_stay_there():
    net = quantized(quantizer="uniform")
    seen = []
    fit(net, epochs=4, routines=[GradualBits(8, over=0.75)], on_epoch=lambda _: seen.append(net.fc1.quantizer.bits))
    assert seen == [8, 7, 5, 3]  # 3 + ceil(5 (1 - e / 3))
    assert net.fc1.quantizer.bits == 3
    sq.freeze(net.eval())
    x = torch.from_numpy(data()[0])
    assert sq.verify(net, sq.lower(net, x), x).differences == 0


def test_an_interrupted_fall_of_bits_ends_at_the_plan():
    net = quantized()

    def stop(_):
        raise KeyboardInterrupt

    assert fit(net, routines=[GradualBits(8)], on_epoch=stop).interrupted
    assert {m.quantizer.bits for m in net.modules() if isinstance(m, Synapse)} == {3}


@pytest.mark.parametrize("quantizer", ["lsq", "uniform"])
def test_frozen_scales_stand_still(quantizer):
    net = quantized(quantizer=quantizer)
    for synapse in (net.fc1, net.fc2):
        if quantizer == "uniform":
            synapse.quantizer = sq.quantizers.Uniform(3, scale_mode="dynamic")
    seen = []
    fit(net, epochs=4, routines=[FrozenScales(0.5)], on_epoch=lambda _: seen.append(net.fc1.weight_scale.clone()))
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert net.fc1.weight_scale.requires_grad == (quantizer == "lsq")


class CtrlC(Routine):
    """Ctrl-C in the first step of the third epoch, once."""

    stopped = False

    def after_step(self, model, done, epochs):
        if done >= 2 and not self.stopped:
            self.stopped = True
            raise KeyboardInterrupt

    def state(self):
        return {}


@pytest.mark.parametrize("quantizer", ["lsq", "uniform"])
def test_frozen_scales_go_on_with_the_same_model(quantizer, tmp_path):
    def net():
        found = quantized(quantizer=quantizer)
        for synapse in (found.fc1, found.fc2):
            if quantizer == "uniform":
                synapse.quantizer = sq.quantizers.Uniform(3, scale_mode="dynamic")
        return found

    whole, parted, stop = net(), net(), CtrlC()
    torch.manual_seed(3)
    fit(whole, epochs=4, routines=[FrozenScales(0.5)])
    torch.manual_seed(3)
    options = {"epochs": 4, "checkpoint": tmp_path / "c"}
    assert fit(parted, routines=[FrozenScales(0.5), stop], **options).interrupted
    assert [s.quantizer.scale_mode for s in (parted.fc1, parted.fc2)] == [net().fc1.quantizer.scale_mode] * 2
    for _ in range(2):  # on from the interruption; then nothing is left to do
        assert len(fit(parted, routines=[FrozenScales(0.5), stop], **options).epochs) == 4
        assert all(torch.equal(a, b) for a, b in zip(parted.parameters(), whole.parameters(), strict=True))
        assert torch.equal(parted.fc1.weight_scale, whole.fc1.weight_scale)


def test_membranes_of_a_batch_are_not_averaged():
    snntorch = pytest.importorskip("snntorch")

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.out = nn.Linear(INPUTS, 6), snntorch.Leaky(0.9), nn.Linear(6, 2)

        def forward(self, x):
            mem, total = self.lif.reset_mem(), 0.0
            for _ in range(STEPS):
                spikes, mem = self.lif(self.fc(x), mem)
                total = total + self.out(spikes)
            return total

    fit(Other(), epochs=1, routines=[WeightAverage(0.9)])


def test_rates_of_other_shapes_are_not_compared():
    class Wide(Net):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(INPUTS, 1), nn.Linear(1, 2)

    with pytest.raises(
        sq.DataError, match=r"RateDistillation: lif1 fires with the shape \(12,\), in the teacher \(1,\)"
    ):
        fit(quantized(), terms=[RateDistillation(Wide())])


def test_the_average_is_the_recursion():
    net = quantized()
    seen = []

    class Note(Routine):
        def after_step(self, model, done, epochs):
            seen.append(model.fc1.weight.detach().double().clone())

        def state(self):
            return {}

    start = net.fc1.weight.detach().double().clone()
    fit(net, epochs=2, routines=[Note(), WeightAverage(0.6)])
    wanted = start
    for k, value in enumerate(seen):
        wanted = wanted + (1 - min(0.6, (1 + k) / (10 + k))) * (value - wanted)
    torch.testing.assert_close(net.fc1.weight.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_average_begins_anew_when_bits_change(tmp_path):
    def trained(**options):
        net, seen = quantized(quantizer="uniform"), []
        note = lambda _: seen.append((net.fc1.quantizer.bits, net.fc1.weight_scale.clone(), net.fc1.weight.clone()))  # noqa: E731
        fit(net, epochs=4, routines=[WeightAverage(0.999), GradualBits(8, over=0.75)], on_epoch=note, **options)
        return net, seen

    net, seen = trained()
    assert [bits for bits, *_ in seen] == [8, 7, 5, 3]
    for bits, scale, weight in seen:  # not a mean of scales of several widths
        fitted = dataclasses.replace(net.fc1.quantizer, bits=bits).fit(weight, channel_axis=0)
        torch.testing.assert_close(scale, fitted, rtol=0.25, atol=0)
    (tmp_path / "c").mkdir()
    half = quantized(quantizer="uniform")
    options = {"checkpoint": tmp_path / "c" / "x.safetensors"}

    def stop(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    fit(half, epochs=4, routines=[WeightAverage(0.999), GradualBits(8, over=0.75)], on_epoch=stop, **options)
    assert same(weights(trained(**options)[0]), weights(net))


@pytest.mark.parametrize("routines", [[WeightAverage(0.9), GradualBits(8)], [GradualBits(8), WeightAverage(0.9)]])
def test_an_average_that_ends_early_has_the_scales_of_its_bits(routines):
    net = quantized(quantizer="uniform")

    def stop(_):
        raise KeyboardInterrupt

    assert fit(net, routines=routines, on_epoch=stop).interrupted
    assert net.fc1.quantizer.bits == 3
    torch.testing.assert_close(net.fc1.weight_scale, net.fc1.fitted_scale(), rtol=0.25, atol=0)


def test_validation_and_callbacks_see_the_average():
    net = quantized()
    seen = []
    average = WeightAverage(0.9)
    fit(net, routines=[average], validation=batches(), on_epoch=lambda _: seen.append(net.fc1.weight.detach().clone()))
    assert torch.equal(seen[-1], net.fc1.weight)


def test_the_pull_brings_weights_to_their_levels():
    apart, near = quantized(), quantized()
    torch.manual_seed(1)
    fit(apart)
    torch.manual_seed(1)
    fit(near, terms=[LevelPull(1.0)])
    step = dict(x=None, target=None, output=None)
    assert LevelPull().of(Step(model=near, **step)) < LevelPull().of(Step(model=apart, **step))


def test_stuck_codes_pull_their_weights():
    net = quantized()
    mask = torch.zeros_like(net.fc1.weight, dtype=torch.bool)
    mask[:, 0] = True
    stuck = torch.full_like(net.fc1.weight, 3.0)
    before = net.fc1.weight[:, 0].mean().item()
    fit(net, loss=None, terms=[LevelPull(1.0, faults={"fc1": (mask, stuck)})], epochs=6, lr=0.05)
    assert net.fc1.weight[:, 0].mean().item() > before + 0.1


def test_half_precision_leaves_integer_sums_exact():
    net = quantized()
    twin = copy.deepcopy(net)
    x = torch.from_numpy(data()[0])
    with torch.autocast("cpu", torch.bfloat16):
        half = net.eval()(x)
    assert torch.equal(half.float(), twin.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "fit: schedule 'linear'; expected 'cosine', 'constant', 'restarts' or a Schedule"),
        ({"loss": None}, "fit: loss is None and there are no terms"),
        ({"terms": [F.cross_entropy]}, "fit: terms holds .*expected objects of spikequant.training.LossTerm"),
        ({"routines": [LevelPull()]}, "fit: routines holds .*expected objects of spikequant.training.Routine"),
        ({"amp": "int8"}, "fit: amp = 'int8'; expected None, 'bfloat16' or 'float16'"),
        ({"terms": [TemporalLoss()], "segment": 2}, "TemporalLoss looks at all steps of time, segment=2"),
        ({"routines": [GradualBits(3)]}, "GradualBits: no weighted layer has fewer than 3 bits"),
        ({"routines": [GradualBits(8)], "epochs": 1}, "GradualBits: bits cannot fall in 1 epoch"),
    ],
)
def test_settings_that_fit_nothing_are_refused(options, message):
    net = quantized()
    before = weights(net)
    with pytest.raises(sq.DataError, match=message):
        fit(net, **options)
    assert same(weights(net), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalLoss(2.0), "TemporalLoss: regular = 2.0; expected a number, 0 to 1"),
        (lambda: LevelPull(-1.0), "LevelPull: weight = -1.0; expected a number, 0 or more"),
        (lambda: Distillation(model(), temperature=0.0), "Distillation: temperature = 0.0"),
        (lambda: Teacher("net.pt"), "Teacher: expected a torch nn.Module, got str"),
        (lambda: WeightAverage(1.0), "decay = 1 would never leave the first weights"),
        (lambda: GradualBits(32), "GradualBits: start = 32; expected whole bits, 2 to 16"),
        (lambda: FrozenScales(-0.1), "FrozenScales: after = -0.1"),
        (lambda: WarmRestarts(first=0), "WarmRestarts: first = 0; expected a number, 0.01 or more"),
        (lambda: WarmRestarts(first=1e-300), "WarmRestarts: first = 1e-300; expected a number, 0.01 or more"),
        (lambda: Cosine(least=float("nan")), "Cosine: least = nan"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(sq.DataError, match=message):
        make()


def test_terms_and_routines_that_a_model_cannot_have():
    with pytest.raises(sq.DataError, match="LevelPull: the model has no quantized weights"):
        fit(model(), terms=[LevelPull()])
    with pytest.raises(sq.DataError, match="FrozenScales: no weight scale of the model moves"):
        fit(quantized(quantizer="uniform"), routines=[FrozenScales()])
    with pytest.raises(sq.DataError, match="LevelPull: faults of 'fc9'"):
        fit(quantized(), terms=[LevelPull(faults={"fc9": (torch.ones(1, dtype=torch.bool), torch.ones(1))})])
    other = nn.Sequential(nn.Linear(INPUTS, 4), LIF(leak=0.5))
    with pytest.raises(
        sq.DataError, match="RateDistillation: no spiking layer '\\*' that model \\(lif1\\) and teacher"
    ):
        fit(quantized(), terms=[RateDistillation(other)])


def test_a_checkpoint_of_another_way_of_training(tmp_path):
    fit(quantized(), epochs=1, checkpoint=tmp_path / "c", routines=[WeightAverage()])
    with pytest.raises(sq.ArtifactError, match="written with the routines WeightAverage, this training has none"):
        fit(quantized(), epochs=2, checkpoint=tmp_path / "c")


def test_a_term_that_is_not_finite_is_named():
    class Broken(LossTerm):
        def of(self, step):
            return step.output.sum() * float("nan")

    with pytest.raises(sq.DataError, match=r"the loss is nan \(Broken nan\) in epoch 1"):
        fit(quantized(), terms=[Broken()])
