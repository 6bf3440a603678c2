"""What travels: batches, their answers, requests and replies, and what cannot be read."""

import json
import math
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord import wire
from collectord.wire import WireError


def outcome(**fields: Any) -> Any:
    """What the engine says of a batch; a field that is not given is as for a good one."""
    good = {
        "status": "applied",
        "seq": 7,
        "applied": 2,
        "last": 0,
        "durable": 5,
        "answer": True,
        "expired": 0,
        "message": "",
        "rejected": [],
    }
    return SimpleNamespace(**{**good, **fields})


def answer(**fields: Any) -> Any:
    """The answer to a batch, as its source reads it."""
    return msgpack.unpackb(wire.encode_outcome(outcome(**fields)))


def refusal(body: bytes) -> WireError:
    """The error with which a request is refused."""
    with pytest.raises(WireError) as caught:
        wire.decode_request(body)
    return caught.value


def as_json(value: Any) -> Any:
    """What a reader of JSON finds where a view holds ``value``."""
    return json.loads(wire.encode_json({"x": value}))["x"]


# --- batches ---------------------------------------------------------------------------------


def test_a_batch_is_a_map_of_its_source_and_records() -> None:
    body = wire.encode_batch("compute-1", [["T:vn1", "Agent", {"flows": 1}]])
    assert msgpack.unpackb(body) == {
        "source": "compute-1",
        "records": [["T:vn1", "Agent", {"flows": 1}]],
    }


def test_a_batch_holds_what_it_was_given() -> None:
    body = wire.encode_batch(
        "compute-1",
        [("T:vn1", "Agent", None, 5)],
        time=1,
        epoch=2,
        seq=3,
        aggtypes={"Agent": {"flows": "sum"}},
    )
    assert msgpack.unpackb(body) == {
        "source": "compute-1",
        "records": [["T:vn1", "Agent", None, 5]],
        "time": 1,
        "epoch": 2,
        "seq": 3,
        "aggtypes": {"Agent": {"flows": "sum"}},
    }


def test_zero_is_a_time_and_a_number() -> None:
    body = wire.encode_batch("compute-1", [], time=0, epoch=0, seq=0)
    assert {"time", "epoch", "seq"} < msgpack.unpackb(body).keys()


def test_seq_comes_first_and_records_last_so_that_a_broken_tail_hides_nothing() -> None:
    body = wire.encode_batch("compute-1", [], time=1, epoch=2, seq=3, aggtypes={"A": {"x": "sum"}})
    fields = list(msgpack.unpackb(body))
    assert (fields[0], fields[-1]) == ("seq", "records")


def test_a_batch_may_be_put_together_from_its_head_and_its_records() -> None:
    records = [["T:vn1", "Agent", {"flows": 1}], ["T:vn2", "Agent", {"flows": 2}]]
    head = wire.encode_batch_head("compute-1", len(records), epoch=2, seq=3)
    whole = wire.encode_batch("compute-1", records, epoch=2, seq=3)
    assert head + b"".join(map(wire.encode, records)) == whole


def test_a_record_that_msgpack_cannot_write_is_refused() -> None:
    with pytest.raises(TypeError):
        wire.encode_batch("compute-1", [["T:vn1", "Agent", {"flows": object()}]])


# --- answers to batches ----------------------------------------------------------------------


def test_an_applied_batch_is_answered_with_how_many_records_were_good() -> None:
    assert answer() == {"seq": 7, "applied": 2, "durable": 5}


def test_bad_records_are_named_by_index_code_and_message() -> None:
    assert answer(applied=1, rejected=[(1, "bad_key", "no table")]) == {
        "seq": 7,
        "applied": 1,
        "durable": 5,
        "rejected": [[1, "bad_key", "no table"]],
    }


def test_a_duplicate_is_called_one() -> None:
    assert answer(status="duplicate", applied=0) == {
        "seq": 7,
        "applied": 0,
        "durable": 5,
        "duplicate": True,
    }


def test_after_a_gap_the_source_is_told_where_to_go_on() -> None:
    assert answer(status="resync", last=4) == {"resync": 4}


def test_a_batch_that_is_an_error_is_answered_with_code_message_and_number() -> None:
    assert answer(status="stale_epoch", message="epoch 1 is over") == {
        "error": {"code": "stale_epoch", "message": "epoch 1 is over"},
        "seq": 7,
    }


def test_an_error_whose_number_could_not_be_read_has_none() -> None:
    assert "seq" not in answer(status="malformed", seq=None)


# --- values ----------------------------------------------------------------------------------


def test_maps_may_have_keys_that_are_no_texts() -> None:
    assert wire.decode(msgpack.packb({1: "a", b"x": "b"})) == {1: "a", b"x": "b"}


def test_a_text_that_is_no_utf8_goes_out_as_the_bytes_it_came_as() -> None:
    body = b"\xa3\xffab"
    assert wire.encode_view(wire.decode(body)) == body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "incomplete"),
        (b"\x92\x01", "incomplete"),
        (b"\x01\x02", "extra data"),
        (b"\xc1", "a byte in it begins no value"),
        (b"\x91" * 10_000 + b"\x01", "nested too deeply"),
        (b"\x81\x91\x01\x01", "unhashable type: 'list'"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xd4\xf0\x00", "code must be"),
        (b"\xc7\x00\xff", "invalid timestamp"),
    ],
)
def test_what_is_not_one_value_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"not one msgpack value: .*{reason}"):
        wire.decode(body)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_that_can_be_shown_or_refused(body: bytes) -> None:
    try:
        value = wire.decode(body)
    except ValueError:
        return
    wire.encode_view(value)
    wire.encode_json(value)


# --- requests --------------------------------------------------------------------------------


def test_a_request_is_a_msgpack_map() -> None:
    body = msgpack.packb({"op": "get", "key": "T:vn1"})
    assert wire.decode_request(body) == ({"op": "get", "key": "T:vn1"}, False)


def test_a_request_that_begins_with_a_brace_is_json() -> None:
    assert wire.decode_request(b'{"op": "list"}') == ({"op": "list"}, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"op": "get"} x',
        b'{"op": "\xff"}',
        b'{"op": "\\ud800"}',
        b'{"op": ' + b"1" * 5_000 + b"}",
        b'{"op":' * 100_000,
        b"\x81\xa2op",
        b"\x81\xa2op\xa1\xff",
        b"\x91" * 100_000,
    ],
)
def test_a_request_that_cannot_be_read_is_malformed(body: bytes) -> None:
    error = refusal(body)
    assert error.code == "malformed"
    assert error.message.startswith("the request cannot be read: ")


@pytest.mark.parametrize(
    ("value", "kind"), [([], "list"), ("get", "str"), (None, "NoneType"), (7, "int")]
)
def test_a_request_that_is_no_map_is_malformed(value: Any, kind: str) -> None:
    error = refusal(msgpack.packb(value))
    assert (error.code, error.message) == ("malformed", f"a request is a map with op, not {kind}")


def test_a_request_that_is_too_large_is_not_read() -> None:
    error = refusal(b"{" * (wire.REQUEST_BYTES + 1))
    assert error.code == "too_large"
    assert str(wire.REQUEST_BYTES) in error.message


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"{" + tail))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        request, is_json = wire.decode_request(body)
    except WireError:
        assert refusal(body).code == "malformed"
    else:
        assert isinstance(request, dict)
        assert is_json == body.startswith(b"{")


# --- replies ---------------------------------------------------------------------------------


def test_a_reply_is_in_the_language_of_its_request() -> None:
    reply = {"ok": True, "uve": {}}
    assert msgpack.unpackb(wire.encode_reply(reply, is_json=False)) == reply
    assert json.loads(wire.encode_reply(reply, is_json=True)) == reply


@pytest.mark.parametrize(
    "value", [None, True, 1, 2**64 - 1, -(2**63), 0.5, "é😀", [1, [2]], {"a": {"b": []}}]
)
def test_json_shows_what_it_has_a_word_for_as_it_is(value: Any) -> None:
    shown = as_json(value)
    assert (type(shown), shown) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\x00\x01", "AAE="),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (msgpack.ExtType(5, b"\x00\x01"), {"type": 5, "data": "AAE="}),
        ([b"", math.nan], ["", "NaN"]),
        ("\udcff", "?"),
    ],
)
def test_json_shows_what_it_has_no_word_for_as_text(value: Any, shown: Any) -> None:
    assert as_json(value) == shown


def test_json_shows_a_timestamp_by_its_seconds_and_nanoseconds() -> None:
    assert as_json(msgpack.Timestamp(1, 2)) == "Timestamp(seconds=1, nanoseconds=2)"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("x", "x"),
        (1, "1"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        (math.nan, "NaN"),
        (b"\x00\x01", "AAE="),
        (msgpack.ExtType(5, b""), '{"type": 5, "data": ""}'),
    ],
)
def test_json_shows_the_key_of_a_map_as_text(key: Any, shown: str) -> None:
    assert as_json({key: 1}) == {shown: 1}
