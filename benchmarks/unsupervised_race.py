"""BindsNET beside ours: the same images, the same input spikes, the same hyper-parameters, one core, interleaved.

    python benchmarks/unsupervised_race.py --train 2000 --test 1000       # resumes nothing; writes one JSON line

Both learn image by image (a batch changes what is learned), BindsNET's `DiehlAndCook2015` with its separate
inhibitory layer, ours with ``inhibition="layer"``.  Labels come from the answers while learning, votes are "all".
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikequant import data, learn

RESULTS = Path(__file__).parent / "unsupervised_race.jsonl"
STEPS = 250


class _Anything(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return importlib.import_module(f"{self.__name__}.{name}") if name.islower() else type(name, (), {})


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """BindsNET imports libraries for data sets and plots that are not used here; those not installed are made up."""

    NAMES = (
        "ale_py",
        "torchvision",
        "pandas",
        "tensorboardX",
        "cv2",
        "skimage",
        "gymnasium",
        "gym",
        "foolbox",
        "matplotlib",
        "seaborn",
    )

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        known = fullname.split(".")[0] in self.NAMES
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []  # type: ignore[attr-defined]


def bindsnet_network(config: learn.DiehlCook) -> Any:
    sys.meta_path.append(_Absent())  # last: what is installed is found first
    from bindsnet.models import DiehlAndCook2015
    from bindsnet.network.monitors import Monitor

    torch.manual_seed(config.seed)
    network = DiehlAndCook2015(
        n_inpt=config.inputs,
        n_neurons=config.neurons,
        exc=config.excite_mv,
        inh=config.inhibit_mv,
        dt=config.dt_ms,
        nu=(config.nu_pre, config.nu_post),
        norm=config.norm * config.inputs,
        theta_plus=config.adapt_mv,
        tc_theta_decay=config.tau_adapt_ms,
    )
    network.add_monitor(Monitor(network.layers["Ae"], ["s"], time=config.steps), name="spikes")
    return network


def bindsnet_counts(network: Any, spikes: Any, steps: int) -> Any:
    """Spike counts of one image; state is forgotten behind it."""
    network.run({"X": torch.from_numpy(spikes).view(steps, 1, -1)}, time=steps)
    counts = network.monitors["spikes"].get("s").sum(dim=(0, 1)).numpy().copy()
    network.reset_state_variables()
    return counts


def accuracy(train: Any, y: Any, test: Any, target: Any) -> tuple[float, str]:
    def activity(counts: Any) -> learn.Activity:
        empty = np.zeros((0, 0, 0))
        return learn.Activity(np.array(counts, np.int32), np.full((len(counts), 0), -1, np.int32), empty, empty, empty)

    labels = learn.assign_labels(activity(train), y, classes=10)
    right = learn.predict(activity(test), labels) == target
    return float(right.mean()), "".join("1" if hit else "0" for hit in right)


def race(config: learn.DiehlCook, n_train: int, n_test: int, chunk: int) -> dict[str, Any]:
    images = data.load_mnist()
    theirs, ours = bindsnet_network(config), learn.Network(config)
    learn.Network(config).learn(images.train.x[:1])  # compiled before the clock starts
    learn.Network(config).infer(images.test.x[:1])
    answers: dict[str, list[Any]] = {f"{who} {phase}": [] for who in ("ours", "theirs") for phase in ("train", "test")}
    times: dict[str, list[float]] = {who: [] for who in answers}
    for phase, x, count in (("train", images.train.x, n_train), ("test", images.test.x, n_test)):
        theirs.train(phase == "train")
        for at in range(0, count, chunk):
            part = x[at : at + min(chunk, count - at)]
            first = at if phase == "train" else at + n_train
            spikes = learn.poisson_spikes(
                part, ours.table, steps=config.steps, seed=config.seed, stream="train" if phase == "train" else "infer",
                first_sample=first,
            ).astype(np.uint8)  # fmt: skip
            started = time.perf_counter()
            seen = [bindsnet_counts(theirs, spikes[:, k], config.steps) for k in range(len(part))]
            middle = time.perf_counter()
            mine = ours.learn(part) if phase == "train" else ours.infer(part, first=first)
            ended = time.perf_counter()
            answers[f"theirs {phase}"] += seen
            answers[f"ours {phase}"] += list(mine.counts)
            times[f"theirs {phase}"].append((middle - started) / len(part))
            times[f"ours {phase}"].append((ended - middle) / len(part))
        print(phase, {who: f"{1e3 * statistics.median(t):.2f} ms" for who, t in times.items() if t}, flush=True)
    y, target = images.train.y[:n_train], images.test.y[:n_test]
    scores = {who: accuracy(answers[f"{who} train"], y, answers[f"{who} test"], target) for who in ("ours", "theirs")}
    ratios = [b / a for a, b in zip(times["ours train"], times["theirs train"], strict=True)]
    return {
        "neurons": config.neurons,
        "steps": config.steps,
        "train": n_train,
        "test": n_test,
        "ms": {who: 1e3 * statistics.median(t) for who, t in times.items()},
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "accuracy": {who: score for who, (score, _) in scores.items()},
        "correct": {who: hits for who, (_, hits) in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=50)
    parser.add_argument("--neurons", type=int, default=400)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = learn.DiehlCook(neurons=given.neurons, steps=given.steps, inhibition="layer")
    result = race(config, given.train, given.test, given.chunk)
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print({k: v for k, v in result.items() if k != "correct"})


if __name__ == "__main__":
    main()
