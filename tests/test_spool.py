"""The spool: what a publisher's process leaves on disk, and what becomes of it."""

from __future__ import annotations

import errno
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from collectord import spool as spooling
from collectord.batch import Batch, Found
from collectord.buffer import Buffer
from collectord.client import Publisher, StaleEpoch
from collectord.publisher import SpoolError
from collectord.spool import Spool
from fake_collector import FakeCollector
from publishing import (
    NOWHERE,
    PATIENCE,
    SOURCE,
    PublisherTo,
    close,
    publish,
    values,
)

EPOCH = 77


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def leave(directory: Path, count: int, **settings: Any) -> None:
    """Publish to nobody, a record a batch, and end."""
    settings = {"epoch": EPOCH, "batch_records": 1, **settings}
    publisher = Publisher(SOURCE, NOWHERE, spool=directory, **settings)
    publish(publisher, count)
    close(publisher)


def found(directory: Path) -> Found:
    spool = Spool(directory, SOURCE)
    spool.close()
    return spool.found


def left(directory: Path) -> list[bytes]:
    return [batch.body for batch in found(directory).batches]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


class TestAcrossProcesses:
    def test_what_was_not_delivered_is_delivered_by_the_next(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 5)

        publisher = publisher_to(collector.address, spool=directory, batch_records=1)
        publish(publisher, 2, first=5)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(7))
        assert (collector.epoch, publisher.epoch, collector.last) == (EPOCH, EPOCH, 7)
        assert publisher.counters.recovered == 5
        assert publisher.counters.published == 7

    def test_what_was_acknowledged_but_not_durable_is_kept_too(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        collector.saves = False
        first = publisher_to(collector.address, spool=directory, epoch=EPOCH, batch_records=1)
        publish(first, 5)
        first.close(PATIENCE)
        collector.stop()
        collector.crash()
        collector.start()

        second = publisher_to(collector.address, spool=directory)
        second.flush(PATIENCE)

        assert values(collector) == list(range(5))
        assert collector.epoch == EPOCH

    def test_what_was_applied_is_not_applied_again(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        collector.saves = False
        for first in range(0, 12, 3):
            publisher = publisher_to(collector.address, spool=directory, batch_records=1)
            publish(publisher, 3, first=first)
            publisher.close(PATIENCE)

        assert values(collector) == list(range(12))

    def test_what_is_durable_is_forgotten_and_numbers_go_on(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        first = publisher_to(collector.address, spool=directory, epoch=EPOCH, batch_records=1)
        publish(first, 5)
        first.close(PATIENCE, durable=True)
        assert left(directory) == []

        second = publisher_to(collector.address, spool=directory, batch_records=1)
        publish(second, 1, first=5)
        second.flush(PATIENCE)

        assert values(collector) == list(range(6))
        assert (collector.epoch, collector.last) == (EPOCH, 6)

    def test_a_collector_that_knows_more_than_the_spool_gets_a_new_epoch(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path, tmp_path: Path
    ) -> None:
        """As after the machine died, with the end of the spool not on its disk yet."""
        collector.saves = False
        first = publisher_to(collector.address, spool=directory, epoch=EPOCH, batch_records=1)
        publish(first, 2)
        first.flush(PATIENCE)
        shutil.copytree(directory, tmp_path / "older")
        publish(first, 3, first=2)
        first.close(PATIENCE)

        second = publisher_to(collector.address, spool=tmp_path / "older", batch_records=1)
        publish(second, 2, first=5)
        second.flush(PATIENCE)

        assert values(collector) == list(range(7))
        assert collector.epoch == second.epoch > EPOCH
        assert second.counters.unprotected == 2
        close(second)
        assert found(tmp_path / "older").epoch == second.epoch

    def test_that_by_one_batch_is_noticed_too(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 2)
        collector.epoch, collector.last = EPOCH, 3

        publisher = publisher_to(collector.address, spool=directory)
        publish(publisher, 1)
        publisher.flush(PATIENCE)

        assert values(collector) == [0]
        assert publisher.epoch > EPOCH

    def test_a_collector_that_lost_what_was_durable_gets_a_new_epoch(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        first = publisher_to(collector.address, spool=directory, epoch=EPOCH, batch_records=1)
        publish(first, 3)
        first.close(PATIENCE, durable=True)
        collector.forget()
        restarts: list[int] = []

        second = publisher_to(collector.address, spool=directory, on_restart=restarts.append)
        publish(second, 1, first=3)
        second.flush(PATIENCE)

        assert values(collector) == [3]
        assert restarts == [3]
        assert second.epoch > EPOCH

    def test_a_newer_run_without_the_spool_makes_it_stale(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 1)
        newer = publisher_to(collector.address, epoch=EPOCH + 1)
        publish(newer, 1)
        newer.flush(PATIENCE)

        publisher = publisher_to(collector.address, spool=directory)

        with pytest.raises(StaleEpoch):
            publisher.flush(PATIENCE)

    def test_the_question_is_asked_again_until_it_is_answered(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 3)
        collector.faults.extend(["lose", "overloaded", "lose_reply"])

        publisher = publisher_to(collector.address, spool=directory, reply_timeout=0.1)
        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1, 2]

    def test_dropped_batches_stay_dropped(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 200, buffer_bytes=4000, when_full="drop_oldest")

        publisher = publisher_to(collector.address, spool=directory)
        publisher.flush(PATIENCE)

        kept = publisher.counters.recovered
        assert 0 < kept < 20
        assert values(collector) == list(range(200 - kept, 200))
        assert collector.last == kept


class TestWhoMayUseIt:
    def test_one_publisher_at_a_time(self, publisher_to: PublisherTo, directory: Path) -> None:
        publisher_to(NOWHERE, spool=directory)

        with pytest.raises(SpoolError, match="in use by another publisher"):
            Publisher(SOURCE, NOWHERE, spool=directory)

    def test_one_source(self, directory: Path) -> None:
        leave(directory, 1)

        with pytest.raises(SpoolError, match="is that of 'host', not of 'other'"):
            Publisher("other", NOWHERE, spool=directory)

        assert len(left(directory)) == 1

    def test_a_place_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")

        with pytest.raises(SpoolError, match="can't be used"):
            Publisher(SOURCE, NOWHERE, spool=tmp_path / "file" / "spool")

    def test_a_format_of_the_future(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spooling, "VERSION", 2)
        leave(directory, 1)
        monkeypatch.undo()

        with pytest.raises(SpoolError, match="has format 2, not 1"):
            Publisher(SOURCE, NOWHERE, spool=directory)

    def test_an_address_that_cannot_be_leaves_it_free(
        self, publisher_to: PublisherTo, directory: Path
    ) -> None:
        with pytest.raises(ValueError, match="cannot connect"):
            Publisher(SOURCE, "nonsense", spool=directory)

        publisher_to(NOWHERE, spool=directory)


class TestDamage:
    def test_cut_anywhere_it_gives_what_is_whole_before(self, directory: Path) -> None:
        leave(directory, 4)
        [path] = segments(directory)
        whole, bodies = path.read_bytes(), left(directory)
        ends = entry_ends(whole)

        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            result = found(directory)
            assert [batch.body for batch in result.batches] == bodies[: len(result.batches)]
            assert result.cut == length - max(end for end in ends if end <= length)
            assert found(directory).cut == 0

    def test_a_flipped_bit_anywhere_gives_what_is_whole_before(self, directory: Path) -> None:
        leave(directory, 3)
        [path] = segments(directory)
        whole, bodies = path.read_bytes(), left(directory)

        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            result = found(directory)
            assert [batch.body for batch in result.batches] == bodies[: len(result.batches)]
            assert result.cut > 0

    def test_what_was_cut_is_counted_and_the_rest_delivered(
        self, collector: FakeCollector, publisher_to: PublisherTo, directory: Path
    ) -> None:
        leave(directory, 3)
        [path] = segments(directory)
        os.truncate(path, path.stat().st_size - 1)

        publisher = publisher_to(collector.address, spool=directory)
        publisher.flush(PATIENCE)

        assert publisher.counters.spool_cut > 0
        assert values(collector) == list(range(publisher.counters.recovered))

    def test_segments_after_a_damaged_one_are_cut_off_too(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spooling, "SEGMENT_BYTES", 300)
        leave(directory, 20)
        paths = segments(directory)
        assert len(paths) > 3
        os.truncate(paths[1], paths[1].stat().st_size - 1)

        whole = left(directory)

        assert 0 < len(whole) < 20
        assert segments(directory) == paths[:2]


def entry_ends(data: bytes) -> list[int]:
    ends = [0]
    while ends[-1] < len(data):
        length, _ = spooling._HEAD.unpack_from(data, ends[-1])
        ends.append(ends[-1] + spooling._HEAD.size + length)
    return ends


class TestSize:
    def test_segments_that_are_wholly_durable_are_deleted(
        self,
        collector: FakeCollector,
        publisher_to: PublisherTo,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(spooling, "SEGMENT_BYTES", 1000)
        monkeypatch.setattr(spooling, "MARK_EVERY", 0.0)
        publisher = publisher_to(collector.address, spool=directory, batch_records=1)

        for first in range(0, 500, 10):
            publish(publisher, 10, first=first)
            publisher.flush(PATIENCE, durable=True)

        collector.wait_for(lambda: len(segments(directory)) <= 3)
        assert publisher.counters.spooled == 500

    def test_dropping_the_oldest_for_hours_takes_no_more_than_a_few_times_the_bound(
        self, directory: Path, publisher_to: PublisherTo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spooling, "SEGMENT_BYTES", 1000)
        publisher = publisher_to(
            NOWHERE,
            spool=directory,
            batch_records=1,
            buffer_bytes=4000,
            when_full="drop_oldest",
        )

        for first in range(0, 2000, 10):
            publish(publisher, 10, first=first)
        close(publisher)

        assert sum(path.stat().st_size for path in segments(directory)) < 4 * (4000 + 1000)
        kept = len(left(directory))
        assert kept == 2000 - publisher.counters.dropped


class TestDiskThatFails:
    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """What fails, of ``write`` and ``fsync``; half of a write gets through."""
        failing: set[str] = set()
        write, fsync = os.write, os.fsync

        def fail_write(file: int, data: bytes) -> int:
            if "write" in failing:
                write(file, bytes(data)[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data)

        def fail_fsync(file: int) -> None:
            if "fsync" in failing:
                raise OSError(errno.EIO, "Input/output error")
            fsync(file)

        monkeypatch.setattr(os, "write", fail_write)
        monkeypatch.setattr(os, "fsync", fail_fsync)
        monkeypatch.setattr(spooling, "RETRY_AFTER", 0.05)
        return failing

    @pytest.mark.parametrize("what", ["write", "fsync"])
    def test_publishing_goes_on_from_memory_and_the_spool_recovers(
        self,
        collector: FakeCollector,
        publisher_to: PublisherTo,
        directory: Path,
        failing: set[str],
        what: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        collector.saves = False
        publisher = publisher_to(
            collector.address, spool=directory, epoch=EPOCH, batch_records=1, spool_sync=0
        )
        publish(publisher, 3)
        publisher.flush(PATIENCE)
        failing.add(what)
        publish(publisher, 3, first=3)
        publisher.flush(PATIENCE)
        collector.wait_for(lambda: publisher.counters.spool_failed >= 3)
        assert values(collector) == list(range(6))
        assert caplog.text.count("can't be written") == 1

        failing.clear()
        collector.wait_for(lambda: "can be written again" in caplog.text)
        publish(publisher, 2, first=6)
        publisher.close(PATIENCE)

        assert len(left(directory)) == 8
        assert found(directory).epoch == EPOCH

    def test_a_death_meanwhile_harms_nobody(
        self,
        collector: FakeCollector,
        publisher_to: PublisherTo,
        directory: Path,
        failing: set[str],
    ) -> None:
        collector.saves = False
        first = publisher_to(collector.address, spool=directory, epoch=EPOCH, batch_records=1)
        publish(first, 3)
        first.flush(PATIENCE)
        failing.add("write")
        publish(first, 3, first=3)
        first.close(PATIENCE)
        failing.clear()

        second = publisher_to(collector.address, spool=directory, batch_records=1)
        publish(second, 3, first=6)
        second.flush(PATIENCE)

        assert values(collector) == list(range(9))

    def test_a_drop_that_could_not_be_written_makes_the_rest_void(
        self, directory: Path, failing: set[str]
    ) -> None:
        """Else what follows it would be numbered as it was before the drop."""
        spool = Spool(directory, SOURCE)
        buffer = Buffer(1, 1000, math.inf, 1218, drops=True)
        buffer.recover(spool.found)
        for _ in range(4):
            buffer.put(b"\xa3abc")
        spool.save(buffer, EPOCH)
        failing.add("write")
        buffer.put(b"\xa3abc")
        spool.save(buffer, EPOCH)
        spool.close()
        buffer.silence()

        assert buffer.counters.dropped == 1
        assert found(directory).epoch is None


def test_a_batch_comes_back_as_it_was(directory: Path) -> None:
    spool = Spool(directory, SOURCE)
    buffer = Buffer(2, 1000, math.inf, 1 << 20)
    buffer.recover(spool.found)
    for record in (b"\xa1a", b"\xa1b", b"\xa1c"):
        buffer.put(record)
    buffer.close()
    spool.save(buffer, EPOCH)
    spool.close()
    written = buffer.kept()
    buffer.silence()

    result = found(directory)

    assert [batch.body for batch in result.batches] == [b"\xa1a\xa1b", b"\xa1c"]
    for before, after in zip(written, result.batches, strict=True):
        assert (after.index, after.records, after.time) == (
            before.index,
            before.records,
            before.time,
        )
    assert result.next_index == 2
    assert isinstance(result.batches[0], Batch)


PROGRAM = textwrap.dedent(
    """
    import sys, time
    from collectord.client import Publisher

    address, spool, life = sys.argv[1:]
    publisher = Publisher("host", address, spool=spool, batch_records=7, batch_age=1000)
    for number in range(10**9):
        publisher.publish("T:x", "S", {"life": int(life), "number": number})
        if number % 50 == 0:
            time.sleep(0.001)
            print(7 * publisher.counters.spooled, flush=True)
    """
)


def test_killed_at_any_moment_each_record_in_the_spool_arrives_once(
    collector: FakeCollector, directory: Path
) -> None:
    """The process is killed again and again, and at times the collector crashes as well."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    collector.saves = False
    promised: list[int] = []
    for life in range(12):
        promised.append(live(collector, directory, life, seconds=chance.uniform(0.15, 0.5)))
        if chance.random() < 0.5:
            collector.save()
        if chance.random() < 0.4:
            collector.stop()
            collector.crash()
            collector.start()

    collector.saves = True
    with Publisher("host", collector.address, spool=directory) as last:
        last.flush(PATIENCE, durable=True)

    arrived: dict[int, list[int]] = {life: [] for life in range(len(promised))}
    for _, _, attributes in collector.records:
        arrived[attributes["life"]].append(attributes["number"])
    for life, numbers in arrived.items():
        assert numbers == list(range(len(numbers))), f"seed {seed}, life {life}"
        assert len(numbers) >= promised[life], f"seed {seed}, life {life}"
    lives = [attributes["life"] for _, _, attributes in collector.records]
    assert lives == sorted(lives), f"seed {seed}"
    assert sum(promised) > 0


def live(collector: FakeCollector, directory: Path, life: int, seconds: float) -> int:
    """Run a publisher for a while; the records that it knew to be in the spool before it died."""
    arguments = [sys.executable, "-c", PROGRAM, collector.address, str(directory), str(life)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    lines = (first + rest).split(b"\n")[:-1]
    return int(lines[-1])
