"""The stream: structs a second that reach one subscriber while ingest runs at full speed."""

from __future__ import annotations

import time

import zmq

from benchmarks import load
from benchmarks.processes import running_collector
from benchmarks.report import Report
from benchmarks.transport import full_load

PATIENCE = 10_000
"""Milliseconds to the first message."""


def run(report: Report, scale: load.Scale) -> None:
    rates: list[float] = []
    with (
        running_collector() as collector,
        full_load(collector, scale.keys) as ingested,
        zmq.Context() as context,
        context.socket(zmq.SUB) as socket,
    ):
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE)
        socket.subscribe(load.TABLE)
        socket.connect(collector.stream)
        socket.recv_multipart()
        for _ in range(scale.few_rounds):
            start, received = time.perf_counter(), 0
            while time.perf_counter() - start < scale.seconds:
                socket.recv_multipart()
                received += 1
            rates.append(received / (time.perf_counter() - start))
    report.add("stream", "received by one subscriber", "structs/s", rates)
    report.add("stream", "ingest at that time", "samples/s", ingested)
