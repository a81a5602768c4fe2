"""One small integer layer of every preset, for the printed texts."""

from __future__ import annotations

import numpy as np

from spikequant.law.bounds import Interval, exact
from spikequant.law.formats import IntFormat
from spikequant.law.network import Edge, NeuronNode
from spikequant.law.presets import PRESETS
from spikequant.law.spec import StateFormat

THETA = np.array([80, 96, 112])


def layer(name):
    """A layer of three neurons of the preset: 8-bit states, 4 fraction bits, a leak of 230 / 256."""
    spec = PRESETS[name]()
    state = StateFormat(format=IntFormat(bits=8), rounding="half_even")
    changes = {"v": state, "fraction_bits": 4, "compare": ">="}
    params = {"theta": THETA, "v_load": np.array(256), "v_shift": np.array(8), "bias": np.array(3)}
    if spec.leak.form == "multiply":
        changes["leak"] = spec.leak.__class__(form="multiply", bits=8)
        params["leak"] = np.array(230)
    if spec.reset == "subtract":
        params["reset"] = THETA - 1
    if spec.has_current:
        wrapping = StateFormat(format=IntFormat(bits=10), rounding="stochastic", overflow="wrap")
        changes |= {"i": wrapping, "leak_i": spec.leak.__class__(form="multiply", bits=4, rounding="toward_zero")}
        params |= {"leak_i": np.array([12, 13, 14]), "i_load": np.array(256), "i_shift": np.array(8)}
    if spec.has_adaptation:
        threshold = StateFormat(format=IntFormat(bits=12, signed=False), rounding="floor")
        changes |= {"a": threshold, "leak_a": spec.leak.__class__(form="multiply", bits=8)}
        params |= {"leak_a": np.array(250), "adapt": np.array(40), "a_shift": np.array(2)}
    if spec.output == "state":
        params.pop("theta")
    return NeuronNode(
        name=name,
        shape=(3,),
        inputs=(Edge("fc"),),
        gains=(np.array(16),),
        spec=spec.replace(**changes),
        params={k: np.asarray(v, dtype=np.int64) for k, v in params.items()},
    )


SOURCE = Interval(exact(-200), exact(300))
