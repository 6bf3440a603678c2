"""A small snapshot of a real engine, cut at every byte and with every byte flipped.

What is loaded then is the whole one before, and the log says what is wrong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from collectord import snapshot_file
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.snapshot import Directory, Loaded
from collectord.snapshot_file import DamagedError, VersionError
from daemon import HISTORY, METRIC, PERIOD, STRUCT

SOURCE = "host-1:Compute:agent:0"
KEY = "ObjectVNTable:vn1"


def make_engine() -> Engine:
    return Engine(
        partitions=2,
        metrics={METRIC: [("AggProxySumAnomalyEWM5", 1, "Sum", "EWM", 0.5)]},
        lateness=1_000_000,
    )


def tell(engine: Engine, seq: int, *records: Any) -> None:
    batch = {
        "source": SOURCE,
        "epoch": 1,
        "seq": seq,
        "records": list(records),
        "aggtypes": {STRUCT: {"total": "sum"}},
    }
    now = HISTORY + seq * PERIOD
    outcome = engine.apply(msgpack.packb(batch), now, now)
    assert outcome.status == "applied"
    assert not outcome.rejected


def account(engine: Engine) -> Any:
    """All that can be asked of an engine."""
    keys = engine.keys()
    return keys, [engine.read(key) for key in keys], engine.sources(), engine.aggtypes()


class Fixture:
    """Two snapshots of one engine: ``older`` is whole, ``newer`` is to be damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        engine, clock = make_engine(), Clock()
        directory = Directory(path)
        directory.open()
        tell(engine, 1, [KEY, STRUCT, {"total": 1, "egress_flow_count": 5}])
        older = directory.save(engine, clock)
        tell(engine, 2, [KEY, STRUCT, {"total": 2, "egress_flow_count": 7}])
        newer = directory.save(engine, clock)
        directory.close()
        assert older is not None
        assert newer is not None
        self.older, self.newer = older.path, newer.path
        self.data = self.newer.read_bytes()
        self.account_of_older = self._loaded(self.older.read_bytes())
        self.account_of_newer = self._loaded(self.data)
        assert self.account_of_newer != self.account_of_older

    def _loaded(self, data: bytes) -> Any:
        contents = snapshot_file.read(data)
        engine = make_engine()
        engine.restore(contents.head, contents.partitions, HISTORY, HISTORY)
        return account(engine)

    def load(self, data: bytes) -> Loaded[Engine]:
        """What is loaded where the newer file holds ``data``."""
        for path in self.path.iterdir():
            if path.suffix == ".damaged":
                path.unlink()
        self.newer.write_bytes(data)
        directory = Directory(self.path)
        directory.open()
        try:
            loaded = directory.load(make_engine, HISTORY, HISTORY)
        finally:
            directory.close()
        assert loaded is not None
        return loaded


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


def test_unharmed_the_newer_one_is_loaded(fixture: Fixture) -> None:
    loaded = fixture.load(fixture.data)

    assert account(loaded.engine) == fixture.account_of_newer


def test_cut_at_any_byte_the_older_one_is_loaded(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    for length in range(len(fixture.data)):
        caplog.clear()

        loaded = fixture.load(fixture.data[:length])

        assert account(loaded.engine) == fixture.account_of_older, length
        assert f"{fixture.newer} is damaged at byte " in caplog.text
        assert not fixture.newer.exists()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_with_any_byte_flipped_the_older_one_is_loaded(
    fixture: Fixture, caplog: pytest.LogCaptureFixture, mask: int
) -> None:
    for at in range(len(fixture.data)):
        caplog.clear()

        loaded = fixture.load(flipped(fixture.data, at, mask))

        assert account(loaded.engine) == fixture.account_of_older, at
        assert f"{fixture.newer} is damaged at byte " in caplog.text


@pytest.mark.parametrize("more", [b"\0", b"more" * 100])
def test_with_more_behind_its_end_the_older_one_is_loaded(fixture: Fixture, more: bytes) -> None:
    assert account(fixture.load(fixture.data + more).engine) == fixture.account_of_older


def test_two_files_in_one_are_none(fixture: Fixture) -> None:
    assert account(fixture.load(fixture.data * 2).engine) == fixture.account_of_older


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_wrong_body_whose_checksum_is_right_does_no_harm(fixture: Fixture, mask: int) -> None:
    sections = list(split(fixture.data))
    for number, (kind, name, body) in enumerate(sections):
        if kind not in (snapshot_file.PARTITION, snapshot_file.HEAD):
            continue
        for at in range(len(body)):
            wrong = [*sections]
            wrong[number] = (kind, name, flipped(body, at, mask))

            loaded = fixture.load(joined(wrong))

            account(loaded.engine)  # what a value was changed to can't be told from what was said


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda sections: [*sections[:-1]], id="no-end"),
        pytest.param(lambda sections: sections[1:], id="not-what-it-is-about"),
        pytest.param(lambda sections: [*sections[:-2], sections[-1]], id="no-head"),
        pytest.param(lambda sections: [sections[0], *sections[2:]], id="no-first-partition"),
        pytest.param(lambda sections: [*sections[:2], *sections[1:]], id="a-partition-twice"),
        pytest.param(lambda sections: [sections[0], *sections[3:]], id="no-partition"),
        pytest.param(lambda sections: [sections[-1]], id="only-an-end"),
        pytest.param(lambda sections: [(9, 0, b""), *sections], id="an-unknown-kind"),
        pytest.param(
            lambda sections: [(1, 0, b"[1]"), *sections[1:]], id="no-map-of-what-it-is-about"
        ),
        pytest.param(lambda sections: [(1, 0, b"{"), *sections[1:]], id="no-json"),
        pytest.param(lambda sections: [(1, 0, b'{"time": 1e999}'), *sections[1:]], id="no-time"),
        pytest.param(lambda sections: [(1, 0, b"[" * 9999), *sections[1:]], id="deep-json"),
    ],
)
def test_sections_that_are_not_those_of_a_snapshot(fixture: Fixture, order: Any) -> None:
    data = joined(order(list(split(fixture.data))))

    with pytest.raises(DamagedError):
        snapshot_file.read(data)


@pytest.mark.parametrize("length", [1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_a_section_that_claims_to_be_long(fixture: Fixture, length: int) -> None:
    data = fixture.data[:16] + struct.pack("<IIQ", 1, 0, length) + fixture.data[32:]

    with pytest.raises(DamagedError, match="at byte 16: it ends within a section"):
        snapshot_file.read(data)


@pytest.mark.parametrize("version", [0, 3, 0xFFFFFFFF])
def test_another_version_is_no_damage(fixture: Fixture, version: int) -> None:
    begin = snapshot_file.MAGIC + struct.pack("<I", version)

    with pytest.raises(VersionError, match=str(version)):
        snapshot_file.read(begin + struct.pack("<I", zlib.crc32(begin)) + b"whatever follows")


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, number and body of the sections, as ``docs/snapshot.md`` describes them."""
    at = 16
    while at < len(data):
        kind, number, length = struct.unpack_from("<IIQ", data, at)
        yield kind, number, data[at + 16 : at + 16 + length]
        at += 16 + length + 4


def joined(sections: list[tuple[int, int, bytes]]) -> bytes:
    """A file with these sections, all of whose checksums are right."""
    begin = b"\x89CSNAP\r\n" + struct.pack("<I", 2)
    parts = [begin, struct.pack("<I", zlib.crc32(begin))]
    for kind, number, body in sections:
        section = struct.pack("<IIQ", kind, number, len(body)) + body
        parts += [section, struct.pack("<I", zlib.crc32(section))]
    return b"".join(parts)


def test_the_file_is_as_the_document_says(fixture: Fixture) -> None:
    assert joined(list(split(fixture.data))) == fixture.data
