"""Names and links in the pages exist: `law/spec.py::NeuronSpec.order`, `[text](adr/0001-....md)`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "spikequant"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def defined(body: list[ast.stmt], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= defined(node.body, f"{prefix}{node.name}.")
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names |= {prefix + t.id for t in targets if isinstance(t, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_cited_names_exist(page: Path) -> None:
    missing = []
    for file, name in re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", page.read_text(encoding="utf-8")):
        path = PACKAGE / file if (PACKAGE / file).exists() else ROOT / file
        if not path.exists():
            missing.append(file)
        elif name and name not in defined(ast.parse(path.read_text(encoding="utf-8")).body):
            missing.append(f"{file}::{name}")
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        if "://" in file:
            continue
        target = page if not file else (page.parent / file).resolve()
        found = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        if not found:
            missing.append(link)
    assert not missing, missing


def anchors(text: str) -> set[str]:
    """Headings as the usual renderers name them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
