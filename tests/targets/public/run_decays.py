"""Decays of Loihi by the public rules: ``python run_decays.py lava|nengo_loihi|brian2_loihi cases.npz results.npz``."""

import sys

import numpy as np


def lava(value, decay):
    """The current and the membrane of lava's bit-accurate LIF, nothing arriving."""
    from lava.proc.lif.models import PyLifModelBitAcc

    def model(u, v, du, dv):
        found = object.__new__(PyLifModelBitAcc)
        found.u, found.v, found.du, found.dv = u.copy(), v.copy(), du, dv
        found.ds_offset, found.dm_offset, found.effective_bias = 1, 0, 0
        found.decay_shift, found.decay_unity, found.act_shift, found.vth_shift = 12, 4096, 6, 6
        found.uv_bitwidth, found.max_uv_val = 24, 2**23
        found.subthr_dynamics(np.zeros_like(u))
        return found

    zero = np.zeros_like(value)
    # du = 4095: what is left of the current is nothing, so the membrane shows its own decay
    return model(value, zero, decay, zero).u, model(zero, value, zero + 4095, decay).v


def nengo_loihi(value, decay):
    """`decay_int` of its builder, as the emulator calls it for current and voltage."""
    from nengo_loihi.builder.discretize import decay_int

    return decay_int(value, decay, offset=1), decay_int(value, decay)


def brian2_loihi(value, decay):
    """One step of a `LoihiNeuronGroup` per decay; its decay of the current has no hidden one, so it is given d + 1."""
    from brian2 import prefs
    from brian2_loihi import LoihiNetwork, LoihiNeuronGroup

    prefs.codegen.target = "numpy"
    current, membrane = np.zeros_like(value), np.zeros_like(value)
    for d in np.unique(decay):
        at = decay == d
        for part, options in ((current, {"decay_I": int(d) + 1}), (membrane, {"decay_v": int(d)})):
            group = LoihiNeuronGroup(int(at.sum()), threshold_v_mant=131071, **options)
            name = "I" if part is current else "v"
            setattr(group, name, value[at])
            LoihiNetwork(group).run(1)
            part[at] = np.asarray(getattr(group, name))
    return current, membrane


if __name__ == "__main__":
    rule, cases, results = sys.argv[1:]
    data = np.load(cases)
    u, v = {"lava": lava, "nengo_loihi": nengo_loihi, "brian2_loihi": brian2_loihi}[rule](data["value"], data["decay"])
    np.savez(results, u=u, v=v)
