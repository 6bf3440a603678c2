"""``collectorctl`` and the client library with alarms of a running collector."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord.client import NotFound, QueryClient, StaleToken, Subscriber
from daemon import DEADLINE, METRIC, STRUCT, Daemon, Source, clean_environment, new_key, until

Ctl = Callable[..., tuple[int, list[Any], str]]

TABLE = "ObjectVNTable"
FLOWS = "egress_flow_count"


def rule(name: str, operation: str, value: int, severity: int, **fields: Any) -> dict[str, Any]:
    condition = {
        "operation": operation,
        "operand1": f"{STRUCT}.{FLOWS}",
        "operand2": {"json_value": str(value)},
        "variables": [f"{STRUCT}.acl"],
    }
    return {
        "name": name,
        "uve_keys": [TABLE],
        "severity": severity,
        "description": "of a test",
        "alarm_rules": {"or_list": [{"and_list": [condition]}]},
        **fields,
    }


RULES = [rule("many", ">", 10, 1), rule("too-many", ">", 100, 0), rule("exact", "==", 7, 2)]


@pytest.fixture(scope="module")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alarms") / "rules.json"
    path.write_text(json.dumps(RULES))
    return path


@pytest.fixture(scope="module")
def daemon(rules_file: Path) -> Iterator[Daemon]:
    with Daemon(f"--ALARM.rules_file={rules_file}") as daemon:
        yield daemon


@pytest.fixture
def source(daemon: Daemon) -> Iterator[Source]:
    with daemon.source() as source:
        yield source


def command(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    environ = {
        **clean_environment(),
        "COLLECTORCTL_QUERY": daemon.query,
        "COLLECTORCTL_STREAM": daemon.stream,
    }
    return {"args": [sys.executable, "-m", "collectord.ctl", *arguments], "env": environ}


@pytest.fixture
def ctl(daemon: Daemon) -> Ctl:
    """Runs ``collectorctl``: exit code, the JSON of each line it prints, and its errors."""

    def run(*arguments: str) -> tuple[int, list[Any], str]:
        ended = subprocess.run(
            **command(daemon, *arguments),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        return ended.returncode, lines, ended.stderr

    return run


def types(client: QueryClient, key: str) -> list[str]:
    return [alarm["type"] for _, alarms in client.alarms(match=[key]) for alarm in alarms]


def test_an_alarm_is_shown_acknowledged_and_gone(ctl: Ctl, daemon: Daemon, source: Source) -> None:
    key = new_key(TABLE)
    with QueryClient(daemon.query) as client:
        source.tell([key, STRUCT, {FLOWS: 50, "acl": "a"}])
        until(lambda: types(client, key) == ["many"])

        code, (shown,), errors = ctl("alarms", key, "--severity", "major", "--unacknowledged")
        assert (code, errors) == (0, "")
        assert {name: shown[name] for name in ("key", "type", "severity", "ack")} == {
            "key": key,
            "type": "many",
            "severity": 1,
            "ack": False,
        }
        [held] = shown["alarm_rules"]["or_list"][0]["and_list"]
        assert held["match"] == [
            {"json_operand1_value": "50", "json_variables": {f"{STRUCT}.acl": '"a"'}}
        ]

        code, (acknowledged,), _ = ctl("ack", key, "many")
        assert code == 0
        assert acknowledged == {**shown, "ack": True}
        assert ctl("alarms", key, "--unacknowledged") == (1, [], "")
        assert ctl("alarms", key, "--acknowledged")[1] == [acknowledged]
        assert daemon.uve(key)["UVEAlarms"]["alarms"][0]["ack"] is True

        source.tell([key, STRUCT, {FLOWS: 1}])
        until(lambda: types(client, key) == [])
        assert ctl("alarms", key)[0] == 1
        assert ctl("ack", key, "many")[0] == 1


def test_a_stale_token_is_refused(ctl: Ctl, daemon: Daemon, source: Source) -> None:
    key = new_key(TABLE)
    with QueryClient(daemon.query) as client:
        source.tell([key, STRUCT, {FLOWS: 50, "acl": "a"}])
        until(lambda: types(client, key) == ["many"])
        [(_, [before])] = client.alarms(match=[key])
        source.tell([key, STRUCT, {"acl": "b"}])
        until(lambda: next(client.alarms(match=[key]))[1][0]["token"] != before["token"])

        with pytest.raises(StaleToken):
            client.acknowledge(key, "many", before["token"])
        with pytest.raises(NotFound):
            client.acknowledge(key, "too-many", before["token"])
        code, _, errors = ctl("ack", key, "many", "--token", before["token"])

    assert code == 4
    assert f"collectorctl alarms {key} shows what is raised now" in errors


def test_alarms_go_through_all_pages_and_filters(daemon: Daemon, source: Source) -> None:
    keys = [f"{TABLE}:paged:{number:03}" for number in range(25)]
    source.tell(*([key, STRUCT, {FLOWS: 500 if key > keys[9] else 50}] for key in keys))
    with QueryClient(daemon.query) as client:
        pattern = [f"{TABLE}:paged:*"]
        until(lambda: len(list(client.alarms(match=pattern))) == 25)
        until(lambda: len(list(client.alarms(match=pattern, severity=[0]))) == 15)

        assert [key for key, _ in client.alarms([TABLE], pattern, page=4)] == keys
        critical = list(client.alarms(match=pattern, severity=[0], page=4))
        assert [key for key, _ in critical] == keys[10:]
        assert {alarm["type"] for _, alarms in critical for alarm in alarms} == {"too-many"}
        assert list(client.alarms(["ObjectNoTable"])) == []


def test_what_becomes_of_alarms_is_followed(daemon: Daemon, source: Source) -> None:
    key = new_key(TABLE)
    before, ours = daemon.counter("requests"), itertools.count(1)
    watching = subprocess.Popen(
        **command(daemon, "watch", "--alarms", f"{key}*"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore SIGINT, and this would inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert watching.stdout is not None

    def told() -> tuple[str, str]:
        assert watching.stdout is not None
        news = json.loads(watching.stdout.readline())
        assert news["key"] == key
        return news["what"], news["type"]

    try:
        # Once subscribed it asks what is raised; our own requests are counted as well.
        until(lambda: daemon.counter("requests") > before + next(ours))
        source.tell([key, STRUCT, {FLOWS: 50}])
        assert told() == ("raised", "many")
        source.tell([key, STRUCT, {FLOWS: 60}])  # the same alarm: no news
        source.tell([key, STRUCT, {FLOWS: 160}])
        assert told() == ("raised", "too-many")
        with QueryClient(daemon.query) as client:
            [(_, [alarm, _])] = client.alarms(match=[key])
            client.acknowledge(key, "many", alarm["token"])
        assert told() == ("acknowledged", "many")
        source.tell([key, STRUCT, {"acl": "b", FLOWS: 50}])
        assert sorted([told(), told()]) == [("changed", "many"), ("cleared", "too-many")]
        source.tell([key, STRUCT, None])
        assert told() == ("cleared", "many")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE) == 0
    finally:
        watching.kill()
        watching.communicate()


def test_a_subscriber_follows_alarms(daemon: Daemon, source: Source) -> None:
    key = new_key(TABLE)
    before = daemon.counter("subscriptions")
    with Subscriber(key, daemon.stream, alarms=True, connect_timeout=DEADLINE) as changes:
        until(lambda: daemon.counter("subscriptions") > before)
        source.tell([key, STRUCT, {FLOWS: 7}])
        raised = changes.receive(DEADLINE)
        source.tell([key, STRUCT, None])
        cleared = changes.receive(DEADLINE)

    assert [alarm["type"] for alarm in raised.value["alarms"]] == ["exact"]
    assert (cleared.key, cleared.struct, cleared.deleted) == (key, "UVEAlarms", True)


def test_rules_are_tried_on_what_the_collector_holds(
    ctl: Ctl, source: Source, rules_file: Path
) -> None:
    key = new_key(TABLE)
    source.tell([key, STRUCT, {FLOWS: 50}])

    code, (result,), _ = ctl("rules", "test", str(rules_file), "--uve", key)

    assert code == 0
    assert [(tried["name"], tried["holds"]) for tried in result["rules"]] == [
        ("many", True),
        ("too-many", False),
        ("exact", False),
    ]
    assert ctl("rules", "test", str(rules_file), "--uve", f"{TABLE}:nowhere")[0] == 1


def test_rules_are_checked_against_what_the_collector_configures(ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "proxies.json"
    for proxied, code in (("AggProxySum", 0), ("AggProxyMax", 2)):
        wanted = rule("proxy", ">", 1, 0)
        [and_list] = wanted["alarm_rules"]["or_list"]
        and_list["and_list"][0]["operand1"] = f"{proxied}-{METRIC}.value.value"
        path.write_text(json.dumps([wanted]))

        assert ctl("rules", "check", str(path), "--live")[0] == code
        assert ctl("rules", "check", str(path))[0] == 0
