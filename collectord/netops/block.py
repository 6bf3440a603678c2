"""What a simulation gives: blocks of consecutive steps of everybody who reports, with the truth.

A ``Simulation`` knows who reports and how a block reads as UVEs; a ``Stream`` is one life of it,
step after step. What draws the numbers is ``devices.py`` and ``virtual_networks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000
"""Times are in microseconds since the Unix epoch."""


@dataclass(frozen=True)
class Emitter:
    """Something whose metrics are drawn: a device, or a virtual network on one vrouter."""

    id: str
    """``<company>/<site>/<device>``, or ``<network>/<vrouter>``."""
    source: str
    """Who reports it to a collector."""
    labels: Mapping[str, Any]
    """What is known of it beside its metrics, such as where it stands."""


@dataclass(frozen=True)
class Measure:
    """What every emitter has a series of."""

    labels: Mapping[str, Any]
    alert: Callable[[float], str]
    """The text for a value that passes its threshold; "" for others."""


@dataclass(frozen=True)
class Block:
    """Consecutive steps of all emitters of a simulation.

    ``times`` has the shape (steps,), every array of ``values`` and ``is_error`` the shape
    (emitters, steps), emitters in the order of ``Simulation.emitters``.
    """

    times: NDArray[np.int64]
    """Microseconds since the Unix epoch."""
    values: Mapping[str, NDArray[Any]]
    """Of each metric, float64 or int64."""
    is_error: Mapping[str, NDArray[np.bool_]]
    """The truth: whether the metric of that emitter was failing at that step."""

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return len(self.times)

    def part(self, first: int, end: int) -> Block:
        """Its steps from ``first`` to before ``end``, as views of the same arrays."""
        return Block(
            self.times[first:end],
            {name: array[:, first:end] for name, array in self.values.items()},
            {name: array[:, first:end] for name, array in self.is_error.items()},
        )


@dataclass(frozen=True)
class Report:
    """What one source tells of one UVE, once or for many steps.

    ``attributes`` holds values of any kind that msgpack has, and in place of any value inside it
    an array of shape (steps,), whose items it takes one after the other; ``times`` has the shape
    (steps,). Without ``times`` it holds no arrays, and is told once.
    """

    source: str
    key: str
    struct: str
    attributes: Mapping[str, Any]
    times: NDArray[np.int64] | None = None


class Simulation(Protocol):
    """A part of the network: who is in it, how it lives on, and how that reads as UVEs."""

    emitters: Sequence[Emitter]
    metrics: Mapping[str, Measure]
    """What the emitters measure, by its name in ``Block.values``."""
    aggtypes: Mapping[str, Mapping[str, str]]
    """How the collector is to merge what several sources tell: struct to attribute to aggtype."""
    proxied: Sequence[str]
    """``<struct>-<attribute>`` of all that is worth a proxy UVE."""

    def chunks(self, start: int, interval: float) -> Iterator[Block]:
        """Endless blocks of a size of its own, from ``start`` (microseconds) on, a step every
        ``interval`` seconds. The same arguments give the same blocks."""

    def descriptions(self) -> Iterable[Report]:
        """What does not change from step to step; told at the start, and again where lost."""

    def reports(self, block: Block) -> Iterable[Report]:
        """The block as the emitters' sources tell it, in the order of the emitters."""


class Stream:
    """One life of a simulation, taken in pieces of any size: how it is taken changes nothing."""

    def __init__(self, simulation: Simulation, start: int, interval: float) -> None:
        self.simulation = simulation
        self._chunks = simulation.chunks(start, interval)
        self._rest: Block | None = None

    def take(self, steps: int) -> Block:
        """The next steps, at least one."""
        parts: list[Block] = []
        while steps > 0:
            if not (self._rest and self._rest.steps):
                self._rest = next(self._chunks)
            part = self._rest.part(0, steps)
            self._rest = self._rest.part(part.steps, self._rest.steps)
            steps -= part.steps
            parts.append(part)
        return parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: Sequence[Block]) -> Block:
    """Blocks that follow one another as one."""
    first = parts[0]
    return Block(
        np.concatenate([part.times for part in parts]),
        {name: np.concatenate([part.values[name] for part in parts], 1) for name in first.values},
        {
            name: np.concatenate([part.is_error[name] for part in parts], 1)
            for name in first.is_error
        },
    )
