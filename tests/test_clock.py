"""The two clocks, on a machine whose clock is set forward and back."""

from collectord.clock import FOLLOWED_AFTER, Clock

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


class Machine:
    """A clock and its hands, in microseconds."""

    def __init__(self) -> None:
        self.time = START
        self.uptime = 17
        self.clock = Clock(lambda: self.time * 1000, lambda: self.uptime * 1000)

    def runs(self, seconds: float) -> None:
        self.time += round(seconds * SECOND)
        self.uptime += round(seconds * SECOND)

    def is_set(self, seconds: float) -> None:
        self.time += round(seconds * SECOND)


def test_the_steady_clock_starts_at_the_time_and_is_never_set() -> None:
    machine = Machine()
    assert machine.clock.steady() == machine.clock.wall() == START
    machine.runs(5)
    machine.is_set(-3600)
    assert machine.clock.steady() == START + 5 * SECOND
    assert machine.clock.wall() == START - 3595 * SECOND


def test_periods_close_by_the_machine_s_clock() -> None:
    machine = Machine()
    machine.runs(5)
    assert machine.clock.closing() == START + 5 * SECOND
    assert machine.clock.steps == 0


def test_a_step_forward_is_followed_when_open_periods_are_over() -> None:
    machine = Machine()
    machine.is_set(3600)
    assert machine.clock.closing() == START
    machine.runs(FOLLOWED_AFTER / SECOND - 1)
    assert machine.clock.closing() == START + FOLLOWED_AFTER - SECOND
    machine.runs(1)
    assert machine.clock.closing() == machine.time
    machine.runs(1)
    assert machine.clock.closing() == machine.time
    assert machine.clock.steps == 1


def test_a_step_back_is_followed_at_once() -> None:
    machine = Machine()
    machine.is_set(-3600)
    assert machine.clock.closing() == START - 3600 * SECOND
    assert machine.clock.steps == 1


def test_a_step_that_is_taken_back_was_none() -> None:
    machine = Machine()
    machine.is_set(3600)
    machine.clock.closing()
    machine.runs(60)
    machine.is_set(-3600)
    assert machine.clock.closing() == START + 60 * SECOND
    machine.runs(60)
    assert machine.clock.closing() == START + 120 * SECOND


def test_each_step_forward_is_followed_in_its_own_time() -> None:
    machine = Machine()
    machine.is_set(-5)
    machine.clock.closing()
    machine.is_set(5)
    machine.clock.closing()
    machine.runs(60)
    machine.is_set(86_400)
    for _ in range(64):
        assert machine.clock.closing() == machine.time - 86_405 * SECOND
        machine.runs(1)
    machine.runs(1)
    assert machine.clock.closing() == machine.time
    assert machine.clock.steps == 3


def test_a_clock_that_is_slewed_is_followed_without_a_step() -> None:
    machine = Machine()
    for _ in range(100):
        machine.runs(1)
        machine.is_set(0.1)
        assert machine.clock.closing() == machine.time
    assert machine.clock.steps == 0
