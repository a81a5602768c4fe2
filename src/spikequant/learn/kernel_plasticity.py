"""The half of the kernel that learns: traces, STDP, normalisation, adaptation.

Bound and compiled by `build.py` together with `kernel.py`, under the same names.
"""

from __future__ import annotations

from typing import Any

from spikequant.law.noise import mix

# Bound by `build.py`.
SILENT_INPUTS = ADD_TRACES = W_NOISE = TRACE_NOISE = False
ZERO: Any = 0
TRACE_ONE: Any = 1
TRACE_MAX: Any = 1
wide: Any = None
decay: Any = None
land_post: Any = None
land_pre: Any = None
rescale: Any = None
factor_of: Any = None
adapt_of: Any = None
FULL: Any = 0
CARRY: Any = 0
COMMON_MOST: Any = 0
faded: Any = None
lowered: Any = None
base_of: Any = None


def fill_words(key: int, n: int, words: Any) -> None:
    """Noise words ``mix(key, 0 .. n - 1)``."""
    for j in range(n):
        words[j] = mix(key, j)


def raised(trace: Any) -> Any:
    """A trace after a spike."""
    if ADD_TRACES:
        return min(trace + TRACE_ONE, TRACE_MAX)
    return TRACE_ONE


def update_traces(work: Any, n_active: int, n: int, n_in: int, n_sent: int, keys: Any, sample: int, t: int) -> None:
    """Traces decay, then the spikes of this step raise theirs."""
    if TRACE_NOISE:
        for k in range(n_active):
            work.noise_in[k] = mix(mix(mix(keys.pre, sample), t), int(work.active[k]))
        fill_words(mix(mix(keys.post, sample), t), n, work.noise_a)
    decay(n_active, work.pre, work.noise_in)
    decay(n, work.post, work.noise_a)
    for e in range(n_in):
        work.pre[work.spiking[e]] = raised(work.pre[work.spiking[e]])
    for h in range(n_sent):
        work.post[work.hits[h]] = raised(work.post[work.hits[h]])


def depress(weights: Any, work: Any, n_in: int, n_fired: int, key: int) -> None:
    """Each input spike changes its weights to the neurons whose trace is not 0."""
    for e in range(n_in):
        i = int(work.active[work.spiking[e]])
        for f in range(n_fired):
            j = int(work.fired[f])
            if work.post[j] != ZERO:
                word = mix(mix(key, j), 2 * i) if W_NOISE else 0
                weights[i, j] = land_pre(weights[i, j], work.post[j], word)


def potentiate(weights: Any, work: Any, n_active: int, n_sent: int, key: int) -> None:
    """Each spike of a neuron changes its weights from the inputs whose trace is not 0 (or from all)."""
    n = weights.shape[0] if SILENT_INPUTS else n_active
    for h in range(n_sent):
        j = int(work.hits[h])
        for k in range(n):
            if SILENT_INPUTS or work.pre[k] != ZERO:
                i = int(work.active[k])
                word = mix(mix(key, j), 2 * i + 1) if W_NOISE else 0
                weights[i, j] = land_post(weights[i, j], work.pre[k], word)


def remember_fired(work: Any, n_fired: int, n_sent: int) -> int:
    """Add the neurons that just sent a spike to the list of this image's; returns its length."""
    for h in range(n_sent):
        known = False
        for f in range(n_fired):
            known = known or work.fired[f] == work.hits[h]
        if not known:
            work.fired[n_fired] = work.hits[h]
            n_fired += 1
    return n_fired


def normalise(weights: Any, work: Any, n_fired: int, key: int) -> None:
    """Bring the weights of every neuron that fired back to their sum."""
    for f in range(n_fired):
        j = int(work.fired[f])
        total = ZERO
        for i in range(weights.shape[0]):
            total += wide(weights[i, j])
        if total > ZERO:
            factor = factor_of(total)
            for i in range(weights.shape[0]):
                if weights[i, j] != ZERO:
                    word = mix(mix(key, j), i) if W_NOISE else 0
                    weights[i, j] = rescale(weights[i, j], factor, word)


def redraw_adapt(work: Any, n: int, every: bool, key: int) -> None:
    """The rise of the threshold that each neuron's next spike brings; drawn anew for those that fired."""
    for j in range(n):
        if every or work.out[j] != ZERO:
            work.per_neuron[j] = adapt_of(mix(key, j))


def carry_over(a: Any, work: Any, n: int) -> None:
    """The thresholds' common part decays, and takes over from all of them where one is about to be full."""
    common = faded(work.common[0])
    highest = a[0]
    for j in range(n):
        highest = max(highest, a[j])
    if highest > FULL and common + CARRY <= COMMON_MOST:
        common += CARRY
        for j in range(n):
            a[j] = lowered(a[j])
    work.common[0] = common
    work.base[0] = base_of(common)


PLASTICITY = (
    fill_words,
    raised,
    update_traces,
    depress,
    potentiate,
    remember_fired,
    normalise,
    redraw_adapt,
    carry_over,
)
"""In the order in which they may be compiled."""
