"""The operations of a condition, as a table; how values compare; texts that hold JSON.

Everything here is about two values that were already found. Where they are found is settled in
``paths.py``, what a condition makes of them in ``evaluation.py``.

Values are what msgpack and JSON know. Nothing here raises, whatever they are, and none is changed:

- A text that holds JSON stands for what it holds: see ``looked_into``. What is inside of a list or
  a map stays as it is.
- 1 and 1.0 are equal; 1 and true are not, nor are a text and its bytes; NaN equals nothing.
- Null is below everything. Numbers compare with numbers, texts with texts, booleans with booleans,
  and lists with lists, element by element. All else has no order, NaN neither, and an operation
  that asks for an order doesn't hold then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

JSON_CHARACTERS = 64 << 10
"""A text that is longer is not looked into."""
JSON_NESTING = 32
"""Nor one whose lists and maps are nested deeper: it is a text and no more."""
_DIGITS = 308
"""An integer of so many digits is still below the largest float."""


# --- texts that hold JSON -----------------------------------------------------------------------

_SPACE = " \t\n\r"
_WORDS = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)", re.ASCII)


def looked_into(value: Any) -> Any:
    """What a text holds, where it holds JSON; any other value as it is."""
    return held(value, value) if type(value) is str else value


def held(text: str, otherwise: Any) -> Any:
    """What ``text`` holds as JSON; ``otherwise`` where it is none.

    JSON is meant strictly: without NaN and Infinity, and without numbers that are too large for a
    float. Texts of more than ``JSON_CHARACTERS``, and what is nested deeper than ``JSON_NESTING``,
    are taken for none, too.
    """
    first = text[:1]
    if first in _SPACE:  # as the empty text is
        if len(text) > JSON_CHARACTERS:
            return otherwise
        text = text.strip(_SPACE)
        first = text[:1]
    if first in "tfn":
        return _WORDS.get(text.rstrip(_SPACE), otherwise) if len(text) < 64 else otherwise
    if first not in '-0123456789"[{' or len(text) > JSON_CHARACTERS:
        return otherwise
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return otherwise
    may_be_deep = text.count("[") + text.count("{") > JSON_NESTING
    return otherwise if may_be_deep and _is_deeper(value, JSON_NESTING) else value


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError("an integer that no float can hold")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number that no float can hold")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _is_deeper(value: Any, nesting: int) -> bool:
    """Whether lists and maps are nested deeper than that."""
    level = [value]
    for _ in range(nesting):
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, (list, dict)) for inner in level)


# --- comparing ----------------------------------------------------------------------------------

_NUMBERS = frozenset({int, float})
_SIMPLE = frozenset({int, float, str, bytes, bool, type(None)})


def equal(left: Any, right: Any) -> bool:
    """Whether two values are one to a reader: 1 and 1.0 are, 1 and true are not."""
    kind, other = type(left), type(right)
    if kind is not other:
        return kind in _NUMBERS and other in _NUMBERS and bool(left == right)
    if kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    if kind is dict:
        return len(left) == len(right) and _have_equal_members(left, right)
    return bool(left == right)


def _have_equal_members(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    # Python finds True where 1 is a key, and a NaN by its identity. Keys are texts, mostly.
    others = {key: key for key in right if type(key) is not str}
    for key, member in left.items():
        if key not in right or not equal(member, right[key]):
            return False
        if type(key) is not str and not equal(key, others[key]):
            return False
    return True


def _identity(value: Any) -> Hashable:
    """What two values share that are equal, and no others do."""
    kind = type(value)
    if kind in _NUMBERS:
        return ("number", value) if value == value else object()
    if kind is list:
        return ("list", *map(_identity, value))
    if kind is dict:
        return frozenset((_identity(key), _identity(member)) for key, member in value.items())
    return (kind, value)


def order(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 where ``left`` is below, at or above ``right``; None where they have no order."""
    kind, other = type(left), type(right)
    if kind in _NUMBERS and other in _NUMBERS:
        return _sign(left, right)
    if left is None or right is None:
        has_nan = any(type(value) is float and math.isnan(value) for value in (left, right))
        return None if has_nan else (left is not None) - (right is not None)
    if kind is not other:
        return None
    if kind is str or kind is bool:
        return _sign(left, right)
    if kind is list:
        for one, another in zip(left, right):  # noqa: B905 - the shorter one ends it
            sign = order(one, another)
            if sign != 0:
                return sign
        return _sign(len(left), len(right))
    return None


def _sign(left: Any, right: Any) -> int | None:
    return -1 if left < right else 1 if left > right else 0 if left == right else None


# --- operations ---------------------------------------------------------------------------------


def _is_below(left: Any, right: Any) -> bool:
    return order(left, right) == -1


def _is_at_most(left: Any, right: Any) -> bool:
    return order(left, right) in (-1, 0)


def _is_above(left: Any, right: Any) -> bool:
    return order(left, right) == 1


def _is_at_least(left: Any, right: Any) -> bool:
    return order(left, right) in (0, 1)


def _is_in(left: Any, right: Any) -> bool:
    return type(right) is list and any(equal(left, element) for element in right)


def _is_in_range(left: Any, right: Any) -> bool:
    if type(right) is not list or len(right) != 2:
        return False
    return _is_at_most(right[0], left) and _is_at_most(left, right[1])


def _has_size(left: Any, right: Any) -> bool:
    return type(left) is list and equal(len(left), right)


def _any(_: Any) -> str:
    return ""


def _ordered(value: Any) -> str:
    return "" if order(value, value) == 0 else "must be a number, a text, a list, true or false"


def _list(value: Any) -> str:
    return "" if type(value) is list else "must be a list"


def _bounds(value: Any) -> str:
    if type(value) is list and len(value) == 2 and order(*value) in (-1, 0):
        return ""
    return "must be a list of two numbers, the lower one first"


def _size(value: Any) -> str:
    is_size = type(value) in _NUMBERS and value >= 0 and value == int(value)
    return "" if is_size else "must be a whole number, at least 0"


class Operation(NamedTuple):
    """A row of the table of operations."""

    name: str
    holds: Callable[[Any, Any], bool]
    """Of operand1 and operand2, both ``looked_into``. Never raises."""
    wrong: Callable[[Any], str]
    """Why a JSON value can't be operand2, beginning with "must be"; empty where it can."""
    is_threshold: bool = False
    """Whether other operands alone, with which it still holds, make no other alarm."""

    def against(self, right: Any) -> Callable[[Any], bool]:
        """``holds`` for one operand2 and many operands1."""
        if self.name in _MEMBERSHIP and type(right) is list and len(right) > _FEW:
            wanted = self.name == "in"
            members = frozenset(map(_identity, right))
            return lambda left: (_identity(left) in members) is wanted
        holds = self.holds
        return lambda left: holds(left, right)


_MEMBERSHIP = ("in", "not in")
_FEW = 16
"""Elements that are compared one by one."""

OPERATIONS = {
    row.name: row
    for row in (
        Operation("==", equal, _any),
        Operation("!=", lambda left, right: not equal(left, right), _any),
        Operation("<", _is_below, _ordered, is_threshold=True),
        Operation("<=", _is_at_most, _ordered, is_threshold=True),
        Operation(">", _is_above, _ordered, is_threshold=True),
        Operation(">=", _is_at_least, _ordered, is_threshold=True),
        Operation("in", _is_in, _list),
        Operation("not in", lambda left, right: not _is_in(left, right), _list),
        Operation("range", _is_in_range, _bounds, is_threshold=True),
        Operation("size==", _has_size, _size),
        Operation("size!=", lambda left, right: not _has_size(left, right), _size),
    )
}
"""Each operation by its name; the names are Contrail's."""
