"""What is told, at random, and of which time.

The front is the newest period of any sample. It moves on only where all samples of the period that
falls out of the ring are durable, so that whoever sends again, in whatever order, is never late.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from .account import PERIOD, RING, SAMPLED, STRUCT, Record
from .publisher import Publisher

CONFIG = "UveLinkConfig"
"""A struct without samples."""
START = 26_666_667
"""The first period: in September 2020."""
SHARED_KEYS = 24
OWN_KEYS = 6
"""For each publisher."""
COVERED = 0.98
"""The share of keys that have a sample at the start of each period; where none comes later either,
the proxy UVE ends."""


class Timeline:
    """Random records for publishers; ``front`` is the newest period of a sample."""

    def __init__(self, chance: random.Random, publishers: Sequence[Publisher]) -> None:
        self.front = START
        self._chance = chance
        self._publishers = publishers
        self._serial = 0
        self._shared = [f"ObjectLink:shared:{number}" for number in range(SHARED_KEYS)]
        self._own = {
            publisher.name: [f"ObjectLink:{publisher.name}:{number}" for number in range(OWN_KEYS)]
            for publisher in publishers
        }

    def may_advance(self) -> bool:
        """Whether no sample that may come again would be late if the front moved on."""
        oldest = [publisher.oldest for publisher in self._publishers]
        return all(period is None or period > self.front + 1 - RING for period in oldest)

    def advance(self) -> dict[str, list[Record]]:
        """Move the front on by a period; records that begin it, by publisher."""
        self.front += 1
        begun: dict[str, list[Record]] = {}
        for publisher in self._publishers:
            for key in self._own[publisher.name]:
                self._begin(begun, publisher.name, key)
        for key in self._shared:
            self._begin(begun, self._chance.choice(self._publishers).name, key)
        return begun

    def _begin(self, begun: dict[str, list[Record]], name: str, key: str) -> None:
        if self._chance.random() < COVERED:
            begun.setdefault(name, []).append(self._sample(key, self.front))

    def records(self, name: str) -> list[Record]:
        """The random records of a batch; at times none."""
        return [self._record(name) for _ in range(self._chance.randrange(20))]

    def _record(self, name: str) -> Record:
        keys = self._shared if self._chance.random() < 0.7 else self._own[name]
        key = self._chance.choice(keys)
        draw = self._chance.random()
        if draw < 0.03:
            return [key, self._chance.choice((STRUCT, CONFIG)), None, self._time(self.front)]
        if draw < 0.7:
            return self._sample(key, self.front - self._lag())
        return [key, CONFIG, self._attributes(), self._time(self.front)]

    def _lag(self) -> int:
        """Now and then of an earlier period; the oldest one holds the front until it is durable."""
        if self._chance.random() < 0.001:
            return RING - 1
        return self._chance.choice((0, 0, 0, 0, 1, 2))

    def _sample(self, key: str, period: int) -> Record:
        value: Any = self._chance.randrange(1, 1000)
        attributes = {
            **self._attributes(),
            SAMPLED: float(value) if self._chance.random() < 0.3 else value,
            "load": self._chance.randrange(100),
            "peers": self._chance.sample(("a", "b", "c", "d"), 2),
        }
        return [key, STRUCT, attributes, self._time(period)]

    def _attributes(self) -> dict[str, Any]:
        """``serial`` tells every record from every other; the rest comes, changes and goes."""
        self._serial += 1
        made: dict[str, Any] = {"serial": self._serial}
        for name in ("state", "detail", "limits"):
            if self._chance.random() < 0.3:
                made[name] = self._chance.choice(
                    (
                        None,
                        None,
                        "up",
                        "down",
                        True,
                        1.5,
                        ["x", 1],
                        {"in": 7, "out": [2]},
                        "a text that is too long to stand inside the slot itself " * 3,
                    )
                )
        return made

    def _time(self, period: int) -> int:
        return period * PERIOD + self._chance.randrange(PERIOD)
