"""The operations of conditions: what holds of which values, and what a text of JSON stands for."""

import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.alarms.evaluation import compile_rule
from collectord.alarms.operations import OPERATIONS, equal, held, looked_into, order
from collectord.alarms.rules import Rule, impossible

OPERAND1: dict[str, dict[str, Any]] = {
    "5": {"S": {"a": 5}},
    "up": {"S": {"a": "up"}},
    "true": {"S": {"a": True}},
    "[5]": {"S": {"a": [5]}},
    "{a:5}": {"S": {"a": {"a": 5}}},
    "null": {"S": {}},
    "missing": {},
    "'5'": {"S": {"a": "5"}},
    "'[5]'": {"S": {"a": "[5]"}},
    "'{a:5}'": {"S": {"a": '{"a": 5}'}},
    "'null'": {"S": {"a": "null"}},
}
"""What S.a is in a view: plain values, and texts that hold JSON."""

HOLDS = """
        operand2           5  up  true  [5]  {a:5}  null  missing  '5'  '[5]'  '{a:5}'  'null'

==      5                  x  .   .     .    .      .     .        x    .      .        .
==      5.0                x  .   .     .    .      .     .        x    .      .        .
==      1                  .  .   .     .    .      .     .        .    .      .        .
==      "up"               .  x   .     .    .      .     .        .    .      .        .
==      true               .  .   x     .    .      .     .        .    .      .        .
==      [5]                .  .   .     x    .      .     .        .    x      .        .
==      {"a":5}            .  .   .     .    x      .     .        .    .      x        .
==      null               .  .   .     .    .      x     .        .    .      .        x

!=      5                  .  x   x     x    x      x     .        .    x      x        x
!=      "up"               x  .   x     x    x      x     .        x    x      x        x
!=      1                  x  x   x     x    x      x     .        x    x      x        x
!=      [5]                x  x   x     .    x      x     .        x    .      x        x
!=      {"a":5}            x  x   x     x    .      x     .        x    x      .        x
!=      null               x  x   x     x    x      .     .        x    x      x        .

<       6                  x  .   .     .    .      x     .        x    .      .        x
<       5                  .  .   .     .    .      x     .        .    .      .        x
<       "uq"               .  x   .     .    .      x     .        .    .      .        x
<       true               .  .   .     .    .      x     .        .    .      .        x
<       [6]                .  .   .     x    .      x     .        .    x      .        x
<       [5,0]              .  .   .     x    .      x     .        .    x      .        x
<       {"a":6}            .  .   .     .    .      x     .        .    .      .        x told
<       null               .  .   .     .    .      .     .        .    .      .        .

<=      5                  x  .   .     .    .      x     .        x    .      .        x
<=      4                  .  .   .     .    .      x     .        .    .      .        x
<=      true               .  .   x     .    .      x     .        .    .      .        x
<=      [5]                .  .   .     x    .      x     .        .    x      .        x
<=      {"a":5}            .  .   .     .    .      x     .        .    .      .        x told
<=      null               .  .   .     .    .      x     .        .    .      .        x

>       4                  x  .   .     .    .      .     .        x    .      .        .
>       5                  .  .   .     .    .      .     .        .    .      .        .
>       "a"                .  x   .     .    .      .     .        .    .      .        .
>       false              .  .   x     .    .      .     .        .    .      .        .
>       [4,9]              .  .   .     x    .      .     .        .    x      .        .
>       []                 .  .   .     x    .      .     .        .    x      .        .
>       {}                 .  .   .     .    .      .     .        .    .      .        . told
>       null               x  x   x     x    x      .     .        x    x      x        .

>=      5                  x  .   .     .    .      .     .        x    .      .        .
>=      "up"               .  x   .     .    .      .     .        .    .      .        .
>=      true               .  .   x     .    .      .     .        .    .      .        .
>=      [5]                .  .   .     x    .      .     .        .    x      .        .
>=      {"a":5}            .  .   .     .    .      .     .        .    .      .        . told
>=      null               x  x   x     x    x      x     .        x    x      x        x

in      [5,"up"]           x  x   .     .    .      .     .        x    .      .        .
in      [[5],{"a":5},true] .  .   x     x    x      .     .        .    x      x        .
in      [null]             .  .   .     .    .      x     .        .    .      .        x
in      ["5",1]            .  .   .     .    .      .     .        .    .      .        .
in      []                 .  .   .     .    .      .     .        .    .      .        .
in      5                  .  .   .     .    .      .     .        .    .      .        . told
in      "up"               .  .   .     .    .      .     .        .    .      .        . told
in      {"a":5}            .  .   .     .    .      .     .        .    .      .        . told
in      null               .  .   .     .    .      .     .        .    .      .        . told

not~in  [5,"up"]           .  .   x     x    x      x     .        .    x      x        x
not~in  [[5],{"a":5},true] x  x   .     .    .      x     .        x    .      .        x
not~in  [null]             x  x   x     x    x      .     .        x    x      x        .
not~in  []                 x  x   x     x    x      x     .        x    x      x        x
not~in  5                  x  x   x     x    x      x     .        x    x      x        x told
not~in  {"a":5}            x  x   x     x    x      x     .        x    x      x        x told
not~in  null               x  x   x     x    x      x     .        x    x      x        x told

range   [4,6]              x  .   .     .    .      .     .        x    .      .        .
range   [5,5.0]            x  .   .     .    .      .     .        x    .      .        .
range   [6,9]              .  .   .     .    .      .     .        .    .      .        .
range   [9,1]              .  .   .     .    .      .     .        .    .      .        . told
range   ["a","z"]          .  x   .     .    .      .     .        .    .      .        .
range   [[4],[6]]          .  .   .     x    .      .     .        .    x      .        .
range   [null,6]           x  .   .     .    .      x     .        x    .      .        x
range   [5]                .  .   .     .    .      .     .        .    .      .        . told
range   [1,5,9]            .  .   .     .    .      .     .        .    .      .        . told
range   5                  .  .   .     .    .      .     .        .    .      .        . told
range   {"a":5}            .  .   .     .    .      .     .        .    .      .        . told
range   null               .  .   .     .    .      .     .        .    .      .        . told

size==  1                  .  .   .     x    .      .     .        .    x      .        .
size==  1.0                .  .   .     x    .      .     .        .    x      .        .
size==  0                  .  .   .     .    .      .     .        .    .      .        .
size==  true               .  .   .     .    .      .     .        .    .      .        . told
size==  [5]                .  .   .     .    .      .     .        .    .      .        . told
size==  {"a":5}            .  .   .     .    .      .     .        .    .      .        . told
size==  null               .  .   .     .    .      .     .        .    .      .        . told

size!=  1                  x  x   x     .    x      x     .        x    .      x        x
size!=  0                  x  x   x     x    x      x     .        x    x      x        x
size!=  true               x  x   x     x    x      x     .        x    x      x        x told
size!=  [5]                x  x   x     x    x      x     .        x    x      x        x told
size!=  {"a":5}            x  x   x     x    x      x     .        x    x      x        x told
size!=  null               x  x   x     x    x      x     .        x    x      x        x told
"""
"""Every operation, with what stands right of it, and of which operands it holds: x.

Told, by ``rules check``, is what nobody can mean who writes it as a JSON value; an attribute may
happen to be it.
"""

HEAD, *ROWS = [line.split() for line in HOLDS.splitlines() if line]
ROW = pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])


def rule_with(operation: str, operand2: dict[str, Any]) -> Rule:
    """A rule that asks that of S.a."""
    condition = {"operation": operation, "operand1": "S.a", "operand2": operand2}
    rule = {
        "name": "rule",
        "uve_keys": ["ObjectVNTable"],
        "severity": 1,
        "alarm_rules": {"or_list": [{"and_list": [condition]}]},
    }
    return Rule.model_validate(rule)


def holds(operation: str, operand2: dict[str, Any], view: dict[str, Any]) -> bool:
    """Whether S.a fulfils a condition in a view."""
    return compile_rule(rule_with(operation, operand2)).holds(view) is not None


def held_of(row: list[str], operand2: dict[str, Any], more: dict[str, Any]) -> list[str]:
    """The cells of a row as they are found, in views that have more beside operand1."""
    operation = row[0].replace("~", " ")
    return [
        "x" if holds(operation, operand2, {**OPERAND1[name], **more}) else "." for name in HEAD[1:]
    ]


def cells(row: list[str]) -> list[str]:
    return row[2 : 2 + len(OPERAND1)]


def test_the_table_has_every_operation_and_every_column() -> None:
    assert {row[0].replace("~", " ") for row in ROWS} == set(OPERATIONS)
    assert HEAD[1:] == list(OPERAND1)
    assert all(len(cells(row)) == len(OPERAND1) for row in ROWS)


@ROW
def test_operand2_is_a_json_value(row: list[str]) -> None:
    assert held_of(row, {"json_value": row[1]}, {}) == cells(row)


@ROW
def test_a_json_value_that_nobody_can_mean_is_told(row: list[str]) -> None:
    told = impossible(rule_with(row[0].replace("~", " "), {"json_value": row[1]}), None)

    assert [" must be " in sentence for sentence in told] == [True] * (row[-1] == "told")


@ROW
def test_operand2_is_an_attribute(row: list[str]) -> None:
    view = {"T": {"b": json.loads(row[1])}}
    assert held_of(row, {"uve_attribute": "T.b"}, view) == cells(row)


@ROW
def test_operand2_is_an_attribute_that_is_a_text_of_json(row: list[str]) -> None:
    view = {"T": {"b": row[1]}}
    assert held_of(row, {"uve_attribute": "T.b"}, view) == cells(row)


@pytest.mark.parametrize("row", [row for row in ROWS if row[1] == "null"], ids=lambda row: row[0])
def test_operand2_whose_last_step_is_missing_is_null(row: list[str]) -> None:
    assert held_of(row, {"uve_attribute": "T.b"}, {"T": {}}) == cells(row)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("operand1", OPERAND1)
def test_nothing_holds_where_there_is_no_way_to_operand2(operation: str, operand1: str) -> None:
    assert not holds(operation, {"uve_attribute": "T.b"}, OPERAND1[operand1])


def test_a_text_in_a_json_value_is_looked_into_as_one_of_a_view() -> None:
    assert holds("==", {"json_value": '"5"'}, {"S": {"a": 5}})
    assert holds("==", {"json_value": '"5"'}, {"S": {"a": "5"}})


# --- equal, order -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("a", b"a", False),
        (b"a", b"a", True),
        (None, None, True),
        (None, 0, False),
        (math.nan, math.nan, False),
        ([math.nan], [math.nan], False),
        ([1], [1.0], True),
        ([1], [True], False),
        ([1], [1, 1], False),
        ([[0]], [[False]], False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: "x"}, {1.0: "x"}, True),
        ({1: "x"}, {True: "x"}, False),
        ({"1": "x"}, {1: "x"}, False),
        (2**53 + 1, float(2**53), False),
        (10**400, math.inf, False),
        (msgpack.ExtType(1, b"a"), msgpack.ExtType(1, b"a"), True),
        (msgpack.ExtType(1, b"a"), msgpack.ExtType(2, b"a"), False),
        (msgpack.Timestamp(1), msgpack.Timestamp(1), True),
        (msgpack.Timestamp(1), 1, False),
        ("\udcff", "\udcff", True),
    ],
)
def test_what_is_equal(left: Any, right: Any, expected: bool) -> None:
    assert equal(left, right) is expected
    assert equal(right, left) is expected


def test_the_same_nan_is_not_equal_to_itself() -> None:
    nan = math.nan
    assert not equal([nan], [nan])
    assert not equal({"a": nan}, {"a": nan})
    assert not equal({nan: "a"}, {nan: "a"})


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (None, 0),
        (None, False),
        (None, "a"),
        (None, []),
        (None, {}),
        (None, b""),
        (1, 1.5),
        (-math.inf, -(10**400)),
        (10**400, math.inf),
        (False, True),
        ("", "a"),
        ("B", "a"),
        ([], [None]),
        ([1, 2], [1, 3]),
        ([1], [1, None]),
        ([None, 9], [0]),
        ([[1]], [[2]]),
    ],
)
def test_what_is_below(low: Any, high: Any) -> None:
    assert (order(low, high), order(high, low)) == (-1, 1)


@pytest.mark.parametrize("value", [None, 0, 1.5, math.inf, True, "a", [], [1, "a", [None]]])
def test_what_is_at_itself(value: Any) -> None:
    assert order(value, value) == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, "1"),
        (1, True),
        (1, [1]),
        ("a", b"b"),
        (b"a", b"b"),
        ({}, {}),
        ({"a": 1}, {"a": 2}),
        ([{}], [{}]),
        ([1, "a"], [1, 2]),
        (math.nan, 1),
        (math.nan, math.nan),
        (math.nan, None),
        ([math.nan], [1]),
        (msgpack.ExtType(1, b"a"), msgpack.ExtType(1, b"b")),
        (msgpack.Timestamp(1), msgpack.Timestamp(2)),
    ],
)
def test_what_has_no_order(left: Any, right: Any) -> None:
    assert order(left, right) is None
    assert order(right, left) is None


def test_what_has_no_order_fulfils_no_threshold() -> None:
    for name in ("<", "<=", ">", ">="):
        assert not OPERATIONS[name].holds(math.nan, 1)
        assert not OPERATIONS[name].holds(1, math.nan)
        assert not OPERATIONS[name].holds({}, {})
    assert not OPERATIONS["range"].holds(math.nan, [0, 1])


# --- texts of JSON ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-5", -5),
        ("1.5", 1.5),
        ("36", 36),
        ("0.000172333", 0.000172333),
        ("1e3", 1000.0),
        (" 5\n", 5),
        ("true", True),
        (" false\t", False),
        ("null", None),
        ('"up"', "up"),
        ("[1, [2]]", [1, [2]]),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ('  {"a": 1}  ', {"a": 1}),
        ("[" * 32 + "]" * 32, json.loads("[" * 32 + "]" * 32)),
        ("9" * 308, int("9" * 308)),
        (json.dumps("[" * 5000), "[" * 5000),
        (json.dumps(["{"] * 100), ["{"] * 100),
    ],
)
def test_a_text_of_json_is_what_it_holds(text: str, value: Any) -> None:
    assert equal(looked_into(text), value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "up",
        "true story",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "-",
        "+5",
        "05",
        ".5",
        "5.",
        "1_000",
        "0x10",
        "1e999",
        "[1e999]",
        "[NaN]",
        "9" * 309,
        "9" * 5000,
        "٥",
        "\u00a05",
        "[1",
        "[1]]",
        "[1,]",
        "{'a': 1}",
        "{a: 1}",
        '"up',
        '"a\nb"',
        "10.0.0.1",
        "5 up",
        "\udcff",
        "\x00",
        " " * 70_000 + "5",
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        "[" * 30_000,
        "[" * 30_000 + "]" * 30_000,
        "[" + "1," * 40_000 + "1]",
        '"' + "a" * 70_000 + '"',
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_text_of_no_json_is_a_text(text: str) -> None:
    assert looked_into(text) is text


@pytest.mark.parametrize("value", [None, 5, b"5", ["5"], {"a": "5"}, msgpack.ExtType(5, b"5")])
def test_only_a_text_is_looked_into(value: Any) -> None:
    assert looked_into(value) is value


@given(st.text() | st.text(alphabet='[]{}",:0123456789.eE+-tfnrulas \t\n\\'))
def test_a_text_holds_what_the_standard_library_reads(text: str) -> None:
    def refuse(name: str) -> float:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        expected = text
    found = held(text, text)
    assert json.dumps(found) == json.dumps(expected) or "Infinity" in json.dumps(expected)


# --- many with one ------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(-2, 2).map(round) | st.sampled_from([0.5, math.nan, math.inf, 2.0**70]),
    st.sampled_from(["", "a", "1", 2**70, b"a", msgpack.ExtType(1, b"a"), msgpack.Timestamp(1)]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(scalars, inner, max_size=2),
    max_leaves=4,
)


@given(values, st.lists(values, min_size=17, max_size=25), st.sampled_from(["in", "not in"]))
def test_a_long_list_has_the_elements_that_are_equal_to_one(
    value: Any, elements: list[Any], name: str
) -> None:
    operation = OPERATIONS[name]
    assert operation.against(elements)(value) is operation.holds(value, elements)


@given(values, values, st.sampled_from(sorted(OPERATIONS)))
def test_no_operation_raises_or_says_anything_but_yes_or_no(
    left: Any, right: Any, name: str
) -> None:
    operation = OPERATIONS[name]
    assert operation.holds(left, right) in (True, False)
    assert operation.against(right)(left) is operation.holds(left, right)


@given(values, values)
def test_the_order_is_the_other_way_round_from_the_other_side(left: Any, right: Any) -> None:
    forth, back = order(left, right), order(right, left)
    assert back == (None if forth is None else -forth)


@given(values, values)
def test_what_is_equal_is_so_from_both_sides(left: Any, right: Any) -> None:
    assert equal(left, right) is equal(right, left)
