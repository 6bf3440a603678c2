"""What the tests of the notifiers share: notifications, and receivers that behave as they are told.

A ``Receiver`` is a real HTTP server on a port that was free, in the event loop of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from collectord import settings
from collectord.alarms.notification import Kind, Notification, Notifier
from collectord.alarms.rules import Rule
from daemon import DEADLINE

Value = TypeVar("Value")
START = 1_795_000_000_000_000


def rule(name: str = "flood", **fields: Any) -> Rule:
    """A rule that wants more than 3 errors."""
    condition = {
        "operation": ">",
        "operand1": "Ports.ports.*.errors",
        "operand2": {"json_value": "3"},
    }
    return Rule.model_validate(
        {
            "name": name,
            "uve_keys": ["ObjectVNTable"],
            "severity": 1,
            "description": "too many errors",
            "alarm_rules": {"or_list": [{"and_list": [condition]}]},
            **fields,
        }
    )


FLOOD = rule(labels={"team": "network"})


def matched(*values: str, variables: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What held: a match for each of the values, which are JSON."""
    condition = {
        "operation": ">",
        "operand1": "Ports.ports.*.errors",
        "operand2": {"json_value": "3"},
        "variables": list(variables or ()),
    }
    match = [
        {"json_operand1_value": value, "json_variables": dict(variables or {})} for value in values
    ]
    return [{"and_list": [{"condition": condition, "match": match}]}]


def told(
    kind: Kind = Kind.RAISED,
    key: str = "ObjectVNTable:demo:vn1",
    of: Rule = FLOOD,
    *,
    timestamp: int = START,
    time: int | None = None,
    or_list: list[dict[str, Any]] | None = None,
    token: str = "t1",
) -> Notification:
    """A notification; it is acknowledged where its kind says so."""
    alarm = {
        "type": of.name,
        "severity": of.severity,
        "timestamp": timestamp,
        "token": token,
        "ack": kind is Kind.ACKNOWLEDGED,
        "description": of.description,
        "alarm_rules": {"or_list": matched("7") if or_list is None else or_list},
    }
    return Notification(kind, key, of, alarm, timestamp if time is None else time)


def settled(*options: str) -> settings.Settings:
    """The settings with these options, as ``ALARM.command=true``."""
    return settings.load([f"--{option}" for option in options], {})


async def until(look: Callable[[], Value]) -> Value:
    """What ``look`` gives as soon as that is true; others have their turn meanwhile."""
    end = time.monotonic() + DEADLINE
    while not (value := look()):
        assert time.monotonic() < end, f"it never came; the last look gave {value!r}"
        await asyncio.sleep(0.005)
    return value


@contextlib.asynccontextmanager
async def serving(*notifiers: Notifier) -> AsyncIterator[None]:
    """The notifiers serve for as long as this lasts; then they are cancelled."""
    tasks = [asyncio.create_task(notifier.serve()) for notifier in notifiers]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


class Request(NamedTuple):
    """What was posted; the names of the headers are in small letters."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Answer(Protocol):
    """How a server answers a request. The connection ends after it, unless it says not to."""

    def __call__(self, writer: asyncio.StreamWriter) -> Awaitable[None]: ...


def says(status: int, body: str = "", *headers: str) -> Answer:
    """Answers at once."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} As told", f"Content-Length: {len(body)}", *headers, "", body]
        writer.write("\r\n".join(lines).encode())

    return answer


async def hangs(writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def breaks(writer: asyncio.StreamWriter) -> None:
    """Ends in the middle of an answer's head."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await writer.drain()
    writer.close()


async def babbles(writer: asyncio.StreamWriter) -> None:
    """Writes a head that never ends, a byte now and then."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


async def floods(writer: asyncio.StreamWriter) -> None:
    """Writes a head that never ends, as fast as it goes."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"a" * 60_000 + b"\r\n")
        await writer.drain()


async def talks_nonsense(writer: asyncio.StreamWriter) -> None:
    """Answers in no language of the web."""
    writer.write(b"220 smtp.example.com ESMTP\r\n")
    await writer.drain()


def endless(status: int) -> Answer:
    """An answer whose body never ends."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} As told\r\n\r\n".encode())
        while True:
            writer.write(b"x" * 60_000)
            await writer.drain()

    return answer


class Receiver:
    """An HTTP server that keeps what it is told. ``answer`` says how it answers."""

    def __init__(self, answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer or says(200)
        self._tls = tls
        self.requests: list[Request] = []
        """Those that were read whole, in order."""
        self.open = 0
        """Connections that are open."""
        self.most_open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; on the port that it had before."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and break those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def bodies(self) -> list[Any]:
        return [request.json for request in self.requests]

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or the test ends
        finally:
            writer.transport.abort()
            self.open -= 1
            self._tasks.discard(task)
            self._writers.discard(writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            method, path, _ = head[0].split(" ")
            assert method == "POST"
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append(Request(path, headers, body))
            # Nothing comes while it answers, but the end of a connection that is given up.
            gone = asyncio.ensure_future(reader.read(1))
            answering = asyncio.ensure_future(self.answer(writer))
            try:
                await asyncio.wait([gone, answering], return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                await answering
            finally:
                gone.cancel()
                answering.cancel()
                await asyncio.gather(gone, answering, return_exceptions=True)
