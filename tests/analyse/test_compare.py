"""`compare`: firing, memory and operations of two networks, against numbers counted by hand."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from tests.conformance.networks import make, quantized
from torch import nn

import spikequant as sq
from spikequant.analyse import Comparison, memory_rows, observe, paired_difference
from spikequant.analyse.inputs import bits_of_data
from spikequant.capture import capture
from spikequant.measure import MemoryRow, emd, network_memory
from spikequant.nn import IF, LIF, AdaptiveLIF, CubaLIF
from spikequant.nn.over_time import OverTime

#                 step 1     step 2
TRAIN = torch.tensor([[[1.0, 0, 1]], [[0.0, 1, 1]]]).expand(2, 4, 3).contiguous()
TARGETS = torch.tensor([0, 0, 1, 0])


class Hand(nn.Module):
    """Small enough to be counted on fingers."""

    def __init__(self):
        super().__init__()
        self.fc1, self.neuron, self.fc2 = nn.Linear(3, 2), IF(), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.fc1.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]]))
            self.fc1.bias.zero_()
            self.fc2.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))

    def forward(self, x):
        return self.fc2(self.neuron(self.fc1(x))).mean(0)


def frozen(net, x=TRAIN, **plan):
    """A quantized and frozen copy."""
    twin = copy.deepcopy(net)
    sq.quantize_(
        twin,
        sq.Plan.uniform(**(plan or {"weight_bits": 4, "membrane_bits": 8, "membrane_rounding": "half_even"})),
        x,
        quiet=True,
    )
    sq.freeze(twin)
    return twin


def test_synops_of_a_network_counted_by_hand():
    # fc1: inputs meet 2, 1, 1 weights; step 1 has inputs 0 and 2, step 2 inputs 1 and 2: (2 + 1) + (1 + 1) = 5 of 12.
    # Currents 3, 0.5 then 2, 1 onto 2, 0.5: spikes (1, 0), then (1, 1).  fc2: inputs meet 1, 2 weights: 1 + 3 = 4 of 8.
    net = Hand()
    for model in (net, frozen(net)):
        seen = observe(model, [(TRAIN, TARGETS)])
        counts = {path: counter.count() for path, counter in seen.operations.items()}
        assert {p: (c.effective_acs, c.effective_macs, c.dense) for p, c in counts.items()} == {
            "fc1": (20, 0, 48),
            "fc2": (16, 0, 32),
        }
        assert seen.firing["neuron"].rates().tolist() == [1.0, 0.5]
    comparison = sq.compare(net, frozen(net), [(TRAIN, TARGETS)])
    assert (comparison.reference.effective_acs, comparison.reference.dense) == (9.0, 20.0)  # per sample
    assert (comparison.quantized.effective_acs, comparison.quantized.effective_macs) == (9.0, 0.0)


def test_real_inputs_are_multiply_accumulates():
    x = torch.tensor([[[0.25, 0.0, -1.5]], [[0.5, 0.5, 0.0]]])
    count = observe(Hand(), [(x, torch.tensor([0]))]).operations["fc1"].count()
    assert (count.effective_macs, count.effective_acs, count.dense) == (2 + 1 + 2 + 1, 0, 12)


def test_operations_of_a_convolution():
    net = nn.Sequential(OverTime(nn.Conv2d(1, 2, 3, padding=1)), IF())
    x = torch.zeros(1, 1, 1, 4, 4)
    x[0, 0, 0, 0, 0] = x[0, 0, 0, 1, 1] = 1.0
    with torch.no_grad():
        net[0].layer.weight.fill_(1.0)
    count = observe(Sums(net), [(x, torch.tensor([0]))]).operations["net.0.layer"].count()
    assert count.effective_acs == 2 * (4 + 9)  # a corner is seen by 4 outputs of each channel, the inside by 9
    assert count.dense == 2 * (4 * 4 + 8 * 6 + 4 * 9)


class Sums(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).flatten(2).sum(0)


def test_memory_of_a_network_counted_by_hand():
    net = Hand()
    comparison = sq.compare(net, frozen(net), [(TRAIN, TARGETS)])
    assert comparison.reference.flash_bytes == 4 * (6 + 2 + 1 + 4)  # weights, bias, threshold, weights
    assert comparison.reference.by_role()["membrane"] == 4 * 2
    assert comparison.reference.ram_bytes == 4 * 2 + 2 / 8 + 3 / 8 + 4 * 2  # and spikes, input, readout
    twin = frozen(net)
    rows = comparison.quantized.memory
    assert MemoryRow("fc1", "weight", 6, 4, rows=2) in rows
    assert MemoryRow("fc2", "weight", 4, 4, rows=2) in rows
    assert MemoryRow("neuron", "membrane", 2, 8) in rows
    params = twin.neuron.frozen_integers().params

    def bits(values):
        return next(b for b in range(1, 65) if -(2 ** (b - 1)) <= min(values) and max(values) < 2 ** (b - 1))

    stored = {"threshold": params["theta"], "reset": params["reset"], "bias": params["bias"]}
    stored |= {"scale": params["v_shift"]}
    for role, values in stored.items():
        assert MemoryRow("neuron", role, 2, bits(values.tolist())) in rows
    gains = [bits(twin.neuron.frozen_integers().gains[0].tolist()), bits([2**twin.fc2.readout_bits])]
    flash = 10 * 4 + sum(2 * bits(values.tolist()) for values in stored.values()) + sum(gains) + 1  # a shift of 0
    assert comparison.quantized.flash_bytes == flash / 8
    assert comparison.quantized.ram_bytes == 2 + 2 / 8 + 3 / 8 + 2 * 48 / 8
    # 3 weights of 4 bits to a row take 2 bytes, 2 of them 1 byte.
    arrays = [2 * 2, 2 * 1, *(-(-2 * bits(v.tolist()) // 8) for v in stored.values()), *(-(-g // 8) for g in gains), 1]
    assert comparison.quantized.padded_flash_bytes == sum(arrays)


@pytest.mark.parametrize("seed", range(30))
def test_memory_is_that_of_the_integer_network(seed):
    case = make(seed)
    try:
        net = quantized(case)
    except sq.SpikequantError:
        pytest.skip("this random network is refused")
    case.model.eval()
    graph = capture(case.model, case.example)
    rows = memory_rows(case.model, {}, graph=graph, input_bits=bits_of_data(case.example), steps=net.steps)
    assert sorted(map(str, rows)) == sorted(map(str, network_memory(net)))
    assert {row.role for row in rows} >= {"weight", "threshold", "scale", "membrane", "spike_buffer", "input"}


@pytest.mark.parametrize(
    ("neuron", "ram"),
    [
        (CubaLIF(leak=0.5, leak_i=0.5), {"membrane": 6, "current": 6}),
        (AdaptiveLIF(leak=0.5, refractory=3), {"membrane": 6, "adaptive_threshold": None, "refractory": 2}),
        (LIF(order="delayed_reset", reset="subtract"), {"membrane": 6, "spike_buffer": 1}),
    ],
    ids=["cuba", "adaptive", "delayed"],
)
def test_every_state_costs_ram(neuron, ram):
    net = nn.Sequential(nn.Linear(3, 5), neuron)
    real = {r.role: (r.count, r.bits) for r in memory_rows(net, {"1": (5,)}) if r.role in ram}
    assert real == {role: (5, 1 if role == "spike_buffer" else 32) for role in ram}
    twin = frozen(net, weight_bits=4, membrane_bits=6)
    rows = {r.role: (r.count, r.bits) for r in memory_rows(twin, {"1": (5,)}) if r.role in ram}
    assert set(rows) == set(ram)
    for role, bits in ram.items():
        assert rows[role][0] == 5
        assert bits is None or rows[role][1] == bits


class Layers(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.lif1 = nn.Linear(5, hidden), LIF(leak=0.75)
        self.fc2, self.lif2 = nn.Linear(hidden, 3), LIF()
        with torch.no_grad():
            self.fc1.weight.normal_(0.3, 0.5)
            self.fc2.weight.normal_(0.3, 0.5)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)


def batches(count=4):
    torch.manual_seed(3)
    return [((torch.rand(10, 8, 5) < 0.4).float(), torch.randint(0, 3, (8,))) for _ in range(count)]


def test_a_network_against_itself():
    net = Layers()
    found = sq.compare(net, copy.deepcopy(net), batches())
    assert found.samples == 32
    assert (found.difference, found.interval, found.emd, found.emd_weighted) == (0.0, 0.0, 0.0, 0.0)
    assert found.reference == found.quantized
    assert all(layer.emd == layer.matched_l1 == 0 and layer.rate == layer.reference_rate > 0 for layer in found.layers)
    assert found.floor > 0  # two halves of the data are not the same


def test_figures_against_their_definitions():
    net, data = Layers(), batches()
    twin = frozen(net, data[0][0], weight_bits=2, membrane_bits=3, membrane_rounding="floor")
    found = sq.compare(net, twin, data)
    rates = {}
    for name, model in (("r", net), ("s", twin)):
        trains = []
        model.lif1.register_forward_hook(lambda _m, _i, out, kept=trains: kept.append(out.detach()))
        with torch.no_grad():
            outputs = torch.cat([model(x) for x, _ in data])
        rates[name] = torch.cat(trains, dim=1).mean((0, 1)).numpy()
        rates[name + " right"] = (outputs.argmax(1) == torch.cat([y for _, y in data])).numpy()
    layer = found.layers[0]
    assert (layer.layer, layer.neurons) == ("lif1", 6)
    assert layer.emd == pytest.approx(np.abs(np.sort(rates["r"]) - np.sort(rates["s"])).mean())
    assert layer.matched_l1 == pytest.approx(np.abs(rates["r"] - rates["s"]).mean())
    assert (layer.reference_rate, layer.rate) == pytest.approx((rates["r"].mean(), rates["s"].mean()))
    assert layer.dead == pytest.approx((rates["s"] < 0.05).mean())
    assert layer.silent == pytest.approx((rates["s"] == 0).mean())
    assert found.emd == pytest.approx(np.mean([row.emd for row in found.layers]))
    assert found.emd > 0
    assert found.emd_weighted == pytest.approx((6 * found.layers[0].emd + 3 * found.layers[1].emd) / 9)
    assert found.reference.accuracy == pytest.approx(rates["r right"].mean())
    d = 100 * (rates["s right"].astype(float) - rates["r right"].astype(float))
    assert found.difference == pytest.approx(d.mean())
    assert found.interval == pytest.approx(1.96 * d.std(ddof=1) / math.sqrt(32))
    assert json.loads(json.dumps(found.to_dict()))["layers"][0]["layer"] == "lif1"


def test_the_floor_is_the_emd_of_two_halves():
    net, data = Layers(), batches()
    first, second = observe(net, data).firing["lif1"].halves()
    assert sq.compare(net, net, data).layers[0].floor == pytest.approx(emd(first, second))
    one = [(torch.cat([x for x, _ in data], dim=1), torch.cat([y for _, y in data]))]
    assert sq.compare(net, net, one).layers[0].floor == pytest.approx(emd(first, second))
    lone = sq.compare(net, net, [(data[0][0][:, :1], data[0][1][:1])])
    assert math.isnan(lone.layers[0].floor)
    assert lone.notes == ("one sample has no two halves and no interval: both are NaN",)
    assert lone.to_dict()["emd_floor"] is None


def test_paired_differences():
    mean, half = paired_difference(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0]))
    assert (mean, half) == (25.0, pytest.approx(1.96 * 50 / 2))
    assert math.isnan(paired_difference(np.array([1]), np.array([1]))[1])


def test_what_cannot_be_compared():
    net = Layers()
    with pytest.raises(
        sq.DataError, match=r"compare: the networks have different neuron layers, \['lif1', 'lif2'\] and \['1'\]"
    ):
        sq.compare(net, Sums1(), batches())
    with pytest.raises(sq.DataError, match=r"the loader gave no batch; expected at least one \(input, target\)"):
        sq.compare(net, net, [])


class Sums1(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(5, 3), LIF())

    def forward(self, x):
        return super().forward(x).sum(0)


class Moving(list):
    """Batches whose order changes from pass to pass."""

    def __iter__(self):
        self.reverse()
        return super().__iter__()


def test_any_order_and_a_one_shot_iterator_will_do():
    net = Layers()
    twin = frozen(net, batches()[0][0], weight_bits=2, membrane_bits=3)
    wanted = sq.compare(net, twin, batches()).to_dict()
    assert sq.compare(net, twin, iter(batches())).to_dict() == wanted
    moved = sq.compare(net, twin, Moving(batches())).to_dict()
    assert {k: moved[k] for k in ("emd", "difference_points", "diverged_samples")} == {
        k: wanted[k] for k in ("emd", "difference_points", "diverged_samples")
    }


@pytest.mark.parametrize("training", [True, False])
def test_observe_leaves_no_trace(training):
    net = Layers().train(training)
    observe(net, batches(1))
    assert net.training == training
    assert not net.lif1._forward_hooks
    assert not net.fc1._forward_pre_hooks


def test_a_loop_that_adds_in_place_is_counted_right():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 3), LIF(step_mode="s")
            with torch.no_grad():
                self.fc.weight.fill_(0.4)

        def forward(self, x):
            total = None
            for xt in x:
                spk = self.lif(self.fc(xt))
                if total is None:
                    total = spk
                else:
                    total += spk
            return total

    net, (x, y) = Loop(), batches(1)[0]
    rates = observe(net, [(x, y)]).firing["lif"].rates()
    with torch.no_grad():
        wanted = net(x).mean(0) / 10
    assert rates.tolist() == pytest.approx(wanted.tolist())
    assert rates.max() <= 1.0


def test_a_comparison_survives_its_file(tmp_path):
    net, data = Layers(), batches()
    twin = frozen(net, data[0][0], weight_bits=2, membrane_bits=3)
    found = sq.compare(net, twin, data, other_seed=copy.deepcopy(net))
    found.save(tmp_path / "run.comparison")
    again = Comparison.load(tmp_path / "run.comparison")
    assert again == found
    for layer, wanted in zip(again.layers, found.layers, strict=True):
        np.testing.assert_array_equal(layer.rates, wanted.rates, strict=True)
        np.testing.assert_array_equal(layer.reference_rates, wanted.reference_rates, strict=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_of_a_half_precision_network_are_exact(dtype):
    samples = 4097  # neither half precision holds it
    x, y = TRAIN[:, :1].repeat(1, samples, 1), torch.zeros(samples, dtype=torch.long)
    wanted = sq.compare(Hand(), Hand(), [(x, y)])
    model = Hand().to(dtype)
    found = sq.compare(model, model, [(x.to(dtype), y)])
    assert found.reference.operations == wanted.reference.operations
    assert [layer.rates.tolist() for layer in found.layers] == [layer.rates.tolist() for layer in wanted.layers]
