"""Ways to damage a file: bytes without knowing what they mean, and values of a record knowing what they mean."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 64, 65, 2**31, -(2**31), 2**53, 2**63, -(2**63) - 1, 10**30, 0.0, -0.5, 1e308, 5e-324,
    "", "0", "input", "../../etc/passwd", "\x00", "a" * 5000, "os.system('true')", "nan", [], [[]], {}, [0], [1, 2, 3], [-1],
    {"tensor": "nodes/none"}, {"tensor": 5}, {"source": "none", "delay": 0}, [None] * 50,
)  # fmt: skip


def changed_bytes(sound: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Bytes changed blindly."""
    data, kind = (
        bytearray(sound),
        dice.choice(("flip", "overwrite", "cut", "splice", "insert", "zeros", "word", "swap")),
    )
    place = dice.randrange(len(data))
    if kind == "flip":
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == "overwrite":
        data[place : place + dice.randint(1, 32)] = dice.randbytes(dice.randint(1, 32))
    elif kind == "cut":
        del data[place:]
    elif kind == "splice":
        source, size = dice.randrange(len(data)), dice.randint(1, 400)
        data[place : place + size] = sound[source : source + size]
    elif kind == "insert":
        data[place:place] = dice.randbytes(dice.randint(1, 64))
    elif kind == "zeros":
        size = dice.randint(1, 200)
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif kind == "word":
        place -= place % 8
        value = dice.choice(
            (0, 1, 8, 96, len(data) - 1, len(data), 2**31, 2**32 - 1, 2**63, 2**64 - 1, dice.randrange(len(data)))
        )
        data[place : place + 8] = value.to_bytes(8, "little")
    else:
        other, size = dice.randrange(len(data)), dice.randint(1, 64)
        data[place : place + size], data[other : other + size] = data[other : other + size], data[place : place + size]
    return bytes(data), f"bytes: {kind}"


def changed_record(record: Any, dice: random.Random) -> tuple[Any, str]:
    """A record with one value changed, dropped, added, doubled, moved or buried."""
    record = copy.deepcopy(record)
    holder, key = _somewhere(record, dice)
    kind = dice.choice(("odd value", "odd value", "near value", "drop", "add", "move", "bury"))
    if kind == "odd value":
        holder[key] = copy.deepcopy(dice.choice(ODD_VALUES))
    elif kind == "near value":
        holder[key] = _near(holder[key], dice)
    elif kind == "drop":
        del holder[key]
    elif kind == "add" and isinstance(holder, dict):
        holder[dice.choice(("more", "", "__class__", "type", "name", "\u202e"))] = copy.deepcopy(
            dice.choice(ODD_VALUES)
        )
    elif kind in ("add", "move"):
        other, place = _somewhere(record, dice)
        holder[key] = copy.deepcopy(other[place])
    else:
        value: Any = holder[key]
        for _ in range(dice.choice((1, 2, 60, 400))):
            value = [value] if dice.random() < 0.5 else {"value": value}
        holder[key] = value
    return record, f"record: {kind}"


def _somewhere(record: Any, dice: random.Random) -> tuple[Any, Any]:
    """A holder and a key in it, at a random depth."""
    found: list[tuple[Any, Any]] = []
    todo = [record]
    while todo:
        value = todo.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            found.append((value, key))
            if isinstance(value[key], (dict, list)):
                todo.append(value[key])
    return dice.choice(found) if found else ({"x": 1}, "x")


def _near(value: Any, dice: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return dice.choice((value + 1, value - 1, -value, value * 2, value << 20, float(value), str(value)))
    if isinstance(value, float):
        return dice.choice((-value, value * 2, 1e-320, int(value)))
    if isinstance(value, str):
        return dice.choice((value + "x", value[:-1], value.upper(), value + "\n", value[::-1]))
    if isinstance(value, list):
        return dice.choice((value[::-1], value * 2, value[:-1], [*value, 1]))
    return [value]


def as_json(record: Any, dice: random.Random) -> tuple[str, str]:
    """JSON text; now and then with a doubled key, a NaN, or spaces."""
    text = json.dumps(record)
    kind = dice.choice(("", "", "", "double", "nan", "spaces", "long number"))
    if kind == "double" and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]
    elif kind == "nan":
        text = text.replace(
            dice.choice((": 1", ": 0", ": 8", ": 4")), ": " + dice.choice(("NaN", "Infinity", "-Infinity", "1e999")), 1
        )
    elif kind == "spaces":
        text = text.replace(",", " ,\n\t")
    elif kind == "long number":
        text = text.replace(": 1", ": " + "1" * dice.choice((30, 5000)), 1)
    return text, f", {kind}" if kind else ""
