"""Run networks on lava's bit-accurate process models: ``python run_lava.py cases.npz results.npz``.

All networks of a file run at once: their first layers read one common input, each its own part of it.
"""

import sys

import numpy as np


def dense(codes, exponent):
    """Synapses; weights of one sign have all 8 bits, of both signs the even ones."""
    from lava.proc.dense.process import Dense
    from lava.utils.weightutils import SignMode

    mode = SignMode.MIXED if (codes > 0).any() and (codes < 0).any() else SignMode.EXCITATORY
    if mode is SignMode.EXCITATORY and (codes < 0).any():
        mode = SignMode.INHIBITORY
    return Dense(weights=codes, weight_exp=exponent, sign_mode=mode)


def main(cases, results):
    """Run the cases."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF
    from lava.proc.monitor.process import Monitor

    data = np.load(cases)
    steps = len(data["spikes"])
    source = Source(data=data["spikes"].T.astype(int))
    watched = {}
    for name in data["layers"].tolist():
        one = {key.rsplit("/", 1)[1]: data[key] for key in data.files if key.startswith(f"{name}/")}
        size = len(one["w"])
        lif = LIF(shape=(size,), du=int(one["du"]), dv=int(one["dv"]), vth=int(one["vth"]),
                  bias_mant=one["bias_mant"].astype(int), bias_exp=int(one["bias_exp"]))  # fmt: skip
        feed = dense(one["w"], int(one["exponent"]))
        before = str(one["source"])
        (source.s_out if before == "input" else watched[before][0].s_out).connect(feed.s_in)
        feed.a_out.connect(lif.a_in)
        if "r" in one:
            back = dense(one["r"], int(one["exponent"]))
            lif.s_out.connect(back.s_in)
            back.a_out.connect(lif.a_in)
        monitors = {}
        for key, port in (("u", lif.u), ("v", lif.v), ("s", lif.s_out)):
            monitors[key] = Monitor()
            monitors[key].probe(port, steps)
        watched[name] = lif, monitors
    lif = next(iter(watched.values()))[0]
    lif.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    found = {}
    for name, (process, monitors) in watched.items():
        for key, monitor in monitors.items():
            (per_process,) = monitor.get_data().values()
            (found[f"{name}/{key}"],) = per_process.values()
        assert process is not None
    lif.stop()
    np.savez(results, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
