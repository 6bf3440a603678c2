"""A publisher's batches on disk, so that they outlive its process.

A directory of segments, ``<number>.spool``, each a run of entries that is only ever appended to:

    | length | crc32 |  payload: length bytes, one msgpack array  |     both of 4 bytes, big-endian

    ["mark", version, source, epoch, released, first]    first of a segment, and where it moves
    ["batch", index, records, time, body]                body: the encoded records
    ["drop", index]                                      that batch was given up, with its number

The last mark tells how to number what is left: the batch ``first`` has the number ``released + 1``,
and those after it follow in the order of their indexes, without those dropped. A batch is written
before it is sent, so what was sent under a number is found again under that number.

An entry that is cut short or damaged ends what is read: it and what follows is cut off. Segments
with nothing but released batches are deleted; where dropped ones take too much space, and where the
disk has failed and works again, what is left is written anew.

Written is not synced: the death of the process loses nothing that was written, that of the machine
what was not synced, which is done every ``sync`` seconds. The collector is therefore asked at the
start how far it has come (``delivery.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgpack

from collectord.batch import Batch, Found
from collectord.buffer import Buffer
from collectord.reports import SpoolError

VERSION = 1
SEGMENT_BYTES = 8 << 20
RETRY_AFTER = 5.0
"""Seconds between attempts to write a spool that could not be written."""
MARK_EVERY = 1.0
"""Seconds between marks that only say that more is released."""

logger = logging.getLogger(__name__)

_HEAD = struct.Struct(">II")
_pack = msgpack.Packer(use_bin_type=True).pack


@dataclass
class _Segment:
    path: Path
    bytes: int = 0
    newest: int = -1
    """The highest index of a batch in it."""


class Spool:
    """The directory, for one process at a time. All but the constructor is for one thread.

    Raises SpoolError where another process has it, where it is another source's, or where it
    can't be read or written now. Later failures are counted and logged, and writing tried again.
    """

    def __init__(self, directory: Path, source: str, *, sync: float = 1.0) -> None:
        self._directory = directory
        self._source = source
        self._sync = sync
        self._segments: list[_Segment] = []
        self._file: int | None = None
        self._mark: tuple[int, int, int] | None = None
        self._marked_at = -math.inf
        self._unsynced_since: float | None = None
        self._broken_until: float | None = None
        """When to try again; None while all is well."""
        self._pending: list[Batch | int] = []
        """Taken from the buffer's journal, and not written yet."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"the spool {directory} can't be used: {error}") from error
        try:
            self._own()
            self.found = self._load()
        except BaseException:
            os.close(self._lock)
            raise

    def save(self, buffer: Buffer, epoch: int) -> None:
        """Write what is new in the buffer; where that fails, again after some time."""
        try:
            if self._broken_until is None:
                self._append(buffer, epoch)
            elif time.monotonic() >= self._broken_until:
                self._write_anew(buffer, epoch)
                self._broken_until = None
                buffer.renumbers = True
                logger.warning("the spool %s can be written again", self._directory)
            else:
                buffer.take_journal()
        except OSError as error:
            self._fail(buffer, error)

    def due(self) -> float:
        """When ``save`` has something to do though nothing is new, in monotonic seconds."""
        if self._broken_until is not None:
            return self._broken_until
        return math.inf if self._unsynced_since is None else self._unsynced_since + self._sync

    def finish(self, buffer: Buffer, epoch: int) -> None:
        """Write what is left, and close."""
        self._marked_at = -math.inf
        if self._broken_until is not None:
            self._broken_until = -math.inf
        self.save(buffer, epoch)
        with contextlib.suppress(OSError):  # it is written, if not synced
            self._synchronise()
        self.close()

    def close(self) -> None:
        """Let others have the directory."""
        self._close_segment()
        os.close(self._lock)

    # ---- reading --------------------------------------------------------------------------------

    def _own(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SpoolError(
                f"the spool {self._directory} is in use by another publisher: each needs its own"
            ) from error

    def _load(self) -> Found:
        found = Found()
        batches: dict[int, Batch] = {}
        first = 0
        try:
            paths = sorted(self._directory.glob("*.spool"))
            for place, path in enumerate(paths):
                data = path.read_bytes()
                segment = _Segment(path)
                for entry in self._entries(data, segment):
                    match entry:
                        case ["mark", int(), str(), int(epoch), int(released), int(first)]:
                            found.epoch, found.released = epoch, released
                        case ["batch", int(index), int(records), int(measured), bytes(body)]:
                            emptied = bool(records) and not body
                            batches[index] = Batch(
                                index, 0, records, body, measured, emptied, spooled=True
                            )
                            segment.newest = max(segment.newest, index)
                        case ["drop", int(index)]:
                            batches.pop(index, None)
                self._segments.append(segment)
                if segment.bytes < len(data):
                    found.cut = self._cut(segment, len(data), paths[place + 1 :])
                    break
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} can't be read: {error}") from error
        if found.epoch is not None:
            found.batches = [batches[index] for index in sorted(batches) if index >= first]
            newest = max((segment.newest for segment in self._segments), default=-1)
            found.next_index = max(newest + 1, first)
        return found

    def _entries(self, data: bytes, segment: _Segment) -> Sequence[list[Any]]:
        """What is whole; ``segment.bytes`` is then where that ends."""
        entries: list[list[Any]] = []
        while len(data) - segment.bytes >= _HEAD.size:
            length, checksum = _HEAD.unpack_from(data, segment.bytes)
            start = segment.bytes + _HEAD.size
            payload = data[start : start + length]
            if len(payload) < length or zlib.crc32(payload) != checksum or not payload:
                break
            entry = cast("list[Any]", msgpack.unpackb(payload, raw=False))
            if entry[0] == "mark":
                self._check_mark(entry)
            elif segment.bytes == 0:
                break
            entries.append(entry)
            segment.bytes = start + length
        return entries

    def _check_mark(self, mark: list[Any]) -> None:
        if mark[1] != VERSION:
            raise SpoolError(f"the spool {self._directory} has format {mark[1]}, not {VERSION}")
        if mark[2] != self._source:
            raise SpoolError(
                f"the spool {self._directory} is that of {mark[2]!r}, not of {self._source!r}"
            )

    def _cut(self, damaged: _Segment, size: int, later: Sequence[Path]) -> int:
        cut = size - damaged.bytes + sum(path.stat().st_size for path in later)
        logger.warning("%s: %d bytes are of no use and cut off", damaged.path, cut)
        for path in reversed(later):
            path.unlink()
        os.truncate(damaged.path, damaged.bytes)
        return cut

    # ---- writing --------------------------------------------------------------------------------

    def _append(self, buffer: Buffer, epoch: int) -> None:
        self._pending += buffer.take_journal()
        # Before the batches: those of a new epoch must not be taken for the old one's.
        self._write_mark(buffer, epoch)
        for entry in self._pending:
            self._write_entry(entry)
        buffer.count("spooled", sum(isinstance(entry, Batch) for entry in self._pending))
        self._pending.clear()
        self._tidy(buffer, epoch)
        if self._unsynced_since is not None and self.due() <= time.monotonic():
            self._synchronise()

    def _write_entry(self, entry: Batch | int) -> None:
        if self._segments[-1].bytes >= SEGMENT_BYTES:
            self._synchronise()
            self._close_segment()
            self._open_segment()
        if isinstance(entry, int):
            self._write(["drop", entry])
            return
        self._write(["batch", entry.index, entry.records, entry.time, entry.body])
        self._segments[-1].newest = entry.index
        entry.spooled = True

    def _write_mark(self, buffer: Buffer, epoch: int) -> None:
        mark = (epoch, *buffer.mark())
        begins = self._mark is None or self._mark[0] != epoch
        moved = mark != self._mark and time.monotonic() >= self._marked_at + MARK_EVERY
        if not begins and not moved:
            return
        self._mark, self._marked_at = mark, time.monotonic()
        if self._file is None:
            self._open_segment()
        else:
            self._write(["mark", VERSION, self._source, *mark])
        if begins and math.isfinite(self._sync):
            self._synchronise()  # an epoch that is forgotten would be taken for an older run

    def _tidy(self, buffer: Buffer, epoch: int) -> None:
        """Delete what the last mark has no use for; write anew what is left if it is too little."""
        assert self._mark is not None
        useless = 0
        while self._segments[useless].newest < self._mark[2] and useless < len(self._segments) - 1:
            useless += 1
        self._remove(self._segments[:useless])
        if sum(segment.bytes for segment in self._segments) > 2 * (buffer.bound + SEGMENT_BYTES):
            self._write_anew(buffer, epoch)

    def _write_anew(self, buffer: Buffer, epoch: int) -> None:
        """Put what is left into new segments, in place of the old ones."""
        old = list(self._segments)
        self._close_segment()
        try:
            self._mark = None
            self._pending += buffer.take_journal()
            batches = buffer.kept()
            self._write_mark(buffer, epoch)
            for batch in batches:
                self._write_entry(batch)
            self._synchronise()
        except OSError:
            self._close_segment()
            self._remove(self._segments[len(old) :])
            raise
        self._pending.clear()
        self._remove(old)

    def _open_segment(self) -> None:
        number = int(self._segments[-1].path.stem) + 1 if self._segments else 1
        path = self._directory / f"{number:016}.spool"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._segments.append(_Segment(path))
        self._write(["mark", VERSION, self._source, *cast("tuple[int, int, int]", self._mark)])

    def _write(self, entry: list[Any]) -> None:
        assert self._file is not None
        payload = _pack(entry)
        data = memoryview(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        while data:
            data = data[os.write(self._file, data) :]
        self._segments[-1].bytes += _HEAD.size + len(payload)
        if self._unsynced_since is None and math.isfinite(self._sync):
            self._unsynced_since = time.monotonic()

    def _synchronise(self) -> None:
        self._unsynced_since = None
        if self._file is None or not math.isfinite(self._sync):
            return
        os.fsync(self._file)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _close_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _remove(self, segments: Sequence[_Segment]) -> None:
        """Oldest first: if it ends in between, what tells of a drop outlives what was dropped."""
        for segment in segments:
            segment.path.unlink(missing_ok=True)
        self._segments = [segment for segment in self._segments if segment not in segments]

    def _fail(self, buffer: Buffer, error: OSError) -> None:
        if self._broken_until is None:
            logger.warning(
                "the spool %s can't be written, batches are in memory only: %s",
                self._directory,
                error,
            )
        self._broken_until = time.monotonic() + RETRY_AFTER
        self._unsynced_since = None
        self._close_segment()
        buffer.count("spool_failed")
        buffer.renumbers = False  # on disk they have the numbers that they have
        self._pending += buffer.take_journal()
        with contextlib.suppress(OSError):
            if any(isinstance(entry, int) for entry in self._pending):
                # What is on disk would number its batches as they were before these were dropped.
                # A first segment that doesn't begin with a mark makes the rest void, at once.
                os.truncate(self._segments[0].path, 1)
                self._remove(list(self._segments))
            elif self._segments:
                os.truncate(self._segments[-1].path, self._segments[-1].bytes)
        self._pending.clear()
