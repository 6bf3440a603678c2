"""The daemon: builds the parts, owns the threads, the clock and the signals.

``run`` reads as a story: load what was saved, bind everything, start, serve until told to stop,
stop in order, save. The ingest socket has a thread, and so has saving; queries, stream and clock
share the main thread's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio

from collectord import __version__, logs, proxies, state
from collectord.access import RIGHTS, Access
from collectord.alarms.room import AlarmRoom, read_rules
from collectord.clock import Clock
from collectord.descriptors import allow_descriptors
from collectord.engine import Engine
from collectord.ingest import Ingest
from collectord.query import Queries
from collectord.reader import Reader
from collectord.service import Load, Notifier, Pulse, feed_watchdog
from collectord.settings import ConfigurationError, Settings
from collectord.snapshot import SnapshotError
from collectord.state import State
from collectord.stream import Stream

if TYPE_CHECKING:
    from collectord.alarms.rules import Rule

log = logging.getLogger(__name__)

CHECKS: dict[str, Callable[[str], object]] = {
    "DEFAULT.uve_proxy_list": proxies.parse_proxy_list,
    "ALARM.rules_file": read_rules,
}
"""Options that only other rooms can judge, for ``settings.load``."""

OK = 0
FAILED = 1
NO_STATE = 3
"""The exit code where what was saved can't be used."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TICK = 0.25
"""Seconds between two looks at the clock: a period closes at most that late."""
LET_GO = 1.0
"""Seconds between two looks at which sources are gone."""
NAMED = 5
"""Sources that a line of the log names."""
STANDS_STILL = 5.0
"""Seconds after which a part that does not move is called a problem."""
STOOD_STILL = 3_000_000
"""Microseconds between two turns of the clock, by which the whole process was held up."""
LONG = 600.0
"""Seconds that a supervisor is asked for, to load or to save a large state."""
RELOADED = (
    "DEFAULT.uve_proxy_list",
    "DEFAULT.uve_proxy_lateness",
    "DEFAULT.log_level",
    "COLLECTOR.source_timeout",
    "SNAPSHOT.interval",
    "SNAPSHOT.grace",
    "SECURITY.client_keys",
    "ALARM.rules_file",
)
"""What SIGHUP takes on; anything else wants a restart."""
SWITCH_INTERVAL = 0.001
"""Seconds after which a thread that has the GIL gives it up to one that wants it."""


def run(settings: Settings) -> int:
    """Run a collector until SIGTERM or SIGINT; returns the exit code."""
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    limit = allow_descriptors()
    log.info("up to %d file descriptors, so about as many connections", limit)
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        collector = Collector(settings, context, Notifier(os.environ))
    except StartError as error:
        print(f"collectord: {error}", file=sys.stderr)
        context.destroy(linger=0)
        return error.code
    except BaseException:
        context.destroy(linger=0)
        raise
    try:
        return await collector.serve()
    finally:
        context.term()


class StartError(Exception):
    """Why a collector can't start, and its exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Collector:
    """One engine and what feeds, asks and saves it.

    When it is made, what was saved is loaded and all sockets are bound. Raises StartError,
    ConfigurationError.
    """

    def __init__(
        self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]], notifier: Notifier
    ) -> None:
        self.settings = settings
        self.clock = Clock()
        self.start_time = self.clock.wall()
        self.metrics = proxies.parse_proxy_list(settings.text("DEFAULT.uve_proxy_list"))
        self.counters: Counter[str] = Counter(sources_gone=0)
        self._notifier = notifier
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._ticks = 0
        self._turned_at = self.clock.steady()
        self._close_from = self._let_go_from = 0
        with contextlib.ExitStack() as undo:
            # What may be wrong is looked at first, as a load takes its time.
            _check_ports(settings)
            rules = _rules(settings)
            self.access = Access(settings, context)
            undo.callback(self.access.close)
            self._load(undo)
            self._bind(context, undo)
            self.alarms.prepare(settings, rules)
            self.alarms.take_on(settings, rules)
            self.state.forget_unclaimed()
            undo.pop_all()
        self._pulse = Pulse({"ingest": lambda: self.ingest.turns, "clock": lambda: self._ticks})

    def _load(self, undo: contextlib.ExitStack) -> None:
        self._notifier.status("loading")
        self._notifier.more_time(LONG)
        try:
            path = state.directory(self.settings, os.environ)
            self.state = State(path, self.clock, self.settings)
            undo.callback(self.state.close)
            self.engine = self.state.load(self._make_engine)
        except SnapshotError as error:
            raise StartError(str(error), NO_STATE) from error
        # What was saved has the metrics of then.
        self.engine.configure(proxies.specifications(self.metrics), _lateness(self.settings))

    def _make_engine(self) -> Engine:
        number = self.settings.integer
        return Engine(
            partitions=number("DEFAULT.partitions"),
            metrics=proxies.specifications(self.metrics),
            lateness=_lateness(self.settings),
            limits={
                "keys": number("LIMITS.keys"),
                "records": number("LIMITS.records"),
                "sources": number("LIMITS.sources"),
                "bytes": number("LIMITS.bytes"),
                "source_records": number("LIMITS.source_records"),
                "source_bytes": number("LIMITS.source_bytes"),
                "batch_bytes": number("COLLECTOR.message_size"),
            },
            seed=int.from_bytes(os.urandom(8), "big"),
        )

    def _bind(self, context: zmq.Context[zmq.Socket[bytes]], undo: contextlib.ExitStack) -> None:
        shadow = zmq.asyncio.Context(context)
        self.reader = Reader(self.engine, lambda key: self.alarms.structs(key))
        undo.callback(self.reader.close)
        with _explained("COLLECTOR", self.settings):
            self.ingest = Ingest(
                self.engine,
                context,
                self.settings.endpoint("COLLECTOR"),
                message_size=self.settings.integer("COLLECTOR.message_size"),
                clock=self.clock,
                on_failure=self._fail,
                access=self.access,
            )
        undo.callback(self.ingest.close)
        load = Load(self.ingest.waited)
        self.alarms = AlarmRoom(
            self.engine,
            self.state,
            self.clock,
            publish=lambda topic, message: self.stream.tell(topic, message),
            is_busy=load.is_busy,
        )
        reply_size = self.settings.integer("QUERY.reply_size")
        with _explained("QUERY", self.settings):
            self.queries = Queries(
                self.engine,
                shadow,
                self.settings.endpoint("QUERY"),
                reader=self.reader,
                status=self.status,
                configured=lambda: self.metrics,
                operations=self.alarms.operations(reply_size),
                reply_size=reply_size,
                access=self.access,
            )
        undo.callback(self.queries.abandon)
        with _explained("STREAM", self.settings):
            self.stream = Stream(
                self.engine,
                shadow,
                self.settings.endpoint("STREAM"),
                reader=self.reader,
                access=self.access,
            )
        undo.callback(self.stream.close)

    async def serve(self) -> int:
        """Serve until a signal, or a part that fails, says stop; returns the exit code."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # main held them back until here
        self.ingest.start()
        parts = [
            self.queries.serve(),
            self.stream.serve(),
            self.state.serve(),
            self._keep_time(),
            self._let_go(),
        ]
        self._turned_at = self.clock.steady()
        if seconds := self._notifier.watchdog:
            parts.append(feed_watchdog(self._notifier, self._pulse, seconds))
        tasks = [asyncio.create_task(part) for part in parts]
        alarms = asyncio.create_task(self.alarms.serve())
        log.log(
            logs.NOTICE,
            "collectord %s serves: ingest %s, query %s, stream %s",
            __version__,
            self.ingest.endpoint,
            self.queries.endpoint,
            self.stream.endpoint,
        )
        self._notifier.ready()
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopped, alarms, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (alarms, *tasks):
            if task.done():
                self._failure = self._failure or task.exception()
        is_saved = await self._stop([stopped, *tasks], alarms)
        if self._failure is not None:
            log.critical("a part of the collector failed", exc_info=self._failure)
            return FAILED
        log.log(logs.NOTICE, "stopped")
        return OK if is_saved else FAILED

    async def _stop(self, tasks: list[asyncio.Task[Any]], alarms: asyncio.Task[None]) -> bool:
        """First no more comes in and what came is applied; then no alarm is raised any more, and
        all is saved; then what was asked is answered. Returns whether it was saved."""
        log.log(logs.NOTICE, "stopping")
        self._pulse.clear()
        self._notifier.stopping()
        self._notifier.more_time(LONG)
        try:
            await asyncio.to_thread(self.ingest.stop)
            for partition in range(self.engine.partitions):
                self.engine.advance(partition, self.clock.closing(), self.clock.steady())
            alarms.cancel()
            await asyncio.gather(alarms, return_exceptions=True)
            is_saved = self._failure is not None or await self.state.finish()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(self.queries.close(), self.alarms.finish())
            return is_saved
        finally:  # a socket left open would keep the process for ever
            self.ingest.close()
            self.queries.abandon()
            self.reader.close()
            self.stream.close()
            self.access.close()
            self.state.close()

    def _fail(self, error: BaseException) -> None:
        """A thread ended that should not have; called on that thread."""
        self._failure = error
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _keep_time(self) -> None:
        """Close what the clock closes, and see who is back and what stands still."""
        while True:
            now, last = self.clock.steady(), self._turned_at
            if now - last > STOOD_STILL:
                self._stood_still(last, now)
            self._turned_at = now
            self.state.settle()
            if now >= self._close_from:
                for partition in range(self.engine.partitions):
                    self.engine.advance(partition, self.clock.closing(), self.clock.steady())
                    await asyncio.sleep(0)
            self._ticks += 1
            self._notifier.status("; ".join(self._problems()) or "serves")
            await asyncio.sleep(TICK)

    def _stood_still(self, last: int, now: int) -> None:
        """The process was stopped, or its machine was: what came meanwhile is still to be read.

        So for a while nothing is taken for silence.
        """
        log.warning("the collector stood still for %.1f s", (now - last) / 1_000_000)
        self._close_from = now + max(_lateness(self.settings), STOOD_STILL)
        self._let_go_from = now + round(
            self.settings.seconds("COLLECTOR.source_timeout") * 1_000_000
        )

    async def _let_go(self) -> None:
        """Remove what sources told that are not heard of any more."""
        while True:
            await asyncio.sleep(LET_GO)
            now = self.clock.steady()
            if now < self._let_go_from or now - self._turned_at > STOOD_STILL:
                continue
            timeout = self.settings.seconds("COLLECTOR.source_timeout")
            names = await asyncio.to_thread(
                self.engine.expire, self.clock.steady(), round(timeout * 1_000_000)
            )
            if names:
                self.counters["sources_gone"] += len(names)
                log.log(
                    logs.NOTICE,
                    "gone, as nothing came for %g s: %s%s",
                    timeout,
                    ", ".join(names[:NAMED]),
                    f" and {len(names) - NAMED} more" if len(names) > NAMED else "",
                )

    def _reload(self) -> None:
        """Read the configuration again and take on what can be; SIGHUP asked for it."""
        log.debug("SIGHUP: reading the configuration again")
        self._notifier.reloading()
        try:
            settings = self.settings.reload()
            rules = _rules(settings)
            self.alarms.prepare(settings, rules)
            if RIGHTS["stream"] in self.access.reload(settings):
                self.stream.disconnect_all()  # who may still watch comes back
        except ConfigurationError as error:
            for sentence in error.errors:
                log.error("the configuration stays as it was: %s", sentence)
        else:
            self._take_on(settings, rules)
        self._notifier.ready()

    def _take_on(self, settings: Settings, rules: Sequence[Rule]) -> None:
        changed = self.settings.changed(settings)
        metrics = proxies.parse_proxy_list(settings.text("DEFAULT.uve_proxy_list"))
        is_other = metrics != self.metrics or _lateness(settings) != _lateness(self.settings)
        if is_other:
            self.engine.configure(proxies.specifications(metrics), _lateness(settings))
        about_rules = self.alarms.take_on(settings, rules, is_other)
        self.state.configure(settings)
        logs.set_level(settings.text("DEFAULT.log_level"))
        self.settings, self.metrics = settings, metrics
        news = ", ".join((*changed, *about_rules)) or "nothing changed"
        log.log(logs.NOTICE, "reloaded: %s", news)
        for name in changed:
            if name not in RELOADED:
                log.warning("%s has changed; it takes a restart to follow it", name)

    def _problems(self) -> list[str]:
        """A sentence for each thing that someone should know of; the same as long as it is."""
        now = self.clock.steady()
        return [
            *self.state.problems(),
            *self.alarms.problems(),
            *(
                f"{name} has not moved since {logs.iso(now - round(seconds * 1_000_000))}"
                for name, seconds in self._pulse.still().items()
                if seconds > STANDS_STILL
            ),
        ]

    def status(self) -> dict[str, Any]:
        """The answer to ``status``: what runs, what was counted, what is held, what is wrong."""
        counters: dict[str, int] = {
            **self.engine.counters(),
            **self.ingest.counters,
            **self.queries.counters,
            **self.stream.counters,
            **self.access.counters,
            **self.state.counters,
            **self.alarms.counters(),
            **self.counters,
            **logs.counters,
            "clock_steps": self.clock.steps,
        }
        time_now = self.clock.wall()
        problems = self._problems()
        return {
            "version": __version__,
            "hostname": self.settings.text("DEFAULT.hostname"),
            "start_time": self.start_time,
            "time": time_now,
            "uptime": (self.clock.steady() - self.start_time) // 1_000_000,
            "health": {"ok": not problems, "problems": problems},
            "counters": counters,
            "sizes": self.engine.sizes(),
            "snapshot": self.state.status(),
            "alarms": self.alarms.status(),
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
    """Bytes of memory the process has, where the system tells; else 0."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


def _lateness(settings: Settings) -> int:
    return round(settings.seconds("DEFAULT.uve_proxy_lateness") * 1_000_000)


def _rules(settings: Settings) -> Sequence[Rule]:
    """The rules of alarms. Raises ConfigurationError: the file may have changed since a check."""
    try:
        return read_rules(settings.text("ALARM.rules_file"))
    except ValueError as error:
        raise settings.error("ALARM.rules_file", str(error)) from error


def _check_ports(settings: Settings) -> None:
    """Raises StartError where one can't be listened on now."""
    for section in ("COLLECTOR", "QUERY", "STREAM"):
        host = settings.text(f"{section}.server") or settings.text("DEFAULT.hostip")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with _explained(section, settings), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, settings.integer(f"{section}.port")))


@contextlib.contextmanager
def _explained(section: str, settings: Settings) -> Iterator[None]:
    try:
        yield
    except (OSError, zmq.ZMQError) as error:
        raise StartError(
            f"cannot listen on {settings.endpoint(section)}: {error.strerror}; "
            f"choose another {section}.server or {section}.port",
            FAILED,
        ) from error
