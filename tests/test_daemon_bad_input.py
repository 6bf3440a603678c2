"""Bad batches for a running collector: each gets its code or is counted, and all goes on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from daemon import (
    DEADLINE,
    STRUCT,
    Daemon,
    Source,
    all_but,
    batch_with,
    nested,
    new_key,
    new_source,
    receive,
    refusal,
    until,
)

LIMIT = 16 << 20
"""The largest batch that is taken, in bytes."""


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


# ---- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"hello",
        b'{"source": "x", "records": []}',
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" + b"\x00" * 100,
        b"\xc6\xff\xff\xff\xff",
        msgpack.packb([]),
        msgpack.packb("batch"),
        msgpack.packb({"source": "x", "records": []}) * 2,
    ],
    ids=repr,
)
def test_what_is_no_batch_is_malformed(daemon: Daemon, source: Source, body: bytes) -> None:
    before = daemon.counter("batches_malformed")

    reply = source.send(body)

    assert refusal(reply) == "malformed"
    assert reply["error"]["message"]
    assert "seq" not in reply
    assert daemon.counter("batches_malformed") == before + 1


def test_a_batch_cut_at_any_byte_changes_nothing(daemon: Daemon, source: Source) -> None:
    key = new_key()
    batch = {
        "seq": 1,
        "epoch": 1,
        "source": source.name,
        "time": 1_600_000_000_000_000,
        "aggtypes": {STRUCT: {"cut": "sum"}},
        "records": [
            [key, STRUCT, {"egress_flow_count": 1, "cut": 2.5, "x": ["text", b"bytes", None]}],
            [key, "ContrailConfig", {"deep": {"a": {"b": -(2**40)}}}, 1_600_000_000_000_000],
        ],
    }
    body = msgpack.packb(batch)

    for size in range(len(body)):
        reply = source.send(body[:size])
        assert refusal(reply) == "malformed", size
        assert reply.get("seq", 1) == 1

    assert daemon.uve(key) is None
    assert source.send(body)["applied"] == 2


def test_bytes_behind_a_batch_are_malformed(daemon: Daemon, source: Source) -> None:
    body = msgpack.packb(source.batch(epoch=1, seq=1)) + b"\x00"

    assert refusal(source.send(body)) == "malformed"


@pytest.mark.parametrize("depth", [29, 10_000, 1_000_000])
def test_a_batch_nested_deeper_than_32_is_malformed(
    daemon: Daemon, source: Source, depth: int
) -> None:
    # The value is within four: the batch, its records, the record and its attributes.
    key, body = batch_with(nested(depth), source)

    reply = source.send(body)

    assert refusal(reply) == "malformed"
    assert "deep" in reply["error"]["message"]
    assert daemon.uve(key) is None


def test_a_batch_nested_32_deep_is_taken(daemon: Daemon, source: Source) -> None:
    key, body = batch_with(nested(28), source)

    assert source.send(body) == {"seq": 1, "applied": 1, "durable": 0}
    assert msgpack.packb(daemon.uve(key)[STRUCT]["a"]) == nested(28)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81", b"\x81\x90"], ids=["arrays", "maps", "keys"])
def test_a_message_of_nothing_but_10_000_openings_is_malformed(
    source: Source, opening: bytes
) -> None:
    assert refusal(source.send(opening * 10_000)) == "malformed"


def test_a_message_of_100_mb_is_too_large(daemon: Daemon, source: Source) -> None:
    key = new_key()
    batch = source.batch([key, STRUCT, {"a": b"x" * 100_000_000}], epoch=1, seq=1)

    reply = source.send(batch)

    assert refusal(reply) == "too_large"
    assert reply["seq"] == 1
    assert "COLLECTOR.message_size" in reply["error"]["message"]
    assert daemon.uve(key) is None


def test_a_message_at_the_limit_is_taken_and_one_byte_more_is_not(source: Source) -> None:
    _, rest = batch_with(b"", source)
    room = LIMIT - len(rest) - 5
    assert refusal(source.send(rest + msgpack.packb(b"x" * (room + 1)))) == "too_large"

    assert source.send(rest + msgpack.packb(b"x" * room))["applied"] == 1


@pytest.mark.parametrize(
    "frames",
    [[b"a", b"b"], [b"", b"a", b"b"], [b"", b"", b"a"], [b"a"] * 50],
    ids=["two", "delimiter-and-two", "two-delimiters", "fifty"],
)
def test_a_message_of_several_frames_is_malformed(
    daemon: Daemon, source: Source, frames: list[bytes]
) -> None:
    before = daemon.counter("frames_refused")

    source.socket.send_multipart(frames)

    *_, body = receive(source.socket)
    assert refusal(msgpack.unpackb(body)) == "malformed"
    assert daemon.counter("frames_refused") == before + 1


def test_a_delimiter_alone_is_an_empty_message(source: Source) -> None:
    source.socket.send_multipart([b"", b""])

    delimiter, body = receive(source.socket)

    assert delimiter == b""
    assert refusal(msgpack.unpackb(body)) == "malformed"


def test_one_who_sends_rubbish_harms_no_other(daemon: Daemon, source: Source) -> None:
    with daemon.source() as other:
        for seq in range(1, 101):
            source.post(b"\xc1")
            assert other.send(other.batch(epoch=1, seq=seq))["seq"] == seq


def test_answers_to_one_who_never_reads_them_are_dropped_and_stop_nobody(daemon: Daemon) -> None:
    before = daemon.counter("answers_dropped")
    name, bad = new_source(), [["bad", STRUCT, {}]] * 16
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.linger = 0
        deaf.rcvhwm = 1
        deaf.rcvbuf = 4096
        deaf.connect(daemon.ingest)
        for seq in range(1, 30_001):
            batch = {"source": name, "epoch": 1, "seq": seq, "records": bad}
            deaf.send(msgpack.packb(batch))

        until(lambda: daemon.counter("answers_dropped") > before)
        with daemon.source() as other:
            assert other.tell()["seq"] == 1
        until(lambda: daemon.ask("sources")["sources"][name]["seq"] == 30_000)


def call(daemon: Daemon) -> socket.socket:
    """A TCP connection to the ingest socket."""
    host, port = daemon.ingest.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE)


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"\xff" * 100, id="ones"),
        pytest.param(
            b"\xff" + b"\x00" * 8 + b"\x7f\x03\x00NONSENSE" + b"\x00" * 60, id="mechanism"
        ),
        pytest.param(b"\x16\x03\x01" + b"\x00" * 100, id="tls"),
    ],
)
def test_a_raw_tcp_connection_that_speaks_no_zeromq_is_dropped(
    daemon: Daemon, greeting: bytes
) -> None:
    with call(daemon) as stranger:
        stranger.sendall(greeting)

        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(4096):
                pass  # ZeroMQ's own greeting, and then the end


def test_http_which_passes_for_the_oldest_zeromq_is_malformed(daemon: Daemon) -> None:
    before = daemon.counter("batches_malformed")

    with call(daemon) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)

        until(lambda: daemon.counter("batches_malformed") > before)


# ---- fields of a batch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        pytest.param(field, *case.values, id=f"{field}-{case.id}")
        for field, good in {
            "source": ["text"],
            "records": ["array"],
            "time": ["integer"],
            "epoch": ["integer"],
            "aggtypes": ["map"],
        }.items()
        for case in all_but(*good)
    ],
)
def test_a_field_of_the_wrong_type_makes_the_batch_malformed(
    daemon: Daemon, source: Source, field: str, bad: Any
) -> None:
    key = new_key()
    batch = source.batch([key, STRUCT, {"a": 1}], epoch=1, seq=1)

    reply = source.send({**batch, field: bad})

    assert refusal(reply) == "malformed"
    assert reply["seq"] == 1
    assert field in reply["error"]["message"]
    assert daemon.uve(key) is None


@pytest.mark.parametrize("bad", all_but("integer"))
def test_a_seq_of_the_wrong_type_wants_an_answer_too_and_the_batch_is_malformed(
    daemon: Daemon, source: Source, bad: Any
) -> None:
    key = new_key()

    reply = source.send({**source.batch([key, STRUCT, {"a": 1}], epoch=1), "seq": bad})

    assert refusal(reply) == "malformed"
    assert "seq" not in reply
    assert daemon.uve(key) is None


@pytest.mark.parametrize("field", ["source", "records"])
def test_a_batch_without_what_it_must_have_is_malformed(source: Source, field: str) -> None:
    batch = source.batch(epoch=1, seq=1)
    del batch[field]

    reply = source.send(batch)

    assert refusal(reply) == "malformed"
    assert field in reply["error"]["message"]


@pytest.mark.parametrize(
    "aggtypes",
    [
        {STRUCT: "sum"},
        {STRUCT: {"a": "median"}},
        {STRUCT: {"a": 5}},
        {STRUCT: {5: "sum"}},
        {5: {"a": "sum"}},
        {"no-name": {"a": "sum"}},
        {STRUCT: {"a": "append:"}},
    ],
    ids=repr,
)
def test_aggtypes_that_are_none_make_the_batch_malformed(
    source: Source, aggtypes: dict[Any, Any]
) -> None:
    assert refusal(source.send(source.batch(epoch=1, seq=1, aggtypes=aggtypes))) == "malformed"


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("x" * 256, True),
        ("x" * 257, False),
        ("é" * 128, True),
        ("é" * 128 + "x", False),
        ("", False),
    ],
    ids=["256", "257", "256-bytes", "257-bytes", "empty"],
)
def test_a_source_has_1_to_256_bytes(source: Source, name: str, good: bool) -> None:
    reply = source.send({"source": name, "epoch": 1, "seq": 1, "records": []})

    assert ("error" not in reply) == good


def test_a_source_that_is_no_utf_8_makes_the_batch_malformed(source: Source) -> None:
    body = msgpack.packb({"source": "x?y", "epoch": 1, "seq": 1, "records": []})

    assert refusal(source.send(body.replace(b"x?y", b"x\xffy"))) == "malformed"


@pytest.mark.parametrize("number", [0, 2**32, 2**63, 2**64 - 1])
def test_an_epoch_may_be_any_unsigned_integer(source: Source, number: int) -> None:
    assert source.send(source.batch(epoch=number, seq=1))["seq"] == 1


@pytest.mark.parametrize("moment", [0, 1, 2**63, 2**64 - 1])
def test_a_time_may_be_any_unsigned_integer_where_there_are_no_samples(
    source: Source, moment: int
) -> None:
    assert source.tell([new_key(), STRUCT, {"a": 1}], time=moment)["applied"] == 1
    assert source.tell([new_key(), STRUCT, {"a": 1}, moment])["applied"] == 1


# ---- the stream --------------------------------------------------------------------------------


def test_what_a_subscriber_sends_is_not_listened_to(daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.linger = 0
        socket.connect(daemon.stream)
        for body in (b"", b"\x02rubbish", b"\x01\xff\xfe", b"\x00never", b"x" * 1_000):
            socket.send(body)
        until(lambda: daemon.counter("subscriptions"))
    until(lambda: not daemon.counter("subscriptions"))
