"""The rules of a file: what they are, and everything that may be wrong with them, by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from alarms.writing import condition, errors_in, errors_of, parsed, rule_of
from collectord.alarms.operations import OPERATIONS
from collectord.alarms.rules import SEVERITIES, Condition, Operand2, impossible, parse

ONE = condition("S.a", ">", "5")
CONDITION = "rules[0] (rule) alarm_rules.or_list[0].and_list[0]"


def errors_with(**fields: Any) -> list[str]:
    """What is found wrong with a rule whose other fields are right."""
    return errors_of(rule_of([ONE], **fields))


def errors_of_condition(operand1: Any, operation: Any, operand2: Any, *variables: Any) -> list[str]:
    one = {"operation": operation, "operand1": operand1, "operand2": operand2}
    return errors_of(rule_of([{**one, "variables": list(variables)}]))


# --- what is right ------------------------------------------------------------------------------


def test_a_rule_says_only_what_it_has_to() -> None:
    (rule,) = parsed(rule_of([{key: ONE[key] for key in ("operation", "operand1", "operand2")}]))

    assert (rule.name, rule.uve_keys, rule.severity) == ("rule", ("ObjectVNTable",), 1)
    assert (rule.description, rule.enabled, rule.labels) == ("", True, {})
    assert (rule.active_timer, rule.idle_timer) == (0, 0)
    assert (rule.freq_check_times, rule.freq_check_seconds, rule.freq_exceeded_check) == (
        0,
        0,
        False,
    )
    assert rule.alarm_rules.or_list[0].and_list[0].variables == ()


def test_a_rule_may_say_everything() -> None:
    (rule,) = parsed(
        rule_of(
            [ONE, condition("S.b", "not in", '["x"]', "S.c", "T.*.d")],
            [condition("S.b", "==", "@T.c")],
            name="Fluten über der Schwelle",
            uve_keys=["ObjectVNTable", "ObjectVRouter:compute-*"],
            severity=0,
            description="Too many.\nReally.",
            enabled=False,
            active_timer=60,
            idle_timer=604_800,
            freq_check_times=3,
            freq_check_seconds=600,
            freq_exceeded_check=True,
            labels={"team": "network", "_x9": ""},
        )
    )

    assert SEVERITIES[rule.severity] == "critical"
    assert rule.uve_keys == ("ObjectVNTable", "ObjectVRouter:compute-*")
    first, second = rule.alarm_rules.or_list
    assert first.and_list[1].variables == ("S.c", "T.*.d")
    assert second.and_list[0].operand2 == Operand2(uve_attribute="T.c")
    assert rule.labels == {"team": "network", "_x9": ""}


def test_a_file_may_have_no_rules() -> None:
    assert parse("[]", "alarms.json") == ()
    assert parse(b" [ ]\n", "alarms.json") == ()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("5", "5"),
        ('"UP"', '"UP"'),
        ("[1, 2]", "[1, 2]"),
        (5, "5"),
        (5.0, "5.0"),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1, "a"]'),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_a_json_value_is_a_text_of_json_or_another_value(given: Any, text: str) -> None:
    (rule,) = parsed(rule_of([condition("S.a", "==", given)]))

    assert rule.alarm_rules.or_list[0].and_list[0].operand2.json_value == text


@pytest.mark.parametrize(
    "operand2", [{"uve_attribute": "S.b", "json_value": None}, {"uve_attribute": "S.b"}]
)
def test_an_attribute_may_stand_beside_a_json_value_of_null(operand2: dict[str, Any]) -> None:
    assert Operand2.model_validate(operand2).json_value is None


def test_rules_are_the_same_where_they_say_the_same() -> None:
    before, now = parsed(rule_of([ONE])), parsed(rule_of([ONE]))

    assert before == now
    assert before != parsed(rule_of([condition("S.a", ">", "6")]))
    assert parsed(rule_of([condition("S.a", "==", 1)])) != parsed(
        rule_of([condition("S.a", "==", True)])
    )


def test_a_rule_doesnt_change() -> None:
    (rule,) = parsed(rule_of([ONE]))

    with pytest.raises(ValidationError):
        rule.severity = 2


# --- what is wrong ------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = rule_of([{**ONE, "operation": "~"}, {**ONE, "operand1": "a..b"}], severity=3)

    assert errors_of(wrong, {}, rule_of([ONE], name="other", enabled="yes")) == [
        "rules[0] (rule) severity: must be at most 2, not 3",
        f"{CONDITION}.operation: '~' is unknown; it is one of {', '.join(OPERATIONS)}",
        "rules[0] (rule) alarm_rules.or_list[0].and_list[1].operand1: 'a..b' has an empty step; "
        "write names with one dot between them, as in UveVirtualNetworkAgent.egress_flow_count",
        "rules[1] name: is required",
        "rules[1] uve_keys: is required",
        "rules[1] severity: is required",
        "rules[1] alarm_rules: is required",
        'rules[2] (other) enabled: must be true or false, not "yes"',
    ]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": ""}, 'rules[0] name: must have at least 1 character, not ""'),
        ({"name": 5}, "rules[0] name: must be a text, not 5"),
        ({"name": None}, "rules[0] name: must be a text, not null"),
        (
            {"name": "a\nb"},
            "rules[0] (\"a\\nb\") name: 'a\\nb' has characters that can't be printed; "
            "leave them out",
        ),
        ({"severity": "1"}, 'rules[0] (rule) severity: must be a whole number, not "1"'),
        ({"severity": True}, "rules[0] (rule) severity: must be a whole number, not true"),
        ({"severity": 1.0}, "rules[0] (rule) severity: must be a whole number, not 1.0"),
        ({"severity": -1}, "rules[0] (rule) severity: must be at least 0, not -1"),
        ({"enabled": 1}, "rules[0] (rule) enabled: must be true or false, not 1"),
        ({"description": ["x"]}, "rules[0] (rule) description: must be a text, not a list"),
        (
            {"description": "\ud800"},
            'rules[0] (rule) description: must be a text that UTF-8 can write, not "\\ud800"',
        ),
        ({"active_timer": -1}, "rules[0] (rule) active_timer: must be at least 0, not -1"),
        (
            {"idle_timer": 604_801},
            "rules[0] (rule) idle_timer: must be at most 604800, not 604801",
        ),
        ({"active_timer": 1.5}, "rules[0] (rule) active_timer: must be a whole number, not 1.5"),
        (
            {"active_timer": 10**400},
            "rules[0] (rule) active_timer: must be at most 604800, not 1" + "0" * 75 + " …",
        ),
        (
            {"freq_check_times": 1001},
            "rules[0] (rule) freq_check_times: must be at most 1000, not 1001",
        ),
        (
            {"freq_exceeded_check": True, "freq_check_seconds": 60},
            "rules[0] (rule) freq_check_times: must be at least 1 with freq_exceeded_check",
        ),
        (
            {"freq_exceeded_check": True, "freq_check_times": 3},
            "rules[0] (rule) freq_check_seconds: must be at least 1 with freq_exceeded_check",
        ),
        ({"uve_keys": []}, "rules[0] (rule) uve_keys: must have 1 to 100 entries, not 0"),
        (
            {"uve_keys": "ObjectVNTable"},
            'rules[0] (rule) uve_keys: must be a list, not "ObjectVNTable"',
        ),
        ({"uve_keys": ["A", 5]}, "rules[0] (rule) uve_keys[1]: must be a text, not 5"),
        ({"alarm_rules": 5}, "rules[0] (rule) alarm_rules: must be an object, not 5"),
        ({"alarm_rules": {}}, "rules[0] (rule) alarm_rules.or_list: is required"),
        (
            {"alarm_rules": {"or_list": []}},
            "rules[0] (rule) alarm_rules.or_list: must have 1 to 50 entries, not 0",
        ),
        (
            {"alarm_rules": {"or_list": [{"and_list": []}]}},
            "rules[0] (rule) alarm_rules.or_list[0].and_list: must have 1 to 50 entries, not 0",
        ),
        (
            {"alarm_rules": {"or_list": [{"and_list": [ONE] * 51}]}},
            "rules[0] (rule) alarm_rules.or_list[0].and_list: must have 1 to 50 entries, not 51",
        ),
        (
            {"alarm_rules": {"or_list": [{"and_list": [5]}]}},
            f"{CONDITION}: must be an object, not 5",
        ),
        (
            {"alarm_rules": {"or_list": [{"and_list": [{**ONE, "value": 1}]}]}},
            f"{CONDITION}.value: is unknown; known are operation, operand1, operand2, variables",
        ),
        (
            {"sevrity": 1},
            "rules[0] (rule) sevrity: is unknown; known are name, uve_keys, severity, description, "
            "enabled, alarm_rules, active_timer, idle_timer, freq_check_times, freq_check_seconds, "
            "freq_exceeded_check, labels",
        ),
        ({"labels": ["x"]}, "rules[0] (rule) labels: must be an object, not a list"),
        ({"labels": {"team": 5}}, "rules[0] (rule) labels.team: must be a text, not 5"),
        (
            {"labels": {"severity": "x"}},
            "rules[0] (rule) labels: 'severity' is reserved: every alarm has it already",
        ),
    ],
)
def test_a_field_that_is_wrong_is_told_with_what_is_right(
    fields: dict[str, Any], error: str
) -> None:
    assert errors_with(**fields) == [error]


@pytest.mark.parametrize("label", ["", "a-b", "9a", "__a", "é", "a b", "a\n"])
def test_labels_are_named_as_prometheus_has_it(label: str) -> None:
    (error,) = errors_with(labels={label: "x"})

    assert error.startswith(f"rules[0] (rule) labels: {label!r} is not the name of a label; it is")


@pytest.mark.parametrize("label", ["alertname", "severity", "table", "uve"])
def test_labels_that_every_alarm_has_are_reserved(label: str) -> None:
    assert errors_with(labels={label: "x"}) == [
        f"rules[0] (rule) labels: {label!r} is reserved: every alarm has it already"
    ]


@pytest.mark.parametrize("pattern", ["", ":x", "Object*", "*", "*:x", "Table:", "A\n", "\udcff"])
def test_a_uve_key_has_a_table(pattern: str) -> None:
    (error,) = errors_with(uve_keys=["ObjectVNTable", pattern])

    assert error.startswith(f"rules[0] (rule) uve_keys[1]: {pattern!r} is neither a table nor keys")


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"name": "x" * 129}, "128 characters"),
        ({"description": "x" * 4097}, "4096 characters"),
        ({"labels": {"a": "x" * 1025}}, "1024 characters"),
        ({"labels": {f"l{number}": "" for number in range(33)}}, "32 entries"),
        ({"uve_keys": ["A"] * 101}, "100 entries"),
        ({"uve_keys": ["A:" + "x" * 1023]}, "1024 bytes"),
        ({"alarm_rules": {"or_list": [{"and_list": [ONE]}] * 51}}, "50 entries"),
    ],
)
def test_nothing_is_too_long(fields: dict[str, Any], bound: str) -> None:
    (error,) = errors_with(**fields)

    assert bound in error


def test_variables_are_bounded() -> None:
    (error,) = errors_of_condition("S.a", ">", {"json_value": "1"}, *["S.b"] * 51)

    assert error == f"{CONDITION}.variables: must have 0 to 50 entries, not 51"


# --- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ".", "S.", ".a", "S..a", "S.a\n", "S.\udcff", "x" * 1025])
def test_paths_are_checked_wherever_they_stand(path: str) -> None:
    errors = errors_of_condition(path, ">", {"uve_attribute": path}, "S.a", path)

    places = [error.partition(": ")[0] for error in errors]
    assert places == [
        f"{CONDITION}.operand1",
        f"{CONDITION}.operand2.uve_attribute",
        f"{CONDITION}.variables[1]",
    ]


@pytest.mark.parametrize("operation", ["", "=", "=>", "<>", "IN", "not  in", "size>", 5, None])
def test_an_unknown_operation_is_told_with_all_that_there_are(operation: Any) -> None:
    (error,) = errors_of_condition("S.a", operation, {"json_value": "1"})

    assert error.startswith(f"{CONDITION}.operation: ")
    if isinstance(operation, str):
        assert error.endswith(
            "is unknown; it is one of ==, !=, <, <=, >, >=, in, not in, range, size==, size!="
        )


@pytest.mark.parametrize(
    "operand2", [{}, {"uve_attribute": None}, {"uve_attribute": "S.b", "json_value": "1"}]
)
def test_operand2_is_one_of_two(operand2: dict[str, Any]) -> None:
    assert errors_of_condition("S.a", ">", operand2) == [
        f"{CONDITION}.operand2: must have either uve_attribute or json_value"
    ]


@pytest.mark.parametrize("operand2", [5, "S.b", None, []])
def test_operand2_is_an_object(operand2: Any) -> None:
    (error,) = errors_of_condition("S.a", ">", operand2)

    assert error.startswith(f"{CONDITION}.operand2: must be an object, not ")


def test_a_text_that_holds_no_json_is_told_how_a_text_is_written() -> None:
    assert errors_of_condition("S.a", "==", {"json_value": "UP"}) == [
        f"{CONDITION}.operand2.json_value: 'UP' holds no JSON; "
        'a text is written with its own quotes: "\\"UP\\""'
    ]


@pytest.mark.parametrize(
    "text", ["", " ", "NaN", "[1,", "1e999", "\udcff", "[" * 5000, "x" * 70_000]
)
def test_a_json_value_holds_json(text: str) -> None:
    (error,) = errors_of_condition("S.a", "==", {"json_value": text})

    assert error.startswith(f"{CONDITION}.operand2.json_value: ")
    assert "holds no JSON" in error
    assert len(error) < 400


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "[1e999]", "9" * 400, "[" * 40 + "]" * 40])
def test_a_json_value_that_is_no_text_can_be_compared(value: str) -> None:
    text = json.dumps([rule_of([condition("S.a", "==", "?")])]).replace('"?"', value)

    (error,) = errors_in(text)

    assert error.startswith(f"{CONDITION}.operand2.json_value: ")
    assert error.endswith(" is no JSON that can be compared")


@pytest.mark.parametrize(
    ("operation", "value", "right"),
    [
        ("range", "5", "must be a list of two numbers, the lower one first"),
        ("range", "[1]", "must be a list of two numbers, the lower one first"),
        ("range", "[1, 2, 3]", "must be a list of two numbers, the lower one first"),
        ("range", "[2, 1]", "must be a list of two numbers, the lower one first"),
        ("range", '[1, "2"]', "must be a list of two numbers, the lower one first"),
        ("range", "[{}, {}]", "must be a list of two numbers, the lower one first"),
        ("size==", "-1", "must be a whole number, at least 0"),
        ("size==", "1.5", "must be a whole number, at least 0"),
        ("size!=", "true", "must be a whole number, at least 0"),
        ("size!=", "[]", "must be a whole number, at least 0"),
        ("in", "5", "must be a list"),
        ("not in", '{"a": 1}', "must be a list"),
        ("<", "{}", "must be a number, a text, a list, true or false"),
        (">=", "[{}]", "must be a number, a text, a list, true or false"),
    ],
)
def test_a_json_value_fits_its_operation(operation: str, value: str, right: str) -> None:
    one = {"operation": operation, "operand1": "S.a", "operand2": {"json_value": value}}
    (rule,) = parsed(rule_of([one]))  # Contrail takes it, and what comes of it is settled
    (sentence,) = impossible(rule, None)
    assert sentence.endswith(
        f".operand2.json_value: {right} for {operation!r}, not {json.dumps(value)}"
    )


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        ("range", "[1, 1]"),
        ("range", '["a", "b"]'),
        ("range", '"[1, 2]"'),
        ("size==", "0"),
        ("size==", "2.0"),
        ("in", "[]"),
        ("<", "null"),
        (">", '"a"'),
        ("<=", "[1, [2]]"),
        ("==", "{}"),
    ],
)
def test_these_fit(operation: str, value: str) -> None:
    (rule,) = parsed(rule_of([condition("S.a", operation, value)]))

    assert rule.alarm_rules.or_list[0].and_list[0].operand2.json_value == value


def test_a_model_that_is_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="is unknown; it is one of"):
        Condition(operation="~", operand1="S.a", operand2=Operand2(json_value="1"))
