"""Traces of all layers to a 5 % standard error: this library beside PyHessian, on one network and one batch.

pip install PyHessian                     # 0.1
python benchmarks/traces.py race          # whole runs to 5 %, one behind the other: some four minutes
python benchmarks/traces.py spread        # how much one probe varies: needs probes, not a quiet machine
python benchmarks/traces.py time          # processor seconds of a probe, in turns
python benchmarks/traces.py memory        # peaks, each in a process of its own
python benchmarks/traces.py page          # writes benchmarks/traces.md from what the others left in traces.json
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikequant as sq
from spikequant.nn import LIF, Surrogate
from spikequant.nn.over_time import OverTime

TARGET, RECORD = Path(__file__).with_suffix(".md"), Path(__file__).with_suffix(".json")
BATCH, STEPS, TRAINED, ERROR = 32, 16, 60, 0.05
PIECE = 4
"""Samples that ours holds at once."""
SPREAD_PROBES, TIMED = 48, 4
LEAST, MOST = 8, 2000
"""Probes of a race: no standard error is trusted before the first, none ends behind the last."""
WEIGHTS = Path(tempfile.gettempdir()) / "spikequant-traces.pt"


class Conv(nn.Module):
    """conv16-LIF-pool-conv32-LIF-pool-FC10 on 2x34x34 events: the convolutional network of `spikequant bench`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        neuron = {"leak": 0.5, "surrogate": Surrogate("atan", 2.0)}
        self.conv1, self.lif1 = OverTime(nn.Conv2d(2, 16, 3, padding=1, bias=False)), LIF(**neuron)
        self.conv2, self.lif2 = OverTime(nn.Conv2d(16, 32, 3, padding=1, bias=False)), LIF(**neuron)
        self.pool, self.fc = OverTime(nn.MaxPool2d(2)), nn.Linear(32 * 8 * 8, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.lif1(self.conv1(x)))
        return self.fc(self.pool(self.lif2(self.conv2(x))).flatten(2)).mean(0)


def subject() -> tuple[Conv, tuple[Tensor, Tensor]]:
    """The network after 60 batches of N-MNIST, and the next batch; kept in a file so that all parts see one network."""
    net = Conv()
    if not WEIGHTS.is_file():
        batches = iter(sq.data.load("n-mnist", steps=STEPS).batches("train", batch_size=BATCH, shuffle=True, seed=0))
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _, (x, y) in zip(range(TRAINED), batches, strict=False):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        torch.save((net.state_dict(), *next(batches)), WEIGHTS)
    state, x, y = torch.load(WEIGHTS)
    net.load_state_dict(state)
    return net, (x, y)


def ours(net: nn.Module, batch: tuple[Tensor, Tensor], probes: int, error: float = 1e-9) -> Any:
    return sq.hessian_trace(net, F.cross_entropy, [batch], relative_error=error, most_probes=probes, at_once=PIECE)


class Theirs:
    """PyHessian's products with the Hessian, split by layer: it sums them up itself."""

    def __init__(self, net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product

        warnings.simplefilter("ignore")  # it calls backward(create_graph=True)
        self.product = hessian_vector_product
        self.state = hessian(net, F.cross_entropy, data=batch, cuda=False)

    def probe(self) -> list[float]:
        signs = [2.0 * torch.randint_like(p, high=2) - 1.0 for p in self.state.params]
        found = self.product(self.state.gradsH, self.state.params, signs)
        return [float((h * v).sum()) for h, v in zip(found, signs, strict=True)]


def race() -> dict[str, Any]:
    """Ours, then PyHessian, on one network and batch; each stops when its own standard errors say so."""
    torch.set_num_threads(1)
    net, batch = subject()
    found = {"commit": commit(), "error": ERROR}
    for name, run in (("ours", _our_run), ("theirs", _their_run)):
        wall, processor = time.perf_counter(), time.process_time()
        rows, probes, reached = run(net, batch)
        times = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        found[name] = {**times, "probes": probes, "reached": reached, "rows": rows}
        print(name, found[name], flush=True)
    return found


def _our_run(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[list[tuple[float, float]], int, bool]:
    traces = ours(net, batch, MOST, ERROR)
    return [(row.trace, row.standard_error) for row in traces.rows], traces.rows[0].probes, traces.settled


def _their_run(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[list[tuple[float, float]], int, bool]:
    """PyHessian's products until the standard error of every layer's mean is within `ERROR`; looked at each time."""
    torch.manual_seed(0)
    them, samples = Theirs(net, batch), []
    rows: list[tuple[float, float]] = []
    while len(samples) < MOST:
        samples.append(them.probe())
        if len(samples) >= LEAST:
            values = torch.tensor(samples, dtype=torch.float64)
            errors = values.std(0) / math.sqrt(len(samples))
            rows = list(zip(values.mean(0).tolist(), errors.tolist(), strict=True))
            if all(error <= ERROR * abs(mean) for mean, error in rows):
                return rows, len(samples), True
    return rows, len(samples), False


def spread() -> dict[str, Any]:
    """Mean of every layer's trace and how much one probe varies."""
    net, batch = subject()
    rows = ours(net, batch, SPREAD_PROBES).rows
    mine = [(r.trace, r.standard_error * math.sqrt(r.probes)) for r in rows]
    torch.manual_seed(0)
    them = Theirs(net, batch)
    samples = torch.tensor([them.probe() for _ in range(SPREAD_PROBES)], dtype=torch.float64)
    theirs = list(zip(samples.mean(0).tolist(), samples.std(0).tolist(), strict=True))
    return {"layers": [r.layer for r in rows], "ours": mine, "theirs": theirs, "probes": SPREAD_PROBES}


def timed() -> dict[str, Any]:
    """Processor seconds of the start and of a probe, one thread, in turns; the least of two."""
    torch.set_num_threads(1)
    net, batch = subject()
    found: dict[str, list[float]] = {"ours start": [], "ours": [], "theirs start": [], "theirs": []}
    for _ in range(2):
        seconds = []
        for probes in (4 * TIMED, 8 * TIMED):
            begin = time.process_time()
            ours(net, batch, probes)
            seconds.append(time.process_time() - begin)
        probe = (seconds[1] - seconds[0]) / (4 * TIMED)
        found["ours"].append(probe)
        found["ours start"].append(seconds[0] - 4 * TIMED * probe)
        begin = time.process_time()
        them = Theirs(net, batch)
        found["theirs start"].append(time.process_time() - begin)
        begin = time.process_time()
        for _ in range(TIMED):
            them.probe()
        found["theirs"].append((time.process_time() - begin) / TIMED)
        del them
    return {name: min(values) for name, values in found.items()}


def peak(what: str) -> int:
    """Bytes that one thing adds at its peak, in this process."""
    net, batch = subject()
    few = (batch[0][:, :2].contiguous(), batch[1][:2])
    step, pair = {
        "training step": (_training(net), True), "ours": (lambda b: ours(net, b, 14), True),
        "theirs": (lambda b: Theirs(net, b).probe(), False),
    }[what]  # fmt: skip
    if pair:
        step(few)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step(batch)
    return (_kib("VmHWM") - before) * 1024


def _training(net: nn.Module) -> Any:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def _kib(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def memory() -> dict[str, int]:
    found = {}
    for what in ("training step", "ours", "theirs"):
        words = [sys.executable, __file__, "peak", what]
        found[what] = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])
    return found


PAGE = """# Traces of a network: time to a 5 % standard error

`python benchmarks/traces.py`: conv16-LIF-pool-conv32-LIF-pool-FC10 on 2 x 34 x 34 events, T = {steps}, after {trained}
batches of N-MNIST; traces of the three layers' Hessian blocks on one batch of {batch} training samples.
PyHessian 0.1 on the same network and batch; it gives the whole trace only, so its products `v'Hv` are split by layer
here. torch {torch}, 2-core x86 CPU without bf16 units.

One run of each, one behind the other in one process of one thread; it ends when the standard error of every layer's
trace, from its own probes, is at most {error:.0%} of that trace:

| | probes | wall, s | processor, s | {layers} |
|---|---|---|---|{rules}|
{race}

PyHessian takes {wall:.1f} times as long (processor: {processor:.1f}); the goal is 3. Commit {commit}. Ours holds
{piece} samples at once, looks every eight probes, and counts layers and errors for the allocator, too.
One seed: how many probes a run takes depends on its draws, PyHessian's more (its probes vary more, see below).

How much one probe varies, over {probes} probes of each:

| layer | trace, ours | PyHessian | relative deviation of a probe, ours | PyHessian | probes to 5 %, ours | PyHessian |
|---|---|---|---|---|---|---|
{rows}

A probe of PyHessian is one vector of signs for the whole batch; ours differ from sample to sample, and are longer in
flat layers. The deviations have a relative error of about {doubt:.0%} themselves, more where a few probes weigh much.
Probes to 5 % are `(deviation / 0.05)^2` with the deviation over our trace, which is known better.

| | start, s | a probe, s |
|---|---|---|
| spikequant, {piece} samples at once | {a0:.2f} | {a1:.3f} |
| PyHessian | {b0:.2f} | {b1:.3f} |

Processor seconds of one thread on a shared machine, taken in turns, least of two.

| peak memory | MiB | of a training step |
|---|---|---|
{memory}

The goal is 1.5 training steps. PyHessian holds the graph of the whole batch.
"""
NAMES = {"ours": "spikequant", "theirs": "PyHessian"}


def page() -> str:
    found = json.loads(RECORD.read_text())
    if "race" not in found:
        raise SystemExit(f"{RECORD} has no race; run `python benchmarks/traces.py race` first")
    spread, times, peaks, run = found["spread"], found["time"], found["memory"], found["race"]
    rows, root = [], math.sqrt(spread["probes"])
    for layer, (t, s), (pt, ps) in zip(spread["layers"], spread["ours"], spread["theirs"], strict=True):
        probes = [max(LEAST, math.ceil((d / abs(t) / ERROR) ** 2)) for d in (s, ps)]
        rows.append(
            f"| {layer} | {t:.3g} ± {s / root:.1g} | {pt:.3g} ± {ps / root:.1g} | {s / abs(t):.2f} | {ps / abs(t):.2f} "
            f"| {probes[0]:,} | {probes[1]:,} |"
        )
    raced = [_raced(NAMES[name], run[name]) for name in NAMES]
    memory = [f"| {n} | {v / 2**20:,.0f} | {v / peaks['training step']:.2f} |" for n, v in peaks.items()]
    return PAGE.format(
        steps=STEPS, trained=TRAINED, batch=BATCH, commit=run["commit"], torch=torch.__version__,
        error=run["error"], layers=" | ".join(spread["layers"]), rules="|".join("---" for _ in spread["layers"]),
        race="\n".join(raced), wall=run["theirs"]["wall"] / run["ours"]["wall"],
        processor=run["theirs"]["processor"] / run["ours"]["processor"],
        probes=spread["probes"], rows="\n".join(rows), doubt=math.sqrt(0.5 / (spread["probes"] - 1)), piece=PIECE,
        a0=times["ours start"], a1=times["ours"], b0=times["theirs start"], b1=times["theirs"],
        memory="\n".join(memory),
    )  # fmt: skip


def _raced(name: str, run: dict[str, Any]) -> str:
    cells = " | ".join(f"{trace:.3g} ± {error / abs(trace):.1%}" for trace, error in run["rows"])
    probes = f"{run['probes']:,}" + ("" if run["reached"] else ", not reached")
    return f"| {name} | {probes} | {run['wall']:.1f} | {run['processor']:.1f} | {cells} |"


def commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main(part: str, what: str = "") -> None:
    if part == "peak":
        print(peak(what))
        return
    if part == "page":
        TARGET.write_text(page())
        return
    found = {"race": race, "spread": spread, "time": timed, "memory": memory}[part]()
    record = (json.loads(RECORD.read_text()) if RECORD.is_file() else {}) | {part: found}  # other parts may run beside
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
