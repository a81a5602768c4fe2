"""`sq.compile`: streaming and whole sequences equal the golden model; instances, threads and errors."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from tests.conformance.handmade import net as handmade

import spikequant as sq
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode
from spikequant.law.presets import integrate_and_fire
from spikequant.law.products import Product
from spikequant.law.spec import StateFormat
from spikequant.readers import compiler, golden, native

pytestmark = pytest.mark.skipif(native.find_compiler() is None, reason="no C compiler was found")


def scaled_net(*, static=False):
    """Real inputs of scale 0.25, three neurons."""
    spec = integrate_and_fire().replace(fraction_bits=0, v=StateFormat(format=IntFormat(bits=12)))
    params = {"theta": np.array(9), "reset": np.array(9), "v_load": np.array(1), "v_shift": np.array(0)}
    product = Product(kind="linear", codes=np.array([[3, -2], [1, 4], [2, 2]]))
    return IntNet(
        nodes=(
            InputNode(name="input", shape=(2,), format=IntFormat(bits=4), static=static, scale=0.25),
            SynapseNode(
                name="fc", shape=(3,), inputs=(Edge("input"),), product=product, format=IntFormat(bits=4), bits=4
            ),
            NeuronNode(name="if", shape=(3,), inputs=(Edge("fc"),), gains=(np.array(1),), spec=spec, params=params),
        ),
        decoder=Decoder(name="spike_count", source="if", scale=0.5),
        steps=6,
    )


@pytest.mark.parametrize("static", [False, True])
def test_real_inputs_become_codes(static):
    net = scaled_net(static=static)
    x = np.random.default_rng(0).uniform(-0.5, 1.5, (4, 2) if static else (6, 4, 2))
    wanted = golden.run(net, golden.encode(net, x)).scores
    assert 0 < wanted.sum() < 6 * 12
    run = sq.compile(net)
    assert np.array_equal(run.run(x), wanted)
    for t in range(6):
        scores = run.step(x if static else x[t])
    assert np.array_equal(scores, wanted)


def test_streaming_equals_whole_sequences_and_two_instances_do_not_mix():
    net, codes, _ = handmade(2)
    other = np.random.default_rng(1).permutation(codes.reshape(-1)).reshape(codes.shape)
    a, b = sq.compile(net), sq.compile(net)
    steps = range(net.steps if net.input.static else len(codes))
    for t in steps:
        x, y = (codes, other) if net.input.static else (codes[t], other[t])
        first, second = a.step(x, encoded=True), b.step(y, encoded=True)
        if not net.decoder.name.endswith("_train") and t == steps[-1]:
            assert np.array_equal(first, golden.run(net, codes).scores)
            assert np.array_equal(second, golden.run(net, other).scores)
    trace = golden.run(net, codes)
    for name, states in a.states().items():
        for state, values in states.items():
            wanted = trace.outputs[name] if state == "out" else trace.states[name][state]
            assert np.array_equal(values, wanted[-1])


def test_reset_begins_again():
    net = scaled_net()
    x = np.ones((6, 1, 2))
    run = sq.compile(net)
    first = [run.step(x[t]) for t in range(6)]
    run.reset(1)
    assert np.array_equal([run.step(x[t]) for t in range(6)], first)
    assert int(first[-1].sum()) > 0


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_threads_share_the_batch(threads):
    net = next(n for n, _, _ in map(handmade, range(99)) if any(s.spec.v.rounding == "stochastic" for s in n.neurons))
    fmt = net.input.format
    lead = (7,) if net.input.static else (9, 7)
    codes = np.random.default_rng(3).integers(fmt.min, fmt.max + 1, (*lead, *net.input.shape))
    wanted = golden.run(net, codes, first_sample=11).scores
    assert np.array_equal(sq.compile(net, threads=threads).run(codes, encoded=True, first_sample=11), wanted)


def test_trains_come_out_whole():
    net = next(n for n, _, _ in map(handmade, range(99)) if n.decoder.name.endswith("_train") and not n.input.static)
    codes = np.random.default_rng(3).integers(net.input.format.min, net.input.format.max + 1, (5, 4, *net.input.shape))
    wanted = golden.run(net, codes).scores
    assert wanted.shape[:2] == (5, 4)
    assert np.array_equal(sq.compile(net, threads=2).run(codes, encoded=True), wanted)


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    with pytest.raises(sq.Unsupported, match=r"no C compiler was found \(tried \$CC, cc, gcc, clang\); install one"):
        sq.compile(scaled_net())


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(sq.Unsupported, match=r"(?s)broken-cc could not compile the network:.*it is broken"):
        sq.compile(scaled_net())


def test_the_library_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "cache"))
    sq.compile(scaled_net())
    (made,) = (tmp_path / "cache").iterdir()
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(compiler, "_compile", None)
    sq.compile(scaled_net())
    assert made.stat().st_mtime_ns == before
    assert stat.S_IMODE(os.stat(tmp_path / "cache").st_mode) & 0o077 == 0


def test_a_damaged_library_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "FLAGS", ("-std=c99", "-O0"))
    program = native.build(scaled_net(), "damaged")
    compiler.cache_folder()
    monkeypatch.setattr(compiler, "machine", lambda: "another")
    text_before = set((tmp_path / "cache").iterdir())
    real = compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda c, f, libraries, t, path: path.write_bytes(b"cut short"))
    with pytest.raises(OSError):
        native.library([program])
    monkeypatch.setattr(compiler, "_compile", real)
    assert set((tmp_path / "cache").iterdir()) > text_before
    compiled = native.Compiled(program, native.library([program]))
    assert compiled.run(np.ones((6, 1, 2))).sum() > 0


def test_a_library_that_was_cut_short_is_not_loaded(monkeypatch, tmp_path):
    """To load half of one kills the process."""
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "cache"))
    text = "int spikequant_seven(void) { return 7; }"
    assert compiler.shared_object(text, ()).spikequant_seven() == 7
    (made,) = (tmp_path / "cache").iterdir()
    whole = made.read_bytes()
    made.unlink()  # the loaded file itself must stay as it is
    made.write_bytes(whole[: len(whole) // 2])
    assert not compiler._is_whole(made)
    compiler.shared_object(text, ())
    assert compiler._is_whole(made)


def test_a_cache_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(sq.ArtifactError, match="set SPIKEQUANT_CACHE to a folder of yours"):
        sq.compile(scaled_net())


def test_the_batch_may_not_change_between_steps():
    run = sq.compile(scaled_net())
    run.step(np.ones((2, 2)))
    with pytest.raises(sq.DataError, match=r"of 2 samples, 3 were given; call reset\(3\)"):
        run.step(np.ones((3, 2)))
    run.reset(3)
    run.step(np.ones((3, 2)))
    for wrong in (np.ones((3, 1)), np.ones(2), np.ones((0, 2)), np.ones((3, 2, 1))):
        with pytest.raises(sq.DataError, match=r"step takes \[N, 2\], got"):
            run.step(wrong, encoded=True)


def test_inputs_that_do_not_fit_are_refused():
    run = sq.compile(scaled_net())
    with pytest.raises(sq.DataError, match="expected"):
        run.run(np.ones((6, 4, 3)))
    with pytest.raises(sq.DataError, match="NaN"):
        run.step(np.full((1, 2), np.nan))
    with pytest.raises(sq.DataError, match="codes from"):
        run.run(np.full((6, 1, 2), 99), encoded=True)
    with pytest.raises(sq.DataError, match="threads = 0"):
        sq.compile(scaled_net(), threads=0)
