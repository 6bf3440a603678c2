"""The ingest socket of a running collector: what a batch does, and how it is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from daemon import HISTORY, METRIC, PERIOD, STRUCT, Daemon, Source, new_key, new_source, receive


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def source(daemon: Daemon) -> Iterator[Source]:
    with daemon.source() as source:
        yield source


def told(daemon: Daemon, source: Source) -> Any:
    """What the collector knows of a source."""
    return daemon.ask("sources")["sources"].get(source.name)


# ---- numbers -----------------------------------------------------------------------------------


def test_a_numbered_batch_is_applied_and_acknowledged(daemon: Daemon, source: Source) -> None:
    key = new_key()

    reply = source.send(source.batch([key, STRUCT, {"a": 1}], epoch=7, seq=1))

    assert reply == {"seq": 1, "applied": 1, "durable": 0}
    assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_numbers_go_on_without_gaps(source: Source) -> None:
    replies = [source.send(source.batch(epoch=7, seq=seq)) for seq in (1, 2, 3)]

    assert replies == [{"seq": seq, "applied": 0, "durable": 0} for seq in (1, 2, 3)]


@pytest.mark.parametrize("again", [1, 2])
def test_a_number_that_was_applied_before_changes_nothing(
    daemon: Daemon, source: Source, again: int
) -> None:
    key = new_key()
    for seq in (1, 2):
        source.send(source.batch([key, STRUCT, {"a": seq}], epoch=7, seq=seq))

    reply = source.send(source.batch([key, STRUCT, {"a": 99}], epoch=7, seq=again))

    assert reply == {"seq": again, "applied": 0, "durable": 0, "duplicate": True}
    assert daemon.uve(key) == {STRUCT: {"a": 2}}


def test_a_duplicate_s_samples_do_not_count(daemon: Daemon, source: Source) -> None:
    key = new_key()
    batch = source.batch([key, STRUCT, {"egress_flow_count": 5}], epoch=7, seq=1)

    source.send(batch)
    source.send(batch)

    assert daemon.uve(key)[f"AggProxySum-{METRIC}"]["value"] == {"staging": 5}


@pytest.mark.parametrize("seq", [3, 10, 2**64 - 1])
def test_a_gap_is_answered_with_what_was_applied_last_and_changes_nothing(
    daemon: Daemon, source: Source, seq: int
) -> None:
    key = new_key()
    source.send(source.batch(epoch=7, seq=1))

    reply = source.send(source.batch([key, STRUCT, {"a": 1}], epoch=7, seq=seq))

    assert reply == {"resync": 1}
    assert daemon.uve(key) is None
    assert source.send(source.batch(epoch=7, seq=2))["seq"] == 2


def test_a_source_that_the_collector_does_not_know_begins_at_1(source: Source) -> None:
    assert source.send(source.batch(epoch=7, seq=2)) == {"resync": 0}
    assert source.send(source.batch(epoch=7, seq=1)) == {"seq": 1, "applied": 0, "durable": 0}


def test_a_newer_epoch_begins_again_at_1(daemon: Daemon, source: Source) -> None:
    for seq in (1, 2):
        source.send(source.batch(epoch=7, seq=seq))

    assert source.send(source.batch(epoch=8, seq=3)) == {"resync": 0}
    assert source.send(source.batch(epoch=8, seq=1)) == {"seq": 1, "applied": 0, "durable": 0}
    assert told(daemon, source)["epoch"] == 8
    assert told(daemon, source)["seq"] == 1


def test_an_older_epoch_is_stale(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.send(source.batch(epoch=7, seq=1))

    reply = source.send(source.batch([key, STRUCT, {"a": 1}], epoch=6, seq=1))

    assert reply["error"]["code"] == "stale_epoch"
    assert reply["seq"] == 1
    assert daemon.uve(key) is None


def test_a_newer_epoch_keeps_what_the_source_told_before(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.send(source.batch([key, STRUCT, {"a": 1}], epoch=7, seq=1))

    source.send(source.batch([key, STRUCT, {"b": 2}], epoch=8, seq=1))

    assert daemon.uve(key) == {STRUCT: {"a": 1, "b": 2}}


@pytest.mark.parametrize("number", [{"seq": 1}, {"epoch": 1}])
def test_seq_and_epoch_go_together(daemon: Daemon, source: Source, number: dict[str, int]) -> None:
    key = new_key()

    source.post(source.batch([key, STRUCT, {"a": 1}], **number))

    if "seq" in number:
        reply = source.answer()
        assert reply["error"]["code"] == "malformed"
        assert reply["seq"] == 1
    source.settle()
    assert daemon.uve(key) is None


def test_numbers_count_from_1(source: Source) -> None:
    reply = source.send(source.batch(epoch=7, seq=0))

    assert reply["error"]["code"] == "malformed"
    assert reply["seq"] == 0


def test_each_source_has_numbers_of_its_own_on_one_connection(source: Source) -> None:
    batches = [{"source": new_source(), "epoch": 7, "seq": 1, "records": []} for _ in range(3)]

    assert [source.send(batch)["seq"] for batch in batches] == [1, 1, 1]


def test_a_source_may_go_on_over_another_connection(daemon: Daemon, source: Source) -> None:
    source.send(source.batch(epoch=7, seq=1))

    with daemon.source(source.name) as again:
        assert again.send(again.batch(epoch=7, seq=2)) == {"seq": 2, "applied": 0, "durable": 0}


def test_batches_in_flight_are_answered_in_order(daemon: Daemon, source: Source) -> None:
    key = new_key()
    for seq in range(1, 501):
        source.post(source.batch([key, STRUCT, {"a": seq}], epoch=7, seq=seq))

    assert [source.answer()["seq"] for _ in range(500)] == list(range(1, 501))
    assert daemon.uve(key) == {STRUCT: {"a": 500}}


def test_the_source_s_place_is_told_to_who_asks(daemon: Daemon, source: Source) -> None:
    before = time.time_ns() // 1000
    source.send(source.batch([new_key(), STRUCT, {"a": 1}], epoch=7, seq=1))

    known = told(daemon, source)

    assert before <= known.pop("last_seen") <= time.time_ns() // 1000
    assert known == {"records": 1, "epoch": 7, "seq": 1, "durable": 0, "gone": False}


# ---- answers -----------------------------------------------------------------------------------


def test_a_batch_without_a_number_is_applied_and_never_answered(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()

    source.post(source.batch([key, STRUCT, {"a": 1}]))

    source.settle()
    assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_bad_record_in_a_batch_without_a_number_is_counted_and_not_answered(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()
    before = daemon.counter("rejected_bad_key")

    source.post(source.batch(["nowhere", STRUCT, {"a": 1}], [key, STRUCT, {"a": 1}]))

    source.settle()
    assert daemon.counter("rejected_bad_key") == before + 1
    assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_batch_of_no_known_shape_and_without_a_number_is_not_answered(
    daemon: Daemon, source: Source
) -> None:
    before = daemon.counter("batches_malformed")

    source.post({"source": source.name, "records": 5})

    source.settle()
    assert daemon.counter("batches_malformed") == before + 1


def test_the_delimiter_of_a_req_is_echoed(daemon: Daemon) -> None:
    batch = {"source": new_source(), "epoch": 7, "seq": 1, "records": []}
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(daemon.ingest)
        dealer.send_multipart([b"", msgpack.packb(batch)])

        delimiter, body = receive(dealer)

    assert delimiter == b""
    assert msgpack.unpackb(body) == {"seq": 1, "applied": 0, "durable": 0}


def test_a_req_is_served_batch_after_batch(daemon: Daemon) -> None:
    name = new_source()
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger = 0
        req.connect(daemon.ingest)
        for seq in (1, 2, 3):
            req.send(msgpack.packb({"source": name, "epoch": 7, "seq": seq, "records": []}))
            (body,) = receive(req)
            assert msgpack.unpackb(body)["seq"] == seq


def test_unknown_fields_are_ignored(daemon: Daemon, source: Source) -> None:
    key = new_key()

    reply = source.send(
        source.batch([key, STRUCT, {"a": 1}], epoch=7, seq=1, colour="blue", later={"x": [1]})
    )

    assert reply == {"seq": 1, "applied": 1, "durable": 0}


def test_one_bad_record_does_not_harm_the_others(daemon: Daemon, source: Source) -> None:
    good, other = new_key(), new_key()

    reply = source.tell(
        [good, STRUCT, {"a": 1}], ["bad", STRUCT, {"a": 1}], [other, STRUCT, {"a": 2}]
    )

    ((index, code, message),) = reply.pop("rejected")
    assert (index, code) == (1, "bad_key")
    assert "<table>:<name>" in message
    assert reply == {"seq": 1, "applied": 2, "durable": 0}
    assert daemon.uve(good) == {STRUCT: {"a": 1}}
    assert daemon.uve(other) == {STRUCT: {"a": 2}}


def test_at_most_16_rejected_records_are_listed(daemon: Daemon, source: Source) -> None:
    before = daemon.counter("rejected_bad_key")

    reply = source.tell(*[["bad", STRUCT, {"a": 1}]] * 40, [new_key(), STRUCT, {"a": 1}])

    assert [row[0] for row in reply["rejected"]] == list(range(16))
    assert reply["applied"] == 1
    assert daemon.counter("rejected_bad_key") == before + 40


# ---- records -----------------------------------------------------------------------------------


def test_an_absent_attribute_keeps_its_last_value(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1, "b": "x"}])

    source.tell([key, STRUCT, {"a": 2}])

    assert daemon.uve(key) == {STRUCT: {"a": 2, "b": "x"}}


def test_nil_removes_an_attribute(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1, "b": 2}])

    source.tell([key, STRUCT, {"a": None}])

    assert daemon.uve(key) == {STRUCT: {"b": 2}}


def test_nil_attributes_remove_the_source_s_struct_and_no_other_s(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}], [key, "ContrailConfig", {"b": 2}])
    with daemon.source() as other:
        other.tell([key, STRUCT, {"a": 5}])

        source.tell([key, STRUCT, None])

        assert daemon.uve(key) == {STRUCT: {"a": 5}, "ContrailConfig": {"b": 2}}


def test_a_uve_goes_with_its_last_struct(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])

    source.tell([key, STRUCT, None])

    assert daemon.ask("get", key=key)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**64 - 1, -(2**63), 0.5, 1e300, True, False, "", "x" * 5000, b"", b"\x00\xff", [], {}],
    ids=lambda value: repr(value)[:12],
)
def test_an_attribute_holds_any_value(daemon: Daemon, source: Source, value: Any) -> None:
    key = new_key()

    assert source.tell([key, STRUCT, {"a": value}])["applied"] == 1

    held = daemon.uve(key)[STRUCT]["a"]
    assert (held, type(held)) == (value, type(value))


def test_a_record_s_time_wins_over_the_batch_s(daemon: Daemon, source: Source) -> None:
    key = new_key()

    source.tell(
        [key, STRUCT, {"egress_flow_count": 3}],
        [key, STRUCT, {"egress_flow_count": 4}, HISTORY + 8 * PERIOD],
        time=HISTORY,
    )

    # The second sample, 8 periods after the first, has closed the period of the first.
    assert daemon.uve(key)[f"AggProxySum-{METRIC}"]["value"] == {"value": 3, "staging": 4}


def test_a_late_sample_is_counted_and_dropped_and_its_record_is_applied(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()
    before = daemon.counter("samples_late")
    source.tell(*([key, STRUCT, {"egress_flow_count": 3}, HISTORY + n * PERIOD] for n in range(9)))

    reply = source.tell([key, STRUCT, {"egress_flow_count": 50}], time=HISTORY)

    assert reply["applied"] == 1
    assert daemon.counter("samples_late") == before + 1
    view = daemon.uve(key)
    assert view[STRUCT] == {"egress_flow_count": 50}
    assert view[f"AggProxySum-{METRIC}"]["value"] == {"value": 3, "staging": 3}


def test_samples_of_several_sources_are_of_one_series(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.source() as other:
        for each in (source, other):
            each.tell([key, STRUCT, {"egress_flow_count": 4}])

    assert daemon.uve(key)[f"AggProxySum-{METRIC}"]["value"] == {"staging": 8}


def test_sources_are_merged_as_their_aggtypes_say(daemon: Daemon) -> None:
    key = new_key()
    aggtypes = {
        STRUCT: {"count": "sum", "members": "union", "rows": "append", "pairs": "append:name"}
    }
    with daemon.source("b-host:m") as b, daemon.source("a-host:m") as a:
        b.tell(
            [
                key,
                STRUCT,
                {
                    "count": 1,
                    "members": [2, 3],
                    "rows": ["b"],
                    "pairs": [{"name": "x", "n": 1}],
                    "state": "up",
                },
            ],
            aggtypes=aggtypes,
        )
        a.tell(
            [
                key,
                STRUCT,
                {
                    "count": 2,
                    "members": [1, 2],
                    "rows": ["a"],
                    "pairs": [{"name": "x", "n": 4}],
                    "state": "down",
                },
            ]
        )

    assert daemon.uve(key) == {
        STRUCT: {
            "count": 3,
            "members": [1, 2, 3],
            "rows": ["a", "b"],
            "pairs": [{"name": "x", "n": 5}],
            "state": [["down", "a-host:m"], ["up", "b-host:m"]],
        }
    }
