"""The rules of the chips as scalar tests: every decay, and whole random networks of the profiles, 0 differences."""

from __future__ import annotations

import numpy as np
import pytest
from tests.targets import scalar_chips as chip
from tests.targets.networks import MULTIPLIED, SHIFTED, loihi_network, loihi_neuron, xylo_network, xylo_neuron

from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.readers import golden
from spikequant.targets import check
from spikequant.targets.order_free import network_reach

STEPS = 40


def one_step(spec, params, states, x):
    ops = IntOps()
    known = {name: np.asarray(value, dtype=np.int64) for name, value in params.items()}
    return step(ops, spec, prepare(ops, spec, known), states, np.asarray(x, dtype=np.int64))


def test_a_million_decays_of_loihi():
    """(u, du) and (v, dv) over the whole 24 and 12 bits, by the law's step with nothing arriving."""
    dice = np.random.default_rng(0)
    count = 1_000_000
    value = dice.integers(-(2**23) + 1, 2**23, count)
    value[:5], decays = [0, 1, -1, 2**23 - 1, -(2**23) + 1], dice.integers(0, 4096, count)
    spec = loihi_neuron("n", 1, ["w"], {"leak": 1, "leak_i": 1, "theta": 1}).spec
    fixed = {"v_load": 1, "v_shift": 0, "i_load": 1, "i_shift": 0, "theta": 2**40}
    zero = np.zeros(count, dtype=np.int64)
    as_u, _ = one_step(spec, {**fixed, "leak": 4096, "leak_i": 4096 - (decays + 1)}, {"v": zero, "i": value}, zero)
    as_v, _ = one_step(spec, {**fixed, "leak": 4096 - decays, "leak_i": 0}, {"v": value, "i": zero}, zero)
    for found, offset in ((as_u["i"], 1), (as_v["v"], 0)):
        magnitude = np.abs(value) * (4096 - (decays + offset)) // 4096
        assert np.array_equal(found, np.sign(value) * magnitude)
        assert np.count_nonzero(found) > count // 2
    picked = dice.integers(0, count, 2000)
    for k in picked.tolist():
        assert chip.loihi_decay(int(value[k]), int(decays[k])) == int(as_v["v"][k])
        assert chip.loihi_decay(int(value[k]), int(decays[k]) + 1) == int(as_u["i"][k])


def test_every_decay_of_xylo():
    """All 2^16 values by all 16 dashes: 1,048,576 pairs."""
    value, dash = (a.ravel() for a in np.meshgrid(np.arange(-(2**15), 2**15), np.arange(16)))
    spec = xylo_neuron("n", 1, ["w"], {"leak": 1, "leak_i": 1, "theta": 1, "reset": 1}).spec.replace(spikes_max=2)
    fixed = {"v_load": 1, "v_shift": 0, "i_load": 1, "i_shift": 0, "theta": 2**40, "reset": 2**40}
    zero = np.zeros(value.size, dtype=np.int64)
    as_i, _ = one_step(spec, {**fixed, "leak": 1, "leak_i": dash}, {"v": zero, "i": value}, zero)
    as_v, _ = one_step(spec, {**fixed, "leak": dash, "leak_i": 1}, {"v": value, "i": zero}, zero)
    less = value >> dash
    wanted = value - np.where(less == 0, np.sign(value), less)
    assert np.array_equal(as_i["i"], wanted)
    assert np.array_equal(as_v["v"], wanted)
    for k in np.random.default_rng(0).integers(0, value.size, 2000).tolist():
        assert int(value[k]) - chip.xylo_decrement(int(value[k]), int(dash[k])) == int(wanted[k])


def test_the_u_of_loihi_wraps_and_v_saturates():
    params = {"leak": 4096, "leak_i": 4095, "theta": 64 * (2**17 - 1) + 1}
    spec = loihi_neuron("n", 1, ["w"], params).spec
    fixed = {"v_load": 1, "v_shift": 0, "i_load": 1, "i_shift": 0, **params}
    for u, v, arriving in ((2**23 - 1, 0, 5), (-(2**23) + 9, -(2**23) + 1, -8), (-5, -(2**23) + 3, -70000)):
        states = {"v": np.array([v]), "i": np.array([u])}
        new, out = one_step(spec, fixed, states, [64 * arriving])
        wanted = chip.loihi_step(u, v, arriving, du=0, dv=0, bias=0, vth=2**17 - 1)
        assert (int(new["i"][0]), int(new["v"][0]), int(out[0])) == wanted


def drive(net, seed, steps=STEPS):
    dice = np.random.default_rng(seed)
    most = net.input.format.max
    spikes = dice.integers(0, most + 1, (steps, 1, *net.input.shape)) * (
        dice.random((steps, 1, *net.input.shape)) < 0.4
    )
    return np.minimum(spikes, most)


def run_loihi(net, spikes):
    """The network neuron by neuron: outputs and states per layer and step."""
    rows = {node.name: node.product.codes.tolist() for node in net.synapses}
    history = {"input": spikes[:, 0].tolist()}
    states = {n.name: [(0, 0)] * n.shape[0] for n in net.neurons}
    found = {n.name: [] for n in net.neurons}
    for t in range(len(spikes)):
        for node in net.neurons:
            p, made = node.params, []
            for k in range(node.shape[0]):
                arriving = 0
                for edge, gain in zip(node.inputs, node.gains, strict=True):
                    synapse = net.node(edge.source)
                    source, late = synapse.inputs[0].source, t - synapse.inputs[0].delay
                    shown = history.get(source, [])[late] if late >= 0 else [0] * len(rows[synapse.name][k])
                    arriving += sum(w * s for w, s in zip(rows[synapse.name][k], shown, strict=True)) * int(gain) // 64
                bias = int(np.broadcast_to(p.get("v_bias", 0), node.shape)[k])
                du = 4095 - int(p["leak_i"]) if "leak_i" in p else 4095
                u, v = states[node.name][k]
                numbers = {"du": du, "dv": 4096 - int(p["leak"]), "bias": bias, "vth": (int(p["theta"]) - 1) // 64}
                made.append(chip.loihi_step(u, v, arriving, **numbers))
            states[node.name] = [(u, v) for u, v, _ in made]
            history.setdefault(node.name, []).append([s for _, _, s in made])
            found[node.name].append(made)
    return {name: np.array(rows) for name, rows in found.items()}  # [T, n, (u, v, spike)]


def run_xylo(net, spikes):
    """The same for Xylo: input events before recurrent ones, ascending, each saturating."""
    history = {"input": spikes[:, 0].tolist()}
    states = {n.name: [(0, 0)] * n.shape[0] for n in net.neurons}
    found = {n.name: [] for n in net.neurons}
    for t in range(len(spikes)):
        for node in net.neurons:
            values = {k: np.broadcast_to(v, node.shape).tolist() for k, v in node.params.items()}
            made = []
            for k in range(node.shape[0]):
                current, v = states[node.name][k]
                for edge, gain in zip(node.inputs, node.gains, strict=True):
                    synapse = net.node(edge.source)
                    late = t - synapse.inputs[0].delay
                    if late >= 0:
                        counts = history[synapse.inputs[0].source][late]
                        events = list(zip(synapse.product.codes[k].tolist(), counts, strict=True))
                        current = chip.xylo_deliver(current, events, int(gain).bit_length() - 1)
                bias = values["v_bias"][k] if "v_bias" in values else 0
                numbers = {"dash_syn": values["leak_i"][k], "dash_mem": values["leak"][k], "bias": bias}
                most = node.spec.spikes_max
                made.append(chip.xylo_step(current, v, threshold=values["theta"][k], most=most, **numbers))
            states[node.name] = [(i, v) for i, v, _ in made]
            history.setdefault(node.name, []).append([s for _, _, s in made])
            found[node.name].append(made)
    return {name: np.array(rows) for name, rows in found.items()}


def differences(net, spikes, wanted):
    """Values of the golden model that differ from the oracle's, values compared, and spikes seen."""
    run = golden.run(net, spikes)
    wrong = compared = fired = 0
    for node in net.neurons:
        parts = [(run.outputs[node.name], 2), (run.states[node.name]["v"], 1)]
        parts += [(run.states[node.name]["i"], 0)] if "i" in run.states[node.name] else []
        for found, column in parts:
            wrong += int(np.count_nonzero(found[:, 0] != wanted[node.name][..., column]))
            compared += found[:, 0].size
        fired += int(run.outputs[node.name].sum())
    return wrong, compared, fired


def test_networks_of_loihi_equal_the_document():
    wrong = compared = fired = recurrent = biased = 0
    for seed in range(40):
        net = loihi_network(seed)
        assert check(net).passed
        spikes = drive(net, seed)
        a, b, c = differences(net, spikes, run_loihi(net, spikes))
        wrong, compared, fired = wrong + a, compared + b, fired + c
        recurrent += any(s.name.startswith("r") for s in net.synapses)
        biased += any("v_bias" in n.params for n in net.neurons)
    assert wrong == 0
    assert compared > 50_000
    assert 0.02 < fired / compared < 0.6
    assert recurrent > 10
    assert biased > 10


def test_networks_of_xylo_equal_the_document():
    wrong = compared = fired = passed = multiple = 0
    for seed in range(40):
        net = xylo_network(seed, most_weight=8)
        if not check(net).passed:
            continue
        passed += 1
        spikes = drive(net, seed)
        wanted = run_xylo(net, spikes)
        a, b, c = differences(net, spikes, wanted)
        wrong, compared, fired = wrong + a, compared + b, fired + c
        multiple += int((wanted["hidden"][..., 2] > 1).sum())
    assert wrong == 0
    assert passed > 20
    assert compared > 20_000
    assert fired > 1000
    assert multiple > 100  # several spikes in one step


def test_a_network_that_saturates_differs_and_is_refused():
    """Where the proof fails, the chip and the law do differ for some input: the refusal is not idle."""
    differing = refused = 0
    for seed in range(60):
        net = xylo_network(seed, most_weight=127)
        if check(net).passed:
            continue
        refused += 1
        assert not all(reach.fits(16) for reach in network_reach(net, 16).values())
        spikes = np.full((STEPS, 1, *net.input.shape), net.input.format.max)
        differing += differences(net, spikes, run_xylo(net, spikes))[0] > 0
        if differing > 2:
            break
    assert refused > 2
    assert differing > 2


@pytest.mark.parametrize(("name", "leak"), [("loihi", MULTIPLIED), ("xylo", SHIFTED)])
def test_mutants_of_the_rules_are_seen(name, leak):
    """Another rounding of the decay, or another compare, changes the spikes of these networks."""
    import dataclasses

    make, run = (loihi_network, run_loihi) if name == "loihi" else (lambda s: xylo_network(s, most_weight=8), run_xylo)
    mutants = (
        [dataclasses.replace(leak, rounding="floor")] if name == "loihi" else [dataclasses.replace(leak, form="shift")]
    )
    seen = dict.fromkeys(("leak", "theta"), 0)
    for seed in range(6):
        net = make(seed)
        spikes = drive(net, seed)
        wanted = run(net, spikes)
        for mutant in ("leak", "theta"):
            nodes = []
            for node in net.nodes:
                if node in net.neurons and mutant == "leak":
                    node = dataclasses.replace(node, spec=node.spec.replace(leak=mutants[0]))
                elif node in net.neurons:
                    node = dataclasses.replace(node, params={**node.params, "theta": node.params["theta"] + 1})
                nodes.append(node)
            seen[mutant] += differences(dataclasses.replace(net, nodes=tuple(nodes)), spikes, wanted)[0]
    assert seen["leak"] > 0
    if name == "xylo":  # one in 64 on Loihi: too fine for a few steps
        assert seen["theta"] > 0
