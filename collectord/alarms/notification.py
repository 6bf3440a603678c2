"""What is told of an alarm, and what tells it: the words that the alarms and the notifiers share.

Each way of telling is a file in ``notifiers/``. When an alarm is raised or cleared is decided in
``machine.py``, long before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # who only counts or logs starts without pydantic
    from collectord.alarms.rules import Rule


class Kind(str, Enum):
    """What has become of an alarm; its value is the word that receivers are told."""

    RAISED = "raised"
    CHANGED = "changed"
    """It is raised still, but what it found is another thing: it has a new token."""
    CLEARED = "cleared"
    ACKNOWLEDGED = "acknowledged"
    RESTORED = "restored"
    """It was raised before a restart: nobody is told anew, but who is told again and again, as
    Alertmanager is, must know."""


class Notification(NamedTuple):
    """One thing that happened to one alarm.

    ``alarm`` is as in the UVE's struct ``UVEAlarms``: type, severity, timestamp, token, ack,
    description, alarm_rules; of a cleared alarm, as it was. Nobody may change it any more.
    """

    kind: Kind
    key: str
    rule: Rule
    alarm: Mapping[str, Any]
    time: int
    """When it happened, microseconds since the Unix epoch."""


class Notifier(Protocol):
    """One way of telling. All of it is for the thread of the event loop."""

    name: str
    counters: Counter[str]
    """``<name>_sent``: notifications told (alerts, each time counted, by Alertmanager's);
    ``<name>_failed``: attempts that came to nothing; ``<name>_dropped``: notifications given up."""

    @property
    def waiting(self) -> int:
        """How many notifications are still to be told, once for each receiver."""

    def notify(self, notification: Notification) -> None:
        """Take on what is to be told. It never waits and never raises."""

    async def serve(self) -> None:
        """Tell what comes, until cancelled."""

    async def finish(self, seconds: float) -> None:
        """At the end: tell what waits as far as the time goes, then close. ``serve`` may run still
        or be cancelled; after it nothing may be notified."""

    def problems(self) -> list[str]:
        """A sentence for each receiver that can't be told, with the last reason."""
