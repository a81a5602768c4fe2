"""Python text of a recorded program: one loop over neurons, ready for numba and as it is.

The text uses whole numbers, comparisons and shifts only, so that ``numba.njit`` compiles it unchanged; a right shift
of Python and numba integers is the floor, also below zero.
"""

from __future__ import annotations

from spikequant.law.rounding import Rounding
from spikequant.readers.emit import Program, Term

ROUNDED: dict[Rounding, str] = {
    "floor": "{a} >> {n}",
    "toward_zero": "({a} >> {n}) + (1 if {a} < 0 and {cut} != 0 else 0)",
    "half_up": "({a} >> {n}) + (1 if {cut} >= {half} else 0)",
    "half_away": "({a} >> {n}) + (1 if {cut} >= {half} and ({a} >= 0 or {cut} != {half}) else 0)",
    "half_even": "({a} >> {n}) + (1 if {cut} > {half} or ({cut} == {half} and ({a} >> {n}) & 1 == 1) else 0)",
    "stochastic": "({a} >> {n}) + (1 if {cut} + ({noise} & {mask}) >= {whole} else 0)",
}


def python_function(program: Program, name: str) -> tuple[str, tuple[str, ...], tuple[Term, ...]]:
    """The text of ``name(n, ...)``, its array arguments in order, and the tables among them.

    Arguments are flat arrays of `n` elements: first what the program reads (``x0``, states, ``noise_*``; ``tick`` is
    a number), then its tables, then what it writes (``new_v``, ..., ``out``), which may be the states themselves.
    """
    names: dict[int, str] = {}
    lines: list[str] = []
    tables = program.tables
    for term in program.terms:
        if term.constant is not None:
            names[id(term)] = f"({term.constant})" if term.constant < 0 else str(term.constant)
            continue
        if term.known is not None:
            known = _table_name(term, tables)
            names[id(term)], text = f"k_{known}", f"{known}[j]"
        elif term.word == "input":
            names[id(term)], text = f"old_{term.name}", "tick" if term.name == "tick" else f"{term.name}[j]"
        else:
            names[id(term)], text = f"t{len(names)}", _expression(term, [names[id(a)] for a in term.args])
        lines.append(f"{names[id(term)]} = {text}")
    targets = {key: "out" if key == "out" else f"new_{key}" for key in program.outputs}
    lines += [f"{targets[key]}[j] = {names[id(term)]}" for key, term in program.outputs.items()]
    arguments = (*program.inputs, *(_table_name(t, tables) for t in tables), *targets.values())
    body = "".join(f"        {line}\n" for line in lines)
    return f"def {name}(n, {', '.join(arguments)}):\n    for j in range(n):\n{body}", arguments, tables


def _table_name(term: Term, tables: tuple[Term, ...]) -> str:
    same = [t for t in tables if t.name == term.name]
    return f"{term.name}_int" if term.name and same == [term] else f"known{tables.index(term)}"


def _expression(term: Term, args: list[str]) -> str:
    if term.word in ("add", "sub", "mul"):
        return f"{args[0]} {dict(add='+', sub='-', mul='*')[term.word]} {args[1]}"
    if term.word == "ge":
        return f"1 if {args[0]} >= {args[1]} else 0"
    if term.word == "where":
        return f"{args[1]} if {args[0]} != 0 else {args[2]}"
    if term.word == "max":
        return f"{args[0]} if {args[0]} > {args[1]} else {args[1]}"
    if term.word == "clip":
        low, high = term.detail
        return f"{low} if {args[0]} < {low} else ({high} if {args[0]} > {high} else {args[0]})"
    if term.word == "wrap":
        bits, low = term.detail
        return f"(({args[0]} - ({low})) & {2**bits - 1}) + ({low})"
    return _shift(term, args)


def _shift(term: Term, args: list[str]) -> str:
    (a, n), shift = args[:2], term.args[1].constant
    mask = str(2**shift - 1) if shift is not None else f"((1 << {n}) - 1)"
    half = str(2 ** (shift - 1)) if shift is not None else f"(((1 << {n}) >> 1) + (1 if {n} == 0 else 0))"
    whole = str(2**shift) if shift is not None else f"(1 << {n})"
    noise = args[2] if len(args) > 2 else ""
    return ROUNDED[term.detail[0]].format(
        a=a, n=n, cut=f"({a} & {mask})", half=half, mask=mask, whole=whole, noise=noise
    )
