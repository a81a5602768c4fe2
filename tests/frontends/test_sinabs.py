"""sinabs' layers as readings: squeezed or not, state inside, same names, same spikes, quantized and not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.frontends.check import check_layer
from spikequant.frontends.sinabs import LIBRARY

sinabs = pytest.importorskip("sinabs")
sl = pytest.importorskip("sinabs.layers")
act = pytest.importorskip("sinabs.activation")

PLAN = sq.Plan.uniform(weight_bits=8, membrane_bits=12)
N, T = 4, 6


def events(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.rand(*shape) < 0.4).float()


def squeezed() -> nn.Module:
    """As `from_model` makes them: everything on [N * T, ...]."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), sl.IAFSqueeze(batch_size=N, min_v_mem=-1.0), sl.SumPool2d(2),
        nn.Conv2d(4, 6, 3, bias=False), sl.IAFSqueeze(num_timesteps=T), nn.Flatten(), nn.Linear(24, 5),
        sl.LIFSqueeze(tau_mem=5.0, batch_size=N, norm_input=False),
    )  # fmt: skip


class Converted(nn.Module):
    """A static image through a network that `from_model` converted, the spikes counted."""

    def __init__(self) -> None:
        super().__init__()
        ann = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5))
        self.snn = sinabs.from_model(ann, batch_size=N, add_spiking_output=True).spiking_model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out = self.snn(image.repeat_interleave(T, 0))
        return out.unflatten(0, (-1, T)).sum(1)


class Unsqueezed(nn.Module):
    """[N, T, ...] throughout, with a current, single spikes, and a readout that does not spike."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 12)
        self.lif = sl.LIF(tau_mem=4.0, tau_syn=3.0, spike_fn=act.SingleSpike, spike_threshold=torch.tensor(0.1))
        self.fc2 = nn.Linear(12, 10)
        self.iaf = sl.IAF(spike_fn=act.MaxSpike(3), spike_threshold=torch.tensor(0.3))
        self.fc3 = nn.Linear(10, 3)
        self.out = sl.ExpLeak(tau_mem=6.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.fc3(self.iaf(self.fc2(self.lif(self.fc1(x))))))


def repeated() -> nn.Module:
    """Time and batch merged around every convolution by sinabs' own modules."""
    return nn.Sequential(
        sl.Repeat(nn.Conv2d(2, 4, 3)), sl.IAF(), sl.FlattenTime(), sl.SumPool2d(2), nn.Conv2d(4, 5, 3),
        sl.UnflattenTime(batch_size=N), sl.IAF(spike_fn=act.SingleSpike, reset_fn=act.MembraneReset()),
    )  # fmt: skip


CASES = {
    "squeezed": (squeezed, (N * T, 2, 8, 8)),
    "converted": (Converted, (N, 1, 8, 8)),
    "unsqueezed": (Unsqueezed, (N, T, 8)),
    "repeated": (repeated, (N, T, 2, 8, 8)),
}


def made(case: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape = CASES[case]
    torch.manual_seed(1)
    net = make()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight += 0.5 / module.weight[0].numel()
    return net, events(*shape)


def neurons(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, sl.StatefulLayer)]


@pytest.mark.parametrize("case", CASES)
def test_a_reading_gives_the_same_output_gradients_and_names(case):
    net, x = made(case)
    kept = copy.deepcopy(net.state_dict())
    report = sq.check_reading(net, x, quiet=True)
    assert report.holds
    assert all(layer.grade == "exact" or "float rounding" in layer.difference for layer in report.layers)
    assert sum(layer.spikes for layer in report.layers) > 50
    weight = torch.linspace(-1, 1, net(x).numel())
    sinabs.reset_states(net)
    wanted = net(x)
    (wanted.flatten() * weight).sum().backward()
    grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    readings = sq.frontends.read_(net)
    got = net(x)
    (got.flatten() * weight).sum().backward()
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    now = net.state_dict(keep_vars=True)
    assert set(now) == set(kept)
    net.load_state_dict(kept)
    for name, gradient in grads.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(now[name].grad / scale, gradient / scale, rtol=2e-3, atol=2e-4)
    assert not torch.equal(net(x), wanted)  # the state goes on
    sinabs.reset_states(net)
    assert torch.equal(net(x), got)
    saved = net.state_dict()
    readings.undo()
    fresh = made(case)[0]
    fresh.load_state_dict(saved)  # the original takes the checkpoint of its reading
    torch.testing.assert_close(fresh(x), wanted)


@pytest.mark.parametrize("case", CASES)
def test_networks_quantize_train_freeze_lower_and_verify(case, tmp_path):
    net, x = made(case)
    names = set(net.state_dict())
    sq.quantize_(net, PLAN, x, quiet=True)
    assert names <= set(net.state_dict())
    assert len(neurons(net)) >= 2
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    net(x).pow(2).sum().backward()
    optimizer.step()
    copied = copy.deepcopy(net)
    sq.reset(net)
    assert torch.equal(copied(x), net(x))
    sinabs.reset_states(copied)
    sinabs.reset_states(net)
    assert copied.load_state_dict(net.state_dict()).missing_keys == []
    assert torch.equal(copied(x), net(x))
    sq.calibrate(net, [x])
    sq.save_prepared(net, tmp_path / "net.safetensors")
    sq.reset(net)
    assert torch.equal(sq.load_prepared(CASES[case][0], tmp_path / "net.safetensors")(x), net(x))
    sq.reset(net)
    sq.freeze(net)
    lowered = sq.lower(net, x)
    report = sq.verify(net, lowered, x)
    assert report.differences == 0
    assert report.spikes > 50


def test_a_captured_network_runs_layer_by_layer_in_the_layout_of_the_model():
    for case in CASES:
        net, x = made(case)
        sq.frontends.read_(net)
        graph = sq.capture.capture(net, x)
        with torch.no_grad():
            got = sq.capture.LayerwiseRunner(net, graph)(x)
            sq.reset(net)
            torch.testing.assert_close(got, net(x))


@pytest.mark.parametrize("squeeze", [{"batch_size": 8}, {"num_timesteps": 50}])
def test_check_reading_finds_where_the_missing_cap_matters(squeeze):
    layer = sl.IAFSqueeze(**squeeze)
    reading = LIBRARY.read("iaf", layer)
    assert "MultiSpike has no cap" in reading.caveats[0]
    x = torch.rand(50, 8, 6)
    assert check_layer("iaf", layer, reading, x).grade == "exact"
    x[3, 2, 1] = 33.0
    report = check_layer("iaf", layer, reading, x)
    assert report.grade == "faithful"
    assert report.differing >= 1
    assert "fires at most 31 times in a step" in report.difference


def test_states_and_records_have_the_names_and_units_of_sinabs():
    given = {"tau_mem": 5.0, "tau_syn": 3.0, "spike_threshold": torch.tensor(0.2), "record_states": True}
    layer, x = sl.LIF(**given), torch.rand(N, T, 5)
    reading = LIBRARY.read("lif", layer).module
    assert isinstance(reading, sl.LIF)
    assert reading.v_mem.shape == (0,)
    wanted = layer(x)
    assert torch.equal(reading(x), wanted)
    assert wanted.sum() > 5
    for name in ("v_mem", "i_syn"):
        torch.testing.assert_close(getattr(reading, name), getattr(layer, name))
        torch.testing.assert_close(reading.recordings[name], layer.recordings[name])
    torch.testing.assert_close(reading.firing_rate, layer.firing_rate)
    reading.firing_rate.backward()
    assert reading.tau_mem.grad is not None
    reading.zero_grad()
    assert reading.tau_mem.grad is None
    assert "LIF(" in repr(reading)
    sinabs.set_batch_size(nn.Sequential(LIBRARY.read("l", sl.IAFSqueeze(batch_size=2)).module), 3)
    reading.reset_states()
    assert not reading.is_state_initialised()


@pytest.mark.parametrize(
    "function",
    [act.SingleExponential(), act.PeriodicExponential(), act.Heaviside(), act.Gaussian(), act.Gaussian(mu=0.1),
     act.Gaussian(grad_scale=2.0), act.MultiGaussian()],
)  # fmt: skip
def test_a_surrogate_is_named_only_where_its_derivative_is_the_named_one(function):
    layer = sl.IAF(surrogate_grad_fn=function, spike_threshold=torch.tensor(0.8))
    surrogate = LIBRARY.read("iaf", layer).neuron.surrogate
    u = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(surrogate.derivative(u), function(u + 0.8, torch.tensor(0.8)))
    assert surrogate.whole
    assert (surrogate.name == "gaussian") == (function == act.Gaussian())


class Own(sl.IAF):
    def forward(self, input_data):
        return super().forward(input_data) * 0.5


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: sl.IAF(reset_fn=act.MembraneReset()), "0: reset_fn = .*use MembraneSubtract, or SingleSpike"),
        (lambda: sl.IAF(reset_fn=act.MembraneSubtract(0.5)), "0: reset_fn.subtract_value = 0.5: .*use subtract_value=None"),
        (lambda: sl.IAF(spike_fn=act.SingleSpike, reset_fn=act.MembraneReset(0.2)), r"0: reset_fn.reset_value = 0.2: sinabs adds it"),
        (lambda: sl.IAF(spike_threshold=torch.tensor(-1.0)), "0: spike_threshold = -1.0: expected at least"),
        (lambda: sl.ExpLeak(tau_mem=3.0, min_v_mem=-1.0), "0: min_v_mem = -1.0: .*not bounded by it"),
        (lambda: sl.ALIF(tau_mem=3.0, tau_adapt=3.0), "0: sinabs' ALIF has no integer form here"),
        (lambda: sl.LIFRecurrent(tau_mem=3.0, rec_connect=nn.Linear(3, 3)), "0: sinabs' LIFRecurrent has no integer form"),
        (lambda: sl.SpikingMaxPooling2dLayer((2, 2)), "0: sinabs' SpikingMaxPooling2dLayer .*use SumPool2d"),
        (lambda: sl.SumPool2d(2, ceil_mode=True), "0: ceil_mode = True: .*use ceil_mode=False"),
        (Own, "0: Own overrides the forward of IAF; use the class itself"),
    ],
)  # fmt: skip
def test_what_no_spec_holds_is_refused_with_its_place(layer, message):
    with pytest.raises(sq.Unsupported, match=message):
        sq.frontends.read_(nn.Sequential(layer()))
