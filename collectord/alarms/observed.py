"""What of UVEs rules look at, in the names and thresholds that ``Engine.observe`` knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from collectord.alarms.evaluation import CompiledRule
from collectord.alarms.paths import KEYS, VALUES

Thresholds: TypeAlias = "Collection[float] | None"
"""Only a number that passes one of them is news; None: every change is."""
Names: TypeAlias = Mapping[str, Thresholds]

ANY_STRUCT, EVERYTHING = "*", "*-*"
MOST_THRESHOLDS = 32
"""Of one name; with more of them it is quicker to evaluate every change."""
RANGES = (VALUES, KEYS)
FIELDS = {"value": "value", "metric": "value", "sigma": "sigma"}
"""Members of a proxy UVE's value to the number of the engine's that they show as it is."""


def names(rules: Iterable[CompiledRule]) -> Names:
    """What an engine has to observe for these rules."""
    wanted: dict[str, Thresholds] = {}
    for rule in rules:
        if rule.structs is None:
            return {ANY_STRUCT: None, EVERYTHING: None}
        if rule.holds_without_structs:  # on each UVE there is, from its first struct on
            wanted[ANY_STRUCT] = None
        for steps, thresholds in rule.looks():
            for name, passed in _names(steps, thresholds):
                wanted[name] = _together(wanted[name], passed) if name in wanted else passed
    return wanted


def is_touched(wanted: Names, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether something of these names is merged otherwise, by aggtypes of before and of now."""
    return any(
        EVERYTHING in wanted or column in wanted or f"{column.partition('-')[0]}-*" in wanted
        for column in before.keys() | now.keys()
        if before.get(column, "none") != now.get(column, "none")
    )


def _together(one: Thresholds, other: Thresholds) -> Thresholds:
    if one is None or other is None:
        return None
    both = {*one, *other}
    return both if len(both) <= MOST_THRESHOLDS else None


def _names(
    steps: Sequence[str], thresholds: Sequence[float] | None
) -> Iterator[tuple[str, Thresholds]]:
    struct, *rest = steps
    yield struct, None
    if "-" in struct:
        yield from _proxy_names(struct, rest, thresholds)
    elif not rest or rest[0] in RANGES:
        yield f"{struct}-*", None
    else:
        yield f"{struct}-{rest[0]}", thresholds if len(rest) == 1 else None


def _proxy_names(
    struct: str, rest: Sequence[str], thresholds: Sequence[float] | None
) -> Iterator[tuple[str, Thresholds]]:
    """A proxy UVE's value changes when a period closes, its staging with every sample."""
    if all(step in (*RANGES, name) for step, name in zip(rest, ("value", "staging"), strict=False)):
        yield f"{struct}.staging", None
    if len(rest) == 2 and rest[0] == "value" and rest[1] in FIELDS:
        yield f"{struct}.{FIELDS[rest[1]]}", thresholds
    else:  # the close of a period takes its staging away, too
        yield f"{struct}.value", None
