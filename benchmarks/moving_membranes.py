"""What was tried on membranes of 2 bits and fewer and not taken up; appends to `moving_membranes.jsonl`.

`learned` is the package's own; the others are written here, on the networks of `learned_membranes.py`:

- `ternary`: the levels -1, 0 and 1 of SpQuant-SNN (Hasssan et al., 2024) in thresholds, cuts halfway, straight-through;
- `ternary, stacked`: the same with its backward pass, a sum of derivatives of sigmoids, one at each cut;
- `placed again`: the levels of `learned`, placed anew by `calibrate` after the first epoch;
- `by gradient`: frozen for the first epoch, then moved by Adam with the weights, cuts in their share of the way.

    python benchmarks/moving_membranes.py               # rows that are missing, then a table
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from learned_membranes import batches, commit, epoch, float_network, kept, over_seeds, score
from torch import Tensor, nn

import spikequant as sq
from spikequant.analyse.probe import observe
from spikequant.law.registers import Registers
from spikequant.nn import QuantizedNeuron

HERE = Path(__file__).parent
WAYS = ("learned", "placed again", "by gradient", "ternary", "ternary, stacked")
SLOPE = 2.0
"""Temperature of the sigmoids, for cuts that lie 1 apart."""


class Backward:
    """Another gradient of the levels: stacked sigmoids, or that of the levels themselves."""

    def __init__(self) -> None:
        self.stacked = False
        self.learning: dict[QuantizedNeuron, nn.Parameter] = {}
        self.neuron: QuantizedNeuron | None = None
        plain = Registers.on_a_level

        def on_a_level(registers: Any, code: Any, fmt: Any) -> Any:
            level = plain(registers, code, fmt)
            if not isinstance(code, Tensor) or not torch.is_grad_enabled():
                return level
            cuts = [registers.params[f"v_cut{k}"].detach() for k in range(1, fmt.levels)]
            if self.stacked:
                rises = [registers.params[f"v_rise{k}"].detach() for k in range(1, fmt.levels)]
                soft = sum(
                    rise * torch.sigmoid(SLOPE * (code - cut) / rise.clamp(min=1))
                    for cut, rise in zip(cuts, rises, strict=True)
                )
                level = level.detach() + (soft - soft.detach())
            if self.neuron in self.learning and self.neuron.units:
                index = torch.stack([code.detach() >= cut for cut in cuts]).sum(0)
                real = self.learning[self.neuron][index]
                level = level + ((real - real.detach()) / self.neuron.units["v"].detach().double()).to(level.dtype)
            return level

        Registers.on_a_level = on_a_level  # type: ignore[method-assign]

    def watch(self, neuron: QuantizedNeuron) -> None:
        """Run the plain loop where the gradient is another one, with the levels of now."""
        neuron.register_forward_pre_hook(self._before)
        neuron.register_forward_hook(self._after)

    def _before(self, neuron: Any, *_: Any) -> None:
        self.neuron = neuron
        if neuron.training and (self.stacked or neuron in self.learning):
            neuron.watch = []
        if neuron.training and neuron in self.learning:
            with torch.no_grad():
                levels = self.learning[neuron]
                levels[neuron.rest] = 0.0
                levels.copy_(levels.sort().values)
            place(neuron, levels.detach(), levels.detach()[:-1] + neuron.places * levels.detach().diff())

    def _after(self, neuron: Any, *_: Any) -> None:
        neuron.watch, self.neuron = None, None

    def learn(self, neuron: Any) -> nn.Parameter:
        """From now on the levels of a layer learn."""
        levels, cuts = neuron.v_levels * neuron.v_limit, neuron.v_cuts * neuron.v_limit
        neuron.rest = int(levels.abs().argmin())
        neuron.places = ((cuts - levels[:-1]) / levels.diff().clamp(min=1e-9)).clamp(0, 1)
        self.learning[neuron] = nn.Parameter(levels.clone())
        return self.learning[neuron]


def place(neuron: QuantizedNeuron, levels: Tensor, cuts: Tensor) -> None:
    """Give a layer other levels."""
    neuron.set_levels(levels, cuts)
    neuron.programs.clear()


def ternary(neuron: QuantizedNeuron) -> None:
    """-1, 0, 1 in thresholds; the fourth level of two bits is never reached."""
    unit = neuron.default_limit()
    levels, cuts = torch.tensor([-1.0, 0.0, 1.0, 1.01]).double(), torch.tensor([-0.5, 0.5, 50.0]).double()
    place(neuron, levels * unit, cuts * unit)


def measured(seed: int, way: str, folder: Path, backward: Backward) -> dict[str, Any]:
    """One row: after training and trained on for two epochs."""
    started, given = time.process_time(), batches("digits")
    model = float_network("digits", seed, folder)
    real = observe(model, given["test"], operations=False)
    quantized = copy.deepcopy(model)
    torch.manual_seed(seed)
    membrane = {"bits": 2, "levels": "learned"}
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 8}, "membrane": membrane}]})
    sq.quantize_(quantized, plan, next(iter(given["test"]))[0][:32], quiet=True)
    sq.calibrate(quantized, given["calibration"])
    neurons = [m for m in quantized.modules() if isinstance(m, QuantizedNeuron) and m.choice.membrane.learned]
    for neuron in neurons:
        backward.watch(neuron)
        if way.startswith("ternary"):
            ternary(neuron)
    ptq = score(quantized, real, given["test"])
    backward.stacked, backward.learning = way == "ternary, stacked", {}
    optimizer = torch.optim.Adam(quantized.parameters(), lr=1e-3)
    epoch(quantized, given["train"], optimizer)
    if way == "placed again":
        sq.calibrate(quantized, given["calibration"], refit_norms=False)
    if way == "by gradient":
        optimizer.add_param_group({"params": [backward.learn(neuron) for neuron in neurons]})
    epoch(quantized, given["train"], optimizer)
    backward.stacked, backward.learning = False, {}
    return {
        "seed": seed, "way": way, "ptq": ptq, "qat": score(quantized, real, given["test"]),
        "seconds": time.process_time() - started, "commit": commit(),
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Mean and half the range over seeds."""
    lines = [
        "| levels | seeds | after training: accuracy % | EMD | trained on: accuracy % | EMD |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        rows = [row for row in found if row["way"] == way]
        if rows:
            cells = [
                over_seeds(rows, lambda row, when=when, key=key: row[when][key], form, unit)
                for when in ("ptq", "qat")
                for key, form, unit in (("accuracy", ".2f", 100), ("emd", ".4f", 1))
            ]
            lines.append(f"| {way} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=HERE / "moving_membranes.jsonl")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints", help="for the float networks")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    backward = Backward()
    for seed in given.seeds:
        for way in WAYS:
            if (seed, way) not in {(row["seed"], row["way"]) for row in kept(given.results)}:
                row = measured(seed, way, given.folder, backward)
                with given.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(kept(given.results)))


if __name__ == "__main__":
    main()
