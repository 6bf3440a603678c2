"""What is found, as JSON, and whether two findings are one alarm."""

from __future__ import annotations

import copy
import json
import math
import time
from typing import Any

import msgpack
import pytest

from alarms.writing import compiled, condition, found, held_of
from collectord import wire
from collectord.alarms.evaluation import is_same

# --- values as JSON -----------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as a match shows it."""
    matches = found({"S": {"a": value}}, condition("S.a", "!=", '"nothing like it"'))
    assert matches is not None
    text: str = matches[0][0]["json_operand1_value"]
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        ("up", '"up"'),
        ("Zürich", '"Zürich"'),
        ('say "x"\n', '"say \\"x\\"\\n"'),
        ("", '""'),
        ([1, "a", None], '[1, "a", null]'),
        ({"a": {"b": [1.5]}, "c": {}}, '{"a": {"b": [1.5]}, "c": {}}'),
        ("36.2", "36.2"),
        ('{"a":1}', '{"a":1}'),
        (b"\x00\xff", '"AP8="'),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        ([float("inf"), b"a"], '["Infinity", "YQ=="]'),
        (msgpack.ExtType(5, b"a"), '{"type": 5, "data": "YQ=="}'),
        ({1: 2, None: 4, 1.5: 6, b"a": 5}, '{"1": 2, "null": 4, "1.5": 6, "YQ==": 5}'),
        ("\udcff", '"\\udcff"'),
        (["\ud800"], '["\\ud800"]'),
        ({"\udcff": 1}, '{"\\udcff": 1}'),
        (2**64 - 1, "18446744073709551615"),
    ],
    ids=ascii,
)
def test_values_are_shown_as_json(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_text_of_json_is_shown_as_it_is_even_if_its_characters_cant_be_encoded() -> None:
    assert shown('"\udcff"') == '"\\udcff"'


def test_a_long_json_is_cut() -> None:
    long = list(range(2000))

    text = json.loads(shown(long))

    assert text == json.dumps(long)[:480] + "…"


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        ("x" * 5000, '"xxx'),
        (json.dumps(["x"] * 2000), '["x", "x"'),
        ([["é"] * 100] * 100, '[["é", "é"'),
        ({str(number): number for number in range(2000)}, '{"0": 0, "1": 1'),
        (b"a" * 5000, '"YWFh'),
        ("\udcff" * 5000, '"\\udcff\\udcff'),
        ('"\\' * 2000, '"\\"\\\\\\"'),
        (json.dumps("\udcff" * 300, ensure_ascii=False), '"\\udcff\\udcff'),
        ({"k" * 5000: 1}, '{"kkkk'),
        ("5" + " " * 70_000, '"5   '),
    ],
    ids=range(10),
)
def test_whatever_is_long_is_cut(value: Any, begins: str) -> None:
    text = shown(value)

    assert len(text) <= 1000
    assert json.loads(text).startswith(begins)


def test_little_of_a_large_value_is_written_before_it_is_cut() -> None:
    large = {"S": {"a": [["x" * 100] * 1000] * 1000, "b": 1}}
    rule = compiled([condition("S.b", "==", "1", *["S.a"] * 50)])

    began = time.perf_counter()
    rule.holds(large)

    assert time.perf_counter() - began < 1


def test_what_is_found_can_be_packed_and_is_the_same_afterwards() -> None:
    view = {"S": {"a": ["\udcff", b"\xff", float("nan"), {1: "\ud800"}], "b": "\udcff"}}
    held = compiled([condition("S.a", "!=", "1", "S.b"), condition("S.b", "!=", "@S.a")]).holds(
        view
    )

    assert wire.decode(wire.encode(held)) == held
    assert json.loads(wire.encode_json({"held": held})) == {"held": held}


# --- the same alarm -----------------------------------------------------------------------------


THRESHOLDS = [("<", "9"), ("<=", "9"), (">", "1"), (">=", "1"), ("range", "[1, 9]")]


@pytest.mark.parametrize(("operation", "operand2"), THRESHOLDS)
def test_under_a_threshold_another_number_is_the_same_alarm(operation: str, operand2: str) -> None:
    rule = [condition("S.a", operation, operand2, "S.v")]

    assert is_same(held_of({"S": {"a": 5, "v": 1}}, rule), held_of({"S": {"a": 6, "v": 1}}, rule))


@pytest.mark.parametrize(("operation", "operand2"), THRESHOLDS)
def test_under_a_threshold_another_variable_is_another_alarm(operation: str, operand2: str) -> None:
    rule = [condition("S.a", operation, operand2, "S.v")]
    before, now = ({"S": {"a": 5, "v": v}} for v in (1, 2))

    assert not is_same(held_of(before, rule), held_of(now, rule))


@pytest.mark.parametrize(("operation", "operand2"), THRESHOLDS)
def test_under_a_threshold_one_more_match_is_another_alarm(operation: str, operand2: str) -> None:
    rule = [condition("S.a.*", operation, operand2)]

    assert is_same(held_of({"S": {"a": [5, 6]}}, rule), held_of({"S": {"a": [3, 4]}}, rule))
    assert not is_same(held_of({"S": {"a": [5, 6]}}, rule), held_of({"S": {"a": [5]}}, rule))


def test_under_a_threshold_another_operand2_is_the_same_alarm() -> None:
    rule = [condition("S.a", ">", "@S.b")]

    assert is_same(held_of({"S": {"a": 5, "b": 1}}, rule), held_of({"S": {"a": 9, "b": 2}}, rule))


@pytest.mark.parametrize(
    ("operation", "operand2", "values"),
    [
        ("==", "@S.b", ({"a": 5, "b": 5}, {"a": 6, "b": 6})),
        ("!=", "1", ({"a": 5}, {"a": 6})),
        ("in", "[5, 6]", ({"a": 5}, {"a": 6})),
        ("not in", "[1]", ({"a": 5}, {"a": 6})),
        ("size==", "1", ({"a": [5]}, {"a": [6]})),
        ("size!=", "9", ({"a": [5]}, {"a": [6]})),
    ],
)
def test_under_other_operations_another_value_is_another_alarm(
    operation: str, operand2: str, values: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    rule = [condition("S.a", operation, operand2)]
    before, now = (held_of({"S": value}, rule) for value in values)

    assert not is_same(before, now)
    assert is_same(before, copy.deepcopy(before))


def test_a_hundred_numbers_that_become_longer_are_the_same_alarm() -> None:
    rule = [condition("S.rows.n", ">", "1", "S.rows.text")]
    for length in (10, 158, 900, 9000):
        before, now = (
            {"S": {"rows": [{"n": n, "text": "x" * length}] * 100}} for n in (999, 1_000_000)
        )
        assert is_same(held_of(before, rule), held_of(now, rule))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (1, 1.0),
        ("1", 1.0),
        ("1", "1.0"),
        ([1, {"a": 2}], [1.0, {"a": 2.0}]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ('{"a":1}', {"a": 1}),
        (math.nan, math.nan),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("operation", ["!=", "not in", "size!="])
def test_equal_values_that_are_written_otherwise_are_the_same_alarm(
    before: Any, now: Any, operation: str
) -> None:
    rule = [condition("S.a", operation, "[7]" if operation == "not in" else "7", "S.a")]

    assert is_same(held_of({"S": {"a": before}}, rule), held_of({"S": {"a": now}}, rule))


def test_another_operand2_is_the_same_alarm_if_it_is_equal() -> None:
    rule = [condition("S.a", "==", "@S.b")]
    before, now = ({"S": {"a": one, "b": other}} for one, other in ((1, 1.0), (1.0, 1)))

    assert is_same(held_of(before, rule), held_of(now, rule))


@pytest.mark.parametrize(
    ("before", "now"), [(1, True), ('"1"', 1), ("x", None), ([1], [True]), (0, None)], ids=ascii
)
def test_values_that_only_look_alike_are_another_alarm(before: Any, now: Any) -> None:
    rule = [condition("S.a", "!=", "7")]
    under_a_threshold = [condition("S.n", "<", "7", "S.a")]

    for one in rule, under_a_threshold:
        first, second = (held_of({"S": {"a": value, "n": 1}}, one) for value in (before, now))
        assert not is_same(first, second)


def test_most_alarms_are_found_to_be_the_same_at_once() -> None:
    rule = [condition("S.rows.n", ">", "1", *["S.rows.name"] * 50)]
    rows = [{"n": 5, "name": "x" * 900} for _ in range(100)]
    before, now = (held_of({"S": {"rows": rows}}, rule) for _ in range(2))

    began = time.perf_counter()
    for _ in range(1000):
        assert is_same(before, now)

    assert time.perf_counter() - began < 1


def test_another_and_list_that_holds_is_another_alarm() -> None:
    rule = [condition("S.a", ">", "1")], [condition("S.b", ">", "1")]
    both, one, other = (
        held_of({"S": value}, *rule) for value in ({"a": 5, "b": 5}, {"a": 5}, {"b": 5})
    )

    assert not is_same(both, one)
    assert not is_same(one, both)
    assert not is_same(one, other)


def test_a_number_beside_a_text_that_changed_is_another_alarm() -> None:
    rule = [condition("S.a", ">", "1"), condition("S.b", "!=", '"up"')]
    before, now = (held_of({"S": {"a": 5, "b": text}}, rule) for text in ("down", "flapping"))

    assert not is_same(before, now)


def test_what_comes_back_from_a_snapshot_is_the_same_alarm() -> None:
    rule = [condition("S.a", ">", "1", "S.b"), condition("S.b", "!=", '"up"')]
    held = held_of({"S": {"a": 5, "b": "Zürich \udcff"}}, rule)

    assert is_same(wire.decode(wire.encode(held)), held)
