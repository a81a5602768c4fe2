"""Hook of mkdocs: the figures of benchmarks/, which lie outside docs/, become pages of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, *, config: Any) -> Files:
    """Add benchmarks/*.md."""
    for page in sorted((ROOT / "benchmarks").glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{page.name}", content=page.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links from docs/ into the tree's benchmarks/ lead to the site's pages of that name."""
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"](../{up}benchmarks/", f"]({up}benchmarks/")
