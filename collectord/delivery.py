"""From the buffer to the collector's answer: the thread that speaks the protocol's ingest side.

What waits is ``buffer.py``; what callers see is ``publisher.py``.

A connection is the unit of order: on one, batches arrive and are answered in the order they were
sent. Whenever that order is in doubt (a lost connection, a gap, an overloaded collector, no answer
in time) the sender opens a new one and goes on from the oldest batch that is not acknowledged; the
collector recognises by their numbers those that it has.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from collectord import wire
from collectord.buffer import Batch, Buffer, PublishError, Rejection, StaleEpoch, now

HEARTBEAT_MS = 2000
HEARTBEAT_TIMEOUT_MS = 10_000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2000
LONGEST_SLEEP = 60.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 5.0
"""Seconds to wait before going on after a setback: doubled with each, up to the longest."""

logger = logging.getLogger(__name__)


class Sender(threading.Thread):
    """The thread that owns the socket. What it knows of the collector, nobody else touches."""

    def __init__(
        self,
        buffer: Buffer,
        *,
        source: str,
        address: str,
        epoch: int,
        acknowledged: bool,
        window: int,
        reply_timeout: float,
        aggtypes: Mapping[str, Mapping[str, str]] | None,
        on_rejected: Callable[[Rejection], None] | None,
        on_restart: Callable[[int], None] | None,
        context: zmq.Context[zmq.Socket[bytes]] | None,
    ) -> None:
        super().__init__(name=f"publisher {source}", daemon=True)
        self.epoch = epoch
        self._buffer = buffer
        self._source = source
        self._address = address
        self._acknowledged = acknowledged
        self._window = window
        self._reply_timeout = reply_timeout
        self._aggtypes = aggtypes
        self._on_rejected = on_rejected
        self._on_restart = on_restart
        self._linger = 0.0
        self._last = 0
        """The number of the last batch that is acknowledged."""
        self._newest = 0
        """The number of the newest batch that was ever sent in this epoch."""
        self._in_flight = 0
        """How many of the buffer's oldest batches are sent on this connection, unanswered."""
        self._setbacks = 0
        """Since the last acknowledgement."""
        self._answer_due = 0.0
        self._pause_until = 0.0
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        try:
            self._connect()  # here, so that a wrong address is told to who gave it
        except zmq.ZMQError as error:
            self._disconnect(0)
            if self._own_context:
                self._context.term()
            buffer.silence()
            raise ValueError(
                f"cannot connect to {address!r}: {error}; write tcp://<host>:<port>"
            ) from error

    def stop(self, linger: float = 0.0) -> None:
        """End the thread and close what it had; without acknowledgement, within ``linger`` s."""
        self._linger = linger
        self._buffer.close()
        self.join()
        self._buffer.silence()

    def run(self) -> None:
        """Send and hear until ``stop``, or until going on makes no sense."""
        try:
            while not self._buffer.closed:
                self._turn()
        except PublishError as error:
            self._buffer.fail(error)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to: callers get it
            failure = PublishError(f"the publisher of {self._source} has stopped: {error!r}")
            failure.__cause__ = error
            self._buffer.fail(failure)
        finally:
            self._disconnect(0 if self._acknowledged else self._linger)
            if self._own_context:
                self._context.term()

    def _turn(self) -> None:
        """Send what may be sent, then sleep until there is something to do, and hear what came."""
        batch_due = self._buffer.seal_due()
        blocked = self._send_window()
        answer_due = self._answer_due if self._in_flight else math.inf
        pause_due = self._pause_until if self._pause_until > time.monotonic() else math.inf
        sleep = min(batch_due, answer_due, pause_due) - time.monotonic()

        self._poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if blocked else 0))
        # Rounded up: a sleep that ends just too early would be followed by many short ones.
        sleep_ms = int(min(max(sleep, 0.0), LONGEST_SLEEP) * 1000) + 1
        events = dict(self._poller.poll(sleep_ms))
        if self._buffer.bell.fileno() in events:
            self._buffer.bell.recv(4096)
        if self._socket in events:
            self._hear()
        if self._monitor in events:
            self._notice_disconnects()
        if self._in_flight and time.monotonic() >= self._answer_due:
            self._count("timeouts")
            logger.warning("%s has not answered for some time; sending again", self._address)
            self._start_over()

    def _send_window(self) -> bool:
        """Send the batches that are next; True if the transport takes no more for now."""
        if time.monotonic() < self._pause_until:
            return False
        while self._in_flight < min(self._window, len(self._buffer)):
            batch = self._buffer[self._in_flight]
            number = self._last + self._in_flight + 1
            try:
                self._socket.send(self._encode(batch, number), zmq.DONTWAIT)
            except zmq.Again:
                return True
            self._count("sent")
            if batch.attempts:
                self._count("resent")
            batch.attempts += 1
            if not self._acknowledged:
                self._buffer.settle(1)
                continue
            if self._in_flight == 0:
                self._expect_answer()
            self._in_flight += 1
            self._newest = max(self._newest, number)
        return False

    def _encode(self, batch: Batch, number: int) -> bytes:
        head = wire.encode_batch_head(
            self._source,
            0 if batch.refused else batch.records,
            time=batch.time,
            epoch=self.epoch if self._acknowledged else None,
            seq=number if self._acknowledged else None,
            aggtypes=self._aggtypes,
        )
        return head + batch.body

    def _hear(self) -> None:
        connection = self._socket
        while self._socket is connection:  # else what is left was an answer to what is over
            try:
                body = connection.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                answer = wire.decode(body)
            except ValueError as error:
                raise self._stranger(body) from error
            match answer:
                case {"resync": int(last)}:
                    self._resync(last)
                case {"error": {"code": str(code), "message": str(message)}}:
                    self._refused(code, message, answer.get("seq"))
                case {"seq": int(number), "applied": int(applied)}:
                    duplicate = bool(answer.get("duplicate"))
                    self._applied(number, applied, answer.get("rejected", []), duplicate)
                case _:
                    raise self._stranger(answer)

    def _stranger(self, answer: Any) -> PublishError:
        return PublishError(f"{self._address} doesn't answer as a collector does: {answer!r:.200}")

    def _applied(self, number: int, applied: int, rejected: list[Any], duplicate: bool) -> None:
        place = number - self._last - 1
        if not 0 <= place < self._in_flight:
            return  # acknowledged before
        batch = self._buffer[place]
        self._count("unreported", place + (duplicate and not batch.refused))
        if not duplicate and not batch.refused and applied < batch.records:
            self._report(batch, number, applied, rejected)
        self._settle(place + 1)

    def _report(self, batch: Batch, number: int, applied: int, rejected: list[Any]) -> None:
        records = wire.decode(self._encode(batch, number))["records"]
        for index, code, message in rejected:
            self._reject(
                Rejection(batch.first + index, 1, number, index, code, message, records[index])
            )
        unnamed = batch.records - applied - len(rejected)
        if unnamed > 0:
            message = f"more records of a batch were rejected than the {len(rejected)} named"
            self._reject(Rejection(batch.first, unnamed, number, None, "unnamed", message, None))

    def _refused(self, code: str, message: str, number: int | None) -> None:
        match code:
            case "overloaded":
                self._count("overloaded")
            case "malformed" | "too_large" if not self._acknowledged:
                self._reject(Rejection(0, 0, 0, None, code, message, None))
            case "malformed" | "too_large":
                # Answers come in order: one that doesn't say whose it is answers the oldest.
                place = 0 if number is None else number - self._last - 1
                if not 0 <= place < self._in_flight:
                    return
                batch = self._buffer[place]
                if batch.refused:
                    raise PublishError(
                        f"{self._address} refuses even an empty batch of {self._source}, "
                        f"{code}: {message}"
                    )
                self._buffer.empty(batch)
                number = self._last + place + 1
                self._reject(
                    Rejection(batch.first, batch.records, number, None, code, message, None)
                )
            case "stale_epoch":
                raise StaleEpoch(f"another, newer run of {self._source} is publishing: {message}")
            case _:
                raise PublishError(f"{self._address} refuses {self._source}, {code}: {message}")
        if self._acknowledged:
            self._start_over()

    def _resync(self, last: int) -> None:
        if self._last <= last <= self._newest:
            known = min(last - self._last, len(self._buffer))
            self._count("unreported", known)
            self._settle(known)
            self._start_over()
            return
        lost = max(0, self._last - last)
        logger.warning("%s has lost %d acknowledged batches; a new epoch", self._address, lost)
        self._count("restarts")
        self._count("forgotten", lost)
        self.epoch = max(self.epoch + 1, now())
        self._last = self._newest = 0
        self._start_over()
        if self._on_restart:
            self._on_restart(lost)

    def _reject(self, rejection: Rejection) -> None:
        logger.warning("%s rejected: %s", self._address, rejection)
        self._buffer.reject(rejection)
        if self._on_rejected:
            self._on_rejected(rejection)

    def _settle(self, batches: int) -> None:
        self._last += batches
        self._in_flight = max(0, self._in_flight - batches)
        if batches:
            self._setbacks = 0
            self._expect_answer()
        self._buffer.settle(batches)

    def _count(self, counter: str, by: int = 1) -> None:
        self._buffer.count(counter, by)

    def _expect_answer(self) -> None:
        self._answer_due = time.monotonic() + self._reply_timeout * 2 ** min(self._setbacks, 4)

    def _start_over(self) -> None:
        """Go on from the oldest batch on a new connection, a little later after each setback."""
        self._disconnect(0)
        self._connect()
        self._in_flight = 0
        pause = min(FIRST_PAUSE * 2**self._setbacks, LONGEST_PAUSE)
        self._pause_until = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._setbacks = min(self._setbacks + 1, 10)

    def _notice_disconnects(self) -> None:
        """A connection has ended, and what was on its way is gone.

        ZeroMQ connects again by itself, but for a moment still takes batches for the old one.
        """
        events = 0
        with contextlib.suppress(zmq.Again):
            while self._monitor.recv_multipart(zmq.DONTWAIT):
                events += 1
        self._count("disconnects", events)
        if events and self._acknowledged:
            self._start_over()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, self._window)
        # Without a connection nothing is taken: it waits here, where it is counted and bounded.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        # Without heartbeats a collector's machine that lost power would go unnoticed for long.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        monitoring = f"inproc://publisher-{id(self)}-{next(_connections)}"
        self._socket.monitor(monitoring, zmq.EVENT_DISCONNECTED)
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.connect(monitoring)
        self._poller = zmq.Poller()
        self._poller.register(self._buffer.bell, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(self._address)

    def _disconnect(self, linger: float) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger * 1000))


_connections = itertools.count()
