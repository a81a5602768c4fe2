"""Beyond Accuracy (Smith, Whitehill, Ganji, 2026): method, clipping range and bits against firing behaviour.

One float network per seed; weights or membranes quantized in one way after the other, each copy calibrated, trained on
alike, and measured as integers beside the float network: accuracy, EMD of the firing rates, dead share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from spikequant.models import SEWResNet, sew_resnet18
from spikequant.recipes import behaviour
from spikequant.recipes.behaviour import CONTROL, Claim, Record
from spikequant.recipes.finetuning import Course, control_row, quantized_row
from spikequant.recipes.reproduction import Bench, Line, Recipe, Row, Rows, Scale, change, plain_name

OUTER = {"quantizer": "uniform", "bits": 8, "clipping": "mse"}
"""Of the first and the last layer; the paper does not say whether it quantizes them."""
NARROW, WIDE = 1.0, 10.0
BITS = (2, 4, 6, 8)
PAPER = {
    "W2 LQ-Net": "74.4 %, EMD 0.0121",
    "W6 LQ-Net": "75.3 %, EMD 0.0072",
    "W2 uniform wide": "51.6 %, EMD 0.1206",
    "W6 uniform wide": "73.7 %, EMD 0.0136",
    "W6 uniform narrow": "74.9 %, EMD 0.0077",
    "U2 signed": "67.1 %, EMD 0.014",
    "U2 unsigned": "71.9 %, EMD 0.010",
    CONTROL: "75.2 % in float",
}
"""CIFAR-100, SEW-ResNet-18, as a summary of the paper reports them; its CIFAR-10 table was not to be had."""


def _uniform(bits: int, limit: float) -> dict[str, Any]:
    clipping = {"name": "fixed", "limit": limit}
    return {"quantizer": "uniform", "bits": bits, "clipping": clipping, "options": {"grid": "symmetric"}}


def weights(role: Mapping[str, Any]) -> dict[str, Any]:
    """Weights only; the first and the last layer at 8 bits."""
    outer = [{"match": name, "weight": OUTER} for name in ("stem*", "head*")]
    return {"rules": [*outer, {"match": "blocks*", "weight": dict(role)}]}


def membrane(bits: int, *, signed: bool) -> dict[str, Any]:
    """Membranes only, of every layer, on [-1, 1] or [0, 1]."""
    role = {"bits": bits, "signed": signed, "limit": 1.0, "rounding": "half_up"}
    return {"rules": [{"match": "*", "membrane": role}]}


def plans(bits: int) -> dict[str, dict[str, Any]]:
    """All settings of one number of bits, by name, those that are claimed first."""
    return {
        f"W{bits} LQ-Net": weights({"quantizer": "lqnet", "bits": bits}),
        f"W{bits} uniform wide": weights(_uniform(bits, WIDE)),
        f"W{bits} uniform narrow": weights(_uniform(bits, NARROW)),
        f"U{bits} signed": membrane(bits, signed=True),
        f"U{bits} unsigned": membrane(bits, signed=False),
    }


LEARNED, RANGE = "W2 LQ-Net", "W2 uniform wide"
KEPT = "W2 LQ-Net, firing kept"
"""The same weights, with thresholds and biases moved until the layers fire as in the float network."""
CLAIMED = (LEARNED, RANGE, KEPT)
SETTINGS = {LEARNED: plans(2)[LEARNED], KEPT: plans(2)[LEARNED]}
SETTINGS |= {name: plan for bits in BITS for name, plan in plans(bits).items()}
AT_TWO = (*CLAIMED, *(name for name in plans(2) if name not in CLAIMED))


def digits_net(_: Bench) -> nn.Module:
    """Two blocks for 8 x 8."""
    return SEWResNet((1, 1), width=8, classes=10, in_channels=1, stem="cifar", steps=4)


def local_net(_: Bench) -> nn.Module:
    """SEW-ResNet-8 of width 16, with the strided stem that makes its maps 8 x 8 behind an image of 32 x 32."""
    return SEWResNet((1, 1, 1), width=16, classes=10, steps=4)


def paper_net(_: Bench) -> nn.Module:
    """SEW-ResNet-18 for CIFAR-100."""
    return sew_resnet18(classes=100, stem="cifar", steps=4)


COURSES = {
    "smoke": Course(data="digits", make=digits_net, float_epochs=4, epochs=1, float_lr=1e-2, batch_size=64,
                    calibration=2),
    "local": Course(data="cifar10", make=local_net, float_epochs=2, epochs=1, tuned_on=20_000, batch_size=64),
    "paper": Course(data="cifar100", make=paper_net, split="train+validation", float_epochs=200, epochs=60,
                    float_lr=1e-3, lr=1e-4, calibration=8, gpu=True),
}  # fmt: skip


def _rows(scale: Scale) -> list[Row]:
    course = COURSES[scale]

    def row(name: str, seed: int) -> Row:
        match = LEARNED if name == KEPT else None
        run = partial(quantized_row, course=course, seed=seed, name=name, plan=SETTINGS[name], match=match)
        return Row(name=f"{plain_name(name)}-{seed}", line=name, seed=seed, run=run)

    def control(seed: int) -> Row:
        run = partial(control_row, course=course, seed=seed, other=0 if seed else None)
        return Row(name=f"{CONTROL}-{seed}", line=CONTROL, seed=seed, run=run)

    rows = [control(0), *(row(name, 0) for name in AT_TWO)]
    if scale == "smoke":
        return rows
    every = SETTINGS if scale == "paper" else CLAIMED
    for seed in (1, 2):
        rows += [control(seed), *(row(name, seed) for name in every)]
    return [*rows, *(row(name, 0) for bits in BITS[1:] for name in plans(bits))]


def claims(rows: Rows) -> list[Claim]:
    """The goals that the rows can answer."""
    learned, wide, kept = (behaviour.of_line(rows, name) for name in CLAIMED)
    within = behaviour.within(learned, 1.5, "LQ-Net W2 within 1.5 points of float (upper end of the interval)")
    tenth = Claim(goal="EMD of LQ-Net W2 under a tenth of uniform wide W2", found="not run", met=None)
    if learned and wide:
        small, large = (behaviour.mean_of(records, "emd") for records in (learned, wide))
        tenth = replace(tenth, found=f"{small:.4f} against {large:.4f}: {small / large:.2f}", met=small < large / 10)
    return [within, tenth, _kept(learned, kept)]


def _kept(learned: Sequence[Record], kept: Sequence[Record]) -> Claim:
    """EMD below that of LQ-Net, on the seeds that both have, with no loss of accuracy beyond the interval."""
    goal = "Firing kept: a lower EMD than LQ-Net W2 at the same accuracy"
    seeds = {record["seed"] for record in kept}
    beside = [record for record in learned if record["seed"] in seeds]
    if not beside:
        return Claim(goal=goal, found="not run", met=None)
    (low, _), (was, margin) = change(kept), change(beside)
    emds = [behaviour.mean_of(records, "emd") for records in (kept, beside)]
    told = f"EMD {emds[0]:.4f} against {emds[1]:.4f}; {low:+.2f} against {was:+.2f} points (± {margin:.2f})"
    return Claim(goal=goal, found=told, met=emds[0] < emds[1] and low >= was - margin)


def sections(rows: Rows) -> Sequence[str]:
    """Goals and firing behaviour."""
    if not rows:
        return []
    return [
        *behaviour.claims_section(claims(rows)),
        *behaviour.behaviour_section(rows, [CONTROL, *SETTINGS]),
        *behaviour.refused_section(rows),
    ]


def drawings(rows: Rows) -> Mapping[str, str]:
    """Training curves, EMD layer by layer, distributions of rates."""
    few = [CONTROL, *AT_TWO]
    return {
        **behaviour.curves(rows),
        **behaviour.emd_by_layer(rows, few, "EMD of each layer at 2 bits"),
        **behaviour.firing(rows, few, "Rates in the last layer at 2 bits"),
    }


RECIPE = Recipe(
    title="Quantization of spiking neural networks beyond accuracy (Smith, Whitehill, Ganji, 2026)",
    lines=tuple(Line(name=name, paper=PAPER.get(name, "")) for name in (CONTROL, *SETTINGS)),
    rows=_rows,
    differences=(
        "The paper's figures beside ours are of CIFAR-100 and SEW-ResNet-18 and come from a summary of it; its "
        "CIFAR-10 table, its SEW-ResNet-8, its training recipe and its formula of the uniform grid were not to be had.",
        "Scale local: SEW-ResNet-8 of width 16 with the strided 7x7 stem and max-pooling of the SEW paper (maps of 8x8 "
        "and smaller), CIFAR-10 without augmentation, 45,000 training images, 1,900 of the 10,000 test images; "
        "2 epochs in float (Adam 3e-3, batches of 64, cosine), then one epoch of the first 20,000 images for each "
        "copy (Adam 1e-3). Two cores allow no more; a network that is trained to its end would lose more by "
        "quantization, and the control says what the extra epoch is worth.",
        "Scale smoke: two blocks of width 8 on 8x8 digits.",
        "Uniform: the grid without a zero (delta = 2c / (2^b - 1)), straight through; on the grid with a zero every "
        "weight of the wide range at 2 bits is 0. First and last layer have 8 bits in the rows of weights.",
        "Neurons: tau 2, threshold 1, hard reset, T = 4, direct coding, as in the paper; the gain 1/tau of its charge "
        "is left to the batch norm in front of it.",
        "Membranes are rounded when they are stored, after fire and reset; the paper does not say where.",
        "EMD: mean over layers of the distance between the rates of all neurons of a layer; the paper's way to sum up "
        "layers is not known.",
    ),
    sections=sections,
    drawings=drawings,
)
