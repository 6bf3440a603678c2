"""What the engine holds, by example: records, keys and their lives, sources, limits, lists."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.engine import Engine, partition_of
from driver import DAY, KEY, Driver, moment, plain, record

# ---- records -------------------------------------------------------------------------------------


def test_an_attribute_keeps_its_last_value() -> None:
    told = Driver()
    told.tell({"a": 1, "b": "x"})
    told.tell({"b": "y"})
    assert told.records() == {("S", "h1"): {"a": 1, "b": "y"}}


def test_each_source_has_values_of_its_own() -> None:
    told = Driver()
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 2}, source="h2")
    assert told.records() == {("S", "h1"): {"b": 1}, ("S", "h2"): {"b": 2}}


@pytest.mark.parametrize(
    "value",
    [True, 0, -1, 2**64 - 1, -(2**63), 0.5, "", "é", "x" * 70_000, b"\xff", [1, [None]], {"a": []}],
)
def test_a_value_comes_back_as_it_was_told(value: Any) -> None:
    told = Driver(metrics={})
    told.tell({"b": value})
    assert told.records() == {("S", "h1"): {"b": value}}


def test_a_nil_attribute_is_removed() -> None:
    told = Driver()
    told.tell({"a": 1, "b": 2})
    told.tell({"a": None, "c": None})
    assert told.records() == {("S", "h1"): {"b": 2}}


def test_nil_attributes_remove_the_struct_of_that_source_alone() -> None:
    told = Driver()
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 1}, source="h2")
    told.tell({"b": 1}, source="h1", struct="R")
    told.tell(None, source="h1")
    assert sorted(told.records()) == [("R", "h1"), ("S", "h2")]


def test_records_of_one_batch_are_applied_in_order() -> None:
    told = Driver()
    told.batch([record({"b": 1}), record(None), record({"c": 2}), record({"d": 3, "c": None})])
    assert told.records() == {("S", "h1"): {"d": 3}}


@pytest.mark.parametrize("attributes", [{}, {"a": None}, None])
def test_what_sets_nothing_makes_nothing_and_is_good(attributes: Any) -> None:
    told = Driver()
    told.tell(attributes)
    assert told.engine.keys() == []
    assert told.engine.sizes()["records"] == 0


def test_a_bad_record_is_refused_whole_and_harms_no_other() -> None:
    told = Driver()
    outcome = told.batch(
        [
            record({"b": 1}, key="T:1"),
            record({"b": 1, "9": 2}, key="T:1"),
            record({"b": 2}, key="no table"),
            record({"b": 3}, key="T:2", struct="a struct"),
            ["T:3", "S"],
            record({"b": 4}, key="T:4"),
        ]
    )
    assert [(index, code) for index, code, _ in outcome.rejected] == [
        (1, "bad_attribute"),
        (2, "bad_key"),
        (3, "bad_struct"),
        (4, "bad_record"),
    ]
    assert outcome.applied == 2
    assert told.engine.keys() == ["T:1", "T:4"]
    assert told.records("T:1") == {("S", "h1"): {"b": 1}}


def test_sixteen_rejected_records_are_listed_and_all_are_counted() -> None:
    told = Driver()
    outcome = told.batch([record({"b": 1}, key="") for _ in range(20)])
    assert [index for index, _, _ in outcome.rejected] == list(range(16))
    assert told.count("rejected_bad_key") == 20


# ---- the life of a key ---------------------------------------------------------------------------


def test_a_key_goes_with_its_last_record() -> None:
    told = Driver(metrics={})
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 1}, source="h2")
    told.tell(None, source="h1")
    assert told.engine.keys() == [KEY]
    told.tell({"b": None}, source="h2")
    assert told.engine.keys() == []
    assert told.engine.read(KEY) is None
    assert told.engine.tables() == {}


def test_a_key_stays_while_a_proxy_uve_of_it_lives() -> None:
    told = Driver()
    told.tell({"a": 1}, at=0)
    told.tell(None, at=1)
    assert (told.engine.keys(), told.records()) == ([KEY], {})
    told.advance(65)
    assert told.proxies()["Sum"].value == 1
    told.advance(180)
    assert told.engine.keys() == []
    sizes = told.engine.sizes()
    assert (sizes["keys"], sizes["records"], sizes["series"]) == (0, 0, 0)


def test_a_key_that_went_takes_with_it_what_was_closed() -> None:
    told = Driver()
    told.sample(1, 0)
    told.tell(None, at=1)
    told.advance(300)
    told.sample(2, 0, at=300)
    assert told.count("samples_late") == 0
    assert told.proxies()["Sum"].staging == 2


def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    told = Driver(plain("Last"))
    held = []
    for day in range(30):
        for number in range(50):
            key = f"T{day}:{number}"
            told.tell({"a": 1, "b": "x" * 20}, key=key, at=day * DAY, source=f"h{day}")
            told.tell(None, key=key, at=day * DAY, source=f"h{day}")
        told.advance(day * DAY + 3600)
        while told.steps():
            pass
        held.append(told.engine.sizes()["bytes"])
    assert max(held[10:]) <= max(held[:10]) + 30 * 500  # the sources themselves are remembered


# ---- numbered batches ----------------------------------------------------------------------------


def numbered(told: Driver, epoch: int, seq: int, value: int = 1) -> tuple[str, int]:
    outcome = told.batch([record({"b": value})], epoch=epoch, seq=seq)
    assert (outcome.answer, outcome.seq, outcome.durable) == (True, seq, 0)
    return outcome.status, outcome.last


def test_numbers_go_up_one_by_one() -> None:
    told = Driver()
    assert [numbered(told, 1, seq)[0] for seq in (1, 2, 3)] == ["applied"] * 3


def test_a_number_that_was_applied_changes_nothing() -> None:
    told = Driver()
    numbered(told, 1, 1, value=1)
    assert numbered(told, 1, 1, value=2)[0] == "duplicate"
    assert told.records() == {("S", "h1"): {"b": 1}}


def test_a_gap_is_told_where_to_go_on() -> None:
    told = Driver()
    numbered(told, 1, 1)
    assert numbered(told, 1, 3, value=3) == ("resync", 1)
    assert told.records() == {("S", "h1"): {"b": 1}}
    assert numbered(told, 1, 2)[0] == "applied"


def test_an_unknown_source_begins_with_1() -> None:
    assert numbered(Driver(), 1, 7) == ("resync", 0)


def test_a_newer_epoch_begins_with_1_again() -> None:
    told = Driver()
    numbered(told, 1, 1)
    numbered(told, 1, 2)
    assert numbered(told, 2, 3) == ("resync", 0)
    assert numbered(told, 2, 1)[0] == "applied"


def test_a_newer_epoch_counts_from_its_first_batch_on() -> None:
    told = Driver()
    numbered(told, 1, 1)
    numbered(told, 2, 5)
    assert numbered(told, 1, 2)[0] == "applied"


def test_an_older_epoch_is_stale() -> None:
    told = Driver()
    numbered(told, 2, 1)
    assert numbered(told, 1, 1, value=2)[0] == "stale_epoch"
    assert told.records() == {("S", "h1"): {"b": 1}}


def test_sources_are_numbered_each_for_itself() -> None:
    told = Driver()
    told.batch([], source="h1", epoch=1, seq=1)
    told.batch([], source="h2", epoch=9, seq=1, at=5)
    told.batch([record({"b": 1}), record({"b": 1}, key="T:2")], source="h3", at=7)
    assert told.engine.sources() == [
        {
            "source": source,
            "records": records,
            "last_seen": moment(second),
            "epoch": epoch,
            "seq": seq,
            "durable": 0,
            "gone": False,
        }
        for source, records, second, epoch, seq in [
            ("h1", 0, 0, 1, 1),
            ("h2", 0, 5, 9, 1),
            ("h3", 2, 7, None, None),
        ]
    ]


def test_a_bad_record_does_not_stop_the_numbering() -> None:
    told = Driver()
    told.batch([["bad"]], epoch=1, seq=1)
    assert numbered(told, 1, 2)[0] == "applied"


def test_many_batches_are_applied_as_one_after_the_other() -> None:
    told = Driver()
    bodies = [
        b"\x82\xa6source\xa1h\xa7records\x90",
        b"\xc1",
        b"\x84\xa6source\xa1h\xa7records\x90\xa5epoch\x01\xa3seq\x01",
        b"\x82\xa6source\xa1h\xa7records\x91\x90",
    ]
    answers = told.engine.apply_many(bodies, moment(0))
    assert [answer and answer.status for answer in answers] == [
        None,
        "malformed",
        "applied",
        "applied",
    ]


# ---- limits --------------------------------------------------------------------------------------


def refusals(told: Driver, *records: list[Any], source: str = "h1") -> list[str]:
    return [code for _, code, _ in told.batch(records, source=source).rejected]


def test_no_more_keys_than_the_limit() -> None:
    told = Driver(limits={"keys": 2})
    keys = [record({"b": 1}, key=f"T:{number}") for number in range(3)]
    assert refusals(told, *keys) == ["limit_keys"]
    assert refusals(told, *keys[:2]) == []
    assert refusals(told, record(None, key="T:0")) == []
    assert refusals(told, keys[2]) == []
    assert told.engine.keys() == ["T:1", "T:2"]


def test_no_more_records_than_the_limit() -> None:
    told = Driver(limits={"records": 2})
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 1}, source="h2")
    assert refusals(told, record({"b": 1}), source="h3") == ["limit_records"]
    assert refusals(told, record({"b": 2, "c": 3}), source="h2") == []


def test_no_more_attributes_than_256() -> None:
    told = Driver(metrics={})
    told.tell({f"a{number}": 1 for number in range(255)})
    assert refusals(told, record({"b": 1, "c": 1})) == ["limit_attributes"]
    assert refusals(told, record({"b": 1})) == []
    assert refusals(told, record({"c": 1})) == ["limit_attributes"]
    assert refusals(told, record({"b": None}), record({"a0": 2})) == []
    assert refusals(told, record({"c": 1})) == []


def test_no_more_bytes_than_the_limit() -> None:
    told = Driver(limits={"bytes": 10_000_000})
    told.tell({"b": "small", "c": "x" * 1000})
    assert refusals(told, record({"b": "x" * 10_000_000})) == ["limit_bytes"]
    assert refusals(told, record({"b": "still"})) == []
    assert told.records()["S", "h1"]["b"] == "still"


def test_a_source_too_many_is_overload_and_changes_nothing() -> None:
    told = Driver(limits={"sources": 1})
    told.tell({"b": 1})
    outcome = told.batch([record({"b": 2})], source="h2", epoch=1, seq=1)
    assert (outcome.status, outcome.seq, outcome.applied) == ("overloaded", 1, 0)
    assert told.records() == {("S", "h1"): {"b": 1}}
    assert [source["source"] for source in told.engine.sources()] == ["h1"]


def test_a_message_too_large_is_refused_with_its_number() -> None:
    told = Driver(limits={"batch_bytes": 1000})
    outcome = told.batch([record({"b": "x" * 1000})], epoch=1, seq=1)
    assert (outcome.status, outcome.seq, outcome.answer) == ("too_large", 1, True)
    assert told.batch([record({"b": "x" * 1000})]).answer is False
    assert told.engine.keys() == []


# ---- aggtypes ------------------------------------------------------------------------------------


def test_the_aggtype_that_was_declared_last_holds() -> None:
    told = Driver()
    told.batch([], aggtypes={"S": {"a": "sum", "b": "append:name"}})
    told.batch([], aggtypes={"S": {"a": "union"}}, source="h2")
    assert told.engine.aggtypes() == {"S-a": "union", "S-b": "append:name"}


def test_an_unknown_aggtype_refuses_the_batch() -> None:
    told = Driver()
    outcome = told.batch([record({"b": 1})], aggtypes={"S": {"a": "product"}})
    assert outcome.status == "malformed"
    assert (told.engine.keys(), told.engine.aggtypes()) == ([], {})


# ---- lists of keys -------------------------------------------------------------------------------


def engine_with(keys: list[str]) -> Engine:
    told = Driver(metrics={}, partitions=7)
    told.batch([record({"b": 1}, key=key) for key in keys])
    return told.engine


def test_keys_are_listed_in_the_order_of_their_bytes() -> None:
    keys = ["T:b", "T:a", "S:z", "T:é", "T:a:b", "T:😀", "T:\uffee", "T:aa"]
    assert engine_with(keys).keys() == sorted(keys, key=str.encode)


def test_a_list_of_keys_is_read_page_by_page() -> None:
    keys = [f"T:{number:03}" for number in range(100)]
    engine = engine_with(keys[::-1])
    pages, after = [], ""
    while page := engine.keys(after=after, limit=7):
        pages.append(page)
        after = page[-1]
    assert [len(page) for page in pages] == [7] * 14 + [2]
    assert [key for page in pages for key in page] == keys


def test_a_table_is_the_whole_of_what_stands_before_the_first_colon() -> None:
    engine = engine_with(["T:a", "T:b:c", "TT:a", "U:T:a"])
    assert engine.keys(table="T") == ["T:a", "T:b:c"]
    assert engine.tables() == {"T": 2, "TT": 1, "U": 1}


def test_no_keys_are_asked_for() -> None:
    assert engine_with(["T:a"]).keys(limit=0) == []


def matches(pattern: str, key: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), key, re.DOTALL) is not None


patterns = st.text("Tab:*é", max_size=6)


@given(
    keys=st.lists(st.text("ab:é\n", min_size=1, max_size=4).map("T:".__add__), max_size=20),
    table=st.sampled_from(["", "T", "U"]),
    match=st.just("") | patterns,
    some=st.lists(patterns.filter(bool), max_size=2),
    after=st.just("") | st.text("Tab:", max_size=4),
    limit=st.integers(0, 12),
)
def test_keys_are_those_that_a_plain_filter_finds(
    keys: list[str], table: str, match: str, some: list[str], after: str, limit: int
) -> None:
    expected = [
        key
        for key in sorted(set(keys), key=str.encode)
        if key.encode() > after.encode()
        and (not table or key.partition(":")[0] == table)
        and (not match or matches(match, key))
        and (not some or any(matches(pattern, key) for pattern in some))
    ][:limit]
    found = engine_with(keys).keys(
        table=table, match=match, patterns=some, after=after, limit=limit
    )
    assert found == expected


# ---- partitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "murmur2"),  # of Kafka's own tests
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
@pytest.mark.parametrize("partitions", [1, 2, 7, 30, 2**31 - 1])
def test_a_key_is_placed_as_kafka_places_it(key: bytes, murmur2: int, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


def test_there_is_no_partition_of_none() -> None:
    with pytest.raises(ValueError, match="partition"):
        partition_of(b"key", 0)
