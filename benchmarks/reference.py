"""The same load in plain Python: msgpack.unpackb, dicts, the same arithmetic.

It merges state, keeps a ring of 8 periods for each series, sums, and takes the EWM's steps when
periods close, by the same rules. It is written to be fast without being strange. It leaves out what
the engine does besides: names are not checked, nothing is bounded, counted, numbered, rejected or
shared between threads, and all of it errs on the side of the reference. ``check`` compares the two.
"""

from __future__ import annotations

import random
from math import sqrt
from typing import Any

import msgpack

from benchmarks import load
from collectord import wire
from collectord.engine import Engine

SECOND = 1_000_000
PERIOD = 60 * SECOND
RING = 8
LATENESS = 5 * SECOND
IDLE = 60 * SECOND
ALPHA = 0.1
ALGORITHMS = (0, 1)
"""The EWM and the plain sum, as the default ``uve_proxy_list`` orders them."""

Result = tuple[str, int, int, float, float, float, float, int]
"""Metric's attribute, algorithm, period, value, mean, stddev, sigma, steps."""


class Series:
    """One metric of one key. It sleeps after a gap until the next sample begins it anew."""

    __slots__ = (
        "arrival",
        "arrivals",
        "attribute",
        "counts",
        "live",
        "mean",
        "newest",
        "next",
        "quiet_since",
        "sigma",
        "started",
        "steps",
        "sums",
        "value",
        "variance",
    )

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute
        self.next = 0
        self.sums: list[float] = [0] * RING
        self.counts = [0] * RING
        self.arrivals = [0] * RING
        self.live = False
        self.arrival = 0
        self.forget()

    def forget(self) -> None:
        """Begin the detector anew."""
        self.started = False
        self.steps = 0
        self.mean = self.variance = self.sigma = 0.0
        self.value: float | None = None

    def awake(self, period: int, now: int) -> None:
        """Begin with a sample of ``period``; what was closed stays closed."""
        self.live = True
        self.next = max(self.next, period - RING + 1)
        self.newest = period
        self.quiet_since = now

    def closes_at(self) -> int:
        """When the clock may close the oldest open period."""
        ended = (self.next + 1) * PERIOD + LATENESS
        if self.newest >= self.next:
            silent = max(self.arrivals[self.next % RING], self.quiet_since) + LATENESS
        else:
            silent = self.arrival + IDLE
        return max(ended, silent)

    def close(self, results: list[Result]) -> None:
        """Close the oldest open period."""
        period, slot = self.next, self.next % RING
        self.next += 1
        if self.counts[slot]:
            total = self.value = self.sums[slot]
            self.quiet_since = max(self.quiet_since, self.arrivals[slot])
            self.sums[slot] = self.counts[slot] = self.arrivals[slot] = 0
            difference = total - self.mean
            self.variance = (1 - ALPHA) * (self.variance + ALPHA * (difference * difference))
            self.mean = (1 - ALPHA) * self.mean + ALPHA * total
            stddev = sqrt(self.variance)
            self.sigma = (total - self.mean) / stddev if stddev else 0.0
            self.steps += 1
            self.started = True
            results.append(
                (self.attribute, 0, period, total, self.mean, stddev, self.sigma, self.steps)
            )
            results.append((self.attribute, 1, period, total, 0.0, 0.0, 0.0, 0))
        elif self.started:
            self.forget()
            self.live = self.newest >= self.next


class Reference:
    """What one engine holds, for the default ``uve_proxy_list``."""

    def __init__(self) -> None:
        self.proxied = {load.STRUCT: frozenset(load.ATTRIBUTES)}
        self.records: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self.series: dict[str, dict[str, Series]] = {}
        self.results: list[Result] = []
        self.late = 0

    def apply(self, message: bytes, now: int) -> None:
        """Merge a batch's records, and add its samples to their windows."""
        batch = msgpack.unpackb(message)
        source = batch["source"]
        time = batch.get("time", now)
        for key, struct, attributes, *measured in batch["records"]:
            structs = self.records.get(key)
            if structs is None:
                structs = self.records[key] = {}
            known = structs.get((struct, source))
            if known is None:
                structs[struct, source] = attributes
            else:
                known.update(attributes)
            proxied = self.proxied.get(struct)
            if proxied is not None:
                period = (measured[0] if measured else time) // PERIOD
                for name, value in attributes.items():
                    if name in proxied:
                        self.add(key, name, value, period, now)

    def add(self, key: str, attribute: str, value: float, period: int, now: int) -> None:
        """A sample of one period."""
        of_key = self.series.get(key)
        if of_key is None:
            of_key = self.series[key] = {}
        series = of_key.get(attribute)
        if series is None:
            series = of_key[attribute] = Series(attribute)
        if period < series.next:
            self.late += 1
            return
        while series.live and period - series.next >= RING:
            series.close(self.results)
        if not series.live:
            series.awake(period, now)
        slot = period % RING
        series.sums[slot] += value
        series.counts[slot] += 1
        series.arrivals[slot] = series.arrival = now
        if period > series.newest:
            series.newest = period

    def advance(self, now: int) -> None:
        """Close what the clock closes."""
        results = self.results
        for of_key in self.series.values():
            for series in of_key.values():
                while series.live and series.closes_at() <= now:
                    series.close(results)

    def take_results(self) -> list[Result]:
        """The closed results since the last call."""
        taken, self.results = self.results, []
        return taken


def check(keys: int = 200, periods: int = 30) -> int:
    """Give both the same input; the number of results compared. Raises where they differ."""
    engine = Engine(metrics=load.METRICS, lateness=LATENESS, limits={"results": 1 << 20})
    reference = Reference()
    chosen = random.Random(1)
    now = 1_700_000_000 * SECOND
    by_engine: list[Result] = []
    for _ in range(periods * 4):
        now += PERIOD // 4
        records = [
            [
                load.key(number),
                load.STRUCT,
                {name: chosen.randrange(1000) for name in load.ATTRIBUTES},
                now - chosen.choice((0, 0, 0, PERIOD, 3 * PERIOD)),
            ]
            for number in range(keys)
            if chosen.random() < 0.5
        ]
        message = wire.encode_batch(load.SOURCE, records)
        engine.apply(message, now)
        reference.apply(message, now)
        for partition in range(engine.partitions):
            engine.advance(partition, now)
        reference.advance(now)
        by_engine += _results(engine)
    by_reference = reference.take_results()
    if sorted(by_engine) != sorted(by_reference) or not by_engine:
        raise AssertionError(
            f"the engine and the reference differ: {len(by_engine)} results, {len(by_reference)}"
        )
    if reference.late != engine.counters()["samples_late"]:
        raise AssertionError(f"the reference counts {reference.late} late samples")
    _check_state(engine, reference)
    return len(by_engine)


def _results(engine: Engine) -> list[Result]:
    attributes = [name.rpartition("-")[2] for name, _ in engine.metric_names()]
    found: list[Result] = []
    for partition in range(engine.partitions):
        for row in engine.take_results(partition):
            if not row["flags"] & 4:
                numbers = (row["value"], row["mean"], row["stddev"], row["sigma"], row["samples"])
                found.append(
                    (
                        attributes[row["metric"]],
                        int(row["algorithm"]),
                        int(row["period"]),
                        *(number.item() for number in numbers),
                    )
                )
    return found


def _check_state(engine: Engine, reference: Reference) -> None:
    for key, structs in reference.records.items():
        read = engine.read(key)
        held = {(struct, source): values for struct, source, values in read[0]} if read else {}
        if held != structs:
            raise AssertionError(f"the engine and the reference differ in {key}: {held}, {structs}")
