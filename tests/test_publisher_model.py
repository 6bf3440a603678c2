"""The publisher against a model of a collector that crashes, and of one that is drawn at random.

The model has two partitions, each of which is saved at its own time and passes over what it has, as
those of the real one do: what is sent again must be the same, under the same numbers. In the end
every record must have been applied once, in order, seen from the state that is left.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from collectord import delivery, wire
from collectord.batch import Batch
from collectord.buffer import BATCH_COST, Buffer
from collectord.client import Publisher
from fake_collector import FakeCollector
from publishing import PATIENCE, SOURCE, publish

PARTITIONS = 2


class Partition:
    """The batches it has applied, and how far it had come when it was saved."""

    def __init__(self) -> None:
        self.last = 0
        self.values: list[int] = []
        self.saved = (0, 0)

    def apply(self, number: int, values: list[int]) -> None:
        if number > self.last:
            self.last = number
            self.values += values

    def save(self) -> None:
        self.saved = self.last, len(self.values)

    def crash(self) -> None:
        self.last, kept = self.saved
        del self.values[kept:]


class Partitions:
    """What a collector knows of one epoch of a source."""

    def __init__(self) -> None:
        self.all = [Partition() for _ in range(PARTITIONS)]

    @property
    def last(self) -> int:
        return min(partition.last for partition in self.all)

    @property
    def durable(self) -> int:
        return min(partition.saved[0] for partition in self.all)

    def apply(self, number: int, values: list[int]) -> None:
        for index, partition in enumerate(self.all):
            partition.apply(number, [value for value in values if value % PARTITIONS == index])

    def crash(self) -> None:
        for partition in self.all:
            partition.crash()

    def check(self, values: list[int]) -> None:
        for index, partition in enumerate(self.all):
            assert partition.values == [value for value in values if value % PARTITIONS == index]


class PartitionedCollector(FakeCollector):
    """One epoch; a batch is applied by each partition that does not have it."""

    def __init__(self) -> None:
        self.partitions = Partitions()
        self.run: int | None = None
        self.saved_run: int | None = None
        super().__init__()
        self.saves = False

    def save_partition(self, index: int) -> None:
        with self.changed:
            self.partitions.all[index].save()
            self.saved_run = self.run

    def save(self) -> None:
        for index in range(PARTITIONS):
            self.save_partition(index)

    def crash(self) -> None:
        with self.changed:
            self.partitions.crash()
            self.run = self.saved_run

    def tell_durable(self) -> None:
        if self.run is not None:
            self.push(self._applied(self.partitions.last, 0, duplicate=True))

    def _applied(self, number: int, applied: int, **more: Any) -> bytes:
        durable = self.partitions.durable
        return wire.encode({"seq": number, "applied": applied, "durable": durable, **more})

    def _apply(self, batch: dict[str, Any], fault: str) -> dict[str, Any]:
        number, values = batch["seq"], [row[2]["value"] for row in batch["records"]]
        assert batch["newest"] >= number or not values
        if fault == "overloaded":
            return {"error": {"code": fault, "message": "as told"}, "seq": number}
        if self.run != batch["epoch"] and number != 1:
            return {"resync": 0}
        assert self.run in (None, batch["epoch"]), "there is no reason for a new epoch"
        self.run = batch["epoch"]
        last = self.partitions.last
        if number > last + 1:
            return {"resync": last}
        if number <= last:
            answer = self._applied(number, 0, duplicate=True)
        else:
            self.partitions.apply(number, values)
            if self.saves:
                self.save()
            answer = self._applied(number, len(values))
        return dict(wire.decode(answer))


class World:
    """A publisher, its collector, and what was published."""

    def __init__(self, opened: ExitStack, *, spool: str | None) -> None:
        self.collector = opened.enter_context(PartitionedCollector())
        self.published = 0
        self._settings: dict[str, Any] = {"batch_records": 3, "batch_age": 0.005, "window": 4}
        self._settings |= {"reply_timeout": 0.1, "heartbeat": 0.05, "spool": spool}
        self._settings |= {"durable_timeout": math.inf}
        self.spooled = spool is not None
        self.publisher = self._start()
        opened.callback(self.end)

    def publish(self, count: int) -> None:
        publish(self.publisher, count, first=self.published)
        self.published += count

    def restart_publisher(self) -> None:
        if self.spooled:
            self.publisher._sender.stop()
            self.publisher = self._start()

    def restart_collector(self, *, crash: bool) -> None:
        self.collector.stop()
        if crash:
            self.collector.crash()
        self.collector.start()

    def end(self) -> None:
        self.publisher._sender.stop()

    def _start(self) -> Publisher:
        return Publisher(SOURCE, self.collector.address, **self._settings)


FAULTS = st.lists(st.sampled_from(["", "lose", "lose_reply", "overloaded"]), min_size=1, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 30)),
    st.tuples(st.just("publish"), st.integers(1, 30)),
    st.tuples(st.just("flush"), st.just(None)),
    st.tuples(st.just("faults"), FAULTS),
    st.tuples(st.just("save"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("tell"), st.just(None)),
    st.tuples(st.just("connection"), st.just(None)),
    st.tuples(st.just("crash"), st.just(None)),
    st.tuples(st.just("publisher"), st.just(None)),
)


@pytest.fixture(scope="module", autouse=True)
def _in_haste() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "RETURN_SPREAD", 0.01)
        patch.setattr(delivery, "GREETING_AFTER", 0.02)
        patch.setattr(delivery, "RECONNECT_MS", 5)
        patch.setattr(delivery, "FIRST_PAUSE", 0.002)
        yield


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(steps=st.lists(STEPS, min_size=4, max_size=15), spooled=st.booleans())
def test_over_sockets_every_record_is_applied_once(
    steps: list[tuple[str, Any]], spooled: bool
) -> None:
    with ExitStack() as opened:
        spool = opened.enter_context(tempfile.TemporaryDirectory()) if spooled else None
        world = World(opened, spool=spool)
        for step, detail in steps:
            take_step(world, step, detail)

        # From now on each batch that is applied is saved, and with it all before: also heartbeats.
        world.collector.faults.clear()
        world.collector.saves = True
        world.publisher.flush(PATIENCE, durable=True)

        world.collector.partitions.check(list(range(world.published)))


def take_step(world: World, step: str, detail: Any) -> None:
    match step:
        case "publish":
            world.publish(detail)
        case "flush":
            world.collector.faults.clear()
            world.publisher.flush(PATIENCE)
        case "faults":
            world.collector.faults.extend(detail)
        case "save":
            world.collector.save_partition(detail)
        case "tell":
            world.collector.tell_durable()
        case "connection":
            world.restart_collector(crash=False)
        case "crash":
            world.restart_collector(crash=True)
        case "publisher":
            world.restart_publisher()


class DroppingBuffer(RuleBasedStateMachine):
    """The buffer alone, with a bound that is always met: what it drops, it counts, and no number
    ever gets other records than it had."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer(2, 1000, math.inf, 4000, drops=True)
        self.partitions = Partitions()
        self.numbers: dict[int, list[int]] = {}
        self.on_the_way: list[tuple[int, list[int]]] = []
        self.count = itertools.count()

    @initialize(renumbers=st.booleans(), spooled=st.booleans())
    def begin(self, renumbers: bool, spooled: bool) -> None:
        self.buffer.renumbers = renumbers
        self.spool: dict[int, Batch] = {}
        if spooled:
            self.buffer.journal = []

    @rule(records=st.integers(1, 12))
    def put(self, records: int) -> None:
        for _ in range(records):
            taken = self.buffer.put(next(self.count).to_bytes(100, "big"))
            assert isinstance(taken, int)
        # A batch's own cost is counted when it is closed; without records there is always room.
        assert self.buffer.bytes <= self.buffer.bound + BATCH_COST or not self.holds_records()

    def holds_records(self) -> bool:
        return sum(bool(batch.body) for batch in self.buffer.kept()) > 1

    @rule()
    def beat(self) -> None:
        self.buffer.beat()

    @rule(window=st.integers(1, 8))
    def send(self, window: int) -> None:
        self.write_journal()
        while taken := self.buffer.take(window):
            number, batch = taken
            batch.attempts += 1
            values = [] if batch.emptied else decode(batch)
            before = self.numbers.setdefault(number, values)
            assert values in (before, []), "a number was given to other records"
            self.on_the_way.append((number, values))
            self.write_journal()

    @rule(lost=st.booleans())
    def arrive(self, lost: bool) -> None:
        for number, values in self.on_the_way:
            if lost or number > self.partitions.last + 1:
                break
            self.partitions.apply(number, values)
            if number > self.buffer.acknowledged:
                self.buffer.acknowledge(number)
        self.lose_connection()

    @rule(index=st.integers(0, PARTITIONS - 1))
    def save(self, index: int) -> None:
        self.partitions.all[index].save()

    @rule()
    def tell_durable(self) -> None:
        self.buffer.release(min(self.partitions.durable, self.buffer.acknowledged))

    @rule()
    def lose_connection(self) -> None:
        self.on_the_way.clear()
        self.buffer.rewind()

    @precondition(lambda self: self.partitions.durable >= self.buffer.released)
    @rule()
    def crash(self) -> None:
        self.lose_connection()
        self.partitions.crash()
        last = self.partitions.last
        if last > self.buffer.acknowledged:
            self.buffer.acknowledge(last)
        self.buffer.go_back(last)

    def write_journal(self) -> None:
        """As the spool does: afterwards the directory numbers what is there as the buffer does."""
        if self.buffer.journal is None:
            return
        written = set(self.spool)
        for entry in self.buffer.take_journal():
            if isinstance(entry, int):
                assert self.buffer.renumbers or entry not in written
                del self.spool[entry]
            else:
                self.spool[entry.index] = entry
                entry.spooled = True
        _, first = self.buffer.mark()
        there = [index for index in sorted(self.spool) if index >= first]
        assert there == [batch.index for batch in self.buffer.kept()]

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.buffer.silence()

    def finish(self) -> None:
        for _ in self.buffer.flushing():
            self.send(8)
            self.arrive(lost=False)
        arrived = sorted(value for part in self.partitions.all for value in part.values)
        assert len(set(arrived)) == len(arrived), "something was applied twice"
        for partition in self.partitions.all:
            assert partition.values == sorted(partition.values)
        counters = self.buffer.counters
        assert len(arrived) + counters.dropped >= counters.published
        assert counters.acknowledged + counters.dropped >= counters.published


def decode(batch: Batch) -> list[int]:
    return [
        int.from_bytes(batch.body[start : start + 100], "big")
        for start in range(0, len(batch.body), 100)
    ]


DroppingBuffer.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestDroppingBuffer = DroppingBuffer.TestCase
