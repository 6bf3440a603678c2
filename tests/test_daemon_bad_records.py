"""Bad records for a running collector: each gets its code, and harms no other."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from daemon import (
    METRIC,
    STRUCT,
    Daemon,
    Source,
    all_but,
    batch_with,
    nested,
    new_key,
    new_source,
    refusal,
    rejection,
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def source(daemon: Daemon) -> Iterator[Source]:
    with daemon.source() as source:
        yield source


@pytest.fixture(autouse=True)
def goes_on(daemon: Daemon) -> Iterator[None]:
    """After each test, whoever sends and asks finds the collector as it was."""
    yield
    daemon.assert_goes_on()


# ---- records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", all_but("array"))
def test_a_record_of_another_type_is_bad(source: Source, bad: Any) -> None:
    assert rejection(source.tell(bad)) == "bad_record"


@pytest.mark.parametrize("length", [0, 1, 2, 5, 100])
def test_a_record_has_three_or_four_members(source: Source, length: int) -> None:
    record = [new_key(), STRUCT, {"a": 1}, 1_600_000_000_000_000, *[None] * 96][:length]

    assert rejection(source.tell(record)) == "bad_record"


@pytest.mark.parametrize(
    ("place", "bad", "code"),
    [
        pytest.param(place, *case.values, code, id=f"{code}-{case.id}")
        for place, (code, good) in enumerate(
            [
                ("bad_key", ["text"]),
                ("bad_struct", ["text"]),
                ("bad_record", ["map", "nil"]),
                ("bad_time", ["integer"]),
            ]
        )
        for case in all_but(*good)
    ],
)
def test_a_member_of_a_record_of_the_wrong_type_is_rejected(
    daemon: Daemon, source: Source, place: int, bad: Any, code: str
) -> None:
    key = new_key()
    record = [key, STRUCT, {"a": 1}, 1_600_000_000_000_000]
    record[place] = bad
    before = daemon.counter(f"rejected_{code}")

    assert rejection(source.tell(record)) == code
    assert daemon.counter(f"rejected_{code}") == before + 1
    assert daemon.uve(key) is None


@pytest.mark.parametrize("bad", all_but("text", "array", "map"))
def test_an_attribute_s_name_that_is_no_text_is_rejected(source: Source, bad: Any) -> None:
    assert rejection(source.tell([new_key(), STRUCT, {bad: 1}])) == "bad_attribute"


def test_an_attribute_s_name_that_is_a_map_is_rejected(source: Source) -> None:
    _, body = batch_with(b"\x01", source)

    assert (
        rejection(source.send(body.replace(b"\x81\xa1a\x01", b"\x81\x80\x01"))) == "bad_attribute"
    )


@pytest.mark.parametrize(
    "key",
    ["", ":", "notable", "notable:", ":name", "T:" + "x" * 1023, "T:" + "é" * 512],
    ids=["empty", "colon", "no-colon", "no-name", "no-table", "1025", "1026-bytes"],
)
def test_a_key_that_is_none_is_rejected(source: Source, key: str) -> None:
    assert rejection(source.tell([key, STRUCT, {"a": 1}])) == "bad_key"


@pytest.mark.parametrize("key", ["T:" + "x" * 1022, "T:" + "é" * 511], ids=["ascii", "utf-8"])
def test_a_key_of_1024_bytes_is_taken(daemon: Daemon, source: Source, key: str) -> None:
    assert source.tell([key, STRUCT, {"a": 1}])["applied"] == 1
    assert daemon.uve(key) == {STRUCT: {"a": 1}}
    assert source.tell([key, STRUCT, None])["applied"] == 1


BAD_NAMES = ["", "x" * 129, "1x", "a-b", "a b", "a:b", "é", "a\x00", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_struct_that_is_no_name_is_rejected(source: Source, name: str) -> None:
    assert rejection(source.tell([new_key(), name, {"a": 1}])) == "bad_struct"


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_an_attribute_that_is_no_name_is_rejected(source: Source, name: str) -> None:
    assert rejection(source.tell([new_key(), STRUCT, {name: 1}])) == "bad_attribute"


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_known_record_is_as_strict_about_names(daemon: Daemon, source: Source, name: str) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])

    assert rejection(source.tell([key, STRUCT, {"a": 2, name: 1}])) == "bad_attribute"
    assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_names_of_128_bytes_are_taken(daemon: Daemon, source: Source) -> None:
    key, name = new_key(), "x" * 128

    assert source.tell([key, name, {name: 1}])["applied"] == 1
    assert daemon.uve(key) == {name: {name: 1}}


@pytest.mark.parametrize(
    ("good", "bad", "code"),
    [
        (b"T:key?", b"T:key\xff", "bad_key"),
        (b"T:key?", b"T:\xc0\xafxx", "bad_key"),
        (b"T:key?", b"T:\xed\xa0\x80x", "bad_key"),
        (b"struct", b"str\xffct", "bad_struct"),
        (b"attribute", b"attrib\xffte", "bad_attribute"),
    ],
    ids=["key", "key-overlong", "key-surrogate", "struct", "attribute"],
)
def test_a_name_that_is_no_utf_8_is_rejected(
    source: Source, good: bytes, bad: Any, code: str
) -> None:
    body = msgpack.packb(source.batch(["T:key?", "struct", {"attribute": 1}], epoch=1, seq=1))

    assert rejection(source.send(body.replace(good, bad))) == code


def test_a_value_that_is_no_utf_8_comes_back_as_the_bytes_it_came_as(
    daemon: Daemon, source: Source
) -> None:
    key, body = batch_with(b"\xa3a\xffb", source)

    assert source.send(body)["applied"] == 1

    reply = daemon.ask_body(msgpack.packb({"op": "get", "key": key}))
    assert b"\xa3a\xffb" in reply
    assert daemon.ask_json("get", key=key)["ok"]


@pytest.mark.parametrize(
    "value",
    [
        b"\x81\x81\x01\x02\x03",
        b"\x81\x91\x90\x01",
        b"\xc7\x00\xff",
        b"\xc7\x03\x80abc",
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\x82\x01\x02\x01\x03",
    ],
    ids=[
        *["map-keyed-by-map", "map-keyed-by-array", "empty-timestamp", "reserved-extension"],
        *["timestamp-32", "timestamp-64-out-of-range", "timestamp-96-out-of-range", "key-twice"],
    ],
)
def test_a_value_that_python_may_not_hold_harms_no_view(
    daemon: Daemon, source: Source, value: Any
) -> None:
    key, body = batch_with(value, source)
    assert source.send(body)["applied"] == 1
    with daemon.source() as other:
        other.tell([key, STRUCT, {"b": 2}])

    for by_source in (False, True):
        view = daemon.uve(key, by_source=by_source)
        assert view[STRUCT].keys() == {"a", "b"}
        reply = daemon.ask_json("get", key=key, by_source=by_source)
        assert reply["uve"][STRUCT].keys() == {"a", "b"}


ODD_VALUES = [
    b"\xc2",
    b"\x01",
    b"\xca\x7f\xc0\x00\x00",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xcf" + b"\xff" * 8,
    b"\xa2\xff\xfe",
    b"\xc4\x01\xff",
    b"\xd4\x80x",
    b"\xd7\xff" + b"\x00" * 8,
    b"\x91\x92\xc3\x01",
    b"\x91\x81\xa4name\x90",
    b"\x92\x81\xa4name\x01\x81\xa4name\xca\x7f\xc0\x00\x00",
    b"\x83\x01\x02\xc0\x03\xa1\xff\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x81\xc4\x01x\xcf" + b"\xff" * 8,
    nested(28),
]


@pytest.mark.parametrize("aggtype", ["none", "sum", "union", "append", "append:name"])
def test_no_two_values_harm_a_view_together(daemon: Daemon, aggtype: str) -> None:
    pairs = list(itertools.product(ODD_VALUES, repeat=2))
    key, struct = new_key(), "Odd" + aggtype.replace(":", "_")
    names = [f"a{number}" for number in range(len(pairs))]

    for source_name, values in zip(("a", "b"), zip(*pairs, strict=True), strict=True):
        record = [key, struct, dict.fromkeys(names)]
        body = msgpack.packb({"source": source_name, "records": [record]})
        body = body[: -sum(len(name) + 2 for name in names)]
        body += b"".join(map(bytes.__add__, map(msgpack.packb, names), values))
        with daemon.source() as source:
            source.post(
                msgpack.packb(source.batch(aggtypes={struct: dict.fromkeys(names, aggtype)}))
            )
            source.post(body)
            source.settle()

    for by_source in (False, True):
        assert daemon.uve(key, by_source=by_source)[struct].keys() == set(names)
        assert daemon.ask_json("get", key=key, by_source=by_source)["ok"]


def test_batches_with_bytes_changed_at_random_harm_no_view(daemon: Daemon, source: Source) -> None:
    chance = random.Random(7)
    table = "Changed"
    for _ in range(3000):
        attributes = {
            name: chance.choice([1, -1.5, None, "x", [1, 2], {"a": 1}])
            for name in ("egress_flow_count", "a", "b")
        }
        body = bytearray(msgpack.packb(source.batch([f"{table}:key", STRUCT, attributes])))
        for _ in range(chance.randrange(4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        source.post(bytes(body))
    end = source.batch([f"{table}:end", STRUCT, {"a": 1}], epoch=1, seq=1)
    source.post({**end, "source": new_source()})
    while "applied" not in source.answer():
        pass

    for ask in (daemon.ask, daemon.ask_json):
        for by_source in (False, True):
            uves = ask("find", match="*", by_source=by_source, limit=10_000)["uves"]
            assert {f"{table}:key", f"{table}:end"} <= uves.keys()


# ---- samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1.1e100, -1e300])
def test_a_sample_that_is_not_finite_is_rejected_whole(
    daemon: Daemon, source: Source, value: Any
) -> None:
    key = new_key()

    reply = source.tell([key, STRUCT, {"egress_flow_count": value, "a": 1}])

    assert rejection(reply) == "bad_value"
    assert daemon.uve(key) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_taken_where_it_is_no_sample(
    daemon: Daemon, source: Source, value: Any
) -> None:
    key = new_key()

    assert source.tell([key, STRUCT, {"a": value}])["applied"] == 1

    assert repr(daemon.uve(key)[STRUCT]["a"]) == repr(value)
    assert isinstance(daemon.ask_json("get", key=key)["uve"][STRUCT]["a"], str)


@pytest.mark.parametrize("value", [0, 2**53, 2**63, 2**64 - 1, -(2**63), 1e100, -1e100, 5e-324])
def test_a_sample_may_be_any_number_within_1e100(
    daemon: Daemon, source: Source, value: Any
) -> None:
    key = new_key()

    assert source.tell([key, STRUCT, {"egress_flow_count": value}])["applied"] == 1

    view = daemon.uve(key)
    assert view[STRUCT]["egress_flow_count"] == value
    assert view[f"AggProxySum-{METRIC}"]["value"]["staging"] == float(value)


@pytest.mark.parametrize(
    "value", [True, "5", b"5", [5], {"a": 5}, msgpack.ExtType(1, b"5")], ids=repr
)
def test_what_is_no_number_is_no_sample(daemon: Daemon, source: Source, value: Any) -> None:
    key = new_key()

    assert source.tell([key, STRUCT, {"egress_flow_count": value}])["applied"] == 1

    assert daemon.uve(key).keys() == {STRUCT}


def test_a_sample_of_more_than_60_s_in_the_future_is_rejected(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()
    soon, late = ((time.time_ns() // 1000) + seconds * 1_000_000 for seconds in (50, 90))

    assert rejection(source.tell([key, STRUCT, {"egress_flow_count": 1}, late])) == "future"
    assert daemon.uve(key) is None
    assert source.tell([key, STRUCT, {"egress_flow_count": 1}, soon])["applied"] == 1


def test_a_sample_at_the_end_of_time_is_in_the_future(source: Source) -> None:
    reply = source.tell([new_key(), STRUCT, {"egress_flow_count": 1}, 2**64 - 1])

    assert rejection(reply) == "future"


# ---- limits ------------------------------------------------------------------------------------


def test_a_flood_of_new_keys_is_refused_past_the_limit_and_old_ones_go_on() -> None:
    with Daemon("--LIMITS.keys=100") as daemon, daemon.source() as source:
        keys = [f"Flood:{number:04}" for number in range(1000)]

        reply = source.tell(*([key, STRUCT, {"egress_flow_count": 1}] for key in keys))

        assert reply["applied"] == 100
        assert {row[1] for row in reply["rejected"]} == {"limit_keys"}
        assert "LIMITS.keys" in reply["rejected"][0][2]
        assert daemon.counter("rejected_limit_keys") == 900
        assert daemon.ask("list")["tables"] == {"Flood": 100}
        assert source.tell([keys[0], STRUCT, {"egress_flow_count": 2}])["applied"] == 1
        assert daemon.uve(keys[0])[STRUCT] == {"egress_flow_count": 2}


def test_a_key_that_goes_makes_room_for_another() -> None:
    with Daemon("--LIMITS.keys=1") as daemon, daemon.source() as source:
        source.tell(["T:a", STRUCT, {"a": 1}])
        assert rejection(source.tell(["T:b", STRUCT, {"a": 1}])) == "limit_keys"

        source.tell(["T:a", STRUCT, None])

        assert source.tell(["T:b", STRUCT, {"a": 1}])["applied"] == 1
        assert daemon.ask("list", table="T")["keys"] == ["T:b"]


def test_records_sources_and_bytes_have_their_limits() -> None:
    with (
        Daemon("--LIMITS.records=2", "--LIMITS.sources=3", "--LIMITS.bytes=64MiB") as daemon,
        daemon.source() as one,
        daemon.source() as two,
        daemon.source() as three,
    ):
        for source in (one, two):
            assert source.tell(["T:a", STRUCT, {"a": 1}])["applied"] == 1

        assert rejection(three.tell(["T:a", STRUCT, {"a": 1}])) == "limit_records"
        with daemon.source() as four:
            assert refusal(four.tell(["T:a", STRUCT, {"a": 1}])) == "overloaded"
        replies = [one.tell(["T:a", STRUCT, {f"a{n}": b"x" * (15 << 20)}]) for n in range(6)]
        assert rejection(replies[-1]) == "limit_bytes"
        assert one.tell(["T:a", STRUCT, {"a": 2}])["applied"] == 1
        assert daemon.ask("get", key="T:a", cfilt=[f"{STRUCT}:a"])["uve"][STRUCT]["a"]


def test_where_no_bytes_are_left_a_long_value_is_still_replaced_by_one_as_long() -> None:
    with Daemon("--LIMITS.bytes=64MiB") as daemon, daemon.source() as source:
        size = 64 << 10
        source.tell(["T:a", STRUCT, {"long": "x" * size}])
        for name, filler in [("much", 15 << 20), ("little", size)]:
            numbers = itertools.count()
            while True:
                reply = source.tell(["T:a", STRUCT, {f"{name}{next(numbers)}": b"x" * filler}])
                if not reply["applied"]:
                    break
            assert rejection(reply) == "limit_bytes"

        assert source.tell(["T:a", STRUCT, {"long": "y" * size}])["applied"] == 1
        uve = daemon.ask("get", key="T:a", cfilt=[f"{STRUCT}:long"])["uve"]
        assert uve == {STRUCT: {"long": "y" * size}}


def test_a_struct_of_one_source_holds_256_attributes(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {f"a{number}": number for number in range(256)}])

    assert rejection(source.tell([key, STRUCT, {"more": 1}])) == "limit_attributes"
    assert source.tell([key, STRUCT, {"a7": 0}])["applied"] == 1
    assert len(daemon.uve(key)[STRUCT]) == 256
