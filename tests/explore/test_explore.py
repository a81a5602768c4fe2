"""`explore` on a small network: the front, the tolerance of each role, and the network that was chosen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.explore import Candidate, DirectEvaluator, Materials, Measured, Space, Study, Trial, explore, prepared
from spikequant.explore.ledger import Entry
from spikequant.explore.tolerance import tolerances
from spikequant.law.errors import ArtifactError, DataError, PlanError

pytest.importorskip("optuna", reason="Optuna is an extra: explore")
SPACE: dict[str, Any] = {
    "rules": [
        {"match": "*", "weight": {"bits": [2, 4, 8]}, "membrane": {"bits": [1, 4, 8], "signed": False, "rounding": "half_up"}}
    ]
}  # fmt: skip


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 4
        self.fc1, self.lif1 = nn.Linear(64, 24), sq.nn.LIF(leak=0.75)
        self.fc2, self.lif2 = nn.Linear(24, 10), sq.nn.LIF(leak=0.75, reset="subtract")

    def forward(self, image: Tensor) -> Tensor:
        current = self.fc1(image.flatten(1))
        hidden = self.lif1(current.unsqueeze(0).expand(self.steps, *current.shape))
        return self.lif2(self.fc2(hidden)).sum(0)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    digits = sq.data.load_digits()
    train = list(sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=128, scale=1 / 16))
    test = list(sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=180, scale=1 / 16))
    model = Small()
    sq.fit(model, train, epochs=8, lr=1e-2, quiet=True)
    assert sq.evaluate(model, test).accuracy > 0.85
    return model, train[:3], test


def run(trained: Any, **options: Any) -> Study:
    model, learn, decide = trained
    asked = {"validation": decide, "sampler": "grid", "trials": 9, "max_drop": 3.0, "quiet": True, **options}
    return explore(model, asked.pop("space", SPACE), learn, **asked)


def test_front_choice_and_its_network(trained: Any) -> None:
    study = run(trained)
    assert len(study.trials) == 9
    real = study.reference
    assert study.target_accuracy == pytest.approx(real.accuracy - 0.03)
    assert study.chosen is not None
    for trial in study.front:
        assert trial.measured.accuracy >= study.target_accuracy
        assert not any(
            other.measured.accuracy >= trial.measured.accuracy
            and other.measured.flash_bytes < trial.measured.flash_bytes
            and other.measured.ram_bytes <= trial.measured.ram_bytes
            for other in study.trials
        )
    model, report = study.apply()
    assert report.quantized
    assert sq.evaluate(model, trained[2]).accuracy == pytest.approx(study.chosen.measured.accuracy)
    example = trained[2][0][0][:8]
    assert sq.verify(model, sq.lower(model, example), example).differences == 0
    assert study.plan == study.chosen.candidate.plan()
    record = json.loads(json.dumps(study.to_dict()))
    assert record["chosen"]["key"] == study.chosen.candidate.key
    assert len(record["trials"]) == 9
    assert "times smaller" in str(study)


def test_staged_tries_each_role_alone_first(trained: Any) -> None:
    study = run(trained, staged=True)
    assert study.tolerance is not None
    rows = {(row.factor, row.index): row for row in study.tolerance.rows}
    assert set(rows) == {(factor, k) for factor in ("*:weight", "*:membrane") for k in range(3)}
    kept = study.tolerance.kept()
    assert all(row.kept == (row.accuracy >= study.target_accuracy) for row in rows.values())
    assert not rows["*:membrane", 0].kept, "one bit of membrane loses more than 3 points"
    combined = [trial for trial in study.trials if trial.stage == "combined"]
    assert len(combined) == len(kept["*:weight"]) * len(kept["*:membrane"])
    assert {t.candidate.settings["*:membrane.bits"] for t in combined} <= {4, 8}
    alone = [trial for trial in study.trials if trial.stage == "alone"]
    assert len(alone) == 6
    assert all(len(trial.candidate.plan().rules[0].asked()) == 1 for trial in alone)
    assert "role alone" in str(study.tolerance)


def test_it_goes_on_in_its_folder(trained: Any, tmp_path: Path) -> None:
    told: list[Entry] = []

    def on_trial(entry: Entry, total: int) -> None:
        told.append(entry)
        assert total == 9
        if len(told) == 4:
            raise KeyboardInterrupt

    first = run(trained, folder=tmp_path, on_trial=on_trial, sampler="random")
    assert first.interrupted
    assert len(first.trials) == 4
    second = run(trained, folder=tmp_path, sampler="random")
    assert len(second.trials) == 9
    assert [t.candidate for t in second.trials[:4]] == [t.candidate for t in first.trials]
    third = run(trained, folder=tmp_path, sampler="random", on_trial=lambda *_: pytest.fail("nothing is left"))
    assert third.trials == second.trials
    with pytest.raises(ArtifactError, match="begun with another data"):
        run(trained, folder=tmp_path, sampler="random", validation=trained[1])
    assert len(run(trained, folder=tmp_path, sampler="random", trials=3, resume=False, seed=4).trials) == 3


def test_what_it_belongs_to_is_the_whole_network_all_data_and_the_stages(trained: Any, tmp_path: Path) -> None:
    model, learn, decide = trained
    asked: dict[str, Any] = {"validation": decide, "sampler": "grid", "trials": 2, "quiet": True, "folder": tmp_path}
    explore(model, SPACE, learn, 0.5, **asked)
    other = Small()
    other.lif1 = sq.nn.LIF(leak=0.75, reset="subtract")  # no tensor tells
    other.load_state_dict(model.state_dict())
    last = [*learn[:-1], (learn[-1][0].flip(0), learn[-1][1])]
    for network, batches, more, words in (
        (other, learn, {}, "another network"),
        (model, last, {}, "another data"),
        (model, learn, {"staged": True}, "another staging"),
        (model, learn, {"loss": nn.MSELoss()}, "another loss"),
    ):
        with pytest.raises(ArtifactError, match=words):
            explore(network, SPACE, batches, 0.5, **{**asked, **more})


def test_who_was_given_up_is_no_measure_of_what_a_role_tolerates() -> None:
    space = Space.from_dict(SPACE)
    accuracies = {2: (0.95, True), 4: (0.6, False), 8: (0.7, False)}
    base = {"scheme": "ptq", "*:weight.quantizer": "uniform"}
    trials = [
        Trial(
            number=k, candidate=Candidate({**base, "*:weight.bits": bits}), measured=scored(accuracy, stopped=stopped)
        )
        for k, (bits, (accuracy, stopped)) in enumerate(accuracies.items())
    ]
    kept = tolerances(space, trials, scored(1.0), 0.99).kept()
    assert kept == {"*:weight": (2,)}
    early = [dataclasses.replace(t, measured=dataclasses.replace(t.measured, stopped_early=True)) for t in trials]
    assert tolerances(space, early, scored(1.0), 0.99).kept() == {"*:weight": (0,)}


def scored(accuracy: float, *, stopped: bool = False) -> Measured:
    return Measured(accuracy=accuracy, samples=100, flash_bytes=1.0, ram_bytes=1.0, energy_pj=1.0, emd=0.0, dead=0.0,
                    stopped_early=stopped, seconds=0.0, scheme="ptq")  # fmt: skip


def test_schemes_steps_leaks_and_zeros(trained: Any) -> None:
    space = {
        "scheme": ["ptq", "itq"], "epochs": 1, "steps": [2, 4],
        "rules": [{"match": "*", "weight": {"bits": 4, "sparsity": 0.25}, "membrane": {"bits": 8},
                   "leak": {"form": ["multiply", "shift", "none"]}}],
    }  # fmt: skip
    study = run(trained, space=space, trials=12)
    assert study.space.size == len(study.trials) == 12
    by = {trial.candidate.key: trial for trial in study.trials}
    assert len({trial.measured.accuracy for trial in by.values()}) > 5
    for trial in by.values():
        assert trial.measured.scheme == trial.candidate.scheme
        if trial.candidate.settings["steps"] == 2 and trial.candidate.scheme == "ptq":
            other = Candidate({**trial.candidate.settings, "steps": 4})
            assert trial.measured.energy_pj < by[other.key].measured.energy_pj


def test_what_is_measured_depends_on_seed_and_candidate_alone(trained: Any) -> None:
    model, learn, decide = trained
    candidates = [
        Candidate({"*:weight.bits": 4, "*:membrane.bits": 3, "*:membrane.rounding": "stochastic", "scheme": "ptq"}),
        Candidate({"*:weight.bits": 3, "*:membrane.bits": 6, "scheme": "qat", "epochs": 1}),
    ]
    example = learn[0][0][:16]
    one = DirectEvaluator(Materials(model=model, learn=learn, example=example, seed=1), decide)
    first = list(one.measure(candidates))
    torch.manual_seed(99)
    again = [one.measure([candidate])[0] for candidate in reversed(candidates)][::-1]
    assert all(a.same_as(b) for a, b in zip(first, again, strict=True))


def test_holes_stay_holes_in_training(trained: Any) -> None:
    from spikequant.explore import built

    model, learn, _ = trained
    candidate = Candidate({"*:weight.bits": 8, "*:membrane.bits": 8, "sparsity": 0.6, "scheme": "qat", "epochs": 1})
    found, _ = built(Materials(model=model, learn=learn, example=learn[0][0][:16]), candidate)
    codes = found.get_submodule("fc1").codes()  # type: ignore[operator]
    assert float((codes == 0).float().mean()) > 0.599


def test_a_shift_leak_is_the_nearest(trained: Any) -> None:
    found = prepared(trained[0], Candidate({"lif1:leak.form": "shift", "lif2:leak.form": "none"}), trained[1][0][0][:4])
    lif1, lif2 = found.get_submodule("lif1"), found.get_submodule("lif2")
    assert lif1.spec.leak.form == "shift"  # type: ignore[union-attr]
    assert float(lif1.real_value("leak")) == 2.0  # type: ignore[operator]
    assert lif2.spec.leak.form == "none"  # type: ignore[union-attr]
    assert "leak" not in lif2.value_names  # type: ignore[operator]
    x = torch.randn(4, 3, 24)
    original = trained[0].get_submodule("lif1")
    torch.testing.assert_close(lif1(x), original(x))  # 0.75 = 1 - 2^-2


class Looped(nn.Module):
    """One's own loop over time, with a delay line that also has steps."""

    def __init__(self, name: str, steps: int = 2) -> None:
        super().__init__()
        self.fc1, self.lif1, self.late = nn.Linear(64, 24), sq.nn.LIF(leak=0.75), sq.nn.Delay(2)
        self.fc2, self.lif2 = nn.Linear(24, 10), sq.nn.LIF(leak=0.75)
        self.called, self.fixed = name, name == ""
        setattr(self, name or "num_steps", steps)

    def forward(self, image: Tensor) -> Tensor:
        current = self.fc1(image.flatten(1))
        count = 2 if self.fixed else getattr(self, self.called)
        hidden = self.lif1(current.unsqueeze(0).expand(count, *current.shape))
        return self.lif2(self.fc2(self.late(hidden))).sum(0)


@pytest.mark.parametrize("name", ["steps", "T", "num_steps", "seq_length"])
def test_steps_are_set_where_networks_hold_them(trained: Any, name: str) -> None:
    x = trained[1][0][0][:4]
    found = prepared(Looped(name), Candidate({"steps": 5}), x)
    assert getattr(found, name) == 5
    assert found.get_submodule("late").steps == 2
    assert sq.capture.capture(found.eval(), x).steps == 5


def test_steps_that_forward_does_not_read_are_refused(trained: Any) -> None:
    with pytest.raises(PlanError, match="num_steps was set to 5, and the network runs 2 steps all the same"):
        prepared(Looped(""), Candidate({"steps": 5}), trained[1][0][0][:4])


def test_mistakes(trained: Any) -> None:
    model, learn, decide = trained
    with pytest.raises(PlanError, match="sampler 'best'"):
        run(trained, sampler="best")
    with pytest.raises(DataError, match="objective 'speed'"):
        run(trained, wanted=("accuracy", "speed"))
    with pytest.raises(DataError, match="explore: batches gave no batch"):
        explore(model, SPACE, iter([]), validation=decide, quiet=True)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(
        PlanError, match="none of its modules holds that number under one of the names steps, T, num_st"
    ):
        prepared(Looped("count"), Candidate({"steps": 3}), learn[0][0][:4])
    with pytest.raises(PlanError, match="no neuron layer of the network has a leak"):
        prepared(plain, Candidate({"*:leak.form": "shift"}), learn[0][0][:4])
    none = run(trained, target_accuracy=1.0, trials=2)
    assert none.chosen is None
    assert "None keeps 100.00 % accuracy" in str(none)
    with pytest.raises(PlanError, match="no candidate keeps the target"):
        none.apply()


def test_batches_alone_are_divided(trained: Any) -> None:
    model, learn, _ = trained
    study = explore(model, SPACE, learn, sampler="grid", trials=2, quiet=True)
    assert study.reference.samples == sum(len(y) for _, y in learn) // 4


def test_a_target_in_percent_is_refused(trained):
    with pytest.raises(DataError, match=r"target_accuracy = 95; expected a share from 0 to 1"):
        explore(trained[0], SPACE, trained[1], target_accuracy=95, quiet=True)
    with pytest.raises(DataError, match=r"expected a torch nn.Module as model, got dict"):
        explore(SPACE, trained[0], trained[1], quiet=True)  # type: ignore[arg-type]
