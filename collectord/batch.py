"""A publisher's batch: what ``buffer.py`` keeps, ``delivery.py`` sends and ``spool.py`` writes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Batch:
    """Records that travel together."""

    index: int
    """Its place among all batches of this publisher, and of those before it with this spool."""
    first: int
    """The number of its first record; of a batch without records, that of the next one."""
    records: int
    body: bytes
    """The encoded records."""
    time: int
    """For records without a time of their own, microseconds."""
    emptied: bool = False
    """Its records were refused, or dropped: only its number is sent."""
    stands_in: bool = False
    """It has only a number, that of one let go which the collector turns out to lack."""
    spooled: bool = False
    attempts: int = 0
    answered: bool = False
    """It was acknowledged, if perhaps by a collector that has lost it since."""


@dataclass
class Found:
    """What an earlier process has left in its spool."""

    epoch: int | None = None
    """None where there was no spool yet."""
    released: int = 0
    next_index: int = 0
    batches: list[Batch] = field(default_factory=list)
    cut: int = 0
    """Bytes that were of no use."""
