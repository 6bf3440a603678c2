"""Logging: where log lines go, how they look, and Contrail's levels.

Every other room logs through ``logging.getLogger(__name__)``, a notice with
``log.log(logs.NOTICE, …)``.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TextIO

from collectord.option_types import printable
from collectord.options import LOG_LEVELS
from collectord.settings import Settings

NOTICE = 25
"""What an operator wants to know on a normal day; between INFO and WARNING."""
LEVELS = dict(
    zip(
        LOG_LEVELS,
        (70, 60, logging.CRITICAL, logging.ERROR, logging.WARNING, NOTICE, 20, 10),
        strict=True,
    )
)
PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""Syslog's names of ``LEVELS``, in the same order."""
SYSLOG_SOCKET = "/dev/log"


def setup(settings: Settings) -> None:
    """Send the log to where ``settings`` say, in place of where it went before.

    Raises ConfigurationError where the log file or the syslog cannot be opened.
    """
    for name, level in LEVELS.items():
        logging.addLevelName(level, name)
    handlers: list[logging.Handler] = []
    if settings.flag("DEFAULT.log_local"):
        handlers.append(_local(settings))
    if settings.flag("DEFAULT.use_syslog"):
        handlers.append(_syslog(settings))
    # Without any handler, logging would write warnings to standard error.
    logging.basicConfig(handlers=handlers or [logging.NullHandler()], force=True)
    set_level(settings.text("DEFAULT.log_level"))


def set_level(name: str) -> None:
    """Log what is at least as severe as the level of that name, one of ``LEVELS``."""
    logging.getLogger().setLevel(LEVELS[name])


def iso(time: int) -> str:
    """Microseconds since the Unix epoch as people read them, to the second, UTC."""
    return f"{datetime.fromtimestamp(time / 1_000_000, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


class LineFormatter(logging.Formatter):
    """``<ISO 8601 time, UTC> <host> <level> <logger>: <message>``, each record on one line.

    What would end the line, or move a terminal's cursor, is escaped: no sender of data can forge
    a log line. A traceback is part of its line.
    """

    def __init__(self, hostname: str) -> None:
        super().__init__()
        self._hostname = hostname

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        return f"{time:%Y-%m-%dT%H:%M:%S.%fZ} {self._hostname} {self.text(record)}"

    def text(self, record: logging.LogRecord) -> str:
        """The line from its level on."""
        message = f"{record.levelname} {record.name}: {super().format(record)}"
        return printable(message)


class SyslogFormatter(LineFormatter):
    """``collectord[<process>]: <level> <logger>: <message>``: syslog adds time and host."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return f"collectord[{os.getpid()}]: {self.text(record)}"


if TYPE_CHECKING:
    _Stream = logging.StreamHandler[TextIO]
else:
    _Stream = logging.StreamHandler  # subscriptable only from Python 3.11 on

counters: Counter[str] = Counter(log_lines_lost=0)


class Handler(logging.Handler):
    """Counts a line that cannot be written, because a disk is full, say; logging would print a
    traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called by logging where ``emit`` failed."""
        counters["log_lines_lost"] += 1


class StreamHandler(Handler, _Stream):
    """A StreamHandler that counts what it loses."""


class FileHandler(Handler, logging.handlers.RotatingFileHandler):
    """A RotatingFileHandler that counts what it loses."""


class SyslogHandler(Handler, logging.handlers.SysLogHandler):
    """A SysLogHandler that knows Contrail's levels, and counts what it loses."""

    priority_map: ClassVar = dict(zip(LEVELS, PRIORITIES, strict=True))


def _local(settings: Settings) -> logging.Handler:
    handler: logging.Handler
    path = settings.text("DEFAULT.log_file")
    if path:
        try:
            handler = FileHandler(
                path,
                maxBytes=settings.integer("DEFAULT.log_file_size"),
                backupCount=settings.integer("DEFAULT.log_files_count"),
                encoding="utf-8",
            )
        except OSError as error:
            raise settings.error(
                "DEFAULT.log_file",
                f"{path!r} cannot be opened: {error.strerror}; name a file in a directory that "
                "this process may write to, or leave it empty for standard error",
            ) from error
    else:
        handler = StreamHandler()
    handler.setFormatter(LineFormatter(settings.text("DEFAULT.hostname")))
    return handler


def _syslog(settings: Settings) -> logging.Handler:
    # SysLogHandler would fail only with the first line, and print a traceback with each.
    if not Path(SYSLOG_SOCKET).is_socket():
        raise settings.error(
            "DEFAULT.use_syslog",
            f"no syslog listens on {SYSLOG_SOCKET}; start one, or set it to false",
        )
    facility = settings.text("DEFAULT.syslog_facility").removeprefix("LOG_").lower()
    handler = SyslogHandler(
        SYSLOG_SOCKET, facility=logging.handlers.SysLogHandler.facility_names[facility]
    )
    handler.setFormatter(SyslogFormatter(settings.text("DEFAULT.hostname")))
    return handler
