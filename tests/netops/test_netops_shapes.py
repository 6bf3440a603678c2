"""How a mean moves with the time: its day, its weekend and its drift."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collectord.netops.block import SECOND
from collectord.netops.configuration import Distribution
from collectord.netops.shapes import DAY, HOUR, WEEK, Shape
from netops.drawing import life, metric, network

DEVICES = 20


def seconds_of(*moment: int) -> int:
    """Of a moment in UTC, since the Unix epoch."""
    return int(datetime(*moment, tzinfo=timezone.utc).timestamp())  # type: ignore[misc, arg-type]


def means(seconds: Any, **fields: float) -> NDArray[np.float64]:
    """The mean of 100 at these seconds, a row for each device."""
    distribution = Distribution(mu=100, sigma=1, **fields)
    shape = Shape(distribution, DEVICES, np.random.default_rng(0))
    return shape.mean(np.asarray(seconds, np.int64) * SECOND) + np.zeros((DEVICES, len(seconds)))


A_DAY = range(seconds_of(2024, 5, 15), seconds_of(2024, 5, 16), 60)


def test_without_a_shape_the_mean_is_always_the_same() -> None:
    assert np.all(means(A_DAY) == 100)


def test_a_day_rises_and_falls_by_its_share_about_the_mean() -> None:
    day = means(A_DAY, daily=0.3)
    assert day.mean(axis=1) == pytest.approx(100)
    # A minute from its height, a wave has lost less than a millionth of it.
    assert day.max(axis=1) == pytest.approx(130, rel=1e-5)
    assert day.min(axis=1) == pytest.approx(70, rel=1e-5)


def test_a_day_is_at_its_height_in_the_afternoon_at_a_time_of_each_device() -> None:
    hours = means(A_DAY, daily=0.3).argmax(axis=1) / 60
    assert np.all((hours > 12.9) & (hours < 17.1))
    assert len(set(hours)) > DEVICES // 2


def test_every_day_is_the_same() -> None:
    next_day = [second + DAY for second in A_DAY]
    assert means(A_DAY, daily=0.3) == pytest.approx(means(next_day, daily=0.3))


@pytest.mark.parametrize(
    ("moment", "mean"),
    [
        ((2024, 5, 17, 23, 59, 59), 100),  # a Friday
        ((2024, 5, 18, 3), 80),
        ((2024, 5, 18, 6), 60),
        ((2024, 5, 19, 12), 60),
        ((2024, 5, 19, 18), 60),
        ((2024, 5, 19, 21), 80),
        ((2024, 5, 20), 100),  # a Monday
        ((2024, 5, 22, 12), 100),
    ],
)
def test_a_weekend_falls_by_its_share(moment: tuple[int, ...], mean: float) -> None:
    assert means([seconds_of(*moment)], weekly=0.4) == pytest.approx(mean)


def test_a_weekend_comes_and_goes_slowly() -> None:
    week = means(range(0, WEEK, 60), weekly=0.4)
    assert np.abs(np.diff(week)).max() == pytest.approx(40 / (6 * 60))


def test_a_drift_stays_within_its_share_and_is_slow() -> None:
    hourly = means(range(0, 17 * 29 * DAY, HOUR), drift=0.2)
    assert hourly.mean(axis=1) == pytest.approx(100)
    assert np.all(np.abs(hourly - 100) <= 20)
    assert np.all(np.ptp(hourly, axis=1) > 30)
    # The steepest that two waves of half the height, of 17 and of 29 days, can be together.
    steepest = 10 * 2 * np.pi / 24 * (1 / 17 + 1 / 29)
    assert np.abs(np.diff(hourly)).max() <= steepest


def test_each_device_drifts_its_own_way() -> None:
    drifts = means(range(0, 17 * 29 * DAY, DAY), drift=0.2)
    correlations = np.asarray(np.corrcoef(drifts))[np.triu_indices(DEVICES, 1)]
    assert np.all(correlations < 0.999)


def test_shapes_add_up() -> None:
    together = means(A_DAY, daily=0.3, weekly=0.4, drift=0.2)
    parts = [
        means(A_DAY, **{name: share})
        for name, share in (("daily", 0.3), ("weekly", 0.4), ("drift", 0.2))
    ]
    assert together == pytest.approx(np.sum(parts, axis=0) - 200)


def test_a_mean_is_a_function_of_the_time_alone() -> None:
    configuration = network(
        metrics={"load": metric(sigma=0, noise=0, daily=0.3, weekly=0.4, drift=0.2)}
    )
    from_noon = life(configuration, 600, start=12 * HOUR * SECOND, interval=60)
    from_three = life(configuration, 420, start=15 * HOUR * SECOND, interval=60)
    assert from_noon.values["load"][:, 180:] == pytest.approx(from_three.values["load"])
