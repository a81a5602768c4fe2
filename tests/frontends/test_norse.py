"""Norse's neurons as readings: the state travels with the caller, same names, same spikes, quantized and not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.frontends.check import check_layer
from spikequant.frontends.norse import LIBRARY
from spikequant.frontends.norse_surrogate import NAMED, SAMPLES, NorseSpike
from spikequant.nn.surrogate import slope_of

norse = pytest.importorskip("norse.torch")

PLAN = sq.Plan.uniform(weight_bits=8, membrane_bits=12)
FAST = {"tau_mem_inv": torch.tensor(400.0), "tau_syn_inv": torch.tensor(500.0)}
P = norse.LIFParameters(**FAST, v_th=torch.tensor(0.3))
LI = norse.LIParameters(**FAST)


def steps(t: int = 8, n: int = 4, *shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.rand(t, n, *(shape or (8,))) < 0.4).float()


class Loop(nn.Module):
    """Cells in the user's own loop, the states passed by hand, the membrane of a leaky integrator read."""

    def __init__(self, p=P, readout: str = "LICell") -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.lif1 = norse.LIFCell(p=p)
        self.fc2 = nn.Linear(16, 12)
        self.lif2 = norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(0.2)))
        self.linear = readout == "LILinearCell"
        self.fc3 = nn.Identity() if self.linear else nn.Linear(12, 3)
        self.out = norse.LILinearCell(12, 3, p=LI) if self.linear else getattr(norse, readout)(p=LI)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s1 = s2 = so = None
        voltages = []
        for step in x:
            z, s1 = self.lif1(self.fc1(step), s1)
            z, s2 = self.lif2(self.fc2(z), s2)
            v, so = self.out(z if self.linear else self.fc3(z), so)
            voltages.append(v)
        return torch.stack(voltages)


class Recurrent(nn.Module):
    """A recurrent layer over time or step by step, then a leaky integrator."""

    def __init__(self, over_time: bool = True) -> None:
        super().__init__()
        self.over_time = over_time
        self.rec = (norse.LIFRecurrent if over_time else norse.LIFRecurrentCell)(8, 12, p=P)
        self.fc = nn.Linear(12, 3)
        self.out = norse.LI(p=LI) if over_time else norse.LICell(p=LI)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.over_time:
            z, _ = self.rec(x)
            return self.out(self.fc(z))[0]
        state = so = None
        total = []
        for step in x:
            z, state = self.rec(step, state)
            v, so = self.out(self.fc(z), so)
            total.append(v)
        return torch.stack(total)


def sequential() -> nn.Module:
    return norse.SequentialState(
        norse.Lift(nn.Conv2d(2, 4, 3, padding=1)), norse.LIF(p=P), norse.Lift(nn.MaxPool2d(2)),
        norse.Lift(nn.Conv2d(4, 6, 3)), norse.LIF(p=P), nn.Flatten(2), nn.Linear(24, 10), norse.LIF(p=P),
    )  # fmt: skip


CASES = {
    "LICell": (Loop, (8,)),
    "LILinearCell": (lambda: Loop(readout="LILinearCell"), (8,)),
    "rest": (lambda: Loop(P._replace(v_leak=torch.tensor(-0.2), v_reset=torch.tensor(-0.3))), (8,)),
    "recurrent": (Recurrent, (8,)),
    "recurrent cell": (lambda: Recurrent(over_time=False), (8,)),
    "SequentialState": (sequential, (2, 8, 8)),
}


def made(case: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape = CASES[case]
    torch.manual_seed(1)
    net = make()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight += 0.15 / module.weight[0].numel() ** 0.5
    return net, steps(8, 4, *shape)


def output(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found = net(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("case", CASES)
def test_a_reading_gives_the_same_output_gradients_and_names(case):
    net, x = made(case)
    names = set(net.state_dict())
    report = sq.check_reading(net, x, quiet=True)
    assert report.holds
    assert all(layer.grade == "exact" or "float rounding" in layer.difference for layer in report.layers)
    assert sum(layer.spikes for layer in report.layers) > 50
    wanted = output(net, x)
    wanted.pow(2).sum().backward()
    grads = {n: p.grad.clone() for n, p in net.state_dict(keep_vars=True).items() if p.grad is not None}
    net.zero_grad()
    readings = sq.frontends.read_(net)
    got = output(net, x)
    got.pow(2).sum().backward()
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    kept = net.state_dict(keep_vars=True)
    assert set(kept) == names
    for name, gradient in grads.items():
        torch.testing.assert_close(kept[name].grad, gradient, rtol=2e-3, atol=1e-4)
    readings.undo()
    assert set(net.state_dict()) == names


@pytest.mark.parametrize("case", CASES)
def test_networks_quantize_train_freeze_lower_and_verify(case, tmp_path):
    net, x = made(case)
    names, values = set(net.state_dict()), copy.deepcopy(net.state_dict())
    sq.quantize_(net, PLAN, x, quiet=True)
    assert names <= set(net.state_dict())
    net.load_state_dict(values, strict=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    output(net, x).pow(2).sum().backward()
    optimizer.step()
    copied = copy.deepcopy(net)
    assert torch.equal(output(copied, x), output(net, x))
    assert torch.equal(output(copied, x), output(net, x))  # a state of None starts from rest
    assert copied.load_state_dict(net.state_dict()).missing_keys == []
    sq.calibrate(net, [x])
    sq.save_prepared(net, tmp_path / "net.safetensors")
    assert torch.equal(output(sq.load_prepared(CASES[case][0], tmp_path / "net.safetensors"), x), output(net, x))
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, x), x)
    assert report.differences == 0
    assert report.spikes > 50


def test_states_are_norses_own_tuples_in_real_units():
    layer, x = norse.LIFCell(p=P._replace(v_leak=torch.tensor(0.1))), torch.rand(5, 3, 8)
    reading = LIBRARY.read("lif", layer).module
    assert isinstance(reading, norse.LIFCell)
    ours = theirs = None
    for step in x:
        z, ours = reading(step, ours)
        wanted, theirs = layer(step, theirs)
        assert torch.equal(z, wanted)
        assert type(ours) is type(theirs)
        for field in ("v", "i"):
            torch.testing.assert_close(getattr(ours, field), getattr(theirs, field))


def test_a_state_can_be_kept_passed_again_detached_and_swapped():
    layer, x = norse.LIFCell(p=P), torch.rand(6, 3, 8) * 0.6
    reading = LIBRARY.read("lif", layer).module
    for module in (layer, reading):
        module.seen = []
        state = None
        for step in x[:3]:
            _, state = module(step, state)
        branch = type(state)(*(field.clone() for field in state))
        for way in (state, branch, type(state)(*(field.detach() for field in state)), None):
            after = way
            for step in x[3:]:
                z, after = module(step, after)
            module.seen.append(z.detach())
    assert all(torch.equal(a, b) for a, b in zip(layer.seen, reading.seen, strict=True))
    assert not torch.equal(layer.seen[0], layer.seen[-1])
    assert torch.equal(reading(x[0], layer.initial_state(x[0]))[0], layer(x[0])[0])


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent"])
def test_layers_over_time_give_last_or_all_states(kind, records):
    sizes = (8, 5) if kind == "LIFRecurrent" else ()
    layer, x = getattr(norse, kind)(*sizes, p=P, record_states=records), torch.rand(6, 3, 8)
    reading = LIBRARY.read("lif", layer).module
    (z, state), (wanted, theirs) = reading(x), layer(x)
    assert torch.equal(z, wanted)
    assert z.sum() > 5
    assert state._fields == theirs._fields
    for ours, field in zip(state, theirs, strict=True):
        torch.testing.assert_close(ours, field, rtol=1e-4, atol=1e-5)
    again, _ = reading(x, state if not records else type(state)(*(field[-1] for field in state)))
    further, _ = layer(x, theirs if not records else type(theirs)(*(field[-1] for field in theirs)))
    assert torch.equal(again, further)


@pytest.mark.parametrize("kind", ["LICell", "LI", "LIBoxCell"])
@pytest.mark.parametrize("seed", range(12))
def test_readouts_have_the_membranes_of_norse(kind, seed):
    rng = torch.Generator().manual_seed(seed)
    rates = (0.03 + 0.9 * torch.rand(2, generator=rng)) * 1000
    given = {"tau_mem_inv": rates[0], **({} if kind == "LIBoxCell" else {"tau_syn_inv": rates[1]})}
    make = norse.LIBoxParameters if kind == "LIBoxCell" else norse.LIParameters
    layer = getattr(norse, kind)(p=make(**given))
    report = check_layer("out", layer, LIBRARY.read("out", layer), torch.randn(50, 8, 6, generator=rng))
    assert report.grade in ("exact", "faithful")
    assert "float rounding" in report.difference or report.grade == "exact"


@pytest.mark.parametrize("method", ["super", "triangle", "tanh", "heavi_erfc", "circ", "heaviside"])
@pytest.mark.parametrize("alpha", [1.0, 2.0, 100.0])
def test_a_surrogate_is_named_only_where_its_derivative_is_the_named_one(method, alpha):
    layer = norse.LIFCell(p=P._replace(method=method, alpha=torch.tensor(alpha)))
    found = LIBRARY.read("lif", layer).neuron.surrogate
    torch.testing.assert_close(found.derivative(SAMPLES), slope_of(NorseSpike(method, alpha), SAMPLES))
    fits = {"super": True, "triangle": alpha == 1.0, "tanh": alpha == 2.0, "heavi_erfc": alpha == 2.0}
    assert (found == NAMED.get(method)) == fits.get(method, False)


def test_learned_time_constants_keep_learning():
    rate = nn.Parameter(torch.tensor(300.0))
    net, x = Loop(P._replace(tau_mem_inv=rate)), steps()
    net(x).sum().backward()
    wanted, rate.grad = rate.grad.clone(), None
    sq.frontends.read_(net)
    net(x).sum().backward()
    torch.testing.assert_close(rate.grad, wanted, rtol=1e-3, atol=1e-5)
    assert wanted.abs() > 0


def li(**given):
    return norse.LICell(p=LI._replace(**{name: torch.tensor(v) for name, v in given.items()}))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: norse.LSNNCell(), r"0: Norse's LSNNCell has no neuron spec"),
        (lambda: norse.LIFRefracCell(), r"0: Norse's LIFRefracCell has no neuron spec \(it holds its membrane"),
        (lambda: norse.LIFAdExCell(), r"0: Norse's LIFAdExCell has no neuron spec .* expected LIFCell"),
        (lambda: norse.LConv2d(1, 1, 3), r"0: Norse's LConv2d: use Lift\(torch.nn.Conv2d"),
        (lambda: norse.LIFCell(p=P._replace(method="adjoint")), r"0: activation = .*build the layer with method='super'"),
        (lambda: norse.LIFCell(p=P._replace(method="logistic")), r"0: p.method = 'logistic': expected one of super"),
        (lambda: norse.LIFCell(p=P, dt=0.01), r"0: tau_mem_inv = .*at most 1 / dt = 100"),
        (lambda: norse.LIFCell(p=P._replace(v_th=torch.tensor(float("nan")))), r"0: v_th = 'NaN or infinite'"),
        (lambda: li(v_leak=0.5), r"0: v_leak = .*shifted by it; use v_leak = 0"),
    ],
)  # fmt: skip
def test_what_no_spec_holds_is_refused_with_its_place(layer, message):
    with pytest.raises(sq.Unsupported, match=message):
        sq.frontends.read_(nn.Sequential(layer()))


def test_one_number_per_channel_on_the_wrong_axis_is_refused():
    layer = norse.LIFCell(p=P._replace(v_th=torch.full((4,), 0.5)))
    reading = LIBRARY.read("lif", layer).module
    with pytest.raises(sq.Unsupported, match=r"v_th \(threshold\) has the shape \(4,\), which runs along the last"):
        reading(torch.rand(2, 4, 5, 4))
