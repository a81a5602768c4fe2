"""Every guide in docs/guides runs from top to bottom in an empty folder, and what it prints with `assert` holds."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.docs.pages import ROOT, needed_libraries, python_blocks, run_blocks

from spikequant.quantizers import QUANTIZERS

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
WITH_PYTHON = [page for page in GUIDES if python_blocks(page)]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_a_guide_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in needed_libraries(page):
        program = needed.removeprefix("program ")
        there = shutil.which(program) if program != needed else importlib.util.find_spec(needed)
        if there is None:
            pytest.skip(f"{page.name} needs {needed}, which is not installed")
    monkeypatch.chdir(tmp_path)
    guide = ModuleType("guide")  # a module of its own: classes that a guide defines can be pickled
    monkeypatch.setitem(sys.modules, "guide", guide)
    known = dict(QUANTIZERS)
    try:
        run_blocks(page, vars(guide))
    finally:  # a guide may add a quantizer
        QUANTIZERS.clear()
        QUANTIZERS.update(known)


def test_every_guide_is_in_the_site() -> None:
    listed = set(re.findall(r"guides/([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {page.name for page in GUIDES} == listed
