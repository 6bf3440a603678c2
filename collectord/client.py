"""For programs that talk to a collector: publish to it, ask it, follow what changes.

What asks a collector lives here, once for threads and once for asyncio; what both do, in the
functions at the end. ``Publisher`` is made in ``publisher.py``, what follows the stream in
``subscriber.py``; they are offered here with the rest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

import zmq
import zmq.asyncio

from collectord import wire
from collectord.connection import (
    Connection,
    NotFound,
    QueryError,
    StaleToken,
    Timeout,
    Unauthorised,
    decoded,
    milliseconds,
    stranger,
)
from collectord.curve import Curve, KeyFileError
from collectord.publisher import (
    INGEST_ADDRESS,
    BufferFull,
    Counters,
    FlushTimeout,
    Publisher,
    PublishError,
    Rejection,
    SpoolError,
    StaleEpoch,
)
from collectord.subscriber import STREAM_ADDRESS, AsyncSubscriber, Change, Subscriber

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = [
    "INGEST_ADDRESS",
    "QUERY_ADDRESS",
    "STREAM_ADDRESS",
    "Alarm",
    "AsyncQueryClient",
    "AsyncSubscriber",
    "BufferFull",
    "Change",
    "Counters",
    "Curve",
    "Filters",
    "FlushTimeout",
    "KeyFileError",
    "NotFound",
    "PublishError",
    "Publisher",
    "QueryClient",
    "QueryError",
    "Rejection",
    "SpoolError",
    "StaleEpoch",
    "StaleToken",
    "Subscriber",
    "Timeout",
    "Unauthorised",
    "View",
]

QUERY_ADDRESS = f"tcp://127.0.0.1:{wire.QUERY_PORT}"

ERRORS: dict[str, type[QueryError]] = {
    "not_found": NotFound,
    "stale_token": StaleToken,
    "unauthorised": Unauthorised,
}
"""By code; others are QueryErrors."""

View = dict[str, dict[str, Any]]
"""A UVE: ``{struct: {attribute: value}}``."""
Alarm = dict[str, Any]
"""A raised alarm: ``type`` (its rule's name), ``severity`` (0 critical, 1 major, 2 minor),
``timestamp`` (when it was raised, µs), ``token`` (which raising it is), ``ack``, ``description``
and ``alarm_rules``: the conditions that held, and what their operands were."""


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
    collector refuses: Unauthorised where it refuses the keys, ``curve``, or wants some. Raises
    ValueError for an address that cannot be.
    """

    def __init__(
        self,
        address: str = QUERY_ADDRESS,
        timeout: float = 5.0,
        *,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._curve = curve
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open()

    def get(self, key: str, **filters: Unpack[Filters]) -> View:
        """The merged view of one UVE. Raises NotFound."""
        view: View | None = None
        for reply in self._pages({"op": "get", "key": key, **_checked(filters)}):
            view = reply["uve"] if view is None else view | reply["uve"]
        assert view is not None
        return view

    def find(
        self, table: str = "", match: str = "", page: int = 100, **filters: Unpack[Filters]
    ) -> Iterator[tuple[str, View]]:
        """Each UVE of a table, or whose key matches a pattern, in key order; ``page`` at a time."""
        for reply in self._pages(_request("find", table, match, page, filters)):
            yield from reply["uves"].items()

    def tables(self) -> dict[str, int]:
        """Each table, and how many keys it has."""
        tables: dict[str, int] = {}
        for reply in self._pages({"op": "list"}):
            tables.update(reply["tables"])
        return tables

    def keys(self, table: str = "", match: str = "", page: int = 1000) -> Iterator[str]:
        """Each key of a table, or that matches a pattern, in order; ``page`` at a time."""
        for reply in self._pages(_request("list", table, match, page, {})):
            yield from reply["keys"]

    def sources(self) -> dict[str, dict[str, Any]]:
        """Each source: its records, when it was last seen, how far it has come."""
        sources: dict[str, dict[str, Any]] = {}
        for reply in self._pages({"op": "sources"}):
            sources.update(reply["sources"])
        return sources

    def menu(self) -> dict[str, Any]:
        """The proxy algorithms there are (``menu``) and those that run (``configured``)."""
        return self._ask({"op": "menu"})

    def status(self) -> dict[str, Any]:
        """How the collector is: version, uptime, counters, sizes, memory."""
        return self._ask({"op": "status"})

    def alarms(
        self,
        tables: Sequence[str] = (),
        match: Sequence[str] = (),
        severity: Sequence[int] = (),
        acknowledged: bool | None = None,
        page: int = 1000,
    ) -> Iterator[tuple[str, list[Alarm]]]:
        """Each UVE that has alarms, in key order, and these in order of type; ``page`` at a time.

        Only those of ``tables``, whose key matches one of the patterns ``match``, that have one of
        the severities, and that were acknowledged or were not; empty, or None, filters nothing.
        """
        request = _alarms_request(tables, match, severity, acknowledged, page)
        for reply in self._pages(request):
            yield from reply["alarms"].items()

    def acknowledge(self, key: str, type: str, token: str) -> Alarm:  # noqa: A002
        """Acknowledge the alarm of this UVE, type and token; returns it as it is then.

        Raises NotFound where no alarm of the type is raised, and StaleToken where another one is:
        it was raised anew since, and somebody should look at it first.
        """
        alarm: Alarm = self._ask(_ack_request(key, type, token))["alarm"]
        return alarm

    def close(self) -> None:
        """Give the socket back."""
        with self._lock:
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

    def _open(self) -> None:
        """Connect, in place of a connection before."""
        try:
            socket = self._context.socket(zmq.REQ)
            self._connection = Connection(socket, self.address, self._curve)
        except ValueError:
            self._context.term()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        body = wire.encode(request)
        with self._lock:
            if self._connection.refused:  # since the last answer
                self._open_again()
            try:
                self._connection.socket.send(body, zmq.DONTWAIT)
                reply = self._receive(time.monotonic() + self.timeout)
            except BaseException:
                # A REQ that has not heard its answer cannot be asked again.
                self._open_again()
                raise
        return _answer(reply, self.address)

    def _open_again(self) -> None:
        self._connection.close()
        self._open()

    def _receive(self, deadline: float) -> bytes:
        socket = self._connection.socket
        while ready := dict(self._poller.poll(milliseconds(deadline - time.monotonic()))):
            if socket in ready:
                return socket.recv()
            self._connection.check()
        raise self._connection.no_answer(self.timeout)

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

    def __init__(
        self,
        address: str = QUERY_ADDRESS,
        timeout: float = 5.0,
        *,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._curve = curve
        self._lock = asyncio.Lock()
        self._context = zmq.asyncio.Context()
        self._open()

    async def get(self, key: str, **filters: Unpack[Filters]) -> View:
        """As ``QueryClient.get``."""
        view: View | None = None
        async for reply in self._pages({"op": "get", "key": key, **_checked(filters)}):
            view = reply["uve"] if view is None else view | reply["uve"]
        assert view is not None
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
        tables: dict[str, int] = {}
        async for reply in self._pages({"op": "list"}):
            tables.update(reply["tables"])
        return tables

    async def keys(self, table: str = "", match: str = "", page: int = 1000) -> AsyncIterator[str]:
        """As ``QueryClient.keys``."""
        async for reply in self._pages(_request("list", table, match, page, {})):
            for key in reply["keys"]:
                yield key

    async def sources(self) -> dict[str, dict[str, Any]]:
        """As ``QueryClient.sources``."""
        sources: dict[str, dict[str, Any]] = {}
        async for reply in self._pages({"op": "sources"}):
            sources.update(reply["sources"])
        return sources

    async def menu(self) -> dict[str, Any]:
        """As ``QueryClient.menu``."""
        return await self._ask({"op": "menu"})

    async def status(self) -> dict[str, Any]:
        """As ``QueryClient.status``."""
        return await self._ask({"op": "status"})

    async def alarms(
        self,
        tables: Sequence[str] = (),
        match: Sequence[str] = (),
        severity: Sequence[int] = (),
        acknowledged: bool | None = None,
        page: int = 1000,
    ) -> AsyncIterator[tuple[str, list[Alarm]]]:
        """As ``QueryClient.alarms``."""
        request = _alarms_request(tables, match, severity, acknowledged, page)
        async for reply in self._pages(request):
            for key, alarms in reply["alarms"].items():
                yield key, alarms

    async def acknowledge(self, key: str, type: str, token: str) -> Alarm:  # noqa: A002
        """As ``QueryClient.acknowledge``."""
        reply = await self._ask(_ack_request(key, type, token))
        alarm: Alarm = reply["alarm"]
        return alarm

    async def close(self) -> None:
        """Give the socket back."""
        async with self._lock:
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

    def _open(self) -> None:
        """Connect, in place of a connection before."""
        try:
            socket = self._context.socket(zmq.REQ)
            self._connection = Connection(socket, self.address, self._curve)
        except ValueError:
            self._context.term()
            raise
        self._poller = zmq.asyncio.Poller()
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        body = wire.encode(request)
        async with self._lock:
            if self._connection.refused:  # since the last answer
                self._open_again()
            try:
                await self._connection.socket.send(body, zmq.DONTWAIT)
                reply = await self._receive(time.monotonic() + self.timeout)
            except BaseException:
                # A REQ that has not heard its answer cannot be asked again.
                self._open_again()
                raise
        return _answer(reply, self.address)

    def _open_again(self) -> None:
        self._connection.close()
        self._open()

    async def _receive(self, deadline: float) -> bytes:
        socket = self._connection.socket
        while ready := dict(await self._poller.poll(milliseconds(deadline - time.monotonic()))):
            if socket in ready:
                return await socket.recv()
            self._connection.check()
        raise self._connection.no_answer(self.timeout)

    async def _pages(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        while True:
            reply = await self._ask(request)
            yield reply
            if reply.get("next") is None:
                return
            request["after"] = reply["next"]


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


def _alarms_request(
    tables: Sequence[str],
    match: Sequence[str],
    severity: Sequence[int],
    acknowledged: bool | None,
    page: int,
) -> dict[str, Any]:
    filters = {
        "tablefilt": _texts(tables),
        "kfilt": _texts(match),
        "severity": list(severity),
    }
    return {
        "op": "alarms",
        **{name: wanted for name, wanted in filters.items() if wanted},
        **({} if acknowledged is None else {"ackfilt": acknowledged}),
        "limit": page,
    }


def _texts(texts: Sequence[str]) -> list[str]:
    """One text is a list of that text, and not of its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


def _ack_request(key: str, kind: str, token: str) -> dict[str, Any]:
    return {"op": "ack", "key": key, "type": kind, "token": token}


def _answer(reply: bytes, address: str) -> dict[str, Any]:
    answer = decoded(reply, address)
    match answer:
        case {"ok": True}:
            return {name: value for name, value in answer.items() if name != "ok"}
        case {"ok": False, "error": {"code": str(code), "message": str(message)}}:
            raise ERRORS.get(code, QueryError)(code, message)
        case _:
            raise stranger(address, answer)
