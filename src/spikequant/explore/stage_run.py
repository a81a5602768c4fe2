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

from spikequant.analyse.probe import emits_spikes
from spikequant.capture import GraphNode, LayerwiseRunner
from spikequant.explore.network import SharedNetwork, place
from spikequant.explore.operations import operations
from spikequant.explore.stages import Stage
from spikequant.explore.tree import Node, Record, Slot, packed
from spikequant.explore.validation import spike_counts
from spikequant.law.errors import WidthError
from spikequant.nn import NeuronLayer, QuantizedNeuron, Synapse
from spikequant.nn.reset import count_samples_from
from spikequant.nn.spike_counts import spikes_over_time
from spikequant.plan import Plan
from spikequant.quantize.calibrate import fit_input, settle_group
from spikequant.quantize.freeze import freeze_neuron
from spikequant.quantize.scales import Seen, refine_scale

Events = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], tuple[int, ...], int]
"""Non-zero inputs of a layer, which calls were spikes, shape of ``[rows, *features]``, how often that is shown."""


REFORMS = ("reshape", "concat", "pool", "iand", "add", "product", "maximum")
"""Kinds of graph nodes without a layer."""


@final
class Frame:
    """A node on one batch: its values, computed or unpacked when somebody asks.

    Attributes:
        first: number of the batch's first sample, from which the noise of stochastic rounding counts.
        sums: raw integer sums of the next stage, of one weight key at a time.
        gained: the same in accumulator LSBs, beside what they were made from.
        events: spikes that the next stage's layers were given, counted.
        reformed: values of the next stage's joins, pools and reshapes before any layer of it.
        counts: spikes of its neurons by layer, once its record was asked for.
        readout: integer sums of a last layer without a neuron, where they were computed with those of its siblings.
        summed: spikes of its neurons over time, uint8 ``[N, ...]``, where the last stage asks for no more.
    """

    def __init__(self, run: StageRun, node: Node, slot: Slot, parent: Frame | None, samples: int) -> None:
        self.run, self.node, self.slot, self.parent, self.samples = run, node, slot, parent, samples
        self.first: int = 0 if parent is None else parent.first
        self.values: dict[str, Tensor] = {}
        self.sums: tuple[str, dict[str, Tensor]] = ("", {})
        self.gained: dict[str, tuple[Tensor, Tensor, bool, Tensor]] = {}
        self.events: dict[str, Events] = {}
        self.reformed: dict[str, Tensor] = {}
        self.counts: dict[str, npt.NDArray[np.float64]] = {}
        self.readout: Tensor | None = None
        self.summed: Tensor | None = None

    def value(self, name: str) -> Tensor:
        """The value of a graph node of this stage or one before."""
        if name in self.values:
            return self.values[name]
        if self.parent is None or name not in self.run.stage(self.node).exports:
            assert self.parent is not None
            return self.parent.value(name)
        kept = self.run.network.tree.kept(self.node, self.slot)
        if kept is None or name not in kept.exports:
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

    def below(self, parent: Frame, node: Node) -> Frame:
        """A node behind another one, on the same batch."""
        return Frame(self, node, parent.slot, parent, parent.samples)

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
            frame.counts, frame.summed = kept.counts, kept.summed
            return kept
        self.enter(frame.node)
        record = self._summed(frame)
        if record is not None:
            tree.keep(frame.node, frame.slot, record)
            return record
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
        frame.counts = counts
        last = frame.node.number == len(self.network.stages) - 1
        right = None
        if last:
            result = self.runner.reading({self.network.graph.output.source: frame.value(self._result)})
            right = (result.argmax(-1) == targets).numpy(force=True)
        kept_exports = {} if last else {name: packed(values[name], units.get(name)) for name in stage.exports}
        record = Record(counts, operations(self, frame, values), right, kept_exports)
        if not last:
            tree.keep(frame.node, frame.slot, record)
        return record

    def _summed(self, frame: Frame) -> Record | None:
        """The record of a stage of which only its spikes over time are asked for; None where that is not so."""
        stage = self.stage(frame.node)
        if frame.node.number != len(self.network.stages) - 2 or self.network.summed is None:
            return None
        neuron, at = frame.node.modules[stage.end], stage.nodes[-1]
        if not isinstance(neuron, QuantizedNeuron) or neuron.spike_unit != 1.0 or not emits_spikes(neuron):
            return None
        values = self._values(frame, at.name)
        x = self.given_to(frame, at, values)
        if not self.runner.has_time(at.inputs[0]):
            x = x.unsqueeze(0).expand(self.network.graph.steps, *x.shape)
        counts = spikes_over_time(neuron, x)
        if counts is None:
            return None
        frame.summed = counts
        frame.counts = {stage.end: counts.to(torch.float32).sum(0).flatten().to(torch.float64).numpy()}
        return Record(frame.counts, operations(self, frame, values), None, {}, counts)

    def decided(self, frame: Frame, right: npt.NDArray[np.bool_]) -> Record:
        """The record of a last layer that was read with its siblings."""
        return Record({}, operations(self, frame, {}), right, {})

    @property
    def _result(self) -> str:
        return self.network.graph.output.source

    def _values(self, frame: Frame, until: str | None) -> dict[str, Tensor]:
        """Run the nodes of a stage; with `until`, those before the node of that name."""
        assert frame.parent is not None
        values: dict[str, Tensor] = {}
        own, reformed = {n.name for n in self.stage(frame.node).nodes}, frame.parent.reformed
        for path in self.stage(frame.node).modules:
            count_samples_from(self.model.get_submodule(path), frame.first)
        for node in self.stage(frame.node).nodes:
            if node.name == until:
                break
            if node.name in values:  # a state, which its neuron gave
                continue
            if node.name in reformed:
                values[node.name] = reformed[node.name]
                continue
            given = {e.source: values[e.source] if e.source in values else frame.parent.value(e.source)
                     for e in node.inputs}  # fmt: skip
            module = self.model.get_submodule(node.path) if node.kind == "module" else None
            if isinstance(module, Synapse) and module.link is not None:
                values[node.name] = self._sums(frame, node, module, given)
            elif isinstance(module, Synapse) and frame.readout is not None:
                values[node.name] = module.currents(frame.readout)
            else:
                values[node.name] = self.runner.whole(node, given)
                values.update({name: value for name, value in given.items() if name not in values and name != "input"})
                if node.kind in REFORMS and all(e.source in reformed or e.source not in own for e in node.inputs):
                    reformed[node.name] = values[node.name]
        return values

    def given_to(self, frame: Frame, at: GraphNode, values: dict[str, Tensor] | None = None) -> Tensor:
        """What a node of a stage is given, by the layers that are in their places; `values` of the nodes before it."""
        assert frame.parent is not None
        values = values or self._values(frame, at.name)
        source = at.inputs[0].source
        given = {source: values[source] if source in values else frame.parent.value(source)}
        return self.runner.aligned(at.inputs[0], at, given)

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
        kept = frame.parent.gained.get(node.name)  # siblings mostly count in the same LSBs
        if kept is None or kept[0] is not raw[node.name] or kept[2] != wide or not torch.equal(kept[1], gain):
            total = raw[node.name].to(torch.float64) if wide else raw[node.name]
            shape = (-1,) if synapse.kind == "linear" else (-1, *([1] * (synapse.weight.dim() - 2)))
            kept = (raw[node.name], gain.clone(), wide, total * gain.reshape(shape).to(total.dtype))
            frame.parent.gained[node.name] = kept
        return kept[3]

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
            assert node.parent is not None
            self._refit_norms(node, neuron, parents)
            settle_group(
                stage.end,
                neuron,
                few=lambda module: self._flows(node, module, few),
                all_=lambda module: self._flows(node, module, parents),
                refit_norms=False,
                refine=False,
                advise=False,
                wides=node.parent.wides.setdefault(node.weight_key, {}),
            )
            freeze_neuron(stage.end, neuron)

    def _refit_norms(self, node: Node, neuron: QuantizedNeuron, parents: Sequence[Frame]) -> None:
        """Measure batch norms anew; taken over from a sibling with the same weights.

        The sums of a sibling may count in other LSBs: by a power of two, which moments in real units do not see, as
        long as no second path is rounded to these LSBs.
        """
        assert node.parent is not None
        norms = [branch.norm for branch in neuron.branches if branch.norm is not None]
        grid = neuron.fraction_bits if len(neuron.branches) > 1 else None
        key = (node.weight_key, neuron.needs_double, grid)
        known = node.parent.norms.get(key)
        for place_, norm in enumerate(norms):
            if known is None:
                norm.refit([x for batch in self._flows(node, norm, parents) for x in batch])
            else:
                for name, measured in known[place_].items():
                    norm.get_buffer(name).copy_(measured)
        if known is None:
            node.parent.norms[key] = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
        neuron.prove(neuron.integers())

    def _freeze_weights(self, node: Node, synapses: dict[str, Synapse], few: Sequence[Frame]) -> None:
        """Weight scales by the error of the sums, then codes; taken over from a sibling that has the same weights."""
        assert node.parent is not None
        known = node.parent.weights.get(node.weight_key)
        if known is None:
            for path, synapse in synapses.items():
                fitted = self.network.fitted(path, node.weight_key, synapse)
                refine_scale(synapse, lambda synapse=synapse: self._flows(node, synapse, few), fitted)  # type: ignore[misc]
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
            x = self.given_to(self.below(parent, node), at)
            times, shown = self.network.times[at.path], self.runner.has_time(at.inputs[0])
            if isinstance(module, QuantizedNeuron) and not shown:
                x, shown = x.unsqueeze(0).expand(self.network.graph.steps, *x.shape), True
            elif self.network.shown[at.path] > 1:  # many times in one call
                x = x.expand(self.network.shown[at.path], *x.shape).flatten(0, 1)
            seen.append([x] if times == 1 else list(x.unbind(0)) if shown else [x] * times)
        return seen
