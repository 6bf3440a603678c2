"""What is said of a rule that holds or doesn't, condition by condition."""

from __future__ import annotations

from typing import Any

import pytest

from alarms.writing import NODE, compiled, condition
from collectord.alarms.paths import PLACES


def why(view: dict[str, Any], *conditions: dict[str, Any]) -> list[tuple[bool, str]]:
    return [(row.holds, row.why) for row in compiled(list(conditions)).explain(view)]


def test_every_condition_is_explained_even_where_one_is_enough() -> None:
    rule = compiled(
        [condition("S.a", ">", "5"), condition("S.b", "==", "@S.c")], [condition("S.a", "<", "5")]
    )

    rows = rule.explain({"S": {"a": 3, "b": "x"}})

    assert [(row.place, row.operand1, row.operand2, row.holds) for row in rows] == [
        ("or_list[0].and_list[0]", ("3",), ("5",), False),
        ("or_list[0].and_list[1]", ('"x"',), ("null",), False),
        ("or_list[1].and_list[0]", ("3",), ("5",), True),
    ]
    assert rows[2].condition.operation == "<"


@pytest.mark.parametrize(
    ("one", "holds", "sentence"),
    [
        (condition("NodeInfo.build", "==", '"5.0"'), True, "it holds"),
        (condition("NodeInfo.build", "==", '"6.0"'), False, "it doesn't hold"),
        (
            condition("NodeStatus.process_info.process_state", "!=", '"RUNNING"'),
            True,
            "it holds at 2 of 3 places",
        ),
        (
            condition("NodeStatus.process_info.cores", ">", "7"),
            False,
            "it holds at none of 3 places",
        ),
        (
            condition("NodeCpu.load", ">", "1"),
            False,
            "there is no way to operand1: NodeCpu is not there",
        ),
        (
            condition("NodeStatus.memory.free", ">", "1"),
            False,
            "there is no way to operand1: NodeStatus.memory is not there",
        ),
        (
            condition("NodeInfo.build.x", ">", "1"),
            False,
            "there is no way to operand1: NodeInfo.build has no members",
        ),
        (
            condition("NodeInfo.build.x.y", ">", "1"),
            False,
            "there is no way to operand1: NodeInfo.build has no members",
        ),
        (
            condition("NodeInfo.build", ">", "@NodeCpu.load"),
            False,
            "there is no way to operand2: NodeCpu is not there",
        ),
        (
            condition("NodeStatus.limits.*", ">", "@NodeStatus.process_info.cores"),
            False,
            "operand1 ranges over 2 values and operand2 over 3, so they can't be paired",
        ),
    ],
)
def test_why_a_condition_holds_or_not(one: dict[str, Any], holds: bool, sentence: str) -> None:
    assert why(NODE, one) == [(holds, sentence)]


def test_ranging_over_nothing_is_explained() -> None:
    view: dict[str, Any] = {"S": {"l": [], "a": 1}}

    assert why(view, condition("S.l.*", "!=", "1")) == [(False, "operand1 ranges over nothing")]
    assert why(view, condition("S.a", "!=", "@S.l.*")) == [(False, "operand2 ranges over nothing")]


def test_operands_that_are_missing_are_said_to_be_missing() -> None:
    view: dict[str, Any] = {"S": {"l": [{"a": {"b": 1}}, {}]}}

    (row,) = compiled([condition("S.l.a.b", ">", "@T.x")]).explain(view)

    assert (row.operand1, row.operand2) == (("1", "missing"), ("missing",))


def test_a_hundred_values_are_shown() -> None:
    (row,) = compiled([condition("S.l.*", ">", "1")]).explain({"S": {"l": list(range(1000))}})

    assert len(row.operand1) == 100
    assert row.why == "it holds at 998 of 1000 places"


def test_it_is_said_that_not_all_places_are_looked_at() -> None:
    many, more = [1] * PLACES, [1] * (PLACES + 1)
    view = {"S": {"many": many, "more": more, "empty": [[]] * (PLACES + 1)}}

    assert why(
        view,
        condition("S.more.*", "==", "1"),
        condition("S.many.*", "==", "1"),
        condition("S.many.*", "==", "@S.more.*"),
        condition("S.more.*", "==", "@S.more.*"),
        condition("S.empty.*.*", "==", "1"),
    ) == [
        (True, "it holds at 10000 of 10000 places; there are more, which are not looked at"),
        (True, "it holds at 10000 of 10000 places"),
        (
            False,
            "operand1 ranges over 10000 values and operand2 over more than 10000, "
            "so they can't be paired; there are more, which are not looked at",
        ),
        (True, "it holds at 10000 of 10000 places; there are more, which are not looked at"),
        (False, "operand1 ranges over nothing; there are more, which are not looked at"),
    ]
