"""Views that someone made to do harm: no rule raises, takes long, or finds what can't be shown."""

from __future__ import annotations

import functools
import itertools
import json
import math
import time
from typing import Any

import msgpack
import pytest

from alarms.writing import compiled, condition
from collectord import wire
from collectord.alarms.operations import OPERATIONS


def nested(depth: int, wrap: Any, inner: Any = 1) -> Any:
    return functools.reduce(lambda value, _: wrap(value), range(depth), inner)


HOSTILE: dict[str, Any] = {
    "lists 32 deep": nested(32, lambda value: [value]),
    "maps 32 deep": nested(32, lambda value: {"a": value}),
    "lists and maps 32 deep": nested(16, lambda value: [{"a": value}]),
    "a text of lists 32 deep": json.dumps(nested(32, lambda value: [value])),
    "a text of maps 32 deep": json.dumps(nested(32, lambda value: {"a": value})),
    "a text of far too many lists": "[" * 65_000,
    "a text of lists that are far too deep": "[" * 30_000 + "]" * 30_000,
    "a text of maps that are far too deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "texts in texts": nested(8, json.dumps, {"a": 1}),
    "texts of lists in texts": nested(8, lambda value: json.dumps([value])),
    "a list of texts of lists": ["[" * 1000 + "]" * 1000] * 20,
    "a text of many digits": "9" * 65_000,
    "a text of a large exponent": "1e999999999",
    "a long text": "x" * 200_000,
    "a long text of JSON": json.dumps(["x" * 300] * 200),
    "half a character": "\ud800",
    "bytes that were no UTF-8": "\udcff\udcfe",
    "a text of half a character": '"\\ud800"',
    "a map of half a character": {"\udcff": "\ud800"},
    "NaN": math.nan,
    "Infinity": -math.inf,
    "the largest integer": 2**64 - 1,
    "an integer larger than any float": 10**400,
    "many numbers that are none": [math.nan] * 1000,
    "bytes": b"\xff" * 10_000,
    "an extension": msgpack.ExtType(5, b"\xff"),
    "a timestamp": msgpack.Timestamp(2**33, 1),
    "extensions": [msgpack.ExtType(5, b"1"), {"a": msgpack.ExtType(6, b"")}],
    "keys that are no texts": {
        None: 1,
        True: 2,
        2: 3,
        2.5: 4,
        math.nan: 5,
        b"a": 6,
        msgpack.ExtType(1, b"a"): 7,
        "__key": 8,
        "*": 9,
        "": 10,
        "a.b": 11,
    },
    "numbers whose hashes are one": [number * (2**61 - 1) for number in range(8)] * 50,
    "many rows of many sources": [[number, "host-1", "host-2"] for number in range(500)],
}
PATHS = ["S.a", "S.a.*", "S.a.__key", "S.a.a", "S.a.*.a", "S.a.a.*", "*.*.*.*", "S.*", "S.a.2"]
MANY = [f"S.{'.'.join('a' * 40)}", f"S.{'.'.join('*' * 40)}", "S.__key.a", "T.x"]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_rule_raises_or_takes_long(value: Any) -> None:
    view = {"S": {"a": value, "b": [1, 2]}, "T": {"a": {"x": value}}}
    operations = itertools.cycle(OPERATIONS)
    rules = [
        compiled([condition(path, next(operations), f"@{other}", *PATHS, *MANY)])
        for path in (*PATHS, *MANY)
        for other in ("S.a", "S.a.*", "S.b", "S.b.*", "T.a.x")
    ]

    began = time.perf_counter()
    found = [rule.holds(view) for rule in rules]
    explained = [rule.explain(view) for rule in rules]

    assert time.perf_counter() - began < 20
    for held, ((row,)) in zip(found, explained, strict=True):
        assert (held is not None) is row.holds
    packed = wire.encode(found)
    assert len(packed) < 100 * len(rules) * 1000
    assert wire.decode(packed) == found
    assert json.loads(wire.encode_json({"found": found}))["found"] == found


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_shown_of_it_is_short_and_json(value: Any) -> None:
    rule = compiled([condition("S.a", "!=", '"nothing like it"', "S.a.*", "S")])

    held = rule.holds({"S": {"a": value}})

    assert held is not None
    (match,) = held[0]["and_list"][0]["match"]
    for text in (match["json_operand1_value"], *match["json_variables"].values()):
        assert len(text) <= 1000
        text.encode()
        json.loads(text)
