"""Failures: who is in which scenario, when, and what it does to a metric.

``Failures`` holds what goes on from span to span; of the ``Episodes`` it gives for each, those of
a chunk are painted over the values of each metric. All is done for many devices at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import Emitter
from collectord.netops.configuration import Configuration
from collectord.netops.draws import Draws, generator
from collectord.views import matches

SPAN = 1 << 10
"""Steps whose failures are drawn at once."""
PEAKS = 0.25
"""The likelihood of a single peak that the first half of a metric's failure grows to, from 0."""
LENGTH_SPREAD = 0.1
"""The deviation of a scenario's length, as a share of it."""
NEVER = 1 << 60
"""The step at which a metric joins a scenario that it has no part in."""

Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Episodes:
    """Stays of devices in scenarios, as far as they lie within some steps; a column for each."""

    device: Steps
    scenario: Steps
    begin: Steps
    """The step, which may be long before those."""
    length: Steps
    """How many steps it is to take, unless another scenario cuts it short."""
    first: Steps
    end: Steps
    """Its steps among those, from ``first`` to before ``end``."""

    def within(self, first: int, end: int) -> Episodes:
        """Those of fewer steps, from ``first`` to before ``end``."""
        here = (self.first < end) & (self.end > first)
        return Episodes(
            self.device[here],
            self.scenario[here],
            self.begin[here],
            self.length[here],
            np.maximum(self.first[here], first),
            np.minimum(self.end[here], end),
        )

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
    """Which scenarios the devices are in, step after step, in one life of them.

    A device that is well enters a scenario at each step with the same probability, so that the
    steps until it does have a geometric distribution. A site that fails, and a planned error, take
    a device out of the scenario that it is in; at the same step the planned error prevails. Planned
    errors count their steps from ``begin``, which may be long before the life; those that are under
    way when it begins go on, while all other devices begin well.
    """

    def __init__(
        self,
        configuration: Configuration,
        emitters: Sequence[Emitter],
        life: int = 0,
        begin: int = 0,
    ) -> None:
        self._seed = configuration.seed
        self._random = generator(self._seed, Draws.FAILURES, life)
        self._emitters = emitters
        scenarios = configuration.error_scenarios
        self._lengths = np.array([scenario.length for scenario in scenarios], int)
        self._shortest = np.array(
            [1 + max(scenario.joins.values(), default=0) for scenario in scenarios], int
        )
        self._rate = configuration.error_rate if scenarios else 0.0
        self._site_rate = configuration.site_error_rate if scenarios else 0.0
        self._devices = np.arange(len(emitters))
        self._sites = self._devices.reshape(-1, configuration.deployment.num_devices_per_site)
        planned = [
            (begin + planned.step, number, planned.devices, planned.scenario)
            for number, planned in enumerate(configuration.errors)
        ]
        self._planned = sorted(planned, key=lambda error: error[0])
        self._scenario, self._begin, self._length, self._end = np.zeros((4, len(emitters)), int)
        for entry in self._planned_errors(-2 * int(self._lengths.max(initial=0)), 0):
            self._enter(*entry)
        self._end = np.maximum(self._end, 0)
        self._next = self._end + self._gaps(self._rate, len(emitters))
        """The step at which each one enters a scenario by itself; never before ``_end``."""
        self._next_of_site = self._gaps(self._site_rate, len(self._sites))

    def spans(self) -> Iterator[Episodes]:
        """Those of the first ``SPAN`` steps, of the next, and so on."""
        for first in itertools.count(0, SPAN):
            yield self._span(first, first + SPAN)

    def _span(self, first: int, end: int) -> Episodes:
        place, *forced = self._forced(first, end)
        stays: list[tuple[Steps, ...]] = []
        devices = self._devices
        while True:
            # Each round takes all devices on by one scenario, whenever they enter it.
            steps = np.minimum(self._next[devices], forced[0][place[devices]])
            devices, steps = devices[steps < end], steps[steps < end].astype(int)
            if not len(devices):
                break
            scenarios = self._random.integers(len(self._lengths), size=len(devices))
            is_forced = forced[0][place[devices]] == steps
            if is_forced.any():
                scenarios[is_forced] = forced[1][place[devices[is_forced]]]
            lengths = self._drawn_lengths(self._random, scenarios)
            if is_forced.any():
                planned = forced[2][place[devices[is_forced]]]
                lengths[is_forced] = np.where(planned, planned, lengths[is_forced])
                place[devices[is_forced]] += 1
            stays.append(self._stays(devices, first, steps))
            self._enter(devices, steps, scenarios, lengths)
            self._next[devices] = self._end[devices] + self._gaps(self._rate, len(devices))
        stays.append(self._stays(self._devices, first, end))
        return Episodes(*map(np.concatenate, zip(*stays, strict=True)))

    def _forced(self, first: int, end: int) -> tuple[Steps, Steps, Steps, Steps]:
        """What devices enter against their will: step, scenario and length, or 0 for any length.

        Device by device in the order of the steps, the first of each at the place that comes before
        all that; the last of each is at ``end``.
        """
        entries = [
            np.stack(np.broadcast_arrays(*entry))
            for entry in reversed([*self._planned_errors(first, end)])
        ]
        sites = np.arange(len(self._sites))
        while len(sites := sites[self._next_of_site[sites] < end]):
            steps = self._next_of_site[sites].astype(int)
            scenarios = self._random.integers(len(self._lengths), size=len(sites))
            columns = np.broadcast_arrays(self._sites[sites].T, steps, scenarios, 0)
            entries.append(np.stack(columns).reshape(4, -1))
            self._next_of_site[sites] = steps + 1 + self._gaps(self._site_rate, len(sites))
        entries.append(np.stack(np.broadcast_arrays(self._devices, end, 0, 0)))
        forced = np.concatenate(entries, axis=1)
        # Of entries at the same device and step, this takes the first.
        _, order = np.unique(forced[0] * (SPAN + 1) + forced[1] - first, return_index=True)
        device, step, scenario, length = forced[:, order]
        return np.searchsorted(device, self._devices), step, scenario, length

    def _planned_errors(self, first: int, end: int) -> Iterator[tuple[Steps, int, int, Steps]]:
        """Those that begin at these steps: devices, step, scenario, and the lengths.

        The lengths are the same in each life, so that one goes on in the next as it was.
        """
        for step, number, pattern, scenario in self._planned:
            if first <= step < end:
                devices = self._devices[_matching(pattern, self._emitters)]
                random = generator(self._seed, Draws.PLANNED_ERRORS, number)
                scenarios = np.full(len(devices), scenario)
                yield devices, step, scenario, self._drawn_lengths(random, scenarios)

    def _drawn_lengths(self, random: np.random.Generator, scenarios: Steps) -> Steps:
        mean = self._lengths[scenarios]
        lengths = np.rint(random.normal(mean, LENGTH_SPREAD * mean)).astype(int)
        held: Steps = np.maximum(lengths, self._shortest[scenarios])
        return held

    def _enter(
        self, devices: Steps, steps: Steps | int, scenarios: Steps | int, lengths: Steps
    ) -> None:
        self._scenario[devices] = scenarios
        self._begin[devices] = steps
        self._length[devices] = lengths
        self._end[devices] = steps + lengths

    def _stays(self, devices: Steps, first: int, end: Steps | int) -> tuple[Steps, ...]:
        """The columns of ``Episodes`` for the scenarios that these devices were in."""
        firsts = np.maximum(self._begin[devices], first)
        ends = np.minimum(self._end[devices], end)
        here = firsts < ends
        devices = devices[here]
        columns = (self._scenario, self._begin, self._length)
        return devices, *(column[devices] for column in columns), firsts[here], ends[here]

    def _gaps(self, probability: float, count: int) -> NDArray[np.float64]:
        """How many steps in a row do without what has this probability at each; may be infinite."""
        with np.errstate(all="ignore"):
            rate = -np.log1p(-np.float64(probability))
            gaps: NDArray[np.float64] = np.floor(self._random.standard_exponential(count) / rate)
        return gaps


def _matching(pattern: str, emitters: Sequence[Emitter]) -> list[bool]:
    return [matches(pattern, emitter.id) for emitter in emitters]
