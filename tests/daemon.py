"""A collector as its users meet it: a process of its own, spoken to over its sockets.

``Daemon`` starts ``python -m collectord`` on free ports and ends it. ``Source``, ``Daemon.ask`` and
``Subscription`` speak to its three sockets in plain ZeroMQ, so that a test shows what travels.
What the process writes to standard error goes to the test's own, and is kept in ``log``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import msgpack
import pytest
import zmq

DEADLINE = 10.0
"""Seconds after which a test gives up on something that should have happened at once."""
STRUCT = "UveVirtualNetworkAgent"
METRIC = f"{STRUCT}-egress_flow_count"
PERIOD = 60_000_000
"""Microseconds of a period."""
HISTORY = 1_600_000_020_000_000
"""The start of a period long ago, in microseconds."""

BAD_TYPES: dict[str, Any] = {
    "nil": None,
    "true": True,
    "integer": 5,
    "negative": -1,
    "float": 1.5,
    "infinity": float("inf"),
    "text": "x",
    "bytes": b"x",
    "array": [1],
    "map": {"x": 1},
    "extension": msgpack.ExtType(5, b"x"),
}
"""A value of each type that msgpack has."""

Value = TypeVar("Value")
_numbers = itertools.count(1)
_state_home = tempfile.TemporaryDirectory(prefix="collectord-tests-", ignore_cleanup_errors=True)


def all_but(*names: str) -> list[Any]:
    """One value of each type but these, for ``pytest.mark.parametrize``."""
    return [pytest.param(bad, id=name) for name, bad in BAD_TYPES.items() if name not in names]


def new_key(table: str = "ObjectVNTable") -> str:
    """A key that no other test has."""
    return f"{table}:default-domain:demo:vn{next(_numbers)}"


def new_source() -> str:
    """A source that no other test has."""
    return f"host-{next(_numbers)}:Compute:contrail-vrouter-agent:0"


def until(look: Callable[[], Value]) -> Value:
    """What ``look`` gives as soon as that is true."""
    end = time.monotonic() + DEADLINE
    while not (value := look()):
        assert time.monotonic() < end, f"it never came; the last look gave {value!r}"
        time.sleep(0.01)
    return value


def unpack(body: bytes) -> Any:
    """The value of a body, whose texts need not all be UTF-8."""
    return msgpack.unpackb(body, strict_map_key=False, unicode_errors="surrogateescape")


def poll(socket: zmq.Socket[bytes], timeout: float = DEADLINE) -> list[bytes] | None:
    """The frames of the next message, or None where none comes in ``timeout`` seconds."""
    return socket.recv_multipart() if socket.poll(int(timeout * 1000)) else None


def receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    """The frames of the next message; fails where none comes."""
    frames = poll(socket)
    assert frames is not None, "nothing came"
    return frames


class Source:
    """A DEALER that sends batches; ``name`` is the source it sends as."""

    def __init__(self, endpoint: str, name: str | None = None) -> None:
        self.name = name or new_source()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.connect(endpoint)
        self._seq = 0

    def batch(self, *records: Sequence[Any], **fields: Any) -> dict[str, Any]:
        """A batch of this source, without a number."""
        return {"source": self.name, "records": list(records), **fields}

    def post(self, batch: Any) -> None:
        """Send a batch, or the bytes of one, and look no further."""
        self.socket.send(batch if isinstance(batch, bytes) else msgpack.packb(batch))

    def answer(self, timeout: float = DEADLINE) -> Any:
        """The next answer; fails where none comes."""
        frames = poll(self.socket, timeout)
        assert frames is not None, "the batch was not answered"
        (body,) = frames
        return unpack(body)

    def send(self, batch: Any) -> Any:
        """The answer to a batch, or to the bytes of one."""
        self.post(batch)
        return self.answer()

    def tell(self, *records: Sequence[Any], **fields: Any) -> Any:
        """The answer to records in a batch that has the next number of epoch 1."""
        self._seq += 1
        reply = self.send_numbered(self._seq, *records, **fields)
        assert "duplicate" not in reply, "another test has sent as this source"
        return reply

    def send_numbered(self, seq: int, *records: Sequence[Any], **fields: Any) -> Any:
        """The answer to a batch of epoch 1; what a silent source is told is no answer."""
        self.post(self.batch(*records, epoch=1, seq=seq, **fields))
        while (reply := self.answer()).get("duplicate") and reply["seq"] != seq:
            pass
        return reply

    def settle(self) -> None:
        """Wait until all that was posted is dealt with; fails where any of it was answered."""
        name = new_source()
        reply = self.send({"source": name, "epoch": 1, "seq": 1, "records": []})
        assert reply == {"seq": 1, "applied": 0, "durable": 0}

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)
        self._context.term()


class Subscription:
    """A SUB socket; ``name`` of a struct and its message as they come."""

    def __init__(self, endpoint: str, topic: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self.socket.connect(endpoint)
        self.socket.subscribe(topic)

    def poll(self, timeout: float = DEADLINE) -> dict[str, Any] | None:
        """The next message, whose topic is its key, or that of its alarms; None where none comes in
        ``timeout`` s."""
        frames = poll(self.socket, timeout)
        if frames is None:
            return None
        topic, body = frames
        message: dict[str, Any] = unpack(body)
        key = message["key"].encode()
        assert topic == (b"alarm:" + key if message["struct"] == "UVEAlarms" else key)
        return message

    def next(self) -> dict[str, Any]:
        """The next message; fails where none comes."""
        message = self.poll()
        assert message is not None, "it was never published"
        return message

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that is ``wanted``; those before it are passed over."""
        while not wanted(message := self.next()):
            pass
        return message

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)
        self._context.term()


class Daemon:
    """A running collector, given these arguments; its ports are free ones.

    Where it ends with the block, it must end well: exit code 0, no traceback, nothing critical.
    """

    def __init__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        ports = [
            part for name in ("COLLECTOR", "QUERY", "STREAM") for part in (f"--{name}.port=0",)
        ]
        self.log: list[str] = []
        self.expected_code = 0
        """Any other exit code is no good end, unless it was killed."""
        self.may_be_critical = False
        """Whether the log may have critical lines."""
        self._was_killed = False
        self._told = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collectord", *ports, *arguments],
            env={**clean_environment(), **(environ or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            notice = self.await_log("serves: ")
        except BaseException:
            self.kill()
            raise
        self.ingest, self.query, self.stream = re.findall(r"tcp://[^,\s]+", notice)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                os.write(2, line.encode())
                with self._told:
                    self.log.append(line)
                    self._told.notify_all()

    def await_log(self, text: str, after: int = 0) -> str:
        """The first line of the log with ``text``, from line ``after`` on."""

        def found() -> str | None:
            return next((line for line in self.log[after:] if text in line), None)

        with self._told:
            line = self._told.wait_for(found, DEADLINE)
        assert line, f"the log never said {text!r}:\n{''.join(self.log)}"
        return line

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once the process has ended and its log is read."""
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def stop(self) -> int:
        """Ask the process to end; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End the process, whatever it does, as a crash would."""
        self._was_killed = True
        self.process.kill()
        self.wait()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            code = self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        log = "".join(self.log)
        assert code == self.expected_code or self._was_killed, log
        assert "Traceback" not in log, log
        assert self.may_be_critical or " SYS_CRIT " not in log, log

    def source(self, name: str | None = None) -> Source:
        return Source(self.ingest, name)

    def subscribe(self, topic: str) -> Subscription:
        """A subscription that the collector knows of."""
        before = self.counter("subscriptions")
        subscription = Subscription(self.stream, topic)
        until(lambda: self.counter("subscriptions") > before)
        return subscription

    def ask_raw(self, *frames: bytes) -> list[bytes]:
        """The frames of the answer to a message on the query socket."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self.query)
            socket.send_multipart(frames)
            return receive(socket)

    def ask_body(self, body: bytes) -> bytes:
        """The body of the reply to a request's."""
        (reply,) = self.ask_raw(body)
        return reply

    def ask(self, op: Any, **fields: Any) -> Any:
        """The reply to a request in msgpack."""
        request = msgpack.packb({"op": op, **fields})
        return unpack(self.ask_body(request))

    def ask_json(self, op: Any, **fields: Any) -> Any:
        """The reply to a request in JSON."""
        return json.loads(self.ask_body(json.dumps({"op": op, **fields}).encode()))

    def uve(self, key: str, **filters: Any) -> Any:
        """The view of a key, or None where there is none."""
        reply = self.ask("get", key=key, **filters)
        assert reply["ok"] or reply["error"]["code"] == "not_found", reply
        return reply.get("uve")

    def assert_goes_on(self) -> None:
        """Whoever sends and asks finds the collector as it should be."""
        key = new_key()
        with self.source() as source:
            assert source.tell([key, STRUCT, {"a": 1}]) == {"seq": 1, "applied": 1, "durable": 0}
        assert self.uve(key) == {STRUCT: {"a": 1}}

    def counter(self, name: str) -> int:
        count: int = self.ask("status")["counters"][name]
        return count


def nested(depth: int) -> bytes:
    """``depth`` arrays, each but the innermost with the next one in it, as msgpack."""
    return b"\x91" * (depth - 1) + b"\x90"


def batch_with(value: bytes, source: Source) -> tuple[str, bytes]:
    """A key, and a batch with number 1 whose record of it has the msgpack ``value`` in ``a``."""
    key = new_key()
    head = msgpack.packb({"source": source.name, "epoch": 1, "seq": 1})
    body = b"\x84" + head[1:] + msgpack.packb("records") + b"\x91\x93"
    return key, body + msgpack.packb(key) + msgpack.packb(STRUCT) + b"\x81\xa1a" + value


def refusal(reply: Any) -> Any:
    """The code of an answer that refuses the whole batch."""
    assert "applied" not in reply
    return reply["error"]["code"]


def rejection(reply: Any) -> Any:
    """The code of the one record of a batch that was refused; the batch itself was taken."""
    ((index, code, message),) = reply["rejected"]
    assert (index, reply["applied"], bool(message)) == (0, 0, True)
    return code


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``collectord`` with these arguments does that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "collectord", *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without what is a collector's, and with another state directory.

    A supervisor of the tests is none of the collectors'.
    """
    supervisor = ("NOTIFY_SOCKET", "STATE_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC")
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith("COLLECTORD_") and name not in supervisor
        },
        "XDG_STATE_HOME": _state_home.name,
    }
