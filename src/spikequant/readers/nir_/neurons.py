"""One neuron of the law as a node of NIR: time constants at a stated step, and where the two differ.

The plain neuron is meant for forward Euler: with ``d = leak / 2^bits`` the share of a state
that is left after one step of `dt`,

    tau = dt / (1 - d),   r = tau / dt   (so that the input counts 1),   v_threshold = (theta - 1/2) lsb

The half makes ``v > v_threshold`` the integers' ``v >= theta``, whichever comparator a
simulator has.  A soft reset subtracts the threshold in NIR; there it is the ``reset`` of the
integers, kept within (theta - 1, theta).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import Unsupported
from spikequant.law.network import NeuronNode
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

Reals = npt.NDArray[np.float64]
SLOWEST = 1 - 2.0**-24
"""A membrane that keeps everything, beside a current that does not: the slowest decay that float32 tells from 1."""
SILENT = ("narrow", "narrow_current", "narrow_input", "bound", "decay_threshold", "raise_threshold")


@dataclass
class PlainNeuron:
    """What one neuron node becomes.

    Attributes:
        kind: the primitive.
        fields: its arrays, each of the neuron's shape.
        factor: what every input (and bias) is multiplied by, besides its gain.
        after: what a leak behind the sum leaves of what was added to the membrane.
        bias: real bias that the weights in front should carry, or None.
        reset: ``subtract``, ``v_reset`` or None for a neuron that is never reset.
        current: ``same_step``, ``next_step``, or None without a current.
        deviations: where the plain neuron differs from the integers, in words.
    """

    kind: str
    fields: dict[str, Reals]
    factor: Reals
    after: Reals
    bias: Reals | None = None
    reset: str | None = None
    current: str | None = None
    deviations: list[str] = field(default_factory=list)


def refuse(node: NeuronNode, what: str) -> NoReturn:
    """The one form of a refusal."""
    raise Unsupported(f"node {node.name} ({type(node).__name__}): NIR cannot express {what}")


def real_lsb(node: NeuronNode) -> Reals:
    """Real value of one accumulator LSB, one number or one per channel; 1 where the network does not say."""
    if node.scale is None:
        return np.ones(())
    scale = np.asarray(node.scale, dtype=np.float64)
    if scale.size == 1:
        scale = scale.reshape(())
    elif scale.ndim == 1 and len(scale) == node.shape[0] and len(node.shape) > 1 and len(scale) != node.shape[-1]:
        scale = scale.reshape(-1, *([1] * (len(node.shape) - 1)))
    try:
        fits = np.broadcast_shapes(scale.shape, node.shape) == node.shape
    except ValueError:
        fits = False
    if not fits or not bool(np.isfinite(scale).all()) or bool((scale <= 0).any()):
        refuse(node, f"a scale of shape {scale.shape} with values from {scale.min():g} to {scale.max():g}")
    return scale


def plain_neuron(node: NeuronNode, dt: float) -> PlainNeuron:
    """The primitive and its values; raises with the node's name where NIR has none."""
    spec, lsb = node.spec, real_lsb(node)
    _refuse_what_is_missing(node)
    order: list[str] = [phase for phase in spec.order if phase not in SILENT]
    decay, notes = _decay(node, spec.leak, "leak"), _deviations(node)
    made = PlainNeuron("", {}, np.ones(()), np.ones(()), deviations=notes)
    _place_of_the_leak(node, order, decay, made)
    fields: dict[str, Reals] = {}
    if spec.has_current:
        _current(node, order, decay, dt, made, fields)
    elif spec.leak.form == "none" or bool((decay == 1).all()):
        made.kind, fields["r"] = "I", np.full((), 1 / dt)
    else:
        made.kind = "LI"
        tau = dt / (1 - np.minimum(decay, SLOWEST))
        fields |= {"tau": tau, "r": tau / dt}
    _biases(node, lsb, decay, made, fields)
    if spec.output == "spike":
        made.kind = {"I": "IF", "LI": "LIF", "CubaLI": "CubaLIF"}[made.kind]
        _fire(node, order, lsb, made, fields)
    made.fields = {name: np.broadcast_to(value, node.shape) for name, value in fields.items()}
    return made


def _refuse_what_is_missing(node: NeuronNode) -> None:
    spec = node.spec
    if spec.has_adaptation:
        refuse(node, "an adaptive threshold")
    if spec.spikes_max > 1:
        refuse(node, f"up to {spec.spikes_max} spikes of a neuron in one step")
    if spec.refractory:
        refuse(node, f"a refractory time ({spec.refractory} steps)")
    if spec.output == "spike" and spec.reset == "none":
        refuse(node, "a neuron that fires and is never reset")
    if spec.output == "spike" and spec.order.index("fire") < spec.order.index("integrate"):
        refuse(node, f"a neuron that fires before it integrates; its order is {', '.join(spec.order)}")


def _decay(node: NeuronNode, leak: Leak | None, key: str) -> Reals:
    """The share of a state that one step leaves."""
    if leak is None or leak.form == "none":
        return np.ones(())
    if leak.form.startswith("constant"):
        refuse(node, f"a leak by a constant ({key}: {leak.form})")
    amount = np.asarray(node.params[key], dtype=np.float64)
    if leak.form == "multiply":
        decay = amount / 2.0**leak.bits
    else:
        decay = 1 - 0.5**amount
        if leak.form == "two_shifts":
            decay = decay - 0.5 ** np.asarray(node.params[f"{key}2"], dtype=np.float64)
    if bool((decay < 0).any()) or bool((decay > 1).any()):
        refuse(node, f"a state that one step multiplies by {decay.min():g} to {decay.max():g} ({key})")
    return decay


def _place_of_the_leak(node: NeuronNode, order: list[str], decay: Reals, made: PlainNeuron) -> None:
    """A leak behind the sum also takes its share of the input."""
    word = "leak" if "leak" in order else "leak_unless_fired"
    if word not in order:
        return
    here, end = order.index(word), order.index("fire") if "fire" in order else len(order)
    if order.index("integrate") < here < end:
        made.factor = made.after = decay
    elif here > end and "reset" in order and here < order.index("reset") and node.spec.reset != "zero":
        made.deviations.append("the integers reset after their leak, the plain neuron before")
    if word == "leak_unless_fired" and node.spec.reset != "zero":
        made.deviations.append("the integers do not leak in a step in which they fire, the plain neuron does")


def _current(
    node: NeuronNode, order: list[str], decay: Reals, dt: float, made: PlainNeuron, fields: dict[str, Reals]
) -> None:
    """A synaptic current: ``i <- d_syn i + x``, then ``v <- d v + i``, or the membrane first."""
    if "decay_current" not in order:
        refuse(node, "a synaptic current that never decays")
    first, second = sorted(order.index(p) for p in ("decay_current", "add_current"))
    integrate = order.index("integrate")
    if first < integrate < second:
        refuse(node, f"a membrane that integrates between decay and sum of its current ({', '.join(order)})")
    made.current = "same_step" if second < integrate else "next_step"
    if made.current == "next_step" and node.spec.output == "spike" and first < order.index("fire"):
        refuse(node, f"a current that moves between membrane and spike ({', '.join(order)})")
    decay_i = _decay(node, node.spec.leak_i, "leak_i")
    if order.index("add_current") < order.index("decay_current"):
        made.factor = made.factor * decay_i
    tau, tau_i = (dt / (1 - np.minimum(d, SLOWEST)) for d in (decay, decay_i))
    for word, d in (("membrane", decay), ("current", decay_i)):
        if bool((d > SLOWEST).any()):
            made.deviations.append(f"the {word} does not decay; the plain one loses 2^-24 of itself in a step")
    made.kind = "CubaLI"
    fields |= {"tau_mem": tau, "tau_syn": tau_i, "r": tau / dt, "w_in": tau_i / dt}


def _biases(node: NeuronNode, lsb: Reals, decay: Reals, made: PlainNeuron, fields: dict[str, Reals]) -> None:
    """``bias`` comes with the input, ``v_bias`` as a leak toward a rest that is not 0."""
    bias = np.asarray(node.params.get("bias", 0), dtype=np.float64) * lsb * made.factor
    made.bias = bias if bool(bias.any()) else None
    extra = np.asarray(node.params.get("v_bias", 0), dtype=np.float64) * lsb
    if made.kind != "I":
        fields["v_leak"] = extra * made.after / (1 - np.minimum(decay, SLOWEST))
    elif bool(extra.any()):
        refuse(node, "a bias of a membrane that does not leak (v_bias)")


def rest_for_bias(made: PlainNeuron, node: NeuronNode) -> None:
    """Give a bias that no weights in front can carry to the neuron's rest; raises where there is none."""
    if made.bias is None:
        return
    if made.kind not in ("LIF", "LI"):
        refuse(node, f"a bias of a {made.kind} that no layer of weights stands directly in front of")
    share = made.fields["r"] ** -1.0  # 1 - decay
    made.fields["v_leak"] = made.fields["v_leak"] + np.broadcast_to(made.bias, node.shape) / share
    made.bias = None


def _fire(node: NeuronNode, order: list[str], lsb: Reals, made: PlainNeuron, fields: dict[str, Reals]) -> None:
    spec = node.spec
    theta = np.asarray(node.params["theta"], dtype=np.float64)
    reset = np.asarray(node.params.get("reset", 0), dtype=np.float64)
    made.reset = "subtract" if spec.reset == "subtract" else "v_reset"
    level = np.clip(reset, theta - 0.75, theta - 0.25) if spec.reset == "subtract" else theta - 0.5
    if spec.reset == "subtract" and bool((np.abs(level - reset) > 1).any()):
        worst = float(np.abs(theta - reset).max())
        made.deviations.append(
            f"the integers fire at theta and subtract another number (up to {worst:g} LSBs apart); the plain neuron "
            "subtracts its threshold"
        )
    fields["v_threshold"] = level * lsb
    fields["v_reset"] = reset * lsb if spec.reset == "value" else np.zeros(())
    if "reset_delayed" in order:
        leak = order.index("leak") if "leak" in order else len(order)
        exact = spec.reset == "subtract" and spec.leak.form == "none"
        if not exact and order.index("reset_delayed") > min(leak, order.index("integrate")):
            made.deviations.append("the integers reset one step after the spike, the plain neuron at once")


def _deviations(node: NeuronNode) -> list[str]:
    """What no plain neuron does, in words without the node's name."""
    spec = node.spec
    found = []

    def registers(s: NeuronSpec) -> list[StateFormat]:
        return [r for r in (s.v, s.i) if r is not None]

    checks: tuple[tuple[str, Callable[[NeuronSpec], Any]], ...] = (
        ("the integers' membrane has a lower bound", lambda s: s.lower != "none"),
        ("the integers' input register is narrow", lambda s: s.x is not None),
        ("the integers round stochastically", lambda s: "stochastic" in [r.rounding for r in registers(s)]),
        ("the integers' membrane takes few levels", lambda s: any(r.levels for r in registers(s))),
        ("the integers wrap at the ends of a register", lambda s: "wrap" in [r.overflow for r in registers(s)]),
        ("the integers' leak is at least 1", lambda s: "shift_forced" in [k.form for k in (s.leak, s.leak_i) if k]),
    )  # fmt: skip
    for text, is_so in checks:
        if is_so(spec):
            found.append(text)
    return found
