"""The query socket: a request in, a reply out, on the main thread's event loop.

An operation is a row of ``OPERATIONS``. Reading a key is fast and done at once; what walks over all
keys runs outside the loop, and whoever asks for many UVEs gives way to others between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zmq
import zmq.asyncio

from collectord import proxies, views, wire
from collectord.engine import Engine
from collectord.views import Filters
from collectord.wire import WireError

log = logging.getLogger(__name__)

Request = Mapping[str, Any]
Reply = dict[str, Any]

FIND_LIMIT = 100
LIST_LIMIT = 1_000
LARGEST_LIMIT = {"find": 10_000, "list": 100_000}
"""A page is no larger, whatever its request says; ``next`` leads on."""
REPLY_BYTES = 4 << 20
"""A page of ``find`` ends where it has about this size."""
EXAMINED_AT_LEAST = 1_000
"""Keys that a ``find`` looks at before a page may end with fewer UVEs than asked for."""
REQUESTS_AT_ONCE = 64
WALKS_AT_ONCE = 2
RECORDS_AT_ONCE = 200
"""Records of one key that are merged on the event loop."""
GIVE_WAY = 16
"""UVEs that are merged before others on the loop have their turn."""
LINGER = 1000
"""Milliseconds to take what has come when the socket closes, and again for replies to leave."""


class Queries:
    """Answers requests about one engine.

    ``status`` and ``configured`` tell what only the collector knows. Raises zmq.ZMQError where the
    endpoint can't be bound.
    """

    def __init__(
        self,
        engine: Engine,
        context: zmq.asyncio.Context,
        endpoint: str,
        *,
        status: Callable[[], Reply],
        configured: Callable[[], Mapping[str, tuple[proxies.Algorithm, ...]]],
    ) -> None:
        self.counters: Counter[str] = Counter(requests=0, requests_refused=0, replies_dropped=0)
        self._engine = engine
        self._status = status
        self._configured = configured
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, LINGER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * wire.REQUEST_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._room = asyncio.Semaphore(REQUESTS_AT_ONCE)
        # Few, so that those who walk over all keys wait for one another and not the rest for them.
        self._walks = ThreadPoolExecutor(WALKS_AT_ONCE, "walk")
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._take()

    async def close(self) -> None:
        """Answer what has come, as far as a second goes, then close the socket."""
        with contextlib.suppress(asyncio.TimeoutError, zmq.Again):
            await asyncio.wait_for(self._take_all(), LINGER / 1000)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=LINGER / 1000)
            for task in late:
                task.cancel()
            self.counters["replies_dropped"] += len(late)
        self._walks.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    def abandon(self) -> None:
        """Close the socket at once; for a collector that never served, or failed."""
        self._walks.shutdown(wait=False, cancel_futures=True)
        self._socket.close(0)

    async def _take_all(self) -> None:
        while True:
            await self._take(zmq.DONTWAIT)

    async def _take(self, flags: int = 0) -> None:
        """Begin to answer the next request. Raises zmq.Again where none has come, and so asked."""
        await self._room.acquire()
        try:
            frames = await self._socket.recv_multipart(flags)
        except BaseException:
            self._room.release()
            raise
        task = asyncio.create_task(self._answer(frames))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()):
            # A defect of ours: that one request goes without an answer, the others don't.
            log.critical("a request could not be answered", exc_info=error)

    async def _answer(self, frames: list[bytes]) -> None:
        identity, *delimiter, body = frames
        self.counters["requests"] += 1
        is_json = body[:1] == b"{"
        try:
            if delimiter not in ([], [b""]):
                raise WireError("malformed", f"a request is one frame, not {len(frames) - 1}")
            request, is_json = wire.decode_request(body)
            reply = {"ok": True, **await self.reply(request)}
        except WireError as error:
            self.counters["requests_refused"] += 1
            reply = {"ok": False, "error": {"code": error.code, "message": error.message}}
        try:
            await self._socket.send_multipart(
                [
                    identity,
                    *(frame for frame in delimiter[:1] if not frame),
                    wire.encode_reply(reply, is_json),
                ],
                zmq.DONTWAIT,
            )
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self.counters["replies_dropped"] += 1

    async def reply(self, request: Request) -> Reply:
        """What a request asks for, without ``ok``. Raises WireError."""
        name = request.get("op")
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            known = ", ".join(OPERATIONS)
            raise WireError("unknown_op", f"op is {name!r:.80}; it is one of {known}")
        return await operation(self, request)

    def view(self, key: str, filters: Filters) -> views.View | None:
        """The merged view of a key, or None where there is no such key."""
        found = self._engine.read(key)
        if found is None:
            return None
        records, states = found
        structs = {proxies.struct_name(state): proxies.struct_value(state) for state in states}
        return views.merge(records, self._engine.aggtypes(), structs, filters)

    async def fair_view(self, key: str, filters: Filters) -> views.View | None:
        """``view``, on a thread where so many sources tell of the key that others would wait."""
        if self._engine.record_count(key) <= RECORDS_AT_ONCE:
            return self.view(key, filters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._walks, self.view, key, filters)

    async def _get(self, request: Request) -> Reply:
        key = _text(request, "key", required=True)
        filters = Filters.from_request(request)
        view = await self.fair_view(key, filters) if filters.wants_key(key) else None
        if view is None:
            raise WireError("not_found", f"there is no UVE {key!r:.1100}")
        return {"uve": view}

    async def _find(self, request: Request) -> Reply:
        filters = Filters.from_request(request)
        limit = _limit(request, "find", FIND_LIMIT)
        table, match = _text(request, "table"), _text(request, "match")
        if not table and not match and not filters.kfilt:
            raise WireError("bad_request", "find wants table or match, as in match: 'ObjectVN*'")
        after = _text(request, "after")
        narrow = bool(filters.sfilt or filters.mfilt or filters.cfilt)
        # Where filters leave much out, one walk over all keys has to serve for more of them.
        page = max(limit, EXAMINED_AT_LEAST) if narrow else limit
        found: dict[str, views.View] = {}
        examined = size = 0
        while True:
            keys = await self._keys(table, match, filters, after, page + 1)
            for key in keys[:page]:
                after = key
                view = await self.fair_view(key, filters)
                if view or (view is not None and not narrow):
                    found[key] = view
                    size += len(wire.encode_view(view))
                examined += 1
                if len(found) == limit or size > REPLY_BYTES:
                    break
                if examined % GIVE_WAY == 0:
                    await asyncio.sleep(0)
            if not keys or after == keys[-1]:
                return {"uves": found}
            if len(found) == limit or size > REPLY_BYTES or examined >= EXAMINED_AT_LEAST:
                return {"uves": found, "next": after}

    async def _list(self, request: Request) -> Reply:
        table, match = _text(request, "table"), _text(request, "match")
        filters = Filters.from_request(request)
        if not table and not match and not filters.kfilt:
            return {"tables": self._engine.tables()}
        limit = _limit(request, "list", LIST_LIMIT)
        keys = await self._keys(table, match, filters, _text(request, "after"), limit + 1)
        reply: Reply = {"keys": keys[:limit]}
        if len(keys) > limit:
            reply["next"] = keys[limit - 1]
        return reply

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
        return await asyncio.get_running_loop().run_in_executor(self._walks, walk)

    async def _sources(self, request: Request) -> Reply:
        rows = await asyncio.to_thread(self._engine.sources)
        return {"sources": {row.pop("source"): row for row in rows}}

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


def _text(request: Request, name: str, *, required: bool = False) -> str:
    value = request.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise WireError("bad_request", f"{name} is {value!r:.80}; it is a text")
    return value


def _limit(request: Request, operation: str, default: int) -> int:
    """How many rows a page has: what was asked for, as far as a page goes."""
    value = request.get("limit")
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WireError("bad_request", f"limit is {value!r:.80}; it is a number from 1 on")
    return min(value, LARGEST_LIMIT[operation])
