"""Stand-ins for a collector's sockets that can be told to misbehave, as a real one hardly can.

``FakeServer`` answers on a ROUTER socket with what a function makes of each body. ``FakeCollector``
is one that takes batches as the protocol says, until its ``faults`` say otherwise. ``Answers`` is
such a function, for queries. ``FakeStream`` publishes changes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq

from collectord import wire

if TYPE_CHECKING:
    from typing_extensions import Self


class FakeServer:
    """Answers each message with ``handle(body)``; not at all where that is None."""

    def __init__(self, handle: Callable[[bytes], bytes | None]) -> None:
        self._handle = handle
        self._endpoint = "tcp://127.0.0.1:*"
        self.start()

    @property
    def address(self) -> str:
        return self._endpoint

    def start(self) -> None:
        """Listen; after ``stop`` at the same address as before."""
        self._context = zmq.Context()
        router = self._context.socket(zmq.ROUTER)
        router.bind(self._endpoint)
        self._endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        stop = self._context.socket(zmq.PAIR)
        stop.bind("inproc://stop")
        self._stop = self._context.socket(zmq.PAIR)
        self._stop.connect("inproc://stop")
        self._thread = threading.Thread(target=self._serve, args=(router, stop))
        self._thread.start()

    def push(self, body: bytes) -> None:
        """Send something to who spoke last."""
        self._stop.send(body)

    def stop(self) -> None:
        """Close the socket at once: what came and was not read is lost."""
        self._stop.send(b"")
        self._thread.join()
        self._stop.close(linger=0)
        self._context.term()

    def _serve(self, router: zmq.Socket[bytes], stop: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(stop, zmq.POLLIN)
        with router, stop:
            router.linger = 0
            envelope: list[bytes] = []
            while True:
                ready = dict(poller.poll())
                if router in ready:
                    *envelope, body = router.recv_multipart()
                    reply = self._handle(body)
                    if reply is not None:
                        router.send_multipart([*envelope, reply])
                elif not (unasked := stop.recv()):
                    return
                else:
                    router.send_multipart([*envelope, unasked])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class FakeCollector(FakeServer):
    """The ingest side of the protocol, in memory.

    ``faults`` are used up one for each batch that comes: ``lose`` (as if it had never come),
    ``lose_reply``, ``reject`` (its first record), ``garbage`` (an answer that is none), or an error
    code. ``silent`` loses everything while it is true; ``gate`` holds answers back while cleared.

    ``saves`` says whether what is applied is durable at once; else ``save`` makes it so, and after
    a ``crash`` only what is durable is left. Answers tell ``expired`` if that is set.
    """

    def __init__(self) -> None:
        self.faults: deque[str] = deque()
        self.gate = threading.Event()
        self.gate.set()
        self.received: list[dict[str, Any]] = []
        self.silent = False
        self.saves = True
        self.expired = 0
        self.changed = threading.Condition()
        self.forget()
        super().__init__(self._ingest)

    def forget(self) -> None:
        """Lose everything, as a collector does that is started without its snapshots."""
        self.records: list[list[Any]] = []
        self.epoch: int | None = None
        self.last = self.durable = 0
        self._saved: tuple[int | None, int, int] = (None, 0, 0)

    def save(self) -> None:
        """Make durable what is applied."""
        with self.changed:
            self._saved = self.epoch, self.last, len(self.records)
            self.durable = self.last

    def tell_durable(self) -> None:
        """Tell the publisher, though it has not sent anything."""
        self.push(wire.encode_durable(self.last, self.durable))

    def crash(self) -> None:
        """Fall back to what was saved."""
        with self.changed:
            self.epoch, self.last, records = self._saved
            self.durable = self.last
            del self.records[records:]

    @property
    def sizes(self) -> list[int]:
        """The records of each batch that came, without heartbeats."""
        return [len(batch["records"]) for batch in self.received if batch["records"]]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until it is true, by something that came or in the client itself."""
        deadline = time.monotonic() + 20
        with self.changed:
            while not condition():
                assert time.monotonic() < deadline, self.received[-3:]
                self.changed.wait(0.05)

    def stop(self) -> None:
        self.gate.set()
        super().stop()

    def _ingest(self, body: bytes) -> bytes | None:
        reply = self._take(wire.decode(body))
        self.gate.wait()
        return None if reply is None else wire.encode(reply)

    def _take(self, batch: dict[str, Any]) -> dict[str, Any] | str | None:
        with self.changed:
            self.received.append(batch)
            self.changed.notify_all()
            fault = self.faults.popleft() if self.faults else ""
            if fault == "lose" or self.silent:
                return None
            if "seq" not in batch and fault:
                return {"error": {"code": fault, "message": "as told"}}
            if "seq" not in batch:
                self.records += batch["records"]
                return None
            reply = self._apply(batch, fault)
            self.changed.notify_all()
        if fault == "garbage":
            return "no map"
        return None if fault == "lose_reply" else reply

    def _apply(self, batch: dict[str, Any], fault: str) -> dict[str, Any]:
        epoch, seq, records = batch["epoch"], batch["seq"], batch["records"]
        if self.epoch is not None and epoch < self.epoch:
            return {"error": {"code": "stale_epoch", "message": "an older run"}, "seq": seq}
        if fault not in ("", "reject", "lose_reply", "garbage"):
            return {"error": {"code": fault, "message": "as told"}, "seq": seq}
        if epoch != self.epoch and seq != 1:
            return {"resync": 0}
        if epoch != self.epoch:
            self.epoch, self.last, self.durable = epoch, 0, 0
        if seq <= self.last:
            return {"seq": seq, "applied": 0, "durable": self.durable, "duplicate": True}
        if seq > self.last + 1:
            return {"resync": self.last}
        self.last = seq
        reply: dict[str, Any] = {"seq": seq, "applied": len(records)}
        if fault == "reject":
            reply["applied"] -= 1
            reply["rejected"] = [[0, "future", "more than 60 s ahead"]]
            records = records[1:]
        self.records += records
        if self.saves:
            self.save()
        reply["durable"] = self.durable
        if self.expired:
            reply["expired"] = self.expired
        return reply


class Answers:
    """Answers queries with what ``replies`` hold, in turn; not at all with None.

    When there are none left it says that every key's view is the key.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.replies: deque[Any] = deque()

    def __call__(self, body: bytes) -> bytes | None:
        request = wire.decode(body)
        self.requests.append(request)
        reply = self.replies.popleft() if self.replies else {"ok": True, "uve": request["key"]}
        return reply if reply is None or isinstance(reply, bytes) else wire.encode(reply)


class FakeStream:
    """The PUB side of the stream, which knows when somebody has subscribed."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.bind("tcp://127.0.0.1:*")
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for_subscription(self, prefix: str) -> None:
        assert self._socket.poll(20_000)
        assert self._socket.recv() == b"\x01" + prefix.encode()

    def send(self, key: str, struct: str, value: dict[str, Any] | None) -> None:
        """A struct's new value, or with None that it is gone."""
        change = {"deleted": True} if value is None else {"value": value}
        body = wire.encode({"key": key, "struct": struct, **change})
        self._socket.send_multipart([key.encode(), body])

    def send_alarms(self, key: str, alarms: list[dict[str, Any]] | None) -> None:
        """All alarms of a key, or with None that it has none any more."""
        change = {"deleted": True} if alarms is None else {"value": {"alarms": alarms}}
        body = wire.encode({"key": key, "struct": wire.ALARMS, **change})
        self._socket.send_multipart([wire.ALARM_TOPIC + key.encode(), body])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._context.term()
