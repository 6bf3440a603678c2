"""The query client and the subscriber: what they ask, what they make of the answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from collectord import wire
from collectord.client import (
    AsyncQueryClient,
    AsyncSubscriber,
    Change,
    NotFound,
    QueryClient,
    QueryError,
    StaleToken,
    Subscriber,
    Timeout,
)
from fake_collector import Answers, FakeServer, FakeStream

Ask = Callable[..., Any]

PATIENCE = 20.0
KEY = "ObjectVNTable:demo:vn1"
VIEW = {"UveVirtualNetworkAgent": {"egress_flow_count": 7}}
ALARM = {"type": "A", "severity": 0, "timestamp": 5, "token": "t", "ack": False}


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def address(answers: Answers) -> Iterator[str]:
    with FakeServer(answers) as server:
        yield server.address


async def in_a_list(iterator: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in iterator]


def blocking(address: str, method: str, **fields: Any) -> Any:
    with QueryClient(address, PATIENCE) as client:
        result = getattr(client, method)(**fields)
        return result if isinstance(result, dict) else list(result)


def with_asyncio(address: str, method: str, **fields: Any) -> Any:
    async def ask() -> Any:
        async with AsyncQueryClient(address, PATIENCE) as client:
            result = getattr(client, method)(**fields)
            return await (in_a_list(result) if hasattr(result, "__aiter__") else result)

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [blocking, with_asyncio])

FILTERS = {
    "sfilt": "compute-1",
    "mfilt": "Compute:agent:0",
    "cfilt": ["A", "B:c"],
    "kfilt": ["*:vn1"],
    "by_source": True,
}


@both
@pytest.mark.parametrize(
    ("method", "fields", "request_", "reply", "result"),
    [
        ("get", {"key": KEY}, {"op": "get", "key": KEY}, {"uve": VIEW}, VIEW),
        ("get", {"key": KEY, **FILTERS}, {"op": "get", "key": KEY, **FILTERS}, {"uve": {}}, {}),
        (
            "find",
            {"table": "T", "page": 5, **FILTERS},
            {"op": "find", "table": "T", "limit": 5, **FILTERS},
            {"uves": {"T:b": VIEW, "T:c": {}}},
            [("T:b", VIEW), ("T:c", {})],
        ),
        (
            "find",
            {"match": "*vn*"},
            {"op": "find", "match": "*vn*", "limit": 100},
            {"uves": {}, "next": None},
            [],
        ),
        ("tables", {}, {"op": "list"}, {"tables": {"T": 3}}, {"T": 3}),
        (
            "keys",
            {"table": "T", "match": "*1"},
            {"op": "list", "table": "T", "match": "*1", "limit": 1000},
            {"keys": ["T:1", "T:11"]},
            ["T:1", "T:11"],
        ),
        ("sources", {}, {"op": "sources"}, {"sources": {"s": {"seq": 1}}}, {"s": {"seq": 1}}),
        (
            "menu",
            {},
            {"op": "menu"},
            {"menu": [{"name": "AggProxySum"}], "configured": {}},
            {"menu": [{"name": "AggProxySum"}], "configured": {}},
        ),
        ("status", {}, {"op": "status"}, {"version": "0.1.0"}, {"version": "0.1.0"}),
        (
            "alarms",
            {},
            {"op": "alarms", "limit": 1000},
            {"alarms": {KEY: [ALARM], "T:b": []}},
            [(KEY, [ALARM]), ("T:b", [])],
        ),
        (
            "alarms",
            {
                "tables": "T",
                "match": ["*1", "*2"],
                "severity": [0, 2],
                "acknowledged": False,
                "page": 5,
            },
            {
                "op": "alarms",
                "tablefilt": ["T"],
                "kfilt": ["*1", "*2"],
                "severity": [0, 2],
                "ackfilt": False,
                "limit": 5,
            },
            {"alarms": {}},
            [],
        ),
        (
            "acknowledge",
            {"key": KEY, "type": "A", "token": "t"},
            {"op": "ack", "key": KEY, "type": "A", "token": "t"},
            {"alarm": ALARM},
            ALARM,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 8 else "",
)
def test_each_operation_is_asked_and_its_answer_returned(
    address: str,
    answers: Answers,
    ask: Ask,
    method: str,
    fields: dict[str, Any],
    request_: dict[str, Any],
    reply: Any,
    result: Any,
) -> None:
    answers.replies.append({"ok": True, **reply})

    assert ask(address, method, **fields) == result

    assert answers.requests == [request_]


@both
@pytest.mark.parametrize("method", ["find", "keys", "alarms"])
def test_pages_are_followed_to_the_end_even_over_an_empty_one(
    address: str, answers: Answers, ask: Ask, method: str
) -> None:
    def page(*keys: str) -> dict[str, Any]:
        rows = dict.fromkeys(keys, VIEW)
        return {"ok": True, "uves": rows, "keys": list(keys), "alarms": rows}

    answers.replies.extend([{**page("a", "b"), "next": "b"}, {**page(), "next": "m"}, page("z")])

    result = ask(address, method, **({"tables": "T"} if method == "alarms" else {"table": "T"}))

    assert result == (["a", "b", "z"] if method == "keys" else [(key, VIEW) for key in "abz"])
    assert [request.get("after") for request in answers.requests] == [None, "b", "m"]


@both
def test_an_unknown_key_raises_not_found(address: str, answers: Answers, ask: Ask) -> None:
    error = {"code": "not_found", "message": "nobody told of it"}
    answers.replies.append({"ok": False, "error": error})

    with pytest.raises(NotFound, match="nobody told of it"):
        ask(address, "get", key=KEY)


@both
def test_a_stale_token_raises_stale_token(address: str, answers: Answers, ask: Ask) -> None:
    error = {"code": "stale_token", "message": "it was raised anew"}
    answers.replies.append({"ok": False, "error": error})

    with pytest.raises(StaleToken, match="it was raised anew"):
        ask(address, "acknowledge", key=KEY, type="A", token="old")


@both
@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        ({"ok": False, "error": {"code": "bad_request", "message": "no"}}, "bad_request", "no"),
        ({"seq": 1}, "malformed", "doesn't answer as a collector does"),
        ("text", "malformed", "doesn't answer as a collector does"),
        (b"\xc1", "malformed", "doesn't answer as a collector does"),
    ],
    ids=["refused", "other-map", "text", "broken"],
)
def test_other_errors_raise_query_error(
    address: str, answers: Answers, ask: Ask, reply: Any, code: str, message: str
) -> None:
    answers.replies.append(reply if isinstance(reply, bytes) else wire.encode(reply))

    with pytest.raises(QueryError, match=message) as caught:
        ask(address, "get", key=KEY)

    assert caught.value.code == code


@both
def test_an_unknown_filter_is_refused_before_it_is_asked(
    address: str, answers: Answers, ask: Ask
) -> None:
    with pytest.raises(TypeError, match="no such filter: sfillt; there are sfilt, mfilt"):
        ask(address, "get", key=KEY, sfillt="compute-1")

    assert answers.requests == []


@both
def test_finding_needs_a_table_or_a_pattern(address: str, ask: Ask) -> None:
    with pytest.raises(TypeError, match="a table or a pattern"):
        ask(address, "find")


@pytest.mark.parametrize("made", [QueryClient, AsyncQueryClient, Subscriber, AsyncSubscriber])
def test_a_wrong_address_is_a_value_error(made: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"cannot connect to 'nonsense'.*write tcp://"):
        made(address="nonsense")


def test_no_answer_raises_timeout_and_the_next_request_is_answered(
    address: str, answers: Answers
) -> None:
    answers.replies.append(None)
    with QueryClient(address, timeout=0.05) as client:
        with pytest.raises(Timeout, match=f"no answer from {address} within 0.05 s"):
            client.get("first")
        client.timeout = PATIENCE

        second: Any = client.get("second")
        assert second == "second"


def test_no_answer_raises_timeout_in_asyncio_too(address: str, answers: Answers) -> None:
    async def ask() -> None:
        answers.replies.append(None)
        async with AsyncQueryClient(address, timeout=0.05) as client:
            with pytest.raises(Timeout, match=f"no answer from {address} within 0.05 s"):
                await client.get("first")
            client.timeout = PATIENCE
            second: Any = await client.get("second")
            assert second == "second"

    asyncio.run(ask())


def test_a_cancelled_request_does_not_harm_the_next(address: str, answers: Answers) -> None:
    async def ask() -> None:
        answers.replies.append(None)
        async with AsyncQueryClient(address, PATIENCE) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.get("first"), 0.01)
            answers.replies.clear()
            second: Any = await client.get("second")
            assert second == "second"

    asyncio.run(ask())


def test_threads_share_a_client_and_each_gets_its_own_answers(address: str) -> None:
    wrong: list[tuple[str, Any]] = []

    def ask(name: str) -> None:
        for number in range(100):
            key = f"{name}:{number}"
            got: Any = client.get(key)
            if got != key:
                wrong.append((key, got))

    with QueryClient(address, PATIENCE) as client:
        threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert wrong == []


def test_tasks_share_a_client_and_each_gets_its_own_answers(address: str) -> None:
    async def ask() -> None:
        async with AsyncQueryClient(address, PATIENCE) as client:
            keys = [str(number) for number in range(100)]
            got: list[Any] = await asyncio.gather(*map(client.get, keys))
            assert got == keys

    asyncio.run(ask())


@pytest.fixture
def stream() -> Iterator[FakeStream]:
    with FakeStream() as running:
        yield running


def test_a_subscriber_gets_what_changes(stream: FakeStream) -> None:
    with Subscriber("T:*", stream.address, connect_timeout=PATIENCE) as subscriber:
        stream.wait_for_subscription("T:")
        stream.send("T:a", "S", {"x": 1})
        stream.send("T:a", "S", None)

        changes = iter(subscriber)
        assert next(changes) == Change("T:a", "S", {"x": 1}, deleted=False)
        assert next(changes) == Change("T:a", "S", None, deleted=True)


@pytest.mark.parametrize(
    ("pattern", "prefix", "keys"),
    [
        ("*", "", ["T:a1", "T:b", "T:a2", "T:.a"]),
        ("T:a*", "T:a", ["T:a1", "T:a2"]),
        ("T:*2", "T:", ["T:a2"]),
        ("*a2", "", ["T:a2"]),
        ("T:b", "T:b", ["T:b"]),
        ("T:.*", "T:.", ["T:.a"]),
    ],
)
def test_only_keys_that_match_the_pattern_are_told(
    stream: FakeStream, pattern: str, prefix: str, keys: list[str]
) -> None:
    with Subscriber(pattern, stream.address) as subscriber:
        stream.wait_for_subscription(prefix)
        for key in ["T:a1", "T:b", "T:a2", "T:.a"]:
            stream.send(key, "S", {})

        assert [subscriber.receive(PATIENCE).key for _ in keys] == keys
        with pytest.raises(Timeout, match=r"nothing changed within 0\.01 s"):
            subscriber.receive(timeout=0.01)


@pytest.mark.parametrize("pattern", ["*", "alarm:*"])
def test_a_subscriber_of_uves_is_not_told_of_alarms(stream: FakeStream, pattern: str) -> None:
    with Subscriber(pattern, stream.address) as subscriber:
        stream.wait_for_subscription(pattern.removesuffix("*"))
        stream.send_alarms("T:a", [ALARM])
        stream.send("alarm:a", "S", {})

        assert subscriber.receive(PATIENCE) == Change("alarm:a", "S", {}, deleted=False)


def test_a_subscriber_of_alarms_is_told_of_nothing_else(stream: FakeStream) -> None:
    with Subscriber("T:*1", stream.address, alarms=True) as subscriber:
        stream.wait_for_subscription("alarm:T:")
        stream.send("T:a1", "S", {})
        stream.send("alarm:T:a1", "S", {})
        stream.send_alarms("T:a2", [ALARM])
        stream.send_alarms("T:a1", [ALARM])
        stream.send_alarms("T:a1", None)

        assert [subscriber.receive(PATIENCE) for _ in range(2)] == [
            Change("T:a1", "UVEAlarms", {"alarms": [ALARM]}, deleted=False),
            Change("T:a1", "UVEAlarms", None, deleted=True),
        ]


def test_an_asyncio_subscriber_of_alarms_is_told_of_them(stream: FakeStream) -> None:
    async def follow() -> Change:
        async with AsyncSubscriber("T:*", stream.address, alarms=True) as subscriber:
            await asyncio.to_thread(stream.wait_for_subscription, "alarm:T:")
            stream.send_alarms("T:a", [ALARM])
            return await subscriber.receive()

    assert asyncio.run(follow()).value == {"alarms": [ALARM]}


def test_without_a_collector_a_subscriber_does_not_wait_longer_than_told() -> None:
    with pytest.raises(Timeout, match=r"no answer from tcp://127.0.0.1:1 within"):
        Subscriber(address="tcp://127.0.0.1:1", connect_timeout=0.01)


def test_an_asyncio_subscriber_gets_what_changes_and_matches(stream: FakeStream) -> None:
    async def follow() -> list[str]:
        async with AsyncSubscriber("T:*1", stream.address) as subscriber:
            await asyncio.to_thread(stream.wait_for_subscription, "T:")
            for key in ["T:a1", "T:b", "T:b1"]:
                stream.send(key, "S", {})
            changes = aiter(subscriber)
            return [(await anext(changes)).key for _ in range(2)]

    assert asyncio.run(follow()) == ["T:a1", "T:b1"]
