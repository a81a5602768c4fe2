"""How far a converted network is from its ReLU network, against the number of steps T, on MNIST.

    python benchmarks/ann_conversion.py            # writes benchmarks/ann_conversion.md

A plain CNN (two convolutions with batch norm, average pooling, two linear layers) is trained for two epochs, converted
by `sq.from_ann` at each T, and compared on the first 2,000 test images; one row is then quantized to W4/U8.
"""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import torch
from torch import nn

import spikequant as sq
from spikequant.frontends import RateCodedNetwork

TARGET = Path(__file__).with_suffix(".md")
STEPS = (1, 2, 4, 8, 16, 32, 64)
IMAGES = 2000
QUANTIZED_AT = 16
PAGE = """# From a ReLU network, against T

`python benchmarks/ann_conversion.py`: MNIST, {images:,} test images, one seed, thresholds of least squared error;
commit {commit}, torch {torch}, 2-core x86 CPU.

| network | accuracy | error by layer, of the mean activation | bound under constant current |
|---|---|---|---|
{rows}

The bound holds below the clip and for a constant current.  Behind spikes single neurons may exceed it; the mean error
stays far below.
"""


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def row(name: str, accuracy: float, net: RateCodedNetwork) -> str:
    errors = " / ".join(f"{layer.error / layer.size:.1%}" for layer in net.layers)
    bounds = " / ".join(f"{layer.bound / layer.size:.1%}" for layer in net.layers)
    return f"| {name} | {accuracy:.2%} | {errors} | {bounds} |"


def main() -> None:
    torch.manual_seed(0)
    data = sq.data.load_mnist()
    train = sq.data.ArrayBatches(data.train.x, data.train.y, batch_size=128, shuffle=True, scale=1 / 255)
    test = sq.data.ArrayBatches(data.test.x[:IMAGES], data.test.y[:IMAGES], batch_size=200, scale=1 / 255)
    ann = network()
    sq.fit(ann, train, epochs=2, lr=2e-3)
    lines = [f"| ReLU network | {sq.evaluate(ann, test).accuracy:.2%} | | |"]
    for steps in STEPS:
        net = sq.from_ann(ann, train, steps=steps)
        lines.append(row(f"T = {steps}", sq.evaluate(net, test).accuracy, net))
        print(lines[-1], flush=True)
    lines.append(quantized(sq.from_ann(ann, train, steps=QUANTIZED_AT), train, test))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    TARGET.write_text(PAGE.format(images=IMAGES, commit=commit.strip(), torch=torch.__version__, rows="\n".join(lines)))


def quantized(net: RateCodedNetwork, train: sq.data.ArrayBatches, test: sq.data.ArrayBatches) -> str:
    model = copy.deepcopy(net)
    example, _ = next(iter(test))
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), example, quiet=True)
    sq.calibrate(model, train, max_batches=4)
    sq.freeze(model)
    proof = sq.verify(model, sq.lower(model, example), example[:50])
    accuracy = sq.evaluate(model, test).accuracy
    return (
        f"| T = {net.steps}, W4/U8 after conversion ({proof.differences} differences in verify) | {accuracy:.2%} | | |"
    )


if __name__ == "__main__":
    main()
