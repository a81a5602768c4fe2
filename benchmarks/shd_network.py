"""A trained recurrent network of adaptive neurons on spoken digits (SHD), in float and as integers.

    python benchmarks/shd_network.py            # writes benchmarks/shd_network.md

Needs `shd/shd_test_10ms.npz` and `shd/srnn_700_128_128_20.npz` in the data folder (SPIKEQUANT_DATA).  No training: the
weights are rounded, the registers fitted on 128 samples (without their labels), the integers run as compiled C.
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import spikequant as sq
from spikequant.models.adaptive_recurrent import AdaptiveRecurrent

TARGET = Path(__file__).with_suffix(".md")
SAMPLES, BATCH, VERIFIED = 2264, 566, 64
BITS = ((8, 16), (8, 8), (8, 6), (8, 4), (4, 16), (4, 8))
PAGE = """# A recurrent network on spoken digits

`python benchmarks/shd_network.py`: SHD, the {samples:,} samples of the test set, 100 steps of 10 ms; the trained
network of SpikingDSE (700-128-128-20, adaptive LIF, both hidden layers recurrent), which states 1,727 right. Commit
{commit}, torch {torch}, 2-core x86 CPU. Right answers by the network's own readout (the softmax of the output
membranes, summed) and by one that integers can do (the membranes, summed):

| network | softmax, summed | membranes, summed | verify, {verified} samples |
|---|---|---|---|
{rows}

*Start as trained*: the adaptation starts at 0.01. *From rest*: it starts at 0, as every state of an integer network
does; {better} more samples come out right. The rows of integers start from rest; the softmax there is that of the
integer membranes, computed outside. No training after quantization; leaks of 12 bits; reach and rounding of the
membranes are those of `calibrate` on 128 samples.
"""


def batches(*, samples: int = SAMPLES) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All samples, of whatever fold, as ``[T, N, 700]``."""
    data = sq.data.load("shd")
    for name in ("train", "validation", "test"):
        for x, y in data.batches(name, batch_size=BATCH):
            yield torch.as_tensor(np.asarray(x), dtype=torch.float32), torch.as_tensor(np.asarray(y))


def plan(weight_bits: int, membrane_bits: int) -> sq.Plan:
    """The same bits everywhere."""
    rule = {
        "match": "*",
        "weight": {"bits": weight_bits, "clipping": "mse"},
        "membrane": {"bits": membrane_bits},
        "leak": {"bits": 12},
    }
    return sq.Plan.from_dict({"rules": [rule]})


def right(train: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    """Right answers by the summed softmax (from the second step on) and by the summed membranes ``[T, N, 20]``."""
    soft = torch.softmax(train, -1)[1:].sum(0).argmax(1)
    return int((soft == y).sum()), int((train.sum(0).argmax(1) == y).sum())


def float_row(name: str, net: AdaptiveRecurrent, data: list[tuple[torch.Tensor, torch.Tensor]], *, start: bool) -> str:
    soft, plain = 0, 0
    for x, y in data:
        sq.reset(net)
        if start:
            net.start_as_trained(x.shape[1])
        with torch.no_grad():
            a, b = right(net(x), y)
        soft, plain = soft + a, plain + b
    sq.reset(net)
    return f"| {name} | {soft:,} = {soft / SAMPLES:.1%} | {plain:,} = {plain / SAMPLES:.1%} | |"


def integer_row(bits: tuple[int, int], net: AdaptiveRecurrent, data: list[tuple[torch.Tensor, torch.Tensor]]) -> str:
    model, example = copy.deepcopy(net), data[0][0]
    sq.quantize_(model, plan(*bits), example[:, :4], quiet=True)
    sq.calibrate(model, [(example[:, :64], data[0][1][:64]), (example[:, 64:128], data[0][1][64:128])])
    sq.freeze(model)
    lowered = sq.lower(model, example[:, :4])
    proof = sq.verify(model, lowered, data[-1][0][:, :VERIFIED])
    native, soft, plain = sq.compile(lowered), 0, 0
    for x, y in data:
        train = torch.from_numpy(native.run(x.numpy().astype(np.int64), encoded=True) * lowered.decoder.scale)
        a, b = right(train, y)
        soft, plain = soft + a, plain + b
    found = f"{proof.differences} differences, {proof.spikes:,} spikes"
    answers = f"{soft:,} = {soft / SAMPLES:.1%} | {plain:,} = {plain / SAMPLES:.1%}"
    return f"| W{bits[0]}, states {bits[1]} bits | {answers} | {found} |"


def main() -> None:
    folder = Path(os.environ["SPIKEQUANT_DATA"])
    net = AdaptiveRecurrent.load(folder / "shd" / "srnn_700_128_128_20.npz", readout="train").eval()
    data = list(batches())
    rows = [
        float_row("float32, start as trained", net, data, start=True),
        float_row("float32, from rest", net, data, start=False),
    ]
    for bits in BITS:
        print(rows[-1], flush=True)
        rows.append(integer_row(bits, net, data))
    first, rest = (int(row.split("|")[2].split("=")[0].replace(",", "")) for row in rows[:2])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    page = PAGE.format(
        samples=SAMPLES, commit=commit.strip(), torch=torch.__version__, rows="\n".join(rows), verified=VERIFIED,
        better=rest - first,
    )  # fmt: skip
    TARGET.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
