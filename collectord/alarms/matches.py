"""What was found where a condition held: values as JSON, and whether two findings are one alarm.

Findings are shown to people and kept in snapshots, so they are small, whatever a view holds. How a
condition finds its values is settled in ``conditions.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from collectord import wire
from collectord.alarms.operations import OPERATIONS, equal, held
from collectord.alarms.paths import MISSING

OrList: TypeAlias = list[dict[str, Any]]
"""The and_lists of a rule that held.

``[{"and_list": [{"condition": {…}, "match": [{"json_operand1_value": "5",
"json_operand2_value": "3", "json_variables": {path: JSON}}]}]}]``; operand2 is there where it is an
attribute. Nobody changes one: rows of several findings are shared.
"""

MATCHES = 100
"""The most that are kept of one condition. What they are plays no part: else a number that becomes
longer could make another alarm."""
JSON_CHARACTERS = 1000
"""The longest JSON of one value."""
CUT_CHARACTERS = 480
"""How much of a longer one is shown: as a text in JSON each character may be written as two."""

OPERANDS = ("json_operand1_value", "json_operand2_value")

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(value: Any) -> str:
    """A value as JSON; a text that holds JSON already stays as it is.

    What JSON has no word for is written as ``wire.json_value`` says. Of a JSON that is longer than
    ``JSON_CHARACTERS`` the beginning is shown, as a text. What comes out can always be encoded.
    """
    kind = type(value)
    if kind is int or kind is bool or value is None:
        return _encode(value)
    is_json = kind is str and held(value, MISSING) is not MISSING
    text = value if is_json else _beginning(value)
    if not text.isascii():
        text = _SURROGATE.sub(_escaped, text)
    return text if len(text) <= JSON_CHARACTERS else _encode(f"{text[:CUT_CHARACTERS]}…")


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _beginning(value: Any) -> str:
    """The JSON of a value, or enough of it to see that it is too long."""
    pieces: list[str] = []
    room = JSON_CHARACTERS
    for piece in _pieces(value):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            break
    return "".join(pieces)


def _pieces(value: Any) -> Iterator[str]:
    kind = type(value)
    if kind is dict:
        yield "{"
        for index, (key, member) in enumerate(value.items()):
            yield f"{', ' if index else ''}{_encode(wire.json_key(key)[:JSON_CHARACTERS])}: "
            yield from _pieces(member)
        yield "}"
    elif kind is list:
        yield "["
        for index, element in enumerate(value):
            if index:
                yield ", "
            yield from _pieces(element)
        yield "]"
    elif kind is str or kind is bytes:
        yield _encode(wire.json_value(value[: JSON_CHARACTERS + 1]))
    else:
        yield _encode(wire.json_value(value))


def is_same(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what holds now is the alarm that held before.

    Under a threshold (``<``, ``<=``, ``>``, ``>=``, ``range``) it is, where only operands changed;
    how many matches there are counts, and their variables do. Under other operations all values
    have to be equal, as ``==`` takes it. So have the conditions: another and_list is another alarm.
    """
    return before == now or (
        len(before) == len(now)
        and all(
            len(one["and_list"]) == len(another["and_list"])
            and all(map(_are_same_matches, one["and_list"], another["and_list"]))
            for one, another in zip(before, now, strict=True)
        )
    )


def _are_same_matches(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if before["condition"] != now["condition"] or len(before["match"]) != len(now["match"]):
        return False
    is_threshold = OPERATIONS[now["condition"]["operation"]].is_threshold
    are_same = _have_equal_variables if is_threshold else _are_equal_matches
    return all(map(are_same, before["match"], now["match"]))


def _are_equal_matches(one: Mapping[str, Any], another: Mapping[str, Any]) -> bool:
    return one == another or (
        all(_are_equal_texts(one.get(name), another.get(name)) for name in OPERANDS)
        and _have_equal_variables(one, another)
    )


def _have_equal_variables(one: Mapping[str, Any], another: Mapping[str, Any]) -> bool:
    before, now = one["json_variables"], another["json_variables"]
    return before == now or (
        before.keys() == now.keys()
        and all(_are_equal_texts(before[path], text) for path, text in now.items())
    )


def _are_equal_texts(one: str | None, another: str | None) -> bool:
    """Whether two values are equal that are shown so: 1 and 1.0 are."""
    if one is None or another is None:
        return one is another
    if one == another:
        return True
    value = held(one, MISSING)
    return value is not MISSING and equal(value, held(another, MISSING))
