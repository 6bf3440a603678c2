"""The state over restarts: where it is saved and when, and who is awaited once it was loaded.

Saving is done on a thread of its own, however long the disk takes: the collector serves on from
memory, and what a source is told to be durable stands still until the disk takes a snapshot again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from collectord import logs
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.settings import Settings
from collectord.snapshot import Directory, Files, Snapshot, SnapshotError

log = logging.getLogger(__name__)

SHARE = 4
"""At most one part in so many of the time goes into saving: a slow disk is asked less often."""
LOOK = 0.5
"""Seconds between two looks at whether the next snapshot is due, as its interval may change."""
HANGS = 60.0
"""Seconds after which a snapshot that is under way is called a problem."""


def directory(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Where the state is saved; None where it isn't. Raises SnapshotError for no home."""
    text = settings.text("SNAPSHOT.directory")
    port = settings.integer("COLLECTOR.port")
    if not text:
        log.log(logs.NOTICE, "state is not saved, as SNAPSHOT.directory is empty")
        return None
    if Path(text).is_absolute():
        return Path(text)
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given) / text
    if not port:
        # Nobody could find it again, as the port is another one with every start.
        log.log(
            logs.NOTICE,
            "state is not saved, as COLLECTOR.port is 0; an absolute SNAPSHOT.directory would be "
            "used in any case",
        )
        return None
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():
        try:
            home = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise SnapshotError(
                "cannot save state, as there is no home directory; choose an absolute "
                "SNAPSHOT.directory, or leave it empty to save none"
            ) from error
    return home / "collectord" / str(port) / text


class Captured(Protocol):
    """The state of another room than the engine, at one moment."""

    @property
    def version(self) -> int:
        """The same as long as nothing changes there."""

    def packed(self) -> bytes:
        """What is to be saved; called on the thread that saves."""


class State:
    """The state of one collector on disk, or nowhere (``path`` is None).

    ``load`` comes first and gives the engine; then ``serve`` saves it, and ``settle`` is to be
    called often; ``finish`` saves a last time. ``close`` in any case.
    """

    def __init__(
        self, path: Path | None, clock: Clock, settings: Settings, files: Files | None = None
    ) -> None:
        self.counters: Counter[str] = Counter(
            snapshots_saved=0, snapshots_failed=0, snapshots_damaged=0
        )
        self.awaited = 0
        """Sources of the last run that are not back yet; no period closes without them."""
        self._directory = Directory(path, files) if path is not None else None
        self._clock = clock
        self._loaded: Snapshot | None = None
        self._last: Snapshot | None = None
        self._put_off_since = 0
        """Since when no snapshot can be made, by the wall clock; 0 while one can."""
        self._rooms: dict[int, Callable[[], Captured]] = {}
        self._kept: dict[int, bytes] = {}
        self._saved_state: object = None
        """What the engine had counted and held when the last snapshot was about to be made."""
        self._error: str | None = None
        self._failing_since = 0
        self._begun = time.monotonic()
        self._took = 0.0
        self._under_way_since = 0
        """By the wall clock; 0 while none is."""
        self._thread = ThreadPoolExecutor(1, "snapshot")
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take on changed settings."""
        self._interval = settings.seconds("SNAPSHOT.interval")
        self._grace = settings.seconds("SNAPSHOT.grace")
        self._quiet = round(settings.seconds("DEFAULT.uve_proxy_lateness") * 1_000_000)

    # ---- loading -------------------------------------------------------------------------------

    def load(self, make_engine: Callable[[], Engine]) -> Engine:
        """An engine with what was saved last, or an empty one. Raises SnapshotError."""
        self._engine = self._load(make_engine) or make_engine()
        self._begun = time.monotonic()
        return self._engine

    def _load(self, make_engine: Callable[[], Engine]) -> Engine | None:
        if self._directory is None:
            return None
        self._directory.open()
        loaded = self._directory.load(make_engine, self._clock.wall(), self._clock.steady())
        self.counters["snapshots_damaged"] = self._directory.damaged
        if loaded is None:
            return None
        engine, snapshot = loaded.engine, loaded.snapshot
        self._loaded = self._last = snapshot
        self._kept = {kind: bytes(body) for kind, body in loaded.rooms.items()}
        self._returning_since = self._clock.steady()
        self.awaited = engine.settle(self._returning_since, self._quiet)
        log.log(
            logs.NOTICE,
            "loaded %s of %s, %d bytes in %.1f s; sources awaited: %d",
            snapshot.path,
            logs.iso(snapshot.time),
            snapshot.bytes,
            snapshot.seconds,
            self.awaited,
        )
        return engine

    def add_room(self, kind: int, capture: Callable[[], Captured]) -> bytes | None:
        """From now on save what another room captures; returns what it had saved, if anything.

        ``kind`` is of ``snapshot_file.ROOMS``. It is captured on the event loop and packed on the
        thread that saves, before the engine's state is: what is newer in the engine is only news.
        """
        self._rooms[kind] = capture
        return self._kept.pop(kind, None)

    def forget_unclaimed(self) -> None:
        """Let go of what rooms had saved that are not there any more."""
        self._kept.clear()

    def settle(self) -> None:
        """See who is back of the sources of the last run, and give up on the others in the end."""
        if not self.awaited:
            return
        steady = self._clock.steady()
        seconds = (steady - self._returning_since) / 1_000_000
        if seconds < self._grace:
            self.awaited = self._engine.settle(steady, self._quiet)
            if not self.awaited:
                log.log(logs.NOTICE, "all sources are back after %.1f s", seconds)
        else:
            self.awaited = 0
            missing = self._engine.settle_all()
            log.warning(
                "periods close without sources that did not come back in %.1f s: %d",
                seconds,
                missing,
            )

    # ---- saving --------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Save in turn, until cancelled."""
        while True:
            while not self.is_due():
                await asyncio.sleep(LOOK)
            await self._save_on_thread()

    async def finish(self) -> bool:
        """Save a last time, when nothing comes in any more; False where that failed."""
        if self._directory is None:
            return True
        return await self._save_on_thread(is_last=True)

    async def _save_on_thread(self, is_last: bool = False) -> bool:
        captured = {kind: capture() for kind, capture in self._rooms.items()}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.save, is_last, captured)

    def close(self) -> None:
        """Let others have the directory, once what is under way has ended."""
        self._thread.shutdown(cancel_futures=True)
        if self._directory is not None:
            self._directory.close()

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        if self._directory is None:
            return False
        pause = max(self._interval, SHARE * self._took)
        return time.monotonic() - self._begun >= pause

    def save(self, is_last: bool = False, captured: Mapping[int, Captured] | None = None) -> bool:
        """Make a snapshot; False where that failed. One thread at a time, and not the loop's."""
        captured = captured or {}
        assert self._directory is not None
        self._begun = time.monotonic()
        versions = {kind: room.version for kind, room in captured.items()}
        state = (self._engine.counters(), self._engine.sizes(), versions)
        if state == self._saved_state and self._last and self._directory.has(self._last):
            self._last = replace(self._last, time=self._clock.wall())
            return True  # nothing has happened since
        self._under_way_since = self._clock.wall()
        try:
            rooms = {kind: room.packed() for kind, room in captured.items()}
            snapshot = self._directory.save(self._engine, self._clock, rooms)
        except (OSError, MemoryError) as error:
            self._failed(getattr(error, "strerror", None) or "memory ran out", is_last)
            return False
        finally:
            self._took = time.monotonic() - self._begun
            self._under_way_since = 0
        self._put_off_since = 0 if snapshot else self._put_off_since or self._clock.wall()
        if snapshot is not None:
            self._saved_state = state
            self._saved(snapshot)
        elif is_last:
            log.log(
                logs.NOTICE,
                "not saved once more, as sources of the last run were still awaited; what came "
                "since then is sent again",
            )
        return True

    def _saved(self, snapshot: Snapshot) -> None:
        self.counters["snapshots_saved"] += 1
        self._last = snapshot
        log.debug("saved %s, %d bytes in %.3f s", snapshot.path, snapshot.bytes, snapshot.seconds)
        if self._error is not None:
            log.log(logs.NOTICE, "state is saved again, in %s", snapshot.path)
        self._error = None

    def _failed(self, error: str, is_last: bool) -> None:
        self.counters["snapshots_failed"] += 1
        assert self._directory is not None
        if is_last:
            log.error(
                "state is not saved once more in %s: %s; it is that of the snapshot before",
                self._directory.path,
                error,
            )
        elif error != self._error:  # a line each few seconds would say no more
            log.error(
                "state can't be saved in %s: %s; nothing new becomes durable",
                self._directory.path,
                error,
            )
        if self._error is None:
            self._failing_since = self._clock.wall()
        self._error = error

    # ---- telling -------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """For the ``status`` query."""
        last = self._last
        return {
            "directory": str(self._directory.path) if self._directory else None,
            "last_time": last.time if last else None,
            "seconds": last.seconds if last else None,
            "bytes": last.bytes if last else None,
            "saved": self.counters["snapshots_saved"],
            "failed": self.counters["snapshots_failed"],
            "error": self._error,
            "loaded_from": str(self._loaded.path) if self._loaded else None,
            "awaited": self.awaited,
        }

    def problems(self) -> list[str]:
        """A sentence for each thing that someone should know of."""
        problems = []
        if self._error is not None:
            since = logs.iso(self._failing_since)
            problems.append(f"state can't be saved since {since}: {self._error}")
        if self._under_way_since and time.monotonic() - self._begun > HANGS:
            since = logs.iso(self._under_way_since)
            problems.append(f"a snapshot is under way since {since}: the disk is slow, or hangs")
        if self._put_off_since:
            since = logs.iso(self._put_off_since)
            problems.append(
                f"no snapshot can be made since {since}: sources still send what a run with "
                "another DEFAULT.partitions has in part"
            )
        return problems
