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

    With ``connect_timeout`` it waits that many seconds for a collector, and raises Timeout if none
    is there; otherwise it connects when it can. Raises ValueError for an address that cannot be.
    """

    def __init__(
        self,
        pattern: str = "*",
        address: str = STREAM_ADDRESS,
        *,
        connect_timeout: float | None = None,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self._wanted = _matcher(pattern)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        try:
            socket = self._context.socket(zmq.SUB)
            self._connection = _subscribed(socket, address, pattern, curve)
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
                change = _change(frames, self.address)
                if self._wanted.fullmatch(change.key):
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
    """``Subscriber`` for asyncio.

    >>> async with AsyncSubscriber("ObjectVNTable:*") as changes:  # doctest: +SKIP
    ...     async for change in changes:
    ...         print(change.key, change.struct, change.value)
    """

    def __init__(
        self,
        pattern: str = "*",
        address: str = STREAM_ADDRESS,
        *,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self._wanted = _matcher(pattern)
        self._context = zmq.asyncio.Context()
        try:
            socket = self._context.socket(zmq.SUB)
            self._connection = _subscribed(socket, address, pattern, curve)
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
            change = _change(frames, self.address)
            if self._wanted.fullmatch(change.key):
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


def _subscribed(
    socket: AnySocket, address: str, pattern: str, curve: Curve | None
) -> Connection[AnySocket]:
    topic = pattern.partition("*")[0].encode()
    return Connection(socket, address, curve, [(zmq.RCVHWM, CHANGES_HELD), (zmq.SUBSCRIBE, topic)])


def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _change(frames: Sequence[bytes], address: str) -> Change:
    match decoded(frames[-1], address):
        case {"key": str(key), "struct": str(struct), "deleted": True}:
            return Change(key, struct, None, True)
        case {"key": str(key), "struct": str(struct), "value": value}:
            return Change(key, struct, value, False)
        case other:
            raise stranger(address, other)
