"""The state machine of an alarm against a plain model, with random timers, times and conditions."""

from __future__ import annotations

from typing import NamedTuple

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from alarms.living import check, found
from collectord.alarms import machine as machines
from collectord.alarms.machine import IDLE, Moment, Raised, Timers


class Alarm(NamedTuple):
    """What the model says is raised; ``number`` counts the alarms from 1."""

    port: str
    value: int
    number: int
    wall: int
    ack: bool


class Event(NamedTuple):
    """At a moment something was seen: ``(port, value)``, None for nothing, or an ``ack``."""

    moment: int
    seen: tuple[str, int] | None
    ack: bool = False


class Model:
    """What happened, from the beginning, told again moment by moment whenever it is asked.

    It knows no states: there is an alarm or none, the rule holds since some moment or it doesn't.
    """

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.events: list[Event] = []
        self.unseen: set[int] = set()
        """Moments in which nobody looked at the time."""
        self.walls: dict[int, int] = {}
        """The wall clock in each moment."""

    def tell(self, now: int) -> None:
        self.alarm: Alarm | None = None
        self.alarms = 0
        self.holds: tuple[str, int] | None = None
        self.holds_since = self.fails_since = 0
        self.came: list[int] = []
        for moment in range(now + 1):
            if moment not in self.unseen:
                self.time_passes(moment)
            for event in self.events:
                if event.moment == moment:
                    self.happens(event)

    def time_passes(self, moment: int) -> None:
        if self.holds and not self.alarm and moment >= self.holds_since + self.timers.active:
            self.alarm = self.new_alarm(moment)
        if self.alarm and not self.holds and moment >= self.fails_since + self.timers.idle:
            self.alarm = None

    def happens(self, event: Event) -> None:
        if event.ack:
            self.alarm = self.alarm and self.alarm._replace(ack=True)
            return
        if event.seen and not self.holds:
            self.holds_since = event.moment
            if not self.alarm:
                self.came.append(event.moment)
        elif self.holds and not event.seen:
            self.fails_since = event.moment
        came_now = bool(event.seen and not self.holds and not self.alarm)
        self.holds = event.seen
        if event.seen and self.alarm and self.alarm.port != event.seen[0]:
            self.alarm = self.new_alarm(event.moment)
        if came_now and self.came_too_often(event.moment):
            self.alarm = self.new_alarm(event.moment)
        self.time_passes(event.moment)

    def came_too_often(self, moment: int) -> bool:
        recently = [came for came in self.came if moment - came <= self.timers.seconds]
        return 0 < self.timers.times < len(recently)

    def new_alarm(self, moment: int) -> Alarm:
        assert self.holds
        self.alarms += 1
        return Alarm(*self.holds, self.alarms, self.walls[moment], False)

    @property
    def state(self) -> str:
        if self.alarm:
            return "ACTIVE" if self.holds else "SOAK_IDLE"
        return "SOAK_ACTIVE" if self.holds else "IDLE"

    def remembers(self, now: int) -> bool:
        """Whether some arrival may still count."""
        latest = self.came[-1] if self.came and self.timers.times else -1
        return latest >= 0 and now - latest <= self.timers.seconds


class Action(NamedTuple):
    """What is done after a pause; ``watched`` is whether time is looked at in each of its moments.

    ``kind`` is see, ack, look, restart or set (the wall clock, by ``amount``).
    """

    pause: int
    watched: bool
    kind: str
    seen: tuple[str, int] | None
    amount: int


short = st.integers(0, 6)
actions = st.builds(
    Action,
    pause=short,
    watched=st.booleans(),
    kind=st.sampled_from(["see", "see", "see", "see", "see", "ack", "look", "restart", "set"]),
    seen=st.none() | st.tuples(st.sampled_from(["eth0", "eth0", "eth1"]), st.integers(4, 6)),
    amount=st.integers(-1000, 1000),
)
some_timers = st.builds(
    Timers,
    active=short | st.just(99),
    idle=short,
    times=st.integers(0, 3),
    seconds=st.integers(1, 15),
)


class Both:
    """The machine and the model, led through the same actions."""

    def __init__(self, timers: Timers) -> None:
        self.timers, self.machine, self.model = timers, IDLE, Model(timers)
        self.moment = 0
        self.steady_begins, self.wall_begins = 5_000, 9_000
        """What the clocks show at moment 0."""
        self.tokens: list[str] = []
        self.model.walls[0] = self.wall_begins

    @property
    def steady(self) -> int:
        return self.steady_begins + self.moment

    def token(self) -> str:
        self.tokens.append(f"t{len(self.tokens) + 1}")
        return self.tokens[-1]

    def at(self) -> Moment:
        return Moment(self.steady, self.wall_begins + self.moment, self.token)

    def look_now(self) -> None:
        if all(event.moment != self.moment for event in self.model.events):
            self.model.unseen.discard(self.moment)  # else what was seen came first
        self.machine = machines.expired(self.machine, self.timers, self.at())

    def do(self, action: Action) -> None:
        for _ in range(action.pause):
            self.moment += 1
            self.model.walls[self.moment] = self.wall_begins + self.moment
            self.model.unseen.add(self.moment)
            if action.watched:
                self.look_now()
        getattr(self, action.kind)(action)
        self.model.tell(self.moment)
        self.compare()

    def see(self, action: Action) -> None:
        value = action.seen and found(action.seen[1], action.seen[0])
        self.machine = machines.evaluated(self.machine, self.timers, value, self.at())
        self.model.events.append(Event(self.moment, action.seen))

    def look(self, _: Action) -> None:
        self.look_now()

    def ack(self, _: Action) -> None:
        self.look_now()
        self.machine = machines.acknowledged(self.machine)
        self.model.events.append(Event(self.moment, None, ack=True))

    def restart(self, action: Action) -> None:
        row = msgpack.packb(machines.pack(self.machine, self.wall_begins - self.steady_begins))
        self.steady_begins += action.amount
        self.machine = machines.unpack(
            msgpack.unpackb(row), self.timers, self.steady, self.wall_begins - self.steady_begins
        )

    def set(self, action: Action) -> None:
        self.wall_begins += action.amount
        self.moment += 1
        self.model.walls[self.moment] = self.wall_begins + self.moment
        self.look_now()

    def compare(self) -> None:
        check(self.machine, self.timers, self.steady)
        assert self.machine.state.name == self.model.state
        assert len(self.tokens) == self.model.alarms
        alarm = self.model.alarm
        if alarm:
            assert self.machine.raised == Raised(alarm.wall, f"t{alarm.number}", alarm.ack)
            assert self.machine.found == found(alarm.value, alarm.port)
        elif self.model.holds:
            assert self.machine.found == found(self.model.holds[1], self.model.holds[0])
        else:
            assert (self.machine != IDLE) == self.model.remembers(self.moment)


class TestAgainstTheModel:
    @settings(max_examples=300)
    @given(some_timers, st.lists(actions, min_size=20, max_size=60))
    def test_both_tell_the_same(self, timers: Timers, doing: list[Action]) -> None:
        both = Both(timers)
        for action in doing:
            both.do(action)
