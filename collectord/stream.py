"""The stream: a PUB socket on which structs that changed go out, the newest value of each.

It is an XPUB inside, so that it knows what is subscribed to: while nobody is, the engine notes no
changes and nothing is merged. What changed is kept by the engine, once for each struct however
often it changed; a subscriber that is too slow loses messages (libzmq drops them) and slows nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import zmq
import zmq.asyncio

from collectord import wire
from collectord.engine import Engine
from collectord.reader import Reader
from collectord.views import Filters

if TYPE_CHECKING:
    from collectord.access import Access

log = logging.getLogger(__name__)

INTERVAL = 0.1
"""Seconds between two messages about one struct, at least."""
PREFIXES = 256
"""With more subscriptions than these, all that changes is looked at, and libzmq sorts it out."""
EVENTS_AT_ONCE = 100
"""Subscriptions that are looked at before others on the loop have their turn."""
GIVE_WAY = 16
LINGER = 1000
MESSAGES_WAITING = 1000
"""Messages that wait for a subscriber that doesn't read; those beyond are lost to it. It can't be
changed under way: libzmq would never send again to whom it has sent more than a lower bound."""
BIND_AGAIN = 0.05
"""Seconds until an endpoint that was just given back is tried again."""


class Stream:
    """Publishes changes of one engine, as its ``reader`` shows them to queries, too.

    Raises zmq.ZMQError where the endpoint can't be bound.
    """

    def __init__(
        self,
        engine: Engine,
        context: zmq.asyncio.Context,
        endpoint: str,
        *,
        reader: Reader,
        access: Access | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter(published=0, subscriptions=0)
        self._engine = engine
        self._reader = reader
        self._prefixes: set[str] = set()
        self._told: dict[str, Mapping[str, object]] = {}
        self._subscribed = asyncio.Event()
        self._context = context
        self._access = access
        self._disconnect = asyncio.Event()
        self._socket = self._new_socket("[" in endpoint)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def tell(self, topic: str, message: Mapping[str, object]) -> None:
        """Publish what another room has to say, soon; of several under one topic the newest."""
        if any(topic.startswith(prefix) for prefix in self._prefixes):
            self._told[topic] = message

    def disconnect_all(self) -> None:
        """Have all subscribers connect again: those whose key lost its right can't.

        What changes in the moment between is not told them.
        """
        self._disconnect.set()

    async def serve(self) -> None:
        """Follow subscriptions and publish, until cancelled."""
        publishing = asyncio.create_task(self._publish())
        try:
            while True:
                await self._serve_connected(publishing)
                await self._open_again()
        finally:
            publishing.cancel()

    async def _serve_connected(self, publishing: asyncio.Task[None]) -> None:
        """Until all are to be disconnected."""
        following = asyncio.create_task(self._follow_subscriptions())
        disconnect = asyncio.create_task(self._disconnect.wait())
        try:
            parts = {publishing, following, disconnect}
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            following.cancel()
            disconnect.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    def _new_socket(self, ipv6: bool) -> zmq.asyncio.Socket:
        socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * wire.KEY_BYTES)
        socket.setsockopt(zmq.IPV6, ipv6)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)  # who lost power does not say so
        socket.setsockopt(zmq.SNDHWM, MESSAGES_WAITING)
        if self._access is not None:
            self._access.serve_socket(socket, "stream")
        return socket

    async def _open_again(self) -> None:
        self._disconnect.clear()
        self._prefixes.clear()
        self._watch()
        # What publishes meanwhile finds a socket, if one without subscribers.
        before, self._socket = self._socket, self._new_socket("[" in self.endpoint)
        before.close(0)
        while True:
            try:
                self._socket.bind(self.endpoint)
                break
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                await asyncio.sleep(BIND_AGAIN)
        log.info("all subscribers have to connect again")

    async def _follow_subscriptions(self) -> None:
        for turn in itertools.count(1):
            event = await self._socket.recv()
            if turn % EVENTS_AT_ONCE == 0:  # a socket that has more doesn't give way by itself
                await asyncio.sleep(0)
            prefix = event[1:].decode("utf-8", "surrogateescape")
            if event[:1] == b"\x01":
                self._prefixes.add(prefix)
            elif event[:1] == b"\x00":
                self._prefixes.discard(prefix)
            self._watch()

    def _watch(self) -> None:
        """Have changes noted while somebody wants to know of any."""
        self.counters["subscriptions"] = len(self._prefixes)
        if bool(self._prefixes) != self._subscribed.is_set():
            self._engine.watch(bool(self._prefixes))
            log.debug("changes are %s", "noted" if self._prefixes else "not noted any more")
            (self._subscribed.set if self._prefixes else self._subscribed.clear)()

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        ready = [0.0] * self._engine.partitions
        told_from = 0.0
        while True:
            await self._subscribed.wait()
            if loop.time() >= told_from:
                await self._publish_told()
                told_from = loop.time() + INTERVAL
            for partition in range(self._engine.partitions):
                if loop.time() >= ready[partition]:
                    await self._publish_partition(partition)
                    # From the end of its turn on, so that no struct comes sooner than it may.
                    ready[partition] = loop.time() + INTERVAL
            await asyncio.sleep(max(min(*ready, told_from) - loop.time(), 0))

    async def _publish_told(self) -> None:
        told, self._told = self._told, {}
        for turn, (topic, message) in enumerate(told.items(), 1):
            await self._send(topic, message)
            if turn % GIVE_WAY == 0:
                await asyncio.sleep(0)

    async def _publish_partition(self, partition: int) -> None:
        prefixes = list(self._prefixes) if len(self._prefixes) <= PREFIXES else [""]
        changed: dict[str, dict[str, frozenset[str]]] = {}
        for key, struct in self._engine.take_changed(partition, prefixes):
            changed.setdefault(key, {})[struct] = frozenset()
        for turn, (key, structs) in enumerate(changed.items(), 1):
            await self._publish_key(key, structs)
            if turn % GIVE_WAY == 0:
                await asyncio.sleep(0)

    async def _publish_key(self, key: str, structs: dict[str, frozenset[str]]) -> None:
        view = await self._reader.fair_view(key, Filters(cfilt=structs)) or {}
        for struct in structs:
            message: dict[str, object] = {"key": key, "struct": struct}
            if struct in view:
                message["value"] = view[struct]
            else:
                message["deleted"] = True
            await self._send(key, message)

    async def _send(self, topic: str, message: Mapping[str, object]) -> None:
        body = wire.encode_view(message)
        await self._socket.send_multipart([topic.encode("utf-8", "surrogateescape"), body])
        self.counters["published"] += 1
