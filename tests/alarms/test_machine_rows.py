"""Alarms in a snapshot: what a restart brings back in each state, and rows that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alarms.living import (
    LIVES,
    OFTEN,
    SECOND,
    SLOWLY,
    START,
    Life,
    active,
    check,
    found,
    make_rule,
    soak_active,
    soak_idle,
)
from collectord.alarms import evaluation
from collectord.alarms import machine as machines
from collectord.alarms.machine import IDLE, State

# ---- a restart ---------------------------------------------------------------------------------


def restarted(life: Life, down: int, wall_set: int = 0, offset: int = 5 * SECOND) -> None:
    """A snapshot, ``down`` microseconds in which nobody is there, and a start on a new clock.

    ``offset`` is the wall clock's from the steady one before; ``wall_set`` by how much somebody
    sets it meanwhile. The new steady clock begins where the wall clock stands.
    """
    row = msgpack.unpackb(msgpack.packb(machines.pack(life.machine, offset)))
    life.now = life.now + offset + down + wall_set
    life.machine = machines.unpack(row, life.timers, life.now, 0)


class TestRestart:
    @pytest.mark.parametrize("make", LIVES)
    def test_everything_is_there_again(self, make: Callable[[], Life]) -> None:
        life = make()
        before = life.machine
        restarted(life, down=SECOND)
        deadline = before.deadline and before.deadline + 5 * SECOND
        assert life.machine == before._replace(deadline=deadline)

    def test_a_machine_that_has_nothing_is_idle(self) -> None:
        assert machines.unpack(machines.pack(IDLE, 5), SLOWLY, START, 0) is IDLE

    def test_arrivals_are_there_again(self) -> None:
        life = Life(OFTEN)
        for _ in range(3):
            life.after(1).sees(None)
            life.after(1).sees(found())
        arrivals = life.machine.arrivals
        restarted(life, down=SECOND)
        assert life.machine.arrivals == tuple(arrival + 5 * SECOND for arrival in arrivals)
        assert len(arrivals) == 3

    def test_what_a_rule_finds_is_the_same_alarm_as_before(self) -> None:
        rule = evaluation.compile_rule(make_rule(active_timer=0))
        life = Life(machines.timers(rule.rule))
        life.sees(rule.holds({"S": {"a": 1, "b": "text"}}))
        restarted(life, down=SECOND)
        before = life.machine
        assert life.sees(rule.holds({"S": {"a": 1, "b": "text"}})) is before

    def test_the_acknowledgement_is_there_again(self) -> None:
        life = active()
        before = life.is_acknowledged()
        restarted(life, down=SECOND)
        assert life.machine == before

    @pytest.mark.parametrize(
        ("make", "then"), [(soak_active, State.ACTIVE), (soak_idle, State.IDLE)]
    )
    def test_a_deadline_that_passed_meanwhile_is_for_the_first_look(
        self, make: Callable[[], Life], then: State
    ) -> None:
        life = make()
        state = life.machine.state
        restarted(life, down=3600 * SECOND)
        assert life.machine.state is state
        assert life.looks().state is then

    @pytest.mark.parametrize(("make", "timer"), [(soak_active, 10), (soak_idle, 20)])
    def test_a_clock_that_was_set_back_makes_no_timer_longer(
        self, make: Callable[[], Life], timer: int
    ) -> None:
        life = make()
        restarted(life, down=SECOND, wall_set=-86400 * SECOND)
        assert life.machine.deadline == life.now + timer * SECOND

    def test_arrivals_of_a_clock_that_was_set_back_came_now(self) -> None:
        life = Life(OFTEN)
        life.sees(found())
        life.after(1).sees(None)
        restarted(life, down=SECOND, wall_set=-3600 * SECOND)
        assert life.machine.arrivals == (life.now,)
        assert life.machine.deadline == life.now + 60 * SECOND + 1

    def test_arrivals_that_no_longer_count_are_forgotten(self) -> None:
        life = Life(OFTEN)
        life.sees(found())
        life.after(1).sees(None)
        restarted(life, down=60 * SECOND)
        assert life.machine is IDLE

    @pytest.mark.parametrize("make", LIVES)
    @pytest.mark.parametrize("wall_set", [-START - 99 * SECOND, -START, START])
    def test_no_clock_is_too_wrong(self, make: Callable[[], Life], wall_set: int) -> None:
        life = make()
        state = life.machine.state
        row = machines.pack(life.machine, wall_set)
        machine = machines.unpack(row, life.timers, 1, 0)
        assert machine.state is state
        assert 0 <= machine.deadline <= 1 + 20 * SECOND


# ---- hostile rows ------------------------------------------------------------------------------

GOOD = [machines.pack(make().machine, 0) for make in LIVES]


def changed(row: list[Any], place: int, value: Any) -> list[Any]:
    return [*row[:place], value, *row[place + 1 :]]


BAD: dict[str, Any] = {
    "nothing": None,
    "a text": "Idle",
    "too short": GOOD[0][:-1],
    "too long": [*GOOD[0], None],
    "a state there isn't": changed(GOOD[0], 0, 4),
    "a state that is no number": changed(GOOD[0], 0, "IDLE"),
    "a state that is true": changed(GOOD[1], 0, True),
    "a state that is a float": changed(GOOD[1], 0, 1.0),
    "a deadline too many": changed(GOOD[2], 1, START),
    "a deadline too few": changed(GOOD[1], 1, None),
    "a deadline that is a float": changed(GOOD[1], 1, float("nan")),
    "a deadline that no clock shows": changed(GOOD[1], 1, 1 << 63),
    "arrivals that are none": changed(GOOD[0], 2, None),
    "an arrival that is a text": changed(GOOD[0], 2, ["1"]),
    "arrivals in disorder": changed(GOOD[0], 2, [2, 1]),
    "idle with a match": changed(GOOD[0], 3, found()),
    "active without a match": changed(GOOD[2], 3, None),
    "an empty match": changed(GOOD[2], 3, []),
    "a match that is a map": changed(GOOD[2], 3, {}),
    "a match with another word": changed(GOOD[2], 3, [{"and_list": [], "or_list": []}]),
    "a match without a condition": changed(GOOD[2], 3, [{"and_list": [{"match": []}]}]),
    "a match of bytes": changed(GOOD[2], 3, [{b"and_list": []}]),
    "soaking and raised": changed(GOOD[1], 4, GOOD[2][4]),
    "active and not raised": changed(GOOD[2], 4, None),
    "raised with too little": changed(GOOD[2], 4, [START, "t"]),
    "a token that is none": changed(GOOD[2], 4, [START, "", False]),
    "a token that is a number": changed(GOOD[2], 4, [START, 1, False]),
    "an ack that is a number": changed(GOOD[2], 4, [START, "t", 0]),
    "a timestamp that is none": changed(GOOD[2], 4, [None, "t", False]),
}


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


class TestHostileRows:
    @pytest.mark.parametrize("name", BAD)
    def test_what_is_no_row_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="alarm"):
            machines.unpack(BAD[name], SLOWLY, START, 0)

    @pytest.mark.parametrize("place", range(5))
    def test_what_is_deep_is_refused(self, place: int) -> None:
        with pytest.raises(ValueError, match="alarm"):
            machines.unpack(changed(GOOD[2], place, deep(900)), SLOWLY, START, 0)

    def test_the_place_in_the_match_is_said(self) -> None:
        broken = found()
        broken[0]["and_list"][0]["match"][0]["json_operand1_value"] = 5
        with pytest.raises(ValueError, match=r"0\.and_list\.0\.match\.0\.json_operand1_value"):
            machines.unpack(changed(GOOD[2], 3, broken), SLOWLY, START, 0)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["and_list", "condition", "match", "operand2", "json_variables"])
            | st.text(max_size=2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in ``value`` with each of its keys."""
    if not isinstance(value, (list, dict)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def broken_rows(draw: st.DrawFn) -> Any:
    row = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(0, 2))):
        if inside := places(row):
            container, key = draw(st.sampled_from(inside))
            container[key] = draw(anything)
    return draw(st.just(row) | anything)


class TestAnyRow:
    @settings(max_examples=400)
    @given(broken_rows())
    def test_whatever_is_taken_can_live_on(self, row: Any) -> None:
        try:
            machine = machines.unpack(row, SLOWLY, START, 0)
        except ValueError:
            return
        check(machine, SLOWLY, START)
        life = Life(SLOWLY)
        life.machine = machine
        life.sees(found())
        life.after(30).sees(None)
        life.after(30).looks()
        again = msgpack.unpackb(msgpack.packb(machines.pack(machine, 0)), strict_map_key=False)
        assert machines.unpack(again, SLOWLY, START, 0) == machine
