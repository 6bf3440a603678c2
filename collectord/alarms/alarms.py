"""Alarms of one collector: which UVEs are evaluated and when, and who hears of what comes of it.

The engine notes what changes of that which rules look at. A few times a second this is taken, and
the rules concerned are evaluated on each of these UVEs, once, however often it changed. Where more
changes than can be evaluated, UVEs wait in the order in which they changed first; how long is told
in ``status``.

What holds is found in ``evaluation.py``, what becomes of it in ``registry.py``; what is asked from
outside is answered in ``asking.py``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from collectord import logs, views, wire
from collectord.alarms import observed, paths, registry
from collectord.alarms.evaluation import CompiledRule, OrList, compile_rule
from collectord.alarms.machine import Moment, State
from collectord.alarms.notification import Notification, Notifier
from collectord.alarms.registry import Entry, Registry
from collectord.alarms.rules import Rule
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.reader import Reader
from collectord.views import Filters

log = logging.getLogger(__name__)

INTERVAL = 0.1
"""Seconds between two looks at what has changed."""
SLICE = 0.002
"""Seconds of evaluation after which others on the loop have their turn."""
SHARE = 0.5
"""The part of the time that evaluation takes at most, while there is more to evaluate."""
BUSY_SHARE = 0.02
"""And while there is hardly time for updates: those come before alarms then."""
STARVED = 0.7
"""Where less of the time that evaluation takes is the processor's, others want it as well."""
SWEEP_AGAIN = 5.0
"""Seconds between two sweeps because there was no room for all alarms before."""
PREFIXES = 256
"""With more tables than these all that is observed is taken, and sorted out afterwards."""
SLOW = 0.01
"""Seconds; a UVE whose evaluation took longer is evaluated on a thread from then on."""
SLOW_KEYS = 10_000
LONGEST_REST = 1.0
"""Seconds that others have after an evaluation that took long."""
SWEPT_AT_ONCE = 5_000
"""Keys that a sweep over all UVEs asks for at once."""
GROUPS = 10_000
"""Combinations of table and changed structs whose rules are remembered."""
LATE = 5.0
"""Seconds that a UVE may wait before it is called a problem."""
FINISH = 3.0
"""Seconds at the end for what notifiers have not told yet."""

Publish = Callable[[str, Mapping[str, object]], None]
"""Sends a message under a topic of the stream."""


class _Group(NamedTuple):
    """The rules that look at some structs of a table, and how a view for them is asked for."""

    entries: tuple[Entry, ...]
    has_patterns: bool
    """Some rule is for some keys of the table alone."""
    filters: Filters


class Alarms:
    """Evaluates rules on the UVEs of one engine, from ``serve`` on.

    ``publish`` is the stream's, ``is_busy`` says whether updates come as fast as they can be taken.
    """

    def __init__(
        self,
        engine: Engine,
        rules: Sequence[Rule],
        *,
        clock: Clock,
        limit: int,
        notifiers: Sequence[Notifier] = (),
        publish: Publish = lambda topic, message: None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.registry = Registry(limit, self._tell)
        self._engine = engine
        self._reader = Reader(engine)
        self._clock = clock
        self._notifiers = list(notifiers)
        self._publish = publish
        self._is_busy = is_busy
        self._counters: Counter[str] = Counter(alarm_evaluations=0, alarm_sweeps=0)
        self._entries: list[Entry] = []
        self._groups: dict[tuple[str, object], _Group] = {}
        self._rules: Sequence[Rule] = ()
        self._generation = 0
        """Of the rules: they may change while a UVE is read."""
        self._slow: dict[str, None] = {}
        self._tables: list[str] = []
        self._prefixes: list[str] = []
        self._pending: dict[str, tuple[int, set[str] | None]] = {}
        """Since when a key waits, and which of its structs changed; None: any may have."""
        self._partition = 0
        """The one from which changes are taken next."""
        self._taken = [clock.steady()] * engine.partitions
        """When changes of each were taken last."""
        self._swept = 0
        """When the last sweep was begun."""
        self._is_stale = False
        """Another sweep is to be begun."""
        self._sweep: Iterator[Sequence[str]] | None = None
        self._is_starved = False
        self._returning: set[str] = set()
        """UVEs with alarms of before that are not evaluated yet: no timer runs out until then."""
        self._names: observed.Names = {}
        self._aggtypes: Mapping[str, str] = {}
        self._dropped = 0
        self.take_on(rules)

    # ---- rules and state -----------------------------------------------------------------------

    def take_on(self, rules: Iterable[Rule], is_configured: bool = True) -> None:
        """Go by these rules from now on; all UVEs are evaluated anew, unless they are the same as
        before and the engine was not configured meanwhile."""
        rules = tuple(rules)
        if rules == self._rules and not is_configured:
            return
        self._rules = rules
        self._generation += 1
        self._entries = [Entry(compile_rule(rule)) for rule in rules if rule.enabled]
        self._names = observed.names(entry.compiled for entry in self._entries)
        self.registry.take_on(self._entries, self._moment())
        self._groups.clear()
        self._tables = sorted({table for entry in self._entries for table in entry.compiled.tables})
        self._prefixes = [f"{table}:" for table in self._tables]
        if len(self._prefixes) > PREFIXES:
            self._prefixes = [""]
        self.look_at_all()
        self._publish_changed()

    def look_at_all(self) -> None:
        """Evaluate every UVE anew, beside those that change; after ``Engine.configure``, too."""
        self._engine.observe(self._names)
        self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._is_stale = False
        self._sweep = self._all_keys()
        self._swept = self._clock.steady()
        self._counters["alarm_sweeps"] += 1
        self.registry.was_full = False

    def restore(self, body: bytes | memoryview) -> None:
        """Bring back what a snapshot holds of alarms, before ``serve``. Raises ValueError."""
        self.registry.restore(body, self._wall_minus_steady(), self._moment())
        self._returning = set(self.registry.held_keys())
        self._pending = dict.fromkeys(self._returning, (self._clock.steady(), None))

    def capture(self) -> registry.Captured:
        """What a snapshot is to hold."""
        return self.registry.capture(self._wall_minus_steady())

    def structs(self, key: str) -> Mapping[str, Mapping[str, Any]]:
        """``UVEAlarms`` of a UVE, if anything is raised there."""
        alarms = self.registry.alarms(key)
        return {wire.ALARMS: registry.struct(alarms)} if alarms else {}

    def acknowledge(self, key: str, name: str, token: str) -> registry.Alarm:
        """Note that somebody has seen an alarm. Raises UnknownAlarmError, StaleTokenError."""
        alarm = self.registry.acknowledge(key, name, token, self._moment())
        self._publish_changed()
        return alarm

    # ---- serving -------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Evaluate what changes, until cancelled."""
        telling = [asyncio.create_task(notifier.serve()) for notifier in self._notifiers]
        evaluating = asyncio.create_task(self._evaluate_for_ever())
        try:
            done, _ = await asyncio.wait(
                [evaluating, *telling], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in (evaluating, *telling):
                task.cancel()
            await asyncio.gather(evaluating, *telling, return_exceptions=True)

    async def finish(self) -> None:
        """Let notifiers tell what they have not told yet, after ``serve`` was cancelled."""
        await asyncio.gather(*(notifier.finish(FINISH) for notifier in self._notifiers))
        self._reader.close()

    async def _evaluate_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            self._is_stale = self._has_lost_changes() or self._is_stale
            if self._is_stale and self._sweep is None:  # one that is under way goes on first
                self._begin_sweep()
            took = await self._evaluate_what_waits()
            # What can't be divided may have taken more than its share: others have theirs now.
            rest = min(took * (INTERVAL / self._allowed() - 1), LONGEST_REST)
            await asyncio.sleep(max(begun + INTERVAL - loop.time(), rest))

    def _has_lost_changes(self) -> bool:
        """Whether views may have changed, or room was made, without a word about any UVE."""
        aggtypes, before = self._engine.aggtypes(), self._aggtypes
        dropped = self._engine.counters()["observed_dropped"]
        has_room = (
            self.registry.was_full
            and not self.registry.is_full
            and self._clock.steady() - self._swept > SWEEP_AGAIN * 1_000_000
        )
        if aggtypes is before and dropped == self._dropped and not has_room:
            return False
        self._aggtypes, self._dropped, lost = aggtypes, dropped, dropped != self._dropped
        return lost or has_room or observed.is_touched(self._names, before, aggtypes)

    async def _evaluate_what_waits(self) -> float:
        """Evaluate what has changed, for as long as one look may take; returns how long it did."""
        took = worked = 0.0
        begun, processor_begun = time.monotonic(), time.thread_time()
        untaken = iter(self._next_partitions())
        while took < self._allowed() and (self._pending or await self._take_more(untaken)):
            await self._evaluate_next()
            now = time.monotonic()
            if now - begun > SLICE:
                self._publish_changed()
                took += now - begun
                worked += time.thread_time() - processor_begun
                self._is_starved = worked < STARVED * took
                await asyncio.sleep(0)
                begun, processor_begun = time.monotonic(), time.thread_time()
        if not self._returning:
            self._see_to_timers()
        self._publish_changed()
        return took + time.monotonic() - begun

    def _allowed(self) -> float:
        """Seconds that a look may take, as far as can be said now."""
        return INTERVAL * (BUSY_SHARE if self._is_starved or self._is_busy() else SHARE)

    def _next_partitions(self) -> Sequence[int]:
        """All partitions, from the one on that has waited longest."""
        partitions = range(self._engine.partitions if self._prefixes else 0)
        return [*partitions[self._partition :], *partitions[: self._partition]]

    async def _take_more(self, untaken: Iterator[int]) -> bool:
        """Let what changed in the next partition wait for its turn, or the next of all UVEs.

        As long as it is not taken the engine keeps it, once for each struct however often it
        changes. Returns whether there is anything.
        """
        now = self._clock.steady()
        for partition in untaken:
            self._partition = (partition + 1) % self._engine.partitions
            self._taken[partition] = now
            for key, struct in self._engine.take_observed(partition, self._prefixes):
                _, structs = self._pending.setdefault(key, (now, set()))
                if structs is not None:
                    structs.add(struct)
            if self._pending:
                return True
        return await self._sweep_on()

    def _see_to_timers(self) -> None:
        """Let UVEs wait whose timers have run out: an alarm shows what holds when it is raised."""
        now = self._clock.steady()
        for key in self.registry.due(self._moment()):
            since, _ = self._pending.get(key, (now, None))
            self._pending[key] = (since, None)

    async def _evaluate_next(self) -> None:
        key = next(iter(self._pending))
        _, structs = self._pending.pop(key)
        await self._evaluate(key, structs)
        self._returning.discard(key)

    async def _evaluate(self, key: str, structs: set[str] | None) -> None:
        group = self._group(key.partition(":")[0], structs)
        entries: Sequence[Entry] = group.entries
        if group.has_patterns:
            entries = [entry for entry in entries if entry.compiled.wants(key)]
        if not entries:
            return
        generation, begun = self._generation, time.monotonic()
        if key in self._slow or self._reader.is_large(key):
            found = await self._reader.walk(self._found, key, entries, group.filters)
        else:
            found = self._found(key, entries, group.filters)
        if generation != self._generation:
            return  # a sweep looks again, by the rules there are now
        if time.monotonic() - begun > SLOW:
            if len(self._slow) >= SLOW_KEYS:
                self._slow.clear()
            self._slow[key] = None
        self._counters["alarm_evaluations"] += len(entries)
        self.registry.evaluate(key, zip(entries, found, strict=True), self._moment())

    def _found(
        self, key: str, entries: Sequence[Entry], filters: Filters
    ) -> Sequence[OrList | None]:
        """What each rule finds on a UVE: nothing where it is gone. For any thread."""
        view = self._reader.view(key, filters)
        if view is None:
            return [None] * len(entries)
        return [entry.holds(view) for entry in entries]

    def _group(self, table: str, structs: set[str] | None) -> _Group:
        which: object = None if structs is None else frozenset(structs)
        group = self._groups.get((table, which))
        if group is None:
            if len(self._groups) >= GROUPS:
                self._groups.clear()
            group = self._groups[table, which] = self._make_group(table, structs)
        return group

    def _make_group(self, table: str, structs: set[str] | None) -> _Group:
        entries = tuple(
            entry
            for entry in self._entries
            if table in entry.compiled.tables and _looks_at(entry.compiled, structs)
        )
        looked_at: set[str] = set()
        for entry in entries:
            if entry.compiled.structs is None:
                return _Group(entries, _has_patterns(entries), views.NO_FILTERS)
            looked_at |= entry.compiled.structs
        filters = Filters(cfilt={struct: frozenset() for struct in looked_at})
        return _Group(entries, _has_patterns(entries), filters)

    async def _sweep_on(self) -> bool:
        """Let the next of all UVEs wait, too; False where there are no more."""
        while self._sweep is not None and not self._pending:
            sweep = self._sweep
            keys = await self._reader.walk(next, sweep, None)
            if self._sweep is not sweep:
                continue  # another one was begun meanwhile
            if keys is None:
                self._sweep = None
                break
            now = self._clock.steady()
            self._pending.update((key, (now, None)) for key in keys if key not in self._pending)
        return bool(self._pending)

    def _all_keys(self) -> Iterator[Sequence[str]]:
        yield self.registry.held_keys()
        for table in self._tables:
            after = ""
            while keys := self._engine.keys(table=table, after=after, limit=SWEPT_AT_ONCE):
                yield keys
                after = keys[-1]

    # ---- telling -------------------------------------------------------------------------------

    def _tell(self, notification: Notification) -> None:
        for notifier in self._notifiers:
            notifier.notify(notification)

    def _publish_changed(self) -> None:
        for key in self.registry.take_changed():
            message: dict[str, object] = {"key": key, "struct": wire.ALARMS}
            alarms = self.registry.alarms(key)
            if alarms:
                message["value"] = registry.struct(alarms)
            else:
                message["deleted"] = True
            self._publish(wire.ALARM_TOPIC.decode() + key, message)

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted since the start, by evaluation and by each notifier."""
        counters = {**self._counters, **self.registry.counters, **paths.counters}
        for notifier in self._notifiers:
            counters.update(notifier.counters)
        return counters

    def lag(self) -> float:
        """Seconds for which changes may have waited, beyond those between two looks."""
        first = next(iter(self._pending.values()), None)
        since = min(self._taken) if first is None else min(first[0], *self._taken)
        waited = (self._clock.steady() - since) / 1_000_000
        return max(waited - 2 * INTERVAL, 0.0) if self._prefixes else 0.0

    def status(self) -> dict[str, Any]:
        """For the ``status`` query."""
        states = self.registry.states
        return {
            "rules": len(self._entries),
            "active": states[State.ACTIVE] + states[State.SOAK_IDLE],
            "soaking": states[State.SOAK_ACTIVE],
            "acknowledged": self.registry.acknowledged,
            "held": self.registry.held,
            "waiting": len(self._pending) + self._engine.observed_count(),
            "lag": self.lag(),
        }

    def problems(self) -> list[str]:
        """A sentence for each thing that someone should know of."""
        problems = []
        if self.lag() > LATE and self._sweep is None:
            since = logs.iso(self._clock.wall() - round(self.lag() * 1_000_000))
            problems.append(f"alarms are evaluated late: UVEs wait since {since}")
        if self.registry.was_full or (self.registry.is_full and self.counters["alarms_refused"]):
            problems.append("alarms are not raised, as there are as many as LIMITS.alarms allows")
        return problems + [
            problem for notifier in self._notifiers for problem in notifier.problems()
        ]

    def _moment(self) -> Moment:
        return Moment(self._clock.steady(), self._clock.wall(), _token)

    def _wall_minus_steady(self) -> int:
        return self._clock.wall() - self._clock.steady()


def _token() -> str:
    return secrets.token_urlsafe(12)


def _looks_at(rule: CompiledRule, structs: set[str] | None) -> bool:
    """Whether a rule may hold or not for the change of these structs; None: of any."""
    if structs is None or rule.structs is None or rule.holds_without_structs:
        return True
    return not rule.structs.isdisjoint(structs)


def _has_patterns(entries: Iterable[Entry]) -> bool:
    return any(":" in key for entry in entries for key in entry.compiled.rule.uve_keys)
