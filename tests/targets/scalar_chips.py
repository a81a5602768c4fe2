"""Loihi and Xylo in plain Python integers, one neuron at a time: written from the document of the chips alone.

Nothing of the package is imported.
"""

from __future__ import annotations


def loihi_decay(value, decay):
    """Multiply by (4096 - d), divide by 4096, toward zero."""
    product = abs(value) * (4096 - decay)
    return product // 4096 if value >= 0 else -(product // 4096)


def loihi_wrap(value, bits=24):
    """Modulo 2^24, as two's complement."""
    value %= 2**bits
    return value - 2**bits if value >= 2 ** (bits - 1) else value


def loihi_step(u, v, arriving, *, du, dv, bias, vth):
    """u decays (one more than du), a_in * 2^6 is added; v decays, u and bias are added; fires above vth * 2^6.

    `arriving` is the sum of weights.  Returns ``(u, v, spike)``.
    """
    u = loihi_wrap(loihi_decay(u, du + 1) + arriving * 64)
    v = loihi_decay(v, dv) + u + bias
    v = min(max(v, -(2**23 - 1)), 2**23 - 1)
    if v > vth * 64:
        return u, 0, 1
    return u, v, 0


def xylo_decrement(value, dash):
    """v >> dash with floor; a decrement of 0 becomes 1 toward zero."""
    less = value >> dash
    if less == 0:
        less = (value > 0) - (value < 0)
    return less


def saturated(value):
    """16 bits."""
    return min(max(value, -32768), 32767)


def xylo_deliver(current, events, shift):
    """Every single event saturates; `events` are ``(weight, count)`` in the order of their sources."""
    for weight, count in events:
        for _ in range(count):
            current = saturated(current + (weight << shift))
    return current


def xylo_step(current, v, *, dash_syn, dash_mem, bias, threshold, most):
    """After the delivery: the current decays, then the membrane; returns ``(i, v, spikes)``."""
    current -= xylo_decrement(current, dash_syn)
    change = saturated(-xylo_decrement(v, dash_mem) + current)
    change = saturated(change + bias)
    v, spikes = saturated(v + change), 0
    while v >= threshold and spikes < most:
        v, spikes = v - threshold, spikes + 1
    return current, v, spikes
