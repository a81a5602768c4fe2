"""Levels of membranes that are not in the package: k-means, LQ-Net's basis pooled over the steps or step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.registers import Registers
from spikequant.nn import QuantizedNeuron
from spikequant.quantize.settle_levels import k_means_with_zero

SAMPLES = 2**14


class Recorder:
    """What reaches the levels of a layer before it is put on one, step by step."""

    def __init__(self) -> None:
        self.codes: list[Tensor] | None = None
        plain = Registers.on_a_level

        def recording(registers: Any, code: Any, fmt: Any) -> Any:
            if self.codes is not None:
                self.codes.append(code.detach())
            return plain(registers, code, fmt)

        Registers.on_a_level = recording  # type: ignore[method-assign]


def table_of(codes: Tensor, basis: Tensor) -> Tensor:
    """All sums of a basis under some codes, ascending."""
    return (codes @ basis).sort().values


def all_codes(bits: int, low: float) -> Tensor:
    """``[2^bits, bits]`` of `low` and 1."""
    numbers = torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1
    return torch.where(numbers == 1, 1.0, low).to(torch.float64)


def lq_pass(values: Tensor, basis: Tensor, codes: Tensor, ridge: float) -> Tensor:
    """The least-squares basis for the nearest codes of `values`."""
    nearest = codes[(values[:, None] - codes @ basis).abs().argmin(1)]
    gram = nearest.T @ nearest + ridge * torch.eye(len(basis), dtype=torch.float64)
    return torch.linalg.solve(gram, nearest.T @ values + ridge * basis)


def sample(values: Tensor) -> Tensor:
    """Some of the values, evenly taken."""
    flat = values.reshape(-1).to(torch.float64)
    return flat[:: max(1, len(flat) // SAMPLES)]


def use(neuron: QuantizedNeuron, levels: Tensor) -> None:
    """Levels with the cut halfway."""
    neuron.set_levels(levels, (levels[1:] + levels[:-1]) / 2)
    neuron.programs.clear()


class LQMembrane:
    """LQ-Net on the membrane of one layer."""

    def __init__(self, neuron: QuantizedNeuron, recorder: Recorder, *, pooled: bool) -> None:
        self.neuron, self.recorder, self.pooled = neuron, recorder, pooled
        bits = neuron.choice.membrane.bits
        self.codes = all_codes(bits, 0.0 if pooled else -1.0)
        self.momentum, self.ridge = (0.99, 1e-2) if pooled else (0.9, 1e-4)
        values = sample(torch.cat(neuron.seen))
        self.basis = float(values.abs().quantile(0.99)) * 2.0 ** torch.arange(bits).double() / (2**bits - 1)
        if pooled and float(values.quantile(0.05)) < 0:  # one level below 0: a negative number in the basis
            self.basis[0] = values.quantile(0.02)
        for _ in range(30):
            self.basis = lq_pass(values, self.basis, self.codes, self.ridge)
        self.place()
        neuron.register_forward_pre_hook(self.before)
        neuron.register_forward_hook(self.after)

    def place(self) -> None:
        use(self.neuron, table_of(self.codes, self.basis))

    def before(self, *_: Any) -> None:
        if self.neuron.training:
            self.recorder.codes = []
            self.neuron.watch = []  # the plain loop, in which the recorder sees every step

    def after(self, *_: Any) -> None:
        if not self.neuron.training or self.recorder.codes is None:
            return
        seen, self.recorder.codes, self.neuron.watch = self.recorder.codes, None, None
        with torch.no_grad():
            steps = [sample(code * self.neuron.units["v"].detach()) for code in seen]
            for values in [torch.cat(steps)] if self.pooled else steps:
                new = lq_pass(values, self.basis, self.codes, self.ridge)
                self.basis = self.momentum * self.basis + (1 - self.momentum) * new
            self.place()


def placed(model: nn.Module, way: str, recorder: Recorder) -> None:
    """Replace what `calibrate` found by a candidate."""
    for neuron in [m for m in model.modules() if isinstance(m, QuantizedNeuron) and m.choice.membrane.learned]:
        if way == "k-means":
            values, count = sample(torch.cat(neuron.seen)), 2**neuron.choice.membrane.bits
            start = values.quantile(torch.linspace(0.01, 0.99, count).double())
            start[start.abs().argmin()] = 0.0
            use(neuron, k_means_with_zero(values, start.sort().values))
        elif way != "learned":
            LQMembrane(neuron, recorder, pooled=way == "LQ pooled")
