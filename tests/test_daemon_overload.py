"""Too much at once: memory is never the buffer, and a flood keeps nobody else from being heard."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial

import msgpack
import pytest
import zmq

from daemon import STRUCT, Daemon, new_key, until

RECORDS = 20_000
MESSAGES = 400
MOST_WAITING = 400 << 20
"""Of nearly 900 MB that are sent as fast as they go."""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon


def peak(daemon: Daemon) -> int:
    found: int = daemon.ask("status")["memory"]["resident_peak"]
    return found


def more_records(daemon: Daemon, than: int) -> int:
    """How many were applied, where that is more; else 0."""
    applied = daemon.counter("records")
    return applied if applied > than else 0


def test_what_comes_faster_than_it_is_applied_does_not_wait_in_memory(daemon: Daemon) -> None:
    # Each message takes far longer to apply than to send.
    records = [[f"T:{number}", STRUCT, {"a": number, "b": "x" * 60}] for number in range(RECORDS)]
    with daemon.source() as source:
        source.post(source.batch(*records))
        until(lambda: daemon.counter("records") == RECORDS)
        before = peak(daemon)
        body = msgpack.packb(source.batch(*records))
        for _ in range(MESSAGES):
            source.post(body)
        applied = RECORDS
        while applied < RECORDS * (MESSAGES + 1):
            applied = until(partial(more_records, daemon, applied))
        assert peak(daemon) - before < MOST_WAITING


def test_a_flood_of_messages_in_many_frames_keeps_nobody_waiting(daemon: Daemon) -> None:
    flooding = threading.Event()

    def flood() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.sndtimeo = 100
            socket.connect(daemon.ingest)
            while not flooding.is_set():
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart([b"x"] * 100)

    floods = [threading.Thread(target=flood) for _ in range(3)]
    for thread in floods:
        thread.start()
    try:
        until(lambda: daemon.counter("frames_refused") > 1000)
        with daemon.source() as source:
            for _ in range(50):
                assert source.tell([new_key(), STRUCT, {"a": 1}])["applied"] == 1
    finally:
        flooding.set()
        for thread in floods:
            thread.join()
    daemon.assert_goes_on()
