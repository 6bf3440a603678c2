"""The state machine of an alarm: each transition by example."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from alarms.living import (
    AT_ONCE,
    LIVES,
    OFTEN,
    SECOND,
    SLOWLY,
    START,
    Life,
    active,
    found,
    make_rule,
    soak_active,
    soak_idle,
)
from collectord.alarms import machine as machines
from collectord.alarms.machine import IDLE, Machine, Raised, State, Timers


class TestTimers:
    def test_they_are_the_rules_in_microseconds(self) -> None:
        timers = machines.timers(make_rule(active_timer=3, idle_timer=4))
        assert timers == Timers(3 * SECOND, 4 * SECOND, 0, 0)

    def test_the_frequency_check_counts_where_it_is_on(self) -> None:
        numbers = {"freq_check_times": 2, "freq_check_seconds": 60}
        on = make_rule(freq_exceeded_check=True, **numbers)
        assert machines.timers(on) == Timers(0, 0, 2, 60 * SECOND)
        off = make_rule(freq_exceeded_check=False, **numbers)
        assert machines.timers(off) == Timers(0, 0, 0, 0)


class TestIdle:
    def test_nothing_stays_the_same_object_while_nothing_holds(self) -> None:
        assert Life(SLOWLY).sees(None) is IDLE

    def test_what_holds_is_raised_at_once_without_an_active_timer(self) -> None:
        life = Life(AT_ONCE)
        assert life.sees(found()) == Machine(
            State.ACTIVE, 0, (), found(), Raised(START + 7, "t1", False)
        )

    def test_what_holds_waits_for_the_active_timer(self) -> None:
        life = Life(SLOWLY)
        machine = life.sees(found())
        assert machine == Machine(State.SOAK_ACTIVE, START + 10 * SECOND, (), found(), None)
        assert life.tokens == 0


class TestSoakActive:
    def test_what_holds_no_more_is_forgotten(self) -> None:
        life = soak_active()
        assert life.after(9).sees(None) is IDLE
        assert life.tokens == 0

    def test_what_still_holds_is_renewed_and_the_deadline_stays(self) -> None:
        life = soak_active()
        machine = life.after(9).sees(found(6, "eth1"))
        assert machine == Machine(
            State.SOAK_ACTIVE, START + 10 * SECOND, (), found(6, "eth1"), None
        )

    def test_at_the_deadline_the_alarm_is_raised_with_what_held_last(self) -> None:
        life = soak_active()
        life.after(9).sees(found(6))
        assert life.after(1).looks() == Machine(
            State.ACTIVE, 0, (), found(6), Raised(START + 10 * SECOND + 7, "t1", False)
        )

    def test_before_the_deadline_nothing_changes(self) -> None:
        life = soak_active()
        before = life.machine
        life.now = before.deadline - 1
        assert life.looks() is before


class TestActive:
    def test_the_same_alarm_stays_the_same_object(self) -> None:
        life = active()
        before = life.machine
        assert life.after(1).sees(found()) is before
        assert life.after(1).sees(found(6)) is before

    def test_another_match_is_a_new_alarm(self) -> None:
        life = active()
        life.is_acknowledged()
        machine = life.after(5).sees(found(5, "eth1"))
        assert machine == Machine(
            State.ACTIVE, 0, (), found(5, "eth1"), Raised(life.now + 7, "t2", False)
        )

    def test_what_holds_no_more_is_cleared_at_once_without_an_idle_timer(self) -> None:
        assert active(AT_ONCE).after(5).sees(None) is IDLE

    def test_what_holds_no_more_stays_raised_until_the_idle_timer(self) -> None:
        life = active()
        before = life.machine
        machine = life.after(5).sees(None)
        assert machine == before._replace(state=State.SOAK_IDLE, deadline=life.now + 20 * SECOND)

    def test_it_has_no_deadline(self) -> None:
        life = active()
        before = life.machine
        assert life.after(1e6).looks() is before


class TestSoakIdle:
    def test_the_same_alarm_goes_on_with_its_token_and_its_acknowledgement(self) -> None:
        life = active()
        before = life.is_acknowledged()
        life.after(5).sees(None)
        assert life.after(19).sees(found(6)) == before
        assert life.tokens == 1

    def test_another_match_is_a_new_alarm(self) -> None:
        life = soak_idle()
        machine = life.after(19).sees(found(5, "eth1"))
        assert machine == Machine(
            State.ACTIVE, 0, (), found(5, "eth1"), Raised(life.now + 7, "t2", False)
        )

    def test_what_holds_no_more_does_not_put_off_the_deadline(self) -> None:
        life = soak_idle()
        before = life.machine
        assert life.after(19).sees(None) is before

    def test_at_the_deadline_it_is_cleared(self) -> None:
        life = soak_idle()
        assert life.after(20).looks() is IDLE

    def test_what_is_seen_comes_before_a_deadline_that_has_passed(self) -> None:
        life = soak_idle()
        before = life.machine
        after = life.after(20).sees(found())
        assert (after.state, after.raised) == (State.ACTIVE, before.raised)


class TestFrequency:
    def comes(self, life: Life, *gaps: float) -> list[State]:
        """The state when it comes, so many seconds after the last time; a second later it goes."""
        states = []
        for gap in gaps:
            states.append(life.after(gap).sees(found()).state)
            life.after(1).sees(None)
            life.after(-1)
        return states

    def test_it_is_raised_at_once_when_it_came_more_than_so_many_times(self) -> None:
        assert self.comes(Life(OFTEN), 0, 30, 30) == [
            State.SOAK_ACTIVE,
            State.SOAK_ACTIVE,
            State.ACTIVE,
        ]

    def test_it_is_not_when_the_oldest_of_them_is_too_old(self) -> None:
        states = self.comes(Life(OFTEN), 0, 30, 30.000_001)
        assert states == [State.SOAK_ACTIVE] * 3

    def test_what_goes_on_has_come_once(self) -> None:
        life = Life(OFTEN)
        assert [life.after(1).sees(found()).state for _ in range(9)] == [State.SOAK_ACTIVE] * 9

    def test_no_more_are_kept_than_it_asks_for(self) -> None:
        life = Life(OFTEN)
        self.comes(life, *[1] * 9)
        assert life.machine.arrivals == tuple(START + gap * SECOND for gap in (7, 8, 9))

    def test_idle_keeps_them_while_they_count_and_not_longer(self) -> None:
        life = Life(OFTEN)
        self.comes(life, 0)
        life.after(60)
        assert life.looks() == Machine(State.IDLE, life.now + 1, (START,), None, None)
        life.now += 1
        assert life.looks() is IDLE

    def test_an_alarm_that_was_raised_longer_than_they_count_leaves_nothing(self) -> None:
        life = Life(OFTEN)
        life.sees(found())
        assert life.after(10).looks().arrivals == (START,)
        assert life.after(60).sees(None) is IDLE


class TestAcknowledged:
    def test_it_is_marked_and_nothing_else(self) -> None:
        life = active()
        before = life.machine
        assert before.raised is not None
        expected = before._replace(raised=before.raised._replace(ack=True))
        assert life.is_acknowledged() == expected

    def test_twice_is_once(self) -> None:
        life = active()
        before = life.is_acknowledged()
        assert life.is_acknowledged() is before

    @pytest.mark.parametrize("make", [LIVES[0], soak_active])
    def test_what_is_not_raised_stays_as_it_is(self, make: Callable[[], Life]) -> None:
        life = make()
        before = life.machine
        assert life.is_acknowledged() is before


class TestRetimed:
    def test_a_shorter_timer_ends_sooner(self) -> None:
        life = soak_active()
        machine = machines.retimed(life.machine, Timers(active=2 * SECOND), life.now + SECOND)
        assert machine == life.machine._replace(deadline=START + 3 * SECOND)

    def test_a_longer_timer_puts_nothing_off(self) -> None:
        life = soak_idle()
        assert machines.retimed(life.machine, Timers(idle=99 * SECOND), life.now) == life.machine

    def test_without_the_timer_the_next_look_ends_it(self) -> None:
        life = soak_idle()
        life.machine = machines.retimed(life.machine, AT_ONCE, life.now)
        assert life.looks() is IDLE

    def test_without_the_frequency_check_arrivals_are_forgotten(self) -> None:
        life = Life(OFTEN)
        life.sees(found())
        life.sees(None)
        assert life.machine.arrivals
        assert machines.retimed(life.machine, AT_ONCE, life.now) == IDLE
