"""Series by example: samples into periods, periods into steps, proxy UVEs that come and go."""

from __future__ import annotations

import math
from typing import Any

import pytest

from collectord.engine import Engine
from driver import DAY, KEY, START, Driver, ewm, plain, record

# ---- periods -------------------------------------------------------------------------------------


def test_a_sample_belongs_to_the_period_of_its_own_time() -> None:
    told = Driver()
    told.sample(1, 0)
    told.sample(2, 59.999999)
    told.sample(4, 60)
    told.advance(300)
    assert told.closed() == [(0, 3), (1, 4)]


def test_a_record_without_a_time_is_of_the_time_of_its_batch() -> None:
    told = Driver()
    told.batch([record({"a": 1}), record({"a": 2}, time=70)], at=80, time=START)
    told.advance(300)
    assert told.closed() == [(0, 1), (1, 2)]


def test_a_batch_without_a_time_is_of_the_time_it_arrives() -> None:
    told = Driver()
    told.tell({"a": 1}, at=61)
    told.advance(300)
    assert told.closed() == [(1, 1)]


@pytest.mark.parametrize("value", [None, True, "1", [1], {"a": 1}, b"1"])
def test_what_is_no_number_is_no_sample(value: object) -> None:
    told = Driver()
    told.tell({"a": value, "b": 1})
    assert told.count("samples") == 0
    assert told.proxies() == {}


def test_what_is_no_metric_is_no_sample() -> None:
    told = Driver()
    told.batch([record({"b": 1}), record({"a": 1}, struct="R")])
    assert told.count("samples") == 0


def test_samples_may_come_in_any_order_within_the_ring() -> None:
    told = Driver()
    for minute in [7, 0, 3, 1, 6, 2, 5, 4]:
        told.sample(minute + 1, minute * 60, at=480)
    told.advance(600)
    assert told.closed() == [(minute, minute + 1) for minute in range(8)]


# ---- what closes a period ------------------------------------------------------------------------


def test_the_clock_closes_a_period_that_ended_and_has_been_silent_for_the_lateness() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    assert told.advance(64.999) == 0
    assert told.advance(65) == 1
    assert told.closed() == [(0, 1)]


def test_a_straggler_holds_its_period_open() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.sample(2, 20, at=64)
    assert told.advance(68.999) == 0
    assert told.advance(69) == 1
    assert told.closed() == [(0, 3)]


def test_a_sample_of_a_later_period_does_not_hold_an_earlier_one_open() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.sample(2, 64.5)
    assert told.advance(65) == 1


def test_a_straggler_of_an_earlier_period_holds_the_later_ones_open() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10, at=62)
    told.sample(2, 70, at=130)
    told.sample(4, 11, at=131)
    assert told.advance(135.999) == 0
    told.advance(136)
    assert told.closed() == [(0, 5), (1, 2)]


def test_a_straggler_of_a_period_that_the_ring_closed_holds_the_later_ones_open() -> None:
    told = Driver(lateness=5)
    told.sample(1, 70, at=480)
    told.sample(2, 10, at=484)
    told.sample(4, 485)
    assert told.closed() == [(0, 2)]
    assert told.advance(488.999) == 0
    told.advance(489)
    assert told.closed() == [(1, 1)]


def test_periods_close_in_order() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.sample(2, 70)
    told.sample(4, 130)
    told.advance(130)
    assert told.closed() == [(0, 1), (1, 2)]
    told.advance(185)
    assert told.closed() == [(2, 4)]


def test_a_sample_eight_periods_later_closes_a_period_at_once() -> None:
    told = Driver(plain(timeout=0))
    told.sample(1, 0)
    told.sample(2, 7 * 60, at=0.1 + 7 * 60)
    assert told.closed() == []
    told.sample(3, 8 * 60)
    assert told.closed() == [(0, 1)]


def test_an_empty_period_closes_when_a_minute_brought_nothing() -> None:
    told = Driver(plain(timeout=3), lateness=5)
    told.sample(1, 50)
    told.sample(2, 55, at=64)
    told.advance(70)
    assert told.closed() == [(0, 3)]
    assert told.advance(124.999) == 0  # neither ended long enough ago nor silent for a minute
    assert told.advance(125) == 1
    assert told.closed() == [(1, 0)]


def test_an_empty_period_stays_open_while_samples_came_within_the_minute() -> None:
    told = Driver(plain(timeout=3), lateness=5)
    told.sample(1, 50, at=70)
    told.advance(75)
    assert told.advance(129.999) == 0
    assert told.advance(130) == 1


def test_a_clock_that_goes_back_closes_nothing_and_loses_nothing() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.advance(-30)
    told.sample(2, 20, at=-30)
    assert told.closed() == []
    told.advance(65)
    assert told.closed() == [(0, 3)]


def test_a_straggler_holds_its_period_open_by_the_clock_that_it_came_by() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.sample(2, 20, at=120)
    assert told.advance(121) == 0
    told.sample(4, 30, at=90)
    assert told.advance(94.999) == 0
    assert told.advance(95) == 1


def test_a_clock_that_was_years_ahead_does_not_stop_what_comes_after() -> None:
    told = Driver(lateness=5)
    told.sample(1, 10)
    told.advance(1000 * DAY)
    assert told.closed() == [(0, 1)]
    told.sample(2, 130)
    told.advance(190)
    assert told.closed() == [(2, 2)]


# ---- late and future -----------------------------------------------------------------------------


def test_a_sample_for_a_closed_period_is_counted_and_dropped_but_its_record_is_kept() -> None:
    told = Driver()
    told.sample(1, 10)
    told.advance(65)
    told.sample(9, 20, at=66)
    assert told.count("samples_late") == 1
    assert told.proxies()["Sum"].value == 1
    assert told.records() == {("S", "h1"): {"a": 9}}


def test_a_late_sample_holds_nothing_open() -> None:
    told = Driver()
    told.sample(1, 10)
    told.advance(65)
    told.sample(2, 70)
    told.sample(9, 20, at=124)
    assert told.advance(125) == 1


def test_a_series_begins_with_the_seven_periods_before_its_first_sample() -> None:
    told = Driver()
    told.sample(8, 7 * 60)
    told.sample(1, 0, at=7 * 60)
    told.sample(9, -1, at=7 * 60)
    assert told.count("samples_late") == 1
    told.advance(600)
    assert [period for period, _ in told.closed()] == [0, 7]


def test_what_was_closed_stays_closed_when_a_series_begins_anew() -> None:
    told = Driver()
    told.sample(1, 0)
    told.advance(180)  # closes two periods, and with the second the proxy UVE ends
    told.sample(2, 200)
    told.sample(4, 119, at=200)
    assert told.count("samples_late") == 1
    told.sample(8, 120, at=200)
    assert told.count("samples_late") == 1


def test_a_sample_more_than_a_minute_in_the_future_is_rejected_with_its_record() -> None:
    told = Driver()
    outcome = told.batch([record({"b": 1, "a": 2}, time=60.000001)], at=0)
    assert [(index, code) for index, code, _ in outcome.rejected] == [(0, "future")]
    assert (outcome.status, outcome.applied) == ("applied", 0)
    assert told.engine.read(KEY) is None


def test_a_sample_a_minute_in_the_future_is_taken() -> None:
    told = Driver()
    told.sample(1, 60, at=0)
    assert told.proxies()["Sum"].staging == 1


def test_a_record_of_the_future_without_samples_is_taken() -> None:
    told = Driver()
    told.tell({"b": 1}, at=0, time=DAY)
    assert told.records() == {("S", "h1"): {"b": 1}}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.0001e100])
def test_a_sample_that_is_not_finite_or_too_great_is_rejected(value: float) -> None:
    told = Driver()
    outcome = told.batch([record({"a": value}), record({"a": 1})])
    assert [(index, code) for index, code, _ in outcome.rejected] == [(0, "bad_value")]
    assert outcome.applied == 1


def test_the_greatest_sample_is_taken() -> None:
    told = Driver(ewm(1.0), plain())
    told.sample(1e100, 0)
    told.sample(-1e100, 60)
    told.advance(300)
    assert all(math.isfinite(step.value) for step in told.steps())


# ---- the life of a proxy UVE ---------------------------------------------------------------------


def test_a_proxy_uve_exists_from_the_first_sample_on() -> None:
    told = Driver(plain(), ewm(0.1))
    told.sample(1, 0)
    assert sorted(told.proxies()) == ["EWM", "Sum"]


def test_staging_is_of_the_newest_period_and_value_of_the_last_whole_one() -> None:
    told = Driver()
    told.sample(1, 0)
    assert (told.proxies()["Sum"].value, told.proxies()["Sum"].staging) == (None, 1)
    told.sample(2, 60)
    told.sample(4, 61)
    assert (told.proxies()["Sum"].value, told.proxies()["Sum"].staging) == (None, 6)
    told.advance(70)
    assert (told.proxies()["Sum"].value, told.proxies()["Sum"].staging) == (1, 6)
    told.advance(130)
    assert (told.proxies()["Sum"].value, told.proxies()["Sum"].staging) == (6, None)


def test_a_proxy_uve_ends_with_its_timeout() -> None:
    told = Driver(plain(timeout=2))
    told.sample(1, 0)
    told.advance(130)
    assert told.proxies()["Sum"].value == 0
    told.advance(190)
    assert told.proxies() == {}
    assert [(step.period, step.deleted) for step in told.steps()] == [
        (0, False),
        (1, False),
        (2, True),
    ]
    assert told.count("proxies_deleted") == 1


def test_the_period_that_ends_a_proxy_uve_is_counted_as_closed() -> None:
    told = Driver(plain(timeout=1))
    told.sample(1, 0)
    assert told.advance(300) == 2
    assert told.count("periods_closed") == 2


def test_a_timeout_of_none_never_ends_a_proxy_uve() -> None:
    told = Driver(plain(timeout=0))
    told.sample(1, 0)
    told.advance(DAY)
    assert told.proxies()["Sum"].value == 0
    assert told.count("proxies_deleted") == 0


def test_the_next_sample_begins_a_new_proxy_uve_without_a_past() -> None:
    told = Driver(ewm(0.5, timeout=1))
    for minute in range(3):
        told.sample(5, minute * 60)
    told.advance(300)
    assert told.proxies() == {}
    told.sample(5, 400)
    told.advance(430)
    assert told.proxies()["EWM"].samples == 1


def test_algorithms_of_one_metric_end_each_with_its_own_timeout() -> None:
    told = Driver(plain("Sum", timeout=1), plain("Count", timeout=3))
    told.sample(1, 0)
    told.advance(130)
    assert sorted(told.proxies()) == ["Count"]
    told.sample(1, 140)
    assert sorted(told.proxies()) == ["Count", "Sum"]
    assert told.proxies()["Sum"].value is None


def test_a_proxy_uve_that_ends_while_later_samples_wait_begins_anew_with_them() -> None:
    told = Driver(plain(timeout=1))
    told.sample(1, 0)
    told.sample(2, 3 * 60, at=3 * 60)
    told.advance(4 * 60 + 5)
    assert [(step.period, step.value, step.deleted) for step in told.steps()] == [
        (0, 1, False),
        (1, 0, True),
        (3, 2, False),
    ]


@pytest.mark.parametrize("reducer", ["Sum", "Count", "Last"])
def test_an_empty_period_within_the_timeout_is_a_step_of_0(reducer: str) -> None:
    told = Driver(ewm(1.0, reducer, timeout=3))
    told.sample(5, 0)
    told.advance(130)
    assert [(step.value, step.samples) for step in told.steps()][1:] == [(0, 2)]


@pytest.mark.parametrize("reducer", ["Avg", "Min", "Max"])
def test_an_empty_period_has_no_mean_and_no_extremes(reducer: str) -> None:
    told = Driver(ewm(1.0, reducer, timeout=3))
    told.sample(5, 0)
    told.advance(130)
    assert [(step.value, step.samples) for step in told.steps()] == [(5, 1)]
    assert told.proxies()["EWM"].value == 5


# ---- history -------------------------------------------------------------------------------------


def test_a_day_of_history_is_lived_in_a_moment() -> None:
    told = Driver(ewm(0.1), plain())
    told.batch([record({"a": minute}, time=minute * 60) for minute in range(1440)], at=DAY)
    told.advance(DAY + 5)
    assert told.proxies()["EWM"].samples == 1440
    assert told.proxies()["Sum"].value == 1439


def test_a_gap_in_history_deletes_and_begins_anew() -> None:
    told = Driver(ewm(1.0, timeout=2))
    minutes = [0, 1, 2, 30, 31]
    told.batch([record({"a": 1}, time=minute * 60) for minute in minutes], at=DAY)
    told.advance(DAY + 5)
    assert [(step.period, step.samples, step.deleted) for step in told.steps()] == [
        (0, 1, False),
        (1, 2, False),
        (2, 3, False),
        (3, 4, False),
        (4, 0, True),
        (30, 1, False),
        (31, 2, False),
    ]


# ---- reducers and detectors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reducer", "value"),
    [("Sum", 6), ("Avg", 2.0), ("Min", -1), ("Max", 5), ("Count", 3), ("Last", 5)],
)
def test_a_reducer_makes_one_number_of_a_period(reducer: str, value: float) -> None:
    told = Driver(plain(reducer))
    for second, sample in enumerate([2, -1, 5]):
        told.sample(sample, second)
    assert told.proxies()[reducer].staging == value
    told.advance(65)
    shown = told.proxies()[reducer].value
    assert (shown, type(shown)) == (value, type(value))


def test_last_is_the_sum_over_sources_of_each_ones_last_sample() -> None:
    told = Driver(plain("Last"))
    told.sample(10, 0, source="h1")
    told.sample(20, 5, source="h2")
    told.sample(11, 30, source="h1")
    assert told.proxies()["Last"].staging == 31


def test_the_last_sample_is_the_one_with_the_latest_time_not_the_one_that_came_last() -> None:
    told = Driver(plain("Last"))
    told.sample(1, 30)
    told.sample(2, 29)
    assert told.proxies()["Last"].staging == 1
    told.sample(3, 30)
    assert told.proxies()["Last"].staging == 3


def test_a_source_that_withdrew_its_value_still_counts_in_the_period_it_was_told_in() -> None:
    told = Driver(plain("Last"))
    told.sample(1, 0, source="h1")
    told.sample(2, 0, source="h2")
    told.tell(None, at=1, source="h1")
    told.sample(4, 61, source="h2")
    assert told.proxies()["Last"].staging == 4
    told.advance(70)
    assert told.proxies()["Last"].value == 3


def test_whole_samples_have_whole_sums_and_others_floats() -> None:
    told = Driver()
    told.sample(1, 0)
    assert repr(told.proxies()["Sum"].staging) == "1"
    told.sample(1.0, 0)
    assert repr(told.proxies()["Sum"].staging) == "2.0"


def test_several_algorithms_run_on_one_metric_and_take_a_sample_once() -> None:
    told = Driver(plain("Sum"), plain("Max"), ewm(1.0, "Count"))
    told.sample(3, 0)
    told.sample(4, 1)
    told.advance(65)
    assert {name: state.value for name, state in told.proxies().items()} == {
        "Sum": 7,
        "Max": 4,
        "EWM": 2,
    }
    assert (told.count("samples"), told.count("periods_closed")) == (2, 1)
    assert told.engine.sizes()["series"] == 1


def test_a_detector_shows_no_value_before_it_has_seen_enough_steps() -> None:
    told = Driver(ewm(0.34))  # floor(1 / 0.34) is 2
    told.sample(1, 0)
    told.sample(1, 60)
    told.advance(70)
    assert (told.proxies()["EWM"].value, told.proxies()["EWM"].samples) == (None, 1)
    told.advance(130)
    assert (told.proxies()["EWM"].value, told.proxies()["EWM"].samples) == (1, 2)
    assert [step.reported for step in told.steps()] == [False, True]


def test_two_calm_steps_in_a_row_are_quiet_but_never_the_first_reported() -> None:
    told = Driver(ewm(0.5))
    for minute, value in enumerate([0, 0, 0, 100, 100, 55, 55]):
        told.sample(value, minute * 60)
    told.advance(480)
    assert [(step.reported, step.quiet) for step in told.steps() if not step.deleted] == [
        (False, False),
        (True, False),
        (True, True),
        (True, False),
        (True, False),
        (True, False),
        (True, True),
    ]


# ---- what an engine may be made of ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"metrics": {"": [plain()]}}, "metric"),
        ({"metrics": {"S-a": []}}, "S-a"),
        ({"metrics": {"S-a": [plain()] * 17}}, "S-a"),
        ({"metrics": {"S-a": [plain("Median")]}}, "Median"),
        ({"metrics": {"S-a": [ewm(0.0)]}}, "alpha"),
        ({"metrics": {"S-a": [ewm(math.nan)]}}, "alpha"),
        ({"metrics": {"S-a": [plain(timeout=65536)]}}, "timeout"),
        ({"metrics": {}, "lateness": -1}, "lateness"),
        ({"partitions": 0}, "partitions"),
        ({"limits": {"kyes": 1}}, "kyes"),
        ({"limits": {"keys": -1}}, "keys"),
    ],
)
def test_an_engine_is_not_made_of_what_is_out_of_its_range(
    wrong: dict[str, Any], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Engine(**wrong)
