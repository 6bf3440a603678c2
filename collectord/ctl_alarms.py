"""``collectorctl alarms``, ``ack`` and ``watch --alarms``: what is raised, and what becomes of it.

How it looks is ``terminal_alarms.py``'s; rules are ``ctl_rules.py``'s.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from collectord import terminal_alarms, wire
from collectord.client import Alarm, Change, NotFound, QueryClient, QueryError, StaleToken, Timeout
from collectord.ctl_common import NOTHING, OK, Output, client, complain

ROWS_AT_ONCE = 500
"""Alarms in one table for people: there may be too many to wait for the last."""
TOLD = ("type", "severity", "timestamp", "token", "ack")
"""What is kept of an alarm to tell what becomes of it."""


def severity(text: str) -> int:
    """A severity of the command line: its word or its number."""
    names = [*wire.SEVERITIES, *map(str, range(len(wire.SEVERITIES)))]
    if text not in names:
        raise argparse.ArgumentTypeError(f"{text!r} is no severity; there are {', '.join(names)}")
    return names.index(text) % len(wire.SEVERITIES)


def alarms(options: argparse.Namespace) -> int:
    """``collectorctl alarms``."""
    output = Output(options)
    with client(options) as collector:
        rows = (
            {"key": key, **alarm}
            for key, alarms in collector.alarms(
                *_places(options.places),
                severity=options.severity,
                acknowledged=options.acknowledged,
            )
            for alarm in alarms
        )
        found = NOTHING
        while some := list(itertools.islice(rows, ROWS_AT_ONCE if output.tables else 1)):
            output.many(some[0], terminal_alarms.alarms, some)
            found = OK
    if found is NOTHING and output.tables:
        complain("nothing like that is raised" if _is_choosy(options) else "nothing is raised")
    return found


def _is_choosy(options: argparse.Namespace) -> bool:
    """Whether only some of what is raised was asked for."""
    return bool(options.places or options.severity) or options.acknowledged is not None


def _places(places: list[str]) -> tuple[list[str], list[str]]:
    """Tables, and patterns of keys; where there are both, a table is a pattern too."""
    patterns = [place for place in places if "*" in place or ":" in place]
    tables = [place for place in places if place not in patterns]
    return ([], patterns + [f"{table}:*" for table in tables]) if patterns else (tables, [])


def ack(options: argparse.Namespace) -> int:
    """``collectorctl ack``."""
    key, kind = options.key, options.type
    with client(options) as collector:
        token = options.token or _raised(collector, key, kind)["token"]
        try:
            alarm = {"key": key, **collector.acknowledge(key, kind, token)}
        except StaleToken as error:
            raise StaleToken(
                error.code,
                f"{error.message}; collectorctl alarms {shlex.quote(key)} shows what is raised now",
            ) from error
    Output(options).one(alarm, terminal_alarms.acknowledged, alarm)
    return OK


def _raised(collector: QueryClient, key: str, kind: str) -> Alarm:
    """The alarm of this type that is raised now. Raises NotFound, as if it had been asked for."""
    # A key may hold a star, and then matches others too.
    raised = dict(collector.alarms(match=[key])).get(key, [])
    for alarm in raised:
        if alarm["type"] == kind:
            return alarm
    there = ", ".join(repr(alarm["type"]) for alarm in raised) or "none"
    raise NotFound("not_found", f"{key!r} has no alarm {kind!r}; raised there now: {there}")


News = dict[str, Any]
"""What became of an alarm: ``what``, ``key``, and the alarm's own members."""


class Following:
    """What becomes of alarms, told from the messages of the stream.

    A message tells all that is raised on its key, so it is compared with what was raised before.
    That is asked for at the beginning; where it can't be, the first message of a key is all there
    is to go by, and a sentence on standard error says so.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._before: dict[str, dict[str, News]] = {}
        self._asked = False
        try:
            with client(options) as collector:
                for key, alarms in collector.alarms(match=[options.pattern]):
                    self._before[key] = _kept(_by_type(alarms))
            self._asked = True
        except (QueryError, Timeout) as error:
            complain(f"can't ask what is raised already, so all of it will seem new: {error}")

    def tell(self, change: Change) -> Iterator[tuple[News, Any, News]]:
        """What a message brings, each as ``Output.many`` takes it."""
        now = {} if change.deleted else _by_type(change.value["alarms"])
        before = self._before.pop(change.key, {} if self._asked else None)
        if now:
            self._before[change.key] = _kept(now)
        for news in _news(change.key, before, now):
            yield news, terminal_alarms.news, news


def _by_type(alarms: list[Alarm]) -> dict[str, Alarm]:
    return {alarm["type"]: alarm for alarm in alarms}


def _kept(alarms: Mapping[str, Alarm]) -> dict[str, Alarm]:
    return {kind: {name: alarm[name] for name in TOLD} for kind, alarm in alarms.items()}


def _news(key: str, before: Mapping[str, Alarm] | None, now: Mapping[str, Alarm]) -> Iterator[News]:
    """``before`` is None where nobody knows it."""
    if before is None and not now:
        yield {"what": "cleared", "key": key, "type": None}
    before = before or {}
    for kind in sorted(before.keys() | now.keys()):
        if what := _what(before.get(kind), now.get(kind)):
            yield {"what": what, "key": key, **(now.get(kind) or before[kind])}


def _what(before: Alarm | None, now: Alarm | None) -> str:
    """What became of one alarm; "" where nothing did."""
    if now is None:
        return "cleared"
    if before is None:
        return "raised"
    if before["token"] != now["token"]:
        return "changed"
    return "acknowledged" if now["ack"] and not before["ack"] else ""
