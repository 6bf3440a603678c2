"""Delivery: how notifications go to a receiver that may be slow, away or broken.

``Delivery`` is one receiver's: an attempt at a time, pauses that grow after those that fail.
``Lane`` is a delivery in order, from a bounded queue, for receivers that are told of events;
Alertmanager's is of another kind (``alertmanager.py``). ``Deliveries`` and ``EventNotifier`` make a
notifier of them. What an attempt does is no matter of this file.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Generic, NamedTuple, TypeVar

from collectord import logs
from collectord.alarms.notification import Kind, Notification
from collectord.alarms.notifiers.message import shortened
from collectord.clock import now

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Seconds between an attempt that failed and the next one: twice as long each time."""
SELDOM = 60.0
"""Seconds between two lines of the log about one receiver that is not told of something."""
QUEUE_CHARACTERS = 64 << 20
"""The most that what waits for one receiver may hold, about."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class DeliveryError(Exception):
    """An attempt came to nothing. The sentence tells why, and has no secret in it."""


class Failed(DeliveryError):  # noqa: N818
    """Another attempt may do better."""


class Unreachable(Failed):
    """Nobody was there: whatever else is to be told would fail as well."""


class Refused(DeliveryError):  # noqa: N818
    """The receiver won't have this, now or later."""


async def within(seconds: float | None, work: Coroutine[Any, Any, Value]) -> Value:
    """What the work gives; it is cancelled where it takes longer. Raises asyncio.TimeoutError.

    ``asyncio.wait_for`` forgets that it was cancelled when the work ends at the same moment, until
    Python 3.12: who serves until cancelled would then serve for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if task.done():
            return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # An error of the work holds this frame, and those above with all that is to be told; were
        # it held here, all of it would stay until Python's garbage collector comes by.
        del task
    raise asyncio.TimeoutError


class Pauses:
    """How long to wait after attempts that failed: longer each time, and never quite alike."""

    def __init__(self, longest: float) -> None:
        self._longest = min(longest, LONGEST_PAUSE)
        self._setbacks = 0

    def next(self) -> float:
        """Seconds until the next attempt."""
        pause = min(FIRST_PAUSE * 2.0**self._setbacks, self._longest)
        self._setbacks = min(self._setbacks + 1, 30)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """An attempt succeeded."""
        self._setbacks = 0


class Receiver:
    """One that is told, and how that goes. ``title`` is for people, and holds no secret."""

    def __init__(self, notifier: str, title: str, counters: Counter[str]) -> None:
        self.title = title
        self.problem = ""
        """A sentence on the last attempt that came to nothing; empty once one has succeeded."""
        self._counters = counters
        self._sent, self._failed, self._dropped = (
            f"{notifier}_{what}" for what in ("sent", "failed", "dropped")
        )
        counters.update({self._sent: 0, self._failed: 0, self._dropped: 0})
        self._silent_until = float("-inf")
        self._is_trouble_logged = False
        self._given_up = 0
        """Notifications that will never be told, and of which no line of the log says so yet."""
        self._given_up_since = 0
        self._given_up_last = ""
        self._has_given_up = asyncio.Event()

    def sent(self, count: int) -> None:
        """So many notifications were told."""
        self._counters[self._sent] += count
        if self.problem and self._is_trouble_logged:
            log.log(logs.NOTICE, "%s is told of alarms again", self.title)
        self.problem = ""
        self._is_trouble_logged = False

    def failed(self, error: DeliveryError) -> None:
        """An attempt came to nothing."""
        self._counters[self._failed] += 1
        self.problem = f"{self.title} is not told of alarms: {error}"
        # A receiver that fails now and then doesn't fill the log; one that goes on failing is told.
        if not self._is_trouble_logged and not self._seconds_of_silence():
            self._warn(self.problem)

    def dropped(self, count: int, reason: str) -> None:
        """So many notifications will never be told. The log says so: at once, or where it has had a
        line on this receiver just now, later, with all that were given up until then."""
        self._counters[self._dropped] += count
        if not self._given_up:
            self._given_up_since = now()
        self._given_up += count
        self._given_up_last = reason
        self._has_given_up.set()
        if not self._seconds_of_silence():
            self.tell_given_up()

    def tell_given_up(self) -> None:
        """Log what was given up, where no line has said so yet."""
        count, self._given_up = self._given_up, 0
        self._has_given_up.clear()
        if count == 1:
            told = f"1 change given up: {self._given_up_last}"
        elif count:
            since = datetime.fromtimestamp(self._given_up_since // 1_000_000, timezone.utc)
            told = f"{count} changes given up since {since:%H:%M:%S}Z: {self._given_up_last}"
        else:
            return
        self._warn(f"{self.title} is not told of some alarms: {told}")

    async def keep_telling(self) -> None:
        """Log what was given up as soon as there may be a line again; for ever."""
        while True:
            await self._has_given_up.wait()
            await asyncio.sleep(self._seconds_of_silence())
            self.tell_given_up()

    def _seconds_of_silence(self) -> float:
        """Until there may be another line."""
        return max(0.0, self._silent_until - time.monotonic())

    def _warn(self, sentence: str) -> None:
        self._silent_until = time.monotonic() + SELDOM
        self._is_trouble_logged = bool(self.problem)
        log.warning("%s", sentence)


class Delivery(abc.ABC, Generic[Item]):
    """What waits for one receiver, and the attempts to tell it: one at a time."""

    def __init__(self, receiver: Receiver, longest_pause: float = float("inf")) -> None:
        self.receiver = receiver
        self._in_flight = 0
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._pauses = Pauses(longest_pause)

    @property
    def waiting(self) -> int:
        """How many items are still to be told, those of a running attempt included."""
        return self._in_flight + self._count()

    @abc.abstractmethod
    def _count(self) -> int:
        """How many items could be taken now."""

    @abc.abstractmethod
    def _take(self) -> list[Item]:
        """The items of the next attempt, which wait no more; some of them count."""

    @abc.abstractmethod
    async def _tell(self, items: list[Item]) -> None:
        """One attempt. Raises DeliveryError."""

    @abc.abstractmethod
    def _give_back(self, items: list[Item], error: Failed | None) -> None:
        """They wait again: the attempt failed, or with None it was cancelled."""

    def _settle(self, items: list[Item]) -> None:
        """They were told, or refused for good."""
        return

    async def _until_waiting(self) -> None:
        """Return when something waits."""
        while not self.waiting:
            self._wake.clear()
            await self._wake.wait()

    async def _close(self) -> None:
        """Let go of what the attempts kept open. They may open it again."""
        return

    async def serve(self) -> None:
        """Tell what comes, until cancelled."""
        try:
            while True:
                await self._until_waiting()
                await self._drain()
        finally:
            await self._close()

    async def finish(self, seconds: float) -> None:
        """Tell what waits as far as the time goes, then close."""
        self._pauses.reset()
        try:
            await within(seconds, self._drain())
        except asyncio.TimeoutError:
            self._leave()
        finally:
            await self._close()

    def _leave(self) -> None:
        """The end came before all was told."""
        if self.waiting:
            self.receiver.dropped(self.waiting, "the collector ended before it could be told")

    async def _drain(self) -> None:
        """Attempt until nothing waits."""
        while self.waiting:
            async with self._turn:
                has_failed = self._count() > 0 and not await self._attempt()
            if has_failed:
                await asyncio.sleep(self._pauses.next())

    async def _attempt(self) -> bool:
        """Whether the receiver could be told; a refusal is an answer, too."""
        items = self._take()
        self._in_flight = len(items)
        try:
            await self._tell(items)
        except Refused as error:
            self.receiver.dropped(len(items), str(error))
            self.receiver.failed(error)
            self._settle(items)
        except Failed as error:
            self.receiver.failed(error)
            self._give_back(items, error)
            return False
        except BaseException:
            self._give_back(items, None)
            raise
        else:
            self.receiver.sent(len(items))
            self._settle(items)
        finally:
            self._in_flight = 0
        self._pauses.reset()
        return True


class Event(NamedTuple):
    """A notification in a lane. ``number`` counts what was put there, from 1."""

    number: int
    notification: Notification
    characters: int


class Lane(Delivery[Event]):
    """Tells of one event after the other, in order.

    An event is given up after ``attempts`` that were answered badly, or not in time. Where nobody
    is there at all, it waits on, until the queue is full.
    """

    def __init__(self, receiver: Receiver, attempts: int) -> None:
        super().__init__(receiver)
        self.characters = 0
        """About what the waiting events hold."""
        self._attempts = attempts
        self._attempt_of_first = 1
        self._events: deque[Event] = deque()
        self._numbers = itertools.count(1)

    def put(self, notification: Notification, characters: int) -> None:
        """Let it wait, after all others."""
        self._events.append(Event(next(self._numbers), notification, characters))
        self.characters += characters
        self._wake.set()

    def drop_oldest(self) -> None:
        """Give up the event that has waited longest, to have room for a newer one."""
        self.characters -= self._events.popleft().characters
        self._attempt_of_first = 1
        self.receiver.dropped(1, "more of them wait than ALARM.queue allows, the oldest are lost")

    @abc.abstractmethod
    async def _tell_of(self, event: Event) -> None:
        """One attempt to tell of an event. Raises DeliveryError."""

    async def _tell(self, items: list[Event]) -> None:
        (event,) = items
        await self._tell_of(event)

    def _count(self) -> int:
        return len(self._events)

    def _take(self) -> list[Event]:
        event = self._events.popleft()
        self.characters -= event.characters
        return [event]

    def _settle(self, items: list[Event]) -> None:
        self._attempt_of_first = 1

    def _give_back(self, items: list[Event], error: Failed | None) -> None:
        if error is not None and not isinstance(error, Unreachable):
            if self._attempt_of_first >= self._attempts:
                self.receiver.dropped(1, f"{self._attempts} attempts failed, the last one: {error}")
                self._settle(items)
                return
            self._attempt_of_first += 1
        self._events.extendleft(items)
        self.characters += items[0].characters


async def _together(parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side. None of them runs on when this ends, by a failure or cancelled."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Deliveries:
    """A notifier of deliveries none of which waits for another."""

    def __init__(self, name: str, deliveries: Sequence[Delivery[Any]], counters: Counter[str]):
        self.name = name
        self.counters = counters
        self._deliveries = tuple(deliveries)
        self._receivers = tuple(dict.fromkeys(delivery.receiver for delivery in deliveries))

    @property
    def waiting(self) -> int:
        """How many notifications are still to be told, once for each receiver."""
        return sum(delivery.waiting for delivery in self._deliveries)

    async def serve(self) -> None:
        """Tell what comes, until cancelled."""
        await _together(
            itertools.chain(
                (delivery.serve() for delivery in self._deliveries),
                (receiver.keep_telling() for receiver in self._receivers),
            )
        )

    async def finish(self, seconds: float) -> None:
        """Tell what waits as far as the time goes, then close."""
        self._tell_given_up()  # the end is another reason
        try:
            await _together(delivery.finish(seconds) for delivery in self._deliveries)
        finally:
            self._tell_given_up()

    def _tell_given_up(self) -> None:
        for receiver in self._receivers:
            receiver.tell_given_up()

    def problems(self) -> list[str]:
        """A sentence for each receiver that can't be told, with the last reason."""
        return [receiver.problem for receiver in self._receivers if receiver.problem]


class EventNotifier(Deliveries):
    """A notifier that tells of events.

    Each of ``receivers`` has one lane or more, at most ``most`` events wait for it, and what is
    of one alarm goes through one lane, so that it stays in order.
    """

    def __init__(
        self, name: str, receivers: Sequence[Sequence[Lane]], counters: Counter[str], most: int
    ) -> None:
        super().__init__(name, list(itertools.chain.from_iterable(receivers)), counters)
        self._lanes = receivers
        self._most = most

    def notify(self, notification: Notification) -> None:
        """Take on what is to be told; where there is no room, in place of the oldest."""
        if notification.kind is Kind.RESTORED:
            return  # it was told when it was raised
        alarm, characters = shortened(notification.alarm)
        notification = notification._replace(alarm=alarm)
        identity = hash((notification.key, notification.rule.name))
        for lanes in self._lanes:
            while not self._has_room(lanes, characters):
                max(lanes, key=Lane._count).drop_oldest()
            lanes[identity % len(lanes)].put(notification, characters)

    def _has_room(self, lanes: Sequence[Lane], characters: int) -> bool:
        count = sum(lane._count() for lane in lanes)
        held = sum(lane.characters for lane in lanes)
        return count == 0 or (count < self._most and held + characters <= QUEUE_CHARACTERS)
