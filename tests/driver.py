"""An engine to be driven by hand in tests: seconds in place of microseconds, names in place of
numbers. Second 0 is the beginning of a period some fifty years after the Unix epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from collectord.engine import Engine, Outcome, ProxyState

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = 28_000_000 * MINUTE
DAY = 24 * 3600

KEY = "T:vn1"
METRIC = "S-a"
Specification = tuple[str, int, str, str, float]


def moment(second: float) -> int:
    """That second of the tests' time in microseconds since the Unix epoch."""
    return START + round(second * SECOND)


def plain(reducer: str = "Sum", timeout: int = 1) -> Specification:
    """An algorithm without a detector, named after its reducer."""
    return (reducer, timeout, reducer, "", 1.0)


def ewm(alpha: float, reducer: str = "Sum", timeout: int = 1) -> Specification:
    """An algorithm named EWM."""
    return ("EWM", timeout, reducer, "EWM", alpha)


def record(
    attributes: Any, *, key: Any = KEY, struct: Any = "S", time: float | None = None
) -> list[Any]:
    """A record of a batch, without a time of its own unless one is given."""
    return [key, struct, attributes, *([] if time is None else [moment(time)])]


class Step(NamedTuple):
    """A result with the number of its period counted from second 0 on."""

    key: str
    algorithm: str
    period: int
    value: float
    samples: int
    reported: bool
    quiet: bool
    deleted: bool


class Driver:
    """An engine with one partition and one metric, unless told otherwise."""

    def __init__(
        self,
        *specifications: Specification,
        metrics: Mapping[str, Sequence[Specification]] | None = None,
        lateness: float = 5,
        limits: Mapping[str, int] | None = None,
        partitions: int = 1,
    ) -> None:
        self.engine = Engine(
            partitions=partitions,
            metrics={METRIC: specifications or [plain()]} if metrics is None else metrics,
            lateness=round(lateness * SECOND),
            limits={"results": 100_000, **(limits or {})},
        )

    def batch(
        self, records: Sequence[Any], *, at: float = 0, source: str = "h1", **fields: Any
    ) -> Outcome:
        """Apply a batch that arrives at that second."""
        body = msgpack.packb({"source": source, "records": records, **fields})
        return self.engine.apply(body, moment(at))

    def tell(self, attributes: Any, *, at: float = 0, source: str = "h1", **told: Any) -> Outcome:
        """Apply one record that arrives at that second and must be good."""
        outcome = self.batch([record(attributes, **told)], at=at, source=source)
        assert (outcome.status, outcome.applied) == ("applied", 1), outcome.rejected
        return outcome

    def sample(
        self, value: float, time: float, *, at: float | None = None, source: str = "h1"
    ) -> None:
        """A sample of that time; it arrives then too, unless another moment is given."""
        self.tell({"a": value}, at=time if at is None else at, source=source, time=time)

    def advance(self, second: float) -> int:
        """Tell the clock; returns how many periods were closed."""
        return sum(
            self.engine.advance(number, moment(second)) for number in range(self.engine.partitions)
        )

    def records(self, key: str = KEY) -> dict[tuple[str, str], dict[str, Any]]:
        """What is known of a key: ``(struct, source)`` to its attributes."""
        known = self.engine.read(key)
        return {(struct, source): told for struct, source, told in known[0]} if known else {}

    def proxies(self, key: str = KEY) -> dict[str, ProxyState]:
        """The proxy UVEs of a key by the name of their algorithm."""
        known = self.engine.read(key)
        return {state.algorithm: state for state in known[1]} if known else {}

    def steps(self) -> list[Step]:
        """What closed since the last call, in order."""
        names = self.engine.metric_names()
        return [
            Step(
                self.engine.key_name(0, int(row["key"])),
                names[row["metric"]][1][row["algorithm"]],
                int(row["period"]) - START // MINUTE,
                row["value"].item(),
                int(row["samples"]),
                bool(row["flags"] & 1),
                bool(row["flags"] & 2),
                bool(row["flags"] & 4),
            )
            for row in self.engine.take_results(0)
        ]

    def closed(self) -> list[tuple[int, float]]:
        """``(period, value)`` of what closed since the last call, deletions left out."""
        return [(step.period, step.value) for step in self.steps() if not step.deleted]

    def count(self, name: str) -> int:
        """One of the engine's counters."""
        return self.engine.counters()[name]
