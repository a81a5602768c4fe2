"""An integer network layer by layer over all time steps, on bytes.

What `evaluate` runs where it can: byte products and the neuron kernels of the law, a few samples of a layer at a time.
`stages.py` says what becomes of a node, `values.py` holds what travels, `network.py` says why a network may not, and
runs it.
"""

from spikequant.nn.layerwise.network import LayerwiseNet, layerwise

__all__ = ["LayerwiseNet", "layerwise"]
