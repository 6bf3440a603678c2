"""Handshakes: those that fail on the collector's sockets are counted here, and told in the log.

libzmq speaks of them through a socket's monitor, which is read on the event loop. Who is refused
gets nothing but a closed connection; the operator gets a counter for each reason, and now and then
a line with the peer's address.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket as sockets
import time
from collections import Counter
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

log = logging.getLogger(__name__)

EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_MONITOR_STOPPED
)
EVENTS_AT_ONCE = 500
"""Events that are taken before others on the loop have their turn."""
PAUSE = 0.05
"""Seconds for which events are left lying where no connection can be accepted: libzmq then tries
again and again, and has to wait while as many lie there as a monitor holds."""
PEERS = 4096
"""Connections whose peer is remembered, the latest ones: a handshake fails soon if it does."""
QUIET = 5.0
"""Seconds between two warnings; what is between them is counted in the next."""

REASONS: dict[int, tuple[str, str]] = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: (
        "refused_no_key",
        "one side uses keys and the other doesn't",
    ),
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: (
        "refused_server_key",
        "the peer has another public key of this collector",
    ),
}
OTHER_REASON = ("refused_protocol", "the peer doesn't speak ZeroMQ's protocol")

UNKNOWN = "a peer that went away"

_numbers = itertools.count(1)


class Handshakes:
    """Counts into ``counters`` what fails; needs a running event loop."""

    def __init__(self, context: zmq.Context[Any], counters: Counter[str]) -> None:
        self._context = context
        self._counters = counters
        for name in ("handshakes_refused", "handshakes_failed", "accepts_failed"):
            counters[name] = 0
        for name, _ in (*REASONS.values(), OTHER_REASON):
            counters[name] = 0
        self._readers: dict[asyncio.Task[None], zmq.Socket[bytes]] = {}
        self._warned: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def follow(self, socket: zmq.Socket[Any], name: str) -> None:
        """Count the handshakes on a socket; before it is bound, by the thread that has it."""
        address = f"inproc://{name}-handshakes-{next(_numbers)}"
        socket.monitor(address, EVENTS)
        monitor: zmq.Socket[bytes] = self._context.socket(zmq.PAIR, socket_class=zmq.Socket)
        monitor.linger = 0
        monitor.connect(address)
        reader = asyncio.create_task(self._read(monitor, name))
        self._readers[reader] = monitor
        reader.add_done_callback(self._done)

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning, unless the same was said of another just now."""
        now = time.monotonic()
        if now - self._warned.get(message, -QUIET) < QUIET:
            self._untold[message] += 1
            return
        untold = self._untold.pop(message, 0)
        more = f"; {untold} more since it was said last" if untold else ""
        log.warning(f"{message}%s", *arguments, more)
        self._warned[message] = now

    def close(self) -> None:
        """Read no more; after the sockets are closed, and right before the context ends.

        A socket that still lingers may have to wait from then on, with what it tells its monitor.
        """
        for reader, monitor in self._readers.items():
            reader.cancel()
            monitor.close()

    def _done(self, reader: asyncio.Task[None]) -> None:
        self._readers.pop(reader).close()
        if not reader.cancelled() and (error := reader.exception()):
            log.critical("handshakes are not counted any more", exc_info=error)

    async def _read(self, monitor: zmq.Socket[bytes], name: str) -> None:
        poller = zmq.asyncio.Poller()
        poller.register(monitor, zmq.POLLIN)
        connections = _Connections(name)
        ended = False
        while not ended:
            await poller.poll()
            failed = self._counters["accepts_failed"]
            with contextlib.suppress(zmq.Again):
                for _ in range(EVENTS_AT_ONCE):
                    event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
                    self._take(connections, event["event"], event["value"])
                    ended = event["event"] == zmq.EVENT_MONITOR_STOPPED
            await asyncio.sleep(PAUSE if self._counters["accepts_failed"] > failed else 0)

    def _take(self, connections: _Connections, event: int, value: int) -> None:
        match event:
            case zmq.EVENT_ACCEPTED:
                connections.add(value)
            case zmq.EVENT_ACCEPT_FAILED:
                self._counters["accepts_failed"] += 1
                message = "%s: no connection can be accepted: %s; raise the limit of open files"
                self.warn(message, connections.name, os.strerror(value))
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:  # refused by ZAP, which knew why, and whom
                self._counters["handshakes_refused"] += 1
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                connections.refused = value
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                # It went away in the middle, as do those who only look whether a port is open.
                self._counters["handshakes_failed"] += 1
            case zmq.EVENT_DISCONNECTED:
                self._disconnected(connections, connections.pop(value))

    def _disconnected(self, connections: _Connections, peer: str) -> None:
        """A connection ended. Where its handshake was refused, that was what came just before."""
        if connections.refused is None:
            return
        counter, reason = REASONS.get(connections.refused, OTHER_REASON)
        connections.refused = None
        self._counters["handshakes_refused"] += 1
        self._counters[counter] += 1
        self.warn(f"%s: the handshake of %s is refused: {reason}", connections.name, peer)


class _Connections:
    """The latest connections of one socket: by file descriptor, who is at the other end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refused: int | None = None
        """The reason of a handshake that was refused, until it is known whose that was."""
        self._peers: dict[int, str] = {}

    def add(self, descriptor: int) -> None:
        self._peers.pop(descriptor, None)
        if len(self._peers) >= PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[descriptor] = _peer(descriptor)

    def pop(self, descriptor: int) -> str:
        return self._peers.pop(descriptor, UNKNOWN)


def _peer(descriptor: int) -> str:
    """The address at the other end; the connection may be gone, and its number be another's."""
    try:
        connection = sockets.socket(fileno=descriptor)
    except OSError:
        return UNKNOWN
    try:
        host, port, *_ = connection.getpeername()
    except (OSError, ValueError):
        return UNKNOWN
    finally:
        connection.detach()  # it is libzmq's
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
