"""Run the python blocks of a Markdown page, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line number of the first line and text of every ```python block."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(text[: block.start(1)].count("\n"), block[1]) for block in found]


def run_blocks(page: Path, names: dict[str, Any]) -> None:
    """Execute every python block of a page in one namespace; tracebacks show lines of the page."""
    blocks = python_blocks(page)
    assert blocks, f"{page} has no python block"
    for first_line, block in blocks:
        exec(compile("\n" * first_line + block, str(page), "exec"), names)


def needed_libraries(page: Path) -> list[str]:
    """What the comment ``<!-- needs: snntorch, program cc -->`` at the head of a page names: modules, programs."""
    found = re.search(r"<!-- needs: (.*?) -->", page.read_text(encoding="utf-8"))
    return [name.strip() for name in found[1].split(",")] if found else []
