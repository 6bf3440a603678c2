"""A command that is run for each event: the JSON on its standard input, no shell in between.

It has done its work when it ends with exit code 0. It may take as long as ``ALARM.timeout``; then
it is killed with its process group: what it has started, but for what went into a group or a
session of its own, as with ``setsid``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from collectord.alarms.notification import Notification
from collectord.alarms.notifiers import message
from collectord.alarms.notifiers.delivery import (
    Event,
    EventNotifier,
    Failed,
    Lane,
    Receiver,
    within,
)
from collectord.option_types import printable, quoted
from collectord.settings import Settings

log = logging.getLogger(__name__)

OPTION = "ALARM.command"
LANES = 4
"""Commands that run at once; what is of one alarm never does."""
ATTEMPTS = 4
START_PAUSE = 0.05
"""Seconds between two starts in a lane: one takes the event loop about a millisecond."""
LOGGED_BYTES = 1 << 10
"""Of what a command writes, in the log at its level for debugging."""
OUTPUT_BYTES = 1 << 20
"""The most that a command may write; with more, nobody reads any longer."""
LINGERING = 0.1
"""Seconds for which more of its output may come when it has ended."""
INHERITED = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
INHERITED_BEGINNING = "LC_"
"""The variables that the command gets of this process's: others may hold secrets, speak for this
process, or change what the command does."""


def make(settings: Settings, hostname: str) -> EventNotifier:
    """The notifier for the command of the settings. Raises ConfigurationError."""
    try:
        argv = shlex.split(settings.text(OPTION))
    except ValueError as error:
        raise settings.error(OPTION, f"cannot be split into words: {error}") from None
    program = shutil.which(argv[0]) if argv else None
    if program is None:
        raise settings.error(
            OPTION,
            f"{quoted(argv[0] if argv else '')} is no program that can be run; write the path of "
            "one, and its arguments",
        )
    counters: Counter[str] = Counter()
    receiver = Receiver("command", f"command {quoted(program)}", counters)
    timeout = settings.seconds("ALARM.timeout")
    lanes = [_CommandLane(receiver, [program, *argv[1:]], timeout, hostname) for _ in range(LANES)]
    return EventNotifier("command", [lanes], counters, settings.integer("ALARM.queue"))


def environment(notification: Notification) -> dict[str, str]:
    """The variables of a command: some of this process's, and a few for short scripts."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith(INHERITED_BEGINNING)
    }
    told = {
        "ALARM_KIND": notification.kind.value,
        "ALARM_KEY": notification.key,
        "ALARM_RULE": notification.rule.name,
        "ALARM_SEVERITY": message.severity(notification),
        "ALARM_TOKEN": str(notification.alarm["token"]),
    }
    return {**inherited, **{name: printable(text) for name, text in told.items()}}


class _CommandLane(Lane):
    """Runs the command, one after the other."""

    def __init__(
        self, receiver: Receiver, argv: Sequence[str], timeout: float, hostname: str
    ) -> None:
        super().__init__(receiver, ATTEMPTS)
        self._argv = argv
        self._timeout = timeout
        self._hostname = hostname

    async def _tell_of(self, event: Event) -> None:
        body = message.as_json(event.notification, self._hostname)
        try:
            async with _reading() as output:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=output.descriptor,
                    stderr=output.descriptor,
                    env=environment(event.notification),
                    start_new_session=True,
                )
                output.close_descriptor()
                await self._run(process, body)
                await asyncio.wait([output.ended], timeout=LINGERING)
        except OSError as error:
            raise Failed(f"it can't be started: {error.strerror}") from error
        if output.first:
            log.debug("%s wrote: %s", self.receiver.title, output.first.decode("utf-8", "replace"))
        if process.returncode:
            raise Failed(_ending(process.returncode))
        await asyncio.sleep(START_PAUSE)

    async def _run(self, process: asyncio.subprocess.Process, body: bytes) -> None:
        """Wait for its end, for so long. Raises Failed; it does not run any more in any case."""
        try:
            await within(self._timeout, process.communicate(body))
        except asyncio.TimeoutError:
            raise Failed(f"it ran longer than {self._timeout:g} s, and was killed") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            if process.stdin is not None and not process.stdin.transport.is_closing():
                process.stdin.transport.abort()  # nobody has read all of it


class _Output(asyncio.Protocol):
    """What the command writes: the first of it is kept, some of it read, no more."""

    def __init__(self) -> None:
        self.descriptor = -1
        """To be written to."""
        self.first = b""
        self.ended = asyncio.get_running_loop().create_future()
        """Is done when nobody can write any more."""
        self._transport: asyncio.BaseTransport | None = None
        self._left = OUTPUT_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio first."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with what was written."""
        self.first += data[: LOGGED_BYTES - len(self.first)]
        self._left -= len(data)
        if self._left < 0 and self._transport is not None:
            self._transport.close()  # whoever writes on is told so by a signal

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio last."""
        if not self.ended.done():
            self.ended.set_result(None)

    def close_descriptor(self) -> None:
        """The command has its own."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Read no more, whoever may have it open still."""
        self.close_descriptor()
        if self._transport is not None:
            self._transport.close()


@contextlib.asynccontextmanager
async def _reading() -> AsyncIterator[_Output]:
    """A pipe that is read as long as this lasts."""
    output = _Output()
    reading, output.descriptor = os.pipe()
    try:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: output, os.fdopen(reading, "rb", buffering=0))
        yield output
    finally:
        output.close()


def _ending(code: int) -> str:
    """How it ended, from an exit code that is not 0."""
    if code > 0:
        return f"it ended with exit code {code}"
    return f"it was ended by signal {-code}, {signal.strsignal(-code)}"
