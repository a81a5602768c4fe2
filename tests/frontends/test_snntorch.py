"""snnTorch's neurons as readings: same call, same names, same spikes and gradients, quantized and not."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.frontends.check import check_layer
from spikequant.frontends.snntorch import LIBRARY

snn = pytest.importorskip("snntorch")
utils = pytest.importorskip("snntorch.utils")
quant = pytest.importorskip("snntorch.functional.quant")

PLAN = sq.Plan.uniform(weight_bits=8, membrane_bits=12)
OPTIONS = [
    {},
    {"reset_mechanism": "zero"},
    {"reset_delay": False, "reset_mechanism": "zero"},
    {"reset_delay": False},
    {"reset_mechanism": "none", "threshold": 1.2},
    {"learn_beta": True, "learn_threshold": True},
    {"beta": torch.linspace(0.2, 1.2, 5), "threshold": torch.linspace(0.5, 1.5, 5)},
]


class Explicit(nn.Module):
    """States passed by hand, spikes (or membranes) recorded, as in the tutorials."""

    def __init__(self, out: str = "spikes", **options) -> None:
        super().__init__()
        self.out = out
        self.fc1 = nn.Linear(8, 5)
        self.lif1 = snn.Leaky(**{"beta": 0.9, **options})
        self.fc2 = nn.Linear(5, 5)
        self.lif2 = snn.Leaky(**{"beta": 0.7, **options})

    def forward(self, x: torch.Tensor):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(7):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        if self.out == "spikes":
            return torch.stack(spikes), torch.stack(membranes)
        return torch.stack(membranes)


class Hidden(nn.Module):
    """Hidden states, a step per call of the Sequential inside."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 6), snn.Leaky(beta=0.9, init_hidden=True, **options),
            nn.Linear(6, 4), snn.Leaky(beta=0.8, init_hidden=True, output=True, **options),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        utils.reset(self.net)
        return torch.stack([self.net(x)[0] for _ in range(6)])


def drive(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.rand(6, 8) * 1.5


def made(kind=Explicit, **options):
    torch.manual_seed(1)
    net = kind(**options)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.uniform_(-0.2, 0.45)
    return net


def outputs(net, x):
    result = net(x)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", [Explicit, Hidden])
def test_a_reading_gives_the_same_spikes_membranes_gradients_and_names(kind, options):
    if kind is Hidden:  # whose layers differ in size
        options = {name: value for name, value in options.items() if name not in ("beta", "threshold")}
    net, x = made(kind, **options), drive()
    if options == {"reset_delay": False}:
        x = x * 0.5  # so that no membrane is above the threshold after its reset, see TWICE
    names = set(net.state_dict())
    wanted = outputs(net, x)
    sum(w.sum() for w in wanted).backward()
    grads = {n: p.grad.clone() for n, p in net.named_parameters()}
    net.zero_grad()
    utils.reset(net)
    for module in net.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mem()
    parameters = dict(net.named_parameters())
    readings = sq.frontends.read_(net)
    got = outputs(net, x)
    sum(w.sum() for w in got).backward()
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert wanted[0].sum() > 3
    assert set(net.state_dict()) == names
    assert all(parameter is parameters[name] for name, parameter in net.named_parameters())
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-4, atol=1e-5)
    readings.undo()
    assert type(next(m for m in net.modules() if isinstance(m, snn.Leaky))) is snn.Leaky


@pytest.mark.parametrize("out", ["spikes", "membranes"])
@pytest.mark.parametrize("options", OPTIONS)
def test_quantized_networks_answer_the_same_calls_and_verify(out, options):
    net, x = made(out=out, **options), drive()
    names = set(net.state_dict())
    sq.quantize_(net, PLAN, x, quiet=True)
    assert names <= set(net.state_dict())
    assert isinstance(net.lif1, snn.Leaky)
    assert isinstance(net.lif1, sq.nn.QuantizedNeuron)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    outputs(net, x)[0].sum().backward()
    optimizer.step()
    copied = copy.deepcopy(net)
    torch.testing.assert_close(outputs(copied, x)[0], outputs(net, x)[0])
    sq.calibrate(net, [x])
    sq.freeze(net)
    lowered = sq.lower(net, x)
    report = sq.verify(net, lowered, x)
    assert report.differences == 0
    assert report.spikes > 10
    assert lowered.decoder.name == ("spike_train" if out == "spikes" else "membrane_train")


def test_hidden_states_verify_and_snntorch_resets_them():
    net, x = made(Hidden), drive()
    sq.quantize_(net, PLAN, x, quiet=True)
    first = net(x)
    assert torch.equal(net(x), first)  # utils.reset inside forward
    copied = copy.deepcopy(net)
    assert torch.equal(copied(x), first)
    assert torch.equal(copied(x), first)
    sq.freeze(net)
    assert sq.verify(net, sq.lower(net, x), x).differences == 0


def test_a_plan_that_asks_for_nothing_leaves_the_model_as_it_was():
    net, x = made(), drive()
    before = outputs(net, x)
    modules = dict(net.named_modules())
    report = sq.quantize_(net, sq.Plan(), x, quiet=True)
    assert not report.quantized
    assert all(a is b for a, b in zip(modules.values(), net.modules(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(net, x), strict=True))


def test_everything_is_put_back_when_quantize_raises():
    net, x = made(), drive()
    modules = dict(net.named_modules())
    with pytest.raises(sq.PlanError):
        sq.quantize_(net, sq.Plan.from_dict({"rules": [{"match": "nothing", "membrane": {"bits": 4}}]}), x, quiet=True)
    assert all(a is b for a, b in zip(modules.values(), net.modules(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inhibition": True}, "lif1: inhibition = True: a winner-take-all .* train with inhibition=False"),
        ({"state_quant": lambda mem: mem}, "lif1: state_quant = .*with state_quant=False and put its bits as those"),
        ({"state_quant": quant.state_quant(num_bits=4)}, r"state_quant=False and put membrane = \{bits = 4\} into the"),
        ({"threshold": -1.0}, "lif1: threshold = -1.0: expected at least 0"),
        ({"graded_spikes_factor": torch.ones(5)}, "lif1: graded_spikes_factor = .*: expected one positive number"),
        ({"learn_graded_spikes_factor": True}, r"lif1: graded_spikes_factor = [\s\S]*not learned"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition")
def test_what_no_spec_holds_is_refused_with_its_place(options, message):
    net = made(**options)
    with pytest.raises(sq.Unsupported, match=message):
        sq.quantize_(net, PLAN, drive(), quiet=True)
    report = sq.check_reading(net, drive(), quiet=True)
    assert [layer.grade for layer in report.layers] == ["refused", "refused"]
    assert not report.holds


def test_a_reset_mechanism_changed_after_construction_is_refused():
    net = made()
    net.lif2.reset_mechanism = "zero"  # the bound update still subtracts
    with pytest.raises(sq.Unsupported, match="lif2: reset_mechanism = 'zero': its update is _base_sub"):
        sq.quantize_(net, PLAN, drive(), quiet=True)


def test_a_state_of_the_users_own_is_refused_with_its_line():
    class Mixed(Explicit):
        def forward(self, x):
            mem = self.lif1.init_leaky()
            total = 0
            for _ in range(3):
                spk, mem = self.lif1(self.fc1(x), mem * 0.5)
                total = total + self.lif2(self.fc2(spk))[0]
            return total

    with pytest.raises(sq.CaptureError, match=r"lif1: is given a state 'v' that is not the one that it gave"):
        sq.quantize_(made(Mixed), PLAN, drive(), quiet=True)


def test_check_reading_grades_and_shows_the_layers():
    net, x = made(), drive()
    report = sq.check_reading(net, x, quiet=True)
    assert report.exact
    assert [layer.path for layer in report.layers] == ["lif1", "lif2"]
    assert min(layer.spikes for layer in report.layers) > 5
    assert report.layers[0].reset_time == "next step"
    assert type(net.lif1) is snn.Leaky
    text = str(report)
    assert "lif1   snnTorch Leaky  exact" in text
    assert "subtract next step" in text


def test_check_reading_says_where_an_immediate_reset_differs():
    layer, x = snn.Leaky(beta=0.9, reset_delay=False), torch.randn(20, 4, 6, generator=torch.manual_seed(0)) * 3
    reading = LIBRARY.read("lif", layer)
    report = check_layer("lif", layer, reading, x)
    assert report.grade == "faithful"
    assert report.differing > 0
    assert "compares the stored membrane again" in report.difference
    assert check_layer("lif", layer, reading, x / 12).grade == "exact"


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_recurrent_layers_keep_names_and_verify_and_are_saved(kind, tmp_path):
    more = {"alpha": 0.6} if kind == "RSynaptic" else {}

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 6)
            self.lif = getattr(snn, kind)(beta=0.8, linear_features=6, **more)
            self.out = nn.Linear(6, 3)
            self.last = snn.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            state = self.lif.reset_mem()
            total = 0
            for _ in range(6):
                state = self.lif(self.fc(x), *state)
                total = total + self.last(self.out(state[0]))
            return total

    net, x = made(Recurrent), drive()
    names = set(net.state_dict())
    assert sq.check_reading(net, x, quiet=True).exact
    sq.quantize_(net, PLAN, x, quiet=True)
    assert names <= set(net.state_dict())
    assert isinstance(net.lif, getattr(snn, kind))
    net(x).sum().backward()
    assert net.lif.recurrent.weight.grad.abs().sum() > 0
    sq.calibrate(net, [x])
    sq.reset(net)
    sq.save_prepared(net, tmp_path / "net.safetensors")
    again = sq.load_prepared(Recurrent, tmp_path / "net.safetensors")
    sq.reset(net)
    assert torch.equal(net(x), again(x))
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, x), x)
    assert report.differences == 0
    assert report.spikes > 20


def test_one_to_one_recurrence_is_refused():
    net = nn.Sequential(nn.Linear(8, 4), snn.RLeaky(beta=0.5, all_to_all=False))
    with pytest.raises(sq.Unsupported, match=r"1: all_to_all = False: one weight back to each neuron"):
        sq.frontends.read_(net)


@pytest.mark.parametrize("options", OPTIONS[:4])
def test_the_membrane_of_a_spiking_layer_is_the_output_in_c_too(options):
    from spikequant.readers import golden

    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    net, x = made(out="membranes", **options), drive()
    sq.quantize_(net, PLAN, x, quiet=True)
    sq.freeze(net)
    lowered = sq.lower(net, x)
    assert lowered.decoder.name == "membrane_train"
    wanted = golden.run(lowered, golden.encode(lowered, x.numpy())).scores
    assert (sq.compile(lowered).run(x.numpy()) == wanted).all()
    assert len(set(wanted.reshape(-1).tolist())) > 50


def test_a_quantized_layer_of_a_foreign_class_is_pickled():
    """For processes that are sent a model, which snnTorch's own neurons cannot be: their spike function is a closure."""
    net, x = made(), drive()
    sq.quantize_(net, PLAN, x, quiet=True)
    assert (net.lif1.reset_mechanism, net.lif1.init_hidden, net.lif1.reset_delay) == ("subtract", False, True)
    again = pickle.loads(pickle.dumps(net.lif1))
    assert type(again) is type(net.lif1)
    assert isinstance(again, snn.Leaky)
    assert torch.equal(again.beta, net.lif1.beta)
