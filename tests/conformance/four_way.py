"""One random network in four readers: simulation, golden model, ONNX Runtime, compiled C; every spike and every state.

`ready` makes a network and its golden run, `compare_torch`, `compare_onnx` and `compare_c` count what differs from it.
How alive a case was belongs to the claim: the share of neurons that fire, thresholds met exactly, registers at their
limits.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
from tests.conformance.networks import make, quantized

import spikequant as sq
from spikequant.capture import capture
from spikequant.law import neurons, registers
from spikequant.law.errors import WidthError
from spikequant.quantize.verify import network_input, simulate
from spikequant.readers import golden, onnx_
from spikequant.readers.c.program import build
from spikequant.readers.native import Compiled, library

REFUSALS = ("can reach its threshold with any input", "stochastic rounding cuts at most", "integer gain is 0")
INPUTS = 5
"""Independent inputs of every network; a case is a network with one of them."""
LEAST, MOST = 64, 200
BUILDS = (
    ("gcc", "-O0"),
    ("gcc", "-O2"),
    ("gcc", "-O3", "-march=native"),
    ("clang", "-O0"),
    ("clang", "-O2"),
    ("clang", "-O3", "-march=native"),
    ("gcc", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover"),
)
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


@dataclass
class Record:
    """What one network showed; one line of the journal.

    ``live`` counts the inputs under which some layer fires between 5 and 95 % of the time; ``facts`` are thresholds met
    exactly (``equal``), registers that saturated or wrapped, resets; ``differences`` counts values by reader.
    """

    seed: int
    refused: str = ""
    error: str = ""
    steps: int = 0
    cases: int = 0
    live: int = 0
    neuron_steps: int = 0
    spikes: int = 0
    states: int = 0
    layers: int = 0
    compiler: str = ""
    features: list[str] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self):
        """For the journal."""
        return asdict(self)


@dataclass
class Ready:
    """A network, its input codes and what the golden model gives for them."""

    case: object
    net: object
    codes: np.ndarray
    wanted: golden.Run
    record: Record


@contextmanager
def counting(facts):
    """Count, while the golden model runs, thresholds met exactly, values that did not fit their register, and resets."""
    fired, fit = neurons._Machine.fired, registers.Registers.fit

    def counted_fired(self, value, theta):
        hit = fired(self, value, theta)
        if isinstance(self.ops, sq.law.ops.IntOps):
            facts["equal"] += int(np.count_nonzero(value == theta))
            facts["fired"] += int(np.count_nonzero(hit))
        return hit

    def counted_fit(self, code, fmt):
        if isinstance(self.ops, sq.law.ops.IntOps):
            kind = "saturated" if fmt.overflow == "saturate" else "wrapped"
            facts[kind] += int(np.count_nonzero((code < fmt.format.min) | (code > fmt.format.max)))
        return fit(self, code, fmt)

    neurons._Machine.fired, registers.Registers.fit = counted_fired, counted_fit
    try:
        yield facts
    finally:
        neurons._Machine.fired, registers.Registers.fit = fired, fit


@contextmanager
def timed(record, name):
    """Add the seconds of a block."""
    start = time.perf_counter()
    yield
    record.seconds[name] = round(record.seconds.get(name, 0.0) + time.perf_counter() - start, 4)


def ready(seed, *, least=LEAST, most=MOST):
    """The network of a seed and its golden run; a `Record` alone where the network is refused with a known reason."""
    record = Record(seed, steps=random.Random(f"steps {seed}").randint(least, most))
    with timed(record, "make"):
        case = make(seed, steps=record.steps, batch=INPUTS)
        try:
            net = quantized(case)
        except WidthError as error:
            if not any(text in str(error) for text in REFUSALS):
                raise
            record.refused = next(text for text in REFUSALS if text in str(error))
            return record
        codes = network_input(case.model, net, case.inputs, capture(case.model, case.inputs))
    facts = Counter()
    with timed(record, "golden"), counting(facts):
        wanted = golden.run(net, codes)
    record.features, record.facts = sorted(case.features), dict(facts)
    describe(record, net, wanted)
    return Ready(case, net, codes, wanted, record)


def describe(record, net, wanted):
    """Fill in how alive the network was."""
    trains = [np.minimum(wanted.outputs[n.name], 1) for n in net.neurons if n.spec.output == "spike"]
    rates = np.array([t.reshape(*t.shape[:2], -1).mean((0, 2)) for t in trains])
    record.cases, record.layers = INPUTS, len(trains)
    record.live = int(((rates >= 0.05) & (rates <= 0.95)).any(0).sum()) if len(trains) else 0
    record.neuron_steps = sum(o.size for o in wanted.outputs.values())
    record.spikes = sum(int(t.sum()) for t in trains)
    record.states = sum(v.size for s in wanted.states.values() for v in s.values())


def different(found, wanted, scores=True):
    """How many spikes, states and scores of a run are not those of the golden run; missing ones all count."""
    pairs = [(found.outputs.get(name), train) for name, train in wanted.outputs.items()]
    pairs += [(found.states[n].get(s), v) for n, states in wanted.states.items() for s, v in states.items()]
    pairs += [(found.scores, wanted.scores)] if scores else []
    return sum(
        int(np.count_nonzero(a != b)) if a is not None and np.shape(a) == np.shape(b) else b.size for a, b in pairs
    )


def compare_torch(work):
    """The frozen torch model on the same inputs; a layer that is an integrator for the decoder alone has no train."""
    with timed(work.record, "torch"):
        trains, states, _ = simulate(work.case.model, work.case.inputs, work.net)
    for node in work.net.neurons:
        if node.spec.output == "state":
            trains[node.name] = states[node.name]["v"]
    found = golden.Run(work.wanted.scores, trains, states)
    work.record.differences["simulation"] = different(found, work.wanted, scores=False)


def compare_onnx(work):
    """Both forms in ONNX Runtime, one optimised, the other not, in turn."""
    with timed(work.record, "onnx"):
        optimise = work.record.seed % 2 == 0
        count = 0
        for model, level in zip(onnx_.build(work.net), (not optimise, optimise), strict=True):
            found = onnx_.trace(model, onnx_.session(model, optimise=level), work.codes)
            count += different(found, work.wanted)
    work.record.differences["onnx"] = count


def compare_c(works, flags):
    """Several networks in one translation unit; the compiler is the first of `flags`."""
    start = time.perf_counter()
    programs = [build(work.net, f"net{k}") for k, work in enumerate(works)]
    with compiler(flags[0]):
        loaded = library(programs, (*STRICT, *flags[1:]))
    share = (time.perf_counter() - start) / max(1, len(works))
    for work, program in zip(works, programs, strict=True):
        with timed(work.record, "c"):
            found = Compiled(program, loaded).trace(work.codes)
        work.record.seconds["c"] += round(share, 4)
        work.record.differences["c"] = different(found, work.wanted)
        work.record.compiler = " ".join(flags)


@contextmanager
def compiler(name):
    """Let `readers/native.py` find this compiler."""
    before = os.environ.get("CC")
    os.environ["CC"] = name
    try:
        yield
    finally:
        os.environ.pop("CC") if before is None else os.environ.update(CC=before)


def run(seeds, flags, *, least=LEAST, most=MOST):
    """Records of the networks of `seeds`, compared in all four readers."""
    records, works = [], []
    for seed in seeds:
        work = ready(seed, least=least, most=most)
        records.append(work if isinstance(work, Record) else work.record)
        if isinstance(work, Record):
            continue
        for compared in (compare_torch, compare_onnx):
            try:
                compared(work)
            except Exception as error:  # a reader that fails is a result, not the end of the suite
                work.record.error += f"{compared.__name__}: {type(error).__name__}: {error}"[:500]
        works.append(work)
    if works:
        compare_c(works, flags)
    return records
