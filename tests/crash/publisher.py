"""A publisher by the book: it keeps every batch until it is durable, and sends again what is asked.

It never waits: ``pump`` takes what has come and sends what may be sent. Whatever the collector says
that it must not say is a line in ``violations``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

from .account import AGGTYPES, PERIOD, SAMPLED, STRUCT, Record

WINDOW = 32
"""Batches on their way that are not answered yet."""
ANSWER_TIMEOUT = 0.7
"""Seconds after which a batch that wasn't answered is sent again."""
DURABLE_TIMEOUT = 2.5
"""Seconds of silence after which the last batch is sent again, to see whether it is still there; a
collector that lives tells of itself what is durable, after a second or so."""
PAUSE = 0.05
"""Seconds until a batch is sent again that the collector had no room for."""


@dataclass(frozen=True)
class Batch:
    """One that is kept. ``oldest`` is the first period of its samples, if it has any."""

    seq: int
    records: Sequence[Record]
    oldest: int | None


class Publisher:
    """One source, on a DEALER of its own."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        name: str,
        figures: Counter[str],
        *,
        tells_newest: bool = True,
    ) -> None:
        self.name = name
        self.violations: list[str] = []
        self._context = context
        self._endpoint = endpoint
        self._figures = figures
        self._tells_newest = tells_newest
        self._epoch = 0
        self._socket: zmq.Socket[bytes] | None = None
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Begin as a new process would: another connection, number 1. All was durable before."""
        if self._socket is not None:
            assert self.is_durable
            self._socket.close(linger=0)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 40)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.connect(self._endpoint)
        self._epoch += 1
        self.seq = 0
        self.durable = 0
        self.kept: dict[int, Batch] = {}
        self._answered = 0  # the last number that the collector has, as far as is known
        self._next = 1  # the number to send next
        self._furthest = 0  # the last number that was sent
        self._rewound = 0
        self._heard = self._rewound_at = self._paused_until = 0.0

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def is_durable(self) -> bool:
        """Whether nothing is kept any more."""
        return self.durable == self.seq

    @property
    def oldest(self) -> int | None:
        """The first period of all samples that are not durable."""
        return min(
            (batch.oldest for batch in self.kept.values() if batch.oldest is not None), default=None
        )

    def keep(self, records: Sequence[Record]) -> None:
        """Take the records of a batch: they go out with the next number."""
        self.seq += 1
        periods = [
            record[3] // PERIOD
            for record in records
            if record[1] == STRUCT and record[2] and record[2].get(SAMPLED) is not None
        ]
        self.kept[self.seq] = Batch(self.seq, records, min(periods, default=None))
        self._figures["batches"] += 1

    def pump(self) -> None:
        """Take what was answered, send what may be sent."""
        assert self._socket is not None
        now = time.monotonic()
        while self._socket.poll(0):
            self._heard = now
            self._take(msgpack.unpackb(self._socket.recv(), strict_map_key=False), now)
        silence = now - self._heard
        if self._next > self._answered + 1 and silence > ANSWER_TIMEOUT:
            self._rewind(self._answered + 1, now)
        elif self._answered == self.seq > self.durable and silence > DURABLE_TIMEOUT:
            self._figures["probes"] += 1
            self._rewind(self.seq, now)
        if now < self._paused_until:
            return
        while self._next <= self.seq and self._next <= self._answered + WINDOW:
            if self._next == self._answered + 1:
                self._heard = now  # the wait for its answer begins
            self._send(self.kept[self._next])
            self._next += 1

    def close(self) -> None:
        assert self._socket is not None
        self._socket.close(linger=0)

    def _send(self, batch: Batch) -> None:
        assert self._socket is not None
        fields: dict[str, Any] = {"newest": self.seq} if self._tells_newest else {}
        body = msgpack.packb(
            {
                "seq": batch.seq,
                "epoch": self._epoch,
                "source": self.name,
                **fields,
                "aggtypes": AGGTYPES,
                "records": batch.records,
            }
        )
        self._socket.send(body)
        self._figures["sent"] += 1
        self._figures["resent"] += batch.seq <= self._furthest
        self._furthest = max(self._furthest, batch.seq)

    def _rewind(self, seq: int, now: float) -> None:
        self._next = seq
        self._answered = seq - 1
        self._heard = now

    def _take(self, answer: dict[str, Any], now: float) -> None:
        if "resync" in answer:
            self._figures["resyncs"] += 1
            self._resync(answer["resync"], now)
        elif "error" in answer:
            if answer["error"]["code"] != "overloaded":
                self._violated(f"was refused: {answer}")
            self._figures["overloaded"] += 1
            if answer["seq"] == self._answered + 1:
                self._rewind(answer["seq"], now)
                self._rewound, self._rewound_at = answer["seq"], now
                self._paused_until = now + PAUSE
        else:
            self._acknowledged(answer)

    def _resync(self, last: int, now: float) -> None:
        if last < self.durable:
            self._violated(f"was told that {self.durable} is durable, and now to resync: {last}")
            self._rewind(self.durable + 1, now)
        elif last > self.seq:
            self._violated(f"has sent no more than {self.seq}, and is told to resync: {last}")
        elif last + 1 != self._rewound or now - self._rewound_at > ANSWER_TIMEOUT:
            # Every batch after a gap is answered so: the first answer has moved us already.
            self._rewound, self._rewound_at = last + 1, now
            self._rewind(last + 1, now)

    def _acknowledged(self, answer: dict[str, Any]) -> None:
        seq, durable = answer["seq"], answer["durable"]
        if "duplicate" in answer:
            solicited = self._next > self._answered + 1
            self._figures["duplicates" if solicited else "told unasked"] += 1
        elif seq in self.kept and answer["applied"] != len(self.kept[seq].records):
            self._violated(f"{answer} to {len(self.kept[seq].records)} records")
        if seq > self.seq or durable > self.seq:
            self._violated(f"has sent no more than {self.seq}, and is answered {answer}")
            return
        if durable < self.durable:
            self._violated(f"was told that {self.durable} is durable, and now {answer}")
        if durable > seq and "duplicate" not in answer:
            self._violated(f"durable is ahead of what was applied: {answer}")
        if seq > self._answered:
            self._answered = seq
            self._next = max(self._next, seq + 1)
        for number in range(self.durable + 1, durable + 1):
            del self.kept[number]
        self.durable = max(self.durable, durable)
        self._answered = max(self._answered, self.durable)
        self._next = max(self._next, self.durable + 1)

    def _violated(self, what: str) -> None:
        self.violations.append(f"{self.name} {what}")
