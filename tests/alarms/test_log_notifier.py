"""What the log says of alarms."""

from __future__ import annotations

import asyncio
import logging

import pytest

from alarms.telling import matched, serving, settled, told, until
from collectord import logs
from collectord.alarms import notifiers
from collectord.alarms.notification import Kind, Notifier


def telling(*options: str) -> Notifier:
    (notifier,) = notifiers.build(settled(*options), "h1")
    return notifier


@pytest.fixture(autouse=True)
def _notices(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logs.NOTICE)


def test_each_event_is_a_line_but_what_was_so_before(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        notifier = telling()
        async with serving(notifier):
            for kind in (Kind.RAISED, Kind.RESTORED, Kind.CLEARED):
                notifier.notify(told(kind, or_list=matched("7", "8")))
            await until(lambda: notifier.counters["log_sent"] == 2)
        assert notifier.counters == {"log_sent": 2, "log_failed": 0, "log_dropped": 0}

    asyncio.run(run())
    subject = "flood (major) of ObjectVNTable:demo:vn1: Ports.ports.*.errors > 3: 7, 8"
    assert caplog.messages == [f"alarm raised: {subject}", f"alarm cleared: {subject}"]
    assert {record.levelno for record in caplog.records} == {logs.NOTICE}


def test_a_key_can_forge_no_line() -> None:
    formatter = logs.LineFormatter("h1")
    text = "alarm raised: %s"
    record = logging.LogRecord("a", logs.NOTICE, "", 0, text, ("T:\n2026\x1b[2J",), None)
    assert formatter.format(record).endswith("alarm raised: T:\\n2026\\x1b[2J")


def test_others_have_their_turn_between_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        notifier = telling()
        for number in range(100):
            notifier.notify(told(key=f"T:{number}"))
        async with serving(notifier):
            seen = []
            while notifier.waiting:
                seen.append(notifier.waiting)
                await asyncio.sleep(0)
        assert len(set(seen)) >= 100

    asyncio.run(run())


def test_at_the_end_what_waits_is_written(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        notifier = telling("ALARM.queue=3")
        for number in range(5):
            notifier.notify(told(key=f"T:{number}"))
        await notifier.finish(5)
        assert notifier.counters == {"log_sent": 3, "log_failed": 0, "log_dropped": 2}

    asyncio.run(run())
    assert [text.split(": ")[1] for text in caplog.messages if text.startswith("alarm")] == [
        f"flood (major) of T:{number}" for number in (2, 3, 4)
    ]
