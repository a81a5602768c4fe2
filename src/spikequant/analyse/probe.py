"""Watch a model while it runs: firing of every neuron layer, operations of every weighted layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.analyse.counting import Calls, check_countable, counter_of, events_of
from spikequant.analyse.inputs import bits_of_data, few_samples
from spikequant.capture import Graph, LayerwiseRunner, capture
from spikequant.frontends.registry import Readings, read_
from spikequant.law.errors import CaptureError, DataError, Unsupported
from spikequant.measure import FiringStatistics, SynOps
from spikequant.nn import SYNAPSES, NeuronLayer, Synapse
from spikequant.nn.reset import count_samples_from, reset_states
from spikequant.training import check_batch, first_output

Trains = dict[str, Tensor]


@dataclass
class Observation:
    """What one pass over the data showed.

    Attributes:
        firing: rates of every spiking layer, in the order in which they run.
        operations: synaptic operations of every weighted layer.
        shapes: features of every neuron layer and of what it emits.
        emitted: how many of them held a spike (two in one step count once).
        places: neurons times steps times samples, all layers together.
        steps: time steps of a sample, the most if samples differ.
        sample_steps: steps of all samples together.
        input_bits: bits of one value of the input: 32 for real data, fewer for spikes and counts.
        graph: the captured graph, None where the model cannot be captured.
        why_no_graph: the reason, in words.
        example: the few samples that it was captured with.
        caveats: where the reading of another library's neurons is known to differ from it.
    """

    firing: dict[str, FiringStatistics] = field(default_factory=dict)
    operations: dict[str, SynOps] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    emitted: int = 0
    places: int = 0
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    steps: int = 0
    sample_steps: int = 0
    input_bits: int = 1
    graph: Graph | None = None
    why_no_graph: str = ""
    example: Tensor | None = None
    caveats: tuple[str, ...] = ()

    @property
    def right(self) -> np.ndarray:
        """Per sample, whether it was classified right."""
        result: np.ndarray = (torch.cat(self.predictions) == torch.cat(self.targets)).numpy()
        return result


def observe(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, operations: bool = True) -> Observation:
    """Run `model` over `batches` in evaluation mode and count, in O(neurons) memory.

    Raises:
        DataError: no batch, or one that the model cannot take.
    """
    with Probe(model, operations=operations) as probe:
        for x, y in batches:
            probe.run(x, y)
    return probe.result()


@final
class Probe:
    """One model under watch; a context in which `run` takes it from batch to batch.

    Several probes may watch models that share modules, or one model twice: a probe sees
    only what happens inside its own `run`.

    A model with a loop over time of its own is run layer by layer from its graph, with the
    same spikes; what it does is counted as its own loop would do it.
    """

    def __init__(self, model: nn.Module, name: str = "the model", *, operations: bool = True) -> None:
        self.model, self.name, self.found = model, name, Observation()
        self._operations = operations
        self._calls = Calls()
        self._parts: dict[str, list[Tensor]] = {}
        self._spikes: dict[int, tuple[Tensor, int]] = {}
        self._uses: dict[str, int] = {}
        self._single: dict[str, bool] = {}
        self._active = False
        self._forward: Any = None
        self._handles: list[Any] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._readings: Readings | None = None

    def __enter__(self) -> Self:
        try:
            self._attach()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _attach(self) -> None:
        self._modes = [(module, module.training) for module in self.model.modules()]
        self._readings = read_(self.model)  # neurons of other libraries, until the end
        self.found.caveats = tuple(
            f"{one.path}: {text}" for one in self._readings.replaced for text in one.reading.caveats
        )
        self.model.eval()
        if self._operations:
            check_countable(self.model)
        for path, module in self.model.named_modules():
            if isinstance(module, NeuronLayer) and emits_spikes(module):
                self._single[path] = module.neuron_spec.spikes_max == 1
                self._handles.append(module.register_forward_hook(self._on_neurons(path)))
            elif self._operations and isinstance(module, (*SYNAPSES, Synapse)):
                self._handles.append(module.register_forward_pre_hook(self._on_weights(path)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for module, training in self._modes:
            module.training = training
        reset_states(self.model)
        count_samples_from(self.model, 0)
        if self._readings is not None:
            self._readings.undo()
            self._readings = None

    def result(self) -> Observation:
        """What was seen.

        Raises:
            DataError: no batch.
        """
        if not self.found.targets:
            raise DataError("the loader gave no batch; expected at least one (input, target)")
        return self.found

    @torch.no_grad()
    def run(self, x: Tensor, y: Tensor) -> Trains:
        """Run one batch; returns what every spiking layer emitted, ``[T, N, *features]``.

        Raises:
            DataError: NaN in the data, targets that are not one class per sample, a shape that the model refuses.
        """
        self._check(x, y)
        if self._forward is None:
            self._prepare(x, len(y))
        self._calls.samples = len(y)
        reset_states(self.model)
        count_samples_from(self.model, sum(len(t) for t in self.found.targets))
        self._active = True
        try:
            output = first_output(self._forward(x))
        except RuntimeError as error:
            raise DataError(f"{self.name} cannot take an input of shape {tuple(x.shape)}: {error}") from error
        finally:
            self._active = False
            parts, self._parts, self._spikes = self._parts, {}, {}
        if output.dim() != 2 or len(output) != len(y):
            raise DataError(
                f"{self.name}: expected scores [N, classes] for {len(y)} targets, got {tuple(output.shape)}; "
                "reduce the spikes of the last layer over time (sum or mean)"
            )
        self.found.predictions.append(output.argmax(-1).cpu())
        self.found.targets.append(y.cpu())
        self.found.input_bits = max(self.found.input_bits, bits_of_data(x))
        trains = {path: self._count(path, pieces) for path, pieces in parts.items()}
        steps = max((len(train) // self._uses.get(path, 1) for path, train in trains.items()), default=0)
        self.found.steps = max(self.found.steps, steps)
        self.found.sample_steps += steps * len(y)
        return trains

    def _check(self, x: Tensor, y: Tensor) -> None:
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise DataError(f"a batch is (input, target), two tensors; got {type(x).__name__} and {type(y).__name__}")
        if y.dim() != 1 or y.is_floating_point() or len(y) == 0:
            raise DataError(f"targets are one class per sample, integers [N]; got {y.dtype} {tuple(y.shape)}")
        check_batch(x)

    def _prepare(self, x: Tensor, samples: int) -> None:
        """Read the model's graph off a few samples, and choose how it is run."""
        self._forward = self.model
        few = few_samples(x, samples)
        try:
            with self._calls.recorded():
                self._active = True
                graph = capture(self.model, few)
        except (CaptureError, DataError, Unsupported) as error:  # a wrong shape comes again when the model runs
            self.found.why_no_graph = str(error)
            return
        finally:
            self._active = False
            reset_states(self.model)
        self.found.graph, self.found.example = graph, few
        for node in (node for node in graph.nodes if node.kind == "module"):
            self._uses[node.path] = self._uses.get(node.path, 0) + 1
        loops = any(getattr(m, "step_mode", "m") == "s" for m in self.model.modules())
        if loops and graph.input_layout != "step" and self._calls.fits(graph):
            runner = LayerwiseRunner(self.model, graph)
            self._forward = lambda x: runner(x) if self._calls.layerwise(runner.fits(x)) else self.model(x)

    def _on_neurons(self, path: str):  # type: ignore[no-untyped-def]
        def hook(module: Any, _inputs: object, output: Any) -> None:
            if self._active and not self._calls.recording:
                spikes = first_output(output).detach()
                if self._single[path] and module.spike_unit == 1.0:
                    self._spikes[spikes.data_ptr()] = (spikes, spikes._version)  # held: its place is not reused
                train = spikes / module.spike_unit  # a copy: a model may add onto it in place
                self._parts.setdefault(path, []).append(train if module.step_mode == "m" else train[None])

        return hook

    def _on_weights(self, path: str):  # type: ignore[no-untyped-def]
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            if not self._active:
                return
            if self._calls.recording:
                self._calls.count(path)
                return
            x, repeats = self._calls.steps_of(path, module, inputs[0])
            if path not in self.found.operations:
                self.found.operations[path] = counter_of(path, module, tuple(x.shape[2:]))
            events, spiking = events_of(x, known_spikes=self._is_spikes(x))
            self.found.operations[path].add(events, spiking, samples=x.shape[1], repeats=repeats)

        return hook

    def _is_spikes(self, x: Tensor) -> bool:
        """Whether an input is what a layer of single spikes emitted in this run, unchanged since."""
        found = self._spikes.get(x.data_ptr())
        return found is not None and found[0].numel() == x.numel() and found[1] == x._version

    def _count(self, path: str, pieces: list[Tensor]) -> Tensor:
        train = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        exact = train.dtype if train.dtype == torch.float64 else torch.float32
        found, counts = self.found, train.sum(0, dtype=exact)  # the law's spikes are never negative
        found.shapes[path] = tuple(train.shape[2:])
        found.firing.setdefault(path, FiringStatistics(path)).add(counts.numpy(force=True), steps=train.shape[0])
        events = counts.sum(dtype=torch.float64) if self._single[path] else train.count_nonzero()
        found.emitted += int(events)
        found.places += train.numel()
        return train


def emits_spikes(module: NeuronLayer) -> bool:
    """Whether a neuron layer emits its spikes (not its membrane, as a readout does)."""
    return module.neuron_spec.output == "spike"
