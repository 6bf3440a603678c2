"""``get`` of a UVE that three sources told of: how long from the request to the reply.

Idle, and while another process sends all that ingest takes. The floor is the same round trip to a
process that answers without a look; the client is a plain DEALER.
"""

from __future__ import annotations

import time

import zmq

from benchmarks import load
from benchmarks.processes import running_collector, running_sink
from benchmarks.report import Goal, Report, at_most
from benchmarks.transport import Sender, full_load
from collectord import wire

KEYS = 1_000
"""Keys that are asked for in turn."""
SOURCES = (load.SOURCE, "compute-2:Compute:agent:0", "compute-3:Compute:agent:0")


class Client:
    """Sends one request, waits for its reply. Use it in a ``with`` statement."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(endpoint)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, request: bytes) -> bytes:
        self._socket.send(request)
        return self._socket.recv()

    def latencies(self, requests: list[bytes], count: int) -> list[float]:
        """Microseconds of each of so many requests, sorted."""
        taken = []
        for number in range(count):
            request = requests[number % len(requests)]
            start = time.perf_counter()
            self.ask(request)
            taken.append((time.perf_counter() - start) * 1e6)
        return sorted(taken)


def run(report: Report, scale: load.Scale) -> None:
    requests = [wire.encode({"op": "get", "key": load.key(number)}) for number in range(KEYS)]
    to_answer = [load.batch(b"", 0, epoch=1, seq=1)]
    idle, floor, loaded = [], [], []
    with running_collector() as collector, running_sink() as sink:
        for seed, source in enumerate(SOURCES):
            with Sender(collector.ingest, source) as sender:
                sender.send_batches(load.bodies(scale.keys, seed=seed), 1)
        with Client(collector.query) as client, Client(sink) as to_sink:
            check(client.ask(requests[0]))
            client.latencies(requests, scale.requests)
            for _ in range(scale.rounds):
                idle.append(client.latencies(requests, scale.requests))
                floor.append(to_sink.latencies(to_answer, scale.requests))
            with full_load(collector, scale.keys) as rate:
                for _ in range(scale.rounds):
                    loaded.append(client.latencies(requests, scale.requests))  # noqa: PERF401
    add(report, "get, told by 3 sources, idle", idle, at_most(300), at_most(1000))
    add(report, "round trip to the bare transport, idle", floor)
    add(report, "get while ingest runs at full speed", loaded, None, at_most(10_000))
    report.add("query", "ingest at that time", "samples/s", rate)


def add(
    report: Report,
    what: str,
    rounds: list[list[float]],
    half: Goal | None = None,
    most: Goal | None = None,
) -> None:
    """Rows of the percentiles 50 and 99."""
    for percent, goal in ((50, half), (99, most)):
        values = [taken[len(taken) * percent // 100] for taken in rounds]
        report.add("query", f"{what}: p{percent}", "µs", values, goal)


def check(reply: bytes) -> None:
    """Raises AssertionError where a view doesn't hold what three sources told."""
    view = wire.decode(reply)["uve"]
    told = {source for row in view[load.STRUCT][load.ATTRIBUTES[0]] for source in row[1:]}
    if told != set(SOURCES) or len(view) != 1 + 2 * load.SAMPLES:
        raise AssertionError(f"a view by three sources is {view}")
