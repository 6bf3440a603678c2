"""A run: a network lives through its history as fast as its target takes it, then by the clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from collectord import wire
from collectord.clock import now
from collectord.netops.block import SECOND, Block, Simulation, Stream
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations
from collectord.netops.target import Target, TargetClosed, TargetError
from collectord.netops.targets import values_of

log = logging.getLogger(__name__)

State = Literal["idle", "priming", "generating", "stopped", "failed"]
Observer = Callable[[Simulation, Block], None]

BLOCK_VALUES = 500_000
"""The most values in a block, if it is longer than a period."""
MINUTE = wire.PERIOD * SECOND
"""A period of the collector. A block is one at least, and ends with one: of a period that waits
half full for the next block, the collector would think that nothing more comes."""
UNLIMITED_SECONDS = 600.0
"""Without a duration, a run that is faster than the clock reaches it after so long."""
LOOK_AGAIN = 0.5
"""Seconds to wait at most before looking at the clock again, since it may be set."""
GRACE = 1.0
"""Seconds to deliver what is under way when a run is stopped."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    state: State = "idle"
    values: int = 0
    """How many were sent."""
    history_done: int = 0
    """Steps of history that were sent."""
    history_steps: int = 0
    """Steps of history in all."""
    time: int | None = None
    """Of the last step that was sent, microseconds since the Unix epoch."""
    rate: float = 0.0
    """Values a second since this state began."""
    seconds_left: float | None = None
    """Until the history is told, or the duration is over; None where nobody knows."""
    rejected: int = 0
    """How much the target has refused of what was sent."""
    trouble: str = ""
    """What the target has waited for, for long."""
    error: str = ""
    """Why it failed."""


class Feed:
    """Simulations that live on together, a step every ``period`` microseconds, and their target."""

    def __init__(
        self,
        simulated: Sequence[Simulation],
        target: Target,
        start: int,
        period: int,
        observer: Observer | None = None,
    ) -> None:
        self.next_time = start
        self._streams = [Stream(one, start, period / SECOND) for one in simulated]
        self._target = target
        self._period = period
        self._observer = observer
        width = sum(len(one.emitters) * len(one.metrics) for one in simulated)
        self._longest = max(
            1,
            MINUTE // period,
            min(
                int(target.block_seconds * SECOND) // period,
                BLOCK_VALUES // max(1, width),
            ),
        )

    def send(self, steps: int) -> tuple[int, int]:
        """Send a block of the next steps, at most so many; returns how many, and their values.

        The target has all that came before when the block is sent, so that two sources of the
        same thing are never further apart than one block.
        """
        steps = self._fitting(steps)
        blocks = [stream.take(steps) for stream in self._streams]  # while the target still works
        self._target.flush()
        for stream, block in zip(self._streams, blocks, strict=True):
            self._target.send(stream.simulation, block)
            if self._observer:
                self._observer(stream.simulation, block)
        self.next_time += steps * self._period
        return steps, sum(map(values_of, blocks))

    def _fitting(self, steps: int) -> int:
        steps = min(steps, self._longest)
        end = self.next_time + steps * self._period
        whole = -(-(end - end % MINUTE - self.next_time) // self._period)
        return whole if 0 < whole <= steps else steps


class Run:
    """One life of a network, in a thread of its own: some history, then by the clock.

    ``history`` is in seconds. Its steps are those from ``live_start - history`` to before
    ``live_start``; all are at whole multiples of the interval since the Unix epoch.

    After that ``speed`` seconds of the network pass in one of the clock's; nothing is sent before
    the clock has come there, so the faster ones begin as much earlier as they gain in
    ``duration`` seconds (or ten minutes), and go on with the clock once they reach it. Where a run
    has fallen behind, because the target or the whole machine stood still, it sends what is due
    in few large blocks. ``duration`` counts from the end of the history, 0 is history alone,
    None goes on until ``stop``.

    ``observer`` is called in the thread, with each block that was sent. ``target`` is closed at
    the end. ``clock`` tells microseconds since the Unix epoch. Raises ValueError for numbers that
    can't be.
    """

    def __init__(
        self,
        configuration: Configuration,
        target: Target,
        *,
        history: float = 0.0,
        speed: float = 1.0,
        duration: float | None = None,
        observer: Observer | None = None,
        clock: Callable[[], int] = now,
    ) -> None:
        period = round(configuration.interval * SECOND)
        if history < 0 or speed < 1 or (duration is not None and duration < 0):
            raise ValueError("speed is at least 1, history and duration are not negative")
        self._target = target
        self._speed = speed
        self._duration = duration
        self._clock = clock
        self._period = period
        gained = (speed - 1) * (UNLIMITED_SECONDS if duration is None else duration)
        live_start = clock() - round(gained * SECOND)
        self._live_start = live_start - live_start % period
        steps = round(history * SECOND) // period
        start = self._live_start - steps * period
        if start < 0:
            raise ValueError(f"{history:g} s of history begin before 1970")
        self._feed = Feed(simulations(configuration), target, start, period, observer)
        self._progress = Progress(history_steps=steps)
        self._phase = (time.monotonic(), 0)
        """When the state began, and how many values had been sent."""
        self._live_since = 0
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netops-run", daemon=True)

    @property
    def live_start(self) -> int:
        """The time of the first step after the history, microseconds since the Unix epoch."""
        return self._live_start

    def start(self) -> None:
        """Begin; once only."""
        self._enter("priming")
        self._thread.start()

    def stop(self) -> None:
        """End it, whatever it waits for. What is under way has ``GRACE`` seconds to arrive."""
        self._is_stopping.set()
        if self._thread.ident is not None:
            self._thread.join(GRACE)
        self._target.close()
        if self._thread.ident is not None:
            self._thread.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def progress(self) -> Progress:
        """How far it has come."""
        progress, (since, before) = self._progress, self._phase
        elapsed = time.monotonic() - since
        rejected = self._target.counts().get("rejected", 0)
        if progress.state not in ("priming", "generating"):
            return replace(progress, rejected=rejected)
        rate = (progress.values - before) / elapsed if elapsed > 0 else 0.0
        return replace(
            progress,
            rate=rate,
            seconds_left=self._left(progress, elapsed),
            rejected=rejected,
            trouble=self._target.trouble,
        )

    def _left(self, progress: Progress, elapsed: float) -> float | None:
        if progress.state == "generating":
            return None if self._duration is None else max(0.0, self._duration - elapsed)
        if not progress.history_done:
            return None
        missing = progress.history_steps - progress.history_done
        return missing * elapsed / progress.history_done

    def _run(self) -> None:
        try:
            self._prime()
            self._live()
            self._target.flush()
        except TargetClosed as error:
            if not self._is_stopping.is_set():
                self._fail(str(error) or "the target was closed")
        except TargetError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("a run failed")
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            if not self._is_stopping.is_set():  # else ``stop`` does
                self._target.close()
        if self._progress.state != "failed":
            self._enter("stopped")

    def _prime(self) -> None:
        while missing := self._progress.history_steps - self._progress.history_done:
            if self._is_stopping.is_set():
                return
            done = self._send(missing)
            self._progress = replace(
                self._progress, history_done=self._progress.history_done + done
            )
        self._target.flush()

    def _live(self) -> None:
        self._live_since = self._clock()
        if self._is_stopping.is_set() or self._duration == 0:
            return
        self._enter("generating")
        end = None if self._duration is None else round(self._duration * SECOND) + self._live_since
        while not self._is_stopping.is_set():
            clock = self._clock() if end is None else min(self._clock(), end)
            due = self._due(clock) - self._feed.next_time
            if due >= 0:
                self._send(due // self._period + 1)
            elif clock == end:
                return
            else:
                self._is_stopping.wait(min(-due / self._speed / SECOND, LOOK_AGAIN))

    def _due(self, clock: int) -> int:
        """Up to when the steps are due."""
        if self._speed == 1:
            return clock
        passed = round((clock - self._live_since) * self._speed)
        return min(clock, self._live_start + passed)

    def _send(self, steps: int) -> int:
        done, values = self._feed.send(steps)
        self._progress = replace(
            self._progress,
            values=self._progress.values + values,
            time=self._feed.next_time - self._period,
        )
        return done

    def _enter(self, state: State) -> None:
        self._phase = (time.monotonic(), self._progress.values)
        self._progress = replace(self._progress, state=state)

    def _fail(self, error: str) -> None:
        log.error("the run ends: %s", error)
        self._progress = replace(self._progress, state="failed", error=error)
