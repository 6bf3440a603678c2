"""Answers that are large, and those who ask for many: pages, and room for everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from collectord.client import QueryClient
from daemon import DEADLINE, STRUCT, Daemon, new_key, new_source, poll, receive, unpack

SIZE = 64 << 10
"""Bytes of a page of the collector that most of these tests ask."""
OVERHEAD = 1 << 10
"""Bytes of a reply around its page, at most."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(f"--QUERY.reply_size={SIZE}") as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[QueryClient]:
    with QueryClient(daemon.query, DEADLINE) as client:
        yield client


def pages(daemon: Daemon, op: str, name: str, **fields: Any) -> list[Any]:
    """The pages of an answer, none of them larger than it may be."""
    found: list[Any] = []
    after = ""
    while True:
        body = daemon.ask_body(msgpack.packb({"op": op, **fields, "after": after}))
        reply = unpack(body)
        assert reply["ok"], reply
        assert len(body) <= SIZE + OVERHEAD
        found.append(reply[name])
        if "next" not in reply:
            return found
        assert max(reply[name], key=str.encode) == reply["next"]
        after = reply["next"]


def test_a_large_uve_comes_in_pages_of_structs_in_order(
    daemon: Daemon, client: QueryClient
) -> None:
    key = new_key()
    structs = {f"Struct{number}": {"text": "x" * 20_000} for number in range(9)}
    with daemon.source() as source:
        for struct, attributes in reversed(structs.items()):
            source.tell([key, struct, attributes])

    found = pages(daemon, "get", "uve", key=key)

    assert [list(page) for page in found] == [
        ["Struct0", "Struct1", "Struct2"],
        ["Struct3", "Struct4", "Struct5"],
        ["Struct6", "Struct7", "Struct8"],
    ]
    assert client.get(key) == structs


def test_a_struct_that_is_larger_than_a_page_comes_alone(
    daemon: Daemon, client: QueryClient
) -> None:
    key = new_key()
    structs = {name: {"text": "x" * length} for name, length in [("A", 9), ("B", 99_999), ("C", 9)]}
    with daemon.source() as source:
        for struct, attributes in structs.items():
            source.tell([key, struct, attributes])

    reply = daemon.ask("get", key=key)
    assert (list(reply["uve"]), reply["next"]) == (["A"], "A")
    reply = daemon.ask("get", key=key, after="A")
    assert (list(reply["uve"]), reply["next"]) == (["B"], "B")
    assert daemon.ask("get", key=key, after="B") == {"ok": True, "uve": {"C": structs["C"]}}
    assert client.get(key) == structs


def test_uves_that_are_found_come_in_pages(daemon: Daemon, client: QueryClient) -> None:
    keys = [f"ObjectPagedTable:{number}" for number in range(10)]
    with daemon.source() as source:
        source.tell(*([key, STRUCT, {"text": "x" * 30_000}] for key in keys))

    found = pages(daemon, "find", "uves", table="ObjectPagedTable")

    assert [list(page) for page in found] == [keys[at : at + 2] for at in range(0, 10, 2)]
    assert [key for key, _ in client.find("ObjectPagedTable")] == keys


def test_keys_come_in_pages(daemon: Daemon, client: QueryClient) -> None:
    keys = [f"ObjectLongTable:{number:0>1000}" for number in range(200)]
    with daemon.source() as source:
        source.tell(*([key, STRUCT, {"a": 1}] for key in keys))

    found = pages(daemon, "list", "keys", table="ObjectLongTable", limit=1000)

    assert len(found) == 4
    assert [key for page in found for key in page] == keys
    assert list(client.keys("ObjectLongTable")) == keys


def test_tables_come_in_pages(daemon: Daemon, client: QueryClient) -> None:
    tables = {f"Table{number:0>900}": 1 for number in range(100)}
    with daemon.source() as source:
        source.tell(*([f"{table}:x", STRUCT, {"a": 1}] for table in tables))

    found = pages(daemon, "list", "tables")

    assert len(found) == 2
    assert tables.items() <= client.tables().items()
    assert daemon.ask("list", limit=1, after="Table")["tables"] == {f"Table{0:0>900}": 1}


def test_sources_come_in_pages(daemon: Daemon, client: QueryClient) -> None:
    names = {f"{number:x>250}" for number in range(300)}
    with daemon.source() as source:
        for name in names:
            source.send({"source": name, "epoch": 1, "seq": 1, "records": []})

    found = pages(daemon, "sources", "sources")

    assert len(found) == 2
    assert names <= client.sources().keys()
    reply = daemon.ask("sources", limit=2)
    assert len(reply["sources"]) == 2
    assert reply["next"] == list(reply["sources"])[-1]


@pytest.mark.parametrize("limit", [0, -1, "x", True, 1.5])
def test_a_limit_that_makes_no_sense_is_refused(daemon: Daemon, limit: Any) -> None:
    for op in ("sources", "list"):
        assert daemon.ask(op, limit=limit)["error"]["code"] == "bad_request"


def asker(daemon: Daemon, context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = 0
    socket.connect(daemon.query)
    return socket


def test_who_asks_more_than_can_wait_is_told_and_others_are_answered(daemon: Daemon) -> None:
    many = 5_000
    with zmq.Context() as context, asker(daemon, context) as greedy:
        request = msgpack.packb({"op": "find", "match": "*"})
        for _ in range(many):
            greedy.send(request)
        # Its first answers come: it is being served.
        first = unpack(receive(greedy)[-1])
        assert first["ok"] or first["error"]["code"] == "overloaded"

        assert daemon.ask("menu")["ok"]

        codes: list[str | None] = []
        # It is told so as long as it reads fast enough; what it isn't told is counted.
        while len(codes) + 1 + daemon.counter("replies_dropped") < many:
            while frames := poll(greedy, 0.1):
                codes.append(unpack(frames[-1]).get("error", {}).get("code"))
    assert set(codes) == {None, "overloaded"}
    assert codes.count(None) >= 1_000


def test_replies_that_nobody_reads_do_not_pile_up() -> None:
    key, part = new_key(), {"text": "x" * (3 << 20)}
    with Daemon() as daemon, zmq.Context() as context:
        with daemon.source() as source:
            source.tell([key, STRUCT, part])
        resident = daemon.ask("status")["memory"]["resident_peak"]
        with asker(daemon, context) as idle:
            idle.rcvhwm = 1
            idle.setsockopt(zmq.RCVBUF, 4096)
            idle.disconnect(daemon.query)
            idle.connect(daemon.query)
            request = msgpack.packb({"op": "get", "key": key})
            for _ in range(60):
                idle.send(request)

            for _ in range(20):
                assert daemon.uve(key) == {STRUCT: part}
            peak = daemon.ask("status")["memory"]["resident_peak"]

            assert peak - resident < 80 << 20  # of 180 MiB
            # Who begins to read at last gets them all.
            for _ in range(60):
                assert unpack(receive(idle)[-1])["ok"]
        assert daemon.counter("replies_dropped") == 0


def test_a_peer_that_goes_away_unread_harms_nobody() -> None:
    key, part = new_key(), {"text": "x" * (1 << 20)}
    with Daemon() as daemon:
        with daemon.source() as source:
            source.tell([key, STRUCT, part])
        with zmq.Context() as context, asker(daemon, context) as idle:
            for _ in range(200):
                idle.send(msgpack.packb({"op": "get", "key": key}))
            assert poll(idle) is not None
        assert daemon.uve(key) == {STRUCT: part}
        with daemon.source(new_source()) as source:
            assert source.tell([key, STRUCT, None])["applied"] == 1
