"""A collector for a demonstration or a measurement: a process of its own, gone when that is over.

It listens on free ports of this host, reads no configuration file, and saves nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, NamedTuple

START_SECONDS = 20
END_SECONDS = 10
"""Seconds to end by itself when it is told to."""
LOOK_AGAIN = 0.02
"""Seconds between two looks at what it says."""
SAID_BYTES = 1 << 16
"""Of what it said, so much of the end is read."""
_SERVES = re.compile(r"serves: ingest (\S+), query (\S+), stream (\S+)")
_NOT_ITS_OWN = ("COLLECTORD_", "NOTIFY_SOCKET", "STATE_DIRECTORY", "WATCHDOG_")
"""Variables of the environment that are meant for another collector."""


class Addresses(NamedTuple):
    """Where a collector listens, as ``tcp://HOST:PORT``."""

    ingest: str
    query: str
    stream: str


class CollectorError(Exception):
    """The collector did not start, or ended too early: has what it said."""


@contextmanager
def collector(options: Mapping[str, str] | None = None) -> Iterator[Addresses]:
    """A collector that lives as long as the block; ``options`` as in ``DEFAULT.uve_proxy_list``.

    Raises CollectorError where it doesn't start, with what it said; and at the end of a block that
    went well where it is no longer there.
    """
    settings = {f"{section}.port": "0" for section in ("COLLECTOR", "QUERY", "STREAM")}
    settings |= {"DEFAULT.hostip": "127.0.0.1", "SNAPSHOT.directory": "", **(options or {})}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "collectord"),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith(_NOT_ITS_OWN)
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for whoever started it, who then ends it in order
        )
        try:
            yield _addresses(process, log)
            if (code := process.poll()) is not None:
                raise CollectorError(f"the collector ended with {code}; it said:\n{_said(log)}")
        finally:
            _end(process)


def _addresses(process: subprocess.Popen[bytes], log: IO[bytes]) -> Addresses:
    """Where a starting collector says that it listens."""
    deadline = time.monotonic() + START_SECONDS
    while not (found := _SERVES.search(_said(log))):
        if (code := process.poll()) is not None:
            raise CollectorError(f"the collector did not start ({code}); it said:\n{_said(log)}")
        if time.monotonic() > deadline:
            raise CollectorError(
                f"the collector did not start within {START_SECONDS} s; it said:\n{_said(log)}"
            )
        time.sleep(LOOK_AGAIN)
    return Addresses(*found.groups())


def _said(log: IO[bytes]) -> str:
    """The end of what it said so far."""
    size = os.fstat(log.fileno()).st_size
    said = os.pread(log.fileno(), SAID_BYTES, max(size - SAID_BYTES, 0))
    return said.decode(errors="replace").strip() or "nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and make it where it doesn't."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
