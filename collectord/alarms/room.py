"""The room of alarms in a collector, which may stand empty: as long as there are no rules, nothing
of it is imported that only alarms need.

``alarms.py`` is what moves in, with the first rules, at the start or by SIGHUP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from collectord import logs, proxies, snapshot_file
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.reader import Structs
from collectord.requests import Operation, Reply, Request
from collectord.settings import ConfigurationError, Settings
from collectord.state import State
from collectord.wire import WireError

if TYPE_CHECKING:
    from collectord.alarms.alarms import Alarms, Publish
    from collectord.alarms.notification import Notifier
    from collectord.alarms.rules import Rule

log = logging.getLogger(__name__)

OPTION = "ALARM.rules_file"
TELLING = ("ALARM.alertmanager", "ALARM.webhook", "ALARM.webhook_secret_file", "ALARM.command")
WARNINGS = 20
"""Rules that can't hold are named one by one up to so many."""
PACKAGES = ("httpx", "pydantic")
"""What only alarms need."""


def read_rules(path: str) -> Sequence[Rule]:
    """The rules of a file, none where ``path`` is empty.

    Raises ValueError, a RulesError with all its ``errors`` where the file is wrong.
    """
    if not path:
        return ()
    try:
        from collectord.alarms import alarms, rules  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise ValueError(_wants(error.name)) from error
    try:
        return rules.read(path)
    except rules.RulesError as error:
        raise rules.RulesError(path, [f"{path}: {each}" for each in error.errors]) from error


def _build(settings: Settings) -> Sequence[Notifier]:
    """The notifiers that the options name. Raises ConfigurationError."""
    try:
        from collectord.alarms import notifiers
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise settings.error(OPTION, _wants(error.name)) from error
    return notifiers.build(settings, settings.text("DEFAULT.hostname"))


def _wants(package: str | None) -> str:
    return f"alarms want the package {package}: pip install 'collectord[alarms]'"


def _news(before: Mapping[str, Rule], now: Mapping[str, Rule]) -> list[str]:
    counts = {
        "new": len(now.keys() - before.keys()),
        "gone": len(before.keys() - now.keys()),
        "changed": sum(now[name] != before[name] for name in now.keys() & before.keys()),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return [f"rules of alarms: {len(now)} ({told})"] if told else []


class AlarmRoom:
    """What a collector has of alarms; ``take_on`` comes first, then ``serve``, then ``finish``.

    ``publish`` is the stream's, ``is_busy`` says whether updates come as fast as they can be taken.
    """

    def __init__(
        self,
        engine: Engine,
        state: State,
        clock: Clock,
        publish: Publish,
        is_busy: Callable[[], bool],
    ) -> None:
        self.alarms: Alarms | None = None
        self._engine = engine
        self._state = state
        self._clock = clock
        self._publish = publish
        self._is_busy = is_busy
        self._notifiers: Sequence[Notifier] | None = None
        self._moved_in = asyncio.Event()
        self._is_over = False
        self._rules: Mapping[str, Rule] = {}

    @staticmethod
    def check(settings: Settings) -> list[str]:
        """A sentence for each thing that is wrong with how alarms are to be told, rules or not."""
        if not any(settings.text(option) for option in (OPTION, *TELLING)):
            return []
        try:
            _build(settings)
        except ConfigurationError as error:
            return list(error.errors)
        return []

    def prepare(self, settings: Settings, rules: Sequence[Rule]) -> None:
        """See that these rules can be gone by; nothing else changes. Raises ConfigurationError."""
        if rules and self._notifiers is None:
            self._notifiers = _build(settings)

    def take_on(
        self, settings: Settings, rules: Sequence[Rule], is_configured: bool = True
    ) -> list[str]:
        """Go by rules that were prepared for; ``is_configured`` where the engine was, too.

        Returns what is news of them, in some words, if anything.
        """
        before, self._rules = self._rules, {rule.name: rule for rule in rules}
        if self.alarms is not None:
            self.alarms.take_on(rules, is_configured)
        elif rules:
            self.alarms = self._begin(settings, rules)
            self._moved_in.set()
        self._warn(settings)
        return _news(before, self._rules)

    def _warn(self, settings: Settings) -> None:
        """Of rules that look at proxy UVEs which nobody makes: they can't hold."""
        if not self._rules:
            return
        from collectord.alarms.rules import impossible

        metrics = proxies.parse_proxy_list(settings.text("DEFAULT.uve_proxy_list"))
        configured = {
            metric: [algorithm.name for algorithm in algorithms]
            for metric, algorithms in metrics.items()
        }
        sentences = [
            sentence
            for rule in self._rules.values()
            if rule.enabled
            for sentence in impossible(rule, configured)
        ]
        for sentence in sentences[:WARNINGS]:
            log.warning("%s: %s", OPTION, sentence)
        if len(sentences) > WARNINGS:
            log.warning(
                "%d more of the rules can't hold; `collectorctl rules check --live` names them",
                len(sentences) - WARNINGS,
            )

    def _begin(self, settings: Settings, rules: Sequence[Rule]) -> Alarms:
        from collectord.alarms.alarms import Alarms

        alarms = Alarms(
            self._engine,
            rules,
            clock=self._clock,
            limit=settings.integer("LIMITS.alarms"),
            notifiers=self._notifiers or (),
            publish=self._publish,
            is_busy=self._is_busy,
        )
        saved = self._state.add_room(snapshot_file.ALARMS, alarms.capture)
        if saved is not None:
            try:
                alarms.restore(saved)
            except ValueError as error:
                log.error("alarms begin anew, as what was saved of them can't be read: %s", error)
        about = alarms.status()
        log.log(
            logs.NOTICE,
            "rules of alarms: %d; active as before: %d",
            about["rules"],
            about["active"],
        )
        return alarms

    async def serve(self) -> None:
        """Evaluate, once there are rules, until cancelled; nothing changes any more after that."""
        try:
            await self._moved_in.wait()
            assert self.alarms is not None
            await self.alarms.serve()
        finally:
            self._is_over = True

    async def finish(self) -> None:
        """Tell what is still to be told, once nothing is evaluated any more."""
        if self.alarms is not None:
            await self.alarms.finish()

    # ---- what others ask -----------------------------------------------------------------------

    def operations(self, reply_size: int) -> Mapping[str, Operation]:
        """What is answered on the query socket, in pages of about that many bytes."""

        async def find(request: Request) -> Reply:
            if self.alarms is None:
                return {"alarms": {}}
            from collectord.alarms import asking

            return await asking.find(self.alarms, reply_size, request)

        async def acknowledge(request: Request) -> Reply:
            if self.alarms is None:
                raise WireError("not_found", f"there are no rules of alarms; {OPTION} names none")
            if self._is_over:  # it is saved already
                raise WireError("overloaded", "the collector is stopping; ask the next one")
            from collectord.alarms import asking

            return asking.acknowledge(self.alarms, request)

        return {"alarms": find, "ack": acknowledge}

    def structs(self, key: str) -> Structs:
        """What a view shows of alarms."""
        return {} if self.alarms is None else self.alarms.structs(key)

    def counters(self) -> Mapping[str, int]:
        """Everything counted since the start."""
        return {} if self.alarms is None else self.alarms.counters

    def status(self) -> dict[str, Any] | None:
        """For the ``status`` query; None without rules."""
        return None if self.alarms is None else self.alarms.status()

    def problems(self) -> list[str]:
        """A sentence for each thing that someone should know of."""
        return [] if self.alarms is None else self.alarms.problems()
