"""One workload measured: every library, forward and training step, in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikequant.bench import ours
from spikequant.bench.clock import Times, interleaved
from spikequant.bench.parts import Timed
from spikequant.bench.peak import peak_bytes
from spikequant.bench.subjects import FLOAT, Subject, mean_rates, subjects
from spikequant.bench.workloads import Workload, weights_of
from spikequant.law.errors import DataError
from spikequant.training.integers import IntegerRunner

ALIVE = 0.001
INFERENCE, TRAINING = "inference", "training step"


@dataclass(frozen=True)
class Row:
    """One network in one library: times by work, firing rate of each layer, memory of a training step."""

    name: str
    kind: str
    half: bool
    is_ours: bool
    times: dict[str, Times]
    rates: tuple[float, ...]
    peak: int | None = None


@dataclass(frozen=True)
class Result:
    """The rows of a workload; `missing` names libraries that are not installed, `failed` rows that raised."""

    workload: str
    title: str
    shape: tuple[int, ...]
    bits: int
    threads: int
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    def fastest(self, work: str, *, half: bool) -> Row | None:
        """The fastest row of the others, by median: in float32, or under autocast to bfloat16."""
        able = [r for r in self.rows if not r.is_ours and work in r.times and r.half == half]
        return min(able, key=lambda r: r.times[work].median, default=None)

    def ratio(self, row: Row, work: str, *, half: bool) -> float | None:
        """Median of a row over that of the fastest other."""
        other = self.fastest(work, half=half)
        return None if other is None or work not in row.times else row.times[work].median / other.times[work].median


def measure(
    workload: Workload,
    *,
    bits: int = 8,
    rounds: int = 7,
    steps: int | None = None,
    batch: int | None = None,
    only: Callable[[Subject], bool] = lambda subject: True,
    with_peaks: bool = False,
    inference: bool = True,
    said: Callable[[str], None] = lambda text: None,
) -> Result:
    """Build every row from the same weights, check that it is alive, and time all of them in turns.

    Raises:
        DataError: fewer than one round.
    """
    if rounds < 1:
        raise DataError(f"rounds is {rounds}; expected at least 1")
    x = workload.input(steps=steps, batch=batch)
    weights = weights_of(workload, ours.float_parts(), x)
    target = targets(x)
    asked, missing = subjects(workload, bits)
    nets, failed = _built([s for s in asked if only(s)], weights, x, said)
    rates = {name: tuple(mean_rates(net, x)) for name, (_, net) in nets.items()}
    steps_taken = interleaved(
        {n: training(s, net, x, target) for n, (s, net) in nets.items()},
        rounds=rounds, said=lambda text: said(f"{workload.name}: {TRAINING}, {text}"),
    )  # fmt: skip
    running: dict[str, Times] = {}
    if inference:
        running = interleaved(
            {n: _inference(s, net, x) for n, (s, net) in nets.items()} | _integer_runs(nets, x),
            rounds=rounds, said=lambda text: said(f"{workload.name}: {INFERENCE}, {text}"),
        )  # fmt: skip
    rows = []
    for name, (subject, _) in nets.items():
        times = {TRAINING: steps_taken[name]} | ({INFERENCE: running[name]} if name in running else {})
        peak = peak_bytes(workload.name, name, bits, x.shape[0], x.shape[1]) if with_peaks else None
        rows.append(Row(name, subject.kind, subject.half, subject.is_ours, times, rates[name], peak))
    rows += [Row(n, "integers", False, True, {INFERENCE: t}, ()) for n, t in running.items() if n not in nets]
    return Result(
        workload.name,
        workload.title,
        tuple(x.shape),
        bits,
        torch.get_num_threads(),
        tuple(rows),
        tuple(missing),
        failed,
    )


def _built(
    asked: Sequence[Subject], weights: list[Tensor], x: Tensor, said: Callable[[str], None]
) -> tuple[dict[str, tuple[Subject, Timed]], dict[str, str]]:
    nets, failed = {}, {}
    for subject in asked:
        said(f"builds {subject.name}")
        try:
            net = subject.make(weights, x)
            with subject.context():
                net(x[:1])
        except Exception as error:  # another library's: its row is left out and says so
            if subject.is_ours:
                raise
            failed[subject.name] = f"{type(error).__name__}: {error}"
            continue
        nets[subject.name] = (subject, net)
    return nets, failed


def targets(x: Tensor) -> Tensor:
    """A class for every sample."""
    return torch.arange(x.shape[1]) % 10


def training(subject: Subject, net: Timed, x: Tensor, target: Tensor) -> Callable[[], None]:
    """One training step: forward, loss, backward, SGD at rate 0, so that every round does the same work."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)

    def step() -> None:
        net.train()
        optimizer.zero_grad(set_to_none=True)
        with subject.context():
            loss = F.cross_entropy(net(x).float(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _inference(subject: Subject, net: Timed, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        net.eval()
        with torch.inference_mode(), subject.context():
            net(x)

    return run


def _integer_runs(nets: dict[str, tuple[Subject, Timed]], x: Tensor) -> dict[str, Callable[[], object]]:
    """The integers of our quantized rows, as `evaluate` runs them."""
    runs: dict[str, Callable[[], object]] = {}
    for name, (subject, net) in nets.items():
        if not subject.is_ours or subject.kind == FLOAT:
            continue
        runner = IntegerRunner(ours.integers(copy.deepcopy(net), x), threads=torch.get_num_threads())
        kind = {"layers": "integers layer by layer", "c99": "integers compiled"}.get(runner.reader, "integers")
        runs[f"{name}, {kind}"] = partial(runner, x)
    return runs
