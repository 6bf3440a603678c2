"""A plain-Python model of the engine, to hold the engine against.

It says what the protocol says in the simplest words: every sample of every open period is kept and
reduced when asked; nothing is incremental, packed or bounded. Not modelled: limits, the bytes of a
batch (it takes Python values), and partitions, on which no answer depends.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgpack import packb

from collectord.engine import ProxyState

SECOND = 1_000_000
PERIOD = 60 * SECOND
RING = 8
FUTURE = 60 * SECOND
IDLE_MS = 60_000
SAMPLE_LIMIT = 1e100
REPORTED, QUIET, DELETED = 1, 2, 4

Specification = tuple[str, int, str, str, float]
Metrics = Mapping[str, Sequence[Specification]]


class Result(NamedTuple):
    """One closed period of one proxy UVE; the fields of ``take_results`` by name."""

    period: int
    value: float
    mean: float
    stddev: float
    sigma: float
    samples: int
    flags: int


class Sample(NamedTuple):
    source: str
    time: int
    value: float


@dataclass
class Window:
    """The samples of one open period, in the order in which they came."""

    samples: list[Sample] = field(default_factory=list)
    arrival: int = 0
    missing: set[str | None] = field(default_factory=set)  # what was not kept, see KEEPS


def reduce(reducer: str, samples: Sequence[Sample]) -> float:
    """The number that a period's samples make. Raises KeyError for an unknown reducer."""
    values = [sample.value for sample in samples]
    last: dict[str, Sample] = {}
    for sample in samples:
        if sample.source not in last or sample.time >= last[sample.source].time:
            last[sample.source] = sample
    table = {
        "Sum": lambda: added(values),
        "Avg": lambda: added(values) / len(values),
        "Min": lambda: min(values),
        "Max": lambda: max(values),
        "Count": lambda: float(len(values)),
        "Last": lambda: added(sample.value for sample in last.values()),
    }
    return table[reducer]()


def added(values: Iterable[float]) -> float:
    """One after the other, as doubles; ``sum`` of Python 3.12 on makes up for rounding."""
    total = 0.0
    for value in values:
        total += value
    return total


KEEPS: dict[str, str | None] = {"Min": "extremes", "Max": "extremes", "Last": "lanes"}
"""What a reducer needs to have been kept from a period's first sample on."""
STEPS_WHEN_EMPTY = {"Sum", "Count", "Last"}


@dataclass
class Proxy:
    """A proxy UVE: the state of one algorithm on one series."""

    specification: Specification
    started: bool = False
    value: float = 0.0
    steps: int = 0
    mean: float = 0.0
    variance: float = 0.0
    stddev: float = 0.0
    sigma: float = 0.0
    quiet: bool = False

    @property
    def reported(self) -> bool:
        """Whether its value is shown."""
        return self.started and (
            not self.specification[3] or self.steps >= math.floor(1 / self.specification[4])
        )

    def step(self, value: float) -> None:
        """Take the number of one whole period."""
        _, _, _, detector, alpha = self.specification
        was_reported = self.reported
        was_calm = self.steps > 0 and -0.5 < self.sigma < 0.5
        self.started = True
        self.value = value
        if not detector:
            return
        off = value - self.mean
        self.steps += 1
        self.variance = (1 - alpha) * (self.variance + alpha * (off * off))
        self.mean = (1 - alpha) * self.mean + alpha * value
        self.stddev = math.sqrt(self.variance)
        self.sigma = (value - self.mean) / self.stddev if self.stddev else 0.0
        self.quiet = was_reported and was_calm and -0.5 < self.sigma < 0.5


class Series:
    """One metric of one key."""

    def __init__(self, specifications: Sequence[Specification]) -> None:
        self.specifications = specifications
        self.proxies: dict[str, Proxy] = {}
        self.windows: dict[int, Window] = {}
        self.oldest = 0  # the oldest period that is not closed
        self.closed_arrival = 0  # the last for a period before `oldest`, or when it awoke
        self.arrival = 0  # the last of all
        self.empty = 0  # consecutive closed periods without a sample
        self.real = False  # a sample was a float
        self.results: list[tuple[str, Result]] = []
        self.counted: Counter[str] = Counter()
        self.changed: set[str] = set()

    def add(self, sample: Sample, real: bool, steady: int) -> None:
        period = sample.time // PERIOD
        if period < self.oldest:
            self.counted["samples_late"] += 1
            return
        while self.proxies and period >= self.oldest + RING:
            self.close()
        if not self.proxies:
            self.oldest = max(self.oldest, period - RING + 1)
            self.closed_arrival = steady // 1000
            self.empty = 0
            self.real = False
        self.begin()
        window = self.windows.setdefault(period, Window())
        window.samples.append(sample)
        self.arrival = window.arrival = steady // 1000
        self.real |= real
        self.counted["samples"] += 1
        self.changed |= {name for name, *_, detector, _ in self.specifications if not detector}

    def begin(self) -> None:
        """What has no proxy UVE gets one."""
        for specification in self.specifications:
            if specification[0] not in self.proxies:
                self.proxies[specification[0]] = Proxy(specification)
                self.changed.add(specification[0])

    def last_arrival(self) -> int:
        """For the oldest open period or one before it."""
        window = self.windows.get(self.oldest)
        return max(self.closed_arrival, window.arrival) if window else self.closed_arrival

    def is_over(self, now: int, steady: int, lateness: int) -> bool:
        """Whether the clock closes the oldest open period."""
        now, steady, lateness = now // 1000, steady // 1000, lateness // 1000
        ended = (self.oldest + 1) * PERIOD // 1000
        silent = self.last_arrival() + lateness if self.windows else self.arrival + IDLE_MS
        return now >= ended + lateness and steady >= silent

    def advance(self, now: int, steady: int, lateness: int) -> None:
        while self.proxies and self.is_over(now, steady, lateness):
            self.close()

    def shift(self, milliseconds: int) -> None:
        """The steady clock begins anew."""
        self.closed_arrival += milliseconds
        self.arrival += milliseconds
        for window in self.windows.values():
            window.arrival += milliseconds

    def close(self) -> None:
        """Close the oldest open period."""
        self.closed_arrival = self.last_arrival()
        window = self.windows.pop(self.oldest, None)
        self.empty = 0 if window else self.empty + 1
        had_begun = any(proxy.started for proxy in self.proxies.values())
        self.counted["periods_closed"] += bool(window) or had_begun
        for name, proxy in list(self.proxies.items()):
            _, timeout, reducer, _, _ = proxy.specification
            if window and KEEPS.get(reducer) in window.missing:
                if not proxy.started:  # it begins with the next sample
                    del self.proxies[name]
                    self.changed.add(name)
            elif window:
                self.step(name, proxy, reduce(reducer, window.samples))
            elif proxy.started and timeout and self.empty >= timeout:
                del self.proxies[name]
                self.changed.add(name)
                self.counted["proxies_deleted"] += 1
                self.results.append((name, Result(self.oldest, 0.0, 0.0, 0.0, 0.0, 0, DELETED)))
            elif proxy.started and reducer in STEPS_WHEN_EMPTY:
                self.step(name, proxy, 0.0)
        self.oldest += 1
        if self.windows:
            self.begin()

    def step(self, name: str, proxy: Proxy, value: float) -> None:
        proxy.step(value)
        if proxy.reported and not proxy.quiet:
            self.changed.add(name)
        flags = (REPORTED if proxy.reported else 0) | (QUIET if proxy.quiet else 0)
        told = (proxy.value, proxy.mean, proxy.stddev, proxy.sigma, proxy.steps)
        self.results.append((name, Result(self.oldest, *told, flags)))

    def configure(self, specifications: Sequence[Specification]) -> None:
        """Proxy UVEs whose specification stays keep their state; the others go or begin."""
        for name, proxy in list(self.proxies.items()):
            if proxy.specification not in specifications:
                del self.proxies[name]
                self.changed.add(name)
        had = {KEEPS.get(reducer) for _, _, reducer, _, _ in self.specifications}
        has = {KEEPS.get(reducer) for _, _, reducer, _, _ in specifications}
        for window in self.windows.values():
            window.missing |= has - had - {None}
        self.specifications = specifications
        if self.windows:
            self.begin()

    def shown(self, metric: str) -> list[ProxyState]:
        newest = self.windows[max(self.windows)] if self.windows else None
        return [
            ProxyState(
                metric,
                name,
                self.number(proxy.value, proxy) if proxy.reported else None,
                self.number(reduce(proxy.specification[2], newest.samples), proxy)
                if newest
                and not proxy.specification[3]
                and KEEPS.get(proxy.specification[2]) not in newest.missing
                else None,
                proxy.steps,
                proxy.mean,
                proxy.stddev,
                proxy.sigma,
            )
            for name, proxy in self.proxies.items()
        ]

    def number(self, value: float, proxy: Proxy) -> int | float:
        """Whole samples have whole sums, as far as a double tells them exactly."""
        exact = not self.real and proxy.specification[2] != "Avg" and abs(value) <= 2.0**53
        return int(value) if exact else value


@dataclass
class Key:
    records: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)

    def is_held(self) -> bool:
        return bool(self.records) or any(series.proxies for series in self.series.values())


@dataclass
class Source:
    last_seen: int
    heard: int
    epoch: int | None = None
    seq: int | None = None
    durable: int = 0
    gone: bool = False
    bereft: bool = False  # it had records when it went
    returned_seq: int = 0  # the number of the batch by which it came back after that


class Answer(NamedTuple):
    """What becomes of a batch; ``last`` is told for ``resync`` alone."""

    status: str
    applied: int
    last: int
    rejected: list[tuple[int, str]]
    expired: int = 0


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and len(text) <= 128


class Model:
    """The engine as a whole; the methods are those of ``Engine``, without its partitions."""

    def __init__(self, metrics: Metrics, lateness: int) -> None:
        self.metrics = metrics
        self.lateness = lateness
        self.held: dict[str, Key] = {}
        self.told: dict[str, Source] = {}
        self.counted: Counter[str] = Counter()
        self.results: list[tuple[str, str, str, Result]] = []
        self.changes: set[tuple[str, str]] = set()

    def apply(self, batch: Mapping[str, Any], now: int, steady: int) -> Answer:
        answer = self._apply(batch, now, steady)
        self.counted[f"batches_{answer.status}"] += 1
        self.counted["records"] += answer.applied
        self._settle()
        return answer

    def _apply(self, batch: Mapping[str, Any], now: int, steady: int) -> Answer:
        is_new = batch["source"] not in self.told
        source = self.told.setdefault(batch["source"], Source(now, steady))
        source.last_seen = now
        if "seq" in batch:
            if source.epoch is not None and batch["epoch"] < source.epoch and not source.gone:
                return Answer("stale_epoch", 0, 0, [])
            source.heard, source.gone = steady, False
            last = source.seq or 0 if batch["epoch"] == source.epoch else 0
            if batch["seq"] != last + 1:
                if batch["seq"] <= last:
                    return Answer("duplicate", 0, 0, [], source.returned_seq)
                if is_new:
                    del self.told[batch["source"]]
                return Answer("resync", 0, last, [])
            if batch["epoch"] != source.epoch:
                source.durable = source.returned_seq = 0
            source.epoch, source.seq = batch["epoch"], batch["seq"]
        source.heard, source.gone = steady, False
        if source.bereft and "seq" in batch:
            source.bereft, source.returned_seq = False, batch["seq"]
        rejected = []
        for index, record in enumerate(batch["records"]):
            time = batch.get("time", now)
            code = self._apply_record(batch["source"], time, record, now, steady)
            if code:
                rejected.append((index, code))
                self.counted[f"rejected_{code}"] += 1
        applied = len(batch["records"]) - len(rejected)
        return Answer("applied", applied, 0, rejected[:16], source.returned_seq)

    def expire(self, steady: int, timeout: int) -> list[str]:
        """Remove the records of sources that were silent; returns their names."""
        went = []
        for name, source in self.told.items():
            if source.gone or steady < source.heard + timeout:
                continue
            went.append(name)
            source.gone = True
            for key, held in self.held.items():
                for struct, who in [who for who in held.records if who[1] == name]:
                    del held.records[struct, who]
                    self.changes.add((key, struct))
                    source.bereft = True
        self._settle()
        return went

    def bring_back(self, steady: int, shift: int) -> None:
        """All of it was saved at once and is restored; the steady clock begins anew."""
        for source in self.told.values():
            source.durable = source.seq or 0
            source.heard = steady
        for held in self.held.values():
            for series in held.series.values():
                series.shift(shift // 1000)
        self.counted.clear()
        self.changes.clear()

    def _apply_record(
        self, source: str, time: int, record: Sequence[Any], now: int, steady: int
    ) -> str:
        """Apply it, or return the code it is rejected with."""
        key, struct, attributes, *own_time = record
        time = own_time[0] if own_time else time
        code = self._fault(key, struct, attributes or {}, time, now)
        if code:
            return code
        held = self.held.setdefault(key, Key())
        known = held.records.get((struct, source))
        if attributes is None:
            if held.records.pop((struct, source), None) is not None:
                self.changes.add((key, struct))
            return ""
        values = dict(known or {})
        for name, value in attributes.items():
            if value is None:
                if values.pop(name, None) is not None:
                    self.changes.add((key, struct))
                continue
            if name not in values or packb(values[name]) != packb(value):
                self.changes.add((key, struct))
            values[name] = value
            self._sample(held, f"{struct}-{name}", source, time, value, steady)
        if values:
            held.records[struct, source] = values
        else:
            held.records.pop((struct, source), None)
        return ""

    def _fault(self, key: Any, struct: str, attributes: dict[str, Any], time: Any, now: int) -> str:
        table, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
        if not table or not name or len(key.encode()) > 1024:
            return "bad_key"
        if not is_name(struct):
            return "bad_struct"
        if not isinstance(attributes, dict):
            return "bad_record"
        if not all(map(is_name, attributes)):
            return "bad_attribute"
        if not isinstance(time, int) or time < 0:
            return "bad_time"
        for name, value in attributes.items():
            if f"{struct}-{name}" in self.metrics and is_number(value):
                if not abs(value) <= SAMPLE_LIMIT:
                    return "bad_value"
                if time - now > FUTURE:
                    return "future"
        return ""

    def _sample(
        self, held: Key, metric: str, source: str, time: int, value: Any, steady: int
    ) -> None:
        if metric in self.metrics and is_number(value):
            series = held.series.setdefault(metric, Series(self.metrics[metric]))
            series.add(Sample(source, time, float(value)), isinstance(value, float), steady)

    def advance(self, now: int, steady: int) -> int:
        before = self.counted["periods_closed"]
        for key in self.held.values():
            for series in key.series.values():
                series.advance(now, steady, self.lateness)
        self._settle()
        return self.counted["periods_closed"] - before

    def configure(self, metrics: Metrics, lateness: int) -> None:
        self.metrics = metrics
        self.lateness = lateness
        for held in self.held.values():
            for metric, series in list(held.series.items()):
                series.configure(metrics.get(metric, ()))
                if metric not in metrics:
                    series.windows.clear()
        self._settle()
        for held in self.held.values():
            held.series = {name: one for name, one in held.series.items() if name in metrics}

    def _settle(self) -> None:
        """Gather what the series told, and let go of keys that nothing holds."""
        for name, key in list(self.held.items()):
            for metric, series in key.series.items():
                self.counted.update(series.counted)
                self.results += [(name, metric, *told) for told in series.results]
                self.changes |= {(name, f"{changed}-{metric}") for changed in series.changed}
                series.counted.clear()
                series.results.clear()
                series.changed.clear()
            if not key.is_held():
                del self.held[name]

    def read(self, key: str) -> tuple[list[list[Any]], list[ProxyState]] | None:
        held = self.held.get(key)
        if held is None:
            return None
        records = [[*who, values] for who, values in held.records.items()]
        return records, [
            state for metric, series in held.series.items() for state in series.shown(metric)
        ]

    def keys(self) -> list[str]:
        return sorted(self.held, key=str.encode)

    def tables(self) -> dict[str, int]:
        return dict(Counter(key.partition(":")[0] for key in self.held))

    def sources(self) -> list[dict[str, Any]]:
        records = Counter(source for held in self.held.values() for _, source in held.records)
        return [
            {
                "source": name,
                "last_seen": source.last_seen,
                "epoch": source.epoch,
                "seq": source.seq,
                "durable": source.durable,
                "gone": source.gone,
                "records": records[name],
            }
            for name, source in sorted(self.told.items())
        ]

    def counters(self) -> dict[str, int]:
        return {name: count for name, count in self.counted.items() if count}

    def sizes(self) -> dict[str, int]:
        return {
            "keys": len(self.held),
            "records": sum(len(held.records) for held in self.held.values()),
            "series": sum(len(held.series) for held in self.held.values()),
            "sources": len(self.told),
        }

    def take_results(self) -> list[tuple[str, str, str, Result]]:
        """``(key, metric, algorithm, result)`` since the last call."""
        taken, self.results = self.results, []
        return taken

    def take_changed(self) -> set[tuple[str, str]]:
        """``(key, struct)`` since the last call."""
        taken, self.changes = self.changes, set()
        return taken
