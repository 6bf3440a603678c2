"""Where blocks go, as a configuration's ``target`` names it: a row of ``SCHEMES`` for each kind.

The collector is ``collector.py``'s. All other targets get the emitters as JSON: ``emitters``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import httpx
import numpy as np

from collectord.client import INGEST_ADDRESS
from collectord.netops.block import SECOND, Block, Simulation
from collectord.netops.collector import CollectorTarget
from collectord.netops.target import Target, TargetClosed, TargetError
from collectord.terminal import clean

if TYPE_CHECKING:
    from collectord.curve import Curve

__all__ = [
    "Target",
    "TargetClosed",
    "TargetError",
    "UnknownTarget",
    "as_json",
    "emitters",
    "functions_of",
    "make_target",
    "resolved",
    "shown",
]

log = logging.getLogger(__name__)

INGEST_FUNCTION = "netops-demo-ingest"
BLOCK_SECONDS = 600.0
"""The longest block for a target that has no wish of its own."""
RESPONSE_VALUES = 500_000
"""The most that one response holds: some 20 MB of JSON."""
ATTEMPTS = 5
FIRST_PAUSE = 0.2
"""Seconds before the second attempt; before each one after that, twice as long."""
REQUEST_TIMEOUT = 10.0
"""Seconds to connect, to send on or to be answered on."""
ATTEMPT_TIMEOUT = 60.0
"""Seconds for all of one attempt: who sends or answers a byte at a time comes no further."""
ANSWER_BYTES = 4096
"""The most of an answer that is read; with a longer one the connection ends."""
ANSWERED = 200
"""Characters of an answer that refuses, which an error tells."""


HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class UnknownTarget(TargetError):  # noqa: N818
    """A configuration names a target that there isn't."""


def emitters(simulation: Simulation, block: Block) -> dict[str, Any]:
    """The block as JSON has it: each emitter's labels and series, by its id.

    A series has lists of equal length: ``timestamps`` (seconds since the Unix epoch), ``values``,
    ``alerts`` (texts, "" where nothing is wrong) and ``is_error`` (1 where the truth is an error).
    """
    times = [seconds(time) for time in block.times.tolist()]
    return {
        emitter.id: {
            "labels": emitter.labels,
            "metrics": {
                name: {
                    "labels": measure.labels,
                    "timestamps": times,
                    "values": (values := block.values[name][row].tolist()),
                    "alerts": [measure.alert(value) for value in values],
                    "is_error": block.is_error[name][row].astype(np.uint8).tolist(),
                }
                for name, measure in simulation.metrics.items()
            },
        }
        for row, emitter in enumerate(simulation.emitters)
    }


def as_json(told: Mapping[str, Any]) -> str:
    """A text of JSON, made item by item: while one is made no other thread has a turn."""
    return "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(told[name])}" for name in told) + "}"


def seconds(time: int) -> int | float:
    """Microseconds as seconds, a whole number where they are."""
    return time // SECOND if time % SECOND == 0 else time / SECOND


@dataclass
class LogTarget:
    """Writes a line of JSON to the log for each emitter, ``batch`` steps at a time."""

    batch: int
    block_seconds: float = BLOCK_SECONDS
    trouble: str = ""

    def send(self, simulation: Simulation, block: Block) -> None:
        """Log the block."""
        for part in _parts(block, self.batch):
            for name, emitter in emitters(simulation, part).items():
                log.info("%s", json.dumps({name: emitter}))

    def flush(self) -> None:
        """It is written already."""

    def counts(self) -> Mapping[str, int]:
        """Nothing is worth counting."""
        return {}

    def close(self) -> None:
        """Nobody ever waits."""


@dataclass
class ResponseTarget:
    """Keeps the emitters, for who asked: at most ``RESPONSE_VALUES`` values."""

    emitters: dict[str, Any] = field(default_factory=dict)
    block_seconds: float = BLOCK_SECONDS
    trouble: str = ""
    _values: int = 0

    def send(self, simulation: Simulation, block: Block) -> None:
        """Append the block to what there is."""
        self._values += values_of(block)
        if self._values > RESPONSE_VALUES:
            raise TargetError(
                f"a response holds at most {RESPONSE_VALUES} values; ask for fewer at a time, or "
                "name another target"
            )
        for name, emitter in emitters(simulation, block).items():
            if (known := self.emitters.setdefault(name, emitter)) is not emitter:
                _append(known["metrics"], emitter["metrics"])

    def flush(self) -> None:
        """All of it is here."""

    def counts(self) -> Mapping[str, int]:
        """Nothing is worth counting."""
        return {}

    def close(self) -> None:
        """Nobody ever waits."""


class HttpTarget:
    """Posts the emitters as JSON to a URL, ``batch`` steps at a time, and wants a 2xx for it.

    What fails on the way, and what is answered with 429 or 5xx, is tried up to ``ATTEMPTS`` times;
    so a server may get a part twice. What is in the URL beside host, port and path is a secret.
    """

    block_seconds = BLOCK_SECONDS
    trouble = ""

    def __init__(self, url: str, batch: int) -> None:
        self._url = _url(url)
        self._shown = shown(url)
        self._batch = batch
        self._counts = Counter(posts=0, retries=0)
        self._is_closed = False
        self._using = threading.Lock()
        """Held by who sends, and at the end by who closes: of all that follows."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """What runs while somebody sends. With the client, whose connections are tied to it, there
        from the first block on."""
        self._client: httpx.AsyncClient | None = None
        self._task: asyncio.Task[None] | None = None

    def send(self, simulation: Simulation, block: Block) -> None:
        """Post the block."""
        with self._using:
            self.flush()
            if self._loop is None or self._client is None:
                self._client = _client(self._url)
                self._loop = asyncio.new_event_loop()
            self._task = self._loop.create_task(self._send(self._client, simulation, block))
            try:
                self._loop.run_until_complete(self._task)
                return
            except asyncio.CancelledError:
                pass  # and nothing of what it broke off is kept: the loop has to end that too
            finally:
                self._task = None
        raise TargetClosed(f"{self._shown} was closed")

    def flush(self) -> None:
        """It was all answered."""
        if self._is_closed:
            raise TargetClosed(f"{self._shown} was closed")

    def counts(self) -> Mapping[str, int]:
        """How many ``posts`` were taken, and how many ``retries`` there were."""
        return dict(self._counts)

    def close(self) -> None:
        """Break off what is on its way."""
        self._is_closed = True
        if self._loop:
            with contextlib.suppress(RuntimeError):  # somebody else has closed it
                self._loop.call_soon_threadsafe(self._break_off)
        with self._using:
            if self._loop and self._client and not self._loop.is_closed():
                self._loop.run_until_complete(_end(self._client))
                self._loop.close()

    def _break_off(self) -> None:
        if self._task:
            self._task.cancel()

    async def _send(self, client: httpx.AsyncClient, simulation: Simulation, block: Block) -> None:
        for part in _parts(block, self._batch):
            await self._deliver(client, as_json(emitters(simulation, part)).encode())

    async def _deliver(self, client: httpx.AsyncClient, body: bytes) -> None:
        for attempt in range(ATTEMPTS):
            if self._is_closed:
                raise asyncio.CancelledError
            if attempt:
                self._counts["retries"] += 1
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                answer, said = await asyncio.wait_for(self._post(client, body), ATTEMPT_TIMEOUT)
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
                continue
            except asyncio.TimeoutError:
                problem = f"not done after {ATTEMPT_TIMEOUT:g} s"
                continue
            if answer.is_success:
                self._counts["posts"] += 1
                return
            problem = _problem(answer, said)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and not answer.is_server_error:
                raise TargetError(f"POST to {self._shown}: {problem}")
        raise TargetError(f"POST to {self._shown}, {ATTEMPTS} times: {problem}")

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> tuple[httpx.Response, bytes]:
        """The answer, and what there is to read of it."""
        async with client.stream("POST", self._url, content=body, headers=HEADERS) as answer:
            said = b""
            reading = cast("AsyncGenerator[bytes, None]", answer.aiter_raw())
            async with contextlib.aclosing(reading):
                async for piece in reading:
                    said += piece
                    if len(said) > ANSWER_BYTES:
                        break
            return answer, said


@dataclass(frozen=True)
class Options:
    """What targets need to know beside their names."""

    batch: int
    curve: Curve | None


def _collector(text: str, options: Options) -> Target:
    try:
        return CollectorTarget(
            text.removeprefix("zmq:"), batch_records=options.batch, curve=options.curve
        )
    except ValueError as error:
        raise UnknownTarget(f"{text!r} is no address of a collector: {error}") from error


SCHEMES: dict[str, tuple[str, Callable[[str, Options], Target]]] = {
    "zmq": ("zmq:tcp://HOST:PORT", _collector),
    "log": ("log", lambda text, options: LogTarget(options.batch)),
    "response": ("response", lambda text, options: ResponseTarget()),
    "http": ("http://HOST/PATH", lambda text, options: HttpTarget(text, options.batch)),
    "https": ("https://HOST/PATH", lambda text, options: HttpTarget(text, options.batch)),
}
"""How each is written, and how it is made."""


def functions_of(collector: str = INGEST_ADDRESS) -> dict[str, str]:
    """The table of functions by default: the demo's ingest function is the collector."""
    return {INGEST_FUNCTION: f"zmq:{collector}"}


def resolved(text: str, functions: Mapping[str, str]) -> str:
    """The target that is meant, of a known kind: ``function:NAME`` is looked up.

    Raises UnknownTarget, which lists those that are known.
    """
    scheme, _, name = text.partition(":")
    if scheme == "function":
        if name not in functions:
            known = ", ".join(sorted(functions)) or "none"
            raise UnknownTarget(f"there is no function {name!r:.100}; known are: {known}")
        text = functions[name]
        scheme = text.partition(":")[0]
        if scheme == "function":
            raise UnknownTarget(f"function {name!r} names a function again: {text!r:.100}")
    if scheme not in SCHEMES:
        # Of what follows the colon nobody knows whether it is a secret.
        known = ", ".join([form for form, _ in SCHEMES.values()] + ["function:NAME"])
        raise UnknownTarget(f"there is no target {scheme!r:.100}; known are: {known}")
    return text


def make_target(
    text: str, *, functions: Mapping[str, str], batch: int, curve: Curve | None = None
) -> Target:
    """The target that ``text`` names; ``batch`` is the most steps or records it sends in one piece.

    ``functions`` has the targets of ``function:NAME``, ``curve`` the keys for a collector that
    wants some. Raises UnknownTarget.
    """
    text = resolved(text, functions)
    make = SCHEMES[text.partition(":")[0]][1]
    return make(text, Options(batch, curve))


def shown(text: str) -> str:
    """A target as people may see it, without user, password and query."""
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "?…", text, flags=re.DOTALL))


def values_of(block: Block) -> int:
    """How many values it holds."""
    return sum(array.size for array in block.values.values())


def _parts(block: Block, steps: int) -> Iterator[Block]:
    for first in range(0, block.steps, steps):
        yield block.part(first, first + steps)


def _append(known: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    for name, series in metrics.items():
        for member in ("timestamps", "values", "alerts", "is_error"):
            known[name][member] = known[name][member] + series[member]


def _url(text: str) -> httpx.URL:
    # httpx logs whole URLs, with whatever secret is in them.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:  # which may tell a part of a password
        url = httpx.URL()
    if not url.host:
        raise UnknownTarget("the target is no URL like http://HOST:PORT/PATH")
    return url


def _client(url: httpx.URL) -> httpx.AsyncClient:
    # The authorities that https trusts take long to load; http, and no redirect, ever asks for one.
    verify = (
        ssl.create_default_context()
        if url.scheme == "https"
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    return httpx.AsyncClient(timeout=REQUEST_TIMEOUT, verify=verify, follow_redirects=False)


async def _end(client: httpx.AsyncClient) -> None:
    """End the client, and what else there is in the loop: generators that were broken off."""
    await client.aclose()
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def _problem(answer: httpx.Response, body: bytes) -> str:
    status = f"answered with {answer.status_code} {answer.reason_phrase}".rstrip()
    if answer.has_redirect_location:
        place = clean(shown(answer.headers["Location"])[:ANSWERED])
        return f"{status} to {place}, and redirects are not followed: name that place"
    said = clean(" ".join(body.decode(errors="replace").split())[:ANSWERED])
    return f"{status}: {said}" if said else status
