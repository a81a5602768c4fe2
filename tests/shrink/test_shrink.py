"""`shrink`: the smallest network that keeps a limit, found on copies, told in words."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from tests.shrink.nets import Looped, Static, arrays, batches, timed, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikequant as sq
from spikequant.nn import LIF
from spikequant.shrinking import Shrunk, Trial, descent
from spikequant.shrinking.trial import Tried
from spikequant.shrinking.words import _obstacles

SHORT = {"weight_bits": (8, 3, 1), "membrane_bits": (8, 3), "quiet": True}
QUICK = {"epochs": 1, "lr": 0.01, "max_trainings": 1, **SHORT}
PTQ = {"epochs": 0, **SHORT}


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def shrunk(net):
    return sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **QUICK)


def figures(result):
    """Everything of the trials but the clock."""
    return [{k: v for k, v in t.to_dict().items() if k != "seconds"} for t in result.trials]


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(v, b[k]) for k, v in a.items())


def test_it_finds_a_small_network_that_holds(net, shrunk):
    assert isinstance(shrunk, Shrunk)
    assert shrunk.met
    assert shrunk.best in shrunk.trials
    assert all(isinstance(t, Trial) for t in shrunk.trials)
    real = sq.evaluate(net, batches(1)).accuracy
    small = sq.evaluate(shrunk.model, batches(1)).accuracy
    assert small == pytest.approx(shrunk.best.accuracy)
    assert shrunk.best.drop == pytest.approx(100 * (real - small), abs=1e-3)
    assert shrunk.best.drop <= 5.0
    assert shrunk.best.size_bytes == min(t.size_bytes for t in shrunk.trials if t.met)
    assert shrunk.best.size_bytes < 0.6 * shrunk.trials[0].size_bytes
    assert shrunk.verified.differences == 0
    assert shrunk.verified.spikes > 0
    assert shrunk.best.flash_bytes == shrunk.comparison.quantized.flash_bytes
    assert shrunk.best.ram_bytes == shrunk.comparison.quantized.ram_bytes
    assert math.isclose(shrunk.comparison.difference, -shrunk.best.drop)


def test_every_rung_is_told(shrunk):
    assert [t.name for t in shrunk.trials[:2]] == ["W8/U8 PTQ", "W3/U8 PTQ"]
    assert {t.scheme for t in shrunk.trials} == {"ptq", "qat"}
    text = str(shrunk)
    assert all(t.name in text for t in shrunk.trials)
    assert shrunk.words[0].startswith(f"{shrunk.best.name} is the smallest network found that loses at most 5 points")
    assert any("Decided on 192 samples (validation)" in w for w in shrunk.words)
    assert any("optimistic" in w for w in shrunk.words)
    record = json.loads(json.dumps(shrunk.to_dict()))
    assert record["best"]["name"] == shrunk.best.name
    assert [Trial.from_dict(t) for t in record["trials"]] == list(shrunk.trials)


def test_the_plan_names_every_role_and_makes_the_same_network(net, shrunk):
    plan = shrunk.plan
    assert plan.layer("fc1").asked() == ("weight", "input")
    assert plan.layer("lif1").asked() == ("membrane", "leak")
    assert plan.layer("fc2").asked() == ("weight",)
    assert sq.Plan.from_dict(plan.to_dict()) == plan
    assert shrunk.report.quantized


def test_the_model_of_the_user_is_untouched(net):
    before, modules = weights(net), list(map(type, net.modules()))
    mode, random = net.training, torch.get_rng_state()
    sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **QUICK)
    assert same(weights(net), before)
    assert list(map(type, net.modules())) == modules
    assert net.training == mode
    assert torch.equal(torch.get_rng_state(), random)


def test_two_searches_are_equal(net, shrunk):
    torch.manual_seed(77)
    again = sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **QUICK)
    assert figures(again) == figures(shrunk)
    assert same(weights(again.model), weights(shrunk.model))
    assert again.net.save is not None


def test_without_validation_every_fourth_sample_is_held_out(net):
    result = sq.shrink(net, batches(), max_drop=5.0, **PTQ)
    assert result.comparison.samples == 48
    assert any("every fourth of the batches, held out" in w for w in result.words)
    assert any("No network was trained on (epochs=0)" in w for w in result.words)
    x, y = (torch.from_numpy(a) for a in arrays())
    held = [(x[3::4], y[3::4])]
    assert result.best.accuracy == pytest.approx(sq.evaluate(result.model, held).accuracy)


def test_a_generator_gives_what_a_list_gives(net):
    listed = sq.shrink(net, list(batches()), max_drop=5.0, **PTQ)
    once = sq.shrink(net, (b for b in batches()), max_drop=5.0, **PTQ)
    assert figures(once) == figures(listed)
    both = sq.shrink(net, (b for b in batches()), max_drop=5.0, validation=(b for b in batches(1)), **PTQ)
    assert figures(both) == figures(sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **PTQ))


def test_a_shuffled_loader_as_validation_is_kept_in_order(net):
    x, y = (torch.from_numpy(a) for a in arrays(1))
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    result = sq.shrink(net, batches(), max_drop=5.0, validation=loader, **QUICK)
    assert result.comparison.samples == 192
    in_order = sq.evaluate(result.model, batches(1)).accuracy
    assert result.best.accuracy == pytest.approx(in_order, abs=0.03)  # stochastic rounding sees other places


def test_one_batch_is_enough(net):
    result = sq.shrink(net, batches(batch_size=192), max_drop=8.0, **QUICK)
    assert result.comparison.samples == 48
    assert result.met


def test_small_batches_are_held_out_whole(net):
    result = sq.shrink(net, batches(samples=64, batch_size=4), max_drop=10.0, **PTQ)
    assert result.comparison.samples == 16


def test_a_limit_that_nothing_keeps(net):
    result = sq.shrink(net, batches(), max_drop=-60.0, validation=batches(1), **QUICK)
    assert not result.met
    assert not any(t.met for t in result.trials)
    assert result.best.drop == min(t.drop for t in result.trials)
    assert result.words[0].startswith("Nothing that was tried loses at most -60 points. The nearest is ")
    assert any("To get nearer: more than 1 epoch," in w for w in result.words)
    assert result.verified.differences == 0
    assert [t.scheme for t in result.trials] == ["ptq", "qat"]


def test_strict_asks_the_end_of_the_interval(net):
    loose = sq.shrink(net, batches(), max_drop=0.5, validation=batches(1), **PTQ)
    strict = sq.shrink(net, batches(), max_drop=0.5, validation=batches(1), **PTQ, strict=True)
    assert all(t.met == (t.drop + t.interval <= 0.5) for t in strict.trials)
    assert sum(t.met for t in strict.trials) <= sum(t.met for t in loose.trials)
    few = sq.shrink(net, batches(), max_drop=-1.0, validation=batches(1), **PTQ, strict=True)
    assert not few.met
    assert "with its interval" in few.words[0]


def test_every_trial_is_announced(net, shrunk):
    seen = []
    result = sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), on_step=seen.append, **QUICK)
    assert tuple(seen) == result.trials


def test_it_prints_unless_told_otherwise(net, capsys):
    sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **{**PTQ, "quiet": False})
    out = capsys.readouterr().out
    assert "W8/U8 PTQ" in out
    assert "is the smallest network found" in out


@pytest.mark.parametrize("build", [Looped])
def test_a_recurrent_loop_with_a_readout_membrane(build):
    rows = timed()
    net = trained(build, rows, epochs=6)
    result = sq.shrink(net, rows, max_drop=8.0, **QUICK)
    assert result.met
    assert result.comparison.samples == 48
    assert result.verified.differences == 0
    assert result.plan.layer("lif").asked() == ("current", "membrane", "leak")
    readout = result.plan.layer("out").membrane
    assert readout.signed
    assert readout.bits >= 8


def test_time_first_data_with_as_many_steps_as_samples_are_split_by_sample():
    rows = [(x.unsqueeze(0).repeat(16, 1, 1), y) for x, y in batches(samples=64, batch_size=16)]
    net = trained(Looped, rows, epochs=2)
    result = sq.shrink(net, rows, max_drop=50.0, **PTQ)
    assert result.comparison.samples == 16
    assert result.net.steps == 16


def test_data_that_are_not_finite(net):
    x, y = (torch.from_numpy(a).clone() for a in arrays())
    x[5, 0] = float("nan")
    for where in ({"batches": [(x, y)]}, {"batches": batches(), "validation": [(x, y)]}):
        with pytest.raises(sq.DataError, match="NaN or infinite"):
            sq.shrink(net, **where, **PTQ)


def test_a_training_that_diverges_is_one_lost_trial(net):
    def exploding(output, target):
        return nn.functional.cross_entropy(output, target) * float("inf")

    result = sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), loss=exploding, **QUICK)
    assert result.met
    lost = [t for t in result.trials if t.scheme == "qat"]
    assert len(lost) == 1
    assert lost[0].was_refused
    assert "the training diverged" in lost[0].verdict
    assert lost[0].name in str(result)
    assert json.loads(json.dumps(lost[0].to_dict()))["accuracy"] is None


def test_wrong_arguments(net):
    with pytest.raises(sq.DataError, match="max_drop is NaN"):
        sq.shrink(net, batches(), max_drop=float("nan"))
    with pytest.raises(sq.DataError, match="expected 0 or more"):
        sq.shrink(net, batches(), epochs=-1)
    with pytest.raises(sq.DataError, match="batches gave no batch"):
        sq.shrink(net, [], quiet=True)
    with pytest.raises(sq.DataError, match="validation gave no batch"):
        sq.shrink(net, batches(), validation=[], quiet=True)
    with pytest.raises(sq.DataError, match="too few samples to hold every 4th out"):
        sq.shrink(net, batches(samples=3), quiet=True)
    with pytest.raises(sq.DataError, match=r"batches must give \(input, target\) pairs, got Tensor"):
        sq.shrink(net, [torch.zeros(4, 8)], quiet=True)


def test_a_network_without_an_integer_form_is_refused(net):
    class Relu(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(8, 4), LIF(), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc2(torch.tanh(self.lif(self.fc1(x).unsqueeze(0)))).mean(0)

    with pytest.raises(sq.SpikequantError):
        sq.shrink(Relu(), batches(), quiet=True)


def test_the_whole_ladder_by_default(net):
    result = sq.shrink(net, batches(), max_drop=100.0, validation=batches(1), epochs=0, quiet=True)
    assert result.trials[0].name == "W8/U12 PTQ"
    assert (result.best.weight_bits, result.best.membrane_bits) == (1, 2)
    assert all(a.size_bytes > b.size_bytes for a, b in itertools.pairwise(result.trials))


def test_a_ladder_must_go_down(net):
    for wrong in ({"weight_bits": (4, 8)}, {"weight_bits": ()}, {"membrane_bits": (8, 1)}, {"weight_bits": (32,)}):
        with pytest.raises(sq.PlanError, match="expected numbers from high to low"):
            sq.shrink(net, batches(), **wrong)


def test_the_cause_of_a_failing_rung_is_told():
    """At 1 bit of weight the small negative weights weigh as much as the large positive one."""
    torch.manual_seed(0)
    net = Static()
    with torch.no_grad():
        net.fc1.weight.fill_(-0.02)
        net.fc1.weight[:, 0] = torch.linspace(0.3, 1.2, 12)
        net.fc1.bias.zero_()
    rows = [(x.abs(), sq.evaluate(net, [(x.abs(), y)]).predictions) for x, y in batches()]
    result = sq.shrink(net, rows, max_drop=1.0, validation=rows, **{**PTQ, "weight_bits": (8, 1)})
    failed = [t for t in result.trials if t.silent]
    assert failed
    assert not any(t.met for t in failed)
    assert failed[0].findings[0].startswith("lif1 is silent")
    assert "1-bit weight codes" in failed[0].findings[0]
    assert any(" lif1 is silent" in w for w in result.words)


def test_a_float_network_at_chance_is_told(net):
    torch.manual_seed(0)
    untrained = Static()
    with torch.no_grad():
        untrained.fc2.weight.zero_()
    result = sq.shrink(untrained, batches(), max_drop=0.1, validation=batches(1), **PTQ)
    assert any("no better than always answering the most frequent class" in w for w in result.words)
    assert any("One sample of 192 is 0.52 points" in w for w in result.words)


def test_the_training_tells_how_far_it_is(net):
    seen = []
    sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), on_progress=lambda *now: seen.append(now), **QUICK)
    assert {name.split(" ")[1] for name, _, _ in seen} == {"QAT"}
    assert {total for _, _, total in seen} == {6}
    assert {done for _, done, _ in seen} == set(range(6))


def test_a_network_of_snntorch():
    snn = pytest.importorskip("snntorch")

    class Tutorial(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(8, 12), snn.RLeaky(beta=0.75, linear_features=12)
            self.fc2, self.lif2 = nn.Linear(12, 2), snn.Leaky(beta=0.75)

        def forward(self, x):
            (spk1, mem1), mem2 = self.lif1.init_rleaky(), self.lif2.init_leaky()
            spikes = []
            for _ in range(4):
                spk1, mem1 = self.lif1(self.fc1(x), spk1, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spikes.append(spk2)
            return torch.stack(spikes).sum(0)

    net = trained(Tutorial, batches(shuffle=True), epochs=8)
    result = sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **QUICK)
    assert type(net.lif1) is snn.RLeaky
    assert result.comparison.reference.accuracy > 0.8
    assert result.met
    assert result.verified.differences == 0


def test_a_trial_that_keeps_a_later_limit_is_no_obstacle(shrunk):
    """Findings are kept with a trial; a resumed search may judge it by another limit."""
    trial = replace(shrunk.trials[0], findings=("lif1 is silent: as it was told then.",), met=True)
    assert _obstacles(replace(shrunk, trials=(trial,))) == []
    assert _obstacles(replace(shrunk, trials=(replace(trial, met=False),))) != []


def test_a_refused_sign_is_not_the_one_to_relieve(net, monkeypatch, tmp_path):
    """Where the law refuses a signed membrane, relief is tried with the unsigned one that exists."""
    real_trial, tried = descent.run_trial, []

    def refuse_signed(bench, attempt, **options):
        tried.append(attempt)
        if attempt.signed and attempt.rung.weight_bits == 1:
            refused = Trial(name=str(attempt), scheme="ptq", weight_bits=1, membrane_bits=8, verdict="refused")
            return Tried(trial=refused, attempt=attempt, model=None, report=None, weights={})
        found = real_trial(bench, attempt, **options)
        lost = replace(found.trial, drop=50.0) if attempt.rung.weight_bits == 1 else found.trial
        return replace(found, trial=lost)

    monkeypatch.setattr(descent, "run_trial", refuse_signed)
    bits = {"weight_bits": (8, 1), "membrane_bits": (8,)}
    sq.shrink(net, batches(), max_drop=5.0, validation=batches(1), **{**PTQ, **bits})
    relieved = [attempt for attempt in tried if attempt.relief]
    assert relieved
    assert not any(attempt.signed for attempt in relieved)
