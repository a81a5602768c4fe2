"""Cases for the public oracles, in the plain arrays that their runners read; and what the golden model says of them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from tests.targets.networks import loihi_network, loihi_neuron, xylo_network

from spikequant.law.network import Edge, SynapseNode
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.readers import golden
from spikequant.targets import check

RUNNERS = Path(__file__).resolve().parent / "public"
VARIABLE = "SPIKEQUANT_ORACLES"
"""Environment variable: Python interpreters that have the oracles, separated like PATH."""


def interpreter_with(module):
    """A Python that can import `module`; None where there is none."""
    for python in [*filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)), sys.executable]:
        if shutil.which(python):
            command = [python, "-c", f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"]
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                return python
    return None


def call(python, runner, *arguments):
    """Run a runner; its words are shown if it fails."""
    command = [python, str(RUNNERS / runner), *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def decays(count, distinct, seed=0):
    """Random (value, decay) pairs over 24 and 12 bits."""
    dice = np.random.default_rng(seed)
    value = dice.integers(-(2**23) + 1, 2**23, count)
    few = dice.permutation(4096)[:distinct]
    return value, dice.choice(few, count)


def law_decay(value, decay):
    """`value` after the law's decay by ``(4096 - decay) / 4096``, the way a step of `loihi-cuba` takes it."""
    ops, fixed = IntOps(), {"v_load": 1, "v_shift": 0, "theta": 2**40, "leak": 4096 - decay}
    spec = loihi_neuron("n", 1, ["w"], {"leak": 1, "theta": 1}, cuba=False).spec
    params = {name: np.asarray(number, dtype=np.int64) for name, number in fixed.items()}
    new, _ = step(ops, spec, prepare(ops, spec, params), {"v": value}, np.zeros_like(value))
    return new["v"]


def xylo_cases(seeds, steps):
    """Networks of Xylo that `check` accepts, with spikes; and the arrays for the simulator."""
    nets, arrays = [], {}
    for seed in seeds:
        net = xylo_network(seed, most_weight=8)
        if not check(net).passed:
            continue
        dice = np.random.default_rng(seed)
        size = net.input.shape[0]
        spikes = dice.integers(0, net.input.format.max + 1, (steps, size)) * (dice.random((steps, size)) < 0.3)
        nodes = {node.name: node for node in net.nodes}
        hidden, out = nodes["hidden"], nodes["out"]
        recurrent = nodes["w_rec"].product.codes if "w_rec" in nodes else np.zeros((hidden.shape[0],) * 2, int)
        one = {"spikes": spikes, "w_in": nodes["w_in"].product.codes, "w_rec": recurrent,
               "w_out": nodes["w_out"].product.codes}  # fmt: skip
        for node, tail in ((hidden, ""), (out, "_out")):
            values = {k: np.broadcast_to(v, node.shape) for k, v in node.params.items()}
            bias = values.get("v_bias", np.zeros(node.shape, int))
            one |= {f"theta{tail}": values["theta"], f"bias{tail}": bias, f"dash_mem{tail}": values["leak"],
                    f"dash_syn{tail}": values["leak_i"]}  # fmt: skip
        arrays |= {f"{len(nets)}/{key}": value for key, value in one.items()}
        nets.append((net, spikes))
    return nets, {**arrays, "count": np.array(len(nets))}


def late_outputs(net):
    """Outputs of Xylo read hidden spikes one step later: the same network with that delay."""
    nodes = [
        dataclasses.replace(node, inputs=(Edge("hidden", 1),)) if node.name == "w_out" else node for node in net.nodes
    ]
    return dataclasses.replace(net, nodes=tuple(nodes))


def xylo_differences(net, spikes, results, k):
    """``(differences, values, spikes)`` of one network: every spike, current and membrane of every step."""
    run = golden.run(late_outputs(net), spikes[:, None])
    pairs = [(run.outputs["hidden"], "hidden"), (run.outputs["out"], "out"), (run.states["hidden"]["i"], "i"),
             (run.states["hidden"]["v"], "v"), (run.states["out"]["i"], "i_out"), (run.states["out"]["v"], "v_out")]  # fmt: skip
    return _counted([(ours[:, 0], results[f"{k}/{key}"]) for ours, key in pairs], run)


def _counted(pairs, run):
    wrong = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    return wrong, sum(a.size for a, _ in pairs), sum(int(s.sum()) for s in run.outputs.values())


def loihi_cases(seeds, steps):
    """Networks of Loihi with lava's timing (every synapse one step), and the arrays for its processes."""
    nets, arrays, layers, shown = [], {}, [], []
    for seed in seeds:
        net = _lava_timing(loihi_network(seed))
        dice = np.random.default_rng(seed)
        spikes = (dice.random((steps, net.input.shape[0])) < 0.35).astype(np.int64)
        nets.append((net, spikes, f"{seed}"))
        shown.append(spikes)
    width, start = sum(s.shape[1] for s in shown), 0
    for net, spikes, name in nets:
        for node in net.neurons:
            layers.append(f"{name}.{node.name}")
            arrays |= {f"{layers[-1]}/{key}": value for key, value in _layer(net, node, name, start, width).items()}
        start += spikes.shape[1]
    return nets, {**arrays, "layers": np.array(layers), "spikes": np.concatenate(shown, axis=1)}


def _lava_timing(net):
    late = [
        dataclasses.replace(n, inputs=(Edge(n.inputs[0].source, 1),)) if isinstance(n, SynapseNode) else n
        for n in net.nodes
    ]
    return dataclasses.replace(net, nodes=tuple(late))


def _layer(net, node, name, start, width):
    params, found = node.params, {}
    for edge, gain in zip(node.inputs, node.gains, strict=True):
        synapse = net.node(edge.source)
        codes, source = synapse.product.codes, synapse.inputs[0].source
        found["exponent"] = np.array(int(gain).bit_length() - 7)
        if source == node.name:
            found["r"] = codes
        elif source == "input":
            found["w"] = np.zeros((len(codes), width), dtype=np.int64)
            found["w"][:, start : start + codes.shape[1]] = codes
            found["source"] = np.array("input")
        else:
            found["w"], found["source"] = codes, np.array(f"{name}.{source}")
    bias = np.broadcast_to(params.get("v_bias", np.array(0)), node.shape)
    found |= {"du": 4095 - params.get("leak_i", np.array(0)), "dv": 4096 - params["leak"], "bias_exp": np.array(1),
              "vth": (params["theta"] - 1) // 64, "bias_mant": bias // 2}  # fmt: skip
    return found


def loihi_differences(net, spikes, name, results):
    """``(differences, values, spikes)`` of one network: every spike, current and membrane of every step."""
    run = golden.run(net, spikes[:, None])
    pairs = []
    for node in net.neurons:
        layer = f"{name}.{node.name}"
        pairs += [
            (run.outputs[node.name][:, 0], results[f"{layer}/s"]),
            (run.states[node.name]["v"][:, 0], results[f"{layer}/v"]),
        ]
        if "i" in run.states[node.name]:
            pairs.append((run.states[node.name]["i"][:, 0], results[f"{layer}/u"]))
    return _counted(pairs, run)
