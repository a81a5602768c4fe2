"""Small networks in the ways in which people write them, and the line that a refusal must name."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from spikequant.nn import LIF

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 5, 3, 4, 6, 2


class Layers(nn.Module):
    """Two layers of neurons, stepped by hand."""

    mode = "s"

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, HIDDEN), LIF(step_mode=self.mode)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, CLASSES), LIF(step_mode=self.mode)

    def one(self, x):
        """One step of the whole network (or all of them, in multi-step mode)."""
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


class MultiStep(Layers):
    """The same in multi-step mode."""

    mode = "m"


def model(forward, parent=Layers, **layers):
    """A network with this `forward`, and further layers by name."""
    torch.manual_seed(0)
    net = type("Net", (parent,), {"forward": forward})()
    with torch.no_grad():  # neurons that fire: on a silent network a sum equals its start
        net.fc1.weight.abs_().mul_(2)
        net.fc2.weight.abs_().mul_(2)
    for name, layer in layers.items():
        setattr(net, name, layer)
    return net


def spikes(*shape, seed=0):
    """Random spikes."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def marked_line(forward):
    """``file:line`` of the line of `forward` that ends with ``# <-``."""
    lines, first = inspect.getsourcelines(forward)
    (offset,) = (k for k, line in enumerate(lines) if line.rstrip().endswith("# <-"))
    return f"{inspect.getsourcefile(forward)}:{first + offset}"


def edges(graph):
    """``{node: [(source, delay), ...]}`` of all nodes but the input."""
    return {n.name: [(e.source, e.delay) for e in n.inputs] for n in graph.nodes if n.kind != "input"}
