"""Alarms in the log: a line for each thing that happens to one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from collectord import logs
from collectord.alarms.notification import Notification
from collectord.alarms.notifiers import message
from collectord.alarms.notifiers.delivery import Event, EventNotifier, Lane, Receiver
from collectord.settings import Settings

log = logging.getLogger(__name__)


def make(settings: Settings, hostname: str) -> EventNotifier:
    """The notifier, where the settings want one; the log has the host's name already."""
    counters: Counter[str] = Counter()
    lane = _LogLane(Receiver("log", "the log", counters), attempts=1)
    return EventNotifier("log", [[lane]], counters, settings.integer("ALARM.queue"))


def line(notification: Notification) -> str:
    """What the log says of a notification."""
    found = "; ".join(message.conditions(notification.alarm))
    return (
        f"alarm {notification.kind.value}: {notification.rule.name} "
        f"({message.severity(notification)}) of {notification.key}: {found}"
    )


class _LogLane(Lane):
    """Writes lines; between two of them others have their turn."""

    async def _tell_of(self, event: Event) -> None:
        log.log(logs.NOTICE, "%s", line(event.notification))
        await asyncio.sleep(0)
