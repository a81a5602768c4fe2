"""What DESIGN section 2 fixes about the package, read off its syntax trees."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "spikequant"

RANKS = {
    **dict.fromkeys(("law", "data"), 0),
    **dict.fromkeys(("quantizers", "readers"), 1),
    **dict.fromkeys(("nn", "measure"), 2),
    **dict.fromkeys(("models", "frontends", "capture", "plan", "targets"), 3),
    **dict.fromkeys(("quantize", "training"), 4),
    **dict.fromkeys(("analyse", "learn"), 5),
    **dict.fromkeys(("explore", "shrinking"), 6),
    "report": 7,
    **dict.fromkeys(("bench", "recipes"), 8),
    "cli": 9,
    "__main__": 10,
}
# One tree of errors serves every unit.  It lives in law, which data, a sibling, may not import; it is words only, so
# data may import this one module of law.
SIBLING_EXCEPTIONS = {("data", "spikequant.law.errors")}
# The package's own __init__ is the shop window: it may import every unit, and only these may import it.
MAY_IMPORT_THE_FACADE = {"recipes", "cli", "__main__"}
TORCH_FREE = {"law", "readers"}
ROUNDING_OWNERS = ("law/", "readers/", "quantizers/straight_through.py", "nn/torch_ops.py")
ROUNDING_WORDS = {"round", "floor", "ceil", "trunc", "frac", "fix", "bitwise_right_shift", "floor_divide"}
ROUNDING_WORDS |= {f"{word}_" for word in ROUNDING_WORDS} | {"__rshift__"}
PYTHON_MODULES_THAT_ROUND = {"math", "np", "numpy"}  # on Python numbers and numpy arrays, not on tensors
HEAVY = ["snntorch", "spikingjelly", "norse", "sinabs", "nir", "onnx", "onnxruntime", "ray", "plotly", "optuna"]
HEAVY += ["sklearn", "scipy"]
NAMES_THAT_SAY_NOTHING = {"utils", "helpers", "common", "base", "misc"}
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 60


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def unit_of(path: Path) -> str:
    """First path component below spikequant/; '' for the package's own __init__."""
    first = Path(name_of(path).split("/")[0]).stem
    return "" if first == "__init__" else first


def imports_of(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, wherever it stands (functions, TYPE_CHECKING, import_module)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def is_exception(unit: str, name: str) -> bool:
    return any(unit == u and f"{name}.".startswith(f"{module}.") for u, module in SIBLING_EXCEPTIONS)


def rank_violations(path_name: str, source: ast.Module) -> list[str]:
    unit = unit_of(PACKAGE / path_name)
    package = ".".join(["spikequant", *path_name.split("/")[:-1]])
    wrong = []
    for line, name in imports_of(source, package):
        parts = name.split(".")
        if not unit or parts[0] != "spikequant":
            continue
        target = parts[1] if len(parts) > 1 else ""
        where = f"{path_name}:{line}: {unit} imports {name}"
        if target not in RANKS:  # `import spikequant`, or a name out of its __init__
            if unit not in MAY_IMPORT_THE_FACADE:
                wrong.append(f"{where}; import the unit that defines it, not the facade")
        elif target != unit and RANKS[target] >= RANKS.get(unit, -1) and not is_exception(unit, name):
            wrong.append(
                f"{where}; rank {RANKS.get(unit)} may import ranks below it only, {target} has {RANKS[target]}"
            )
    return wrong


def imports_torch(path_name: str, source: ast.Module) -> list[int]:
    package = ".".join(["spikequant", *path_name.split("/")[:-1]])
    return [line for line, name in imports_of(source, package) if name.split(".")[0] == "torch"]


def rounding_calls(source: ast.Module) -> list[str]:
    """Calls of rounding words on what may be a tensor: torch.round(x), x.floor_(), F(x).trunc()."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            found += [f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in ROUNDING_WORDS]
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, word = node.func.value, node.func.attr
        if isinstance(owner, ast.Name) and owner.id in PYTHON_MODULES_THAT_ROUND:
            continue
        if word in ROUNDING_WORDS or any(k.arg == "rounding_mode" for k in node.keywords):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        text = function.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


# --- the rules ----------------------------------------------------------------------------


def test_there_is_a_package_to_read() -> None:
    assert len(package_files()) > 10


def test_every_unit_has_a_rank() -> None:
    unknown = sorted({unit_of(path) for path in package_files()} - RANKS.keys() - {""})
    assert not unknown, f"no rank for {unknown}; DESIGN section 2 names the units, a new one is a decision"


def test_units_import_strictly_lower_ranks() -> None:
    wrong = [line for path in package_files() for line in rank_violations(name_of(path), tree_of(path))]
    assert not wrong, "\n".join(wrong)


def test_law_and_readers_never_import_torch() -> None:
    wrong = [
        f"{name_of(path)}:{line}"
        for path in package_files()
        if unit_of(path) in TORCH_FREE
        for line in imports_torch(name_of(path), tree_of(path))
    ]
    assert not wrong, f"torch is imported in {wrong}"


def test_tensors_are_rounded_by_their_owners_only() -> None:
    wrong = [
        f"{name_of(path)}: {call}"
        for path in package_files()
        if not name_of(path).startswith(ROUNDING_OWNERS) and imports_torch(name_of(path), tree_of(path))
        for call in rounding_calls(tree_of(path))
    ]
    assert not wrong, "rounding belongs to " + ", ".join(ROUNDING_OWNERS) + "; found\n" + "\n".join(wrong)


@pytest.mark.skipif(not (PACKAGE / "__init__.py").exists(), reason="spikequant/__init__.py is not written yet")
def test_import_spikequant_stays_light() -> None:
    program = f"import sys, json, spikequant; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {program}"
    run = subprocess.run([sys.executable, "-c", path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [], "import these inside the functions that need them"


def test_names_say_something() -> None:
    names = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*")]
    wrong = [str(name) for name in names if name.stem in NAMES_THAT_SAY_NOTHING]
    assert not wrong, f"name a file after what is in it: {wrong}"


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in package_files()}
    wrong = {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE}
    assert not wrong, f"more than {MOST_LINES_OF_A_FILE} lines (aim at 250): {wrong}"


def test_functions_are_short() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}: {node.name} has {code_lines(node)} lines"
        for path in package_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MOST_LINES_OF_A_FUNCTION
    ]
    assert not wrong, f"more than {MOST_LINES_OF_A_FUNCTION} lines without docstring (aim at 30):\n" + "\n".join(wrong)


# --- the rules find what they look for ----------------------------------------------------


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("law/ops.py", "from spikequant.data import images"),
        ("law/ops.py", "def f():\n    import spikequant.nn.layers"),
        ("law/ops.py", "if TYPE_CHECKING:\n    from spikequant.quantizers.lsq import LSQ"),
        ("data/idx.py", "from spikequant.law import formats"),
        ("data/idx.py", "from spikequant.law import errors_of_mine"),
        ("nn/layers.py", "from ..measure import firing"),
        ("nn/layers.py", "from .. import plan"),
        ("plan.py", "from . import capture"),
        ("plan.py", "import spikequant"),
        ("plan.py", "from spikequant import Plan"),
        ("plan.py", "importlib.import_module('spikequant.cli')"),
        ("measure/firing.py", "from spikequant.plan import Plan"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert rank_violations(path, ast.parse(source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__init__.py", "from spikequant.plan import Plan"),
        ("data/idx.py", "from spikequant.law.errors import DataError"),
        ("law/ops.py", "from spikequant.law.formats import IntFormat"),
        ("law/ops.py", "from . import formats"),
        ("nn/layers.py", "from ..law import formats"),
        ("nn/layers.py", "from spikequant import law"),
        ("plan.py", "from .quantizers.lsq import LSQ"),
        ("cli/main.py", "import spikequant as sq"),
        ("nn/layers.py", "import torch, numpy"),
    ],
)
def test_a_right_import_is_let_through(path: str, source: str) -> None:
    assert not rank_violations(path, ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.round(x)",
        "x.floor_()",
        "(x / s).round()",
        "torch.bitwise_right_shift(x, 2)",
        "from torch import trunc",
        "torch.div(x, 2, rounding_mode='floor')",
    ],
)
def test_rounding_is_found(source: str) -> None:
    assert rounding_calls(ast.parse(source))


@pytest.mark.parametrize("source", ["round(2.5)", "math.floor(x)", "np.ceil(x)", "x.rounding", "x.sum()"])
def test_rounding_of_python_numbers_is_let_through(source: str) -> None:
    assert not rounding_calls(ast.parse(source))


def test_docstrings_do_not_count_as_code() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a'
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(function) == 3
