"""What the tests of the state machine share: machines that live, and what is true of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from collectord.alarms import machine as machines
from collectord.alarms import rules
from collectord.alarms.machine import IDLE, Machine, Moment, State, Timers

START = 1_795_000_000_000_000
SECOND = 1_000_000
AT_ONCE = Timers()
SLOWLY = Timers(active=10 * SECOND, idle=20 * SECOND)
OFTEN = Timers(active=10 * SECOND, times=2, seconds=60 * SECOND)


def found(value: int = 5, port: str = "eth0") -> list[dict[str, Any]]:
    """What holds: another ``value`` is the same alarm, another ``port`` is not."""
    condition = {
        "operation": ">",
        "operand1": "Ports.ports.*.errors",
        "operand2": {"json_value": "3"},
        "variables": ["Ports.ports.__key"],
    }
    variables = {"Ports.ports.__key": json.dumps(port)}
    match = {"json_operand1_value": json.dumps(value), "json_variables": variables}
    return [{"and_list": [{"condition": condition, "match": [match]}]}]


class Life:
    """A machine, a clock, and tokens t1, t2, … for it."""

    def __init__(self, timers: Timers, now: int = START) -> None:
        self.timers = timers
        self.now = now
        self.machine = IDLE
        self.tokens = 0

    def token(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    def after(self, seconds: float) -> Life:
        self.now += round(seconds * SECOND)
        return self

    def sees(self, what: list[dict[str, Any]] | None) -> Machine:
        return self._is_now(machines.evaluated(self.machine, self.timers, what, self._moment()))

    def looks(self) -> Machine:
        return self._is_now(machines.expired(self.machine, self.timers, self._moment()))

    def is_acknowledged(self) -> Machine:
        return self._is_now(machines.acknowledged(self.machine))

    def _moment(self) -> Moment:
        return Moment(self.now, self.now + 7, self.token)

    def _is_now(self, machine: Machine) -> Machine:
        self.machine = machine
        return machine


def soak_active() -> Life:
    life = Life(SLOWLY)
    assert life.sees(found()).state is State.SOAK_ACTIVE
    return life


def active(timers: Timers = SLOWLY) -> Life:
    life = Life(timers)
    life.sees(found())
    life.now += timers.active
    assert life.looks().state is State.ACTIVE
    return life


def soak_idle() -> Life:
    life = active()
    assert life.sees(None).state is State.SOAK_IDLE
    return life


LIVES: list[Callable[[], Life]] = [lambda: Life(SLOWLY), soak_active, active, soak_idle]
"""One that begins, and one in each other state."""


def make_rule(**fields: Any) -> rules.Rule:
    """A rule with these fields, and what every rule must have."""
    condition = {
        "operation": "==",
        "operand1": "S.a",
        "operand2": {"json_value": "1"},
        "variables": ["S.b"],
    }
    or_list = [{"and_list": [condition]}]
    needed = {"name": "r", "uve_keys": ["T"], "severity": 1, "alarm_rules": {"or_list": or_list}}
    return rules.parse(json.dumps([needed | fields]), "a test")[0]


def check(machine: Machine, timers: Timers, steady: int) -> None:
    """What is true of every machine that has been looked at."""
    raised = machine.state in (State.ACTIVE, State.SOAK_IDLE)
    assert (machine.raised is not None) == raised
    assert (machine.found is not None) == (machine.state is not State.IDLE)
    assert len(machine.arrivals) <= (timers.times + 1 if timers.times else 0)
    assert list(machine.arrivals) == sorted(machine.arrivals)
    assert all(0 <= arrival <= steady for arrival in machine.arrivals)
    latest = {
        State.IDLE: steady + timers.seconds + 1 if machine.arrivals else 0,
        State.SOAK_ACTIVE: steady + timers.active,
        State.ACTIVE: 0,
        State.SOAK_IDLE: steady + timers.idle,
    }[machine.state]
    assert machine.deadline <= latest
    assert bool(machine.deadline) == bool(latest)
