"""Where the files of a data set are looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from spikequant.law.errors import DataError

DATA_VARIABLE = "SPIKEQUANT_DATA"
"""Environment variable that names the folder of all data sets."""


@dataclass(frozen=True)
class Form:
    """One of the ways in which a data set may lie in a folder: all of these `files`.

    A file may be a pattern such as ``"Train/*/*.bin"``; then at least one file must match.
    """

    title: str
    files: tuple[str, ...]

    def missing_in(self, folder: Path) -> list[str]:
        """The files of this form that `folder` does not have."""
        return [file for file in self.files if not _is_there(folder, file)]


@dataclass(frozen=True)
class Places:
    """The folders and forms of one data set, tried in this order.

    `folders` are paths below the root of all data sets; the root itself is tried last.
    `how_to_get` tells, as a sentence, where the files come from.
    """

    name: str
    folders: tuple[str, ...]
    forms: tuple[Form, ...]
    how_to_get: str = ""

    def find(self, folder: Path | str | None) -> tuple[Path, Form]:
        """The first folder that has all files of a form, and that form.

        Raises:
            DataError: there is none; the message says where was looked, what is missing and
                where it comes from.
        """
        root = root_of(self.name, folder, self.folders[0])
        candidates = [Path(root, *place.split("/")) for place in self.folders] + [root]
        for candidate in candidates:
            for form in self.forms:
                if not form.missing_in(candidate):
                    return candidate, form
        raise DataError(self._nothing_found(candidates))

    def _nothing_found(self, candidates: list[Path]) -> str:
        partly = [
            f"{candidate} has {len(form.files) - len(missing)} of {len(form.files)} files of this form, "
            f"it lacks {', '.join(missing)}"
            for candidate in candidates
            for form in self.forms
            if 0 < len(missing := form.missing_in(candidate)) < len(form.files)
        ]
        wanted = "; or ".join(f"{form.title} ({', '.join(form.files)})" for form in self.forms)
        return (
            f"{self.name}: looked in {', '.join(map(str, candidates))}; none has all of {wanted}. "
            + (f"{'; '.join(partly)}. " if partly else "")
            + f"Put the files there, or name their folder with folder= (at the shell --data-dir) or {DATA_VARIABLE}. "
            + self.how_to_get
        ).strip()


def root_of(name: str, folder: Path | str | None, example: str) -> Path:
    """`folder`, or else the folder that ``SPIKEQUANT_DATA`` names.

    Raises:
        DataError: neither is given.
    """
    root = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if not root:
        raise DataError(
            f"{name}: no folder to look in; pass folder=, or set {DATA_VARIABLE} to a folder that has {example}/"
        )
    return Path(root).expanduser()


def _is_there(folder: Path, file: str) -> bool:
    if "*" in file:
        return next(folder.glob(file), None) is not None
    return (folder / file).is_file()
