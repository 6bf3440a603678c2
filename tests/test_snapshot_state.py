"""The state over restarts: when it is saved, what is said where it can't be, who is awaited."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from collectord import state
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.settings import Settings, load
from collectord.snapshot import Files, SnapshotError
from collectord.state import State
from daemon import DEADLINE
from test_snapshot import FakeEngine, FaultyFiles

SECOND = 1_000_000


class AwaitingEngine(FakeEngine):
    """Awaits the sources that ``settle`` and ``settle_all`` are still to tell of."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.awaited = 0
        self.settled: list[tuple[int, int]] = []
        self.records: Iterator[int] = itertools.count()
        """How many it has counted, whenever it is asked; more each time, unless it is idle."""

    def counters(self) -> dict[str, int]:
        return {"records": next(self.records)}

    def sizes(self) -> dict[str, int]:
        return {}

    def settle(self, steady: int, quiet: int) -> int:
        self.settled.append((steady, quiet))
        return self.awaited

    def settle_all(self) -> int:
        awaited, self.awaited = self.awaited, 0
        return awaited


class Hands:
    """The hands of all clocks, moved by a test."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def clock(self) -> Clock:
        return Clock(
            wall=lambda: round((self.seconds + 1_600_000_000) * 1e9),
            monotonic=lambda: round(self.seconds * 1e9),
        )


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    made = Hands()
    monkeypatch.setattr(state, "time", made)
    return made


def settings(**options: str) -> Settings:
    return load([f"--{name.replace('__', '.')}={text}" for name, text in options.items()], {})


def snapshots(kept: Kept) -> list[Path]:
    return sorted(kept.path.glob("*.collectord"))


class Kept:
    """States of one directory, one after the other, as of collectors that are started again."""

    def __init__(self, path: Path, hands: Hands) -> None:
        self.path = path
        self.engine = AwaitingEngine("x")
        self.awaited = 0
        self._hands = hands
        self._states: list[State] = []

    def start(self, files: Files | None = None, **options: str) -> State:
        self.close()
        made = State(self.path, self._hands.clock(), settings(**options), files)
        self._states.append(made)

        def make_engine() -> Engine:
            self.engine = AwaitingEngine("x")
            self.engine.awaited = self.awaited
            return cast(Engine, self.engine)

        made.load(make_engine)
        return made

    def close(self) -> None:
        for made in self._states:
            made.close()


@pytest.fixture
def kept(tmp_path: Path, hands: Hands) -> Iterator[Kept]:
    made = Kept(tmp_path, hands)
    yield made
    made.close()


# ---- where -------------------------------------------------------------------------------------


def test_an_absolute_directory_is_taken_as_it_is() -> None:
    given = settings(SNAPSHOT__directory="/var/x", COLLECTOR__port="0")

    assert state.directory(given, {"STATE_DIRECTORY": "/s"}) == Path("/var/x")


def test_the_state_directory_of_systemd_comes_first() -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/collectord:/var/lib/other", "XDG_STATE_HOME": "/x"}

    found = state.directory(settings(COLLECTOR__port="0"), environ)

    assert found == Path("/var/lib/collectord/snapshots")


@pytest.mark.parametrize(
    ("environ", "home"),
    [({"XDG_STATE_HOME": "/x"}, "/x"), ({"XDG_STATE_HOME": "relative"}, None), ({}, None)],
)
def test_else_it_is_the_users_and_the_ports(environ: dict[str, str], home: str | None) -> None:
    above = Path(home) if home else Path.home() / ".local" / "state"

    assert state.directory(settings(), environ) == above / "collectord" / "8086" / "snapshots"


def test_nowhere_where_it_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert state.directory(settings(SNAPSHOT__directory=""), {"STATE_DIRECTORY": "/s"}) is None
    assert "not saved" in caplog.text


def test_nowhere_where_the_port_is_another_with_every_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    assert state.directory(settings(COLLECTOR__port="0"), {}) is None
    assert "not saved" in caplog.text


def test_no_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)

    with pytest.raises(SnapshotError, match=r"absolute SNAPSHOT\.directory"):
        state.directory(settings(), {})


def test_a_state_that_is_nowhere_is_fine(hands: Hands) -> None:
    nowhere = State(None, hands.clock(), settings())
    engine = AwaitingEngine()

    assert nowhere.load(lambda: cast(Engine, engine)) is cast(Engine, engine)
    hands.seconds += 1_000_000
    assert not nowhere.is_due()
    nowhere.settle()
    assert asyncio.run(nowhere.finish())
    nowhere.close()
    assert nowhere.status()["directory"] is None
    assert nowhere.problems() == []


# ---- when --------------------------------------------------------------------------------------


def test_it_is_saved_after_each_interval(kept: Kept, hands: Hands) -> None:
    started = kept.start(SNAPSHOT__interval="10")

    hands.seconds += 9.9
    assert not started.is_due()
    hands.seconds += 0.2
    assert started.is_due()
    assert started.save()
    assert not started.is_due()


def test_what_has_not_changed_is_not_saved_again(kept: Kept) -> None:
    started = kept.start()
    kept.engine.records = itertools.cycle([7])
    assert started.save()
    first = snapshots(kept)
    assert started.save()
    assert snapshots(kept) == first

    kept.engine.records = itertools.cycle([8])
    assert started.save()
    second = snapshots(kept)
    assert len(second) == len(first) + 1

    for path in second:
        path.unlink()
    assert started.save(), "and what is gone is not there, though nothing has changed"
    assert snapshots(kept)


def test_a_changed_interval_holds_at_once(kept: Kept, hands: Hands) -> None:
    started = kept.start(SNAPSHOT__interval="100")
    hands.seconds += 20

    started.configure(settings(SNAPSHOT__interval="10"))

    assert started.is_due()


class SlowFiles(Files):
    """A disk that takes seven seconds to sync."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def sync(self, file: int) -> None:
        super().sync(file)
        self._hands.seconds += 7


def test_a_slow_disk_is_left_alone_for_four_times_as_long_as_it_took(
    kept: Kept, hands: Hands
) -> None:
    started = kept.start(SlowFiles(hands), SNAPSHOT__interval="10")
    begun = hands.seconds
    assert started.save()

    hands.seconds = begun + 27.9
    assert not started.is_due()
    hands.seconds = begun + 28.1
    assert started.is_due()


def test_the_loop_goes_on_while_the_disk_hangs(tmp_path: Path) -> None:
    class HangingFiles(Files):
        def __init__(self) -> None:
            self.hangs, self.goes_on = threading.Event(), threading.Event()

        def sync(self, file: int) -> None:
            self.hangs.set()
            assert self.goes_on.wait(DEADLINE)
            super().sync(file)

    async def scenario() -> None:
        files, engine = HangingFiles(), AwaitingEngine("x")
        started = State(tmp_path, Clock(), settings(SNAPSHOT__interval="1"), files)
        started.load(lambda: cast(Engine, engine))
        serving = asyncio.create_task(started.serve())
        while not files.hangs.is_set():
            await asyncio.sleep(0.01)
        serving.cancel()
        finishing = asyncio.create_task(started.finish())
        await asyncio.sleep(0)
        assert engine.told == []

        files.goes_on.set()

        assert await finishing
        assert engine.told == [True, True]
        assert started.status()["saved"] == 2
        started.close()

    asyncio.run(scenario())


def test_a_snapshot_that_hangs_is_a_problem(kept: Kept, hands: Hands) -> None:
    problems: list[str] = []

    class Asked(SlowFiles):
        def sync(self, file: int) -> None:
            for seconds in (59, 2):
                hands.seconds += seconds
                problems.extend(started.problems())

    started = kept.start(Asked(hands))
    started.save()

    (problem,) = problems
    assert "under way since 2020-09-13T12:43:20Z" in problem
    assert started.problems() == []


# ---- what is said ------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_said_once_and_again_when_it_is_not(
    kept: Kept, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = FaultyFiles()
    started = kept.start(files)
    assert started.save()
    caplog.clear()

    files.faults = {"write": errno.ENOSPC}
    for _ in range(5):
        assert not started.save()
        hands.seconds += 10
    files.faults = {"create": errno.EROFS}
    assert not started.save()

    assert started.problems() == [
        "state can't be saved since 2020-09-13T12:43:20Z: Read-only file system"
    ]
    assert started.status()["error"] == "Read-only file system"
    assert started.counters["snapshots_failed"] == 6
    assert len(caplog.records) == 2
    assert "No space left on device" in caplog.records[0].message

    files.faults.clear()
    assert started.save()

    assert "saved again" in caplog.records[2].message
    assert started.problems() == []
    assert started.status()["error"] is None
    assert started.counters["snapshots_saved"] == 2


def test_memory_that_runs_out_is_said_like_a_full_disk(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = kept.start()

    def save_head(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(kept.engine, "save_head", save_head)

    assert not started.save()
    assert started.status()["error"] == "memory ran out"


def test_a_defect_is_not_taken_for_a_full_disk(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    started = kept.start()

    def save_head(*_: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(kept.engine, "save_head", save_head)

    with pytest.raises(RuntimeError, match="a defect"):
        started.save()
    assert kept.engine.told == [False]


def test_a_last_time_that_fails_is_told(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    files = FaultyFiles()
    started = kept.start(files)
    files.faults = {"sync": errno.EIO}

    assert not asyncio.run(started.finish())

    assert "not saved once more" in caplog.text


def test_the_status_tells_of_the_last_one(kept: Kept, hands: Hands) -> None:
    first = kept.start()
    hands.seconds += 5
    first.save()
    path = kept.path / "snapshot-0000000000000001.collectord"
    expected = {
        "directory": str(kept.path),
        "last_time": round((hands.seconds + 1_600_000_000) * SECOND),
        "bytes": path.stat().st_size,
        "failed": 0,
        "error": None,
        "awaited": 0,
    }
    status = first.status()
    assert status.pop("seconds") >= 0
    assert status == {**expected, "saved": 1, "loaded_from": None}

    status = kept.start().status()

    assert status.pop("seconds") >= 0
    assert status == {**expected, "saved": 0, "loaded_from": str(path)}


def test_damaged_ones_are_counted(kept: Kept) -> None:
    kept.start().save()
    path = kept.path / "snapshot-0000000000000001.collectord"
    path.write_bytes(path.read_bytes()[:-1])

    assert kept.start().counters["snapshots_damaged"] == 1


# ---- who is awaited ----------------------------------------------------------------------------


def test_sources_are_awaited_until_all_are_back(
    kept: Kept, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept.start().save()
    kept.awaited = 2

    started = kept.start(DEFAULT__uve_proxy_lateness="2.5")

    assert started.awaited == started.status()["awaited"] == 2
    assert started.problems() == [], "it serves: nobody should start it anew for that"
    kept.engine.awaited = 1
    hands.seconds += 3
    started.settle()
    assert started.awaited == 1
    kept.engine.awaited = 0
    hands.seconds += 1
    started.settle()
    assert started.awaited == 0
    assert "all sources are back after 4.0 s" in caplog.text
    assert {quiet for _, quiet in kept.engine.settled} == {2_500_000}
    asked = len(kept.engine.settled)
    started.settle()
    assert len(kept.engine.settled) == asked


def test_after_the_grace_nobody_is_awaited(
    kept: Kept, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    kept.start().save()
    kept.awaited = 3
    started = kept.start(SNAPSHOT__grace="30")

    hands.seconds += 29.9
    started.settle()
    assert started.awaited == 3
    hands.seconds += 0.2
    started.settle()

    assert started.awaited == 0
    assert started.problems() == []
    assert "did not come back in 30.1 s: 3" in caplog.text


def test_a_last_time_while_sources_are_awaited_saves_nothing_and_is_no_failure(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept.start().save()
    started = kept.start()
    kept.engine.is_ready = False

    assert asyncio.run(started.finish())

    assert "still awaited" in caplog.text
    assert started.counters["snapshots_saved"] == 0
