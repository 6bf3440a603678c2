"""The processes that benchmarks talk to: a collector as it is installed, and the bare transport."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PORTS = ("COLLECTOR.port", "QUERY.port", "STREAM.port")


@dataclass(frozen=True)
class Collector:
    """Where a running collector listens."""

    ingest: str
    query: str
    stream: str


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on free ports, for as long as the block lasts."""
    options = [word for name in PORTS for word in (f"--{name}", "0")]
    with _running(["-m", "collectord", *options]) as line:
        yield Collector(*_endpoints(line, len(PORTS)))


@contextlib.contextmanager
def running_sink() -> Iterator[str]:
    """The endpoint of a process that receives batches and throws them away; see ``sink.py``."""
    with _running(["-m", "benchmarks.sink"]) as line:
        yield _endpoints(line, 1)[0]


@contextlib.contextmanager
def _running(arguments: Sequence[str]) -> Iterator[str]:
    """Run Python until the block ends; gives the first line it writes to standard error."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline()
    finally:
        process.terminate()
        process.communicate()


def _endpoints(line: str, count: int) -> list[str]:
    found = re.findall(r"tcp://[\w.\[\]:]+:\d+", line)
    if len(found) != count:
        raise RuntimeError(f"a process that was to listen said: {line.strip()}")
    return found
