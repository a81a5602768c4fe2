"""The kernel: images through the network, one loop over time, event by event.

These functions are plain Python over arrays.  `build.py` binds the upper-case and printed names (`advance` and the
like come out of the law, see `printed.py`) and compiles the lot with numba; without numba the same functions run as
they are.  A weight is touched only when a spike uses or changes it: input spikes add rows, an input spike changes the
weights of the neurons that have fired in this image (all others have a trace of exactly 0), a spike of a neuron
changes its column, and only columns that changed are normalised.
"""

from __future__ import annotations

from typing import Any

from spikequant.law.noise import mix
from spikequant.learn.kernel_plasticity import (
    carry_over,
    depress,
    fill_words,
    normalise,
    potentiate,
    redraw_adapt,
    remember_fired,
    update_traces,
)

# Bound by `build.py`.
LEARNS = LAYERED = ONE_SPIKE = HAS_PRE_RULE = V_NOISE = A_NOISE = COMMON = False
GAIN: Any = 1
INHIBIT: Any = 0
EXCITE: Any = 0
ZERO: Any = 0
advance: Any = None
advance_inhibitory: Any = None


def sort_inputs(image: Any, table: Any, work: Any) -> int:
    """Inputs that can spike first, all others behind them; returns how many can."""
    n = 0
    for i in range(image.shape[0]):
        if table[int(image[i])] > 0:
            work.active[n] = i
            work.chance[n] = table[int(image[i])]
            n += 1
    rest = n
    for i in range(image.shape[0]):
        if table[int(image[i])] == 0:
            work.active[rest] = i
            rest += 1
    return n


def draw_inputs(key: int, n_active: int, work: Any) -> int:
    """Which inputs spike in this step (positions within `active`); returns how many."""
    for k in range(n_active):
        work.noise_in[k] = mix(key, int(work.active[k]))
    n = 0
    for k in range(n_active):
        if work.noise_in[k] < work.chance[k]:
            work.spiking[n] = k
            n += 1
    return n


def gather(weights: Any, work: Any, n_in: int, total: int) -> None:
    """``x = gain * (sum of the rows of the spiking inputs) - inhibit * (spikes of all others)``."""
    n = weights.shape[1]
    for j in range(n):
        work.x[j] = ZERO
    for e in range(n_in):
        row = weights[int(work.active[work.spiking[e]])]
        for j in range(n):
            work.x[j] += row[j]
    if LAYERED:
        for j in range(n):
            work.x[j] = GAIN * work.x[j] - INHIBIT * (total - work.si[j])
    else:
        for j in range(n):
            work.x[j] = GAIN * work.x[j] - INHIBIT * (total - work.sent[j])


def send(work: Any, n: int, key: int) -> int:
    """Spikes that leave the neurons: all of this step's, or one drawn among them; returns how many."""
    n_hits = 0
    for j in range(n):
        work.sent[j] = 0
        if work.out[j] != ZERO:
            work.hits[n_hits] = j
            n_hits += 1
    if LEARNS and ONE_SPIKE and n_hits > 1:
        work.hits[0] = work.hits[mix(key, 0) % n_hits]
        n_hits = 1
    for h in range(n_hits):
        work.sent[work.hits[h]] = 1
    return n_hits


def inhibit_layer(work: Any, n: int, keys: Any, sample: int, t: int) -> int:
    """One step of the inhibitory layer on the spikes that were sent before; returns how many fire."""
    if V_NOISE:
        fill_words(mix(mix(mix(mix(mix(0, keys.seed), 1), 0), t), sample), n, work.noise_v)
    for j in range(n):
        work.xi[j] = EXCITE * work.sent[j]
    advance_inhibitory(
        n, work.xi, work.vi, work.ri, work.ri, work.xi, work.base, 0, work.noise_v, work.noise_a, work.si
    )
    total = 0
    for j in range(n):
        total += int(work.si[j])
    return total


def begin(work: Any, n: int) -> None:
    """Forget the last image."""
    for j in range(n):
        work.v[j] = ZERO
        work.r[j] = ZERO
        work.post[j] = ZERO
        work.sent[j] = 0
        work.vi[j] = ZERO
        work.ri[j] = ZERO
        work.si[j] = ZERO
    for i in range(work.pre.shape[0]):
        work.pre[i] = ZERO


def neurons_step(a: Any, work: Any, n: int, keys: Any, sample: int, t: int, last: bool) -> None:
    """The law's step of all excitatory neurons, with its noise."""
    if V_NOISE:
        fill_words(mix(mix(mix(mix(mix(0, keys.seed), 0), 0), t), sample), n, work.noise_v)
    if A_NOISE and last:
        fill_words(mix(mix(mix(mix(mix(0, keys.seed), 0), 2), t), sample), n, work.noise_a)
    tick = 1 if last else 0
    advance(n, work.x, work.v, a, work.r, work.per_neuron, work.base, tick, work.noise_v, work.noise_a, work.out)
    if LEARNS and A_NOISE:
        redraw_adapt(work, n, False, mix(mix(keys.adapt, sample), t + 1))


def write_down(record: Any, work: Any, s: int, t: int, n: int, n_sent: int) -> None:
    """Counts, the order of spikes, and every spike and state if asked."""
    for h in range(n_sent):
        record.counts[s, work.hits[h]] += 1
        if record.length[s] < record.order.shape[1]:
            record.order[s, record.length[s]] = work.hits[h]
        record.length[s] += 1
    if record.spikes.shape[0] > 0:
        for j in range(n):
            record.spikes[t, s, j] = work.sent[j]
            record.v[t, s, j] = work.v[j]
            record.r[t, s, j] = work.r[j]


def present(
    images: Any, table: Any, weights: Any, a: Any, work: Any, record: Any, keys: Any, first: int, steps: int
) -> None:
    """Show images one after the other, learning from each if this kernel learns.

    Args:
        images: uint8 ``[N, inputs]``.
        table: chance of a spike by intensity (`poisson.chance_table`).
        weights: ``[inputs, neurons]``; changed in place.
        a: adaptive thresholds ``[neurons]``; changed in place.
        work: scratch; ``per_neuron`` holds the thresholds where the kernel does not learn.
        record: written.
        keys: of the random streams.
        first: number of the first image in its stream.
        steps: time steps per image.
    """
    n = weights.shape[1]
    for s in range(images.shape[0]):
        sample = first + s
        begin(work, n)
        n_active = sort_inputs(images[s], table, work)
        n_fired = total = 0
        if LEARNS:
            redraw_adapt(work, n, True, mix(mix(keys.adapt, sample), 0))
        for t in range(steps):
            n_in = draw_inputs(mix(mix(keys.input, sample), t), n_active, work)
            gather(weights, work, n_in, total)
            neurons_step(a, work, n, keys, sample, t, t == steps - 1)
            if LAYERED:
                total = inhibit_layer(work, n, keys, sample, t)
            n_sent = send(work, n, mix(mix(keys.ties, sample), t))
            if not LAYERED:
                total = n_sent
            write_down(record, work, s, t, n, n_sent)
            if LEARNS:
                n_fired = remember_fired(work, n_fired, n_sent)
                update_traces(work, n_active, n, n_in, n_sent, keys, sample, t)
                key = mix(mix(keys.stdp, sample), t)
                if HAS_PRE_RULE:
                    depress(weights, work, n_in, n_fired, key)
                potentiate(weights, work, n_active, n_sent, key)
        if LEARNS:
            normalise(weights, work, n_fired, mix(keys.norm, sample))
        if LEARNS and COMMON:
            carry_over(a, work, n)


NETWORK = (sort_inputs, draw_inputs, gather, send, inhibit_layer, begin, neurons_step, write_down, present)
"""In the order in which they may be compiled, behind `PLASTICITY`."""
