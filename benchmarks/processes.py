"""The processes that benchmarks talk to: a collector as it is installed, and the bare transport."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
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
    process: subprocess.Popen[str]


@contextlib.contextmanager
def running_collector(*options: str) -> Iterator[Collector]:
    """A collector on free ports, for as long as the block lasts; without snapshots, unless the
    options name a directory for them."""
    ports = [word for name in PORTS for word in (f"--{name}", "0")]
    with _running(["-m", "collectord", *ports, *options], len(PORTS)) as (process, endpoints):
        ingest, query, stream = endpoints
        yield Collector(ingest, query, stream, process)


@contextlib.contextmanager
def running_sink() -> Iterator[str]:
    """The endpoint of a process that receives batches and throws them away; see ``sink.py``."""
    with _running(["-m", "benchmarks.sink"], 1) as (_, endpoints):
        yield endpoints[0]


@contextlib.contextmanager
def _running(
    arguments: Sequence[str], count: int
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run Python until the block ends; gives so many endpoints that it says it listens on.

    What it says after that is passed on to standard error.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        endpoints = _endpoints(process, count)
        threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
        yield process, endpoints
    finally:
        process.terminate()
        process.wait()


def _endpoints(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        found = re.findall(r"tcp://[\w.\[\]:]+:\d+", line)
        if len(found) == count:
            return found
        said.append(line)
    raise RuntimeError(f"a process that was to listen said: {''.join(said).strip()}")


def _pass_on(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            sys.stderr.write(line)
