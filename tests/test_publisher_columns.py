"""Many records of one UVE at once: ``publish_columns`` is ``publish`` again and again."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from collectord.client import BufferFull, Publisher, PublishError
from collectord.columns import encode_columns
from collectord.encoding import encode_record
from daemon import HISTORY, METRIC, Daemon, new_key, new_source
from fake_collector import FakeCollector
from publishing import KEY, NOWHERE, PATIENCE, STRUCT, PublisherTo

TIMES = np.arange(5) * 1_000_000


def item(value: Any, place: int) -> Any:
    """The record's own part of what may hold columns."""
    if isinstance(value, np.ndarray):
        return value[place].item()
    if isinstance(value, dict):
        return {name: item(each, place) for name, each in value.items()}
    if isinstance(value, list):
        return [item(each, place) for each in value]
    return value


class TestEncoding:
    @pytest.mark.parametrize(
        "column",
        [
            pytest.param(np.array([0, -1, 1, low, high], dtype), id=dtype)
            for dtype in ("i1", "i2", "i4", "i8")
            for low, high in [(np.iinfo(dtype).min, np.iinfo(dtype).max)]
        ]
        + [
            pytest.param(np.array([0, 1, 2, 127, np.iinfo(dtype).max], dtype), id=dtype)
            for dtype in ("u1", "u2", "u4", "u8")
        ]
        + [
            pytest.param(np.array([0.0, -0.0, 1.5, -1e30, 1e-30], dtype), id=dtype)
            for dtype in ("f4", "f8", ">f8")
        ]
        + [pytest.param(np.array([True, False, False, True, True]), id="bool")]
        + [pytest.param(np.arange(10)[::2], id="every other item")],
    )
    def test_each_record_has_its_item_of_a_column(self, column: np.ndarray[Any, Any]) -> None:
        rows = encode_columns(KEY, STRUCT, {"value": column}, TIMES).rows(0, len(TIMES))

        assert [msgpack.unpackb(row.tobytes()) for row in rows] == [
            [KEY, STRUCT, {"value": value}, time]
            for value, time in zip(column.tolist(), TIMES.tolist(), strict=True)
        ]

    LEAVES = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=40)
        | st.binary(max_size=40)
        | arrays.arrays(
            arrays.scalar_dtypes().filter(lambda dtype: dtype.str[1:] in ("f8", "i8", "u2", "b1")),
            len(TIMES),
        ).filter(lambda column: column.dtype.kind != "f" or not np.isnan(column).any())
    )

    @given(
        st.dictionaries(
            st.from_regex("[a-z]{1,9}", fullmatch=True),
            st.recursive(
                LEAVES,
                lambda inner: (
                    st.lists(inner, max_size=20)
                    | st.dictionaries(st.text(max_size=9), inner, max_size=20)
                ),
                max_leaves=20,
            ),
        )
    )
    def test_they_are_what_publish_makes_of_each(self, attributes: dict[str, Any]) -> None:
        rows = encode_columns(KEY, STRUCT, attributes, TIMES).rows(0, len(TIMES))

        for place, row in enumerate(rows):
            alone = encode_record(KEY, STRUCT, item(attributes, place), int(TIMES[place]))
            assert msgpack.unpackb(row.tobytes()) == msgpack.unpackb(alone)

    def test_no_times_are_no_records(self) -> None:
        assert encode_columns(KEY, STRUCT, {"value": np.array([])}, TIMES[:0]).records == 0

    def test_some_of_them_can_be_had_alone(self) -> None:
        columns = encode_columns(KEY, STRUCT, {"value": TIMES}, TIMES)
        parts = [columns.rows(first, first + 2) for first in range(0, 5, 2)]
        assert [len(part) for part in parts] == [2, 2, 1]
        assert np.array_equal(np.concatenate(parts), columns.rows(0, 5))

    @pytest.mark.parametrize(
        ("attributes", "times", "complaint"),
        [
            ({"value": np.arange(4)}, TIMES, r"an array has the shape \(4,\), the times 5"),
            ({"value": [np.zeros((5, 2))]}, TIMES, r"an array has the shape \(5, 2\)"),
            ({"value": np.array(["a"] * 5)}, TIMES, "type <U1, not one of numbers"),
            ({"value": np.zeros(5, "c16")}, TIMES, "type complex128, not one of numbers"),
            ({"value": np.zeros(5, "M8[s]")}, TIMES, "not one of numbers"),
            ({"value": object()}, TIMES, "cannot be encoded"),
            ({"value": {"x": 2**64}}, TIMES, "cannot be encoded"),
            ({}, TIMES - 1, "times are a list of integers"),
            ({}, TIMES / 2, "times are a list of integers"),
            ({}, TIMES.reshape(5, 1), "times are a list of integers"),
            ({"no name": 1}, TIMES, "attribute 'no name' is not a name"),
            (None, TIMES, "attributes None are not a map"),
        ],
    )
    def test_what_cannot_be_is_refused(self, attributes: Any, times: Any, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            encode_columns(KEY, STRUCT, attributes, times)


class TestPublishing:
    def test_records_arrive_in_order_in_batches_that_are_not_too_large(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_records=10)
        times = np.arange(25)

        publisher.publish(KEY, STRUCT, {"value": -1}, 0)
        first = publisher.publish_columns(KEY, STRUCT, {"value": times}, times)
        publisher.flush(PATIENCE)

        assert first == 1
        assert [
            record[2]["value"] for batch in collector.received for record in batch["records"]
        ] == [
            -1,
            *range(25),
        ]
        assert [len(batch["records"]) for batch in collector.received] == [1, 10, 10, 5]
        assert publisher.counters.published == publisher.counters.acknowledged == 26

    def test_batches_are_bounded_by_bytes_too(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(collector.address, batch_bytes=1000)

        publisher.publish_columns(KEY, STRUCT, {"value": TIMES, "text": "x" * 400}, TIMES)
        publisher.flush(PATIENCE)

        assert [len(batch["records"]) for batch in collector.received] == [2, 2, 1]

    def test_a_rejection_names_the_record(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        collector.faults.extend(["", "reject"])
        publisher = publisher_to(collector.address, batch_records=3)

        first = publisher.publish_columns(KEY, STRUCT, {"value": np.arange(5)}, TIMES)
        publisher.flush(PATIENCE)

        [rejection] = publisher.rejections
        assert rejection.number == first + 3
        assert rejection.record == [KEY, STRUCT, {"value": 3}, 3_000_000]

    def test_who_may_not_wait_is_told_when_the_buffer_is_full(
        self, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(NOWHERE, buffer_bytes=500, when_full="raise", batch_records=1)

        with pytest.raises(BufferFull):
            publisher.publish_columns(KEY, STRUCT, {"value": np.arange(50)}, np.arange(50))

        assert 0 < publisher.counters.published < 50

    def test_who_waits_is_woken_by_the_end(self, publisher_to: PublisherTo) -> None:
        publisher = publisher_to(NOWHERE, buffer_bytes=500, batch_records=1)

        async def both() -> None:
            waiting = asyncio.create_task(
                asyncio.to_thread(
                    publisher.publish_columns,
                    KEY,
                    STRUCT,
                    {"value": np.arange(50)},
                    np.arange(50),
                )
            )
            while not publisher.counters.published:
                await asyncio.sleep(0)
            with pytest.raises(PublishError):
                await publisher.close_async(timeout=0)
            with pytest.raises(PublishError, match="closed"):
                await waiting

        asyncio.run(both())

    def test_a_coroutine_can_publish_them(
        self, collector: FakeCollector, publisher_to: PublisherTo
    ) -> None:
        publisher = publisher_to(
            collector.address, batch_records=1, buffer_bytes=500, durable_timeout=0
        )

        async def publish() -> None:
            await publisher.publish_columns_async(
                KEY, STRUCT, {"value": np.arange(50)}, np.arange(50)
            )
            await publisher.flush_async(PATIENCE)

        asyncio.run(publish())

        assert [record[2]["value"] for record in collector.records] == list(range(50))


def test_a_collector_takes_them_as_samples() -> None:
    key = new_key()
    flows = np.arange(120, dtype=np.float64)
    with (
        Daemon() as daemon,
        Publisher(new_source(), daemon.ingest, heartbeat=math.inf) as publisher,
    ):
        publisher.publish_columns(
            key, STRUCT, {"egress_flow_count": flows}, HISTORY + np.arange(120) * 1_000_000
        )
        publisher.flush(PATIENCE)
        publisher.publish(key, STRUCT, {"egress_flow_count": 7}, HISTORY + 9 * 60_000_000)
        publisher.flush(PATIENCE)

        shown = daemon.uve(key)[f"AggProxySum-{METRIC}"]["value"]
        assert shown == {"value": sum(range(60, 120)), "staging": 7}
