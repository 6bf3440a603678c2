"""All state machines: one for each rule on each UVE where there is more to know than "idle".

What lives here is which machines there are, when they are due, what is raised, and who is told of
it. The machine itself is in ``machine.py``; which UVEs are evaluated, and when, in ``alarms.py``.
Everything here is for one thread, and quick.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgpack

from collectord import views, wire
from collectord.alarms import machine as machines
from collectord.alarms.evaluation import CompiledRule, OrList
from collectord.alarms.machine import IDLE, Machine, Moment, Raised, State, Timers
from collectord.alarms.notification import Kind, Notification

log = logging.getLogger(__name__)

Alarm = dict[str, Any]
"""``{type, severity, timestamp, token, ack, description, alarm_rules}``, as views show it."""

Kept: TypeAlias = "tuple[int, int, tuple[int, ...], bytes | None, tuple[int, str, bool] | None]"
"""A machine as it is kept: plain tuples, with what was found as msgpack. Python's garbage collector
looks at lists and maps again and again, at a hundred thousand alarms for a second each time; of
these it looks at none."""

BYTES_EACH = 4096
"""What each of the machines that may be held has found, on the average, at most."""
FORMAT = 1
"""Of what a snapshot holds."""
DUE = 5_000
"""UVEs that are due at once, at most; the others are a moment later."""
STALE_DEADLINES = 10_000
"""Deadlines that nothing waits for any more are left in the queue, up to about so many."""


class UnknownAlarmError(Exception):
    """No alarm of that rule is raised on that UVE."""


class StaleTokenError(Exception):
    """The alarm has changed since that token was given out."""


@dataclass(frozen=True)
class Entry:
    """A rule, ready to be evaluated."""

    compiled: CompiledRule
    name: str = field(init=False)
    holds: Callable[[views.View], OrList | None] = field(init=False)
    timers: Timers = field(init=False)

    def __post_init__(self) -> None:
        # Looked up once here, and not once for each evaluation.
        object.__setattr__(self, "name", self.compiled.rule.name)
        object.__setattr__(self, "holds", self.compiled.holds)
        object.__setattr__(self, "timers", machines.timers(self.compiled.rule))


class Wanted(NamedTuple):
    """Which alarms somebody asks for; what is empty or None asks for all."""

    tables: Collection[str] = ()
    patterns: Collection[str] = ()
    severities: Collection[int] = ()
    ack: bool | None = None

    def wants_key(self, key: str) -> bool:
        """Whether alarms of that UVE are asked for."""
        return (not self.tables or key.partition(":")[0] in self.tables) and (
            not self.patterns or any(views.matches(pattern, key) for pattern in self.patterns)
        )

    def wants_alarm(self, severity: int, ack: bool) -> bool:
        """Whether such an alarm of such a UVE is."""
        return (not self.severities or severity in self.severities) and (
            self.ack is None or ack == self.ack
        )


EVERYTHING = Wanted()


class Captured:
    """The state at one moment; ``packed`` may be called on any thread, and takes its time."""

    def __init__(
        self, version: int, rows: list[tuple[str, str, Kept]], wall_minus_steady: int
    ) -> None:
        self.version = version
        self._rows = rows
        self._offset = wall_minus_steady

    def packed(self) -> bytes:
        """``[format, [[key, rule, state, deadline, arrivals, match, raised], …]]``, msgpack."""
        packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
        pack, array = packer.pack, packer.pack_array_header
        parts = [array(2), pack(FORMAT), array(len(self._rows))]
        # Row by row, so that nobody waits long for this thread.
        for key, name, kept in self._rows:
            *begin, _, raised = machines.pack(_machine(kept, is_shown=False), self._offset)
            parts += [array(2 + len(begin) + 2), *map(pack, (key, name, *begin))]
            parts += [kept[3] or pack(None), pack(raised)]
        return b"".join(parts)


class Registry:
    """The machines of all UVEs, at most ``limit`` of them, and ``BYTES_EACH`` times as many bytes.

    ``tell`` hears of each alarm that is raised, changed, acknowledged, cleared, or brought back.
    """

    def __init__(self, limit: int, tell: Callable[[Notification], None]) -> None:
        self.counters: Counter[str] = Counter(
            alarms_raised=0,
            alarms_changed=0,
            alarms_acknowledged=0,
            alarms_cleared=0,
            alarms_refused=0,
        )
        self.held = 0
        """Machines, those of alarms that are not raised (yet) among them."""
        self.bytes = 0
        """Of what they found."""
        self.states: Counter[State] = Counter()
        self.acknowledged = 0
        self.version = 0
        """Grows with every change."""
        self.was_full = False
        """Something was refused since somebody last set this back."""
        self._limit = limit
        self._tell = tell
        self._entries: dict[str, Entry] = {}
        self._machines: dict[str, dict[str, Kept]] = {}
        self._raised: list[str] = []
        """The keys with an alarm, in order."""
        self._deadlines: list[tuple[int, str, str]] = []
        """A heap; an entry counts if the machine still has that deadline."""
        self._changed: dict[str, None] = {}

    @property
    def is_full(self) -> bool:
        """Whether there are as many machines as there may be, or what they found is too much."""
        return self.held >= self._limit or self.bytes >= self._limit * BYTES_EACH

    # ---- what happens --------------------------------------------------------------------------

    def evaluate(
        self, key: str, seen: Iterable[tuple[Entry, OrList | None]], moment: Moment
    ) -> None:
        """Take on what was seen of a UVE: for each rule what it found, None where nothing holds."""
        held = self._machines.get(key)
        for entry, found in seen:
            kept = None if held is None else held.get(entry.name)
            if found is None and kept is None:
                continue
            before = IDLE if kept is None else _machine(kept)
            after = machines.evaluated(before, entry.timers, found, moment)
            if after is not before:
                self._set(key, entry, before, after, moment)
                held = self._machines.get(key)

    def due(self, moment: Moment) -> list[str]:
        """UVEs of which a timer has run out: they are to be evaluated now. Of many, the first."""
        keys: dict[str, None] = {}
        while self._deadlines and self._deadlines[0][0] <= moment.steady and len(keys) < DUE:
            deadline, key, name = heapq.heappop(self._deadlines)
            kept = self._machines.get(key, {}).get(name)
            if kept is not None and kept[1] == deadline:
                keys[key] = None
        if len(self._deadlines) > 2 * self.held + STALE_DEADLINES:
            self._deadlines = [(kept[1], key, name) for key, name, kept in self._rows() if kept[1]]
            heapq.heapify(self._deadlines)
        return list(keys)

    def acknowledge(self, key: str, name: str, token: str, moment: Moment) -> Alarm:
        """Note that somebody has seen an alarm, which is returned.

        Raises UnknownAlarmError, StaleTokenError.
        """
        kept = self._machines.get(key, {}).get(name)
        before = IDLE if kept is None else _machine(kept)
        if before.raised is None:
            raise UnknownAlarmError
        if before.raised.token != token:
            raise StaleTokenError
        entry = self._entries[name]
        after = machines.acknowledged(before)
        self._set(key, entry, before, after, moment)
        return _alarm(entry, after)

    def take_on(self, entries: Iterable[Entry], moment: Moment) -> None:
        """Go by other rules: what those that stay have come to is kept, the others' is cleared."""
        before, self._entries = self._entries, {entry.name: entry for entry in entries}
        same = {
            name
            for name, entry in before.items()
            if name in self._entries and entry.compiled.rule == self._entries[name].compiled.rule
        }
        for key, name, kept in list(self._rows()):
            if name in same:
                continue
            machine = _machine(kept)
            entry = self._entries.get(name)
            if entry is None or not entry.compiled.wants(key):
                self._set(key, before[name], machine, IDLE, moment)
                continue
            after = machines.retimed(machine, entry.timers, moment.steady)
            self._set(key, entry, machine, after, moment)
            if after.raised is not None:
                self._note(Kind.CHANGED, key, entry, after, moment)

    def _set(self, key: str, entry: Entry, before: Machine, after: Machine, moment: Moment) -> None:
        if after is before:
            return
        if before is IDLE and self.is_full:
            self.counters["alarms_refused"] += 1
            self.was_full = True
            return
        self._put(key, entry.name, before, after)
        was, now = before.raised, after.raised
        if was is None and now is not None:
            self._note(Kind.RAISED, key, entry, after, moment)
        elif was is not None and now is None:
            self._note(Kind.CLEARED, key, entry, before, moment)
        elif was is not None and now is not None and was.token != now.token:
            self._note(Kind.CHANGED, key, entry, after, moment)
        elif was is not None and now is not None and was.ack != now.ack:
            self._note(Kind.ACKNOWLEDGED, key, entry, after, moment)

    def _put(self, key: str, name: str, before: Machine, after: Machine) -> None:
        """Keep a machine in the place of another; ``IDLE`` is not kept."""
        self.version += 1
        held = self._machines.setdefault(key, {})
        if before is not IDLE:
            self.bytes -= len(held[name][3] or b"")
            self.held -= 1
            self.states[before.state] -= 1
            self.acknowledged -= before.raised is not None and before.raised.ack
        if after == IDLE:
            held.pop(name, None)
        else:
            held[name] = kept = _kept(after)
            self.bytes += len(kept[3] or b"")
            self.held += 1
            self.states[after.state] += 1
            self.acknowledged += after.raised is not None and after.raised.ack
            if after.deadline and after.deadline != before.deadline:
                heapq.heappush(self._deadlines, (after.deadline, key, name))
        self._list(key, any(kept[4] for kept in held.values()))
        if not held:
            del self._machines[key]

    def _list(self, key: str, is_raised: bool) -> None:
        at = bisect.bisect_left(self._raised, key)
        was_raised = at < len(self._raised) and self._raised[at] == key
        if is_raised and not was_raised:
            self._raised.insert(at, key)
        elif was_raised and not is_raised:
            del self._raised[at]

    def _note(self, kind: Kind, key: str, entry: Entry, shown: Machine, moment: Moment) -> None:
        self._changed[key] = None
        if kind is not Kind.RESTORED:
            self.counters[f"alarms_{kind.value}"] += 1
        rule = entry.compiled.rule
        self._tell(Notification(kind, key, rule, _alarm(entry, shown), moment.wall))

    # ---- what there is -------------------------------------------------------------------------

    def held_keys(self) -> list[str]:
        """The UVEs that have a machine."""
        return list(self._machines)

    def has(self, key: str) -> bool:
        """Whether a UVE has a machine."""
        return key in self._machines

    def take_changed(self) -> Iterable[str]:
        """The UVEs whose alarms changed since the last call, each once."""
        changed, self._changed = self._changed, {}
        return changed

    def alarms(self, key: str, wanted: Wanted = EVERYTHING) -> list[Alarm]:
        """What is raised on a UVE, in the order of the rules' names."""
        alarms = []
        for name, kept in sorted(self._machines.get(key, {}).items()):
            entry = self._entries[name]
            if kept[4] and wanted.wants_alarm(entry.compiled.rule.severity, kept[4][2]):
                alarms.append(_alarm(entry, _machine(kept)))
        return alarms

    def find(self, wanted: Wanted, after: str) -> Iterator[tuple[str, list[Alarm]]]:
        """Key and alarms, those that are wanted, of each UVE that has some, in order, after a key.

        They may be none: each UVE is given, so that who walks over all may pause anywhere, and go
        on after it, whatever changes meanwhile.
        """
        for at in itertools.count(bisect.bisect_right(self._raised, after)):
            if at >= len(self._raised):
                return
            key = self._raised[at]
            yield key, self.alarms(key, wanted) if wanted.wants_key(key) else []

    def _rows(self) -> Iterator[tuple[str, str, Kept]]:
        for key, held in self._machines.items():
            for name, kept in held.items():
                yield key, name, kept

    # ---- in a snapshot -------------------------------------------------------------------------

    def capture(self, wall_minus_steady: int) -> Captured:
        """All of this, to be saved."""
        return Captured(self.version, list(self._rows()), wall_minus_steady)

    def restore(self, body: bytes | memoryview, wall_minus_steady: int, moment: Moment) -> int:
        """Bring back what was saved, of the rules that there still are; returns how many machines.

        Raises ValueError where it is no such thing; nothing is brought back then.
        """
        restored = {
            (key, name): _kept(machine)
            for key, name, machine in self._unpack(_rows_of(body), wall_minus_steady, moment)
        }
        for (key, name), kept in itertools.islice(restored.items(), self._limit):
            machine = _machine(kept)
            self._put(key, name, IDLE, machine)
            if machine.raised is not None:
                self._note(Kind.RESTORED, key, self._entries[name], machine, moment)
        self.counters["alarms_refused"] += max(len(restored) - self._limit, 0)
        return self.held

    def _unpack(
        self, rows: Iterable[Any], wall_minus_steady: int, moment: Moment
    ) -> Iterator[tuple[str, str, Machine]]:
        for row in rows:
            if not (isinstance(row, list) and len(row) > 2 and isinstance(row[0], str)):
                raise ValueError("what was saved of an alarm is not [key, rule, …]")
            key, name, *packed = row
            entry = self._entries.get(name) if isinstance(name, str) else None
            if entry is None or not entry.compiled.wants(key):
                continue
            machine = machines.unpack(packed, entry.timers, moment.steady, wall_minus_steady)
            if machine != IDLE:
                yield key, name, machine


def _rows_of(body: bytes | memoryview) -> Iterator[Any]:
    """The rows of what was saved, one at a time. Raises ValueError where it is no such thing."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(body)
    try:
        if unpacker.read_array_header() != 2 or unpacker.unpack() != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        for _ in range(unpacker.read_array_header()):
            yield unpacker.unpack()
    except (msgpack.UnpackException, TypeError, ValueError) as error:
        raise ValueError(f"what was saved of alarms can't be read: {error}") from error
    if unpacker.tell() != len(body):
        raise ValueError("what was saved of alarms goes on behind its end")


def _kept(machine: Machine) -> Kept:
    raised = machine.raised
    return (
        int(machine.state),
        machine.deadline,
        tuple(machine.arrivals),
        None if machine.found is None else wire.encode_view(machine.found),
        None if raised is None else (raised.timestamp, raised.token, raised.ack),
    )


def _machine(kept: Kept, is_shown: bool = True) -> Machine:
    """The machine; what it found is left out where it isn't to be shown."""
    state, deadline, arrivals, found, raised = kept
    return Machine(
        State(state),
        deadline,
        arrivals,
        wire.decode(found) if found is not None and is_shown else None,
        None if raised is None else Raised(*raised),
    )


def _alarm(entry: Entry, machine: Machine) -> Alarm:
    """A machine's alarm as it is shown; it is raised."""
    rule, raised = entry.compiled.rule, machine.raised
    assert raised is not None
    return {
        "type": rule.name,
        "severity": rule.severity,
        "timestamp": raised.timestamp,
        "token": raised.token,
        "ack": raised.ack,
        "description": rule.description,
        "alarm_rules": {"or_list": machine.found},
    }


def struct(alarms: Sequence[Alarm]) -> Mapping[str, Any]:
    """The struct ``UVEAlarms`` of a view."""
    return {"alarms": list(alarms)}
