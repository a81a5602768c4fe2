"""The checkpoint folder of `shrink`: every finished trial as a JSON line, its weights in safetensors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spikequant.analyse import Observation
from spikequant.law.atomic import replacing, write_text
from spikequant.law.errors import ArtifactError
from spikequant.shrinking.result import Trial
from spikequant.shrinking.trial import Attempt, Tried

VERSION = 1


class Journal:
    """What is kept of finished trials; without a folder, in memory only.

    `belongs_to` identifies network, data and settings: ``shrink.json`` holds it, ``trials.jsonl`` has a line per trial,
    ``<trial>.safetensors`` its weights before freezing; a training that is under way has
    ``<trial>.fit.safetensors``.
    """

    def __init__(self, folder: Path | None, belongs_to: Mapping[str, Any]) -> None:
        self.folder = folder
        self.belongs_to = dict(belongs_to)
        self.done: dict[str, Trial] = {}

    def open(self, *, resume: bool) -> None:
        """Make the folder, or read what is in it.

        Raises:
            ArtifactError: it cannot be written, or belongs to another network, data or setting.
        """
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if resume and (self.folder / "shrink.json").exists():
                self._read(self.folder)
                return
            for old in (*self.folder.glob("*.safetensors"), self.folder / "trials.jsonl"):
                if _is_ours(old):
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise ArtifactError(f"shrink: cannot use the folder {self.folder}: {error}") from error
        write_text(self.folder / "shrink.json", json.dumps(self.belongs_to, indent=2) + "\n")

    def _read(self, folder: Path) -> None:
        try:
            found = json.loads((folder / "shrink.json").read_text(encoding="utf-8"))
            lines = (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines() if self._trials.exists() else []
            trials = [Trial.from_dict(json.loads(line)) for line in lines]
        except (OSError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"shrink: {folder} does not hold an earlier run ({error}); choose another folder or resume=False"
            ) from error
        other = [k for k in self.belongs_to if found.get(k) != self.belongs_to[k]]
        if other:
            raise ArtifactError(
                f"shrink: the run in {folder} had another {' and '.join(other)}; "
                "choose another folder, or pass resume=False to start anew in this one"
            )
        self.done = {trial.name: trial for trial in trials}

    @property
    def _trials(self) -> Path:
        assert self.folder is not None
        return self.folder / "trials.jsonl"

    def checkpoint(self, attempt: Attempt) -> Path | None:
        """Where the training of an attempt keeps its epochs."""
        return None if self.folder is None else self.folder / f"{stem(attempt)}.fit.safetensors"

    def keep(self, tried: Tried) -> None:
        """Keep a finished trial: weights first, then its line."""
        self.done[tried.trial.name] = tried.trial
        if self.folder is None:
            return
        if tried.weights:
            target = self.folder / f"{stem(tried.attempt)}.safetensors"
            with replacing(target) as temporary:
                try:
                    save_file({k: v.contiguous() for k, v in tried.weights.items()}, temporary)
                except SafetensorError as error:
                    raise ArtifactError(f"shrink: cannot write {target}: {error}") from error
        write_text(self._trials, "".join(json.dumps(trial.to_dict()) + "\n" for trial in self.done.values()))
        checkpoint = self.checkpoint(tried.attempt)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

    def weights(self, attempt: Attempt) -> dict[str, Tensor]:
        """The weights of a finished trial.

        Raises:
            ArtifactError: its file is missing or broken.
        """
        assert self.folder is not None
        path = self.folder / f"{stem(attempt)}.safetensors"
        try:
            found: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"shrink: cannot read the weights of {attempt} from {path}: {error}; pass resume=False to start anew"
            ) from error
        return found


def stem(attempt: Attempt) -> str:
    """File name of an attempt: readable, and unique by a hash of its full name.

    >>> from spikequant.shrinking.ladder import Rung
    >>> stem(Attempt(rung=Rung(4, 8), scheme="ptq"))
    'w4-u8-ptq-ebcce1'
    """
    name = str(attempt)
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _is_ours(path: Path) -> bool:
    return (
        path.name == "trials.jsonl"
        or re.fullmatch(r"w\d+-u\d+-.*-[0-9a-f]{6}(\.fit)?\.safetensors", path.name) is not None
    )


def belonging(model: nn.Module, before: Observation, example: Tensor, **settings: Any) -> dict[str, Any]:
    """What the trials of a folder are a function of: network, held-out data, first batch, settings."""
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name}:{tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    data = hashlib.sha256(example.detach().cpu().contiguous().numpy().tobytes())
    for tensor in (*before.targets, *before.predictions):
        data.update(tensor.contiguous().numpy().tobytes())
    for path, statistics in before.firing.items():
        data.update(path.encode() + statistics.rates().tobytes())
    return {"version": VERSION, "network": weights.hexdigest(), "data": data.hexdigest(), **settings}


def reached_drop(trial: Trial, *, strict: bool) -> float:
    """The drop that is held against the limit: with the upper half of its interval where that is asked."""
    margin = trial.interval if trial.interval == trial.interval else float("inf")  # one sample has no interval
    return trial.drop + (margin if strict else 0.0)


def with_verdict(trial: Trial, *, max_drop: float, strict: bool) -> Trial:
    """A trial judged by a limit, which may be another one than when it was run."""
    if trial.was_refused:
        return replace(trial, met=False)
    reached = reached_drop(trial, strict=strict)
    met = reached <= max_drop
    how = "with its interval " if strict else ""
    verdict = f"keeps the limit {how}".strip() if met else f"over the limit {how}by {reached - max_drop:.2f} points"
    if trial.silent:
        verdict += f"; silent: {', '.join(trial.silent)}"
    return replace(trial, met=met, verdict=verdict)
