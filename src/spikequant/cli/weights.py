"""Weights on disk: ours are safetensors; ``.pt`` and ``.pth`` are read without running any code in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikequant.law.artifact import MALFORMED
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE = "weights.safetensors"
WRAPPERS = ("state_dict", "model_state_dict", "model")
NAMED = 4


def save_weights(model: nn.Module, path: Path, *, facts: Mapping[str, Any]) -> None:
    """Write the state dict of `model`, whole or not at all.

    Raises:
        ArtifactError: the folder cannot be written, or the disk is full.
    """
    save_tensors(model.state_dict(), path, facts=facts)


def save_tensors(named: Mapping[str, Tensor], path: Path, *, facts: Mapping[str, Any]) -> None:
    """Write named tensors, whole or not at all; `facts` go into the header."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().clone().contiguous() for name, value in named.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"spikequant": json.dumps(dict(facts))})
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}; nothing was changed") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights in `path` (a file, or a run folder that holds them) into `model`.

    Raises:
        ArtifactError: no such file, not readable, not the weights of this network (missing,
            unexpected and misshapen entries are named), or not finite.
    """
    import torch

    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ArtifactError(f"{file} is not a file; expected weights (.safetensors, .pt, .pth) or a run folder")
    tensors = read_tensors(file)
    check_fit(model, tensors, file)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{file}: {name} holds NaN or infinite values; train again, or take another file")
    model.load_state_dict(tensors)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix in (".pt", ".pth"):
        return _read_torch(file)
    raise ArtifactError(f"{file}: weights end in .safetensors, .pt or .pth; got {file.suffix or 'no ending'}")


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raise `ArtifactError` with every kind of difference between `tensors` and the model's own state dict."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the network has {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    found = [
        *([f"missing: {_some(missing)}"] if missing else []),
        *([f"unexpected: {_some(unexpected)}"] if unexpected else []),
        *([f"another shape: {_some(shapes)}"] if shapes else []),
    ]
    if found:
        raise ArtifactError(
            f"{file} does not fit this network. {'; '.join(found)}. "
            "Was it saved from another version of the network, or from a quantized one?"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, *MALFORMED) as error:
        raise ArtifactError(f"{file} is not a readable safetensors file ({error}); copy or save it again") from error


def _read_torch(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise ArtifactError(
            f"{file} cannot be read as plain weights ({str(error).splitlines()[0]}); "
            "save them with torch.save(model.state_dict(), file)"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ArtifactError(
            f"{file} holds a {type(found).__name__}, not named tensors; save torch.save(model.state_dict(), file)"
        )
    return dict(found)
