"""A compiled rule: what it finds in a view, what it looks at, which UVEs it is about."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from alarms.writing import NODE, compiled, condition, found, match

VN = "UveVirtualNetworkAgent"
SCORE = f"AggProxySumAnomalyEWM01-{VN}-egress_flow_count"
# --- what is found ------------------------------------------------------------------------------


def test_a_rule_that_holds_says_what_was_asked_and_what_was_found() -> None:
    rule = compiled([condition("S.a", ">", "5", "S.name")])

    assert rule.holds({"S": {"a": 7, "name": "x"}}) == [
        {
            "and_list": [
                {
                    "condition": {
                        "operation": ">",
                        "operand1": "S.a",
                        "operand2": {"json_value": "5"},
                        "variables": ["S.name"],
                    },
                    "match": [{"json_operand1_value": "7", "json_variables": {"S.name": '"x"'}}],
                }
            ]
        }
    ]


def test_a_rule_that_doesnt_hold_finds_nothing() -> None:
    assert compiled([condition("S.a", ">", "5")]).holds({"S": {"a": 5}}) is None


def test_operand2_is_shown_where_it_is_an_attribute() -> None:
    assert found({"S": {"a": 7, "b": 5}}, condition("S.a", ">", "@S.b")) == [[match("7", "5")]]


def test_all_conditions_of_an_and_list_have_to_hold() -> None:
    both = condition("S.a", ">", "5"), condition("S.b", ">", "5")

    assert found({"S": {"a": 7, "b": 8}}, *both) == [[match("7")], [match("8")]]
    assert found({"S": {"a": 7, "b": 5}}, *both) is None
    assert found({"S": {"a": 5, "b": 8}}, *both) is None


def test_only_the_and_lists_that_hold_are_found() -> None:
    rule = compiled(
        [condition("S.a", ">", "5")], [condition("S.b", ">", "5")], [condition("S.c", ">", "5")]
    )

    held = rule.holds({"S": {"a": 7, "b": 1, "c": 9}})

    assert held is not None
    operands = [entry["and_list"][0]["condition"]["operand1"] for entry in held]
    assert operands == ["S.a", "S.c"]


def test_the_score_of_a_proxy_uve_is_a_path_with_dashes() -> None:
    view = {SCORE: {"value": {"sigma": 2.75, "state": {"mean": "36.2"}}}}

    assert found(view, condition(f"{SCORE}.value.sigma", ">", "2.5")) == [[match("2.75")]]


def test_a_number_that_is_held_as_a_text_compares_as_a_number() -> None:
    view = {SCORE: {"value": {"metric": 9.5, "state": {"mean": "36.2"}}}}
    mean = f"{SCORE}.value.state.mean"

    assert found(view, condition(mean, ">", "9")) == [[match("36.2")]]
    assert found(view, condition(f"{SCORE}.value.metric", "<", f"@{mean}")) == [
        [match("9.5", "36.2")]
    ]


def test_a_struct_that_is_missing_is_null_where_it_is_the_whole_path() -> None:
    rule = [condition("NodeStatus", "==", "null")]

    assert found({"Other": {}}, *rule) == [[match("null")]]
    assert found(NODE, *rule) is None


# --- ranging ------------------------------------------------------------------------------------


def test_each_element_that_matches_is_a_match() -> None:
    name = "NodeStatus.process_info.process_name"
    stopped = condition("NodeStatus.process_info.process_state", "!=", '"RUNNING"', name)

    assert found(NODE, stopped) == [
        [
            match('"STOPPED"', None, {name: '"dns"'}),
            match('"EXITED"', None, {name: '"nodemgr"'}),
        ]
    ]


def test_two_operands_that_range_are_paired() -> None:
    full = condition(
        "NodeStatus.disks.*.used", ">=", "@NodeStatus.disks.*.size", "NodeStatus.disks.__key"
    )

    assert found(NODE, full) == [[match("95", "90", {"NodeStatus.disks.__key": '"sda"'})]]


def test_two_operands_that_range_over_different_numbers_of_values_dont_hold() -> None:
    three, two = "NodeStatus.process_info.cores", "NodeStatus.limits.*"

    assert found(NODE, condition("NodeStatus.disks.*.used", "!=", f"@{two}")) is not None
    assert found(NODE, condition(three, "!=", f"@{two}")) is None
    assert found(NODE, condition(two, "!=", f"@{three}")) is None


def test_an_element_without_a_way_keeps_its_place_in_the_pairs() -> None:
    view = {"S": {"m": {"x": {}, "y": {"in": {"n": 2}}}, "l": [1, 2]}}

    assert found(view, condition("S.m.*.in.n", "==", "@S.l.*")) == [[match("2", "2")]]
    assert found(view, condition("S.l.*", "==", "@S.m.*.in.n")) == [[match("2", "2")]]
    assert found(view, condition("S.m.*.in.n", "!=", "@S.l.*")) is None
    assert found(view, condition("S.l.*", "!=", "@S.m.*.in.n")) is None


def test_an_element_without_a_way_doesnt_match() -> None:
    view: dict[str, Any] = {"S": {"m": {"x": {}, "y": {"in": {"n": 2}}}, "a": 1}}

    assert found(view, condition("S.m.*.in.n", "!=", "1")) == [[match("2")]]
    assert found(view, condition("S.m.*.in.n", "!=", "@S.a")) == [[match("2", "1")]]
    assert found(view, condition("S.a", "!=", "@S.m.*.in.n")) == [[match("1", "2")]]


def test_each_of_many_values_is_looked_into() -> None:
    view = {"S": {"texts": ["1", "2"], "numbers": [3, 2], "a": " 2"}}

    assert found(view, condition("S.texts.*", "==", "2")) == [[match("2")]]
    assert found(view, condition("S.numbers.*", "==", "@S.a")) == [[match("2", " 2")]]
    assert found(view, condition("S.a", "==", "@S.texts.*")) == [[match(" 2", "2")]]
    assert found(view, condition("S.numbers.*", "==", "@S.texts.*")) == [[match("2", "2")]]
    assert found(view, condition("S.texts.*", "==", "@S.numbers.*")) == [[match("2", "2")]]


def test_one_operand_that_ranges_is_compared_with_the_other_as_a_whole() -> None:
    view = {"S": {"many": [1, 2, 3], "one": 2, "list": [2, 3]}}

    assert found(view, condition("S.many.*", ">", "@S.one")) == [[match("3", "2")]]
    assert found(view, condition("S.one", ">", "@S.many.*")) == [[match("2", "1")]]
    assert found(view, condition("S.many.*", "in", "@S.list")) == [
        [match("2", "[2, 3]"), match("3", "[2, 3]")]
    ]


def test_ranging_over_nothing_doesnt_hold() -> None:
    view: dict[str, Any] = {"S": {"m": {}, "l": [], "x": 1}}

    for path in ("S.m.*", "S.m.__key", "S.l.*", "S.l.a"):
        for operation in ("!=", "==", "not in", "size!="):
            assert found(view, condition(path, operation, "@S.x")) is None
            assert found(view, condition("S.x", operation, f"@{path}")) is None
            assert found(view, condition(path, operation, f"@{path}")) is None


def test_where_there_is_no_way_to_an_operand_nothing_holds() -> None:
    view: dict[str, Any] = {"S": {"m": {"x": 1, "y": 2}, "x": 1}}

    assert found(view, condition("S.m.*", "!=", "@T.x")) is None
    assert found(view, condition("T.x", "!=", "@S.m.*")) is None
    assert found(view, condition("T.x", "!=", "@S.x")) is None


def test_of_many_matches_a_hundred_are_kept() -> None:
    view = {"S": {"l": list(range(1000))}}

    matches = found(view, condition("S.l.*", ">=", "5"))

    assert matches is not None
    assert matches[0] == [match(str(number)) for number in range(5, 105)]


def test_as_many_are_kept_however_long_they_are() -> None:
    view = {"S": {"l": ["x" * 3000] * 101}}

    matches = found(view, condition("S.l.*", ">=", '"a"', "S.l.*"))

    assert matches is not None
    assert len(matches[0]) == 100


# --- variables ----------------------------------------------------------------------------------


def test_a_variable_that_is_not_there_is_null() -> None:
    matches = found({"S": {"a": 7}}, condition("S.a", ">", "5", "S.x", "T.x.y"))

    assert matches is not None
    assert matches[0][0]["json_variables"] == {"S.x": "null", "T.x.y": "null"}


def test_a_variable_that_ranges_is_a_list() -> None:
    view = {"S": {"a": 7}, "T": {"l": [{"x": 1}, 5, {"x": {"y": 2}}], "m": {}}}

    matches = found(view, condition("S.a", ">", "5", "T.l.x", "T.m.*"))

    assert matches is not None
    assert matches[0][0]["json_variables"] == {"T.l.x": '[1, {"y": 2}]', "T.m.*": "[]"}


def test_a_variable_is_of_the_operand_that_shares_more_of_its_way() -> None:
    view = {
        "S": {
            "a": {"x": {"n": 1, "who": "ax"}, "y": {"n": 5, "who": "ay"}},
            "b": {"p": {"n": 3, "who": "bp"}, "q": {"n": 4, "who": "bq"}},
        }
    }

    matches = found(
        view, condition("S.a.*.n", ">", "@S.b.*.n", "S.b.*.who", "S.a.*.who", "S.b.__key")
    )

    assert matches is not None
    assert [row["json_variables"] for row in matches[0]] == [
        {"S.b.*.who": '"bq"', "S.a.*.who": '"ay"', "S.b.__key": '"q"'}
    ]


def test_variables_of_many_matches_are_each_of_their_own_place() -> None:
    rows = [{"n": number, "who": f"w{number}", "of": ["x", number]} for number in range(50)]

    matches = found(
        {"S": {"rows": rows}}, condition("S.rows.n", ">=", "0", "S.rows.who", "S.rows.of")
    )

    assert matches is not None
    assert [row["json_variables"] for row in matches[0]] == [
        {"S.rows.who": f'"w{number}"', "S.rows.of": f'["x", {number}]'} for number in range(50)
    ]


def test_a_variable_that_all_matches_share_is_sought_once() -> None:
    view = {"S": {"rows": [{"n": n} for n in range(100)], "many": [{"x": 1}] * 50_000}}
    rule = compiled([condition("S.rows.n", ">=", "0", "S.many.x", "S.many.*.x")])

    began = time.perf_counter()
    rule.holds(view)

    assert time.perf_counter() - began < 2


# --- many values are no trouble -----------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        condition("S.l.*", "in", "@S.l"),
        condition("S.l.*", "not in", "@S.l"),
        condition("S.l.*", "==", "@S.l"),
        condition("S.l.*", "<", "@S.text"),
        condition("S.text", "<", "@S.l.*"),
        condition("S.l.*", "not in", "@S.text"),
        condition("S.maps.*", "in", "@S.maps"),
    ],
    ids=lambda one: f"{one['operand1']} {one['operation']} {one['operand2']['uve_attribute']}",
)
def test_time_doesnt_grow_with_the_square_of_what_a_view_holds(one: dict[str, Any]) -> None:
    numbers = list(range(10_000))
    view = {"S": {"l": numbers, "text": json.dumps(numbers), "maps": [{"n": n} for n in numbers]}}

    began = time.perf_counter()
    compiled([one]).holds(view)

    assert time.perf_counter() - began < 5


# --- paths, structs, keys -----------------------------------------------------------------------


def test_a_rule_looks_at_the_structs_that_its_paths_begin_with() -> None:
    rule = compiled(
        [condition("S.a.b", ">", "@T.c", "U.d"), condition(f"{SCORE}.value.sigma", ">", "1")],
        [condition("S.*", ">", "1")],
    )

    assert rule.structs == frozenset({"S", "T", "U", SCORE})
    assert rule.paths() == {"S.a.b", "T.c", "U.d", f"{SCORE}.value.sigma", "S.*"}


@pytest.mark.parametrize("path", ["*", "*.a", "__key", "__value.x.y"])
def test_a_rule_may_look_at_all_structs(path: str) -> None:
    assert compiled([condition(path, "!=", "1", "S.a")]).structs is None
    assert compiled([condition("S.a", "!=", "1", path)]).structs is None


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([condition("S", "==", "null")], True),
        ([condition("S", "!=", "5")], True),
        ([condition("S", "!=", "null")], False),
        ([condition("S.a", "==", "null")], False),
        ([condition("S", "==", "null"), condition("T.a", "!=", "1")], False),
        ([condition("S", "==", "@T")], True),
        ([condition("*", "!=", "1")], False),
    ],
)
def test_a_rule_may_hold_where_none_of_its_structs_is_there(
    conditions: list[dict[str, Any]], expected: bool
) -> None:
    assert compiled(conditions).holds_without_structs is expected


@pytest.mark.parametrize(
    ("uve_keys", "key", "expected"),
    [
        (["ObjectVNTable"], "ObjectVNTable:default-domain:demo:vn1", True),
        (["ObjectVNTable"], "ObjectVNTableX:vn1", False),
        (["ObjectVNTable"], "ObjectVN:vn1", False),
        (["ObjectVNTable:*:demo:*"], "ObjectVNTable:default-domain:demo:vn1", True),
        (["ObjectVNTable:*:demo:*"], "ObjectVNTable:default-domain:other:vn1", False),
        (["ObjectVNTable:vn1"], "ObjectVNTable:vn1", True),
        (["ObjectVNTable:vn1"], "ObjectVNTable:vn1:x", False),
        (["ObjectVRouter", "ObjectVNTable:vn*"], "ObjectVNTable:vn7", True),
        (["ObjectVRouter", "ObjectVNTable:vn*"], "ObjectVRouter:compute-1", True),
    ],
)
def test_a_rule_is_about_tables_and_patterns_of_keys(
    uve_keys: list[str], key: str, expected: bool
) -> None:
    rule = compiled([condition("S.a", ">", "1")], uve_keys=uve_keys)

    assert rule.wants(key) is expected
    assert rule.tables == {entry.partition(":")[0] for entry in uve_keys}
