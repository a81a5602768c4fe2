"""The choice of a neuron kernel, and that fused and plain layers are the same layer."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, AdaptiveLIF, CubaLIF, LeakyIntegrator, MultiSpikeIF, SingleState, Surrogate, kernels
from spikequant.nn.over_time import OverTime
from spikequant.readers.compiler import find_compiler
from spikequant.readers.kernels import native, numba_kernel

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
STEPS, BATCH = 9, 4


def network(neuron, *, bits=8, rounding="half_even", quantizer="lsq", seed=0):
    """A quantized convolution with a neuron layer behind it, and an input."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(2, 6, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(3)
    net = nn.Sequential(OverTime(conv), neuron)
    x = (torch.rand(STEPS, BATCH, 2, 6, 6) < 0.4).float()
    plan = sq.Plan.uniform(
        weight_bits=4, membrane_bits=bits, weight_quantizer=quantizer, membrane_rounding=rounding
    )  # fmt: skip
    sq.quantize_(net, plan, x, quiet=True)
    return net, x


def trained(net, x, how):
    """Output and gradients under a choice."""
    net.zero_grad()
    with kernels.using(how):
        y = net(x)
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return y.detach(), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def equal(one, other):
    """Bit-equal outputs, gradients up to the rounding of float32."""
    assert torch.equal(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, wanted in one[1].items():
        assert float((other[1][name] - wanted).abs().max()) <= 5e-6 * float(wanted.abs().max()), name


@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(leak=0.75, learn=("threshold",)),
        lambda: LIF(leak=0.9, reset="subtract", order="delayed_reset", learn=("threshold", "leak"), detach_reset=True),
        lambda: CubaLIF(leak_i=0.6, surrogate=Surrogate("sigmoid", 4.0)),
        lambda: AdaptiveLIF(surrogate=Surrogate("fast_sigmoid", 5.0)),
        lambda: LeakyIntegrator(leak=0.9),
    ],
)
def test_outputs_are_equal_and_gradients_the_same(make):
    net, x = network(make())
    plain, fused = trained(net, x, "plain"), trained(net, x, "fused")
    assert kernels.used(net) == {"1": "fused"}
    equal(plain, fused)
    assert float(plain[0].abs().mean()) > 0.01


def test_channels_last_stays_channels_last():
    net, _ = network(LIF())
    lif, current = net[1], torch.randn(STEPS, BATCH, 6, 8, 8).mul(3000).round()
    with torch.no_grad(), kernels.using("fused"):
        wanted = lif(current)
        last = current.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (STEPS, BATCH))
        got = lif(last)
    assert torch.equal(wanted, got)
    assert 0.02 < float(got.mean()) < 0.9
    assert got.stride() == last.stride()


def test_a_static_input_gets_its_gradient_once():
    net, _ = network(LIF(leak=0.75), seed=2)
    base = torch.randn(BATCH, 6, 8, 8).mul(2000).round().requires_grad_()
    found = []
    for how in ("plain", "fused"):
        with kernels.using(how):
            y = net[1](
                base.unsqueeze(0).expand(STEPS, *base.shape) if how == "plain" else base.expand(STEPS, *base.shape)
            )
            found.append(
                (y.detach(), torch.autograd.grad((y * torch.arange(STEPS).reshape(-1, 1, 1, 1, 1)).sum(), base)[0])
            )
    assert torch.equal(found[0][0], found[1][0])
    assert float(found[0][0].mean()) > 0.02
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6 * float(found[0][1].abs().max()))


def test_single_steps_are_the_steps_of_a_whole_run_and_train_through_the_state():
    net, x = network(LIF(leak=0.75, reset="subtract", learn=("threshold",)), rounding="stochastic")
    whole = trained(net, x, "fused")
    net[1].step_mode = "s"
    stepped = copy.deepcopy(net)
    stepped.zero_grad()
    with kernels.using("fused"):
        outs = [stepped[1](stepped[0](x[t : t + 1])[0]) for t in range(STEPS)]
    y = torch.stack(outs)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    equal(whole, (y.detach(), {n: p.grad for n, p in stepped.named_parameters()}))
    assert kernels.used(stepped) == {"1": "fused"}


def test_calls_that_carry_their_state_go_on():
    net, x = network(LIF(leak=0.75, reset="subtract"))
    with torch.no_grad(), kernels.using("fused"):
        wanted = net(x)
        net[1].carries = True
        parts = [net(x[:4]), net(x[4:])]
    assert torch.equal(torch.cat(parts), wanted)


def test_a_gradient_of_a_gradient_is_that_of_the_plain_loop():
    net, x = network(LIF(leak=0.75, reset="subtract", learn=("threshold",)), bits=12)
    parameters, seconds = list(net.parameters()), []
    for how in ("plain", "fused"):
        with kernels.using(how):
            loss = (net(x).sum(0) ** 2).mean()
            first = torch.autograd.grad(loss, parameters, create_graph=True)
            seconds.append(torch.autograd.grad(sum((g**2).sum() for g in first), parameters))
    for plain, fused in zip(*seconds, strict=True):
        assert float(plain.abs().max()) > 0
        assert float((plain - fused).abs().max()) <= 1e-5 * float(plain.abs().max())


def test_threads_change_nothing():
    net, _ = network(LIF(leak=0.75, learn=("threshold",)))
    current = torch.randn(16, 8, 6, 32, 32).mul(2000).round().requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = net[1](current)
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), (current, net[1].threshold))))
    finally:
        torch.set_num_threads(before)
    assert kernels.used(net) == {"1": "fused"}
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_copies_and_pickles_say_and_do_the_same():
    net, x = network(LIF())
    with torch.no_grad(), kernels.using("fused"):
        wanted = net(x)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(x), wanted)
            assert kernels.used(other) == {"1": "fused"}


def test_the_choice_is_seen_and_forced(monkeypatch):
    net, x = network(LIF())
    with torch.no_grad():
        net(x)
        assert kernels.used(net) == {"1": "plain: fewer than 16384 neuron-steps"}
        with kernels.using("plain"):
            net(x)
        assert kernels.used(net) == {"1": "plain: asked for"}
        monkeypatch.setenv("SPIKEQUANT_KERNELS", "fused")
        net(x)
        assert kernels.used(net) == {"1": "fused"}
        net[1].watch = []
        net(x)
        assert kernels.used(net) == {"1": "plain: states are watched"}
        assert len(net[1].watch) == STEPS
        monkeypatch.setenv("SPIKEQUANT_KERNELS", "quick")
        with pytest.raises(sq.Unsupported, match="'quick'; expected one of auto, plain, fused, all"):
            net(x)
    with pytest.raises(sq.Unsupported, match="'best'; expected one of"), kernels.using("best"):
        pass


def test_real_neurons_and_foreign_spike_functions_stay_plain():
    lif = LIF()
    with kernels.using("fused"):
        lif(torch.rand(STEPS, BATCH, 5))
        assert lif.kernel == "plain: real numbers"
        net, x = network(LIF(surrogate=Surrogate("theirs", 1.0, spike=lambda u: (u >= 0).to(u.dtype))))
        net(x)
        assert kernels.used(net) == {"1": "plain: a spike function of another library"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(leak=0.75, reset="subtract", learn=("threshold", "leak")),
        lambda: LIF(leak=torch.linspace(0.5, 0.95, 6), order="delayed_reset", detach_reset=True),
        lambda: CubaLIF(leak_i=0.6, learn=("leak_i",), surrogate=Surrogate("sigmoid", 4.0)),
        lambda: AdaptiveLIF(surrogate=Surrogate("fast_sigmoid", 5.0)),
        lambda: SingleState(leak=0.8),
        lambda: MultiSpikeIF(spikes_max=4),
        lambda: LeakyIntegrator(leak=0.9, learn=("leak",)),
    ],
)
def test_real_neurons_are_fused_on_request(make):
    torch.manual_seed(3)
    lif, found = make(), []
    x = (torch.randn(STEPS, 64, 6, 8, 8) * 0.6 + 0.2).requires_grad_()
    up = torch.randn(STEPS, 64, 6, 8, 8)
    for how in ("auto", "all"):
        with kernels.using(how):
            y = lif(x)
        found.append((y.detach(), torch.autograd.grad((y * up).sum(), [x, *lif.parameters()])))
        assert lif.kernel == ("fused" if how == "all" else "plain: real numbers")
    assert torch.equal(found[0][0], found[1][0])
    assert float(found[0][0].abs().mean()) > 0.02
    for wanted, got in zip(found[0][1], found[1][1], strict=True):
        assert float((wanted - got).abs().max()) <= 2e-5 * float(wanted.abs().max())


@pytest.fixture
def without_a_compiler(monkeypatch):
    """No C compiler is found, whatever was compiled before."""
    monkeypatch.setattr(native, "shared_object", lambda *a, **k: (_ for _ in ()).throw(sq.Unsupported("no C compiler")))
    for found in (kernels._missing, native.forward_kernel, native.backward_kernel):
        found.cache_clear()
    yield
    kernels._missing.cache_clear()


def test_without_a_compiler_numba_compiles(without_a_compiler, monkeypatch):
    net, x = network(LIF(leak=0.6, reset="none", learn=("threshold",)), bits=7)
    plain = trained(net, x, "plain")
    with monkeypatch.context() as absent:
        absent.setattr(numba_kernel, "numba_missing", lambda: "numba is not installed")
        equal(plain, trained(net, x, "fused"))
    assert kernels.used(net) == {"1": "plain: no C compiler; there is no C compiler, and numba is not installed"}
    kernels._missing.cache_clear()
    pytest.importorskip("numba", reason="numba is not installed")
    equal(plain, trained(net, x, "fused"))
    assert kernels.used(net) == {"1": "fused by numba"}
    with torch.no_grad():
        net[1](torch.zeros(STEPS, 64, 6, 6, 6))
    assert kernels.used(net) == {"1": "plain: no C compiler; fewer than 131072 neuron-steps"}


def test_an_engine_is_asked_for_by_name(monkeypatch):
    with kernels.using("auto", engine="c"):
        assert kernels.engines() == ("c",)
    assert kernels.engines("cuda") == ("triton",)
    assert kernels.engines() == ("c", "numba")
    monkeypatch.setenv("SPIKEQUANT_KERNEL_ENGINE", "cuda")
    with pytest.raises(sq.Unsupported, match="no kernel engine 'cuda'; expected one of c, numba, triton"):
        kernels.engines()


def test_an_empty_batch_is_no_matter():
    net, _ = network(LIF())
    with torch.no_grad(), kernels.using("fused"):
        assert net[1](torch.zeros(STEPS, 0, 6, 8, 8)).shape == (STEPS, 0, 6, 8, 8)
