"""A readout of spikes summed over time decides as the network does, ties and near ties included."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.explore import readout, walk
from spikequant.explore.build import Materials
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.evaluator import SharedEvaluator
from spikequant.explore.records import Candidate
from spikequant.nn import kernels
from spikequant.nn.over_time import OverTime
from spikequant.readers.compiler import find_compiler

STEPS, CLASSES = 4, 4


class Net(nn.Module):
    """Few neurons behind few weights, so that classes often get the same score."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 10), sq.nn.LIF(leak=0.5)
        self.fc2 = OverTime(nn.Linear(10, CLASSES, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.fc1(x).unsqueeze(0).expand(STEPS, -1, -1))
        logits: Tensor = self.fc2(spikes).mean(0)
        return logits


@pytest.fixture(autouse=True)
def _small_kernels() -> object:
    if find_compiler() is None:
        pytest.skip("no C compiler")
    with kernels.using("fused"):
        yield


@pytest.fixture(name="evaluators")
def _evaluators() -> tuple[SharedEvaluator, DirectEvaluator]:
    torch.manual_seed(3)
    x, y = torch.rand(240, 6), torch.randint(0, CLASSES, (240,))
    batches = [(x[k : k + 60], y[k : k + 60]) for k in range(0, 240, 60)]
    materials = Materials(model=Net().eval(), learn=batches[:2], example=x[:8])
    shared = SharedEvaluator(materials, batches, workers=1, batch_size=60)
    return shared, DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])


def _space() -> list[Candidate]:
    return [
        Candidate(
            {"fc1:weight.bits": w, "lif1:membrane.bits": u, "lif1:membrane.signed": signed, "fc2*:weight.bits": r}
        )
        for w, u, signed, r in itertools.product((2, 4), (3, 8), (False, True), (2, 3, 8))
    ]


def test_siblings_are_read_from_sums_over_time(
    evaluators: tuple[SharedEvaluator, DirectEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, direct = evaluators
    decided, exact = [], []

    def counting(*given: object) -> object:
        found = readout.rights(*given)  # type: ignore[arg-type]
        decided.extend(found)
        return found

    step_by_step = readout._step_by_step
    monkeypatch.setattr(walk, "rights", counting)
    monkeypatch.setattr(readout, "_step_by_step", lambda *given: exact.append(given[3]) or step_by_step(*given))
    for candidate, mine, plain in zip(_space(), shared.measure(_space()), direct.measure(_space()), strict=True):
        assert mine.same_as(plain), candidate.to_json()
    assert len(decided) == len(_space()) * 4  # every candidate on every batch
    assert 0 < sum(len(places) for places in exact) < 240 * len(_space()) / 2  # ties, not all of them
    assert direct.reference.dead < 1.0


def test_sums_that_float32_does_not_hold_are_left_to_the_network(
    evaluators: tuple[SharedEvaluator, DirectEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, _ = evaluators
    some = _space()[:3]
    before = shared.measure(some)
    monkeypatch.setattr(readout, "EXACT", 8)
    monkeypatch.setattr(readout, "_step_by_step", lambda *_: pytest.fail("nothing may be decided"))
    assert all(now.same_as(then) for now, then in zip(shared.measure(some), before, strict=True))
    assert not np.isnan(before[0].accuracy)


def test_a_readout_behind_a_reshape_of_neurons_that_fire_several_times() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.neurons = nn.Conv2d(1, 2, 3), sq.nn.MultiSpikeIF(spikes_max=5)
            self.fc = OverTime(nn.Linear(8, CLASSES))

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.neurons(self.conv(x).unsqueeze(0).expand(STEPS, -1, -1, -1, -1))
            logits: Tensor = self.fc(spikes.flatten(2)).sum(0)
            return logits

    torch.manual_seed(0)
    x, y = torch.rand(60, 1, 4, 4), torch.arange(60) % CLASSES
    materials = Materials(model=Several().eval(), learn=[(x, y)], example=x[:8])
    some = [Candidate({"conv:weight.bits": 4, "neurons:membrane.bits": 8, "fc*:weight.bits": r}) for r in (2, 4)]
    shared = SharedEvaluator(materials, [(x, y)], workers=1, batch_size=25)
    direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
    assert all(a.same_as(b) for a, b in zip(shared.measure(some), direct.measure(some), strict=True))
    assert direct.reference.dead < 1.0
