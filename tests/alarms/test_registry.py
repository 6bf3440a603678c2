"""All machines together: what is raised, who is told, limits, rules that change, snapshots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack
import pytest

from collectord.alarms.evaluation import compile_rule
from collectord.alarms.machine import Moment, State
from collectord.alarms.notification import Kind, Notification
from collectord.alarms.registry import (
    EVERYTHING,
    Entry,
    Registry,
    StaleTokenError,
    UnknownAlarmError,
    Wanted,
)
from collectord.alarms.rules import Rule

SECOND = 1_000_000
START = 1_000 * SECOND
OFFSET = 1_600_000_000 * SECOND
"""Of the wall clock from the steady one."""


def rule(name: str = "busy", table: str = "T", **fields: Any) -> Rule:
    """A rule that holds where ``S.<name>`` is above 0."""
    condition = {"operation": ">", "operand1": f"S.{name}", "operand2": {"json_value": "0"}}
    return Rule.model_validate(
        {
            "name": name,
            "uve_keys": [table],
            "severity": 1,
            "alarm_rules": {"or_list": [{"and_list": [condition]}]},
            **fields,
        }
    )


class Desk:
    """A registry, the clock it goes by, and what was told of its alarms."""

    def __init__(self, *rules: Rule, limit: int = 100) -> None:
        self.now = START
        self.offset = OFFSET
        self.told: list[Notification] = []
        self._tokens = (f"token-{number}" for number in itertools.count(1))
        self.registry = Registry(limit, self.told.append)
        self.take_on(*rules)

    def take_on(self, *rules: Rule) -> None:
        self.entries = [Entry(compile_rule(each)) for each in rules]
        self.registry.take_on(self.entries, self.moment())

    def moment(self) -> Moment:
        return Moment(self.now, self.now + self.offset, lambda: next(self._tokens))

    def see(self, key: str = "T:a", **attributes: Any) -> None:
        """Evaluate all rules on a view."""
        view = {"S": attributes} if attributes else None
        found = [entry.holds(view) if view else None for entry in self.entries]
        self.registry.evaluate(key, zip(self.entries, found, strict=True), self.moment())

    def wait(self, seconds: float, **view: Any) -> None:
        """Time goes on, and what is due is evaluated; views are ``view``."""
        self.now += round(seconds * SECOND)
        for key in self.registry.due(self.moment()):
            self.see(key, **view)

    def kinds(self) -> list[Kind]:
        """What was told since the last call."""
        kinds = [notification.kind for notification in self.told]
        self.told.clear()
        return kinds

    def raised(self, key: str = "T:a") -> list[str]:
        return [alarm["type"] for alarm in self.registry.alarms(key)]

    def again(self, *rules: Rule, later: float = 0, limit: int = 100) -> Desk:
        """Another desk with what this one would have saved."""
        body = self.registry.capture(self.offset).packed()
        other = Desk(*rules, limit=limit)
        other.now = START + 77 * SECOND  # a steady clock begins anew with each run
        other.offset = self.now + self.offset + round(later * SECOND) - other.now
        other.registry.restore(body, other.offset, other.moment())
        return other


# ---- what happens --------------------------------------------------------------------------------


def test_an_alarm_is_raised_changed_and_cleared() -> None:
    same = {"operation": "==", "operand1": "S.name", "operand2": {"uve_attribute": "S.name"}}
    named = rule(alarm_rules={"or_list": [{"and_list": [same]}]})
    desk = Desk(named)
    desk.see(name="x")
    desk.see(name="x")
    assert desk.kinds() == [Kind.RAISED]
    desk.see(name="y")
    assert desk.kinds() == [Kind.CHANGED]
    desk.see()
    assert desk.kinds() == [Kind.CLEARED]
    assert desk.raised() == []


def test_an_alarm_shows_its_rule_and_what_held() -> None:
    desk = Desk(rule(description="too much"))
    desk.see(busy=5)
    (alarm,) = desk.registry.alarms("T:a")
    assert alarm == {
        "type": "busy",
        "severity": 1,
        "timestamp": START + OFFSET,
        "token": "token-1",
        "ack": False,
        "description": "too much",
        "alarm_rules": alarm["alarm_rules"],
    }
    (and_list,) = alarm["alarm_rules"]["or_list"]
    assert and_list["and_list"][0]["match"] == [{"json_operand1_value": "5", "json_variables": {}}]
    assert desk.told[0].alarm == alarm
    assert (desk.told[0].key, desk.told[0].time) == ("T:a", START + OFFSET)


def test_alarms_of_a_uve_stand_in_the_order_of_their_names() -> None:
    desk = Desk(rule("c"), rule("a"), rule("b"))
    desk.see(a=1, b=1, c=1)
    assert desk.raised() == ["a", "b", "c"]


def test_nothing_is_kept_of_what_never_held() -> None:
    desk = Desk(rule())
    desk.see(busy=0)
    assert (desk.registry.held, desk.registry.held_keys(), desk.registry.version) == (0, [], 0)


def test_nothing_holds_on_a_uve_that_is_gone() -> None:
    nowhere = {"operation": "==", "operand1": "R", "operand2": {"json_value": "null"}}
    desk = Desk(rule(alarm_rules={"or_list": [{"and_list": [nowhere]}]}))
    desk.see(other=1)
    assert desk.raised() == ["busy"]
    desk.see()
    assert desk.raised() == []


def test_an_alarm_that_soaks_shows_what_holds_when_it_is_raised() -> None:
    desk = Desk(rule(active_timer=10))
    desk.see(busy=1)
    assert desk.kinds() == []
    desk.wait(10, busy=2)
    assert desk.kinds() == [Kind.RAISED]
    (and_list,) = desk.registry.alarms("T:a")[0]["alarm_rules"]["or_list"]
    assert and_list["and_list"][0]["match"][0]["json_operand1_value"] == "2"


def test_what_no_longer_holds_when_its_timer_runs_out_is_not_raised() -> None:
    desk = Desk(rule(active_timer=10, idle_timer=10))
    desk.see(busy=1)
    desk.wait(10, busy=0)
    assert desk.kinds() == []
    assert desk.registry.held == 0


def test_what_holds_again_when_its_timer_runs_out_is_the_same_alarm() -> None:
    desk = Desk(rule(idle_timer=10))
    desk.see(busy=1)
    desk.see(busy=0)
    desk.wait(10, busy=1)
    assert desk.kinds() == [Kind.RAISED]
    assert desk.registry.alarms("T:a")[0]["token"] == "token-1"


def test_timers_of_many_uves_run_out_in_their_order() -> None:
    desk = Desk(rule(active_timer=10))
    for number in range(5):
        desk.see(f"T:{number}", busy=1)
        desk.now += SECOND
    desk.now = START + 12 * SECOND
    assert desk.registry.due(desk.moment()) == ["T:0", "T:1", "T:2"]


def test_deadlines_that_nothing_waits_for_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectord.alarms.registry.STALE_DEADLINES", 10)
    desk = Desk(rule(idle_timer=100_000))
    for _ in range(1_000):
        desk.see(busy=1)
        desk.see(busy=0)
        desk.wait(0.001)
    assert len(desk.registry._deadlines) <= 12


def test_each_uve_whose_alarms_changed_is_named_once() -> None:
    desk = Desk(rule("a"), rule("b"))
    desk.see("T:1", a=1, b=1)
    desk.see("T:2", a=1)
    assert list(desk.registry.take_changed()) == ["T:1", "T:2"]
    assert list(desk.registry.take_changed()) == []


# ---- acknowledging -------------------------------------------------------------------------------


def test_who_knows_the_token_acknowledges() -> None:
    desk = Desk(rule())
    desk.see(busy=1)
    alarm = desk.registry.acknowledge("T:a", "busy", "token-1", desk.moment())
    assert alarm["ack"] is True
    assert desk.kinds() == [Kind.RAISED, Kind.ACKNOWLEDGED]
    assert desk.registry.acknowledged == 1


def test_once_is_enough() -> None:
    desk = Desk(rule())
    desk.see(busy=1)
    for _ in range(2):
        desk.registry.acknowledge("T:a", "busy", "token-1", desk.moment())
    assert desk.kinds() == [Kind.RAISED, Kind.ACKNOWLEDGED]


def test_a_token_of_before_is_refused() -> None:
    desk = Desk(rule())
    for value in (1, 0, 1):
        desk.see(busy=value)
    with pytest.raises(StaleTokenError):
        desk.registry.acknowledge("T:a", "busy", "token-1", desk.moment())
    assert desk.registry.alarms("T:a")[0]["ack"] is False


@pytest.mark.parametrize(("key", "name"), [("T:b", "busy"), ("T:a", "another")])
def test_what_is_not_raised_can_not_be_acknowledged(key: str, name: str) -> None:
    desk = Desk(rule(), rule("another", active_timer=5))
    desk.see(busy=1, another=1)
    with pytest.raises(UnknownAlarmError):
        desk.registry.acknowledge(key, name, "token-1", desk.moment())


# ---- limits --------------------------------------------------------------------------------------


def test_beyond_the_limit_nothing_is_raised_and_it_is_counted() -> None:
    desk = Desk(rule(), limit=2)
    for number in range(5):
        desk.see(f"T:{number}", busy=1)
    assert [desk.raised(f"T:{number}") for number in range(5)] == [["busy"], ["busy"], [], [], []]
    assert desk.registry.counters["alarms_refused"] == 3
    assert desk.registry.was_full


def test_where_one_goes_there_is_room_for_another() -> None:
    desk = Desk(rule(), limit=1)
    desk.see("T:0", busy=1)
    desk.see("T:1", busy=1)
    desk.see("T:0", busy=0)
    assert not desk.registry.is_full
    desk.see("T:1", busy=1)
    assert desk.raised("T:1") == ["busy"]


# ---- asking --------------------------------------------------------------------------------------


def found(desk: Desk, wanted: Wanted = EVERYTHING, after: str = "") -> dict[str, list[str]]:
    return {
        key: [alarm["type"] for alarm in alarms]
        for key, alarms in desk.registry.find(wanted, after)
        if alarms
    }


@pytest.fixture
def busy_desk() -> Desk:
    desk = Desk(rule("major"), rule("minor", severity=2), rule("other", "R", severity=0))
    desk.see("T:b", major=1, minor=1)
    desk.see("T:a", minor=1)
    desk.see("R:a", other=1)
    return desk


def test_alarms_are_found_in_the_order_of_keys(busy_desk: Desk) -> None:
    assert list(found(busy_desk).items()) == [
        ("R:a", ["other"]),
        ("T:a", ["minor"]),
        ("T:b", ["major", "minor"]),
    ]
    assert list(found(busy_desk, after="R:a")) == ["T:a", "T:b"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(tables=["R"]), {"R:a": ["other"]}),
        (Wanted(patterns=["*:a"]), {"R:a": ["other"], "T:a": ["minor"]}),
        (Wanted(patterns=["*:a"], tables=["T"]), {"T:a": ["minor"]}),
        (Wanted(severities=[2]), {"T:a": ["minor"], "T:b": ["minor"]}),
        (Wanted(severities=[0, 1]), {"R:a": ["other"], "T:b": ["major"]}),
        (Wanted(ack=True), {"T:a": ["minor"]}),
        (Wanted(ack=False, tables=["T"]), {"T:b": ["major", "minor"]}),
    ],
)
def test_filters_leave_what_they_say(
    busy_desk: Desk, wanted: Wanted, expected: Mapping[str, list[str]]
) -> None:
    token = busy_desk.registry.alarms("T:a")[0]["token"]
    busy_desk.registry.acknowledge("T:a", "minor", token, busy_desk.moment())
    assert found(busy_desk, wanted) == expected


# ---- other rules ---------------------------------------------------------------------------------


def test_what_rules_that_stay_have_come_to_is_kept() -> None:
    desk = Desk(rule("a"), rule("b"))
    desk.see(a=1, b=1)
    desk.kinds()
    desk.take_on(rule("b"), rule("c"))
    assert desk.kinds() == [Kind.CLEARED]
    assert desk.raised() == ["b"]
    assert desk.registry.alarms("T:a")[0]["token"] == "token-2"


def test_a_rule_that_says_something_else_of_itself_is_told() -> None:
    desk = Desk(rule())
    desk.see(busy=1)
    desk.kinds()
    desk.take_on(rule(severity=0, description="worse"))
    assert desk.kinds() == [Kind.CHANGED]
    (alarm,) = desk.registry.alarms("T:a")
    assert (alarm["severity"], alarm["description"], alarm["token"]) == (0, "worse", "token-1")


def test_an_alarm_of_a_key_that_the_rule_is_no_longer_for_is_cleared() -> None:
    desk = Desk(rule())
    desk.see("T:a", busy=1)
    desk.see("T:b", busy=1)
    desk.kinds()
    desk.take_on(rule(table="T:b"))
    assert sorted(desk.kinds()) == [Kind.CHANGED, Kind.CLEARED]
    assert found(desk) == {"T:b": ["busy"]}


# ---- snapshots -----------------------------------------------------------------------------------


def states(desk: Desk) -> dict[str, int]:
    return {state.name: count for state, count in desk.registry.states.items() if count}


STATES: dict[str, list[dict[str, int]]] = {
    "SOAK_ACTIVE": [{"busy": 1}],
    "ACTIVE": [{"busy": 1}, {"wait": 10}],
    "SOAK_IDLE": [{"busy": 1}, {"wait": 10}, {"busy": 0}],
    "IDLE": [{"busy": 1}, {"busy": 0}],
}
"""What leads to each state where a machine is kept."""


def led_to(state: str) -> tuple[Desk, Rule]:
    frequent: dict[str, Any] = {"freq_exceeded_check": True, "freq_check_times": 2}
    soaking = rule(active_timer=10, idle_timer=20, freq_check_seconds=60, **frequent)
    desk = Desk(soaking)
    for step in STATES[state]:
        if "wait" in step:
            desk.wait(step["wait"], busy=1)
        else:
            desk.see(busy=step["busy"])
    assert states(desk) == {state: 1}
    return desk, soaking


@pytest.mark.parametrize("state", STATES)
def test_each_state_comes_back_as_it_was(state: str) -> None:
    desk, soaking = led_to(state)
    other = desk.again(soaking)
    assert states(other) == states(desk)
    assert other.registry.alarms("T:a") == desk.registry.alarms("T:a")


@pytest.mark.parametrize("state", ["ACTIVE", "SOAK_IDLE"])
def test_what_was_raised_is_not_raised_again(state: str) -> None:
    desk, soaking = led_to(state)
    other = desk.again(soaking)
    assert other.kinds() == [Kind.RESTORED]
    other.see(busy=7)
    assert other.kinds() == []
    assert other.registry.alarms("T:a") == desk.registry.alarms("T:a")


def test_a_timer_goes_on_where_it_was() -> None:
    desk, soaking = led_to("SOAK_ACTIVE")
    desk.wait(4, busy=1)
    other = desk.again(soaking, later=3)
    other.wait(2.9, busy=1)
    assert other.kinds() == []
    other.wait(0.2, busy=1)
    assert other.kinds() == [Kind.RAISED]


def test_a_timer_that_ran_out_meanwhile_is_due_at_once() -> None:
    desk, soaking = led_to("SOAK_IDLE")
    other = desk.again(soaking, later=500)
    other.kinds()
    other.wait(0, busy=0)
    assert other.kinds() == [Kind.CLEARED]


def test_an_acknowledgement_comes_back() -> None:
    desk, soaking = led_to("ACTIVE")
    token = desk.registry.alarms("T:a")[0]["token"]
    desk.registry.acknowledge("T:a", "busy", token, desk.moment())
    other = desk.again(soaking)
    assert other.registry.alarms("T:a")[0]["ack"] is True
    assert other.registry.acknowledged == 1


def test_how_often_an_alarm_came_comes_back() -> None:
    desk, soaking = led_to("IDLE")
    other = desk.again(soaking)
    for value in (1, 0, 1):
        other.see(busy=value)
    assert other.kinds() == [Kind.RAISED]


def test_of_a_rule_that_is_gone_nothing_comes_back() -> None:
    desk, _ = led_to("ACTIVE")
    other = desk.again(rule("another"))
    assert (other.kinds(), other.registry.held) == ([], 0)


def test_of_a_key_that_its_rule_is_no_longer_for_nothing_comes_back() -> None:
    desk, _ = led_to("ACTIVE")
    assert desk.again(rule(table="T:b*")).registry.held == 0


def test_no_more_comes_back_than_the_limit_allows() -> None:
    desk = Desk(rule())
    for number in range(5):
        desk.see(f"T:{number}", busy=1)
    other = desk.again(rule(), limit=3)
    assert (other.registry.held, other.registry.counters["alarms_refused"]) == (3, 2)


def broken(row: list[Any]) -> Iterator[Any]:
    yield []
    yield 5
    yield [1]
    yield [2, []]
    yield [1, [5]]
    yield [1, [["T:a"]]]
    yield [1, [[5, *row[1:]]]]
    for at in range(2, len(row)):
        yield [1, [[*row[:at], {"no": "such thing"}, *row[at + 1 :]]]]
        yield [1, [row[:at]]]


def test_what_is_no_such_state_is_refused_and_changes_nothing() -> None:
    desk, soaking = led_to("SOAK_IDLE")
    _, (row,) = msgpack.unpackb(desk.registry.capture(desk.offset).packed())
    for saved in broken(row):
        other = Desk(soaking)
        with pytest.raises(ValueError, match="alarm"):
            other.registry.restore(msgpack.packb(saved), OFFSET, other.moment())
        assert (other.registry.held, other.told) == (0, [])


def test_what_is_captured_does_not_change_any_more() -> None:
    desk = Desk(rule())
    desk.see(busy=1)
    captured = desk.registry.capture(OFFSET)
    before = captured.packed()
    desk.see(busy=0)
    assert captured.packed() == before
    assert captured.version < desk.registry.capture(OFFSET).version


def test_counts_are_those_of_the_machines_there_are() -> None:
    desk = Desk(rule("a", active_timer=5), rule("b", idle_timer=5), rule("c"))
    for number in range(4):
        desk.see(f"T:{number}", a=1, b=1, c=1)
    desk.see("T:0", a=0, b=0, c=0)
    desk.see("T:1")
    expected = {State.SOAK_ACTIVE: 2, State.ACTIVE: 4, State.SOAK_IDLE: 2}
    assert {state: count for state, count in desk.registry.states.items() if count} == expected
    assert desk.registry.held == 8
