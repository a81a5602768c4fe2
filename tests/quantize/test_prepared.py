"""A prepared model in a file: same codes, same outputs, before and after `freeze`; clear errors for other files."""

from __future__ import annotations

import copy
import functools
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import spikequant as sq
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.nn.over_time import OverTime

PLANS = [
    sq.Plan.uniform(weight_bits=4, membrane_bits=6),
    sq.Plan.uniform(weight_bits=3, weight_quantizer="lsq", membrane_bits=5, input_bits=6),
    sq.Plan.uniform(weight_quantizer="ternary", membrane_bits=8, membrane_rounding="stochastic"),
    sq.Plan.uniform(weight_bits=4, membrane_bits=8, threshold_bits=6, leak_bits=4, bias_bits=6, current_bits=7),
]


class Conv(nn.Module):
    """Batch norm, pooling, a skip connection, a current-based layer, multi-step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = OverTime(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.lif1 = sq.nn.LIF(leak=0.75, threshold=0.3)
        self.left, self.right = OverTime(nn.Conv2d(6, 6, 3, padding=1)), OverTime(nn.Conv2d(6, 6, 1))
        self.lif2 = sq.nn.LIF(leak=0.5, threshold=0.3, reset="subtract", learn=("threshold",))
        self.pool = OverTime(nn.AvgPool2d(2))
        self.fc1, self.fc2 = nn.Linear(6 * 16, 12), nn.Linear(12, 4)
        self.cuba, self.out = sq.nn.CubaLIF(leak=0.7, leak_i=0.4, threshold=0.3), sq.nn.IF(threshold=0.1)

    def forward(self, x):
        x = self.lif1(self.conv(x))
        x = self.pool(self.lif2(self.left(x) + self.right(x)))
        return self.out(self.fc2(self.cuba(self.fc1(x.flatten(2))))).sum(0)


@functools.cache
def once(number):
    """A trained model of a plan; tests take copies."""
    return made(PLANS[number], drive())


def trained(plan, x):
    return copy.deepcopy(once(PLANS.index(plan)))


def made(plan, x):
    torch.manual_seed(0)
    model = Conv()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    sq.quantize_(model, plan, x, quiet=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    sq.calibrate(model, [x])
    return model.eval()


def drive():
    return torch.rand(4, 3, 2, 8, 8, generator=torch.manual_seed(3)) * 2


def same(model, again, x):
    assert torch.equal(model(x), again(x))
    for one, other in zip(model.modules(), again.modules(), strict=True):
        if isinstance(one, Synapse):
            assert torch.equal(one.codes(), other.codes())
        if isinstance(one, QuantizedNeuron):
            mine, theirs = one.integers(), other.integers()
            assert mine.spec == theirs.spec
            assert all(torch.equal(value, theirs.params[name]) for name, value in mine.params.items())


@pytest.mark.parametrize("plan", PLANS)
def test_round_trip_is_exact_before_and_after_freeze(plan, tmp_path):
    x = drive()
    model = trained(plan, x)
    with torch.no_grad():
        sq.save_prepared(model, tmp_path / "net.safetensors")
        again = sq.load_prepared(Conv, tmp_path / "net.safetensors").eval()
        same(model, again, x)
        assert model.lif1(model.conv(x)).sum() > 100
    torch.manual_seed(1)
    again.train()
    again(x).square().sum().backward()  # it trains on
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)
    sq.freeze(model)
    sq.save_prepared(model, tmp_path / "frozen.safetensors")
    frozen = sq.load_prepared(Conv, tmp_path / "frozen.safetensors").eval()
    with torch.no_grad():
        same(model, frozen, x)
    lowered = sq.lower(frozen, x)
    assert sq.verify(frozen, lowered, x).differences == 0
    assert all(torch.equal(torch.tensor(a), torch.tensor(b)) for a, b in zip(
        sq.lower(model, x).vectors.scores, lowered.vectors.scores, strict=True))  # fmt: skip


def test_nothing_in_the_file_is_a_pickle(tmp_path):
    sq.save_prepared(trained(PLANS[0], drive()), tmp_path / "net.safetensors")
    with safe_open(str(tmp_path / "net.safetensors"), framework="pt") as file:
        record = json.loads(json.loads(file.metadata()["spikequant"])["record"])
    assert record["format"] == "spikequant-prepared"
    assert {layer["kind"] for layer in record["layers"]} == {"synapse", "norm", "neuron"}


def test_a_real_model_is_refused(tmp_path):
    with pytest.raises(sq.NotFrozen, match="nothing"):
        sq.save_prepared(Conv(), tmp_path / "net.safetensors")


class Smaller(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6 * 16, 11)


class Other(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.lif1 = sq.nn.LIF(leak=0.75, threshold=0.3, reset="subtract")


class Shorter(Conv):
    def __init__(self) -> None:
        super().__init__()
        del self.cuba


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Smaller, "the tensors do not fit the model"),
        (Other, "lif1 is another neuron than the saved one"),
        (Shorter, "the model has no layer 'cuba'"),
        (lambda: trained(PLANS[0], drive()), "quantized already"),
    ],
)
def test_another_model_is_refused(build, message, tmp_path):
    sq.save_prepared(trained(PLANS[0], drive()), tmp_path / "net.safetensors")
    with pytest.raises(sq.ArtifactError, match=message):
        sq.load_prepared(build, tmp_path / "net.safetensors")


def test_a_model_is_as_it_was_when_loading_fails(tmp_path):
    sq.save_prepared(trained(PLANS[0], drive()), tmp_path / "net.safetensors")
    model = Other()
    before = dict(model.named_modules())
    with pytest.raises(sq.ArtifactError):
        sq.load_prepared(model, tmp_path / "net.safetensors")
    assert all(a is b for a, b in zip(before.values(), model.modules(), strict=True))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    sq.save_prepared(trained(PLANS[0], drive()), path)
    content = path.read_bytes()
    cases = {
        "truncated": content[:-9],
        "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "empty": b"",
    }
    for name, damaged in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(sq.ArtifactError, match=r"damaged|hash"):
            sq.load_prepared(Conv, tmp_path / name)
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    with pytest.raises(sq.ArtifactError, match="without a spikequant record"):
        sq.load_prepared(Conv, tmp_path / "plain")
    with pytest.raises(sq.ArtifactError, match="no such file"):
        sq.load_prepared(Conv, tmp_path / "absent")
    with pytest.raises(sq.ArtifactError, match="cannot write"):
        sq.save_prepared(trained(PLANS[0], drive()), tmp_path / "absent" / "net.safetensors")
