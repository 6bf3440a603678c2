"""For programs that talk to a collector: publish to it, ask it, follow what changes.

``Publisher`` is made in ``publisher.py`` and offered here with the rest. Queries and the stream are
each there twice, for threads and for asyncio; what both do lives in the functions at the end.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import zmq
import zmq.asyncio

from collectord import wire
from collectord.publisher import (
    INGEST_ADDRESS,
    BufferFull,
    Counters,
    FlushTimeout,
    Publisher,
    PublishError,
    Rejection,
    StaleEpoch,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = [
    "INGEST_ADDRESS",
    "QUERY_ADDRESS",
    "STREAM_ADDRESS",
    "AsyncQueryClient",
    "AsyncSubscriber",
    "BufferFull",
    "Change",
    "Counters",
    "Filters",
    "FlushTimeout",
    "NotFound",
    "PublishError",
    "Publisher",
    "QueryClient",
    "QueryError",
    "Rejection",
    "StaleEpoch",
    "Subscriber",
    "Timeout",
    "View",
]

QUERY_ADDRESS = f"tcp://127.0.0.1:{wire.QUERY_PORT}"
STREAM_ADDRESS = f"tcp://127.0.0.1:{wire.STREAM_PORT}"
CHANGES_HELD = 100_000
"""Changes that wait for a slow subscriber in its process; what comes beyond them is lost."""

View = dict[str, dict[str, Any]]
"""A UVE: ``{struct: {attribute: value}}``."""

AnySocket = TypeVar("AnySocket", bound=zmq.Socket[Any])


class QueryError(Exception):
    """The collector refused a request: ``code`` and ``message`` say why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NotFound(QueryError):  # noqa: N818
    """No source has told anything of this key."""


class Timeout(TimeoutError):  # noqa: N818
    """The collector did not answer in time, or there is none."""


class Filters(TypedDict, total=False):
    """What of a UVE is wanted."""

    sfilt: str
    """Only what this host told."""
    mfilt: str
    """Only what sources told whose name goes on like this after the host."""
    cfilt: Sequence[str]
    """Only these: ``struct`` or ``struct:attribute``."""
    kfilt: Sequence[str]
    """Only keys that match one of these; ``*`` is any run of characters."""
    by_source: bool
    """``{attribute: {source: value}}`` in place of merged values."""


class QueryClient:
    """Asks a collector. Threads may share one; they then wait for one another.

    >>> with QueryClient(timeout=2.0) as client:  # doctest: +SKIP
    ...     view = client.get("ObjectVNTable:demo:vn1", cfilt=["UveVirtualNetworkAgent"])
    ...     for key, view in client.find("ObjectVNTable", sfilt="compute-1"):
    ...         print(key, view)

    Every method raises Timeout when no answer comes within ``timeout`` seconds, QueryError when the
    collector refuses. Raises ValueError for an address that cannot be.
    """

    def __init__(self, address: str = QUERY_ADDRESS, timeout: float = 5.0) -> None:
        self.address = address
        self.timeout = timeout
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._open()

    def get(self, key: str, **filters: Unpack[Filters]) -> View:
        """The merged view of one UVE. Raises NotFound."""
        view: View = self._ask({"op": "get", "key": key, **_checked(filters)})["uve"]
        return view

    def find(
        self, table: str = "", match: str = "", page: int = 100, **filters: Unpack[Filters]
    ) -> Iterator[tuple[str, View]]:
        """Each UVE of a table, or whose key matches a pattern, in key order; ``page`` at a time."""
        for reply in self._pages(_request("find", table, match, page, filters)):
            yield from reply["uves"].items()

    def tables(self) -> dict[str, int]:
        """Each table, and how many keys it has."""
        tables: dict[str, int] = self._ask({"op": "list"})["tables"]
        return tables

    def keys(self, table: str = "", match: str = "", page: int = 1000) -> Iterator[str]:
        """Each key of a table, or that matches a pattern, in order; ``page`` at a time."""
        for reply in self._pages(_request("list", table, match, page, {})):
            yield from reply["keys"]

    def sources(self) -> dict[str, dict[str, Any]]:
        """Each source: its records, when it was last seen, how far it has come."""
        sources: dict[str, dict[str, Any]] = self._ask({"op": "sources"})["sources"]
        return sources

    def menu(self) -> dict[str, Any]:
        """The proxy algorithms there are (``menu``) and those that run (``configured``)."""
        return self._ask({"op": "menu"})

    def status(self) -> dict[str, Any]:
        """How the collector is: version, uptime, counters, sizes, memory."""
        return self._ask({"op": "status"})

    def close(self) -> None:
        """Give the socket back."""
        with self._lock:
            self._socket.close(linger=0)
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

    def _open(self) -> zmq.Socket[bytes]:
        try:
            return _connected(self._context.socket(zmq.REQ), self.address)
        except ValueError:
            self._context.term()
            raise

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        body = wire.encode(request)
        with self._lock:
            try:
                self._socket.send(body)
                if not self._socket.poll(int(self.timeout * 1000)):
                    raise _no_answer(self.address, self.timeout)
                reply = self._socket.recv()
            except BaseException:
                # A REQ that has not heard its answer cannot be asked again.
                self._socket.close(linger=0)
                self._socket = self._open()
                raise
        return _answer(reply, self.address)

    def _pages(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            reply = self._ask(request)
            yield reply
            if reply.get("next") is None:
                return
            request["after"] = reply["next"]


class AsyncQueryClient:
    """``QueryClient`` for asyncio. Tasks may share one; they then wait for one another.

    >>> async with AsyncQueryClient() as client:  # doctest: +SKIP
    ...     async for key in client.keys("ObjectVNTable"):
    ...         print(key, await client.get(key))
    """

    def __init__(self, address: str = QUERY_ADDRESS, timeout: float = 5.0) -> None:
        self.address = address
        self.timeout = timeout
        self._lock = asyncio.Lock()
        self._context = zmq.asyncio.Context()
        self._socket = self._open()

    async def get(self, key: str, **filters: Unpack[Filters]) -> View:
        """As ``QueryClient.get``."""
        view: View = (await self._ask({"op": "get", "key": key, **_checked(filters)}))["uve"]
        return view

    async def find(
        self, table: str = "", match: str = "", page: int = 100, **filters: Unpack[Filters]
    ) -> AsyncIterator[tuple[str, View]]:
        """As ``QueryClient.find``."""
        async for reply in self._pages(_request("find", table, match, page, filters)):
            for key, view in reply["uves"].items():
                yield key, view

    async def tables(self) -> dict[str, int]:
        """As ``QueryClient.tables``."""
        tables: dict[str, int] = (await self._ask({"op": "list"}))["tables"]
        return tables

    async def keys(self, table: str = "", match: str = "", page: int = 1000) -> AsyncIterator[str]:
        """As ``QueryClient.keys``."""
        async for reply in self._pages(_request("list", table, match, page, {})):
            for key in reply["keys"]:
                yield key

    async def sources(self) -> dict[str, dict[str, Any]]:
        """As ``QueryClient.sources``."""
        sources: dict[str, dict[str, Any]] = (await self._ask({"op": "sources"}))["sources"]
        return sources

    async def menu(self) -> dict[str, Any]:
        """As ``QueryClient.menu``."""
        return await self._ask({"op": "menu"})

    async def status(self) -> dict[str, Any]:
        """As ``QueryClient.status``."""
        return await self._ask({"op": "status"})

    async def close(self) -> None:
        """Give the socket back."""
        async with self._lock:
            self._socket.close(linger=0)
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

    def _open(self) -> zmq.asyncio.Socket:
        try:
            return _connected(self._context.socket(zmq.REQ), self.address)
        except ValueError:
            self._context.term()
            raise

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        body = wire.encode(request)
        async with self._lock:
            try:
                await self._socket.send(body)
                reply = await asyncio.wait_for(self._socket.recv(), self.timeout)
            except BaseException as error:
                # A REQ that has not heard its answer cannot be asked again.
                self._socket.close(linger=0)
                self._socket = self._open()
                if isinstance(error, asyncio.TimeoutError):
                    raise _no_answer(self.address, self.timeout) from None
                raise
        return _answer(reply, self.address)

    async def _pages(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        while True:
            reply = await self._ask(request)
            yield reply
            if reply.get("next") is None:
                return
            request["after"] = reply["next"]


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
    ) -> None:
        self.address = address
        self._wanted = _matcher(pattern)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        try:
            if connect_timeout is None:
                _subscribe(self._socket, pattern, address)
            else:
                self._connect_within(connect_timeout, pattern)
        except (ValueError, Timeout):
            self.close()
            raise

    def receive(self, timeout: float | None = None) -> Change:
        """The next change. Raises Timeout when there is none within ``timeout`` seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._socket.poll(_milliseconds(deadline - time.monotonic())):
            change = _change(self._socket.recv_multipart(), self.address)
            if self._wanted.fullmatch(change.key):
                return change
        raise Timeout(f"nothing changed within {timeout} s")

    def __iter__(self) -> Iterator[Change]:
        while True:
            yield self.receive()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close(linger=0)
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

    def _connect_within(self, timeout: float, pattern: str) -> None:
        with self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            _subscribe(self._socket, pattern, self.address)
            connected = monitor.poll(int(timeout * 1000))
            self._socket.disable_monitor()
        if not connected:
            raise _no_answer(self.address, timeout)


class AsyncSubscriber:
    """``Subscriber`` for asyncio.

    >>> async with AsyncSubscriber("ObjectVNTable:*") as changes:  # doctest: +SKIP
    ...     async for change in changes:
    ...         print(change.key, change.struct, change.value)
    """

    def __init__(self, pattern: str = "*", address: str = STREAM_ADDRESS) -> None:
        self.address = address
        self._wanted = _matcher(pattern)
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        try:
            _subscribe(self._socket, pattern, address)
        except ValueError:
            self._context.destroy(linger=0)
            raise

    async def receive(self) -> Change:
        """The next change."""
        while True:
            change = _change(await self._socket.recv_multipart(), self.address)
            if self._wanted.fullmatch(change.key):
                return change

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            yield await self.receive()

    async def close(self) -> None:
        """Give the socket back."""
        self._socket.close(linger=0)
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


def _connected(socket: AnySocket, address: str) -> AnySocket:
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close()
        raise ValueError(
            f"cannot connect to {address!r}: {error}; write tcp://<host>:<port>"
        ) from error
    return socket


def _milliseconds(seconds: float) -> int | None:
    """For poll, which takes None for ever."""
    return None if seconds == math.inf else max(0, round(seconds * 1000))


def _subscribe(socket: zmq.Socket[Any], pattern: str, address: str) -> None:
    socket.setsockopt(zmq.RCVHWM, CHANGES_HELD)
    socket.setsockopt(zmq.SUBSCRIBE, pattern.partition("*")[0].encode())
    _connected(socket, address)


def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _change(frames: Sequence[bytes], address: str) -> Change:
    match _decoded(frames[-1], address):
        case {"key": str(key), "struct": str(struct), "deleted": True}:
            return Change(key, struct, None, True)
        case {"key": str(key), "struct": str(struct), "value": value}:
            return Change(key, struct, value, False)
        case other:
            raise _stranger(address, other)


def _decoded(body: bytes, address: str) -> Any:
    try:
        return wire.decode(body)
    except ValueError as error:
        raise _stranger(address, body) from error


def _stranger(address: str, message: Any) -> QueryError:
    return QueryError(
        "malformed", f"{address} doesn't answer as a collector does: {message!r:.200}"
    )


def _checked(filters: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown = filters.keys() - Filters.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"no such filter: {', '.join(sorted(unknown))}; "
            f"there are {', '.join(Filters.__annotations__)}"
        )
    return filters


def _request(
    op: str, table: str, match: str, page: int, filters: Mapping[str, Any]
) -> dict[str, Any]:
    if not table and not match:
        raise TypeError("a table or a pattern for the keys must be given")
    return {
        "op": op,
        **({"table": table} if table else {}),
        **({"match": match} if match else {}),
        "limit": page,
        **_checked(filters),
    }


def _answer(reply: bytes, address: str) -> dict[str, Any]:
    answer = _decoded(reply, address)
    match answer:
        case {"ok": True}:
            return {name: value for name, value in answer.items() if name != "ok"}
        case {"ok": False, "error": {"code": str(code), "message": str(message)}}:
            raise (NotFound if code == "not_found" else QueryError)(code, message)
        case _:
            raise _stranger(address, answer)


def _no_answer(address: str, timeout: float) -> Timeout:
    return Timeout(f"no answer from {address} within {timeout:g} s")
