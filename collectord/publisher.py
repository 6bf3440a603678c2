"""Publishing records to a collector: batched, numbered, kept until no crash can undo them.

What callers hold lives here. How records are checked and encoded is ``encoding.py`` and
``columns.py``; what is kept is ``buffer.py``, on disk ``spool.py``; its way to the collector is
``delivery.py``; asking a collector is ``client.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import zmq

from collectord import wire
from collectord.buffer import Buffer, Waiter
from collectord.clock import now
from collectord.delivery import Sender
from collectord.encoding import encode_record
from collectord.reports import (
    BufferFull,
    Counters,
    FlushTimeout,
    PublishError,
    Rejection,
    SpoolError,
    StaleEpoch,
)
from collectord.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from collectord.curve import Curve

__all__ = [
    "BufferFull",
    "Counters",
    "FlushTimeout",
    "PublishError",
    "Publisher",
    "Rejection",
    "SpoolError",
    "StaleEpoch",
]

INGEST_ADDRESS = f"tcp://127.0.0.1:{wire.INGEST_PORT}"


class Publisher:
    """Sends records of one source to a collector, from any number of threads or coroutines.

    >>> with Publisher("compute-1:Compute:contrail-vrouter-agent:0") as publisher:  # doctest: +SKIP
    ...     publisher.publish(
    ...         "ObjectVNTable:demo:vn1", "UveVirtualNetworkAgent", {"egress_flow_count": 12}
    ...     )
    ...     publisher.flush(timeout=5)

    Records are gathered into batches, which go out when they hold ``batch_records`` records or
    ``batch_bytes`` bytes, or are ``batch_age`` seconds old. Up to ``window`` batches are on their
    way at a time, and are sent again after a lost connection or ``reply_timeout`` seconds without
    an answer. A source that is silent for ``heartbeat`` seconds sends an empty batch, so that the
    collector does not take it for gone.

    ``epoch`` (microseconds) names this run of the source and defaults to now. The same epoch may
    be given again only to send the same records again in the same batches, as in a replay: the
    collector skips those it has. ``aggtypes`` is ``{struct: {attribute: aggtype}}``.

    **A crash of the collector** can undo what it had acknowledged, until its next snapshot. So each
    batch stays in the buffer until the collector says that it is durable; one that has lost some
    gets them again, under the same numbers. A collector that wants batches which are no longer here
    (its snapshots are lost as well) gets a new epoch of what is here; the others are counted as
    ``forgotten``, and ``on_restart`` is called with their number. It is called with 0 where the
    collector has removed this source's records, as after a long silence. A source that only sends
    what changes should tell its whole state again in both cases.

    **The buffer** holds ``buffer_bytes``. When it is full, ``publish`` blocks, raises, or drops the
    oldest (``when_full``). To block and to raise wait for the collector to make batches durable.
    If it answers but has made nothing durable for ``durable_timeout`` seconds (it takes no
    snapshots, or its disk is full) the buffer still protects as much as it holds, but the oldest
    acknowledged batches are let go for new ones from then on, until something becomes durable:
    they are counted as ``unprotected``, and a warning is logged. With ``math.inf`` that never
    happens, and a collector without snapshots ends in a full buffer; with 0 acknowledged batches
    never hold anything up. It should be several times the collector's ``SNAPSHOT.interval``. To
    drop the oldest lets go of acknowledged batches at once; where there are none, the oldest
    records that are not on their way are lost, and counted as ``dropped``.

    **The death of this process** loses what was not delivered, unless ``spool`` names a directory
    for the buffer's batches, one for each source. A publisher that is made with it later, with the
    same source, sends what was not durable, in the same epoch and under the same numbers: exactly
    once. A record is in the spool once its batch is closed, within ``batch_age``. The spool is
    synced to disk every ``spool_sync`` seconds, the most that the death of the machine loses;
    ``math.inf`` leaves it to the system. If it can't be written, publishing goes on from memory:
    counted as ``spool_failed``, logged, and tried again.

    Refused records are counted, logged, kept in ``rejections`` and given to ``on_rejected``. A
    batch that is refused as a whole is replaced by an empty one, since numbers may have no gaps.

    Both callbacks run in the publisher's thread. They may ``publish``, which there raises
    ``BufferFull`` rather than block; what they raise stops the publisher.

    With ``acknowledged=False`` batches have no numbers and are forgotten once handed to the
    transport: nothing is sent again, and of what is refused only the little that is told.

    ``curve`` has the keys for a collector that asks for them. ``context`` is a ZeroMQ context to
    share among many publishers of a process. A publisher runs one daemon thread, which doesn't
    survive ``os.fork``: make the publisher in the child.

    Raises ValueError for a source, an address or a setting that cannot be, SpoolError for a spool
    that can't be used.
    """

    def __init__(
        self,
        source: str,
        address: str = INGEST_ADDRESS,
        *,
        epoch: int | None = None,
        acknowledged: bool = True,
        batch_records: int = 1000,
        batch_bytes: int = 1 << 20,
        batch_age: float = 0.1,
        buffer_bytes: int = 64 << 20,
        window: int = 32,
        when_full: Literal["block", "raise", "drop_oldest"] = "block",
        durable_timeout: float = 30.0,
        reply_timeout: float = 5.0,
        heartbeat: float = 30.0,
        spool: str | Path | None = None,
        spool_sync: float = 1.0,
        aggtypes: Mapping[str, Mapping[str, str]] | None = None,
        on_rejected: Callable[[Rejection], None] | None = None,
        on_restart: Callable[[int], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        curve: Curve | None = None,
    ) -> None:
        if not 0 < len(source.encode()) <= wire.SOURCE_BYTES:
            raise ValueError(f"source {source!r} must have 1 to {wire.SOURCE_BYTES} bytes of UTF-8")
        if when_full not in ("block", "raise", "drop_oldest"):
            raise ValueError(f"when_full is 'block', 'raise' or 'drop_oldest', not {when_full!r}")
        if min(batch_records, batch_bytes, buffer_bytes, window) < 1:
            raise ValueError("batch_records, batch_bytes, buffer_bytes and window are at least 1")
        if not (heartbeat > 0 and durable_timeout >= 0 and spool_sync >= 0):
            raise ValueError("heartbeat is above 0, durable_timeout and spool_sync not below")
        if spool is not None and not acknowledged:
            raise ValueError("a spool needs acknowledgement: without it nothing is sent again")
        self.source = source
        self.address = address
        self._when_full = when_full
        self._buffer = Buffer(
            batch_records,
            batch_bytes,
            batch_age,
            buffer_bytes,
            drops=when_full == "drop_oldest",
            durable_timeout=durable_timeout,
        )
        with contextlib.ExitStack() as undoing:
            undoing.callback(self._buffer.silence)
            epoch = now() if epoch is None else epoch
            spooled = None
            if spool is not None:
                spooled = Spool(Path(spool), source, sync=spool_sync)
                undoing.callback(spooled.close)
                epoch = epoch if spooled.found.epoch is None else spooled.found.epoch
                self._buffer.recover(spooled.found)
            self._sender = Sender(
                self._buffer,
                source=source,
                address=address,
                epoch=epoch,
                acknowledged=acknowledged,
                window=window,
                reply_timeout=reply_timeout,
                heartbeat=heartbeat,
                aggtypes=aggtypes,
                on_rejected=on_rejected,
                on_restart=on_restart,
                context=context,
                curve=curve,
                spool=spooled,
            )
            undoing.pop_all()
        self._sender.start()

    def publish(
        self,
        key: str,
        struct: str,
        attributes: Mapping[str, Any] | None,
        time: int | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Take one record, and return its number among all that were taken, from 0.

        ``attributes`` maps names to values that msgpack has; None as a value removes the attribute,
        None in place of the map the whole struct. ``time`` is when it was measured, in microseconds
        since the Unix epoch; without it, now, to within ``batch_age``.

        Raises ValueError for a record that no collector would take, BufferFull where the buffer is
        full (and, if it may block, still is after ``timeout`` seconds), PublishError if the
        publisher has failed or is closed.
        """
        return self._put(encode_record(key, struct, attributes, time), 1, _deadline(timeout))

    def publish_columns(
        self,
        key: str,
        struct: str,
        attributes: Mapping[str, Any],
        times: NDArray[np.integer[Any]],
        *,
        timeout: float | None = None,
    ) -> int:
        """Take a record for each of ``times``, and return the number of the first.

        For who has many values of one key at hand, as history is: many times as fast as to
        publish them one by one. In ``attributes`` an array of shape (records,) of numbers or bools,
        at any depth, stands for the values of the records; anything else is what all of them have.
        ``times`` are integers, microseconds since the Unix epoch.

        >>> publisher.publish_columns(  # doctest: +SKIP
        ...     "ObjectDevice:d1", "UveDevice", {"cpu": np.array([70.5, 71.0])}, np.array([0, 60])
        ... )

        Raises as ``publish`` does; after BufferFull or PublishError the first of the records may
        have been taken: ``counters.published`` tells how many.
        """
        deadline = _deadline(timeout)
        numbers = [
            self._put(records, count, deadline)
            for records, count in self._columns(key, struct, attributes, times)
        ]
        return numbers[0] if numbers else self.counters.published

    def _columns(
        self,
        key: str,
        struct: str,
        attributes: Mapping[str, Any],
        times: NDArray[np.integer[Any]],
    ) -> Iterator[tuple[bytes, int]]:
        """The records, as many together as a batch takes, and how many."""
        from collectord.columns import encode_columns  # here: numpy takes long to import

        columns = encode_columns(key, struct, attributes, times)
        step = self._buffer.rows_of_a_batch(len(columns))
        for first in range(0, columns.records, step):
            rows = columns.rows(first, first + step)
            yield rows.tobytes(), len(rows)

    def _put(self, records: bytes, count: int, deadline: float | None) -> int:
        while not isinstance(taken := self._buffer.put(records, count), int):
            if self._must_not_wait() or not _wait(taken, deadline):
                raise self._buffer_full()
        return taken

    async def publish_async(
        self,
        key: str,
        struct: str,
        attributes: Mapping[str, Any] | None,
        time: int | None = None,
    ) -> int:
        """``publish`` for a coroutine: waits for room in the buffer without blocking the loop."""
        return await self._put_async(encode_record(key, struct, attributes, time), 1)

    async def publish_columns_async(
        self,
        key: str,
        struct: str,
        attributes: Mapping[str, Any],
        times: NDArray[np.integer[Any]],
    ) -> int:
        """``publish_columns`` for a coroutine."""
        numbers = [
            await self._put_async(records, count)
            for records, count in self._columns(key, struct, attributes, times)
        ]
        return numbers[0] if numbers else self.counters.published

    async def _put_async(self, records: bytes, count: int) -> int:
        while not isinstance(taken := self._buffer.put(records, count), int):
            if self._must_not_wait():
                raise self._buffer_full()
            await asyncio.wrap_future(taken)
        return taken

    def flush(self, timeout: float | None = None, *, durable: bool = False) -> None:
        """Wait until all that was published before this call is acknowledged, or ``durable``.

        Raises FlushTimeout after ``timeout`` seconds, PublishError if the publisher has failed.
        Records that were rejected count as acknowledged: see ``counters`` and ``rejections``.
        With a collector that takes no snapshots nothing ever becomes durable.
        """
        if threading.current_thread() is self._sender:
            raise RuntimeError("flush would wait for itself: it was called from a callback")
        deadline = _deadline(timeout)
        for waiter in self._buffer.flushing(durable=durable):
            if not _wait(waiter, deadline):
                raise self._flush_timeout(timeout, durable)

    async def flush_async(self, timeout: float | None = None, *, durable: bool = False) -> None:
        """``flush`` for a coroutine."""
        deadline = _deadline(timeout)
        try:
            for waiter in self._buffer.flushing(durable=durable):
                await asyncio.wait_for(asyncio.wrap_future(waiter), _remaining(deadline))
        except asyncio.TimeoutError:
            raise self._flush_timeout(timeout, durable) from None

    def close(self, timeout: float = 5.0, *, durable: bool = False) -> None:
        """Flush and stop. What isn't acknowledged, or ``durable``, by then raises as there.

        It is lost, unless there is a spool. What is acknowledged but not durable is gone if the
        collector crashes before its next snapshot: ask for ``durable`` where that matters.
        """
        if self._buffer.closed:
            return
        try:
            self.flush(timeout, durable=durable)
        finally:
            self._sender.stop(linger=timeout)

    async def close_async(self, timeout: float = 5.0, *, durable: bool = False) -> None:
        """``close`` for a coroutine."""
        if self._buffer.closed:
            return
        try:
            await self.flush_async(timeout, durable=durable)
        finally:
            await asyncio.to_thread(self._sender.stop, timeout)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, FlushTimeout):
            self._sender.stop()  # it has been tried for as long as was wanted
        else:
            self.close()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, FlushTimeout):
            await asyncio.to_thread(self._sender.stop)
        else:
            await self.close_async()

    @property
    def counters(self) -> Counters:
        """A copy of the counters as they stand."""
        with self._buffer.lock:
            return replace(self._buffer.counters)

    @property
    def rejections(self) -> list[Rejection]:
        """The last rejections, oldest first."""
        with self._buffer.lock:
            return list(self._buffer.rejections)

    @property
    def epoch(self) -> int:
        """The run of the source that batches are numbered in now."""
        return self._sender.epoch

    def _must_not_wait(self) -> bool:
        return self._when_full == "raise" or threading.current_thread() is self._sender

    def _buffer_full(self) -> BufferFull:
        return BufferFull(
            f"{self._buffer.bytes} bytes of records wait for {self.address} to acknowledge them "
            f"and make them durable; the bound is {self._buffer.bound}"
        )

    def _flush_timeout(self, timeout: float | None, durable: bool) -> FlushTimeout:
        missing = self._buffer.missing(durable=durable)
        state = "durable at" if durable else "acknowledged by"
        return FlushTimeout(f"{missing} records were not {state} {self.address} within {timeout} s")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wait(waiter: Waiter, deadline: float | None) -> bool:
    """Whether it was done in time; if not, it is given up."""
    return bool(futures.wait([waiter], _remaining(deadline)).done) or not waiter.cancel()
