"""The scalar oracle: a whole `IntNet`, one Python integer at a time.

Slow and deliberately separate from the law: it reads the network's dataclasses as data,
and does its own indexing, sums, pooling, delays, noise and neurons (`oracle_neuron.py`).
Values of a node are flat lists in C order, one per sample.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from tests.law.oracle_neuron import neuron_step, noise_word

FACTS = ("equal", "clipped", "reset")


@dataclass
class OracleRun:
    """``outputs[name][t][n][k]``, ``states[name][state][t][n][k]``, flat scores, counts of rare events."""

    scores: list
    outputs: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)
    facts: dict = field(default_factory=lambda: dict.fromkeys(FACTS, 0))


def spread(value, shape):
    """An array's integers, repeated over `shape` by the usual rule (trailing axes meet)."""
    own, numbers = list(value.shape), [int(k) for k in value.reshape(-1).tolist()]
    own = [1] * (len(shape) - len(own)) + own
    strides, step = [], 1
    for size in reversed(own):
        strides.insert(0, step if size > 1 else 0)
        step *= size
    return [
        numbers[sum(k * s for k, s in zip(place, strides, strict=True))]
        for place in itertools.product(*(range(n) for n in shape))
    ]


def flat(place, shape):
    """Position of a multi-index in C order."""
    index = 0
    for k, size in zip(place, shape, strict=True):
        index = index * size + k
    return index


def linear_rows(product, shape):
    """Per output: a constant and the list of (input position, code)."""
    codes = product.codes.tolist()
    rows = []
    for lead in range(math.prod(shape[:-1])):
        for row in codes:
            rows.append((0, [(lead * shape[-1] + k, int(w)) for k, w in enumerate(row) if w]))
    return rows


def conv_rows(product, shape, out_shape):
    """The same for a convolution: taps outside meet the pad code of their channel."""
    codes, kernel = product.codes, product.codes.shape[2:]
    outs, ins = codes.shape[0] // product.groups, codes.shape[1]
    pads = (
        spread(product.pad_code, (shape[0],)) if hasattr(product.pad_code, "shape") else [product.pad_code] * shape[0]
    )
    rows = []
    for out in range(codes.shape[0]):
        first = (out // outs) * ins
        for place in itertools.product(*(range(n) for n in out_shape[1:])):
            constant, taps = 0, []
            for c in range(ins):
                for tap in itertools.product(*(range(k) for k in kernel)):
                    w = int(codes[(out, c, *tap)])
                    spots = [
                        o * s - q + t * d
                        for o, s, q, t, d in zip(
                            place, product.stride, product.padding, tap, product.dilation, strict=True
                        )
                    ]
                    if all(0 <= k < n for k, n in zip(spots, shape[1:], strict=True)):
                        taps.append((flat((first + c, *spots), shape), w))
                    else:
                        constant += w * int(pads[first + c])
            rows.append((constant, [tap for tap in taps if tap[1]]))
    return rows


def pool_windows(node, shape):
    """Per output the positions inside its window."""
    axes = len(node.kernel)
    windows = []
    for lead in itertools.product(*(range(n) for n in shape[:-axes])):
        for place in itertools.product(*(range(n) for n in node.shape[-axes:])):
            window = []
            for tap in itertools.product(*(range(k) for k in node.kernel)):
                spots = [o * s - q + t for o, s, q, t in zip(place, node.stride, node.padding, tap, strict=True)]
                if all(0 <= k < n for k, n in zip(spots, shape[-axes:], strict=True)):
                    window.append(flat((*lead, *spots), shape))
            windows.append(window)
    return windows


def joined(node, parts, shapes):
    """One sample of a join."""
    if node.kind == "iand":
        return [(1 - a) * b for a, b in zip(*parts, strict=True)]
    scaled = [[int(g) * k for k in part] for g, part in zip(node.gains, parts, strict=True)]
    if node.kind == "add":
        return [sum(column) for column in zip(*scaled, strict=True)]
    if node.kind == "max":
        return [max(column) for column in zip(*scaled, strict=True)]
    if node.kind == "product":
        return [math.prod(column) for column in zip(*scaled, strict=True)]
    result = []
    for place in itertools.product(*(range(n) for n in node.shape)):
        k, spot = 0, place[node.axis]
        while spot >= shapes[k][node.axis]:
            spot -= shapes[k][node.axis]
            k += 1
        result.append(scaled[k][flat((*place[: node.axis], spot, *place[node.axis + 1 :]), shapes[k])])
    return result


def multiplied(node, parts, shapes):
    """One sample of a matrix product of two activations."""
    (*lead, rows, inner), result = shapes[0], []
    columns = node.shape[-1]
    for block in range(math.prod(lead)):
        for r in range(rows):
            for c in range(columns):
                total = 0
                for k in range(inner):
                    second = c * inner + k if node.transpose_second else k * columns + c
                    total += parts[0][(block * rows + r) * inner + k] * parts[1][block * inner * columns + second]
                result.append(total)
    return result


class Oracle:
    """A network that runs; `first_sample` as in the golden reader."""

    def __init__(self, net, first_sample=0):
        self.net, self.first_sample = net, first_sample
        self.nodes = {node.name: node for node in net.nodes}
        self.kinds = {node.name: type(node).__name__ for node in net.nodes}
        neurons = [n for n in net.nodes if self.kinds[n.name] == "NeuronNode"]
        self.layer = {node.name: k for k, node in enumerate(neurons)}
        self.tables = {node.name: self.table(node) for node in net.nodes}
        self.gains = {n.name: [spread(g, n.shape) for g in n.gains] for n in neurons}
        self.params = {n.name: self.per_neuron(n) for n in neurons}

    def table(self, node):
        shapes = [self.nodes[e.source].shape for e in node.inputs]
        if self.kinds[node.name] == "SynapseNode":
            linear = node.product.kind == "linear"
            return linear_rows(node.product, shapes[0]) if linear else conv_rows(node.product, shapes[0], node.shape)
        return pool_windows(node, shapes[0]) if self.kinds[node.name] == "PoolNode" else None

    def per_neuron(self, node):
        columns = {name: spread(value, node.shape) for name, value in node.params.items()}
        return [{name: column[k] for name, column in columns.items()} for k in range(math.prod(node.shape))]

    def run(self, codes):
        """Run on an integer array ``[N, ...]`` (static) or ``[T, N, ...]``."""
        static = next(n for n in self.net.nodes if self.kinds[n.name] == "InputNode").static
        train = [codes] * self.net.steps if static else list(codes)
        batch = len(train[0])
        states = {
            n: [[dict.fromkeys(self.state_names(n), 0) for _ in p] for _ in range(batch)]
            for n, p in self.params.items()
        }
        result, past, decoded = OracleRun([]), [], []
        for t, x in enumerate(train):
            now = {}
            for node in self.net.nodes:
                now[node.name] = [self.value(node, t, n, x, now, past, states, result.facts) for n in range(batch)]
            past.insert(0, now)
            source = self.net.decoder.source
            if self.net.decoder.name.startswith("membrane") and self.kinds[source] == "NeuronNode":
                decoded.append([[neuron["v"] for neuron in sample] for sample in states[source]])
            else:
                decoded.append(now[source])
            for name in self.params:
                result.outputs.setdefault(name, []).append(now[name])
                for state in states[name][0][0]:
                    column = [[neuron[state] for neuron in sample] for sample in states[name]]
                    result.states.setdefault(name, {}).setdefault(state, []).append(column)
        result.scores = self.decode(decoded)
        return result

    def state_names(self, name):
        spec = self.nodes[name].spec
        names = ["v"] + ["i"] * ("add_current" in spec.order) + ["a"] * (spec.leak_a is not None)
        return names + ["s"] * ("reset_delayed" in spec.order) + ["r"] * (spec.refractory > 0)

    def value(self, node, t, n, x, now, past, states, facts):
        kind = self.kinds[node.name]
        if kind == "InputNode":
            return [int(k) for k in x[n].reshape(-1).tolist()]
        shapes = [self.nodes[e.source].shape for e in node.inputs]
        parts = [self.read(edge, n, now, past) for edge in node.inputs]
        if kind == "SynapseNode":
            return [constant + sum(w * parts[0][k] for k, w in row) for constant, row in self.tables[node.name]]
        if kind == "PoolNode":
            reduce = max if node.kind == "max" else sum
            return [reduce(parts[0][k] for k in window) for window in self.tables[node.name]]
        if kind == "ReshapeNode":
            return parts[0]
        if kind == "JoinNode":
            return joined(node, parts, shapes)
        if kind == "MatmulNode":
            return multiplied(node, parts, shapes)
        assert kind == "NeuronNode", kind
        return self.neurons(node, t, n, parts, states[node.name][n], facts)

    def read(self, edge, n, now, past):
        if edge.delay == 0:
            return now[edge.source][n]
        if edge.delay <= len(past):
            return past[edge.delay - 1][edge.source][n]
        return [0] * math.prod(self.nodes[edge.source].shape)

    def neurons(self, node, t, n, parts, states, facts):
        outputs, tick = [], (t + 1) % node.spec.adapt_every == 0
        for k, params in enumerate(self.params[node.name]):
            x = sum(gain[k] * part[k] for gain, part in zip(self.gains[node.name], parts, strict=True))

            def word(role, k=k):
                sample = self.first_sample + n
                return noise_word(
                    seed=node.seed, layer=self.layer[node.name], role=role, step=t, sample=sample, neuron=k
                )

            states[k], output, found = neuron_step(node.spec, params, states[k], x, word, tick)
            outputs.append(output)
            for name in FACTS:
                facts[name] += found[name]
        return outputs

    def decode(self, train):
        decoder = self.net.decoder
        shape = self.nodes[decoder.source].shape
        gains = [1] * math.prod(shape) if decoder.gains is None else spread(decoder.gains, shape)
        train = [[[g * k for g, k in zip(gains, sample, strict=True)] for sample in step] for step in train]
        if decoder.name in ("spike_train", "membrane_train"):
            return train
        if decoder.name == "membrane_last":
            return train[-1]
        reduce = max if decoder.name == "membrane_max" else sum
        return [[reduce(column) for column in zip(*samples, strict=True)] for samples in zip(*train, strict=True)]


def numbers(thing):
    """Nested lists or an array as one flat list of Python integers."""
    if hasattr(thing, "reshape"):
        return [int(k) for k in thing.reshape(-1).tolist()]
    return [int(thing)] if isinstance(thing, int) else [k for part in thing for k in numbers(part)]


def differences(expected, got):
    """How many scores, spikes and states of a golden `Run` differ from an `OracleRun`; and where first."""
    count, first = 0, ""
    pairs = [("scores", expected.scores, got.scores)]
    for name in expected.outputs:
        pairs.append((f"{name} output", expected.outputs[name], got.outputs[name]))
        pairs += [(f"{name} {s}", expected.states[name][s], got.states[name][s]) for s in expected.states[name]]
    for what, wanted, given in pairs:
        wanted, given = numbers(wanted), numbers(given)
        assert len(wanted) == len(given), (what, len(wanted), len(given))
        wrong = [k for k, (a, b) in enumerate(zip(wanted, given, strict=True)) if a != b]
        count += len(wrong)
        if wrong and not first:
            first = f"{what}[{wrong[0]}]: golden {wanted[wrong[0]]}, oracle {given[wrong[0]]}"
    return count, first
