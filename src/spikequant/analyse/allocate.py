"""`allocate`: bits per layer under limits, from how sensitive the layers are."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikequant.analyse.allocator import Allocation
from spikequant.analyse.budget_curve import CurvePoint, curve
from spikequant.analyse.drawn_plan import DrawnPlan
from spikequant.analyse.exact_search import ExactSearch
from spikequant.analyse.held_widths import HeldWidths
from spikequant.analyse.integer_program import Uncertain
from spikequant.analyse.layer_facts import Facts
from spikequant.analyse.limits import Budget, requested_bits, unit
from spikequant.analyse.parts import NotApart
from spikequant.analyse.recount import LOADS, Stored
from spikequant.analyse.score import Sensitivities
from spikequant.analyse.widths import Choice, Item, check_items, is_whole, whole_widths
from spikequant.analyse.within import Within
from spikequant.law.errors import DataError, PlanError, nearest
from spikequant.plan import Plan
from spikequant.quantize.chips import named_target
from spikequant.targets import Target

USUAL = {"weight": (1, 2, 3, 4, 5, 6, 8), "membrane": (2, 3, 4, 5, 6, 8, 10, 12)}


@dataclass(frozen=True)
class Allocated:
    """Bits for every layer, and why.

    Attributes:
        plan: one rule for each layer.
        allocation: bits, expected rise of the loss, reasons, loads of what was chosen (in bits; energy: pJ of traffic).
        requested: the most of each load, in bits (energy: pJ).
        predicted: each load before anything was quantized: what was chosen, the rest as it is at eight bits.
        stored: what the quantized network takes, counted as `compare` counts; operations are the real network's.
        share: that over the memory of the float network, weights and states counted.
        proven: nothing with a smaller expected rise is within the limits.
    """

    plan: Plan
    allocation: Allocation
    requested: dict[str, float]
    predicted: dict[str, float]
    stored: Stored
    share: float
    proven: bool

    @property
    def counted(self) -> dict[str, float]:
        """Each requested load as it came out, in bits (energy: pJ)."""
        return {name: self.stored.of(name) for name in self.requested}

    def __str__(self) -> str:
        lines = [f"{self.share:.3f} of the float memory, expected rise of the loss {self.allocation.rise:.4g}"]
        for name, most in self.requested.items():
            short, per = unit(name)
            told = [f"{v / per:,.0f} {short}".rstrip() for v in (most, self.predicted[name], self.counted[name])]
            lines.append("  {}: {} asked for, {} predicted, {} counted".format(name, *told))
        names = {key: f"{key[0]} {key[1]}" for key in self.allocation.bits}
        width = max(len(name) for name in names.values())
        lines += [f"  {names[key]:{width}s}  {reason}" for key, reason in self.allocation.reasons.items()]
        if not self.proven:
            lines.append("  the best that was found: too many combinations of widths to prove that none is better")
        energy = ", of energy pJ of its traffic" if "energy" in self.requested else ""
        return "\n".join([*lines, f"loads in the reasons are bits of what was chosen{energy}"])


def allocate(sensitivities: Sensitivities, budget: Budget, **options: Any) -> Plan:
    """The plan with the least expected rise of the loss inside the budget: `allocation(...).plan`.

    See `allocation` for arguments and errors.
    """
    known = [name for name in inspect.signature(allocation).parameters if name not in ("sensitivities", "budget")]
    for name in options:
        if name not in known:
            raise PlanError(f"allocate: no option {name!r}; expected some of {', '.join(known)}{nearest(name, known)}")
    return allocation(sensitivities, budget, **options).plan


def allocation(
    sensitivities: Sensitivities,
    budget: Budget,
    *,
    weight_widths: Iterable[int] | None = None,
    membrane_widths: Iterable[int] | None = None,
    membrane_bits: int = 8,
    tied: Sequence[Sequence[str]] = (),
    keep: Mapping[str, int] | None = None,
    template: Plan | None = None,
    target: str | None = None,
) -> Allocated:
    """Bits of every layer's weights, and of its membrane where its trace is known, solved exactly.

    HAWQ-V2's score, as the objective of HAWQ-V3's integer program:
    ``rise = 1/2 sum_l Tr(H_l) / n_l * |Q(x_l) - x_l|^2`` over weights and membranes, which is the second-order term of
    the loss if errors of quantization are independent of the curvature's directions.  Where a Hessian trace is negative
    (surrogate gradients allow it) all traces are the Gauss-Newton ones.

    The budget holds: the widths of thresholds and biases follow from the bits that are chosen, so plans are tried on a
    copy of the network and counted as `compare` counts.  The result is exact: copies are counted until nothing that
    was not counted can be better (`exact_search`), and `Allocated.proven` says so.  That takes some tens of copies,
    each about as long as `quantize_`, and at most 200; a second call with the same sensitivities counts few or none.
    Where more than 4096 combinations of widths meet in one layer (many `tied` layers), a template gives currents fewer
    bits than their membranes, or 200 copies do not settle it, the best that was found is returned, not proven.
    Calibration and training may still move a threshold across a power of two.

    Energy is ``integer_ops_and_traffic`` of `measure.energy_pj`: 0.1 pJ an accumulate, 3.2 pJ a multiply-accumulate,
    and 5/32 pJ for every bit of a weight fetched (one weight an operation) and of a state or buffer read or written
    (each once a step).  Share 1 is the same line of the real network, as `compare` gives it for the reference: the
    same operations, 32 bits a weight and a state.  ``energy`` and ``synop_bits`` hold for the operations of the real
    network on the first batch of the traces: a prediction, since quantization changes firing rates, and weights that
    become 0 cost no operation.  `compare` counts those of the quantized network.

    Args:
        sensitivities: of `hessian_trace` or `sensitivity` on the real model.
        budget: ``"0.1x"`` (of the float network's memory, weights and states counted), a number of bytes of memory, or
            limits by name: ``{"flash": "0.1x", "ram": 2048, "energy": "0.25x"}``.  Names: ``flash``, ``ram``,
            ``memory`` (both), ``synop_bits`` (synaptic operations of a sample times bits of their weight), ``energy``
            (of a sample, see above; a number is picojoules).
        weight_widths: allowed for weights; None: of 1, 2, 3, 4, 5, 6, 8 those for which a rise is known.
        membrane_widths: allowed for membranes; None: of 2, 3, 4, 5, 6, 8, 10, 12 likewise.
        membrane_bits: of membranes without a trace.
        tied: groups of layer paths whose weights get the same bits; groups that share a layer are one.
        keep: bits of single layers' weights that are not up for choice.
        template: where the rest of each layer's rule comes from; its bits are replaced.
        target: name of a hardware profile (`spikequant.targets`), instead of ``template.target``: of the widths only
            those that it holds are chosen from, states that it fixes are left to it, and every plan is checked as
            `quantize_` checks it.  Where it has one scale for a layer's weights, traces are combined with the errors
            of one scale (measured rises keep those of a scale by channel).

    Raises:
        DataError: traces without facts (of a quantized model), an unknown layer or limit.
        PlanError: a budget that cannot be kept (with the size that is needed at least), or is not written as one; no
            width that the target holds.
        Unsupported: a network that the target cannot do, with every reason.
    """
    facts = _facts(sensitivities)
    _check_settings(tied, keep, template)
    profile = named_target(template or Plan(), target)
    on, known = _on(profile, facts, sensitivities.allocatable(), membrane_widths)
    membrane_bits = on.state if on is not None and on.state_is_fixed else membrane_bits
    widths = _Widths(weight_widths, membrane_widths, on)
    items = _items(known, facts, widths, tied, {path: int(bits) for path, bits in (keep or {}).items()})
    fixed = _fixed(facts, items, membrane_bits)
    requested = requested_bits(budget, facts)
    drawn = DrawnPlan(facts, membrane_bits, template, on)
    try:
        held = ExactSearch(items, requested, drawn.plan, facts.recount).search()
    except (NotApart, Uncertain):
        held = Within(items, requested, fixed, drawn.plan, facts.recount).search()
    predicted = {name: held.allocation.loads.get(name, 0.0) + fixed.get(name, 0.0) for name in requested}
    share = held.stored.memory / facts.real.memory
    return Allocated(held.plan, held.allocation, requested, predicted, held.stored, share, held.proven)


def budget_curve(
    sensitivities: Sensitivities,
    load: str = "memory",
    *,
    weight_widths: Iterable[int] | None = None,
    membrane_widths: Iterable[int] | None = None,
    tied: Sequence[Sequence[str]] = (),
    target: str | None = None,
) -> list[CurvePoint]:
    """Every budget at which the best bits change; loads are of what varies, in bits, of energy in pJ.

    Raises:
        DataError: as in `allocation`, or an unknown load.
        PlanError, Unsupported: as in `allocation`, of a target.
    """
    if load not in LOADS:
        raise DataError(f"unknown load {load!r}; expected one of {', '.join(LOADS)}")
    facts = _facts(sensitivities)
    _check_settings(tied, None, None)
    on, known = _on(named_target(Plan(), target), facts, sensitivities.allocatable(), membrane_widths)
    items = _items(known, facts, _Widths(weight_widths, membrane_widths, on), tied, {})
    return curve(items, load)


def _facts(sensitivities: Sensitivities) -> Facts:
    if not hasattr(sensitivities, "expected_rise"):
        raise DataError(
            f"allocate: expected what hessian_trace or sensitivity gives, got {type(sensitivities).__name__}"
        )
    if sensitivities.facts is None:
        sensitivities.places()  # raises, with the reason
    assert sensitivities.facts is not None
    return sensitivities.facts


def _check_settings(tied: object, keep: object, template: object) -> None:
    """Raise `PlanError` on settings of another kind, before a string is read as a list of letters."""
    groups = list(tied) if isinstance(tied, Iterable) and not isinstance(tied, (str, Mapping)) else [tied]
    if any(isinstance(group, str) or not isinstance(group, Iterable) for group in groups):
        raise PlanError(f"allocate: tied={tied!r}; expected groups of layer paths, such as [('conv1', 'conv2')]")
    kept = keep.values() if isinstance(keep, Mapping) else [] if keep is None else [keep]
    if not all(map(is_whole, kept)):
        raise PlanError(f"allocate: keep={keep!r}; expected whole bits by layer path, such as {{'conv1': 8}}")
    if template is not None and not isinstance(template, Plan):
        raise PlanError(f"allocate: template is {type(template).__name__}; expected a Plan (Plan.load reads a file)")


def _on(
    profile: Target, facts: Facts, sensitivities: Sensitivities, membrane_widths: Iterable[int] | None
) -> tuple[HeldWidths | None, Sensitivities]:
    """What a target holds, None of one that leaves all to the plan; and the sensitivities with its errors."""
    if profile.name == "reference":
        return None, sensitivities
    on = HeldWidths.of(profile, facts.recount)
    on.check_states(membrane_widths)
    return on, on.with_its_errors(sensitivities)


class _Widths:
    """The widths that are allowed; by default the usual ones that the sensitivities know."""

    def __init__(self, weight: Iterable[int] | None, membrane: Iterable[int] | None, on: HeldWidths | None) -> None:
        asked = {"weight": weight, "membrane": membrane}
        self._asked = {role: None if given is None else whole_widths(role, given) for role, given in asked.items()}
        self.on = on

    def of(self, layer: str, role: str, known: Sequence[int]) -> list[int]:
        asked = self._asked[role]
        found = [b for b in USUAL[role] if b in known] if asked is None else list(asked)
        return found if self.on is None else self.on.kept(layer, role, found)


def _items(
    sensitivities: Sensitivities,
    facts: Facts,
    widths: _Widths,
    tied: Sequence[Sequence[str]],
    keep: dict[str, int],
) -> list[Item]:
    weighted = {row.layer for row in facts.rows if row.role == "weight"}
    open_ = {layer for layer, role in sensitivities.places() if role == "weight"}
    for path in (*keep, *(path for group in tied for path in group)):
        if path not in weighted:
            raise DataError(f"allocate: no weighted layer {path!r}; there are {', '.join(sorted(weighted))}")
        if path not in open_:
            raise DataError(f"allocate: bits of {path!r} by `keep` or `tied` need its sensitivity in the role weight")
    groups = _groups(tied)
    items = []
    for layer, role in sensitivities.places():
        fact, known = facts.row(layer, role), sensitivities.widths(layer, role)
        if fact is None or (role == "membrane" and widths.on is not None and widths.on.state_is_fixed):
            continue
        allowed = [keep[layer]] if role == "weight" and layer in keep else widths.of(layer, role, known)
        if role == "weight" and layer in keep and widths.on is not None:
            widths.on.kept(layer, role, allowed)  # raises where it is too wide
        missing = [bits for bits in allowed if bits not in known]
        if missing:
            raise PlanError(f"allocate: {layer} {role}: {missing[0]} bits; known: {list(known)}")
        choices = tuple(
            Choice(bits, sensitivities.expected_rise(layer, role, bits).value, fact.loads(bits)) for bits in allowed
        )
        items.append(Item(layer, role, choices, groups.get(layer) if role == "weight" else None))
    check_items(items, {})
    return items


def _groups(tied: Sequence[Sequence[str]]) -> dict[str, str]:
    """The name of the group of each layer; groups that share a layer are one."""
    joined: list[set[str]] = []
    for group in map(set, tied):
        apart = [one for one in joined if not one & group]
        joined = [*apart, group.union(*(one for one in joined if one & group))]
    return {path: f"group {k}" for k, group in enumerate(joined) for path in group}


def _fixed(facts: Facts, items: Sequence[Item], membrane_bits: int) -> dict[str, float]:
    chosen = {(item.layer, item.role) for item in items}
    left = [row for row in facts.rows if (row.layer, row.role) not in chosen]
    loads = [row.loads(8 if row.role == "weight" else membrane_bits) for row in left]
    return {name: facts.fixed[name] + sum(one.get(name, 0.0) for one in loads) for name in LOADS}
