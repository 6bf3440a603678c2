"""The engine against its model: whatever sources and the clock do, both tell the same."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collectord.engine import Engine, partition_of
from model import PERIOD, SECOND, Answer, Model, Result

PARTITIONS = 3
KEYS = ["T:a", "T:b:c", "Tü:é", "U:a"]
SOURCES = ["h1", "h2:Compute:agent:0", "é"]

# What may follow what in a reconfiguration. The windows of S-a always keep the extremes and each
# source's last sample, those of S-b never do: what is missing of the open periods when it begins to
# be kept is not specified.
METRICS = [
    {
        "S-a": [
            ("Sum", 1, "Sum", "", 1.0),
            ("Min", 3, "Min", "", 1.0),
            ("Last", 2, "Last", "", 1.0),
            ("LastEWM05", 0, "Last", "EWM", 0.5),
        ],
        "S-b": [
            ("SumEWM05", 1, "Sum", "EWM", 0.5),
            ("Avg", 1, "Avg", "", 1.0),
            ("Count", 2, "Count", "", 1.0),
        ],
    },
    {
        "S-b": [("Count", 2, "Count", "", 1.0), ("SumEWM05", 1, "Sum", "EWM", 0.5)],
        "S-a": [
            ("MaxEWM1", 2, "Max", "EWM", 1.0),
            ("Last", 2, "Last", "", 1.0),
            ("Sum", 1, "Sum", "", 1.0),
        ],
        "R-a": [("AvgEWM03", 2, "Avg", "EWM", 0.3)],
    },
    {
        "S-a": [("Max", 1, "Max", "", 1.0), ("Last", 3, "Last", "", 1.0)],
        "R-a": [("AvgEWM03", 2, "Avg", "EWM", 0.3), ("Sum", 4, "Sum", "", 1.0)],
    },
    {"R-a": [("MinEWM02", 9, "Min", "EWM", 0.2)]},
]

# Sums of these are exact, in whatever order they are added.
samples = st.integers(-9, 9) | st.integers(-40, 40).map(lambda quarters: quarters / 4)
others: st.SearchStrategy[Any] = st.sampled_from(
    [None, None, True, "text", "a text too long to stand inside", [1, {}], {}]
)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "a": samples | others,
        "b": samples | others | st.sampled_from([2**64 - 1, -(2**63), 2**53, 1e100, -1e99, 0.1]),
        "c": samples | others,
    },
)
# Periods and microseconds from the one of now.
offsets = st.tuples(
    st.integers(-10, 1) | st.just(0),
    st.sampled_from([0, 1, 30 * SECOND, PERIOD - 1]),
)
good_records = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from(["S", "S", "R"]),
    attributes | st.none(),
    st.none() | offsets,
)
bad_records = st.sampled_from(
    [
        [7, "S", {"a": 1}],
        ["no table", "S", {"a": 1}],
        [":name", "S", {"a": 1}],
        ["T:", "S", {"a": 1}],
        ["T:" + "x" * 1023, "S", {"a": 1}],
        ["T:a", "9", {"a": 1}],
        ["T:a", "S" * 129, {"a": 1}],
        ["T:a", "S", ["a", 1]],
        ["T:a", "S", {"a b": 1}],
        ["T:a", "S", {"a": 1, "b" * 129: 1}],
        ["T:a", "S", {"a": 1}, "now"],
        ["T:a", "S", {"a": 1}, -1],
        ["T:a", "S", {"c": 1, "a": float("nan")}],
        ["T:a", "S", {"a": float("-inf")}],
        ["T:a", "S", {"a": 1.1e100}],
    ]
)
records = st.lists(st.one_of(good_records, good_records, good_records, bad_records), max_size=6)
numberings = st.sampled_from(["none", "none", "next", "next", "again", "gap", "new", "old"])
moments = st.sampled_from([0, 1, 1000, 999_999, 4_999_000, 5 * SECOND, 30 * SECOND, 55 * SECOND])
minutes = st.sampled_from([1, 2, 5, 20, 180]).map(PERIOD.__mul__)
steps_back = st.sampled_from([1000, 900_000, SECOND, 1_100_000, 20 * SECOND, 2000 * PERIOD])
pauses = st.one_of(moments, moments, minutes, st.builds(int.__add__, minutes, moments)) | (
    steps_back.map(int.__neg__)
)


def in_order(records: list[list[Any]]) -> list[list[Any]]:
    """Records come in no particular order, nor do their attributes."""
    return sorted([*who, sorted(attributes.items())] for *who, attributes in records)


class EngineAndModel(RuleBasedStateMachine):
    @initialize(
        start=st.sampled_from([0, 3 * PERIOD, 28_000_000 * PERIOD + 17 * SECOND]),
        metrics=st.sampled_from(METRICS),
        lateness=st.sampled_from([0, 5 * SECOND, 90 * SECOND]),
    )
    def begin(self, start: int, metrics: Any, lateness: int) -> None:
        self.now = start
        self.steady = start + 10_000 * PERIOD
        self.metrics = metrics
        self.lateness = lateness
        self.engine = self.new_engine(PARTITIONS)
        self.engine.watch(True)
        self.model = Model(metrics, lateness)

    def new_engine(self, partitions: int) -> Engine:
        return Engine(
            partitions=partitions,
            metrics=self.metrics,
            lateness=self.lateness,
            limits={"results": 1 << 20},
            seed=self.now + partitions,
        )

    @rule(
        source=st.sampled_from(SOURCES),
        records=records,
        numbering=numberings,
        time=st.none() | offsets,
    )
    def a_batch(self, source: str, records: list[Any], numbering: str, time: Any) -> None:
        batch = {
            "source": source,
            "records": [self.timed(record) for record in records],
            **self.numbers(source, numbering),
        }
        if time is not None:
            batch["time"] = self.moment(time)
        self.apply(batch)

    @rule(
        source=st.sampled_from(SOURCES),
        key=st.sampled_from(KEYS),
        values=st.lists(samples | st.none(), max_size=20),
    )
    def a_history(self, source: str, key: str, values: list[Any]) -> None:
        """A sample, or none, for each of the last periods, in order."""
        first = self.now // PERIOD - len(values)
        told = [
            [key, "S", {"a": value, "b": value}, (first + at) * PERIOD]
            for at, value in enumerate(values)
            if value is not None and first + at >= 0
        ]
        self.apply({"source": source, "records": told})

    @rule(pause=pauses)
    def time_passes(self, pause: int) -> None:
        """Going back, the wall clock is set, and the steady one stands still."""
        self.now = max(0, self.now + pause)
        self.steady += max(0, pause)
        self.advance()

    @rule(pause=pauses)
    def the_clock_is_set(self, pause: int) -> None:
        self.now = max(0, self.now + pause)
        self.advance()

    @rule(pause=moments)
    def only_the_steady_clock_goes_on(self, pause: int) -> None:
        self.steady += pause
        self.advance()

    @rule(timeout=st.sampled_from([SECOND, 60 * SECOND, 180 * SECOND]))
    def silent_sources_go(self, timeout: int) -> None:
        went = self.engine.expire(self.steady, timeout)
        assert sorted(went) == sorted(self.model.expire(self.steady, timeout))

    @rule(
        down=st.sampled_from([0, 1000, SECOND, 3 * PERIOD, 200 * PERIOD]),
        shift=st.sampled_from([0, -20 * PERIOD, 1000 * PERIOD]),
        partitions=st.sampled_from([1, PARTITIONS, PARTITIONS, 7]),
    )
    def saved_and_brought_back(self, down: int, shift: int, partitions: int) -> None:
        assert self.engine.begin_save()
        parts = [
            self.engine.save_partition(number, self.now, self.steady)
            for number in range(self.engine.partitions)
        ]
        head = self.engine.save_head(self.now, self.steady)
        self.engine.end_save(True)
        self.now += down
        self.steady += down + shift
        engine = self.new_engine(partitions)
        engine.restore(head.data, [part.data for part in parts], self.now, self.steady)
        engine.configure(self.metrics, self.lateness)
        engine.settle_all()
        engine.watch(True)
        self.engine = engine
        self.model.bring_back(self.steady, shift)
        self.advance()

    @rule(slip=st.sampled_from([-1, 0, 1]))
    def a_period_is_about_to_close(self, slip: int) -> None:
        ends = (self.now // PERIOD + 1) * PERIOD
        self.now = ends + self.lateness + slip * 1000
        self.advance()

    @rule(metrics=st.sampled_from(METRICS), lateness=st.sampled_from([0, 5 * SECOND]))
    def another_configuration(self, metrics: Any, lateness: int) -> None:
        self.compare_results()
        self.lateness = lateness
        self.metrics = metrics
        self.engine.configure(metrics, lateness)
        self.model.configure(metrics, lateness)

    def apply(self, batch: dict[str, Any]) -> None:
        told = self.engine.apply(msgpack.packb(batch), self.now, self.steady)
        last = told.last if told.status == "resync" else 0
        rejected = [(index, code) for index, code, _ in told.rejected]
        assert Answer(told.status, told.applied, last, rejected, told.expired) == self.model.apply(
            batch, self.now, self.steady
        )
        assert told.seq == batch.get("seq")
        if told.status in ("applied", "duplicate"):
            assert told.durable == self.model.told[batch["source"]].durable
        assert told.answer == ("seq" in batch)

    def advance(self) -> None:
        closed = sum(
            self.engine.advance(number, self.now, self.steady)
            for number in range(self.engine.partitions)
        )
        assert closed == self.model.advance(self.now, self.steady)

    def moment(self, offset: tuple[int, int]) -> int:
        return max(0, (self.now // PERIOD + offset[0]) * PERIOD + offset[1])

    def timed(self, record: Any) -> list[Any]:
        if isinstance(record, list):  # a bad one
            return record
        *parts, offset = record
        return parts if offset is None else [*parts, self.moment(offset)]

    def numbers(self, source: str, numbering: str) -> dict[str, int]:
        """``epoch`` and ``seq`` of a batch that is the next of its source, or is not."""
        if numbering == "none":
            return {}
        known = self.model.told.get(source)
        epoch = known.epoch if known and known.epoch is not None else 100
        last = known.seq if known and known.seq is not None else 0
        return {
            "next": {"epoch": epoch, "seq": last + 1},
            "again": {"epoch": epoch, "seq": max(1, last)},
            "gap": {"epoch": epoch, "seq": last + 3},
            "new": {"epoch": epoch + 1, "seq": 1},
            "old": {"epoch": epoch - 1, "seq": 1},
        }[numbering]

    @invariant()
    def all_keys_tell_the_same(self) -> None:
        for key in KEYS:
            told, expected = self.engine.read(key), self.model.read(key)
            assert (told is None) == (expected is None), key
            if told is not None and expected is not None:
                # The text tells 1 from 1.0, and finds nan alike.
                assert repr(in_order(told[0])) == repr(in_order(expected[0]))
                assert repr(sorted(told[1])) == repr(sorted(expected[1]))

    @invariant()
    def the_lists_are_the_same(self) -> None:
        assert self.engine.keys() == self.model.keys()
        assert self.engine.tables() == self.model.tables()
        assert self.engine.sources() == self.model.sources()

    @invariant()
    def as_much_is_counted_and_held(self) -> None:
        counters = {name: count for name, count in self.engine.counters().items() if count}
        counters.pop("bytes", None)
        assert counters == self.model.counters()
        sizes = self.engine.sizes()
        assert sizes.pop("bytes") > 0
        assert sizes == self.model.sizes()

    @invariant()
    def compare_results(self) -> None:
        """Of each proxy UVE in order; those of different ones may be mixed."""
        names = self.engine.metric_names()
        told: dict[tuple[str, str, str], list[Result]] = {}
        for number in range(self.engine.partitions):
            for row in self.engine.take_results(number):
                metric, algorithms = names[row["metric"]]
                key = self.engine.key_name(number, int(row["key"]))
                assert partition_of(key.encode(), self.engine.partitions) == number
                who = (key, metric, algorithms[row["algorithm"]])
                result = Result(*(row[field].item() for field in Result._fields))
                told.setdefault(who, []).append(result)
        expected: dict[tuple[str, str, str], list[Result]] = {}
        for key, metric, algorithm, result in self.model.take_results():
            expected.setdefault((key, metric, algorithm), []).append(result)
        assert told == expected

    @invariant()
    def the_same_has_changed(self) -> None:
        changed = [self.engine.take_changed(number) for number in range(self.engine.partitions)]
        assert all(len(set(some)) == len(some) for some in changed)
        assert {change for some in changed for change in some} == self.model.take_changed()


TestEngineAndModel = EngineAndModel.TestCase
TestEngineAndModel.settings = settings(max_examples=5 * settings().max_examples)
