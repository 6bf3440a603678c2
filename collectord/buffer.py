"""What waits between ``publish`` and the collector's answer: records, in batches, and who waits.

``Buffer`` is shared by the callers' threads, which put records in and wait for room or for
acknowledgement, and by the one of ``delivery.py``, which takes batches and settles them. No socket
and no protocol in here.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

REJECTIONS_KEPT = 100

Waiter = futures.Future[None]
"""Done as soon as something changed that its holder may be waiting for."""


class PublishError(Exception):
    """The publisher cannot go on: it was closed, or the collector refuses all that it sends."""


class StaleEpoch(PublishError):  # noqa: N818
    """A newer run of this source has reached the collector: this one must stop."""


class BufferFull(PublishError):  # noqa: N818
    """The record was not taken: ``buffer_bytes`` of records wait for acknowledgement."""


class FlushTimeout(PublishError, TimeoutError):  # noqa: N818
    """Not everything was acknowledged in time. It stays in the buffer and is sent on."""


@dataclass(frozen=True)
class Rejection:
    """A record, or a whole batch, that the collector refused and that is therefore lost."""

    number: int
    """What ``publish`` returned for the record, or for the first of ``records``."""
    records: int
    """How many were refused: 1 unless the collector does not name each, 0 where it isn't known."""
    seq: int
    """The batch's number in its epoch."""
    index: int | None
    """Where in the batch the record stood; None where ``records`` are refused without a place."""
    code: str
    message: str
    record: list[Any] | None
    """The record itself, ``[key, struct, attributes]`` with or without time, where it is known."""


@dataclass
class Counters:
    """What a publisher has done since its start."""

    published: int = 0
    """Records taken by ``publish``."""
    acknowledged: int = 0
    """Records that the collector has answered for; without acknowledgement, those handed over."""
    rejected: int = 0
    """Of these, the records that it refused."""
    sent: int = 0
    """Batches sent, each time counted."""
    resent: int = 0
    """Of these, the batches that had been sent before."""
    unreported: int = 0
    """Batches that were applied though their answer was lost: what was rejected is not known."""
    timeouts: int = 0
    """Times that no answer came within ``reply_timeout``."""
    disconnects: int = 0
    overloaded: int = 0
    """Times that the collector asked for patience."""
    restarts: int = 0
    """Times that the collector had lost acknowledged batches, and a new epoch was begun."""
    forgotten: int = 0
    """Acknowledged batches that a collector's restart has lost."""


@dataclass
class Batch:
    """Records on their way. Its number is its place: the first in the buffer follows the last
    acknowledged one, so that a new epoch numbers the same batches anew."""

    first: int
    """The number of its first record."""
    records: int
    body: bytes
    """The encoded records; empty once the collector has refused the batch."""
    time: int
    """For records without a time of their own, microseconds."""
    attempts: int = 0
    refused: bool = False


class Buffer:
    """The records between ``publish`` and their acknowledgement. Any thread may call it."""

    def __init__(self, batch_records: int, batch_bytes: int, batch_age: float, bound: int) -> None:
        self.lock = threading.Lock()
        self.bound = bound
        self.bytes = 0
        self.closed = False
        self.counters = Counters()
        self.rejections: deque[Rejection] = deque(maxlen=REJECTIONS_KEPT)
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._batch_age = batch_age
        self._batches: deque[Batch] = deque()
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._open_time = 0
        self._open_due = 0.0
        self._waiters: set[Waiter] = set()
        self._failure: PublishError | None = None
        # The sender sleeps in zmq_poll, which a byte on this pair ends, from whatever thread.
        self.bell, self._button = socket.socketpair()
        self.bell.setblocking(False)
        self._button.setblocking(False)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        with self.lock:
            return self._batches[index]

    def put(self, record: bytes) -> int | Waiter:
        """The record's number, or where there is no room, what tells when to try again."""
        with self.lock:
            self._check()
            if self.bytes and self.bytes + len(record) > self.bound:
                return self._waiter()
            if self._open and self._open_bytes + len(record) > self._batch_bytes:
                self._seal()
            opened = not self._open
            if opened:
                self._open_time = now()
                self._open_due = time.monotonic() + self._batch_age
            self._open.append(record)
            self._open_bytes += len(record)
            self.bytes += len(record)
            number = self.counters.published
            self.counters.published += 1
            whole = len(self._open) >= self._batch_records or self._open_bytes >= self._batch_bytes
            if whole:
                self._seal()
            if opened or whole:
                self._ring()
            return number

    def flushing(self) -> Iterator[Waiter]:
        """Yield what to wait for, again and again, until all taken so far is acknowledged."""
        with self.lock:
            self._check()
            self._seal()
            self._ring()
            target = self.counters.published
        while True:
            with self.lock:
                self._check()
                if self.counters.acknowledged >= target:
                    return
                waiter = self._waiter()
            yield waiter

    def seal_due(self) -> float:
        """Close the open batch if its time has come; else say when, in monotonic seconds."""
        with self.lock:
            if self._open and time.monotonic() >= self._open_due:
                self._seal()
            return self._open_due if self._open else math.inf

    def settle(self, batches: int) -> None:
        """Forget the oldest ``batches``: the collector has answered for them."""
        with self.lock:
            for _ in range(batches):
                batch = self._batches.popleft()
                self.bytes -= len(batch.body)
                self.counters.acknowledged += batch.records
        self._tell()

    def count(self, counter: str, by: int) -> None:
        """Add to a counter."""
        with self.lock:
            setattr(self.counters, counter, getattr(self.counters, counter) + by)

    def reject(self, rejection: Rejection) -> None:
        """Count and keep what the collector has refused."""
        with self.lock:
            self.counters.rejected += rejection.records
            self.rejections.append(rejection)

    def empty(self, batch: Batch) -> None:
        """Give up a batch's records, but keep its place."""
        with self.lock:
            self.bytes -= len(batch.body)
            batch.body = b""
            batch.refused = True
        self._tell()

    def fail(self, failure: PublishError) -> None:
        """From now on raise ``failure`` to everybody."""
        with self.lock:
            self._failure = self._failure or failure
        self._tell()

    def close(self) -> None:
        """Take no more, and let the sender end."""
        self.fail(PublishError("the publisher is closed"))
        with self.lock:
            self.closed = True
            self._ring()

    def silence(self) -> None:
        """Done with the bell, both ends."""
        self.bell.close()
        self._button.close()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it has been rung often enough
            self._button.send(b"!")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _seal(self) -> None:
        if self._open:
            first = self.counters.published - len(self._open)
            body = b"".join(self._open)
            self._batches.append(Batch(first, len(self._open), body, self._open_time))
            self._open = []
            self._open_bytes = 0

    def _waiter(self) -> Waiter:
        waiter = Waiter()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)  # who gives up is not remembered
        return waiter

    def _tell(self) -> None:
        with self.lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)


def now() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000
