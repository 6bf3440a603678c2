"""What the engine tells of what happens, by example: changes, results; and other configurations."""

from __future__ import annotations

import subprocess
import sys

import pytest

from driver import KEY, METRIC, Driver, ewm, plain, record

# ---- changes -------------------------------------------------------------------------------------


def watched(*specifications: tuple[str, int, str, str, float]) -> Driver:
    told = Driver(*specifications or [plain()])
    told.engine.watch(True)
    return told


def changed(told: Driver) -> list[str]:
    """The structs of KEY that changed since the last call."""
    changes = told.engine.take_changed(0)
    assert {key for key, _ in changes} <= {KEY}
    return sorted(struct for _, struct in changes)


def test_nothing_is_noted_while_nobody_watches() -> None:
    told = Driver()
    told.sample(1, 0)
    assert changed(told) == []


def test_a_struct_that_changed_is_noted_once() -> None:
    told = watched()
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 2}, source="h2")
    assert changed(told) == ["S"]
    assert changed(told) == []


def test_a_struct_that_went_is_noted_though_its_key_is_gone() -> None:
    told = watched()
    told.tell({"b": 1})
    changed(told)
    told.tell(None)
    assert changed(told) == ["S"]


def test_a_proxy_uve_changes_as_its_staging_does() -> None:
    told = watched(plain())
    told.sample(1, 0)
    assert changed(told) == ["S", "Sum-S-a"]
    told.sample(2, 1)
    assert changed(told) == ["S", "Sum-S-a"]


def test_a_proxy_uve_is_announced_when_it_begins_changes_and_ends() -> None:
    told = watched(ewm(1.0))
    told.sample(1, 0)
    assert changed(told) == ["EWM-S-a", "S"]
    told.sample(2, 1)
    assert changed(told) == ["S"]
    told.advance(65)
    assert changed(told) == ["EWM-S-a"]
    told.advance(300)
    assert changed(told) == ["EWM-S-a"]


def test_a_step_that_is_quiet_or_not_reported_is_not_announced() -> None:
    told = watched(ewm(0.5))
    announced = []
    for minute, value in enumerate([0, 0, 0, 100]):
        told.sample(value, minute * 60)
        changed(told)
        told.advance(minute * 60 + 65)
        announced.append(changed(told))
    assert announced == [[], ["EWM-S-a"], [], ["EWM-S-a"]]


def test_changes_are_taken_of_keys_with_a_prefix_and_the_rest_is_forgotten() -> None:
    told = watched()
    told.batch([record({"b": 1}, key=key) for key in ("T:a", "T:b", "U:a")])
    assert told.engine.take_changed(0, ["U:", "T:b"]) == [("T:b", "S"), ("U:a", "S")]
    assert told.engine.take_changed(0) == []


def test_no_prefix_wants_nothing() -> None:
    told = watched()
    told.tell({"b": 1})
    assert told.engine.take_changed(0, []) == []


def test_who_ceases_to_watch_hears_nothing_of_the_time_between() -> None:
    told = watched()
    told.tell({"b": 1})
    told.engine.watch(False)
    told.tell({"c": 1})
    told.engine.watch(True)
    assert changed(told) == []
    told.tell({"d": 1})
    assert changed(told) == ["S"]


# ---- results -------------------------------------------------------------------------------------


def test_results_are_told_once_and_in_order() -> None:
    told = Driver()
    for minute in range(3):
        told.sample(minute, minute * 60)
    told.advance(200)
    assert [step.period for step in told.steps()] == [0, 1, 2]
    assert told.steps() == []


def test_results_name_the_key_though_it_is_gone() -> None:
    told = Driver()
    told.sample(1, 0)
    told.tell(None, at=1)
    told.advance(300)
    assert told.engine.read(KEY) is None
    assert [(step.key, step.deleted) for step in told.steps()] == [(KEY, False), (KEY, True)]


def test_the_names_of_keys_hold_until_the_next_results_are_taken() -> None:
    told = Driver()
    told.sample(1, 0)
    told.tell(None, at=1)
    told.advance(65)
    (row,) = told.engine.take_results(0)
    told.advance(300)
    told.tell({"b": 1}, key="T:another", at=300)
    assert told.engine.key_name(0, int(row["key"])) == KEY


def test_an_unknown_key_has_no_name() -> None:
    with pytest.raises(KeyError):
        Driver().engine.key_name(0, 7)


def test_results_outlive_their_engine() -> None:
    told = Driver()
    told.sample(1, 0)
    told.advance(65)
    results = told.engine.take_results(0)
    del told
    assert results["value"].tolist() == [1.0]


def test_results_that_were_taken_are_not_written_over() -> None:
    told = Driver()
    taken = []
    for minute in range(5):
        told.sample(minute, minute * 60)
        told.advance(minute * 60 + 65)
        taken.append(told.engine.take_results(0))
    assert [results["value"].tolist() for results in taken] == [[0], [1], [2], [3], [4]]


def test_no_more_results_wait_than_the_limit_and_the_rest_is_counted() -> None:
    told = Driver(plain(timeout=0), limits={"results": 3})
    told.sample(1, 0)
    told.advance(10 * 60)
    kept = told.steps()
    assert [step.period for step in kept] == [0, 1, 2]
    assert told.count("results_dropped") == told.count("periods_closed") - 3
    told.advance(20 * 60)
    assert len(told.steps()) == 3


def test_no_results_are_kept_where_nobody_wants_any() -> None:
    told = Driver(limits={"results": 0})
    told.sample(1, 0)
    told.advance(65)
    assert told.steps() == []
    assert told.count("results_dropped") == 0


# ---- another configuration -----------------------------------------------------------------------

LATENESS = 5_000_000


def test_what_stays_configured_keeps_its_state() -> None:
    told = Driver(ewm(0.5), plain())
    for minute in range(3):
        told.sample(5, minute * 60)
    told.advance(185)
    before = told.proxies()["EWM"]
    told.engine.configure({METRIC: [plain("Max"), ewm(0.5)], "S-b": [plain()]}, LATENESS)
    assert told.proxies() == {"EWM": before}
    told.sample(5, 190)
    assert sorted(told.proxies()) == ["EWM", "Max"]
    told.advance(245)
    assert told.proxies()["EWM"].samples == 4


def test_samples_of_open_periods_stay() -> None:
    told = Driver(plain("Sum"))
    told.sample(1, 0)
    told.engine.configure({METRIC: [plain("Sum"), plain("Count")]}, LATENESS)
    told.sample(2, 1)
    told.advance(65)
    assert {name: state.value for name, state in told.proxies().items()} == {"Sum": 3, "Count": 2}


def test_the_last_samples_of_open_periods_stay() -> None:
    told = Driver(plain("Last"))
    told.sample(1, 0, source="h1")
    told.sample(2, 0, source="h2")
    told.engine.configure({METRIC: [plain("Sum"), plain("Last")]}, LATENESS)
    told.sample(5, 1, source="h1")
    assert told.proxies()["Last"].staging == 7


def test_last_added_amid_a_period_has_no_step_of_it_and_begins_with_the_next_sample() -> None:
    told = Driver(plain("Sum"))
    told.sample(5, 0)
    told.engine.configure({METRIC: [plain("Sum"), plain("Last")]}, LATENESS)
    told.advance(65)
    assert [(step.algorithm, step.period, step.value) for step in told.steps()] == [("Sum", 0, 5)]
    told.sample(7, 70)
    assert (told.proxies()["Last"].value, told.proxies()["Last"].staging) == (None, 7)
    told.advance(125)
    assert ("Last", 1, 7) in [(step.algorithm, step.period, step.value) for step in told.steps()]


@pytest.mark.parametrize("goes_on", [False, True])
def test_last_added_amid_a_period_holds_nothing_back_once_all_is_withdrawn(goes_on: bool) -> None:
    told = Driver(plain("Sum"))
    told.sample(5, 0)
    told.engine.configure({METRIC: [plain("Sum"), plain("Last")]}, LATENESS)
    if goes_on:
        told.sample(7, 70)
    told.tell(None, at=80)
    told.advance(600)
    assert told.engine.read(KEY) is None
    assert (told.engine.sizes()["keys"], told.engine.sizes()["series"]) == (0, 0)
    steps = [step for step in told.steps() if step.algorithm == "Last" and not step.deleted]
    assert [(step.period, step.value) for step in steps] == ([(1, 7)] if goes_on else [])


def test_min_and_max_added_amid_a_period_begin_with_the_next_whole_one() -> None:
    told = Driver(plain("Sum"))
    told.sample(1, 0)
    told.sample(9, 1)
    told.engine.configure({METRIC: [plain("Sum"), plain("Min"), plain("Max")]}, LATENESS)
    told.sample(5, 30)
    told.advance(65)
    assert [(step.algorithm, step.value) for step in told.steps()] == [("Sum", 15)]
    assert {name for name, state in told.proxies().items() if state.value is not None} == {"Sum"}
    told.sample(3, 70)
    told.sample(4, 80)
    told.advance(125)
    assert {step.algorithm: step.value for step in told.steps()} == {"Sum": 7, "Min": 3, "Max": 4}


def test_an_algorithm_with_another_parameter_begins_anew() -> None:
    told = Driver(ewm(1.0))
    told.sample(5, 0)
    told.advance(65)
    told.engine.configure({METRIC: [ewm(0.5)]}, LATENESS)
    assert told.proxies() == {}
    told.sample(5, 70)
    told.advance(125)
    assert told.proxies()["EWM"].samples == 1


def test_a_metric_that_goes_takes_its_proxy_uves_and_their_keys() -> None:
    told = Driver()
    told.sample(1, 0)
    told.sample(1, 0)
    told.tell({"a": 1}, key="T:gone")
    told.tell(None, key="T:gone")
    told.engine.configure({}, LATENESS)
    assert told.proxies() == {}
    assert told.engine.keys() == [KEY]
    assert told.engine.sizes()["series"] == 0


def test_a_metric_that_returns_begins_anew() -> None:
    told = Driver()
    told.sample(1, 0)
    told.advance(65)
    told.engine.configure({}, LATENESS)
    told.engine.configure({METRIC: [plain()]}, LATENESS)
    told.sample(2, 10, at=66)
    assert (told.proxies()["Sum"].value, told.proxies()["Sum"].staging) == (None, 2)


def test_a_metric_that_is_new_counts_from_the_next_sample_on() -> None:
    told = Driver(metrics={})
    told.sample(1, 0)
    told.engine.configure({METRIC: [plain()]}, LATENESS)
    assert told.proxies() == {}
    told.sample(2, 1)
    assert told.proxies()["Sum"].staging == 2


def test_another_lateness_holds_from_now_on() -> None:
    told = Driver(lateness=60)
    told.sample(1, 10)
    assert told.advance(80) == 0
    told.engine.configure({METRIC: [plain()]}, 0)
    assert told.advance(80) == 1


def test_who_watches_hears_of_proxy_uves_that_end_with_a_configuration() -> None:
    told = watched(plain("Sum"), plain("Max"))
    told.sample(1, 0)
    changed(told)
    told.engine.configure({METRIC: [plain("Max")]}, LATENESS)
    assert changed(told) == ["Sum-S-a"]


def test_who_watches_hears_of_proxy_uves_that_begin_with_a_configuration() -> None:
    told = watched(plain("Sum"))
    told.sample(1, 0)
    changed(told)
    told.engine.configure({METRIC: [plain("Sum"), ewm(0.1)]}, LATENESS)
    assert sorted(told.proxies()) == ["EWM", "Sum"]
    assert changed(told) == ["EWM-S-a"]


def test_changes_that_wait_are_named_as_they_were_when_the_configuration_changes() -> None:
    told = watched(plain("Sum"), plain("Max"))
    told.sample(1, 0)
    told.engine.configure({METRIC: [plain("Max"), plain("Min")]}, LATENESS)
    assert set(changed(told)) >= {"S", "Sum-S-a", "Max-S-a"}


def test_a_change_is_not_lost_for_one_that_was_noted_under_another_configuration() -> None:
    told = watched(plain("Sum"), ewm(1.0))
    told.sample(1, 0)
    changed(told)
    told.sample(1, 1)
    told.engine.configure({METRIC: [ewm(1.0), plain("Sum")]}, LATENESS)
    told.advance(65)
    assert changed(told) == ["EWM-S-a", "Sum-S-a"]


def test_metrics_are_named_with_their_algorithms() -> None:
    told = Driver(metrics={"S-a": [plain("Sum"), plain("Max")], "R-b": [ewm(0.1)]})
    assert told.engine.metric_names() == [("S-a", ("Sum", "Max")), ("R-b", ("EWM",))]


def test_an_engine_that_was_never_begun_raises_or_is_empty_but_never_crashes() -> None:
    script = """
from collectord.engine import Engine

calls = [
    lambda engine: engine.configure({}, 0),
    lambda engine: engine.apply(b"", 0),
    lambda engine: engine.apply_many([b"\\x80"], 0),
    lambda engine: engine.advance(0, 0),
    lambda engine: engine.read("T:a"),
    lambda engine: engine.keys(),
    lambda engine: engine.tables(),
    lambda engine: engine.aggtypes(),
    lambda engine: engine.sources(),
    lambda engine: engine.watch(True),
    lambda engine: engine.take_changed(0),
    lambda engine: engine.take_results(0),
    lambda engine: engine.key_name(0, 0),
    lambda engine: engine.metric_names(),
    lambda engine: engine.counters(),
    lambda engine: engine.sizes(),
]
for call in calls:
    try:
        call(Engine.__new__(Engine))
    except Exception as error:
        print(repr(error))
"""
    # In a process of its own: a crash is this test's failure, not the end of all tests.
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
