"""The ingest socket: batches in, answers out, on a thread of its own.

What lives here is the way of messages: frames, order, answers. What a batch is, and what becomes
of it, is the engine's. One drain of the socket takes what has come, hands it over in one call
without the GIL, and then answers.

An answer is also the credit of who sends: it keeps no more than its window under way. Nothing is
taken off the socket before it can be applied, so that a collector that falls behind answers later,
what waits stays in the bounded queues of libzmq and of TCP, and the senders are slowed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from collectord import wire
from collectord.clock import Clock
from collectord.engine import Engine, Outcome, Speaker

if TYPE_CHECKING:
    from collectord.access import Access

log = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 512
BYTES_AT_ONCE = 4 << 20
"""A drain ends here, so that what came first doesn't wait long for its answer."""
MESSAGES_WAITING = 128
"""Messages of one peer that may wait before its connection does. libzmq counts messages, not bytes,
so the fewer the better; with a thousand, short ones come a tenth faster, with 64 a fifth slower. It
can't be changed under way: a connection whose bound shrinks below what has passed may stand still.
"""
TURN_MS = 100
"""The thread looks around at least this often, also when nothing comes."""
SPOKEN = ("applied", "duplicate")
"""What becomes of batches of a source's newest run: it is told there what has become durable."""
QUIET = 1_000_000
"""Microseconds after which a source is silent, and is told by itself what has become durable."""
RECEIVED = 8
"""Times ``message_size`` a message is still received, only to be answered with ``too_large``; the
peer of a larger one is disconnected by libzmq before it is in memory."""
ANSWERS_WAITING = 10_000
"""Answers that may wait for one peer, more than one that reads ever lets wait: libzmq's own bound
of 1,000 is passed where a peer sends a burst, and its answers come at once."""
LINGER = 1000
"""Milliseconds to take what has come when the socket closes, and again for answers to leave."""


class Ingest:
    """Owns the ROUTER on which sources send; ``counters`` is for reading by anyone.

    The socket belongs to the thread between ``start`` and ``stop``. Raises zmq.ZMQError where the
    endpoint can't be bound.
    """

    def __init__(
        self,
        engine: Engine,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        message_size: int,
        clock: Clock,
        on_failure: Callable[[BaseException], None],
        access: Access | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter(answers=0, answers_dropped=0, frames_refused=0)
        self.turns = 0
        """Grows at least once in a second while the thread is alive and well."""
        self._waited = 0.0
        self._waits_since = 0.0
        self._engine = engine
        self._access = access if access is not None and access.secured else None
        self._peers: dict[int, bytes] = {}
        """Over which connection a source was last heard that wants answers."""
        self._clock = clock
        self._on_failure = on_failure
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, LINGER)
        self._socket.setsockopt(zmq.RCVHWM, MESSAGES_WAITING)
        self._socket.setsockopt(zmq.SNDHWM, ANSWERS_WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, RECEIVED * message_size)
        # Without it, an answer to a peer that is gone or doesn't read would vanish uncounted.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)  # who lost power does not say so
        if access is not None:
            access.serve_socket(self._socket, "ingest")
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        # Told to end through a socket, so that the thread sleeps in one poll for both.
        self._stop_sender = context.socket(zmq.PAIR)
        self._stop_receiver = context.socket(zmq.PAIR)
        self._stop_receiver.bind(f"inproc://ingest-stop-{id(self)}")
        self._stop_sender.connect(f"inproc://ingest-stop-{id(self)}")
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    def stop(self) -> None:
        """Apply and answer what has come, then close the socket."""
        if self._thread.is_alive():
            self._stop_sender.send(b"")
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Close the sockets; the thread has ended, or never began."""
        for socket in (self._socket, self._stop_sender, self._stop_receiver):
            socket.close(LINGER)

    def _run(self) -> None:
        try:
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLIN)
            poller.register(self._stop_receiver, zmq.POLLIN)
            tell_at = time.monotonic()
            while self._stop_receiver not in self._wait(poller):
                self._drain()
                self.turns += 1
                if time.monotonic() >= tell_at:
                    self._tell_silent()
                    tell_at = time.monotonic() + QUIET / 1_000_000
            end = time.monotonic() + LINGER / 1000
            while self._drain() and time.monotonic() < end:
                pass  # some sources never stop
        except BaseException as error:
            self._on_failure(error)
            raise

    def waited(self) -> float:
        """Seconds for which the thread has had nothing to do so far; for any thread."""
        since = self._waits_since
        return self._waited + (time.monotonic() - since if since else 0.0)

    def _wait(self, poller: zmq.Poller) -> dict[Any, int]:
        self._waits_since = begun = time.monotonic()
        ready = dict(poller.poll(TURN_MS))
        self._waits_since = 0.0
        self._waited += time.monotonic() - begun
        return ready

    def _drain(self) -> int:
        """Take, apply and answer what is there, up to a bound; returns the number of messages.

        Two plain ``recv`` calls a message: ``recv_multipart`` costs several times as much. The body
        comes as a frame, which knows whether more follows; asking the socket costs more than that.
        """
        receive = self._socket.recv
        identities: list[bytes] = []
        batches: list[bytes] = []
        speakers: list[Speaker | None] | None = None if self._access is None else []
        delimited: set[int] = set()
        taken = size = 0
        try:
            while taken < MESSAGES_AT_ONCE and size < BYTES_AT_ONCE:
                identity = receive(zmq.DONTWAIT)
                frame = receive(copy=False)
                taken += 1
                if frame.more:
                    body = self._receive_rest(frame, identity, delimited, len(batches))
                    if body is None:
                        continue
                    frame = body
                identities.append(identity)
                batch = frame.bytes
                batches.append(batch)
                size += len(batch)
                if self._access is not None and speakers is not None:
                    speakers.append(self._access.speaker(frame))
        except zmq.Again:
            pass  # nothing more has come
        outcomes = self._engine.apply_many(
            batches, self._clock.wall(), self._clock.steady(), speakers
        )
        for at, outcome in enumerate(outcomes):
            if outcome is not None:
                self._settle(identities[at], at in delimited, outcome)
        return taken

    def _tell_silent(self) -> None:
        """Sources that send nothing now hear, too, of what has become durable."""
        for source, seq, durable in self._engine.untold(self._clock.steady(), QUIET):
            identity = self._peers.get(source)
            if identity is not None:
                self._answer(identity, False, wire.encode_durable(seq, durable))

    def _receive_rest(
        self, frame: zmq.Frame, identity: bytes, delimited: set[int], at: int
    ) -> zmq.Frame | None:
        """The body of message ``at``, of which ``frame`` was not the last; None if it is refused.

        It may follow a REQ's empty delimiter; anything longer is no batch.
        """
        has_delimiter = not frame.bytes
        if has_delimiter:
            frame = self._socket.recv(copy=False)
        if not frame.more:
            delimited.add(at)
            return frame
        while frame.more:
            frame = self._socket.recv(copy=False)
        self.counters["frames_refused"] += 1
        refusal = wire.encode_error("malformed", "a message holds one frame, the batch")
        self._answer(identity, has_delimiter, refusal)
        return None

    def _settle(self, identity: bytes, delimited: bool, outcome: Outcome) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s %s", outcome.status, outcome.message, outcome.rejected)
        if outcome.source is not None and outcome.seq is not None and outcome.status in SPOKEN:
            if delimited:  # a REQ hears nothing that it did not ask for
                self._peers.pop(outcome.source, None)
            else:
                self._peers[outcome.source] = identity
        if outcome.answer:
            self._answer(identity, delimited, wire.encode_outcome(outcome))

    def _answer(self, identity: bytes, delimited: bool, body: bytes) -> None:
        try:
            self._socket.send(identity, zmq.SNDMORE | zmq.DONTWAIT)
            if delimited:
                self._socket.send(b"", zmq.SNDMORE | zmq.DONTWAIT)
            self._socket.send(body, zmq.DONTWAIT)
            self.counters["answers"] += 1
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            # The peer is gone, or has not read its answers for long: it will ask again.
            self.counters["answers_dropped"] += 1
