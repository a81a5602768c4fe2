"""Damaged files of every format: success with sound content or the format's own error, never anything else.

Each batch runs in a process of its own with a watchdog, so that a hang or a crash is a failed test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hostile.attack import attack
from tests.hostile.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 150


def in_a_process(name: str, first: int, cases: int, *options: str, seconds: int = SECONDS) -> dict:
    command = [sys.executable, *options, "-m", "tests.hostile.attack", name, str(first), str(cases)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def needs(name: str) -> None:
    if name.startswith("nir"):
        pytest.importorskip("h5py")


@pytest.mark.parametrize("name", FORMATS)
def test_200_damaged_files(name):
    needs(name)
    tally = in_a_process(name, 0, 200)
    assert tally["wrong"] == []
    assert sum(tally["ends"].values()) == 200
    assert tally["ends"]["refused"] > 50
    assert tally["ends"].get("read", 0) > 2, "a loader that refuses everything proves nothing"


@pytest.mark.parametrize("name", FORMATS)
def test_without_asserts(name):
    """Python -O drops every assert; no validation may go with them."""
    needs(name)
    tally = in_a_process(name, 200, 80, "-O")
    assert tally["wrong"] == []


@pytest.mark.parametrize("name", FORMATS)
def test_the_fuzzer_is_replayable(name):
    needs(name)
    one, two = (attack(name, 40, 8) for _ in range(2))
    assert one["ends"] == two["ends"]


@pytest.mark.conformance
@pytest.mark.parametrize("first", range(1000, 6000, 1000))
@pytest.mark.parametrize("name", FORMATS)
def test_5000_damaged_files(name, first):
    needs(name)
    tally = in_a_process(name, first, 1000, seconds=1200)
    assert tally["wrong"] == []
    assert tally["slowest_s"] < 1
