"""Alertmanager, which is told what is so, not what has happened.

Every raised alarm is an alert that is sent at once, when something about it changes, and again
every ``ALARM.alertmanager_interval``; one that is not sent again ends by itself after ``LASTS``
intervals. A cleared alarm is sent with its end, once it was told so, one interval later again:
the end is in the future for an Alertmanager whose clock is behind, and would not be believed.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from collectord.alarms.notification import Kind, Notification
from collectord.alarms.notifiers import message
from collectord.alarms.notifiers.delivery import Deliveries, Delivery, Failed, Receiver, within
from collectord.alarms.notifiers.http import Poster, addresses
from collectord.clock import now
from collectord.settings import Settings

if TYPE_CHECKING:
    from collectord.alarms.rules import Rule

PATH = "/api/v2/alerts"
LASTS = 4
"""Intervals after which an alert ends that is not sent again."""
PIECE = 500
"""Alerts of one request at most."""
PIECE_BYTES = 512 << 10
"""A request ends with the alert that brings it above this: others than Alertmanager itself may
stand before it, and take no more than 1 MiB."""
AT_ONCE = 50
"""Alerts that are encoded before others have their turn."""
GATHERING = 0.1
"""Seconds for which changes are gathered before they are sent."""


def make(settings: Settings, hostname: str) -> Alertmanager:
    """The notifier for the addresses of the settings. Raises ConfigurationError.

    Which host tells it is no label: of two collectors that see the same, one alert is to come.
    """
    counters: Counter[str] = Counter()
    interval = settings.seconds("ALARM.alertmanager_interval")
    queue = settings.integer("ALARM.queue")
    targets = [
        Target(
            Receiver("alertmanager", f"Alertmanager {address}", counters),
            Poster(address, settings.seconds("ALARM.timeout")),
            interval,
            queue,
        )
        for address in addresses(settings, "ALARM.alertmanager", PATH)
    ]
    return Alertmanager(targets, counters, settings.integer("LIMITS.alarms") + queue)


class Alert:
    """One alarm, for as long as somebody must be told of it.

    What is told is kept as the JSON that is sent again and again, not as maps: of many alarms those
    would keep Python's garbage collector busy.
    """

    __slots__ = ("__weakref__", "_start", "_text", "ended", "rule")

    def __init__(self, notification: Notification) -> None:
        self.ended: int | None = None
        """When it was cleared, microseconds since the Unix epoch; None while it is raised."""
        self.tell(notification)

    def tell(self, notification: Notification) -> None:
        """Take on what the notification says of it."""
        self.rule = notification.rule
        told = {
            "labels": labels_of(notification),
            "annotations": annotations_of(notification),
        }
        self._text = json.dumps(told).encode()
        self._start = int(notification.alarm["timestamp"])

    def is_of(self, rule: Rule) -> bool:
        """Whether it is the same alert where its rule is this one now: for Alertmanager an alert is
        its labels, and those may change with the rules file."""
        same = self.rule
        return same is rule or (same.severity == rule.severity and same.labels == rule.labels)

    def as_json(self, until: int) -> bytes:
        """The alert as Alertmanager reads it, which ends ``until``, in microseconds, if nobody
        sends it again."""
        end = until if self.ended is None else self.ended
        times = {
            "startsAt": _rfc3339(self._start),
            "endsAt": _rfc3339(max(self._start, end)),  # a clock may be set back
        }
        return self._text[:-1] + b", " + json.dumps(times).encode()[1:]


class Alertmanager(Deliveries):
    """All raised alarms, for every address. At most ``most`` are held."""

    def __init__(self, targets: list[Target], counters: Counter[str], most: int) -> None:
        super().__init__("alertmanager", targets, counters)
        self._targets = targets
        self._most = most
        # An alert is here as long as a target holds it: each does while the alarm is raised, and
        # then until it has told the end.
        self._alerts: WeakValueDictionary[tuple[str, str], Alert] = WeakValueDictionary()

    def notify(self, notification: Notification) -> None:
        """Take on what is to be told."""
        notification = notification._replace(alarm=message.shortened(notification.alarm)[0])
        identity = (notification.key, notification.rule.name)
        alert = self._alerts.get(identity)
        if alert is not None and not alert.is_of(notification.rule):
            self._end(alert, notification.time)
            alert = None
        if alert is None:
            if len(self._alerts) >= self._most:
                for target in self._targets:
                    target.receiver.dropped(1, f"more than {self._most} of them are raised")
                return
            alert = self._alerts[identity] = Alert(notification)
        else:
            alert.tell(notification)
        if notification.kind is Kind.CLEARED:
            self._end(alert, notification.time)
        else:
            alert.ended = None
            for target in self._targets:
                target.put_raised(alert)

    def _end(self, alert: Alert, time: int) -> None:
        if alert.ended is None:
            alert.ended = time
        for target in self._targets:
            target.put_ended(alert)


class _Due(NamedTuple):
    """An alert of an attempt. ``is_again``: it was told before that it ended."""

    alert: Alert
    is_again: bool


class Target(Delivery[_Due]):
    """One Alertmanager. An alert that it must be told of is in one of four places."""

    def __init__(self, receiver: Receiver, poster: Poster, interval: float, most: int) -> None:
        super().__init__(receiver, longest_pause=interval)
        self._poster = poster
        self._interval = interval
        self._most = most
        self._raised: OrderedDict[Alert, None] = OrderedDict()
        """To be sent now."""
        self._ended: OrderedDict[Alert, bool] = OrderedDict()
        """To be sent now with its end, at most ``most``; whether that is done again."""
        self._told_raised: OrderedDict[Alert, float] = OrderedDict()
        """Sent, and when to be sent again, by the loop's clock: in that order."""
        self._told_ended: OrderedDict[Alert, float] = OrderedDict()
        """Sent with its end, at most ``most``; the same."""

    def put_raised(self, alert: Alert) -> None:
        """Send it as soon as can be."""
        self._put_away(alert)
        self._raised[alert] = None
        self._wake.set()

    def put_ended(self, alert: Alert) -> None:
        """Send its end as soon as can be; where there is no room, in place of the oldest."""
        self._put_away(alert)
        if len(self._ended) >= self._most:
            self._ended.popitem(last=False)
            self._drop_end()
        self._ended[alert] = False
        self._wake.set()

    def _drop_end(self) -> None:
        self.receiver.dropped(1, "more of them ended than ALARM.queue allows to wait")

    def _put_away(self, alert: Alert) -> None:
        for place in (self._raised, self._ended, self._told_raised, self._told_ended):
            place.pop(alert, None)

    def _count(self) -> int:
        return len(self._raised) + len(self._ended)

    async def _until_waiting(self) -> None:
        while not self.waiting:
            self._wake.clear()
            try:
                await within(self._seconds_until_due(), self._wake.wait())
            except asyncio.TimeoutError:
                self._bring_due()
        await asyncio.sleep(GATHERING)

    def _seconds_until_due(self) -> float | None:
        """Until something is to be sent again; None where there is nothing."""
        first = [
            next(iter(told.values())) for told in (self._told_raised, self._told_ended) if told
        ]
        return max(0.0, min(first) - asyncio.get_running_loop().time()) if first else None

    def _bring_due(self) -> None:
        """Let wait what is to be sent again by now, as much as goes into a request."""
        # What is due a little later goes with it, or it would take a request for itself.
        until = asyncio.get_running_loop().time() + self._interval / 20
        for alert in _first_until(self._told_ended, until):
            del self._told_ended[alert]
            self._ended[alert] = True
        for alert in _first_until(self._told_raised, until):
            del self._told_raised[alert]
            self._raised[alert] = None

    def _take(self) -> list[_Due]:
        self._bring_due()
        count = min(PIECE, len(self._ended))
        items = [_Due(*self._ended.popitem(last=False)) for _ in range(count)]
        count = min(PIECE - count, len(self._raised))
        return items + [_Due(self._raised.popitem(last=False)[0], False) for _ in range(count)]

    def _give_back(self, items: list[_Due], error: Failed | None) -> None:
        for alert, is_again in items:
            if self._is_elsewhere(alert):
                continue
            if alert.ended is None:
                self._raised[alert] = None
            elif len(self._ended) < self._most:
                self._ended[alert] = is_again
            else:
                self._drop_end()

    def _settle(self, items: list[_Due]) -> None:
        due = asyncio.get_running_loop().time() + self._interval
        for alert, is_again in items:
            if self._is_elsewhere(alert):
                continue
            if alert.ended is None:
                self._told_raised[alert] = due
            elif not is_again:
                self._told_ended[alert] = due
                if len(self._told_ended) > self._most:
                    self._told_ended.popitem(last=False)

    def _is_elsewhere(self, alert: Alert) -> bool:
        """Something has happened to it since the attempt began."""
        return alert in self._raised or alert in self._ended

    async def _tell(self, items: list[_Due]) -> None:
        async for body in self._bodies(items):
            await self._poster.post(body)

    async def _bodies(self, items: list[_Due]) -> AsyncIterator[bytes]:
        """The items as JSON, in bodies that are not too large."""
        texts: list[bytes] = []
        held = 0
        until = now() + round(LASTS * self._interval * 1_000_000)
        for number, (alert, _) in enumerate(items, start=1):
            texts.append(alert.as_json(until))
            held += len(texts[-1])
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if held > PIECE_BYTES:
                yield b"[" + b",".join(texts) + b"]"
                texts, held = [], 0
        if texts:
            yield b"[" + b",".join(texts) + b"]"

    async def _close(self) -> None:
        await self._poster.close()


def _first_until(told: OrderedDict[Alert, float], until: float) -> list[Alert]:
    """The first of those that are due then, at most as many as go into a request."""
    return [alert for alert, due in islice(told.items(), PIECE) if due <= until]


def labels_of(notification: Notification) -> dict[str, str]:
    """What the alert is: the same as long as the alarm is raised."""
    told = {
        **notification.rule.labels,
        "alertname": notification.rule.name,
        "severity": message.severity(notification),
        "table": message.table(notification),
        "uve": notification.key,
    }
    return {name: message.clean(text) for name, text in told.items()}


def annotations_of(notification: Notification) -> dict[str, str]:
    """What is told of the alert, and may change; what is empty is left out."""
    alarm = notification.alarm
    told = {
        "description": notification.rule.description,
        "acknowledged": "true" if alarm["ack"] else "false",
        "token": alarm["token"],
        "conditions": "\n".join(message.conditions(alarm)),
        "value": message.first_value(alarm),
        "variables": "\n".join(message.variables(alarm)),
    }
    return {name: message.clean(text) for name, text in told.items() if text}


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST = 253_402_300_799_000_000
"""The end of the last year that has four digits."""


def _rfc3339(time: int) -> str:
    moment = _EPOCH + timedelta(microseconds=min(max(time, 0), _LAST))
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
