from collections.abc import Collection, Mapping, Sequence
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
    source: int | None
    """The engine's number of the source, where it is known; it may mean another one later."""
    expired: int
    """The number with which the source came back after it was gone, and its records with it: it
    should have told all of its state since. 0 where it never was in this epoch."""
    message: str
    """For an error: what is wrong, and where."""
    rejected: list[tuple[int, str, str]]
    """``(index, code, message)`` of the bad records, 16 at most."""

class Speaker:
    """The patterns of source names that a peer may speak for; ``*`` is any run of characters."""

    patterns: tuple[str, ...]
    def __init__(self, patterns: Sequence[str]) -> None: ...

class Engine:
    """Partitions of records and series, safe to use from several threads.

    Times are microseconds: ``now`` of the wall clock, since the Unix epoch, which numbers periods
    and may be set; ``steady`` of a clock that is never set, by which silence is measured. Without
    ``steady`` it is ``now``. ``metrics`` maps a metric,
    ``<struct>-<attribute>``, to its algorithms ``(name, timeout, reducer, detector, alpha)``:
    ``timeout`` in periods (0: never), ``reducer`` one of ``REDUCERS``, ``detector`` one of
    ``DETECTORS``, ``alpha`` in (0, 1].

    ``limits`` may hold ``keys``, ``records``, ``sources``, ``aggtypes``, ``bytes``,
    ``source_records`` and ``source_bytes`` (of one source), ``batch_bytes`` and ``results``
    (closed results kept for each partition until they are taken; 0, the default, keeps none).
    ``seed`` makes the hash tables unpredictable from outside; state never depends on it.

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

    def apply(
        self, batch: bytes, now: int, steady: int | None = None, speaker: Speaker | None = None
    ) -> Outcome:
        """Apply one batch, as it came from the wire. Never raises for bad input.

        A ``speaker`` who may not speak for the batch's source gets ``unauthorised``.
        """

    def apply_many(
        self,
        batches: list[bytes],
        now: int,
        steady: int | None = None,
        speakers: Sequence[Speaker | None] | None = None,
    ) -> list[Outcome | None]:
        """Apply batches in order; None where a batch wants no answer and had nothing wrong.

        ``speakers`` has one for each batch; None for who may speak for every source.
        """

    def advance(self, partition: int, now: int, steady: int | None = None) -> int:
        """Close what the clock closes; returns how many periods of series were closed.

        None while sources are awaited after a restart, or the partition is being saved.
        """

    def expire(self, steady: int, timeout: int) -> list[str]:
        """Remove the records of sources silent for ``timeout`` microseconds; returns their names.

        They stay in ``sources``, as gone, until others need their place.
        """

    def untold(self, steady: int, quiet: int) -> list[tuple[int, int, int]]:
        """Sources silent for ``quiet`` microseconds that don't know how far they are durable.

        Rows are ``(source, seq, durable)``, ``source`` being the number that an ``Outcome`` has.
        They count as told from now on.
        """

    def begin_save(self) -> bool:
        """Begin a snapshot; False where none can be made before sources of the last run are back.

        Only one is made at a time, by one thread, which must call ``end_save``.
        """

    def save_partition(
        self, partition: int, now: int, steady: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """The state of a partition between two batches, as bytes (``docs/snapshot.md``)."""

    def save_head(self, now: int, steady: int | None = None) -> npt.NDArray[np.uint8]:
        """What belongs to no partition: metrics, sources, aggtypes. After all partitions."""

    def end_save(self, durable: bool) -> None:
        """End a snapshot: all that it holds is safe for good, or (False) it came to nothing."""

    def restore(
        self,
        head: bytes | memoryview,
        partitions: Sequence[bytes | memoryview],
        now: int,
        steady: int | None = None,
    ) -> None:
        """Bring back, into a new engine, what a snapshot holds; its metrics come with it.

        From then on sources are awaited: no period closes until ``settle`` or ``settle_all`` says
        that none is. The number of ``partitions`` may be another than this engine's.

        Raises ValueError for bytes that are no such state, MemoryError; the engine is of no use
        then.
        """

    def settle(self, steady: int, quiet: int) -> int:
        """How many sources are still awaited. One that is back for ``quiet`` microseconds, and
        never told how much it kept, is not awaited any more."""

    def settle_all(self) -> int:
        """Await nobody any more; returns how many sources were."""

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
        """Each source, by name: ``source, records, last_seen, epoch, seq, durable, gone``."""

    def watch(self, on: bool) -> None:
        """Begin or cease to note what changes, for ``take_changed``."""

    def take_changed(
        self, partition: int, prefixes: Sequence[str] = ("",)
    ) -> list[tuple[str, str]]:
        """``(key, struct)`` of what changed since the last call, each once, of keys that begin
        with one of ``prefixes``; the rest is forgotten."""

    def observe(self, names: Mapping[str, Collection[float] | None]) -> None:
        """Begin to note, for ``take_observed``, what changes of these; none: cease to.

        ``S`` is a struct of sources that comes or goes, ``S-A`` its attribute, ``S-*`` all of its
        attributes. ``P-S-A`` is a proxy UVE that comes or goes, ``P-S-A.value`` and
        ``P-S-A.sigma`` are its numbers, quiet steps included, ``P-S-A.staging`` every sample.
        ``*`` is any struct or proxy UVE, ``*-*`` all that any of them has.

        Of an attribute, a value or a sigma with thresholds it is only noted when it comes to lie
        otherwise to one of them: below, at or above. (Of an attribute that several sources tell,
        or that is no number, every change is.)

        What was noted before is forgotten, as it is by ``configure``.
        """

    def take_observed(
        self, partition: int, prefixes: Sequence[str] = ("",)
    ) -> list[tuple[str, str]]:
        """``(key, struct)`` of what was observed since the last call, as ``take_changed`` does;
        with a proxy UVE others of the same metric may be named that did not change."""

    def observed_count(self) -> int:
        """How many changes wait for ``take_observed``."""

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
