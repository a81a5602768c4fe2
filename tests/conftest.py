"""What all tests share: one thread per worker, and the folder of the real data sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("spikequant", deadline=None, derandomize=True)  # a busy machine is no failure; runs replay
settings.load_profile("spikequant")

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # as many workers as cores: more threads only wait for each other


def pytest_configure(config: pytest.Config) -> None:
    """Norse 1.1 compiles functions on import in a way that torch 2.13 warns of."""
    config.addinivalue_line("filterwarnings", "ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


@pytest.fixture(scope="session", autouse=True)
def _compiled_networks_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled networks go to a folder of this run, not to the user's cache."""
    os.environ["SPIKEQUANT_CACHE"] = str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with mnist/, fashion-mnist/ and so on; skips the test where there is none."""
    beside_the_checkout = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPIKEQUANT_DATA") or beside_the_checkout)
    if not folder.is_dir():
        pytest.skip(f"no data sets: SPIKEQUANT_DATA is not set and {beside_the_checkout} does not exist")
    return folder
