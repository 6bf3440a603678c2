"""From another process, over loopback TCP, into a running collector; beside it the bare transport.

The sender is this process: its batches are encoded beforehand, all it does is put a number before
each, send, and wait where too many are not acknowledged. The same load goes in turns to a process
that receives and throws away, which is the ceiling. That nothing is lost is read from the
acknowledgements and from the collector's own counters, and an exception where it isn't so.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zmq

from benchmarks import load
from benchmarks.processes import Collector, running_collector, running_sink
from benchmarks.report import Report, at_least
from collectord import wire
from collectord.client import Publisher, QueryClient

WINDOW = 64
"""Batches on their way that are not yet acknowledged."""
PASSES = 6
"""Times that every key is told of in one round of batches."""


class Sender:
    """A source: one DEALER. Use it in a ``with`` statement."""

    def __init__(self, endpoint: str, source: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(endpoint)
        self._source = source
        self.durable = 0
        """The last number that is saved for good, as far as the collector has told."""
        self._epoch = time.time_ns() // 1000
        self._seq = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def send_batches(self, bodies: Sequence[bytes], passes: int) -> int:
        """Send numbered batches; the records that were acknowledged when the last one was."""
        waiting = applied = 0
        for _ in range(passes):
            for body in bodies:
                if waiting == WINDOW:
                    applied += self._acknowledged()
                    waiting -= 1
                self._send(body, load.BATCH)
                waiting += 1
        return applied + sum(self._acknowledged() for _ in range(waiting))

    def send_messages(self, messages: Sequence[bytes], passes: int) -> None:
        """Send messages that ask for no answer; done when all of them were received.

        Messages of one socket keep their order: an empty batch that does ask comes last.
        """
        send = self._socket.send
        for _ in range(passes):
            for message in messages:
                send(message)
        self._send(b"", 0)
        self._acknowledged()

    def await_durable(self, timeout: float = 120.0) -> None:
        """Wait until all that was sent is saved for good."""
        last, end = self._seq, time.monotonic() + timeout
        while self.durable < last:
            if time.monotonic() > end:
                raise AssertionError(f"batch {last} is not durable, {self.durable} is")
            self._send(b"", 0)
            self._acknowledged()
            time.sleep(0.1)

    def _send(self, body: bytes, count: int) -> None:
        self._seq += 1
        batch = load.batch(body, count, source=self._source, epoch=self._epoch, seq=self._seq)
        self._socket.send(batch)

    def _acknowledged(self) -> int:
        while True:
            answer: dict[str, Any] = wire.decode(self._socket.recv())
            if "applied" not in answer:
                raise AssertionError(f"the collector refused a batch: {answer}")
            self.durable = answer["durable"]
            if "duplicate" not in answer:  # else it only tells what is durable by now
                return int(answer["applied"])


def run(report: Report, scale: load.Scale) -> None:
    bodies = load.bodies(scale.keys, seed=1)
    with running_collector() as collector, running_sink() as sink:
        measure_batches(report, scale, collector, sink, bodies)
        measure_messages(report, scale, collector, sink)
        measure_publisher(report, scale, collector)


def measure_batches(
    report: Report, scale: load.Scale, collector: Collector, sink: str, bodies: Sequence[bytes]
) -> None:
    samples = scale.keys * PASSES * load.SAMPLES
    rates: list[float] = []
    ceilings: list[float] = []
    with Sender(collector.ingest, load.SOURCE) as to_collector, Sender(sink, "") as to_sink:
        to_collector.send_batches(bodies, 1)
        to_sink.send_batches(bodies, 1)
        for _ in range(scale.rounds):
            with nothing_lost(collector, samples // load.SAMPLES):
                start = time.perf_counter()
                applied = to_collector.send_batches(bodies, PASSES)
                rates.append(samples / (time.perf_counter() - start))
            if applied * load.SAMPLES != samples:
                raise AssertionError(f"{applied} of {samples // load.SAMPLES} records were applied")
            start = time.perf_counter()
            to_sink.send_batches(bodies, PASSES)
            ceilings.append(samples / (time.perf_counter() - start))
    what = f"batches of {load.BATCH:,}, acknowledged"
    report.add("transport", what, "samples/s", rates, at_least(5e6))
    report.add("transport", f"{what}: received and thrown away", "samples/s", ceilings)
    report.ratio("transport", f"{what}: to the ceiling", rates, ceilings)


def measure_messages(report: Report, scale: load.Scale, collector: Collector, sink: str) -> None:
    records = load.encoded_records(scale.keys, seed=3)
    messages = [load.batch(record, 1) for record in records]
    passes = max(scale.messages // scale.keys, 1)
    count = passes * len(messages)
    rates: list[float] = []
    ceilings: list[float] = []
    with Sender(collector.ingest, "messages") as to_collector, Sender(sink, "") as to_sink:
        for _ in range(scale.rounds):
            with nothing_lost(collector, count):
                start = time.perf_counter()
                to_collector.send_messages(messages, passes)
                rates.append(count / (time.perf_counter() - start))
            start = time.perf_counter()
            to_sink.send_messages(messages, passes)
            ceilings.append(count / (time.perf_counter() - start))
    what = "messages of one record, no answer"
    report.add("transport", what, "messages/s", rates, at_least(5e5))
    report.add("transport", f"{what}: received and thrown away", "messages/s", ceilings)
    report.ratio("transport", f"{what}: to the ceiling", rates, ceilings)


def measure_publisher(report: Report, scale: load.Scale, collector: Collector) -> None:
    records = [
        (load.key(number), load.STRUCT, dict.fromkeys(load.ATTRIBUTES, number))
        for number in range(scale.keys)
    ]
    rates: list[float] = []
    with Publisher("publisher", collector.ingest, durable_timeout=0) as publisher:
        for _ in range(scale.rounds):
            with nothing_lost(collector, len(records)):
                start = time.perf_counter()
                for record in records:
                    publisher.publish(*record)
                publisher.flush()
                rates.append(len(records) / (time.perf_counter() - start))
    report.add("transport", "client.Publisher, acknowledged", "records/s", rates)
    times = time.time_ns() // 1000 - np.arange(scale.keys // PASSES)[::-1]
    columns = {name: np.arange(len(times)) for name in records[0][2]}
    rates = []
    with Publisher("columns", collector.ingest, durable_timeout=0) as publisher:
        for _ in range(scale.rounds):
            with nothing_lost(collector, len(times) * PASSES):
                start = time.perf_counter()
                for number in range(PASSES):
                    publisher.publish_columns(load.key(number), load.STRUCT, columns, times)
                publisher.flush()
                rates.append(len(times) * PASSES / (time.perf_counter() - start))
    report.add("transport", "the same, publish_columns", "records/s", rates)


@contextmanager
def nothing_lost(collector: Collector, records: int) -> Iterator[None]:
    """Raises AssertionError where the collector did not apply so many records in the block."""
    with QueryClient(collector.query) as client:
        before = client.status()["counters"]
        yield
        after = client.status()["counters"]
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    bad = [name for name in grown if name.startswith("rejected_") or name.endswith("_malformed")]
    if grown.get("records") != records or bad:
        raise AssertionError(f"{records} records were sent, but the collector counts {grown}")


@contextmanager
def full_load(collector: Collector, keys: int) -> Iterator[list[float]]:
    """Another process sends batches as fast as they are acknowledged, while the block lasts.

    Afterwards the list holds what it reached, in samples a second.
    """
    processes = multiprocessing.get_context("spawn")
    stop, running = processes.Event(), processes.Event()
    rates = processes.SimpleQueue()
    process = processes.Process(
        target=_send_until, args=(collector.ingest, keys, running, stop, rates), daemon=True
    )
    process.start()
    rate: list[float] = []
    try:
        while not running.wait(0.1):
            if not process.is_alive():
                raise RuntimeError("the process that was to send has ended")
        yield rate
    finally:
        stop.set()
        process.join()
    rate.append(rates.get())


def _send_until(endpoint: str, keys: int, running: Any, stop: Any, rates: Any) -> None:
    bodies = load.bodies(keys, seed=2)
    applied = 0
    with Sender(endpoint, "load") as sender:
        sender.send_batches(bodies, 1)
        running.set()
        start = time.perf_counter()
        while not stop.is_set():
            applied += sender.send_batches(bodies, 1)
        rates.put(applied * load.SAMPLES / (time.perf_counter() - start))
