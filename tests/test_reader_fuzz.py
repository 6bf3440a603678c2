"""Arbitrary and mutated bytes through ``Engine.apply``, told apart by msgpack-python.

Whatever comes in: nothing is raised, an error changes nothing, and a batch that is applied is one
that msgpack reads the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectord import proxies
from collectord.engine import Engine, Outcome

NOW = 1_700_000_000_000_000
METRICS = proxies.specifications(
    proxies.parse_proxy_list("S-a:AggProxySum:AggProxyLast:AggProxyMaxAnomalyEWM03")
)
ERRORS = ("malformed", "too_large", "overloaded", "stale_epoch")
NO_MSGPACK = ("cut short", "0xc1", "bytes behind")
"""How errors tell that the bytes are not exactly one msgpack value."""
NESTING = 32

Pairs = list[tuple[Any, Any]]


class Map(Pairs):
    """A map as it travelled: its pairs, in order, repeated keys and unhashable ones too."""


def read(body: bytes) -> Any:
    """What msgpack-python reads, maps as ``Map``. Raises ValueError where it is not msgpack."""
    return msgpack.unpackb(
        body,
        raw=False,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        object_pairs_hook=Map,
    )


def is_msgpack(body: bytes) -> bool:
    try:
        read(body)
    except ValueError:
        return False
    return True


def holds_a_timestamp_that_python_cannot(body: bytes) -> bool:
    try:
        read(body)
    except ValueError as error:
        return "imestamp" in str(error)
    return False


def new_engine() -> Engine:
    return Engine(partitions=3, metrics=METRICS, limits={"results": 1000})


def state(engine: Engine) -> Any:
    sizes = engine.sizes()
    del sizes["bytes"]  # buffers may have grown
    views = {key: engine.read(key) for key in engine.keys(limit=10_000)}
    return repr((sizes, views, engine.tables(), engine.sources(), engine.aggtypes()))


def apply(engine: Engine, body: bytes) -> Outcome:
    before = state(engine)
    outcome = engine.apply(body, NOW)
    if outcome.status in ERRORS:
        assert outcome.message
        assert outcome.applied == 0
        assert state(engine) == before
    state(engine)
    return outcome


def field(batch: Map, name: str) -> Any:
    """The field's value; of one that stands there twice, the last."""
    return dict(pair for pair in batch if isinstance(pair[0], str))[name]


def expected(records: Iterable[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """What good records, applied in order, leave of one source."""
    held: dict[tuple[str, str], dict[str, Any]] = {}
    for key, struct_name, attributes, *_ in records:
        slots = held.setdefault((key, struct_name), {})
        if attributes is None:
            slots.clear()
        for name, value in attributes or ():
            slots.pop(name, None)
            if value is not None:
                slots[name] = value
    return {names: slots for names, slots in held.items() if slots}


def plain(value: Any) -> Any:
    """``value`` with its maps as Python's, where it can hold them."""
    if isinstance(value, Map):
        return {plain(key): plain(item) for key, item in value}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def told(engine: Engine) -> dict[tuple[str, str], dict[str, Any]]:
    views = {key: engine.read(key) for key in engine.keys(limit=100_000)}
    return {
        (key, struct_name): attributes
        for key, view in views.items()
        if view is not None
        for struct_name, _, attributes in view[0]
    }


def in_order(held: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Equal for equal contents, NaN included."""
    return repr(
        sorted((at, sorted(slots.items(), key=lambda pair: pair[0])) for at, slots in held.items())
    )


def check_agreement(body: bytes) -> None:
    engine = new_engine()
    outcome = apply(engine, body)
    if outcome.status in ERRORS:
        if any(reason in outcome.message for reason in NO_MSGPACK):
            assert not is_msgpack(body)
        return
    if not is_msgpack(body):
        assert holds_a_timestamp_that_python_cannot(body)
        return
    if outcome.status == "resync":
        assert told(engine) == {}
        return
    given_records = field(read(body), "records")
    rejected = {index for index, _, _ in outcome.rejected}
    assert outcome.applied + len(rejected) == len(given_records)
    good = [record for index, record in enumerate(given_records) if index not in rejected]
    try:
        wanted = {at: plain(Map(slots.items())) for at, slots in expected(good).items()}
    except TypeError:  # a map's key is a list or a map, which Python cannot hold
        return
    assert in_order(told(engine)) == in_order(wanted)


# ---- what comes in ----------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "S", "_x9", "", "9a", "a-b", "é", "x" * 128, "x" * 129])
keys = st.sampled_from(["T:x", "T:y", "U:é", ":x", "T:", "T", "T:" + "k" * 1022, "T:" + "k" * 1023])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
records = st.tuples(
    keys, names, st.none() | st.dictionaries(names, values, max_size=4)
) | st.tuples(
    keys,
    names,
    st.dictionaries(names, values, max_size=4),
    st.sampled_from([0, NOW, NOW - 10**9, NOW + 10**9, 2**64 - 1, "x"]),
)
batches = st.fixed_dictionaries(
    {"source": names | scalars, "records": st.lists(records | values, max_size=6) | values},
    optional={
        "epoch": st.integers(0, 3) | values,
        "seq": st.integers(0, 3) | values,
        "time": st.integers(0, 2**64 - 1) | values,
        "aggtypes": st.just({"S": {"a": "sum"}}) | values,
        "other": values,
    },
)
good_batches = st.fixed_dictionaries(
    {"source": st.just("s"), "records": st.lists(records | values, max_size=10)}
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A whole batch with a few of its bytes set, taken out, or put in."""
    body = bytearray(msgpack.packb(draw(good_batches)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


many = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@many
@given(st.binary(max_size=200))
def test_arbitrary_bytes(body: bytes) -> None:
    check_agreement(body)


@many
@given(batches)
def test_batches_with_anything_in_their_fields(batch: dict[str, Any]) -> None:
    check_agreement(msgpack.packb(batch))


@many
@given(good_batches)
def test_batches_with_anything_in_their_records(batch: dict[str, Any]) -> None:
    outcome = new_engine().apply(msgpack.packb(batch), NOW)

    assert outcome.status == "applied"
    check_agreement(msgpack.packb(batch))


@many
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), scalars), max_size=5), max_size=5)
)
def test_names_that_stand_twice_in_a_map(attributes: list[list[tuple[str, Any]]]) -> None:
    packer = msgpack.Packer()
    body = packer.pack_map_header(2) + msgpack.packb("source") + msgpack.packb("s")
    body += msgpack.packb("records") + packer.pack_array_header(len(attributes))
    for pairs in attributes:
        body += packer.pack_array_header(3) + msgpack.packb("T:x") + msgpack.packb("S")
        body += packer.pack_map_pairs(pairs)

    check_agreement(body)


@many
@given(mutated())
def test_mutated_batches(body: bytes) -> None:
    check_agreement(body)


@settings(max_examples=30, deadline=None, database=None)
@given(good_batches, st.binary(min_size=1, max_size=3))
def test_a_batch_cut_anywhere_or_with_bytes_behind_it(batch: dict[str, Any], more: bytes) -> None:
    body = msgpack.packb(batch)
    engine = new_engine()

    for cut in range(len(body)):
        assert engine.apply(body[:cut], NOW).status == "malformed"
    assert engine.apply(body + more, NOW).status == "malformed"
    assert engine.sizes()["keys"] == 0


@many
@given(st.lists(mutated() | batches.map(msgpack.packb), min_size=2, max_size=6))
def test_batches_one_after_the_other(bodies: list[bytes]) -> None:
    engine = new_engine()
    for body in bodies:
        apply(engine, body)
    for partition in range(engine.partitions):
        engine.advance(partition, NOW + 10**9)
        engine.take_results(partition)
    state(engine)


def nested(depth: int) -> bytes:
    """A batch with a value inside ``depth`` maps and arrays; the batch's own are four of them."""
    value: Any = 1
    for _ in range(depth - 4):
        value = [value]
    body: bytes = msgpack.packb({"source": "s", "records": [["T:x", "S", {"v": value}]]})
    return body


def test_nesting_is_read_to_the_limit_and_no_deeper() -> None:
    assert new_engine().apply(nested(NESTING), NOW).status == "applied"
    assert new_engine().apply(nested(NESTING + 1), NOW).status == "malformed"


def test_nesting_ten_thousand_deep_is_refused() -> None:
    body = b"\x81\xa7records" + b"\x91" * 10_000

    assert new_engine().apply(body, NOW).status == "malformed"


def test_counts_far_beyond_the_bytes_are_refused_at_no_cost() -> None:
    for head in (0xDB, 0xC6, 0xC9, 0xDD, 0xDF):
        engine = new_engine()
        before = engine.sizes()["bytes"]
        body = b"\x81\xa7records" + struct.pack(">BI", head, 2**32 - 1)

        assert engine.apply(body, NOW).status == "malformed"
        assert engine.sizes()["bytes"] - before < 10_000
