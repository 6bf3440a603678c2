"""What the engine notes of what somebody asked for by name, by example."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from driver import KEY, Driver, ewm, plain


def observing(
    names: Mapping[str, Collection[float] | None],
    *specifications: tuple[str, int, str, str, float],
) -> Driver:
    told = Driver(*specifications or [plain()])
    told.engine.observe(names)
    return told


def taken(told: Driver) -> list[str]:
    """The structs of KEY that were noted since the last call."""
    changes = told.engine.take_observed(0)
    assert {key for key, _ in changes} <= {KEY}
    return sorted(struct for _, struct in changes)


def every(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


# ---- attributes ----------------------------------------------------------------------------------


def test_nothing_is_noted_that_nobody_asked_for() -> None:
    told = Driver()
    told.tell({"b": 1})
    assert taken(told) == []


def test_an_attribute_is_noted_and_others_of_its_struct_are_not() -> None:
    told = observing(every("S-b"))
    told.tell({"b": 1, "c": 1})
    assert taken(told) == ["S"]
    told.tell({"c": 2})
    assert taken(told) == []
    told.tell({"b": 2})
    assert taken(told) == ["S"]


def test_it_is_noted_once_until_it_is_taken() -> None:
    told = observing(every("S-b"))
    for value in range(3):
        told.tell({"b": value})
    assert told.engine.take_observed(0) == [(KEY, "S")]


def test_a_value_that_is_told_again_is_no_news() -> None:
    told = observing(every("S-b"))
    told.tell({"b": 1})
    taken(told)
    told.tell({"b": 1})
    assert taken(told) == []


@pytest.mark.parametrize("name", ["S-*", "*-*"])
def test_all_attributes_can_be_asked_for(name: str) -> None:
    told = observing(every(name))
    told.tell({"b": 1})
    assert taken(told) == ["S"]
    told.tell({"c": 2})
    assert taken(told) == ["S"]


def test_what_is_known_already_is_looked_for_as_well() -> None:
    told = Driver()
    told.tell({"b": 1})
    told.engine.observe(every("S-b"))
    told.tell({"b": 2})
    assert taken(told) == ["S"]


@pytest.mark.parametrize("name", ["S", "*"])
def test_a_struct_is_noted_when_it_comes_and_when_it_goes(name: str) -> None:
    told = observing(every(name))
    told.tell({"b": 1})
    assert taken(told) == ["S"]
    told.tell({"b": 2})
    assert taken(told) == []
    told.tell(None)
    assert taken(told) == ["S"]


def test_a_struct_whose_last_attribute_goes_is_noted() -> None:
    told = observing(every("S"))
    told.tell({"b": 1})
    taken(told)
    told.tell({"b": None})
    assert taken(told) == ["S"]


def test_a_struct_that_goes_with_its_source_is_noted() -> None:
    told = observing(every("S"))
    told.tell({"b": 1}, source="h1")
    taken(told)
    assert told.engine.expire(told.engine.sources()[0]["last_seen"] + 10_000_000, 1_000_000)
    assert taken(told) == ["S"]


def test_to_ask_for_something_else_forgets_what_was_noted() -> None:
    told = observing(every("S-b"))
    told.tell({"b": 1})
    told.engine.observe(every("S-c"))
    told.tell({"b": 2})
    assert taken(told) == []
    told.tell({"c": 1})
    assert taken(told) == ["S"]


def test_to_ask_for_nothing_ends_it() -> None:
    told = observing(every("S-b"))
    told.engine.observe({})
    told.tell({"b": 1})
    assert taken(told) == []


def test_who_watches_and_who_observes_take_nothing_from_each_other() -> None:
    told = observing(every("S-b"))
    told.engine.watch(True)
    told.tell({"b": 1})
    assert taken(told) == ["S"]
    assert told.engine.take_changed(0) == [(KEY, "S")]
    told.tell({"c": 1})
    assert taken(told) == []
    assert told.engine.take_changed(0) == [(KEY, "S")]


def test_only_the_keys_that_are_asked_for_are_given() -> None:
    told = observing(every("S-b"))
    told.tell({"b": 1})
    assert told.engine.take_observed(0, ["Another:"]) == []
    assert taken(told) == []  # it is forgotten


# ---- thresholds ----------------------------------------------------------------------------------


def noted(told: Driver, *values: object) -> list[bool]:
    """For each value in turn, whether it was news."""
    news = []
    for value in values:
        told.tell({"b": value})
        news.append(bool(taken(told)))
    return news


def test_a_number_is_news_where_it_passes_a_threshold() -> None:
    told = observing({"S-b": [10]})
    assert noted(told, 1, 5, 9.5, 10, 11, 1e9, 10.5, 10.0, 10, 9) == [
        *(True, False, False, True, True, False, False, True, False, True)
    ]


def test_each_of_several_thresholds_counts() -> None:
    told = observing({"S-b": [10, -10, 20]})
    assert noted(told, 0, 15, 25, 19, 0, -5, -11) == [True, True, True, True, True, False, True]


@pytest.mark.parametrize("other", ["5", True, [5], {"a": 5}, b"5", float("nan")])
def test_what_is_no_number_is_always_news(other: object) -> None:
    told = observing({"S-b": [10]})
    assert noted(told, 5, other, 6, 7) == [True, True, True, False]


def test_a_number_that_comes_and_goes_is_news() -> None:
    told = observing({"S-b": [10]})
    assert noted(told, 5, None, 5) == [True, True, True]


def test_what_several_sources_tell_is_always_news() -> None:
    told = observing({"S-b": [10]})
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 1}, source="h2")
    taken(told)
    told.tell({"b": 2}, source="h1")
    assert taken(told) == ["S"]


def test_another_struct_of_the_key_does_not_count_as_another_source() -> None:
    told = observing({"S-b": [10]})
    told.tell({"b": 1})
    told.tell({"b": 1}, struct="R")
    taken(told)
    told.tell({"b": 2})
    assert taken(told) == []


def test_whoever_is_left_alone_is_shown_as_it_is() -> None:
    told = observing({"S-b": [10]})
    told.tell({"b": 1}, source="h1")
    told.tell({"b": 1}, source="h2")
    told.tell(None, source="h2")
    taken(told)
    told.tell({"b": 2}, source="h1")
    assert taken(told) == []


@pytest.mark.parametrize("others", [7, 8, 9, 20])
def test_with_many_structs_of_a_key_nothing_is_missed(others: int) -> None:
    told = observing({"S-b": [10]})
    told.tell({"b": 1}, source="h1")
    for number in range(others):
        told.tell({"b": 1}, struct=f"R{number}")
    told.tell({"b": 1}, source="h2")
    for number in range(others):
        told.tell(None, struct=f"R{number}")
    taken(told)
    for source in ("h1", "h2"):
        told.tell({"b": 2}, source=source)
        assert taken(told) == ["S"]


def test_a_threshold_of_one_and_every_change_of_another_attribute() -> None:
    told = observing({"S-b": [10], "S-c": None})
    told.tell({"b": 1, "c": 1})
    taken(told)
    told.tell({"b": 2})
    assert taken(told) == []
    told.tell({"c": 2})
    assert taken(told) == ["S"]


# ---- proxy UVEs ----------------------------------------------------------------------------------


def test_a_proxy_uve_is_noted_when_it_begins_and_ends() -> None:
    told = observing(every("Sum-S-a"))
    told.sample(1, 0)
    assert taken(told) == ["Sum-S-a"]
    told.sample(2, 1)
    assert taken(told) == []
    told.advance(300)
    assert taken(told) == ["Sum-S-a"]


def test_its_value_is_noted_at_the_close_of_a_period() -> None:
    told = observing(every("Sum-S-a", "Sum-S-a.value"))
    told.sample(1, 0)
    taken(told)
    told.sample(2, 1)
    assert taken(told) == []
    told.advance(65)
    assert taken(told) == ["Sum-S-a"]


def test_its_staging_is_noted_with_every_sample() -> None:
    told = observing(every("Sum-S-a.staging"))
    told.sample(1, 0)
    taken(told)
    told.sample(2, 1)
    assert taken(told) == []  # the proxy UVE itself was not asked for
    told = observing(every("Sum-S-a", "Sum-S-a.staging"))
    told.sample(1, 0)
    taken(told)
    told.sample(2, 1)
    assert taken(told) == ["Sum-S-a"]


def closes(told: Driver, *sums: float) -> list[bool]:
    """For each period in turn, whether its close was news."""
    news = []
    for minute, value in enumerate(sums):
        told.sample(value, minute * 60)
        taken(told)
        told.advance(minute * 60 + 65)
        news.append(bool(taken(told)))
    return news


def test_a_sum_is_news_where_it_passes_a_threshold() -> None:
    told = observing({"Sum-S-a": None, "Sum-S-a.value": [10]})
    assert closes(told, 5, 6, 10, 11, 12, 3) == [True, False, True, True, False, True]


def test_the_first_value_after_a_gap_is_news() -> None:
    told = observing({"Sum-S-a": None, "Sum-S-a.value": [10]})
    assert closes(told, 5, 6) == [True, False]
    told.advance(400)
    taken(told)
    told.sample(7, 600)
    taken(told)
    told.advance(665)
    assert taken(told) == ["Sum-S-a"]


def test_a_sigma_is_news_where_it_passes_a_threshold_and_quiet_steps_are_no_exception() -> None:
    told = observing({"EWM-S-a": None, "EWM-S-a.sigma": [-0.2, 0.2]}, ewm(0.5))
    told.engine.watch(True)
    sigmas, news = [], []
    for minute, value in enumerate([0, 0, 10, 10, 10, 10, 10, 10]):
        told.sample(value, minute * 60)
        taken(told)
        told.advance(minute * 60 + 65)
        news.append(bool(taken(told)))
        read = told.engine.read(KEY)
        assert read is not None
        (state,) = read[1]
        sigmas.append(state.sigma if state.value is not None else None)
    ranks = [None if sigma is None else (sigma > -0.2) + (sigma > 0.2) for sigma in sigmas]
    assert news == [was != now for was, now in zip([None, *ranks], ranks, strict=False)]
    assert True in news
    assert False in news


def test_a_configuration_forgets_what_was_noted_and_looks_on() -> None:
    told = observing(every("Sum-S-a", "Sum-S-a.value"))
    told.sample(1, 0)
    told.engine.configure({"S-a": [plain(), ewm(0.5)]}, 5_000_000)
    assert taken(told) == []
    told.advance(65)
    assert taken(told) == ["Sum-S-a"]
