"""What each algorithm of the menu finds of failures that are known.

What is measured is ``measures.py``'s, and how the algorithms were heard ``recording.py``'s. Here
they meet: a row for each algorithm and threshold, beside baselines. How it is asked for, and how
it looks, is ``score_command.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from collectord import proxies
from collectord.ctl_common import UsageError
from collectord.netops import measures
from collectord.netops.block import Simulation
from collectord.netops.configuration import Configuration
from collectord.netops.measures import Flags, Scores
from collectord.netops.network import simulations
from collectord.netops.recording import LEVELS, Progress, Recording, minimum, record
from collectord.proxies import REDUCERS, Algorithm
from collectord.wire import PERIOD

ALGORITHMS = (
    *(f"AggProxy{reducer}AnomalyEWM01" for reducer in REDUCERS),
    *(f"AggProxySumAnomalyEWM{alpha}" for alpha in ("001", "003", "03", "05")),
)
ROUNDING = 1e-9
"""The share by which sigma may lie above its bound, and so above a threshold, by mere rounding."""
THRESHOLDS = (2.0, 2.5, 3.0)
HISTORY = 86_400.0
BUFFER = 4
"""Periods: the longest buffer of VUS-PR, half of it on each side of an event."""


@dataclass(frozen=True)
class Row:
    """How one algorithm or baseline did at one threshold; None where there is nothing to say."""

    name: str
    threshold: float | None
    found: int
    delay: float | None
    false_alarms: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    vus_pr: float | None


@dataclass(frozen=True)
class Reach:
    """How far sigma of an algorithm can go, and how far it went."""

    algorithm: str
    alpha: float
    bound: float
    greatest: float


@dataclass(frozen=True)
class Result:
    """What a score came to."""

    level: str
    seed: int
    series: int
    periods: int
    """Of each series, without the warm-up."""
    warm_up: int
    """Periods at the beginning that are left out, for some algorithm says nothing yet."""
    events: int
    error_share: float
    """Of all periods."""
    buffer: int
    thresholds: Sequence[float]
    vus_pr_of_truth: float | None
    """What a score has that is the truth itself."""
    rows: Sequence[Row]
    reaches: Sequence[Reach]
    recording: Recording


def score(
    configuration: Configuration,
    *,
    level: str = "",
    algorithms: Sequence[str] = ALGORITHMS,
    thresholds: Sequence[float] = THRESHOLDS,
    history: float = HISTORY,
    buffer: int = BUFFER,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Let algorithms judge a configuration that lives for ``history`` seconds.

    ``level`` is one of ``LEVELS``: by default that of devices, or of virtual networks where there
    are no devices. Raises UsageError for what can't be scored, and what ``record`` raises.
    """
    level = level or ("device" if configuration.deployment.devices else "networks")
    chosen = [_algorithm(name) for name in dict.fromkeys(algorithms)]
    warm_up = max(map(minimum, chosen)) - 1
    periods = int(history // PERIOD)
    if periods <= warm_up:
        raise UsageError(
            f"{chosen[0].name} and the others need {warm_up} periods of {PERIOD} s before all of "
            f"them say something: the history has to be longer than {warm_up * PERIOD} s"
        )
    if configuration.interval > PERIOD:
        raise UsageError(
            f"the interval is {configuration.interval:g} s; it can be {PERIOD} s at most, for "
            "every period needs a sample"
        )
    simulation = _simulation(configuration, level)
    heard = record(simulation, LEVELS[level], chosen, periods, configuration.interval, progress)
    truth = heard.truth[:, warm_up:]
    scores = {name: array[:, warm_up:] for name, array in _scores_of(heard, chosen).items()}
    return Result(
        level=level,
        seed=configuration.seed,
        series=len(truth),
        periods=truth.shape[1],
        warm_up=warm_up,
        events=len(measures.events(truth)),
        error_share=float(truth.mean()),
        buffer=buffer,
        thresholds=thresholds,
        vus_pr_of_truth=_number(measures.vus_pr(truth, truth.astype(float), buffer)),
        rows=_rows(truth, scores, thresholds, buffer),
        reaches=[
            Reach(one.name, one.alpha, bound(one.alpha), float(scores[one.name].max()))
            for one in chosen
        ],
        recording=heard,
    )


def _scores_of(heard: Recording, chosen: Sequence[Algorithm]) -> dict[str, Scores]:
    """|sigma| of each algorithm, and the last value of what the first one's reducer made."""
    scores = {name: np.abs(sigma) for name, sigma in heard.sigmas.items()}
    first = chosen[0]
    unknown = minimum(first) - 1
    known = last_value(heard.values[first.name][:, unknown:])
    scores[f"last value ({first.reducer})"] = np.pad(known, ((0, 0), (unknown, 0)))
    return scores


def _rows(
    truth: Flags, scores: Mapping[str, Scores], thresholds: Sequence[float], buffer: int
) -> list[Row]:
    rows = []
    for name, array in scores.items():
        vus_pr = _number(measures.vus_pr(truth, array, buffer))
        rows += [
            _row(name, threshold, truth, is_flagged(array, threshold), vus_pr)
            for threshold in thresholds
        ]
    by_chance = _number(measures.vus_pr(truth, np.zeros(truth.shape), buffer))
    for name, answer in (("always", True), ("never", False)):
        rows.append(_row(name, None, truth, np.full_like(truth, answer), by_chance))
    return rows


def is_flagged(scores: Scores, threshold: float) -> Flags:
    """What lies above a threshold, and not only by rounding."""
    return scores > threshold * (1 + ROUNDING)


def bound(alpha: float) -> float:
    """What |sigma| of ``AnomalyEWM`` never passes.

    With the deviation d of a sample from the mean before it, sigma is
    ``(1 - alpha) d / sqrt((1 - alpha) (variance + alpha d^2))``, which is greatest where the
    variance before was 0. Rounding may add its share where a flat series changes.
    """
    return math.sqrt((1 - alpha) / alpha)


def last_value(values: Scores) -> Scores:
    """A baseline: how far each value is from the one before, by how far they have been so far.

    That is |x[t] - x[t-1]| over the root of the mean square of the differences before it. 0 where
    nothing changed, or there was none before.
    """
    differences = np.diff(values, axis=1)
    counts = np.arange(1, differences.shape[1])
    squares = np.cumsum(differences[:, :-1] ** 2, axis=1)
    now = np.abs(differences[:, 1:])
    with np.errstate(divide="ignore"):
        scores = np.divide(now, np.sqrt(squares / counts), out=np.zeros_like(now), where=now > 0)
    return np.pad(scores, ((0, 0), (values.shape[1] - scores.shape[1], 0)))


def _algorithm(name: str) -> Algorithm:
    try:
        found = proxies.algorithm(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not found.detector:
        raise UsageError(
            f"{name} detects nothing, so there is nothing to score; {name}AnomalyEWM01 does"
        )
    return found


def _simulation(configuration: Configuration, level: str) -> Simulation:
    struct = LEVELS[level]
    for simulation in simulations(configuration):
        if any(metric.startswith(f"{struct}-") for metric in simulation.proxied):
            return simulation
    missing = "virtual_networks" if level == "networks" else "devices"
    raise UsageError(f"there is nothing to score at level {level}: it has no {missing}")


def _row(
    name: str, threshold: float | None, truth: Flags, flagged: Flags, vus_pr: float | None
) -> Row:
    delays = measures.delays(truth, flagged)
    found = delays[~np.isnan(delays)]
    precision, recall, f1 = measures.precision_recall_f1(truth, flagged)
    return Row(
        name=name,
        threshold=threshold,
        found=len(found),
        delay=float(np.median(found)) if len(found) else None,
        false_alarms=measures.false_alarms(truth, flagged, PERIOD),
        precision=_number(precision),
        recall=_number(recall),
        f1=_number(f1),
        vus_pr=vus_pr,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
