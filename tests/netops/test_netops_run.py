"""A run: which steps it sends, when, in which blocks, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from collectord.netops import run as runs
from collectord.netops.block import SECOND, Block, Simulation
from collectord.netops.configuration import Configuration
from collectord.netops.run import Progress, Run
from collectord.netops.target import TargetError
from daemon import until
from netops.simulated import Counting, Memory, Stuck

NOON = 1_600_000_000 * SECOND
"""Not at the beginning of a minute: 40 s into one."""
END = 10.0

MakeRun = Callable[..., Run]


class Clock:
    """A clock that stands still unless it is set."""

    def __init__(self, time: int = NOON) -> None:
        self.time = time

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Simulation]:
    """What there is to simulate, in place of a configuration's network."""
    there: list[Simulation] = [Counting()]
    monkeypatch.setattr(runs, "simulations", lambda _: there)
    monkeypatch.setattr(runs, "LOOK_AGAIN", 0.01)
    return there


@pytest.fixture
def make(simulated: list[Simulation]) -> Iterator[MakeRun]:
    """Makes runs that end with the test at the latest."""
    made: list[Run] = []

    def make_run(target: Any, interval: float = 1, **settings: Any) -> Run:
        made.append(Run(Configuration(interval=interval), target, **settings))
        return made[-1]

    yield make_run
    for run in made:
        run.stop()


def end(run: Run) -> Progress:
    """Let it run to its end; how far it came."""
    run.start()
    assert run.join(END)
    return run.progress()


def test_history_has_every_step_before_the_live_ones_once_and_in_order(make: MakeRun) -> None:
    target = Memory()
    progress = end(make(target, history=86_400, duration=0, clock=Clock()))

    assert target.times == [NOON - (86_400 - step) * SECOND for step in range(86_400)]
    assert target.values.tolist() == list(range(86_400))
    assert (progress.state, progress.history_done, progress.history_steps) == (
        "stopped",
        86_400,
        86_400,
    )
    assert progress.values == 2 * 86_400
    assert progress.time == NOON - SECOND
    assert target.is_closed


def test_steps_are_at_whole_multiples_of_the_interval(make: MakeRun) -> None:
    target = Memory()
    end(make(target, history=70, interval=7, duration=0, clock=Clock(NOON + 123_456)))

    assert all(time % (7 * SECOND) == 0 for time in target.times)
    assert len(target.times) == 10
    assert NOON - 7 * SECOND <= target.times[-1] + 7 * SECOND <= NOON


def test_no_block_of_history_is_longer_than_the_target_wants(make: MakeRun) -> None:
    target = Memory(block_seconds=420)
    end(make(target, history=3_600, duration=0, clock=Clock()))

    assert max(block.steps for block in target.blocks) == 420


def test_a_block_of_history_ends_with_a_minute(make: MakeRun) -> None:
    target = Memory(block_seconds=420)
    end(make(target, history=3_600, duration=0, clock=Clock()))

    *before, _ = target.blocks
    assert {(int(block.times[-1]) + SECOND) % (60 * SECOND) for block in before} == {0}


def test_an_interval_longer_than_a_block_gives_blocks_of_one_step(make: MakeRun) -> None:
    target = Memory(block_seconds=420)
    end(make(target, history=36_000, interval=3_600, duration=0, clock=Clock()))

    assert [block.steps for block in target.blocks] == [1] * 10


def test_a_large_network_has_short_blocks_but_whole_minutes(
    make: MakeRun, simulated: list[Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "BLOCK_VALUES", 100)
    simulated[:] = [Counting(emitters=20)]
    target = Memory()
    end(make(target, history=600, duration=0, clock=Clock()))

    minutes = [set((block.times // (60 * SECOND)).tolist()) for block in target.blocks]
    assert all(len(one) == 1 for one in minutes)
    assert len(minutes) == len(set().union(*minutes))


def test_no_block_is_sent_before_the_one_before_has_arrived(make: MakeRun) -> None:
    target = Memory(block_seconds=60)
    end(make(target, history=600, duration=0, clock=Clock()))

    sent = len(target.blocks)
    assert target.flushes[:sent] == list(range(sent))
    assert target.flushes[-1] == sent


def test_parts_of_the_network_live_at_the_same_times(
    make: MakeRun, simulated: list[Simulation]
) -> None:
    simulated.append(Counting(emitters=1))
    target = Memory()
    progress = end(make(target, history=1_000, duration=0, clock=Clock()))

    pairs = zip(target.blocks[::2], target.blocks[1::2], strict=True)
    assert all(np.array_equal(one.times, other.times) for one, other in pairs)
    assert progress.values == 3 * 1_000


def test_a_network_without_anybody_in_it_runs_too(
    make: MakeRun, simulated: list[Simulation]
) -> None:
    simulated.clear()
    progress = end(make(Memory(), history=1_000, duration=0, clock=Clock()))

    assert (progress.state, progress.values, progress.history_done) == ("stopped", 0, 1_000)


def test_live_a_step_goes_out_once_the_clock_is_there_and_not_before(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, clock=clock)
    run.start()
    until(lambda: target.times == [NOON])

    clock.time = NOON + SECOND - 1
    looks = len(target.flushes)
    assert not run.join(0.1)
    assert (target.times, len(target.flushes)) == ([NOON], looks)

    clock.time = NOON + SECOND
    until(lambda: target.times == [NOON, NOON + SECOND])
    assert run.progress().state == "generating"


def test_live_follows_history_without_a_gap(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, history=10, clock=clock)
    run.start()
    until(lambda: len(target.times) == 11)

    assert target.times == [NOON + step * SECOND for step in range(-10, 1)]
    assert target.values.tolist() == list(range(11))


def test_what_was_missed_in_a_sleep_goes_out_in_few_blocks(make: MakeRun) -> None:
    target, clock = Memory(block_seconds=420), Clock()
    make(target, clock=clock).start()
    until(lambda: len(target.times) == 1)

    clock.time += 3_600 * SECOND
    until(lambda: len(target.times) == 3_601)

    assert target.times == [NOON + step * SECOND for step in range(3_601)]
    assert len(target.blocks) <= 1 + 3_600 // 420 + 2


def test_nothing_is_sent_twice_when_the_clock_is_set_back(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, clock=clock)
    run.start()
    until(lambda: len(target.times) == 1)

    clock.time -= 10 * SECOND
    assert not run.join(0.1)
    clock.time += 11 * SECOND
    until(lambda: len(target.times) == 2)

    assert target.times == [NOON, NOON + SECOND]


def test_a_faster_run_begins_as_much_earlier_as_it_gains(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, speed=60, duration=10, history=5, clock=clock)
    start = NOON - 59 * 10 * SECOND
    run.start()
    until(lambda: len(target.times) == 6)
    assert target.times == [start + step * SECOND for step in range(-5, 1)]

    clock.time += SECOND
    until(lambda: len(target.times) == 66)
    clock.time += 60 * SECOND
    assert run.join(END)

    assert target.times[-1] == NOON + 10 * SECOND
    assert np.diff(target.times).tolist() == [SECOND] * (5 + 600)


def test_a_faster_run_goes_on_with_the_clock_when_it_has_reached_it(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    make(target, speed=2, clock=clock).start()
    until(lambda: len(target.times) == 1)
    assert target.times == [NOON - 600 * SECOND]

    clock.time += 5_000 * SECOND
    until(lambda: target.times[-1] == clock.time)
    clock.time += SECOND
    until(lambda: target.times[-1] == clock.time)


def test_a_duration_ends_it_and_all_that_was_due_in_it_is_sent(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, duration=5, clock=clock)
    run.start()
    until(lambda: target.times)
    clock.time += 100 * SECOND
    assert run.join(END)

    assert target.times == [NOON + step * SECOND for step in range(6)]
    assert target.flushes[-1] == len(target.blocks)
    assert run.progress().state == "stopped"


def test_progress_tells_what_it_is_at(make: MakeRun) -> None:
    target = Stuck()
    run = make(target, history=100, clock=Clock())
    assert run.progress() == Progress(history_steps=100)

    run.start()
    assert target.has_begun.wait(END)
    assert run.progress().state == "priming"


def test_progress_tells_rate_and_time_left(make: MakeRun) -> None:
    target, clock = Memory(), Clock()
    run = make(target, duration=1_000, clock=clock)
    run.start()
    until(lambda: run.progress().values == 2)
    progress = run.progress()

    assert progress.rate > 0
    assert progress.seconds_left is not None
    assert 0 < progress.seconds_left <= 1_000


def test_progress_tells_what_the_target_refused(make: MakeRun) -> None:
    target = Memory()
    target.rejected = 7
    assert end(make(target, history=1, duration=0, clock=Clock())).rejected == 7


def test_stop_ends_a_run_that_waits_for_the_clock(make: MakeRun) -> None:
    target = Memory()
    run = make(target, clock=Clock())
    run.start()
    until(lambda: target.times)
    run.stop()

    assert run.progress().state == "stopped"
    assert target.is_closed
    assert target.flushes[-1] == len(target.blocks)


def test_stop_ends_a_run_whose_target_takes_nothing(
    make: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "GRACE", 0.01)
    target = Stuck()
    run = make(target, history=100)
    run.start()
    assert target.has_begun.wait(END)
    run.stop()

    assert run.join(0)
    assert (run.progress().state, run.progress().error) == ("stopped", "")


def test_stop_before_the_start_closes_the_target(make: MakeRun) -> None:
    target = Memory()
    make(target).stop()

    assert target.is_closed


class Failing(Memory):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def send(self, simulation: Simulation, block: Block) -> None:
        raise self._error


def test_a_target_that_fails_ends_the_run_with_its_reason(make: MakeRun) -> None:
    target = Failing(TargetError("nobody is there"))
    progress = end(make(target, history=10))

    assert (progress.state, progress.error) == ("failed", "nobody is there")
    assert target.is_closed


def test_any_other_error_ends_the_run_too(make: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    progress = end(make(Failing(ZeroDivisionError("oh")), history=10))

    assert (progress.state, progress.error) == ("failed", "ZeroDivisionError: oh")
    assert "Traceback" in caplog.text


def test_an_observer_sees_each_block_after_it_was_sent(make: MakeRun) -> None:
    target = Memory()
    seen: list[tuple[Block, int, threading.Thread]] = []

    def observe(simulation: Simulation, block: Block) -> None:
        seen.append((block, len(target.blocks), threading.current_thread()))

    end(make(target, history=2_000, duration=0, observer=observe, clock=Clock()))

    assert [block for block, _, _ in seen] == target.blocks
    assert [count for _, count, _ in seen] == list(range(1, len(seen) + 1))
    assert threading.main_thread() not in {thread for _, _, thread in seen}


@pytest.mark.parametrize(
    "settings",
    [
        {"history": -1},
        {"speed": 0.5},
        {"duration": -1},
        {"history": 1e12},
    ],
)
def test_numbers_that_cannot_be_are_refused(make: MakeRun, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least|1970"):
        make(Memory(), **settings)
