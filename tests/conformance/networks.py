"""Random cases for the equality of simulation and golden model: a network, a plan, inputs.

``make(seed)`` depends on the seed alone.  The features that a case has are written down
with it, so that the suite can say what it covered.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from tests.conformance.families import EncodedNet, FlatNet, ImageNet, JoinNet, LoopNet
from torch import nn

import spikequant as sq
from spikequant.law.rounding import ROUNDINGS
from spikequant.nn import Neuron

DETERMINISTIC = ROUNDINGS[:-1]
FAMILIES = ("flat", "flat", "image", "image", "static", "static", "join", "join", "loop", "loop", "encoded")


@dataclass
class Case:
    """One network to quantize, and what it is shown."""

    seed: int
    model: nn.Module
    plan: dict[str, Any]
    example: torch.Tensor
    inputs: torch.Tensor
    features: set[str]


def make(seed, *, steps=None, batch=None):
    """The case of a seed; `steps` and `batch` replace what the seed draws."""
    dice, features = random.Random(seed), set()
    torch.manual_seed(seed)
    drawn = dice.choice((16, 16, 24, 32, 64)), dice.choice((2, 3, 4))
    family = dice.choice(FAMILIES)
    most = 24 if family in ("image", "static") else 64
    steps, batch = steps or min(drawn[0], most), batch or drawn[1]
    model, inputs = build(family, dice, features, steps, batch)
    randomize_(model, dice)
    plan = make_plan(model, dice, features.add, analog=family == "static" and not is_whole(inputs))
    return Case(seed, model.eval(), plan, inputs, inputs, features)


def build(family, dice, features, steps, batch):
    """A network of a family; one whose pictures shrink to nothing is drawn again."""
    while True:
        found = {f"family:{family}"}
        try:
            model, inputs = BUILDERS[family](dice, found.add, steps, batch)
        except RuntimeError as error:
            if not any(text in str(error) for text in ("too small", "greater than actual", "output size: 0")):
                raise
            continue
        features |= found
        return model, inputs


def is_whole(x):
    """Whether the data are counts."""
    return bool((x == x.round()).all())


def spikes(dice, note, *shape):
    """Spikes, or counts up to 3."""
    if dice.random() < 0.2:
        note("input:counts")
        return torch.randint(0, 4, shape).float()
    note("input:spikes")
    return (torch.rand(shape) < dice.uniform(0.2, 0.5)).float()


def _flat(dice, note, steps, batch):
    width = dice.randint(4, 12)
    return FlatNet(dice, note, width), spikes(dice, note, steps, batch, width)


def _image_shape(dice):
    return (dice.choice((1, 2)), 6, 6) if dice.random() < 0.6 else (dice.choice((1, 2)), dice.randint(10, 14))


def _image(dice, note, steps, batch):
    shape, layout = _image_shape(dice), dice.choice(("time_first", "time_first", "batch_first"))
    note(f"layout:{layout}")
    x = spikes(dice, note, steps, batch, *shape)
    return ImageNet(dice, note, shape, layout, steps, False), x if layout == "time_first" else x.transpose(
        0, 1
    ).contiguous()


def _static(dice, note, steps, batch):
    shape = _image_shape(dice)
    kind = dice.choice(("positive", "signed", "normalized", "spikes"))
    note(f"static:{kind}")
    x = torch.rand(batch, *shape) if kind in ("positive", "normalized") else torch.randn(batch, *shape)
    x = spikes(dice, note, batch, *shape) if kind == "spikes" else x
    return ImageNet(dice, note, shape, "static", steps, kind == "normalized"), x


def _join(dice, note, steps, batch):
    return JoinNet(dice, note, 8), spikes(dice, note, steps, batch, 8)


def _loop(dice, note, steps, batch):
    return LoopNet(dice, note, 8), spikes(dice, note, steps, batch, 8)


def _encoded(dice, note, steps, batch):
    return EncodedNet(dice, note, 8, steps), torch.rand(batch, 8)


BUILDERS = {"flat": _flat, "image": _image, "static": _static, "join": _join, "loop": _loop, "encoded": _encoded}


@torch.no_grad()
def randomize_(model, dice):
    """Weights, biases and running statistics that keep the neurons busy, neither silent nor saturated."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            drive = dice.choice((0.25, 0.4, 0.6))
            module.weight.normal_(drive / (0.3 * fan_in), 0.7 / (0.3 * fan_in) ** 0.5)
            if module.bias is not None:
                module.bias.uniform_(-0.15, 0.2)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.weight.uniform_(0.4, 1.2)
            negative = torch.rand_like(module.weight) < 0.25
            module.weight[negative] *= -1
            module.bias.uniform_(-0.1, 0.5)
            module.running_mean.uniform_(-0.2, 0.4)
            module.running_var.uniform_(0.2, 1.0)


def make_plan(model, dice, note, *, analog):
    """A random rule for every layer."""
    rules, first = [], True
    ask = dice.choice(("both", "both", "both", "both", "weights", "membranes"))
    note(f"plan:{ask}")
    shared = weight_role(dice, note) if dice.random() < 0.5 else None
    for path, module in model.named_modules():
        rule = {"match": path}
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            if ask != "membranes" or path == "head.0" or path.endswith(".head.0"):
                rule["weight"] = shared or weight_role(dice, note)
            if module.bias is not None and ask != "membranes" and dice.random() < 0.15:
                note("bias bits")
                rule["bias"] = {"bits": dice.randint(3, 8)}
            if first and analog and dice.random() < 0.5:
                note("input bits")
                rule["input"] = {"bits": dice.randint(2, 8)}
            first = False
        elif isinstance(module, Neuron) and ask != "weights":
            rule.update(neuron_roles(module, dice, note))
        if len(rule) > 1:
            rules.append(rule)
    plan = {"rules": rules, "seed": dice.randint(0, 2**32 - 1)}
    if dice.random() < 0.25:
        note("fraction bits asked")
        plan["fraction_bits"] = dice.randint(0, 8)
    return plan


def weight_role(dice, note):
    """A random weight quantizer."""
    name = dice.choice(("uniform", "uniform", "uniform", "binary", "ternary", "power_of_two", "fixed_point", "lsq"))
    role = {"quantizer": name, "per_channel": dice.random() < 0.6}
    note(f"weights:{name}")
    note("weights per channel" if role["per_channel"] else "weights per tensor")
    if name == "uniform":
        grid = dice.choice(("zero_preserving", "symmetric", "full_range"))
        role["bits"] = dice.randint(1 if grid != "zero_preserving" else 2, 16)
        role["options"] = {"grid": grid}
        note(f"grid:{grid}")
        role["rounding"] = dice.choice((*DETERMINISTIC, "stochastic", "half_even", "half_even"))
        note(f"weight rounding:{role['rounding']}")
    elif name == "power_of_two":
        role["bits"] = dice.randint(2, 4)
    elif name == "lsq":
        role["bits"] = dice.randint(2, 8)
    elif name == "fixed_point":
        role["options"] = {"format": dice.choice(("Q1.4", "Q2.5", "Q1.7", "Q2.12"))}
    return role


def neuron_roles(module, dice, note):
    """Random widths of the states and parameters of a neuron layer."""
    roles = {"membrane": state_role(dice, note, "membrane", least=2)}
    signed = roles["membrane"]["signed"]
    note(f"membrane:{'signed' if signed else 'unsigned'}")
    if dice.random() < 0.2:
        note("narrow before fire")
        roles["membrane"]["attach"] = "before_fire"
    if dice.random() < 0.25:
        note("current bits")
        roles["current"] = state_role(dice, note, "current", least=4)
        roles["current"]["limit"] = dice.choice((2.0, 4.0))
    if "leak" in module.value_names and dice.random() < 0.4:
        roles["leak"] = {"bits": dice.randint(1, 12), "rounding": dice.choice((None, *DETERMINISTIC))}
        note(f"leak rounding:{roles['leak']['rounding']}")
        if roles["leak"]["rounding"] is None:
            del roles["leak"]["rounding"]
    if "threshold" in module.value_names and dice.random() < 0.15:
        note("threshold bits")
        roles["threshold"] = {"bits": dice.randint(4, 8)}
    return roles


def state_role(dice, note, name, *, least):
    """Width, sign, rounding and overflow of a register."""
    role = {
        "bits": dice.choice((least, dice.randint(least, 6), dice.randint(4, 10), dice.randint(8, 16))),
        "signed": dice.random() < 0.75,
        "rounding": dice.choice((*ROUNDINGS, "stochastic", "auto")),
        "overflow": "wrap" if dice.random() < 0.15 else "saturate",
    }
    if role["signed"] and dice.random() < 0.2:
        role["narrow"] = True
        note("narrow format")
    if dice.random() < 0.4:
        role["limit"] = dice.choice((1.5, 2.0, 4.0))
    note(f"{name} rounding:{role['rounding']}")
    note(f"{name} overflow:{role['overflow']}")
    return role


def quantized(case):
    """The case's model, quantized and frozen, and its integer network."""
    sq.quantize_(case.model, sq.Plan.from_dict(case.plan), case.example, quiet=True)
    sq.freeze(case.model)
    return sq.lower(case.model, case.example)
