"""The network without spikes beside a spiking one: what it is, what it costs, when it has no meaning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse import Comparison, ann_baseline
from spikequant.analyse.ann_network import QuantizedReLU, equivalent_bits, static_network
from spikequant.capture import capture
from spikequant.nn import IF, LIF, Delay, LeakyIntegrator, MultiSpikeIF, PoissonEncoder
from spikequant.nn.over_time import OverTime

STEPS = 6


class Rate(nn.Module):
    """A rate-coded MLP: the data are shown for six steps, spikes of the last layer are counted."""

    def __init__(self, last=None):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(8, 12), LIF(leak=0.75, step_mode="s")
        self.fc2, self.last = nn.Linear(12, 3, bias=False), last or IF(step_mode="s")

    def forward(self, x):
        total = 0
        for _ in range(STEPS):
            total = total + self.last(self.fc2(self.lif1(self.fc1(x))))
        return total


class Pictures(nn.Module):
    """conv - batch norm - pool - LIF, then a residual convolution, then a readout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.pool, self.lif1 = (
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.AvgPool2d(2),
            LIF(),
        )
        self.conv2, self.lif2 = OverTime(nn.Conv2d(4, 4, 3, padding=1, groups=2)), LIF()
        self.fc = nn.Linear(4 * 9, 3)

    def forward(self, x):
        current = self.pool(self.norm(self.conv(x)))
        s = self.lif1(current.unsqueeze(0).expand(STEPS, *current.shape))
        s = s + self.lif2(self.conv2(s))
        return self.fc(s.flatten(2)).mean(0)


def data(count=6, shape=(8,), seed=1):
    torch.manual_seed(seed)
    centres = torch.rand(3, *shape)
    rows = []
    for _ in range(count):
        y = torch.randint(0, 3, (16,))
        rows.append(((centres[y] + 0.1 * torch.rand(16, *shape)).clamp(0, 1), y))
    return rows


def quantized(model, x, **plan):
    twin = copy.deepcopy(model)
    sq.quantize_(twin, sq.Plan.uniform(**({"weight_bits": 3, "membrane_bits": 6} | plan)), x, quiet=True)
    return twin


def test_a_small_network_by_hand():
    train = data()
    model = quantized(Rate(), train[0][0])
    state = torch.random.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    found = ann_baseline(model, train, train[:2], epochs=15, lr=1e-2, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert found.activation_bits == 3 == equivalent_bits(STEPS)
    assert found.weight_bits == {"fc1": 3, "fc2": 3}
    assert found.epochs == (15, 0)
    assert found.float_accuracy > 0.9
    assert found.accuracy > 0.6
    assert found.side.by_role() == {
        "weight": (8 * 12 + 12 * 3) * 3 / 8,
        "scale": 4 * (12 + 3 + 1),  # per channel, and the input's
        "bias": 4 * 12,
        "readout": 4 * 3,  # alive together: 3 sums of 32 bits and the 12 activations from which they come
        "activation": 12 * 3 / 8,
    }
    assert found.side.padded_flash_bytes == 12 * 3 + 3 * 5 + 4 * (12 + 3 + 1) + 4 * 12
    assert found.side.dense == 8 * 12 + 12 * 3
    assert 0 < found.side.effective_macs <= found.side.dense
    assert found.side.effective_acs == 0
    e = found.side.energy
    assert e.fp_ops == pytest.approx(4.6 * found.side.effective_macs)
    assert e.integer_ops_and_traffic == pytest.approx(
        e.integer_ops + 5 * (3 * found.side.effective_macs + 2 * 12 * 3) / 32
    )
    again = ann_baseline(model, train, train[:2], epochs=15, lr=1e-2, seed=3)
    assert again == found


def test_training_at_the_bits_helps_where_few_are_left():
    train = data(10)
    model = quantized(Rate(), train[0][0], weight_bits=2, weight_quantizer="lsq")
    after, within = (
        ann_baseline(model, train, train, epochs=6, qat_epochs=k, activation_bits=1, lr=1e-2) for k in (0, 8)
    )
    assert within.accuracy >= after.accuracy
    assert within.accuracy > 0.5
    assert within.side.effective_acs > 0  # one-bit activations are added, the input is multiplied
    assert within.side.effective_macs > 0
    assert "6 + 8 epochs" in " ".join(within.different)


def test_pictures_with_batch_norm_and_a_skip_connection():
    train = data(shape=(1, 6, 6))
    model = quantized(Pictures(), train[0][0])
    sq.calibrate(model, train)
    sq.freeze(model)
    found = ann_baseline(model, train, train[:3], epochs=6, activation_bits=10, lr=1e-2)
    assert found.accuracy > 0.6
    assert set(found.weight_bits) == {"conv", "conv2.layer", "fc"}
    roles = {(row.layer, row.role): row for row in found.side.memory}
    assert roles["conv", "bias"].count == 4  # of the batch norm
    assert roles["conv2.layer", "weight"].count == 4 * 2 * 9
    # While the sums of the last layer are formed, both activations that it adds are alive.
    assert (roles["lif1", "activation"].count, roles["lif2", "activation"].count) == (36, 36)
    assert found.side.ram_bytes == 72 * 10 / 8 + 3 * 4
    comparison = sq.compare(model, model, train[:1], ann=found)
    assert comparison.to_dict()["ann"]["side"]["accuracy"] == found.accuracy


def test_a_baseline_survives_the_file(tmp_path):
    train = data()
    model = quantized(Rate(), train[0][0])
    comparison = sq.compare(model, model, train, ann=ann_baseline(model, train, train, epochs=1))
    comparison.save(tmp_path / "c")
    assert Comparison.load(tmp_path / "c") == comparison


def test_activations_are_on_their_grid():
    train = data()
    model = quantized(Rate(), train[0][0])
    network = static_network(model, capture(model, train[0][0]), activation_bits=2)
    quantizers = {p: (m.quantizer, m.per_channel) for p, m in model.named_modules() if hasattr(m, "quantizer")}
    network.quantize_(quantizers, [x for x, _ in train])
    seen = []
    relu = network.layers(QuantizedReLU)["lif1"]
    relu.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    network(train[0][0])
    codes = seen[0] / relu.scale.detach()
    assert set(codes.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert codes.max() > 0


def test_bits_of_a_real_network_and_of_counted_spikes():
    train = data()
    model = Rate(LeakyIntegrator(step_mode="s"))
    found = ann_baseline(model, train, train[:2], epochs=1, weight_bits=4)
    assert found.weight_bits == {"fc1": 4, "fc2": 4}
    assert found.side.by_role()["input"] == 8 * 4  # no plan says how the input is quantized: 32 bits
    model.lif1 = MultiSpikeIF(spikes_max=15, step_mode="s")
    assert ann_baseline(model, train, train[:2], epochs=0, weight_bits=4).activation_bits == 7  # up to 90 spikes
    with pytest.raises(sq.DataError, match="fc1 is not quantized; quantize the model first or give weight_bits"):
        ann_baseline(model, train, train)


def test_an_encoder_is_taken_away():
    class Encoded(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.fc, self.lif = PoissonEncoder(STEPS), nn.Linear(8, 3), LIF()

        def forward(self, x):
            return self.lif(self.fc(self.encode(x))).sum(0)

    train = data(10)
    found = ann_baseline(Encoded(), train, train, epochs=12, weight_bits=4, lr=5e-2)
    assert found.accuracy > 0.8


def trains():
    torch.manual_seed(0)
    return [((torch.rand(STEPS, 4, 8) < 0.4).float(), torch.randint(0, 3, (4,)))]


class Events(Rate):
    def forward(self, x):
        return sum(self.last(self.fc2(self.lif1(self.fc1(xt)))) for xt in x)


class Recurrent(Rate):
    def __init__(self):
        super().__init__()
        self.back = nn.Linear(12, 12)

    def forward(self, x):
        s, total = torch.zeros(len(x), 12), 0
        for _ in range(STEPS):
            s = self.lif1(self.fc1(x) + self.back(s))
            total = total + self.last(self.fc2(s))
        return total


class Delayed(Rate):
    def __init__(self):
        super().__init__()
        self.late = Delay(2, step_mode="s")

    def forward(self, x):
        total = 0
        for _ in range(STEPS):
            total = total + self.last(self.fc2(self.late(self.lif1(self.fc1(x)))))
        return total


class OneStep(Rate):
    def forward(self, x):
        return self.last(self.fc2(self.lif1(self.fc1(x))))


class Branching(Rate):
    def forward(self, x):
        return super().forward(x) if float(self.fc1(x).sum()) > 1e9 else super().forward(x) * 2


@pytest.mark.parametrize(
    ("model", "rows", "message"),
    [
        (Events, trains, "its input is a train of events"),
        (Recurrent, data, "recurrent or delayed connections"),
        (Delayed, data, "recurrent or delayed connections"),
        (OneStep, data, "one step per call"),
        (Branching, data, "cannot be read as a graph"),
    ],
)
def test_networks_that_have_no_meaning_without_time(model, rows, message):
    with pytest.raises(sq.Unsupported, match=message):
        ann_baseline(model(), rows(), rows(), epochs=1, weight_bits=4)


def test_data_that_cannot_be_trained_on():
    with pytest.raises(sq.DataError, match="one-shot iterator; give a list or a loader"):
        ann_baseline(Rate(), iter(data()), data(), weight_bits=4)
    with pytest.raises(sq.DataError, match="gave no batch"):
        ann_baseline(Rate(), [], data(), weight_bits=4)
