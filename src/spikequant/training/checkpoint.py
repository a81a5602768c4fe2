"""The checkpoint of `fit`: weights, optimizer, random state and history in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spikequant.law.artifact import MALFORMED
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError
from spikequant.training.history import Epoch


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch]) -> None:
    """Write everything that the next epoch depends on, whole or not at all."""
    tensors = {f"model/{k}": v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach().clone().contiguous()
            else:
                scalars.setdefault(str(index), {})[key] = value
    tensors["random"] = torch.get_rng_state()
    facts = {
        "history": [e.__dict__ for e in history],
        "groups": state["param_groups"],
        "scalars": scalars,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"fit: cannot make the folder {path.parent}: {error}") from error
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"fit": json.dumps(facts)})
        except SafetensorError as error:
            raise ArtifactError(
                f"fit: cannot write the checkpoint {path}: {error}; the last one is unchanged"
            ) from error


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Read it back into model and optimizer; the model is untouched if that fails.

    Raises:
        ArtifactError: no checkpoint, or one of another model or optimizer.
    """
    try:
        with safe_open(str(path), framework="pt") as opened:
            facts = json.loads((opened.metadata() or {})["fit"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        random, scalars, groups = tensors["random"], facts["scalars"], facts["groups"]
        history = [Epoch(**epoch) for epoch in facts["history"]]
        state = _optimizer_state(scalars, tensors)
    except (SafetensorError, OSError, *MALFORMED) as error:
        raise ArtifactError(
            f"fit: {path} is not a checkpoint of fit ({error}); delete it or pass resume=False"
        ) from error
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"fit: the checkpoint {path} belongs to another model: {error}") from error
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(random)
    except (*MALFORMED, RuntimeError) as error:
        raise ArtifactError(f"fit: the checkpoint {path} belongs to another optimizer: {error}") from error
    return history


def _optimizer_state(scalars: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in scalars.items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state.setdefault(int(index), {})[key] = tensor
    return state
