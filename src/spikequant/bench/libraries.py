"""The same network in other libraries: float, and quantized by what each of them offers.

Every function imports its library when it is called; one that is not installed gives no rows and is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.bench.parts import LEAK, Parts

Named = Iterator[tuple[str, str, Parts]]
"""Name of the row, kind (``"float"``, ``"weights"`` or ``"weights and membrane"`` quantized), and parts."""


def spikingjelly(bits: int) -> Named:
    """Multi-step and single-step; quantized weights and membranes by ``activation_based.quantize``."""
    from spikingjelly.activation_based import functional, neuron, quantize, surrogate

    options: dict[str, Any] = {
        "tau": 1 / (1 - LEAK), "decay_input": False, "v_threshold": 1.0, "v_reset": 0.0,
        "surrogate_function": surrogate.ATan(2.0), "detach_reset": True,
    }  # fmt: skip

    class QuantizedLIF(neuron.LIFNode):  # type: ignore[misc]
        """A membrane of whole levels from -1 to 1 between steps; the library has the function, not the layer."""

        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            return torch.stack([self.single_step_forward(x) for x in x_seq])

        def single_step_forward(self, x: Tensor) -> Tensor:
            spike: Tensor = super().single_step_forward(x)
            self.v: Tensor = quantize.k_bit_quantize((self.v.clamp(-1.0, 1.0) + 1.0) / 2.0, k=bits) * 2.0 - 1.0
            return spike

    def multi(kind: type[nn.Module]) -> Callable[[], nn.Module]:
        return lambda: kind(step_mode="m", **options)

    def single(kind: type[nn.Module]) -> Callable[[], nn.Module]:
        return lambda: kind(step_mode="s", **options)

    weights = _hooked(lambda w: _symmetric(w, lambda u: quantize.k_bit_quantize(u, k=bits)))
    many = Parts(multi(neuron.LIFNode), "first", reset=functional.reset_net)
    one = Parts(single(neuron.LIFNode), "loop", reset=functional.reset_net)
    yield "SpikingJelly, multi-step", "float", many
    yield "SpikingJelly, single-step", "float", one
    yield f"SpikingJelly, multi-step, its W{bits}", "weights", replace(many, weighted=weights)
    yield f"SpikingJelly, single-step, its W{bits}", "weights", replace(one, weighted=weights)
    yield (
        f"SpikingJelly, multi-step, its W{bits}, membrane hand-made U{bits}",
        "weights and membrane",
        replace(many, weighted=weights, neuron=multi(QuantizedLIF)),
    )


def snntorch(bits: int) -> Named:
    """Hidden states in a loop over time; weights by Brevitas, membranes by ``state_quant``."""
    import snntorch as snn
    from snntorch import surrogate, utils
    from snntorch.functional import quant

    def neuron(**options: Any) -> Callable[[], nn.Module]:
        given = {"spike_grad": surrogate.atan(alpha=2.0), "reset_mechanism": "zero", "init_hidden": True} | options
        return lambda: snn.Leaky(beta=LEAK, **given)

    plain = Parts(neuron(), "loop", reset=utils.reset)
    yield "snnTorch", "float", plain
    weights = brevitas_weights(bits)
    if weights is not None:
        yield f"snnTorch + Brevitas W{bits}", "weights", replace(plain, weighted=weights)
        state = quant.state_quant(num_bits=bits, uniform=True, threshold=1.0)
        both = replace(plain, weighted=weights, neuron=neuron(state_quant=state))
        yield f"snnTorch + Brevitas W{bits} + state_quant U{bits}", "weights and membrane", both


def norse(bits: int) -> Named:
    """``LIFBoxCell`` in ``SequentialState``-like use: a loop over time; weights by Brevitas."""
    from norse.torch import LIFBoxCell, LIFBoxParameters

    class Cell(nn.Module):
        """Keeps the state between calls."""

        def __init__(self) -> None:
            super().__init__()
            self.cell = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.tensor(1.0 - LEAK)), dt=1.0)
            self.state: Any = None

        def forward(self, x: Tensor) -> Tensor:
            spikes, self.state = self.cell(x, self.state)
            return spikes  # type: ignore[no-any-return]

    def rest(net: nn.Module) -> None:
        for module in net.modules():
            if isinstance(module, Cell):
                module.state = None

    plain = Parts(Cell, "loop", reset=rest, gain=1 / (1 - LEAK))
    yield "Norse", "float", plain
    weights = brevitas_weights(bits)
    if weights is not None:
        yield f"Norse + Brevitas W{bits}", "weights", replace(plain, weighted=weights)


def sinabs(bits: int) -> Named:
    """Batch first, all steps in a call; weights by Brevitas."""
    from sinabs import reset_states
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF

    tau = -1.0 / math.log(LEAK)
    options: dict[str, Any] = {
        "tau_mem": tau, "spike_fn": SingleSpike, "reset_fn": MembraneReset(), "norm_input": False,
    }  # fmt: skip
    plain = Parts(lambda: LIF(**options), "second", reset=reset_states)
    yield "sinabs", "float", plain
    weights = brevitas_weights(bits)
    if weights is not None:
        yield f"sinabs + Brevitas W{bits}", "weights", replace(plain, weighted=weights)


LIBRARIES: dict[str, Callable[[int], Named]] = {
    "spikingjelly": spikingjelly, "snntorch": snntorch, "norse": norse, "sinabs": sinabs,
}  # fmt: skip


def brevitas_weights(bits: int) -> Callable[[nn.Module], nn.Module] | None:
    """Brevitas' layers with weights of that many bits, per tensor; None where it is not installed."""
    try:
        from brevitas.nn import QuantConv2d, QuantLinear
    except ImportError:
        return None

    def quantized(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Linear):
            return QuantLinear(  # type: ignore[no-any-return]
                layer.in_features, layer.out_features, bias=layer.bias is not None, weight_bit_width=bits
            )
        assert isinstance(layer, nn.Conv2d)
        return QuantConv2d(  # type: ignore[no-any-return]
            layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding,
            bias=layer.bias is not None, weight_bit_width=bits,
        )  # fmt: skip

    return quantized


def _hooked(rule: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    """A layer whose weight is quantized by a function at every call."""

    class Linear(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return F.linear(input, rule(self.weight), self.bias)

    class Conv2d(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            convolved: Tensor = self._conv_forward(input, rule(self.weight), self.bias)
            return convolved

    def quantized(layer: nn.Module) -> nn.Module:
        layer.__class__ = Linear if isinstance(layer, nn.Linear) else Conv2d
        return layer

    return quantized


def _symmetric(weight: Tensor, on_unit: Callable[[Tensor], Tensor]) -> Tensor:
    largest = weight.detach().abs().max()
    quantized: Tensor = (on_unit(weight / (2 * largest) + 0.5) * 2 - 1) * largest
    return quantized
