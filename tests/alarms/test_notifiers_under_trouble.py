"""Receivers that hang, refuse, break, babble or never stop: nothing waits for them, nothing grows.

Every test has a receiver that is well, beside the one that is not, and both are told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from alarms.telling import (
    Answer,
    Receiver,
    babbles,
    breaks,
    endless,
    floods,
    hangs,
    says,
    serving,
    settled,
    talks_nonsense,
    told,
    until,
)
from collectord.alarms import notifiers
from collectord.alarms.notification import Kind, Notifier
from collectord.alarms.notifiers import alertmanager, delivery

QUEUE = 20
KINDS = ("alertmanager", "webhook")
TROUBLES: dict[str, Answer | None] = {
    "refuses": None,
    "hangs": hangs,
    "answers 500": says(500),
    "answers 429": says(429),
    "answers 500 without end": endless(500),
    "breaks": breaks,
    "babbles": babbles,
    "floods": floods,
    "talks nonsense": talks_nonsense,
    "answers nothing but 100": says(100),
}
"""None is a port that nobody listens on."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(alertmanager, "GATHERING", 0.001)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest) -> Answer | None:
    return TROUBLES[request.param]


def telling(kind: str, *urls: str, timeout: float = 0.3) -> Notifier:
    (notifier,) = notifiers.build(
        settled(
            "ALARM.log=false",
            f"ALARM.{kind}={' '.join(urls)}",
            f"ALARM.timeout={timeout}",
            f"ALARM.queue={QUEUE}",
        ),
        "h1",
    )
    return notifier


@contextlib.asynccontextmanager
async def in_trouble(trouble: Answer | None) -> AsyncIterator[Receiver]:
    """A receiver that behaves so; ``heal`` ends it."""
    receiver = Receiver(trouble)
    await receiver.start()
    if trouble is None:
        await receiver.stop()
    try:
        yield receiver
    finally:
        await receiver.stop()


async def heal(receiver: Receiver, trouble: Answer | None) -> None:
    receiver.answer = says(200)
    if trouble is None:
        await receiver.start()


def uves(receiver: Receiver) -> set[str]:
    """The UVEs that it was told of, in whichever language."""
    alerts = itertools.chain.from_iterable(
        body if isinstance(body, list) else [body] for body in receiver.bodies()
    )
    return {alert["labels"]["uve"] if "labels" in alert else alert["key"] for alert in alerts}


def failed(notifier: Notifier) -> int:
    return notifier.counters[f"{notifier.name}_failed"]


def test_one_in_trouble_holds_up_nobody_and_is_told_when_it_is_well(
    kind: str, trouble: Answer | None
) -> None:
    async def run() -> None:
        async with Receiver() as well, in_trouble(trouble) as ill:
            notifier = telling(kind, ill.url, well.url)
            keys = {f"T:{number}" for number in range(QUEUE)}
            async with serving(notifier):
                for key in sorted(keys):
                    notifier.notify(told(key=key))
                # Who is well has everything before anything came of who is not.
                await until(lambda: uves(well) == keys)
                await until(lambda: failed(notifier) >= 3)
                problems = notifier.problems()
                assert len(problems) == 1
                assert problems[0].startswith(tuple(delivery_titles(ill)))
                await until(lambda: failed(notifier) >= 4)
                assert notifier.problems() == problems
                await until(lambda: notifier.waiting <= QUEUE)
                await heal(ill, trouble)
                await until(lambda: not notifier.waiting)
                assert not notifier.problems()
            missing = notifier.counters[f"{notifier.name}_dropped"]
            assert len(uves(ill)) >= QUEUE - missing
            assert ill.most_open <= 2  # a connection that is given up, and the next one

    asyncio.run(run())


def delivery_titles(receiver: Receiver) -> list[str]:
    return [f"{title} {receiver.url} is not told" for title in ("Alertmanager", "webhook")]


def test_what_waits_for_one_in_trouble_is_bounded(kind: str, trouble: Answer | None) -> None:
    async def run() -> None:
        async with in_trouble(trouble) as ill:
            notifier = telling(kind, ill.url)
            async with serving(notifier):
                for number in range(20 * QUEUE):
                    notifier.notify(told(key=f"T:{number}"))
                    notifier.notify(told(Kind.CLEARED, key=f"T:{number}"))
                    assert notifier.waiting <= 2 * QUEUE + 2  # half of them under way
                    await asyncio.sleep(0)
                await until(lambda: failed(notifier))
                assert notifier.counters[f"{notifier.name}_dropped"] > 0
                assert len(getattr(notifier, "_alerts", ())) <= 2 * QUEUE + 2

    asyncio.run(run())


def test_the_end_does_not_wait_for_one_in_trouble(kind: str, trouble: Answer | None) -> None:
    async def run() -> None:
        async with Receiver() as well, in_trouble(trouble) as ill:
            notifier = telling(kind, ill.url, well.url, timeout=600)
            notifier.notify(told())
            await asyncio.wait_for(notifier.finish(0.3), 20)
            assert len(uves(well)) == 1
            assert notifier.counters[f"{notifier.name}_dropped"] == 1
            assert not ill.open or await until(lambda: not ill.open) is True

    asyncio.run(run())


def test_cancelling_does_not_wait_for_one_in_trouble(kind: str, trouble: Answer | None) -> None:
    async def run() -> None:
        async with in_trouble(trouble) as ill:
            notifier = telling(kind, ill.url, timeout=600)
            async with serving(notifier):  # which fails if it does not end
                notifier.notify(told())
                await until(lambda: ill.requests or failed(notifier))
            assert notifier.waiting == 1
            await until(lambda: not ill.open)
            await heal(ill, trouble)
            await notifier.finish(20)
            assert notifier.waiting == 0
            assert len(uves(ill)) == 1

    asyncio.run(run())


@pytest.mark.parametrize("status", [200, 202])
def test_an_answer_that_never_ends_is_an_answer(kind: str, status: int) -> None:
    async def run() -> None:
        async with Receiver(endless(status)) as receiver:
            notifier = telling(kind, receiver.url)
            async with serving(notifier):
                for number in range(3):
                    notifier.notify(told(key=f"T:{number}"))
                    await until(lambda: not notifier.waiting)
                await until(lambda: not receiver.open)
            assert notifier.counters == {
                f"{kind}_sent": 3,
                f"{kind}_failed": 0,
                f"{kind}_dropped": 0,
            }
            assert receiver.most_open <= 2

    asyncio.run(run())


def test_an_answer_that_comes_slowly_is_an_answer(kind: str) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def run() -> None:
        async with Receiver(slow) as receiver:
            notifier = telling(kind, receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters[f"{kind}_sent"] == 1)
            assert failed(notifier) == 0

    asyncio.run(run())


def test_cookies_are_not_kept_and_a_connection_is(kind: str) -> None:
    async def run() -> None:
        cookies = (f"Set-Cookie: c{number}={'x' * 100}" for number in itertools.count())
        async with Receiver() as receiver:

            async def answer(writer: asyncio.StreamWriter) -> None:
                await says(200, "ok", next(cookies))(writer)

            receiver.answer = answer
            notifier = telling(kind, receiver.url)
            async with serving(notifier):
                for number in range(10):
                    notifier.notify(told(key=f"T:{number}"))
                    await until(lambda: not notifier.waiting)
                assert receiver.most_open == 1
            assert not any("cookie" in request.headers for request in receiver.requests)

    asyncio.run(run())


def test_descriptors_do_not_add_up(kind: str, trouble: Answer | None) -> None:
    async def run() -> None:
        async with in_trouble(trouble) as ill:
            notifier = telling(kind, ill.url, timeout=0.1)
            async with serving(notifier):
                notifier.notify(told(key="T:0"))
                await until(lambda: failed(notifier) >= 2)
                before = len(os.listdir("/proc/self/fd"))
                for number in range(1, 4):
                    notifier.notify(told(key=f"T:{number}"))
                await until(lambda: failed(notifier) >= 7)
                # Both ends of a connection are of this process, and one may be closing.
                assert len(os.listdir("/proc/self/fd")) <= before + 4

    asyncio.run(run())


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looking up ``well.test`` takes until the event is set; it is this machine then."""
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def look(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "well.test":
            answered.wait()
            host = "127.0.0.1"
        elif host == "none.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    yield answered
    answered.set()


def lookups() -> int:
    return sum(thread.name == "collectord-names" for thread in threading.enumerate())


def test_a_name_that_is_never_found_holds_up_nobody(kind: str, slow_names: threading.Event) -> None:
    async def run() -> None:
        async with Receiver() as well, Receiver() as named:
            notifier = telling(kind, f"http://well.test:{named.port}", well.url, timeout=0.1)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: well.requests)
                await until(lambda: failed(notifier) >= 5)
                assert lookups() == 1
                slow_names.set()
                await until(lambda: named.requests)
                await until(lambda: not notifier.problems())
            assert named.requests[0].headers["host"] == f"well.test:{named.port}"

    asyncio.run(run())


def test_the_end_does_not_wait_for_a_name(kind: str, slow_names: threading.Event) -> None:
    async def run() -> None:
        notifier = telling(kind, "http://well.test:9")
        notifier.notify(told())
        await asyncio.wait_for(notifier.finish(0.1), 20)
        assert notifier.counters[f"{kind}_dropped"] == 1

    asyncio.run(run())
    assert lookups() == 1  # and asyncio.run has not waited for it


def test_a_name_that_there_is_not_is_a_problem(kind: str, slow_names: threading.Event) -> None:
    async def run() -> None:
        notifier = telling(kind, "http://me:secret@none.test/path")
        async with serving(notifier):
            notifier.notify(told())
            (problem,) = await until(notifier.problems)
        assert problem.endswith(
            "http://none.test is not told of alarms: its name can't be looked up: "
            "Name or service not known"
        )

    asyncio.run(run())


def test_of_the_addresses_of_a_name_the_one_is_taken_where_somebody_listens(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with localhost, which is ::1 and 127.0.0.1."""
    rows = [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(kind, f"http://two.test:{receiver.port}")
            async with serving(notifier):
                for number in range(3):
                    notifier.notify(told(key=f"T:{number}"))
                    await until(lambda: not notifier.waiting)
                assert receiver.most_open == 1
            assert failed(notifier) == 0

    asyncio.run(run())


def test_the_environment_sends_nothing_elsewhere(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(kind, receiver.url)
            notifier.notify(told())
            await notifier.finish(20)
            assert receiver.requests

    asyncio.run(run())


def test_trouble_is_logged_once_and_its_end_too(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def run() -> None:
        async with Receiver(says(500)) as receiver:
            notifier = telling(kind, receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: failed(notifier) >= 5)
                receiver.answer = says(200)
                await until(lambda: not notifier.waiting)
                # It comes and goes: that would fill the log.
                for _ in range(3):
                    receiver.answer, before = says(500), failed(notifier)
                    notifier.notify(told())
                    await until(lambda before=before: failed(notifier) > before)  # type: ignore[misc]
                    receiver.answer = says(200)
                    await until(lambda: not notifier.waiting)

    asyncio.run(run())
    assert [text.split(" is ")[1] for text in caplog.messages] == [
        "not told of alarms: it answers 500",
        "told of alarms again",
    ]
