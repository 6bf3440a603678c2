"""What a publisher tells its user: how it can fail, what was refused, what it has counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class PublishError(Exception):
    """The publisher cannot go on: it was closed, or the collector refuses all that it sends."""


class StaleEpoch(PublishError):  # noqa: N818
    """A newer run of this source has reached the collector: this one must stop."""


class BufferFull(PublishError):  # noqa: N818
    """The record was not taken: ``buffer_bytes`` of records are kept already."""


class FlushTimeout(PublishError, TimeoutError):  # noqa: N818
    """Not everything was acknowledged in time. It stays in the buffer and is sent on."""


class SpoolError(PublishError):
    """The spool's directory can't be used: it cannot be written, or it is somebody else's."""


@dataclass(frozen=True)
class Rejection:
    """A record, or a whole batch, that the collector refused and that is therefore lost."""

    number: int
    """What ``publish`` returned for the record, or for the first of ``records``."""
    records: int
    """How many were refused: 1 unless the collector does not name each, 0 where it isn't known."""
    seq: int
    """The batch's number in its epoch."""
    index: int | None
    """Where in the batch the record stood; None where ``records`` are refused without a place."""
    code: str
    message: str
    record: list[Any] | None
    """The record itself, ``[key, struct, attributes]`` with or without time, where it is known."""


@dataclass
class Counters:
    """What a publisher has done since its start."""

    published: int = 0
    """Records taken by ``publish``, and ``recovered`` ones."""
    recovered: int = 0
    """Records that an earlier process of this source had left in the spool."""
    acknowledged: int = 0
    """Records that the collector has answered for; without acknowledgement, those handed over."""
    durable: int = 0
    """Of these, the records that a crash of the collector can't undo any more."""
    unprotected: int = 0
    """Acknowledged records that were let go before they were durable, because room was needed: a
    crash of the collector may have undone them."""
    rejected: int = 0
    """Acknowledged records that the collector refused."""
    dropped: int = 0
    """Records given up for newer ones, with ``when_full="drop_oldest"``; few may have arrived."""
    sent: int = 0
    """Batches sent, each time counted."""
    resent: int = 0
    """Of these, the batches that had been sent before."""
    heartbeats: int = 0
    """Empty batches made because there was nothing else to send."""
    unreported: int = 0
    """Batches that were applied though their answer was lost: what was rejected is not known."""
    timeouts: int = 0
    """Times that no answer came within ``reply_timeout``."""
    disconnects: int = 0
    overloaded: int = 0
    """Times that the collector asked for patience."""
    returns: int = 0
    """Times that a collector had lost acknowledged batches in a crash, and got them again."""
    restarts: int = 0
    """Times that it had lost batches that are no longer here, and a new epoch was begun."""
    forgotten: int = 0
    """Batches that were lost that way."""
    expired: int = 0
    """Times that the collector had removed this source's records, since it was silent for long."""
    spooled: int = 0
    """Batches written to the spool."""
    spool_failed: int = 0
    """Times that the spool could not be written; records are then kept in memory only."""
    spool_cut: int = 0
    """Bytes at the spool's end that were of no use, as a death in the middle of writing leaves."""
