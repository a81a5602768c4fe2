"""Sharing changes no figure: every number equals that of the plain evaluator, whatever the grouping."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.explore import walk
from spikequant.explore.build import Materials, built
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.evaluator import SharedEvaluator
from spikequant.explore.readout import sums_of_all
from spikequant.explore.records import Candidate
from spikequant.explore.selection import select
from spikequant.explore.tree import Node, Record, Tree, packed
from spikequant.law.errors import DataError, PlanError
from spikequant.models.conv import ConvSNN
from spikequant.training import Batch

STEPS, FEATURES = 4, 12


class Net(nn.Module):
    """A loop over time of its own, a skip connection, batch norm, and a readout without a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = STEPS
        self.fc1 = nn.Linear(FEATURES, 16)
        self.lif1 = sq.nn.LIF(leak=0.75, step_mode="s")
        self.fc2 = nn.Linear(16, 16, bias=False)
        self.norm2 = nn.BatchNorm1d(16)
        self.lif2 = sq.nn.LIF(leak=0.5, reset="subtract", step_mode="s")
        self.fc3 = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for _ in range(self.steps):
            first = self.lif1(self.fc1(x))
            second = self.lif2(self.norm2(self.fc2(first)))
            total = total + self.fc3(first + second)
        return total / self.steps


def data(samples: int, seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (samples,), generator=generator)
    x = torch.rand(samples, FEATURES, generator=generator)
    x[torch.arange(samples), y] += 0.5
    return [(x[i : i + 40], y[i : i + 40]) for i in range(0, samples, 40)]


@pytest.fixture(scope="module")
def materials() -> Materials:
    torch.manual_seed(1)
    model, learn = Net(), data(400, 0)
    sq.fit(model, learn, epochs=8, lr=2e-2, quiet=True)
    return Materials(model=model.eval(), learn=learn, example=learn[0][0], seed=5)


def candidate(w1: int, w2: int, u1: int, u2: int, rounding: str = "auto", **more: object) -> Candidate:
    return Candidate(
        {
            "fc1:weight.bits": w1,
            "fc1:weight.clipping": "mse",
            "fc2:weight.bits": w2,
            "fc3:weight.bits": 4,
            "lif1:membrane.bits": u1,
            "lif2:membrane.bits": u2,
            "lif1:membrane.rounding": rounding,
            "lif2:membrane.rounding": rounding,
            **more,
        }
    )


SPACE = [candidate(*bits) for bits in itertools.product((2, 4), (2, 8), (2, 8), (3, 6))]
OTHERS = [
    candidate(4, 4, 4, 4, "stochastic"),
    Candidate({"fc2:weight.bits": 3, "lif2:membrane.bits": 5}),  # the first stage stays real
    Candidate({"scheme": "ptq", "fc1:weight.quantizer": "power_of_two", "fc1:weight.bits": 4, "lif1:membrane.bits": 6}),
    candidate(3, 3, 5, 5, **{"fc1:weight.sparsity": 0.5, "steps": 3}),
]


@pytest.fixture(scope="module")
def shared(materials: Materials) -> SharedEvaluator:
    return SharedEvaluator(materials, data(150, 9), workers=2, batch_size=40)


@pytest.fixture(scope="module")
def direct(materials: Materials, shared: SharedEvaluator) -> DirectEvaluator:
    return DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])


def test_every_figure_is_that_of_the_plain_evaluator(shared: SharedEvaluator, direct: DirectEvaluator) -> None:
    some = [*SPACE[::3], *OTHERS]
    assert all(not isinstance(shared.network_of(one), str) for one in some)
    for one, mine, plain in zip(some, shared.measure(some), direct.measure(some), strict=True):
        assert mine.same_as(plain), one.to_json()
    assert 0.0 < direct.reference.dead < 1.0  # something fires


def test_a_layer_whose_neuron_alone_is_asked_for_shares_nothing_with_a_real_one(
    materials: Materials, direct: DirectEvaluator
) -> None:
    """What `staged` meets first where groups of layers have rules of their own."""
    alone = SharedEvaluator(materials, data(150, 9), workers=1, batch_size=40)
    some = [
        Candidate({"fc2:weight.bits": 4}),  # the first stage is real,
        Candidate({"fc3:weight.bits": 4}),  # every neuron is,
        Candidate({"lif1:membrane.bits": 4}),  # is not, with real weights,
        Candidate({"lif1:membrane.bits": 6}),
        Candidate({"fc1:weight.bits": 3}),
    ]
    for order in (some, some[::-1]):
        for one, mine, plain in zip(order, alone.measure(order), direct.measure(order), strict=True):
            assert mine.same_as(plain), one.to_json()


def test_a_readout_alone_in_a_recurrent_network(materials: Materials) -> None:
    """Recurrent networks share nothing: each candidate is built whole, and this one keeps its neurons real."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = STEPS
            self.fc1, self.back = nn.Linear(FEATURES, 8), nn.Linear(8, 8, bias=False)
            self.lif1, self.out = sq.nn.LIF(leak=0.75, step_mode="s"), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes, total = torch.zeros(len(x), 8), torch.zeros(())
            for _ in range(self.steps):
                spikes = self.lif1(self.fc1(x) + self.back(spikes))
                total = total + self.out(spikes)
            return total

    torch.manual_seed(3)
    made = dataclasses.replace(materials, model=Recurrent().eval())
    shared = SharedEvaluator(made, data(40, 9), workers=1, batch_size=40)
    (found,) = shared.measure([Candidate({"out:weight.bits": 4})])
    assert not found.refused
    assert 84 <= shared.reference.flash_bytes - found.flash_bytes < 100, "24 weights of 4 bits, and their biases"


def test_siblings_in_a_convolutional_network_share_what_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    model = ConvSNN(size=8, channels=(4, 8), classes=3, steps=STEPS, kernel=3)
    for norm in (model.norm1, model.conv2.layer[1]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    x, y = torch.rand(160, 1, 8, 8), torch.arange(160) % 3
    for _ in range(40):  # running statistics
        model.train()(x)
    learn = [(x[i : i + 40], y[i : i + 40]) for i in (0, 40)]
    materials = Materials(model=model.eval(), learn=learn, example=x[:40])
    shared = SharedEvaluator(materials, [(x[80:], y[80:])], workers=1, batch_size=40)
    direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
    settings = itertools.product((2, 8), ({"lif2:membrane.bits": 3}, {"lif2:membrane.bits": 8}), (2, 8, None))
    some = [
        Candidate(
            {"conv1:weight.bits": 4, "lif1:membrane.bits": 6, "conv2*:weight.bits": w2, "conv2*:weight.clipping": "mse"}
            | u2
            | ({} if fc is None else {"fc:weight.bits": fc, "fc:weight.clipping": "mse"})
        )
        for w2, u2, fc in settings
    ]
    found: list[dict[Node, Tensor]] = []
    monkeypatch.setattr(walk, "sums_of_all", lambda *given: found.append(sums_of_all(*given)) or found[-1])
    for one, mine, plain in zip(some, shared.measure(some), direct.measure(some), strict=True):
        assert mine.same_as(plain), one.to_json()
    assert any(len(together) > 1 for together in found)
    assert 0.0 < direct.reference.dead < 1.0  # something fires


@pytest.mark.parametrize("memory", [2**30, 0])
def test_noise_counts_samples_through_all_batches(materials: Materials, memory: int) -> None:
    evaluator = SharedEvaluator(materials, data(150, 9), workers=2, batch_size=40, memory=memory)
    noisy = [candidate(4, bits, 3, 4, "stochastic") for bits in (2, 3, 4, 8)]
    batches = [(batch.x, batch.y) for batch in evaluator.data.batches]
    for one, mine in zip(noisy, evaluator.measure(noisy), strict=True):
        model, _ = built(materials, one)
        plain = sq.compare(materials.model, model, batches)
        assert mine.accuracy == plain.quantized.accuracy
        assert mine.emd == plain.emd
        assert mine.energy_pj == plain.quantized.energy.integer_ops_and_traffic


def test_grouping_order_and_memory_change_nothing(materials: Materials, shared: SharedEvaluator) -> None:
    together = shared.measure(SPACE)
    backwards = shared.measure(SPACE[::-1])[::-1]  # from what was kept
    forgetful = SharedEvaluator(materials, data(150, 9), workers=1, batch_size=40, memory=0)
    alone = [forgetful.measure([one])[0] for one in SPACE[:5]]
    assert all(a.same_as(b) for a, b in zip(together, backwards, strict=True))
    assert all(a.same_as(b) for a, b in zip(together, alone, strict=False))


def test_a_small_memory_is_kept_to(materials: Materials, shared: SharedEvaluator) -> None:
    tight = SharedEvaluator(materials, data(150, 9), workers=1, batch_size=40, memory=3000)
    network = tight.network_of(SPACE[0])
    assert not isinstance(network, str)
    for one in SPACE[:3]:
        assert tight.measure([one])[0].same_as(shared.measure([one])[0])
        assert 0 < network.tree.bytes <= 3000


def test_networks_with_other_leaks_share_the_memory(materials: Materials) -> None:
    tight = SharedEvaluator(materials, data(150, 9), workers=1, batch_size=40, memory=3000)
    found = [tight.network_of(candidate(4, 4, 4, 4, **{"*:leak.form": form})) for form in ("multiply", "shift")]
    tight.measure([candidate(4, 4, 4, 4, **{"*:leak.form": form}) for form in ("multiply", "shift")])
    assert len({id(network.tree) for network in found if not isinstance(network, str)}) == 1


def test_stopping_early_leaves_the_front_of_the_whole_space_as_it_is(materials: Materials) -> None:
    decide = data(1200, 11)
    whole = SharedEvaluator(materials, decide, workers=1, batch_size=100)
    target = whole.data.accuracy - 0.015
    hasty = SharedEvaluator(materials, decide, target_accuracy=target, workers=1, batch_size=100)
    full, early = whole.measure(SPACE), hasty.measure(SPACE)
    wanted = ("accuracy", "flash_bytes", "ram_bytes", "energy_pj", "emd")
    expected, found = (select(m, wanted, target_accuracy=target) for m in (full, early))
    assert found == expected
    assert len(found.front) > 1
    stopped = [m for m in early if m.stopped_early]
    assert len(stopped) > 3
    assert all(m.samples < 1200 for m in stopped)
    assert all(a.same_as(b) for a, b in zip(full, early, strict=True) if not b.stopped_early)
    assert all(a.accuracy < target for a, b in zip(full, early, strict=True) if b.stopped_early)


def test_what_cannot_be_shared_goes_the_plain_way(shared: SharedEvaluator, direct: DirectEvaluator) -> None:
    trained = candidate(4, 4, 4, 4, scheme="qat", epochs=1)
    assert "trains" in str(shared.network_of(trained))
    assert shared.measure([trained])[0].same_as(direct.measure([trained])[0])
    assert "nothing is quantized" in str(shared.network_of(Candidate({"steps": 2})))


def test_candidates_for_a_target_share_nothing_with_others() -> None:
    torch.manual_seed(0)
    made = nn.Linear(FEATURES, 8), sq.nn.LIF(leak=0.5), nn.Linear(8, 3), sq.nn.LIF(leak=0.5)
    x, y = torch.rand(80, FEATURES), torch.arange(80) % 3

    class Ending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*made)

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = self.layers(x.unsqueeze(0).expand(STEPS, -1, -1))
            return spikes.sum(0)

    materials = Materials(model=Ending().eval(), learn=[(x, y)], example=x[:8])
    some = [Candidate({"*:membrane.bits": 8} | asked) for asked in ({}, {"target": "mcu-int8"})]
    for order in (some, some[::-1]):
        shared = SharedEvaluator(materials, [(x, y)], workers=1)
        direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
        found = shared.measure(order)
        assert all(mine.same_as(plain) for mine, plain in zip(found, direct.measure(order), strict=True))
        assert found[0].flash_bytes != found[1].flash_bytes, "weights that nobody asks for have 8 bits there"


def test_an_input_that_one_call_holds_for_every_step_is_counted_for_every_step() -> None:
    class Expanded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1, self.fc2 = nn.Linear(FEATURES, 8), sq.nn.LIF(leak=0.5), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.fc2(self.lif1(self.fc1(x.unsqueeze(0).expand(STEPS, -1, -1)))).mean(0)
            return result

    torch.manual_seed(0)
    x, y = torch.rand(80, FEATURES), torch.arange(80) % 3
    materials = Materials(model=Expanded().eval(), learn=[(x, y)], example=x[:8])
    shared = SharedEvaluator(materials, [(x, y)], workers=1, batch_size=30)
    direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
    some = [Candidate({"*:weight.bits": 4, "*:membrane.bits": 8})]
    assert not isinstance(shared.network_of(some[0]), str)
    assert shared.measure(some)[0].same_as(direct.measure(some)[0])


def test_a_network_with_a_loop_of_connections_goes_the_plain_way() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.back = nn.Linear(FEATURES, 8), nn.Linear(8, 8, bias=False)
            self.lif, self.out = sq.nn.LIF(leak=0.5, step_mode="s"), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes, total = x.new_zeros(len(x), 8), torch.zeros(())
            for _ in range(STEPS):
                spikes = self.lif(self.fc(x) + self.back(spikes))
                total = total + self.out(spikes)
            return total

    torch.manual_seed(0)
    materials = Materials(model=Recurrent().eval(), learn=data(40, 0), example=data(40, 0)[0][0])
    evaluator = SharedEvaluator(materials, data(80, 1), workers=1)
    one = Candidate({"*:weight.bits": 4, "lif:membrane.bits": 6})
    assert "recurrent" in str(evaluator.network_of(one))
    assert math.isfinite(evaluator.measure([one])[0].accuracy)


def test_mistakes_are_said(shared: SharedEvaluator, materials: Materials) -> None:
    with pytest.raises(PlanError, match="matches no layer"):
        shared.measure([Candidate({"conv*:weight.bits": 4})])
    with pytest.raises(DataError, match="no batch"):
        SharedEvaluator(materials, [])
    with pytest.raises(DataError, match="expected one per sample"):
        SharedEvaluator(materials, [(torch.rand(3, FEATURES), torch.zeros(4, dtype=torch.int64))])
    with pytest.raises(DataError, match="expected a probability"):
        SharedEvaluator(materials, data(40, 0), error=1.0)


def test_threads_are_given_back(shared: SharedEvaluator) -> None:
    before = torch.get_num_threads()
    with pytest.raises(PlanError):
        shared.measure([candidate(4, 4, 4, 4, **{"nothing:membrane.bits": 4})])
    shared.measure(SPACE[:4])
    assert torch.get_num_threads() == before


def test_values_that_are_no_spikes_are_packed_as_they_are() -> None:
    counts = torch.tensor([0.0, 1.0, 2.0])
    assert packed(counts).bits is None
    assert torch.equal(packed(counts).unpacked(), counts)
    silent = torch.zeros(3, 5)
    assert torch.equal(packed(silent).unpacked(), silent)
    halves = torch.tensor([[0.0, 0.5, 0.5]])
    assert torch.equal(packed(halves).unpacked(), halves)


def test_what_is_used_last_is_dropped_last() -> None:
    tree, record = Tree(100), Record({"a": np.zeros(5)}, {}, None, {})  # 40 bytes
    nodes = [Node(None, 0, str(k)) for k in range(3)]
    for node in nodes[:2]:
        tree.keep(node, ("validation", 0), record)
    assert tree.kept(nodes[0], ("validation", 0)) is record
    tree.keep(nodes[2], ("validation", 0), record)
    assert tree.kept(nodes[1], ("validation", 0)) is None
    assert tree.bytes == 80
    tree.keep(nodes[0], ("validation", 1), dataclasses.replace(record, counts={"a": np.zeros(50)}))
    assert tree.bytes == 80
