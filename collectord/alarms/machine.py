"""The state machine of one rule on one UVE: when what a rule says becomes an alarm, and how long.

::

              holds                    active timer
    Idle ──────────────▶ Soak_Active ────────────────▶ Active
     ▲ ◀──────────────────────┘                         │  ▲
     │      holds no more                 holds no more │  │ holds
     │                                                  ▼  │
     └──────────────────────────────────────────────── Soak_Idle
                         idle timer

Without an active timer, or where the rule came to hold too frequently, Idle leads to Active at
once; without an idle timer Active leads to Idle at once. An alarm is raised in Active and
Soak_Idle, and in no other state. It is a new alarm, with a new token, where Active is entered from
Idle or Soak_Active, and where another match holds than the one that it shows.

A machine is a value, and a transition a pure function of it. What holds is found in
``evaluation.py``; which machines there are, who wakes them and who is told is in ``registry.py``.
All times are microseconds on the steady clock (``clock.py``) where nothing else is said.
"""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from collectord.alarms.evaluation import OrList, is_same
from collectord.alarms.rules import Rule

SECOND = 1_000_000


class State(enum.IntEnum):
    """Where a machine stands; the numbers are part of a snapshot."""

    IDLE = 0
    """Nothing holds, and nothing is raised."""
    SOAK_ACTIVE = 1
    """The rule holds, not yet for as long as its active timer."""
    ACTIVE = 2
    """The rule holds, and an alarm is raised."""
    SOAK_IDLE = 3
    """The rule holds no more, not yet for as long as its idle timer: the alarm is still raised."""


class Timers(NamedTuple):
    """What of a rule its machines go by."""

    active: int = 0
    """How long the rule must hold before an alarm is raised; 0: at once."""
    idle: int = 0
    """How long it must not hold before the alarm is cleared; 0: at once."""
    times: int = 0
    """Where it comes to hold more often than this, an alarm is raised at once; 0: no such check."""
    seconds: int = 0
    """Within how long it must have come so often; in microseconds, as the others."""


class Raised(NamedTuple):
    """What an alarm that is raised has beside its match."""

    timestamp: int
    """When it was raised or last changed, microseconds since the Unix epoch, on the wall clock."""
    token: str
    """Who acknowledges shows it: so nobody acknowledges what they haven't seen."""
    ack: bool
    """Whether somebody has acknowledged it."""


class Machine(NamedTuple):
    """One rule on one UVE."""

    state: State
    deadline: int
    """When ``expired`` has to be called; 0: never."""
    arrivals: tuple[int, ...]
    """When the rule came to hold, the last times of all that the frequency check may ask for."""
    found: OrList | None
    """What held last; once an alarm is raised, what it shows. None in Idle alone."""
    raised: Raised | None


class Moment(NamedTuple):
    """What a transition may need from outside."""

    steady: int
    wall: int
    """The time of day, microseconds since the Unix epoch."""
    token: Callable[[], str]
    """Gives a new token; it is asked once for each alarm that is raised, and for nothing else."""


IDLE = Machine(State.IDLE, 0, (), None, None)
"""As every machine begins. One that equals it need not be kept."""


def timers(rule: Rule) -> Timers:
    """The timers of a rule."""
    checked = rule.freq_exceeded_check
    return Timers(
        active=rule.active_timer * SECOND,
        idle=rule.idle_timer * SECOND,
        times=rule.freq_check_times if checked else 0,
        seconds=rule.freq_check_seconds * SECOND if checked else 0,
    )


# ---- transitions -------------------------------------------------------------------------------


def evaluated(machine: Machine, timers: Timers, found: OrList | None, moment: Moment) -> Machine:
    """The machine once its rule was looked at: ``found`` is what held, None where nothing did.

    What is seen comes before a deadline that has passed: who soaks is raised as what holds now, or
    not at all, and an alarm that holds again before anybody saw it cleared is the same. Where
    nothing changes it is the very same object.
    """
    if found is None:
        fallen = _fallen(machine, timers, moment)
        return expired(fallen, timers, moment) if fallen is machine else fallen
    if machine.state is State.IDLE:
        return _risen(expired(machine, timers, moment), timers, found, moment)
    if machine.state is State.SOAK_ACTIVE:
        return expired(machine._replace(found=found), timers, moment)
    assert machine.found is not None
    if not is_same(machine.found, found):
        return _raise(machine.arrivals, found, moment)
    if machine.state is State.SOAK_IDLE:
        return machine._replace(state=State.ACTIVE, deadline=0)
    return machine


def expired(machine: Machine, timers: Timers, moment: Moment) -> Machine:
    """The machine after its deadline; the very same object where that lies ahead, or is none."""
    if not machine.deadline or moment.steady < machine.deadline:
        return machine
    if machine.state is State.SOAK_ACTIVE:
        return _raise(machine.arrivals, machine.found, moment)
    return _idle(machine.arrivals, timers, moment.steady)


def acknowledged(machine: Machine) -> Machine:
    """The machine once somebody has seen its alarm; the same object where there is none to see."""
    if machine.raised is None or machine.raised.ack:
        return machine
    return machine._replace(raised=machine.raised._replace(ack=True))


def retimed(machine: Machine, timers: Timers, steady: int) -> Machine:
    """The machine where its rule has other timers now: no deadline is further than its timer."""
    kept = machine.arrivals[-timers.times - 1 :] if timers.times else ()
    arrivals = tuple(max(0, min(arrival, steady)) for arrival in kept)
    if machine.state is State.IDLE:
        return _idle(arrivals, timers, steady)
    deadline = 0
    if machine.deadline:
        timer = timers.active if machine.state is State.SOAK_ACTIVE else timers.idle
        deadline = max(1, min(machine.deadline, steady + timer))
    return machine._replace(deadline=deadline, arrivals=arrivals)


def _risen(machine: Machine, timers: Timers, found: OrList, moment: Moment) -> Machine:
    now = moment.steady
    arrivals = machine.arrivals
    if timers.times:
        recent = [arrival for arrival in arrivals if now - arrival <= timers.seconds]
        arrivals = (*recent[-timers.times :], now)
    if not timers.active or len(arrivals) > timers.times > 0:
        return _raise(arrivals, found, moment)
    return Machine(State.SOAK_ACTIVE, now + timers.active, arrivals, found, None)


def _fallen(machine: Machine, timers: Timers, moment: Moment) -> Machine:
    if machine.state is State.IDLE or machine.state is State.SOAK_IDLE:
        return machine
    if machine.state is State.ACTIVE and timers.idle:
        return machine._replace(state=State.SOAK_IDLE, deadline=moment.steady + timers.idle)
    return _idle(machine.arrivals, timers, moment.steady)


def _raise(arrivals: tuple[int, ...], found: OrList | None, moment: Moment) -> Machine:
    raised = Raised(moment.wall, moment.token(), False)
    return Machine(State.ACTIVE, 0, arrivals, found, raised)


def _idle(arrivals: tuple[int, ...], timers: Timers, now: int) -> Machine:
    """Idle, for as long as the newest arrival counts: up to the age of ``seconds``."""
    if not arrivals:
        return IDLE
    deadline = arrivals[-1] + timers.seconds + 1
    return Machine(State.IDLE, deadline, arrivals, None, None) if now < deadline else IDLE


# ---- in a snapshot -----------------------------------------------------------------------------

_HOLDS = {
    State.IDLE: (False, False, False),
    State.SOAK_ACTIVE: (True, True, False),
    State.ACTIVE: (False, True, True),
    State.SOAK_IDLE: (True, True, True),
}
"""Which of deadline, found and raised stand in the row of a state; Idle's deadline follows from
its arrivals."""


def pack(machine: Machine, wall_minus_steady: int) -> list[Any]:
    """The machine as a row ``[state, deadline, arrivals, found, raised]``; times by the wall clock.

    What a state doesn't have is None; ``raised`` is ``[timestamp, token, ack]``.
    """
    has_deadline, _, _ = _HOLDS[machine.state]
    return [
        int(machine.state),
        machine.deadline + wall_minus_steady if has_deadline else None,
        [arrival + wall_minus_steady for arrival in machine.arrivals],
        machine.found,
        None if machine.raised is None else list(machine.raised),
    ]


def unpack(row: object, timers: Timers, steady: int, wall_minus_steady: int) -> Machine:
    """The machine of a row that ``pack`` made, ``steady`` being now.

    The time that nobody was there has passed: a deadline may lie behind, and is then for the next
    look. But none is further ahead than its timer, whatever became of the wall clock, and what
    lies in the future came now. Raises ValueError where it is no such row.
    """
    if not isinstance(row, list) or len(row) != 5:
        raise ValueError(f"an alarm's state is {_shown(row)}; it is a list of 5")
    number, deadline, arrivals, found, raised = row
    if type(number) is not int or number not in list(State):
        raise ValueError(f"an alarm's state has the number {_shown(number)}; there are 0 to 3")
    state = State(number)
    there = deadline is not None, found is not None, raised is not None
    if there != _HOLDS[state]:
        raise ValueError(
            f"an alarm in {state.name} has (deadline, match, raised) {there}, not {_HOLDS[state]}"
        )
    machine = Machine(
        state=state,
        deadline=max(1, _time(deadline) - wall_minus_steady) if deadline is not None else 0,
        arrivals=tuple(time - wall_minus_steady for time in _arrivals(arrivals)),
        found=_or_list(found) if found is not None else None,
        raised=_raised(raised) if raised is not None else None,
    )
    return retimed(machine, timers, steady)


@with_config(ConfigDict(extra="forbid", strict=True))
class _Match(TypedDict):
    json_operand1_value: str
    json_operand2_value: NotRequired[str]
    json_variables: dict[str, str]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Condition(TypedDict):
    operation: str
    operand1: str
    operand2: dict[str, Any]
    variables: list[str]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Matched(TypedDict):
    condition: _Condition
    match: list[_Match]


@with_config(ConfigDict(extra="forbid", strict=True))
class _AndList(TypedDict):
    and_list: list[_Matched]


_OR_LIST = TypeAdapter(list[_AndList], config=ConfigDict(strict=True))


def _or_list(value: object) -> OrList:
    try:
        found: Any = _OR_LIST.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"an alarm's match is none: {place}: {first['msg']}") from error
    if not found:
        raise ValueError("an alarm's match is empty")
    checked: OrList = found
    return checked


def _arrivals(value: object) -> list[int]:
    if not isinstance(value, list):
        raise ValueError(f"an alarm's arrivals are {_shown(value)}; they are a list of times")
    times = [_time(each) for each in value]
    if times != sorted(times):
        raise ValueError("an alarm's arrivals are not in the order of time")
    return times


def _raised(value: object) -> Raised:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"a raised alarm is {_shown(value)}; it is [timestamp, token, ack]")
    timestamp, token, ack = value
    if not isinstance(token, str) or not token or not isinstance(ack, bool):
        raise ValueError(f"a raised alarm has no token or no ack, but {_shown(value)}")
    return Raised(_time(timestamp), token, ack)


def _time(value: object) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"a time of an alarm is {_shown(value)}; it is in whole microseconds")
    return value


def _shown(value: object) -> str:
    return reprlib.repr(value)  # however large or deep it is
