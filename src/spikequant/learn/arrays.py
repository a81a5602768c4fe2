"""The arrays that the kernel works on, by name; tuples, because numba takes them as they are."""

from __future__ import annotations

from typing import Any, NamedTuple


class Keys(NamedTuple):
    """The hashes of the random streams (`poisson.STREAMS`, and the rounding noise of the law)."""

    input: int
    ties: int
    stdp: int
    norm: int
    adapt: int
    pre: int
    post: int
    seed: int


class Work(NamedTuple):
    """Scratch arrays: per neuron, then per input; `base` and `common` hold one number each."""

    x: Any
    v: Any
    r: Any
    out: Any
    sent: Any
    post: Any
    per_neuron: Any
    noise_v: Any
    noise_a: Any
    base: Any
    common: Any
    hits: Any
    fired: Any
    xi: Any
    vi: Any
    ri: Any
    si: Any
    active: Any
    chance: Any
    pre: Any
    noise_in: Any
    spiking: Any


class Record(NamedTuple):
    """What a run leaves: spike counts ``[N, neurons]``, the order of the first spikes, and every state if asked."""

    counts: Any
    order: Any
    length: Any
    spikes: Any
    v: Any
    r: Any
