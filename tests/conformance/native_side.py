"""Many networks through one call of the C compiler, compared with the golden model value by value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikequant.readers import golden
from spikequant.readers.c.program import build
from spikequant.readers.native import Compiled, find_compiler, library

STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


@dataclass
class CTally:
    """What was compared."""

    networks: int = 0
    runs: int = 0
    spikes: int = 0
    neuron_steps: int = 0
    values: int = 0

    def __str__(self):
        if not self.networks:
            return "C: no compiler"
        return (
            f"C: {self.networks} networks, {self.runs} runs, {self.neuron_steps:,} neuron-steps, "
            f"{self.spikes:,} spikes, {self.values:,} values equal to the golden model"
        )


def compare(cases, *, flags=STRICT, first_sample=0):
    """``cases`` are ``(label, network, [codes, ...])``; asserts equality, gives the tally."""
    tally = CTally()
    if find_compiler() is None or not cases:
        return tally
    programs = [build(net, f"net{k}") for k, (_, net, _) in enumerate(cases)]
    loaded = library(programs, flags)
    for (label, net, stimuli), program in zip(cases, programs, strict=True):
        compiled = Compiled(program, loaded)
        tally.networks += 1
        for codes in stimuli:
            wanted = golden.run(net, codes, first_sample=first_sample)
            found = compiled.trace(codes, first_sample=first_sample)
            same(label, net, found, wanted, tally)
            scores = compiled.run(codes, encoded=True, first_sample=first_sample)
            assert np.array_equal(scores, wanted.scores), f"{label}: scores of run()"
            tally.runs += 1
    return tally


def same(label, net, found, wanted, tally):
    """Every spike, state and score."""
    assert np.array_equal(found.scores, wanted.scores), f"{label}: scores"
    assert list(found.outputs) == list(wanted.outputs)
    for name, output in wanted.outputs.items():
        assert np.array_equal(found.outputs[name], output), f"{label}: {name} emits something else"
        tally.neuron_steps += output.size
        tally.spikes += int(output.sum()) if net.node(name).spec.output == "spike" else 0
        tally.values += output.size
        assert list(found.states[name]) == list(wanted.states[name])
        for state, values in wanted.states[name].items():
            assert np.array_equal(found.states[name][state], values), f"{label}: state {state} of {name}"
            tally.values += values.size


def longer(net, codes, seed, steps=64):
    """Other codes of the same kind: the same values in another order, for more steps."""
    dice = np.random.default_rng(seed)
    shape = codes.shape if net.input.static else (steps, *codes.shape[1:])
    return dice.choice(codes.reshape(-1), shape)
