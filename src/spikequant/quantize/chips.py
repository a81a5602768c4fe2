"""What a target makes of a plan and of the neurons of a model, before anything is quantized.

The profiles say what is allowed (`spikequant.targets`); this file says what is *chosen*: the integer form of each
neuron, the widths that the plan leaves open, and what the plan or the model asks for that the target has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from spikequant.capture import Graph
from spikequant.law.errors import PlanError, Unsupported
from spikequant.law.presets import MULTIPLY
from spikequant.law.spec import Leak, NeuronSpec, Phase
from spikequant.nn import Neuron
from spikequant.nn.chip import ChipRule
from spikequant.plan import LayerPlan, LeakRole, Plan, StateRole, TensorRole
from spikequant.quantize.groups import WEIGHTED, is_neuron, module_of
from spikequant.targets import Target, Violation, refusal, target
from spikequant.targets.loihi import DECAY_BITS, SHIFT
from spikequant.targets.loihi import STATE_BITS as LOIHI_BITS
from spikequant.targets.xylo import SPIKES_HIDDEN
from spikequant.targets.xylo import STATE_BITS as XYLO_BITS

CUBA: tuple[Phase, ...] = ("decay_current", "add_current", "leak", "integrate", "fire", "reset")
LIF: tuple[Phase, ...] = ("leak", "integrate", "fire", "reset")
XYLO: tuple[Phase, ...] = ("add_current", "decay_current", "leak", "integrate", "fire")
INTEGRATE: tuple[Phase, ...] = ("integrate", "fire", "reset")
EVENTS: tuple[Phase, ...] = ("integrate", "fire")
MCU_BITS, ACCUMULATOR_BITS = 16, 32
FIXED_STATES = {"loihi-cuba": LOIHI_BITS, "xylo": XYLO_BITS, "speck": 16}
"""Bits of the registers of targets that have one width only."""
ONE_SCALE = ("loihi-cuba", "speck")
"""Targets with one weight scale a layer."""
LOIHI_LEAK = Leak(form="multiply", bits=DECAY_BITS, rounding="toward_zero")
XYLO_LEAK = Leak(form="shift_forced")
# Weights of both signs are even on Loihi: codes of 8 bits, twice 2^6 accumulator LSBs each.
LOIHI_FRACTION_BITS = SHIFT + 1


def chip_readings(spec: NeuronSpec, name: str) -> tuple[NeuronSpec, ...]:
    """The real neurons that a target runs in the place of `spec`: as hidden and as output layer.

    Only Xylo changes the real neuron: its current decays in the step in which the input arrives (a gain of the weights
    undoes that), and hidden neurons fire up to 31 times in a step.
    """
    if target(name).name != "xylo" or spec.order != CUBA or spec.reset != "subtract":
        return (spec,)
    hidden = spec.replace(order=XYLO, spikes_max=SPIKES_HIDDEN, leak=MULTIPLY, leak_i=MULTIPLY)
    return hidden, spec.replace(order=(*XYLO, "reset"), leak=MULTIPLY, leak_i=MULTIPLY)


def named_target(plan: Plan, asked: str | None) -> Target:
    """The profile of a plan, or the one that is asked for.

    Raises:
        PlanError: both are given and differ.
    """
    chosen = target(asked or plan.target or "reference")
    if asked is not None and plan.target is not None and target(plan.target) is not chosen:
        raise PlanError(f"the plan is for {plan.target}, and target={asked!r} was asked for; give one of them")
    return chosen


def state_register(profile: Target) -> tuple[int, bool]:
    """Bits of a state on a target: at most, or exactly where the second is true.

    >>> state_register(target("xylo")), state_register(target("mcu-int8"))
    ((16, True), (16, False))
    """
    fixed = FIXED_STATES.get(profile.name)
    most = MCU_BITS if profile.name == "mcu-int8" else ACCUMULATOR_BITS
    return (most, False) if fixed is None else (fixed, True)


def has_one_scale(profile: Target) -> bool:
    """Whether a target has one weight scale a layer."""
    return profile.name in ONE_SCALE


class Chip:
    """One target during one call of `quantize_`."""

    def __init__(self, profile: Target) -> None:
        self.target = profile

    @property
    def is_free(self) -> bool:
        """Whether the target leaves everything to the plan."""
        return self.target.name == "reference"

    # -- before the network is read ------------------------------------------------------

    @contextmanager
    def restated(self, graph: Graph, model: nn.Module) -> Iterator[None]:
        """Give neurons the real form that the target runs; taken back if the block raises."""
        before: list[tuple[Neuron, NeuronSpec]] = []
        try:
            for node in graph.nodes:
                module = module_of(node, model)
                if isinstance(module, Neuron):
                    before.append((module, module.spec))
                    forms = chip_readings(module.spec, self.target.name)
                    module.spec = forms[-1] if graph.output.source == node.name else forms[0]
            yield
        except BaseException:
            for neuron, spec in before:
                neuron.spec = spec
            raise

    def refuse(self, graph: Graph, model: nn.Module, plan: Plan) -> None:
        """Raise with everything that neurons and plan ask for and the target has not.

        Raises:
            Unsupported: with every layer and limit.
        """
        found = [] if self.is_free else self._misfits(graph, model, plan.layer)
        if found:
            raise Unsupported(refusal(self.target, found))

    def _misfits(self, graph: Graph, model: nn.Module, plans: Callable[[str], LayerPlan]) -> list[Violation]:
        found = []
        for node in graph.nodes:
            module = module_of(node, model)
            if is_neuron(node, model) and isinstance(module, Neuron):
                found += [Violation(node=node.path, limit="neuron", text=text) for text in self._neuron(module.spec)]
                found += [Violation(node=node.path, limit="plan", text=t) for t in self._states(plans(node.path))]
            elif isinstance(module, WEIGHTED):
                found += [Violation(node=node.path, limit="plan", text=t) for t in self._weights(plans(node.path))]
        return found

    def _neuron(self, spec: NeuronSpec) -> list[str]:
        name, found = self.target.name, []
        if name == "mcu-int8":
            return []
        if spec.has_adaptation or spec.refractory or spec.lower != "none":
            found.append("an adaptive threshold, a refractory time or a lower bound, which this target does not have")
        if name == "xylo" and (spec.order != CUBA or spec.reset != "subtract"):
            found.append(
                f"runs {' > '.join(spec.order)} and resets by {spec.reset!r}; this target has a current and a membrane "
                "and subtracts: use CubaLIF(reset='subtract')"
            )
        if name == "loihi-cuba" and (spec.order not in (CUBA, LIF) or spec.reset != "zero"):
            found.append(
                f"runs {' > '.join(spec.order)} and resets by {spec.reset!r}; this target leaks first and resets to "
                "zero at once: use LIF(reset='zero') or CubaLIF(reset='zero')"
            )
        if name == "speck" and (spec.order not in (INTEGRATE, EVENTS) or spec.reset != "subtract"):
            found.append(
                f"runs {' > '.join(spec.order)} and resets by {spec.reset!r}; this target integrates without leak and "
                "subtracts: use IF() or MultiSpikeIF()"
            )
        return found

    def _states(self, plan: LayerPlan) -> list[str]:
        wanted = FIXED_STATES.get(self.target.name)
        found = []
        for role in ("membrane", "current"):
            asked = getattr(plan, role)
            if asked is None:
                continue
            if wanted is not None and asked.bits != wanted:
                found.append(f"the plan asks for a {role} of {asked.bits} bits; this target has {wanted}: leave it out")
            if self.target.name == "mcu-int8" and asked.bits > MCU_BITS:
                found.append(f"the plan asks for a {role} of {asked.bits} bits; this target has {MCU_BITS}")
        if plan.leak is not None and self.target.name in ("loihi-cuba", "xylo", "speck"):
            found.append("the plan asks for a leak; this target fixes its decays: leave the role out")
        return found

    def _weights(self, plan: LayerPlan) -> list[str]:
        found, role, shared = [], plan.weight, has_one_scale(self.target)
        if role is not None and role.bits is not None and role.bits > 8:
            found.append(f"the plan asks for {role.bits} weight bits; this target has 8")
        if role is not None and shared and role.per_channel and "per_channel" in role.model_fields_set:
            found.append("the plan asks for a scale per channel; this target has one per layer: per_channel = false")
        return found

    # -- while the network is dressed -------------------------------------------------------

    def layer(self, plan: LayerPlan, module: nn.Module | None) -> LayerPlan:
        """The plan of a layer with what it leaves open."""
        if self.is_free:
            return plan
        if isinstance(module, WEIGHTED):
            return plan.model_copy(update={"weight": self._weight_role(plan.weight)})
        if isinstance(module, Neuron):
            return plan.model_copy(update=self._state_roles(plan, module.spec))
        return plan

    def _weight_role(self, asked: TensorRole | None) -> TensorRole:
        role = asked or TensorRole(quantizer="uniform", bits=8, clipping="mse")
        if role.bits is None and role.quantizer == "uniform":
            role = role.model_copy(update={"bits": 8})
        if has_one_scale(self.target):
            role = role.model_copy(update={"per_channel": False})
        return role

    def _state_roles(self, plan: LayerPlan, spec: NeuronSpec) -> dict[str, Any]:
        name = self.target.name
        if name == "mcu-int8":
            found: dict[str, Any] = {"membrane": plan.membrane or StateRole(bits=MCU_BITS)}
            if spec.has_current:
                found["current"] = plan.current or StateRole(bits=MCU_BITS)
            return found
        if name == "loihi-cuba":
            membrane = StateRole(bits=LOIHI_BITS, narrow=True, rounding="floor")
            current = StateRole(bits=LOIHI_BITS, overflow="wrap", rounding="floor")
            leak = LeakRole(bits=DECAY_BITS, rounding="toward_zero")
            return {"membrane": membrane, "leak": leak} | ({"current": current} if spec.has_current else {})
        register = StateRole(bits=16, rounding="floor")
        return {"membrane": register} | ({"current": register} if spec.has_current else {})

    def rule(self, spec: NeuronSpec) -> ChipRule | None:
        """What the target fixes of a group whose real neuron (already restated) is `spec`."""
        name, tag = self.target.name, self.target.tag
        if name == "mcu-int8":
            return ChipRule(target=tag, accumulator_bits=ACCUMULATOR_BITS)
        if name == "speck":
            return ChipRule(target=tag, fraction_bits=0, counts_lsb=True, one_threshold=spec.reset == "subtract")
        if name == "loihi-cuba":
            cuba: tuple[Phase, ...] = (*CUBA[:2], "narrow_current", *CUBA[2:4], "narrow", *CUBA[4:])
            lif: tuple[Phase, ...] = (*LIF[:2], "narrow", *LIF[2:])
            return ChipRule(
                target=tag, order=cuba if spec.has_current else lif, fraction_bits=LOIHI_FRACTION_BITS, counts_lsb=True,
                leak=LOIHI_LEAK, leak_i=LOIHI_LEAK, theta_unit=2**SHIFT, theta_offset=1,
                bias_bits=None if spec.has_current else 13,
            )  # fmt: skip
        if name == "xylo":
            at = spec.order.index("fire")
            return ChipRule(
                target=tag, order=(*spec.order[:at], "narrow", *spec.order[at:]), fraction_bits=0, counts_lsb=True,
                leak=XYLO_LEAK, leak_i=XYLO_LEAK, one_threshold=True, decays_input=True,
            )  # fmt: skip
        return None
