"""The unsupervised network written a second time: dense, step by step, the law read by numpy, nothing event-driven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.neurons import prepare, step
from spikequant.law.noise import mix, noise_words, step_key
from spikequant.law.ops import IntOps, RealOps
from spikequant.learn.network import Network
from spikequant.learn.poisson import poisson_spikes, stream_key
from spikequant.learn.stdp import decayed_trace, land, rescaled, rule_named


@dataclass
class Expected:
    counts: Any
    weights: Any
    adaptive: Any
    common: int
    v: Any
    r: Any


def words(net: Network, stream: str, *place: Any) -> Any:
    key: Any = stream_key(net.config.seed, stream)
    for number in place:
        key = mix(key, number if isinstance(number, int) else np.asarray(number, dtype=np.int64))
    return key


def reference_run(net: Network, images: Any, *, learns: bool) -> Expected:
    return _Reference(net, learns).run(images)


class _Reference:
    def __init__(self, net: Network, learns: bool) -> None:
        self.net, self.learns, self.n = net, learns, net.numbers
        self.ops: Any = RealOps() if net.numbers.real else IntOps()
        self.w, self.a, self.common = net.weights.copy(), net.adaptive.copy(), net.common
        self.rule = rule_named(net.config.rule)
        self.rates = self.n.rates

    def kind(self, value: Any) -> Any:
        """As the network stores it: float32, or integers."""
        return np.asarray(value).astype(self.n.state_type)

    def params(self, name: str, **per_neuron: Any) -> Any:
        given = {k: per_neuron.get(k, v) for k, v in self.n.params[name].items()}
        return prepare(self.ops, getattr(self.n, name), {k: self.ops.const(v) for k, v in given.items()})

    def run(self, images: Any) -> Expected:
        c, first = self.net.config, self.net.seen if self.learns else 0
        stream = "train" if self.learns else "infer"
        spikes = poisson_spikes(images, self.net.table, steps=c.steps, seed=c.seed, stream=stream, first_sample=first)
        counts = np.zeros((len(images), c.neurons), np.int64)
        v, r = [], []
        for s in range(len(images)):
            trains = self.image(first + s, spikes[:, s])
            counts[s] = sum(sent for sent, _, _ in trains)
            v.append([v for _, v, _ in trains])
            r.append([r for _, _, r in trains])
        return Expected(counts, self.w, self.a, self.common, np.array(v).swapaxes(0, 1), np.array(r).swapaxes(0, 1))

    def image(self, sample: int, spikes: Any) -> list[tuple[Any, Any, Any]]:
        c, zero = self.net.config, np.zeros(self.net.config.neurons)
        state = {"v": self.kind(zero), "r": self.kind(zero)}
        relay = {"v": self.kind(zero), "r": self.kind(zero)}
        pre, post = self.kind(np.zeros(c.inputs)), self.kind(zero)
        sent = relayed = np.zeros(c.neurons, np.int64)
        fired = np.zeros(c.neurons, bool)
        draw = self.adapt(sample, 0)
        trains = []
        for t in range(c.steps):
            source = relayed if c.inhibition == "layer" else sent
            drive = np.zeros(c.neurons, self.n.sum_type)
            for row in self.w[spikes[t] == 1]:  # added one by one: the float sum depends on the order
                drive = drive + row
            x = self.n.gain * drive - self.n.inhibit * (source.sum() - source)
            hit, state = self.neurons(state, x, draw, sample, t)
            if c.inhibition == "layer":
                relayed, relay = self.relay(relay, sent, sample, t)
            sent = self.chosen(hit, sample, t)
            trains.append((sent, state["v"], state.get("r", self.kind(zero))))
            if self.learns:
                draw = np.where(hit == 1, self.adapt(sample, t + 1), draw)
                fired |= sent == 1
                pre = self.trace(pre, spikes[t], words(self.net, "pre", sample, t), np.arange(c.inputs))
                post = self.trace(post, sent, words(self.net, "post", sample, t), np.arange(c.neurons))
                self.learn(spikes[t], sent, pre, post, sample, t)
        if self.learns:
            self.normalise(fired, sample)
            self.carry()
        return trains

    def carry(self) -> None:
        """The common part decays; where a threshold is in the last sixteenths of its register, all hand one over."""
        precision, c, learning = self.net.precision, self.net.config, self.n.params["learning"]
        if not precision.common_threshold:
            return
        codes = 2 ** precision.register("threshold").bits
        part = max(1, codes // 16)
        self.common = (self.common * learning["leak_a"] + 2**29) >> 30
        room = (precision.membrane_reach_mv - c.threshold_mv - precision.threshold_reach_mv) / self.n.a_lsb
        if self.a.max() >= codes - part and self.common / 2**16 + part <= int(room):
            self.common += part * 2**16
            self.a = np.maximum(self.a - part, 0)

    def base(self) -> Any:
        """The threshold that all neurons have, in accumulator units."""
        learning = self.n.params["learning"]
        return self.n.theta + ((((self.common + 2**15) // 2**16) * learning["a_load"]) >> learning["a_shift"])

    def adapt(self, sample: int, t: int) -> Any:
        noise = words(self.net, "adapt", sample, t, np.arange(self.net.config.neurons))
        n, ops = self.n, self.ops
        amount = np.broadcast_to(ops.const(n.adapt), noise.shape)
        return ops.shr(amount, ops.const(n.adapt_bits), n.roundings["threshold"], noise)

    def neurons(self, state: Any, x: Any, draw: Any, sample: int, t: int) -> Any:
        c = self.net.config
        name = "learning" if self.learns else "inferring"
        per = {"adapt": draw} if self.learns else {"theta": self.n.theta_of(self.a, self.common)}
        if self.learns and self.net.precision.common_threshold:
            per["theta"] = np.asarray(self.base())
        if self.learns:
            state = {**state, "a": self.a}
        noise = self.noise(0, sample, t)
        new, out = step(self.ops, getattr(self.n, name), self.params(name, **per), state, x, noise=noise,
                        tick=self.ops.const(int(t == c.steps - 1)))  # fmt: skip
        new = {k: self.kind(np.broadcast_to(v, (c.neurons,))) for k, v in new.items()}
        self.a = new.pop("a", self.a)
        return np.asarray(out).astype(np.int64), {"r": self.kind(np.zeros(c.neurons)), **new}

    def noise(self, layer: int, sample: int, t: int) -> Any:
        def of(role: str) -> Any:
            key = step_key(self.net.config.seed, layer, role, t)
            return noise_words(key, np.array([sample]), (self.net.config.neurons,))[0]

        return of

    def relay(self, state: Any, sent: Any, sample: int, t: int) -> Any:
        x = self.n.excite * sent
        new, out = step(
            self.ops, self.n.inhibitory, self.params("inhibitory"), state, x, noise=self.noise(1, sample, t)
        )
        return np.asarray(out).astype(np.int64), {k: self.kind(v) for k, v in new.items()}

    def chosen(self, hit: Any, sample: int, t: int) -> Any:
        where = np.flatnonzero(hit)
        if self.learns and self.net.config.one_spike and len(where) > 1:
            one = where[int(words(self.net, "ties", sample, t, 0)) % len(where)]
            hit = np.zeros_like(hit)
            hit[one] = 1
        return hit

    def trace(self, trace: Any, spikes: Any, key: Any, position: Any) -> Any:
        n = self.n
        noise = mix(key, np.asarray(position, dtype=np.int64))
        lower = decayed_trace(
            self.ops, trace, n.trace_leak, bits=n.trace_bits, rounding=n.roundings["trace"], noise=noise
        )
        lower = self.kind(lower)
        up = np.minimum(lower + self.kind(n.trace_one), n.trace_max) if self.net.config.trace == "add" else n.trace_one
        return self.kind(np.where(spikes == 1, up, lower))

    def learn(self, spikes: Any, sent: Any, pre: Any, post: Any, sample: int, t: int) -> None:
        """All weights at once; changes of 0 leave a weight as it is, under every rounding."""
        c = self.net.config
        i, j = np.arange(c.inputs)[:, None], np.arange(c.neurons)[None, :]
        key = words(self.net, "stdp", sample, t, j)
        if self.rule.on_pre is not None:
            change = self.rule.on_pre(self.ops, self.w, post[None, :], self.rates)
            landed = self.landed(change, mix(key, 2 * i))
            self.w = np.where((spikes[:, None] == 1) & (post[None, :] != 0), landed, self.w).astype(self.w.dtype)
        change = self.rule.on_post(self.ops, self.w, pre[:, None], self.rates)
        landed = self.landed(change, mix(key, 2 * i + 1))
        self.w = np.where((sent[None, :] == 1) & self.reached(pre)[:, None], landed, self.w).astype(self.w.dtype)

    def reached(self, pre: Any) -> Any:
        return np.ones(len(pre), bool) if self.rule.silent_inputs else pre != 0

    def landed(self, change: Any, noise: Any) -> Any:
        n = self.n
        return land(self.ops, self.w, change, fine_bits=n.fine_bits, w_max=n.w_max, rounding=n.roundings["weight"],
                    noise=noise)  # fmt: skip

    def normalise(self, fired: Any, sample: int) -> None:
        n = self.n
        for j in np.flatnonzero(fired):
            column = self.w[:, j]
            total = sum((x for x in column.astype(n.sum_type)), start=n.sum_type(0))
            if total <= 0:
                continue
            factor = n.norm / total if n.real else (n.norm << n.scale_bits) // int(total)
            noise = words(self.net, "norm", sample, int(j), np.arange(len(column)))
            new = rescaled(self.ops, column.astype(n.sum_type), self.ops.const(factor), fine_bits=n.scale_bits,
                           w_max=n.w_max, rounding=n.roundings["weight"], noise=noise)  # fmt: skip
            self.w[:, j] = new.astype(self.w.dtype)
