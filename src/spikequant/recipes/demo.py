"""The demo: a convolutional spiking network on scikit-learn's digits, from training to verified integers."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from spikequant import __version__
from spikequant.analyse import Comparison, compare, observe
from spikequant.data import ArrayBatches, load_digits
from spikequant.law.artifact import network_hash
from spikequant.law.atomic import write_text
from spikequant.law.errors import ArtifactError
from spikequant.law.network import IntNet
from spikequant.measure import emd, network_emd
from spikequant.models import digits_net
from spikequant.plan import Plan
from spikequant.quantize import VerifyReport, calibrate, freeze, lower, quantize_, verify
from spikequant.training import fit

PIXEL = 1 / 16
FLOAT_EPOCHS, QAT_EPOCHS = 12, 8


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One quantized network of the demo with everything that was measured of it."""

    name: str
    plan: Plan
    net: IntNet
    comparison: Comparison
    verified: VerifyReport


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found."""

    rows: tuple[DemoRow, ...]
    seed_floor: float
    seconds: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        rows = [
            {
                "name": row.name,
                "plan": row.plan.to_dict(),
                "sha256": network_hash(row.net),
                "comparison": row.comparison.to_dict(),
                "verify": {"spikes": row.verified.spikes, "states": row.verified.states_compared,
                           "differences": row.verified.differences},
            }
            for row in self.rows
        ]  # fmt: skip
        return {"version": __version__, "torch": torch.__version__, "seed": self.seed, "seconds": self.seconds,
                "emd_floor_two_seeds": self.seed_floor, "rows": rows}  # fmt: skip


def digit_batches(seed: int) -> tuple[ArrayBatches, ArrayBatches]:
    """Training batches (shuffled) and test batches (fixed order) of the embedded digits."""
    data = load_digits()
    train = ArrayBatches(data.train.x, data.train.y, batch_size=64, shuffle=True, seed=seed, scale=PIXEL)
    return train, ArrayBatches(data.test.x, data.test.y, batch_size=90, scale=PIXEL)


def run_demo(*, seed: int = 0, console: Console | None = None, quiet: bool = False) -> DemoResult:
    """Train, quantize after training (W4/U8) and in training (W2/U4), compare, lower, verify."""
    console = console if console is not None else Console(stderr=True, quiet=quiet)
    started = time.perf_counter()
    train, test = digit_batches(seed)
    example = torch.cat([x for x, _ in test])
    console.print("1/4  train the float network (and a second seed, for the floor of the EMD)")
    reference, other = (_train_float(train, seed + k, quiet) for k in (0, 1))
    console.print("2/4  quantize after training: 4-bit weights, 8-bit membranes")
    ptq_plan = Plan.uniform(weight_bits=4, membrane_bits=8, membrane_signed=False)
    ptq = _row("W4/U8 PTQ", reference, ptq_plan, train, test, example, epochs=0, quiet=quiet)
    console.print("3/4  quantize in training: 2-bit weights, 4-bit membranes")
    qat_plan = Plan.uniform(
        weight_bits=2, weight_quantizer="lsq", membrane_bits=4, membrane_signed=False, membrane_rounding="half_up"
    )
    qat = _row("W2/U4 QAT", reference, qat_plan, train, test, example, epochs=QAT_EPOCHS, quiet=quiet)
    console.print("4/4  done: both networks are integers, equal to the simulation spike by spike")
    return DemoResult(
        rows=(ptq, qat),
        seed_floor=_seed_floor(reference, other, test),
        seconds=time.perf_counter() - started,
        seed=seed,
    )


def _train_float(train: ArrayBatches, seed: int, quiet: bool) -> nn.Module:
    torch.manual_seed(seed)
    model = digits_net()
    fit(model, train, epochs=FLOAT_EPOCHS, lr=4e-3, quiet=quiet)
    return model


def _seed_floor(reference: nn.Module, other: nn.Module, test: ArrayBatches) -> float:
    a, b = (observe(model, test, operations=False).firing for model in (reference, other))
    return network_emd({path: emd(a[path].rates(), b[path].rates()) for path in a})


def _row(
    name: str,
    reference: nn.Module,
    plan: Plan,
    train: ArrayBatches,
    test: ArrayBatches,
    example: Tensor,
    *,
    epochs: int,
    quiet: bool,
) -> DemoRow:
    model = copy.deepcopy(reference)
    quantize_(model, plan, example[:32], quiet=True)
    calibrate(model, train, max_batches=4)
    if epochs:
        torch.manual_seed(0)
        fit(model, train, epochs=epochs, lr=2e-3, quiet=quiet)
    freeze(model)
    comparison = compare(reference, model, test)
    net = lower(model, example[:32], metadata={"name": name, "plan": plan.to_dict(), "data": "scikit-learn digits"})
    return DemoRow(name=name, plan=plan, net=net, comparison=comparison, verified=verify(model, net, example))


def make_folder(out: Path) -> None:
    """Make the folder for the results; called before the work, too, so that none of it is lost.

    Raises:
        ArtifactError: it cannot be made, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ArtifactError(f"cannot make or write the folder {out}: {error}; choose another --out") from error


def write_demo(result: DemoResult, out: Path) -> list[Path]:
    """Write networks, plans and figures; every file whole or not at all."""
    make_folder(out)
    written = []
    for row, stem in zip(result.rows, ("w4u8", "w2u4"), strict=True):
        row.net.save(out / f"{stem}.spq")
        row.plan.save(out / f"{stem}.toml")
        written += [out / f"{stem}.spq", out / f"{stem}.toml"]
    write_text(out / "demo.json", json.dumps(result.to_dict(), indent=2) + "\n")
    return [*written, out / "demo.json"]
