"""Gradients of products in bfloat16 against float32: accuracy after training over seeds; writes bf16_gradients.md here.

python benchmarks/bf16_gradients.py [--seeds 3] [--epochs 8]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.bench.session import facts_here

HERE = Path(__file__).resolve().parent
KINDS = ("float32", "bfloat16")
HEAD = (
    "| bits | accuracy by seed, float32, % | bfloat16, % | mean, float32 | bfloat16 | change, points "
    "| time of bfloat16 / float32 |\n| --- | --- | --- | ---: | ---: | ---: | ---: |"
)


class Net(nn.Module):
    """conv16-LIF-conv32 (stride 2)-LIF-FC10-LIF on 8x8 digits, T = 6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 16, 3, padding=1), sq.nn.LIF(leak=0.75)
        self.conv2, self.lif2 = nn.Conv2d(16, 32, 3, padding=1, stride=2), sq.nn.LIF(leak=0.75)
        self.fc, self.lif3 = nn.Linear(32 * 16, 10), sq.nn.LIF(leak=0.75, reset="subtract")
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc):
                layer.weight.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 1, 8, 8)
        x = self.conv1(x).unsqueeze(0).expand(6, -1, -1, -1, -1)
        x = self.lif1(x)
        x = self.lif2(self.conv2(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.lif3(self.fc(x.flatten(2))).sum(0)


def trained(seed: int, kind: str, bits: tuple[int, int], epochs: int) -> tuple[Tensor, float, float]:
    """Which test images are right, seconds of the training, and the share of outputs that are spikes."""
    digits = sq.data.load_digits()
    torch.manual_seed(seed)
    train = sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=64, shuffle=True, scale=1 / 16, seed=seed)
    test = sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=360, scale=1 / 16)
    model, (example, _) = Net(), next(iter(test))
    plan = sq.Plan.uniform(weight_bits=bits[0], membrane_bits=bits[1], membrane_rounding="half_even")
    sq.quantize_(model, plan, example, quiet=True)
    started = time.process_time()
    with sq.nn.use_gradients(kind):
        sq.fit(model, train, epochs=epochs, lr=3e-3, quiet=True)
    spent = time.process_time() - started
    found = sq.evaluate(model, test)
    return found.predictions == found.targets, spent, float(model(example).detach().mean() / 6)


def row(bits: tuple[int, int], seeds: int, epochs: int) -> tuple[str, str]:
    """A row of the table and what it says at the shell."""
    runs = {kind: [trained(seed, kind, bits, epochs) for seed in range(seeds)] for kind in KINDS}
    accuracy = {kind: [100 * float(right.float().mean()) for right, _, _ in found] for kind, found in runs.items()}
    difference = torch.stack([b[0].float() - a[0].float() for a, b in zip(*runs.values(), strict=True)]).flatten()
    change, half = 100 * float(difference.mean()), 196 * float(difference.std()) / len(difference) ** 0.5
    times = {kind: statistics.median(seconds for _, seconds, _ in found) for kind, found in runs.items()}
    assert min(rate for found in runs.values() for _, _, rate in found) > 0.01, "a silent network proves nothing"
    cells = [f"W{bits[0]}/U{bits[1]}", *(", ".join(f"{a:.2f}" for a in accuracy[kind]) for kind in KINDS),
             *(f"{statistics.mean(accuracy[kind]):.2f}" for kind in KINDS), f"{change:+.2f} ± {half:.2f}",
             f"{times['bfloat16'] / times['float32']:.2f}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |", " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    rows = []
    for bits in ((8, 8), (2, 4)):
        line, said = row(bits, given.seeds, given.epochs)
        print(said, flush=True)
        rows.append(line)
    facts = "; ".join(f"{k} {v}" for k, v in facts_here(commit.strip()).items() if v and k in
                      ("machine", "commit", "torch"))  # fmt: skip
    words = (
        "# Gradients of products in bfloat16",
        '`sq.nn.use_gradients("bfloat16")` rounds the operands of a product\'s gradients to bfloat16, as AMP does; '
        "forward sums stay exact. conv16-LIF-conv32-LIF-FC10-LIF on scikit-learn's digits, T = 6, quantized at once, "
        f"{given.epochs} epochs of Adam, {given.seeds} seeds that both columns share. The change is over the same "
        f"{360 * given.seeds} predictions, with its 95 % interval.",
        "\n".join([HEAD, *rows]),
        "Time is processor time of the training on a busy machine. This processor does not multiply bfloat16; what it "
        "would bring on one that does was not measured.",
        f"{facts}. Command: `python benchmarks/bf16_gradients.py --seeds {given.seeds} --epochs {given.epochs}`.",
    )
    (HERE / "bf16_gradients.md").write_text("\n\n".join(words) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
