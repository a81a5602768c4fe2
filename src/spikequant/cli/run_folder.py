"""The run folder: what a command leaves behind, so that the next one (or a person) can go on.  docs/run-folder.md.

`RunFolder.open` looks before any work is done: it refuses a folder that holds another run
or cannot be written.  Nothing is written before `begin`; every file is whole or not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from spikequant.cli.screen import json_ready
from spikequant.law.atomic import write_text
from spikequant.law.errors import ArtifactError

CONFIG, RESULT, METRICS, CURVES = "config.json", "result.json", "metrics.jsonl", "curves.svg"
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.safetensors"
PLAN, NETWORK, COMPARISON, REPORT = "plan.toml", "network.spq", "comparison.safetensors", "report.html"
STUDY_PAGE = "study.html"
NAMES = (CONFIG, RESULT, METRICS, CURVES, WEIGHTS, CHECKPOINT, PLAN, NETWORK, COMPARISON, REPORT)
TRIALS = "trials"
"""Folder in the run folder: what a search for the smallest network has tried so far."""
VERSION = 1
State = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """``config.json``: what was run on what, with which versions, and how far it came.

    ``options`` are those that change the result; ``files`` are names
    relative to the folder with the SHA-256 of what was written.
    """

    command: str
    command_line: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    state: State = "running"
    files: dict[str, str] = field(default_factory=dict)
    version: int = VERSION

    @staticmethod
    def from_dict(record: Any, where: Path) -> RunConfig:
        """Read what `dataclasses.asdict` gave.

        Raises:
            ArtifactError: not such a record, or of another version.
        """
        names = {f.name for f in dataclasses.fields(RunConfig)}
        if not isinstance(record, dict) or set(record) != names:
            raise ArtifactError(f"{where} is not the config of a run; expected the fields {', '.join(sorted(names))}")
        if record["version"] != VERSION:
            raise ArtifactError(f"{where}: run folders of version {record['version']!r}; this release reads {VERSION}")
        return RunConfig(**record)


@final
class RunFolder:
    """A folder that one command owns while it runs."""

    def __init__(self, path: Path, *, before: RunConfig | None = None, overwrite: bool = False) -> None:
        self.path = path
        self.before = before
        self.overwrite = overwrite
        self.config: RunConfig | None = None

    @staticmethod
    @contextlib.contextmanager
    def open(path: Path, command: str, *, resume: bool = False, overwrite: bool = False) -> Iterator[RunFolder]:
        """Claim `path` for `command`; if the block fails before `begin`, no new folder stays behind.

        Raises:
            ArtifactError: it holds another run (or files of our names), or cannot be written.
        """
        if resume and overwrite:
            raise ArtifactError("--resume goes on with a run and --overwrite replaces it; choose one of them")
        before = _look(path, command, resume=resume, overwrite=overwrite)
        made = _make(path)
        folder = RunFolder(path, before=before, overwrite=overwrite)
        try:
            yield folder
        except BaseException as error:
            folder.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            folder._forget_if_empty()
            for new in reversed(made):
                with contextlib.suppress(OSError):
                    new.rmdir()  # only if nothing was written
            raise

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def resuming(self) -> bool:
        """Whether an earlier run goes on here."""
        return self.before is not None and not self.overwrite

    def begin(self, config: RunConfig, *, may_change: Iterable[str] = ()) -> None:
        """Write the config; from here on the folder is this run's.

        Raises:
            ArtifactError: the run that is resumed had other options, network or data.
        """
        if self.resuming and self.before is not None:
            _check_same(self.before, config, frozenset(may_change), self.path)
        elif self.overwrite:
            self._clear()
        self.config = config
        self._write_config()

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a line that a crash cut off is left out."""
        file = self / METRICS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def keep_metrics(self, count: int) -> None:
        """Leave the first `count` lines of ``metrics.jsonl``: the epochs that a checkpoint holds."""
        write_text(self / METRICS, "".join(_line(record) for record in self.metrics()[:count]))

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl`` and push it to the disk."""
        with (self / METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        """Write one JSON document."""
        write_text(self / name, json.dumps(json_ready(record), indent=2, ensure_ascii=False) + "\n")

    def end(self, state: State, files: Iterable[str] = ()) -> None:
        """Write down how the run ended; nothing if it never began."""
        if self.config is None or self.config.state != "running":
            return
        hashes = {name: hashlib.sha256((self / name).read_bytes()).hexdigest() for name in files}
        self.config = dataclasses.replace(self.config, state=state, files={**self.config.files, **hashes})
        if state == "finished":
            self._write_config()
        else:
            with contextlib.suppress(ArtifactError):  # the first error is the one to tell
                self._write_config()

    def _write_config(self) -> None:
        assert self.config is not None
        self.write_json(CONFIG, dataclasses.asdict(self.config))

    def _forget_if_empty(self) -> None:
        """Remove the config of a run that left nothing else."""
        if self.config is None or self.before is not None:
            return
        metrics = self / METRICS
        if metrics.is_file() and not metrics.stat().st_size:
            metrics.unlink()
        if [file.name for file in self.path.iterdir()] == [CONFIG]:
            (self / CONFIG).unlink()

    def _clear(self) -> None:
        """Remove the files of the earlier run, and nothing else."""
        names = [*NAMES, *(self.before.files if self.before is not None else ())]
        for name in dict.fromkeys(names):
            file = self.path / name
            if file.resolve().is_relative_to(self.path.resolve()) and file.is_file():
                file.unlink()
        trials = self / TRIALS
        if self.before is not None and not trials.is_symlink() and (trials / "shrink.json").is_file():
            for file in (trials / "shrink.json", trials / "trials.jsonl", *trials.glob("w*-u*-*.safetensors")):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                trials.rmdir()  # only if nothing of others is in it


def read_config(folder: Path) -> RunConfig:
    """The config of a run folder.

    Raises:
        ArtifactError: no such folder, or not a run folder.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder; expected a run folder, as train or quantize leave with --out")
    file = folder / CONFIG
    if not file.is_file():
        raise ArtifactError(f"{folder} is not a run folder: it has no {CONFIG}; train, quantize and demo make one")
    try:
        return RunConfig.from_dict(json.loads(file.read_text(encoding="utf-8")), file)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ArtifactError(f"{file} is not readable ({error}); run the command again with --overwrite") from error


def note_file(folder: Path, name: str) -> None:
    """Write down the hash of a file that was made again after the run."""
    config = read_config(folder)
    files = {**config.files, name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    text = json.dumps(json_ready(dataclasses.asdict(dataclasses.replace(config, files=files))), indent=2)
    write_text(folder / CONFIG, text + "\n")


def made_folder(path: Path) -> Path:
    """`path`, made if absent.

    Raises:
        ArtifactError: it cannot be made or written.
    """
    _make(path)
    return path


def _look(path: Path, command: str, *, resume: bool, overwrite: bool) -> RunConfig | None:
    """The config of an earlier run that goes on or is replaced; refuses what must not be touched."""
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"--out {path} is a file; choose a folder")
    if not (path / CONFIG).is_file():
        taken = [name for name in NAMES if (path / name).exists()]
        if taken:
            raise ArtifactError(f"--out {path} holds {', '.join(taken)}, not written by a run; choose another folder")
        return None
    before = read_config(path)
    if overwrite or (resume and before.command == command):
        return before
    what = f"--out {path} holds a run of `{before.command}` ({before.state})"
    if resume:
        raise ArtifactError(f"{what}, which `{command}` cannot resume; choose another folder")
    go_on = "--resume to go on with it, " if before.command == command and before.state != "finished" else ""
    raise ArtifactError(f"{what}; choose another folder, or {go_on}--overwrite to replace it")


def _make(path: Path) -> list[Path]:
    """Make the folder; returns the folders that were not there, outermost first."""
    missing = [p for p in (path, *path.parents) if not p.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return missing
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(f"cannot make or write the folder {path}: {reason}; choose another --out") from error


def _check_same(before: RunConfig, now: RunConfig, free: frozenset[str], path: Path) -> None:
    def facts(config: RunConfig) -> dict[str, Any]:
        network = config.network or {}
        data = {f"data {key}": value for key, value in (config.data or {}).items() if key != "folder"}
        options = {k: v for k, v in config.options.items() if k not in free}
        code = {"network": network.get("source"), "the network's file": network.get("sha256")}
        return {"seed": config.seed, **options, **code, **data}

    old, new = json_ready(facts(before)), json_ready(facts(now))
    changed = [f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in {**old, **new} if old.get(k) != new.get(k)]
    if changed:
        raise ArtifactError(
            f"cannot resume {path}: {'; '.join(changed)}. Give the same options as before, or another --out"
        )


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(json_ready(record), ensure_ascii=False) + "\n"
