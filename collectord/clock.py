"""The time: one clock that numbers periods, and one that measures how long nothing came.

The wall clock is the machine's, and somebody may set it. The steady clock begins where the wall
clock stands when the collector starts, and from then on nobody can set it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

FOLLOWED_AFTER = 65_000_000
"""Microseconds until periods are closed by a wall clock that was set forward: a period that was
open then is not cut short, for those who report by clocks that were right all along."""
STEP = 500_000
"""Microseconds; what is less is no step: the machine's clock is slewed."""


def now() -> int:
    """Microseconds since the Unix epoch, by the machine's clock."""
    return time.time_ns() // 1000


class Clock:
    """Microseconds since the Unix epoch, by two clocks that give nanoseconds.

    ``closing`` is for one caller who asks regularly; the others are for any thread.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.steps = 0
        """How often the machine's clock was set, as far as ``closing`` has seen."""
        self._wall = wall
        self._monotonic = monotonic
        self._start = wall() - monotonic()
        self._offset = 0
        """Of the clock that closes periods from the steady one, microseconds."""
        self._seen = 0
        """Of the wall clock from the steady one, when last looked at."""
        self._followed_from = 0
        """When a clock that was set forward will be followed, on the steady one."""

    def wall(self) -> int:
        """The machine's clock."""
        return self._wall() // 1000

    def steady(self) -> int:
        """The clock that nobody sets."""
        return (self._monotonic() + self._start) // 1000

    def closing(self) -> int:
        """The clock that closes periods: the machine's, but some time behind a step forward."""
        steady = self.steady()
        offset = self.wall() - steady
        if abs(offset - self._seen) >= STEP:
            self._note(offset - self._seen)
            self._followed_from = steady + FOLLOWED_AFTER
        self._seen = offset
        if offset - self._offset < STEP or steady >= self._followed_from:
            self._offset = offset
        return steady + self._offset

    def _note(self, moved: int) -> None:
        self.steps += 1
        log.warning(
            "the machine's clock was set %s by %.1f s",
            "forward" if moved > 0 else "back",
            abs(moved) / 1_000_000,
        )
