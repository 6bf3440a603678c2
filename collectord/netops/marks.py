"""Truth beside detection, for each site and minute: what fails, and what a collector finds of it.

``Truth`` is told by the simulation, ``Judgement`` by a collector's answers. How they look is
``demo.py``'s.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from collectord import wire
from collectord.netops.block import SECOND, Block, Simulation

MINUTE = wire.PERIOD * SECOND
"""A period of the collector, in microseconds."""


class Mark(Enum):
    """What a minute of a site was."""

    HIT = "failing, and found"
    MISSED = "failing, not found"
    FALSE_ALARM = "false alarm"
    QUIET = "quiet"
    UNKNOWN = "not looked at"


class Truth:
    """The minutes in which any metric of any device of a site fails.

    ``observe`` is for one thread, while others may read.
    """

    def __init__(self) -> None:
        self.failing: defaultdict[str, set[int]] = defaultdict(set)

    def observe(self, simulation: Simulation, block: Block) -> None:
        """Take in what is being sent."""
        minutes = block.times // MINUTE
        failing = np.logical_or.reduce(list(block.is_error.values()))
        for row in np.flatnonzero(failing.any(axis=1)).tolist():
            site = simulation.emitters[row].labels["site"]
            self.failing[site].update(np.unique(minutes[failing[row]]).tolist())


class Judgement:
    """Whether the collector raised an alarm for a site, minute by minute, as far as it was asked.

    ``threshold`` is the |sigma| above which it is an alarm, ``first`` the minute of the site's
    first sample, ``since`` the first one that counts. A detector doesn't tell which minute its
    score is of, but how many it has seen: so it's known, as long as none is without samples.
    """

    def __init__(self, threshold: float, first: int, since: int) -> None:
        self._threshold = threshold
        self._first = first
        self._since = since
        self.alarms: dict[int, bool] = {}

    def judge(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in the newest scores of the site's metrics."""
        for score in scores.values():
            minute = self._first + score["samples"] - 1
            if minute < self._since:
                continue
            alarm = abs(score["sigma"]) > self._threshold
            self.alarms[minute] = self.alarms.get(minute, False) or alarm

    def mark(self, minute: int, failing: set[int]) -> Mark:
        """What that minute was."""
        alarm = self.alarms.get(minute)
        if alarm is None:
            return Mark.UNKNOWN
        if minute in failing:
            return Mark.HIT if alarm else Mark.MISSED
        return Mark.FALSE_ALARM if alarm else Mark.QUIET

    def tally(self, failing: set[int]) -> Counter[str]:
        """Failures ``found``, ``missed`` and ``under way``; ``false alarms``, and minutes in all.

        A failure is a run of minutes, and found where there was an alarm in any of them. One that
        had begun before anybody looked is left out.
        """
        tally: Counter[str] = Counter(minutes=len(self.alarms))
        minutes = sorted(self.alarms)
        for is_failure, run in itertools.groupby(minutes, failing.__contains__):
            among = list(run)
            alarms = sum(map(self.alarms.__getitem__, among))
            if not is_failure:
                tally["false alarms"] += alarms
            elif among[0] == minutes[0] and among[0] - 1 in failing:
                continue
            elif alarms:
                tally["found"] += 1
            else:
                tally["under way" if among[-1] == minutes[-1] else "missed"] += 1
        return tally
