"""docs/guides/export-c.md: its C compiles (its Python runs in test_guides.py), the files are those it lists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conformance.handmade import net as handmade

import spikequant as sq

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "export-c.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def case():
    return next((n, c) for n, c, _ in map(handmade, range(20)) if not n.input.static and n.input.scale is None)


def test_the_files_are_those_of_the_table(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0], {"sq": sq, "net": case[0]})
    listed = set(re.findall(r"`([\w.]+\.(?:h|c|txt|md|json)|Makefile)`", PAGE.read_text().split("## In a firmware")[0]))
    assert listed == {path.name for path in Path("build/gesture").iterdir()}


def test_the_firmware_compiles(case, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    net, codes = case
    sq.export(net, tmp_path, format="c99", name="gesture", inputs=codes)
    lines = blocks("c")[0].splitlines()
    head = [line for line in lines if line.startswith(("#include", "static"))]
    body = [line for line in lines if line not in head]
    text = "\n".join(
        [
            *head,
            "static gesture_input x[GESTURE_INPUTS];",
            "int main(void)",
            "{",
            *body,
            "return (int)scores[0] * 0;",
            "}",
        ]
    )
    (tmp_path / "firmware.c").write_text(text)
    done = subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "firmware.c", "gesture.c", "-o", "firmware"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["./firmware"], cwd=tmp_path, check=False).returncode == 0
