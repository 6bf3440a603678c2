"""A collector that is killed or stopped, and started again: what was told is there, once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import (
    HISTORY,
    METRIC,
    STRUCT,
    Daemon,
    new_key,
    new_source,
    run,
    until,
)

SUM = f"AggProxySum-{METRIC}"
FLOWS = "egress_flow_count"
OPEN = "--DEFAULT.uve_proxy_lateness=300"
"""No period closes while a test runs."""

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a collector that saves its state every second, in ``snapshots``."""

    def start_(*arguments: str) -> Daemon:
        return Daemon(
            f"--SNAPSHOT.directory={tmp_path / 'snapshots'}", "--SNAPSHOT.interval=1", *arguments
        )

    return start_


def files(tmp_path: Path, ending: str = ".collectord") -> list[Path]:
    return sorted((tmp_path / "snapshots").glob(f"snapshot-*{ending}"))


def snapshot(daemon: Daemon) -> Any:
    return daemon.ask("status")["snapshot"]


def await_saved(daemon: Daemon) -> None:
    """Wait for a snapshot that was begun after now."""
    now = daemon.ask("status")["time"]
    until(lambda: (snapshot(daemon)["last_time"] or 0) > now)


def problems(daemon: Daemon) -> Any:
    return daemon.ask("status")["health"]["problems"]


# ---- killed ------------------------------------------------------------------------------------


def test_what_was_saved_is_there_after_a_crash(start: Start) -> None:
    key, name = new_key(), new_source()
    with start(OPEN) as daemon, daemon.source(name) as source:
        source.tell([key, STRUCT, {"a": [1, "x", None], FLOWS: 5}, HISTORY])
        before = daemon.uve(key)
        await_saved(daemon)
        daemon.kill()

    with start(OPEN) as daemon:
        assert daemon.uve(key) == before
        assert daemon.uve(key)[SUM]["value"] == {"staging": 5}
        assert snapshot(daemon)["loaded_from"].endswith(".collectord")
        sources = daemon.ask("sources")["sources"]
        assert (sources[name]["epoch"], sources[name]["seq"]) == (1, 1)


def test_what_was_durable_is_known_and_what_was_not_is_asked_for_again(start: Start) -> None:
    key, name = new_key(), new_source()
    with start(OPEN) as daemon, daemon.source(name) as source:
        assert source.tell([key, STRUCT, {FLOWS: 1}, HISTORY])["durable"] == 0
        await_saved(daemon)
        assert source.tell([key, STRUCT, {FLOWS: 2}, HISTORY])["durable"] == 1
        daemon.kill()

    with start(OPEN) as daemon, daemon.source(name) as source:
        known = daemon.ask("sources")["sources"][name]["seq"]
        assert known in (1, 2)
        assert source.send_numbered(4) == {"resync": known}
        for seq, flows in ((1, 1), (2, 2), (3, 4)):
            reply = source.send_numbered(seq, [key, STRUCT, {FLOWS: flows}, HISTORY])
            assert reply.get("duplicate", False) is (seq <= known)
        assert daemon.uve(key)[SUM]["value"] == {"staging": 7}


def test_a_silent_source_is_told_what_has_become_durable(start: Start) -> None:
    with start() as daemon, daemon.source() as source:
        assert source.tell([new_key(), STRUCT, {"a": 1}])["durable"] == 0

        assert source.answer() == {"seq": 1, "applied": 0, "durable": 1, "duplicate": True}


def test_crash_after_crash(start: Start) -> None:
    """Numbered batches from a source that keeps what is not durable: none lost, none twice."""
    key, name, durable, total = new_key(), new_source(), 0, 0
    for life in range(4):
        with start(OPEN) as daemon, daemon.source(name) as source:
            seq = durable
            while seq < total:  # what was kept
                seq += 1
                reply = source.send_numbered(seq, [key, STRUCT, {FLOWS: seq}, HISTORY])
                assert "applied" in reply
            for _ in range(5):
                total += 1
                reply = source.send_numbered(total, [key, STRUCT, {FLOWS: total}, HISTORY])
                assert reply["applied"] == 1
            if life % 2:
                await_saved(daemon)
            durable = source.send_numbered(total)["durable"]
            assert daemon.uve(key)[SUM]["value"] == {"staging": total * (total + 1) // 2}
            daemon.kill()


# ---- stopped -----------------------------------------------------------------------------------


def test_a_clean_stop_loses_nothing_not_even_what_came_without_numbers(start: Start) -> None:
    key = new_key()
    with start("--SNAPSHOT.interval=3600") as daemon, daemon.source() as source:
        source.post(source.batch([key, STRUCT, {"a": 1}]))
        source.settle()

    with start() as daemon:
        assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_stop_while_sources_are_awaited_keeps_what_was_loaded(start: Start) -> None:
    key = new_key()
    with start() as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])
    for _ in range(2):
        with start("--SNAPSHOT.grace=3600") as daemon:
            assert snapshot(daemon)["awaited"] == 1
            assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_last_time_that_fails_is_exit_code_1_and_no_hang(start: Start) -> None:
    with start() as daemon:
        daemon.expected_code = 1
        until(lambda: snapshot(daemon)["saved"])
        limit_files(daemon, 0)
        daemon.assert_goes_on()

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 1
        assert "not saved once more" in "".join(daemon.log)


# ---- who is awaited ----------------------------------------------------------------------------


def crashed(start: Start, key: str, *names: str) -> None:
    """A life that ends with an open period, of which each source has told 5."""
    with start(OPEN) as daemon:
        for name in names:
            with daemon.source(name) as source:
                source.tell([key, STRUCT, {FLOWS: 5}, HISTORY])
        await_saved(daemon)
        daemon.kill()


def test_no_period_closes_until_all_are_back_and_have_sent_what_they_kept(start: Start) -> None:
    key, one, other = new_key(), new_source(), new_source()
    crashed(start, key, one, other)

    soon = "--DEFAULT.uve_proxy_lateness=0.1"
    with start(soon, "--SNAPSHOT.grace=3600") as daemon:
        assert snapshot(daemon)["awaited"] == 2
        assert problems(daemon) == []
        with daemon.source(one) as source:
            kept = [key, STRUCT, {FLOWS: 5}, HISTORY]
            source.send_numbered(2, kept, newest=3)
            source.send_numbered(3, kept, newest=3)
        until(lambda: snapshot(daemon)["awaited"] == 1)
        assert daemon.uve(key)[SUM]["value"] == {"staging": 20}

        with daemon.source(other) as source:
            source.send_numbered(2, [key, STRUCT, {FLOWS: 5}, HISTORY], newest=2)

            assert "all sources are back" in daemon.await_log("are back after")
            until(lambda: daemon.uve(key)[SUM]["value"] == {"value": 25})
        assert problems(daemon) == []


def test_after_the_grace_periods_close_without_those_who_are_not_back(start: Start) -> None:
    key = new_key()
    crashed(start, key, new_source())

    with start("--DEFAULT.uve_proxy_lateness=0.1", "--SNAPSHOT.grace=1") as daemon:
        assert "did not come back in 1." in daemon.await_log("periods close without sources")
        until(lambda: daemon.uve(key)[SUM]["value"] == {"value": 5})


def test_a_source_without_newest_is_back_some_time_after_it_is_heard(start: Start) -> None:
    key, name = new_key(), new_source()
    crashed(start, key, name)

    with (
        start("--DEFAULT.uve_proxy_lateness=0.1", "--SNAPSHOT.grace=3600") as daemon,
        daemon.source(name) as source,
    ):
        source.send_numbered(2)

        daemon.await_log("are back after")


# ---- sources that go ---------------------------------------------------------------------------


def test_a_source_that_is_not_heard_of_any_more_is_gone_with_its_records(start: Start) -> None:
    key, name = new_key(), new_source()
    with (
        start("--COLLECTOR.source_timeout=1") as daemon,
        daemon.subscribe(key) as stream,
        daemon.source(name) as source,
    ):
        source.tell([key, STRUCT, {"a": 1}])

        stream.until(lambda message: message == {"key": key, "struct": STRUCT, "deleted": True})

        assert daemon.uve(key) is None
        assert daemon.ask("sources")["sources"][name]["gone"]
        assert daemon.counter("sources_gone") == 1
        assert name in daemon.await_log("gone, as nothing came for 1 s")

        reply = source.tell([key, STRUCT, {"a": 2}])
        assert reply["expired"]
        assert not daemon.ask("sources")["sources"][name]["gone"]
        assert daemon.uve(key) == {STRUCT: {"a": 2}}


def test_empty_batches_keep_a_source(start: Start) -> None:
    key = new_key()
    with start("--COLLECTOR.source_timeout=1") as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])
        with daemon.source() as other:
            other.tell([new_key(), STRUCT, {"a": 1}])

        def other_is_gone() -> bool:
            source.tell()
            return daemon.counter("sources_gone") == 1

        until(other_is_gone)
        assert daemon.uve(key) == {STRUCT: {"a": 1}}


# ---- damage ------------------------------------------------------------------------------------


def test_a_damaged_snapshot_is_set_aside_and_the_one_before_loaded(
    start: Start, tmp_path: Path
) -> None:
    key = new_key()
    with start("--SNAPSHOT.interval=3600") as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])
    (older,) = files(tmp_path)
    newer = older.with_name("snapshot-0000000000000099.collectord")
    newer.write_bytes(older.read_bytes()[:-1])

    with start() as daemon:
        assert daemon.uve(key) == {STRUCT: {"a": 1}}
        assert f"{newer} is damaged at byte " in daemon.await_log("is damaged")
        assert daemon.counter("snapshots_damaged") == 1
        assert snapshot(daemon)["loaded_from"] == str(older)
    assert files(tmp_path, ".damaged") == [newer.with_name(f"{newer.name}.damaged")]


def test_nothing_whole_is_a_start_that_says_so_loudly(start: Start, tmp_path: Path) -> None:
    with start("--SNAPSHOT.interval=3600") as daemon:
        daemon.assert_goes_on()
    (path,) = files(tmp_path)
    path.write_bytes(b"nonsense")

    with start() as daemon:
        daemon.may_be_critical = True
        assert "SYS_CRIT" in daemon.await_log("what was saved is lost")
        assert daemon.ask("sources")["sources"] == {}
        daemon.assert_goes_on()


def test_a_snapshot_of_a_newer_version_is_no_start(tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    directory.mkdir()
    path = directory / "snapshot-0000000000000001.collectord"
    begin = b"\x89CSNAP\r\n" + struct.pack("<I", 3)
    path.write_bytes(begin + struct.pack("<I", zlib.crc32(begin)))

    ended = run(*free_ports(), f"--SNAPSHOT.directory={directory}")

    assert ended.returncode == 3
    assert f"{path} can't be read" in ended.stderr
    assert "version 3" in ended.stderr
    assert path.exists()


def test_a_directory_that_another_collector_has_is_no_start(start: Start, tmp_path: Path) -> None:
    with start() as daemon:
        ended = run(*free_ports(), f"--SNAPSHOT.directory={tmp_path / 'snapshots'}")

        assert ended.returncode == 3
        assert "another collector saves its state there" in ended.stderr
        daemon.assert_goes_on()


def test_a_directory_that_cannot_be_made_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    ended = run(*free_ports(), f"--SNAPSHOT.directory={tmp_path / 'file' / 'snapshots'}")

    assert ended.returncode == 3
    assert "SNAPSHOT.directory" in ended.stderr


def free_ports() -> list[str]:
    return [f"--{name}.port=0" for name in ("COLLECTOR", "QUERY", "STREAM")]


# ---- a disk that fails -------------------------------------------------------------------------


def limit_files(daemon: Daemon, size: int) -> None:
    """What a full disk does, to a process: no file can be longer than this."""
    _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_while_the_disk_is_full_it_serves_on_and_nothing_new_is_durable(
    start: Start, tmp_path: Path
) -> None:
    with start() as daemon, daemon.source() as source:
        source.tell()
        await_saved(daemon)
        durable = source.tell()["durable"]
        limit_files(daemon, 64)
        (problem,) = until(lambda: problems(daemon))

        before = files(tmp_path)
        failed = snapshot(daemon)["failed"]
        daemon.assert_goes_on()
        source.tell()
        until(lambda: snapshot(daemon)["failed"] >= failed + 2)

        assert problem.startswith("state can't be saved since ")
        assert problem.endswith(": File too large")
        assert not daemon.ask("status")["health"]["ok"]
        assert snapshot(daemon)["error"] == "File too large"
        assert source.tell()["durable"] <= durable + 1
        assert files(tmp_path) == before
        assert files(tmp_path, ".tmp") == []
        assert len([line for line in daemon.log if "can't be saved" in line]) == 1

        limit_files(daemon, resource.RLIM_INFINITY)

        daemon.await_log("state is saved again")
        await_saved(daemon)
        assert problems(daemon) == []
        assert source.tell()["durable"] >= durable + 2
        daemon.assert_goes_on()


def test_a_directory_that_is_removed_is_made_again(start: Start, tmp_path: Path) -> None:
    key = new_key()
    with start() as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])
        until(lambda: snapshot(daemon)["saved"])
        (tmp_path / "snapshots").rename(tmp_path / "elsewhere")

        daemon.await_log("is made again")
        await_saved(daemon)
        daemon.kill()

    with start() as daemon:
        assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_directory_that_cannot_be_made_again_is_a_problem_until_it_can(
    start: Start, tmp_path: Path
) -> None:
    directory = tmp_path / "snapshots"
    with start() as daemon:
        until(lambda: snapshot(daemon)["saved"])
        shutil.rmtree(directory)
        directory.write_text("in the way")

        until(lambda: problems(daemon))
        daemon.assert_goes_on()
        directory.unlink()

        until(lambda: not problems(daemon))
    assert files(tmp_path)


# ---- options -----------------------------------------------------------------------------------


def test_the_state_directory_of_the_environment_is_taken(tmp_path: Path) -> None:
    with Daemon(environ={"STATE_DIRECTORY": str(tmp_path)}) as daemon:
        assert snapshot(daemon)["directory"] == str(tmp_path / "snapshots")
        daemon.assert_goes_on()
    assert files(tmp_path)


def test_without_a_directory_nothing_is_saved_and_that_is_no_problem(tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": str(tmp_path)}
    with Daemon("--SNAPSHOT.directory=", environ=environ) as daemon:
        daemon.await_log("state is not saved")
        assert snapshot(daemon)["directory"] is None
        assert problems(daemon) == []
    assert os.listdir(tmp_path) == []


def test_an_interval_that_changes_is_taken_on(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text("[SNAPSHOT]\ninterval=3600\n")
    directory = f"--SNAPSHOT.directory={tmp_path / 'snapshots'}"
    with Daemon("--conf_file", str(file), directory) as daemon:
        file.write_text("[SNAPSHOT]\ninterval=1\n")

        daemon.signal(signal.SIGHUP)

        assert "SNAPSHOT.interval" in daemon.await_log("reloaded")
        until(lambda: snapshot(daemon)["saved"])
        assert not any("takes a restart" in line for line in daemon.log)


@pytest.mark.parametrize("option", ["--DEFAULT.hostip=0.0.0.0", "--QUERY.server=::"])
def test_a_wide_address_wants_keys_or_a_word_that_it_may(option: str) -> None:
    ended = run(*free_ports(), option)

    assert ended.returncode == 2
    assert "SECURITY.insecure" in ended.stderr
    with Daemon(option, "--SECURITY.insecure=true") as daemon:
        assert daemon.process.poll() is None


def test_the_count_of_partitions_may_change(start: Start) -> None:
    key = new_key()
    with start("--DEFAULT.partitions=3") as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])

    with start("--DEFAULT.partitions=7") as daemon:
        assert daemon.uve(key) == {STRUCT: {"a": 1}}
        assert daemon.ask("status")["partitions"] == 7


def test_a_metric_that_is_no_longer_configured_is_not_brought_back(start: Start) -> None:
    key = new_key()
    with start(OPEN) as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {FLOWS: 5}, HISTORY])
        assert SUM in daemon.uve(key)

    with start(OPEN, "--DEFAULT.uve_proxy_list=") as daemon:
        assert daemon.uve(key) == {STRUCT: {FLOWS: 5}}
        assert daemon.ask("status")["sizes"]["series"] == 0
