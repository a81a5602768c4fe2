"""Networks of the kinds that NIR can hold, quantized and lowered, with data that make them fire."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.nn import IF, LIF, CubaLIF, LeakyIntegrator


class Chain(nn.Module):
    """Two layers of LIF with a soft reset and biases; spikes are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 24), LIF(leak=0.75, reset="subtract")
        self.fc2, self.lif2 = nn.Linear(24, 5), LIF(leak=0.9, reset="subtract")

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)


class Image(nn.Module):
    """A convolution, pooled currents, IF with a hard reset, and a readout that does not spike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.if1 = nn.Conv2d(2, 6, 3, padding=1), nn.AvgPool2d(2), IF(reset="zero")
        self.flat, self.fc, self.out = nn.Flatten(2), nn.Linear(6 * 16, 4), LeakyIntegrator(leak=0.9)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        spikes = self.if1(self.pool(self.conv(x.flatten(0, 1))).unflatten(0, (steps, batch)))
        return self.out(self.fc(self.flat(spikes)))[-1]


class Loop(nn.Module):
    """A recurrent layer of current-based neurons, in a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.back = nn.Linear(12, 16), nn.Linear(16, 16, bias=False)
        self.cuba = CubaLIF(leak=0.8, leak_i=0.6, step_mode="s")
        self.head, self.lif = nn.Linear(16, 4), LIF(leak=0.9, step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        spikes, count = x.new_zeros(x.shape[1], 16), x.new_zeros(x.shape[1], 4)
        for step in x:
            spikes = self.cuba(self.fc(step) + self.back(spikes))
            count = count + self.lif(self.head(spikes))
        return count


class Skip(nn.Module):
    """A residual sum of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 16), LIF(leak=0.8)
        self.fc2, self.lif2 = nn.Linear(16, 16), LIF(leak=0.8)
        self.fc3, self.lif3 = nn.Linear(16, 4), LIF(leak=0.8)

    def forward(self, x: Tensor) -> Tensor:
        first = self.lif1(self.fc1(x))
        return self.lif3(self.fc3(first + self.lif2(self.fc2(first)))).sum(0)


class Still(nn.Module):
    """A real image that stands still for ten steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 20), LIF(leak=0.7, reset="subtract", step_mode="s")
        self.fc2, self.lif2 = nn.Linear(20, 4), LIF(leak=0.8, reset="subtract", step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        count = x.new_zeros(len(x), 4)
        for _ in range(10):
            count = count + self.lif2(self.fc2(self.lif1(self.fc1(x))))
        return count


SHAPES = {"chain": (20, 6, 12), "image": (16, 4, 2, 8, 8), "loop": (20, 6, 12), "skip": (20, 6, 12), "still": (6, 12)}
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "chain": Chain, "image": Image, "loop": Loop, "skip": Skip, "still": Still,
}  # fmt: skip


def lowered(kind: str, *, weight_bits: int = 8, membrane_bits: int = 16, seed: int = 0):
    """``(network, input)`` of a kind."""
    torch.manual_seed(seed)
    model = MAKERS[kind]().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0.8 / fan_in, 1.6 / fan_in**0.5)
                if layer.bias is not None:
                    layer.bias.uniform_(-0.05, 0.25)
    x = torch.rand(SHAPES[kind])
    x = x if kind == "still" else (x < 0.4).float()
    state = {"bits": membrane_bits, "limit": 4.0, "rounding": "half_even"}
    everywhere = {"match": "*", "weight": {"bits": weight_bits}, "membrane": state, "leak": {"bits": 12}}
    rules = [{"match": "cuba", "membrane": state, "current": state, "leak": {"bits": 12}}] if kind == "loop" else []
    rules += [{"match": "fc1", "weight": {"bits": weight_bits}, "input": {"bits": 8}}] if kind == "still" else []
    rules += [{"match": "out", "membrane": {**state, "limit": 32.0}, "leak": {"bits": 12}}] if kind == "image" else []
    plan = sq.Plan.from_dict({"rules": [*rules, everywhere]})
    sq.quantize_(model, plan, x, quiet=True)
    sq.calibrate(model, [(x, torch.zeros(len(x)))])
    sq.freeze(model)
    return sq.lower(model, x), x
