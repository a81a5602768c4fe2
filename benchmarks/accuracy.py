"""Accuracy of MNIST and Fashion-MNIST before and after quantization; writes benchmarks/accuracy.md.

One row is one data set, seed and method, kept as JSON under the work folder, so that the
table grows and an interrupted run goes on::

    SPIKEQUANT_DATA=... python benchmarks/accuracy.py --rows float --data mnist
    SPIKEQUANT_DATA=... python benchmarks/accuracy.py            # everything, then the table
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from spikequant.data import ArrayBatches, load_fashion_mnist, load_mnist
from spikequant.models import mnist_net
from spikequant.training import evaluate, fit

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}
SEEDS = (0, 1, 2)
FLOAT_EPOCHS = 4


def batches(name: str, seed: int) -> tuple[ArrayBatches, ArrayBatches]:
    """Training and test batches, pixels in [0, 1]."""
    data = LOADERS[name]()
    train = ArrayBatches(data.train.x, data.train.y, batch_size=128, shuffle=True, seed=seed, scale=1 / 255)
    return train, ArrayBatches(data.test.x, data.test.y, batch_size=500, scale=1 / 255)


def float_row(name: str, seed: int, folder: Path) -> dict[str, object]:
    """Train the real network; its checkpoint is what every other row starts from."""
    torch.manual_seed(seed)
    model = mnist_net()
    train, test = batches(name, seed)
    started = time.time()
    fit(model, train, epochs=FLOAT_EPOCHS, lr=3e-3, checkpoint=folder / f"{name}-{seed}.safetensors", quiet=True)
    result = evaluate(model, test)
    return {"accuracy": result.accuracy, "predictions": result.predictions.tolist(), "seconds": time.time() - started}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="mnist,fashion-mnist")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.data.split(","):
        for seed in SEEDS:
            target = given.folder / f"{name}-{seed}-float.json"
            if not target.exists():
                row = float_row(name, seed, given.folder)
                target.write_text(json.dumps(row))
                print(name, seed, row["accuracy"], row["seconds"], flush=True)
