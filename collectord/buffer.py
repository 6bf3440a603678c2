"""What a publisher keeps: records, in numbered batches, until a crash can't undo them.

``Buffer`` is shared by the callers' threads, which put records in and wait for room or for
answers, and by the one of ``delivery.py``, which takes batches and settles them. No socket and no
protocol in here.

    released | kept: acknowledged, not durable | waiting: in flight, sent before, never sent | open
      number ^ released + 1                    ^ acknowledged + 1           newest ^

A batch's number is its place, counted from ``released``, so that a new epoch numbers the same
batches anew. What was sent under a number keeps it, until it is durable: partitions of a collector
that has crashed may have come to different numbers, and pass over by them what they have.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures

from collectord.batch import Batch, Found
from collectord.clock import now
from collectord.reports import Counters, PublishError, Rejection

REJECTIONS_KEPT = 100
BATCH_COST = 300
"""Bytes that a batch takes beside its records. They count too: empty ones are bounded as well."""

Waiter = futures.Future[None]
"""Done as soon as something changed that its holder may be waiting for."""


class Buffer:
    """The records between ``publish`` and their end. Any thread may call it."""

    def __init__(
        self,
        batch_records: int,
        batch_bytes: int,
        batch_age: float,
        bound: int,
        *,
        drops: bool = False,
        durable_timeout: float = math.inf,
    ) -> None:
        self.lock = threading.Lock()
        self.bound = bound
        self.bytes = 0
        self.closed = False
        self.counters = Counters()
        self.rejections: deque[Rejection] = deque(maxlen=REJECTIONS_KEPT)
        self.released = 0
        """The number of the last batch that is no longer here."""
        self.acknowledged = 0
        self.newest = 0
        """The highest number that was sent in this epoch."""
        self.in_flight = 0
        """How many of the oldest waiting batches are sent on this connection, unanswered."""
        self.stalled = False
        """Nothing becomes durable: where room is needed, acknowledged batches are let go."""
        self.journal: list[Batch | int] | None = None
        """What the spool must hear before anything is sent: batches, and the indexes of those
        dropped. None without a spool."""
        self.renumbers = True
        """A batch in the spool that was never sent may be dropped with its number."""
        self.awaits_durability = durable_timeout > 0
        """Else acknowledged batches are let go wherever room is needed, as was asked for."""
        self._drops = drops
        self._durable_timeout = durable_timeout
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._batch_age = batch_age
        self._kept: deque[Batch] = deque()
        self._waiting: deque[Batch] = deque()
        self._next_index = 0
        self._durable = 0
        """The highest number that was told to be durable."""
        self._kept_since: float | None = None
        """Since when batches are acknowledged on this connection, and none became durable."""
        self._emptied_to = 0
        """Waiting batches up to this number have no records left to drop."""
        self._unprotected: tuple[int, int] | None = None
        """Of those let go that are not durable: the first record, and the last batch's number."""
        self._open: list[bytes] = []
        self._open_records = 0
        self._open_bytes = 0
        self._open_time = 0
        self._open_due = 0.0
        self._waiters: set[Waiter] = set()
        self._failure: PublishError | None = None
        # The sender sleeps in zmq_poll, which a byte on this pair ends, from whatever thread.
        self.bell, self._button = socket.socketpair()
        self.bell.setblocking(False)
        self._button.setblocking(False)

    # ---- callers: taking records, and waiting ---------------------------------------------------

    def put(self, records: bytes, count: int = 1) -> int | Waiter:
        """The first record's number, or where there is no room, what tells when to try again.

        Several records that are put together are not parted: they should fit into a batch.
        """
        with self.lock:
            self._check()
            if self.bytes + len(records) > self.bound and not self._make_room(len(records)):
                return self._waiter()
            if self._open and (
                self._open_bytes + len(records) > self._batch_bytes
                or self._open_records + count > self._batch_records
            ):
                self._seal()
            opened = not self._open
            if opened:
                self._open_time = now()
                self._open_due = time.monotonic() + self._batch_age
            self._open.append(records)
            self._open_records += count
            self._open_bytes += len(records)
            self.bytes += len(records)
            number = self.counters.published
            self.counters.published += count
            if self._open_records >= self._batch_records or self._open_bytes >= self._batch_bytes:
                self._seal()
                self._ring()
            elif opened:
                self._ring()
            return number

    def rows_of_a_batch(self, size: int) -> int:
        """How many records of that many bytes fit into a batch."""
        return max(1, min(self._batch_records, self._batch_bytes // max(size, 1)))

    def flushing(self, *, durable: bool = False) -> Iterator[Waiter]:
        """Yield what to wait for, again and again, until all taken so far is acknowledged."""
        with self.lock:
            self._check()
            self._seal()
            self._ring()
            target = self.counters.published
        while True:
            with self.lock:
                self._check()
                if (self._first_not_durable() if durable else self._first_waiting()) >= target:
                    return
                waiter = self._waiter()
            yield waiter

    def missing(self, *, durable: bool = False) -> int:
        """How many records are not acknowledged, or not durable."""
        with self.lock:
            first = self._first_not_durable() if durable else self._first_waiting()
            return self.counters.published - first

    # ---- the sender: batches on their way -------------------------------------------------------

    def seal_due(self) -> float:
        """Close the open batch if its time has come; else say when, in monotonic seconds."""
        with self.lock:
            if self._open and time.monotonic() >= self._open_due:
                self._seal()
            return self._open_due if self._open else math.inf

    def beat(self) -> None:
        """Add an empty batch, if nothing waits."""
        with self.lock:
            if not self._waiting:
                self._append(Batch(self._next_index, self._first_waiting(), 0, b"", now()))
                self.counters.heartbeats += 1

    @property
    def waiting(self) -> int:
        """How many batches are not acknowledged."""
        return len(self._waiting)

    @property
    def last(self) -> int:
        """The number of the newest batch."""
        return self.acknowledged + len(self._waiting)

    def waiting_at(self, place: int) -> Batch:
        """A batch that is in flight; the oldest is at 0."""
        with self.lock:
            return self._waiting[place]

    def take(self, window: int) -> tuple[int, Batch] | None:
        """The next batch to send and its number; it is in flight from now on.

        None where there is none, ``window`` are in flight, or the journal must be written first.
        """
        with self.lock:
            if self.journal or self.in_flight >= min(window, len(self._waiting)):
                return None
            batch = self._waiting[self.in_flight]
            self.in_flight += 1
            number = self.acknowledged + self.in_flight
            self.newest = max(self.newest, number)
            return number, batch

    def untake(self) -> None:
        """The last batch that was taken could not be sent."""
        with self.lock:
            self.in_flight -= 1
            number = self.acknowledged + self.in_flight + 1
            if number == self.newest and not self._waiting[self.in_flight].attempts:
                self.newest -= 1

    def hand_over(self) -> None:
        """Forget the oldest batch: nobody will answer for it."""
        with self.lock:
            batch = self._waiting.popleft()
            self.in_flight = self.newest = self._emptied_to = 0
            self.bytes -= len(batch.body) + BATCH_COST
            self.counters.acknowledged += batch.records
        self._tell()

    def acknowledge(self, number: int) -> None:
        """The collector has answered for all batches up to this number."""
        with self.lock:
            while self.acknowledged < number:
                batch = self._waiting.popleft()
                self._kept.append(batch)
                self.acknowledged += 1
                self.in_flight = max(0, self.in_flight - 1)
                if not batch.answered:
                    batch.answered = True
                    self.counters.acknowledged += batch.records
            if self._kept_since is None:
                self._kept_since = time.monotonic()
        self._tell()

    def release(self, durable: int) -> None:
        """Forget the acknowledged batches up to this number: a crash can't undo them."""
        with self.lock:
            if durable <= self._durable:
                return
            self._durable = durable
            if self._unprotected and self._unprotected[1] <= durable:
                self._unprotected = None
            while self._kept and self.released < durable:
                self.counters.durable += self._pop_kept().records
            self.stalled = False
            self._kept_since = time.monotonic() if self._kept else None
        self._tell()

    def rewind(self) -> None:
        """The connection is over: nothing is in flight, and nobody there to make things durable."""
        with self.lock:
            self.in_flight = 0
            self._emptied_to = self.acknowledged
            self._kept_since = None

    def go_back(self, number: int) -> None:
        """The collector has lost what is after this number: all that wait again."""
        with self.lock:
            self.in_flight = 0
            while self.acknowledged > number:
                self._waiting.appendleft(self._kept.pop())
                self.acknowledged -= 1
            self._emptied_to = number
            self._durable = min(self._durable, number)

    def stand_in(self, number: int) -> None:
        """The collector has lost what is after this number, some of which was let go here.

        Empty batches take the places of those, so that all others keep their numbers: a part of the
        collector may have them, and knows them by these.
        """
        with self.lock:
            self._waiting.extendleft(reversed(self._kept))
            self._kept.clear()
            first = self._first_waiting()
            for _ in range(self.released - number):
                batch = Batch(-1, first, 0, b"", now(), emptied=True, stands_in=True)
                self._waiting.appendleft(batch)
                self.bytes += BATCH_COST
            self.released = self.acknowledged = self._emptied_to = number
            self.in_flight = 0
            self._durable = min(self._durable, number)

    def number_anew(self) -> None:
        """A new epoch, which begins at 1 with the oldest batch that is here."""
        with self.lock:
            self._waiting.extendleft(reversed(self._kept))
            self._kept.clear()
            self.released = self.acknowledged = self.newest = 0
            self.in_flight = self._emptied_to = self._durable = 0
            self._unprotected = None

    def let_go(self) -> None:
        """Forget what is acknowledged, durable or not."""
        with self.lock:
            while self._kept:
                self._let_go()
        self._tell()

    def stall_due(self) -> float:
        """Say that things are stalled if it is time; else when it will be, monotonic seconds."""
        with self.lock:
            if self.stalled or self._kept_since is None or not self._kept:
                return math.inf
            due = self._kept_since + self._durable_timeout
            if time.monotonic() < due:
                return due
            self.stalled = True
        self._tell()
        return math.inf

    def empty(self, batch: Batch) -> None:
        """Give up a batch's records, but keep its place."""
        with self.lock:
            self._empty(batch)
        self._tell()

    def count(self, counter: str, by: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            setattr(self.counters, counter, getattr(self.counters, counter) + by)

    def reject(self, rejection: Rejection) -> None:
        """Count and keep what the collector has refused."""
        with self.lock:
            self.counters.rejected += rejection.records
            self.rejections.append(rejection)

    # ---- the spool ------------------------------------------------------------------------------

    def recover(self, found: Found) -> None:
        """Begin with what an earlier process left, and keep a journal for a spool from now on."""
        with self.lock:
            self.journal = []
            self.released = self.acknowledged = found.released
            self._next_index = found.next_index
            for batch in found.batches:
                batch.first = self.counters.published
                self.counters.published += batch.records
                self.counters.recovered += batch.records
                self.bytes += len(batch.body) + BATCH_COST
            self.counters.spool_cut = found.cut
            self._waiting.extend(found.batches)
            self.newest = self.last  # all of them may have been sent

    def take_journal(self) -> list[Batch | int]:
        """What the spool has not heard."""
        with self.lock:
            journal, self.journal = self.journal or [], []
            return journal

    def kept(self) -> list[Batch]:
        """Every batch that is here, oldest first."""
        with self.lock:
            return [batch for batch in (*self._kept, *self._waiting) if not batch.stands_in]

    def mark(self) -> tuple[int, int]:
        """The number before the oldest batch that has a place, and its index."""
        with self.lock:
            released = self.released
            for batch in itertools.chain(self._kept, self._waiting):
                if not batch.stands_in:
                    return released, batch.index
                released += 1
            return released, self._next_index

    # ---- the end --------------------------------------------------------------------------------

    def fail(self, failure: PublishError) -> None:
        """From now on raise ``failure`` to everybody."""
        with self.lock:
            self._failure = self._failure or failure
        self._tell()

    def close(self) -> None:
        """Take no more, and let the sender end."""
        self.fail(PublishError("the publisher is closed"))
        with self.lock:
            self._seal()
            self.closed = True
            self._ring()

    def silence(self) -> None:
        """Done with the bell, both ends."""
        self.bell.close()
        self._button.close()

    # ---- with the lock held ---------------------------------------------------------------------

    def _make_room(self, needed: int) -> bool:
        """Let go what may be, oldest first; whether ``needed`` bytes may be taken then.

        What is acknowledged goes first: it only loses the protection against a crash.
        """
        if self.stalled or self._drops:
            while self._kept and self.bytes + needed > self.bound:
                self._let_go()
        if self._drops:
            while self.bytes + needed > self.bound and self._drop():
                pass
        without_records = BATCH_COST * (len(self._kept) + len(self._waiting))
        return self.bytes + needed <= self.bound or self.bytes == without_records

    def _let_go(self) -> None:
        batch = self._pop_kept()
        self.counters.unprotected += batch.records
        first = self._unprotected[0] if self._unprotected else batch.first
        self._unprotected = first, self.released

    def _pop_kept(self) -> Batch:
        batch = self._kept.popleft()
        self.released += 1
        self.bytes -= len(batch.body) + BATCH_COST
        return batch

    def _drop(self) -> bool:
        """Drop the oldest records that are not on their way, or where there are none, those."""
        place = max(self.in_flight, self._emptied_to - self.acknowledged)
        while place < len(self._waiting):
            batch = self._waiting[place]
            number = self.acknowledged + place + 1
            if number > self.newest and (self.renumbers or not batch.spooled):
                del self._waiting[place]
                self.bytes -= len(batch.body) + BATCH_COST
                self.counters.dropped += batch.records
                if self.journal is not None:
                    self.journal.append(batch.index)
                return True
            self._emptied_to = number
            if batch.body:
                self._drop_records(batch)
                return True
            place += 1
        if self._open:
            self._seal()
            return True
        for batch in list(self._waiting)[: self.in_flight]:
            if batch.body:
                self._drop_records(batch)
                return True
        return False

    def _drop_records(self, batch: Batch) -> None:
        self.counters.dropped += batch.records
        batch.records = 0
        self._empty(batch)

    def _empty(self, batch: Batch) -> None:
        self.bytes -= len(batch.body)
        batch.body = b""
        batch.emptied = True

    def _seal(self) -> None:
        if self._open:
            first = self._first_open()
            body = b"".join(self._open)
            self.bytes -= len(body)
            self._append(Batch(self._next_index, first, self._open_records, body, self._open_time))
            self._open = []
            self._open_records = self._open_bytes = 0

    def _append(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self._next_index += 1
        self.bytes += len(batch.body) + BATCH_COST
        if self.journal is not None:
            self.journal.append(batch)

    def _first_open(self) -> int:
        return self.counters.published - self._open_records

    def _first_waiting(self) -> int:
        return self._waiting[0].first if self._waiting else self._first_open()

    def _first_not_durable(self) -> int:
        if self._unprotected:
            return self._unprotected[0]
        return self._kept[0].first if self._kept else self._first_waiting()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it has been rung often enough
            self._button.send(b"!")

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
