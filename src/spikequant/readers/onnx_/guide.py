"""The page that lies beside exported models."""

README = """# ONNX models of a quantized spiking network

Written by spikequant. Standard operators, integers only: a runtime that keeps to the standard gives the same bits.

- `step.onnx`: one time step. Feed `next.NAME` back as `state.NAME`, `next.past.*` as `past.*`, `next.time` as `time`;
  all of them start at 0.
- `sequence.onnx`: a whole sequence, `x` as `[T, N, ...]` (a static input: `[N, ...]`).
- `vectors.npz`: inputs of `sequence.onnx` and the `scores` that it must give.
- The metadata entry `spikequant` of each model is JSON: hash of the network, scales, states, decoder, noise.

```python
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("sequence.onnx", providers=["CPUExecutionProvider"])
vectors = np.load("vectors.npz")
feed = {entry.name: vectors[entry.name] for entry in session.get_inputs()}
(scores,) = session.run(["scores"], feed)
assert np.array_equal(scores, vectors["scores"])

facts = json.loads(session.get_modelmeta().custom_metadata_map["spikequant"])
# a real input becomes codes by clip(round_half_even(x / facts["input"]["scale"]), low, high);
# the real output is scores * facts["decoder"]["scale"]
```

`noise.*`, where a model has them, are words of rounding noise (int64, 0 to 2^32 - 1). Any random words do; those of the
golden model are computed from seed, layer, state, step, sample and neuron, as spikequant's docs/semantics.md says.
"""
