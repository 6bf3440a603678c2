"""The sources of a soak: keys that come and go, batches at a set rate, and what they add up to.

It runs in a process of its own, and is told and tells through a pipe: ``("fill",)``,
``("full", seconds)``, ``("hold", batches a second)``, ``("stop",)``. Each is answered when done;
while it holds a rate, it tells how many keys it made, and what some must show of the last minute.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import zmq

from benchmarks import load
from collectord import wire

SOURCE_KEYS = 2_000
"""Of each source: two batches."""
VARIANTS = 2
"""Values that a source tells in turn."""
TURNOVER = 5.0
"""Seconds until the oldest source makes way for another."""
WINDOW = 64
PERIOD = 60_000_000
CHECKED = 50
"""Keys whose sums are compared in each minute."""
CHECK_AT = 15
"""Seconds after a minute began; the one before is closed then."""


class Pipe(Protocol):
    """An end of ``multiprocessing.Pipe``."""

    def send(self, obj: Any) -> None: ...
    def recv(self) -> Any: ...
    def poll(self, timeout: float | None = 0.0) -> bool: ...


def key(serial: int) -> str:
    return f"{load.TABLE}:default-domain:soak:{serial:09}"


def value(serial: int, variant: int, attribute: int) -> int:
    """What the key's attribute is in this variant of its batch."""
    return (serial * 7919 + variant * 104_729 + attribute * 31) % 1000


@dataclass
class Source:
    """Keys from ``first`` on. ``bodies`` are those of its batches, one list for each variant."""

    name: str
    first: int
    epoch: int
    seq: int = 0
    begun: int = 0
    """When it told all of its keys first, microseconds."""
    bodies: list[list[bytes]] = field(default_factory=list)
    told: dict[int, Counter[tuple[int, int]]] = field(default_factory=dict)
    """How often each batch was sent in each variant, by period."""

    def renew(self, first: int) -> None:
        """Other keys."""
        self.first = first
        self.begun = 0
        self.told.clear()
        self.bodies = [
            [
                b"".join(
                    wire.encode(
                        [
                            key(serial),
                            load.STRUCT,
                            {
                                name: value(serial, variant, at)
                                for at, name in enumerate(load.ATTRIBUTES)
                            },
                        ]
                    )
                    for serial in range(begin, begin + load.BATCH)
                )
                for begin in range(first, first + SOURCE_KEYS, load.BATCH)
            ]
            for variant in range(VARIANTS)
        ]

    def expected(self, serial: int, period: int) -> list[int]:
        """The sums of the key's attributes in a period."""
        batch = (serial - self.first) // load.BATCH
        told = self.told.get(period, Counter())
        return [
            sum(told[batch, variant] * value(serial, variant, at) for variant in range(VARIANTS))
            for at in range(len(load.ATTRIBUTES))
        ]


class Loader:
    """All sources, on one DEALER."""

    def __init__(self, endpoint: str, keys: int) -> None:
        self.sent = self.applied = 0
        """Records, those that were acknowledged as applied."""
        self.made = 0
        """Keys, over all sources there ever were."""
        self._socket = zmq.Context().socket(zmq.DEALER)
        self._socket.connect(endpoint)
        self._waiting: deque[tuple[str, int]] = deque()
        self._names = 0
        self._removes = False
        self._chance = random.Random(1)
        self._sources = deque(self._new_source() for _ in range(keys // SOURCE_KEYS))
        self._turnover_at = 0.0
        self._checked = 0

    def run(self, pipe: Pipe) -> None:
        """Do what one is told to, until the end."""
        while True:
            what, *arguments = pipe.recv()
            if what == "fill":
                for source in self._sources:
                    self._round(source, 0)
                pipe.send(("filled", self.made))
            elif what == "full":
                pipe.send(("full", self._full(*arguments)))
            elif what == "hold":
                self._hold(arguments[0], pipe)
            elif what == "stop":
                self._await_answers(0)
                pipe.send(("done", self.sent, self.applied, self.made, self._names))
                return

    # ---- sending --------------------------------------------------------------------------------

    def _full(self, seconds: float) -> float:
        """Batches a second that are acknowledged, as fast as they are."""
        start, before = time.perf_counter(), self.sent
        while time.perf_counter() - start < seconds:
            for variant in range(VARIANTS):
                for source in self._sources:
                    self._round(source, variant)
        self._await_answers(0)
        return (self.sent - before) / load.BATCH / (time.perf_counter() - start)

    def _hold(self, rate: float, pipe: Pipe) -> None:
        """Send at this rate until there is something to read in the pipe."""
        due = time.perf_counter()
        self._turnover_at = time.monotonic() + TURNOVER
        variant = 0
        while True:
            variant = (variant + 1) % VARIANTS
            for source in list(self._sources):
                self._round(source, variant)
                due += SOURCE_KEYS / load.BATCH / rate
                early = due - time.perf_counter()
                if early > 0:
                    time.sleep(early)
                elif early < -1.0:
                    due = time.perf_counter()  # what was missed is not made up for
                if time.monotonic() >= self._turnover_at:
                    self._turnover_at += TURNOVER
                    self._turn_over()
                    pipe.send(("made", self.made))
                self._tell_expected(pipe)
                if pipe.poll():
                    return

    def _round(self, source: Source, variant: int) -> None:
        """Every key of the source, once."""
        for number, body in enumerate(source.bodies[variant]):
            now = time.time_ns() // 1000
            self._send(source, body, now)
            told = source.told.setdefault(now // PERIOD, Counter())
            told[number, variant] += 1
        source.begun = source.begun or time.time_ns() // 1000

    def _send(self, source: Source, body: bytes, now: int) -> None:
        self._await_answers(WINDOW - 1)
        source.seq += 1
        head = wire.encode_batch_head(
            source.name, load.BATCH, time=now, epoch=source.epoch, seq=source.seq, newest=source.seq
        )
        self._socket.send(head + body)
        self._waiting.append((source.name, source.seq))
        self.sent += load.BATCH

    def _await_answers(self, left: int) -> None:
        """Wait until no more batches than these are unanswered; take what has come."""
        while len(self._waiting) > left or self._socket.poll(0):
            answer = wire.decode(self._socket.recv())
            if "duplicate" in answer:
                continue  # a source that is silent is told what is durable
            name, seq = self._waiting.popleft()
            if answer.get("applied") != load.BATCH or answer["seq"] != seq or "rejected" in answer:
                raise AssertionError(f"batch {seq} of {name} was answered {answer}")
            self.applied += load.BATCH

    # ---- keys that come and go ------------------------------------------------------------------

    def _new_source(self) -> Source:
        self._names += 1
        name = f"host-{self._names}:Compute:contrail-vrouter-agent:0"
        source = Source(name, 0, time.time_ns() // 1000)
        source.renew(self._new_keys())
        return source

    def _new_keys(self) -> int:
        first, self.made = self.made, self.made + SOURCE_KEYS
        return first

    def _turn_over(self) -> None:
        """The oldest source removes its keys and tells of others, or is heard of no more."""
        source = self._sources.popleft()
        if self._removes:
            now = time.time_ns() // 1000
            for begin in range(source.first, source.first + SOURCE_KEYS, load.BATCH):
                gone = [
                    wire.encode([key(serial), load.STRUCT, None])
                    for serial in range(begin, begin + load.BATCH)
                ]
                self._send(source, b"".join(gone), now)
            source.renew(self._new_keys())
        else:
            source = self._new_source()
        self._removes = not self._removes
        self._sources.append(source)

    # ---- what the collector must show -----------------------------------------------------------

    def _tell_expected(self, pipe: Pipe) -> None:
        """Once a minute: ``("expect", period, [(key, [sum of each attribute])])``."""
        now = time.time_ns() // 1000
        period = now // PERIOD - 1
        if period == self._checked or now % PERIOD < CHECK_AT * 1_000_000:
            return
        self._checked = period
        # A source that may make way before it is looked at is none to look at.
        lasting = [
            source
            for source in list(self._sources)[len(self._sources) // 4 :]
            if 0 < source.begun < period * PERIOD
        ]
        expected = []
        for source in self._chance.choices(lasting, k=CHECKED) if lasting else ():
            serial = source.first + self._chance.randrange(SOURCE_KEYS)
            expected.append((key(serial), source.expected(serial, period)))
        for source in self._sources:
            for old in [number for number in source.told if number < period]:
                del source.told[old]
        pipe.send(("expect", period, expected))


def run(endpoint: str, keys: int, pipe: Pipe) -> None:
    """The process."""
    Loader(endpoint, keys).run(pipe)
