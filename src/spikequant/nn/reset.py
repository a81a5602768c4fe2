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
