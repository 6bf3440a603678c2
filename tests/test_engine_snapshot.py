"""What an engine saves comes back: as it was, at another time, in other partitions, and once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from collectord.engine import Engine
from collectord.engine._core import DETECTORS, REDUCERS

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = 1_700_000_040 * SECOND
STEADY = 12_345 * HOUR
EPOCH = 7

METRICS = {
    "S-a": [
        (f"{reducer}{detector}", 1 + at % 3, reducer, detector, 0.3 if detector else 1.0)
        for at, reducer in enumerate(REDUCERS)
        for detector in DETECTORS
    ],
    "S-b": [("Last", 2, "Last", "", 1.0), ("LastEWM", 0, "Last", "EWM", 0.1)],
    "T-x": [("Sum", 1, "Sum", "", 1.0)],
}
KEYS = [f"Table{number % 3}:object-{number}" for number in range(30)]


def new_engine(partitions: int = 5, **arguments: Any) -> Engine:
    return Engine(partitions=partitions, metrics=METRICS, **arguments)


Saved = tuple[bytes, list[bytes]]


def save(engine: Engine, now: int, steady: int, durable: bool = True) -> Saved:
    assert engine.begin_save()
    parts = [bytes(engine.save_partition(part, now, steady)) for part in range(engine.partitions)]
    head = bytes(engine.save_head(now, steady))
    engine.end_save(durable)
    return head, parts


def restored(saved: Saved, now: int, steady: int, **arguments: Any) -> Engine:
    engine = new_engine(**arguments)
    engine.restore(*saved, now, steady)
    engine.configure(METRICS, 5 * SECOND)
    return engine


def records(generator: random.Random) -> list[list[Any]]:
    """Samples whose sums are exact, in whatever order sources are added up; and other values."""

    def value() -> Any:
        whole, part = generator.randint(-100, 100), generator.randint(-40, 40) / 4
        return generator.choice([whole, part, part, "text", "t" * 40, [1, {}], None])

    return [
        [generator.choice(KEYS), struct, {name: value() for name in "abx"}]
        for struct in generator.choices("ST", k=generator.randint(1, 12))
    ]


def batch(source: str, seq: int, told: Sequence[Any], **fields: Any) -> bytes:
    body = {"source": source, "epoch": EPOCH, "seq": seq, "records": list(told), **fields}
    return bytes(msgpack.packb(body))


def advance(engine: Engine, now: int, steady: int) -> None:
    for part in range(engine.partitions):
        engine.advance(part, now, steady)


def view(engine: Engine) -> dict[str, Any]:
    """All that is told of keys, in an order of its own; aggtypes and sizes."""
    told: dict[str, Any] = {"aggtypes": dict(engine.aggtypes())}
    for key in engine.keys(limit=10**6):
        read = engine.read(key)
        assert read is not None
        told[key] = (
            sorted(map(repr, ([*who, sorted(values.items())] for *who, values in read[0]))),
            sorted(map(repr, read[1])),
        )
    told["sizes"] = {name: engine.sizes()[name] for name in ("keys", "records", "sources")}
    return told


class Life:
    """Random batches of some sources, the same for each engine that lives it."""

    def __init__(self, seed: int) -> None:
        generator = random.Random(seed)
        self.batches = [
            (f"h{turn % 3}:Compute:agent:0", turn // 3 + 1, records(generator), turn * 4 * SECOND)
            for turn in range(90)
        ]

    def live(self, engine: Engine, first: int, end: int, shift: int = 0) -> None:
        for source, seq, told, time in self.batches[first:end]:
            now = (START + time + shift, STEADY + time + shift)
            outcome = engine.apply(batch(source, seq, told), *now)
            assert (outcome.status, outcome.rejected) == ("applied", [])
            advance(engine, *now)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("partitions", [5, 1, 8])
def test_goes_on_as_if_nothing_had_been(seed: int, partitions: int) -> None:
    life = Life(seed)
    engine = new_engine()
    life.live(engine, 0, 50)
    now = (START + 50 * 4 * SECOND, STEADY + 50 * 4 * SECOND)
    again = restored(save(engine, *now), *now, partitions=partitions)
    assert view(again) == view(engine)
    assert again.sources() == engine.sources()
    assert again.settle_all() == 3
    life.live(engine, 50, 90)
    life.live(again, 50, 90)
    assert view(again) == view(engine)
    for minute in range(1, 12):
        late = (now[0] + 10 * MINUTE + minute * MINUTE, now[1] + 10 * MINUTE + minute * MINUTE)
        advance(engine, *late)
        advance(again, *late)
        assert view(again) == view(engine)


@pytest.mark.parametrize("away", [SECOND, 20 * SECOND, 5 * MINUTE, 30 * HOUR])
def test_time_that_passed_is_silence(away: int) -> None:
    """Whoever did not die has closed by then just what the other closes once it is back."""
    engine = new_engine()
    Life(1).live(engine, 0, 40)
    saved = save(engine, START + 160 * SECOND, STEADY + 160 * SECOND)
    later = 160 * SECOND + away
    again = restored(saved, START + later, 5 * HOUR + 40 * HOUR)
    again.settle_all()
    advance(engine, START + later, STEADY + later)
    advance(again, START + later, 45 * HOUR)
    assert view(again) == view(engine)


def test_a_clock_that_went_back_is_no_silence() -> None:
    engine = new_engine()
    Life(2).live(engine, 0, 40)
    now = START + 160 * SECOND
    saved = save(engine, now, STEADY + 160 * SECOND)
    again = restored(saved, now - HOUR, HOUR)
    again.settle_all()
    before = view(again)
    advance(again, now - HOUR, HOUR)
    assert view(again) == before


def send(engine: Engine, life: Life, end: int) -> None:
    """All batches so far, at the times they were made: those that are known count once."""
    for source, seq, told, time in life.batches[:end]:
        engine.apply(batch(source, seq, told, time=START + time), START)


@pytest.mark.parametrize("partitions", [5, 1, 3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_again_counts_once(seed: int, partitions: int) -> None:
    """Batches come between the saving of one partition and another's, and after the last."""
    life = Life(seed)
    untouched, engine = new_engine(), new_engine()
    send(untouched, life, 75)
    send(engine, life, 20)
    assert engine.begin_save()
    parts = []
    for part in range(5):
        parts.append(bytes(engine.save_partition(part, START)))
        send(engine, life, 20 + 8 * (part + 1))
    head = bytes(engine.save_head(START))
    engine.end_save(True)
    durable = {row["source"]: row["durable"] for row in engine.sources()}
    again = restored((head, parts), START, START, partitions=partitions)
    assert {row["source"]: row["seq"] for row in again.sources()} == durable
    for source, last in durable.items():
        outcome = again.apply(batch(source, last + 20, []), START)
        assert (outcome.status, outcome.last, outcome.durable) == ("resync", last, last)
    assert again.begin_save() == (partitions == 5)
    again.end_save(False)
    send(again, life, 75)
    assert view(again) == view(untouched)
    assert again.begin_save()
    again.end_save(True)


def test_no_period_closes_until_all_are_back() -> None:
    engine = new_engine()
    for name in ("one", "two"):
        engine.apply(batch(name, 1, [["T:x", "T", {"x": 2}]]), START)
    saved = save(engine, START, START)
    for name in ("one", "two"):
        engine.apply(batch(name, 2, [["T:x", "T", {"x": 3}]]), START + SECOND)
    late = START + 3 * MINUTE
    again = restored(saved, late, late)
    advance(again, late, late)
    assert again.counters()["periods_closed"] == 0
    told = [["T:x", "T", {"x": 3}, START + SECOND]]
    again.apply(batch("one", 2, told, newest=2), late)
    assert again.settle(late, MINUTE) == 1
    advance(again, late, late)
    assert again.counters()["periods_closed"] == 0
    again.apply(batch("two", 2, told, newest=2), late)
    assert again.settle(late, MINUTE) == 0
    advance(again, late + MINUTE, late + MINUTE)
    read = again.read("T:x")
    assert read is not None
    assert read[1] == []
    again.apply(batch("one", 3, [["T:x", "T", {"x": 1}]]), late + MINUTE)
    assert again.counters()["periods_closed"] >= 1


def test_the_sum_across_a_restart_is_whole() -> None:
    engine = new_engine()
    for name in ("one", "two"):
        engine.apply(batch(name, 1, [["T:x", "T", {"x": 2}]]), START)
    saved = save(engine, START, START)
    again = restored(saved, START + 65 * SECOND, START + 65 * SECOND, limits={"results": 100})
    advance(again, START + 66 * SECOND, START + 66 * SECOND)
    for name in ("one", "two"):
        again.apply(
            batch(name, 2, [["T:x", "T", {"x": 3}, START + SECOND]], newest=2), START + 67 * SECOND
        )
    advance(again, START + 75 * SECOND, START + 75 * SECOND)
    results = [row for part in range(5) for row in again.take_results(part)]
    assert [(row["value"], row["flags"]) for row in results] == [(10.0, 1)]


def test_what_the_ring_would_close_is_sent_again_later() -> None:
    engine = new_engine()
    for name in ("one", "two"):
        engine.apply(batch(name, 1, [["T:x", "T", {"x": 2}]]), START)
    saved = save(engine, START, START)
    late = START + 9 * MINUTE
    again = restored(saved, late, late)
    before = view(again)
    outcome = again.apply(batch("one", 2, [["T:x", "T", {"x": 5}]], newest=3), late)
    assert outcome.status == "overloaded"
    assert "SNAPSHOT.grace" in outcome.message
    assert view(again) == before
    again.settle_all()
    assert again.apply(batch("one", 2, [["T:x", "T", {"x": 5}]]), late).status == "applied"
    assert again.counters()["periods_closed"] >= 1


def test_limits_do_not_shed_what_was_held() -> None:
    engine = new_engine()
    Life(3).live(engine, 0, 30)
    now = (START + 120 * SECOND, STEADY + 120 * SECOND)
    tight = {"keys": 1, "records": 1, "bytes": 1, "sources": 1, "source_records": 1}
    again = restored(save(engine, *now), *now, limits=tight)
    assert view(again) == view(engine)


def test_metrics_come_with_it_and_may_then_be_others() -> None:
    engine = new_engine()
    Life(4).live(engine, 0, 30)
    now = (START + 120 * SECOND, STEADY + 120 * SECOND)
    again = Engine(partitions=5)
    again.restore(*save(engine, *now), *now)
    assert view(again) == view(engine)
    for one in (engine, again):
        one.configure({"S-a": METRICS["S-a"][:3], "S-c": METRICS["T-x"]}, 0)
    assert view(again) == view(engine)


def test_who_was_gone_is_gone_still_and_told_so_once() -> None:
    engine = new_engine()
    engine.apply(batch("one", 1, [["T:x", "T", {"x": 2}]]), START)
    assert engine.expire(START + HOUR, HOUR) == ["one"]
    again = restored(save(engine, START + HOUR, START + HOUR), START + HOUR, START + HOUR)
    assert again.sources() == engine.sources()
    assert again.settle_all() == 0
    assert again.apply(batch("one", 2, []), START + HOUR).expired == 2
    assert again.apply(batch("one", 3, []), START + HOUR).expired == 2


def test_sources_are_told_what_is_durable() -> None:
    engine = new_engine()
    engine.apply(batch("one", 1, []), START)
    again = restored(save(engine, START, START), START, START)
    assert again.untold(START + SECOND, SECOND) == [(0, 1, 1)]
    assert again.untold(START + SECOND, SECOND) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head, parts: (b"", parts), "the bytes end"),
        (lambda head, parts: (head[:-1], parts), "the bytes end|missing"),
        (lambda head, parts: (head + b"\0", parts), "behind the end"),
        (lambda head, parts: (head, parts[:-1]), "a partition is missing"),
        (lambda head, parts: (head, [*parts, parts[0]]), "one too many"),
        (lambda head, parts: (head, [parts[1], parts[0], *parts[2:]]), "out of order"),
        (lambda head, parts: (parts[0], parts), "length"),
        (lambda head, parts: (b"\x96\x02" + head[2:], parts), "another version"),
    ],
)
def test_what_is_no_state_is_refused(change: Any, reason: str) -> None:
    engine = new_engine()
    Life(3).live(engine, 0, 10)
    head, parts = change(*save(engine, START, STEADY))
    with pytest.raises(ValueError, match=reason):
        new_engine().restore(head, parts, START, STEADY)


def test_only_a_new_engine_takes_it() -> None:
    engine = new_engine()
    Life(3).live(engine, 0, 10)
    saved = save(engine, START, STEADY)
    with pytest.raises(ValueError, match="in use"):
        engine.restore(*saved, START, STEADY)


def test_one_is_made_at_a_time() -> None:
    engine = new_engine()
    assert engine.begin_save()
    assert not engine.begin_save()
    engine.end_save(False)
    assert engine.begin_save()
    engine.end_save(False)
