"""The notifiers: a file for each way of telling of alarms, and the table of them.

What goes to whom and when is Alertmanager's matter, or the receiver's: nothing is grouped, silenced
or routed here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from collectord.alarms.notification import Notifier
from collectord.settings import ConfigurationError, Settings

NOTIFIERS = {
    "ALARM.alertmanager": "alertmanager",
    "ALARM.webhook": "webhook",
    "ALARM.command": "command",
    "ALARM.log": "log",
}
"""The option that asks for a notifier, and its name: that of its file, which has ``make``. A file
is read only where its notifier is wanted: not everybody has httpx."""


def build(settings: Settings, hostname: str) -> list[Notifier]:
    """The notifiers that the settings ask for; ``hostname`` is who they speak for.

    Raises ConfigurationError with everything that is wrong.
    """
    notifiers: list[Notifier] = []
    errors: list[str] = []
    for option, name in NOTIFIERS.items():
        if not settings.setting(option).value:
            continue
        try:
            notifiers.append(_maker(settings, option, name)(settings, hostname))
        except ConfigurationError as error:
            errors += error.errors
    if errors:
        raise ConfigurationError(errors)
    return notifiers


def _maker(settings: Settings, option: str, name: str) -> Callable[[Settings, str], Notifier]:
    try:
        make: Callable[[Settings, str], Notifier] = importlib.import_module(
            f"{__name__}.{name}"
        ).make
    except ModuleNotFoundError as error:
        raise settings.error(
            option, f"wants {error.name}, which is not there; pip install 'collectord[alarms]'"
        ) from error
    return make
