"""Learning without labels: Diehl & Cook's network on law steps, quantized while it learns or after."""

from spikequant.learn.build import ENGINES
from spikequant.learn.checkpoint import load_network, save_network
from spikequant.learn.config import DiehlCook, Precision, Register
from spikequant.learn.experiment import Outcome, experiment, precision_of
from spikequant.learn.lower import input_spikes, lower, verify
from spikequant.learn.memory import Memory, memory, saving
from spikequant.learn.network import Activity, Network
from spikequant.learn.plots import confusion_figure, field_figure, fields
from spikequant.learn.poisson import chance_table, poisson_spikes
from spikequant.learn.ptq import quantized
from spikequant.learn.stdp import RULES, Rates, Rule
from spikequant.learn.training import Chunk, Trained, epoch_order, train
from spikequant.learn.voting import VOTES, Labels, assign_labels, confusion, predict, votes

__all__ = [
    "ENGINES",
    "RULES",
    "VOTES",
    "Activity",
    "Chunk",
    "DiehlCook",
    "Labels",
    "Memory",
    "Network",
    "Outcome",
    "Precision",
    "Rates",
    "Register",
    "Rule",
    "Trained",
    "assign_labels",
    "chance_table",
    "confusion",
    "confusion_figure",
    "epoch_order",
    "experiment",
    "field_figure",
    "fields",
    "input_spikes",
    "load_network",
    "lower",
    "memory",
    "poisson_spikes",
    "precision_of",
    "predict",
    "quantized",
    "save_network",
    "saving",
    "train",
    "verify",
    "votes",
]
