"""How a metric's mean moves with the time: by day and week, and in a slow drift.

Pure functions of the time and of phases that each device has of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import SECOND
from collectord.netops.configuration import Distribution

HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY
PEAK = 15 * HOUR
"""When the day is at its height, in UTC, ..."""
PEAK_SPREAD = 2 * HOUR
"""... or so much earlier or later, device by device."""
SATURDAY = 2 * DAY
"""The Unix epoch was the beginning of a Thursday."""
WEEKEND = (0, 6 * HOUR, 42 * HOUR, 48 * HOUR, WEEK), (0.0, -1.0, -1.0, 0.0, 0.0)
"""Seconds since Saturday's beginning, and how far the weekend has come there."""
DRIFTS = 17 * DAY, 29 * DAY
"""Periods of the two waves that make a drift; together they take 493 days to come round."""


class Shape:
    """The mean of one metric, for each of some devices."""

    def __init__(
        self, distribution: Distribution, devices: int, random: np.random.Generator
    ) -> None:
        self._mu = distribution.mu
        self._flat = not (distribution.daily or distribution.weekly or distribution.drift)
        peaks = PEAK + random.uniform(-PEAK_SPREAD, PEAK_SPREAD, devices)
        drifts = random.uniform(0, 2 * np.pi, (len(DRIFTS), devices))
        weights = [np.ones(devices), np.full(devices, distribution.weekly)]
        # A wave of any phase is a cosine and a sine, so that these are the same for all devices.
        for phase, height in (
            (2 * np.pi * peaks / DAY, distribution.daily),
            *((phases, distribution.drift / len(DRIFTS)) for phases in drifts),
        ):
            weights += [height * np.cos(phase), height * np.sin(phase)]
        self._weights = distribution.mu * np.stack(weights, axis=1)

    def mean(self, times: NDArray[np.int64]) -> float | NDArray[np.float64]:
        """At each of ``times`` (microseconds), as an array (devices, steps); or always the same."""
        if self._flat:
            return self._mu
        seconds = times / SECOND
        waves = [np.ones(len(times)), np.interp((seconds - SATURDAY) % WEEK, *WEEKEND)]
        for period in (DAY, *DRIFTS):
            angle = 2 * np.pi * (seconds % period) / period
            waves += [np.cos(angle), np.sin(angle)]
        means: NDArray[np.float64] = self._weights @ np.stack(waves)
        return means
