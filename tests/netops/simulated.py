"""A simulation that is as simple as can be, and a target that only remembers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import SECOND, Block, Emitter, Measure, Report, Simulation
from collectord.netops.target import TargetClosed

CHUNK = 100


class Counting:
    """Every emitter's ``load`` is the number of its step; every tenth is an error."""

    aggtypes: Mapping[str, Mapping[str, str]] = {}
    proxied: Sequence[str] = ()

    def __init__(self, emitters: int = 2) -> None:
        self.emitters: Sequence[Emitter] = [
            Emitter(f"acme/0/{number}", f"acme/0/{number}:Device:netops:0", {"site": "acme/0"})
            for number in range(emitters)
        ]
        self.metrics: Mapping[str, Measure] = {
            "load": Measure({"unit": "percent"}, lambda value: f"{value:g}!" if value == 10 else "")
        }

    def chunks(self, start: int, interval: float) -> Iterator[Block]:
        first = 0
        while True:
            steps = np.arange(first, first + CHUNK)
            values = np.tile(steps.astype(float), (len(self.emitters), 1))
            yield Block(
                start + (steps * round(interval * SECOND)).astype(np.int64),
                {"load": values},
                {"load": values % 10 == 0},
            )
            first += CHUNK

    def descriptions(self) -> Iterable[Report]:
        return ()

    def reports(self, block: Block) -> Iterable[Report]:
        return ()


class Memory:
    """A target that remembers the blocks it got, and how many had come at each flush."""

    def __init__(self, block_seconds: float = 600.0) -> None:
        self.block_seconds = block_seconds
        self.blocks: list[Block] = []
        self.flushes: list[int] = []
        self.rejected = 0
        self.trouble = ""
        self.is_closed = False

    def send(self, simulation: Simulation, block: Block) -> None:
        if self.is_closed:
            raise TargetClosed
        self.blocks.append(block)

    def flush(self) -> None:
        self.flushes.append(len(self.blocks))

    def counts(self) -> Mapping[str, int]:
        return {"rejected": self.rejected}

    def close(self) -> None:
        self.is_closed = True

    @property
    def times(self) -> list[int]:
        """Of all steps, in the order in which they came."""
        return [time for block in self.blocks for time in block.times.tolist()]

    @property
    def values(self) -> NDArray[np.float64]:
        """Of the first emitter, in the order in which they came."""
        return np.concatenate([block.values["load"][0] for block in self.blocks])


class Stuck(Memory):
    """A target that takes nothing, until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self._is_open = threading.Event()

    def send(self, simulation: Simulation, block: Block) -> None:
        self.has_begun.set()
        self._is_open.wait()
        raise TargetClosed

    def close(self) -> None:
        super().close()
        self._is_open.set()
