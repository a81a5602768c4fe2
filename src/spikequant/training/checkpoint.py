"""The checkpoint of `fit`: weights, optimizer, random state and history in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spikequant.law.artifact import MALFORMED
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, DataError
from spikequant.training.history import Epoch
from spikequant.training.precision import Precision
from spikequant.training.processes import ALONE, Processes
from spikequant.training.routines import Routine


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint is of: everything that the next epoch depends on, besides the batches."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    routines: Sequence[Routine] = ()
    processes: Processes = ALONE


def save_checkpoint(path: Path, training: Training, history: list[Epoch]) -> None:
    """Write everything that the next epoch depends on, whole or not at all; of several processes the first writes."""
    model, optimizer = training.model, training.optimizer
    tensors = {f"model/{k}": v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach().clone().contiguous()
            else:
                scalars.setdefault(str(index), {})[key] = value
    first, *others = training.processes.gathered_bytes(torch.get_rng_state().to(training.processes.device))
    tensors |= {"random": first, **{f"random/{k}": state for k, state in enumerate(others, 1)}}
    for k, routine in enumerate(training.routines):
        tensors |= {f"routine/{k}/{n}": t.detach().clone().contiguous() for n, t in routine.state().items()}
    facts = {
        "history": [e.to_dict() for e in history],
        "groups": state["param_groups"],
        "scalars": scalars,
        "routines": [routine.name for routine in training.routines],
        "precision": training.precision.state(),
    }
    if not training.processes.writes:
        return
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


def load_checkpoint(path: Path, training: Training) -> list[Epoch]:
    """Read it back into model, optimizer and routines; the model is untouched if the file is none.

    Raises:
        ArtifactError: no checkpoint, or one of another model, optimizer or way of training.
    """
    model, optimizer = training.model, training.optimizer
    try:
        with safe_open(str(path), framework="pt") as opened:
            facts = json.loads((opened.metadata() or {})["fit"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        states = [tensors["random"], *(tensors[name] for name in sorted(tensors) if name.startswith("random/"))]
        scalars, groups = facts["scalars"], facts["groups"]
        history = [Epoch(**epoch) for epoch in facts["history"]]
        state = _optimizer_state(scalars, tensors)
        routines, precision = list(facts.get("routines", [])), dict(facts.get("precision", {}))
    except (SafetensorError, OSError, *MALFORMED) as error:
        raise ArtifactError(
            f"fit: {path} is not a checkpoint of fit ({error}); delete it or pass resume=False"
        ) from error
    if len(states) != training.processes.size:
        raise ArtifactError(
            f"fit: the checkpoint {path} was written by {len(states)} processes, these are {training.processes.size}; "
            "start as many, delete it, or pass resume=False"
        )
    names = [routine.name for routine in training.routines]
    if routines != names:
        raise ArtifactError(
            f"fit: the checkpoint {path} was written with the routines {', '.join(routines) or 'none'}, this training "
            f"has {', '.join(names) or 'none'}; give the same, delete it, or pass resume=False"
        )
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"fit: the checkpoint {path} belongs to another model: {error}") from error
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(states[training.processes.rank].cpu())
        training.precision.restore(precision)
        for k, routine in enumerate(training.routines):
            prefix = f"routine/{k}/"
            routine.restore(model, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    except DataError as error:
        raise ArtifactError(f"fit: the checkpoint {path} does not fit: {error}") from error
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
