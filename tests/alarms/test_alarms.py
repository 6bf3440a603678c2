"""The room itself, on a real engine: what happens between two looks, and while it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from alarms.test_registry import rule
from collectord import wire
from collectord.alarms import alarms as alarms_file
from collectord.alarms import registry
from collectord.alarms.alarms import Alarms
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.reader import RECORDS_AT_ONCE


class Room:
    """Alarms on an engine, looked at by hand."""

    def __init__(self, *rules: Any, **options: Any) -> None:
        self.engine = Engine(partitions=3)
        self.published: list[str] = []
        self.alarms = Alarms(
            self.engine,
            rules,
            clock=Clock(),
            limit=options.pop("limit", 1_000),
            publish=lambda topic, message: self.published.append(topic),
            **options,
        )

    def tell(self, key: str, attributes: Any, source: str = "h") -> None:
        batch = wire.encode_batch(source, [[key, "S", attributes]])
        assert self.engine.apply(batch, 1_600_000_000_000_000).applied == 1

    async def look(self, turns: int = 10) -> None:
        for _ in range(turns):
            await self.alarms._evaluate_what_waits()

    def raised(self) -> dict[str, list[str]]:
        found = self.alarms.registry.find(registry.EVERYTHING, "")
        return {key: [alarm["type"] for alarm in alarms] for key, alarms in found}


@pytest.fixture
def run() -> Iterator[Callable[[Any], Any]]:
    with asyncio.Runner() if hasattr(asyncio, "Runner") else _Loop() as runner:
        yield runner.run


class _Loop:
    """asyncio.Runner for Python 3.10."""

    def __enter__(self) -> _Loop:
        self._loop = asyncio.new_event_loop()
        return self

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


Run = Callable[[Any], Any]


def test_rules_that_change_while_a_uve_is_read_do_no_harm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(rule())
    run(room.look())
    for number in range(RECORDS_AT_ONCE + 1):  # so many sources that it is read on a thread
        room.tell("T:a", {"busy": 1}, source=f"h{number}")
    walk = room.alarms._reader.walk

    async def change_meanwhile(*arguments: Any) -> Any:
        found = await walk(*arguments)
        if "T:a" in arguments:
            room.alarms.take_on([rule("other")])
        return found

    monkeypatch.setattr(room.alarms._reader, "walk", change_meanwhile)
    run(room.look(1))
    assert room.raised() == {}
    assert room.alarms.structs("T:a") == {}


def test_a_sweep_that_is_begun_while_another_waits_for_keys_is_not_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(rule("first"))
    for number in range(3):
        room.tell(f"T:{number}", {"second": 1})
    run(room.look())
    walk = room.alarms._reader.walk
    changed: list[bool] = []

    async def change_meanwhile(*arguments: Any) -> Any:
        found = await walk(*arguments)
        if not changed:  # once
            changed.append(True)
            room.alarms.take_on([rule("second")])
        return found

    monkeypatch.setattr(room.alarms._reader, "walk", change_meanwhile)
    room.alarms.look_at_all()
    run(room.look())
    assert room.raised() == {f"T:{number}": ["second"] for number in range(3)}


def test_rules_that_are_the_same_leave_everything_as_it_is(run: Run) -> None:
    room = Room(rule())
    run(room.look())
    sweeps = room.alarms.counters["alarm_sweeps"]
    room.alarms.take_on([rule()], is_configured=False)
    assert room.alarms.counters["alarm_sweeps"] == sweeps
    room.alarms.take_on([rule()], is_configured=True)
    assert room.alarms.counters["alarm_sweeps"] == sweeps + 1


def test_a_uve_that_takes_long_is_evaluated_on_a_thread_from_then_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms_file, "SLOW", -1.0)
    room = Room(rule())
    walked: list[Sequence[Any]] = []
    walk = room.alarms._reader.walk

    async def walking(*arguments: Any) -> Any:
        walked.append(arguments)
        return await walk(*arguments)

    run(room.look())
    monkeypatch.setattr(room.alarms._reader, "walk", walking)
    for value in (1, 0, 1):
        room.tell("T:a", {"busy": value})
        run(room.look())
    assert [arguments[1] for arguments in walked] == ["T:a", "T:a"]
    assert room.raised() == {"T:a": ["busy"]}


def test_with_many_tables_nothing_is_missed(run: Run) -> None:
    rules = [rule(f"r{number}", table=f"T{number}") for number in range(alarms_file.PREFIXES + 1)]
    room = Room(*rules)
    assert room.alarms._prefixes == [""]
    run(room.look())
    room.tell("T7:a", {"r7": 1})
    room.tell("Another:a", {"r7": 1})
    run(room.look())
    assert room.raised() == {"T7:a": ["r7"]}


def test_what_changes_while_nobody_looks_waits_once_whoever_else_takes_changes() -> None:
    room = Room(rule())
    room.engine.watch(True)
    for value in range(50):
        room.tell("T:a", {"busy": value % 2})
        for partition in range(room.engine.partitions):
            room.engine.take_changed(partition)
    assert room.engine.observed_count() == 1
    assert room.alarms.status()["waiting"] == 1


def test_lost_changes_begin_a_sweep(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(rule())
    run(room.look())
    assert not room.alarms._has_lost_changes()
    counters = room.engine.counters()

    class Lossy:
        def __getattr__(self, name: str) -> Any:
            return getattr(room.engine, name)

        def counters(self) -> dict[str, int]:
            return {**counters, "observed_dropped": 1}

    monkeypatch.setattr(room.alarms, "_engine", Lossy())
    assert room.alarms._has_lost_changes()
    assert not room.alarms._has_lost_changes()


def test_what_was_found_is_bounded_in_bytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BYTES_EACH", 100)
    room = Room(rule(), limit=10)
    run(room.look())
    for number in range(10):
        room.tell(f"T:{number}", {"busy": 1})
    run(room.look())
    assert 0 < len(room.raised()) < 10
    assert room.alarms.counters["alarms_refused"] > 0
    for number in range(10):
        room.tell(f"T:{number}", {"busy": 0})
    run(room.look())
    assert room.alarms.registry.bytes == 0
