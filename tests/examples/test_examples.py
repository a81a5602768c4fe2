"""Every script in examples/ runs in an empty folder and prints what its docstring promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
PROMISED = {
    "first_network": [r" 0 differences", r"points of accuracy on 360 samples", r"open .*report\.html"],
    "post_training": [r"times smaller", r" 0 differences", r"written: digits\.spq"],
    "own_training_loop": [r"float: \d", r"trained on: \d", r" 0 differences"],
    "plan_from_file": [r"by the plan: \d", r" 0 differences", r"refused: .*'conv7' matches no layer"],
    "compare_two_plans": [r"3 bits everywhere +\d", r"8 in the first.* \d", r"lif2 +EMD \d"],
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for pattern in PROMISED[script.stem]:
        assert re.search(pattern, done.stdout), f"{pattern} is not in:\n{done.stdout}"
    accuracies = [float(a) for a in re.findall(r"(\d+\.\d+) ?%", done.stdout)]
    assert max(accuracies) > 90, "a network that did not learn proves nothing"


def test_every_example_is_promised_something() -> None:
    assert {script.stem for script in SCRIPTS} == set(PROMISED)
