"""From the buffer to the collector's answer: the thread that speaks the protocol's ingest side.

What waits is ``buffer.py``; what callers see is ``publisher.py``.

A connection is the unit of order: on one, batches arrive and are answered in the order they were
sent. Whenever that order is in doubt (a lost connection, a gap, an overloaded collector, no answer
in time) the sender opens a new one and goes on from the oldest batch that is not acknowledged, one
batch first, then two, then four; the collector recognises by their numbers those that it has. One
that has crashed and lost acknowledged batches says so, and gets them again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import random
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from collectord import wire
from collectord.batch import Batch
from collectord.buffer import Buffer
from collectord.clock import now
from collectord.reports import PublishError, Rejection, StaleEpoch
from collectord.spool import Spool

if TYPE_CHECKING:
    from collectord.curve import Curve

HEARTBEAT_MS = 2000
HEARTBEAT_TIMEOUT_MS = 10_000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2000
LONGEST_SLEEP = 60.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 5.0
"""Seconds to wait before going on after a setback: doubled with each, up to the longest."""
RETURN_SPREAD = 0.5
"""Seconds in which the publishers of a collector that went away come back, each at some time."""
GREETING_AFTER = 0.3
"""Seconds after which a new connection on which nothing was sent gets an empty batch."""

REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
STAND_INS = 10_000
"""Empty batches that are sent in place of those that the collector lacks and nobody has."""

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
        heartbeat: float,
        aggtypes: Mapping[str, Mapping[str, str]] | None,
        on_rejected: Callable[[Rejection], None] | None,
        on_restart: Callable[[int], None] | None,
        context: zmq.Context[zmq.Socket[bytes]] | None,
        curve: Curve | None,
        spool: Spool | None,
    ) -> None:
        super().__init__(name=f"publisher {source}", daemon=True)
        self.epoch = epoch
        self._expired_at = (0, 0)
        self._buffer = buffer
        self._source = source
        self._address = address
        self._acknowledged = acknowledged
        self._window = window
        self._reply_timeout = reply_timeout
        self._heartbeat = heartbeat
        self._aggtypes = aggtypes
        self._on_rejected = on_rejected
        self._on_restart = on_restart
        self._curve = curve
        self._spool = spool
        self._linger = 0.0
        self._asking = spool is not None and spool.found.epoch is not None
        """First of all the collector must tell how far it has come: see ``_ask``."""
        self._asked = False
        self._credit = 1 if self._asking else window
        """How many batches may be in flight now: ``window``, but fewer after a new beginning."""
        self._setbacks = 0
        """Since the last acknowledgement."""
        self._silences = 0
        """Of these, the times that no answer came: the next is given twice as long."""
        self._answer_due = 0.0
        self._pause_until = 0.0
        self._beat_due = math.inf
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._was_heard = self._has_complained = False
        self._is_connecting = False
        """The socket was told where to connect to: after a setback, not before its pause."""
        try:
            self._new_socket()
            self._socket.connect(address)  # here, so that a wrong one is told to who gave it
            self._is_connecting = True
        except zmq.ZMQError as error:
            self._disconnect(0)
            if self._own_context:
                self._context.term()
            raise ValueError(
                f"cannot connect to {address!r}: {error}; write tcp://<host>:<port>"
            ) from error
        if math.isfinite(heartbeat):
            self._beat_due = monotonic() + GREETING_AFTER

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
            if self._spool:
                self._spool.finish(self._buffer, self.epoch)
            self._disconnect(0 if self._acknowledged else self._linger)
            if self._own_context:
                self._context.term()

    def _turn(self) -> None:
        """Send what may be sent, then sleep until there is something to do, and hear what came."""
        began = monotonic()
        batch_due = self._buffer.seal_due()
        blocked = self._send_window()
        awaited = self._asked or self._buffer.in_flight
        due = [batch_due, self._answer_due if awaited else math.inf, self._stall_due()]
        # These two may be over, and what they were for not possible yet. But one that was not over
        # when this turn began may have ended after it was looked at: then there is another turn.
        due += [time for time in (self._pause_until, self._beat_due) if time > began]
        if self._spool:
            due.append(self._spool.due())

        self._poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if blocked else 0))
        # Rounded up: a sleep that ends just too early would be followed by many short ones.
        sleep_ms = int(min(max(min(due) - monotonic(), 0.0), LONGEST_SLEEP) * 1000) + 1
        events = dict(self._poller.poll(sleep_ms))
        if self._buffer.bell.fileno() in events:
            self._buffer.bell.recv(4096)
        if self._socket in events:
            self._hear()
        if self._monitor in events:
            self._notice_disconnects()
        if (self._asked or self._buffer.in_flight) and monotonic() >= self._answer_due:
            self._buffer.count("timeouts")
            self._silences += 1
            logger.warning("%s has not answered for some time; sending again", self._address)
            self._start_over()

    def _stall_due(self) -> float:
        before = self._buffer.stalled
        due = self._buffer.stall_due()
        if self._buffer.stalled and not before and self._buffer.awaits_durability:
            logger.warning(
                "%s has made nothing durable for some time; where room is needed, "
                "acknowledged batches are let go",
                self._address,
            )
        return due

    def _send_window(self) -> bool:
        """Send the batches that are next; True if the transport takes no more for now."""
        if monotonic() < self._pause_until:
            self._save()
            return False
        if not self._is_connecting:
            self._socket.connect(self._address)
            self._is_connecting = True
        if self._asking:
            self._save()
            return not self._asked and not self._ask()
        while True:
            self._save()
            silent = self._buffer.waiting == 0 and monotonic() >= self._beat_due
            if not silent and self._buffer.in_flight >= min(self._credit, self._buffer.waiting):
                return False
            if not self._socket.poll(0, zmq.POLLOUT):
                return True  # so that nothing is taken, and no heartbeat made, without a connection
            if silent:
                self._buffer.beat()
            elif (taken := self._buffer.take(self._credit)) and not self._send(*taken):
                return True

    def _send(self, number: int, batch: Batch) -> bool:
        """Whether the transport has taken it."""
        try:
            self._socket.send(self._encode(batch, number), zmq.DONTWAIT)
        except zmq.Again:
            self._buffer.untake()
            return False
        self._buffer.count("sent")
        if batch.attempts:
            self._buffer.count("resent")
        batch.attempts += 1
        self._beat_due = monotonic() + self._heartbeat
        if not self._acknowledged:
            self._buffer.hand_over()
        elif self._buffer.in_flight == 1:
            self._expect_answer()
        return True

    def _save(self) -> None:
        if self._spool:
            self._spool.save(self._buffer, self.epoch)

    def _encode(self, batch: Batch, number: int) -> bytes:
        with self._buffer.lock:  # it may be dropped at any moment
            records, body = (0, b"") if batch.emptied else (batch.records, batch.body)
        head = wire.encode_batch_head(
            self._source,
            records,
            time=batch.time,
            epoch=self.epoch if self._acknowledged else None,
            seq=number if self._acknowledged else None,
            newest=self._buffer.last if self._acknowledged else None,
            aggtypes=self._aggtypes,
        )
        return head + body

    def _ask(self) -> bool:
        """Send a number that leaves a gap, to be told how far the collector has come.

        The end of a spool may be missing. A collector that knows more than what was found would
        take what is new under those numbers for what it has, and pass over it.
        """
        number = self._buffer.newest + 2
        body = wire.encode_batch_head(
            self._source, 0, epoch=self.epoch, seq=number, newest=self._buffer.last
        )
        try:
            self._socket.send(body, zmq.DONTWAIT)
        except zmq.Again:
            return False
        self._asked = True
        self._expect_answer()
        return True

    def _told(self, last: int) -> None:
        """The answer: it has come to ``last``, or somewhere after what was found."""
        self._asking = self._asked = False
        if last <= self._buffer.newest:
            self._resync(last)
            return
        logger.warning("%s knows of later batches than the spool; a new epoch", self._address)
        self._buffer.acknowledge(self._buffer.newest)
        self._buffer.let_go()
        self._begin_epoch()

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
            self._take_in(answer)

    def _take_in(self, answer: Any) -> None:
        if isinstance(answer, dict) and answer.get("expired"):
            self._expired(answer["expired"])  # before anybody hears that his batch has arrived
        match answer:
            case {"error": {"code": str(code), "message": str(message)}}:
                self._refused(code, message, answer.get("seq"))
            case {"resync": int(last)} | {"seq": int(last), "applied": int()} if self._asking:
                self._told(last)
            case {"resync": int(last)}:
                self._resync(last)
            case {"seq": int(number), "applied": int(applied), "durable": int(durable)}:
                duplicate = bool(answer.get("duplicate"))
                self._applied(number, applied, answer.get("rejected", []), duplicate)
                if durable <= number <= self._buffer.newest:
                    self._buffer.release(durable)
            case _:
                raise self._stranger(answer)

    def _stranger(self, answer: Any) -> PublishError:
        return PublishError(f"{self._address} doesn't answer as a collector does: {answer!r:.200}")

    def _expired(self, number: int) -> None:
        """The collector has removed what batches before this one told; it says so many times."""
        if self._expired_at == (self.epoch, number):
            return
        self._expired_at = self.epoch, number
        logger.warning("%s has removed the records of %s", self._address, self._source)
        self._buffer.count("expired")
        if self._on_restart:
            self._on_restart(0)

    def _applied(self, number: int, applied: int, rejected: list[Any], duplicate: bool) -> None:
        place = number - self._buffer.acknowledged - 1
        if not 0 <= place < self._buffer.in_flight:
            return  # acknowledged before
        batch = self._buffer.waiting_at(place)
        if not duplicate and not batch.emptied and not batch.answered and applied < batch.records:
            self._report(batch, number, applied, rejected)
        self._settle(number, reported=1 - duplicate)

    def _report(self, batch: Batch, number: int, applied: int, rejected: list[Any]) -> None:
        records = wire.decode(self._encode(batch, number))["records"]
        for index, code, message in rejected:
            record = records[index] if index < len(records) else None  # else dropped meanwhile
            self._reject(Rejection(batch.first + index, 1, number, index, code, message, record))
        unnamed = batch.records - applied - len(rejected)
        if unnamed > 0:
            message = f"more records of a batch were rejected than the {len(rejected)} named"
            self._reject(Rejection(batch.first, unnamed, number, None, "unnamed", message, None))

    def _refused(self, code: str, message: str, number: int | None) -> None:
        match code:
            case "overloaded":
                self._buffer.count("overloaded")
            case "malformed" | "too_large" if not self._acknowledged:
                self._reject(Rejection(0, 0, 0, None, code, message, None))
            case "malformed" | "too_large":
                # Answers come in order: one that doesn't say whose it is answers the oldest.
                place = 0 if number is None else number - self._buffer.acknowledged - 1
                if not 0 <= place < self._buffer.in_flight:
                    return
                batch = self._buffer.waiting_at(place)
                if batch.emptied or not batch.records:
                    raise PublishError(
                        f"{self._address} refuses even an empty batch of {self._source}, "
                        f"{code}: {message}"
                    )
                self._buffer.empty(batch)
                number = self._buffer.acknowledged + place + 1
                self._reject(
                    Rejection(batch.first, batch.records, number, None, code, message, None)
                )
            case "unauthorised" if self._was_heard:  # a key that was taken away may come back
                self._complain("%s does not let this key send any more")
            case "stale_epoch":
                raise StaleEpoch(f"another, newer run of {self._source} is publishing: {message}")
            case _:
                raise PublishError(f"{self._address} refuses {self._source}, {code}: {message}")
        if self._acknowledged:
            self._start_over()

    def _resync(self, last: int) -> None:
        if self._buffer.released <= last <= self._buffer.newest:
            again = self._buffer.acknowledged - last
            if again > 0:
                logger.warning("%s has lost %d batches; sending again", self._address, again)
                self._buffer.count("returns")
                self._buffer.go_back(last)
            elif again < 0:
                self._settle(last)
            self._start_over()
            return
        lost = max(0, self._buffer.released - last)
        self._buffer.count("forgotten", lost)
        if 0 < last < self._buffer.released and lost <= STAND_INS:
            logger.warning("%s has lost %d batches that are not here any more", self._address, lost)
            self._buffer.stand_in(last)
            self._start_over()
        else:
            logger.warning("%s has lost %d acknowledged batches; a new epoch", self._address, lost)
            self._buffer.count("restarts")
            self._begin_epoch()
        if self._on_restart:
            self._on_restart(lost)

    def _begin_epoch(self) -> None:
        self.epoch = max(self.epoch + 1, now())
        self._buffer.number_anew()
        self._start_over()

    def _reject(self, rejection: Rejection) -> None:
        logger.warning("%s rejected: %s", self._address, rejection)
        self._buffer.reject(rejection)
        if self._on_rejected:
            self._on_rejected(rejection)

    def _settle(self, number: int, *, reported: int = 0) -> None:
        """All batches up to this number are applied; told were the answers of the last few."""
        batches = number - self._buffer.acknowledged
        unreported = [self._buffer.waiting_at(place) for place in range(batches - reported)]
        self._buffer.count(
            "unreported",
            sum(
                bool(batch.records) and not batch.answered and not batch.emptied
                for batch in unreported
            ),
        )
        self._setbacks = self._silences = 0
        self._was_heard, self._has_complained = True, False
        self._credit = min(2 * self._credit, self._window)
        self._expect_answer()
        self._buffer.acknowledge(number)

    def _expect_answer(self) -> None:
        self._answer_due = monotonic() + self._reply_timeout * 2 ** min(self._silences, 4)

    def _start_over(self, spread: float = 0.0) -> None:
        """Go on from the oldest batch on a new connection, a little later after each setback."""
        self._disconnect(0)
        self._new_socket()
        self._is_connecting = False
        self._asked = False
        self._credit = 1
        self._buffer.rewind()
        pause = min(FIRST_PAUSE * 2**self._setbacks, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
        self._pause_until = monotonic() + pause + random.uniform(0.0, spread)  # noqa: S311
        self._beat_due = self._pause_until + GREETING_AFTER
        self._setbacks = min(self._setbacks + 1, 10)

    def _notice_disconnects(self) -> None:
        """A connection has ended, and what was on its way is gone.

        ZeroMQ connects again by itself, but for a moment still takes batches for the old one.
        """
        events = []
        with contextlib.suppress(zmq.Again):
            while True:
                told = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
                events.append(told["event"])
        self._buffer.count("disconnects", events.count(zmq.EVENT_DISCONNECTED))
        refused = [event for event in events if event in REFUSALS]
        # One that just went away, in the middle of a handshake, looks alike once, but not again.
        if refused and (refused != [zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL] or self._setbacks > 1):
            self._complain("%s refuses the connection: look at the keys on both sides")
        if events:  # libzmq would not come back from a key that was refused
            self._start_over(RETURN_SPREAD)

    def _complain(self, what: str) -> None:
        """Say what goes on for long once, until something was acknowledged again."""
        if not self._has_complained:
            logger.warning(what, self._address)
        self._has_complained = True

    def _new_socket(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, self._window)
        # Without a connection nothing is taken: it waits here, where it is counted and bounded.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        spread = random.uniform(0.5, 1.5)  # noqa: S311
        self._socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_MS * spread))
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        # Without heartbeats a collector's machine that lost power would go unnoticed for long.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        monitoring = f"inproc://publisher-{id(self)}-{next(_connections)}"
        self._socket.monitor(monitoring, zmq.EVENT_DISCONNECTED | sum(REFUSALS))
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.connect(monitoring)
        self._poller = zmq.Poller()
        self._poller.register(self._buffer.bell, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        if self._curve:
            self._curve.apply(self._socket)

    def _disconnect(self, linger: float) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger * 1000))


_connections = itertools.count()
