"""A NIR graph run node by node, neuron by neuron, straight from its equations: the other opinion, in tests only.

It shares nothing with the reader: it takes `nir.NIRGraph` objects, plain Python floats and a
list of the edges that carry the value of the step before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection

import nir
import numpy as np


class Interpreter:
    """Runs a flat graph; `back` are its edges that wait one step."""

    def __init__(
        self, graph: nir.NIRGraph, *, dt=1.0, integrator="euler", reset="v_reset", current="same_step", compare=">",
        back: Collection[tuple[str, str]] = (),
    ) -> None:  # fmt: skip
        self.graph, self.dt, self.integrator, self.reset, self.current = graph, dt, integrator, reset, current
        self.fires = (lambda v, th: v > th) if compare == ">" else (lambda v, th: v >= th)
        self.back = set(back)

    def run(self, x: np.ndarray) -> np.ndarray:
        """``[T, N, ...] -> [T, N, ...]``, every sample from rest."""
        return np.stack([self.sample(x[:, n]) for n in range(x.shape[1])], axis=1)

    def sample(self, x: np.ndarray) -> np.ndarray:
        self.history: dict[str, list[np.ndarray]] = {name: [] for name in self.graph.nodes}
        self.v: dict[tuple, float] = {}
        self.i: dict[tuple, float] = {}
        out = next(n for n, node in self.graph.nodes.items() if isinstance(node, nir.Output))
        result = []
        for t in range(len(x)):
            self.now: dict[str, np.ndarray] = {}
            self.x, self.t = x[t], t
            result.append(self.value(out))
            for name in self.graph.nodes:
                self.history[name].append(self.value(name))
        return np.stack(result)

    def value(self, name: str) -> np.ndarray:
        """What a node gives in this step."""
        if name not in self.now:
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.now[name] = np.asarray(self.x, dtype=np.float64)
            elif isinstance(node, nir.Delay):
                steps = round(float(np.asarray(node.delay).reshape(-1)[0]) / self.dt)
                past = [self.past(a, steps) for a, b in self.graph.edges if b == name]
                self.now[name] = sum(past[1:], past[0])
            else:
                self.now[name] = self.node(name, node, self.inputs(name))
        return self.now[name]

    def inputs(self, name: str) -> np.ndarray:
        parts = [self.past(a, 1) if (a, b) in self.back else self.value(a) for a, b in self.graph.edges if b == name]
        return sum(parts[1:], parts[0])

    def past(self, name: str, steps: int) -> np.ndarray:
        if steps == 0:
            return self.value(name)
        if self.t < steps:
            return np.zeros(self.shape(name))
        return self.history[name][self.t - steps]

    def shape(self, name: str) -> tuple[int, ...]:
        node = self.graph.nodes[name]
        if isinstance(node, nir.Input):
            return self.x.shape
        return tuple(int(k) for k in np.asarray(node.output_type["output"]).reshape(-1))

    def node(self, name: str, node: nir.NIRNode, x: np.ndarray) -> np.ndarray:
        if isinstance(node, nir.Output):
            return x
        if isinstance(node, nir.Linear):
            return node.weight @ x
        if isinstance(node, nir.Affine):
            return node.weight @ x + node.bias
        if isinstance(node, nir.Scale):
            return node.scale * x
        if isinstance(node, nir.Flatten):
            start, end = node.start_dim, node.end_dim if node.end_dim >= 0 else node.end_dim + x.ndim
            return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])
        if isinstance(node, nir.Conv2d):
            return self.conv(node, x)
        if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
            return self.pool(node, x)
        return self.neurons(name, node, x)

    def conv(self, node: nir.Conv2d, x: np.ndarray) -> np.ndarray:
        (sy, sx), (py, px), (dy, dx) = node.stride, node.padding, node.dilation
        padded = np.pad(x, [(0, 0), (py, py), (px, px)])
        out, per_group, ky, kx = node.weight.shape
        height = (padded.shape[1] - dy * (ky - 1) - 1) // sy + 1
        width = (padded.shape[2] - dx * (kx - 1) - 1) // sx + 1
        result = np.zeros((out, height, width))
        for o, h, w in itertools.product(range(out), range(height), range(width)):
            first = o // (out // node.groups) * per_group
            for c, a, b in itertools.product(range(per_group), range(ky), range(kx)):
                result[o, h, w] += node.weight[o, c, a, b] * padded[first + c, h * sy + a * dy, w * sx + b * dx]
            result[o, h, w] += node.bias[o]
        return result

    def pool(self, node, x: np.ndarray) -> np.ndarray:
        (ky, kx), (sy, sx), (py, px) = (
            tuple(np.broadcast_to(v, 2)) for v in (node.kernel_size, node.stride, node.padding)
        )
        padded = np.pad(x, [(0, 0), (py, py), (px, px)])
        height, width = (padded.shape[1] - ky) // sy + 1, (padded.shape[2] - kx) // sx + 1
        result = np.zeros((x.shape[0], height, width))
        for c, h, w in itertools.product(range(x.shape[0]), range(height), range(width)):
            result[c, h, w] = padded[c, h * sy : h * sy + ky, w * sx : w * sx + kx].sum()
        return result / (ky * kx) if isinstance(node, nir.AvgPool2d) else result

    def neurons(self, name: str, node: nir.NIRNode, x: np.ndarray) -> np.ndarray:
        result = np.zeros_like(x)
        for k in np.ndindex(x.shape):
            given = {
                f: float(np.broadcast_to(v, x.shape)[k]) for f, v in vars(node).items() if isinstance(v, np.ndarray)
            }
            result[k] = self.neuron((name, k), type(node).__name__, given, float(x[k]))
        return result

    def neuron(self, key: tuple, kind: str, p: dict[str, float], x: float) -> float:
        if kind == "Threshold":
            return float(self.fires(x, p["threshold"]))
        v = self.v.get(key, 0.0)
        if kind in ("IF", "I"):
            v = v + self.dt * p["r"] * x
        elif kind in ("LIF", "LI"):
            v = self.toward(v, p["tau"], p["v_leak"], p["r"] * x)
        else:
            old = self.i.get(key, 0.0)
            self.i[key] = self.toward(old, p["tau_syn"], 0.0, p["w_in"] * x)
            drive = p["r"] * (self.i[key] if self.current == "same_step" else old)
            v = self.held(v, p["tau_mem"], p["v_leak"], drive)
        if kind in ("I", "LI", "CubaLI"):
            self.v[key] = v
            return v
        fired = self.fires(v, p["v_threshold"])
        if fired:
            v = p["v_reset"] if self.reset == "v_reset" else v - p["v_threshold"]
        self.v[key] = v
        return float(fired)

    def toward(self, v: float, tau: float, rest: float, drive: float) -> float:
        """One step of ``tau dv/dt = rest - v + drive``."""
        if self.integrator == "euler":
            return v + self.dt / tau * (rest - v + drive)
        decay = math.exp(-self.dt / tau)
        if self.integrator == "exponential":
            return (rest + drive) + (v - (rest + drive)) * decay
        return rest + (v - rest) * decay + self.dt / tau * drive

    def held(self, v: float, tau: float, rest: float, drive: float) -> float:
        return self.toward(v, tau, rest, drive)
