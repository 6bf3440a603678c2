"""The stream from a program's side: follow what changes.

There is one for threads and one for asyncio; what both do lives in the functions at the end.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio

from collectord import wire
from collectord.connection import (
    AnySocket,
    Connection,
    QueryError,
    Timeout,
    decoded,
    milliseconds,
    stranger,
)
from collectord.curve import Curve

if TYPE_CHECKING:
    from typing_extensions import Self

STREAM_ADDRESS = f"tcp://127.0.0.1:{wire.STREAM_PORT}"
CHANGES_HELD = 100_000
"""Changes that wait for a slow subscriber in its process; what comes beyond them is lost."""


@dataclass(frozen=True)
class Change:
    """A struct of a UVE that has a new merged value, or is gone."""

    key: str
    struct: str
    value: Any
    """``{attribute: value}``; None where it is gone."""
    deleted: bool


class Subscriber:
    """Follows what changes in the UVEs whose key matches ``pattern`` (``*``: any characters).

    >>> with Subscriber("ObjectVNTable:*", connect_timeout=5.0) as changes:  # doctest: +SKIP
    ...     for change in changes:
    ...         print(change.key, change.struct, change.value)

    What changed before the connection was made is not told, nor what a slow reader leaves lying:
    ask with a ``QueryClient`` for what is. One thread at a time may use it.

    With ``alarms`` it follows the alarms of these UVEs in place of their structs. A change then
    tells all alarms that are raised on its key: the ``value`` of the struct ``UVEAlarms`` is
    ``{"alarms": [alarm, …]}``, and it is ``deleted`` when none is left. What was raised, cleared or
    acknowledged shows in comparison with the change before, or with ``QueryClient.alarms``.

    With ``connect_timeout`` it waits that many seconds for a collector, and raises Timeout if none
    is there; otherwise it connects when it can. Raises ValueError for an address that cannot be.
    """

    def __init__(
        self,
        pattern: str = "*",
        address: str = STREAM_ADDRESS,
        *,
        alarms: bool = False,
        connect_timeout: float | None = None,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self._wanted = _Wanted(pattern, alarms)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        try:
            socket = self._context.socket(zmq.SUB)
            self._connection = _subscribed(socket, address, self._wanted, curve)
        except ValueError:
            self._context.term()
            raise
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)
        if connect_timeout is not None:
            try:
                self._await_connection(connect_timeout)
            except (QueryError, Timeout):
                self.close()
                raise

    def receive(self, timeout: float | None = None) -> Change:
        """The next change.

        Raises Timeout when there is none within ``timeout`` seconds, Unauthorised where the
        collector refuses the key: then it takes a new ``Subscriber``.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            change = self._take()
            if change is not None:
                return change
            if not self._poller.poll(milliseconds(deadline - time.monotonic())):
                raise Timeout(f"nothing changed within {timeout} s")
            self._connection.check()

    def __iter__(self) -> Iterator[Change]:
        while True:
            yield self.receive()

    def close(self) -> None:
        """Give the socket back."""
        self._connection.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> Change | None:
        """The next change that is there and wanted."""
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self._connection.socket.recv_multipart(zmq.DONTWAIT)
                change = self._wanted.change(frames, self.address)
                if change is not None:
                    return change
        return None

    def _await_connection(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._connection.events.poll(milliseconds(deadline - time.monotonic())):
            self._connection.check()
            if self._connection.succeeded:
                return
        raise self._connection.no_answer(timeout)


class AsyncSubscriber:
    """``Subscriber`` for asyncio; ``alarms`` means the same.

    >>> async with AsyncSubscriber("ObjectVNTable:*") as changes:  # doctest: +SKIP
    ...     async for change in changes:
    ...         print(change.key, change.struct, change.value)
    """

    def __init__(
        self,
        pattern: str = "*",
        address: str = STREAM_ADDRESS,
        *,
        alarms: bool = False,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self._wanted = _Wanted(pattern, alarms)
        self._context = zmq.asyncio.Context()
        try:
            socket = self._context.socket(zmq.SUB)
            self._connection = _subscribed(socket, address, self._wanted, curve)
        except ValueError:
            self._context.term()
            raise
        self._poller = zmq.asyncio.Poller()
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)

    async def receive(self) -> Change:
        """The next change. Raises Unauthorised, as ``Subscriber.receive``."""
        while True:
            ready = dict(await self._poller.poll())
            if self._connection.socket not in ready:
                self._connection.check()
                continue
            frames = await self._connection.socket.recv_multipart()
            change = self._wanted.change(frames, self.address)
            if change is not None:
                return change

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            yield await self.receive()

    async def close(self) -> None:
        """Give the socket back."""
        self._connection.close()
        self._context.term()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class _Wanted:
    """Which messages are meant: changes of UVEs, or of their alarms, whose key fits a pattern."""

    def __init__(self, pattern: str, alarms: bool) -> None:
        self._prefix = wire.ALARM_TOPIC if alarms else b""
        self._keys = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
        self.topic = self._prefix + pattern.partition("*")[0].encode()
        """What to subscribe to."""

    def change(self, frames: Sequence[bytes], address: str) -> Change | None:
        """What a message tells, if it is meant."""
        change = _change(frames, address)
        # Alarms come under topics of their own, which an empty prefix, or one of a table that is
        # called so too, lets through.
        topic = self._prefix + change.key.encode("utf-8", "surrogateescape")
        return change if frames[0] == topic and self._keys.fullmatch(change.key) else None


def _subscribed(
    socket: AnySocket, address: str, wanted: _Wanted, curve: Curve | None
) -> Connection[AnySocket]:
    return Connection(
        socket, address, curve, [(zmq.RCVHWM, CHANGES_HELD), (zmq.SUBSCRIBE, wanted.topic)]
    )


def _change(frames: Sequence[bytes], address: str) -> Change:
    match decoded(frames[-1], address):
        case {"key": str(key), "struct": str(struct), "deleted": True}:
            return Change(key, struct, None, True)
        case {"key": str(key), "struct": str(struct), "value": value}:
            return Change(key, struct, value, False)
        case other:
            raise stranger(address, other)
