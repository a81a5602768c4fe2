"""A ReLU network by rates: the error at T steps, what is refused, and the way to integers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.frontends.activations import Activations
from spikequant.nn import NeuronLayer


def small_cnn(pool: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AvgPool2d(2) if pool is None else pool,
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, sq.data.ArrayBatches, sq.data.ArrayBatches]:
    digits = sq.data.load_digits()
    train = sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=64, shuffle=True, scale=1 / 16)
    test = sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=120, scale=1 / 16)
    model = small_cnn()
    sq.fit(model, train, epochs=4, lr=5e-3, quiet=True)
    return model, train, test


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_one_layer_under_constant_current_is_the_rounded_quotient(steps: int) -> None:
    """spikes = clip(floor(a T / theta + 1/2), 0, T), exactly, for currents that floats hold exactly."""
    a = torch.arange(-64, 192).float() / 64
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[2].weight.fill_(1.0)
    converted = sq.from_ann(model, [a[:, None].clamp(max=2.0)], steps=steps, threshold="max")
    theta = converted.layers[0].theta
    assert theta == 2.0
    wanted = (a * steps / theta + 0.5).floor().clamp(0, steps) * theta / steps
    assert torch.equal(converted(a[:, None])[:, 0], wanted)
    inside = (a >= 0) & (a <= theta)
    assert converted.layers[0].bound == theta / (2 * steps)
    assert float((wanted - a)[inside].abs().max()) <= converted.layers[0].bound * (1 + 1e-6)


def test_the_error_falls_with_time_and_is_reported(trained) -> None:
    model, train, test = trained
    before = copy.deepcopy(model.state_dict())
    real = sq.evaluate(model, test).accuracy
    errors = {}
    for steps in (2, 8, 32):
        converted = sq.from_ann(model, train, steps=steps)
        errors[steps] = [layer.error for layer in converted.layers]
        assert [layer.path for layer in converted.layers] == ["2", "5"]
        assert "of the mean activation" in str(converted.layers[0])
    assert all(a > 1.8 * b > 3 * c for a, b, c in zip(errors[2], errors[8], errors[32], strict=True))
    assert sq.evaluate(converted, test).accuracy > real - 0.02
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, NeuronLayer) for module in model.modules())


def test_a_converted_network_becomes_integers(trained) -> None:
    model, train, test = trained
    example, _ = next(iter(test))
    converted = sq.from_ann(model, train, steps=8)
    real = copy.deepcopy(converted)
    sq.quantize_(converted, sq.Plan.uniform(weight_bits=4, membrane_bits=8), example, quiet=True)
    report = sq.calibrate(converted, train, max_batches=2)
    assert all(0 < layer.rate <= 1 for layer in report.layers), "rates count spikes, not their real size"
    sq.freeze(converted)
    net = sq.lower(converted, example)
    proof = sq.verify(converted, net, example)
    assert proof.differences == 0
    assert proof.spikes > 10_000
    assert sq.compare(real, converted, test).difference > -5.0
    reset, theta = net.neurons[0].params["reset"], net.neurons[0].params["theta"]
    assert (abs(reset - 2 * theta) <= 2).all(), "compares at half of what a spike takes away"


def test_each_call_starts_from_rest(trained) -> None:
    model, train, _ = trained
    converted = sq.from_ann(model, train, steps=4).eval()
    x, _ = next(iter(train))
    assert torch.equal(converted(x), converted(x))


def test_maximum_pooling_is_noted(trained) -> None:
    _, train, _ = trained
    converted = sq.from_ann(small_cnn(nn.MaxPool2d(2)), train, steps=4)
    assert converted.notes == (
        "3: the largest spike of a window stands for the spike of the largest, an error that does not fall with T; "
        "average pooling is exact",
    )
    assert sq.from_ann(small_cnn(), train, steps=4).notes == ()


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.act(self.first(x.flatten(1))) - 0.1))


class Twice(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.last(self.act(self.first(x.flatten(1)))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "no torch.nn.ReLU module"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU()), "2 is a GELU; expected linear layers"),
        (Functional(), "calls the function relu; make it a module"),
        (Twice(), "the module act is called 2 times in a forward pass"),
    ],
    ids=["no relu", "gelu", "functional", "twice"],
)
def test_what_has_no_spiking_form_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(sq.Unsupported, match=message):
        sq.from_ann(model, [torch.rand(4, 1, 8, 8)])


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "gave no batch"),
        ([torch.full((2, 1, 8, 8), float("nan"))], {}, "NaN"),
        ([torch.rand(2, 1, 8, 8)], {"steps": 0}, "steps is 0; expected 1 or more"),
        ([torch.rand(2, 1, 8, 8)], {"threshold": "median"}, "expected 'mse' or 'max'"),
    ],
)
def test_bad_input(batches: list[Tensor], options: dict[str, object], message: str) -> None:
    with pytest.raises(sq.DataError, match=message):
        sq.from_ann(small_cnn(), batches, **options)


def test_a_silent_layer_is_named() -> None:
    model = small_cnn()
    with torch.no_grad():
        model[4].bias.fill_(-100.0)
    with pytest.raises(sq.DataError, match="5 is 0 on all of the calibration data"):
        sq.from_ann(model, [torch.rand(4, 1, 8, 8)])


def test_the_threshold_of_least_error_clips_a_long_tail() -> None:
    counts = torch.zeros(4096, dtype=torch.int64).numpy()
    counts[:410] = 1000
    counts[-1] = 1
    found = Activations(10.0, counts, 500_000)
    assert found.least_error(8) < 2.0
    assert found.least_error(4096) > 9.0
    assert found.share_above(1.5) == pytest.approx(1 / 500_000)


def test_a_soft_reset_has_an_amount_of_its_own() -> None:
    neuron = sq.nn.IF(threshold=0.5, reset_by=1.0)
    spikes = neuron(torch.full((4, 1, 1), 0.25))
    assert spikes.flatten().tolist() == [0.0, 1.0, 0.0, 0.0]  # v: .25, .5 -> -.5, -.25, 0
    with pytest.raises(sq.Unsupported, match="amount of a soft reset"):
        sq.nn.IF(reset="zero", reset_by=1.0)


class Flattening(nn.Module):
    """Operations outside of modules, in the forward pass itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).flatten(1))


def test_operations_of_the_forward_pass_are_the_same_at_every_step():
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    net = sq.from_ann(Flattening().eval(), [x], steps=6)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x, quiet=True)
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, x), x)
    assert proof.differences == 0
    assert proof.spikes > 0
