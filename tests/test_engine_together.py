"""Short messages that follow one another are applied together: nothing of it can be seen."""

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from collectord.engine import Engine

NOW = 1_700_000_000_000_000
METRICS = {"S-a": [("Sum", 1, "Sum", "", 1.0), ("Last", 1, "Last", "EWM", 0.5)]}
KEYS = [f"T:{number}" for number in range(4)]

values = st.one_of(st.integers(0, 9), st.none(), st.text("ab", max_size=40), st.just(float("nan")))
attributes = st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b", "2c"]), values))
records = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([*KEYS, "no table"]), st.sampled_from("ST"), attributes),
        st.tuples(
            st.sampled_from(KEYS),
            st.just("S"),
            attributes,
            st.sampled_from([NOW - 200_000_000, NOW - 61_000_000, NOW, NOW + 61_000_000]),
        ),
        st.just("no record"),
    ),
    max_size=3,
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    batch: dict[str, Any] = {"source": draw(st.sampled_from("xyz")), "records": draw(records)}
    kind = draw(st.sampled_from(["plain"] * 8 + ["numbered", "aggtypes", "cut", "long"]))
    if kind == "numbered":
        batch |= {"epoch": 1, "seq": draw(st.integers(1, 3))}
    if kind == "aggtypes":
        batch["aggtypes"] = {"S": {"a": draw(st.sampled_from(["sum", "union", "wrong"]))}}
    if kind == "long":
        batch["filling"] = "." * 600
    body: bytes = msgpack.packb(batch)
    return body[: draw(st.integers(0, len(body)))] if kind == "cut" else body


def told(engine: Engine) -> Any:
    """All that can be asked of an engine, in an order that does not depend on how it came."""
    reads = []
    keys = engine.keys()
    for key in keys:
        held, proxies = engine.read(key) or ([], [])
        reads.append((key, sorted(held, key=lambda row: row[:2]), sorted(map(repr, proxies))))
    changed = [sorted(engine.take_changed(at)) for at in range(engine.partitions)]
    sizes = {name: size for name, size in engine.sizes().items() if name != "bytes"}
    return reads, changed, engine.sources(), engine.aggtypes(), engine.counters(), sizes


@given(st.lists(messages(), max_size=20))
def test_messages_in_one_call_or_each_in_its_own_come_to_the_same(batches: list[bytes]) -> None:
    together = Engine(partitions=3, metrics=METRICS)
    alone = Engine(partitions=3, metrics=METRICS)
    together.watch(True)
    alone.watch(True)

    answers = together.apply_many(batches, NOW)
    each = [alone.apply(batch, NOW) for batch in batches]

    for answer, outcome in zip(answers, each, strict=True):
        if answer is None:
            assert (outcome.status, outcome.answer, outcome.rejected) == ("applied", False, [])
        else:
            assert repr(answer) == repr(outcome)
            assert answer.rejected == outcome.rejected
            assert (answer.answer, answer.last) == (outcome.answer, outcome.last)
    assert repr(told(together)) == repr(told(alone))
