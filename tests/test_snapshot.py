"""A directory of snapshots: written whole or not at all, kept, loaded again, whatever disks do."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectord import snapshot_file
from collectord.clock import Clock
from collectord.snapshot import Directory, Files, Loaded, SnapshotError

NOW = 1_600_000_000_000_000


class FakeEngine:
    """An engine whose whole state is a text for each partition, and what it was told is durable."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts) or ["", "", ""]
        self.told: list[bool] = []
        self.under_way = False
        self.is_ready = True
        self.restored_at: tuple[int, int] | None = None

    @property
    def partitions(self) -> int:
        return len(self.texts)

    def begin_save(self) -> bool:
        assert not self.under_way
        self.under_way = self.is_ready
        return self.is_ready

    def save_partition(self, partition: int, now: int, steady: int) -> Any:
        assert self.under_way
        return np.frombuffer(self.texts[partition].encode(), np.uint8)

    def save_head(self, now: int, steady: int) -> Any:
        assert self.under_way
        return np.frombuffer(b"head of " + "".join(self.texts).encode(), np.uint8)

    def end_save(self, durable: bool) -> None:
        assert self.under_way
        self.under_way = False
        self.told.append(durable)

    def restore(
        self, head: memoryview, partitions: Sequence[memoryview], now: int, steady: int
    ) -> None:
        self.texts = [bytes(partition).decode() for partition in partitions]
        self.restored_at = now, steady
        if bytes(head) != b"head of " + "".join(self.texts).encode():
            raise ValueError("the head is another one's")


class FaultyFiles(Files):
    """Does what it should, but for the operations in ``faults``: these fail with that error."""

    def __init__(self) -> None:
        self.faults: dict[str, int] = {}
        self.calls: list[str] = []

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if number := self.faults.get(name):
            raise OSError(number, os.strerror(number))

    def make_directory(self, path: Path) -> None:
        self._note("make_directory")
        super().make_directory(path)

    def names(self, path: Path) -> list[str]:
        self._note("names")
        return super().names(path)

    def lock(self, path: Path) -> int:
        self._note("lock")
        return super().lock(path)

    def is_at(self, file: int, path: Path) -> bool:
        self._note("is_at")
        return super().is_at(file, path)

    def create(self, path: Path) -> int:
        self._note("create")
        return super().create(path)

    def write(self, file: int, data: memoryview) -> int:
        self._note("write")
        return super().write(file, data)

    def sync(self, file: int) -> None:
        self._note("sync")
        super().sync(file)

    def close(self, file: int) -> None:
        super().close(file)
        self._note("close")

    def rename(self, path: Path, to: Path) -> None:
        self._note("rename")
        super().rename(path, to)

    def sync_directory(self, path: Path) -> None:
        self._note("sync_directory")
        super().sync_directory(path)

    def remove(self, path: Path) -> None:
        self._note("remove")
        super().remove(path)

    def read(self, path: Path) -> bytes:
        self._note("read")
        return super().read(path)


Opener = Callable[..., Directory]


@pytest.fixture
def open_directory(tmp_path: Path) -> Iterator[Opener]:
    """Opens the directory of this test; the collector before has ended by then."""
    opened: list[Directory] = []

    def open_(files: Files | None = None) -> Directory:
        for directory in opened:
            directory.close()
        directory = Directory(tmp_path / "snapshots", files)
        opened.append(directory)
        directory.open()
        return directory

    yield open_
    for directory in opened:
        directory.close()


def save(directory: Directory, *texts: str) -> Path:
    engine = FakeEngine(*texts)
    snapshot = directory.save(engine, Clock())
    assert snapshot is not None
    assert engine.told == [True]
    return snapshot.path


def load(directory: Directory) -> Loaded[FakeEngine] | None:
    return directory.load(FakeEngine, NOW, NOW + 1)


def loaded_texts(directory: Directory) -> list[str]:
    loaded = load(directory)
    assert loaded is not None
    return loaded.engine.texts


def names(directory: Directory) -> list[str]:
    return sorted(path.name for path in directory.path.iterdir() if path.name != "lock")


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# ---- saving and loading ------------------------------------------------------------------------


def test_what_was_saved_is_loaded(open_directory: Opener) -> None:
    path = save(open_directory(), "one", "two", "")

    loaded = load(open_directory())

    assert loaded is not None
    assert loaded.engine.texts == ["one", "two", ""]
    assert loaded.engine.restored_at == (NOW, NOW + 1)
    assert loaded.snapshot.path == path
    assert loaded.snapshot.bytes == path.stat().st_size


def test_a_snapshot_says_when_it_was_made(open_directory: Opener) -> None:
    before = Clock().wall()
    save(open_directory(), "x")

    loaded = load(open_directory())

    assert loaded is not None
    assert before <= loaded.snapshot.time <= Clock().wall()


def test_the_newest_is_loaded(open_directory: Opener) -> None:
    directory = open_directory()
    for text in ("first", "second", "third"):
        save(directory, text)

    assert loaded_texts(open_directory()) == ["third"]


def test_the_last_two_are_kept(open_directory: Opener) -> None:
    directory = open_directory()

    paths = [save(directory, str(number)) for number in range(5)]

    assert names(directory) == [path.name for path in paths[-2:]]


def test_what_a_former_run_saved_counts_among_the_two(open_directory: Opener) -> None:
    directory = open_directory()
    for text in ("first", "second"):
        path = save(directory, text)

    again = open_directory()
    load(again)

    third = save(again, "third")
    assert names(again) == [path.name, third.name]


def test_numbers_go_on_from_the_greatest_that_ever_was(open_directory: Opener) -> None:
    directory = open_directory()
    path = save(directory, "first")
    path.rename(path.with_name("snapshot-0000000000000041.collectord.damaged"))

    again = open_directory()
    load(again)

    assert save(again, "second").name == "snapshot-0000000000000042.collectord"


def test_a_large_section_and_a_disk_that_takes_little_at_once(open_directory: Opener) -> None:
    class Sips(Files):
        def write(self, file: int, data: memoryview) -> int:
            return super().write(file, data[: max(1, len(data) // 3)])

    text = "0123456789abcdef" * (3 * snapshot_file.AT_ONCE // 16 + 1)
    save(open_directory(Sips()), text, "small")

    assert loaded_texts(open_directory()) == [text, "small"]


def test_nothing_there_is_a_plain_notice(
    open_directory: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    assert load(open_directory()) is None

    (record,) = caplog.records
    assert record.levelno == 25
    assert "begins empty" in record.message


def test_what_an_engine_cannot_save_yet_is_no_snapshot(open_directory: Opener) -> None:
    directory = open_directory()
    engine = FakeEngine("x")
    engine.is_ready = False

    assert directory.save(engine, Clock()) is None

    assert (engine.told, names(directory)) == ([], [])


def test_only_the_owner_can_read_it(open_directory: Opener) -> None:
    path = save(open_directory(), "x")

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_engine_hears_that_it_is_durable_only_after_the_directory_is_synced(
    open_directory: Opener,
) -> None:
    files = FaultyFiles()
    directory = open_directory(files)
    engine = FakeEngine("x")
    calls_before: list[list[str]] = []
    engine.end_save = lambda durable: calls_before.append(list(files.calls))  # type: ignore[method-assign]
    files.calls.clear()

    directory.save(engine, Clock())

    (calls,) = calls_before
    assert [name for name in calls if name not in ("is_at", "write", "names")] == [
        "create",
        "sync",
        "close",
        "rename",
        "sync_directory",
    ]


def test_directories_that_are_made_are_on_the_disk_before_what_is_in_them(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Noting(Files):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)
            super().sync_directory(path)

    directory = Directory(tmp_path / "a" / "b" / "snapshots", Noting())

    directory.open()

    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    directory.close()


# ---- what a killed writer left, and others -----------------------------------------------------


def test_what_a_killed_writer_left_is_removed_and_its_number_passed_over(
    open_directory: Opener,
) -> None:
    directory = open_directory()
    save(directory, "first")
    left = directory.path / "snapshot-0000000000000002.collectord.tmp"
    left.write_bytes(b"half")

    again = open_directory()

    assert not left.exists()
    assert loaded_texts(again) == ["first"]
    assert save(again, "second").name == "snapshot-0000000000000003.collectord"


def test_other_files_are_left_alone(open_directory: Opener) -> None:
    directory = open_directory()
    others = ["README", "snapshot-1.collectord", "snapshot-0000000000000001.collectord.bak"]
    for name in others:
        (directory.path / name).write_text("mine")

    for number in range(4):
        save(directory, str(number))

    assert set(others) < set(names(directory))


def test_another_collector_cannot_have_the_directory(open_directory: Opener) -> None:
    directory = open_directory()

    with pytest.raises(SnapshotError, match="another collector saves its state there"):
        Directory(directory.path).open()

    directory.close()
    open_directory().close()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SnapshotError, match=r"Not a directory.*SNAPSHOT\.directory"):
        Directory(tmp_path / "file" / "snapshots").open()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_no_reason_not_to_load(open_directory: Opener, number: int) -> None:
    save(open_directory(), "saved")
    files = FaultyFiles()
    files.faults = dict.fromkeys(("make_directory", "lock", "create", "write"), number)

    directory = open_directory(files)

    assert loaded_texts(directory) == ["saved"]
    with pytest.raises(OSError, match=os.strerror(number)):
        directory.save(FakeEngine("more"), Clock())
    files.faults.clear()
    save(directory, "more")


# ---- damage ------------------------------------------------------------------------------------


def test_a_damaged_one_is_named_and_set_aside_and_the_one_before_taken(
    open_directory: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    directory = open_directory()
    save(directory, "first")
    path = save(directory, "second")
    damage(path)

    again = open_directory()

    assert loaded_texts(again) == ["first"]
    assert again.damaged == 1
    assert f"{path} is damaged at byte " in caplog.text
    assert f"{path.name}.damaged" in names(again)
    assert path.name not in names(again)


def test_the_one_that_was_loaded_outlives_a_damaged_one_that_cannot_be_set_aside(
    open_directory: Opener,
) -> None:
    directory = open_directory()
    first = save(directory, "first")
    damage(save(directory, "second"))
    files = FaultyFiles()
    again = open_directory(files)
    files.faults = {"rename": errno.EACCES}
    assert loaded_texts(again) == ["first"]
    files.faults.clear()

    save(again, "third")

    assert first.exists()


def test_whole_bytes_that_the_engine_refuses_are_damaged_too(
    open_directory: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    directory = open_directory()
    save(directory, "first")

    class Liar(FakeEngine):
        def save_head(self, now: int, steady: int) -> Any:
            return np.frombuffer(b"something else", np.uint8)

    directory.save(Liar("second"), Clock())

    assert loaded_texts(open_directory()) == ["first"]
    assert "the head is another one's" in caplog.text


def test_an_engine_that_refused_is_not_used_again(open_directory: Opener) -> None:
    directory = open_directory()
    save(directory, "first")
    made: list[FakeEngine] = []

    class Liar(FakeEngine):
        def save_head(self, now: int, steady: int) -> Any:
            return np.frombuffer(b"something else", np.uint8)

    def make() -> FakeEngine:
        made.append(FakeEngine())
        return made[-1]

    directory.save(Liar("second"), Clock())
    loaded = open_directory().load(make, NOW, NOW)

    assert loaded is not None
    assert len(made) == 2
    assert loaded.engine is made[1]


def test_nothing_whole_begins_empty_and_says_so_loudly(
    open_directory: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    directory = open_directory()
    for text in ("first", "second"):
        damage(save(directory, text))

    again = open_directory()

    assert load(again) is None
    assert [record.levelname for record in caplog.records][-1] in ("CRITICAL", "SYS_CRIT")
    assert again.damaged == 2
    save(again, "third")
    assert loaded_texts(open_directory()) == ["third"]


def test_a_few_damaged_ones_are_kept(open_directory: Opener) -> None:
    for number in range(6):
        directory = open_directory()
        load(directory)
        damage(save(directory, str(number)))

    directory = open_directory()
    load(directory)
    save(directory, "whole")

    assert len([name for name in names(directory) if name.endswith(".damaged")]) == 3


def test_one_that_the_disk_cannot_read_is_damaged(open_directory: Opener) -> None:
    directory = open_directory()
    save(directory, "first")
    second = save(directory, "second")

    class BadSector(Files):
        def read(self, path: Path) -> bytes:
            if path == second:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(path)

    assert loaded_texts(open_directory(BadSector())) == ["first"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_one_that_a_person_can_make_readable_is_an_error(
    open_directory: Opener, number: int
) -> None:
    path = save(open_directory(), "first")
    files = FaultyFiles()
    directory = open_directory(files)
    files.faults = {"read": number}

    with pytest.raises(SnapshotError, match=f"{path.name}.*{os.strerror(number)}"):
        load(directory)
    assert path.exists()


def test_a_directory_that_cannot_be_read_is_an_error(open_directory: Opener) -> None:
    save(open_directory(), "first")
    files = FaultyFiles()
    directory = open_directory(files)
    files.faults = {"names": errno.EACCES}

    with pytest.raises(SnapshotError, match=os.strerror(errno.EACCES)):
        load(directory)


def test_too_little_memory_is_an_error_and_no_damage(open_directory: Opener) -> None:
    path = save(open_directory(), "first")

    class Small(FakeEngine):
        def restore(self, *arguments: Any) -> None:
            raise MemoryError

    with pytest.raises(SnapshotError, match="doesn't fit in memory"):
        open_directory().load(Small, NOW, NOW)
    assert path.exists()


def test_one_of_a_newer_version_is_an_error_and_no_damage(
    open_directory: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = open_directory()
    save(directory, "first")
    with monkeypatch.context() as newer:
        newer.setattr(snapshot_file, "VERSION", 3)
        path = save(directory, "second")

    with pytest.raises(SnapshotError, match=f"{path.name}.*version 3, not 1 or 2"):
        load(open_directory())
    assert path.exists()


# ---- a disk that fails -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize(
    "operation", ["is_at", "create", "write", "sync", "close", "rename", "sync_directory"]
)
def test_an_operation_that_fails_leaves_all_as_it_was_and_the_next_round_recovers(
    open_directory: Opener, operation: str, number: int
) -> None:
    files = FaultyFiles()
    directory = open_directory(files)
    saved = {save(directory, "first"), save(directory, "second")}
    before = {path: path.read_bytes() for path in saved}
    engine = FakeEngine("third")

    files.faults = {operation: number}
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(number)):
            directory.save(engine, Clock())

    assert True not in engine.told
    assert not engine.under_way
    assert {path: path.read_bytes() for path in saved} == before
    assert not any(name.endswith(".tmp") for name in names(directory))
    files.faults.clear()
    save(directory, "third")
    assert loaded_texts(open_directory()) == ["third"]


@pytest.mark.parametrize("nth", range(1, 25))
def test_the_nth_write_fails_and_what_is_there_is_loaded(open_directory: Opener, nth: int) -> None:
    class FailsAt(Files):
        writes = 0

        def write(self, file: int, data: memoryview) -> int:
            self.writes += 1
            if self.writes == nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(file, data)

    save(open_directory(), "a", "b", "c")
    directory = open_directory(FailsAt())
    engine = FakeEngine("x", "y", "z")

    # 2 writes of the preamble and at most 3 for each of 6 sections, of which the end is empty
    if nth <= 2 + 3 * 6 - 1:
        with pytest.raises(OSError, match="No space"):
            directory.save(engine, Clock())
        assert loaded_texts(open_directory()) == ["a", "b", "c"]
    else:
        assert directory.save(engine, Clock()) is not None
        assert loaded_texts(open_directory()) == ["x", "y", "z"]


def test_memory_that_runs_out_is_told_like_a_disk_that_does(open_directory: Opener) -> None:
    class Hungry(FakeEngine):
        def save_partition(self, partition: int, now: int, steady: int) -> Any:
            if partition == 1:
                raise MemoryError
            return super().save_partition(partition, now, steady)

    directory = open_directory()
    engine = Hungry("x", "y")

    with pytest.raises(MemoryError):
        directory.save(engine, Clock())

    assert engine.told == [False]
    assert names(directory) == []


def test_a_temporary_file_that_cannot_be_removed_is_in_nobodys_way(
    open_directory: Opener,
) -> None:
    files = FaultyFiles()
    directory = open_directory(files)
    files.faults = dict.fromkeys(("write", "remove"), errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        directory.save(FakeEngine("x"), Clock())
    assert len(names(directory)) == 1

    files.faults.clear()
    path = save(directory, "x")

    assert names(directory) == [path.name]


def test_old_files_that_cannot_be_removed_are_told_once_and_no_failure(
    open_directory: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyFiles()
    directory = open_directory(files)
    files.faults = {"remove": errno.EACCES}

    for number in range(6):
        save(directory, str(number))

    assert len([record for record in caplog.records if "cannot remove" in record.message]) == 1
    files.faults.clear()
    save(directory, "last")
    assert len(names(directory)) == 2


def test_a_directory_that_was_taken_away_is_made_again(
    open_directory: Opener, tmp_path: Path
) -> None:
    directory = open_directory()
    save(directory, "first")
    directory.path.rename(tmp_path / "elsewhere")

    save(directory, "second")

    assert loaded_texts(open_directory()) == ["second"]


def test_a_directory_that_another_has_taken_meanwhile_is_left_to_it(
    open_directory: Opener, tmp_path: Path
) -> None:
    directory = open_directory()
    save(directory, "first")
    directory.path.rename(tmp_path / "elsewhere")
    other = Directory(directory.path)
    other.open()

    with pytest.raises(OSError, match="another collector"):
        directory.save(FakeEngine("second"), Clock())

    assert names(other) == []
    other.close()
    save(directory, "third")
