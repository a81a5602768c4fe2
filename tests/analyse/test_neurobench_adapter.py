"""NeuroBench's own `Benchmark` run on our networks: its counts are those of `sq.compare`, on codes too."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.analyse.test_neurobench import NETS, SAMPLES, STEPS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikequant as sq
from spikequant.measure import FLASH_ROLES, network_memory

benchmarks = pytest.importorskip("neurobench.benchmarks")
static = pytest.importorskip("neurobench.metrics.static")
workload = pytest.importorskip("neurobench.metrics.workload")

PLAN = sq.Plan.uniform(weight_bits=3, membrane_bits=8)
METRICS = [
    ["Footprint", "ConnectionSparsity", "ParameterCount"],
    ["ClassificationAccuracy", "ActivationSparsity", "SynapticOperations"],
]


def data_of(x):
    """NeuroBench's ``[batch, time, ...]`` and where its time is; an image has none."""
    timed = x.shape[0] == STEPS
    return (x.movedim(0, 1) if timed else x), (1 if timed else None)


def run(model, x, labels, batch_size=SAMPLES):
    data, axis = data_of(x)
    loader = DataLoader(TensorDataset(data, labels), batch_size=batch_size)
    metrics = [
        [*(getattr(static, name) for name in METRICS[0]), sq.neurobench_footprint()],
        [getattr(workload, name) for name in METRICS[1]],
    ]
    wrapped = sq.neurobench_model(model, x, time_axis=axis)
    return benchmarks.Benchmark(wrapped, loader, [], [lambda scores: scores.argmax(-1)], metrics).run(quiet=True)


def check(model, x, results, labels, side):
    operations = results["SynapticOperations"]
    assert side.effective_acs == pytest.approx(operations["Effective_ACs"], abs=1e-9)
    assert side.effective_macs == pytest.approx(operations["Effective_MACs"], abs=1e-9)
    assert side.dense == pytest.approx(operations["Dense"], abs=1e-9)
    assert 0 < operations["Effective_ACs"] + operations["Effective_MACs"] < operations["Dense"]
    assert results["ActivationSparsity"] == pytest.approx(side.activation_sparsity)
    assert results["ConnectionSparsity"] == pytest.approx(round(side.connection_sparsity, 4), abs=1e-6)
    sq.reset(model)
    with torch.no_grad():
        right = (model(x).argmax(-1) == labels).float().mean()
    sq.reset(model)
    assert results["ClassificationAccuracy"] == pytest.approx(float(right))


@pytest.mark.parametrize("name", NETS)
def test_real_networks(name):
    build, x = NETS[name]
    model, labels = build().eval(), torch.arange(SAMPLES) % 3
    results = run(model, x, labels)
    check(model, x, results, labels, sq.compare(model, model, [(x, labels)]).reference)
    sizes = [t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())]
    assert results["Footprint"] == sum(sizes)
    assert results["ParameterCount"] == sum(p.numel() for p in model.parameters())


QUANTIZED = [name for name in NETS if name not in ("one layer used twice", "spikes halved in place")]


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_networks(name):
    build, x = NETS[name]
    model, labels = build().eval(), torch.arange(SAMPLES) % 3
    twin = copy.deepcopy(model)
    sq.quantize_(twin, PLAN, x, quiet=True)
    sq.freeze(twin)
    results = run(twin, x, labels)
    check(twin, x, results, labels, sq.compare(model, twin, [(x, labels)]).quantized)
    net = sq.lower(twin, x)
    rows = network_memory(net)
    flash = sum(row.count * row.bits for row in rows if row.role in FLASH_ROLES) / 8
    assert results["BitTrueFootprint"]["Flash"] == flash
    assert results["BitTrueFootprint"]["Total"] == sum(row.count * row.bits for row in rows) / 8
    assert results["BitTrueFootprint"]["Total"] < results["Footprint"]


class SnnTorchNet(nn.Module):
    """States by hand, as in its tutorials."""

    def __init__(self, snn):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(8, 16), snn.Leaky(beta=0.9, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(16, 3), snn.Leaky(beta=0.9, threshold=0.3)

    def forward(self, x):
        mem1, mem2, total = self.lif1.init_leaky(), self.lif2.init_leaky(), 0
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total = total + spk2
        return total


def test_neurons_of_another_library():
    snn = pytest.importorskip("snntorch")
    model, (_, x), labels = SnnTorchNet(snn).eval(), NETS["mlp"], torch.arange(SAMPLES) % 3
    before = {name: type(module) for name, module in model.named_modules()}
    sizes = [t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())]
    results = run(model, x, labels)
    check(model, x, results, labels, sq.compare(model, model, [(x, labels)]).reference)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert results["Footprint"] == sum(sizes)
    twin = copy.deepcopy(model)
    sq.quantize_(twin, PLAN, x, quiet=True)
    sq.freeze(twin)
    check(twin, x, run(twin, x, labels), labels, sq.compare(model, twin, [(x, labels)]).quantized)


def test_an_integer_network():
    build, x = NETS["mlp"]
    model, labels = build().eval(), torch.arange(SAMPLES) % 3
    sq.quantize_(model, PLAN, x, quiet=True)
    sq.freeze(model)
    net, loader = sq.lower(model, x), DataLoader(TensorDataset(x.movedim(0, 1), labels), batch_size=2)
    lists = [[static.ConnectionSparsity, sq.neurobench_footprint()], [workload.ClassificationAccuracy]]
    post = [lambda scores: scores.argmax(-1)]
    found = benchmarks.Benchmark(sq.neurobench_model(net, time_axis=1), loader, [], post, lists).run(quiet=True)
    wanted = benchmarks.Benchmark(sq.neurobench_model(model, x, time_axis=1), loader, [], post, lists).run(quiet=True)
    assert found == wanted
    with pytest.raises(sq.Unsupported, match="listen at torch modules"):
        benchmarks.Benchmark(sq.neurobench_model(net), loader, [], [], [[], [workload.SynapticOperations]])


def test_codes_are_followed_until_frozen():
    build, x = NETS["mlp"]
    model = build()
    sq.quantize_(model, PLAN, x, quiet=True)
    wrapped = sq.neurobench_model(model, x, time_axis=1)
    before = static.ConnectionSparsity()(wrapped)
    with torch.no_grad():
        model.fc1.weight[:4] = 0.0
    assert static.ConnectionSparsity()(wrapped) > before


def test_what_is_refused():
    build, x = NETS["mlp"]
    with pytest.raises(sq.Unsupported, match="got a list; expected a torch module or an IntNet"):
        sq.neurobench_model([1])
    with pytest.raises(sq.DataError, match="needs example_input="):
        sq.neurobench_footprint()()(sq.neurobench_model(build()))
    with pytest.raises(sq.DataError, match="time_axis=4"):
        sq.neurobench_model(build(), time_axis=4)(x)
