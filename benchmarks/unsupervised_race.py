"""BindsNET beside ours: the same images, input spikes, normalised start weights and hyper-parameters, interleaved.

    python benchmarks/unsupervised_race.py --train 2000 --test 5000       # resumes; rows: unsupervised_race.jsonl
    python benchmarks/unsupervised_race.py table

Both learn image by image (a batch changes what is learned), chunk by chunk in turn: BindsNET's `DiehlAndCook2015`
with its separate inhibitory layer, ours with ``inhibition="layer"``.  Labels come from the answers while learning,
votes are "all".  Tests are shown to BindsNET in batches, which changes nothing there; their time is not compared.
Which of several neurons that fire in one step sends its spike is drawn, so two runs that are right differ; ours is
therefore repeated with other draws (`--draws`), and the spread is printed beside the difference.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import math
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from spikequant import data, learn
from spikequant.law.atomic import replacing
from spikequant.learn.network import start_weights

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
    plastic(network).data.copy_(torch.from_numpy(normalised_start(config)))
    network.add_monitor(Monitor(network.layers["Ae"], ["s"], time=config.steps), name="spikes")
    return network


def normalised_start(config: learn.DiehlCook) -> Any:
    """Start weights with the sum that normalisation gives: BindsNET normalises all of them behind the first image, ours
    those of a neuron behind the first image for which it fires."""
    weights = start_weights(config)
    return weights * (config.norm * config.inputs / weights.sum(axis=0))


def plastic(network: Any) -> Any:
    """The weights that BindsNET's network learns."""
    return network.connections[("X", "Ae")].pipeline[0].value


def bindsnet_counts(network: Any, spikes: Any) -> Any:
    """Spike counts of a batch of images ``[T, N, inputs]``; state is forgotten behind it."""
    network.run({"X": torch.from_numpy(spikes)}, time=len(spikes))
    counts = network.monitors["spikes"].get("s").sum(dim=0).numpy().copy()
    network.reset_state_variables()
    return counts


class Race:
    """Both networks, and what they have shown so far; in one file, so that a race goes on where it was cut off."""

    def __init__(self, config: learn.DiehlCook, file: Path) -> None:
        self.config, self.file = config, file
        self.ours, self.theirs = learn.Network(config), bindsnet_network(config)
        self.counts: dict[str, Any] = {who: np.zeros((0, config.neurons), np.int32) for who in ("ours", "theirs")}
        self.times: dict[str, Any] = {who: np.zeros(0) for who in ("ours", "theirs")}
        self.ours.weights = self.ours.coded_weights(normalised_start(config))
        if file.exists():
            self._load()

    def _load(self) -> None:
        held = load_file(self.file)
        if bytes(held["config"]).decode() != repr(self.config):
            raise SystemExit(f"{self.file} holds a race of another network; delete it")
        plastic(self.theirs).data.copy_(torch.from_numpy(held["their weights"]))
        self.theirs.layers["Ae"].theta.copy_(torch.from_numpy(held["theta"]))
        torch.set_rng_state(torch.from_numpy(held["rng"]))
        self.ours.weights, self.ours.adaptive = held["weights"].copy(), held["adaptive"].copy()
        for who in ("ours", "theirs"):
            self.counts[who], self.times[who] = held[f"{who} counts"], held[f"{who} times"]
        self.ours.seen = len(self.counts["ours"])

    def save(self) -> None:
        parts = {f"{who} counts": self.counts[who] for who in self.counts}
        parts |= {f"{who} times": self.times[who] for who in self.times}
        parts |= {
            "config": np.frombuffer(repr(self.config).encode(), np.uint8),
            "their weights": plastic(self.theirs).detach().numpy(),
            "theta": self.theirs.layers["Ae"].theta.numpy(),
            "rng": torch.get_rng_state().numpy(),
            "weights": self.ours.weights,
            "adaptive": self.ours.adaptive,
        }
        with replacing(self.file) as temporary:
            save_file({name: np.ascontiguousarray(part) for name, part in parts.items()}, temporary)

    def learn(self, x: Any, chunk: int) -> None:
        """Both learn from `x`, chunk by chunk."""
        learn.Network(self.config).learn(x[:1])  # compiled before the clock starts
        self.theirs.train(True)
        while self.ours.seen < len(x):
            first = self.ours.seen
            part = x[first : first + chunk]
            spikes = self.spikes(part, "train", first)
            started = time.perf_counter()
            theirs = [bindsnet_counts(self.theirs, spikes[:, k : k + 1])[0] for k in range(len(part))]
            middle = time.perf_counter()
            ours = self.ours.learn(part).counts
            ended = time.perf_counter()
            for who, counts, spent in (("theirs", theirs, middle - started), ("ours", ours, ended - middle)):
                self.counts[who] = np.concatenate([self.counts[who], np.array(counts, np.int32)])
                self.times[who] = np.append(self.times[who], spent / len(part))
            self.save()
            ms = {who: f"{1e3 * statistics.median(t):.2f} ms" for who, t in self.times.items()}
            print(self.ours.seen, "of", len(x), ms, flush=True)

    def spikes(self, part: Any, stream: str, first: int) -> Any:
        """Input spikes ``[T, N, inputs]`` of images."""
        return learn.poisson_spikes(
            part, self.ours.table, steps=self.config.steps, seed=self.config.seed, stream=stream, first_sample=first
        ).astype(np.uint8)

    def test(self, x: Any, first: int, batch: int = 50) -> dict[str, Any]:
        """Spike counts of both on `x`."""
        self.theirs.train(False)
        found = []
        for at in range(0, len(x), batch):
            found.append(bindsnet_counts(self.theirs, self.spikes(x[at : at + batch], "infer", first + at)))
        return {"ours": self.ours.infer(x, first=first).counts, "theirs": np.concatenate(found)}


def activity(counts: Any) -> learn.Activity:
    """Counts alone, as an activity."""
    empty = np.zeros((0, 0, 0))
    return learn.Activity(np.array(counts, np.int32), np.full((len(counts), 0), -1, np.int32), empty, empty, empty)


def hits(train: Any, y: Any, test: Any, target: Any) -> Any:
    """Which test images are named right by labels from the training images."""
    labels = learn.assign_labels(activity(train), y, classes=10)
    return learn.predict(activity(test), labels) == target


def race(config: learn.DiehlCook, n_train: int, n_test: int, chunk: int, draws: int, folder: Path) -> dict[str, Any]:
    images = data.load_mnist()
    x, y = images.train.x[:n_train], images.train.y[:n_train]
    test, target = images.test.x[:n_test], images.test.y[:n_test]
    run = Race(config, folder / f"race n{config.neurons} t{config.steps} s{config.seed}.safetensors")
    run.learn(x, chunk)
    tested = run.test(test, n_train)
    right = {who: hits(run.counts[who], y, tested[who], target) for who in ("ours", "theirs")}
    again = []
    for seed in range(1, draws + 1):
        other = learn.Network(config.replace(seed=config.seed + seed))
        other.weights = run.ours.coded_weights(normalised_start(config))
        counts = other.learn(x).counts
        again.append(float(hits(counts, y, other.infer(test, first=n_train).counts, target).mean()))
    d = right["ours"].astype(float) - right["theirs"]
    ratios = run.times["theirs"] / run.times["ours"]
    return {
        "neurons": config.neurons,
        "steps": config.steps,
        "seed": config.seed,
        "train": n_train,
        "test": n_test,
        "ms": {who: 1e3 * statistics.median(t) for who, t in run.times.items()},
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "accuracy": {who: float(hit.mean()) for who, hit in right.items()},
        "difference": [100 * float(d.mean()), 196 * float(d.std(ddof=1)) / math.sqrt(len(d))],
        "again": again,
        "spikes": {who: float(counts.sum(axis=1).mean()) for who, counts in run.counts.items()},
    }


def table() -> str:
    head = "training images | ms an image: BindsNET | ours | ratio, median (least) of chunks | accuracy %: BindsNET"
    lines = [f"| {head} | ours | difference, points | ours with other draws: mean, deviation |", "| --- " * 8 + "|"]
    for r in map(json.loads, RESULTS.read_text().splitlines()):
        again = np.array(r["again"]) * 100
        spread = f"{again.mean():.2f}, {again.std(ddof=1):.2f} ({len(again)} runs)" if len(again) > 1 else ""
        lines.append(
            f"| {r['train']:,} | {r['ms']['theirs']:.1f} | {r['ms']['ours']:.2f} | "
            f"{r['ratio']:.0f} ({r['ratio_least']:.0f}) | {100 * r['accuracy']['theirs']:.2f} | "
            f"{100 * r['accuracy']['ours']:.2f} | "
            f"{r['difference'][0]:+.2f} +- {r['difference'][1]:.2f} | {spread} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="run", choices=("run", "table"))
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=5000)
    parser.add_argument("--chunk", type=int, default=50)
    parser.add_argument("--neurons", type=int, default=400)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "build" / "unsupervised")
    given = parser.parse_args()
    if given.what == "run":
        torch.set_num_threads(1)
        given.folder.mkdir(parents=True, exist_ok=True)
        config = learn.DiehlCook(neurons=given.neurons, steps=given.steps, seed=given.seed, inhibition="layer")
        result = race(config, given.train, given.test, given.chunk, given.draws, given.folder)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    print(table())


if __name__ == "__main__":
    main()
