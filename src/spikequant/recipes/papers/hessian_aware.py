"""Hessian aware quantization of spiking neural networks (Lui, Neftci, 2021): traces say which layer needs which bits.

A row trains a network, takes the traces of its layers, lowers each layer's bits alone, and then quantizes it to a
tenth of its float memory: once with equal bits, once with the allocator's in no more memory, both trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from spikequant.models import ConvSNN, digits_net, mnist_net
from spikequant.recipes.bits_and_losses import drawing, section
from spikequant.recipes.hessian_rows import Amount, events_row, images_row, spoken_row
from spikequant.recipes.reproduction import Bench, Line, Recipe, Row, Rows, Scale, mean_and_interval

PAPER = "0.2 points at 2.4 x smaller (N-MNIST)"
SMOKE = Amount(epochs=4, again=3, probes=24, tested_alone=360)
EPOCHS = {"fashion-mnist": 3, "mnist": 5}


def cifar_net() -> ConvSNN:
    """A small network for 32 x 32 colour images, four steps."""
    return ConvSNN(in_channels=3, size=32, channels=(32, 64), kernel=5, steps=4)


def _rows(scale: Scale) -> list[Row]:
    if scale == "smoke":
        return [_images("digits", 0, SMOKE, digits_net)]
    local = scale == "local"
    base = Amount(epochs=0, again=1 if local else 5)
    images = {name: replace(base, epochs=epochs) for name, epochs in EPOCHS.items()}
    some = 20_000 if local else None
    cifar = replace(base, epochs=2 if local else 40, samples=some, again_samples=some)
    events = (
        Amount(epochs=5, slower=2, probes=8, tested_alone=400)
        if local
        else Amount(epochs=20, slower=5, again=5, step_ms=1.0, burn_in=50)
    )
    spoken = Amount(epochs=2 if local else 10, again=5 if local else 20, probes=16 if local else 64)
    rows = []
    for seed in range(3 if local else 5):
        rows += [_images(name, seed, how, mnist_net) for name, how in images.items()]
    if local:
        rows += [_images("fashion-mnist", seed, images["fashion-mnist"], mnist_net) for seed in (3, 4)]
    rows += [_fold("shd", "SHD, recurrent", k, partial(spoken_row, fold=k, how=spoken)) for k in range(5)]
    rows += [_fold("n-mnist", "N-MNIST, local losses", k, partial(events_row, fold=k, how=events)) for k in range(5)]
    rows += [_images("cifar10", seed, cifar, cifar_net) for seed in range(3 if local else 5)]
    return rows


def _images(name: str, seed: int, how: Amount, network: Callable[[], nn.Module]) -> Row:
    run = partial(images_row, name=name, seed=seed, how=how, network=network)
    return Row(name=f"{name}-{seed}", line=f"{name}, conv", seed=seed, run=run)


def _fold(name: str, line: str, fold: int, run: Callable[[Bench], Mapping[str, Any]]) -> Row:
    return Row(name=f"{name}-fold-{fold}", line=line, seed=fold, run=run)


def row_by_row(rows: Rows) -> list[str]:
    """Each row's paired differences over the same test samples."""
    of = {name: row for name, row in rows.items() if "outcomes" in row and "test_samples" in row}
    if not of:
        return []
    lines = [
        "", "## Row by row", "",
        "Paired differences over the test samples, 95 % intervals of one row: they hold the chance of the samples, not "
        "that of the training. Differences between simulation and golden model on the first samples: "
        f"{sum(row['differences'] for row in of.values())}.", "",
        "| row | samples | quantized - real, points | allocated - equal bits, points "
        "| before training on: equal, allocated % |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, row in of.items():
        untrained = [100 * row["outcomes"][kind]["before_training"] for kind in ("equal", "allocated")]
        lines.append(
            f"| {name} | {row['test_samples']:,} | {row['change_points']:+.2f} ± {row['interval_points']:.2f} | "
            f"{row['gain_points']:+.2f} ± {row['gain_interval'] or 0.0:.2f} | {untrained[0]:.2f}, {untrained[1]:.2f} |"
        )
    return lines


def hand_section(rows: Rows) -> list[str]:
    """The paper's bits, chosen by hand, against equal bits and the allocator's in the memory that they take."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows.values():
        for one in row.get("by_hand", ()):
            found.setdefault((str(row["line"]), one["pattern"]), []).append(one)
    if not found:
        return []
    lines = [
        "", "## Bits by hand", "",
        "Not trained on: one width by layer for weights and states (the paper's 8/8/16, and half of it), equal bits "
        "and the allocator's bits within its bytes. Test accuracy, means over rows.", "",
        "| experiment | by hand | rows | times smaller | by hand % | equal bits % | allocated % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for (line, pattern), these in found.items():
        means = [100 * sum(one[k]["after"] for one in these) / len(these) for k in ("hand", "equal", "allocated")]
        smaller = min(one["smaller"] for one in these)
        cells = " | ".join(f"{mean:.2f}" for mean in means)
        lines.append(f"| {line} | {pattern} | {len(these)} | {smaller:.2f} | {cells} |")
    states = next((row["states"] for row in rows.values() if "states" in row), None)
    if states is not None:
        lines += [
            "",
            f"States of the N-MNIST network for a sample: {states['original']:,} numbers in the original form (P and Q "
            f"by input, R and U by neuron), {states['training']:,} while it learns (P, R, U), "
            f"{states['inference']:,} where it infers (U).",
        ]
    return lines


def equal_size(rows: Rows) -> list[str]:
    """The allocator's plan against equal bits in the same memory, by line."""
    lines = [
        "", "## At equal size", "",
        "Equal bits: one width for all weights, one for all membranes; of the pairs that fit into a tenth of the float "
        "memory the one with the least training loss once it is quantized, calibrated and briefly trained. The "
        "allocator gets the bytes that this pair takes, and its proposals (all widths; without the narrowest of a "
        "role) are chosen from alike; equal bits are among them. Both are trained on alike; difference in points, mean "
        "and 95 % interval over rows.", "",
        "| experiment | rows | equal bits % | allocated % | difference | worst row |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for line in dict.fromkeys(str(row["line"]) for row in rows.values() if "outcomes" in row):
        of = [row for row in rows.values() if row["line"] == line and "outcomes" in row]
        gains = [float(row["gain_points"]) for row in of]
        mean, margin = mean_and_interval(gains)
        both = [100 * sum(row["outcomes"][kind]["after"] for row in of) / len(of) for kind in ("equal", "allocated")]
        told = f"{mean:+.2f}" + ("" if margin != margin else f" ± {margin:.2f}")
        lines.append(f"| {line} | {len(of)} | {both[0]:.2f} | {both[1]:.2f} | {told} | {min(gains):+.2f} |")
    return lines if any("outcomes" in row for row in rows.values()) else []


def sections(rows: Rows) -> Sequence[str]:
    """What stands below the table."""
    return [*equal_size(rows), *row_by_row(rows), *hand_section(rows), *section(rows)]


def drawings(rows: Rows) -> dict[str, str]:
    """The picture of trace against points lost."""
    picture = drawing(rows)
    return {"trace.svg": picture} if picture else {}


RECIPE = Recipe(
    title="Hessian aware quantization of spiking neural networks (Lui, Neftci, 2021)",
    lines=(
        Line(name="digits, conv", paper=PAPER, goal_smaller=10, goal_points=5),
        Line(name="mnist, conv", paper=PAPER, goal_smaller=10, goal_points=0.2),
        Line(name="fashion-mnist, conv", paper=PAPER, goal_smaller=10, goal_points=0.5),
        Line(name="N-MNIST, local losses", paper=PAPER),
        Line(name="SHD, recurrent", paper=PAPER),
        Line(name="cifar10, conv", paper=PAPER),
    ),
    rows=_rows,
    differences=(
        "The paper chooses bits by hand from the ranking of the traces; here a budget goes in and an integer program "
        "chooses.",
        "Its networks learn by local losses (DECOLLE) on N-MNIST, and so do those of its rows here, real and "
        "quantized; the rows of images and of SHD are trained by back-propagation through time, and their quantized "
        "networks learn from the targets and from the answers of the real one (distillation).",
        "Quantized weights are learned on a float copy with learned steps; the paper rounds weights and gradients "
        "stochastically to fixed point after every update and keeps no float copy.",
        "Scale local: Fashion-MNIST has five seeds, of which the last two were added because the first three differed "
        "too much to decide about 0.5 points.",
        "Traces are Gauss-Newton traces on training data; the paper takes the Hessian's on test data, of a boxcar "
        "surrogate whose second derivative is zero, so that its Hessian is a Gauss-Newton matrix, too.",
        "Memory counts weights, states, thresholds, biases and buffers in true bits, real ones at 32; the paper's 58 % "
        "are those of its convolutions' weights.",
    ),
    sections=sections,
    drawings=drawings,
)
