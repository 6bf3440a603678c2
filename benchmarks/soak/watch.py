"""Looking at a collector under load: questions at a steady rate, and a window every 10 s."""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.processes import Collector
from benchmarks.query import Client
from benchmarks.soak.loader import Pipe, key
from collectord import wire

WINDOW = 10.0
"""Seconds."""
QUESTIONS = 40
"""``get`` requests a second."""
SUM = "AggProxySum"


class Watch:
    """``windows`` are what was seen; each goes to ``file`` as a line of JSON as soon as it is over.

    ``get`` asks for the newest keys; those of ``keys`` before them that are gone are found missing.
    """

    def __init__(self, collector: Collector, pipe: Pipe, file: Path, keys: int) -> None:
        self.windows: list[dict[str, Any]] = []
        self.sums_compared = 0
        self.wrong: list[str] = []
        self._collector = collector
        self._pipe = pipe
        self._file = file
        self._keys = self._made = keys
        self._chance = random.Random(2)
        self._start = time.monotonic()
        self._begin: dict[str, Any] = {}

    def watch(self, client: Client, seconds: float, told: Callable[[dict[str, Any]], None]) -> None:
        """Ask and write down for so long; ``told`` is called with each window."""
        status = wire.decode(client.ask(wire.encode({"op": "status"})))
        self._begin = {
            "seconds": time.monotonic() - self._start,
            "records": status["counters"]["records"],
        }
        end = time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            taken: list[float] = []
            found = 0
            while time.monotonic() < begin + WINDOW:
                due = begin + len(taken) / QUESTIONS
                time.sleep(max(0.0, due - time.monotonic()))
                seconds_taken, is_there = self._get(client)
                taken.append(seconds_taken)
                found += is_there
                if self._pipe.poll():
                    self._hear(client, self._pipe.recv())
            window = self._look(client, sorted(taken), found)
            self.windows.append(window)
            with self._file.open("a") as lines:
                lines.write(json.dumps(window) + "\n")
            told(window)

    def _get(self, client: Client) -> tuple[float, bool]:
        serial = self._made - 1 - self._chance.randrange(self._keys)
        request = wire.encode({"op": "get", "key": key(serial)})
        start = time.perf_counter()
        reply = client.ask(request)
        return time.perf_counter() - start, wire.decode(reply)["ok"]

    def _look(self, client: Client, taken: list[float], found: int) -> dict[str, Any]:
        status = wire.decode(client.ask(wire.encode({"op": "status"})))
        records = status["counters"]["records"]
        now = time.monotonic() - self._start
        before = self.windows[-1] if self.windows else self._begin
        return {
            "seconds": now,
            "resident": resident_bytes(self._collector.process.pid),
            "p50": taken[len(taken) // 2],
            "p99": taken[len(taken) * 99 // 100],
            "most": taken[-1],
            "asked": len(taken),
            "found": found,
            "records": records,
            "rate": (records - before["records"]) / (now - before["seconds"]),
            "sizes": status["sizes"],
            "counters": status["counters"],
            "snapshot": status.get("snapshot"),
        }

    def _hear(self, client: Client, message: Any) -> None:
        """What the loader tells."""
        match message:
            case ("made", int(made)):
                self._made = made
            case ("expect", period, expected):
                self._compare(client, period, expected)
            case _:
                raise AssertionError(f"the loader says {message}")

    def _compare(self, client: Client, period: int, expected: Any) -> None:
        """The sums of the last whole minute."""
        for name, sums in expected:
            view = wire.decode(client.ask(wire.encode({"op": "get", "key": name}))).get("uve", {})
            for attribute, right in zip(load.ATTRIBUTES, sums, strict=True):
                proxy = view.get(f"{SUM}-{load.STRUCT}-{attribute}", {})
                told = proxy.get("value", {}).get("value")
                self.sums_compared += 1
                if told != right:
                    self.wrong.append(f"{name} {attribute} in {period}: {right} is {told}")


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
