"""The printed steps of all presets, kept as text: reviewers read C and Python, not the emitter.

``python -m tests.readers.test_texts`` writes them anew; the difference is then to be read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.readers.presets import SOURCE, layer

from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.law.presets import PRESETS
from spikequant.readers.c.step import StepPrinter
from spikequant.readers.emit import record
from spikequant.readers.emit_python import python_function

FOLDER = Path(__file__).parent / "golden"
OPS = IntOps()


def c_text(name):
    program, printer = record(layer(name), [SOURCE]), StepPrinter("snn")
    inputs = {key: f"{key}[n]" for key in program.inputs}
    tables = {id(t): f"{t.name or 'known'}[n]" for t in program.tables}
    lines = printer.lines(program, inputs, tables)
    lines += [f"{key}[n] = {printer.name_of(term)};" for key, term in program.outputs.items()]
    spec = layer(name).spec
    head = f"/* {name}: {', '.join(spec.order)}; reset {spec.reset} */\n"
    return head + printer.functions() + "\n" + "".join(f"{line}\n" for line in lines)


def python_text(name):
    return python_function(record(layer(name), [SOURCE]), f"{name}_step")[0]


@pytest.mark.parametrize("name", PRESETS)
def test_the_texts_are_those_that_were_read(name):
    assert c_text(name) == (FOLDER / f"{name}.c").read_text()
    assert python_text(name) == (FOLDER / f"{name}.py.txt").read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_the_python_text_computes_the_step(name):
    node = layer(name)
    program = record(node, [SOURCE])
    text, arguments, tables = python_function(program, f"{name}_step")
    space = {}
    exec(text, space)
    generator = np.random.default_rng(1)
    shape = (400, 3)
    x = generator.integers(-200, 301, shape)
    state = {}
    for key, fmt in node.spec.state_formats().items():
        high = node.spec.refractory if key == "r" else fmt.max
        state[key] = generator.integers(fmt.min, high + 1, shape)
    noise = {key: generator.integers(0, 2**32, shape) for key in "via"}
    params = prepare(OPS, node.spec, node.params)
    new, out = step(OPS, node.spec, params, state, x * 16, noise=noise.__getitem__, tick=np.int64(1))
    wanted = {f"new_{k}": v for k, v in new.items()} | {"out": out}
    given = {"x0": x, **state, **{f"noise_{k}": v for k, v in noise.items()}}
    known = dict(zip([a for a in arguments if a.endswith("_int") or a.startswith("known")], tables, strict=True))
    values = {}
    for argument in arguments:
        if argument in known:
            values[argument] = np.broadcast_to(known[argument].known, shape).reshape(-1).tolist()
        elif argument in given:
            values[argument] = given[argument].reshape(-1).tolist()
        else:
            values[argument] = [None] * x.size
    space[f"{name}_step"](x.size, *values.values())
    for key in (k for k in arguments if k == "out" or k.startswith("new_")):
        assert values[key] == np.broadcast_to(wanted[key], shape).reshape(-1).tolist(), key
    assert node.spec.output == "state" or 0.05 < float(np.mean(out > 0)) < 0.95


def test_numba_takes_the_python_text_as_it_is():
    numba = pytest.importorskip("numba", reason="numba is not installed")
    text = python_text("cuba_lif")
    space = {}
    exec(text, space)
    arguments = python_function(record(layer("cuba_lif"), [SOURCE]), "cuba_lif")[1]
    plain = [np.arange(3, dtype=np.int64) * 31 - 20 for _ in arguments]
    fast = [array.copy() for array in plain]
    space["cuba_lif_step"](3, *plain)
    numba.njit(space["cuba_lif_step"])(3, *fast)
    assert all(np.array_equal(a, b) for a, b in zip(plain, fast, strict=True))


if __name__ == "__main__":
    for preset in PRESETS:
        (FOLDER / f"{preset}.c").write_text(c_text(preset))
        (FOLDER / f"{preset}.py.txt").write_text(python_text(preset))
