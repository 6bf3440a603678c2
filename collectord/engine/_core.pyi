from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DETECTORS: tuple[str, ...]
REDUCERS: tuple[str, ...]
RESULT: np.dtype[Any]

def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner places it (murmur2)."""

class ProxyState(NamedTuple):
    """One proxy UVE as the engine holds it. Times are absent: a view has none."""

    metric: str
    algorithm: str
    value: int | float | None
    """The reduced value of the last whole period; for a detector only once it reports."""
    staging: int | float | None
    """The reduced value so far of the newest open period."""
    samples: int
    """Steps of the detector."""
    mean: float
    stddev: float
    sigma: float

class Outcome:
    """What became of one batch. ``wire.encode_outcome`` turns it into the answer."""

    status: str
    """``applied``, ``duplicate``, ``resync`` or an error code of protocol.md."""
    seq: int | None
    """The batch's number, where it could be read."""
    applied: int
    """Records that were good."""
    last: int
    """For ``resync``: the last number applied."""
    durable: int
    answer: bool
    """False for a batch that is whole and has no ``seq``: it is never answered."""
    message: str
    """For an error: what is wrong, and where."""
    rejected: list[tuple[int, str, str]]
    """``(index, code, message)`` of the bad records, 16 at most."""

class Engine:
    """Partitions of records and series, safe to use from several threads.

    Times are microseconds since the Unix epoch. ``metrics`` maps a metric,
    ``<struct>-<attribute>``, to its algorithms ``(name, timeout, reducer, detector, alpha)``:
    ``timeout`` in periods (0: never), ``reducer`` one of ``REDUCERS``, ``detector`` one of
    ``DETECTORS``, ``alpha`` in (0, 1].

    ``limits`` may hold ``keys``, ``records``, ``sources``, ``aggtypes``, ``bytes``,
    ``batch_bytes`` and ``results`` (closed results kept for each partition until they are taken;
    0, the default, keeps none). ``seed`` makes the hash tables unpredictable from outside; state
    never depends on it.

    Raises ValueError for a value out of its range, MemoryError.
    """

    partitions: int
    def __init__(
        self,
        *,
        partitions: int = 30,
        metrics: Mapping[str, Sequence[tuple[str, int, str, str, float]]] | None = None,
        lateness: int = 5_000_000,
        limits: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None: ...
    def configure(
        self, metrics: Mapping[str, Sequence[tuple[str, int, str, str, float]]], lateness: int
    ) -> None:
        """Take on other metrics, algorithms or lateness; what stays keeps its state.

        Results that were not taken before are dropped and counted: they speak of metrics by numbers
        that may mean others from now on.
        """

    def apply(self, batch: bytes, now: int) -> Outcome:
        """Apply one batch, as it came from the wire. Never raises for bad input."""

    def apply_many(self, batches: list[bytes], now: int) -> list[Outcome | None]:
        """Apply batches in order; None where a batch wants no answer and had nothing wrong."""

    def advance(self, partition: int, now: int) -> int:
        """Close what the clock closes; returns how many periods of series were closed."""

    def read(self, key: str) -> tuple[list[list[Any]], list[ProxyState]] | None:
        """All that is known of a key, or None.

        Records come as ``[struct, source, {attribute: value}]``, in no particular order.
        """

    def record_count(self, key: str) -> int:
        """How many records a key has: how long it takes to read and merge."""

    def keys(
        self,
        *,
        table: str = "",
        patterns: Sequence[str] = (),
        match: str = "",
        after: str = "",
        limit: int = 1000,
    ) -> list[str]:
        """The first ``limit`` keys greater than ``after``, in the order of their bytes.

        A key must be of ``table`` (unless empty), match ``match`` (unless empty) and one of
        ``patterns`` (unless there are none); ``*`` stands for any run of characters.
        """

    def tables(self) -> dict[str, int]:
        """How many keys each table has."""

    def aggtypes(self) -> dict[str, str]:
        """``<struct>-<attribute>`` to the aggtype that sources declared last; not to be changed."""

    def sources(self) -> list[dict[str, Any]]:
        """Each source, by name: ``source, records, last_seen, epoch, seq, durable``."""

    def watch(self, on: bool) -> None:
        """Begin or cease to note what changes, for ``take_changed``."""

    def take_changed(
        self, partition: int, prefixes: Sequence[str] = ("",)
    ) -> list[tuple[str, str]]:
        """``(key, struct)`` of what changed since the last call, each once, of keys that begin
        with one of ``prefixes``; the rest is forgotten."""

    def take_results(self, partition: int) -> npt.NDArray[Any]:
        """The closed results since the last call, oldest first, as an array of ``RESULT``.

        Fields: ``key`` (see ``key_name``), ``period`` (number of the period), ``value``, ``mean``,
        ``stddev``, ``sigma``, ``samples``, ``metric`` and ``algorithm`` (see ``metric_names``),
        ``flags`` (1 reported, 2 quiet, 4 deleted). The ``key`` numbers hold until the next call.
        """

    def key_name(self, partition: int, key: int) -> str:
        """The key of a number out of ``take_results``. Raises KeyError for an unknown one."""

    def metric_names(self) -> list[tuple[str, tuple[str, ...]]]:
        """For each metric number: its name and those of its algorithms."""

    def counters(self) -> dict[str, int]:
        """Everything counted since the start: what was applied, refused, late, dropped, closed."""

    def sizes(self) -> dict[str, int]:
        """What is held now: ``keys, records, series, sources, bytes``."""
