"""Writes benchmarks/reference_networks.md: two trained networks of sinabs as integers.

    SPIKEQUANT_DATA=... python benchmarks/reference_networks.py [--images 1000] [--steps 16]

The weights come with sinabs' examples; the networks are built by sinabs' own converter, and `float32` is sinabs
running them.  Everything else is spikequant: quantize, calibrate, one training step, freeze, lower, verify.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import sinabs
import torch
from sinabs.from_torch import from_model
from sinabs.utils import normalize_weights
from torch import Tensor, nn

import spikequant as sq

ROOT = Path(__file__).resolve().parents[1]
HEADER = """# Reference networks

Two trained networks of sinabs {sinabs}, converted by it (`from_model`, `MultiSpike`, `min_v_mem = -1`), read in place.
W8, W4: weights after training, one scale per channel, membranes of 16 bits, calibrated on 32 images, one training step
at a learning rate of 1e-6. Differences: spikes and stored states of the simulation against the golden integer model.

MNIST: weights scaled by sinabs' `normalize_weights` on 256 training images; the first {images} test images (95 %:
{interval:.1f} points either way; all rows see the same images), each shown for {steps} steps, last spikes counted.
DVS128 Gesture: its recordings are not at hand, so the network sees random events and has no accuracy. Written by
`python benchmarks/reference_networks.py` on {date}, commit {commit}, torch {torch}.

| network | weights | accuracy | spikes verified | states verified | differences |
|---|---|--:|--:|--:|--:|
"""


class Counted(nn.Module):
    """A static image for `steps` steps through sinabs' layers; the spikes of each class counted."""

    def __init__(self, cnn: nn.Module, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.layers = from_model(cnn, num_timesteps=steps, add_spiking_output=True).spiking_model

    def forward(self, image: Tensor) -> Tensor:
        """``[N, classes]``."""
        spikes: Tensor = self.layers(image.repeat_interleave(self.steps, 0))
        return spikes.unflatten(0, (-1, self.steps)).sum(1)  # type: ignore[no-untyped-call]


def stage(n_in: int, n_out: int, kernel: int, **options: int) -> list[nn.Module]:
    """A convolution and its activation, which sinabs exchanges for neurons."""
    return [nn.Conv2d(n_in, n_out, kernel, bias=False, **options), nn.ReLU()]


def mnist_cnn() -> nn.Sequential:
    """28 x 28 pixels, 10 digits."""
    return nn.Sequential(
        *stage(1, 20, 5), nn.AvgPool2d(2), *stage(20, 32, 5), nn.AvgPool2d(2), *stage(32, 128, 3), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 500, bias=False), nn.ReLU(), nn.Linear(500, 10, bias=False),
    )  # fmt: skip


def gesture_cnn() -> nn.Sequential:
    """128 x 128 events of two polarities, 11 gestures."""
    pooled = [
        [*stage(n, m, 3, padding=1), nn.AvgPool2d(2)] for n, m in ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64))
    ]
    return nn.Sequential(
        *stage(2, 16, 2, stride=2), *(layer for part in pooled for layer in part),
        nn.Dropout2d(0.5), *stage(64, 256, 2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 128, bias=False), nn.ReLU(), nn.Linear(128, 11, bias=False),
    )  # fmt: skip


def load(cnn: nn.Sequential, file: Path) -> nn.Sequential:
    """The trained weights; every one of them, or an error."""
    with np.load(file) as record:
        cnn.load_state_dict({name: torch.from_numpy(record[name]) for name in record.files})
    return cnn.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent of images whose class fires most."""
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in zip(x.split(100), y.split(100), strict=True):
            sq.reset(model)
            right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(x)


def integers(model: nn.Module, bits: int, learn: Tensor, labels: Tensor, check: Tensor) -> tuple[nn.Module, str]:
    """The frozen model and the cells of what was verified."""
    model = copy.deepcopy(model)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=bits, membrane_bits=16), check, quiet=True)
    sq.calibrate(model, [learn])
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    nn.functional.cross_entropy(model(learn), labels).backward()
    optimizer.step()
    sq.reset(model)
    sq.freeze(model)
    report = sq.verify(model, sq.lower(model, check), check)
    return model.eval(), f"{report.spikes:,} | {report.states_compared:,} | {report.differences}"


def mnist_rows(folder: Path, images: int, steps: int) -> list[str]:
    """Float, W8, W4."""
    cnn = load(mnist_cnn(), folder / "reference-nets" / "sinabs_mnist_params.npz")
    data = sq.data.load_mnist(folder / "mnist")
    x, y = torch.from_numpy(data.test.x[:images]) / 255, torch.from_numpy(data.test.y[:images])
    learn, labels = torch.from_numpy(data.train.x[:256]) / 255, torch.from_numpy(data.train.y[:256])
    with torch.no_grad():
        before = 100 * float((cnn(x).argmax(1) == y).float().mean())
        normalize_weights(cnn, learn, output_layers=["1", "4", "7", "11"], param_layers=["0", "3", "6", "10"])
    model = Counted(cnn, steps)
    report = sq.check_reading(model, x[:16], quiet=True)
    assert report.holds, report
    rows = [
        f"| MNIST, before sinabs converts it (ReLU) | float32 | {before:.2f} % | | | |",
        f"| MNIST, {steps} steps | float32, sinabs itself | {accuracy(model, x, y):.2f} % | | | |",
    ]
    print(*rows, report, sep="\n", flush=True)
    for bits in (8, 4):
        made, verified = integers(model, bits, learn[:32], labels[:32], x[:8])
        rows.append(f"| MNIST, {steps} steps | W{bits} | {accuracy(made, x, y):.2f} % | {verified} |")
        print(rows[-1], flush=True)
    return rows


def gesture_rows(folder: Path) -> list[str]:
    """W8, W4 on random events."""
    steps, batch = 4, 2
    cnn = load(gesture_cnn(), folder / "reference-nets" / "sinabs_dvs_gesture_params.npz")
    model = from_model(cnn, num_timesteps=steps, add_spiking_output=True).spiking_model
    events = (torch.rand(batch * steps, 2, 128, 128, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    labels = torch.zeros(batch * steps, dtype=torch.int64)
    rows = []
    for bits in (8, 4):
        _, verified = integers(model, bits, events, labels, events)
        rows.append(f"| DVS128 Gesture, {steps} steps of random events | W{bits} | | {verified} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run both and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folder = Path(os.environ["SPIKEQUANT_DATA"])
    rows = [*gesture_rows(folder), *mnist_rows(folder, given.images, given.steps)]
    right = float(rows[3].split("|")[3].strip(" %")) / 100
    text = HEADER.format(
        sinabs=sinabs.__version__, images=f"{given.images:,}", steps=given.steps,
        date=time.strftime("%Y-%m-%d"),
        interval=196 * (right * (1 - right) / given.images) ** 0.5,
        commit=commit.stdout.strip(), torch=torch.__version__,
    )  # fmt: skip
    (ROOT / "benchmarks" / "reference_networks.md").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
