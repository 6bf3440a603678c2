"""The publisher and a collector that crashes: what is kept, what is sent again, and how it paces.

Every batch is kept until it is durable; the buffer's bound, and what gives way to it, is here too.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator

import pytest

from collectord import delivery
from collectord.client import BufferFull, FlushTimeout, Publisher
from fake_collector import FakeCollector
from publishing import (
    KEY,
    NOWHERE,
    PATIENCE,
    STRUCT,
    PublisherTo,
    publish,
    publishers,
    values,
)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    """One that makes nothing durable until it is told to."""
    with FakeCollector() as running:
        running.saves = False
        yield running


@pytest.fixture
def publisher_to() -> Iterator[PublisherTo]:
    with publishers() as make:
        yield make


def crash(collector: FakeCollector) -> None:
    collector.stop()
    collector.crash()
    collector.start()


class TestUntilItIsDurable:
    def test_what_a_crash_undid_is_sent_again_under_the_same_numbers(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        restarts: list[int] = []
        publisher = publisher_to(
            collector.address, batch_records=1, epoch=5, on_restart=restarts.append
        )
        publish(publisher, 3)
        publisher.flush(PATIENCE)
        collector.save()
        publish(publisher, 3, first=3)
        publisher.flush(PATIENCE)

        crash(collector)
        publish(publisher, 1, first=6)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(7))
        assert (collector.epoch, collector.last) == (5, 7)
        assert restarts == []
        assert publisher.counters.returns == 1
        assert publisher.counters.acknowledged == 7

    def test_a_silent_publisher_does_so_too(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, epoch=5)
        publish(publisher, 3)
        publisher.flush(PATIENCE)

        crash(collector)

        collector.wait_for(lambda: values(collector) == [0, 1, 2])

    def test_after_a_crash_flush_waits_until_it_is_acknowledged_again(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, reply_timeout=0.2)
        publish(publisher, 3)
        publisher.flush(PATIENCE)
        collector.faults.extend(["", "lose"])
        crash(collector)
        collector.wait_for(lambda: publisher.counters.returns == 1)

        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1, 2]

    def test_flush_can_wait_for_it(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address)
        publish(publisher, 3)
        publisher.flush(PATIENCE)
        with pytest.raises(FlushTimeout, match="3 records were not durable at"):
            publisher.flush(0.01, durable=True)

        collector.save()
        collector.tell_durable()
        publisher.flush(PATIENCE, durable=True)

        assert publisher.counters.durable == 3

    def test_close_can_wait_for_it(self, collector: FakeCollector) -> None:
        publisher = Publisher("host", collector.address)
        publish(publisher, 3)

        with pytest.raises(FlushTimeout, match="not durable"):
            publisher.close(timeout=0.2, durable=True)

    def test_coroutines_can_wait_for_it(self, collector: FakeCollector) -> None:
        async def main() -> None:
            publisher = Publisher("host", collector.address)
            await publisher.publish_async(KEY, STRUCT, {"value": 0})
            with pytest.raises(FlushTimeout, match="not durable"):
                await publisher.flush_async(0.2, durable=True)
            collector.saves = True
            await publisher.publish_async(KEY, STRUCT, {"value": 1})
            await publisher.close_async(PATIENCE, durable=True)

        asyncio.run(main())

        assert values(collector) == [0, 1]

    def test_durable_beyond_what_was_sent_is_not_believed(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=1, epoch=5)
        publish(publisher, 1)
        publisher.flush(PATIENCE)
        collector.last, collector.durable = 9, 9

        collector.tell_durable()
        collector.last = 1
        publish(publisher, 1, first=1)
        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1]
        assert publisher.counters.durable == 0

    def test_a_record_that_is_refused_again_is_reported_once(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.faults.append("reject")
        publisher = publisher_to(collector.address)
        publish(publisher, 2)
        publisher.flush(PATIENCE)

        collector.faults.append("reject")
        crash(collector)
        publish(publisher, 1, first=2)
        publisher.flush(PATIENCE)

        assert publisher.counters.rejected == 1
        assert publisher.counters.unreported == 0

    def test_each_batch_tells_how_far_the_source_has_come(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.stop()
        publisher = publisher_to(collector.address, batch_records=1)
        publish(publisher, 5)

        collector.start()
        publisher.flush(PATIENCE)

        assert [batch["newest"] for batch in collector.received] == [5] * 5

    def test_a_source_whose_records_were_removed_is_told_to_tell_everything(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        restarts: list[int] = []
        publisher = publisher_to(collector.address, on_restart=restarts.append)
        collector.expired = 2

        publish(publisher, 2)
        publisher.flush(PATIENCE)
        publish(publisher, 1, first=2)
        publisher.flush(PATIENCE)

        assert restarts == [0]
        assert publisher.counters.expired == 1
        assert publisher.counters.restarts == 0


class TestHeartbeats:
    def test_a_silent_source_sends_numbered_empty_batches(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, heartbeat=0.02)

        collector.wait_for(lambda: len(collector.received) >= 3)

        assert [batch["seq"] for batch in collector.received[:3]] == [1, 2, 3]
        assert not any(batch["records"] for batch in collector.received)
        assert publisher.counters.heartbeats >= 3
        assert publisher.counters.published == publisher.counters.acknowledged == 0

    def test_a_source_without_numbers_does_so_too(self, collector: FakeCollector) -> None:
        with Publisher("host", collector.address, acknowledged=False, heartbeat=0.02):
            collector.wait_for(lambda: len(collector.received) >= 3)

        assert not any("seq" in batch for batch in collector.received)

    def test_a_new_connection_is_greeted_long_before_the_first_heartbeat(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, heartbeat=1000)
        collector.wait_for(lambda: collector.last == 1)
        publish(publisher, 1)
        publisher.flush(PATIENCE)  # nothing is left that the new connection would get anyway

        collector.stop()
        collector.start()

        collector.wait_for(lambda: collector.last == 3)
        assert collector.sizes == [1]

    def test_an_empty_batch_that_was_not_answered_greets_the_next_connection(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.faults.append("lose_reply")
        publisher = publisher_to(collector.address, heartbeat=1000)
        collector.wait_for(lambda: collector.last == 1)

        collector.stop()
        collector.start()

        collector.wait_for(lambda: len(collector.received) == 2)
        assert [batch["seq"] for batch in collector.received] == [1, 1]
        assert publisher.counters.heartbeats == 1

    def test_one_that_became_due_just_after_it_was_looked_at_is_sent_at_once(
        self,
        collector: FakeCollector,
        publisher_to: PublisherTo,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        look = delivery.Sender._send_window

        def look_and_be_held_up(sender: delivery.Sender) -> bool:
            blocked = look(sender)
            ahead = sender._beat_due - time.monotonic()
            if 0 < ahead < 2:
                time.sleep(ahead)
            return blocked

        monkeypatch.setattr(delivery.Sender, "_send_window", look_and_be_held_up)
        publisher_to(collector.address, heartbeat=1000)
        collector.wait_for(lambda: len(collector.received) == 1)

        collector.stop()
        collector.start()

        collector.wait_for(lambda: len(collector.received) == 2)

    def test_none_are_made_while_there_is_no_connection(self, publisher_to: PublisherTo) -> None:
        publisher = publisher_to(NOWHERE, heartbeat=0.001)

        publisher.flush(PATIENCE)
        time.sleep(delivery.GREETING_AFTER + 0.2)  # it is about what doesn't happen

        assert publisher.counters.heartbeats == 0

    def test_those_that_are_not_durable_are_let_go_where_room_is_needed(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, heartbeat=0.001, buffer_bytes=2000, durable_timeout=0.05
        )
        collector.wait_for(lambda: collector.last >= 20)

        publish(publisher, 1)
        publisher.flush(PATIENCE)

        assert values(collector) == [0]
        assert publisher.counters.unprotected == 0


class TestFullOfWhatIsNotDurable:
    SMALL = 3000

    def test_it_blocks_until_something_becomes_durable(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            buffer_bytes=self.SMALL,
            durable_timeout=math.inf,
        )
        with pytest.raises(BufferFull, match="make them durable"):
            publish(publisher, 1000, timeout=0.2)
        taken = publisher.counters.published
        publisher.flush(PATIENCE)

        collector.save()
        collector.tell_durable()
        publish(publisher, 1, first=taken)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(taken + 1))
        assert publisher.counters.unprotected == 0

    def test_a_collector_that_saves_nothing_holds_it_up_once(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=self.SMALL, durable_timeout=0.2
        )

        started = time.monotonic()
        publish(publisher, 200)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(200))
        assert publisher.counters.unprotected > 150
        assert time.monotonic() - started >= 0.2

    def test_none_may_be_let_go_while_the_collector_is_away(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            buffer_bytes=self.SMALL,
            when_full="raise",
            durable_timeout=0.2,
        )
        publish(publisher, 5)
        publisher.flush(PATIENCE)
        collector.stop()
        collector.wait_for(lambda: publisher.counters.disconnects >= 1)

        with pytest.raises(BufferFull):
            publish(publisher, 1000, first=5)
        time.sleep(0.3)  # longer than durable_timeout
        with pytest.raises(BufferFull):
            publish(publisher, 1, first=publisher.counters.published)

        taken = publisher.counters.published
        collector.crash()
        collector.start()
        publisher.flush(PATIENCE)
        assert values(collector) == list(range(taken))
        assert publisher.counters.unprotected == 0

    def test_what_becomes_durable_ends_it(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=self.SMALL, durable_timeout=0
        )
        publish(publisher, 50)
        publisher.flush(PATIENCE)
        unprotected = publisher.counters.unprotected
        assert unprotected > 0

        collector.saves = True
        publish(publisher, 50, first=50)
        publisher.flush(PATIENCE, durable=True)

        assert values(collector) == list(range(100))
        assert publisher.counters.unprotected < unprotected + 50

    def test_flush_for_durable_is_not_deceived_by_what_was_let_go(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=self.SMALL, durable_timeout=0
        )
        publish(publisher, 50)
        publisher.flush(PATIENCE)

        with pytest.raises(FlushTimeout, match="50 records were not durable"):
            publisher.flush(0.01, durable=True)

        collector.save()
        collector.tell_durable()
        publisher.flush(PATIENCE, durable=True)

    def test_a_crash_of_the_collector_is_told_with_what_was_let_go(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        restarts: list[int] = []
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            buffer_bytes=self.SMALL,
            durable_timeout=0,
            on_restart=restarts.append,
        )
        publish(publisher, 50)
        publisher.flush(PATIENCE)
        let_go = publisher.counters.unprotected

        crash(collector)
        collector.wait_for(lambda: bool(restarts))
        publisher.flush(PATIENCE)

        assert restarts == [let_go] == [publisher.counters.forgotten]
        assert values(collector) == list(range(let_go, 50))


class TestDroppingTheOldest:
    def test_of_what_was_never_sent(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.stop()
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=4000, when_full="drop_oldest"
        )
        publish(publisher, 1000)
        dropped = publisher.counters.dropped

        collector.start()
        publisher.flush(PATIENCE)

        assert 0 < dropped < 1000
        assert values(collector) == list(range(dropped, 1000))
        assert publisher.counters.dropped == dropped
        assert collector.last == 1000 - dropped

    def test_acknowledged_batches_go_first(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=4000, when_full="drop_oldest"
        )
        publish(publisher, 8)
        publisher.flush(PATIENCE)
        collector.stop()
        collector.wait_for(lambda: publisher.counters.disconnects >= 1)

        publish(publisher, 8, first=8)

        assert publisher.counters.unprotected > 0
        assert publisher.counters.dropped == 0
        collector.start()
        publisher.flush(PATIENCE)
        assert values(collector) == list(range(16))

    def test_what_was_sent_keeps_its_number(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.silent = True
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            buffer_bytes=4000,
            when_full="drop_oldest",
            window=4,
        )
        publish(publisher, 6)
        collector.wait_for(lambda: len(collector.received) == 4)
        collector.stop()
        collector.wait_for(lambda: publisher.counters.disconnects >= 1)
        publish(publisher, 100, first=6)
        sent_before = {batch["seq"]: batch["records"] for batch in collector.received}

        collector.silent = False
        collector.start()
        publisher.flush(PATIENCE)

        for batch in collector.received[4:]:
            assert batch["records"] in ([], sent_before.get(batch["seq"], batch["records"]))
        assert values(collector) == list(range(publisher.counters.dropped, 106))

    def test_it_never_holds_anybody_up_even_in_a_tiny_buffer(
        self, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(NOWHERE, buffer_bytes=1, when_full="drop_oldest")

        publish(publisher, 100)

        assert publisher.counters.dropped == 99

    def test_without_acknowledgement(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.stop()
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            buffer_bytes=4000,
            when_full="drop_oldest",
            acknowledged=False,
        )
        publish(publisher, 1000)

        collector.start()
        publisher.flush(PATIENCE)

        dropped = publisher.counters.dropped
        collector.wait_for(lambda: values(collector) == list(range(dropped, 1000)))


class TestPace:
    def test_after_a_new_beginning_the_window_opens_by_and_by(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=1, window=8)
        publish(publisher, 20)
        publisher.flush(PATIENCE)
        collector.stop()
        collector.crash()
        already = len(collector.received)
        collector.faults.extend(["", "", "", *["lose_reply"] * 4])

        # The greeting learns of the crash, and the first batch alone is sent. Its answer lets two
        # go, the first answer of those makes it four, and no answer comes to these.
        collector.start()
        collector.wait_for(lambda: publisher.counters.returns == 1)
        collector.wait_for(lambda: len(collector.received) == already + 7)

        numbers = [batch["seq"] for batch in collector.received[already:]]
        assert numbers == [21, 1, 2, 3, 4, 5, 6]
        assert len(collector.received) == already + 7

    def test_publishers_that_lost_a_collector_come_back_at_different_times(
        self, collector: FakeCollector, publisher_to: PublisherTo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spreads: list[float] = []
        start_over = delivery.Sender._start_over

        def noted(sender: delivery.Sender, spread: float = 0.0) -> None:
            spreads.append(spread)
            start_over(sender, spread)

        monkeypatch.setattr(delivery.Sender, "_start_over", noted)
        publisher = publisher_to(collector.address)
        publish(publisher, 1)
        publisher.flush(PATIENCE)

        collector.stop()
        collector.start()
        publish(publisher, 1, first=1)
        publisher.flush(PATIENCE)

        assert spreads == [delivery.RETURN_SPREAD]


class TestLongAbsence:
    def test_nothing_spins_and_nothing_grows(self, publisher_to: PublisherTo) -> None:
        publisher = publisher_to(NOWHERE, batch_records=1, buffer_bytes=4000, heartbeat=0.01)
        with pytest.raises(BufferFull):
            publish(publisher, 1000, timeout=0.01)

        turns = count_turns(publisher, seconds=1.0)

        assert turns < 20
        assert publisher.counters.sent == 0


def count_turns(publisher: Publisher, seconds: float) -> int:
    """How often its thread wakes up in that time."""
    turns = 0
    turn = publisher._sender._turn

    def counted() -> None:
        nonlocal turns
        turns += 1
        turn()

    publisher._sender._turn = counted  # type: ignore[method-assign]
    threading.Event().wait(seconds)
    return turns
