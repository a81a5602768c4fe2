"""Run networks on xylosim, in whatever Python has it: ``python run_xylosim.py cases.npz results.npz``."""

import sys

import numpy as np


def synapses(codes):
    """``[out, in]`` codes as one list of synapses per source, targets ascending."""
    from xylosim.v2 import XyloSynapse

    return [[XyloSynapse(k, 0, int(w)) for k, w in enumerate(column) if w] for column in codes.T]


def main(cases, results):
    """Run the cases."""
    from xylosim.v2 import XyloLayer

    data, found = np.load(cases), {}
    for k in range(int(data["count"])):
        one = {name.split("/", 1)[1]: data[name] for name in data.files if name.startswith(f"{k}/")}
        kept = [synapses(one[name]) for name in ("w_in", "w_rec", "w_out")]  # the simulator holds bare pointers to them
        hidden, outputs = len(one["theta"]), len(one["theta_out"])
        layer = XyloLayer(
            *kept, [[] for _ in range(hidden)],
            one["theta"].tolist(), one["theta_out"].tolist(), True, one["bias"].tolist(), one["bias_out"].tolist(),
            0, 0, 0, one["dash_mem"].tolist(), one["dash_mem_out"].tolist(), [[d] for d in one["dash_syn"].tolist()],
            [[d] for d in one["dash_syn_out"].tolist()], "net",
        )  # fmt: skip
        found[f"{k}/out"] = np.array(layer.evolve(one["spikes"].tolist()))
        found[f"{k}/hidden"] = np.array(layer.rec_recurrent_spikes)
        for name, rows in (("i", layer.rec_i_syn), ("v", layer.rec_v_mem), ("i_out", layer.rec_i_syn_out),
                           ("v_out", layer.rec_v_mem_out)):  # fmt: skip
            found[f"{k}/{name}"] = np.array([list(row) for row in rows]).T
        assert found[f"{k}/i"].shape[1] == hidden
        assert len(kept) == 3
        assert found[f"{k}/v_out"].shape[1] == outputs
    np.savez(results, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
