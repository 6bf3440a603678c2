"""A simulation lived through a collector, and what its detectors said of every single period.

Sent is one period of everybody at a time, and then it is asked what the collector has made of it.
The collector waits for late samples as long as it can, so that no clock but only its ring closes
periods: when a period has come, the one that lies a ring before it is closed. So nothing depends on
how fast the machine is, and the same simulation gives the same recording.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from collectord import proxies, wire
from collectord.client import QueryClient, View
from collectord.netops.block import SECOND, Block, Report, Simulation, joined
from collectord.netops.collector import CollectorTarget
from collectord.netops.local import CollectorError, collector
from collectord.netops.measures import Flags, Scores
from collectord.proxies import Algorithm

START = 1_704_067_200 * SECOND
"""When every recording begins: Monday, 1 January 2024, UTC."""
PERIOD = wire.PERIOD * SECOND
OPTIONS = {"DEFAULT.uve_proxy_lateness": "300"}
"""The longest there is."""
PAGE = 1000
TIMEOUT = 60.0
BATCH_RECORDS = 1000

LEVELS = {
    "device": "UveDevice",
    "site": "UveSite",
    "company": "UveCompany",
    "networks": "UveVirtualNetworkAgent",
}
"""What a series is of, and the struct that tells it."""

Progress = Callable[[int, int], None]
"""Called with how many periods were sent, and how many there are."""


class RecordingError(CollectorError):
    """Not every period could be recorded, so that nothing is known for sure."""


@dataclass(frozen=True)
class Recording:
    """Every array has the shape (series, periods)."""

    series: Sequence[tuple[str, str]]
    """The key and the attribute of each."""
    truth: Flags
    """Whether the metric failed at any step of the period, at any device that tells the series."""
    values: Mapping[str, Scores]
    """What each algorithm's reducer made of the period."""
    sigmas: Mapping[str, Scores]
    """What its detector said; NaN as long as it says nothing."""


def minimum(algorithm: Algorithm) -> int:
    """The steps that a detector takes before it says something."""
    return math.floor(1 / algorithm.alpha)


def record(
    simulation: Simulation,
    struct: str,
    algorithms: Sequence[Algorithm],
    periods: int,
    interval: float,
    progress: Progress = lambda done, total: None,
) -> Recording:
    """Let the algorithms, which all have detectors, judge every metric of a struct.

    ``interval`` is at most a period. As many algorithms run at once as can run on one metric; where
    there are more, the simulation is lived again. Raises RecordingError, and what a collector and
    a target raise.
    """
    groups = [
        algorithms[first : first + proxies.ALGORITHMS_PER_METRIC]
        for first in range(0, len(algorithms), proxies.ALGORITHMS_PER_METRIC)
    ]
    each = periods + wire.RING
    recordings = []
    for number, group in enumerate(groups):
        life = _Life(_Told(simulation, struct), group, periods, interval)
        for done, _ in enumerate(life.live(), number * each + 1):
            progress(done, len(groups) * each)
        recordings.append(life.recording())
    first = recordings[0]
    return Recording(
        first.series,
        first.truth,
        {name: array for one in recordings for name, array in one.values.items()},
        {name: array for one in recordings for name, array in one.sigmas.items()},
    )


class _Told:
    """A simulation of which only one struct is told; what nobody asks about need not be sent."""

    def __init__(self, simulation: Simulation, struct: str) -> None:
        self.struct = struct
        self.emitters = simulation.emitters
        self.metrics = simulation.metrics
        self.aggtypes = simulation.aggtypes
        self.proxied: Sequence[str] = [
            name for name in simulation.proxied if name.startswith(f"{struct}-")
        ]
        self.attributes = [
            name for name in simulation.metrics if f"{struct}-{name}" in self.proxied
        ]
        self._simulation = simulation

    def chunks(self, start: int, interval: float) -> Iterator[Block]:
        return self._simulation.chunks(start, interval)

    def descriptions(self) -> Iterable[Report]:
        return ()

    def reports(self, block: Block) -> Iterable[Report]:
        return (one for one in self._simulation.reports(block) if one.struct == self.struct)

    def keys(self, block: Block) -> list[str]:
        """The key that each emitter tells the attributes of, in the order of the emitters."""
        return [one.key for one in self.reports(block) if self.attributes[0] in one.attributes]

    def periods(self, interval: float) -> Iterator[Block]:
        """A block for each period, endlessly."""
        parts: list[Block] = []
        for chunk in self.chunks(START, interval):
            cuts = np.flatnonzero(np.diff(chunk.times // PERIOD)) + 1
            for first, end in itertools.pairwise([0, *cuts.tolist(), chunk.steps]):
                part = chunk.part(first, end)
                if parts and parts[0].times[0] // PERIOD != part.times[0] // PERIOD:
                    yield joined(parts)
                    parts = []
                parts.append(part)


class _Life:
    """One life of a simulation in a collector of its own, with as many algorithms as it can run."""

    def __init__(
        self, told: _Told, algorithms: Sequence[Algorithm], periods: int, interval: float
    ) -> None:
        self._told = told
        self._periods = periods
        blocks = told.periods(interval)
        first = next(blocks)
        self._blocks = itertools.chain([first], itertools.islice(blocks, periods + wire.RING - 1))
        keys = told.keys(first)
        if len(keys) != len(told.emitters):
            raise RecordingError(
                f"{len(told.emitters)} emitters tell {len(keys)} times of {told.struct}; each has "
                "to tell of one key"
            )
        self._keys = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._told_by = np.array([self._keys[key] for key in keys])
        self._table = keys[0].partition(":")[0]
        self._metrics = [f"{told.struct}-{name}" for name in told.attributes]
        self._algorithms = {algorithm.name: algorithm for algorithm in algorithms}
        shape = len(self._keys), len(self._metrics), periods
        self._truth = np.zeros(shape, np.bool_)
        self._values = {name: np.full(shape, np.nan) for name in self._algorithms}
        self._sigmas = {name: np.full(shape, np.nan) for name in self._algorithms}

    def live(self) -> Iterator[None]:
        """Send and ask, period by period."""
        names = ":".join(self._algorithms)
        wanted = " ".join(f"{metric}:{names}" for metric in self._metrics)
        with contextlib.ExitStack() as stack:
            addresses = stack.enter_context(
                collector({**OPTIONS, "DEFAULT.uve_proxy_list": wanted})
            )
            target = CollectorTarget(addresses.ingest, batch_records=BATCH_RECORDS, timeout=TIMEOUT)
            stack.callback(target.close)
            client = stack.enter_context(QueryClient(addresses.query, TIMEOUT))
            for period, block in enumerate(self._blocks):
                target.send(self._told, block)
                target.flush()
                if period < self._periods:
                    self._note_truth(period, block)
                if period >= wire.RING:
                    self._read(client, period - wire.RING)
                yield
            _check(client)

    def recording(self) -> Recording:
        """What was recorded."""
        return Recording(
            list(itertools.product(self._keys, self._told.attributes)),
            self._truth.reshape(-1, self._periods),
            {name: array.reshape(-1, self._periods) for name, array in self._values.items()},
            {name: array.reshape(-1, self._periods) for name, array in self._sigmas.items()},
        )

    def _note_truth(self, period: int, block: Block) -> None:
        for number, name in enumerate(self._told.attributes):
            failing = block.is_error[name].any(axis=1)
            self._truth[self._told_by[failing], number, period] = True

    def _read(self, client: QueryClient, period: int) -> None:
        """Ask what became of a period, the last one closed."""
        structs = [f"{name}-{metric}" for name in self._algorithms for metric in self._metrics]
        found = dict(client.find(self._table, page=PAGE, cfilt=structs))
        for key, row in self._keys.items():
            view = found.get(key, {})
            for name, algorithm in self._algorithms.items():
                for column, metric in enumerate(self._metrics):
                    value = _value(view, f"{name}-{metric}", key, algorithm, period + 1)
                    if value is not None:
                        self._values[name][row, column, period] = value["metric"]
                        self._sigmas[name][row, column, period] = value["sigma"]


def _value(
    view: View, struct: str, key: str, algorithm: Algorithm, step: int
) -> dict[str, float] | None:
    """What an algorithm says at that step, or None where it is too early for it."""
    said: dict[str, float] | None = view.get(struct, {}).get("value")
    steps = None if said is None else said["samples"]
    if steps != (step if step >= minimum(algorithm) else None):
        shown = "says nothing" if steps is None else f"is at step {steps}"
        raise RecordingError(
            f"a period was missed: at step {step}, {struct} of {key} {shown}; run it again, on a "
            "machine that is less busy"
        )
    return said


def _check(client: QueryClient) -> None:
    """That the collector has taken all that was sent, and nothing came late."""
    counters = client.status()["counters"]
    lost = {
        name: count
        for name, count in counters.items()
        if count and (name == "samples_late" or name.startswith("rejected_"))
    }
    if lost:
        told = ", ".join(f"{name} {count}" for name, count in lost.items())
        raise RecordingError(f"the collector did not take all of it: {told}")
