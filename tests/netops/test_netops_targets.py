"""Targets: what each of them does with a block, and which names they go by."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from collectord.netops import targets
from collectord.netops.block import SECOND, Block, Stream
from collectord.netops.collector import CollectorTarget
from collectord.netops.target import TargetClosed, TargetError
from collectord.netops.targets import (
    HttpTarget,
    LogTarget,
    ResponseTarget,
    UnknownTarget,
    emitters,
    functions_of,
    make_target,
    resolved,
    shown,
)
from netops.receiving import Receiver, receiver
from netops.simulated import Counting

NOON = 1_600_000_000
FUNCTIONS = functions_of("tcp://127.0.0.1:8086")
SECRET = "swordfish"


def block_of(simulation: Counting, steps: int, interval: float = 1.0) -> Block:
    return Stream(simulation, NOON * SECOND, interval).take(steps)


_made: list[targets.Target] = []


def made(text: str, functions: Mapping[str, str] = FUNCTIONS, batch: int = 720) -> targets.Target:
    """A target, which is closed at the end of the test."""
    _made.append(make_target(text, functions=functions, batch=batch))
    return _made[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(targets, "FIRST_PAUSE", 0.001)
    with receiver() as there:
        yield there


def test_emitters_are_series_by_id_and_metric() -> None:
    simulation = Counting(emitters=2)
    block = block_of(simulation, 12)

    told = emitters(simulation, block)

    assert list(told) == ["acme/0/0", "acme/0/1"]
    assert told["acme/0/1"] == {
        "labels": {"site": "acme/0"},
        "metrics": {
            "load": {
                "labels": {"unit": "percent"},
                "timestamps": [NOON + step for step in range(12)],
                "values": [float(step) for step in range(12)],
                "alerts": [""] * 10 + ["10!", ""],
                "is_error": [1] + [0] * 9 + [1, 0],
            }
        },
    }


def test_emitters_can_be_told_in_json_as_they_are() -> None:
    simulation = Counting()
    told = emitters(simulation, block_of(simulation, 3))

    assert json.loads(json.dumps(told)) == told
    (first, *_) = told.values()
    assert {type(value) for value in first["metrics"]["load"]["is_error"]} == {int}


def test_json_made_item_by_item_is_the_same() -> None:
    simulation = Counting()
    for told in ({}, emitters(simulation, block_of(simulation, 3)), {'"': 1, "ü": None}):
        assert targets.as_json(told) == json.dumps(told)


def test_timestamps_are_whole_where_they_can_be() -> None:
    simulation = Counting(emitters=1)
    told = emitters(simulation, block_of(simulation, 3, interval=0.5))

    times = told["acme/0/0"]["metrics"]["load"]["timestamps"]
    assert times == [NOON, NOON + 0.5, NOON + 1]
    assert [type(time) for time in times] == [int, float, int]


def test_a_response_joins_blocks_to_one_series() -> None:
    simulation = Counting()
    stream = Stream(simulation, NOON * SECOND, 1.0)
    whole = emitters(simulation, block_of(simulation, 10))

    target = ResponseTarget()
    for steps in (1, 4, 5):
        target.send(simulation, stream.take(steps))
    target.flush()

    assert target.emitters == whole


def test_a_response_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "RESPONSE_VALUES", 20)
    simulation = Counting(emitters=2)
    target = ResponseTarget()
    target.send(simulation, block_of(simulation, 10))

    with pytest.raises(TargetError, match="at most 20 values"):
        target.send(simulation, block_of(simulation, 1))


def test_the_log_gets_a_line_for_each_emitter_and_part(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Counting(emitters=2)
    block = block_of(simulation, 10)
    with caplog.at_level(logging.INFO):
        made("log", batch=6).send(simulation, block)

    lines = [json.loads(message) for message in caplog.messages]
    assert lines == [
        {name: emitter}
        for part in (block.part(0, 6), block.part(6, 10))
        for name, emitter in emitters(simulation, part).items()
    ]


def test_http_posts_the_emitters_in_parts(server: Receiver) -> None:
    simulation = Counting()
    block = block_of(simulation, 10)
    target = made(f"{server.url}/ingest?key=1", batch=4)

    target.send(simulation, block)
    target.flush()

    assert [post.body for post in server.posts] == [
        emitters(simulation, part)
        for part in (block.part(0, 4), block.part(4, 8), block.part(8, 10))
    ]
    assert {post.path for post in server.posts} == {"/ingest?key=1"}
    assert {post.headers["Content-Type"] for post in server.posts} == {"application/json"}
    assert target.counts() == {"posts": 3, "retries": 0}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_http_tries_again_where_that_may_help(server: Receiver, status: int) -> None:
    server.statuses = [status, status]
    simulation = Counting()
    target = made(server.url)

    target.send(simulation, block_of(simulation, 1))

    assert len(server.posts) == 3
    assert server.posts[0].body == server.posts[2].body
    assert target.counts() == {"posts": 1, "retries": 2}


def test_http_gives_up_in_the_end(server: Receiver) -> None:
    server.statuses = [503] * 100
    simulation = Counting()

    with pytest.raises(TargetError) as error:
        made(f"{server.url}/ingest").send(simulation, block_of(simulation, 1))

    assert len(server.posts) == targets.ATTEMPTS
    assert str(error.value) == (
        f"POST to {server.url}/ingest, 5 times: answered with 503 Service Unavailable: said 503"
    )


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413])
def test_http_does_not_insist_where_it_is_refused(server: Receiver, status: int) -> None:
    server.statuses = [status]
    simulation = Counting()

    with pytest.raises(TargetError, match=f"POST to {server.url}/: answered with {status} "):
        made(f"{server.url}/").send(simulation, block_of(simulation, 1))

    assert len(server.posts) == 1


def test_http_takes_an_answer_without_a_body(server: Receiver) -> None:
    server.statuses = [204]
    simulation = Counting()
    target = made(server.url)
    target.send(simulation, block_of(simulation, 1))

    assert target.counts()["posts"] == 1


def test_http_names_the_place_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "FIRST_PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
    simulation = Counting()
    target = made(url)

    with pytest.raises(TargetError, match=f"POST to {url}, 5 times: "):
        target.send(simulation, block_of(simulation, 1))
    assert target.counts() == {"posts": 0, "retries": 4}


def test_http_gives_up_on_a_server_that_never_answers(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "ATTEMPTS", 2)
    monkeypatch.setattr(targets, "REQUEST_TIMEOUT", 0.5)
    server.is_open.clear()
    simulation = Counting()

    with pytest.raises(TargetError, match=r"2 times: \w*Timeout"):
        made(server.url).send(simulation, block_of(simulation, 1))


def test_http_gives_up_on_an_answer_that_drips(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "ATTEMPTS", 2)
    monkeypatch.setattr(targets, "ATTEMPT_TIMEOUT", 0.5)
    server.pieces = server.dripping
    simulation = Counting()

    with pytest.raises(TargetError, match=r"2 times: not done after 0\.5 s"):
        made(server.url).send(simulation, block_of(simulation, 1))


def test_http_reads_no_more_of_a_refusal_than_it_tells(server: Receiver) -> None:
    server.statuses = [404]
    server.pieces = server.endless
    simulation = Counting()

    with pytest.raises(TargetError) as error:
        made(server.url).send(simulation, block_of(simulation, 1))
    assert str(error.value).endswith(f"answered with 404 Not Found: {'more ' * 40}")


def test_http_is_taken_with_an_answer_of_any_length(server: Receiver) -> None:
    server.pieces = server.endless
    simulation = Counting()
    target = made(server.url, batch=1)

    target.send(simulation, block_of(simulation, 2))

    assert target.counts() == {"posts": 2, "retries": 0}


def test_http_is_not_led_elsewhere_and_says_so(server: Receiver) -> None:
    server.statuses = [308]
    server.headers = {"Location": f"{server.url}/there?token={SECRET}"}
    simulation = Counting()

    with pytest.raises(TargetError) as error:
        made(f"{server.url}/here").send(simulation, block_of(simulation, 1))

    assert str(error.value) == (
        f"POST to {server.url}/here: answered with 308 Permanent Redirect to {server.url}/there?…, "
        "and redirects are not followed: name that place"
    )
    assert [post.path for post in server.posts] == ["/here"]


def test_http_keeps_its_connection_from_block_to_block(server: Receiver) -> None:
    simulation = Counting()
    stream = Stream(simulation, NOON * SECOND, 1.0)
    target = made(server.url, batch=2)

    for _ in range(3):
        target.send(simulation, stream.take(4))

    assert (len(server.posts), server.connections) == (6, 1)


def test_http_connects_again_where_the_server_has_hung_up(server: Receiver) -> None:
    server.headers = {"Connection": "close"}
    simulation = Counting()
    stream = Stream(simulation, NOON * SECOND, 1.0)
    target = made(server.url)

    for _ in range(3):
        target.send(simulation, stream.take(1))

    assert (len(server.posts), server.connections) == (3, 3)


def test_only_https_loads_the_authorities_it_trusts(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> ssl.SSLContext:
        raise TargetError("loaded")

    monkeypatch.setattr(ssl, "create_default_context", load)
    simulation = Counting()

    made(server.url).send(simulation, block_of(simulation, 1))
    with pytest.raises(TargetError, match="loaded"):
        made("https://127.0.0.1:1/").send(simulation, block_of(simulation, 1))


def sent_in_a_thread(target: targets.Target) -> tuple[threading.Thread, list[Exception]]:
    simulation = Counting()
    errors: list[Exception] = []

    def send() -> None:
        try:
            target.send(simulation, block_of(simulation, 1))
        except TargetError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    return thread, errors


def test_closing_breaks_off_what_waits_for_an_answer(server: Receiver) -> None:
    server.is_open.clear()
    target = made(server.url)
    thread, errors = sent_in_a_thread(target)
    assert server.has_come.wait(10)

    target.close()
    thread.join(10)

    assert [type(error) for error in errors] == [TargetClosed]


def test_closing_breaks_off_the_pause_before_another_attempt(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "FIRST_PAUSE", 1_000.0)
    server.statuses = [503]
    target = made(server.url)
    thread, errors = sent_in_a_thread(target)
    assert server.has_come.wait(10)

    target.close()
    thread.join(10)

    assert [type(error) for error in errors] == [TargetClosed]


def test_a_closed_one_posts_nothing(server: Receiver) -> None:
    target = made(server.url)
    target.close()
    target.close()

    simulation = Counting()
    with pytest.raises(TargetClosed):
        target.send(simulation, block_of(simulation, 1))
    with pytest.raises(TargetClosed):
        target.flush()
    assert server.posts == []


def test_secrets_of_a_url_reach_the_server_and_nobody_else(
    server: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    server.statuses = [200, 404]
    simulation = Counting()
    with caplog.at_level(logging.DEBUG):
        target = made(f"http://user:{SECRET}@127.0.0.1:{server.port}/x?token={SECRET}")
        target.send(simulation, block_of(simulation, 1))
        with pytest.raises(TargetError) as error:
            target.send(simulation, block_of(simulation, 1))

    assert server.posts[0].headers["Authorization"].startswith("Basic ")
    assert SECRET in server.posts[0].path
    assert SECRET not in caplog.text + str(error.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("log", "log"),
        ("zmq:tcp://127.0.0.1:8086", "zmq:tcp://127.0.0.1:8086"),
        ("http://host:80/a/b", "http://host:80/a/b"),
        (f"http://user:{SECRET}@host/a?{SECRET}#{SECRET}", "http://host/a?…"),
        (f"https://{SECRET}@host", "https://host"),
        (f"https://a:{SECRET}@{SECRET}@host/b@c", "https://host/b@c"),
    ],
)
def test_what_people_see_of_a_target_has_no_secrets(text: str, seen: str) -> None:
    assert shown(text) == seen


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("log", LogTarget),
        ("response", ResponseTarget),
        ("http://127.0.0.1:1/", HttpTarget),
        ("https://127.0.0.1:1/", HttpTarget),
        ("zmq:tcp://127.0.0.1:1", CollectorTarget),
        ("function:netops-demo-ingest", CollectorTarget),
    ],
)
def test_a_name_makes_its_kind_of_target(text: str, kind: type[Any]) -> None:
    target = made(text)
    assert isinstance(target, kind)
    target.close()


def test_a_function_is_looked_up() -> None:
    functions = {"mine": "log"}
    assert resolved("function:mine", functions) == "log"
    assert resolved("log", functions) == "log"
    assert resolved("function:netops-demo-ingest", FUNCTIONS) == "zmq:tcp://127.0.0.1:8086"


def test_an_unknown_target_is_told_those_that_are_known() -> None:
    with pytest.raises(UnknownTarget) as error:
        made("kafka:topic")
    assert str(error.value) == (
        "there is no target 'kafka'; known are: zmq:tcp://HOST:PORT, log, response, "
        "http://HOST/PATH, https://HOST/PATH, function:NAME"
    )


def test_an_unknown_function_is_told_those_that_are_known() -> None:
    with pytest.raises(UnknownTarget) as error:
        made("function:nobody", {"b": "log", "a": "log"})
    assert str(error.value) == "there is no function 'nobody'; known are: a, b"


def test_a_function_names_no_function_again() -> None:
    with pytest.raises(UnknownTarget, match="'a' names a function again: 'function:b'"):
        made("function:a", {"a": "function:b", "b": "log"})


@pytest.mark.parametrize(
    "text",
    ["http://", "http:///x", "http:x", "https://host:port/", f"http://user:{SECRET}/x@host/"],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(UnknownTarget, match="no URL") as error:
        made(text)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("text", ["zmq:", "zmq:127.0.0.1:8086", "zmq:tcp://", "zmq:tcp://x:y"])
def test_what_is_no_address_of_a_collector_is_refused(text: str) -> None:
    with pytest.raises(UnknownTarget, match="no address of a collector"):
        made(text)


def test_values_are_counted_over_all_metrics() -> None:
    block = block_of(Counting(emitters=3), 7)
    assert targets.values_of(block) == 21
    assert targets.values_of(Block(np.zeros(0, np.int64), {}, {})) == 0
