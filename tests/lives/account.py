"""What was told, kept in plain Python, and what every closed period must be of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

SECOND = 1_000_000
PERIOD = 60 * SECOND
RING = 8
DELETED = 4
ALPHA = 0.1
METRICS = {
    "S-a": [
        ("Sum", 1, "Sum", "", 1.0),
        ("Count", 1, "Count", "", 1.0),
        ("EWM", 1, "Sum", "EWM", ALPHA),
    ]
}


class WrongError(AssertionError):
    """Something that must hold doesn't."""


class Account:
    """The samples of all sources, and the periods that were seen to close."""

    def __init__(self) -> None:
        self.results = 0
        self._told: dict[str, dict[int, list[int]]] = {}
        """The samples of each period of each key."""
        self._closed: dict[str, set[int]] = {}

    def take(self, key: str, time: int, sample: int) -> None:
        """A sample that a source told."""
        self._told.setdefault(key, {}).setdefault(time // PERIOD, []).append(sample)

    def check_result(self, key: str, name: str, row: Any) -> None:
        """A closed period, a row of ``take_results``: it must be whole."""
        period = int(row["period"])
        periods = self._told.get(key, {})
        if row["flags"] & DELETED:
            check(
                period not in periods, f"{name} of {key} is deleted in {period}, which has samples"
            )
            return
        samples = periods.get(period, [])
        self.results += 1
        if name == "Count":
            self._closed.setdefault(key, set()).add(period)
            check(row["value"] == len(samples), f"{key} {period}: {row['value']} of {samples}")
            return
        check(row["value"] == sum(samples), f"{key} {period}: {row['value']} of {samples}")
        if name == "EWM":
            run = self._run_until(key, period)
            mean, stddev = smoothed(run)
            check(
                row["samples"] == len(run)
                and math.isclose(row["mean"], mean, rel_tol=1e-9)
                and math.isclose(row["stddev"], stddev, rel_tol=1e-9),
                f"{key} {period}: {row} is not {len(run), mean, stddev}",
            )

    def _run_until(self, key: str, period: int) -> list[int]:
        """The sums of a period and of those before it, back to the last one without a sample."""
        periods = self._told.get(key, {})
        first = period
        while first in periods:
            first -= 1
        return [sum(periods[number]) for number in range(first + 1, period + 1)]

    def check_all_closed(self, *, by_ring: bool) -> None:
        """Every period that is due was seen to close."""
        for key, periods in self._told.items():
            last = max(periods) - RING if by_ring else max(periods)
            due = {period for period in periods if period <= last}
            closed = self._closed.get(key, set())
            check(closed == due, f"{key}: of {sorted(due)} these were closed: {sorted(closed)}")


def smoothed(sums: Iterable[int]) -> tuple[float, float]:
    """Mean and deviation, as docs/protocol.md has them."""
    mean = variance = 0.0
    for total in sums:
        variance = (1 - ALPHA) * (variance + ALPHA * (total - mean) ** 2)
        mean = (1 - ALPHA) * mean + ALPHA * total
    return mean, math.sqrt(variance)


def check(holds: bool, what: str) -> None:
    if not holds:
        raise WrongError(what)
