"""`from_nir`: a NIR graph becomes a torch network that the whole journey takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from spikequant.frontends.nir.dynamics import (
    CHOICES,
    NEEDS,
    Choices,
    Compare,
    Current,
    Integrator,
    ResetName,
    is_finite_step,
)
from spikequant.frontends.nir.graph import FlatGraph, flatten, keep_what_counts
from spikequant.frontends.nir.layers import make_layer
from spikequant.frontends.nir.network import NirNetwork, NirReading, Readout, Step, Sum
from spikequant.frontends.nir.order import order_steps
from spikequant.frontends.nir.rewrite import (
    feed_neurons_by_weights,
    fold_scales,
    gains_into_scales,
    pass_inner_ports,
    resolve_delays,
)
from spikequant.frontends.nir.shapes import infer_shapes
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import Surrogate
from spikequant.readers.nir_.records import NirRecord
from spikequant.readers.nir_.sources import MOST_VALUES, load

ADVICE = {
    "dt": "the length of a step in the graph's unit of time, such as dt=1e-3, or dt=1 where its writer counted in "
    "steps (sinabs' IF)",
    "integrator": "'euler' (decay 1 - dt/tau: snnTorch, Norse, Spyx, Lava), 'exponential' (decay exp(-dt/tau), input "
    "held over a step: Nengo, exact solutions) or 'impulse' (decay exp(-dt/tau), input an impulse: sinabs, Rockpool)",
    "reset": "'v_reset' (the membrane is set to it, as NIR says) or 'subtract' (the threshold is taken away: sinabs, "
    "and snnTorch by default; NIR cannot say so)",
    "current": "'same_step' (the membrane takes the new current: snnTorch, Norse) or 'next_step' (that of the step "
    "before: forward Euler of both equations at once)",
}


def from_nir(
    source: Any,
    *,
    dt: float | None = None,
    integrator: Integrator | None = None,
    reset: ResetName | None = None,
    current: Current | None = None,
    compare: Compare | None = None,
    readout: Readout = "train",
    output: str | None = None,
    steps: int | None = None,
    rename: Mapping[str, str] | None = None,
    surrogate: Surrogate | None = None,
    max_values: int = MOST_VALUES,
) -> NirNetwork:
    """Read a NIR graph as a network of torch layers and real neurons.

    A NIR graph says neither the length of a step, nor how its equations are integrated, nor
    whether a reset subtracts.  These come from here or from the graph's metadata under the
    same names, and where one that matters is missing this raises with the choices.

    Args:
        source: path of a ``.nir`` file, or a `nir.NIRGraph`.
        dt: length of a step in the graph's unit of time.
        integrator: ``"euler"``, ``"exponential"`` or ``"impulse"``.
        reset: ``"v_reset"`` or ``"subtract"``.
        current: ``"same_step"`` or ``"next_step"``: when a synaptic current reaches the membrane.
        compare: ``">"`` (NIR's own) or ``">="``.
        readout: what the network gives: the ``"train"`` of its output, its ``"sum"`` or ``"mean"`` over time, or the
            ``"last"`` step.
        output: which Output is meant, where there are several.
        steps: for how many steps an input stands still: the network then takes ``[N, *shape]``.
        rename: ends of edges that name no node (files of old writers) and the node that is meant.
        surrogate: gradient of the spikes; NIR has none.
        max_values: refuse a graph with more numbers in all.

    Returns:
        A module that takes ``[T, N, *shape]``.  ``module.reading`` says how the graph was read.

    Raises:
        DataError: the file or graph is damaged or contradicts itself.
        Unsupported: it has a node or value that no spec can hold, or a choice is missing.
    """
    record = load(source, max_values=max_values)
    flat = flatten(record, rename=rename or {})
    ends = keep_what_counts(flat, output)
    given = {"dt": dt, "integrator": integrator, "reset": reset, "current": current, "compare": compare}
    choices = _choices(record, flat, given)
    infer_shapes(flat, ends[0])
    pass_inner_ports(flat)
    resolve_delays(flat, choices)
    outside = gains_into_scales(flat, choices)
    fold_scales(flat)
    feed_neurons_by_weights(flat)
    order_steps(flat, ends[0])
    layers, order = _layers(flat, ends, choices, surrogate, outside)
    reading = NirReading(choices=choices, notes=tuple(flat.notes))
    return NirNetwork(layers, order, flat.shapes, ends, reading, readout, steps)


def _choices(record: NirRecord, flat: FlatGraph, given: dict[str, Any]) -> Choices:
    """The choices from the caller, else from the metadata; raises where one that matters is missing."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        said = record.metadata.get(name)
        if value is None and said is not None:
            value = float(said) if name == "dt" else str(said)
            flat.notes.append(f"{name} = {value} comes from the graph's metadata")
        if value is not None and name in CHOICES and value not in CHOICES[name]:
            raise Unsupported(f"{name}={value!r}; expected one of {', '.join(map(repr, CHOICES[name]))}")
        found[name] = value
    kinds = {node.kind for node in flat.nodes.values()}
    missing = [n for n, needed in NEEDS.items() if found[n] is None and kinds & set(needed)]
    if missing:
        where = next(n for n, node in flat.nodes.items() if node.kind in NEEDS[missing[0]])
        parts = "; ".join(f"{name}: {ADVICE[name]}" for name in missing)
        raise Unsupported(f"{where} ({flat.kind(where)}): a NIR graph does not say how to run it. Give {parts}")
    if found["dt"] is not None and not is_finite_step(found["dt"]):
        raise DataError(f"dt={found['dt']!r}; expected a positive number")
    _note_the_rest(record, flat, found)
    found["compare"] = found["compare"] or ">"
    return Choices(**found)


def _note_the_rest(record: NirRecord, flat: FlatGraph, found: dict[str, Any]) -> None:
    for name, needed in NEEDS.items():
        if found[name] is not None and not any(node.kind in needed for node in flat.nodes.values()):
            flat.notes.append(f"{name} makes no difference to this graph: it has no {', '.join(needed)}")
    if record.integers:
        flat.notes.append("the file holds the integers of this network, too; spikequant.load_nir reads them")
    unread = sorted(set(record.metadata) - set(found))
    if unread:
        flat.notes.append(f"metadata that is not read: {', '.join(unread)}")
    for name, node in flat.nodes.items():
        if node.fields.get("v_reset", 0) is None and found["reset"] == "v_reset":
            flat.notes.append(f"{name}: has no v_reset; 0, as NIR says")
        if "v_leak" in node.fields and bool((node.fields["v_leak"] != 0).any()):
            flat.notes.append(f"{name}: v_leak is not 0; the membrane still starts at 0")


def _layers(
    flat: FlatGraph, ends: tuple[str, str], choices: Choices, surrogate: Surrogate | None, outside: set[str]
) -> tuple[dict[str, nn.Module], tuple[Step, ...]]:
    """The layers by name, and the nodes in the order of a step."""
    layers: dict[str, nn.Module] = {}
    steps: list[Step] = []
    for name in flat.order:
        if name == ends[0]:
            continue
        layer = make_layer(flat, name, choices, surrogate, outside)
        own = None if layer is None else _free(layers, name)
        if own is not None and layer is not None:
            layers[own] = layer
        reads = tuple((edge.source, bool(edge.delay)) for edge in flat.into(name))
        joins = _free(layers, f"{name}_sum") if len(reads) > 1 else None
        if joins is not None:
            layers[joins] = Sum()
        steps.append(Step(name, own, reads, joins))
    return layers, tuple(steps)


def _free(layers: dict[str, nn.Module], name: str) -> str:
    """A name that a torch module can have and that is not taken."""
    base = name.replace(".", "_")
    found, count = base, 1
    while (
        found in layers
        or hasattr(NirNetwork, found)
        or found in ("reading", "readout", "still_steps", "input_shape", "training")
    ):
        count += 1
        found = f"{base}_{count}"
    return found
