"""The publisher: what reaches a collector, through every way in which the way there can fail."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
import zmq

from collectord import wire
from collectord.client import (
    BufferFull,
    FlushTimeout,
    Publisher,
    PublishError,
    Rejection,
    StaleEpoch,
)
from fake_collector import FakeCollector
from publishing import (
    KEY,
    NOWHERE,
    PATIENCE,
    STRUCT,
    PublisherTo,
    publish,
    values,
)


class TestBatching:
    def test_a_batch_goes_out_when_it_holds_batch_records(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=10, batch_age=math.inf)

        publish(publisher, 25)

        collector.wait_for(lambda: len(collector.records) == 20)
        assert [len(batch["records"]) for batch in collector.received] == [10, 10]

    def test_a_batch_goes_out_before_it_holds_more_than_batch_bytes(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_bytes=1000, batch_age=math.inf)

        for _ in range(4):
            publisher.publish(KEY, STRUCT, {"text": "x" * 400})

        collector.wait_for(lambda: len(collector.records) == 2)

    def test_a_record_larger_than_batch_bytes_is_a_batch_of_its_own(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_bytes=10)

        publish(publisher, 2)
        publisher.flush(PATIENCE)

        assert [len(batch["records"]) for batch in collector.received] == [1, 1]

    def test_a_batch_goes_out_at_batch_age(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_age=0.01)

        publish(publisher, 1)

        collector.wait_for(lambda: values(collector) == [0])

    def test_batches_are_numbered_from_1_in_one_epoch(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=1, epoch=77)

        publish(publisher, 5)
        publisher.flush(PATIENCE)

        assert [(batch["epoch"], batch["seq"]) for batch in collector.received] == [
            (77, number) for number in range(1, 6)
        ]

    def test_a_batch_tells_source_time_and_aggtypes(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        aggtypes = {STRUCT: {"value": "sum"}}
        publisher = publisher_to(collector.address, aggtypes=aggtypes)

        publisher.publish(KEY, STRUCT, {"value": 1}, time=5)
        publisher.publish(KEY, STRUCT, None)
        publisher.flush(PATIENCE)

        [batch] = collector.received
        assert batch["source"] == "host"
        assert batch["aggtypes"] == aggtypes
        assert batch["time"] >= publisher.epoch
        assert batch["records"] == [[KEY, STRUCT, {"value": 1}, 5], [KEY, STRUCT, None]]

    def test_several_batches_are_on_their_way_before_the_first_is_answered(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.faults.extend(["lose_reply"] * 7)
        publisher = publisher_to(collector.address, batch_records=1, window=8)

        publish(publisher, 8)
        publisher.flush(PATIENCE)

        assert publisher.counters.sent == 8
        assert publisher.counters.unreported == 7

    def test_no_more_than_window_batches_are_on_their_way(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.silent = True
        publisher = publisher_to(collector.address, batch_records=1, window=3)

        publish(publisher, 9)
        collector.wait_for(lambda: len(collector.received) == 3 and publisher.counters.sent == 3)

        # A fourth would have gone out in the same turn as the third.
        assert len(collector.received) == 3

    def test_records_of_many_threads_all_arrive_once(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=7)
        threads = [
            threading.Thread(target=publish, args=(publisher, 500, 500 * number))
            for number in range(4)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        publisher.flush(PATIENCE)

        assert sorted(values(collector)) == list(range(2000))

    def test_publish_numbers_the_records_from_0(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address)

        assert [publisher.publish(KEY, STRUCT, {"value": 1}) for _ in range(3)] == [0, 1, 2]


def test_publishers_may_share_a_context(collector: FakeCollector) -> None:
    with zmq.Context() as context:
        first = Publisher("one", collector.address, context=context)
        first.close()
        with Publisher("two", collector.address, context=context) as second:
            publish(second, 1)

    assert values(collector) == [0]


class TestLosses:
    """Whatever gets lost on the way, each record is applied once, and in order."""

    @pytest.mark.parametrize("fault", ["lose", "lose_reply", "overloaded"])
    @pytest.mark.parametrize("when", [0, 3, 9], ids=["first", "middle", "last"])
    def test_one_batch_or_answer(
        self, collector: FakeCollector, publisher_to: PublisherTo, fault: str, when: int
    ) -> None:
        collector.faults.extend([""] * when + [fault])
        publisher = publisher_to(collector.address, batch_records=10, reply_timeout=0.2)

        publish(publisher, 100)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(100))
        assert publisher.counters.acknowledged == 100

    def test_many_in_a_row(self, collector: FakeCollector, publisher_to: PublisherTo) -> None:
        collector.faults.extend(["", "lose", "overloaded", "lose_reply", "overloaded"] * 3)
        publisher = publisher_to(collector.address, batch_records=10, reply_timeout=0.2)

        publish(publisher, 100)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(100))

    def test_a_silent_collector_is_tried_again_until_it_answers(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.silent = True
        publisher = publisher_to(collector.address, reply_timeout=0.05)
        publish(publisher, 1)
        collector.wait_for(lambda: len(collector.received) == 3)

        collector.silent = False
        publisher.flush(PATIENCE)

        assert values(collector) == [0]
        assert publisher.counters.timeouts >= 2
        assert publisher.counters.resent >= 2

    def test_a_collector_that_starts_late_gets_everything(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.stop()
        publisher = publisher_to(collector.address, batch_records=10)
        publish(publisher, 100)

        collector.start()
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(100))

    def test_a_lost_connection_is_noticed_without_waiting_for_an_answer(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.silent = True
        publisher = publisher_to(collector.address, reply_timeout=1000)
        publish(publisher, 1)
        collector.wait_for(lambda: len(collector.received) == 1)

        collector.stop()
        collector.silent = False
        collector.start()
        publisher.flush(PATIENCE)

        assert values(collector) == [0]
        assert publisher.counters.disconnects >= 1

    def test_a_collector_that_keeps_restarting_gets_each_record_once(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=10, window=4)

        for first in range(0, 1000, 100):
            publish(publisher, 100, first=first)
            collector.stop()
            collector.start()
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(1000))

    def test_overload_is_counted(self, collector: FakeCollector, publisher_to: PublisherTo) -> None:
        collector.faults.extend(["overloaded"] * 3)
        publisher = publisher_to(collector.address)

        publish(publisher, 1)
        publisher.flush(PATIENCE)

        assert publisher.counters.overloaded == 3


class TestRestartOfTheCollector:
    def test_one_that_lost_what_was_durable_gets_a_new_epoch_of_what_is_left(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        restarts: list[int] = []
        publisher = publisher_to(
            collector.address,
            batch_records=1,
            epoch=5,
            on_restart=restarts.append,
        )
        publish(publisher, 3)
        publisher.flush(PATIENCE, durable=True)
        collector.stop()
        collector.forget()
        collector.start()

        publish(publisher, 2, first=3)
        publisher.flush(PATIENCE)

        assert values(collector) == [3, 4]
        assert collector.epoch == publisher.epoch > 5
        assert restarts == [3]
        assert publisher.counters.restarts == 1
        assert publisher.counters.forgotten == 3

    def test_one_that_lost_some_of_it_does_too(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=1, epoch=5)
        publish(publisher, 5)
        publisher.flush(PATIENCE, durable=True)
        collector.last = 3

        publish(publisher, 1, first=5)
        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1, 2, 3, 4, 5]
        assert [batch["seq"] for batch in collector.received[5:]] == [6, 4, 5, 6]
        assert publisher.epoch == 5, "parts of the collector may know what is left by its numbers"
        assert publisher.counters.forgotten == 2

    def test_one_that_kept_everything_goes_on_in_the_same_epoch(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=1, epoch=5)
        publish(publisher, 3)
        publisher.flush(PATIENCE)
        collector.stop()
        collector.start()

        publish(publisher, 3, first=3)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(6))
        assert publisher.epoch == 5


class TestRefusals:
    def test_a_rejected_record_is_reported_with_its_number(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        reported: list[Rejection] = []
        collector.faults.extend(["", "reject"])
        publisher = publisher_to(
            collector.address, batch_records=2, epoch=1, on_rejected=reported.append
        )

        publish(publisher, 4)
        publisher.flush(PATIENCE)

        rejection = Rejection(
            number=2,
            records=1,
            seq=2,
            index=0,
            code="future",
            message="more than 60 s ahead",
            record=[KEY, STRUCT, {"value": 2}],
        )
        assert reported == [rejection] == publisher.rejections
        assert publisher.counters.rejected == 1
        assert publisher.counters.acknowledged == 4

    @pytest.mark.parametrize("code", ["malformed", "too_large"])
    def test_a_refused_batch_is_replaced_by_an_empty_one(
        self, collector: FakeCollector, publisher_to: PublisherTo, code: str
    ) -> None:
        collector.faults.extend(["", code])
        publisher = publisher_to(collector.address, batch_records=2, epoch=1)

        publish(publisher, 6)
        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1, 4, 5]
        assert collector.last == 3
        [rejection] = publisher.rejections
        assert (rejection.number, rejection.records, rejection.code) == (2, 2, code)
        assert publisher.counters.rejected == 2

    def test_a_refused_empty_batch_stops_the_publisher(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.faults.extend(["malformed"] * 2)
        publisher = publisher_to(collector.address)
        publish(publisher, 1)

        with pytest.raises(PublishError, match="even an empty batch"):
            publisher.flush(PATIENCE)

    def test_a_newer_run_of_the_source_stops_the_older(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        old = publisher_to(collector.address, epoch=1)
        new = publisher_to(collector.address, epoch=2)
        publish(new, 1)
        new.flush(PATIENCE)
        publish(old, 1)

        with pytest.raises(StaleEpoch, match="newer run"):
            old.flush(PATIENCE)
        with pytest.raises(StaleEpoch):
            publish(old, 1)

    @pytest.mark.parametrize(
        ("fault", "message"),
        [("unauthorised", "unauthorised: as told"), ("garbage", "doesn't answer as a collector")],
    )
    def test_what_will_not_get_better_stops_the_publisher(
        self, collector: FakeCollector, publisher_to: PublisherTo, fault: str, message: str
    ) -> None:
        collector.faults.append(fault)
        publisher = publisher_to(collector.address)
        publish(publisher, 1)

        with pytest.raises(PublishError, match=message):
            publisher.flush(PATIENCE)

    def test_what_a_callback_raises_stops_the_publisher(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        def fall(rejection: Rejection) -> None:
            raise KeyError(rejection.number)

        collector.faults.append("reject")
        publisher = publisher_to(collector.address, on_rejected=fall)
        publish(publisher, 1)

        with pytest.raises(PublishError, match=r"KeyError\(0\)"):
            publisher.flush(PATIENCE)


class TestFullBuffer:
    def test_raises_if_told_so(self, publisher_to: PublisherTo) -> None:
        publisher = publisher_to(NOWHERE, buffer_bytes=1000, when_full="raise")

        with pytest.raises(BufferFull, match="the bound is 1000"):
            publish(publisher, 1000)

        assert 0 < publisher.counters.published < 1000

    def test_raises_after_the_timeout(self, publisher_to: PublisherTo) -> None:
        publisher = publisher_to(NOWHERE, buffer_bytes=1)
        publish(publisher, 1)

        with pytest.raises(BufferFull):
            publisher.publish(KEY, STRUCT, {}, timeout=0.01)

    def test_blocks_until_there_is_room(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, buffer_bytes=1000, batch_records=5)

        publish(publisher, 500)
        publisher.flush(PATIENCE)

        assert values(collector) == list(range(500))

    def test_a_callback_is_not_blocked_by_its_own_publisher(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        full: list[BufferFull] = []

        def publish_again(rejection: Rejection) -> None:
            assert rejection.record is not None
            try:
                publisher.publish(*rejection.record)
            except BufferFull as error:
                full.append(error)

        collector.faults.append("reject")
        publisher = publisher_to(collector.address, buffer_bytes=1, on_rejected=publish_again)
        publish(publisher, 1)
        publisher.flush(PATIENCE)

        assert len(full) == 1


class TestClosing:
    def test_a_block_ends_when_everything_is_acknowledged(self, collector: FakeCollector) -> None:
        with Publisher("host", collector.address, batch_age=1000) as publisher:
            publish(publisher, 10)

        assert values(collector) == list(range(10))

    def test_flush_tells_what_is_missing_and_may_be_called_again(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.silent = True
        publisher = publisher_to(collector.address, reply_timeout=0.05)
        publish(publisher, 3)
        with pytest.raises(FlushTimeout, match="3 records were not acknowledged"):
            publisher.flush(timeout=0.01)

        collector.silent = False
        publisher.flush(PATIENCE)

        assert values(collector) == [0, 1, 2]

    def test_closing_without_a_collector_raises(self) -> None:
        publisher = Publisher("host", NOWHERE)
        publish(publisher, 1)

        with pytest.raises(FlushTimeout, match=NOWHERE):
            publisher.close(timeout=0.01)

    def test_a_closed_publisher_takes_nothing_and_may_be_closed_again(
        self, collector: FakeCollector
    ) -> None:
        publisher = Publisher("host", collector.address)
        publisher.close()
        publisher.close()

        with pytest.raises(PublishError, match="closed"):
            publish(publisher, 1)
        with pytest.raises(PublishError, match="closed"):
            publisher.flush()

    def test_closing_wakes_who_waits_for_room(self) -> None:
        publisher = Publisher("host", NOWHERE, buffer_bytes=1)
        publish(publisher, 1)
        raised = []

        def wait() -> None:
            try:
                publish(publisher, 1)
            except PublishError as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        with pytest.raises(FlushTimeout):
            publisher.close(timeout=0.01)
        thread.join(PATIENCE)

        assert len(raised) == 1

    def test_a_program_that_forgets_to_close_still_ends(self) -> None:
        program = (
            "from collectord.client import Publisher\n"
            f"Publisher('host', {NOWHERE!r}).publish({KEY!r}, {STRUCT!r}, {{}})\n"
        )

        assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


class TestWithoutAcknowledgement:
    def test_everything_arrives_without_numbers(self, collector: FakeCollector) -> None:
        with Publisher("host", collector.address, acknowledged=False) as publisher:
            publish(publisher, 5000)
        collector.wait_for(lambda: len(collector.records) == 5000)

        assert values(collector) == list(range(5000))
        assert not any("seq" in batch or "epoch" in batch for batch in collector.received)

    def test_closing_waits_until_everything_is_on_the_wire(self, collector: FakeCollector) -> None:
        with Publisher("host", collector.address, acknowledged=False) as publisher:
            for _ in range(20):
                publisher.publish(KEY, STRUCT, {"text": "x" * (1 << 20)})

        collector.wait_for(lambda: len(collector.records) == 20)

    @pytest.mark.parametrize("code", ["too_large", "malformed", "overloaded"])
    def test_a_refusal_that_is_told_harms_no_other_batch(
        self, collector: FakeCollector, publisher_to: PublisherTo, code: str
    ) -> None:
        collector.faults.append(code)
        publisher = publisher_to(collector.address, acknowledged=False, batch_records=1)

        publish(publisher, 3)
        publisher.flush(PATIENCE)
        collector.wait_for(lambda: len(collector.records) == 2)

        assert values(collector) == [1, 2]

    def test_it_waits_for_a_connection(self, collector: FakeCollector) -> None:
        collector.stop()
        with Publisher("host", collector.address, acknowledged=False) as publisher:
            publish(publisher, 10)
            collector.start()
            publisher.flush(PATIENCE)
        collector.wait_for(lambda: len(collector.records) == 10)


class TestAsyncio:
    def test_coroutines_publish_and_flush_without_blocking_the_loop(
        self, collector: FakeCollector
    ) -> None:
        async def main() -> None:
            async with Publisher(
                "host", collector.address, buffer_bytes=1000, batch_records=5
            ) as publisher:

                async def tell(first: int) -> None:
                    for value in range(first, first + 100):
                        await publisher.publish_async(KEY, STRUCT, {"value": value})

                await asyncio.gather(*(tell(100 * number) for number in range(5)))
                await publisher.flush_async(PATIENCE)

        asyncio.run(main())

        assert sorted(values(collector)) == list(range(500))

    def test_the_loop_goes_on_while_a_coroutine_waits_for_room(
        self, collector: FakeCollector
    ) -> None:
        async def main() -> None:
            collector.gate.clear()
            async with Publisher("host", collector.address, buffer_bytes=1) as publisher:
                await publisher.publish_async(KEY, STRUCT, {"value": 0})
                waiting = asyncio.ensure_future(publisher.publish_async(KEY, STRUCT, {"value": 1}))
                await asyncio.sleep(0)
                assert not waiting.done()
                collector.gate.set()
                assert await waiting == 1

        asyncio.run(main())

        assert values(collector) == [0, 1]

    def test_a_cancelled_publish_leaves_nothing_behind(self, publisher_to: PublisherTo) -> None:
        async def main() -> None:
            publisher = publisher_to(NOWHERE, buffer_bytes=1)
            await publisher.publish_async(KEY, STRUCT, {"value": 0})
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(publisher.publish_async(KEY, STRUCT, {"value": 1}), 0.01)
            assert publisher.counters.published == 1

        asyncio.run(main())

    def test_flush_async_raises_what_flush_does(self, publisher_to: PublisherTo) -> None:
        async def main() -> None:
            publisher = publisher_to(NOWHERE)
            await publisher.publish_async(KEY, STRUCT, {"value": 0})
            with pytest.raises(FlushTimeout):
                await publisher.flush_async(0.01)

        asyncio.run(main())


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


class TestWhatPublishRefuses:
    @pytest.mark.parametrize(
        ("record", "message"),
        [
            (("no table", STRUCT, {}), "is not <table>:<name>"),
            ((":name", STRUCT, {}), "is not <table>:<name>"),
            (("table:", STRUCT, {}), "is not <table>:<name>"),
            (("T:" + "x" * wire.KEY_BYTES, STRUCT, {}), "at most 1024 bytes"),
            (("T:" + "ü" * 600, STRUCT, {}), "more than 1024 bytes"),
            ((b"T:bytes", STRUCT, {}), "is not <table>:<name>"),
            (("T:\udc80", STRUCT, {}), "cannot be encoded"),
            ((KEY, "no-name", {}), "struct 'no-name' is not a name"),
            ((KEY, "", {}), "struct '' is not a name"),
            ((KEY, "line\n", {}), "is not a name"),
            ((KEY, "ü", {}), "is not a name"),
            ((KEY, "x" * 129, {}), "at most 128"),
            ((KEY, STRUCT, {"1st": 1}), "attribute '1st' is not a name"),
            ((KEY, STRUCT, {7: 1}), "attribute 7 is not a name"),
            ((KEY, STRUCT, {"a": object()}), "cannot be encoded"),
            ((KEY, STRUCT, {"a": 1 << 64}), "cannot be encoded"),
            ((KEY, STRUCT, {"a": nested(29)}), "nested deeper than 28"),
            ((KEY, STRUCT, {}, -1), "time -1 is not in microseconds"),
            ((KEY, STRUCT, {}, 1.5), "time 1.5 is not in microseconds"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_records(
        self, publisher_to: PublisherTo, record: tuple[Any, ...], message: str
    ) -> None:
        publisher = publisher_to(NOWHERE)

        with pytest.raises(ValueError, match=message):
            publisher.publish(*record)

        assert publisher.counters.published == 0

    @pytest.mark.parametrize(
        "record",
        [
            ("T:" + "x" * (wire.KEY_BYTES - 2), "x" * wire.NAME_BYTES, {}),
            ("T:a:b:ü", "_", {"_1": (1 << 64) - 1, "b": b"bytes", "c": None, "d": -(1 << 63)}),
            (KEY, STRUCT, {"a": nested(28)}, 0),
        ],
        ids=["longest", "values", "deepest"],
    )
    def test_records_at_their_limits_pass(
        self, collector: FakeCollector, publisher_to: PublisherTo, record: tuple[Any, ...]
    ) -> None:
        publisher = publisher_to(collector.address)

        publisher.publish(*record)
        publisher.flush(PATIENCE)

        assert collector.records == [list(record)]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"source": ""}, "source '' must have 1 to 256 bytes"),
            ({"source": "x" * 257}, "must have 1 to 256 bytes"),
            ({"address": "nonsense"}, "cannot connect to 'nonsense'.*write tcp://<host>:<port>"),
            ({"when_full": "explode"}, "when_full is 'block', 'raise' or 'drop_oldest'"),
            ({"window": 0}, "at least 1"),
            ({"heartbeat": 0}, "heartbeat is above 0"),
            ({"durable_timeout": -1}, "durable_timeout and spool_sync not below"),
            ({"spool": "here", "acknowledged": False}, "a spool needs acknowledgement"),
        ],
        ids=[
            "no-source",
            "long-source",
            "address",
            "when_full",
            "window",
            "heartbeat",
            "durable_timeout",
            "spool",
        ],
    )
    def test_settings(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Publisher(**{"source": "host", "address": NOWHERE, **settings})


def test_who_is_turned_away_at_once_comes_back_ever_later(publisher_to: PublisherTo) -> None:
    """As by a balancer without a collector behind it, or where a key is not known."""
    turned_away = 0
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def turn_away() -> None:
            nonlocal turned_away
            server.settimeout(0.1)
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    turned_away += 1

        thread = threading.Thread(target=turn_away)
        thread.start()
        try:
            publisher = publisher_to(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            publish(publisher, 1)
            with pytest.raises(FlushTimeout):
                publisher.flush(2)
        finally:
            done.set()
            thread.join()
    assert 1 < turned_away < 40
