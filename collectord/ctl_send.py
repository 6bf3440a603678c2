"""``collectorctl send``: records of the command line or of standard input, sent and awaited."""

from __future__ import annotations

import argparse
import bisect
import os
import random
import socket
import sys
import time

import zmq

from collectord import records, terminal
from collectord.client import (
    BufferFull,
    FlushTimeout,
    Publisher,
    Rejection,
    StaleEpoch,
)
from collectord.connection import look_for_refusal
from collectord.ctl_common import NOTHING, OK, Output, UsageError, complain, curve, made

ATTEMPTS = 20
"""How often a ``send`` begins while others of the same source, begun later, get in before it."""
LONGEST_PAUSE = 0.1
"""Seconds between two of them; chance decides how many, so that the others get out of step."""

SOURCE = f"{socket.gethostname()}:Tool:collectorctl:0"


def send(options: argparse.Namespace) -> int:
    """``collectorctl send``."""
    sending = Sending()
    for attempt in range(ATTEMPTS):
        publisher = made(
            Publisher,
            source=options.source or os.environ.get("COLLECTORCTL_SOURCE", SOURCE),
            address=options.ingest,
            curve=curve(options),
            aggtypes=made(records.aggtypes, texts=options.aggtype, struct=options.struct),
            on_rejected=sending.complain_of,
        )
        try:
            with publisher:
                if options.key is None:
                    sending.lines(publisher, options)
                else:
                    sending.one(publisher, options)
                _flush_while_it_moves(publisher, options.timeout)
            break
        except (FlushTimeout, BufferFull):
            look_for_refusal(zmq.DEALER, options.ingest, curve(options), options.timeout)
            raise
        except StaleEpoch:
            # A new publisher has a newer epoch. But what was applied must not be applied again.
            if attempt == ATTEMPTS - 1 or _may_have_arrived(publisher):
                raise
            time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311
    counters = publisher.counters
    result = {
        "acknowledged": counters.acknowledged - counters.rejected,
        "rejected": counters.rejected,
        "unreadable": sending.unreadable,
    }
    Output(options).one(result, terminal.sent, result)
    return NOTHING if counters.rejected or sending.unreadable else OK


class Sending:
    """The records of one ``send``: which line each came from, and what is wrong with them."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._place = 0
        """The number of the line that was read last; 0 where no lines are read."""
        self._skipped: list[int] = []
        """For each line that made no record, the number of the record that was to come next."""
        self._kept: list[str] = []
        """The lines that made records, until any of them may have arrived."""

    def one(self, publisher: Publisher, options: argparse.Namespace) -> None:
        """The record of the command line."""
        if options.struct is None or bool(options.attributes) == options.delete:
            raise UsageError("a record is KEY STRUCT and either ATTRIBUTE=VALUE… or --delete")
        try:
            attributes = (
                None if options.delete else dict(map(records.assignment, options.attributes))
            )
            publisher.publish(options.key, options.struct, attributes, options.time)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def lines(self, publisher: Publisher, options: argparse.Namespace) -> None:
        """The records of standard input, those first that were read for an attempt before."""
        number = 0
        for line in self._kept:
            record = records.from_line(line, options.time)
            number = publisher.publish(*record, timeout=options.timeout) + 1
        for line in sys.stdin:
            self._place += 1
            if not line.strip():
                self._skipped.append(number)
                continue
            try:
                record = records.from_line(line, options.time)
                number = publisher.publish(*record, timeout=options.timeout) + 1
            except ValueError as error:
                self._skipped.append(number)
                self.unreadable += 1
                complain(f"line {self._place}: {error}")
                continue
            except StaleEpoch:
                self._kept.append(line)
                raise
            if not _may_have_arrived(publisher):
                self._kept.append(line)

    def complain_of(self, rejection: Rejection) -> None:
        """Tell what the collector has refused, by line where there are lines."""
        where = ""
        if self._place:
            where = f"line {self._line(rejection.number)}: "
            if rejection.index is None:
                where = f"{rejection.records} records from line {self._line(rejection.number)} on: "
        complain(f"{where}rejected, {rejection.code}: {rejection.message}")

    def _line(self, number: int) -> int:
        return number + bisect.bisect_right(self._skipped, number) + 1


def _may_have_arrived(publisher: Publisher) -> bool:
    """Whether the collector has applied any of this, or may have without our hearing of it."""
    counters = publisher.counters
    return bool(counters.acknowledged or counters.resent)


def _flush_while_it_moves(publisher: Publisher, timeout: float) -> None:
    """A long backlog may take its time, as long as something arrives within each ``timeout``."""
    while True:
        before = publisher.counters.acknowledged
        try:
            return publisher.flush(timeout)
        except FlushTimeout:
            if publisher.counters.acknowledged == before:
                raise
