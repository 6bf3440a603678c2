"""The publisher and a real collector: killed, silent, and away."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord.client import Publisher
from daemon import HISTORY, METRIC, STRUCT, Daemon, new_key, new_source, until
from publishing import close

SUM = f"AggProxySum-{METRIC}"
FLOWS = "egress_flow_count"
PATIENCE = 60.0

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a collector that saves its state every second; a period stays open meanwhile."""

    def start_(*arguments: str) -> Daemon:
        return Daemon(
            f"--SNAPSHOT.directory={tmp_path / 'snapshots'}",
            "--SNAPSHOT.interval=1",
            "--DEFAULT.uve_proxy_lateness=300",
            *arguments,
        )

    return start_


@pytest.fixture
def collector(start: Start) -> Iterator[Daemon]:
    with start("--COLLECTOR.source_timeout=2") as running:
        yield running


def port(daemon: Daemon) -> str:
    return f"--COLLECTOR.port={daemon.ingest.rsplit(':', 1)[-1]}"


def publish_one_each(publisher: Publisher, key: str, count: int) -> None:
    """Samples of 1 in one period, so that their sum is how many were applied."""
    for _ in range(count):
        publisher.publish(key, STRUCT, {FLOWS: 1}, HISTORY)


def applied(daemon: Daemon, key: str) -> Any:
    return daemon.uve(key)[SUM]["value"]["staging"]


def listed(daemon: Daemon, name: str) -> Any:
    return daemon.ask("sources")["sources"].get(name)


def test_a_collector_that_is_killed_again_and_again_applies_each_record_once(
    start: Start,
) -> None:
    key = new_key()
    daemon = start()
    publisher = Publisher(new_source(), daemon.ingest, batch_records=5, reply_timeout=1)
    total = 0
    try:
        for _ in range(4):
            publish_one_each(publisher, key, 500)
            total += 500
            publisher.flush(PATIENCE)
            thread = threading.Thread(target=publish_one_each, args=(publisher, key, 2000))
            thread.start()
            total += 2000
            again = port(daemon)
            daemon.kill()
            daemon = start(again)
            thread.join()
        publisher.flush(PATIENCE, durable=True)

        assert applied(daemon, key) == total
        assert publisher.counters.forgotten == 0
        assert publisher.counters.durable == total
    finally:
        close(publisher)
        daemon.stop()


def test_a_silent_publisher_is_told_what_has_become_durable(start: Start) -> None:
    with (
        start() as collector,
        Publisher(new_source(), collector.ingest, heartbeat=math.inf) as publisher,
    ):
        publisher.publish(new_key(), STRUCT, {"a": 1})

        publisher.flush(PATIENCE, durable=True)

        assert publisher.counters.durable == 1


def test_a_spool_brings_to_the_collector_what_its_process_left(
    collector: Daemon, tmp_path: Path
) -> None:
    key, name = new_key(), new_source()
    for _ in range(3):
        publisher = Publisher(name, collector.ingest, spool=tmp_path / "spool", batch_records=7)
        publish_one_each(publisher, key, 500)
        publisher._sender.stop()  # in the middle, as when it dies

    with Publisher(name, collector.ingest, spool=tmp_path / "spool") as last:
        last.flush(PATIENCE, durable=True)

    assert applied(collector, key) == 1500


def test_heartbeats_keep_a_source(collector: Daemon) -> None:
    name = new_source()
    with Publisher(name, collector.ingest, heartbeat=0.2) as publisher:
        publisher.publish(new_key(), STRUCT, {"a": 1})
        publisher.flush(PATIENCE)

        until(lambda: publisher.counters.heartbeats >= 15)

        assert not listed(collector, name).get("gone")


def test_one_that_was_taken_for_gone_is_told_to_tell_everything(collector: Daemon) -> None:
    name, key = new_source(), new_key()
    restarts: list[int] = []
    with Publisher(
        name, collector.ingest, heartbeat=math.inf, on_restart=restarts.append
    ) as publisher:
        publisher.publish(key, STRUCT, {"a": 1})
        publisher.flush(PATIENCE)
        until(lambda: listed(collector, name).get("gone"))

        publisher.publish(key, STRUCT, {"b": 2})
        publisher.flush(PATIENCE)

        assert restarts == [0]
        assert collector.uve(key) == {STRUCT: {"b": 2}}
