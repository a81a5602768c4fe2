"""How things look: help pages, tables in every width, plain text in a pipe, tab completion."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

import spikequant.models
from spikequant.cli.app import app
from spikequant.cli.networks import MODEL_NAMES
from spikequant.cli.plan_options import CLIPPINGS, QUANTIZERS, PlanFields
from spikequant.cli.tables import Table

COMMANDS = [
    "demo", "train", "sensitivity", "quantize", "compare", "verify", "report", "explore", "export", "targets",
    "reproduce", "bench",
]  # fmt: skip
BOXES = set("─│╭╮╰╯━┃┏┓┡╇┩└┘├┤┬┴┼")


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", [*COMMANDS, None])
def test_help_pages_fit_and_hold_a_purpose_an_example_and_defaults(run, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    done = run(*([command] if command else []), "--help")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("Usage: spikequant")
    shown = [line for line in lines if not line.startswith("  spikequant ")]  # examples are for copying: never broken
    assert max(map(len, shown)) <= width, max(shown, key=len)
    assert not BOXES & set(done.out)
    if command is None:
        assert all(f"  {name}" in done.out for name in COMMANDS)
    else:
        assert "Example" in done.out
        assert f"  spikequant {command} " in done.out
        assert "--json" in done.out
        assert "[default:" in done.out or command in ("compare", "verify", "targets")


def test_a_program_without_words_shows_its_commands(run):
    done = run()
    assert done.code == 0
    assert done.out == run("--help").out


def test_the_page_of_reproduce_names_every_recipe(run):
    from spikequant.recipes.reproduction import recipe_names

    page = run("reproduce", "--help").out
    assert [name for name in recipe_names() if name not in page.partition("PAPER  ")[2]] == []


def test_defaults_of_sensitivity_are_words(run):
    assert "['" not in run("sensitivity", "--help").out


def test_options_are_the_fields_of_a_plan(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = run("quantize", "--help").out
    for name in PlanFields.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in page
    import inspect

    options = inspect.signature(spikequant.Plan.uniform).parameters.values()
    assert set(PlanFields.__dataclass_fields__) == {
        option.name for option in options if option.kind is option.KEYWORD_ONLY
    }


def test_the_words_that_help_lists_are_those_that_there_are():
    from spikequant.quantizers.clipping import CLIPPINGS as KNOWN_CLIPPINGS
    from spikequant.quantizers.registry import QUANTIZERS as KNOWN

    assert set(QUANTIZERS) == set(KNOWN)
    assert set(CLIPPINGS) <= set(KNOWN_CLIPPINGS)
    functions = {name for name in spikequant.models.__all__ if name.islower()}
    assert set(MODEL_NAMES) <= functions


TABLE = Table(("layer", "neurons", "rate"), (("conv1", "1,152", "0.09"), ("fc", "10", "")), title="Rates")


def shown(width, *, terminal, no_color=False):
    file = io.StringIO()
    TABLE.show(Console(file=file, width=width, force_terminal=terminal, no_color=no_color, highlight=False))
    return file.getvalue()


def test_a_table_in_a_pipe_is_aligned_columns_whatever_the_width():
    plain = "Rates\nlayer  neurons  rate\nconv1    1,152  0.09\nfc          10\n"
    assert shown(10, terminal=False) == shown(200, terminal=False) == plain


def test_a_table_on_a_narrow_terminal_is_blocks():
    assert shown(19, terminal=True) == ("Rates\nconv1\n  neurons  1,152\n  rate     0.09\nfc\n  neurons  10\n")


def test_a_table_on_a_terminal_has_a_header_in_colour_and_none_if_colours_are_not_wanted():
    assert "\x1b[1;36mlayer" in shown(20, terminal=True)
    assert "36m" not in shown(20, terminal=True, no_color=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("spikequant ex", ["explore", "export"]),
        ("spikequant train net.py:build --data mn", ["mnist"]),
        ("spikequant train mnist_", ["mnist_net"]),
        ("spikequant export net.spq --format ", ["c99", "nir", "onnx", "vectors"]),
        ("spikequant verify net.spq --readers g", ["golden"]),
        ("spikequant quantize runs/a --membrane-rounding half_", ["half_up", "half_away", "half_even"]),
        ("spikequant quantize runs/a --weight-quantizer l", ["lsq", "lqnet"]),
    ],
)
def test_tab_completion(words, expected):
    variables = {"_SPIKEQUANT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from spikequant.cli import main; main()"],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == expected, done.stderr


def test_help_needs_no_torch():
    program = "import sys, spikequant.cli.app; print([m for m in ('torch', 'sklearn', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_terminal_without_our_signs_shows_other_ones(network, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "spikequant", "quantize", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0


def test_every_command_is_registered_once():
    names = [command.name for command in app.registered_commands]
    assert sorted(names) == sorted(COMMANDS)
