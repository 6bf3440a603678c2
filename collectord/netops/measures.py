"""How well alarms and scores tell what was true: pure functions of arrays, which know no collector.

Every array has the shape (series, periods). A threshold stands for all series, so that they are
judged together; nothing reaches from one series into the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]
Events = NDArray[np.int64]

DAY = 86_400


def events(truth: Flags) -> Events:
    """The longest runs of true periods, in order: rows of series, first and last period."""
    edges = np.diff(np.pad(truth, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    series, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1] - 1
    return np.column_stack((series, first, last))


def precision_recall_f1(truth: Flags, flagged: Flags) -> tuple[float, float, float]:
    """Over periods. NaN where there is nothing to divide by: no alarm, no event, neither."""
    hits = int((truth & flagged).sum())
    alarms, errors = int(flagged.sum()), int(truth.sum())
    return _ratio(hits, alarms), _ratio(hits, errors), _ratio(2 * hits, alarms + errors)


def delays(truth: Flags, flagged: Flags) -> Scores:
    """Of each event the periods from its first one to the first within it that is flagged.

    In the order of ``events``; NaN for one that was not found.
    """
    series, first, last = events(truth).T
    periods = truth.shape[1]
    places = np.where(flagged, np.arange(periods), periods)
    following = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    found = following[series, first]
    return np.where(found <= last, (found - first).astype(float), np.nan)


def false_alarms(truth: Flags, flagged: Flags, period: float) -> float:
    """Flagged periods, each ``period`` seconds long, outside of all events: a series and day."""
    return _ratio(int((flagged & ~truth).sum()), truth.size * period / DAY)


def vus_pr(truth: Flags, scores: Scores, longest: int) -> float:
    """The volume under the surface of range-based precision, recall and buffer length.

    J. Paparrizos, P. Boniol, T. Palpanas, R. S. Tsay, A. Elmore, M. J. Franklin: Volume Under the
    Surface: A New Accuracy Evaluation Measure for Time-Series Anomaly Detection. PVLDB 15(11),
    2022. For a buffer of l periods, an event from s to e gives the weight 1 to its own periods and
    sqrt(1 - d / l) to those that lie d <= l / 2 before s or after e; where events meet, weights
    add up, to 1 at most. With the weights w, and the periods p whose score reaches a threshold:

        precision = sum(w over p) / |p|
        recall    = min(sum(w over p) / P, 1) * (share of the events that p meets)
        P         = (periods in events + sum(w)) / 2

    p meets an event where it has a period in it or in its buffers. The result is the mean, over
    l = 0, 1, ..., ``longest``, of the area under precision by recall.

    Where the paper or its authors' programs leave a choice: every distinct score is a threshold, so
    nothing is sampled and ties go together; the area is made of steps, as of average precision and
    in the authors' later benchmark (Q. Liu, J. Paparrizos: The Elephant in the Room, NeurIPS 2024),
    since trapezoids favour scores with few values; events count one by one, even where their
    buffers overlap.

    So it is in [0, 1], and a constant score has the mean weight, which is the share of true periods
    and somewhat more. For the truth itself it is 1 with ``longest`` 0 or 1, and less beyond: the
    buffers ask for more than the truth. NaN without any event. Raises ValueError for scores that
    are NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN; every period needs one")
    found = events(truth)
    if not len(found):
        return float("nan")
    order = np.argsort(-scores, axis=None)
    ranked = scores.ravel()[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of the runs of ties
    areas: list[float] = []
    for length in range(longest + 1):
        weights = _weights(truth, found, length)
        weight = weights.ravel()[order].cumsum()[ends]
        best = np.sort(_best_scores(scores, found, length // 2))
        met = 1 - np.searchsorted(best, ranked[ends]) / len(best)
        recall = np.minimum(weight / ((truth.sum() + weights.sum()) / 2), 1) * met
        areas.append(float(np.diff(recall, prepend=0) @ (weight / (ends + 1))))
    return sum(areas) / len(areas)


def _weights(truth: Flags, found: Events, length: int) -> Scores:
    """Of each period with a buffer of ``length``."""
    weights = truth.astype(float)
    series, first, last = found.T
    for distance in range(1, length // 2 + 1):
        for places in (first - distance, last + distance):
            inside = (places >= 0) & (places < truth.shape[1])
            np.add.at(weights, (series[inside], places[inside]), np.sqrt(1 - distance / length))
    capped: Scores = np.minimum(weights, 1)
    return capped


def _best_scores(scores: Scores, found: Events, margin: int) -> Scores:
    """Of each event, with so many periods on both its sides."""
    series, first, last = found.T
    periods = scores.shape[1]
    begin = series * periods + np.maximum(first - margin, 0)
    end = series * periods + np.minimum(last + margin, periods - 1) + 1
    bounds = np.column_stack((begin, end)).ravel()
    # Every other one lies between two events; the last end may be the end of all.
    best: Scores = np.maximum.reduceat(np.append(scores, -np.inf), bounds)[::2]
    return best


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
