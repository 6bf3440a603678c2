"""What a supervisor is told: that the collector is ready, reloads, stops, and that it still moves.

This is systemd's protocol of ``sd_notify(3)``, one datagram a message; without ``NOTIFY_SOCKET``
nothing is told. ``Pulse`` knows which part of the collector stands still.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

SEND_TIMEOUT = 1.0
"""Seconds to wait where the supervisor doesn't read."""
LOAD_OVER = 0.02
"""Seconds that are looked back on to see whether a part is busy."""
IDLE_SHARE = 0.7
"""A part that waits for less of the time is busy."""
LEAST_WATCHDOG = 4.0
"""Seconds: with less than that, a part that moves once a second may be taken for dead."""


class Notifier:
    """Tells the supervisor that the environment names, if it does. It never fails."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.watchdog = _watchdog(environ)
        """Seconds in which the supervisor wants to hear that all moves; None where it doesn't."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._told: str | None = None

    def ready(self) -> None:
        """It serves; after a reload, it does so again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` is to follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people; told where it differs from before."""
        if text != self._told:
            self._told = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Everything moves."""
        self._send("WATCHDOG=1")

    def more_time(self, seconds: float) -> None:
        """What is under way, a start or a stop, may take as long as this from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def _send(self, message: str) -> None:
        if self._address[:1] not in ("/", "@"):
            return  # nobody, or an address of a kind that only virtual machines have
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_TIMEOUT)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.warning("cannot tell %s %s: %s", self._address, message.split("\n")[0], error)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    number, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not number.isdecimal() or int(number) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(number) / 1_000_000


class Pulse:
    """Which parts move: each has a number that is another one as long as the part lives."""

    def __init__(self, parts: Mapping[str, Callable[[], int]]) -> None:
        self._parts = dict(parts)
        self._seen = {name: (look(), time.monotonic()) for name, look in self._parts.items()}

    def still(self) -> dict[str, float]:
        """Seconds for which each part has not moved, as far as the looks at them tell."""
        now = time.monotonic()
        for name, look in self._parts.items():
            number = look()
            if number != self._seen[name][0]:
                self._seen[name] = number, now
        return {name: now - since for name, (_, since) in self._seen.items() if name in self._parts}

    def clear(self) -> None:
        """No part has to move any more."""
        self._parts.clear()


class Load:
    """Whether a part has hardly a moment to spare; ``waited`` gives the seconds that it had."""

    def __init__(self, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._last = (time.monotonic(), waited())
        self._is_busy = False

    def is_busy(self) -> bool:
        """Whether it was at work for nearly all of the time, of late."""
        now, waited = time.monotonic(), self._waited()
        begun, before = self._last
        if now - begun >= LOAD_OVER:
            self._is_busy = waited - before < IDLE_SHARE * (now - begun)
            self._last = (now, waited)
        return self._is_busy


async def feed_watchdog(notifier: Notifier, pulse: Pulse, seconds: float) -> None:
    """Tell the supervisor every half of so many seconds that all moves; until cancelled.

    That the event loop moves is shown by this very task. Once a part stands still nothing is told,
    and the supervisor does what it was told to.
    """
    if seconds < LEAST_WATCHDOG:
        log.warning(
            "a watchdog of %g s may bite what is well; give it %g s or more",
            seconds,
            LEAST_WATCHDOG,
        )
    turn = seconds / 2
    pulse.still()
    stopped: set[str] = set()
    while True:
        await asyncio.sleep(turn)
        still = {name for name, seconds in pulse.still().items() if seconds >= turn}
        for name in still - stopped:
            log.critical("%s has not moved for %.1f s: the watchdog is not fed", name, turn)
        stopped = still
        if not still:
            notifier.alive()
