"""Snapshots: made partition by partition between batches, some of them never ended."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from collectord.clock import Clock
from collectord.engine import Engine


@dataclass
class Snapshot:
    """One that is whole. ``alive`` are the sources that are awaited after it is brought back."""

    head: bytes
    partitions: list[bytes]
    alive: set[str]
    acknowledged: bool = False
    """Sources may have been told that it is durable: nothing older may be brought back."""


class Disk:
    """The last two snapshots, and the one that is being made."""

    def __init__(self, chance: random.Random, counted: Counter[str]) -> None:
        self.alive: set[str] = set()
        """The sources that the engine holds to be there."""
        self._chance = chance
        self._counted = counted
        self._snapshots: list[Snapshot] = []

    def attach(self, engine: Engine, clock: Clock) -> None:
        """Another engine is to be saved from now on."""
        self._engine = engine
        self._clock = clock
        self._saved: dict[int, bytes] = {}
        self._order: list[int] | None = None
        """The partitions that are still to be saved, while a snapshot is made."""

    def save_some(self) -> None:
        """A snapshot gets on by a little."""
        if self._order is None:
            if self._chance.random() < 0.15:
                self._begin()
        elif self._order and self._chance.random() < 0.7:
            self._save_partition()
        elif not self._order:
            self._end(written=self._chance.random() < 0.9)
        elif self._chance.random() < 0.02:
            self._end(written=False)

    def save_all(self) -> None:
        """A whole snapshot, or what is left of the one that is being made."""
        if self._order is None:
            self._begin()
        if self._order is None:
            return
        while self._order:
            self._save_partition()
        self._end(written=True)

    def candidates(self) -> list[Snapshot]:
        """Those that may be the newest whole one."""
        newest = self._snapshots[-1]
        return [newest] if newest.acknowledged else self._snapshots[-2:]

    def write_and_die(self) -> bool:
        """Where it has come to that: the file is whole, but nobody has been told."""
        if self._order != []:
            return False
        self._write()
        return True

    @property
    def is_writing(self) -> bool:
        """Whether a snapshot is under way."""
        return self._order is not None

    def forget_newest(self) -> None:
        self._snapshots.pop()

    def bring_back(self, snapshot: Snapshot) -> None:
        """Newer ones are gone; sources hear of this one from now on."""
        snapshot.acknowledged = True
        self._snapshots = self._snapshots[: self._snapshots.index(snapshot) + 1]
        self.alive = set(snapshot.alive)

    def _begin(self) -> None:
        if self._engine.begin_save():
            self._order = list(range(self._engine.partitions))
            self._chance.shuffle(self._order)
            self._saved = {}

    def _save_partition(self) -> None:
        assert self._order
        partition = self._order.pop()
        now, steady = self._clock.wall(), self._clock.steady()
        self._saved[partition] = self._engine.save_partition(partition, now, steady).tobytes()

    def _write(self) -> None:
        assert self._order == []
        head = self._engine.save_head(self._clock.wall(), self._clock.steady()).tobytes()
        parts = [self._saved[partition] for partition in range(self._engine.partitions)]
        self._snapshots = [*self._snapshots[-1:], Snapshot(head, parts, set(self.alive))]

    def _end(self, *, written: bool) -> None:
        if written:
            self._write()
            self._snapshots[-1].acknowledged = True
            self._counted["snapshots"] += 1
        self._engine.end_save(written)
        self._order = None
