"""The stream of a running collector: what changed, the newest value of it, to who subscribed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from daemon import HISTORY, METRIC, PERIOD, STRUCT, Daemon, Source, new_key, until

SUM, EWM = f"AggProxySum-{METRIC}", f"AggProxySumAnomalyEWM01-{METRIC}"
FLOWS = "egress_flow_count"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon("--DEFAULT.uve_proxy_lateness=0.2") as daemon:
        yield daemon


@pytest.fixture
def source(daemon: Daemon) -> Iterator[Source]:
    with daemon.source() as source:
        yield source


def of(struct: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["struct"] == struct


def test_a_struct_that_changed_is_published(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {"a": 1}])

        assert stream.next() == {"key": key, "struct": STRUCT, "value": {"a": 1}}


def test_each_struct_is_published_alone(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {"a": 1}], [key, "ContrailConfig", {"b": 2}])

        messages = [stream.next(), stream.next()]

    assert sorted(messages, key=lambda message: message["struct"]) == [
        {"key": key, "struct": "ContrailConfig", "value": {"b": 2}},
        {"key": key, "struct": STRUCT, "value": {"a": 1}},
    ]


def test_the_value_is_merged_from_all_sources(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"n": 1, "b": True}], aggtypes={STRUCT: {"n": "sum"}})
    with daemon.subscribe(key) as stream, daemon.source() as other:
        other.tell([key, STRUCT, {"n": 2}])

        assert stream.next()["value"] == {"n": 3, "b": True}


def test_a_struct_that_no_source_has_any_more_is_deleted(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, None])

        assert stream.next() == {"key": key, "struct": STRUCT, "deleted": True}


def test_a_struct_goes_on_while_another_source_has_it(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])
    with daemon.source() as other, daemon.subscribe(key) as stream:
        other.tell([key, STRUCT, {"a": 2}])
        stream.next()

        source.tell([key, STRUCT, None])

        assert stream.next() == {"key": key, "struct": STRUCT, "value": {"a": 2}}


def test_a_topic_is_the_beginning_of_keys(daemon: Daemon, source: Source) -> None:
    table = new_key("ObjectPrefixTable")
    inside, outside = f"{table}:a", new_key()
    with daemon.subscribe(table) as stream:
        source.tell([outside, STRUCT, {"a": 1}], [inside, STRUCT, {"a": 2}])
        source.tell([outside, STRUCT, {"a": 3}])
        source.tell([f"{table}:z", STRUCT, {"a": 4}])

        keys = {stream.next()["key"], stream.next()["key"]}

    assert keys == {inside, f"{table}:z"}


def test_the_empty_topic_is_all_keys(daemon: Daemon, source: Source) -> None:
    keys = {new_key(table) for table in ("A", "B", "C")}
    with daemon.subscribe("") as stream:
        source.tell(*([key, STRUCT, {"a": 1}] for key in keys))

        assert {stream.next()["key"] for _ in keys} == keys


def test_all_subscribers_are_told(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.subscribe(key) as one, daemon.subscribe(key[:-1]) as two:
        source.tell([key, STRUCT, {"a": 1}])

        assert one.next() == two.next()


def test_what_changed_before_the_subscription_is_not_told(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])

    with daemon.subscribe(key) as stream:
        assert stream.poll(timeout=0.3) is None


def test_a_refused_record_is_no_change(daemon: Daemon, source: Source) -> None:
    key = new_key()
    source.tell([key, STRUCT, {"a": 1}])
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {FLOWS: float("nan"), "a": 2}])

        assert stream.poll(timeout=0.3) is None


def test_one_struct_is_told_ten_times_a_second_at_most_and_ends_with_its_newest_value(
    daemon: Daemon, source: Source
) -> None:
    key, values = new_key(), []
    began = daemon.ask("status")["time"]
    with daemon.subscribe(key) as stream:
        for number in itertools.count(1):
            source.tell([key, STRUCT, {"a": number}])
            while message := stream.poll(timeout=0):
                values.append(message["value"]["a"])
            if len(values) == 5:
                break
        source.tell([key, STRUCT, {"a": "last"}])
        while values[-1] != "last":
            values.append(stream.next()["value"]["a"])
    seconds = (daemon.ask("status")["time"] - began) / 1_000_000

    numbers = values[: values.index("last")]
    assert numbers == sorted(set(numbers))
    assert number > 2 * len(numbers)
    assert len(values) <= seconds * 10 + 1


def test_a_sample_changes_its_proxy_uves(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {FLOWS: 5}])

        messages = {message["struct"]: message for message in (stream.next() for _ in range(3))}

    assert messages[SUM]["value"] == {"proxy": METRIC, "deleted": False, "value": {"staging": 5}}
    assert messages[EWM]["value"] == {"proxy": METRIC, "deleted": False}


def test_a_closed_period_is_told(daemon: Daemon, source: Source) -> None:
    key = new_key()
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {FLOWS: 5}], time=HISTORY)

        message = stream.until(
            lambda message: of(SUM)(message) and "value" in message["value"].get("value", {})
        )

    assert message["value"] == {"proxy": METRIC, "deleted": False, "value": {"value": 5}}


def test_a_proxy_uve_whose_samples_end_for_a_period_is_deleted_and_begins_anew(
    daemon: Daemon, source: Source
) -> None:
    key = new_key()
    with daemon.subscribe(key) as stream:
        source.tell(*([key, STRUCT, {FLOWS: 5}, HISTORY + step * PERIOD] for step in range(11)))
        first = stream.until(
            lambda message: of(EWM)(message) and "value" in message.get("value", {})
        )
        assert first["value"]["value"]["samples"] in (10, 11)

        source.tell([key, STRUCT, {FLOWS: 7}, HISTORY + 20 * PERIOD])

        # It is there again at once, for the later sample: what is told is that it has no value.
        again = stream.until(lambda message: of(EWM)(message) and "value" not in message["value"])
        stream.until(
            lambda message: of(SUM)(message) and message["value"].get("value") == {"value": 7}
        )

    assert again["value"] == {"proxy": METRIC, "deleted": False}
    assert daemon.uve(key)[SUM]["value"] == {"value": 7}
    assert daemon.counter("proxies_deleted") > 0


def test_a_quiet_step_is_not_told_though_a_query_sees_it(daemon: Daemon, source: Source) -> None:
    key, steps = new_key(), 100

    def samples() -> Any:
        return daemon.uve(key)[EWM].get("value", {}).get("samples")

    # The same sum again and again: each step lies closer to the mean than the one before.
    source.tell(*([key, STRUCT, {FLOWS: 5}, HISTORY + step * PERIOD] for step in range(steps)))
    until(lambda: samples() == steps)
    with daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {FLOWS: 5}, HISTORY + steps * PERIOD])
        until(lambda: samples() == steps + 1)

        source.tell([key, "End", {"a": 1}])
        told = [stream.next()]
        while told[-1]["struct"] != "End":
            told.append(stream.next())

        # The attribute has the value it had: its struct has not changed, but the sum has.
        assert {message["struct"] for message in told} == {SUM, "End"}


def test_subscriptions_are_counted_and_end(daemon: Daemon) -> None:
    topics = [new_key() for _ in range(3)]
    before = daemon.counter("subscriptions")
    with daemon.subscribe(topics[0]), daemon.subscribe(topics[1]), daemon.subscribe(topics[2]):
        assert daemon.counter("subscriptions") == before + 3


def test_a_subscriber_that_does_not_read_slows_nobody_and_fills_no_memory() -> None:
    """Of 500 MiB, the one that reads gets all, and little waits for the one that doesn't."""
    keys, size, rounds = [new_key("ObjectDeadTable") for _ in range(100)], 128 << 10, 40
    with (
        Daemon() as daemon,
        daemon.source() as source,
        zmq.Context() as context,
        context.socket(zmq.SUB) as dead,
    ):
        dead.linger = 0
        dead.rcvhwm = 1
        dead.setsockopt(zmq.RCVBUF, 4096)
        dead.connect(daemon.stream)
        dead.subscribe(b"ObjectDead")
        until(lambda: daemon.counter("subscriptions"))
        peaks = []
        with daemon.subscribe("ObjectDeadTable:") as alive:
            for number in range(rounds):
                text = f"{number}".ljust(size)
                source.tell(*([key, STRUCT, {"text": text}] for key in keys))
                missing = set(keys)
                while missing:
                    message = alive.next()
                    assert message["value"] == {"text": text}
                    missing.discard(message["key"])
                peaks.append(daemon.ask("status")["memory"]["resident_peak"])

        # The first round has built up the state itself, and what it takes to publish it.
        assert peaks[-1] - peaks[0] < 200 << 20
        assert dead.poll(0)
