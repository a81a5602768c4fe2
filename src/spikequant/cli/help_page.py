"""Help pages: one line of purpose, an example, options in groups with their defaults, in any width from 40 columns."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

WIDEST, NARROW = 100, 72
LONGEST_BESIDE = 26
PLAIN_GROUP = "Options"
Row = tuple[str, str]


def command_page(command: Any, ctx: Any) -> str:
    """The page of ``spikequant COMMAND --help``."""
    width = page_width()
    groups: dict[str, list[Row]] = {}
    for parameter in command.get_params(ctx):
        if not getattr(parameter, "hidden", False):
            groups.setdefault(_group(parameter), []).append((_form(parameter), _meaning(parameter)))
    groups[PLAIN_GROUP] = groups.pop(PLAIN_GROUP)  # what all commands share comes last
    blocks = [_usage(command, ctx, width), _prose(command.help or "", width)]
    return "\n\n".join([*blocks, *(_block(title, rows, width) for title, rows in groups.items())]) + "\n"


def program_page(program: Any, ctx: Any) -> str:
    """The page of ``spikequant --help``."""
    width = page_width()
    commands = [program.get_command(ctx, name) for name in program.list_commands(ctx)]
    rows = [(c.name, inspect.cleandoc(c.help or "").splitlines()[0]) for c in commands if not c.hidden]
    options = [(_form(p), _meaning(p)) for p in program.get_params(ctx)]
    blocks = [_usage(program, ctx, width), _prose(program.help or "", width)]
    blocks += [_block("Commands", rows, width), _block(PLAIN_GROUP, options, width)]
    return "\n\n".join([*blocks, _prose("Help on one command: spikequant COMMAND --help", width)]) + "\n"


def page_width() -> int:
    """Columns to write in: those of the terminal, at most 100; 80 where there is none."""
    return max(30, min(shutil.get_terminal_size((80, 24)).columns, WIDEST))


def usage_line(command: Any, ctx: Any) -> str:
    """``Usage: spikequant train NETWORK --data NAME [options]``: what must be given, then that there is more."""
    if hasattr(command, "list_commands"):
        return f"Usage: {ctx.command_path} COMMAND [options]"
    parameters = command.get_params(ctx)
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    words = [_form(p) + ("..." if p.nargs == -1 else "") for p in arguments]
    words = [word if p.required else f"[{word}]" for word, p in zip(words, arguments, strict=True)]
    words += [_form(p) for p in parameters if p.required and p.param_type_name != "argument"]
    return " ".join(["Usage:", ctx.command_path, *words, "[options]"])


def _usage(command: Any, ctx: Any, width: int) -> str:
    text = usage_line(command, ctx)
    return textwrap.fill(text, width, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)


def _prose(text: str, width: int) -> str:
    """Paragraphs filled to the width; indented lines (examples) stay as they are."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        kept = any(line.startswith("  ") for line in block.splitlines())
        blocks.append(block if kept else textwrap.fill(" ".join(block.split()), width, break_on_hyphens=False))
    return "\n\n".join(blocks)


def _block(title: str, rows: Iterable[Row], width: int) -> str:
    """A group of options: what each means stands beside it where there is room, else beneath it."""
    rows = list(rows)
    column = 4 + max((len(form) for form, _ in rows if len(form) <= LONGEST_BESIDE), default=0)
    lines = [f"{title}:"]
    for form, meaning in rows:
        indent = 6 if width < NARROW else column
        wrapped = textwrap.wrap(meaning, width - indent, break_on_hyphens=False) or [""]
        if width < NARROW or len(form) > LONGEST_BESIDE:
            lines.append(f"  {form}")
        else:
            lines.append(f"  {form:<{column - 2}}{wrapped.pop(0)}".rstrip())
        lines += [" " * indent + line for line in wrapped]
    return "\n".join(lines)


def _group(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return getattr(parameter, "rich_help_panel", None) or PLAIN_GROUP


def _form(parameter: Any) -> str:
    """``--out FOLDER``, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(parameter.opts)
    if getattr(parameter, "is_flag", False):
        return "/".join([names, *parameter.secondary_opts])
    return f"{names} {parameter.metavar or 'VALUE'}"


def _meaning(parameter: Any) -> str:
    """The help text, with the default (or that there is none and one must be given)."""
    text = parameter.help or ""
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    flag = getattr(parameter, "is_flag", False)
    if parameter.required:
        return f"{text} [required]"
    if default is None or callable(default) or (flag and not isinstance(parameter.show_default, str)):
        return str(text)
    return f"{text} [default: {default}]"
