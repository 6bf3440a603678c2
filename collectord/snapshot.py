"""Snapshots on disk: a directory of them, each written whole or not at all, and loaded again.

The form of a file is in ``snapshot_file.py``. When a snapshot is made, and what is said of it, is
decided in ``state.py``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from collectord import __version__, logs, snapshot_file
from collectord.clock import Clock
from collectord.snapshot_file import DamagedError, VersionError

log = logging.getLogger(__name__)

KEPT = 2
"""Snapshots that are known to be whole and stay."""
DAMAGED_KEPT = 3
LOCK = "lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk may say that is right otherwise; it is no reason not to start."""

_NAME = re.compile(r"snapshot-(?P<number>\d{16,})\.collectord(?P<rest>|\.tmp|\.damaged)", re.ASCII)


class SnapshotError(Exception):
    """Why a collector can't start here: what was saved would be lost, or could not be saved."""


class InUseError(OSError):
    """Another collector has the directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EBUSY, "another collector saves its state there", str(path))


class Saved(Protocol):
    """What is saved: an ``Engine``, which explains these."""

    @property
    def partitions(self) -> int: ...  # noqa: D102
    def begin_save(self) -> bool: ...  # noqa: D102
    def save_partition(self, partition: int, now: int, steady: int) -> Any: ...  # noqa: D102
    def save_head(self, now: int, steady: int) -> Any: ...  # noqa: D102
    def end_save(self, durable: bool) -> None: ...  # noqa: D102
    def restore(  # noqa: D102
        self, head: memoryview, partitions: Sequence[memoryview], now: int, steady: int
    ) -> None: ...


Engine = TypeVar("Engine", bound=Saved)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is on the disk for good."""

    path: Path
    time: int
    """When it was begun, microseconds since the Unix epoch."""
    bytes: int
    seconds: float
    """How long it took to write, or to load."""


@dataclass(frozen=True)
class Loaded(Generic[Engine]):
    """An engine with what a snapshot holds."""

    engine: Engine
    snapshot: Snapshot
    rooms: Mapping[int, memoryview]
    """What others than the engine had saved, see ``snapshot_file.ROOMS``."""


class Files:
    """All that is done with files, so that a test can let any of it fail. Raises OSError."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, as far as they are missing, for good."""
        missing = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(each.parent)

    def names(self, path: Path) -> list[str]:
        """The names of what is in a directory."""
        return os.listdir(path)

    def lock(self, path: Path) -> int:
        """A descriptor of a file that nobody else has locked. Raises BlockingIOError."""
        flags = os.O_CREAT | os.O_CLOEXEC
        try:
            file = os.open(path, os.O_RDWR | flags, 0o600)
        except OSError:  # what is there and can't be written can still be locked
            file = os.open(path, os.O_RDONLY | flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(file)
            raise
        return file

    def is_at(self, file: int, path: Path) -> bool:
        """Whether a descriptor's file is still the one of this path."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(path))
        except FileNotFoundError:
            return False

    def create(self, path: Path) -> int:
        """A descriptor to write a file with that isn't there yet."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, file: int, data: memoryview) -> int:
        """Write some of ``data``; returns how many bytes."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Return when all that was written is on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close a descriptor."""
        os.close(file)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name."""
        os.rename(path, to)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on the disk."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def read(self, path: Path) -> bytes:
        """All bytes of a file. Not mapped: a disk that can't be read would kill the process."""
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            return opened.read()


class Directory:
    """A directory of snapshots, for one collector alone between ``open`` and ``close``."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self.damaged = 0
        """Files that were found damaged."""
        self._files = files or Files()
        self._lock: int | None = None
        self._last = 0
        """The greatest number that a file ever had."""
        self._whole: list[int] = []
        """The numbers of the last that are whole for sure, as they were loaded or written."""
        self._complaint: str | None = None

    def open(self) -> None:
        """Have the directory alone, and remove what a writer left that was killed.

        Raises SnapshotError where another collector has it or it can't be made. One that only
        can't be written, because the disk is full, is no error.
        """
        try:
            self._claim()
        except OSError as error:
            if error.errno not in FULL:
                raise SnapshotError(
                    f"cannot save state in {self.path}: {error.strerror}; choose another "
                    "SNAPSHOT.directory, or leave it empty to save none"
                ) from error
        self._tidy()

    def close(self) -> None:
        """Let others have the directory."""
        if self._lock is not None:
            self._files.close(self._lock)
            self._lock = None

    # ---- loading -------------------------------------------------------------------------------

    def load(
        self, make_engine: Callable[[], Engine], now: int, steady: int
    ) -> Loaded[Engine] | None:
        """The newest whole snapshot, brought back into an engine; None where there is none.

        A damaged one is named in the log and set aside. Raises SnapshotError where there is one
        that may be whole and can't be loaded here.
        """
        try:
            found = self._found()
        except OSError as error:
            raise SnapshotError(f"cannot read {self.path}: {error.strerror}") from error
        for number in sorted((number for number, rest in found if not rest), reverse=True):
            loaded = self._load_or_set_aside(number, make_engine, now, steady)
            if loaded is not None:
                self._whole = [number]
                return loaded
        if any(rest != ".tmp" for _, rest in found):
            log.critical(
                "no snapshot in %s is whole: what was saved is lost, all begins empty", self.path
            )
        else:
            log.log(logs.NOTICE, "no snapshot in %s yet: all begins empty", self.path)
        return None

    def _load_or_set_aside(
        self, number: int, make_engine: Callable[[], Engine], now: int, steady: int
    ) -> Loaded[Engine] | None:
        path, aside = self._path(number), self._path(number, ".damaged")
        try:
            return self._load(path, make_engine, now, steady)
        except DamagedError as error:
            self.damaged += 1
            log.error("%s is damaged %s; it is set aside as %s", path, error, aside.name)
        try:
            self._files.rename(path, aside)
        except OSError as error:
            log.error("%s can't be set aside: %s", path, error.strerror)
        return None

    def _load(
        self, path: Path, make_engine: Callable[[], Engine], now: int, steady: int
    ) -> Loaded[Engine]:
        """A file's state in an engine. Raises DamagedError, SnapshotError."""
        begun = time.monotonic()
        try:
            data = self._files.read(path)
            contents = snapshot_file.read(data)
            engine = make_engine()
            engine.restore(contents.head, contents.partitions, now, steady)
        except OSError as error:
            if error.errno == errno.EIO:
                raise DamagedError(0, f"it can't be read: {error.strerror}") from error
            raise SnapshotError(
                f"cannot read {path}: {error.strerror}; see to that, or move the file away"
            ) from error
        except VersionError as error:
            raise SnapshotError(
                f"{path} can't be read by collectord {__version__}: {error}; run the collectord "
                "that wrote it, or move the file away"
            ) from error
        except MemoryError as error:
            raise SnapshotError(
                f"{path} doesn't fit in memory; give the collector more, or move the file away"
            ) from error
        except ValueError as error:
            raise DamagedError(0, f"its checksums are right, its contents are not: {error}") from (
                error
            )
        seconds = time.monotonic() - begun
        snapshot = Snapshot(path, contents.time, len(data), seconds)
        return Loaded(engine, snapshot, contents.rooms)

    def has(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot is still there."""
        try:
            return any(self._path(number, rest) == snapshot.path for number, rest in self._found())
        except OSError:
            return False

    # ---- saving --------------------------------------------------------------------------------

    def save(
        self, engine: Saved, clock: Clock, rooms: Mapping[int, bytes] | None = None
    ) -> Snapshot | None:
        """Write a snapshot; None where the engine can't make one yet.

        ``rooms`` gives the bodies of what others save, see ``snapshot_file.ROOMS``.

        The engine is told that it is durable only when the file and its name are on the disk.
        Raises OSError, MemoryError: then it is told that it is not, and the snapshots of before
        are there as they were.
        """
        begun, moment = time.monotonic(), clock.wall()
        self._claim()
        if not engine.begin_save():
            return None
        durable = False
        try:
            path, size = self._write(engine, clock, rooms or {})
            durable = True
        finally:
            engine.end_save(durable)
        self._whole = [*self._whole, self._last][-KEPT:]
        self._tidy()
        return Snapshot(path, moment, size, time.monotonic() - begun)

    def _write(self, engine: Saved, clock: Clock, rooms: Mapping[int, bytes]) -> tuple[Path, int]:
        self._last += 1  # a number is never used again, whatever becomes of this file
        path, temporary = self._path(self._last), self._path(self._last, ".tmp")
        file = self._files.create(temporary)
        try:
            try:
                size = self._write_sections(file, engine, clock, rooms)
                self._files.sync(file)
            finally:
                self._files.close(file)
            self._files.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # then it goes with the next that is written
                self._files.remove(temporary)
            raise
        self._files.sync_directory(self.path)
        return path, size

    def _write_sections(
        self, file: int, engine: Saved, clock: Clock, rooms: Mapping[int, bytes]
    ) -> int:
        """One partition after the other, so that only one is in memory twice; returns the size."""
        writer = snapshot_file.Writer(lambda data: self._files.write(file, data))
        writer.begin(clock.wall(), engine.partitions)
        for number in range(engine.partitions):
            body = engine.save_partition(number, clock.wall(), clock.steady())
            writer.section(snapshot_file.PARTITION, number, memoryview(body))
        head = engine.save_head(clock.wall(), clock.steady())
        writer.section(snapshot_file.HEAD, 0, memoryview(head))
        for kind in snapshot_file.ROOMS:
            if kind in rooms:
                writer.section(kind, 0, memoryview(rooms[kind]))
        writer.end()
        return writer.size

    # ---- the directory -------------------------------------------------------------------------

    def _claim(self) -> None:
        """Make the directory where it is missing, and lock it. Raises OSError."""
        path = self.path / LOCK
        if self._lock is not None and self._files.is_at(self._lock, path):
            return
        self._files.make_directory(self.path)
        try:
            lock = self._files.lock(path)
        except BlockingIOError as error:
            raise InUseError(self.path) from error
        if self._lock is not None:
            log.warning("%s was taken away, and is made again", self.path)
            self._files.close(self._lock)
        self._lock = lock

    def _tidy(self) -> None:
        """Remove what is not for loading any more; what can't be is removed another time."""
        oldest = self._whole[0] if len(self._whole) == KEPT else 0
        complaint = None
        try:
            found = self._found()
            damaged = sorted(number for number, rest in found if rest == ".damaged")
            for number, rest in found:
                if (
                    rest == ".tmp"
                    or (rest == ".damaged" and number in damaged[:-DAMAGED_KEPT])
                    or (not rest and number < oldest)
                ):
                    self._files.remove(self._path(number, rest))
        except OSError as error:
            complaint = error.strerror
            if complaint != self._complaint:  # a line every few seconds would say no more
                log.warning("cannot remove old files in %s: %s", self.path, complaint)
        self._complaint = complaint

    def _found(self) -> list[tuple[int, str]]:
        """Number and ending of each file of ours. Raises OSError."""
        try:
            names = self._files.names(self.path)
        except FileNotFoundError:
            return []
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        found = [(int(match["number"]), match["rest"]) for match in matches]
        self._last = max([self._last, *(number for number, _ in found)])
        return found

    def _path(self, number: int, rest: str = "") -> Path:
        return self.path / f"snapshot-{number:016}.collectord{rest}"
