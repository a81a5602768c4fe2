"""docs/vectors.md: its example runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vectors.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)[-1]
    names = {"__name__": "vectors"}
    exec(compile(example, str(PAGE), "exec"), names)
    shown = text.rstrip().removesuffix("```").rpartition("```\n")[2]
    assert capsys.readouterr().out == shown
    with np.load("vectors/vectors.npz") as arrays:
        for signal in names["manifest"]["signals"]:
            assert np.array_equal(arrays[signal["npz"]], names["read"](signal))


def test_every_field_of_the_manifest_is_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)[-1]
    names = {"__name__": "vectors"}
    exec(compile(example, str(PAGE), "exec"), names)
    section = text.split("## Manifest")[1].split("## Example")[0]
    described = set(re.findall(r"`(\w+)`", section))
    assert not set(names["manifest"]) - {"words"} - described
    assert not set(names["manifest"]["signals"][0]) - described
