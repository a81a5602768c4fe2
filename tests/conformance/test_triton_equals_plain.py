"""The Triton text, where no GPU is: its kernels in Triton's interpreter, and compiled for a GPU without running.

The interpreter has to be asked for before Triton is imported, so that everything runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
ROOT = Path(__file__).resolve().parents[2]


def printed(program, *, interpret):
    """What a program prints."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    paths = [str(ROOT), str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


CHECK = """
from tests.conformance.test_fused_equals_plain import check
found = [check(seed, "triton") for seed in range({first}, {last})]
print(sum(f["fired"] for f in found), sum(f["gradients"] for f in found))
"""


@pytest.mark.parametrize("first", [1, 5])
def test_hand_made_neurons_in_the_interpreter(first):
    fired, gradients = map(int, printed(CHECK.format(first=first, last=first + 3), interpret=True).split())
    assert fired >= 2
    assert gradients >= 9


@pytest.mark.conformance
@pytest.mark.parametrize("first", range(12, 92, 10))
def test_many_hand_made_neurons_in_the_interpreter(first):
    fired, _ = map(int, printed(CHECK.format(first=first, last=first + 10), interpret=True).split())
    assert fired >= 6


LAYER = """
import torch, spikequant as sq
from spikequant.nn import kernels
from tests.nn.test_kernels import equal, network, trained
net, x = network(sq.nn.LIF(leak=0.75, reset="subtract", learn=("threshold",)), rounding="stochastic")
plain = trained(net, x, "plain")
with kernels.using("fused", engine="triton"):
    equal(plain, trained(net, x, "fused"))
print(kernels.used(net)["1"], float(plain[0].mean()) > 0.01)
"""


def test_a_layer_takes_it():
    assert printed(LAYER, interpret=True).split() == ["fused", "by", "triton", "True"]


COMPILED = """
import triton
from triton import language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikequant.nn.fused import run_backward, run_forward
from spikequant.nn import triton_kernel
from spikequant.readers.kernels import LSB, BackwardKey, Wanted
from tests.conformance.fused_side import call_of, case, tensors
import torch

one = case(5, 14)  # noise, and an input of odd layout
x, lsb, params = tensors(one, torch.float32)
call, x = call_of(one, x, lsb, params, engine="triton")
key = call.forward_key(x)
wanted = Wanted(True, frozenset({"theta", LSB}), True, False)
kernels = [triton_kernel.triton_forward_kernel(key),
           triton_kernel.triton_backward_kernel(BackwardKey(key, wanted, "atan"))]
TYPES = {"keys": "*i32", "masks": "*i32", "slope_at": "*fp64", "sums": "*fp64"}
ARRAYS = ("x", "out", "grad", "params", "dx", "scratch")
for kernel in kernels:
    function = kernel.function
    fixed = {n: True for n in function.arg_names if n.startswith("HAS_")} | {"BLOCK": 256, "REAL": tl.float32}
    fixed = {n: v for n, v in {**fixed, "STILL": False}.items() if n in function.arg_names}
    kind = {n: "constexpr" if n in fixed else TYPES.get(n) or ("*fp32" if n in ARRAYS or n.split("_")[0] in
            ("old", "new", "given", "back") else "i32") for n in function.arg_names}
    for target in (80, 90):
        made = triton.compile(ASTSource(function, signature=kind, constexprs=fixed),
                              target=GPUTarget("cuda", target, 32), options={"enable_fp_fusion": False})
        text = made.asm["ptx"]
        print(target, len(made.asm["cubin"]) > 1000, text.count("fma."), text.count("cvt.rmi") > 0)
"""


def test_it_compiles_for_gpus_without_contracted_products():
    lines = printed(COMPILED, interpret=False).splitlines()
    assert lines == ["80 True 0 True", "90 True 0 True"] * 2
