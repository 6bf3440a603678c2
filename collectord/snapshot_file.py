"""The form of a snapshot's file: sections with checksums, and an end that shows that it is whole.

What stands in a section's body is the engine's; ``docs/snapshot.md`` describes both. Directories,
names and what a disk may do are in ``snapshot.py``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from collectord import __version__

MAGIC = b"\x89CSNAP\r\n"
VERSION = 2
"""What is written: 1 had no section of alarms, and is read as well."""
READ = (1, VERSION)
PREAMBLE = struct.Struct("<8sII")
"""Magic, version, CRC-32 of the two. Every version begins so."""
HEADER = struct.Struct("<IIQ")
"""Before a section's body: kind, number, length of the body."""
CHECK = struct.Struct("<I")
"""After a section's body: CRC-32 of header and body."""
ABOUT, PARTITION, HEAD, END, ALARMS = 1, 2, 3, 4, 5
"""The kinds of sections."""
ROOMS = {ALARMS: "alarms"}
"""Kinds of what others than the engine save: one section each, or none, between head and end."""
AT_ONCE = 1 << 20
"""Bytes that are summed and written together, so that they are still in the processor's cache."""

Write: TypeAlias = Callable[[memoryview], int]
"""Writes some of the bytes and returns how many."""


class DamagedError(Exception):
    """A file is no whole snapshot: what is wrong, and at which byte."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(f"at byte {at}: {what}")


class VersionError(Exception):
    """A file is unharmed, as far as can be seen, and of another ``version``."""

    def __init__(self, version: int) -> None:
        super().__init__(f"it is of version {version}, not {' or '.join(map(str, READ))}")
        self.version = version


class Writer:
    """Writes a file from its begin to its end; ``size`` is what it has so far."""

    def __init__(self, write: Write) -> None:
        self.size = 0
        self._write_some = write
        self._sections = 0

    def begin(self, time: int, partitions: int) -> None:
        """What stands first; ``time`` is now, in microseconds since the Unix epoch."""
        unsealed = PREAMBLE.pack(MAGIC, VERSION, 0)[: -CHECK.size]
        self._write(unsealed)
        self._write(CHECK.pack(zlib.crc32(unsealed)))
        about = {"collectord": __version__, "time": time, "partitions": partitions}
        self.section(ABOUT, 0, memoryview(json.dumps(about).encode()))

    def section(self, kind: int, number: int, body: memoryview) -> None:
        """A section; ``body`` is of bytes."""
        header = HEADER.pack(kind, number, len(body))
        check = zlib.crc32(header)
        self._write(header)
        for at in range(0, len(body), AT_ONCE):
            part = body[at : at + AT_ONCE]
            check = zlib.crc32(part, check)
            self._write(part)
        self._write(CHECK.pack(check))
        self._sections += 1

    def end(self) -> None:
        """What shows that nothing is missing."""
        self.section(END, self._sections, memoryview(b""))

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self.size += len(view)
        while view:
            view = view[self._write_some(view) :]


@dataclass(frozen=True)
class Contents:
    """What a whole file holds."""

    time: int
    """When it was made, microseconds since the Unix epoch."""
    partitions: list[memoryview]
    head: memoryview
    rooms: dict[int, memoryview]
    """Of each kind of ``ROOMS`` that is there, the body."""


def read(data: bytes) -> Contents:
    """What a file holds, once every byte of it has been checked.

    Raises DamagedError, VersionError.
    """
    view = memoryview(data)
    if len(view) < PREAMBLE.size:
        raise DamagedError(len(view), f"it ends before its first {PREAMBLE.size} bytes do")
    magic, version, check = PREAMBLE.unpack_from(view)
    if magic != MAGIC:
        raise DamagedError(0, "it does not begin as a snapshot does")
    if check != zlib.crc32(view[: PREAMBLE.size - CHECK.size]):
        raise DamagedError(len(MAGIC), "the checksum of the version is wrong")
    if version not in READ:
        raise VersionError(version)

    names: list[tuple[int, int]] = []
    bodies: list[memoryview] = []
    at = PREAMBLE.size
    while not names or names[-1][0] != END:
        name, body = _section(view, at)
        names.append(name)
        bodies.append(body)
        at += HEADER.size + len(body) + CHECK.size
    if at != len(view):
        raise DamagedError(at, f"{len(view) - at} bytes follow its end")

    partitions = sum(kind == PARTITION for kind, _ in names)
    rooms = {kind: body for (kind, _), body in zip(names, bodies, strict=True) if kind in ROOMS}
    if names != [
        (ABOUT, 0),
        *((PARTITION, number) for number in range(partitions)),
        (HEAD, 0),
        *((kind, 0) for kind in rooms),
        (END, len(names) - 1),
    ]:
        raise DamagedError(PREAMBLE.size, "its sections are not those of a snapshot")
    head = partitions + 1
    return Contents(_time(bodies[0]), bodies[1:head], bodies[head], rooms)


def _section(view: memoryview, at: int) -> tuple[tuple[int, int], memoryview]:
    """Kind and number, and body, of the section that begins at a byte. Raises DamagedError."""
    if len(view) - at < HEADER.size + CHECK.size:
        raise DamagedError(at, "it ends where a section should be")
    kind, number, length = HEADER.unpack_from(view, at)
    begin = at + HEADER.size
    end = begin + length
    if end > len(view) - CHECK.size:
        raise DamagedError(at, f"it ends within a section of {length} bytes")
    if CHECK.unpack_from(view, end)[0] != zlib.crc32(view[at:end]):
        raise DamagedError(at, "the checksum of a section is wrong")
    return (kind, number), view[begin:end]


def _time(about: memoryview) -> int:
    try:
        return int(json.loads(bytes(about))["time"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DamagedError(PREAMBLE.size, "it does not say when it was made") from error
