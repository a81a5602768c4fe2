"""`from_nir`: graphs of every primitive against the interpreter, choices that are never guessed, and the whole journey."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import spikequant as sq
from spikequant import from_nir

nir = pytest.importorskip("nir")
from tests.frontends.nir_interpreter import Interpreter  # noqa: E402 - needs nir

RNG = np.random.default_rng(0)
EULER = {"dt": 1e-3, "integrator": "euler", "reset": "v_reset", "current": "same_step"}


def full(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, float(value))


def lif(*shape: int, threshold: float = 0.3, **more) -> nir.LIF:
    given = {"tau": full(5e-3, *shape), "r": full(5, *shape), "v_leak": full(0, *shape)}
    return nir.LIF(**given | {"v_threshold": full(threshold, *shape)} | more)


def cuba(n: int, **more) -> nir.CubaLIF:
    given = {"tau_mem": full(4e-3, n), "tau_syn": full(2e-3, n), "r": full(4, n), "v_leak": full(0, n)}
    return nir.CubaLIF(**given | {"v_threshold": full(0.5, n), "w_in": full(2, n)} | more)


def linear(n: int, m: int, seed: int = 0) -> nir.Linear:
    return nir.Linear(weight=np.random.default_rng(seed).normal(0.1, 0.5, (n, m)))


def affine(n: int, m: int, seed: int = 0) -> nir.Affine:
    rng = np.random.default_rng(seed)
    return nir.Affine(weight=rng.normal(0.1, 0.5, (n, m)), bias=rng.normal(0.05, 0.1, n))


def conv(out: int, into: int, size: tuple[int, int], **more) -> nir.Conv2d:
    rng = np.random.default_rng(out)
    given = {"stride": 1, "padding": (1, 1), "dilation": 1, "groups": 1, "bias": rng.normal(0, 0.05, out)} | more
    return nir.Conv2d(input_shape=size, weight=rng.normal(0.1, 0.4, (out, into // given["groups"], 3, 3)), **given)


def chain(*nodes) -> nir.NIRGraph:
    return nir.NIRGraph.from_list(*nodes, type_check=False)


def named(inputs: int, outputs: int, edges: list[tuple[str, str]], **nodes) -> nir.NIRGraph:
    ends = {"input": nir.Input(np.array([inputs])), "output": nir.Output(np.array([outputs]))}
    return nir.NIRGraph({**ends, **nodes}, edges, type_check=False)


def pools() -> nir.NIRGraph:
    two, zero = np.array([2, 2]), np.array([0, 0])
    return chain(
        nir.Input(np.array([2, 8, 8])), conv(4, 2, (8, 8)), lif(4, 8, 8), nir.SumPool2d(two, two, zero),
        conv(4, 4, (4, 4), groups=2, stride=(1, 2)), lif(4, 4, 2, threshold=0.9),
        nir.AvgPool2d(np.array([2, 1]), np.array([2, 1]), zero),
        nir.Flatten({"input": np.array([4, 2, 2])}, start_dim=0), affine(5, 16), lif(5), nir.Output(np.array([5])),
    )  # fmt: skip


def recurrent() -> nir.NIRGraph:
    edges = [
        ("input", "fc"),
        ("fc", "lif"),
        ("lif", "back"),
        ("back", "lif"),
        ("lif", "fc2"),
        ("fc2", "out"),
        ("out", "output"),
    ]
    return named(6, 3, edges, fc=affine(5, 6), lif=cuba(5), back=affine(5, 5, 1), fc2=linear(3, 5), out=cuba(3))


def two_populations() -> nir.NIRGraph:
    edges = [("input", "fa"), ("fa", "a"), ("a", "ab"), ("ab", "b"), ("b", "ba"), ("ba", "a"), ("b", "output")]
    return named(6, 4, edges, fa=linear(5, 6), a=lif(5), ab=linear(4, 5, 1), b=lif(4), ba=affine(5, 4, 2))


def skip() -> nir.NIRGraph:
    edges = [("input", "f1"), ("f1", "a"), ("a", "f2"), ("input", "f3"), ("f2", "b"), ("f3", "b"), ("b", "output")]
    return named(6, 4, edges, f1=linear(5, 6), a=lif(5), f2=affine(4, 5, 1), f3=linear(4, 6, 2), b=lif(4))


def delayed() -> nir.NIRGraph:
    return chain(linear(5, 6), lif(5), nir.Delay(full(3e-3, 5)), linear(4, 5, 1), lif(4))


def delayed_loop() -> nir.NIRGraph:
    edges = [("input", "f"), ("f", "a"), ("a", "d"), ("d", "w"), ("w", "a"), ("a", "output")]
    return named(6, 5, edges, f=linear(5, 6), a=lif(5), d=nir.Delay(full(3e-3, 5)), w=linear(5, 5, 1))


def scales() -> nir.NIRGraph:
    """Behind weights, between spikes and weights, and between spikes and neurons."""
    rows = [RNG.uniform(-1, 2, n) for n in (5, 5, 4, 4)]
    s = [nir.Scale(row) for row in rows]
    return chain(linear(5, 6), s[0], lif(5), s[1], affine(4, 5, 1), s[2], lif(4), s[3], lif(4, threshold=0.2))


def neuron_on_neuron() -> nir.NIRGraph:
    return chain(nir.Input(np.array([6])), lif(6, threshold=0.1), lif(6, threshold=0.2), nir.Output(np.array([6])))


def threshold_on_data() -> nir.NIRGraph:
    return chain(nir.Input(np.array([6])), nir.Threshold(full(0.4, 6)), linear(5, 6), lif(5))


def own_values() -> nir.NIRGraph:
    rng = np.random.default_rng(3)
    tau, leak, back = rng.uniform(2e-3, 9e-3, 5), rng.uniform(-0.1, 0.3, 5), rng.uniform(-0.4, 0.1, 5)
    return chain(linear(5, 6), lif(5, tau=tau, v_leak=leak, v_reset=back, r=rng.uniform(-3, 5, 5)))


GRAPHS = {
    "pools": (pools, []),
    "recurrent": (recurrent, [("lif", "back")]),
    "two_populations": (two_populations, [("b", "ba")]),
    "skip": (skip, []),
    "delayed": (delayed, []),
    "delayed_loop": (delayed_loop, []),
    "scales": (scales, []),
    "neuron_on_neuron": (neuron_on_neuron, []),
    "threshold_on_data": (threshold_on_data, []),
    "own_values": (own_values, []),
}


def spikes(graph: nir.NIRGraph, steps: int = 25, samples: int = 2, rate: float = 0.4) -> torch.Tensor:
    shape = next(n for n in graph.nodes.values() if isinstance(n, nir.Input)).input_type["input"]
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(steps, samples, *map(int, np.asarray(shape)), generator=generator) < rate).to(
        torch.get_default_dtype()
    )


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# The values of "own_values" have a v_reset that is not 0: no subtraction.
RESETS = [
    (name, reset) for name in GRAPHS for reset in ("v_reset", "subtract") if (name, reset) != ("own_values", "subtract")
]


@pytest.mark.parametrize(("name", "reset"), RESETS)
def test_graphs_give_the_spikes_of_the_interpreter(name, reset, double_precision):
    make, back = GRAPHS[name]
    graph, chosen = make(), EULER | {"reset": reset}
    x = spikes(graph)
    wanted = Interpreter(graph, **chosen, back=back).run(x.numpy())
    with torch.no_grad():
        got = from_nir(graph, **chosen)(x).numpy()
    assert np.array_equal(got, wanted)
    assert 0.01 < wanted.mean() < 0.95


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_go_the_whole_way_to_integers(name):
    graph = GRAPHS[name][0]()
    x = spikes(graph, samples=4)
    network = from_nir(graph, **EULER)
    sq.quantize_(network, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x, quiet=True)
    sq.calibrate(network, [x])
    if any(p.requires_grad for p in network.parameters()):
        network.train()
        network(x).sum().backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
        torch.optim.SGD(network.parameters(), lr=1e-3).step()
    network.eval()
    sq.freeze(network)
    net = sq.lower(network, x)
    report = sq.verify(network, net, x)
    assert report.differences == 0
    assert report.spikes > 50


@pytest.mark.parametrize("name", ["pools", "recurrent", "scales"])
def test_quantized_graphs_stay_near_the_real_ones(name):
    graph = GRAPHS[name][0]()
    x = spikes(graph, steps=40, samples=8)
    real = from_nir(graph, **EULER)
    network = copy.deepcopy(real)
    sq.quantize_(network, sq.Plan.uniform(weight_bits=14), x, quiet=True)  # states are kept wide
    sq.calibrate(network, [x])
    with torch.no_grad():
        assert float((network(x) != real(x)).float().mean()) < 0.05


@pytest.mark.parametrize("readout", ["sum", "mean", "last"])
def test_readouts_over_time(readout):
    graph = chain(
        linear(5, 6), lif(5), linear(3, 5, 1), nir.LI(tau=full(5e-3, 3), r=np.array([1.0, 2.0, 3.0]), v_leak=full(0, 3))
    )
    x = spikes(graph, samples=4)
    train = from_nir(graph, **EULER)(x).detach()
    network = from_nir(graph, **EULER, readout=readout)
    wanted = {"sum": train.sum(0), "mean": train.mean(0), "last": train[-1]}[readout]
    torch.testing.assert_close(network(x).detach(), wanted)
    assert any("a readout has one scale" in note for note in network.reading.notes)
    sq.quantize_(network, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x, quiet=True)
    sq.calibrate(network, [x])
    torch.testing.assert_close(network(x).detach(), wanted, rtol=0.2, atol=0.05 * float(wanted.abs().max()))
    sq.freeze(network)
    assert sq.verify(network, sq.lower(network, x), x).differences == 0


def test_currents_are_pooled_by_sums_where_no_bias_is_in_the_way():
    def graph(bias: float) -> nir.NIRGraph:
        two, zero = np.array([2, 2]), np.array([0, 0])
        first = conv(3, 2, (8, 8), bias=full(bias, 3))
        return chain(nir.Input(np.array([2, 8, 8])), first, nir.SumPool2d(two, two, zero), lif(3, 4, 4, threshold=1.5))

    x, plan = spikes(graph(0)), sq.Plan.uniform(weight_bits=8, membrane_bits=12)
    network = from_nir(graph(0), **EULER)
    sq.quantize_(network, plan, x, quiet=True)
    sq.freeze(network)
    report = sq.verify(network, sq.lower(network, x), x)
    assert report.differences == 0
    assert report.spikes > 100
    with pytest.raises(sq.Unsupported, match="a pooling that sums"):
        sq.quantize_(from_nir(graph(0.1), **EULER), plan, x, quiet=True)


# -- choices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("dt", "dt: the length of a step in the graph's unit of time"),
        ("integrator", "'euler' (decay 1 - dt/tau"),
        ("reset", "'subtract' (the threshold is taken away"),
        ("current", "'next_step' (that of the step before"),
    ],
)
def test_a_choice_that_matters_is_not_guessed(missing, words):
    graph = chain(linear(5, 6), cuba(5))
    with pytest.raises(sq.Unsupported) as error:
        from_nir(graph, **{k: v for k, v in EULER.items() if k != missing})
    assert words in str(error.value)


def test_choices_come_from_metadata_and_are_said():
    graph = chain(linear(5, 6), lif(5))
    graph.metadata.update(dt=1e-3, integrator="euler", reset="subtract", author="me")
    reading = from_nir(graph).reading
    assert (reading.choices.dt, reading.choices.integrator, reading.choices.reset) == (1e-3, "euler", "subtract")
    assert "reset = subtract comes from the graph's metadata" in str(reading)
    assert "metadata that is not read: author" in str(reading)


def test_a_choice_of_the_caller_goes_before_metadata():
    graph = chain(linear(5, 6), lif(5))
    graph.metadata.update(dt=1e-3, integrator="euler", reset="subtract")
    assert from_nir(graph, reset="v_reset").reading.choices.reset == "v_reset"


def test_what_makes_no_difference_is_said():
    graph = chain(linear(5, 6), nir.IF(r=full(1, 5), v_threshold=full(1, 5)))
    notes = "\n".join(from_nir(graph, **EULER | {"dt": 1}).reading.notes)
    assert "integrator makes no difference to this graph: it has no LIF, CubaLIF, LI, CubaLI" in notes
    alone = chain(nir.Input(np.array([6])), nir.Threshold(full(0.4, 6)), nir.Output(np.array([6])))
    assert from_nir(alone).reading.choices.dt is None


def test_wrong_choices_are_named():
    graph = chain(linear(5, 6), lif(5))
    with pytest.raises(sq.Unsupported, match="integrator='rk4'; expected one of 'euler', 'exponential', 'impulse'"):
        from_nir(graph, **EULER | {"integrator": "rk4"})
    with pytest.raises(sq.DataError, match=r"dt=-1; expected a positive number"):
        from_nir(graph, **EULER | {"dt": -1})
    with pytest.raises(sq.Unsupported, match="is shorter than the step dt = 1, so that forward Euler overshoots"):
        from_nir(graph, **EULER | {"dt": 1})
    back = chain(linear(5, 6), lif(5, v_reset=full(-0.1, 5)))
    with pytest.raises(sq.Unsupported, match="choose reset='v_reset', or set v_reset to 0"):
        from_nir(back, **EULER | {"reset": "subtract"})


# -- structure -------------------------------------------------------------------------


def subgraph() -> nir.NIRGraph:
    inner = named(
        5, 5, [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")], lif=cuba(5), w=linear(5, 5, 1)
    )
    return named(6, 5, [("input", "fc"), ("fc", "inner"), ("inner", "output")], fc=affine(5, 6), inner=inner)


def test_a_subgraph_is_its_nodes():
    flat = named(
        6, 5, [("input", "fc"), ("fc", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
        fc=affine(5, 6), lif=cuba(5), w=linear(5, 5, 1),
    )  # fmt: skip
    x = spikes(flat)
    network = from_nir(subgraph(), **EULER)
    assert torch.equal(network(x), from_nir(flat, **EULER)(x))
    assert {"fc", "inner_lif", "inner_w", "inner_lif_sum"} == {name for name, _ in network.named_children()}
    notes = "\n".join(network.reading.notes)
    assert "inner.w gets inner.lif of the step before" in notes


def test_values_of_a_channel_collapse_and_others_are_refused():
    per_channel = np.broadcast_to(np.array([0.2, 0.4, 0.6, 0.8])[:, None, None], (4, 8, 8)).copy()
    layers = nir.Input(np.array([2, 8, 8])), conv(4, 2, (8, 8))
    network = from_nir(chain(*layers, lif(4, 8, 8, v_threshold=per_channel)), **EULER)
    assert torch.allclose(network.lif.threshold, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    per_channel[0, 3, 3] = 0.3
    with pytest.raises(sq.Unsupported, match="neurons of one channel have different values"):
        from_nir(chain(*layers, lif(4, 8, 8, v_threshold=per_channel)), **EULER)


def test_one_of_several_outputs_is_chosen():
    edges = [("input", "a"), ("a", "lif"), ("lif", "output"), ("lif", "b"), ("b", "second")]
    graph = named(6, 5, edges, a=linear(5, 6), lif=lif(5), b=linear(3, 5), second=nir.Output(np.array([3])))
    with pytest.raises(sq.Unsupported, match="choose one of them with output="):
        from_nir(graph, **EULER)
    assert from_nir(graph, **EULER, output="second")(spikes(graph)).shape == (25, 2, 3)
    first = from_nir(graph, **EULER, output="output")
    assert "left out, because nothing of it reaches the output 'output': b, second" in first.reading.notes


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (lambda: chain(linear(5, 6), nir.Delay(np.array([1e-3, 2e-3, 1e-3, 1e-3, 1e-3])), lif(5)), "a Delay node"),
        (lambda: chain(linear(5, 6), nir.Delay(full(1.5e-3, 5)), lif(5)), "expected whole steps"),
        (lambda: chain(linear(5, 6), lif(5, tau=full(0, 5))), "expected a positive time"),
        (lambda: chain(nir.Linear(np.ones((2, 5, 6))), lif(2)), "expected one matrix"),
        (lambda: chain(nir.Input(np.array([7])), linear(5, 6), lif(5)), "gets (7,), its weight is (5, 6)"),
        (lambda: chain(linear(5, 6), lif(4)), "expected these shapes to be equal"),
        (lambda: named(6, 5, [("input", "a"), ("a", "lif"), ("lif", "output"), ("x", "lif")], a=linear(5, 6), lif=lif(5)),
         "an edge names 'x', which is no node"),
        (lambda: named(6, 5, [("input", "a"), ("lif", "output")], a=linear(5, 6), lif=lif(5)),
         "does not depend on the Input"),
        (lambda: named(5, 5, [("input", "a"), ("a", "b"), ("b", "a"), ("a", "output")], a=linear(5, 5), b=linear(5, 5)),
         "a cycle without state through a, b"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(graph, words):
    with pytest.raises(sq.SpikequantError) as error:
        from_nir(graph(), **EULER)
    assert words in str(error.value)


def test_names_that_a_module_cannot_have():
    edges = [("input", "forward"), ("forward", "training"), ("training", "output")]
    graph = named(6, 5, edges, forward=linear(5, 6), training=lif(5))
    assert [name for name, _ in from_nir(graph, **EULER).named_children()] == ["forward_2", "training_2"]


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(sq.DataError, match=r"the network takes \[T, N, 6\], got \(3, 6\)"):
        from_nir(chain(linear(5, 6), lif(5)), **EULER)(torch.zeros(3, 6))


def test_a_network_is_copied_saved_and_trained_like_any_other():
    network = from_nir(recurrent(), **EULER)
    x = spikes(recurrent())
    wanted = network(x)
    twin = from_nir(recurrent(), **EULER)
    twin.load_state_dict(copy.deepcopy(network).state_dict())
    assert torch.equal(twin(x), wanted)
    assert torch.equal(network(x), wanted)  # every call starts from rest
