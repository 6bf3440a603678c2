"""Sources that go and come back, what each may hold and speak for, and by which clock."""

from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from collectord.engine import Engine, Speaker

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = 1_700_000_040 * SECOND
TIMEOUT = 180 * SECOND


class Told:
    """An engine, and two clocks for it."""

    def __init__(self, **arguments: Any) -> None:
        self.engine = Engine(
            metrics={"S-a": [("AggProxySum", 1, "Sum", "", 1.0)]}, partitions=3, **arguments
        )
        self.wall = self.steady = START

    def batch(
        self, source: str, *records: Sequence[Any], speaker: Speaker | None = None, **fields: Any
    ) -> Any:
        body = msgpack.packb({"source": source, "records": records, **fields})
        return self.engine.apply(body, self.wall, self.steady, speaker)

    def passes(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.steady += round(seconds * SECOND)

    def expire(self) -> list[str]:
        return self.engine.expire(self.steady, TIMEOUT)

    def advance(self) -> int:
        return sum(self.engine.advance(part, self.wall, self.steady) for part in range(3))

    def source(self, name: str) -> dict[str, Any]:
        return next(row for row in self.engine.sources() if row["source"] == name)


def codes(outcome: Any) -> list[str]:
    return [code for _, code, _ in outcome.rejected]


def test_a_silent_source_goes_with_its_records_alone() -> None:
    told = Told()
    told.engine.watch(True)
    told.batch("one", ["T:a", "S", {"b": 1}], ["T:b", "S", {"b": 1}])
    told.passes(100)
    told.batch("two", ["T:a", "S", {"b": 2}])
    for part in range(3):
        told.engine.take_changed(part)
    told.passes(80)
    assert told.expire() == ["one"]
    assert told.engine.keys() == ["T:a"]
    assert told.source("one")["gone"]
    assert not told.source("two")["gone"]
    changed = [row for part in range(3) for row in told.engine.take_changed(part)]
    assert sorted(changed) == [("T:a", "S"), ("T:b", "S")]
    assert told.expire() == []


def test_an_empty_batch_is_a_sign_of_life() -> None:
    told = Told()
    told.batch("one", ["T:a", "S", {"b": 1}])
    for _ in range(5):
        told.passes(100)
        told.batch("one")
        assert told.expire() == []
    assert told.engine.keys() == ["T:a"]


@pytest.mark.parametrize("step", [-7200, -1, 1, 7200])
def test_no_source_goes_because_the_clock_was_set(step: float) -> None:
    told = Told()
    told.batch("one", ["T:a", "S", {"b": 1}])
    told.wall += round(step * SECOND)
    told.passes(179)
    assert told.expire() == []
    told.passes(1)
    assert told.expire() == ["one"]


def test_one_that_comes_back_goes_on_and_hears_that_its_records_went() -> None:
    told = Told()
    told.batch("one", ["T:a", "S", {"b": 1}], epoch=1, seq=1)
    told.passes(180)
    told.expire()
    assert told.batch("one", epoch=1, seq=4).status == "resync"
    back = told.batch("one", ["T:c", "S", {"b": 1}], epoch=1, seq=2)
    assert (back.status, back.applied, back.expired) == ("applied", 1, 2)
    assert told.batch("one", epoch=1, seq=2).expired == 2, "the answer may have been lost"
    assert told.batch("one", epoch=1, seq=3).expired == 2
    assert told.batch("one", epoch=2, seq=1).expired == 0
    assert not told.source("one")["gone"]


def test_one_that_had_nothing_hears_nothing_of_it() -> None:
    told = Told()
    told.batch("one", epoch=1, seq=1)
    told.passes(180)
    assert told.expire() == ["one"]
    assert not told.batch("one", epoch=1, seq=2).expired


def test_the_longest_gone_makes_way_when_there_are_too_many() -> None:
    told = Told(limits={"sources": 3})
    for name in ("one", "two", "three"):
        told.batch(name, ["T:a", "S", {"b": 1}])
        told.passes(1)
    told.passes(178)
    assert told.expire() == ["one", "two"]
    assert told.batch("four").status == "applied"
    assert [row["source"] for row in told.engine.sources()] == ["four", "three", "two"]
    assert told.batch("five").status == "applied"
    assert told.batch("six").status == "overloaded"


def test_a_source_holds_no_more_records_than_it_may() -> None:
    told = Told(limits={"source_records": 2})
    records = [[f"T:{number}", "S", {"b": 1}] for number in range(3)]
    assert codes(told.batch("one", *records)) == ["limit_source_records"]
    assert codes(told.batch("two", *records[:2])) == []
    told.batch("one", ["T:0", "S", None])
    assert codes(told.batch("one", records[2])) == []


def test_a_source_holds_no_more_bytes_than_it_may() -> None:
    told = Told(limits={"source_bytes": 10_000})
    assert codes(told.batch("one", ["T:a", "S", {"b": "x" * 9_000}])) == []
    assert codes(told.batch("one", ["T:b", "S", {"b": "x" * 1_000}])) == ["limit_source_bytes"]
    assert codes(told.batch("two", ["T:b", "S", {"b": "x" * 1_000}])) == []
    told.batch("one", ["T:a", "S", {"b": None, "c": 1}])
    assert codes(told.batch("one", ["T:b", "S", {"b": "x" * 9_000}])) == []


def test_nobody_speaks_for_sources_that_are_not_its_own() -> None:
    told = Told()
    speaker = Speaker(["compute-1*", "*:Config:*"])
    for name in ("compute-1", "compute-1:a:b:0", "host:Config:x:0"):
        assert told.batch(name, ["T:a", "S", {"b": 1}], speaker=speaker).status == "applied"
    refused = told.batch("compute-2", ["T:a", "S", {"b": 1}], speaker=speaker, epoch=1, seq=1)
    assert (refused.status, refused.answer) == ("unauthorised", True)
    assert "compute-2" not in {row["source"] for row in told.engine.sources()}
    assert told.batch("compute-1", speaker=Speaker([])).status == "unauthorised"
    assert told.engine.counters()["batches_unauthorised"] == 2


def test_short_messages_are_judged_each_by_its_own_speaker() -> None:
    told = Told()
    told.batch("one")
    told.batch("two")
    bodies = [
        msgpack.packb({"source": name, "records": [[f"T:{name}", "S", {"b": number}]]})
        for number, name in enumerate(["one", "two", "one", "two"])
    ]
    speaker = Speaker(["one"])
    outcomes = told.engine.apply_many(bodies, START, None, [speaker] * 4)
    assert [outcome and outcome.status for outcome in outcomes] == [None, "unauthorised"] * 2
    assert told.engine.keys() == ["T:one"]


def test_a_step_back_closes_nothing_early_and_a_step_forward_hides_no_silence() -> None:
    told = Told()
    told.batch("one", ["T:a", "S", {"a": 1}])
    told.wall -= 3600 * SECOND
    told.passes(130)
    assert told.advance() == 0, "by the clock its period is still to come"
    told.wall += 3600 * SECOND
    assert told.advance() == 2, "it ended, and long ago: then the one without samples"


def test_a_source_that_sends_steadily_keeps_its_period_open_whatever_the_clock_says() -> None:
    told = Told()
    told.wall += 3600 * SECOND
    for _ in range(20):
        told.batch("one", ["T:a", "S", {"a": 1}], time=START)
        told.passes(4)
        assert told.advance() == 0
    told.passes(1)
    assert told.advance() == 1


def saved_at_different_moments(told: Told) -> Engine:
    """A life in which the first partition has batches to 2, the others to 4; all of it summed."""
    engine = told.engine
    records = [[f"T:{number}", "S", {"a": 1}, START] for number in range(30)]
    for seq in (1, 2):
        told.batch("one", *records, epoch=9, seq=seq)
    assert engine.begin_save()
    parts = [engine.save_partition(0, START)]
    for seq in (3, 4):
        told.batch("one", *records, epoch=9, seq=seq)
    parts += [engine.save_partition(part, START) for part in (1, 2)]
    again = Told().engine
    again.restore(engine.save_head(START).data, [part.data for part in parts], START)
    return again


def sums(engine: Engine) -> set[float | int | None]:
    found = [engine.read(f"T:{number}") for number in range(30)]
    return {state.staging for read in found if read for state in read[1]}


def test_what_some_partitions_have_is_passed_over() -> None:
    told = Told()
    told.engine = saved_at_different_moments(told)
    assert sums(told.engine) == {2, 4}
    records = [[f"T:{number}", "S", {"a": 1}, START] for number in range(30)]
    assert told.batch("one", epoch=9, seq=5).last == 2
    for seq in (3, 4):
        assert told.batch("one", *records, epoch=9, seq=seq, newest=4).applied == 30
    assert sums(told.engine) == {4}


def test_a_source_that_lost_its_end_is_not_passed_over_with_what_is_new() -> None:
    """The machine died: its spool ends before what some partitions have."""
    told = Told()
    told.engine = saved_at_different_moments(told)
    new = [[f"T:{number}", "S", {"a": 10}, START] for number in range(30)]
    assert told.batch("one", epoch=9, seq=5, newest=2).last == 2
    for seq in (3, 4):
        told.batch("one", *new, epoch=9, seq=seq, newest=seq)
    assert sums(told.engine) == {22, 24}, "and what came before the crash is there, too"


def test_a_batch_that_waits_for_the_last_source_leaves_nothing_behind() -> None:
    """It is prepared, refused, and, as nobody else is awaited, prepared again."""
    told = Told()
    told.batch("one", ["T:a", "S", {"a": 1}, START], epoch=9, seq=1)
    assert told.engine.begin_save()
    parts = [told.engine.save_partition(part, START) for part in range(3)]
    head = told.engine.save_head(START)
    held = []
    for length in (1000, 100_000):
        told.engine = Told().engine
        told.engine.restore(head.data, [part.data for part in parts], START)
        records = [
            ["T:a", "S", {"text": "x" * length}, START],
            ["T:a", "S", {"a": 1}, START + 20 * MINUTE],
        ]
        told.wall = told.steady = START + 20 * MINUTE
        assert told.batch("one", *records, epoch=9, seq=2).applied == 2
        held.append(told.engine.sizes()["bytes"])
    assert held[1] - held[0] == 99_002, "the head of a long text has two bytes more"
