"""Every script of `benchmarks/` can be imported, says its options, and names nothing of ours that is gone."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
WITH = FOLDER.parent / "requirements"
OPTIONAL = {
    line.strip().lower() for page in WITH.glob("*.txt") for line in page.read_text(encoding="utf-8").splitlines()
}
"""What may be missing; a script of ours that is gone may not."""


@pytest.fixture
def script(request, monkeypatch):
    """The script as a module; its neighbours can be imported as when it is run."""
    path = FOLDER / request.param
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"needs {missing.name}")
    yield module
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("script", SCRIPTS, indirect=True)
def test_what_it_names_exists(script):
    tree = ast.parse(Path(script.__file__).read_text(encoding="utf-8"))
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    for node in asked:
        module = vars(script).get(node.value.id)
        if isinstance(module, ModuleType) and module.__name__.startswith("spikequant"):
            assert hasattr(module, node.attr), f"line {node.lineno}: {module.__name__} has no {node.attr}"


@pytest.mark.parametrize(
    "script", [n for n in SCRIPTS if "ArgumentParser(" in (FOLDER / n).read_text(encoding="utf-8")], indirect=True
)
def test_it_says_its_options(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__file__, "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(script.__file__, run_name="__main__")
    assert left.value.code == 0
    assert "--help" in capsys.readouterr().out
