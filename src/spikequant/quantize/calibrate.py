"""`calibrate`: ranges from data, and the rounding of each state by the error of its firing rates.

No rounding of a narrow state is safe in general (DESIGN rule 3): at four bits, truncation
silences a layer and rounding up makes it chatter.  So each layer is run alone on its own
recorded input, once with a wide membrane and once per candidate, and the candidate whose
firing rates are nearest is taken.  Layers are settled in the order of the network, each on
the input that the settled ones before it produce.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError, NotFrozen, PlanError
from spikequant.nn import QuantizedNeuron, Register, Synapse
from spikequant.nn.reset import reset_states as reset
from spikequant.quantize.calibration_report import MOST_BITS, CalibratedLayer, CalibrationReport, is_off
from spikequant.quantize.inflow import WideRun, from_the_peak, inflow_of, run_wide, settle_inflow
from spikequant.quantize.rate_trials import (
    WIDE,
    Found,
    alone,
    best,
    best_reach,
    rate_error,
    roundings_of,
    with_inflow,
)
from spikequant.quantize.scales import Seen, flows_into, refine_scale
from spikequant.quantize.second_order import WEIGHT_SOLVERS, WeightSolver
from spikequant.quantize.settle_levels import Table, placed

REACHES = (1.0, 2.0)
SETTLE_SAMPLES = 256


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    max_batches: int | None = 8,
    refit_norms: bool = True,
    weight_solver: str = "nearest",
) -> CalibrationReport:
    """Fit input range, batch norm, membrane reach and rounding on data, in place.

    Batch norm is measured anew with the quantized weights (its thresholds and biases then
    centre what really flows), layer by layer; that alone gives back most of what 4-bit
    weights lose.

    Args:
        model: quantized, not frozen.  Weight scales that are fixed (``mse``, ``percentile``,
            ``kl`` clipping) move to the least squared error of the layer's output; so do those of 3 bits and
            more that LSQ is about to learn, as long as they are where they started.
        batches: ``(input, target)`` pairs (or inputs), as `model` takes them.
        max_batches: how many of them to look at; some hundred samples are enough for most.
        refit_norms: False keeps the running statistics of the real network.
        weight_solver: ``"nearest"`` leaves every weight at its nearest level; ``"second_order"`` chooses codes and
            scales that least disturb the layer's membranes (the optimal brain surgeon on `quantize/response.py`'s
            Hessian, on all of `batches`), and moves the float weights onto the grid.

    Raises:
        PlanError: an unknown solver.
        NotFrozen: nothing is quantized, or everything is frozen already.
        DataError: no batch, or values that are not finite.
    """
    neurons = {path: m for path, m in model.named_modules() if isinstance(m, QuantizedNeuron)}
    synapses = [m for m in model.modules() if isinstance(m, Synapse)]
    if not synapses:
        raise NotFrozen("there is nothing to calibrate; call spikequant.quantize_(model, plan, example_input) first")
    if all(s.is_frozen for s in synapses):
        raise NotFrozen("the model is frozen; calibrate before spikequant.freeze(model)")
    if weight_solver not in WEIGHT_SOLVERS:
        raise PlanError(f"calibrate: weight_solver {weight_solver!r}; expected one of {', '.join(WEIGHT_SOLVERS)}")
    inputs = materialized("calibrate", batches, max_batches)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            fit_input(synapses, inputs)
            few = first_samples(inputs)
            solver = WeightSolver(model, inputs) if weight_solver == "second_order" else None
            layers = []
            for path, neuron in neurons.items():
                layers.append(
                    settle_group(
                        path,
                        neuron,
                        few=lambda module: flows_into(model, module, few),
                        all_=lambda module: flows_into(model, module, inputs),
                        refit_norms=refit_norms,
                        solver=solver,
                    )
                )
            for synapse in (s for s in synapses if s.link is None):
                if solver is not None:
                    solver.solve(synapse, None)
                else:
                    refine_scale(synapse, lambda synapse=synapse: flows_into(model, synapse, few))  # type: ignore[misc]
    except RuntimeError as error:
        raise DataError(
            f"calibrate: the model cannot take an input of shape {tuple(inputs[0].shape)}: {error}"
        ) from error
    finally:
        model.train(was_training)
        reset(model)
    solved = () if solver is None else tuple(solver.done)
    return CalibrationReport(tuple(layer for layer in layers if layer is not None), solved)


def materialized(verb: str, batches: Iterable[Any], most: int | None) -> list[Tensor]:
    """The inputs of the first batches.

    Raises:
        DataError: none, one that holds nothing, values that are not finite, or a number of batches below 1.
    """
    if most is not None and most < 1:
        raise DataError(f"{verb}: max_batches={most}; expected 1 or more, or None for all batches")
    found = [b[0] if isinstance(b, (tuple, list)) else b for b in islice(batches, most)]
    if not found:
        raise DataError(f"{verb}: the loader gave no batch; expected at least one")
    for k, x in enumerate(found):
        if x.numel() == 0:
            raise DataError(f"{verb}: batch {k} is empty, its shape is {tuple(x.shape)}; expected at least one sample")
    if not all(bool(torch.isfinite(x).all()) for x in found):
        raise DataError(f"{verb}: the data hold NaN or infinite values; remove them first")
    return found


def fit_input(synapses: list[Synapse], inputs: list[Tensor]) -> None:
    """The scale of a real input, from the largest magnitude in `inputs`.

    Raises:
        DataError: negative data where the example had none.
    """
    for synapse in synapses:
        if (
            synapse.input_format is not None
            and not synapse.input_format.signed
            and any(bool((x < 0).any()) for x in inputs)
        ):
            raise DataError(
                "calibrate: the data hold negative values, the example input did not; "
                "quantize the model with an example of the real data"
            )
        if synapse.input_scale is not None and synapse.input_limit is None:
            synapse.set_input_limit(max(float(x.abs().max()) for x in inputs))


def first_samples(inputs: list[Tensor]) -> list[Tensor]:
    """As many batches as rounding and scales are chosen on: batch norm is measured on all."""
    few, samples = [], 0
    for x in inputs:
        if samples >= SETTLE_SAMPLES:
            break
        few.append(x)
        samples += max(x.shape[:2]) if x.dim() > 2 else len(x)
    return few


Flows = Callable[[nn.Module], Seen]
"""What a module is called with when the settled layers before it run."""
Wides = dict[Hashable, WideRun]
"""Runs with wide states by what they depend on besides the input: layers on one input share them."""


def settle_group(
    path: str,
    neuron: QuantizedNeuron,
    *,
    few: Flows,
    all_: Flows,
    refit_norms: bool = True,
    refine: bool = True,
    advise: bool = True,
    solver: WeightSolver | None = None,
    wides: Wides | None = None,
) -> CalibratedLayer | None:
    """Calibrate one neuron layer with its synapses and batch norms; None where none of its states was asked for.

    Args:
        path: names the layer in the report.
        neuron: quantized; the layers before it are settled.
        few: flows of the samples on which scales and rounding are chosen.
        all_: flows of all samples, on which batch norm is measured anew.
        refit_norms: False keeps the running statistics of the real network.
        refine: False keeps the weight scales as they are.
        advise: look for the membrane bits that would be enough where these are not.
        solver: chooses weight codes and scales instead.
        wides: what layers with the same synapses on the same input found of their wide membranes, and this one adds.
    """
    if solver is not None:
        solver.solve_group(neuron, refit_norms=refit_norms)
    for branch in neuron.branches if refine and solver is None else ():
        refine_scale(branch.synapse, lambda branch=branch: few(branch.synapse))  # type: ignore[misc]
    if refit_norms:
        for norm in [branch.norm for branch in neuron.branches if branch.norm is not None]:
            norm.refit([x for batch in all_(norm) for x in batch])
        neuron.prove(neuron.integers())
    return _settle(path, neuron, few, advise=advise, wides={} if wides is None else wides)


def _settle(path: str, neuron: QuantizedNeuron, few: Flows, *, advise: bool, wides: Wides) -> CalibratedLayer | None:
    """Choose rounding and reach of one layer's states; None where none of them was asked for."""
    asked = neuron.choice.membrane
    if not asked.asked and inflow_of(neuron) is None:
        return None
    currents = _record(neuron, few)
    wide = _wide(neuron, currents, wides)
    inflow = settle_inflow(neuron, currents, wide)
    return dataclasses.replace(_settle_membrane(path, neuron, currents, wide.rates, advise=advise), inflow=inflow)


def _settle_membrane(
    path: str, neuron: QuantizedNeuron, currents: list[Tensor], wide: Tensor, *, advise: bool
) -> CalibratedLayer:
    asked = neuron.choice.membrane
    if not asked.asked:
        rates = alone(neuron, currents, asked, 0.0)
        return CalibratedLayer(path=path, rounding=asked.rounding, limit=math.inf, rate=float(rates.mean()),
                               wide_rate=float(wide.mean()), error=rate_error(rates, wide),
                               spikes=neuron.real_spec.output != "state")  # fmt: skip
    if neuron.real_spec.output == "state":
        return _settle_readout(path, neuron, currents, wide)
    if asked.table:
        return _settle_table(path, neuron, currents, wide)
    if asked.learned:
        return _settle_learned(path, neuron, currents, wide)
    search, limits, roundings = _search(neuron, asked, currents), _limits(neuron, asked), roundings_of(neuron, asked)
    error, rounding, limit, rate = search(asked, roundings, limits, wide)
    enough = None
    if advise and is_off(rate, float(wide.mean())):
        more = (dataclasses.replace(asked, bits=bits) for bits in range(asked.bits + 1, MOST_BITS + 1))
        tried = ((r.bits, search(r, (rounding,), limits, wide)[3]) for r in more)
        enough = next((bits for bits, found in tried if not is_off(found, float(wide.mean()))), None)
    _apply(neuron, dataclasses.replace(asked, rounding=rounding), limit)
    return CalibratedLayer(path=path, rounding=rounding, limit=limit, rate=rate, wide_rate=float(wide.mean()),
                           error=error, enough_bits=enough)  # fmt: skip


def _search(neuron: QuantizedNeuron, asked: Register, currents: list[Tensor]) -> Callable[..., Found]:
    """Looks among given reaches, and beyond them where the plan leaves the reach open.

    A membrane that swings far below or above its threshold, as in recurrent layers and under thresholds that adapt,
    would lose what it is owed in a register that ends near the threshold.
    """
    run = partial(alone, neuron, currents)
    if asked.clipping != "threshold" or _is_given(neuron, asked):
        return partial(best, run)
    return partial(best_reach, run, step=2.0, farthest=float(neuron.peaks["v"].max()))


def _wide(neuron: QuantizedNeuron, currents: list[Tensor], known: Wides) -> WideRun:
    """The layer with wide states; sets the peaks of the neuron."""
    if neuron.choice.membrane.learned:
        return run_wide(neuron, currents)
    choice = neuron.choice if inflow_of(neuron) is None else with_inflow(neuron, WIDE)
    on = (neuron.fraction_bits, neuron.needs_double, dataclasses.replace(choice, membrane=WIDE))
    if on not in known:
        known[on] = run_wide(neuron, currents)
    neuron.peaks = known[on].peaks
    return known[on]


def _settle_table(path: str, neuron: QuantizedNeuron, currents: list[Tensor], wide: Tensor) -> CalibratedLayer:
    """A table that a quantizer names has nothing to choose: shares of the threshold stay what they are."""
    asked, reach = dataclasses.replace(neuron.choice.membrane, rounding="half_up"), neuron.default_limit()
    found = alone(neuron, currents, asked, reach)
    _apply(neuron, asked, reach)
    return CalibratedLayer(path=path, rounding="half_up", limit=reach, rate=float(found.mean()),
                           wide_rate=float(wide.mean()), error=rate_error(found, wide))  # fmt: skip


def _settle_learned(path: str, neuron: QuantizedNeuron, currents: list[Tensor], wide: Tensor) -> CalibratedLayer:
    """Place the levels of one layer."""
    asked, states = neuron.choice.membrane, torch.cat(neuron.seen)

    def judge(table: Table) -> tuple[float, float]:
        neuron.set_levels(*table)
        rates = alone(neuron, currents, asked, float(neuron.v_limit))
        return rate_error(rates, wide), float(rates.mean())

    found = placed(states, asked.bits, neuron.default_limit(), judge)
    neuron.set_levels(*found.table)
    _apply(neuron, dataclasses.replace(asked, rounding="half_up"), float(neuron.v_limit))
    return CalibratedLayer(path=path, rounding="half_up", limit=float(neuron.v_limit), rate=found.rate,
                           wide_rate=float(wide.mean()), error=found.error)  # fmt: skip


def _limits(neuron: QuantizedNeuron, asked: Register) -> tuple[float, ...]:
    """Reaches to try; the plan or the unit of the codes may leave one."""
    if asked.limit is not None:
        return (asked.limit,)
    if _is_given(neuron, asked):
        neuron.set_given_limits()
        return (float(neuron.v_limit),)
    if asked.clipping == "threshold":
        return tuple(neuron.default_limit() * reach for reach in REACHES)
    peaks = neuron.peaks["v"].sort().values
    return (float(peaks[-1]) if asked.clipping == "max" else float(torch.quantile(peaks, 0.999)),)


def _is_given(neuron: QuantizedNeuron, asked: Register) -> bool:
    """The reach follows from something else: the plan, weight codes, a chip that counts LSBs."""
    return asked.limit is not None or asked.unit == "weight" or neuron.choice.counts_lsb


def _settle_readout(path: str, neuron: QuantizedNeuron, currents: list[Tensor], wide: Tensor) -> CalibratedLayer:
    """A readout has no rate: its membranes, averaged over the time of a sample, are compared."""
    asked, run = neuron.choice.membrane, partial(alone, neuron, currents)
    if _is_given(neuron, asked):
        found = best(run, asked, roundings_of(neuron, asked), _limits(neuron, asked), wide)
    else:
        found = from_the_peak(run, neuron, asked, neuron.peaks["v"], wide)
    error, rounding, limit, _ = found
    _apply(neuron, dataclasses.replace(asked, rounding=rounding), limit)
    return CalibratedLayer(path=path, rounding=rounding, limit=limit, rate=0.0, wide_rate=0.0, error=error,
                           spikes=False)  # fmt: skip


def _record(neuron: QuantizedNeuron, flows: Flows) -> list[Tensor]:
    """What flows into a layer, ``[T, N, ...]`` per batch; single steps are put in a row."""
    return [batch[0] if neuron.step_mode == "m" else torch.stack(batch) for batch in flows(neuron)]


def _apply(neuron: QuantizedNeuron, register: Register, limit: float) -> None:
    neuron.choice = dataclasses.replace(neuron.choice, membrane=register)
    neuron.v_limit.fill_(limit)
    neuron.prove(neuron.integers())
