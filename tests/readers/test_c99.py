"""``format="c99"``: what the folder holds compiles clean, passes its self-test, and is as large as it says."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from tests.conformance.handmade import net as handmade
from tests.conformance.native_side import compare

import spikequant as sq
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode
from spikequant.law.presets import lif_leak_first
from spikequant.law.products import Product
from spikequant.law.spec import Leak, StateFormat
from spikequant.readers.c.program import build
from spikequant.readers.c99 import files, measure

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Werror"
SANITIZERS = "-fsanitize=undefined,address -fno-sanitize-recover=all"
SEEDS = (0, 1, 2, 3, 5, 8)


def shell(command, cwd):
    return subprocess.run(command, shell=True, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def needs(*programs):
    for name in programs:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def exported(seed, folder, **options):
    net, codes, _ = handmade(seed)
    sq.export(net, folder, format="c99", inputs=codes, name="gesture", **options)
    return net


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_the_folder_builds_clean_and_passes_its_self_test(compiler, level, tmp_path):
    needs(compiler, "make")
    for seed in SEEDS:
        exported(seed, tmp_path / str(seed))
        done = shell(f"make -s test CC={compiler} CFLAGS='{level} -Werror'", tmp_path / str(seed))
        assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}: {done.stderr[:2000]}"
        assert "self-test: passed" in done.stdout


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_find_nothing(compiler, tmp_path):
    needs(compiler, "make")
    probe = shell(f"echo 'int main(void){{return 0;}}' | {compiler} {SANITIZERS} -x c - -o probe && ./probe", tmp_path)
    if probe.returncode:
        pytest.skip(f"{compiler} has no sanitizers here")
    for seed in SEEDS:
        exported(seed, tmp_path / str(seed))
        done = shell(f"make -s test CC={compiler} CFLAGS='-O1 -g {SANITIZERS}'", tmp_path / str(seed))
        assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}: {done.stderr[:2000]}"


def test_the_self_test_sees_a_wrong_weight_and_a_wrong_rounding(tmp_path):
    needs("gcc", "make")
    sq.export(mlp(), tmp_path, format="c99")
    source = (tmp_path / "snn.c").read_text()
    wrong = {
        "weight": re.sub(r"(fc0_codes\[\d+\] = \{\s+)(\d+)", lambda m: f"{m[1]}{int(m[2]) ^ 4}", source),
        "rounding": source.replace("= snn_shr_half_even32(t", "= snn_shr_floor32(t", 1),
    }
    for what, text in wrong.items():
        assert text != source
        (tmp_path / "snn.c").write_text(text)
        done = shell("make -s test CFLAGS=-w", tmp_path)
        assert done.returncode != 0, what
        assert "self-test: FAILED" in done.stdout, what + done.stderr[:500]


def test_cmake_builds_it(tmp_path):
    needs("cmake", "gcc")
    exported(2, tmp_path)
    done = shell("cmake -S . -B build && cmake --build build && cd build && ctest", tmp_path)
    assert done.returncode == 0, done.stderr[:2000]
    assert "100% tests passed" in done.stdout


def test_the_library_calls_nothing(tmp_path):
    """No malloc, float, libm or stdio: at most memset and memcpy, which a compiler makes of loops."""
    needs("gcc", "nm", "objdump")
    exported(3, tmp_path)
    shell(f"gcc {STRICT} -O2 -c gesture.c", tmp_path)
    called = shell("nm -u gesture.o", tmp_path).stdout.split()
    assert set(called) - {"U"} <= {"memset", "memcpy"}
    assert "#include <stdio" not in (tmp_path / "gesture.c").read_text()
    text = (tmp_path / "gesture.c").read_text() + (tmp_path / "gesture.h").read_text()
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|printf)\b", code)
    without = shell("gcc -O2 -DGESTURE_SELF_TEST=0 -c gesture.c -o without.o && nm without.o", tmp_path)
    assert "self_test" not in without.stdout
    assert "gesture_step" in without.stdout
    symbols = re.findall(r"^[0-9a-f]+ [A-Z] (\w+)", shell("nm gesture.o", tmp_path).stdout, flags=re.MULTILINE)
    assert symbols
    assert all(name.startswith("gesture_") for name in symbols)


def test_cpp_can_include_the_header(tmp_path):
    needs("g++")
    exported(1, tmp_path)
    (tmp_path / "use.cpp").write_text(
        '#include "gesture.h"\nint main() { static gesture_state s; gesture_init(&s, 0); return 0; }\n'
    )
    done = shell("gcc -c gesture.c && g++ -Wall -Wextra -Werror use.cpp gesture.o -o use && ./use", tmp_path)
    assert done.returncode == 0, done.stderr


def mlp(sizes=(64, 128, 10), bits=4, density=1.0, names=("fc", "lif"), input_scale=None):
    """A fully connected network of LIF neurons."""
    dice = np.random.default_rng(0)
    fmt = IntFormat(bits=bits)
    nodes = [
        InputNode(
            name="input", shape=(sizes[0],), format=IntFormat(bits=1, signed=False), static=False, scale=input_scale
        )
    ]
    spec = lif_leak_first().replace(
        fraction_bits=8,
        leak=Leak(form="multiply", bits=8),
        v=StateFormat(format=IntFormat(bits=8), rounding="half_even"),
    )
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        codes = dice.integers(fmt.min, fmt.max + 1, (b, a)) * (dice.random((b, a)) < density)
        theta = dice.integers(3000, 9000, b)
        params = {"theta": theta, "leak": 230, "v_load": 256, "v_shift": 8, "bias": 30}
        synapse, neuron = f"{names[0]}{k}", f"{names[1]}{k}"
        product = Product(kind="linear", codes=codes)
        source = nodes[-1].name
        nodes.append(
            SynapseNode(name=synapse, shape=(b,), inputs=(Edge(source),), product=product, format=fmt, bits=bits)
        )
        params = {key: np.asarray(value, dtype=np.int64) for key, value in params.items()}
        gains = (np.asarray(64, dtype=np.int64),)
        nodes.append(
            NeuronNode(name=neuron, shape=(b,), inputs=(Edge(synapse),), gains=gains, spec=spec, params=params)
        )
    return IntNet(nodes=tuple(nodes), decoder=Decoder(name="spike_count", source=nodes[-1].name), steps=20)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8, 12, 16])
@pytest.mark.parametrize("density", [1.0, 0.05])
def test_sizes_are_those_of_the_compiler(bits, density, tmp_path):
    """Constant data within 2 % of the section, the state to the byte; packed weights within 3 % of their bits."""
    needs("gcc", "size")
    net = mlp((512, 512, 10), bits=max(bits, 2), density=density)  # large against what x86 aligns tables to
    if bits == 1:
        signs = [dataclasses.replace(n, bits=1, product=Product(kind="linear", codes=np.where(n.product.codes < 0, -1, 1)))
                 if isinstance(n, SynapseNode) else n for n in net.nodes]  # fmt: skip
        net = dataclasses.replace(net, nodes=tuple(signs))
    sizes = measure(build(net, "snn"))
    done = sq.export(net, tmp_path, format="c99")
    assert done.facts["sizes"]["flash"] == sizes.flash
    (tmp_path / "probe.c").write_text(
        '#include "snn.h"\ntypedef char same[sizeof(snn_state) == SNN_STATE_BYTES ? 1 : -1];\n'
    )
    assert shell("gcc -c probe.c && gcc -Os -DSNN_SELF_TEST=0 -c snn.c", tmp_path).returncode == 0
    section = int(re.search(r"^\.rodata\s+(\d+)", shell("size -A snn.o", tmp_path).stdout, flags=re.MULTILINE)[1])
    assert abs(section - sizes.flash) <= 0.02 * section
    assert sizes.weights <= 1.03 * sizes.ideal_weight_bits / 8
    if density < 0.5 and bits >= 2:
        assert sizes.weights < 0.9 * sizes.ideal_weight_bits / 8
    assert json.loads((tmp_path / "manifest.json").read_text())["sizes"]["state"] == sizes.state


@pytest.mark.parametrize("density", [1.0, 0.05])
def test_dense_and_sparse_rows_compute_the_same(density):
    nets = [mlp(bits=b, density=density) for b in (2, 3, 4, 7, 8, 11, 16)]
    codes = (np.random.default_rng(1).random((20, 2, 64)) < 0.3).astype(np.int64)
    tally = compare([(f"case {k}", net, [codes]) for k, net in enumerate(nets)])
    if not tally.networks:
        pytest.skip("no C compiler was found")
    assert tally.spikes > 100


HOSTILE = (
    "x */ int main(void) { return 1; } /*",
    '"; system("rm -rf /"); "',
    "a\\\nb",
    "??/",
    "../../etc/passwd",
    "$(shell touch pwned)",
    "`touch pwned`",
    "ünïcode ☃",
    "*/",
    "",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_out_of_the_text(name, tmp_path):
    needs("gcc", "make")
    net = mlp(sizes=(4, 3, 2), names=(name + "fc", name + "lif"))
    net = dataclasses.replace(net, target=name or "reference/1", metadata={"name": name})
    done = sq.export(net, tmp_path / "out", format="c99", name="snn")
    for file in done.files:
        text = (tmp_path / "out" / file).read_text()
        if file != "manifest.json":
            assert text.isascii()
            assert "pwned" not in text.replace("pwned_", "").replace("_pwned", "")
    run = shell("make -s test CFLAGS='-O0 -Werror -Wall -Wextra'", tmp_path / "out")
    assert (run.returncode, run.stderr) == (0, "")
    assert not (tmp_path / "out" / "pwned").exists()
    assert not (tmp_path / "pwned").exists()


def test_the_name_must_be_an_identifier(tmp_path):
    with pytest.raises(sq.Unsupported, match="cannot stand before C symbols"):
        sq.export(mlp(), tmp_path / "out", format="c99", name="a; b")
    assert not (tmp_path / "out").exists()


def test_the_same_network_gives_the_same_bytes():
    net, codes, _ = handmade(4)
    assert files(net, inputs=codes) == files(net, inputs=codes)


def test_two_exports_live_in_one_program(tmp_path):
    needs("gcc")
    for seed, name in ((1, "left"), (2, "right")):
        net, codes, _ = handmade(seed)
        sq.export(net, tmp_path / name, format="c99", inputs=codes, name=name)
    main = '#include "left/left.h"\n#include "right/right.h"\nstatic left_state l;\nstatic right_state r;\n'
    (tmp_path / "main.c").write_text(main + "int main(void) { return left_self_test(&l) + right_self_test(&r); }\n")
    done = shell(f"gcc {STRICT} main.c left/left.c right/right.c -o both && ./both", tmp_path)
    assert done.returncode == 0, done.stderr
