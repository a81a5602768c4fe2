"""SpikingJelly's neurons and layers as readings: same call, same attributes, same spikes, quantized and not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.frontends import read_
from spikequant.frontends.spikingjelly import KNOWN, NO_NEURON
from spikequant.frontends.spikingjelly_layers import NO_LAYER, SharedDropout

pytest.importorskip("spikingjelly")
base = pytest.importorskip("spikingjelly.activation_based.base")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)
STEPS, BATCH = 6, 3


def node(kind=neuron.LIFNode, **options: Any) -> Any:
    """A neuron that the little networks below wake."""
    return kind(**{"v_threshold": 0.4, "surrogate_function": surrogate.ATan(), **options})


def network(mode: str = "m", *, kind: Any = neuron.LIFNode, **options: Any) -> nn.Sequential:
    """Two layers of neurons."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(8, 6), node(kind, **options), layer.Linear(6, 5), node(kind, **options))
    functional.set_step_mode(net, mode)
    with torch.no_grad():
        for weighted in (net[0], net[2]):
            weighted.weight.uniform_(-0.3, 0.7)
    return net


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape or (STEPS, BATCH, 8), generator=torch.Generator().manual_seed(1)) < 0.5).float()


def quantized(**options: Any) -> nn.Sequential:
    net = network(**options)
    x = spikes() if net[1].step_mode == "m" else spikes()[0]
    sq.quantize_(net, PLAN, x, quiet=True)
    return net


# -- the call --------------------------------------------------------------------------

KINDS = [
    {"kind": neuron.IFNode, "v_reset": None},
    {"kind": neuron.IFNode, "v_reset": -0.25},
    {"tau": 1.7, "decay_input": False},
    {"tau": 3.0, "v_reset": 0.125, "detach_reset": True},
    {"kind": neuron.ParametricLIFNode, "init_tau": 2.5, "decay_input": False, "v_reset": None},
    {"kind": neuron.ParametricLIFNode, "init_tau": 1.5},
    {"kind": neuron.SimpleLIFNode, "tau": 2.0, "decay_input": False, "v_reset": 0.2},
    {"kind": neuron.CUBALIFNode, "c_decay": 0.5, "v_decay": 0.25},
]


def run(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Spikes over all steps in either step mode, state kept."""
    return net(x) if net[1].step_mode == "m" else torch.stack([net(step) for step in x])


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("options", KINDS)
def test_a_reading_gives_the_same_spikes_membranes_and_names(options, mode):
    net, x = network(mode, **options), spikes()
    if mode == "m" and options.get("kind") is not neuron.SimpleLIFNode:
        net[1].store_v_seq = net[3].store_v_seq = True
    names = set(net.state_dict())
    wanted = run(net, x)
    membranes, sequence = net[3].v.clone(), getattr(net[1], "v_seq", None)
    functional.reset_net(net)
    readings = read_(net)
    assert set(net.state_dict()) == names
    assert isinstance(net[1], readings.replaced[0].original.__class__)
    assert net[1].v == readings.replaced[0].original.v
    got = run(net, x)
    assert wanted.sum() > 3
    assert torch.equal(got, wanted)
    torch.testing.assert_close(net[3].v, membranes)
    if sequence is not None:
        torch.testing.assert_close(net[1].v_seq, sequence)
    for name in ("v_threshold", "v_reset", "tau", "decay_input", "step_mode", "surrogate_function"):
        assert getattr(net[1], name, None) is getattr(readings.replaced[0].original, name, None)
    readings.undo()
    assert type(net[1]) is options.get("kind", neuron.LIFNode)


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("options", [*KINDS, {"v_threshold": -0.1, "v_reset": 0.25, "decay_input": False}])
def test_every_neuron_becomes_verified_integers(options, mode):
    net, x = network(mode, **options), spikes()
    with torch.no_grad():
        wanted = run(net, x)
    functional.reset_net(net)
    example = x if mode == "m" else x[0]
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=16), example, quiet=True)
    assert float((run(net, x) == wanted).float().mean()) > 0.95
    sq.calibrate(net, [example])
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, example), example)
    assert proof.differences == 0
    assert proof.spikes > 5


@pytest.mark.parametrize("stage", ["read", "quantized"])
@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("reset", [functional.reset_net, sq.reset])
def test_state_goes_on_from_call_to_call_until_reset(stage, mode, reset):
    net, x = network(mode, tau=20.0, decay_input=False), spikes()
    if stage == "read":
        read_(net)
    else:
        sq.quantize_(net, PLAN, x if mode == "m" else x[0], quiet=True)
    whole = run(net, x)
    reset(net)
    assert torch.equal(torch.cat([run(net, x[:2]), run(net, x[2:])]), whole)
    assert not torch.equal(run(net, x), whole)
    reset(net)
    assert torch.equal(run(net, x), whole)


def test_an_input_of_another_shape_starts_from_rest_as_in_the_library():
    net = network()
    original = copy.deepcopy(net)
    read_(net)
    for x in (spikes(), spikes(4, 2, 8)):
        assert torch.equal(net(x), original(x))


def test_step_mode_changes_by_the_library_and_is_checked():
    net = quantized()
    x = spikes()
    whole = net(x)
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    assert torch.equal(torch.stack([net(step) for step in x]), whole)
    with pytest.raises(ValueError, match='step_mode can only be "s" or "m"'):
        net[1].step_mode = "x"


@pytest.mark.parametrize("stage", ["read", "quantized"])
def test_membranes_are_read_set_detached_and_named(stage):
    net, x = network(v_reset=-0.25, tau=5.0), spikes()
    if stage == "read":
        read_(net)
    else:
        sq.quantize_(net, PLAN, x, quiet=True)
    assert net[1].v == -0.25
    net(x)
    assert net[1].v.shape == (BATCH, 6)
    assert net[1].v.requires_grad
    functional.detach_net(net)
    assert not net[1].v.requires_grad
    net(x).sum().backward()  # truncated backpropagation through time
    functional.detach_net(net)
    assert [name for name, _ in base.named_memories(net)] == ["1.v", "3.v"]
    kept = net[1].v
    net[1].v = torch.full((BATCH, 6), 0.25)
    torch.testing.assert_close(net[1].v, torch.full((BATCH, 6), 0.25), atol=0.02, rtol=0)
    net[1].v = -0.25
    assert net[1].v == -0.25
    assert kept.min() >= -3.0
    with pytest.raises(AttributeError, match="v can be set to a tensor, or to the number at rest, -0.25"):
        net[1].v = 0.3


@pytest.mark.parametrize("stage", ["read", "quantized"])
def test_what_was_read_can_be_looked_at_and_not_changed(stage):
    net = network()
    if stage == "read":
        read_(net)
    else:
        net = quantized()
    assert (net[1].tau, net[1].decay_input, net[1].v_threshold, net[1].v_reset) == (2.0, True, 0.4, 0.0)
    with pytest.raises(AttributeError, match="v_threshold was read into the neuron's spec; set it before"):
        net[1].v_threshold = 0.5
    assert not hasattr(net[1], "w")
    assert not hasattr(net[1], "c_decay")


# -- an ordinary module ----------------------------------------------------------------


@pytest.mark.parametrize("stage", ["read", "quantized"])
def test_copies_and_moves_after_a_forward(stage):
    net, x = network(kind=neuron.ParametricLIFNode), spikes()
    if stage == "read":
        read_(net)
    else:
        sq.quantize_(net, PLAN, x, quiet=True)
    wanted = net(x)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), wanted)
    assert isinstance(twin[1], neuron.ParametricLIFNode)
    net.to("cpu").float()
    net[1].note = "a user's own attribute"
    del net[1].note
    assert {"v", "v_seq", "step_mode"} <= set(dir(net[1]))
    functional.reset_net(net)
    assert torch.equal(net(x), wanted)


def test_parameters_are_the_same_objects_and_learn():
    net = network(kind=neuron.ParametricLIFNode)
    parameters = dict(net.named_parameters())
    sq.quantize_(net, PLAN, spikes(), quiet=True)
    assert all(parameter is parameters[name] for name, parameter in net.named_parameters())
    assert {"1.w", "3.w"} <= set(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net[1].w.item()
    net(spikes()).sum().backward()
    optimizer.step()
    assert net[1].w.item() != before
    assert net[1].value("leak").item() == pytest.approx(1 - torch.sigmoid(net[1].w).item())


@pytest.mark.parametrize("kind", [neuron.LIFNode, neuron.ParametricLIFNode])
def test_checkpoints_of_the_float_and_of_the_quantized_network_load(kind):
    net, x = network(kind=kind), spikes()
    checkpoint = {name: value.clone() for name, value in net.state_dict().items()}
    fresh = network(kind=kind)
    read_(fresh)
    fresh.load_state_dict(checkpoint)
    sq.quantize_(net, PLAN, x, quiet=True)
    sq.calibrate(net, [x])
    other = quantized(kind=kind)
    other.load_state_dict(net.state_dict())
    functional.reset_net(net)
    assert torch.equal(other.eval()(x), net.eval()(x))


def test_gradients_in_the_users_own_loop_in_single_step_mode():
    x = spikes()
    grads = []
    for mode in ("m", "s"):
        net = quantized(mode=mode)
        run(net, x).sum().backward()
        grads.append(net[0].weight.grad)
    torch.testing.assert_close(*grads)


# -- layers ----------------------------------------------------------------------------


def lif(**options: Any) -> Any:
    return node(tau=2.0, decay_input=False, **options)


def weighted(*sizes: int) -> Any:
    return layer.Linear(*sizes, step_mode="m")


CHAINS = {
    "containers": lambda: (layer.MultiStepContainer(nn.Linear(8, 6), lif()), layer.SeqToANNContainer(nn.Linear(6, 5)),
                           lif(step_mode="m")),
    "step mode containers": lambda: (layer.StepModeContainer(True, "m", nn.Linear(8, 6), lif()),
                                     layer.StepModeContainer(False, "m", nn.Linear(6, 5)), lif(step_mode="m")),
    "linear recurrent": lambda: (layer.LinearRecurrentContainer(lif(), 8, 8, step_mode="m"), weighted(8, 5),
                                 lif(step_mode="m")),
    "element-wise recurrent": lambda: (
        layer.ElementWiseRecurrentContainer(nn.Sequential(nn.Linear(8, 8), lif()), torch.add, step_mode="m"),
        weighted(8, 5), lif(step_mode="m")),
    "delay": lambda: (weighted(8, 6), lif(step_mode="m"), layer.Delay(2, step_mode="m"), weighted(6, 5),
                      lif(step_mode="m")),
    "no delay": lambda: (weighted(8, 6), lif(step_mode="m"), layer.Delay(0, step_mode="m"), weighted(6, 5),
                         lif(step_mode="m")),
    "dropout": lambda: (weighted(8, 6), lif(step_mode="m"), layer.Dropout(0.5, step_mode="m"), weighted(6, 5),
                        lif(step_mode="m")),
    "voting": lambda: (weighted(8, 20), lif(step_mode="m"), layer.VotingLayer(4, step_mode="m")),
    "tdBN": lambda: (weighted(8, 6), layer.ThresholdDependentBatchNorm1d(1.0, 0.4, 6), lif(step_mode="m")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_layers_and_containers_become_verified_integers(name):
    torch.manual_seed(3)
    net, x = nn.Sequential(*CHAINS[name]()), spikes(STEPS, 8, 8)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.uniform_(-0.3, 0.8)
        net.eval()
        wanted = net(x)
    functional.reset_net(net)
    assert wanted.sum() > 5
    assert sq.check_reading(net, x, quiet=True).exact
    readings = read_(net)
    assert torch.equal(net.eval()(x), wanted)
    functional.reset_net(net)
    readings.undo()
    sq.quantize_(net, PLAN, x, quiet=True)
    net.train()
    net(x).sum().backward()
    functional.reset_net(net)
    net.eval()
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, x), x)
    assert proof.differences == 0
    assert proof.spikes > 20


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("kind", ["Dropout", "Dropout2d"])
def test_dropout_keeps_its_mask_until_reset(kind, mode):
    net = nn.Sequential(getattr(layer, kind)(0.5, step_mode=mode)).train()
    read_(net)
    assert isinstance(net[0], SharedDropout)
    x = torch.ones(STEPS, BATCH, 4, 3, 3)
    first = net(x) if mode == "m" else torch.stack([net(step) for step in x])
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(first, first[:1].expand_as(first))
    if kind == "Dropout2d":
        assert torch.equal(first, first[..., :1, :1].expand_as(first))
    assert torch.equal(net(x if mode == "m" else x[0]), first if mode == "m" else first[0])
    functional.reset_net(net)
    again = net(x if mode == "m" else x[0])
    assert not torch.equal(again if mode == "s" else again[0], first[0])
    assert torch.equal(net.eval()(x), x)


def test_batch_norm_that_depends_on_the_threshold_is_the_librarys():
    norm = layer.ThresholdDependentBatchNorm2d(1.0, 0.7, 4)
    twin = nn.Sequential(copy.deepcopy(norm))
    x = torch.randn(STEPS, BATCH, 4, 3, 3)
    read_(twin)
    assert torch.equal(twin.train()(x), norm.train()(x))
    assert torch.equal(twin.eval()(x), norm.eval()(x))
    assert {f"0.{name}" for name in norm.state_dict()} == set(twin.state_dict())


# -- refusals --------------------------------------------------------------------------


class Noisy(neuron.LIFNode):
    """A user's neuron with dynamics of its own."""

    def single_step_functional_forward(self, inputs, states, **kwargs):
        """Something else."""
        return super().single_step_functional_forward((inputs[0] + 0.1,), states, **kwargs)


def with_(module: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def starting_at(value: float) -> Any:
    module = neuron.LIFNode()
    module.set_reset_value("v", value)
    return module


REFUSED = {
    "QIFNode has no neuron spec .its membrane grows with its square.": neuron.QIFNode,
    "EIFNode has no neuron spec": neuron.EIFNode,
    "IzhikevichNode has no neuron spec": neuron.IzhikevichNode,
    "KLIFNode has no neuron spec": neuron.KLIFNode,
    "PSN has no neuron spec": lambda: neuron.PSN(4, surrogate.ATan()),
    "GatedLIFNode has no neuron spec": lambda: neuron.GatedLIFNode(4),
    "LIAFNode has no neuron spec": lambda: neuron.LIAFNode(torch.relu, False),
    "ILIFNode has no neuron spec": neuron.ILIFNode,
    "HalfThresholdIFNode has no neuron spec .it starts at half its threshold": neuron.HalfThresholdIFNode,
    "NonSpikingBaseNode has no neuron spec .*LeakyIntegrator": neuron.NonSpikingLIFNode,
    "Noisy overrides single_step_functional_forward of LIFNode; use the class itself": Noisy,
    "_neuron_precision = .*: its state is stored in reduced": lambda: with_(neuron.LIFNode(), _neuron_precision=("fp16",)),
    "the reset value of v = 0.5: it starts there, and an integer network starts from rest": lambda: starting_at(0.5),
    "tau = 0.5: expected a time constant of at least one step": lambda: with_(neuron.LIFNode(), tau=0.5),
    "tau = nan: expected one finite Python number": lambda: with_(neuron.LIFNode(), tau=float("nan")),
    "v_threshold = .*: expected one finite Python number": lambda: with_(neuron.IFNode(), v_threshold=torch.ones(3)),
    "v_reset = -0.5: its leak pulls toward 0 while": lambda: neuron.CUBALIFNode(v_reset=-0.5),
    "v_reset = None: SimpleLIFNode cannot run without one": lambda: neuron.SimpleLIFNode(2.0, True, v_reset=None),
    "surrogate_function.spiking = False: it gives its primitive function": lambda: neuron.IFNode(
        surrogate_function=surrogate.ATan(spiking=False)),
    "MultiLevelSpikeCount: it does not fire exactly at v >= v_threshold": lambda: neuron.IFNode(
        surrogate_function=surrogate.MultiLevelSpikeCount(4)),
    "w = .*: expected one finite number": lambda: with_(neuron.ParametricLIFNode(), w=nn.Parameter(torch.tensor(torch.inf))),
    "WSConv2d: its weights are standardized in every call": lambda: layer.WSConv2d(2, 3, 3),
    "Conv3d: networks with three spatial axes": lambda: layer.Conv3d(2, 3, 3),
    "ConvTranspose2d: there is no integer form for layers that enlarge": lambda: layer.ConvTranspose2d(2, 3, 3),
    "GroupNorm: it measures its input in evaluation": lambda: layer.GroupNorm(2, 4),
    "TemporalEffectiveBatchNorm2d: a norm that changes from step to step": lambda: layer.TemporalEffectiveBatchNorm2d(4, 3),
    "SynapseFilter: it makes real numbers of spikes": layer.SynapseFilter,
    "TLastMultiStepContainer: time is its last axis": lambda: layer.TLastMultiStepContainer(neuron.IFNode()),
    "SpikingSelfAttention: attention has no integer form yet": lambda: layer.SpikingSelfAttention(8, 2),
    "track_running_stats = False: its statistics of one batch": lambda: layer.ThresholdDependentBatchNorm1d(
        1.0, 1.0, 3, track_running_stats=False),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_spec_holds_is_refused_by_path(message):
    net = nn.Sequential(layer.Linear(4, 4, step_mode="m"), nn.ModuleDict({"odd": REFUSED[message]()}))
    before = dict(net.named_modules())
    with pytest.raises(sq.Unsupported, match=f"^1.odd: .*{message}"):
        read_(net)
    assert dict(net.named_modules()) == before


@pytest.mark.parametrize("name", sorted({*NO_NEURON, *NO_LAYER}))
def test_the_names_of_what_is_refused_exist(name):
    assert hasattr(neuron, name) or hasattr(layer, name) or name in ("AdaptBaseNode", "ILCBaseNode")


def test_every_neuron_of_the_library_is_read_or_refused_by_name():
    known = {*KNOWN.replace(" and", ",").replace(" ", "").split(","), *NO_NEURON}
    for name, kind in vars(neuron).items():
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith("spikingjelly"):
            names = {k.__name__ for k in kind.__mro__}
            assert names & known or name in ("BaseNode", "SimpleBaseNode"), name


def test_a_neuron_alone_is_no_model():
    with pytest.raises(sq.Unsupported, match="LIFNode: the model itself is one layer"):
        sq.quantize_(neuron.LIFNode(step_mode="m"), PLAN, spikes())


# -- around the module -----------------------------------------------------------------


def test_distributed_data_parallel_trains_it(tmp_path):
    net = quantized(kind=neuron.ParametricLIFNode)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net.train())
        before = net[1].w.item()
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            parallel(spikes()).sum().backward()
            optimizer.step()
            functional.reset_net(parallel)
        assert net[1].w.item() != before
    finally:
        torch.distributed.destroy_process_group()


def test_monitors_of_the_library_see_its_spikes():
    monitor = pytest.importorskip("spikingjelly.activation_based.monitor")
    net = quantized()
    with torch.no_grad(), monitor.OutputMonitor(net, neuron.LIFNode) as seen:
        net(spikes())
        assert sorted(seen.monitored_layers) == ["1", "3"]
        assert seen["1"][0].shape == (STEPS, BATCH, 6)
