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
from collectord.alarms.operations import OPERATIONS, held
from collectord.alarms.paths import MISSING

OrList: TypeAlias = list[dict[str, Any]]
"""The and_lists of a rule that held.

``[{"and_list": [{"condition": {…}, "match": [{"json_operand1_value": "5",
"json_operand2_value": "3", "json_variables": {path: JSON}}]}]}]``; operand2 is there where it is an
attribute. Nobody changes one: rows of several findings are shared.
"""

MATCHES = 100
"""The most that are kept of one condition."""
MATCHES_CHARACTERS = 16 << 10
"""No more are kept once those of a condition have so many characters."""
JSON_CHARACTERS = 4 << 10
"""The longest JSON of one value."""
CUT_CHARACTERS = 1000
"""How much of a longer one is shown."""

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
    if len(text) > JSON_CHARACTERS:
        text = _encode(f"{text[:CUT_CHARACTERS]}…")
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


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
    how many matches there are counts, and their variables do. Under other operations the matches
    have to be equal. So have the conditions: another and_list is another alarm.
    """
    return len(before) == len(now) and all(
        len(one["and_list"]) == len(another["and_list"])
        and all(map(_are_same_matches, one["and_list"], another["and_list"]))
        for one, another in zip(before, now, strict=True)
    )


def _are_same_matches(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if before["condition"] != now["condition"]:
        return False
    if not OPERATIONS[now["condition"]["operation"]].is_threshold:
        return bool(before["match"] == now["match"])
    return len(before["match"]) == len(now["match"]) and all(
        one["json_variables"] == another["json_variables"]
        for one, another in zip(before["match"], now["match"], strict=True)
    )
