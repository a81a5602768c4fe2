"""Where words, tables and the JSON document of a command go."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import typer
from rich.console import Console
from rich.text import Text

from spikequant.cli.tables import Table


@final
class Screen:
    """Results on standard output, what happens meanwhile on standard error.

    With ``--json`` standard output carries one JSON document and nothing else; every word
    and table then goes to standard error.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.progress = Console(stderr=True, highlight=False)
        self.results = self.progress if as_json else Console(highlight=False)

    def note(self, text: str) -> None:
        """Something that happens on the way."""
        _print(self.progress, text)

    def say(self, text: str = "", *, style: str = "") -> None:
        """A sentence of the result."""
        _print(self.results, text, style)

    def table(self, table: Table) -> None:
        """A table of the result."""
        table.show(self.results)

    def files(self, folder: Path, meanings: Mapping[str, str]) -> None:
        """What was written, one line a file."""
        self.say(f"Files in {folder}", style="bold")
        self.pairs(meanings)

    def pairs(self, meanings: Mapping[str, str]) -> None:
        """Names with what they mean: beside each other, or beneath where the terminal is narrow."""
        column = max(len(name) for name in meanings)
        width = 4 + column + max(len(meaning) for meaning in meanings.values())
        for name, meaning in meanings.items():
            if self.results.is_terminal and width > self.results.width:
                self.say(f"  {name}")
                self.command(f"    {meaning}")
            else:
                self.say(f"  {name.ljust(column)}  {meaning}")

    def command(self, text: str) -> None:
        """Something to copy: the terminal may wrap it, no line end is put into it."""
        self.results.print(Text(text), soft_wrap=True)

    def document(self, record: Mapping[str, Any]) -> None:
        """The JSON document, where one was asked for."""
        if self.as_json:
            typer.echo(json.dumps(json_ready(record), ensure_ascii=False))


def json_ready(value: Any) -> Any:
    """`value` as standard JSON: tuples as lists, paths as text, NaN and infinity as null.

    >>> json_ready({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_ready(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _print(console: Console, text: str, style: str = "") -> None:
    # In a pipe a sentence is one line; a terminal breaks it between words.
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)
