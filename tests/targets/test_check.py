"""`check` names every layer and limit at once; what keeps to a profile passes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tests.targets.networks import (
    entry,
    loihi_network,
    loihi_neuron,
    network,
    number,
    synapse,
    xylo_network,
    xylo_neuron,
)

import spikequant as sq
from spikequant.law.formats import IntFormat
from spikequant.law.spec import Leak

PARAMS = {"leak": 4, "leak_i": 2, "theta": 100, "reset": 100}
LOIHI = {"leak": 4000, "leak_i": 3000, "theta": 64 * 100 + 1}


def replaced(net, name, **changes):
    """The network with one node changed."""
    nodes = [dataclasses.replace(node, **changes) if node.name == name else node for node in net.nodes]
    return dataclasses.replace(net, nodes=tuple(nodes))


def small_xylo(codes=((10, -10), (5, 5)), **params):
    nodes = [entry(2), synapse("w_in", "input", codes), xylo_neuron("hidden", 2, ["w_in"], PARAMS | params)]
    nodes += [synapse("w_out", "hidden", ((1, 1),)), xylo_neuron("out", 1, ["w_out"], PARAMS, output=True)]
    return network(nodes, "out")


def small_loihi(codes=((10, -10), (4, 6)), *, exponent=0, **params):
    nodes = [entry(2), synapse("w", "input", codes, bits=10)]
    return network([*nodes, loihi_neuron("n", 2, ["w"], LOIHI | params, exponent=exponent)], "n")


def texts(net, name):
    return [str(v) for v in sq.targets.check(net, name).violations]


@pytest.mark.parametrize("seed", range(12))
def test_networks_of_a_profile_pass(seed):
    assert sq.targets.check(loihi_network(seed)).passed
    assert sq.targets.check(xylo_network(seed, most_weight=2)).passed


def test_every_network_is_of_the_reference():
    assert sq.targets.check(small_xylo(), "reference").passed
    assert sq.targets.check(small_loihi(), "reference/1").passed


def test_all_violations_are_listed_at_once_with_layer_and_limit():
    nodes = [entry(20, 31), synapse("w_in", "input", np.full((1200, 20), 1)),
             xylo_neuron("hidden", 1200, ["w_in"], PARAMS | {"theta": 101})]  # fmt: skip
    nodes += [synapse("w_out", "hidden", np.ones((9, 1200))), xylo_neuron("out", 9, ["w_out"], PARAMS, output=True)]
    report = sq.targets.check(network(nodes, "out"), "xylo")
    found = {(v.node, v.limit) for v in report.violations}
    assert {("network", "inputs"), ("network", "neurons"), ("network", "outputs"), ("input", "input_codes")} <= found
    assert ("hidden", "theta") in found
    with pytest.raises(sq.Unsupported) as caught:
        sq.targets.require(network(nodes, "out"), "xylo")
    for text in ("target xylo/1 cannot do this network", "1,200 neurons; this target has 1,000", "9 outputs"):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"theta": 64 * 100}, "n: theta = 6400; this target takes 0 to 8388544 in steps of 64, plus 1 [theta]"),
        ({"theta": [6401, 6465]}, "n: 2 different values of theta; this target has one per layer [theta]"),
        ({"leak_i": 4096}, "n: leak_i = 4096; this target takes 0 to 4095 [leak_i]"),
        ({"v_bias": 4097}, "n: v_bias = 4097; this target takes -4096 to 4095, times 2^0 to 2^7 [v_bias]"),
        ({"bias": 3}, "n: has a bias: the chip adds its bias to the membrane"),
    ],
)
def test_parameters_of_loihi(changes, text):
    assert any(text in found for found in texts(small_loihi(**changes), "loihi-cuba"))


def test_bias_of_loihi_has_an_exponent():
    assert not texts(small_loihi(v_bias=4095 * 128), "loihi-cuba")
    assert texts(small_loihi(v_bias=4095 * 256), "loihi-cuba")


@pytest.mark.parametrize(
    ("codes", "exponent", "passes"),
    [
        (((254, -256), (2, 0)), 0, True),
        (((255, 0), (3, 1)), 0, True),  # of one sign: odd ones, too
        (((255, -1), (3, 1)), 0, False),
        (((256, -256), (4, 0)), 0, True),  # 128 and 2, shifted by one
        (((258, -256), (2, 0)), 0, False),
        (((254, -256), (2, 0)), 7, True),
        (((254, -256), (2, 0)), 8, False),
    ],
)
def test_weights_of_loihi(codes, exponent, passes):
    assert bool(texts(small_loihi(codes, exponent=exponent), "loihi-cuba")) != passes


def test_recurrence_over_two_layers_needs_two_steps():
    def net(delay):
        nodes = [entry(2), synapse("w", "input", ((2, 2), (2, 2))), synapse("back", "b", ((2, 2), (2, 2)), delay=delay)]
        nodes += [loihi_neuron("a", 2, ["w", "back"], LOIHI), synapse("f", "a", ((2, 2), (2, 2)))]
        return network([*nodes, loihi_neuron("b", 2, ["f"], LOIHI)], "b")

    assert any("circle" in text for text in texts(net(1), "loihi-cuba"))
    assert not texts(net(2), "loihi-cuba")


def test_specs_are_compared_field_by_field():
    net = small_xylo()
    spec = net.node("hidden").spec
    wrong = replaced(net, "hidden", spec=spec.replace(leak=Leak(form="shift")))
    assert "hidden: decays by the form 'shift'; this target by 'shift_forced' [neuron hidden]" in texts(wrong, "xylo")
    wide = dataclasses.replace(spec.v, format=IntFormat(bits=20))
    assert any("20 bits, exactly 16" in t for t in texts(replaced(net, "hidden", spec=spec.replace(v=wide)), "xylo"))
    load = replaced(net, "hidden", params={**net.node("hidden").params, "v_load": number(2)})
    assert any("several accumulator LSBs" in t for t in texts(load, "xylo"))


def test_xylo_refuses_what_could_saturate_and_says_how_far():
    text = "\n".join(texts(small_xylo(((100, 100), (5, 5)), leak_i=8), "xylo"))
    assert "it saturates at every event, and the current can reach 0 to 51200" in text
    assert "fewer weight bits" in text
    assert not texts(small_xylo(((100, 100), (5, 5)), leak_i=7), "xylo")


def test_outputs_of_xylo_read_no_input():
    nodes = [entry(2), synapse("w", "input", ((1, 1),)), xylo_neuron("out", 1, ["w"], PARAMS, output=True)]
    assert any("only hidden neurons do" in text for text in texts(network(nodes, "out"), "xylo"))


def test_shifts_are_shared_on_xylo():
    nodes = [entry(1), synapse("w1", "input", ((127,),)), xylo_neuron("a", 1, ["w1"], PARAMS, shift=1)]
    nodes += [synapse("w2", "input", ((1,),)), xylo_neuron("b", 1, ["w2"], PARAMS)]
    nodes += [synapse("w_out", "a", ((1,),)), synapse("w_o2", "b", ((1,),))]
    nodes += [xylo_neuron("out", 1, ["w_out", "w_o2"], PARAMS, output=True)]
    assert any("need different shifts" in text for text in texts(network(nodes, "out"), "xylo"))


def test_report_prints_and_serialises():
    report = sq.targets.check(small_xylo(), "xylo")
    for text in ("inputs: 2 of 16", "in any order of delivery", "fits; its integers follow the rules of the chip"):
        assert text in str(report)
    assert json.loads(json.dumps(report.to_dict()))["used"]["outputs"] == {"used": 1, "most": 8}


def test_limits_only_says_so():
    assert sq.targets.TARGETS["speck"].promise == "limits"
    assert any("equality with it is not promised" in note for note in sq.targets.TARGETS["speck"].notes)
    assert [name for name, found in sq.targets.TARGETS.items() if found.promise == "equal"] == [
        "reference", "mcu-int8", "loihi-cuba", "xylo",
    ]  # fmt: skip


def test_profiles_are_json():
    for profile in sq.targets.TARGETS.values():
        assert json.loads(json.dumps(profile.to_dict()))["tag"] == f"{profile.name}/{profile.version}"
        assert profile.sources


def test_an_unknown_target_is_named():
    with pytest.raises(sq.Unsupported, match="target = 'xilo'; expected one of reference, .*did you mean 'xylo'"):
        sq.targets.target("xilo")
    with pytest.raises(sq.Unsupported, match="this release has xylo/1"):
        sq.targets.target("xylo/7")


def test_a_network_carries_its_target(tmp_path):
    net = loihi_network(3)
    net.save(tmp_path / "n.spq")
    assert sq.targets.check(sq.IntNet.load(tmp_path / "n.spq")).target.tag == "loihi-cuba/1"
    sq.export(net, tmp_path / "c", format="c99")
    assert '_PROFILE "loihi-cuba/1"' in (tmp_path / "c/snn.h").read_text()
