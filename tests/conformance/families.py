"""Random torch networks, written as users write them: chains, images, joins, loops over time."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from spikequant.law.presets import PRESETS
from spikequant.law.spec import Leak
from spikequant.nn import (
    IF,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    Delay,
    LatencyEncoder,
    LeakyIntegrator,
    MultiSpikeIF,
    Neuron,
    Normalize,
    PoissonEncoder,
    SingleState,
)
from spikequant.nn.over_time import OverTime

SPIKE_READINGS = ("sum", "mean", "train")
STATE_READINGS = ("sum", "mean", "last", "max", "train")
NEURONS = ("lif", "lif", "lif", "if", "cuba", "single", "adaptive", "multi", "special", "special")
SPECIALS = (
    "floor",
    "zero_below",
    "shift",
    "forced",
    "two_shifts",
    "constant",
    "constant_signed",
    "old_state",
    "spiker",
    "hold",
    "value",
    "adapt_slow",
)


def read(x, how):
    """The reading over time at the end of a model."""
    if how == "sum":
        return x.sum(0)
    if how == "mean":
        return x.mean(0)
    if how == "last":
        return x[-1]
    return x.amax(0) if how == "max" else x


def special(dice, note):
    """Neurons that no constructor has a name for, but a spec has."""
    name = dice.choice(SPECIALS)
    note(f"special:{name}")
    plain = ("leak", "integrate", "fire", "reset")
    values = {"threshold": 1.0, "leak": dice.choice((0.5, 0.75, 0.9))}
    spec = PRESETS["lif_leak_first"](reset=dice.choice(("zero", "subtract")))
    if name in ("floor", "zero_below"):
        values["floor"] = -dice.choice((0.25, 0.5))
        order = ("leak", "integrate", "bound", "fire", "reset")
        return spec.replace(order=order, lower="floor" if name == "floor" else "zero"), values
    if name in ("shift", "forced", "two_shifts"):
        form = {"shift": "shift", "forced": "shift_forced", "two_shifts": "two_shifts"}[name]
        values.update(
            {"leak": float(dice.randint(1, 4))},
            **({"leak2": float(dice.randint(3, 6))} if name == "two_shifts" else {}),
        )
        order = dice.choice((plain, ("integrate", "fire", "reset", "leak")))
        return spec.replace(
            order=order, leak=Leak(form=form, rounding=dice.choice((None, "toward_zero", "half_even")))
        ), values
    if name in ("constant", "constant_signed"):
        values["leak"] = dice.choice((0.05, 0.1))
        return spec.replace(order=("integrate", "leak", "fire", "reset"), leak=Leak(form=name)), values
    if name == "old_state":
        return spec.replace(order=("fire", "reset", "leak", "integrate"), reset="zero"), values
    if name == "spiker":
        return spec.replace(order=("integrate", "fire", "leak_unless_fired", "reset"), leak=Leak(form="shift")), {
            **values,
            "leak": 2.0,
        }
    if name == "hold":
        return spec.replace(refractory=dice.randint(1, 3), refractory_mode="hold_zero"), values
    if name == "value":
        return spec.replace(reset="value"), {**values, "reset_to": dice.choice((-0.25, 0.125))}
    spec = PRESETS["adaptive_lif"](reset="subtract", refractory=0).replace(
        adapt_every=dice.randint(2, 5), adapt_in_reset=True
    )
    return spec, {**values, "leak_a": 0.9, "adapt": 0.25}


def make_neuron(dice, channels, note, *, mode="m"):
    """A random neuron layer of `channels` channels."""
    kind = dice.choice(NEURONS)
    note(f"neuron:{kind}")

    def many(low, high, fixed):
        if channels and dice.random() < 0.3:
            note("per-channel values")
            return torch.tensor([dice.uniform(low, high) for _ in range(channels)])
        return dice.choice(fixed)

    threshold, leak = many(0.6, 1.4, (1.0, 1.0, 0.8, 1.3)), many(0.4, 0.95, (0.5, 0.75, 0.9, 0.95))
    reset = dice.choice(("zero", "subtract", "zero", "subtract", "none"))
    options = {"step_mode": mode, "learn": dice.choice(((), ("threshold",)))}
    note(f"reset:{reset}") if kind in ("lif", "cuba", "adaptive") else None
    if kind == "lif":
        order = dice.choice(("leak_first", "leak_last", "delayed_reset"))
        note(f"order:{order}")
        return LIF(leak=leak, threshold=threshold, reset=reset, order=order, **options)
    if kind == "if":
        return IF(threshold=threshold, reset=dice.choice(("zero", "subtract")), **options)
    if kind == "cuba":
        return CubaLIF(leak=leak, leak_i=dice.choice((0.3, 0.5, 0.8)), threshold=threshold, reset=reset, **options)
    if kind == "single":
        return SingleState(leak=leak, step_mode=mode)
    if kind == "adaptive":
        refractory = dice.choice((0, 1, 2, 5))
        note("refractory") if refractory else None
        return AdaptiveLIF(
            leak=leak, leak_a=0.9, adapt=0.3, threshold=threshold, reset=reset, refractory=refractory, **options
        )
    if kind == "multi":
        return MultiSpikeIF(threshold=threshold, spikes_max=dice.choice((2, 3, 5)), **options)
    spec, values = special(dice, note)
    return Neuron(spec, values, step_mode=mode)


def make_delay(dice, note, *, mode="m"):
    """A delay of some steps, or nothing."""
    if dice.random() < 0.75:
        return nn.Identity()
    note("delay")
    return Delay(dice.randint(1, 3), step_mode=mode)


def make_readout(dice, inputs, classes, note):
    """The end of a chain: spiking neurons, an integrator that does not spike, or weights alone; and its reading."""
    kind = dice.choice(("spikes", "spikes", "integrator", "weights"))
    reading = dice.choice(SPIKE_READINGS if kind == "spikes" else STATE_READINGS)
    note(f"readout:{kind}")
    note(f"reading:{kind}:{reading}")
    neuron = {
        "spikes": lambda: make_neuron(dice, classes, note),
        "integrator": lambda: LeakyIntegrator(leak=dice.choice((0.5, 0.9, 1.0))),
    }
    return nn.Sequential(nn.Linear(inputs, classes), *([neuron[kind]()] if kind in neuron else [])), reading


class FlatNet(nn.Module):
    """``[T, N, F]``: fully connected layers and neurons, batch norm here and there."""

    def __init__(self, dice, note, inputs):
        super().__init__()
        depth = dice.randint(1, 4)
        sizes = [inputs, *(dice.randint(4, 10) for _ in range(depth))]
        note("depth >= 4") if depth + 1 >= 4 else None
        self.layers, self.neurons = nn.ModuleList(), nn.ModuleList()
        for a, b in pairwise(sizes):
            layer = nn.Linear(a, b, bias=dice.random() < 0.7)
            if dice.random() < 0.3:
                note("batch norm 1d")
                layer = OverTime(layer, nn.BatchNorm1d(b))
            self.layers.append(layer)
            self.neurons.append(make_neuron(dice, b, note))
        self.delay = make_delay(dice, note)
        self.head, self.reading = make_readout(dice, sizes[-1], dice.randint(2, 5), note)

    def forward(self, x):
        for layer, neuron in zip(self.layers, self.neurons, strict=True):
            x = neuron(layer(x))
        return read(self.head(self.delay(x)), self.reading)


class ImageStage(nn.Module):
    """Convolution, maybe batch norm and pooling of the currents, neuron, maybe pooling of the spikes."""

    def __init__(self, dice, note, inputs, axes, *, first, normalized=False):
        super().__init__()
        groups = dice.choice([g for g in (1, 2) if inputs % g == 0 and (g == 1 or not normalized)])
        self.channels = dice.choice((2, 4, 6))
        conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[axes - 1]
        options = {
            "padding": dice.choice((1, 1, 2)),
            "dilation": dice.choice((1, 1, 2)),
            "stride": dice.choice((1, 1, 2) if first else (1,)),
        }
        note(f"conv{axes}d")
        for name in ("dilation", "stride"):
            note(name) if options[name] > 1 else None
        note("groups") if groups > 1 else None
        parts = [conv(inputs, self.channels, 3, groups=groups, bias=dice.random() < 0.6, **options)]
        if dice.random() < 0.4:
            note(f"batch norm {axes}d")
            parts.append(norm(self.channels))
        pool = dice.choice(("none", "none", "max", "average"))
        kinds = {"max": (nn.MaxPool1d, nn.MaxPool2d), "average": (nn.AvgPool1d, nn.AvgPool2d)}
        if pool != "none":
            note(f"pool currents:{pool}")
            stride, padding = dice.choice((1, 2)), 0 if len(parts) > 1 else dice.choice((0, 1))
            if pool == "average" and (normalized or parts[0].bias is not None):
                padding = 0  # the bias does not reach the padded border; refused
            parts.append(kinds[pool][axes - 1](2, stride=stride, padding=padding))
        self.synapse, self.neuron = OverTime(*parts), make_neuron(dice, self.channels, note)
        self.pool = dice.choice(("none", "none", "max", "average", "functional", "functional average"))
        note(f"pool spikes:{self.pool}")
        self.pooling = (
            OverTime(kinds[self.pool][axes - 1](2, padding=dice.choice((0, 1))))
            if self.pool in kinds
            else nn.Identity()
        )
        self.axes = axes

    def forward(self, x):
        return self.after(self.neuron(self.synapse(x)))

    def after(self, x):
        """Pool the spikes."""
        if self.pool.startswith("functional"):
            average, maximum = (F.avg_pool1d, F.max_pool1d) if self.axes == 1 else (F.avg_pool2d, F.max_pool2d)
            merged = average(x.flatten(0, 1), 2) if "average" in self.pool else maximum(x.flatten(0, 1), 2)
            return merged.unflatten(0, x.shape[:2])
        return self.pooling(x)


class ImageNet(nn.Module):
    """``[T, N, C, (H,) W]`` spikes, ``[N, T, ...]``, or a static ``[N, C, (H,) W]`` that is shown for T steps."""

    def __init__(self, dice, note, shape, layout, steps, normalize):
        super().__init__()
        self.layout, self.steps = layout, steps
        self.normalize = nn.Identity()
        if normalize:
            note("normalize")
            n = shape[0]
            self.normalize = Normalize(
                [dice.uniform(0.2, 0.6) for _ in range(n)], [dice.uniform(0.2, 0.5) for _ in range(n)]
            )
        self.stage1 = ImageStage(dice, note, shape[0], len(shape) - 1, first=True, normalized=normalize)
        self.stage2 = (
            ImageStage(dice, note, self.stage1.channels, len(shape) - 1, first=False) if dice.random() < 0.6 else None
        )
        with torch.no_grad():
            x = self.features(torch.zeros(2, 2, *shape) if layout != "static" else torch.zeros(2, *shape))
        self.head, self.reading = make_readout(dice, x[0, 0].numel(), dice.randint(2, 4), note)

    def features(self, x):
        """What the convolutional stages give."""
        if self.layout == "static":
            current = self.stage1.synapse.layer(self.normalize(x))
            x = self.stage1.after(self.stage1.neuron(current.unsqueeze(0).expand(self.steps, *current.shape)))
        else:
            x = self.stage1(x)
        return x if self.stage2 is None else self.stage2(x)

    def forward(self, x):
        if self.layout == "batch_first":
            x = x.transpose(0, 1)
        return read(self.head(self.features(x).flatten(2)), self.reading)


class JoinNet(nn.Module):
    """Two trains of spikes (or two currents) meet."""

    KINDS = ("add", "iand", "and", "concat", "maximum", "currents", "add averages")

    def __init__(self, dice, note, inputs):
        super().__init__()
        self.kind, width = dice.choice(self.KINDS), dice.randint(4, 8)
        note(f"join:{self.kind}")
        self.first, self.neuron1 = nn.Linear(inputs, width), make_neuron(dice, width, note)
        self.second, self.neuron2 = nn.Linear(width, width), make_neuron(dice, width, note)
        if self.kind == "currents":
            self.beside = nn.Linear(width, width)
        self.delay = make_delay(dice, note)
        self.third = nn.Linear(2 * width if self.kind == "concat" else width, width)
        self.neuron3 = make_neuron(dice, width, note)
        self.head, self.reading = make_readout(dice, width, dice.randint(2, 4), note)

    def forward(self, x):
        a = self.neuron1(self.first(x))
        current = self.second(a)
        b = self.neuron2(current + self.beside(a) if self.kind == "currents" else current)
        joined = self.join(self.delay(a), b)
        return read(self.head(self.neuron3(self.third(joined))), self.reading)

    def join(self, a, b):
        """SEW's element-wise functions and their kin."""
        if self.kind == "iand":
            return (1 - a) * b
        if self.kind == "and":
            return a * b
        if self.kind == "concat":
            return torch.cat([a, b], dim=2)
        return torch.maximum(a, b) if self.kind == "maximum" else a + b


class LoopNet(nn.Module):
    """The user's own loop over time: recurrent, with feedback from a later layer, with a longer delay."""

    KINDS = ("plain", "recurrent", "feedback", "delay")

    def __init__(self, dice, note, inputs):
        super().__init__()
        self.kind, width = dice.choice(self.KINDS), dice.randint(4, 8)
        note(f"loop:{self.kind}")
        self.width = width
        self.fc1, self.neuron1 = nn.Linear(inputs, width), make_neuron(dice, width, note, mode="s")
        self.fc2, self.neuron2 = nn.Linear(width, width), make_neuron(dice, width, note, mode="s")
        if self.kind != "plain":
            self.back = nn.Linear(width, width, bias=False)
        self.delay = make_delay(dice, note, mode="s")
        self.reading = dice.choice(SPIKE_READINGS)
        note(f"reading:spikes:{self.reading}")

    def forward(self, x):
        s1 = s2 = old = torch.zeros(x.shape[1], self.width)
        out = []
        for t in range(x.shape[0]):
            back, old = (old if self.kind == "delay" else s2 if self.kind == "feedback" else s1), s1
            current = self.fc1(x[t])
            s1 = self.neuron1(current if self.kind == "plain" else current + self.back(back))
            s2 = self.neuron2(self.fc2(self.delay(s1)))
            out.append(s2)
        return read(torch.stack(out), self.reading)


class EncodedNet(nn.Module):
    """``[N, F]`` in [0, 1]: an encoder makes the spikes."""

    def __init__(self, dice, note, inputs, steps):
        super().__init__()
        kind = dice.choice(("poisson", "latency"))
        note(f"encoder:{kind}")
        self.encoder = PoissonEncoder(steps, seed=3) if kind == "poisson" else LatencyEncoder(steps)
        self.body = FlatNet(dice, note, inputs)

    def forward(self, x):
        return self.body(self.encoder(x))
