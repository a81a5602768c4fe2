"""The one-state neuron of Lui & Neftci (2021) in the form in which it learns: three states, one of them an eligibility.

    P[t] = a P[t-1] + S_in[t]
    R[t] = a R[t-1] + a U[t-1] S[t-1] - a b 1[t > 0]
    U[t] = W P[t] + b - R[t];   S[t] = 1[U[t] > 0]

``P`` is ``dU/dW``.  `presets.single_state` is the same neuron as it infers: put ``W P[t-1] + b - R[t-1] = U[t-1]`` into
the last line and ``U[t] = a (1 - S[t-1]) U[t-1] + W S_in[t] + b`` is left, one state with a hard reset.  Both are equal
in exact arithmetic, and so they are in integers where no product with ``a`` has to be rounded.

``a = leak / 2^leak_bits``; a real reading has ``leak_bits = 0``.

Source: arXiv 2104.14117 and its code, SimpleLIFLayer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from spikequant.law.ops import Ops

V = TypeVar("V")
STATES = ("r", "u", "s")


def eligibility(ops: Ops[V], params: Mapping[str, V], p: V, spikes: V) -> V:
    """``P[t]``, in the shape of the input."""
    return ops.add(_leaked(ops, params, p), spikes)


def charge(
    ops: Ops[V], params: Mapping[str, V], state: Mapping[str, V], weighted: V, *, is_first: bool
) -> tuple[dict[str, V], V]:
    """``(new state, S[t])`` for ``W P[t]``.

    Args:
        ops: the reader.
        params: ``leak``, ``leak_bits``, ``bias``.
        state: `STATES` of the step before.
        weighted: ``W P[t]``.
        is_first: of the first step, where the bias has not been counted before.
    """
    kept = ops.add(_leaked(ops, params, state["r"]), _leaked(ops, params, ops.mul(state["u"], state["s"])))
    r = kept if is_first else ops.sub(kept, _leaked(ops, params, params["bias"]))
    u = ops.sub(ops.add(weighted, params["bias"]), r)
    s = ops.sub(ops.const(1), ops.ge(ops.const(0), u))
    return {"r": r, "u": u, "s": s}, s


def _leaked(ops: Ops[V], params: Mapping[str, V], value: V) -> V:
    return ops.shr(ops.mul(value, params["leak"]), params["leak_bits"], "floor")
