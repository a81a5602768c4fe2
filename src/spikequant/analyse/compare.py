"""`compare`: what quantization did to accuracy, firing behaviour, memory and operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
from torch import Tensor, nn

from spikequant.analyse.divergence import DivergenceSearch, raster
from spikequant.analyse.memory import connection_sparsity, memory_rows
from spikequant.analyse.probe import Observation, Probe, Trains
from spikequant.analyse.records import Comparison, LayerBehaviour, Raster
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.analyse.work import work_of
from spikequant.law.errors import DataError, SpikequantError
from spikequant.measure import (
    CMemory,
    c_memory,
    dead_share,
    emd,
    matched_l1,
    saturated_share,
    silent_share,
)
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.quantize.lower import integer_network


def paired_difference(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Change of accuracy in points and half of its 95 % interval, from per-sample right / wrong.

    ``d_i = other_i - reference_i``; interval ``1.96 * std(d) / sqrt(n)``.  It is 0 where no answer of n samples
    differs; that leaves room for a change of up to ``300 / n`` points.

    >>> paired_difference(np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]))[0]
    0.0
    """
    d = 100.0 * (other.astype(np.float64) - reference.astype(np.float64))
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d))) if len(d) > 1 else float("nan")


def compare(
    reference: nn.Module,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    other_seed: nn.Module | None = None,
    ann: AnnBaseline | None = None,
    raster_sample: int = 0,
    dead_below: float = 0.05,
) -> Comparison:
    """Run both networks side by side over `batches`, once, and compare.

    Both see the same batch before the next one is asked for, so that any order will do, a
    shuffled loader or a one-shot iterator too; one batch and O(neurons) numbers are held.
    Samples are numbered through all batches, so that the noise of stochastic rounding, and with
    it every figure, does not depend on the batch size.
    Models are run in evaluation mode and left in the mode that they were in.

    Args:
        reference: the network before quantization.
        model: the same network after `quantize_`.
        batches: ``(input, target)``, targets one class per sample.
        other_seed: the float network trained with another seed; gives the seed floor of the EMD.
        ann: a same-bits network without spikes (`ann_baseline`), kept beside them.
        raster_sample: the sample whose spikes are kept, counted from 0 in the order of `batches`.
        dead_below: rate, in spikes per step, under which a neuron counts as dead.

    Raises:
        DataError: no batch, NaN, data that a model cannot take, networks with different
            neuron layers or steps, a sample that is not there.
        Unsupported: a layer whose operations cannot be counted.
    """
    if raster_sample < 0 or not 0 <= dead_below <= 1:
        raise DataError(
            f"compare: raster_sample {raster_sample}, dead_below {dead_below}; expected 0 or more, and a rate in [0, 1]"
        )
    for what, given in (
        ("reference", reference),
        ("model", model),
        ("other_seed", model if other_seed is None else other_seed),
    ):
        if not isinstance(given, nn.Module):
            raise DataError(f"compare: {what} is a {type(given).__name__}; expected a torch module")
    search, samples = DivergenceSearch(), 0
    rasters: tuple[Raster, ...] = ()
    with ExitStack() as stack:
        before = stack.enter_context(Probe(reference, "the reference"))
        after = stack.enter_context(Probe(model, "the quantized network"))
        other = None if other_seed is None else stack.enter_context(Probe(other_seed, "other_seed", operations=False))
        for x, y in _pairs(batches):
            r, s = before.run(x, y), after.run(x, y)
            _check_alike(r, s, "the networks")
            search.update(r, s)
            if other is not None:
                _check_alike(r, other.run(x, y), "reference and other_seed")
            if samples <= raster_sample < samples + len(y):
                rasters = _rasters(r, s, raster_sample, raster_sample - samples)
            samples += len(y)
        results = [probe.result() for probe in (before, after, other) if probe is not None]
        sides = side_of(reference, results[0]), side_of(model, results[1])  # while neurons of other libraries are read
    if raster_sample >= samples:
        raise DataError(f"compare: raster_sample {raster_sample}, but the data hold {samples} samples, counted from 0")
    difference, interval = paired_difference(results[0].right, results[1].right)
    return Comparison(
        reference=sides[0],
        quantized=sides[1],
        samples=samples,
        steps=results[0].steps,
        difference=difference,
        interval=interval,
        layers=tuple(_layer(path, results, dead_below) for path in results[0].firing),
        rasters=rasters,
        first_divergence=search.first,
        diverged_samples=search.share,
        dead_below=dead_below,
        ann=ann,
        notes=_notes(results),
    )


def _pairs(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    if not isinstance(batches, Iterable):
        raise DataError(f"compare: the data are a {type(batches).__name__}; expected batches of (input, target)")
    for number, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError(
                f"compare: batch {number} is a {type(batch).__name__}; expected a pair (input, target) of tensors"
            )
        yield batch[0], batch[1]


def _check_alike(r: Trains, s: Trains, who: str) -> None:
    if not r:
        raise DataError("compare: the reference has no layer of spiking neurons that spikequant knows")
    if list(r) != list(s):
        raise DataError(
            f"compare: {who} have different neuron layers, {list(r)} and {list(s)}; "
            "expected the same network before and after quantize_"
        )
    for layer, train in r.items():
        if train.shape != s[layer].shape:
            raise DataError(
                f"compare: {who} differ in {layer}: spikes [T, N, ...] of {list(train.shape)} and "
                f"{list(s[layer].shape)}; expected the same network and the same number of steps"
            )


def _rasters(r: Trains, s: Trains, sample: int, place: int) -> tuple[Raster, ...]:
    return tuple(raster(layer, sample, place, r[layer], s[layer]) for layer in r)


def _layer(path: str, results: list[Observation], dead_below: float) -> LayerBehaviour:
    r, s = results[0].firing[path].rates(), results[1].firing[path].rates()
    several = results[0].firing[path].samples > 1
    return LayerBehaviour(
        layer=path,
        neurons=len(r),
        emd=emd(r, s),
        floor=emd(*results[0].firing[path].halves()) if several else float("nan"),
        seed_floor=emd(r, results[2].firing[path].rates()) if len(results) > 2 else None,
        matched_l1=matched_l1(r, s),
        rate=float(s.mean()),
        reference_rate=float(r.mean()),
        dead=dead_share(s, dead_below),
        reference_dead=dead_share(r, dead_below),
        silent=silent_share(s),
        reference_silent=silent_share(r),
        saturated=saturated_share(s),
        reference_saturated=saturated_share(r),
        rates=s.astype(np.float32),
        reference_rates=r.astype(np.float32),
    )


def side_of(model: nn.Module, seen: Observation) -> Side:
    """Accuracy, memory, operations and energy of one network; call it while its neurons are read."""
    rows = memory_rows(model, seen.shapes, graph=seen.graph, input_bits=seen.input_bits, steps=seen.steps)
    work = work_of(seen)
    return Side(
        accuracy=float(seen.right.mean()),
        memory=rows,
        operations=tuple(
            LayerOperations(layer=p, effective_acs=c.effective_acs, effective_macs=c.effective_macs, dense=c.dense)
            for p, c in work.operations.items()
        ),
        energy=work.energy(rows),
        connection_sparsity=connection_sparsity(model),
        in_c=_in_c(model, seen),
        activation_sparsity=1.0 - seen.emitted / seen.places,
    )


def _in_c(model: nn.Module, seen: Observation) -> CMemory | None:
    """What the C export of a frozen network takes; None where there is none."""
    layers = [m for m in model.modules() if isinstance(m, (Synapse, QuantizedNeuron))]
    if seen.example is None or not layers or not all(layer.is_frozen for layer in layers):
        return None
    try:
        return c_memory(integer_network(model, seen.example, vectors=False))
    except SpikequantError:  # a part of it stays real, or has no integer node: `lower` says which
        return None


def _notes(results: list[Observation]) -> tuple[str, ...]:
    notes = [f"reading of another library: {caveat}" for caveat in results[0].caveats]
    for name, seen in zip(("the reference", "the quantized network"), results[:2], strict=True):
        if seen.graph is None:
            notes.append(
                f"{name} could not be read as a graph, so its memory leaves out input, readout and delay lines: "
                f"{seen.why_no_graph}"
            )
    if len(results[0].right) < 2:
        notes.append("one sample has no two halves and no interval: both are NaN")
    return tuple(notes)
