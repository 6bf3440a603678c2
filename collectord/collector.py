"""The daemon: builds the parts, owns the threads, the clock and the signals.

``run`` reads as a story: bind everything, start, serve until told to stop, stop in order. The
ingest socket has a thread; queries, stream and clock share the main thread's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq
import zmq.asyncio

from collectord import __version__, logs, proxies
from collectord.engine import Engine
from collectord.ingest import Ingest
from collectord.query import Queries
from collectord.settings import ConfigurationError, Settings
from collectord.stream import Stream

log = logging.getLogger(__name__)

CHECKS: dict[str, Callable[[str], object]] = {"DEFAULT.uve_proxy_list": proxies.parse_proxy_list}
"""Options that only other rooms can judge, for ``settings.load``."""

OK = 0
FAILED = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TICK = 0.25
"""Seconds between two looks at the clock: a period closes at most that late."""
RELOADED = ("DEFAULT.uve_proxy_list", "DEFAULT.uve_proxy_lateness", "DEFAULT.log_level")
"""What SIGHUP takes on; anything else wants a restart."""
SWITCH_INTERVAL = 0.001
"""Seconds after which a thread that has the GIL gives it up to one that wants it."""


def run(settings: Settings) -> int:
    """Run a collector until SIGTERM or SIGINT; returns the exit code."""
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    _allow_connections()
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        collector = Collector(settings, context)
    except StartError as error:
        print(f"collectord: {error}", file=sys.stderr)
        context.destroy(linger=0)
        return FAILED
    try:
        return await collector.serve()
    finally:
        context.term()


def _allow_connections() -> None:
    """Each connection takes a file descriptor: allow as many as the system lets this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:  # some systems have no limit that they would grant
            log.warning("no more than %d file descriptors, so connections: %s", soft, error)
            return
    log.info("up to %d file descriptors, so about as many connections", hard)


class StartError(Exception):
    """Why a collector can't start."""


def now() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class Collector:
    """One engine and what feeds and asks it. All sockets are bound when it is made."""

    def __init__(self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.settings = settings
        self.start_time = now()
        self.metrics = proxies.parse_proxy_list(settings.text("DEFAULT.uve_proxy_list"))
        self.engine = Engine(
            partitions=settings.integer("DEFAULT.partitions"),
            metrics=proxies.specifications(self.metrics),
            lateness=_lateness(settings),
            limits={
                "keys": settings.integer("LIMITS.keys"),
                "records": settings.integer("LIMITS.records"),
                "sources": settings.integer("LIMITS.sources"),
                "bytes": settings.integer("LIMITS.bytes"),
                "batch_bytes": settings.integer("COLLECTOR.message_size"),
            },
            seed=int.from_bytes(os.urandom(8), "big"),
        )
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._bind(context)

    def _bind(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        shadow = zmq.asyncio.Context(context)
        with contextlib.ExitStack() as undo:
            with _explained("COLLECTOR", self.settings):
                self.ingest = Ingest(
                    self.engine,
                    context,
                    self.settings.endpoint("COLLECTOR"),
                    message_size=self.settings.integer("COLLECTOR.message_size"),
                    clock=now,
                    on_failure=self._fail,
                )
            undo.callback(self.ingest.close)
            with _explained("QUERY", self.settings):
                self.queries = Queries(
                    self.engine,
                    shadow,
                    self.settings.endpoint("QUERY"),
                    status=self.status,
                    configured=lambda: self.metrics,
                )
            undo.callback(self.queries.abandon)
            with _explained("STREAM", self.settings):
                self.stream = Stream(
                    self.engine,
                    shadow,
                    self.settings.endpoint("STREAM"),
                    view=self.queries.fair_view,
                )
            undo.pop_all()

    async def serve(self) -> int:
        """Serve until a signal, or a part that fails, says stop; returns the exit code."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # main held them back until here
        self.ingest.start()
        tasks = [
            asyncio.create_task(part)
            for part in (self.queries.serve(), self.stream.serve(), self._keep_time())
        ]
        log.log(
            logs.NOTICE,
            "collectord %s serves: ingest %s, query %s, stream %s",
            __version__,
            self.ingest.endpoint,
            self.queries.endpoint,
            self.stream.endpoint,
        )
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                self._failure = self._failure or task.exception()
        await self._stop([stopped, *tasks])
        if self._failure is not None:
            log.critical("a part of the collector failed", exc_info=self._failure)
            return FAILED
        log.log(logs.NOTICE, "stopped")
        return OK

    async def _stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        """First no more comes in and what came is applied; then what was asked is answered."""
        log.log(logs.NOTICE, "stopping")
        try:
            await asyncio.to_thread(self.ingest.stop)
            for partition in range(self.engine.partitions):
                self.engine.advance(partition, now())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.queries.close()
        finally:  # a socket left open would keep the process for ever
            self.ingest.close()
            self.queries.abandon()
            self.stream.close()

    def _fail(self, error: BaseException) -> None:
        """A thread ended that should not have; called on that thread."""
        self._failure = error
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _keep_time(self) -> None:
        while True:
            for partition in range(self.engine.partitions):
                self.engine.advance(partition, now())
                await asyncio.sleep(0)
            await asyncio.sleep(TICK)

    def _reload(self) -> None:
        """Read the configuration again and take on what can be; SIGHUP asked for it."""
        log.debug("SIGHUP: reading the configuration again")
        try:
            settings = self.settings.reload()
        except ConfigurationError as error:
            for sentence in error.errors:
                log.error("the configuration stays as it was: %s", sentence)
            return
        changed = self.settings.changed(settings)
        metrics = proxies.parse_proxy_list(settings.text("DEFAULT.uve_proxy_list"))
        self.engine.configure(proxies.specifications(metrics), _lateness(settings))
        logs.set_level(settings.text("DEFAULT.log_level"))
        self.settings, self.metrics = settings, metrics
        log.log(logs.NOTICE, "reloaded: %s", ", ".join(changed) or "nothing changed")
        for name in changed:
            if name not in RELOADED:
                log.warning("%s has changed; it takes a restart to follow it", name)

    def status(self) -> dict[str, Any]:
        """The answer to ``status``: what runs, what was counted, what is held."""
        counters: dict[str, int] = {
            **self.engine.counters(),
            **self.ingest.counters,
            **self.queries.counters,
            **self.stream.counters,
            **logs.counters,
        }
        time_now = now()
        return {
            "version": __version__,
            "hostname": self.settings.text("DEFAULT.hostname"),
            "start_time": self.start_time,
            "time": time_now,
            "uptime": (time_now - self.start_time) // 1_000_000,
            "counters": counters,
            "sizes": self.engine.sizes(),
            "memory": {
                "resident": _resident(),
                "resident_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            },
            "threads": threading.active_count(),
            "partitions": self.engine.partitions,
            "listens": {
                "ingest": self.ingest.endpoint,
                "query": self.queries.endpoint,
                "stream": self.stream.endpoint,
            },
        }


def _resident() -> int:
    """Bytes of memory the process has, where the system tells (Linux); else 0."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


def _lateness(settings: Settings) -> int:
    return round(settings.seconds("DEFAULT.uve_proxy_lateness") * 1_000_000)


@contextlib.contextmanager
def _explained(section: str, settings: Settings) -> Iterator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        raise StartError(
            f"cannot listen on {settings.endpoint(section)}: {error.strerror}; "
            f"choose another {section}.server or {section}.port"
        ) from error
