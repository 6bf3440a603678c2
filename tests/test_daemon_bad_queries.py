"""Bad requests to a running collector: each gets its code, and all goes on as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from daemon import BAD_TYPES, STRUCT, Daemon, all_but, poll


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def goes_on(daemon: Daemon) -> Iterator[None]:
    """After each test, whoever sends and asks finds the collector as it was."""
    yield
    daemon.assert_goes_on()


def answer(daemon: Daemon, body: bytes) -> Any:
    """The reply to a request, in whatever language it is."""
    reply = daemon.ask_body(body)
    return json.loads(reply) if reply[:1] == b"{" else msgpack.unpackb(reply)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"hello",
        msgpack.packb([]),
        msgpack.packb(None),
        msgpack.packb({"op": "list"}) + b"\x00",
        msgpack.packb({"op": "list"})[:-1],
        b"\x81" * 10_000,
        b"\x91" * 10_000,
        b"\x81\x80\x01",
        b"\x81\xa2op\xa4li\xffst",
        b"{",
        b"{}}",
        b'{"op": "list"',
        b"{'op': 'list'}",
        b'{"op": "\xff"}',
        b'{"op": "\\ud800"}',
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_request_is_malformed(daemon: Daemon, body: bytes) -> None:
    before = daemon.counter("requests_refused")

    reply = answer(daemon, body)

    assert reply["ok"] is False
    assert reply["error"]["code"] == "malformed"
    assert reply["error"]["message"]
    assert daemon.counter("requests_refused") == before + 1


@pytest.mark.parametrize("op", [*BAD_TYPES.values(), "", "GET", "drop"], ids=repr)
def test_an_op_that_is_none_is_unknown(daemon: Daemon, op: Any) -> None:
    assert daemon.ask(op)["error"]["code"] == "unknown_op"


def test_a_request_without_op_is_unknown(daemon: Daemon) -> None:
    assert answer(daemon, msgpack.packb({}))["error"]["code"] == "unknown_op"
    assert answer(daemon, b"{}")["error"]["code"] == "unknown_op"


FILTERS = {
    "sfilt": ["nil", "text"],
    "mfilt": ["nil", "text"],
    "cfilt": ["nil", "text"],
    "kfilt": ["nil", "text"],
    "by_source": ["nil", "true"],
}
PLACES = {
    "table": ["nil", "text"],
    "match": ["nil", "text"],
    "after": ["nil", "text"],
    "limit": ["nil", "integer"],
}


@pytest.mark.parametrize(
    ("request_", "field", "bad"),
    [
        pytest.param(request, field, *case.values, id=f"{request['op']}-{field}-{case.id}")
        for request, fields in [
            ({"op": "get", "key": "T:x"}, FILTERS),
            ({"op": "find", "table": "T"}, FILTERS | PLACES),
            ({"op": "list", "table": "T"}, PLACES),
        ]
        for field, good in fields.items()
        for case in all_but(*good)
    ],
)
def test_a_field_of_a_request_of_the_wrong_type_is_a_bad_request(
    daemon: Daemon, request_: dict[str, Any], field: str, bad: Any
) -> None:
    reply = daemon.ask(**{**request_, field: bad})

    assert reply["error"]["code"] == "bad_request"
    assert field in reply["error"]["message"]


@pytest.mark.parametrize("bad", all_but("text"))
def test_get_wants_a_key_that_is_a_text(daemon: Daemon, bad: Any) -> None:
    assert daemon.ask("get", key=bad)["error"]["code"] == "bad_request"


def test_get_wants_a_key(daemon: Daemon) -> None:
    assert daemon.ask("get")["error"]["code"] == "bad_request"


@pytest.mark.parametrize("limit", [0, -1, -(2**63), 1.0, True, "5"])
@pytest.mark.parametrize("op", ["find", "list"])
def test_a_limit_below_1_or_of_another_type_is_a_bad_request(
    daemon: Daemon, op: Any, limit: Any
) -> None:
    reply = daemon.ask(op, table="T", limit=limit)

    assert reply["error"]["code"] == "bad_request"
    assert "limit" in reply["error"]["message"]


@pytest.mark.parametrize(
    "key", ["", ":", "x" * 5000, "T:\x00", "é:é"], ids=lambda key: ascii(key[:9])
)
def test_a_key_that_cannot_be_is_not_found(daemon: Daemon, key: str) -> None:
    assert daemon.ask("get", key=key)["error"]["code"] == "not_found"


def test_a_request_of_more_than_1_mib_is_too_large(daemon: Daemon) -> None:
    for body in (msgpack.packb({"op": "list", "x": "x" * (1 << 20)}), b'{"x":"' + b"x" * (1 << 20)):
        assert answer(daemon, body)["error"]["code"] == "too_large"


def test_one_who_sends_a_request_of_3_mb_is_cut_off_and_no_other(daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        with socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            socket.connect(daemon.query)
            socket.send(b"x" * 3_000_000)
            assert poll(monitor) is not None
            socket.disable_monitor()

    assert daemon.ask("list")["ok"]


@pytest.mark.parametrize("frames", [[b"a", b"b"], [b"", b"a", b"b"], [b"a"] * 20], ids=len)
def test_a_request_of_several_frames_is_malformed(daemon: Daemon, frames: list[bytes]) -> None:
    *_, body = daemon.ask_raw(*frames)

    assert msgpack.unpackb(body)["error"]["code"] == "malformed"


def test_a_pattern_of_many_stars_is_answered(daemon: Daemon) -> None:
    with daemon.source() as source:
        source.tell(["Stars:" + "a" * 1000, STRUCT, {"a": 1}])

    assert daemon.ask("list", match="*a" * 500 + "b")["keys"] == []


@pytest.mark.parametrize("op", ["find", "list"])
def test_more_than_100_patterns_are_a_bad_request(daemon: Daemon, op: Any) -> None:
    assert daemon.ask(op, kfilt=["*"] * 101)["error"]["code"] == "bad_request"


@pytest.mark.parametrize("cfilt", [["a b"], ["a:b:c"], [""], [":a"], ["a", 5], [["a"]]], ids=repr)
def test_a_cfilt_that_names_nothing_is_a_bad_request(daemon: Daemon, cfilt: list[Any]) -> None:
    assert daemon.ask("get", key="T:x", cfilt=cfilt)["error"]["code"] == "bad_request"
