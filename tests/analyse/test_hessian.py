"""Traces equal the exact ones of small networks, and the model comes back as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.analyse.by_sample import rademacher
from spikequant.analyse.curvature import Curvature
from spikequant.analyse.hessian import hessian_trace
from spikequant.analyse.settled import Stop
from spikequant.analyse.traces import LayerTrace as Row
from spikequant.law.errors import DataError, Unsupported


class Net(nn.Module):
    """Two layers of neurons and a readout."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.l1 = nn.Linear(6, 8), sq.nn.LIF(**options)
        self.b, self.l2 = nn.Linear(8, 5), sq.nn.LIF(**options)
        self.c = nn.Linear(5, 3)
        with torch.no_grad():
            self.a.weight.mul_(3)
            self.b.weight.mul_(3)

    def forward(self, x):
        return self.c(self.l2(self.b(self.l1(self.a(x))))).mean(0)


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    return (torch.rand(5, 16, 6) < 0.5).float(), torch.randint(0, 3, (16,))


def exact(model, batch, name):
    x, y = batch
    weight = dict(model.named_parameters())[name].detach()

    def loss(w):
        return F.cross_entropy(torch.func.functional_call(model, {name: w}, (x,)), y)

    full = torch.autograd.functional.hessian(loss, weight).reshape(weight.numel(), -1)
    return float(full.trace())


def exact_gauss_newton(model, batch, name):
    x, y = batch
    weight = dict(model.named_parameters())[name].detach()

    def outputs(w):
        return torch.func.functional_call(model, {name: w}, (x,))

    jacobian = torch.autograd.functional.jacobian(outputs, weight).reshape(len(y), 3, -1)
    p = outputs(weight).softmax(1)
    h = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / len(y)
    return float(torch.einsum("nia,nij,nja->", jacobian, h, jacobian).detach())


@pytest.mark.parametrize("layer", ["a", "b", "c"])
def test_hutchinson_is_the_exact_trace_within_three_errors(batch, layer):
    model = Net()
    found = hessian_trace(model, F.cross_entropy, [batch], most_probes=300, relative_error=1e-6).row(layer)
    assert found.probes == 300
    assert abs(found.trace - exact(model, batch, f"{layer}.weight")) <= 3 * found.standard_error


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_block_methods_are_the_exact_trace_within_three_errors(batch, method):
    pytest.importorskip("curvlinops", reason="Hutch++ and XTrace are curvlinops'")
    model = Net()
    traces = hessian_trace(model, F.cross_entropy, [batch], method=method, most_probes=120, relative_error=1e-6)
    for layer in "abc":
        found = traces.row(layer)
        assert abs(found.trace - exact(model, batch, f"{layer}.weight")) <= 3.5 * found.standard_error


@pytest.mark.parametrize("layer", ["a", "b", "c"])
def test_gauss_newton_is_the_exact_trace_within_three_errors(batch, layer):
    model = Net()
    traces = hessian_trace(
        model, F.cross_entropy, [batch], curvature="gauss-newton", most_probes=300, relative_error=1e-6
    )
    found = traces.row(layer)
    assert found.trace > 0
    wanted = exact_gauss_newton(model, batch, f"{layer}.weight")
    assert abs(found.trace - wanted) <= 3 * found.standard_error + 1e-6 * wanted  # rounding, where no probe varies


def test_fisher_is_the_mean_squared_gradient(batch):
    model = Net()
    traces = hessian_trace(model, F.cross_entropy, [batch], curvature="fisher", most_probes=400, relative_error=1e-6)
    x, y = batch
    squares = []
    for n in range(len(y)):
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x[:, n : n + 1]), y[n : n + 1]), model.c.weight)
        squares.append(float((gradient**2).sum()))
    found = traces.row("c")
    assert found.trace == pytest.approx(sum(squares) / len(squares), rel=1e-6)
    assert found.standard_error <= 1e-6 * found.trace


def test_the_hessian_is_symmetric_to_rounding(batch):
    with Curvature(Net().double(), F.cross_entropy, ("weight", "membrane", "threshold"), None) as at:
        at.run(batch[0].double(), batch[1])
        generator = torch.Generator().manual_seed(0)
        u = [rademacher(t, generator) for t in at.tensors]
        v = [rademacher(t, generator) for t in at.tensors]
        left = sum(at.sums(at.times(u), v))
        right = sum(at.sums(at.times(v), u))
    assert left != 0
    assert left == pytest.approx(right, rel=1e-10)


def test_membrane_curvature_is_that_of_a_bias(batch):
    """A bias moves the currents of one neuron at all steps and samples alike."""
    model = Net().double()
    x, y = batch[0].double(), batch[1]

    def loss(bias):
        return F.cross_entropy(torch.func.functional_call(model, {"a.bias": bias}, (x,)), y)

    full = torch.autograd.functional.hessian(loss, model.a.bias.detach())
    assert full.abs().min() > 0
    with Curvature(model, F.cross_entropy, ("membrane",), None) as at:
        at.run(x, y)
        place = next(p for p in at.places if p.layer == "l1")
        assert place.numel == 5 * 16 * 8
        for channel in (0, 3):
            ones = [torch.zeros_like(t) for t in at.tensors]
            ones[0][..., channel] = 1.0
            second = float(at.sums(at.times(ones), ones)[0])
            assert second == pytest.approx(float(full[channel, channel]), rel=1e-9)


def test_the_model_comes_back_as_it_was(batch):
    model = Net().train()
    model.a.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    surrogate, threshold = model.l1.surrogate, model.l1.threshold
    hessian_trace(model, F.cross_entropy, [batch], roles=("weight", "membrane", "threshold"), most_probes=20,
                  surrogate=sq.nn.Surrogate("sigmoid", 4.0))  # fmt: skip
    assert model.training
    assert not model.a.weight.requires_grad
    assert model.l1.surrogate is surrogate
    assert model.l1.threshold is threshold
    assert not model.l1.threshold.requires_grad
    assert not model.l1._forward_pre_hooks
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_same_seed_gives_the_same_numbers(batch):
    first, second = (hessian_trace(Net(), F.cross_entropy, [batch], most_probes=20, seed=3) for _ in range(2))
    assert first.rows == second.rows


def test_surrogates_are_named_and_flat_ones_refused(batch):
    boxcar = Net(surrogate=sq.nn.Surrogate("boxcar", 1.0))
    with pytest.raises(
        Unsupported, match=r"l1: the second derivative of the surrogate 'boxcar' is 0 .* pass surrogate="
    ):
        hessian_trace(boxcar, F.cross_entropy, [batch])
    replaced = hessian_trace(boxcar, F.cross_entropy, [batch], surrogate=sq.nn.Surrogate("atan", 2.0), most_probes=20)
    assert replaced.surrogates == {"l1": "atan", "l2": "atan"}
    assert "every surrogate was replaced by atan of slope 2" in replaced.words
    flat = hessian_trace(boxcar, F.cross_entropy, [batch], curvature="gauss-newton", most_probes=20)
    assert flat.surrogates["l1"] == "boxcar"


def test_a_negative_mean_does_not_look_settled():
    stop = Stop(0.05, 0.95)
    assert not stop([Row("a", "weight", -1.0, 0.5, 10, 8)], 8)
    assert stop([Row("a", "weight", -1.0, 0.01, 10, 8)], 8)


def test_it_stops_when_the_order_is_settled():
    sure = [Row("a", "weight", 100.0, 1.0, 10, 8), Row("b", "weight", 10.0, 1.0, 10, 8)]
    unsure = [Row("a", "weight", 11.0, 1.0, 10, 8), Row("b", "weight", 10.0, 1.0, 10, 8)]
    assert Stop(None, 0.95)(sure, 8)
    assert not Stop(None, 0.95)(unsure, 8)


@pytest.mark.parametrize("layers", [2, 4])
def test_looking_again_and_again_settles_few_wrong_orders(layers):
    """Layers that are all but equal; every order that is called settled is as good as a guess."""
    torch.manual_seed(0)
    count = torch.arange(1, 201, dtype=torch.float64)[:, None]
    settled = 0
    for _ in range(150):
        samples = 1 + torch.randn(200, layers, dtype=torch.float64)
        means = samples.cumsum(0) / count
        errors = (((samples**2).cumsum(0) / count - means**2) / (count - 1)).sqrt()
        stop = Stop(None, 0.95)
        for k in range(8, 201):
            pairs = zip(means[k - 1].tolist(), errors[k - 1].tolist(), strict=True)
            if stop([Row(str(n), "weight", mean, error, 1, k) for n, (mean, error) in enumerate(pairs)], k):
                settled += 1
                break
    assert settled / 150 < 0.1  # half of the settled orders of two are wrong


@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton", "fisher"])
def test_batches_count_by_their_samples(batch, curvature):
    x, y = batch
    parts = [(x[:, :14], y[:14]), (4 * x[:, 14:], y[14:])]
    model = Net()
    options = {"curvature": curvature, "most_probes": 160, "relative_error": 1e-6}
    found = hessian_trace(model, F.cross_entropy, parts, **options).row("c")
    one = hessian_trace(model, F.cross_entropy, [(torch.cat([p for p, _ in parts], 1), y)], **options).row("c")
    error = (found.standard_error**2 + one.standard_error**2) ** 0.5
    assert abs(found.trace - one.trace) <= 3.5 * error
    if curvature == "fisher":
        apart = [hessian_trace(model, F.cross_entropy, [part], **options).row("c") for part in parts]
        assert abs(found.trace - (apart[0].trace + apart[1].trace) / 2) > 3.5 * error  # the test can tell


def test_fewer_probes_than_batches_are_refused(batch):
    with pytest.raises(DataError, match="20 batches and at most 15 probes"):
        hessian_trace(Net(), F.cross_entropy, [batch] * 20, most_probes=15)


@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton", "fisher"])
def test_a_loss_of_nan_is_refused_and_one_with_class_weights_is_not(batch, curvature):
    with pytest.raises(DataError, match="one finite number"):
        hessian_trace(Net(), lambda out, y: F.cross_entropy(out, y) * float("nan"), [batch], curvature=curvature)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    assert hessian_trace(Net(), weighted, [batch], curvature=curvature, most_probes=20).row("c").trace > 0


def test_the_curvature_of_a_membrane_is_in_its_own_units(batch):
    """A gain of the input moves into the weights; what the membrane feels stays the same."""

    def trace(gain):
        model = Net()
        with torch.no_grad():
            model.a.weight.div_(gain)
            model.a.bias.div_(gain)
        values = {"leak": 0.5, "threshold": 1.0, "gain": [gain] * 8}
        model.l1 = sq.nn.Neuron(model.l1.spec, values, surrogate=model.l1.surrogate)
        return hessian_trace(model, F.cross_entropy, [batch], roles=("membrane",), curvature="gauss-newton",
                             most_probes=20).row("l1", "membrane").trace  # fmt: skip

    assert trace(0.25) == pytest.approx(trace(1.0), rel=1e-4)


class Filtered(nn.Module):
    """The synaptic current of a `CubaLIF` as a layer of its own, before a `LIF`."""

    def __init__(self, leak_i):
        super().__init__()
        self.leak_i, self.lif = leak_i, sq.nn.LIF()

    def forward(self, x):
        current, steps = torch.zeros_like(x[0]), []
        for step in x:
            current = self.leak_i * current + step
            steps.append(current)
        return self.lif(torch.stack(steps))


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_the_membrane_of_a_neuron_with_a_current_is_not_its_current(batch, mode, curvature):
    class Steps(Net):
        def forward(self, x):
            if mode == "m":
                return super().forward(x)
            spikes = [self.l1(step) for step in self.a(x)]
            return self.c(self.l2(self.b(torch.stack(spikes)))).mean(0)

    def traces(neuron, model):
        model.l1 = neuron
        return hessian_trace(model, F.cross_entropy, [batch], roles=("membrane",), curvature=curvature,
                             most_probes=200, relative_error=1e-9)  # fmt: skip

    cuba, split = traces(sq.nn.CubaLIF(leak_i=0.7, step_mode=mode), Steps()), traces(Filtered(0.7), Net())
    a, b = cuba.row("l1", "membrane"), split.row("l1.lif", "membrane")
    assert b.trace != 0
    assert abs(a.trace - b.trace) <= 3.5 * (a.standard_error**2 + b.standard_error**2) ** 0.5 + 1e-5 * abs(b.trace)
    assert not cuba.words or all("synaptic current" not in word for word in cuba.words)


def test_a_current_that_cannot_be_told_from_the_membrane_is_named(batch):
    model = Net()
    model.l1 = sq.nn.CubaLIF()
    model.l1.spec = model.l1.spec.replace(order=("leak", "integrate", "fire", "reset", "decay_current", "add_current"))
    traces = hessian_trace(model, F.cross_entropy, [batch], roles=("membrane",), most_probes=20)
    assert any(word.startswith("l1 membrane: the curvature is that of its synaptic current") for word in traces.words)


def test_thresholds_of_every_neuron_that_spikes_have_traces(batch):
    for make in (sq.nn.LIF, sq.nn.IF, sq.nn.CubaLIF, sq.nn.SingleState, sq.nn.AdaptiveLIF, sq.nn.MultiSpikeIF):
        model = Net()
        model.l1 = make()
        traces = hessian_trace(model, F.cross_entropy, [batch], roles=("membrane", "threshold"), most_probes=14,
                               curvature="gauss-newton")  # fmt: skip
        assert traces.row("l1", "threshold").trace > 0, make
        assert traces.row("l1", "membrane").trace > 0, make


def test_negative_traces_bring_gauss_newton_ones(batch):
    traces = hessian_trace(Net(), F.cross_entropy, [batch], roles=("weight", "membrane"), most_probes=100)
    assert any(r.trace < 0 for r in traces.rows)
    assert traces.gauss_newton is not None
    assert all(r.trace >= 0 for r in traces.gauss_newton.rows)
    assert any("negative" in word for word in traces.words)


def test_several_batches_spread_into_the_error(batch):
    torch.manual_seed(5)
    others = [((torch.rand(5, 16, 6) < 0.5).float(), torch.randint(0, 3, (16,))) for _ in range(3)]
    traces = hessian_trace(Net(), F.cross_entropy, [batch, *others], most_probes=40)
    assert traces.samples == 64


def test_a_network_of_snntorch_in_its_own_loop():
    snn = pytest.importorskip("snntorch")

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc1, self.lif1, self.fc2 = nn.Linear(6, 12), snn.Leaky(beta=0.8), nn.Linear(12, 3)
            with torch.no_grad():
                self.fc1.weight.mul_(3)

        def forward(self, x):
            mem, total = self.lif1.init_leaky(), 0
            for t in range(5):
                spk, mem = self.lif1(self.fc1(x[t]), mem)
                total = total + self.fc2(spk)
            return total / 5

    torch.manual_seed(2)
    x, y = (torch.rand(5, 8, 6) < 0.5).float(), torch.randint(0, 3, (8,))
    traces = hessian_trace(Loop(), F.cross_entropy, [(x, y)], roles=("weight", "membrane"), curvature="gauss-newton")
    assert [(r.layer, r.role) for r in traces.rows] == [("fc1", "weight"), ("lif1", "membrane"), ("fc2", "weight")]
    assert traces.row("lif1", "membrane").numel == 5 * 8 * 12
    assert all(r.trace > 0 for r in traces.rows)


def test_a_network_that_cannot_be_quantized_has_traces_all_the_same(batch):
    class Scaled(Net):
        def forward(self, x):
            return self.c(self.l2(self.b(self.l1(self.a(x).sin())))).mean(0)

    traces = hessian_trace(Scaled(), F.cross_entropy, [batch], most_probes=20)
    assert traces.facts is None
    assert any("no counts and errors" in word for word in traces.words)
    with pytest.raises(DataError, match="no counts and errors"):
        sq.allocate(traces, "0.1x")


def test_a_quantized_model_has_traces_without_facts(batch):
    model = Net()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), batch[0], quiet=True)
    traces = hessian_trace(model, F.cross_entropy, [batch], most_probes=20)
    assert traces.facts is None
    assert any(r.trace != 0 for r in traces.rows)
    sq.freeze(model)
    with pytest.raises(Unsupported, match="a is frozen"):
        hessian_trace(model, F.cross_entropy, [batch])


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"curvature": "hesse"}, Unsupported, "expected hessian, gauss-newton or fisher"),
        ({"method": "hutch"}, Unsupported, "expected one of hutchinson"),
        ({"method": "xtrace", "curvature": "fisher"}, Unsupported, "works on the Hessian"),
        ({"roles": ("weights",)}, Unsupported, "expected some of weight, membrane, threshold"),
        ({"roles": "weight"}, Unsupported, "roles = 'weight'; expected some of .*, as a tuple"),
        ({"roles": ()}, Unsupported, "expected some of"),
        ({"relative_error": 0.0}, DataError, "expected a positive number"),
        ({"confidence": 1.0}, DataError, "between 0 and 1"),
        ({"most_probes": 3}, DataError, "needs at least"),
        ({"most_probes": None}, DataError, "most_probes is None; a standard error needs"),
        ({"most_probes": 20.5}, DataError, "most_probes is 20.5; .*, whole"),
        ({"relative_error": "0.1"}, DataError, "relative_error is '0.1'; expected a positive number"),
        ({"confidence": None}, DataError, "confidence is None; expected a number between"),
        (
            {"surrogate": "atan"},
            DataError,
            r"surrogate is 'atan'; expected a Surrogate, such as Surrogate\('atan', 2.0",
        ),
        ({"seed": "a"}, DataError, "seed is 'a'; expected a whole number"),
        ({"at_once": True}, DataError, "at_once is True; expected a number of samples"),
    ],
)
def test_wrong_options_are_refused(batch, options, kind, text):
    with pytest.raises(kind, match=text):
        hessian_trace(Net(), F.cross_entropy, [batch], **options)


def test_wrong_data_are_refused(batch):
    x, y = batch
    with pytest.raises(DataError, match="no batch"):
        hessian_trace(Net(), F.cross_entropy, [])
    with pytest.raises(DataError, match="expected a function"):
        hessian_trace(Net(), "cross entropy", [batch])
    with pytest.raises(DataError, match="as a batch, got Tensor"):
        hessian_trace(Net(), F.cross_entropy, [x])
    with pytest.raises(DataError, match="NaN"):
        hessian_trace(Net(), F.cross_entropy, [(x * float("nan"), y)])
    with pytest.raises(DataError, match="one finite number"):
        hessian_trace(Net(), lambda out, y: F.cross_entropy(out, y, reduction="none"), [batch])
    with pytest.raises(DataError, match="expected outputs"):
        hessian_trace(Net(), F.cross_entropy, [(x, y[:3])])
    with pytest.raises(DataError, match="no layer with"):
        hessian_trace(nn.Sequential(nn.Flatten()), F.cross_entropy, [batch])
