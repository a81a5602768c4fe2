"""The differential equations of NIR's neurons as one step of the law.

With ``g`` the share of the way to its drive that a state goes in one step of `dt`:

=============  =================  ====================  ============================
integrator     decay of a state   share ``g``           exact for
=============  =================  ====================  ============================
euler          ``1 - dt / tau``   ``dt / tau``          forward Euler
exponential    ``exp(-dt/tau)``   ``1 - exp(-dt/tau)``  an input held over the step
impulse        ``exp(-dt/tau)``   ``dt / tau``          an input that is an impulse
=============  =================  ====================  ============================

``v <- decay v + g r x + g_leak v_leak`` where ``g_leak`` is ``1 - decay``; a synaptic current is
``i <- decay_syn i + g_syn w_in x``, and the membrane takes ``g r i``.  The law has no factor
between current and membrane, so its current is ``g r i``, with ``g r g_syn w_in`` as input
gain: the spikes are the same.  IF and I have no decay: ``v <- v + dt r x`` under every integrator.

Source: J. E. Pedersen et al., "Neuromorphic intermediate representation", Nature
Communications, 2024, table of primitives; which simulator integrates how is measured in
``tests/frontends/test_nir_traces.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from spikequant.law.errors import DataError, Unsupported
from spikequant.law.spec import Leak, NeuronSpec, Phase
from spikequant.nn import Neuron, Surrogate
from spikequant.readers.nir_.records import INTEGRATORS, NirNode

Integrator = Literal["euler", "exponential", "impulse"]
ResetName = Literal["v_reset", "subtract"]
Current = Literal["same_step", "next_step"]
Compare = Literal[">", ">="]
MULTIPLY = Leak(form="multiply")
CHOICES: dict[str, tuple[str, ...]] = {
    "integrator": get_args(Integrator),
    "reset": get_args(ResetName),
    "current": get_args(Current),
    "compare": get_args(Compare),
}
NEEDS: dict[str, tuple[str, ...]] = {
    "dt": ("IF", "LIF", "CubaLIF", "LI", "I", "CubaLI", "Delay"),
    "integrator": ("LIF", "CubaLIF", "LI", "CubaLI"),
    "reset": ("IF", "LIF", "CubaLIF"),
    "current": ("CubaLIF", "CubaLI"),
}
"""For which primitives a choice matters."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a NIR graph does not say.

    Attributes:
        dt: length of one step in the graph's unit of time (NIR: seconds; 1 where its writer counted steps).
        integrator: how a state goes through one step; see the table of this module.
        reset: ``v_reset`` sets the membrane to it, ``subtract`` takes the threshold away.
        current: whether a synaptic current moves the membrane in the step in which it changes, or in the next.
        compare: NIR says ``>``; some simulators fire at ``>=``.
    """

    dt: float | None = None
    integrator: Integrator | None = None
    reset: ResetName | None = None
    current: Current | None = None
    compare: Compare = ">"


Values = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def step_values(name: str, node: NirNode, choices: Choices) -> Values:
    """The values of the law for one node (``leak``, ``gain``, ``threshold``, ...), still in the shapes of the file."""
    given = {key: np.asarray(v, dtype=np.float64) for key, v in node.fields.items() if v is not None}
    if node.kind == "Threshold":
        return {"leak": np.zeros(()), "gain": np.ones(()), "threshold": given["threshold"]}
    dt = float(choices.dt or 0.0)
    if node.kind in ("IF", "I"):
        found: Values = {"gain": dt * given["r"]}
    else:
        tau = "tau_mem" if "tau_mem" in given else "tau"
        decay, share, rest = _one_step(f"{name}.{tau}", given[tau], dt, choices)
        found = {"leak": decay, "gain": share * given["r"]}
        if "tau_syn" in given:
            decay_i, share_i, _ = _one_step(f"{name}.tau_syn", given["tau_syn"], dt, choices)
            found |= {"leak_i": decay_i, "gain": share * given["r"] * share_i * given["w_in"]}
        if bool((given["v_leak"] != 0).any()):
            found["v_bias"] = rest * given["v_leak"]
    if "v_threshold" in given:
        found["threshold"] = given["v_threshold"]
        reset_to = given.get("v_reset", np.zeros(()))
        if choices.reset == "v_reset" and bool((reset_to != 0).any()):
            found["reset_to"] = reset_to
        elif bool((reset_to != 0).any()):
            raise Unsupported(
                f"{name}.v_reset: {_few(reset_to)} with reset='subtract', which takes the threshold away and "
                "has no such value; choose reset='v_reset', or set v_reset to 0"
            )
    return found


def _one_step(where: str, tau: Any, dt: float, choices: Choices) -> tuple[Any, Any, Any]:
    """Decay of a state, share of its drive, share of its rest."""
    if bool((tau <= 0).any()):
        raise DataError(f"{where}: {_few(tau)}; expected a positive time")
    x = dt / tau
    if choices.integrator == "euler":
        if bool((x > 1 + 1e-6).any()):
            raise Unsupported(
                f"{where}: {_few(tau)} is shorter than the step dt = {dt:g}, so that forward Euler overshoots; "
                "choose a smaller dt in the graph's unit of time, or another integrator"
            )
        x = np.minimum(x, 1.0)
        return 1 - x, x, x
    rest = -np.expm1(-x)
    return np.exp(-x), (rest if choices.integrator == "exponential" else x), rest


def _few(values: Any) -> str:
    flat = np.unique(values)
    return f"{flat[0]:g}" if flat.size == 1 else f"{flat[0]:g} to {flat[-1]:g}"


def neuron_spec(node: NirNode, values: Values, choices: Choices) -> NeuronSpec:
    """The phases of one step."""
    fires = node.kind not in INTEGRATORS
    order: list[Phase] = ["leak", "integrate"] if "leak" in values else ["integrate"]
    reset = "none"
    if fires:
        order.append("fire")
    if fires and node.kind != "Threshold":
        order.append("reset")
        reset = "subtract" if choices.reset == "subtract" else "value" if "reset_to" in values else "zero"
    has_current = "leak_i" in values
    if has_current:
        current: list[Phase] = ["decay_current", "add_current"]
        order = [*current, *order] if choices.current == "same_step" else [*order, *current]
    return NeuronSpec(
        order=tuple(order),
        leak=MULTIPLY if "leak" in values else Leak(),
        leak_i=MULTIPLY if has_current else None,
        reset=reset,  # type: ignore[arg-type]
        compare=choices.compare if fires else ">=",
        output="spike" if fires else "state",
    )


def collapsed(where: str, value: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """A value with one number per neuron as one for all or one per channel, where that says the same.

    Raises:
        Unsupported: neurons of one channel differ.
    """
    flat = np.broadcast_to(value.reshape(-1) if value.size == 1 else value.reshape(shape), shape)
    if bool((flat == flat.reshape(-1)[0]).all()):
        return _tensor(flat.reshape(-1)[0])
    channels = flat.reshape(shape[0], -1)
    if bool((channels != channels[:, :1]).any()):
        raise Unsupported(
            f"{where}: neurons of one channel have different values, and a layer [C, H, W] shares one per channel; "
            "flatten the layer first (Flatten and Affine), or give every channel one value"
        )
    return _tensor(channels[:, 0])


def _tensor(value: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(value, dtype=np.float64), dtype=torch.get_default_dtype())


def make_neuron(
    name: str,
    node: NirNode,
    shape: tuple[int, ...],
    choices: Choices,
    surrogate: Surrogate | None,
    *,
    gain_outside: bool = False,
) -> Neuron:
    """The layer of neurons that one node becomes; with `gain_outside` its input gain lies in the weights before it."""
    values = step_values(name, node, choices)
    if gain_outside or bool((values["gain"] == 1).all()):
        del values["gain"]
    real = {key: collapsed(f"{name}: {key}", value, shape) for key, value in values.items()}
    spec = neuron_spec(node, values, choices)
    return Neuron(spec, real, step_mode="s", surrogate=surrogate)


def delay_steps(name: str, delay: Any, dt: float) -> int:
    """A delay in whole steps, the same for all neurons."""
    steps = np.asarray(delay, dtype=np.float64).reshape(-1) / dt
    whole = np.rint(steps)
    if bool((np.abs(steps - whole) > 1e-3).any()) or steps.min() < 0 or steps.max() > 2**16:
        raise Unsupported(f"{name}.delay: {_few(delay)} are {_few(steps)} steps of dt = {dt:g}; expected whole steps")
    if whole.min() != whole.max():
        raise Unsupported(
            f"{name}.delay: {_few(whole)} steps in one node; a delay belongs to an edge of the whole layer, so give "
            "every group of neurons with one delay a Delay node (and a layer) of its own"
        )
    return int(whole[0])


def is_finite_step(dt: float | None) -> bool:
    """Whether `dt` can be the length of a step."""
    return dt is not None and math.isfinite(dt) and dt > 0
