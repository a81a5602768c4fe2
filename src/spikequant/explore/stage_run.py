"""One thread's way through the stages: place the layers of a node, run its stage, calibrate it.

The integer sums of a layer depend on its weights and on its input, not on the neuron behind it.  So they are computed
once for all nodes that differ in the neuron only, which follow one another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.analyse.counting import counter_of, events_of
from spikequant.analyse.probe import emits_spikes
from spikequant.capture import GraphNode, LayerwiseRunner
from spikequant.explore.network import SharedNetwork, place
from spikequant.explore.stages import Stage
from spikequant.explore.tree import Node, Record, Slot, packed
from spikequant.explore.validation import spike_counts
from spikequant.law.errors import WidthError
from spikequant.measure import SynOpsCount
from spikequant.nn import NeuronLayer, QuantizedNeuron, Synapse
from spikequant.nn.reset import count_samples_from
from spikequant.plan import Plan
from spikequant.quantize.calibrate import fit_input, settle_group
from spikequant.quantize.freeze import freeze_neuron
from spikequant.quantize.scales import Seen, refine_scale

Events = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], tuple[int, ...], int]
"""Non-zero inputs of a layer, which calls were spikes, shape of ``[rows, *features]``, how often that is shown."""


@final
class Frame:
    """A node on one batch: its values, computed or unpacked when somebody asks.

    Attributes:
        first: number of the batch's first sample, from which the noise of stochastic rounding counts.
        sums: raw integer sums of the next stage, of one weight key at a time.
        events: spikes that the next stage's layers were given, counted.
    """

    def __init__(self, run: StageRun, node: Node, slot: Slot, parent: Frame | None, samples: int) -> None:
        self.run, self.node, self.slot, self.parent, self.samples = run, node, slot, parent, samples
        self.first: int = 0 if parent is None else parent.first
        self.values: dict[str, Tensor] = {}
        self.sums: tuple[str, dict[str, Tensor]] = ("", {})
        self.events: dict[str, Events] = {}

    def value(self, name: str) -> Tensor:
        """The value of a graph node of this stage or one before."""
        if name in self.values:
            return self.values[name]
        if self.parent is None or name not in self.run.stage(self.node).exports:
            assert self.parent is not None
            return self.parent.value(name)
        kept = self.run.network.tree.kept(self.node, self.slot)
        if kept is None:
            self.values.update(self.run.exports(self))
        else:
            self.values[name] = kept.exports[name].unpacked()
        return self.values[name]


@final
class StageRun:
    """Runs stages with one skeleton of the network; not to be shared between threads.

    Args:
        network: what all threads share.
    """

    def __init__(self, network: SharedNetwork) -> None:
        self.network = network
        self.model = network.skeleton()
        self.runner = LayerwiseRunner(self.model, network.graph)
        self.calls = copy.copy(network.calls)  # it is told how many samples a batch has

    def stage(self, node: Node) -> Stage:
        """The stage of a node."""
        return self.network.stages[node.number]

    def enter(self, node: Node) -> None:
        """Put the layers of a node in their places."""
        place(self.model, node.modules)

    # -- running -----------------------------------------------------------------------

    @torch.no_grad()
    def exports(self, frame: Frame) -> dict[str, Tensor]:
        """The values of a stage that later ones read."""
        with frame.node.lock:  # its layers are those of all threads
            self.enter(frame.node)
            values = self._values(frame, None)
        return {name: values[name] for name in self.stage(frame.node).exports}

    @torch.no_grad()
    def record(self, frame: Frame, targets: Tensor) -> Record:
        """Everything that is counted of a stage on a batch; from what is kept, where it is."""
        tree = self.network.tree
        kept = tree.kept(frame.node, frame.slot)
        if kept is not None:
            return kept
        self.enter(frame.node)
        stage = self.stage(frame.node)
        values = self._values(frame, None)
        frame.values.update({name: values[name] for name in stage.exports})
        counts, units = {}, {}
        for node in stage.nodes:
            module = self.model.get_submodule(node.path) if node.kind == "module" else None
            if isinstance(module, NeuronLayer) and emits_spikes(module):
                train = values[node.name]
                counts[node.path] = spike_counts(train if module.spike_unit == 1.0 else train / module.spike_unit)
                if module.neuron_spec.spikes_max == 1 and train.dtype == torch.float32:
                    units[node.name] = module.spike_unit
        last = frame.node.number == len(self.network.stages) - 1
        right = None
        if last:
            result = self.runner.reading({self.network.graph.output.source: frame.value(self._result)})
            right = (result.argmax(-1) == targets).numpy(force=True)
        kept_exports = {} if last else {name: packed(values[name], units.get(name)) for name in stage.exports}
        record = Record(counts, self._operations(frame, values), right, kept_exports)
        if not last:
            tree.keep(frame.node, frame.slot, record)
        return record

    @property
    def _result(self) -> str:
        return self.network.graph.output.source

    def _values(self, frame: Frame, until: str | None) -> dict[str, Tensor]:
        """Run the nodes of a stage; with `until`, those before the node of that name."""
        assert frame.parent is not None
        values: dict[str, Tensor] = {}
        for path in self.stage(frame.node).modules:
            count_samples_from(self.model.get_submodule(path), frame.first)
        for node in self.stage(frame.node).nodes:
            if node.name == until:
                break
            if node.name in values:  # a state, which its neuron gave
                continue
            given = {e.source: values[e.source] if e.source in values else frame.parent.value(e.source)
                     for e in node.inputs}  # fmt: skip
            module = self.model.get_submodule(node.path) if node.kind == "module" else None
            if isinstance(module, Synapse) and module.link is not None:
                values[node.name] = self._sums(frame, node, module, given)
            else:
                values[node.name] = self.runner.whole(node, given)
                values.update({name: value for name, value in given.items() if name not in values and name != "input"})
        return values

    def _sums(self, frame: Frame, node: GraphNode, synapse: Synapse, given: dict[str, Tensor]) -> Tensor:
        """Accumulator LSBs of a synapse, from raw sums that its siblings have computed already."""
        assert frame.parent is not None
        assert synapse.link is not None
        weight_key = frame.node.weight_key
        if frame.parent.sums[0] != weight_key:
            frame.parent.sums = (weight_key, {})
        raw = frame.parent.sums[1]
        if node.name not in raw:
            x = self.runner.aligned(node.inputs[0], node, given)
            merged = x.flatten(0, 1) if node.per_step else x
            total = synapse.sums(synapse.integer_input(merged), synapse.codes())
            synapse.train(False)  # forgets its codes as floats
            apart: Tensor = total.unflatten(0, x.shape[:2]) if node.per_step else total  # type: ignore[no-untyped-call]
            raw[node.name] = apart
        gain, wide = synapse.link.branch.gain()
        total = raw[node.name]
        shape = (-1,) if synapse.kind == "linear" else (-1, *([1] * (synapse.weight.dim() - 2)))
        return total.to(torch.float64) * gain.reshape(shape) if wide else total * gain.reshape(shape).to(total.dtype)

    def _operations(self, frame: Frame, values: dict[str, Tensor]) -> dict[str, SynOpsCount]:
        """Synaptic operations of the stage's layers; the events of their inputs are counted once for all siblings."""
        assert frame.parent is not None
        found: dict[str, SynOpsCount] = {}
        self.calls.samples = frame.samples
        for node in self.stage(frame.node).nodes:
            module = self.model.get_submodule(node.path) if node.kind == "module" else None
            if node.path not in self.stage(frame.node).synapses:
                continue
            source = node.inputs[0].source
            x = values[source] if source in values else frame.parent.value(source)
            given = self.runner.aligned(node.inputs[0], node, {source: x})
            key = f"{node.name} {getattr(module, 'input_scale', None)}"
            if key not in frame.parent.events:
                merged = given.flatten(0, 1) if node.per_step else given
                rows, repeats = self.calls.steps_of(node.path, module, merged)
                frame.parent.events[key] = (*events_of(rows), tuple(rows.shape[1:]), repeats)
            events, spiking, shape, repeats = frame.parent.events[key]
            counter = frame.node.counters.get(node.path)
            if counter is None:
                counter = frame.node.counters[node.path] = counter_of(node.path, module, shape[1:])
            before = counter.count()
            counter.add(events, spiking, samples=shape[0], repeats=repeats)
            found[node.path] = _since(before, counter.count())
        return found

    # -- calibrating -------------------------------------------------------------------

    @torch.no_grad()
    def calibrate(self, node: Node, plan: Plan, parents: Sequence[Frame]) -> None:
        """Calibrate and freeze the layers of a node on what the node before it gives, once; a refusal stays with it.

        `parents`: the node before it on every batch of the calibration data.
        """
        with node.lock:
            if node.modules or node.refused:
                return
            try:
                modules = self.network.dressed(node.number, plan)
                place(self.model, modules)
                self._settle(node, modules, parents)
                node.modules = modules
            except WidthError as error:
                node.refused = str(error)

    def _settle(self, node: Node, modules: dict[str, nn.Module], parents: Sequence[Frame]) -> None:
        stage, few = self.stage(node), parents[: self.network.few]
        synapses = {path: m for path in stage.synapses if isinstance(m := modules[path], Synapse)}
        fit_input(list(synapses.values()), list(self.network.calibration))
        self._freeze_weights(node, synapses, few)
        neuron = modules.get(stage.end)
        if isinstance(neuron, QuantizedNeuron):
            settle_group(
                stage.end,
                neuron,
                few=lambda module: self._flows(node, module, few),
                all_=lambda module: self._flows(node, module, parents),
                refine=False,
                advise=False,
            )
            freeze_neuron(stage.end, neuron)

    def _freeze_weights(self, node: Node, synapses: dict[str, Synapse], few: Sequence[Frame]) -> None:
        """Weight scales by the error of the sums, then codes; taken over from a sibling that has the same weights."""
        assert node.parent is not None
        known = node.parent.weights.get(node.weight_key)
        if known is None:
            for synapse in synapses.values():
                refine_scale(synapse, lambda synapse=synapse: self._flows(node, synapse, few))  # type: ignore[misc]
            for synapse in synapses.values():
                synapse.freeze()
            node.parent.weights[node.weight_key] = {p: (s.weight_scale, s.frozen_codes) for p, s in synapses.items()}
            return
        for path, synapse in synapses.items():
            scale, codes = known[path]
            synapse.weight_scale.copy_(scale)
            synapse.frozen_codes = codes

    def _flows(self, node: Node, module: nn.Module, parents: Sequence[Frame]) -> Seen:
        """What a layer of the stage is called with on the batches of the calibration data."""
        at = next(n for n in self.stage(node).nodes if n.path and self.model.get_submodule(n.path) is module)
        seen: Seen = []
        for parent in parents:
            frame = Frame(self, node, parent.slot, parent, parent.samples)
            values = self._values(frame, at.name)
            source = at.inputs[0].source
            x = self.runner.aligned(
                at.inputs[0], at, {source: values[source] if source in values else parent.value(source)}
            )
            times, shown = self.network.times[at.path], self.runner.has_time(at.inputs[0])
            if isinstance(module, QuantizedNeuron) and not shown:
                x, shown = x.unsqueeze(0).expand(self.network.graph.steps, *x.shape), True
            seen.append([x] if times == 1 else list(x.unbind(0)) if shown else [x] * times)
        return seen


def _since(before: SynOpsCount, now: SynOpsCount) -> SynOpsCount:
    return SynOpsCount(
        now.effective_macs - before.effective_macs, now.effective_acs - before.effective_acs, now.dense - before.dense
    )
