"""Studies made by hand: figures are formulas of the settings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from spikequant.explore import Candidate, Materials, Measured, Space, Study, Trial
from spikequant.explore.reward import Reward
from spikequant.explore.selection import select
from spikequant.explore.tolerance import Tolerance, ToleranceRow

RECORD: dict[str, Any] = {
    "rules": [
        {"match": "conv*", "weight": {"bits": [2, 3, 4, 8], "clipping": "mse"}},
        {"match": "fc", "weight": {"bits": [2, 4, 5], "quantizer": ["uniform", "power_of_two"]}},
        {"match": "lif*", "membrane": {"bits": [3, 4, 6, 8], "signed": False}},
    ]
}


def figures(candidate: Candidate) -> Measured:
    s = candidate.settings
    conv, fc, lif = (float(s.get(n) or 8) for n in ("conv*:weight.bits", "fc:weight.bits", "lif*:membrane.bits"))
    lost = 0.4 * 0.5**conv + 0.1 * 0.5**fc + 0.5 * 0.5**lif
    lost += 0.004 * (s.get("fc:weight.quantizer") == "power_of_two")
    hopeless = lost > 0.14
    return Measured(
        accuracy=0.98 - lost, samples=250 if hopeless else 2000, flash_bytes=900 * conv + 400 * fc, ram_bytes=700 * lif,
        energy_pj=1000 * conv + 300 * lif, emd=lost / 4, dead=0.2 + lost / 3, stopped_early=hopeless, seconds=0.1,
        scheme="ptq",
    )  # fmt: skip


def refused() -> Measured:
    nan = math.nan
    return Measured(accuracy=nan, samples=0, flash_bytes=nan, ram_bytes=nan, energy_pj=nan, emd=nan, dead=nan,
                    stopped_early=False, seconds=0.0, scheme="ptq", refused="made so")  # fmt: skip


def study(trials: int = 96, *, target: float = 0.93, name: str = "", with_tolerance: bool = True) -> Study:
    space = Space.from_dict(RECORD)
    found = [Trial(number=k, candidate=c, measured=figures(c)) for k, c in enumerate(list(space.candidates())[:trials])]
    if name:
        odd = Candidate({**found[0].candidate.settings, f"{name}:weight.bits": 3})
        found += [
            Trial(number=len(found), candidate=odd, measured=dataclasses.replace(figures(odd), accuracy=0.97)),
            Trial(number=len(found) + 1, candidate=Candidate({"*:weight.bits": 1}), measured=refused()),
        ]
    real = dataclasses.replace(figures(Candidate({})), accuracy=0.985, flash_bytes=1e5, ram_bytes=2e4, energy_pj=5e5)
    reward = Reward(memory_reference=1.2e5, accuracy_reference=real.accuracy, mu=0.2)
    rows = tuple(
        ToleranceRow(factor="conv*:weight", option=f"bits {b}", index=k, accuracy=0.9 + b / 100, drop=8.5 - b,
                     memory_bytes=1e4 * b, kept=b > 2)
        for k, b in enumerate((2, 3, 4, 8))
    )  # fmt: skip
    return Study(
        space=space,
        trials=tuple(found),
        reference=real,
        target_accuracy=target,
        selection=select(
            [t.measured for t in found], ("accuracy", "flash_bytes", "ram_bytes"), target_accuracy=target, reward=reward
        ),
        reward=reward,
        tolerance=Tolerance(rows) if with_tolerance else None,
        materials=Materials(model=nn.Identity(), learn=[], example=torch.zeros(1)),
        interrupted=bool(name),
    )
