"""Rules for tests, in few words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectord.alarms.evaluation import CompiledRule, OrList, compile_rule
from collectord.alarms.rules import Rule, RulesError, parse

NODE: dict[str, Any] = {
    "NodeStatus": {
        "process_info": [
            {"process_name": "agent", "process_state": "RUNNING", "cores": 2},
            {"process_name": "dns", "process_state": "STOPPED", "cores": 0},
            {"process_name": "nodemgr", "process_state": "EXITED", "cores": 1},
        ],
        "disks": {"sda": {"used": 95, "size": 90}, "sdb": {"used": 10, "size": 90}},
        "limits": [90, 20],
    },
    "NodeInfo": {"build": "5.0", "hosts": ["a", "b"]},
}
"""A view of processes and disks."""


def condition(operand1: str, operation: str, operand2: Any, *variables: str) -> dict[str, Any]:
    """A condition; an ``operand2`` that begins with @ is a path."""
    is_path = isinstance(operand2, str) and operand2.startswith("@")
    return {
        "operation": operation,
        "operand1": operand1,
        "operand2": {"uve_attribute": operand2[1:]} if is_path else {"json_value": operand2},
        "variables": list(variables),
    }


def rule_of(*and_lists: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A rule as it is in a file, of lists of conditions."""
    return {
        "name": "rule",
        "uve_keys": ["ObjectVNTable"],
        "severity": 1,
        "alarm_rules": {"or_list": [{"and_list": conditions} for conditions in and_lists]},
        **fields,
    }


def compiled(*and_lists: list[dict[str, Any]], **fields: Any) -> CompiledRule:
    return compile_rule(Rule.model_validate(rule_of(*and_lists, **fields)))


def found(view: dict[str, Any], *and_list: dict[str, Any]) -> list[list[dict[str, Any]]] | None:
    """The matches of each condition of a rule with one and_list; None where it doesn't hold."""
    result = compiled(list(and_list)).holds(view)
    if result is None:
        return None
    (entry,) = result
    return [row["match"] for row in entry["and_list"]]


def match(
    operand1: str, operand2: str | None = None, variables: dict[str, str] | None = None
) -> dict[str, Any]:
    """A match, of JSON texts."""
    row: dict[str, Any] = {"json_operand1_value": operand1}
    if operand2 is not None:
        row["json_operand2_value"] = operand2
    return {**row, "json_variables": variables or {}}


def held_of(view: dict[str, Any], *and_lists: list[dict[str, Any]]) -> OrList:
    """What a rule finds that holds."""
    held = compiled(*and_lists).holds(view)
    assert held is not None
    return held


def parsed(*rules: Any) -> tuple[Rule, ...]:
    return parse(json.dumps(rules), "alarms.json")


def errors_of(*rules: Any) -> list[str]:
    return errors_in(json.dumps(rules))


def errors_in(text: str | bytes) -> list[str]:
    """What is found wrong with a text."""
    with pytest.raises(RulesError) as caught:
        parse(text, "alarms.json")
    assert caught.value.origin == "alarms.json"
    assert str(caught.value).startswith("alarms.json: ")
    return caught.value.errors
