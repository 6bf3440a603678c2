"""The measures of detection: worked by hand, written once more plainly, and what always holds."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.netops import measures

Table = list[list[Any]]


def flags(*series: str) -> measures.Flags:
    """A row for each text: ``x`` is true, anything else is not."""
    return np.array([[letter == "x" for letter in text] for text in series])


def scores(*series: list[float]) -> measures.Scores:
    return np.array(series, float)


@st.composite
def judged(draw: st.DrawFn, least_events: int = 0) -> tuple[measures.Flags, measures.Scores]:
    """The truth of some series, and scores with many ties among them."""
    series, periods = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    count = series * periods
    true = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    if least_events and not any(true):
        true[draw(st.integers(0, count - 1))] = True
    some = st.integers(0, 4).map(float) | st.floats(0, 4, allow_subnormal=False)
    told = draw(st.lists(some, min_size=count, max_size=count))
    return (
        np.array(true, np.bool_).reshape(series, periods),
        np.array(told, np.float64).reshape(series, periods),
    )


# ---- the measures, as plainly as their definitions read


def plain_events(row: list[bool]) -> list[tuple[int, int]]:
    found = []
    for place, true in enumerate(row):
        if true and (place == 0 or not row[place - 1]):
            end = place
            while end + 1 < len(row) and row[end + 1]:
                end += 1
            found.append((place, end))
    return found


def plain_weight(row: list[bool], place: int, length: int) -> float:
    total = 0.0
    for start, end in plain_events(row):
        if start <= place <= end:
            total += 1
        elif start - length / 2 <= place < start:
            total += math.sqrt(1 - abs(start - place) / length)
        elif end < place <= end + length / 2:
            total += math.sqrt(1 - abs(end - place) / length)
    return min(total, 1)


def plain_area(truth: Table, scores: Table, length: int) -> float:
    """Range-AUC-PR with one buffer length, a threshold after the other."""
    places = [(row, place) for row in range(len(truth)) for place in range(len(truth[0]))]
    weights = {(row, place): plain_weight(truth[row], place, length) for row, place in places}
    errors = sum(truth[row][place] for row, place in places)
    positives = (errors + sum(weights.values())) / 2
    all_events = [(row, *event) for row in range(len(truth)) for event in plain_events(truth[row])]
    area = recall_before = 0.0
    for threshold in sorted({score for row in scores for score in row}, reverse=True):
        told = [(row, place) for row, place in places if scores[row][place] >= threshold]
        hits = sum(weights[where] for where in told)
        met = [
            any(
                row == event_row and start - length / 2 <= place <= end + length / 2
                for row, place in told
            )
            for event_row, start, end in all_events
        ]
        recall = min(hits / positives, 1) * sum(met) / len(met)
        area += (recall - recall_before) * hits / len(told)
        recall_before = recall
    return area


def plain_vus_pr(truth: Table, scores: Table, longest: int) -> float:
    areas = [plain_area(truth, scores, length) for length in range(longest + 1)]
    return sum(areas) / len(areas)


# ---- events


def test_an_event_is_a_run_of_true_periods_in_one_series() -> None:
    assert measures.events(flags("x..xx", "x.x..")).tolist() == [
        [0, 0, 0],
        [0, 3, 4],
        [1, 0, 0],
        [1, 2, 2],
    ]


def test_no_true_period_is_no_event() -> None:
    assert measures.events(flags("...", "...")).shape == (0, 3)


@given(judged())
def test_events_are_those_of_the_plain_definition(
    case: tuple[measures.Flags, measures.Scores],
) -> None:
    truth, _ = case
    plain = [[row, *event] for row, line in enumerate(truth) for event in plain_events(list(line))]
    assert measures.events(truth).tolist() == plain


# ---- alarms at a threshold


def test_precision_recall_and_f1_count_periods() -> None:
    truth, flagged = flags("xx...", "....."), flags("x.x..", "x....")
    precision, recall, f1 = measures.precision_recall_f1(truth, flagged)
    assert (precision, recall, f1) == (1 / 3, 1 / 2, 2 / 5)


def test_no_alarm_has_no_precision() -> None:
    precision, recall, f1 = measures.precision_recall_f1(flags("x."), flags(".."))
    assert math.isnan(precision)
    assert (recall, f1) == (0, 0)


def test_no_event_has_no_recall() -> None:
    precision, recall, f1 = measures.precision_recall_f1(flags(".."), flags("x."))
    assert (precision, f1) == (0, 0)
    assert math.isnan(recall)


def test_neither_has_nothing() -> None:
    assert all(map(math.isnan, measures.precision_recall_f1(flags(".."), flags(".."))))


def test_a_delay_counts_from_an_events_first_period_to_the_first_alarm_within_it() -> None:
    truth = flags("xxx..xx.", "....xx..")
    flagged = flags(".xx..x..", "...x..x.")
    first, second, third = measures.delays(truth, flagged)
    assert (first, second) == (1, 0)
    assert math.isnan(third)


@given(judged())
def test_delays_are_those_of_the_plain_definition(
    case: tuple[measures.Flags, measures.Scores],
) -> None:
    truth, values = case
    flagged = values > 2
    plain = [
        next((place - start for place in range(start, end + 1) if line[place]), math.nan)
        for row, line in enumerate(flagged)
        for start, end in plain_events(list(truth[row]))
    ]
    np.testing.assert_array_equal(measures.delays(truth, flagged), plain)


def test_false_alarms_are_periods_outside_of_events_for_each_series_and_day() -> None:
    # Two series of four periods of six hours: two days, with three false alarms.
    truth, flagged = flags("x...", "...."), flags("xxx.", "...x")
    assert measures.false_alarms(truth, flagged, period=6 * 3600) == 3 / 2


# ---- VUS-PR


def test_without_buffers_it_is_average_precision() -> None:
    truth, values = flags("..xx.."), scores([0.1, 0.2, 0.9, 0.3, 0.8, 0.1])
    # 0.9 finds one of two; 0.8 is false; with 0.3, two of three are right.
    assert measures.vus_pr(truth, values, 0) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_a_buffer_gives_credit_to_alarms_beside_an_event() -> None:
    truth, values = flags("..xx.."), scores([0.1, 0.2, 0.9, 0.3, 0.8, 0.1])
    beside = math.sqrt(1 / 2)
    positives = 2 + beside
    with_two = (
        1 / positives * 1 + beside / positives * (1 + beside) / 2 + 1 / positives * (2 + beside) / 3
    )
    # Lengths 0 and 1 have no buffer, 2 has one period on each side.
    assert measures.vus_pr(truth, values, 2) == pytest.approx((5 / 6 + 5 / 6 + with_two) / 3)


def test_recall_is_cut_by_the_share_of_events_that_are_not_met() -> None:
    truth, values = flags("x..x"), scores([0.9, 0.5, 0.5, 0.1])
    # Half the periods of half the events; then nothing more; then all, with half of it false.
    assert measures.vus_pr(truth, values, 0) == pytest.approx(1 / 4 * 1 + 3 / 4 * 1 / 2)


def test_a_buffer_ends_where_its_series_does() -> None:
    truth = flags("...x", "....")
    early, late = scores([0, 0, 0, 1], [1, 0, 0, 0]), scores([0, 0, 0, 1], [0, 0, 0, 1])
    assert measures.vus_pr(truth, early, 8) == measures.vus_pr(truth, late, 8)


@given(judged(least_events=1), st.integers(0, 9))
def test_it_is_that_of_the_plain_definition(
    case: tuple[measures.Flags, measures.Scores], longest: int
) -> None:
    truth, values = case
    plain = plain_vus_pr(truth.tolist(), values.tolist(), longest)
    assert measures.vus_pr(truth, values, longest) == pytest.approx(plain, rel=1e-9)


@given(judged(least_events=1), st.integers(0, 9))
def test_it_lies_between_0_and_1(
    case: tuple[measures.Flags, measures.Scores], longest: int
) -> None:
    assert 0 < measures.vus_pr(*case, longest) <= 1 + 1e-12


@given(judged(least_events=1), st.integers(0, 1))
def test_the_truth_itself_has_1_without_buffers(
    case: tuple[measures.Flags, measures.Scores], longest: int
) -> None:
    truth, _ = case
    assert measures.vus_pr(truth, truth.astype(float), longest) == pytest.approx(1)


@given(judged(least_events=1), st.integers(0, 9))
def test_nothing_that_only_keeps_the_order_of_scores_changes_it(
    case: tuple[measures.Flags, measures.Scores], longest: int
) -> None:
    truth, values = case
    _, ranks = np.unique(values, return_inverse=True)
    ranked = ranks.reshape(values.shape).astype(float)
    assert measures.vus_pr(truth, values, longest) == pytest.approx(
        measures.vus_pr(truth, np.exp(ranked) - 7, longest), rel=1e-12
    )


@given(judged(least_events=1), st.floats(-5, 5))
def test_a_constant_score_has_the_share_of_true_periods(
    case: tuple[measures.Flags, measures.Scores], score: float
) -> None:
    truth, values = case
    assert measures.vus_pr(truth, np.full_like(values, score), 0) == pytest.approx(truth.mean())


def test_a_constant_score_has_the_mean_weight_with_buffers() -> None:
    truth, constant = flags("....x..."), np.ones((1, 8))
    shares = [1 / 8, 1 / 8, (1 + 2 * math.sqrt(1 / 2)) / 8]
    assert measures.vus_pr(truth, constant, 2) == pytest.approx(sum(shares) / 3)


@given(judged(least_events=1), st.integers(0, 9))
def test_series_in_another_order_have_the_same(
    case: tuple[measures.Flags, measures.Scores], longest: int
) -> None:
    truth, values = case
    assert measures.vus_pr(truth[::-1], values[::-1], longest) == pytest.approx(
        measures.vus_pr(truth, values, longest), rel=1e-9
    )


def test_an_infinite_score_is_the_greatest() -> None:
    assert measures.vus_pr(flags("x.."), scores([math.inf, 5, 0]), 0) == 1


def test_without_events_there_is_none() -> None:
    assert math.isnan(measures.vus_pr(flags("..."), scores([1, 2, 3]), 4))


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="every period needs one"):
        measures.vus_pr(flags("x."), scores([1, math.nan]), 4)


def test_long_series_are_judged_as_short_ones_are() -> None:
    generator = np.random.default_rng(4)
    truth = generator.random((3, 60)) < 0.1
    values = generator.normal(size=truth.shape).round(1) + truth
    plain = plain_vus_pr(truth.tolist(), values.tolist(), 5)
    assert measures.vus_pr(truth, values, 5) == pytest.approx(plain)
