"""A source: it keeps what isn't durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack


@dataclass
class Source:
    """It keeps every batch until it is durable."""

    name: str
    tells_newest: bool
    epoch: int = 1
    seq: int = 0
    durable: int = 0
    next: int = 1
    """The number of the batch to send next."""
    kept: dict[int, tuple[list[Any], int | None]] = field(default_factory=dict)
    """Records and the time of the first sample, by the number of the batch."""
    state: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """All that it told and did not remove."""
    heard: int = 0
    """When the engine took a message of it last, by the true clock."""
    back_at: int = 0
    """It sends nothing before."""
    waits: bool = False
    """Its next attempt is to succeed."""
    silent: bool = False
    owes_state: bool = False
    expired: tuple[int, int] = (0, 0)
    """The epoch, and the number of the batch, of the last expiry that it has heard of."""
    """Its records were removed: it is to tell all of its state again."""

    def oldest(self) -> int | None:
        """The time of the first sample that is not durable."""
        times = [time for _, time in self.kept.values() if time is not None]
        return min(times, default=None)

    def message(self, seq: int) -> bytes:
        fields: dict[str, Any] = {"newest": self.seq} if self.tells_newest else {}
        records, _ = self.kept[seq]
        batch = {"seq": seq, "epoch": self.epoch, "source": self.name, **fields}
        packed: bytes = msgpack.packb({**batch, "records": records})
        return packed
