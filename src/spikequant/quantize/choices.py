"""What a plan means for a model: whether all of it applies, and the registers of a neuron group."""

from __future__ import annotations

from torch import nn

from spikequant.capture import Graph
from spikequant.law.errors import PlanError, Unsupported
from spikequant.law.spec import MOST_LEVELS
from spikequant.nn import STATEFUL, Neuron, NeuronChoice, Register, WeightGrid
from spikequant.nn.chip import ChipRule
from spikequant.plan import LayerPlan, Plan, StateRole, TensorRole
from spikequant.quantize.groups import WEIGHTED, module_of
from spikequant.quantizers import Quantizer, ThresholdCentred, quantizer_from_dict

WIDE_STATE_BITS = 20
LEAST_SIGNED_BITS = 2


def check_plan(plan: Plan, graph: Graph, model: nn.Module) -> None:
    """Every rule must match a layer, and every role of it must apply to one of these."""
    names = {n.path: module_of(n, model) for n in graph.nodes if n.kind == "module"}
    layers = {p: m for p, m in names.items() if isinstance(m, (*WEIGHTED, *STATEFUL))}
    for rule in plan.rules:
        mine = [p for p in layers if next((r for r in plan.rules if r.matches(p)), None) is rule]
        if not any(rule.matches(p) for p in layers):
            raise PlanError(f"plan: the rule {rule.match!r} matches no layer; there are {', '.join(layers)}")
        if not mine:
            raise PlanError(
                f"plan: the rule {rule.match!r} is never used; rules above it match all of its layers first"
            )
        kinds = {"weight": WEIGHTED, "bias": WEIGHTED, "input": WEIGHTED}
        if rule.input is not None and not any(_reads_input(graph, p) for p in mine):
            raise PlanError(
                f"plan: the role 'input' of the rule {rule.match!r} applies to none of {', '.join(mine)}; "
                "only a layer that reads the network's input has one"
            )
        for role in rule.asked():
            if not any(isinstance(layers[p], kinds.get(role, STATEFUL)) for p in mine):
                raise PlanError(
                    f"plan: the role {role!r} of the rule {rule.match!r} applies to none of {', '.join(mine)}"
                )


def _reads_input(graph: Graph, path: str) -> bool:
    """Whether a layer is fed by the network's input, through nothing that has neurons or weights."""
    name = next(n.inputs[0].source for n in graph.nodes if n.path == path)
    while graph.node(name).kind in ("reshape", "module") and graph.node(name).inputs:
        if graph.node(name).per_step and graph.node(name).kind == "module":
            break
        name = graph.node(name).inputs[0].source
    return graph.node(name).kind == "input"


def _register(role: StateRole | None) -> Register | None:
    if role is None:
        return None
    if role.signed and role.bits == 1 and role.levels == "uniform":
        raise PlanError("a signed state of 1 bit holds only -1 and 0; set signed = false, or give it 2 bits")
    if role.unit == "weight" and role.limit is not None:
        raise PlanError(
            f"a state in units of the weights ends where its {role.bits} bits end; leave out limit = {role.limit}"
        )
    return Register(
        bits=role.bits,
        signed=role.signed,
        narrow=role.narrow,
        rounding="toward_zero" if role.rounding == "auto" else role.rounding,
        overflow=role.overflow,
        limit=role.limit,
        choose_rounding=role.rounding == "auto",
        clipping=role.clipping,
        unit=role.unit,
        learned=role.levels != "uniform",
        table=_table(role),
    )


def _table(role: StateRole) -> tuple[float, ...]:
    """Levels of a membrane that a quantizer names, as shares of the threshold; none for the others."""
    if role.levels != "threshold_centred":
        if role.options:
            raise PlanError(f"a state with {role.levels} levels has no options {role.options}")
        return ()
    given = {"name": role.levels, "bits": role.bits, "signed": role.signed, **role.options}
    quantizer = quantizer_from_dict(given)
    assert isinstance(quantizer, ThresholdCentred)
    return tuple(level / quantizer.per_threshold for level in quantizer.levels)


def _check_learned(role: StateRole | None, state: str, source: Neuron, where: str, chip: ChipRule | None) -> None:
    """Refuse levels of a table where they have no meaning."""
    if role is None or role.levels == "uniform":
        return
    spec, reason = source.spec, ""
    if state == "current":
        reason = "only a membrane has them"
    elif role.bits > MOST_LEVELS.bit_length() - 1:
        reason = f"{role.bits} bits are too many; expected 1 to {MOST_LEVELS.bit_length() - 1}"
    elif (
        role.unit == "weight"
        or role.limit is not None
        or role.overflow == "wrap"
        or role.rounding not in ("auto", "half_up")
    ):
        reason = "they leave no choice of unit, limit, overflow or rounding; drop these fields"
    elif spec.output == "state":
        reason = "a readout compares membranes, which needs equal steps; give it a rule of its own"
    elif spec.spikes_max > 1 or chip is not None:
        reason = "a neuron that fires several times in a step, or of a hardware target, cannot have them"
    if reason:
        raise PlanError(f"{where}.{state}: levels = {role.levels!r}: {reason}")


def neuron_choice(
    plan: LayerPlan, source: Neuron, bias: TensorRole | None, where: str, chip: ChipRule | None = None
) -> NeuronChoice:
    """The registers and quantizers of one neuron group; what the plan does not ask for is kept wide.

    A synaptic current that it does not ask for has as many bits as the register of a membrane that it does, and at
    least 2, as it is signed.
    """
    _check_learned(plan.membrane, "membrane", source, where, chip)
    _check_learned(plan.current, "current", source, where, chip)
    membrane = _register(plan.membrane) or Register(bits=WIDE_STATE_BITS, asked=False)
    current = _register(plan.current)
    cuba = source.spec.has_current
    leak = plan.leak
    leak_quantizer = None
    if leak is not None and leak.quantizer is not None:
        leak_quantizer = TensorRole(quantizer=leak.quantizer, options=leak.options).build(f"{where}.leak")
    elif leak is not None and leak.options:
        raise PlanError(f"{where}.leak: options {leak.options} without a quantizer to take them")
    return NeuronChoice(
        membrane=membrane,
        current=(current or _current_beside(membrane)) if cuba else None,
        input=None if cuba else current,
        leak_bits=8 if leak is None else leak.bits,
        leak_rounding=None if leak is None else leak.rounding,
        leak=leak_quantizer,
        threshold=None if plan.threshold is None else plan.threshold.build(f"{where}.threshold"),
        bias=None if bias is None else bias.build(f"{where}.bias"),
        narrow_before_fire=plan.membrane is not None and plan.membrane.attach == "before_fire",
        chip=chip,
    )


def _current_beside(membrane: Register) -> Register:
    if not membrane.asked:
        return Register(bits=WIDE_STATE_BITS, asked=False)
    bits = max(membrane.state_format().format.bits, LEAST_SIGNED_BITS)
    return Register(bits=bits, asked=False, choose_rounding=True)


def weight_grid(module: nn.Module | None) -> WeightGrid | None:
    """The grid that a layer's weights have already, if another library gave them one."""
    return getattr(module, "weight_grid", None)


def kept_grid(path: str, grid: WeightGrid, asked: Quantizer | None, *, per_channel: bool) -> tuple[Quantizer, bool]:
    """Weights are not quantized twice: their own bits and scales stay, and the plan may only ask for the same.

    Raises:
        PlanError: the plan asks for other bits.
        Unsupported: a readout needs one scale, the weights have one per channel.
    """
    if asked is not None and asked.bits != grid.quantizer.bits:
        raise PlanError(
            f"{path}: the plan asks for {asked.bits} weight bits, but {grid.library} quantizes this layer to "
            f"{grid.quantizer.bits} already; ask for {grid.quantizer.bits} or for none, or use a plain torch layer"
        )
    if grid.per_channel and not per_channel:
        raise Unsupported(
            f"{path}: {grid.library} gives every channel a scale of its own, but a readout across channels needs one"
        )
    return grid.quantizer, grid.per_channel
