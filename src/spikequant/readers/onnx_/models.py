"""The two models of a network: one step (states in, states out) and a whole sequence (`Scan` over the same step)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.network import InputNode, IntNet
from spikequant.law.widths import prove_network
from spikequant.readers.golden import static_nodes
from spikequant.readers.onnx_.body import Port, Step, StepWriter
from spikequant.readers.onnx_.facts import facts_of
from spikequant.readers.onnx_.graph import INT64, Graph, Value, library
from spikequant.readers.onnx_.nodes import Plan, plan, write_value

BASELINE, NEWEST = 17, 25
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}
"""The file format that came with each opset: an older runtime refuses a newer one."""
BODY = "body."
Shape = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """A model and what its tensors mean.

    Attributes:
        net: the network.
        proto: the ONNX model.
        step: the ports of one step.
        form: ``"step"`` or ``"sequence"``.
        trace: whether spikes and states of every step leave a sequence model.
    """

    net: IntNet
    proto: Any
    step: Step
    form: str
    trace: bool

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return bytes(self.proto.SerializeToString(deterministic=True))


def after(name: str) -> str:
    """Name under which a state leaves a step.

    >>> after("state.lif1.v"), after("time")
    ('next.lif1.v', 'next.time')
    """
    return f"next.{name.removeprefix('state.')}"


class ModelWriter:
    """Writes both forms of a network for one opset.

    Raises:
        Unsupported: onnx is not installed, an opset out of range, a network without neurons.
    """

    def __init__(self, net: IntNet, *, opset: int = BASELINE, packed: bool = False, trace: bool = True) -> None:
        if isinstance(opset, bool) or opset not in IR_VERSIONS:
            raise Unsupported(f"opset = {opset!r}; expected {BASELINE} to {NEWEST}")
        if packed and opset < 21:
            raise Unsupported(f"packed weights need opset 21 (int4) or {NEWEST} (int4 and int2), got opset {opset}")
        if not net.neurons:
            raise Unsupported("the network has no neurons, so there is no step to export")
        self.onnx = library("onnx")
        known = self.onnx.defs.onnx_opset_version()
        if opset > known:
            raise Unsupported(f"opset {opset} is newer than onnx {self.onnx.__version__} (opset {known}); update onnx")
        prove_network(net)
        self.net, self.opset, self.packed, self.trace = net, opset, packed, trace
        self.about: Plan = plan(net)

    def _graph(self, prefix: str = "") -> Graph:
        return Graph(self.onnx, prefix, self.opset if self.packed else 0)

    def step_model(self) -> Model:
        """One time step: states come in as ``state.*`` and leave as ``next.*``."""
        graph = self._graph()
        step = StepWriter(graph, self.about).write()
        read = [step.x, *(port for port, _ in step.states), *(port for _, _, port in step.noise)]
        inputs = [graph.info(port.name, port.kind, batched(port)) for port in read]
        score, value = step.scores
        results = [(score.name, value, batched(score))]
        results += [(after(port.name), value, batched(port)) for port, value in step.states]
        results += [(port.name, value, batched(port)) for _, what, port, value in step.trace if what == "out"]
        return self._model(graph, inputs, self._leave(graph, results), step, "step")

    def sequence_model(self) -> Model:
        """A whole sequence: ``x`` is ``[T, N, ...]``, or a static ``[N, ...]`` that is shown for all steps."""
        outer, body, static = self._graph(), self._graph(BODY), self.net.input.static
        step = StepWriter(body, self.about, self._static_values(outer)).write(keep_last=True)
        time: Any = self.net.steps if static else "T"
        noise = [port for _, _, port in step.noise]
        inputs = [outer.info("x", step.x.kind, batched(step.x) if static else (time, *batched(step.x)))]
        inputs += [outer.info(port.name, port.kind, (time, *batched(port))) for port in noise]
        starts = [self._start(outer, port) for port, _ in step.states]
        first = outer.const(np.arange(self.net.steps)) if static else Value("x", step.x.kind)
        scanned = [Port("steps", INT64, None) if static else step.x, *noise]
        trains = self._trains(step)
        proto = self._body(body, step, scanned, trains)
        finals = [Value(f"last.{p.name}" if p.name != "state.scores" else "scores", p.kind) for p, _ in step.states]
        whole = [*finals, *(Value(port.name, value.kind) for port, value in trains)]
        sources = [first, *(Value(port.name, port.kind) for port in noise)]
        outer.multi("Scan", [*starts, *sources], whole, body=proto, num_scan_inputs=len(sources))
        outputs = [outer.info(port.name, value.kind, (time, *batched(port))) for port, value in trains]
        if any(value.name == "scores" for value in finals):
            port, value = step.scores
            outputs.insert(0, outer.info("scores", value.kind, batched(port)))
        return self._model(outer, inputs, outputs, step, "sequence")

    def _static_values(self, outer: Graph) -> dict[str, Value]:
        """Values that a static input fixes, computed once, outside of the loop."""
        constant, known = static_nodes(self.net), {}
        for node in self.net.nodes:
            outer.scope = self.about.names[node.name]
            if node.name not in constant:
                continue
            if isinstance(node, InputNode):
                known[node.name] = Value("x", self.about.kind(node.name))
            else:
                known[node.name] = write_value(outer, self.about, node, [known[e.source] for e in node.inputs])
        outer.scope = ""
        return known

    def _start(self, outer: Graph, port: Port) -> Value:
        """The zeros with which a state starts."""
        if port.shape is None:
            return outer.const(0, port.kind)
        axis = 0 if self.net.input.static else 1
        samples = outer.op("Shape", Value("x", port.kind), kind=INT64, start=axis, end=axis + 1)
        shape = outer.op("Concat", samples, outer.const(np.array(port.shape)), axis=0)
        zero = self.onnx.numpy_helper.from_array(np.zeros(1, dtype=port.kind))
        return outer.op("ConstantOfShape", shape, kind=port.kind, value=zero)

    def _trains(self, step: Step) -> list[tuple[Port, Value]]:
        """What leaves the loop at every step."""
        trains = [(port, value) for _, _, port, value in step.trace] if self.trace else []
        return [step.scores, *trains] if self.net.decoder.name.endswith("_train") else trains

    def _body(self, body: Graph, step: Step, scanned: list[Port], trains: list[tuple[Port, Value]]) -> Any:
        ports = [*(port for port, _ in step.states), *scanned]
        inputs = [body.info(BODY + port.name, port.kind, batched(port)) for port in ports]
        results = [(BODY + after(port.name), value, batched(port)) for port, value in step.states]
        results += [(f"{BODY}out.{port.name}", value, batched(port)) for port, value in trains]
        outputs = self._leave(body, results)
        return self.onnx.helper.make_graph(body.nodes, "step", inputs, outputs, body.initializers)

    @staticmethod
    def _leave(graph: Graph, results: list[tuple[str, Value, Shape]]) -> list[Any]:
        """Outputs under their names."""
        for name, value, _ in results:
            graph.op("Identity", value, name=name)
        return [graph.info(name, value.kind, shape) for name, value, shape in results]

    def _model(self, graph: Graph, inputs: list[Any], outputs: list[Any], step: Step, form: str) -> Model:
        helper = self.onnx.helper
        made = helper.make_graph(graph.nodes, f"spikequant_{form}", inputs, outputs, graph.initializers)
        opset = helper.make_opsetid("", self.opset)
        proto = helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSIONS[self.opset])
        proto.producer_name, proto.doc_string = "spikequant", DOCUMENTATION[form]
        facts = facts_of(self.net, self.about, step, form, self.opset, self.packed)
        entry = proto.metadata_props.add()
        entry.key, entry.value = "spikequant", json.dumps(facts, sort_keys=True, allow_nan=False)
        return Model(self.net, proto, step, form, self.trace)


def batched(port: Port) -> Shape:
    """Shape of a port in one step, with the batch axis."""
    return () if port.shape is None else ("N", *port.shape)


DOCUMENTATION: Mapping[str, str] = {
    "step": "One time step of a quantized spiking network, integers only. Feed next.NAME back as state.NAME, "
    "next.past.* as past.*, next.time as time; all start at 0.",
    "sequence": "A quantized spiking network over a whole sequence, integers only; time first, then samples.",
}
