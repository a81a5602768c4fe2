"""The neuron modules of plain PyTorch networks: the law read over real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law import presets
from spikequant.law.errors import DataError, Unsupported
from spikequant.law.spec import NeuronSpec
from spikequant.nn import kernels
from spikequant.nn.dialect import ValueSource
from spikequant.nn.layer import NeuronLayer
from spikequant.nn.loop import Noise, States
from spikequant.nn.torch_ops import TorchOps

LAW_NAMES = {"threshold": "theta"}
NOT_PARAMS = ("gain",)


def over_features(value: Tensor, features: int, *, last: bool = False) -> Tensor:
    """A per-channel ``[C]`` value shaped to broadcast against ``[..., C, *space]``."""
    if value.dim() != 1 or features <= 1 or last:
        return value
    return value.reshape(-1, *([1] * (features - 1)))


class Neuron(NeuronLayer):
    """A layer of real neurons; `LIF`, `IF`, ... below build it.

    Input and output are ``[T, N, *shape]`` in multi-step mode (``step_mode="m"``), where
    every call starts from rest, and ``[N, *shape]`` in single-step mode (``"s"``), where
    the state stays until `reset`.

    Attributes:
        spec: what the neuron is.
        threshold, leak, ...: its real values, scalars or one per channel; parameters where learned.
    """

    def __init__(
        self,
        spec: NeuronSpec,
        values: Mapping[str, float | Sequence[float] | Tensor],
        *,
        learn: Sequence[str] = (),
        sources: Mapping[str, ValueSource] | None = None,
        **options: Any,
    ) -> None:
        names = set(values) | set(learn)
        super().__init__({n: ValueSource((n,)) for n in names} if sources is None else sources, **options)
        self.spec = spec
        for name, given in values.items():
            value = torch.as_tensor(given, dtype=torch.get_default_dtype()).clone()
            if name in learn:
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    @property
    def neuron_spec(self) -> NeuronSpec:
        """What the neuron is."""
        return self.spec

    def real_params(self, features: int) -> dict[str, Tensor]:
        """The values under the law's names, shaped for `features` feature axes."""
        names = [n for n in self.value_names if n not in NOT_PARAMS]
        params = {LAW_NAMES.get(n, n): over_features(self.real_value(n), features) for n in names}
        if self.spec.reset == "subtract":
            params["reset"] = params.pop("reset_by", params["theta"])
        elif self.spec.reset == "value":
            params["reset"] = params.pop("reset_to")
        return params

    def ops(self, like: Tensor) -> TorchOps:
        """The reader of this layer: real numbers.

        The law compares ``theta >= v`` for a neuron that fires on ``v > theta``, so an
        uneven surrogate is turned around there.
        """
        surrogate = self.surrogate.mirrored() if self.spec.compare == ">" else self.surrogate
        return TorchOps(
            surrogate=surrogate, lsb=None, detach_reset=self.detach_reset, like=like, compares=self.compares
        )

    def advance(self, x: Tensor) -> Tensor:
        """Spikes (or the membrane of a readout) for the input currents."""
        features = self.check_features(x)
        if "gain" in self.sources:
            x = x * over_features(self.real_value("gain"), features)
        params = {name: value.to(x.dtype) for name, value in self.real_params(features).items()}
        output = run_neuron(self, self.ops(x), self.spec, params, x)
        return output if self.spike_unit == 1.0 else output * self.spike_unit

    def in_real_units(self, states: States) -> States:
        """The states themselves: they are real."""
        return states

    def stored(self, states: States) -> States:
        """The states themselves."""
        return dict(states)

    def extra_repr(self) -> str:
        """Order and reset, for printing."""
        return f"{' > '.join(self.spec.order)}, reset {self.spec.reset}, step_mode {self.step_mode}"


def run_neuron(
    module: NeuronLayer,
    ops: TorchOps,
    spec: NeuronSpec,
    params: Mapping[str, Tensor],
    x: Tensor,
    *,
    bias: Tensor | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Run a neuron module in its step mode, keeping its state where it keeps one; `bias` is added to every step."""
    keeps = module.step_mode == "s" or module.carries
    single = module.step_mode == "s"
    first_step = module.steps_done if keeps else 0
    states = module.state if keeps else None
    if states is not None and states["v"].shape != (x.shape if single else x.shape[1:]):
        raise DataError(
            f"a neuron layer holds a state of shape {tuple(states['v'].shape)} and was given {tuple(x.shape)}; "
            "call spikequant.reset(model) between batches"
        )
    given = kernels.Run(ops, spec, params, bias, noise, first_step, keeps, single)
    outputs, states = kernels.run(module, given, x, states)
    if keeps:
        module.state, module.steps_done = states, first_step + (1 if single else len(x))
    return outputs


def LIF(
    *,
    leak: float | Tensor = 0.5,
    threshold: float | Tensor = 1.0,
    reset: str = "zero",
    order: str = "leak_first",
    **options: Any,
) -> Neuron:
    """Leaky integrate-and-fire, ``v = leak * v + x``.

    Args:
        leak: share of the membrane that stays in one step (``1 - 1/tau``, or ``beta``).
        threshold: fires at ``v >= threshold``.
        reset: ``"zero"``, ``"subtract"`` or ``"none"``.
        order: ``"leak_first"``, ``"leak_last"`` or ``"delayed_reset"`` (snnTorch's default timing).
        options: ``learn``, ``step_mode``, ``surrogate``, ``detach_reset`` of `Neuron`.
    """
    name = f"lif_{order}"
    if name not in presets.PRESETS:
        raise Unsupported(f"LIF order {order!r}; expected leak_first, leak_last or delayed_reset")
    return Neuron(presets.PRESETS[name](reset=reset), {"leak": leak, "threshold": threshold}, **options)


def IF(
    *, threshold: float | Tensor = 1.0, reset: str = "subtract", reset_by: float | Tensor | None = None, **options: Any
) -> Neuron:
    """Integrate-and-fire: ``v += x``, fires at ``v >= threshold``.

    Args:
        threshold: see above.
        reset: ``"zero"``, ``"subtract"`` or ``"none"``.
        reset_by: what a soft reset takes away, if not the threshold.  ``threshold=theta / 2, reset_by=theta`` is a
            neuron of threshold theta that starts half charged: the membrane is counted from theta / 2.
        options: ``learn``, ``step_mode``, ``surrogate``, ``detach_reset`` of `Neuron`.
    """
    if reset_by is not None and reset != "subtract":
        raise Unsupported(f"IF: reset_by is the amount of a soft reset, and reset is {reset!r}; expected 'subtract'")
    values = {"threshold": threshold} | ({} if reset_by is None else {"reset_by": reset_by})
    return Neuron(presets.PRESETS["if"](reset=reset), values, **options)


def CubaLIF(
    *,
    leak: float | Tensor = 0.5,
    leak_i: float | Tensor = 0.5,
    threshold: float | Tensor = 1.0,
    reset: str = "zero",
    **options: Any,
) -> Neuron:
    """Current-based LIF: ``i = leak_i * i + x``; ``v = leak * v + i``."""
    values = {"leak": leak, "leak_i": leak_i, "threshold": threshold}
    return Neuron(presets.PRESETS["cuba_lif"](reset=reset), values, **options)


def SingleState(*, leak: float | Tensor = 0.9, **options: Any) -> Neuron:
    """The one-state neuron of Lui & Neftci (2021): fires at ``u > 0``, a bias plays the threshold."""
    return Neuron(presets.single_state(), {"leak": leak, "threshold": 0.0}, **options)


def AdaptiveLIF(
    *,
    leak: float | Tensor = 0.99,
    leak_a: float | Tensor = 0.9999,
    adapt: float | Tensor = 0.05,
    threshold: float | Tensor = 1.0,
    reset: str = "zero",
    refractory: int = 5,
    **options: Any,
) -> Neuron:
    """Adaptive-threshold LIF with refractory time (Diehl & Cook 2015)."""
    values = {"leak": leak, "leak_a": leak_a, "adapt": adapt, "threshold": threshold}
    return Neuron(presets.PRESETS["adaptive_lif"](reset=reset, refractory=refractory), values, **options)


def MultiSpikeIF(*, threshold: float | Tensor = 1.0, spikes_max: int = 15, **options: Any) -> Neuron:
    """Integrate-and-fire that may fire several times in a step, up to `spikes_max`."""
    return Neuron(presets.multi_spike_if(spikes_max=spikes_max), {"threshold": threshold}, **options)


def LeakyIntegrator(*, leak: float | Tensor = 0.9, **options: Any) -> Neuron:
    """A readout that does not spike: its membrane ``v = leak * v + x`` leaves it."""
    return Neuron(presets.leaky_integrator(), {"leak": leak}, **options)
