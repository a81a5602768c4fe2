"""`freeze`: integers are made once (DESIGN rule 5), evaluation before = after, widths are proven."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.quantize.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, W4U8, awake_, chain, frozen, spikes
from torch import nn

import spikequant as sq
from spikequant.law.rounding import ROUNDINGS
from spikequant.nn import IF, LIF, CubaLIF, LeakyIntegrator
from spikequant.nn.over_time import OverTime

X = spikes(STEPS, BATCH, INPUTS)
ANALOG = torch.randn(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(3))

TENSOR_ROLES = {
    "uniform": {"quantizer": "uniform", "bits": 4},
    "uniform mse": {"quantizer": "uniform", "bits": 4, "clipping": "mse", "per_channel": False},
    "symmetric": {"quantizer": "uniform", "bits": 3, "options": {"grid": "symmetric"}},
    "fixed_point": {"quantizer": "fixed_point", "options": {"format": "Q2.5"}},
    "power_of_two": {"quantizer": "power_of_two", "bits": 4},
    "ternary": {"quantizer": "ternary"},
    "binary": {"quantizer": "binary"},
    "lsq": {"quantizer": "lsq", "bits": 4},
}
STATE = {"bits": 7, "limit": 2.0}
CASES = {
    **{f"weight {name}": {"weight": role} for name, role in TENSOR_ROLES.items()},
    **{f"bias {name}": {"bias": role} for name, role in TENSOR_ROLES.items() if name != "uniform mse"},
    **{f"threshold {name}": {"threshold": role} for name, role in TENSOR_ROLES.items() if name != "uniform mse"},
    **{f"membrane {r}": {"membrane": {**STATE, "rounding": r}} for r in ROUNDINGS},
    "membrane wraps": {"membrane": {**STATE, "overflow": "wrap"}},
    "membrane before fire": {"membrane": {**STATE, "attach": "before_fire"}},
    "membrane unsigned": {"membrane": {**STATE, "signed": False}},
    **{f"current {r}": {"current": {**STATE, "rounding": r}} for r in ROUNDINGS},
    "input": {"input": {"bits": 4}},
    "leak": {"leak": {"bits": 3}},
    "leak rounded": {"leak": {"bits": 5, "rounding": "floor"}},
    **{f"leak {name}": {"leak": {"bits": 6, "quantizer": role["quantizer"], "options": {**role.get("options", {}), **({"bits": role["bits"]} if "bits" in role else {})}}}
       for name, role in TENSOR_ROLES.items() if name in ("uniform", "fixed_point", "power_of_two", "lsq")},
}  # fmt: skip


def current_based(**options):
    return CubaLIF(leak=0.75, leak_i=0.5, reset="subtract", **options)


@torch.no_grad()
@pytest.mark.parametrize("neuron", [current_based, LIF], ids=["cuba", "lif"])
@pytest.mark.parametrize("case", CASES)
def test_evaluation_before_freeze_is_evaluation_after(case, neuron):
    net = chain(neuron)
    for layer in (net.lif1, net.lif2):
        layer.threshold.fill_(0.85)
    roles = CASES[case]
    plan = {"rules": [{"match": "*", "weight": {"bits": 5}, **roles}]}
    report = sq.quantize_(net, sq.Plan.from_dict(plan), ANALOG, quiet=True)
    (role,) = roles
    assert role in {row.role for row in report.quantized}
    net.eval()
    before = net(ANALOG)
    sq.freeze(net)
    assert torch.equal(net(ANALOG), before)
    assert net.lif1.frozen_integers()
    lowered = sq.lower(net, ANALOG)
    checked = sq.verify(net, lowered, ANALOG)
    assert checked.differences == 0
    assert 0.02 < checked.spikes / checked.neuron_steps < 0.9


def test_what_a_role_asks_for_is_what_is_stored():
    net = chain()
    net.lif1.threshold.fill_(0.93)
    net.lif1.leak.fill_(0.7)
    plan = {
        "rules": [
            {
                "match": "*",
                "weight": {"bits": 4},
                "threshold": TENSOR_ROLES["fixed_point"],
                "leak": {"bits": 3},
                "bias": {"quantizer": "fixed_point", "options": {"format": "Q1.2"}},
            }
        ]
    }
    net = copy.deepcopy(net)
    frozen(net, plan, X)
    found = net.lif1.frozen_integers()
    theta, bias = found.params["theta"] * found.lsb, found.params["bias"] * found.lsb
    assert float((theta - 30 / 32).abs().max()) <= float(found.lsb.max())  # 0.93 * 32 = 29.76
    assert bool((theta >= 30 / 32 - 1e-9).all())  # ceil, rule 1
    wanted = torch.floor(net.fc1.bias.detach().double() * 4 + 0.5).clamp(-4, 3) / 4
    assert float((bias - wanted).abs().max()) <= float(found.lsb.max()) / 2 + 1e-9
    assert found.params["leak"].tolist() == 6.0  # 0.7 * 8 = 5.6
    assert found.spec.leak.bits == 3


def test_freeze_before_quantize():
    with pytest.raises(
        sq.NotFrozen, match=r"there is nothing to freeze; call spikequant.quantize_\(model, plan, example_input\) first"
    ):
        sq.freeze(chain())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value):
    net = torch.nn.Sequential(torch.nn.Linear(INPUTS, HIDDEN), LIF())
    sq.quantize_(net, W4U8, torch.rand(STEPS, BATCH, INPUTS), quiet=True)
    net[0].weight.data[0, 0] = value
    with pytest.raises(sq.DataError, match=r"^0\.weight holds NaN or infinite values"):
        sq.freeze(net)
    assert not net[0].is_frozen


def test_freezing_twice_changes_nothing():
    net = chain()
    sq.quantize_(net, W4U8, X, quiet=True)
    first = sq.freeze(net)
    state, out = {k: v.clone() for k, v in net.state_dict().items()}, net(X)
    second = sq.freeze(net)
    assert [layer.path for layer in first.layers] == ["lif1", "lif2"]
    assert second.layers == ()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(net(X), out)


def test_integers_are_made_once():
    net = chain(learn=("threshold",))
    lowered = frozen(net, W4U8, X)
    out = net(X)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(-3.0)
        net.lif1.v_limit.mul_(7)
    assert torch.equal(net(X), out)
    again = sq.lower(net, X)
    for one, other in zip(lowered.synapses, again.synapses, strict=True):
        assert (one.product.codes == other.product.codes).all()
    for one, other in zip(lowered.neurons, again.neurons, strict=True):
        assert all((value == other.params[name]).all() for name, value in one.params.items())
    assert sq.verify(net, lowered, X).differences == 0


def test_frozen_copies_are_frozen():
    net = chain()
    lowered = frozen(net, W4U8, X)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(X), net(X))
    assert sq.verify(twin, lowered, X).differences == 0


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training):
    net = chain().train(training)
    sq.quantize_(net, W4U8, X, quiet=True)
    sq.freeze(net)
    assert net.training == training


def test_batch_norm_counts_with_its_running_statistics():
    net = nn.Sequential(OverTime(nn.Linear(INPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN)), LIF())
    awake_(net)
    sq.quantize_(net, W4U8, X, quiet=True)
    net.train()
    net(X)
    net.eval()
    before = net(X)
    sq.freeze(net)
    assert torch.equal(net(X), before)
    net.train()
    assert torch.equal(net(X), before)
    assert float(net[0].layer[1].running_mean.abs().max()) > 0


def test_freezing_right_behind_a_training_forgets_its_last_batch():
    net = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN), LIF())
    net = awake_(nn.Sequential(OverTime(nn.Sequential(net[0], net[1])), net[2]))
    x = spikes(STEPS, 40, INPUTS)
    sq.quantize_(net, W4U8, x, quiet=True)
    net.train()
    for part in (x[:, :20], x[:, 20:23]):  # the last batch is a small one, far from the running statistics
        net(part).mean().backward()
    evaluated = copy.deepcopy(net).eval()
    before = evaluated(x)
    assert 0 < before.mean() < 1
    sq.freeze(net)  # no forward pass between
    assert torch.equal(net.eval()(x), before)


def test_a_layer_that_can_never_fire():
    net = chain(leak=0.5, threshold=500.0)
    sq.quantize_(net, W4U8, X, quiet=True)
    text = (
        r"lif1: no neuron of this layer can reach its threshold with any input; its weights add at most \d+\.\d+ in a "
        r"step, its membrane register holds at most \d+, and the threshold is 500: raise the limit of the membrane"
    )
    with pytest.raises(sq.WidthError, match=text):
        sq.freeze(net)


def test_single_neurons_that_can_never_fire_are_reported():
    net = chain()
    with torch.no_grad():
        net.fc1.weight[3] = 0
        net.fc1.bias[3] = 0
    sq.quantize_(net, W4U8, X, quiet=True)
    report = sq.freeze(net)
    assert report.warnings == (
        "lif1: 1 of 10 channels cannot reach their threshold with any input; more weight bits, a lower threshold, or pruning them would change that",
    )
    assert [(layer.path, layer.neurons, layer.unreachable) for layer in report.layers] == [
        ("lif1", HIDDEN, 1),
        ("lif2", CLASSES, 0),
    ]
    assert all(4 <= layer.accumulator_bits <= 40 for layer in report.layers)


def test_widths_that_do_not_fit():
    net = chain(order="leak_last", leak=0.123)
    plan = {"fraction_bits": 24, "rules": [{"match": "*", "weight": {"bits": 16}, "leak": {"bits": 24}}]}
    with pytest.raises(sq.WidthError, match=r"needs? \d+ bits"):
        frozen(net, plan, X)


def test_real_neurons_beside_quantized_layers():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, HIDDEN), IF(), nn.Linear(HIDDEN, CLASSES)))
    plan = {"rules": [{"match": "2", "weight": {"bits": 4}}]}
    sq.quantize_(net, sq.Plan.from_dict(plan), X, quiet=True)
    with pytest.raises(
        sq.Unsupported, match="the neurons 1 are not quantized; a frozen model needs integers everywhere"
    ):
        sq.freeze(net)


def test_integrating_readouts_freeze():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Linear(HIDDEN, CLASSES), LeakyIntegrator(leak=0.9)))
    sq.quantize_(net, W4U8, X, quiet=True)
    sq.calibrate(net, [X])
    before = net(X)
    sq.freeze(net)
    assert torch.equal(net(X), before)


def test_a_layer_whose_codes_are_all_zero_says_so():
    net = chain(leak=0.5)
    with torch.no_grad():
        net.fc1.weight.zero_()
        net.fc1.bias.zero_()
    sq.quantize_(net, W4U8, X, quiet=True)
    with pytest.raises(sq.WidthError, match="with any input; all of its weight codes are zero: give it more weight"):
        sq.freeze(net)
