"""One factor of a space: a role of a group of layers (or a setting of the whole candidate) and what it may be.

A factor is a list of *options*, each a few settings of a `Candidate`.  Options are resolved: a field that the
quantizer of an option does not have is left out of it, so two ways to write the same network are one option.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from spikequant.explore.records import EXTRA_FIELDS
from spikequant.law.errors import PlanError
from spikequant.plan import InputRole, LeakRole, Plan, StateRole, TensorRole
from spikequant.quantizers.registry import QUANTIZERS

Option = Mapping[str, Any]
"""Settings that go together, by their full names; empty: this role stays real."""
FLOAT: Final = "float"
"""Among the bits of a role, or in place of it: the role is not quantized."""
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "weight": TensorRole, "bias": TensorRole, "input": InputRole, "current": StateRole, "membrane": StateRole,
    "threshold": TensorRole, "leak": LeakRole,
}  # fmt: skip
LEAK_FORMS: Final = ("multiply", "shift", "none")
MOST_OPTIONS = 20_000


@dataclass(frozen=True)
class Axis:
    """What a sampler chooses: a name and two or more plain values."""

    name: str
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Factor:
    """Options of one role of one group of layers, or of one setting of the whole candidate.

    `axes` are what samplers see; a choice of all of them is an option (several may be the same one).  ``table`` has
    the option of every choice.
    """

    name: str
    options: tuple[Option, ...]
    axes: tuple[Axis, ...]
    table: Mapping[tuple[Any, ...], int] = dataclasses.field(repr=False)

    def chosen(self, point: Mapping[str, Any]) -> Option:
        """The option at a choice of all axes."""
        return self.options[self.table[tuple(_plain(point[axis.name]) for axis in self.axes)]]

    def point(self, index: int) -> dict[str, Any]:
        """A choice of the axes that gives option `index`."""
        at = next(choice for choice, k in self.table.items() if k == index)
        back = {axis.name: {_plain(value): value for value in axis.choices} for axis in self.axes}
        return {axis.name: back[axis.name][value] for axis, value in zip(self.axes, at, strict=True)}

    def kept(self, indices: Sequence[int]) -> Factor:
        """The same factor with some of its options."""
        return listed(self.name, [self.options[k] for k in indices])


def listed(name: str, options: Sequence[Option], labels: Sequence[str] | None = None) -> Factor:
    """A factor whose one axis lists its options by their labels."""
    texts = tuple(labels if labels is not None else map(label, options))
    table = {() if len(texts) == 1 else (_plain(text),): k for k, text in enumerate(texts)}
    return Factor(name, tuple(options), (Axis(name, texts),) if len(texts) > 1 else (), table)


def label(option: Option) -> str:
    """An option in words: its values by field, or ``float``.

    >>> label({"fc:weight.quantizer": "lsq", "fc:weight.bits": 3}), label({})
    ('bits 3, quantizer lsq', 'float')
    """
    fields = {name.rpartition(".")[2] if ":" in name else name: value for name, value in option.items()}
    words = [
        f"{field} {value if not isinstance(value, (dict, list)) else json.dumps(value)}"
        for field, value in sorted(fields.items())
        if value is not None
    ]
    return ", ".join(words) or FLOAT


def setting_factor(name: str, leaves: Mapping[str, tuple[Any, ...]], needs: Mapping[str, tuple[Any, ...]]) -> Factor:
    """A factor of settings of the whole candidate; `needs`: leaf -> values of the first leaf that it belongs to."""
    first = next(iter(leaves))

    def resolve(raw: dict[str, Any]) -> Option:
        return {k: v for k, v in raw.items() if v is not None and raw[first] in needs.get(k, (raw[first],))}

    return _product(name, {leaf: values for leaf, values in leaves.items()}, resolve, where=f"space: {name}")


def role_factor(pattern: str, role: str, given: Any, where: str) -> Factor:
    """The factor of one role of one group of layers, as a rule of a space writes it.

    `given`: a table of fields, each with one value or a list of values; a list of such tables; ``"float"``.

    Raises:
        PlanError: an unknown field, no choice, a value that no plan takes, a field that changes nothing.
    """
    tables = list(given) if isinstance(given, (list, tuple)) else [given]
    if not tables:
        raise PlanError(f"{where}: an empty list; expected a table of fields, or several")
    parts = [_table_factor(pattern, role, table, where) for table in tables]
    if len(parts) == 1:
        return parts[0]
    options = [option for part in parts for option in part.options]
    return listed(f"{pattern}:{role}", _distinct(options))


def _table_factor(pattern: str, role: str, table: Any, where: str) -> Factor:
    name = f"{pattern}:{role}"
    if table == FLOAT:
        return listed(name, [{}])
    if not isinstance(table, Mapping) or not table:
        raise PlanError(f"{where}: got {table!r}; expected a table of fields such as {{ bits = [4, 8] }}, or 'float'")
    leaves = {f"{name}.{field}": _choices(field, value, f"{where}.{field}") for field, value in _leaves(table)}
    allowed = (*MODELS[role].model_fields, *EXTRA_FIELDS.get(role, ()))
    for leaf in leaves:
        field = leaf.removeprefix(f"{name}.").partition(".")[0]
        if field not in allowed:
            raise PlanError(f"{where}: unknown field {field!r}; expected some of {', '.join(allowed)}")
    return _product(name, leaves, lambda raw: _resolved(pattern, role, raw, where), where)


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field, value in table.items():
        if field == "options" and isinstance(value, Mapping):
            yield from ((f"options.{inner}", choices) for inner, choices in value.items())
        else:
            yield field, value


def _choices(field: str, value: Any, where: str) -> tuple[Any, ...]:
    choices = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    texts = [json.dumps(choice, sort_keys=True, default=str) for choice in choices]
    if not choices or len(set(texts)) < len(texts):
        raise PlanError(f"{where}: got {value!r}; expected one value, or a list of different ones, for {field}")
    return choices


def _product(name: str, leaves: Mapping[str, tuple[Any, ...]], resolve: Any, where: str) -> Factor:
    count = 1
    for values in leaves.values():
        count *= len(values)
    if count > MOST_OPTIONS:
        raise PlanError(f"{where}: {count:,} options for one role; expected at most {MOST_OPTIONS:,}")
    options: list[Option] = []
    index: dict[str, int] = {}
    table: dict[tuple[Any, ...], int] = {}
    for choice in itertools.product(*leaves.values()):
        option = resolve(dict(zip(leaves, choice, strict=True)))
        text = json.dumps(option, sort_keys=True)
        if text not in index:
            index[text] = len(options)
            options.append(option)
        table[
            tuple(_plain(value) for value, values in zip(choice, leaves.values(), strict=True) if len(values) > 1)
        ] = index[text]
    _check_effect(leaves, options, where)
    axes = tuple(Axis(leaf, tuple(map(_shown, values))) for leaf, values in leaves.items() if len(values) > 1)
    return Factor(name, tuple(options), axes, table)


def _check_effect(leaves: Mapping[str, tuple[Any, ...]], options: Sequence[Option], where: str) -> None:
    for leaf in leaves:
        owner = leaf.rpartition(".")[0] if ".options." in leaf else leaf
        if not any(owner in option for option in options):
            raise PlanError(f"{where}: {leaf.rpartition('.')[2]!r} changes nothing in any of its options; leave it out")


def _resolved(pattern: str, role: str, raw: dict[str, Any], where: str) -> Option:
    """The settings of one choice of leaves, checked by what a plan would say to them."""
    prefix = f"{pattern}:{role}."
    fields: dict[str, Any] = {}
    for leaf, value in raw.items():
        field, dot, inner = leaf.removeprefix(prefix).partition(".")
        if dot:
            fields.setdefault("options", {})[inner] = value
        elif value is not None:
            fields[field] = value
    if fields.get("bits") == FLOAT:
        return {}
    if MODELS[role] is TensorRole:
        fields = _tensor_fields(fields)
    if role == "leak":
        fields = _leak_fields(fields, where)
    _check_extras(role, fields, where)
    plain = {k: v for k, v in fields.items() if k not in EXTRA_FIELDS.get(role, ())}
    if plain:
        checked = Plan.from_dict({"rules": [{"match": pattern, role: plain}]}).rules[0]
        found = getattr(checked, role)
        if isinstance(found, TensorRole):
            found.build(where)
        elif isinstance(found, StateRole) and found.signed and found.bits == 1:
            raise PlanError(
                f"{where}: a signed state of 1 bit holds only -1 and 0; set signed = false, or give it 2 bits"
            )
    return {f"{prefix}{field}": fields[field] for field in sorted(fields)}


def _tensor_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what the quantizer does not have; one bit of uniform or LSQ is `Binary`, as in `Plan.uniform`."""
    name = fields.get("quantizer", "uniform")
    if name in ("uniform", "lsq") and fields.get("bits") == 1:
        name = "binary"
    fields = {**fields, "quantizer": name}
    if name not in QUANTIZERS:
        return fields  # the plan says what is wrong with it
    quantizer: Any = QUANTIZERS[name]
    known = {field.name for field in dataclasses.fields(quantizer)}
    options = {k: v for k, v in fields.pop("options", {}).items() if k in known}
    kept = {k: v for k, v in fields.items() if k not in ("bits", "clipping", "rounding") or k in known}
    return {**kept, **({"options": options} if options else {})}


def _leak_fields(fields: dict[str, Any], where: str) -> dict[str, Any]:
    form = fields.get("form", "multiply")
    if form not in LEAK_FORMS:
        raise PlanError(f"{where}.form: got {form!r}; expected one of {', '.join(LEAK_FORMS)}")
    return fields if form == "multiply" else {"form": form}


def _check_extras(role: str, fields: Mapping[str, Any], where: str) -> None:
    share = fields.get("sparsity", 0.0) if role == "weight" else 0.0
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise PlanError(f"{where}.sparsity: got {share!r}; expected a share of weights that is 0, from 0 to under 1")


def _distinct(options: Sequence[Option]) -> list[Option]:
    return list({json.dumps(option, sort_keys=True): option for option in options}.values())


def _shown(value: Any) -> Any:
    """A value as a sampler sees it: a table as its text."""
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)


def _plain(value: Any) -> str:
    """A value as a key: 1, 1.0 and True are three."""
    return json.dumps(value, sort_keys=True, default=str)
