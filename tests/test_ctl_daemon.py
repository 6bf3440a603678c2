"""``collectorctl`` and the client library against a running collector."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collectord.client import (
    AsyncQueryClient,
    AsyncSubscriber,
    NotFound,
    Publisher,
    QueryClient,
    QueryError,
    Rejection,
    StaleEpoch,
    Subscriber,
    Timeout,
)
from daemon import DEADLINE, METRIC, STRUCT, Daemon, clean_environment, new_key, new_source, until

Ctl = Callable[..., tuple[int, list[Any], str]]

SUM = f"AggProxySum-{METRIC}"
FLOWS = "egress_flow_count"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon


def command(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """The command line of ``collectorctl``, which finds this collector through its environment."""
    environ = {
        **clean_environment(),
        "COLLECTORCTL_INGEST": daemon.ingest,
        "COLLECTORCTL_QUERY": daemon.query,
        "COLLECTORCTL_STREAM": daemon.stream,
    }
    return {"args": [sys.executable, "-m", "collectord.ctl", *arguments], "env": environ}


@pytest.fixture
def ctl(daemon: Daemon) -> Ctl:
    """Runs ``collectorctl``: exit code, the JSON of each line it prints, and its errors."""

    def run(*arguments: str, lines: str = "") -> tuple[int, list[Any], str]:
        ended = subprocess.run(
            **command(daemon, *arguments),
            input=lines,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return (
            ended.returncode,
            [json.loads(line) for line in ended.stdout.splitlines()],
            ended.stderr,
        )

    return run


# ---- collectorctl ------------------------------------------------------------------------------


def test_what_is_sent_can_be_got(ctl: Ctl) -> None:
    key = new_key()

    sent = ctl("send", key, STRUCT, f"{FLOWS}=7", "acl=demo", "up=true")
    got = ctl("get", key)

    assert sent == (0, [{"acknowledged": 1, "rejected": 0, "unreadable": 0}], "")
    code, (uve,), _ = got
    assert code == 0
    assert uve[STRUCT] == {FLOWS: 7, "acl": "demo", "up": True}
    assert uve[SUM] == {"proxy": METRIC, "deleted": False, "value": {"staging": 7}}


def test_lines_of_json_are_sent_and_bad_ones_are_told_by_their_number(
    ctl: Ctl, daemon: Daemon
) -> None:
    good, late = new_key(), new_key()
    lines = [
        json.dumps([good, STRUCT, {"a": 1}]),
        "nonsense",
        "",
        json.dumps({"key": late, "struct": STRUCT, "attributes": {FLOWS: 1}, "time": 2**62}),
        json.dumps([good, STRUCT, {"b": 2}]),
    ]

    code, (result,), errors = ctl("send", "--source", new_source(), lines="\n".join(lines))

    assert code == 1
    assert result == {"acknowledged": 2, "rejected": 1, "unreadable": 1}
    assert "line 2" in errors
    assert "line 4: rejected, future" in errors
    assert daemon.uve(good) == {STRUCT: {"a": 1, "b": 2}}
    assert daemon.uve(late) is None


def test_many_at_once_as_the_same_source_all_get_through(daemon: Daemon) -> None:
    keys = [new_key() for _ in range(12)]
    running = [
        subprocess.Popen(
            **command(daemon, "send", key, STRUCT, "a=1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for key in keys
    ]

    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]

    assert ended == [("", 0)] * 12
    assert [daemon.uve(key) for key in keys] == [{STRUCT: {"a": 1}}] * 12


def test_delete_removes_what_the_source_had_sent(ctl: Ctl, daemon: Daemon) -> None:
    key, source = new_key(), new_source()
    ctl("send", key, STRUCT, "a=1", "--source", source)

    code, _, _ = ctl("send", key, STRUCT, "--delete", "--source", source)

    assert code == 0
    assert daemon.uve(key) is None


def test_aggtypes_go_with_what_is_sent(ctl: Ctl, daemon: Daemon) -> None:
    key = new_key()
    for source in (new_source(), new_source()):
        ctl("send", key, "Counted", "n=2", "--source", source, "--aggtype", "n=sum")

    assert daemon.uve(key) == {"Counted": {"n": 4}}


def test_find_and_list_go_through_all_pages(ctl: Ctl, daemon: Daemon) -> None:
    keys = [f"ObjectCtlTable:{number:04}" for number in range(250)]
    with daemon.source() as source:
        source.tell(*([key, STRUCT, {"a": 1}] for key in keys))

    _, found, _ = ctl("find", "ObjectCtlTable")
    _, listed, _ = ctl("list", "ObjectCtlTable:*")

    assert found == [{"key": key, "uve": {STRUCT: {"a": 1}}} for key in keys]
    assert listed == keys


def test_sources_menu_and_status_are_shown(ctl: Ctl, daemon: Daemon) -> None:
    with daemon.source() as source:
        source.tell()

        assert ctl("sources")[1][0][source.name]["seq"] == 1
    assert METRIC in ctl("menu")[1][0]["configured"]
    assert ctl("status")[1][0]["counters"]["batches_applied"] > 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["get", "ObjectVNTable:nowhere"], 1),
        (["find", "Nothing"], 1),
        (["get", "T:x", "--cfilt", "a b"], 4),
        (["get"], 2),
        (["status", "--query", "tcp://127.0.0.1:1", "--timeout", "0.2"], 3),
    ],
    ids=["not-found", "nothing", "refused", "usage", "unreachable"],
)
def test_the_exit_code_tells_how_it_ended(ctl: Ctl, arguments: list[str], code: int) -> None:
    got, printed, errors = ctl(*arguments)

    assert (got, printed) == (code, [])
    assert bool(errors) == (arguments[0] != "find")


def test_watch_follows_what_changes_until_it_is_interrupted(daemon: Daemon) -> None:
    key = new_key()
    before = daemon.counter("subscriptions")
    watching = subprocess.Popen(
        **command(daemon, "watch", f"{key}*"),
        stdout=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore SIGINT, and this would inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert watching.stdout is not None
    try:
        until(lambda: daemon.counter("subscriptions") > before)
        with daemon.source() as source:
            source.tell([key, STRUCT, {"a": 1}])
            assert json.loads(watching.stdout.readline()) == {
                "key": key,
                "struct": STRUCT,
                "value": {"a": 1},
                "deleted": False,
            }
            source.tell([key, STRUCT, None])
            assert json.loads(watching.stdout.readline())["deleted"] is True
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE) == 0
    finally:
        watching.kill()
        watching.communicate()


# ---- Publisher ---------------------------------------------------------------------------------


def test_a_publisher_s_records_all_arrive_in_order(daemon: Daemon) -> None:
    keys = [new_key() for _ in range(10)]
    with Publisher(new_source(), daemon.ingest, batch_records=100) as publisher:
        for number in range(20_000):
            publisher.publish(keys[number % 10], STRUCT, {"a": number})
        publisher.flush(DEADLINE)

        assert publisher.counters.acknowledged == 20_000
        assert publisher.counters.rejected == 0
    assert [daemon.uve(key)[STRUCT]["a"] for key in keys] == list(range(19_990, 20_000))


def test_a_publisher_is_told_what_was_rejected(daemon: Daemon) -> None:
    key = new_key()
    told: list[Rejection] = []
    with Publisher(new_source(), daemon.ingest, on_rejected=told.append) as publisher:
        publisher.publish(key, STRUCT, {"a": 1})
        publisher.publish(key, STRUCT, {FLOWS: float("nan")})
        publisher.flush(DEADLINE)

    assert [(rejection.number, rejection.code) for rejection in told] == [(1, "bad_value")]
    assert daemon.uve(key) == {STRUCT: {"a": 1}}


def test_a_publisher_s_samples_count_once_though_it_begins_again_with_its_epoch(
    daemon: Daemon,
) -> None:
    key, source = new_key(), new_source()
    for _ in range(2):
        with Publisher(source, daemon.ingest, epoch=7, batch_records=1) as publisher:
            for _ in range(10):
                publisher.publish(key, STRUCT, {FLOWS: 1})
            publisher.flush(DEADLINE)

    assert daemon.uve(key)[SUM]["value"] == {"staging": 10}


def test_a_publisher_of_an_older_epoch_is_told_so(daemon: Daemon) -> None:
    source = new_source()
    with Publisher(source, daemon.ingest, epoch=8) as newer:
        newer.publish(new_key(), STRUCT, {"a": 1})
        newer.flush(DEADLINE)

    older = Publisher(source, daemon.ingest, epoch=7)
    older.publish(new_key(), STRUCT, {"a": 1})
    with pytest.raises(StaleEpoch):
        older.close()


def test_two_publishers_are_merged(daemon: Daemon) -> None:
    key = new_key()
    aggtypes = {"Merged": {"n": "sum"}}
    with (
        Publisher(new_source(), daemon.ingest, aggtypes=aggtypes) as one,
        Publisher(new_source(), daemon.ingest, aggtypes=aggtypes) as two,
    ):
        for publisher in (one, two):
            publisher.publish(key, "Merged", {"n": 5})
            publisher.flush(DEADLINE)

    assert daemon.uve(key) == {"Merged": {"n": 10}}


def test_a_publisher_outlives_the_restart_of_its_collector() -> None:
    before, after = new_key(), new_key()
    restarts: list[int] = []
    with Daemon() as first:
        port = first.ingest.rsplit(":")[-1]
        publisher = Publisher(
            new_source(),
            first.ingest,
            batch_records=1,
            reply_timeout=0.3,
            on_restart=restarts.append,
        )
        publisher.publish(before, STRUCT, {"a": 1})
        publisher.flush(DEADLINE)
    publisher.publish(after, STRUCT, {"a": 2})

    with Daemon(f"--COLLECTOR.port={port}") as second, publisher:
        publisher.flush(DEADLINE)

        assert second.uve(after) == {STRUCT: {"a": 2}}
        assert second.uve(before) == {STRUCT: {"a": 1}}  # it was acknowledged, but not durable
        assert restarts == []
        assert publisher.counters.forgotten == 0


def test_a_publisher_may_begin_before_its_collector() -> None:
    with Daemon() as other:
        port = other.ingest.rsplit(":")[-1]
    key = new_key()
    with Publisher(new_source(), f"tcp://127.0.0.1:{port}", reply_timeout=0.3) as publisher:
        publisher.publish(key, STRUCT, {"a": 1})

        with Daemon(f"--COLLECTOR.port={port}") as daemon:
            publisher.flush(DEADLINE)

            assert daemon.uve(key) == {STRUCT: {"a": 1}}


# ---- asking and following ----------------------------------------------------------------------


def test_a_query_client_asks_for_everything(daemon: Daemon) -> None:
    table = "ObjectClientTable"
    keys = [f"{table}:{number}" for number in range(9)]
    with daemon.source() as source, QueryClient(daemon.query) as client:
        source.tell(*([key, STRUCT, {"a": 1}] for key in keys))

        assert client.get(keys[0]) == {STRUCT: {"a": 1}}
        assert client.get(keys[0], by_source=True) == {STRUCT: {"a": {source.name: 1}}}
        assert list(client.find(table, page=4)) == [(key, {STRUCT: {"a": 1}}) for key in keys]
        assert list(client.keys(match=f"{table}:*", page=4)) == keys
        assert client.tables()[table] == 9
        assert client.sources()[source.name]["records"] == 9
        assert METRIC in client.menu()["configured"]
        assert client.status()["sizes"]["keys"] >= 9
        with pytest.raises(NotFound):
            client.get("ObjectVNTable:nowhere")
        with pytest.raises(QueryError, match="bad_request"):
            client.get(keys[0], sfilt="host:rest")


def test_a_subscriber_follows_what_changes(daemon: Daemon) -> None:
    key = new_key()
    with (
        Subscriber(f"{key}*", daemon.stream, connect_timeout=DEADLINE) as changes,
        daemon.source() as source,
    ):
        until(lambda: daemon.counter("subscriptions"))
        source.tell([key, STRUCT, {"a": 1}])

        change = changes.receive(DEADLINE)
        assert (change.key, change.struct, change.value) == (key, STRUCT, {"a": 1})
        assert not change.deleted
        with pytest.raises(Timeout):
            changes.receive(0.1)


def test_coroutines_publish_ask_and_follow(daemon: Daemon) -> None:
    key = new_key()

    async def session() -> tuple[Any, Any]:
        async with (
            AsyncSubscriber(f"{key}*", daemon.stream) as changes,
            AsyncQueryClient(daemon.query) as client,
            Publisher(new_source(), daemon.ingest) as publisher,
        ):
            while not (await client.status())["counters"]["subscriptions"]:
                await asyncio.sleep(0.01)
            await publisher.publish_async(key, STRUCT, {"a": 1})
            await publisher.flush_async(DEADLINE)
            change = await asyncio.wait_for(changes.receive(), DEADLINE)
            return change.value, await client.get(key)

    assert asyncio.run(session()) == ({"a": 1}, {STRUCT: {"a": 1}})
