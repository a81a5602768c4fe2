"""`check_reading`: every neuron layer of another library against its reading, on the layer's own recorded input."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Library, Reading
from spikequant.frontends.registry import library_of
from spikequant.frontends.report import LayerReading, ReadingReport
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import NeuronLayer, TorchOps
from spikequant.nn.reset import reset_states

ROUNDING_MARGIN = 1e-4
"""Thresholds: a first difference nearer to the threshold than this is float rounding."""


def check_reading(model: nn.Module, example_input: Tensor, *, calls: int = 1, quiet: bool = False) -> ReadingReport:
    """Compare the neurons of another library with their readings, layer by layer; prints a table.

    The model runs once as it is, in evaluation mode.  Each of its neuron layers then runs
    alone on the input that it had, the original beside its reading over real numbers, both
    from rest.  Nothing is replaced.

    Args:
        model: a network with neurons of another library, not read or quantized yet.
        example_input: as `model` takes it.
        calls: how often the model is called on it, for a model that does one step per call.
        quiet: do not print the report.

    Raises:
        DataError: the model has no neuron of a library that is known.
    """
    foreign = {path: m for path, m in model.named_modules() if path and library_of(m) is not None}
    layers: list[LayerReading] = []
    readings: dict[str, Reading] = {}
    whole: list[str] = []
    for path, module in foreign.items():
        if any(path.startswith(f"{other}.") for other in whole):
            continue  # a part of a layer that is read as one
        whole.append(path)
        try:
            reading = _library(module).read(path, module)
        except Unsupported as error:
            layers.append(_refused(path, module, str(error)))
            continue
        if reading is None:  # a container, whose children are read
            whole.pop()
        elif reading.neuron is not None:
            readings[path] = reading
    if not readings and not layers:
        raise DataError("check_reading: the model has no neurons of a known library; is it read or quantized already?")
    inputs = record_inputs(model, {path: foreign[path] for path in readings}, example_input, calls) if readings else {}
    never = "was not called in the forward pass, so nothing was compared"
    layers += [_refused(path, foreign[path], never) for path in readings if path not in inputs]
    compared = {p: check_layer(p, foreign[p], readings[p], x) for p, x in inputs.items()}
    order = list(foreign)
    report = ReadingReport(tuple(sorted([*layers, *compared.values()], key=lambda layer: order.index(layer.path))))
    if not quiet:
        print(report)  # noqa: T201
    return report


def _library(module: nn.Module) -> Library:
    library = library_of(module)
    assert library is not None
    return library


def _refused(path: str, module: nn.Module, why: str) -> LayerReading:
    name = _library(module).name
    return LayerReading(path=path, kind=type(module).__name__, library=name, grade="refused", difference=why)


def record_inputs(model: nn.Module, layers: dict[str, nn.Module], example: Tensor, calls: int) -> dict[str, Tensor]:
    """What every layer is given in a pass of the model from rest, ``[T, N, ...]``."""
    seen: dict[str, list[Tensor]] = {path: [] for path in layers}
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), _recording(layers, seen):
            _to_rest(model, layers)
            for _ in range(calls):
                model(example)
    finally:
        for module, mode in modes:
            module.training = mode
        _to_rest(model, layers)
    return {p: _library(layers[p]).gather(layers[p], found) for p, found in seen.items() if found}


def _to_rest(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Reset the layers that are read, and what else keeps a state (recurrent containers, delays)."""
    reset_states(model)
    for module in layers.values():
        _library(module).reset(module)


@contextmanager
def _recording(layers: dict[str, nn.Module], seen: dict[str, list[Tensor]]) -> Iterator[None]:
    def keep(path: str) -> Any:
        return lambda _module, args, kwargs: seen[path].append((*args, *kwargs.values())[0].detach().clone())

    handles = [module.register_forward_pre_hook(keep(path), with_kwargs=True) for path, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def check_layer(path: str, original: nn.Module, reading: Reading, x: Tensor) -> LayerReading:
    """Grade one layer on its input ``[T, N, ...]``: in the model's own type, and where that differs in float64."""
    library, neuron = _library(original), reading.neuron
    assert neuron is not None
    if neuron.neuron_spec.output == "state":
        return _check_readout(path, original, reading, x)
    wanted = library.run(original, x)
    got, margins = run_with_margins(library, reading.module, neuron, x)
    wrong = wanted != got
    differing = int(wrong.sum())
    margin = largest_first_margin(wrong, margins) if differing else 0.0
    grade, difference = "exact", ""
    if differing:
        rounding = margin <= ROUNDING_MARGIN
        grade = "faithful" if rounding or reading.caveats else "refused"
        difference = _explained(differing, margin, reading, rounding)
        if rounding and _equal_in_double(path, original, library, x):
            difference += "; none in float64"
    return LayerReading(
        path=path, kind=type(original).__name__, library=library.name, grade=grade, difference=difference,  # type: ignore[arg-type]
        neuron_steps=wanted.numel(), spikes=int((wanted != 0).sum()), differing=differing, margin=margin,
        **_words(neuron),
    )  # fmt: skip


def _check_readout(path: str, original: nn.Module, reading: Reading, x: Tensor) -> LayerReading:
    """Grade a layer whose membrane leaves it: equal, or equal to float rounding."""
    library, neuron = _library(original), reading.neuron
    assert neuron is not None
    wanted, got = library.run(original, x), library.run(reading.module, x)
    largest = float((wanted - got).abs().max()) / (float(wanted.abs().max()) or 1.0)
    differing = int((wanted != got).sum())
    grade, difference = "exact", ""
    if differing:
        grade = "faithful" if largest <= ROUNDING_MARGIN else "refused"
        what = "float rounding" if grade == "faithful" else "this reading does not hold; please report the layer"
        difference = f"membranes differ by at most {largest:.1e} of the largest: {what}"
    return LayerReading(
        path=path, kind=type(original).__name__, library=library.name, grade=grade, difference=difference,  # type: ignore[arg-type]
        neuron_steps=wanted.numel(), differing=differing, **_words(neuron),
    )  # fmt: skip


def _words(neuron: NeuronLayer) -> dict[str, Any]:
    """What a neuron is, for the report."""
    spec = neuron.neuron_spec
    fires = spec.output == "spike"
    return {
        "order": spec.order,
        "compare": spec.compare if fires else "",
        "reset": spec.reset if fires else "",
        "gain": _gain(neuron),
        "surrogate": f"{neuron.surrogate.name}({neuron.surrogate.slope:g})" if fires else "",
        "detach_reset": fires and neuron.detach_reset,
    }


def _explained(differing: int, margin: float, reading: Reading, rounding: bool) -> str:
    if rounding:
        return f"{differing} spikes differ by float rounding, first at most {margin:.1e} thresholds from the threshold"
    if reading.caveats:
        return f"{differing} spikes differ; {'; '.join(reading.caveats)}"
    return (
        f"{differing} spikes differ, first up to {margin:.2g} thresholds from the threshold: this reading does not "
        "hold; please report the layer and its library's version"
    )


def _gain(neuron: NeuronLayer) -> str:
    if "gain" not in neuron.sources:
        return "1"
    gain = neuron.real_value("gain").detach().reshape(-1)
    return f"{float(gain[0]):.4g}" if len(gain) == 1 else f"{float(gain.min()):.4g} to {float(gain.max()):.4g}"


class _MarginOps(TorchOps):
    """Notes how far every comparison was from its threshold."""

    distances: list[Tensor]

    def ge(self, a: Tensor, b: Tensor) -> Tensor:
        self.distances.append((a - b).abs())
        return super().ge(a, b)


def run_with_margins(library: Library, module: nn.Module, neuron: NeuronLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes of a reading and, for each, the membrane's distance from its threshold in thresholds."""
    distances: list[Tensor] = []

    def ops(like: Tensor) -> TorchOps:
        found = _MarginOps(surrogate=neuron.surrogate, lsb=None, detach_reset=neuron.detach_reset, like=like)
        found.distances = distances
        return found

    neuron.__dict__["ops"] = ops
    try:
        spikes = library.run(module, x)
    finally:
        del neuron.__dict__["ops"]
    per_step = len(distances) // len(x)
    steps = [torch.stack([d.expand(spikes.shape[1:]) for d in distances[k * per_step : (k + 1) * per_step]]).amin(0)
             for k in range(len(x))]  # fmt: skip
    unit = float(neuron.real_value("threshold").abs().max()) if "threshold" in neuron.sources else 1.0
    return spikes, torch.stack(steps) / (unit or 1.0)


def largest_first_margin(wrong: Tensor, margins: Tensor) -> float:
    """Of every neuron that ever differs, the margin where it first does; the largest of these."""
    ever = wrong.any(0)
    first = wrong.to(torch.int8).argmax(0)
    found = margins.gather(0, first[None])[0][ever]
    return float(found.max())


def _equal_in_double(path: str, original: nn.Module, library: Library, x: Tensor) -> bool:
    """Whether original and reading agree in float64; False where the library cannot run in it."""
    try:
        wide = copy.deepcopy(original).double()
        reading = library.read(path, wide)
        return reading is not None and torch.equal(
            library.run(wide, x.double()), library.run(reading.module, x.double())
        )
    except (DataError, RuntimeError):
        return False
