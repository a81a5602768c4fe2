"""A convolutional network on MNIST in four readers: same scores, same accuracy; size and time of its ONNX models.

Trains `models.conv.mnist_net` shortly, quantizes it twice, and answers test images by torch, the golden model, ONNX
Runtime and compiled C.  ``--write`` puts the tables into benchmarks/onnx_models.md.  Needs SPIKEQUANT_DATA.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import spikequant as sq
from spikequant.models.conv import mnist_net
from spikequant.readers import golden, onnx_
from spikequant.readers.onnx_.check import check_model

PAGE = Path(__file__).with_suffix(".md")
BITS = ((8, 8), (4, 8), (2, 6))


def trained(train: int) -> tuple[nn.Module, Any, sq.data.ArrayBatches]:
    """The network after one epoch on some images, the data, and the batches."""
    torch.manual_seed(0)
    data = sq.data.load_mnist()
    batches = sq.data.ArrayBatches(
        data.train.x[:train], data.train.y[:train], batch_size=100, shuffle=True, scale=1 / 255
    )
    model = mnist_net()
    sq.fit(model, batches, epochs=1, lr=2e-3, quiet=True)
    return model, data, batches


def integers(model: nn.Module, bits: tuple[int, int], batches: sq.data.ArrayBatches) -> tuple[nn.Module, sq.IntNet]:
    """A copy with few bits, calibrated and frozen, and its integers."""
    model = copy.deepcopy(model).eval()
    example, _ = next(iter(batches))
    sq.quantize_(model, sq.Plan.uniform(weight_bits=bits[0], membrane_bits=bits[1]), example, quiet=True)
    sq.calibrate(model, [b for _, b in zip(range(3), batches, strict=False)])
    sq.freeze(model)
    return model, sq.lower(model, example)


def best(call: Callable[[], object], rounds: int) -> float:
    """Least seconds of a call: other work on the machine only adds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def scores(net: sq.IntNet, codes: Any, x: torch.Tensor, model: nn.Module) -> dict[str, Any]:
    """Integer scores of every reader; of torch its real answer in units of the decoder."""
    found: dict[str, Any] = {}
    parts = [codes[k : k + 100] for k in range(0, len(codes), 100)]
    with torch.no_grad():
        answers = torch.cat([model(x[k : k + 100]) for k in range(0, len(x), 100)]).double().numpy()
    found["PyTorch"] = np.rint(answers / net.decoder.scale).astype(np.int64)
    found["golden model"] = np.concatenate([golden.run(net, p, trace=False).scores for p in parts])
    for name, optimise in (("ONNX Runtime, optimisation off", False), ("ONNX Runtime", True)):
        sequence = onnx_.build(net, trace=False)[1]
        session = onnx_.session(sequence, optimise=optimise)
        answered = [session.run(["scores"], {"x": p.astype(np.int32)})[0] for p in parts]
        found[name] = np.concatenate(answered).astype(np.int64)
    found["C"] = sq.compile(net).run(codes, encoded=True)
    return found


def times(net: sq.IntNet, codes: Any, rounds: int) -> tuple[float, float, float]:
    """Seconds per image and step, one image at a time on one thread: step model, sequence model, C."""
    step, sequence = onnx_.build(net, trace=False)
    one = codes[:1].astype(np.int32)
    runs = {"step": onnx_.session(step), "sequence": onnx_.session(sequence)}
    compiled = sq.compile(net)
    names = [o.name for o in runs["step"].get_outputs() if not o.name.startswith("spikes.")]
    zeros = {port.name: np.zeros((1, *(port.shape or ())), port.kind) for port, _ in step.step.states}

    def stream() -> None:
        state = zeros
        for _ in range(net.steps):
            found = dict(zip(names, runs["step"].run(names, {"x": one, **state}), strict=True))
            state = {name: found[f"next.{name.removeprefix('state.')}"] for name in state}

    spent = (
        best(stream, rounds),
        best(lambda: runs["sequence"].run(["scores"], {"x": one}), rounds),
        best(lambda: compiled.run(one, encoded=True), rounds),
    )
    return spent[0] / net.steps, spent[1] / net.steps, spent[2] / net.steps


def rows(images: int, train: int, rounds: int) -> tuple[list[str], list[str]]:
    """Both tables."""
    model, data, batches = trained(train)
    x = torch.from_numpy(np.array(data.test.x[:images])).float() / 255
    y = data.test.y[:images]
    exact, sizes = [], []
    for bits in BITS:
        small, net = integers(model, bits, batches)
        codes = golden.encode(net, x.numpy())
        wanted = golden.run(net, codes[:100], trace=False).scores
        name = f"W{bits[0]}/U{bits[1]}"
        for reader, found in scores(net, codes, x, small).items():
            right = f"{(found.argmax(1) == np.asarray(y)).mean():.2%}"
            if reader == "PyTorch":
                reference = found
            differ = int((found != reference).sum())
            exact.append(f"| {name} | {reader} | {right} | {differ} of {found.size:,} |")
        assert np.array_equal(wanted, reference[:100])
        kinds = [
            onnx_.build(net, opset=opset, packed=packed) for opset, packed in ((17, False), (21, True), (25, True))
        ]
        for models in kinds:
            for made in models:
                check_model(made)
        spent = " | ".join(f"{s * 1e6:.0f}" for s in times(net, codes, rounds))
        sizes.append(f"| {name} | " + " | ".join(f"{len(m[1].data):,}" for m in kinds) + f" | {spent} |")
    return exact, sizes


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exact, sizes = rows(options.images, options.train, options.rounds)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    text = "\n".join(
        [
            "# ONNX models of a convolutional network",
            "",
            f"`models.conv.mnist_net` (`conv 16, 5x5`, `conv 64, 3x3, stride 2`, `linear 10`; 8 steps), one epoch on "
            f"{options.train:,} images, calibrated;",
            f"the first {options.images:,} test images of MNIST. Differences are counted against PyTorch.",
            "",
            "| network | reader | accuracy | scores that differ |",
            "| --- | --- | --- | --- |",
            *exact,
            "",
            "Bytes of `sequence.onnx` by opset, and microseconds per image and step, one image at a time on one thread",
            "(least of the rounds; C is called from Python once per image):",
            "",
            "| network | opset 17 | 21, int4 | 25, int4 and int2 | `step.onnx`, us | `sequence.onnx`, us | C, us |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *sizes,
            "",
            f"Machine: {platform.machine()}, {os.cpu_count()} cores, one used, {versions}.",
            "Command: `python benchmarks/onnx_models.py --write`.",
        ]
    )
    print(text)
    if options.write:
        PAGE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
