"""What a rule finds in a view, written as plainly as it can be: slow, and with nothing shared.

It was written from the meaning of rules alone and knows nothing of ``collectord.alarms`` but the
models. Values are compared as they are; how they are shown is not done here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from collectord.alarms.rules import Condition, Rule


class NoWay:
    """What stands where there is no way to a value."""


NO_WAY = NoWay()


class Stop(NamedTuple):
    """Where a step was taken: at what, and what it led to."""

    at: Any
    key: Any
    """Of the member of a map that a star or __key led to; NO_WAY otherwise."""
    is_element: bool
    """Whether ``at`` is an element of a list that this step was taken at."""
    is_used_up: bool
    """Whether the step was the star that led to that element."""


class Leaf(NamedTuple):
    value: Any
    stops: tuple[Stop, ...]


# --- JSON ---------------------------------------------------------------------------------------


def json_of(text: str) -> Any:
    """What a text holds, or NO_WAY."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def small(kind: type) -> Any:
        def read(digits: str) -> Any:
            if kind is int and len(digits) > 308:
                raise ValueError(digits)
            if math.isinf(float(digits)):
                raise ValueError(digits)
            return kind(digits)

        return read

    if len(text) > 65536:
        return NO_WAY
    try:
        value = json.loads(
            text, parse_constant=refuse, parse_int=small(int), parse_float=small(float)
        )
    except (ValueError, RecursionError):
        return NO_WAY
    return value if depth(value) <= 32 else NO_WAY


def depth(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max((depth(member) for member in members), default=0)


def meant(value: Any) -> Any:
    if isinstance(value, str):
        inner = json_of(value)
        return value if inner is NO_WAY else inner
    return value


# --- walking ------------------------------------------------------------------------------------

STARS = ("*", "__value")


def leaves(
    value: Any, steps: list[str], stops: tuple[Stop, ...] = (), is_element: bool = False
) -> Iterator[Leaf]:
    """All that a path leads to, in order."""
    if not steps:
        yield Leaf(value, stops)
    elif type(value) is str and json_of(value) is not NO_WAY:
        yield from leaves(json_of(value), steps, stops, is_element)
    elif type(value) is list:
        for element in value:
            if steps[0] in STARS:
                stop = Stop(element, NO_WAY, True, True)
                yield from leaves(element, steps[1:], (*stops, stop))
            else:
                yield from leaves(element, steps, stops, is_element=True)
    elif type(value) is dict:
        yield from leaves_of_map(value, steps, stops, is_element)
    else:
        yield Leaf(NO_WAY, stops)


def leaves_of_map(
    value: dict[Any, Any], steps: list[str], stops: tuple[Stop, ...], is_element: bool
) -> Iterator[Leaf]:
    first, rest = steps[0], steps[1:]
    if first in (*STARS, "__key"):
        for key, member in value.items():
            stop = Stop(value, key, is_element, False)
            yield from leaves(key if first == "__key" else member, rest, (*stops, stop))
        return
    stop = Stop(value, NO_WAY, is_element, False)
    for name in (first, number(first)):
        if name in value and name is not None:
            yield from leaves(value[name], rest, (*stops, stop))
            return
    yield Leaf(NO_WAY if rest else None, (*stops, stop))


def number(step: str) -> int | None:
    digits = step.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")
    return int(step) if is_number and len(digits) <= 19 else None


def ranges(value: Any, steps: list[str]) -> bool:
    """Whether a path leads to several places, or to none."""
    if not steps:
        return False
    if type(value) is str:
        inner = json_of(value)
        return inner is not NO_WAY and ranges(inner, steps)
    if type(value) is list:
        return True
    if type(value) is not dict:
        return False
    if steps[0] in (*STARS, "__key"):
        return True
    for name in (steps[0], number(steps[0])):
        if name in value and name is not None:
            return ranges(value[name], steps[1:])
    return False


# --- comparing ----------------------------------------------------------------------------------


def kind(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", list: "list", dict: "map", str: "text"}
    return names.get(type(value), type(value).__name__)


def same(one: Any, other: Any) -> bool:
    if kind(one) != kind(other):
        return False
    if kind(one) == "list":
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if kind(one) == "map":
        return len(one) == len(other) and all(
            any(same(key, another) and same(one[key], other[another]) for another in other)
            for key in one
        )
    return bool(one == other)


def below(one: Any, other: Any) -> bool:
    """Whether one is below the other, and both have an order."""
    if any(isinstance(value, float) and math.isnan(value) for value in (one, other)):
        return False
    if one is None or other is None:
        return one is None and other is not None
    if kind(one) != kind(other) or kind(one) not in ("number", "text", "bool", "list"):
        return False
    if kind(one) != "list":
        return bool(one < other)
    if not one or not other:
        return len(one) < len(other)
    if level(one[0], other[0]):
        return below(one[1:], other[1:])
    return below(one[0], other[0])


def level(one: Any, other: Any) -> bool:
    """Whether both stand at the same place of the order."""
    if kind(one) != kind(other) or kind(one) not in ("number", "text", "bool", "list", "NoneType"):
        return False
    if kind(one) != "list":
        return bool(one == other)
    return len(one) == len(other) and all(level(a, b) for a, b in zip(one, other, strict=True))


def fulfils(operation: str, one: Any, other: Any) -> bool:
    is_at_least = below(other, one) or level(one, other)
    is_at_most = below(one, other) or level(one, other)
    is_in = kind(other) == "list" and any(same(one, element) for element in other)
    is_in_range = (
        kind(other) == "list"
        and len(other) == 2
        and (below(other[0], one) or level(other[0], one))
        and (below(one, other[1]) or level(one, other[1]))
    )
    has_size = kind(one) == "list" and same(len(one), other)
    return {
        "==": same(one, other),
        "!=": not same(one, other),
        "<": below(one, other),
        ">": below(other, one),
        "<=": is_at_most,
        ">=": is_at_least,
        "in": is_in,
        "not in": not is_in,
        "range": is_in_range,
        "size==": has_size,
        "size!=": not has_size,
    }[operation]


# --- conditions ---------------------------------------------------------------------------------


class Finding(NamedTuple):
    """Where a condition holds: its operands, and its variables as they are."""

    operand1: Any
    operand2: Any
    variables: dict[str, Any]


def findings(condition: Condition, view: dict[str, Any]) -> list[Finding]:
    steps1 = condition.operand1.split(".")
    ones = list(leaves(view, steps1))
    is_ranged = ranges(view, steps1)
    path2 = condition.operand2.uve_attribute
    if path2 is None:
        constant = json_of(condition.operand2.json_value or "")
        pairs = [(one, Leaf(constant, ())) for one in ones]
    else:
        steps2 = path2.split(".")
        others = list(leaves(view, steps2))
        match is_ranged, ranges(view, steps2):
            case True, True if len(ones) != len(others):
                return []
            case True, False:
                others = others * len(ones)
            case False, True:
                ones = ones * len(others)
        pairs = list(zip(ones, others, strict=True))
    return [
        Finding(
            one.value,
            other.value,
            {path: variable(path, condition, view, one, other) for path in condition.variables},
        )
        for one, other in pairs
        if one.value is not NO_WAY
        and other.value is not NO_WAY
        and fulfils(condition.operation, meant(one.value), meant(other.value))
    ]


def variable(path: str, condition: Condition, view: dict[str, Any], one: Leaf, other: Leaf) -> Any:
    steps = path.split(".")
    path2 = condition.operand2.uve_attribute
    shared1 = common(steps, condition.operand1.split("."))
    shared2 = common(steps, path2.split(".")) if path2 is not None else 0
    if path2 is not None and shared2 > shared1:
        start, left = resume(steps, path2.split("."), shared2, other)
    elif shared1:
        start, left = resume(steps, condition.operand1.split("."), shared1, one)
    else:
        start, left = view, steps
    values = [leaf.value for leaf in leaves(start, left) if leaf.value is not NO_WAY]
    if ranges(start, left):
        return values
    return values[0] if values else None


def common(steps: list[str], others: list[str]) -> int:
    count = 0
    while count < min(len(steps), len(others)):
        if steps[count] != others[count] and not {steps[count], others[count]} <= set(STARS):
            break
        count += 1
    return count


def resume(steps: list[str], others: list[str], shared: int, leaf: Leaf) -> tuple[Any, list[str]]:
    """What the rest of a variable's steps begins at, and these steps."""
    if shared == len(others):
        return leaf.value, steps[shared:]
    stop = leaf.stops[shared]
    left = steps[shared:]
    if left and others[shared] not in (*STARS, "__key"):
        # The same element of the list, which the star would lead to.
        if stop.is_element and left[0] in STARS:
            return stop.at, left[1:]
    elif left and not stop.is_used_up:
        if left[0] == "__key":  # beside a star
            return stop.key, left[1:]
        if left[0] in STARS:  # beside __key
            return stop.at[stop.key], left[1:]
    return stop.at, left


def held(rule: Rule, view: dict[str, Any]) -> list[list[list[Finding]]]:
    """The findings of each condition of each and_list that holds."""
    lists = [
        [findings(condition, view) for condition in entry.and_list]
        for entry in rule.alarm_rules.or_list
    ]
    return [entry for entry in lists if all(entry)]
