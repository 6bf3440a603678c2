"""A rule compiled once, and what it finds in a view.

Where values are found is settled in ``paths.py``, how they compare in ``operations.py``, and what a
condition makes of them in ``conditions.py``. When something that holds becomes an alarm is settled
in ``machine.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collectord import views
from collectord.alarms.conditions import CompiledCondition, Explanation
from collectord.alarms.matches import OrList, is_same
from collectord.alarms.paths import RANGES
from collectord.alarms.rules import Rule

__all__ = ["CompiledRule", "OrList", "compile_rule", "is_same"]


class CompiledRule:
    """A rule whose paths and values were read; it holds nothing of any view."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._or_list = [
            [
                CompiledCondition(condition, f"or_list[{index}].and_list[{number}]")
                for number, condition in enumerate(entry.and_list)
            ]
            for index, entry in enumerate(rule.alarm_rules.or_list)
        ]
        self._probes = [
            ([condition.may_hold for condition in and_list], and_list) for and_list in self._or_list
        ]
        structs = frozenset(steps[0] for steps, _ in self.looks())
        self.structs: frozenset[str] | None = structs if structs.isdisjoint(RANGES) else None
        """The structs that it looks at; None: all."""
        self.tables: frozenset[str] = frozenset(key.partition(":")[0] for key in rule.uve_keys)
        """The tables of the UVEs that it is about."""
        self.holds_without_structs: bool = self.holds({}) is not None
        """Whether it holds where none of its structs is there, as ``NodeStatus == null`` does."""

    def paths(self) -> frozenset[str]:
        """The paths of its operands and its variables, as they are written."""
        return frozenset(
            path.text
            for and_list in self._or_list
            for condition in and_list
            for path in condition.paths()
        )

    def looks(self) -> Iterator[tuple[tuple[str, ...], Sequence[float] | None]]:
        """What its conditions look at, see ``CompiledCondition.looks``."""
        for and_list in self._or_list:
            for condition in and_list:
                yield from condition.looks()

    def wants(self, key: str) -> bool:
        """Whether the rule is about that UVE."""
        return any(
            views.matches(pattern, key) if ":" in pattern else key.partition(":")[0] == pattern
            for pattern in self.rule.uve_keys
        )

    def holds(self, view: Mapping[str, Mapping[str, Any]]) -> OrList | None:
        """What holds in a view, and None where nothing does. Never raises."""
        found: OrList = []
        for probes, and_list in self._probes:
            for may_hold in probes:
                if not may_hold(view):
                    break
            else:
                rows = _rows(and_list, view)
                if rows is not None:
                    found.append({"and_list": rows})
        return found or None

    def explain(self, view: Mapping[str, Mapping[str, Any]]) -> list[Explanation]:
        """What becomes of each condition in a view, those too that need not be looked at."""
        return [condition.explain(view) for and_list in self._or_list for condition in and_list]


def compile_rule(rule: Rule) -> CompiledRule:
    """Compile a rule, once for all views."""
    return CompiledRule(rule)


def _rows(
    and_list: list[CompiledCondition], view: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    matching = []
    for condition in and_list:
        found = condition.matching(view)
        if not found:
            return None
        matching.append(found)
    return [
        {"condition": condition.shown, "match": condition.rows(view, found)}
        for condition, found in zip(and_list, matching, strict=True)
    ]
