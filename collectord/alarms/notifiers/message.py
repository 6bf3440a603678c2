"""What receivers are told of a notification, in words and in JSON.

What a source sent may be large: it is cut here, so that no message and no queue grows with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from collectord import alarm_words, wire
from collectord.alarms.notification import Notification

VERSION = 1
"""Of the JSON; another one where a field is gone or means another thing."""
MATCH_CHARACTERS = 64 << 10
"""The most that the matches of one alarm may hold; those beyond are left out, and counted."""
LINE_CHARACTERS = 500
LINES = 20
"""Conditions that are told in words."""
VALUES = 5
"""Values of one condition that are told in words: a condition that ranges has one a match."""


def clean(text: str) -> str:
    """``text`` with what is no UTF-8 written escaped: another text for each key."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def severity(notification: Notification) -> str:
    """The word for the severity of the alarm's rule."""
    return wire.SEVERITIES[notification.rule.severity]


def table(notification: Notification) -> str:
    """The table of the UVE that has the alarm."""
    return notification.key.partition(":")[0]


def as_json(notification: Notification, collector: str) -> bytes:
    """What receivers of events are told; ``collector`` is the name of this host."""
    rule = notification.rule
    return wire.encode_json(
        {
            "version": VERSION,
            "kind": notification.kind.value,
            "key": notification.key,
            "table": table(notification),
            "rule": {
                "name": rule.name,
                "severity": severity(notification),
                "labels": dict(rule.labels),
                "description": rule.description,
            },
            "alarm": dict(notification.alarm),
            "time": notification.time,
            "collector": collector,
        }
    )


def shortened(alarm: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """The alarm with matches of at most ``MATCH_CHARACTERS``, and how many they are, about.

    A condition that misses some has ``left_out``, their number. One that misses none, as nearly
    every alarm, is the same object.
    """
    characters = 0
    is_whole = True
    for condition in _conditions(alarm):
        for match in condition.get("match", ()):
            characters += _characters(match)
            is_whole = is_whole and characters <= MATCH_CHARACTERS
    if is_whole:
        return alarm, characters
    room = _Room(MATCH_CHARACTERS)
    or_list = [
        {**entry, "and_list": [room.fill(condition) for condition in entry["and_list"]]}
        for entry in alarm["alarm_rules"]["or_list"]
    ]
    rules = {**alarm["alarm_rules"], "or_list": or_list}
    return {**alarm, "alarm_rules": rules}, MATCH_CHARACTERS - room.left


class _Room:
    """How much may still be told."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def fill(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        """The condition with the matches for which there is room."""
        kept = []
        for match in condition["match"]:
            characters = _characters(match)
            if characters <= self.left:
                self.left -= characters
                kept.append(match)
        left_out = len(condition["match"]) - len(kept)
        return {**condition, "match": kept, "left_out": left_out} if left_out else condition


def _characters(match: Mapping[str, Any]) -> int:
    """About how much a match holds."""
    characters = len(match.get("json_operand1_value", ""))
    characters += len(match.get("json_operand2_value", ""))
    for path, value in match.get("json_variables", {}).items():
        characters += len(path) + len(value)
    return characters


def _conditions(alarm: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every condition that held."""
    for together in alarm_words.entries(alarm.get("alarm_rules")):
        yield from together


def conditions(alarm: Mapping[str, Any]) -> list[str]:
    """A line for each condition that held: what was compared with what, and what was found."""
    found = _conditions(alarm)
    lines = [_cut(_line(condition)) for condition in itertools.islice(found, LINES)]
    if more := sum(1 for _ in found):
        lines.append(f"and {more} more")
    return lines


def variables(alarm: Mapping[str, Any]) -> list[str]:
    """A line for each variable of each match: its path and its value, in JSON."""
    found = dict.fromkeys(
        f"{path} = {value}"
        for condition in _conditions(alarm)
        for match in condition.get("match", ())
        for path, value in match.get("json_variables", {}).items()
    )
    lines = [_cut(line) for line in itertools.islice(found, LINES)]
    return [*lines, f"and {len(found) - LINES} more"] if len(found) > LINES else lines


def first_value(alarm: Mapping[str, Any]) -> str:
    """What the first condition that held has found first, in JSON; empty where nothing did."""
    for condition in _conditions(alarm):
        for match in condition.get("match", ()):
            return _cut(str(match.get("json_operand1_value", "")))
    return ""


def _line(condition: Mapping[str, Any]) -> str:
    """One condition that held, as ``operand1 operation operand2: values``."""
    compared = condition["condition"]
    matches = condition.get("match", ())
    values = [alarm_words.found(match, compared["operation"], _cut) for match in matches[:VALUES]]
    count = len(matches) + condition.get("left_out", 0)
    return f"{alarm_words.condition(compared, wire.json_key)}: {alarm_words.listed(values, count)}"


def _cut(text: str) -> str:
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
