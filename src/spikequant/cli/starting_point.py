"""The trained network that a command starts from: a run folder of ``train``, or a network, weights and data by name."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikequant.cli.datasets import TAKEN, DataChoice, ShellData, open_data
from spikequant.cli.networks import NetworkSource, build_network, network_source
from spikequant.cli.run_folder import WEIGHTS, RunConfig, read_config
from spikequant.cli.screen import Screen
from spikequant.law.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from torch import nn

READING_SAMPLES = 8


@dataclass(frozen=True)
class Origin:
    """Where network, weights and data come from; a run folder fills in what was not said."""

    network: str
    weights: Path | None
    data: DataChoice


@dataclass(frozen=True)
class StartingPoint:
    """A trained real network and its data."""

    model: nn.Module
    source: NetworkSource
    weights: Path | None
    data: ShellData

    def weights_hash(self) -> str | None:
        """SHA-256 of the weights file; None if the function itself gives the weights."""
        return None if self.weights is None else hashlib.sha256(self.weights.read_bytes()).hexdigest()


def starting_point(origin: Origin, screen: Screen, *, batch_size: int, seed: int) -> StartingPoint:
    """Build the network, load its weights and its data, and try it on a batch.

    Raises:
        DataError, ArtifactError: whatever does not exist or does not fit; the sentence says what to do.
    """
    from spikequant.cli.foreign_neurons import read_foreign_neurons, spiking_layers
    from spikequant.cli.trial_batch import check_with_batch
    from spikequant.cli.weights import load_weights

    source, origin = _filled(origin, screen)
    data = open_data(origin.data, batch_size=batch_size, seed=seed)
    model = build_network(source, seed=seed)
    if not spiking_layers(model):
        raise DataError(
            f"{source.text} has no spiking neuron that is known; expected neurons of spikequant.nn (LIF, IF, ...) "
            "or of a library that it reads"
        )
    weights = origin.weights
    if weights is None:
        screen.note(f"note: no --weights; taking the network with the weights that {source.text} gives it")
    else:
        weights = weights / WEIGHTS if weights.is_dir() else weights
        load_weights(model, weights)
    check_with_batch(model, data, source)
    read_foreign_neurons(model, data.first(READING_SAMPLES), screen)
    return StartingPoint(model, source, weights, data)


def _filled(origin: Origin, screen: Screen) -> tuple[NetworkSource, Origin]:
    folder = Path(origin.network)
    if not folder.is_dir():
        return network_source(origin.network), origin
    config = read_config(folder)
    if config.command != "train" or config.network is None:
        raise ArtifactError(f"{folder} is a run of `{config.command}`; expected one of `train`, which holds a network")
    source = _source_of(config, folder, screen)
    return source, Origin(origin.network, origin.weights or folder / WEIGHTS, _data_of(config, origin.data))


def _data_of(config: RunConfig, choice: DataChoice) -> DataChoice:
    """The data of the run, where `choice` does not say another thing."""
    data = config.data or {}
    if choice.name not in (None, data.get("name")):
        return choice
    folder = choice.folder or (Path(data["folder"]) if data.get("folder") else None)
    found = {key: data.get(key) for key in ("name", "limit", *TAKEN)}
    said = {key: value for key, value in asdict(choice).items() if value is not None}
    return DataChoice(**{**found, **said, "folder": folder})


def _source_of(config: RunConfig, folder: Path, screen: Screen) -> NetworkSource:
    record: dict[str, Any] = config.network or {}
    if record.get("file") is None:
        return network_source(str(record.get("source")))
    source = network_source(f"{record['file']}:{record['function']}")
    if source.sha256 != record.get("sha256"):
        screen.note(f"note: {source.file} was changed after the run in {folder}; the weights may not fit any more")
    return source
