"""PyTorch layers: real neurons, their quantized forms, surrogates, encoders."""

from torch import nn as _torch_nn

from spikequant.nn.batch_norm import NORMS, FoldedNorm
from spikequant.nn.branch import Branch, NeuronChoice, Register
from spikequant.nn.delay import Delay
from spikequant.nn.dialect import Dialect, ValueSource, adopt, joined
from spikequant.nn.encoders import LatencyEncoder, Normalize, PoissonEncoder
from spikequant.nn.integer_readers import use_reader
from spikequant.nn.layer import NeuronLayer
from spikequant.nn.neuron import (
    IF,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    LeakyIntegrator,
    MultiSpikeIF,
    Neuron,
    SingleState,
)
from spikequant.nn.paths import Paths, paths
from spikequant.nn.products import use_gradients, use_path
from spikequant.nn.quantized_neuron import QuantizedNeuron
from spikequant.nn.schedule import advance_schedules
from spikequant.nn.surrogate import Surrogate
from spikequant.nn.synapse import SYNAPSES, Synapse, WeightGrid
from spikequant.nn.torch_ops import TorchOps

POOLS = (
    _torch_nn.MaxPool1d,
    _torch_nn.MaxPool2d,
    _torch_nn.AvgPool1d,
    _torch_nn.AvgPool2d,
    _torch_nn.AdaptiveAvgPool1d,
    _torch_nn.AdaptiveAvgPool2d,
)
DROPOUTS = (_torch_nn.Dropout, _torch_nn.Dropout1d, _torch_nn.Dropout2d, _torch_nn.Identity)
STATEFUL = (NeuronLayer,)
ENCODERS = (PoissonEncoder, LatencyEncoder)
ATOMS = (
    *SYNAPSES,
    *NORMS,
    *POOLS,
    *DROPOUTS,
    *STATEFUL,
    _torch_nn.Flatten,
    Synapse,
    FoldedNorm,
    Delay,
    Normalize,
    *ENCODERS,
)


__all__ = [
    "ATOMS",
    "DROPOUTS",
    "ENCODERS",
    "IF",
    "LIF",
    "NORMS",
    "POOLS",
    "STATEFUL",
    "SYNAPSES",
    "AdaptiveLIF",
    "Branch",
    "CubaLIF",
    "Delay",
    "Dialect",
    "FoldedNorm",
    "LatencyEncoder",
    "LeakyIntegrator",
    "MultiSpikeIF",
    "Neuron",
    "NeuronChoice",
    "NeuronLayer",
    "Normalize",
    "Paths",
    "PoissonEncoder",
    "QuantizedNeuron",
    "Register",
    "SingleState",
    "Surrogate",
    "Synapse",
    "TorchOps",
    "ValueSource",
    "WeightGrid",
    "adopt",
    "advance_schedules",
    "joined",
    "paths",
    "use_gradients",
    "use_path",
    "use_reader",
]
