"""docs/semantics.md is run: every trace, leak, register and rounding on the page against `IntOps`."""

from __future__ import annotations

import ast
import operator
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikequant.law import presets
from spikequant.law.formats import IntFormat
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.law.rounding import shift_right
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "semantics.md").read_text(encoding="utf-8")
TRACES = {
    name: (block, table)
    for name, block, table in re.findall(r"```toml\n# trace: (\w+)\n((?:[^`].*\n)*)```\n\n((?:\|.*\n)+)", PAGE)
}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
STATES = {"v": "v", "i": "i", "a": "a", "s[t-1]": "s", "r": "r"}


class Recorder(IntOps):
    """`IntOps` that remembers what it computed and compared."""

    def __init__(self) -> None:
        self.values: set[int] = set()
        self.compares: list[tuple[int, int]] = []

    def _kept(self, value: Any) -> Any:
        self.values.add(int(value))
        return value

    def add(self, a: Any, b: Any) -> Any:
        return self._kept(super().add(a, b))

    def sub(self, a: Any, b: Any) -> Any:
        return self._kept(super().sub(a, b))

    def mul(self, a: Any, b: Any) -> Any:
        return self._kept(super().mul(a, b))

    def shr(self, a: Any, n: Any, rounding: Any, noise: Any = None) -> Any:
        return self._kept(super().shr(a, n, rounding, noise))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._kept(super().where(condition, a, b))

    def ge(self, a: Any, b: Any) -> Any:
        self.compares.append((int(a), int(b)))
        return super().ge(a, b)


def rows_of(table: str) -> tuple[list[str], list[list[str]]]:
    lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    assert all(len(line) == len(lines[0]) for line in lines)
    return lines[0], lines[2:]


def section(marker: str) -> tuple[list[str], list[list[str]]]:
    found = re.search(rf"<!-- {marker}:.*?-->\n((?:\|.*\n)+)", PAGE)
    assert found, f"the page has no table {marker}"
    header, rows = rows_of(found[1])
    return [h.strip("`") for h in header], rows


def value_of(expression: str) -> Fraction:
    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        assert isinstance(node, ast.BinOp), expression
        return OPERATORS[type(node.op)](walk(node.left), walk(node.right))

    return walk(ast.parse(expression.replace("·", "*").strip(), mode="eval").body)


def result_of(cell: str) -> int:
    """`23/4 = 5.75 → 5` is checked as arithmetic up to the first arrow; the last number is the result."""
    exact, *rounded = cell.split("→")
    parts = [value_of(part) for part in exact.split("=")]
    assert len(set(parts)) == 1, f"{cell}: the two sides differ"
    return int(rounded[-1]) if rounded else int(parts[-1])


def register_of(fields: dict[str, Any]) -> StateFormat:
    of_format = {"bits", "signed", "narrow"}
    rest: dict[str, Any] = {k: v for k, v in fields.items() if k not in of_format}
    return StateFormat(format=IntFormat(**{k: v for k, v in fields.items() if k in of_format}), **rest)


def spec_of(name: str, block: dict[str, Any]) -> NeuronSpec:
    changes: dict[str, Any] = dict(block["spec"])
    for key, value in changes.items():
        if isinstance(value, dict):
            changes[key] = Leak(**value) if key.startswith("leak") else register_of(value)
    return presets.PRESETS[name](**block.get("arguments", {})).replace(**changes)


def test_every_preset_has_a_trace() -> None:
    assert set(TRACES) == set(presets.PRESETS)


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_what_the_law_does(name: str) -> None:
    block, table = tomllib.loads(TRACES[name][0]), TRACES[name][1]
    spec = spec_of(name, block)
    header, rows = rows_of(table)
    quiet = IntOps()
    params = prepare(quiet, spec, {key: quiet.const(value) for key, value in block["params"].items()})
    state = {key: quiet.const(0) for key in spec.state_formats()}
    outputs = []
    for t, cells in enumerate(rows):
        row = dict(zip(header, cells, strict=True))
        where = f"{name}, step {t}"
        assert int(row.pop("t")) == t, where
        for column, key in STATES.items():
            if column in row:
                assert int(row.pop(column)) == int(state[key]), f"{where}: {column} before"
        ops = Recorder()
        state, output = step(ops, spec, params, state, ops.const(int(row.pop("x"))))
        outputs.append(int(output))
        if "out" in row:
            assert int(row.pop("out")) == int(output), f"{where}: output"
        if "compare" in row:
            written = [tuple(int(n) for n in one.split("≥")) for one in row.pop("compare").split(",")]
            assert written == ops.compares[bool(spec.refractory) :], f"{where}: compare"
        for key in ("v", "i", "a"):
            if f"{key} stored" in row:
                cell = row.pop(f"{key} stored")
                assert result_of(cell) == int(state[key]), f"{where}: {key} stored"
                assert {int(n) for n in cell.split("→")[1:-1]} <= ops.values, f"{where}: {cell}"
        for column, cell in row.items():
            assert result_of(cell) in ops.values, f"{where}: {column}: {cell} is nothing that the step computes"
    if spec.output == "spike":
        assert 0 in outputs
        assert any(outputs), "a silent trace proves nothing"


def one_step(spec: NeuronSpec, params: dict[str, int], x: int, code: int = 0) -> int:
    ops = IntOps()
    ready = prepare(ops, spec, {key: ops.const(value) for key, value in params.items()})
    return int(step(ops, spec, ready, {"v": ops.const(code)}, ops.const(x))[1])


def test_leaks() -> None:
    header, rows = section("leaks")
    forms = set()
    for form, options, *cells in rows:
        fields: dict[str, Any] = {"form": form.strip("`")}
        forms.add(fields["form"])
        params = {"v_load": 1, "v_shift": 0}
        for option in filter(None, options.strip("`").split(", ")):
            key, value = option.split("=")
            if key in ("leak", "leak2"):
                params[key] = int(value)
            else:
                fields[key] = int(value) if value.isdigit() else value
        spec = NeuronSpec(order=("leak", "integrate"), output="state", leak=Leak(**fields), v=register_of({"bits": 16}))
        got = [one_step(spec, params, 0, code=int(code)) for code in header[2:]]
        assert got == [int(c) for c in cells], f"{form} {options}"
    assert len(forms) == 7


def test_registers() -> None:
    header, rows = section("registers")
    for value, *cells in rows:
        for overflow, cell in zip(header[1:], cells, strict=True):
            spec = NeuronSpec(order=("integrate",), output="state", v=register_of({"bits": 5, "overflow": overflow}))
            assert one_step(spec, {"v_load": 1, "v_shift": 0}, int(value)) == int(cell), f"{value} {overflow}"


def test_roundings() -> None:
    header, rows = section("roundings")
    halves = np.array([int(2 * Fraction(v)) for v in header[1:]])
    for name, *cells in rows:
        rule: Any = name.strip("`")
        assert shift_right(halves, 1, rule).tolist() == [int(c) for c in cells], name
    assert len(rows) == 5


def test_units_of_the_example() -> None:
    """The parameters of the traces come from the real values that the page names."""
    lsb = Fraction("0.1") / 4
    theta = Fraction("1.01") / lsb
    assert (-(-theta // 1), round(theta), round(Fraction("0.08") / lsb), Fraction("0.75") * 4) == (41, 40, 3, 3)


def test_specs_of_libraries_exist() -> None:
    table = PAGE.split("## Which library default is which spec")[1].split("## The eleven rules")[0]
    names = {key: getattr(presets, key) for key in dir(presets) if not key.startswith("_")}
    found = re.findall(r"^\|[^|]*\|[^|]*\| `([^|]*)` \|", table, flags=re.MULTILINE)
    assert len(found) > 10
    for expression in found:
        assert isinstance(eval(expression, {"__builtins__": {}}, names), NeuronSpec), expression


def test_orders_of_chips_exist() -> None:
    table = PAGE.split("## What a spec can express of a chip")[1].split("## Which library")[0]
    orders = re.findall(r'`(\((?:"\w+"(?:, )?)+\))`', table)
    assert len(orders) == 2
    for text in orders:
        order = ast.literal_eval(text)
        current = Leak(form="shift") if "decay_current" in order else None
        NeuronSpec(order=order, leak=Leak(form="shift"), leak_i=current, reset="zero")
