"""Put a whole model to rest."""

from __future__ import annotations

from torch import nn


def reset_states(model: nn.Module) -> None:
    """Forget the state of every single-step neuron and delay of `model`, hidden states of snnTorch included."""
    for module in model.modules():
        if hasattr(module, "put_to_rest"):  # a layer that keeps more than its neurons do
            module.put_to_rest()  # type: ignore[operator]
        elif hasattr(module, "step_mode") and hasattr(module, "reset"):
            module.reset()  # type: ignore[operator]
        elif hasattr(module, "reset_states") and hasattr(module, "does_spike"):  # a layer of sinabs that was not read
            module.reset_states()  # type: ignore[operator]
        elif getattr(module, "init_hidden", False) and hasattr(module, "reset_mem"):  # a neuron of snnTorch, not read
            module.reset_mem()  # type: ignore[operator]


def count_samples_from(model: nn.Module, first: int) -> None:
    """The next batch begins with sample number `first`, in the noise of stochastic rounding and of Poisson encoders.

    A word of noise depends on the number of its sample, so figures over a data set do not depend on the batch size
    where every batch goes on counting.  `first` of 0 is what every other call uses.
    """
    for module in model.modules():
        if isinstance(getattr(module, "first_sample", None), int):
            module.first_sample = first  # type: ignore[assignment]
