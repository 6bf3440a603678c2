"""Conditions of alarms in words: how a condition reads, and what held where.

Receivers of alarms and people at a terminal read the same words. How values are made printable and
cut differs, and is the callers' matter; so nothing here wants pydantic or rich.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Text: TypeAlias = Callable[[Any], str]
"""How a value, or an attribute's path, is written."""


def entries(alarm_rules: Any) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The conditions that held, those together that held together; each would have been enough."""
    or_list = alarm_rules.get("or_list") if isinstance(alarm_rules, Mapping) else None
    for entry in or_list or ():
        yield entry["and_list"]


def condition(compared: Mapping[str, Any], value: Text, path: Text = str) -> str:
    """A condition as a person would write it: ``operand1 operation operand2``."""
    operand2 = compared["operand2"]
    attribute = operand2.get("uve_attribute")
    right = value(operand2.get("json_value")) if attribute is None else path(attribute)
    return f"{path(compared['operand1'])} {compared['operation']} {right}"


def found(match: Mapping[str, Any], operation: str, value: Text) -> str:
    """What a match found: ``operand1``, or ``operand1 operation operand2`` where the rule has no
    value to compare with."""
    first = value(match["json_operand1_value"])
    second = match.get("json_operand2_value")
    return first if second is None else f"{first} {operation} {value(second)}"


def listed(texts: Sequence[str], count: int) -> str:
    """The texts, which are the first of so many."""
    more = count - len(texts)
    return ", ".join([*texts, f"and {more} more"] if more > 0 else texts)
