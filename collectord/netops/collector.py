"""A collector as the target of a simulation: every emitter's source is a publisher of its own.

As in a real network each source has its own connection, numbers its own batches and hears its own
answers. What differs is that all of them live in this process.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import zmq

from collectord import wire
from collectord.client import Counters, FlushTimeout, Publisher, PublishError, Rejection
from collectord.descriptors import allow_descriptors
from collectord.netops.block import Block, Report, Simulation
from collectord.netops.target import TargetClosed, TargetError

if TYPE_CHECKING:
    from collectord.curve import Curve

RING_SECONDS = float((wire.RING - 1) * wire.PERIOD)
"""Seconds of history that sources may be apart so that none comes late: wherever they begin, they
touch no more periods than the collector's ring has."""
BUFFER_BYTES = 256 << 20
"""For all sources together, but no less for one than:"""
LEAST_BUFFER = 1 << 20
PATIENCE = 5.0
"""Seconds without an answer after which it is said that one waits for it."""
DESCRIPTORS_OF_A_SOURCE = 8

_ADDRESS = re.compile(r"tcp://[^\s/@]+:[1-9][0-9]{0,4}")

logger = logging.getLogger(__name__)


class CollectorTarget:
    """Sends blocks to the collector at ``address``, ``tcp://<host>:<port>``.

    ``batch_records`` is the most that one batch holds. ``flush`` returns when all that was sent is
    applied. What a crash of the collector may undo is kept as far as it fits into 256 MiB, and sent
    again; but nothing waits for it to become durable. A collector that is away is waited for, for
    ``timeout`` seconds in ``flush``.

    Raises ValueError for an address that can't be. ``close`` may be called from any thread; who
    waits in ``send`` or ``flush`` then gets TargetClosed.
    """

    block_seconds = RING_SECONDS

    def __init__(
        self,
        address: str,
        *,
        batch_records: int = 720,
        curve: Curve | None = None,
        timeout: float = math.inf,
    ) -> None:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(
                f"{address!r:.200} is not tcp://<host>:<port>, as tcp://127.0.0.1:8086"
            )
        self.address = address
        self._timeout = timeout
        self._batch_records = batch_records
        self._curve = curve
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))
        self._publishers: dict[str, Publisher] = {}
        self._descriptions: dict[str, list[Report]] = {}
        self._met: list[Simulation] = []
        self._lost: set[str] = set()
        """Sources of which the collector has nothing any more: they describe themselves again."""
        self._time = 0
        self._lock = threading.Lock()
        """Of ``_publishers`` and ``_is_closed``: nobody is made after the end."""
        self._is_closed = False
        self._closing = threading.Lock()
        """One ends it at a time, the others wait for that."""
        self.trouble = ""
        """What has been waited for, for more than ``PATIENCE`` seconds."""
        self.rejection: Rejection | None = None
        """The first thing that the collector refused."""

    def send(self, simulation: Simulation, block: Block) -> None:
        """Let every source tell its part of the block."""
        self._time = int(block.times[0])
        try:
            if simulation not in self._met:
                self._meet(simulation)
            while self._lost:
                self._describe(self._lost.pop())
            for report in simulation.reports(block):
                publisher = self._publishers[report.source]
                if report.times is None:
                    publisher.publish(report.key, report.struct, report.attributes)
                else:
                    publisher.publish_columns(
                        report.key, report.struct, report.attributes, report.times
                    )
        except PublishError as error:
            raise self._ended(error) from error

    def flush(self) -> None:
        """Wait until all that was sent is applied, for ``timeout`` seconds at the most."""
        end = time.monotonic() + self._timeout
        for publisher in list(self._publishers.values()):
            while True:
                try:
                    publisher.flush(min(PATIENCE, max(end - time.monotonic(), 0.0)))
                    break
                except FlushTimeout as error:
                    trouble = str(error)
                    if publisher.counters.overloaded:
                        trouble += "; it is overloaded, or at one of its limits"
                    if time.monotonic() >= end:
                        raise TargetError(trouble) from error
                    self.trouble = trouble
                    logger.warning("waiting: %s", trouble)
                except PublishError as error:
                    raise self._ended(error) from error
        self.trouble = ""

    def close(self) -> None:
        """Send no more. What is not applied yet is given up: flush before, if it matters."""
        with self._lock:
            self._is_closed = True
        with self._closing:
            for publisher in self._publishers.values():
                with contextlib.suppress(PublishError):  # what ended it was told to who sent
                    publisher.close(timeout=0.0)
            self._context.term()

    def counts(self) -> Mapping[str, int]:
        """The counters of all publishers, added up."""
        counters = [vars(publisher.counters) for publisher in list(self._publishers.values())]
        return {name: sum(each[name] for each in counters) for name in vars(Counters())}

    def _meet(self, simulation: Simulation) -> None:
        """Make the sources of the simulation, and let them tell what does not change."""
        sources = sorted({emitter.source for emitter in simulation.emitters})
        with self._lock:
            if self._is_closed:
                raise TargetClosed
            count = len(self._publishers.keys() | sources)
            needed = count * DESCRIPTORS_OF_A_SOURCE
            if needed > (allowed := allow_descriptors()):
                raise TargetError(
                    f"{count} sources need about {needed} file descriptors, a connection each, "
                    f"and the system allows {allowed}: raise `ulimit -Hn`, or simulate less"
                )
            self._met.append(simulation)
            for report in simulation.descriptions():
                self._descriptions.setdefault(report.source, []).append(report)
            for source in sources:
                if source not in self._publishers:
                    self._publishers[source] = self._publisher(
                        source, simulation.aggtypes, max(LEAST_BUFFER, BUFFER_BYTES // len(sources))
                    )
        for source in sources:
            self._describe(source)

    def _publisher(
        self, source: str, aggtypes: Mapping[str, Mapping[str, str]], buffer_bytes: int
    ) -> Publisher:
        return Publisher(
            source,
            self.address,
            batch_records=self._batch_records,
            buffer_bytes=buffer_bytes,
            durable_timeout=0,
            aggtypes=aggtypes,
            on_rejected=self._note,
            # Not from here: in the publisher's own thread a full buffer can't be waited for.
            on_restart=lambda _: self._lost.add(source),
            context=self._context,
            curve=self._curve,
        )

    def _describe(self, source: str) -> None:
        for report in self._descriptions.get(source, ()):
            # At the time of the block: something in it may be proxied, and drive its series on.
            self._publishers[source].publish(
                report.key, report.struct, report.attributes, self._time
            )

    def _note(self, rejection: Rejection) -> None:
        self.rejection = self.rejection or rejection

    def _ended(self, error: PublishError) -> TargetError:
        return TargetClosed() if self._is_closed else TargetError(str(error))
