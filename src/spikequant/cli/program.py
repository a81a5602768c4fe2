"""What every command shares: exit codes, errors as sentences, help pages."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from spikequant.cli.help_page import command_page, program_page, usage_line
from spikequant.cli.provenance import remember_words
from spikequant.law.errors import MismatchError, SpikequantError

CHECK_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
TRACEBACK = "SPIKEQUANT_TRACEBACK"
"""Environment variable: show the traceback of an error that no command foresaw."""
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[
    0
]  # typer may carry its own click, so click's name is not imported


class Interrupted(KeyboardInterrupt):
    """Ctrl-C with a sentence about what was kept and how to go on."""


class Command(TyperCommand):
    """A command with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(command_page(self, ctx))


class Program(TyperGroup):
    """All commands.  Every way in which one can end becomes an exit code and, on stderr, a sentence."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        formatter.write(program_page(self, ctx))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run and exit."""
        _never_fail_to_print()
        words = tuple(sys.argv[1:] if args is None else args)
        remember_words(words)
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except USAGE_ERROR as error:
            _complain(_usage_sentence(error, words))
            code = BAD_INPUT
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MismatchError as error:
            _complain(f"spikequant: {error}")
            raise typer.Exit(CHECK_FAILED) from error
        except SpikequantError as error:
            _complain(f"spikequant: {error}")
            raise typer.Exit(BAD_INPUT) from error
        except MemoryError as error:
            _complain("spikequant: not enough memory; try a smaller --batch-size or a --limit")
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _complain(f"spikequant: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            raise typer.Exit(BAD_INPUT) from error
        except (typer.Exit, typer.Abort, USAGE_ERROR):
            raise
        except KeyboardInterrupt as error:
            _complain(f"spikequant: {error if isinstance(error, Interrupted) else 'interrupted'}")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            _complain(_unexpected(error))
            raise typer.Exit(BAD_INPUT) from error


def _usage_sentence(error: Any, words: Sequence[str]) -> str:
    """What was wrong with the words on the command line, the form they should have, and where to read on."""
    ctx = error.ctx
    asked = [word for word in words[:1] if not word.startswith("-")]
    path = ctx.command_path if ctx is not None else " ".join(["spikequant", *asked])
    sentence = " ".join(str(error.format_message()).split())
    sentence = sentence[:1].lower() + sentence[1:].rstrip(".") + _given(error, words, sentence)
    lines = [f"{path}: {sentence}."]
    if ctx is not None:
        lines.append(usage_line(ctx.command, ctx))
    return "\n".join([*lines, f"Help:  {path} --help"])


def _given(error: Any, words: Sequence[str], sentence: str) -> str:
    """The value that the option had, if the sentence does not say it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        given = value if equals else after
        if name in names and name.startswith("-") and given and f"'{given}'" not in sentence:
            return f", got '{given}'"
    return ""


def _unexpected(error: Exception) -> str:
    """An error that no command foresaw: what and where, and how to see the rest."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    text = str(error).strip() or "without a message"
    return (
        f"spikequant: unexpected {type(error).__name__}: {text}\n  {where}\n  {TRACEBACK}=1 shows the whole path to it"
    )


def _complain(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        typer.echo(text, err=True)


def _never_fail_to_print() -> None:
    """A terminal that cannot show a sign such as ± shows ? instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIO) or hasattr(stream, "reconfigure"):
            with contextlib.suppress(AttributeError, ValueError, os.error):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
