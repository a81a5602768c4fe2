"""Real files, or a skip that names what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real(data_folder: Path) -> Callable[..., Path]:
    """Call it with the files that a test needs, relative to the folder of all data sets; it returns that folder."""

    def need(*files: str) -> Path:
        missing = [file for file in files if not (data_folder / file).is_file()]
        if missing:
            pytest.skip(f"no {', '.join(missing)} in {data_folder}")
        return data_folder

    return need
