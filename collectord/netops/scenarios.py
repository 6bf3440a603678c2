"""Failures: who is in which scenario, when, and what it does to a metric.

``Failures`` holds what goes on from chunk to chunk; the ``Episodes`` it gives for a chunk are
painted over the values of each metric. All is done for many devices at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import Emitter
from collectord.netops.configuration import Configuration
from collectord.views import matches

PEAKS = 0.25
"""The likelihood of a single peak that the first half of a metric's failure grows to, from 0."""
LENGTH_SPREAD = 0.1
"""The deviation of a scenario's length, as a share of it."""
NEVER = 1 << 60
"""The step at which a metric joins a scenario that it has no part in."""

Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Episodes:
    """Stays of devices in scenarios, as far as they lie in one chunk; a column for each."""

    device: Steps
    scenario: Steps
    begin: Steps
    """The step, which may be long before the chunk."""
    length: Steps
    """How many steps it is to take, unless another scenario cuts it short."""
    first: Steps
    end: Steps
    """Its steps in the chunk, from ``first`` to before ``end``."""

    def failing(self, joins: Steps) -> tuple[Steps, Steps, NDArray[np.float64]]:
        """Where a metric fails that joins the scenarios at these steps of theirs.

        Each device and step, with the likelihood that the value is at its extreme: in the first
        half of the metric's failure it grows from 0 to ``PEAKS``, in the last half it is 1.
        """
        joins = joins[self.scenario]
        begin = self.begin + joins
        first = np.maximum(begin, self.first)
        counts = np.maximum(self.end - first, 0)
        episode = np.repeat(np.arange(len(counts)), counts)
        steps = np.arange(len(episode)) + (first - np.cumsum(counts) + counts)[episode]
        position = steps - begin[episode]
        half = ((self.length - joins) // 2)[episode]
        likelihood = np.where(position < half, PEAKS * position / np.maximum(half, 1), 1.0)
        return self.device[episode], steps, likelihood


class Failures:
    """Which scenarios the devices are in, step after step.

    A device that is well enters a scenario at each step with the same probability, so that the
    steps until it does have a geometric distribution. A site that fails, and a planned error, take
    a device out of the scenario that it is in. Planned errors count their steps from ``begin``.
    """

    def __init__(
        self,
        configuration: Configuration,
        emitters: Sequence[Emitter],
        random: np.random.Generator,
        begin: int = 0,
    ) -> None:
        self._random = random
        scenarios = configuration.error_scenarios
        self._lengths = np.array([scenario.length for scenario in scenarios])
        self._shortest = np.array(
            [1 + max(scenario.joins.values(), default=0) for scenario in scenarios]
        )
        self._rate = configuration.error_rate if scenarios else 0.0
        self._site_rate = configuration.site_error_rate if scenarios else 0.0
        devices_per_site = configuration.deployment.num_devices_per_site
        devices = np.arange(len(emitters))
        self._sites = devices.reshape(-1, devices_per_site)
        self._planned = [
            (begin + planned.step, planned.scenario, devices[_matching(planned.devices, emitters)])
            for planned in sorted(configuration.errors, key=lambda planned: planned.step)
            if begin + planned.step >= 0
        ]
        self._scenario, self._begin, self._length, self._end = np.zeros((4, len(emitters)), int)
        self._next = self._gaps(self._rate, len(devices))
        """The step at which each one enters a scenario by itself; never before ``_end``."""
        self._next_of_site = self._gaps(self._site_rate, len(self._sites))

    def episodes(self, first: int, end: int) -> Episodes:
        """Those of the steps from ``first`` to before ``end``, which follow the last ones asked."""
        pieces: list[tuple[Steps, ...]] = []
        for step, scenario, devices in self._forced(end):
            self._live(first, step, pieces)
            self._enter(devices, np.full(len(devices), step), np.full(len(devices), scenario))
            first = step
        self._live(first, end, pieces)
        return Episodes(*map(np.concatenate, zip(*pieces, strict=True)))

    def _forced(self, end: int) -> list[tuple[int, int, Steps]]:
        """The sites that fail and the planned errors before ``end``: step, scenario, devices."""
        forced: list[tuple[int, int, Steps]] = []
        while len(sites := np.flatnonzero(self._next_of_site < end)):
            steps = self._next_of_site[sites]
            scenarios = self._random.integers(len(self._lengths), size=len(sites))
            forced += zip(
                steps.astype(int).tolist(), scenarios.tolist(), self._sites[sites], strict=True
            )
            self._next_of_site[sites] = steps + 1 + self._gaps(self._site_rate, len(sites))
        while self._planned and self._planned[0][0] < end:
            forced.append(self._planned.pop(0))
        return sorted(forced, key=lambda entry: entry[0])

    def _live(self, first: int, end: int, pieces: list[tuple[Steps, ...]]) -> None:
        """Go on for some steps in which nothing is forced."""
        devices = np.flatnonzero(self._end > first)
        while True:
            pieces.append(
                (
                    devices,
                    self._scenario[devices],
                    self._begin[devices],
                    self._length[devices],
                    np.maximum(self._begin[devices], first),
                    np.minimum(self._end[devices], end),
                )
            )
            devices = np.flatnonzero(self._next < end)
            if not len(devices):
                break
            scenarios = self._random.integers(len(self._lengths), size=len(devices))
            self._enter(devices, self._next[devices].astype(int), scenarios)

    def _enter(self, devices: Steps, steps: Steps, scenarios: Steps) -> None:
        lengths = self._lengths[scenarios]
        lengths = np.rint(self._random.normal(lengths, LENGTH_SPREAD * lengths)).astype(int)
        lengths = np.maximum(lengths, self._shortest[scenarios])
        self._scenario[devices] = scenarios
        self._begin[devices] = steps
        self._length[devices] = lengths
        self._end[devices] = steps + lengths
        self._next[devices] = self._end[devices] + self._gaps(self._rate, len(devices))

    def _gaps(self, probability: float, count: int) -> NDArray[np.float64]:
        """How many steps in a row do without what has this probability at each; may be infinite."""
        with np.errstate(all="ignore"):
            rate = -np.log1p(-np.float64(probability))
            gaps: NDArray[np.float64] = np.floor(self._random.standard_exponential(count) / rate)
        return gaps


def _matching(pattern: str, emitters: Sequence[Emitter]) -> list[bool]:
    return [matches(pattern, emitter.id) for emitter in emitters]
