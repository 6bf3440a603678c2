"""The query socket: a request in, a reply out, on the main thread's event loop.

An operation is a row of ``OPERATIONS``. Reading a key is fast and done at once; what walks over all
keys runs outside the loop, and whoever asks for many UVEs gives way to others between them.

A peer has so many requests under way and no more; those that it sends meanwhile wait for their
turn, and a reply counts until it has left, so that those that nobody reads don't pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import zmq
import zmq.asyncio

from collectord import proxies, views, wire
from collectord.engine import Engine
from collectord.reader import Reader
from collectord.requests import (
    LARGEST_LIMIT,
    Operation,
    Reply,
    Request,
    limit_of,
    order,
    page_of,
    paged,
    part_size,
    text,
)
from collectord.views import Filters
from collectord.wire import WireError

if TYPE_CHECKING:
    from collectord.access import Access

log = logging.getLogger(__name__)

FIND_LIMIT = 100
LIST_LIMIT = 1_000
REPLY_BYTES = 4 << 20
"""A page ends before it gets larger than this, unless something else is configured."""
EXAMINED_AT_LEAST = 1_000
"""Keys that a ``find`` looks at before a page may end with fewer UVEs than asked for."""
REQUESTS_AT_ONCE = 64
PEER_AT_ONCE = 4
"""Requests of one peer that are under way: being answered, or the reply has not left yet."""
PEER_WAITING = 1_000
PEER_WAITING_BYTES = 1 << 20
"""Requests of one peer that wait for their turn; those beyond it are answered ``overloaded``."""
REPLIES_WAITING = 100
"""Replies of one peer that libzmq holds; large ones are followed until they have left."""
KEY_SIZE = wire.KEY_BYTES + 3
"""Bytes of a key in a reply, at most."""
LARGE = 64 << 10
"""Bytes from which on a reply is large."""
LOOK_AGAIN = (0.001, 1.0)
"""Seconds until it is looked again whether a peer reads: the first time, and at most."""
GIVE_WAY = 16
"""UVEs that are merged before others on the loop have their turn."""
LINGER = 1000
"""Milliseconds to take what has come when the socket closes, and again for replies to leave."""


@dataclass
class _Peer:
    """The requests of one peer."""

    running: int = 0
    waiting: deque[_Message] = field(default_factory=deque)
    waiting_bytes: int = 0


class _Message(NamedTuple):
    """A request as it came; ``allowed`` is False where its sender may not ask (any more)."""

    envelope: list[bytes]
    """The peer's identity, and a REQ's empty delimiter."""
    body: bytes
    extra: int
    """How many frames there are more than there should be."""
    allowed: bool

    @property
    def identity(self) -> bytes:
        return self.envelope[0]

    @property
    def is_json(self) -> bool:
        return self.body[:1] == b"{"


class Queries:
    """Answers requests about one engine; a page of a reply has at most ``reply_size`` bytes.

    ``status`` and ``configured`` tell what only the collector knows, ``operations`` are what other
    rooms answer. Raises zmq.ZMQError where the endpoint can't be bound.
    """

    def __init__(
        self,
        engine: Engine,
        context: zmq.asyncio.Context,
        endpoint: str,
        *,
        reader: Reader,
        status: Callable[[], Reply],
        configured: Callable[[], Mapping[str, tuple[proxies.Algorithm, ...]]],
        operations: Mapping[str, Operation] | None = None,
        reply_size: int = REPLY_BYTES,
        access: Access | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter(requests=0, requests_refused=0, replies_dropped=0)
        self._engine = engine
        self._reader = reader
        self._operations: dict[str, Operation] = {
            **{name: functools.partial(answer, self) for name, answer in OPERATIONS.items()},
            **(operations or {}),
        }
        self._status = status
        self._configured = configured
        self._reply_size = reply_size
        self._access = access if access is not None and access.secured else None
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, LINGER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * wire.REQUEST_BYTES)
        self._socket.setsockopt(zmq.SNDHWM, REPLIES_WAITING)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)  # who lost power does not say so
        if access is not None:
            access.serve_socket(self._socket, "query")
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._room = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._peers: dict[bytes, _Peer] = {}
        self._tasks: set[asyncio.Task[zmq.MessageTracker | None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer until cancelled."""
        while True:
            for _ in range(GIVE_WAY):
                await self._take()
            await asyncio.sleep(0)  # a socket that has more doesn't give way by itself

    async def close(self) -> None:
        """Answer what has come, as far as a second goes, then close the socket."""
        with contextlib.suppress(asyncio.TimeoutError, zmq.Again):
            await asyncio.wait_for(self._take_all(), LINGER / 1000)
        end = asyncio.get_running_loop().time() + LINGER / 1000
        while self._tasks and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        waiting = sum(len(peer.waiting) for peer in self._peers.values())
        self.counters["replies_dropped"] += len(self._tasks) + waiting
        self.abandon(LINGER)

    def abandon(self, linger: int = 0) -> None:
        """Close the socket at once; for a collector that never served, or failed."""
        self._peers.clear()
        for task in (*self._tasks, *self._leaving):
            task.cancel()
        self._socket.close(linger)

    async def _take_all(self) -> None:
        while True:
            await self._take(zmq.DONTWAIT)
            await asyncio.sleep(0)

    async def _take(self, flags: int = 0) -> None:
        """Begin to answer the next request. Raises zmq.Again where none has come, and so asked."""
        message = await self._receive(flags)
        peer = self._peers.setdefault(message.identity, _Peer())
        if peer.running < PEER_AT_ONCE:
            self._begin(peer, message)
        elif (
            len(peer.waiting) < PEER_WAITING
            and peer.waiting_bytes + len(message.body) <= PEER_WAITING_BYTES
        ):
            peer.waiting.append(message)
            peer.waiting_bytes += len(message.body)
        else:
            self.counters["requests"] += 1
            self.counters["requests_refused"] += 1
            error = WireError("overloaded", "too many requests of this peer wait for an answer")
            try:
                await self._send(message, wire.encode_reply(_refusal(error), message.is_json))
            except zmq.Again:
                self.counters["replies_dropped"] += 1

    async def _receive(self, flags: int) -> _Message:
        allowed = True
        if self._access is None:
            frames = await self._socket.recv_multipart(flags)
        else:
            parts = await self._socket.recv_multipart(flags, copy=False)
            allowed = self._access.allows(parts[-1], "query")
            frames = [part.bytes for part in parts]
        delimiters = 1 if frames[1] == b"" and len(frames) > 2 else 0
        extra = len(frames) - 2 - delimiters
        return _Message(frames[: 1 + delimiters], frames[-1], extra, allowed)

    def _begin(self, peer: _Peer, message: _Message) -> None:
        peer.running += 1
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._answered, message.identity))

    def _answered(self, identity: bytes, task: asyncio.Task[zmq.MessageTracker | None]) -> None:
        self._tasks.discard(task)
        tracker = None
        if not task.cancelled():
            if error := task.exception():
                # A defect of ours: that one request goes without an answer, the others don't.
                log.critical("a request could not be answered", exc_info=error)
            else:
                tracker = task.result()
        if tracker is None or tracker.done:
            self._finish(identity)
            return
        leaving = asyncio.create_task(_left(tracker))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        leaving.add_done_callback(lambda _: self._finish(identity))

    def _finish(self, identity: bytes) -> None:
        """One request of a peer is over: now its next."""
        peer = self._peers.get(identity)
        if peer is None:  # the socket is closed
            return
        peer.running -= 1
        if peer.waiting:
            message = peer.waiting.popleft()
            peer.waiting_bytes -= len(message.body)
            self._begin(peer, message)
        elif not peer.running:
            del self._peers[identity]

    async def _answer(self, message: _Message) -> zmq.MessageTracker | None:
        """Answer a request; what follows the reply is returned where it is large."""
        self.counters["requests"] += 1
        async with self._room:
            is_json = message.is_json
            try:
                if message.extra:
                    frames = message.extra + 1
                    raise WireError("malformed", f"a request is one frame, not {frames}")
                if not message.allowed:
                    raise WireError("unauthorised", "this key gives no right to ask any more")
                request, is_json = wire.decode_request(message.body)
                reply = {"ok": True, **await self.reply(request)}
            except WireError as error:
                self.counters["requests_refused"] += 1
                reply = _refusal(error)
            body = wire.encode_reply(reply, is_json)
            del reply
        pause, longest = LOOK_AGAIN
        while True:
            with contextlib.suppress(zmq.Again):
                return await self._send(message, body)
            await asyncio.sleep(pause)  # the peer has not read its replies
            pause = min(2 * pause, longest)

    async def _send(self, message: _Message, body: bytes) -> zmq.MessageTracker | None:
        """Hand a reply to libzmq. Raises zmq.Again where it holds enough for that peer."""
        frames = [*message.envelope, body]
        try:
            if len(body) < LARGE:
                await self._socket.send_multipart(frames, zmq.DONTWAIT)
                return None
            return await self._socket.send_multipart(frames, zmq.DONTWAIT, copy=False, track=True)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.counters["replies_dropped"] += 1  # the peer is gone
            return None

    async def reply(self, request: Request) -> Reply:
        """What a request asks for, without ``ok``. Raises WireError."""
        name = request.get("op")
        operation = self._operations.get(name) if isinstance(name, str) else None
        if operation is None:
            known = ", ".join(self._operations)
            raise WireError("unknown_op", f"op is {name!r:.80}; it is one of {known}")
        return await operation(request)

    async def _get(self, request: Request) -> Reply:
        key = text(request, "key", required=True)
        filters = Filters.from_request(request)
        after = text(request, "after")
        view = await self._reader.fair_view(key, filters) if filters.wants_key(key) else None
        if view is None:
            raise WireError("not_found", f"there is no UVE {key!r:.1100}")
        if not after and len(wire.encode_view(view)) <= self._reply_size:
            return {"uve": view}
        page, last = page_of(sorted(view.items()), after, len(view), self._reply_size)
        return paged("uve", page, last)

    async def _find(self, request: Request) -> Reply:
        filters = Filters.from_request(request)
        limit = limit_of(request, "find", FIND_LIMIT)
        table, match = text(request, "table"), text(request, "match")
        if not table and not match and not filters.kfilt:
            raise WireError("bad_request", "find wants table or match, as in match: 'ObjectVN*'")
        after = text(request, "after")
        narrow = bool(filters.sfilt or filters.mfilt or filters.cfilt)
        # Where filters leave much out, one walk over all keys has to serve for more of them.
        page = max(limit, EXAMINED_AT_LEAST) if narrow else limit
        found: dict[str, views.View] = {}
        examined = size = 0
        while True:
            keys = await self._keys(table, match, filters, after, page + 1)
            for key in keys[:page]:
                view = await self._reader.fair_view(key, filters)
                if view or (view is not None and not narrow):
                    size += part_size(key, view)
                    if found and size > self._reply_size:
                        return {"uves": found, "next": after}
                    found[key] = view
                after = key
                examined += 1
                if len(found) == limit:
                    break
                if examined % GIVE_WAY == 0:
                    await asyncio.sleep(0)
            if not keys or after == keys[-1]:
                return {"uves": found}
            if len(found) == limit or examined >= EXAMINED_AT_LEAST:
                return {"uves": found, "next": after}

    async def _list(self, request: Request) -> Reply:
        table, match = text(request, "table"), text(request, "match")
        filters = Filters.from_request(request)
        after = text(request, "after")
        if not table and not match and not filters.kfilt:
            limit = limit_of(request, "tables", LARGEST_LIMIT["tables"])
            return await self._reader.walk(self._tables, after, limit)
        limit = limit_of(request, "list", LIST_LIMIT)
        keys = await self._keys(table, match, filters, after, limit + 1)
        if len(keys) <= limit and KEY_SIZE * len(keys) <= self._reply_size:
            return {"keys": keys}
        page, last = page_of(((key, None) for key in keys), "", limit, self._reply_size)
        return paged("keys", list(page), last)

    async def _sources(self, request: Request) -> Reply:
        limit = limit_of(request, "sources", LARGEST_LIMIT["sources"])
        return await self._reader.walk(self._source_rows, text(request, "after"), limit)

    def _tables(self, after: str, limit: int) -> Reply:
        tables = sorted(self._engine.tables().items(), key=lambda row: order(row[0]))
        return paged("tables", *page_of(tables, after, limit, self._reply_size))

    def _source_rows(self, after: str, limit: int) -> Reply:
        rows = ((row.pop("source"), row) for row in self._engine.sources())
        return paged("sources", *page_of(rows, after, limit, self._reply_size))

    async def _keys(
        self, table: str, match: str, filters: Filters, after: str, limit: int
    ) -> list[str]:
        walk = functools.partial(
            self._engine.keys,
            table=table,
            match=match,
            patterns=filters.kfilt,
            after=after,
            limit=limit,
        )
        return await self._reader.walk(walk)

    async def _menu(self, request: Request) -> Reply:
        configured = {
            metric: [algorithm.name for algorithm in algorithms]
            for metric, algorithms in self._configured().items()
        }
        return {"menu": proxies.menu(), "configured": configured}

    async def _read_status(self, request: Request) -> Reply:
        return await asyncio.to_thread(self._status)


OPERATIONS: dict[str, Callable[[Queries, Request], Awaitable[Reply]]] = {
    "get": Queries._get,
    "find": Queries._find,
    "list": Queries._list,
    "sources": Queries._sources,
    "menu": Queries._menu,
    "status": Queries._read_status,
}


def _refusal(error: WireError) -> Reply:
    return {"ok": False, "error": {"code": error.code, "message": error.message}}


async def _left(tracker: zmq.MessageTracker) -> None:
    """Wait until libzmq has sent a message, or given it up with its connection."""
    pause, longest = LOOK_AGAIN
    while not tracker.done:
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
