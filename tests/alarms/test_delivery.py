"""The pauses between attempts, and time limits that do not forget a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections import Counter

import pytest

from collectord.alarms.notifiers import delivery
from collectord.alarms.notifiers.delivery import Failed, Pauses, Receiver, within


def test_pauses_grow_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    pauses = Pauses(longest=60)
    for most in (0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60):
        assert most / 2 <= pauses.next() <= most
    for _ in range(10_000):
        assert 30 <= pauses.next() <= 60
    pauses.reset()
    assert pauses.next() <= 0.5


def test_no_pause_is_longer_than_is_wanted_or_than_any() -> None:
    for wanted, longest in ((3, 3), (3600, delivery.LONGEST_PAUSE)):
        pauses = Pauses(wanted)
        assert max(pauses.next() for _ in range(100)) <= longest


def test_work_gives_what_it_gives_or_its_error() -> None:
    async def give() -> int:
        await asyncio.sleep(0)
        return 5

    async def fail() -> None:
        raise Failed("no")

    assert asyncio.run(within(600, give())) == 5
    assert asyncio.run(within(None, give())) == 5
    with pytest.raises(Failed):
        asyncio.run(within(600, fail()))


def test_trouble_that_begins_just_after_a_line_of_the_log_is_logged_when_it_lasts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver("webhook", "webhook w", Counter())
    receiver.failed(Failed("no"))
    receiver.sent(1)
    receiver.failed(Failed("never"))
    receiver.failed(Failed("never"))
    assert caplog.messages == ["webhook w is not told of alarms: no"]

    monkeypatch.setattr(receiver, "_silent_until", 0.0)
    receiver.failed(Failed("never"))
    monkeypatch.setattr(receiver, "_silent_until", 0.0)
    receiver.failed(Failed("never"))
    assert caplog.messages[1:] == ["webhook w is not told of alarms: never"]


def test_an_error_of_the_work_leaves_nothing_behind() -> None:
    """What waits to be told is as large as it is; it must not wait for the garbage collector."""
    left: list[weakref.ref[asyncio.Event]] = []

    async def run() -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise Failed("no")

        async def attempt() -> None:
            waiting = asyncio.Event()
            left.append(weakref.ref(waiting))
            await within(600, fail())

        with contextlib.suppress(Failed):
            await attempt()
        await asyncio.sleep(0)
        assert left[0]() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_work_that_takes_too_long_is_ended() -> None:
    async def run() -> None:
        ended = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        for seconds in (0, 0.01):
            with pytest.raises(asyncio.TimeoutError):
                await within(seconds, work())
        assert ended == [True, True]

    asyncio.run(run())


@pytest.mark.parametrize("turns", range(8))
def test_a_cancellation_is_never_forgotten(turns: int) -> None:
    """Not even where the work ends at the same moment, whose error nobody misses then."""

    async def run() -> None:
        ends = asyncio.Event()
        has_returned = False

        async def work() -> None:
            await ends.wait()
            raise Failed("no")

        async def limited() -> None:
            nonlocal has_returned
            with contextlib.suppress(Failed):
                await within(600, work())
            has_returned = True
            await asyncio.Event().wait()

        task = asyncio.create_task(limited())
        await asyncio.sleep(0.01)
        ends.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        had_returned = has_returned
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 10)
        assert has_returned == had_returned

    asyncio.run(run())
