"""Alarms of a running collector, as its users meet them: views, queries, stream, restarts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon import METRIC, PERIOD, STRUCT, Daemon, Source, new_key, refusal, rejection, run, until

SUM = f"AggProxySum-{METRIC}"


def rule(
    name: str = "busy",
    operand1: str = f"{STRUCT}.cpu",
    operation: str = ">",
    value: Any = 90,
    **fields: Any,
) -> dict[str, Any]:
    condition = {
        "operation": operation,
        "operand1": operand1,
        "operand2": {"json_value": json.dumps(value)},
    }
    return {
        "name": name,
        "uve_keys": ["ObjectVNTable"],
        "severity": 1,
        "description": f"it is {name}",
        "alarm_rules": {"or_list": [{"and_list": [condition]}]},
        **fields,
    }


class Rules:
    """A file of rules, which can be written anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *rules: dict[str, Any]) -> Rules:
        self.path.write_text(json.dumps(rules))
        return self

    @property
    def option(self) -> str:
        return f"--ALARM.rules_file={self.path}"


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path / "rules.json").write(rule())


@contextmanager
def collector(rules: Rules, *options: str) -> Iterator[tuple[Daemon, Source]]:
    with Daemon(rules.option, *options) as daemon, daemon.source() as source:
        yield daemon, source


def alarms(daemon: Daemon, **filters: Any) -> dict[str, list[str]]:
    """The names of what is raised, by key."""
    reply = daemon.ask("alarms", **filters)
    assert reply["ok"], reply
    return {key: [alarm["type"] for alarm in found] for key, found in reply["alarms"].items()}


def raised(daemon: Daemon, key: str) -> Any:
    """The one alarm of a key, once it is raised."""
    (alarm,) = until(lambda: daemon.ask("alarms", kfilt=key)["alarms"].get(key))
    return alarm


def all_is_evaluated(daemon: Daemon, source: Source) -> None:
    """Wait until what was told before is evaluated: what changes later waits behind it."""
    key = new_key()
    source.tell([key, STRUCT, {"cpu": 1e9}])
    until(lambda: daemon.ask("get", key=key)["uve"].get("UVEAlarms"))
    source.tell([key, STRUCT, None])
    until(lambda: daemon.uve(key) is None)


def await_an_alarm(daemon: Daemon, source: Source) -> None:
    """Wait until an alarm was raised for what changes now."""
    key = new_key()
    source.tell([key, STRUCT, {"cpu": 1e9}])
    raised(daemon, key)


def await_evaluation(daemon: Daemon, count: int) -> None:
    """Wait until there was one after so many."""
    until(lambda: daemon.counter("alarm_evaluations") > count)


# ---- raised and cleared --------------------------------------------------------------------------


def test_an_alarm_is_a_struct_of_its_uve_as_long_as_it_holds(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        alarm = raised(daemon, key)
        assert daemon.uve(key)["UVEAlarms"] == {"alarms": [alarm]}
        assert (alarm["type"], alarm["severity"], alarm["ack"]) == ("busy", 1, False)
        assert abs(alarm["timestamp"] / 1e6 - time.time()) < 60
        (and_list,) = alarm["alarm_rules"]["or_list"]
        (condition,) = and_list["and_list"]
        assert condition["match"] == [{"json_operand1_value": "95", "json_variables": {}}]
        source.tell([key, STRUCT, {"cpu": 5}])
        until(lambda: "UVEAlarms" not in daemon.uve(key))


def test_a_number_that_changes_is_no_new_alarm(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        before = raised(daemon, key)
        source.tell([key, STRUCT, {"cpu": 99}])
        all_is_evaluated(daemon, source)
        assert raised(daemon, key) == before


def test_many_changes_are_one_evaluation(rules: Rules) -> None:
    with collector(rules.write(rule(operation="==", value="x"))) as (daemon, source):
        key = new_key()
        for value in range(500):
            source.post(source.batch([key, STRUCT, {"cpu": value}]))
        source.settle()
        until(lambda: daemon.counter("alarm_evaluations"))
        until(lambda: daemon.ask("status")["alarms"]["waiting"] == 0)
        assert daemon.counter("alarm_evaluations") < 100


def test_only_rules_that_are_concerned_are_evaluated(rules: Rules) -> None:
    others = [rule(f"other-{number}", operand1="Other.cpu") for number in range(9)]
    with collector(rules.write(rule(), *others)) as (daemon, source):
        all_is_evaluated(daemon, source)
        before = daemon.counter("alarm_evaluations")
        source.tell([new_key(), STRUCT, {"acl": "x"}, 0], [new_key("T"), STRUCT, {"cpu": 99}])
        key = new_key()
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
        assert daemon.counter("alarm_evaluations") - before <= 2  # each of two new keys, one rule


def test_values_of_several_sources_are_merged_first(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, one), daemon.source() as other:
        aggtypes = {STRUCT: {"cpu": "sum"}}
        one.tell([key, STRUCT, {"cpu": 50}], aggtypes=aggtypes)
        other.tell([key, STRUCT, {"cpu": 50}], aggtypes=aggtypes)
        assert raised(daemon, key)["type"] == "busy"
        other.tell([key, STRUCT, {"cpu": 30}])
        until(lambda: "UVEAlarms" not in daemon.uve(key))


def test_an_aggtype_that_comes_later_counts_too(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, one), daemon.source() as other:
        one.tell([key, STRUCT, {"cpu": 50}])
        other.tell([key, STRUCT, {"cpu": 51}])
        all_is_evaluated(daemon, one)
        assert alarms(daemon) == {}
        one.tell(aggtypes={STRUCT: {"cpu": "sum"}})
        assert raised(daemon, key)["type"] == "busy"


def test_a_missing_attribute_is_null_and_a_missing_struct_is_nothing(rules: Rules) -> None:
    key, other = new_key(), new_key()
    with collector(rules.write(rule(operation="==", value=None), rule("x"))) as (daemon, source):
        source.tell([key, STRUCT, {"acl": 1}], [other, "Other", {"acl": 1}])
        assert raised(daemon, key)["type"] == "busy"
        all_is_evaluated(daemon, source)
        assert alarms(daemon) == {key: ["busy"]}
        source.tell([key, STRUCT, {"acl": None}])
        until(lambda: alarms(daemon) == {})


def test_a_uve_that_is_gone_clears_its_alarms(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
        source.tell([key, STRUCT, None])
        until(lambda: alarms(daemon) == {})
        assert daemon.uve(key) is None


def test_a_uve_that_is_gone_is_shown_with_its_alarm_as_long_as_that_soaks(rules: Rules) -> None:
    key = new_key()
    with collector(rules.write(rule(idle_timer=600))) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        alarm = raised(daemon, key)
        source.tell([key, STRUCT, None])
        until(lambda: daemon.uve(key) == {"UVEAlarms": {"alarms": [alarm]}})


def test_the_close_of_a_period_is_evaluated(rules: Rules) -> None:
    key = new_key()
    begin = time.time_ns() // 1000 // PERIOD * PERIOD - 20 * PERIOD
    with collector(rules.write(rule(operand1=f"{SUM}.value.value", value=10))) as (daemon, source):
        for minute, value in enumerate([5, 50, 5]):
            at = begin + minute * PERIOD
            source.tell([key, STRUCT, {"egress_flow_count": value}, at])
            # A sample eight periods later closes this one.
            source.tell([key, STRUCT, {"egress_flow_count": 0}, at + 8 * PERIOD])
            if value > 10:
                raised(daemon, key)
            else:
                until(lambda: "UVEAlarms" not in daemon.uve(key))


def test_no_source_may_tell_what_is_alarming(rules: Rules) -> None:
    with collector(rules) as (_, source):
        reply = source.send_numbered(1, [new_key(), "UVEAlarms", {"alarms": []}])
        assert rejection(reply) == "bad_struct"


def test_timers_soak_what_comes_and_what_goes(rules: Rules) -> None:
    key = new_key()
    with collector(rules.write(rule(active_timer=1, idle_timer=1))) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        until(lambda: daemon.ask("status")["alarms"]["soaking"] == 1)
        assert alarms(daemon) == {}
        source.tell([key, STRUCT, {"cpu": 96}])
        alarm = raised(daemon, key)
        (and_list,) = alarm["alarm_rules"]["or_list"]
        assert and_list["and_list"][0]["match"][0]["json_operand1_value"] == "96"
        source.tell([key, STRUCT, {"cpu": 1}])
        until(lambda: alarms(daemon) == {})


def test_beyond_the_limit_it_is_counted_and_told(rules: Rules) -> None:
    keys = [new_key() for _ in range(5)]
    with collector(rules, "--LIMITS.alarms=2") as (daemon, source):
        source.tell(*([key, STRUCT, {"cpu": 95}] for key in keys))
        until(lambda: daemon.counter("alarms_refused"))
        problems = until(lambda: daemon.ask("status")["health"]["problems"])
        assert "LIMITS.alarms" in problems[0]
        assert len(alarms(daemon)) == 2
        source.tell(*([key, STRUCT, {"cpu": 5}] for key in alarms(daemon)))
        until(lambda: len(alarms(daemon)) == 2)  # others, as soon as there is room
        source.tell(*([key, STRUCT, {"cpu": 5}] for key in keys))
        until(lambda: alarms(daemon) == {} and not daemon.ask("status")["health"]["problems"])


# ---- asking and acknowledging --------------------------------------------------------------------


def test_filters(rules: Rules) -> None:
    tables = ["ObjectVNTable", "Other"]
    rules.write(rule(), rule("worse", severity=0, value=97, uve_keys=tables))
    one, two, other = [*sorted([new_key(), new_key()]), new_key("Other")]
    with collector(rules) as (daemon, source):
        source.tell(*([key, STRUCT, {"cpu": 95}] for key in (one, two)))
        source.tell(*([key, STRUCT, {"cpu": 98}] for key in (two, other)))
        everything = {one: ["busy"], two: ["busy", "worse"], other: ["worse"]}
        until(lambda: alarms(daemon) == everything)
        token = daemon.ask("alarms", kfilt=one)["alarms"][one][0]["token"]
        assert daemon.ask("ack", key=one, type="busy", token=token)["alarm"]["ack"] is True
        assert alarms(daemon, tablefilt="Other") == {other: ["worse"]}
        assert alarms(daemon, tablefilt=["Other", "ObjectVNTable"]) == everything
        assert alarms(daemon, kfilt=[one, "Oth*"]) == {one: ["busy"], other: ["worse"]}
        assert alarms(daemon, severity=0) == {two: ["worse"], other: ["worse"]}
        assert alarms(daemon, severity=[0, 1]) == everything
        assert alarms(daemon, ackfilt=True) == {one: ["busy"]}
        assert alarms(daemon, ackfilt=False, severity=1) == {two: ["busy"]}
        assert daemon.ask_json("alarms", severity=0)["alarms"].keys() == {two, other}


def test_pages(rules: Rules) -> None:
    keys = sorted(new_key() for _ in range(5))
    with collector(rules) as (daemon, source):
        source.tell(*([key, STRUCT, {"cpu": 95}] for key in keys))
        until(lambda: len(alarms(daemon)) == 5)
        found: list[str] = []
        reply: dict[str, Any] = {"next": ""}
        while "next" in reply:
            reply = daemon.ask("alarms", limit=2, after=reply["next"])
            found += reply["alarms"]
        assert found == keys


@pytest.mark.parametrize(
    "wrong",
    [
        {"severity": "major"},
        {"severity": True},
        {"severity": [0, "x"]},
        {"tablefilt": 5},
        {"kfilt": 5},
        {"ackfilt": "yes"},
        {"limit": 0},
        {"after": 5},
    ],
)
def test_wrong_filters_are_refused(daemon_with_rules: Daemon, wrong: dict[str, Any]) -> None:
    assert refusal(daemon_with_rules.ask("alarms", **wrong)) == "bad_request"


@pytest.fixture(scope="module")
def daemon_with_rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    rules = Rules(tmp_path_factory.mktemp("rules") / "rules.json").write(rule())
    with Daemon(rules.option) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"key": "ObjectVNTable:nothing", "type": "busy", "token": "x"}, "not_found"),
        ({"key": 5, "type": "busy", "token": "x"}, "bad_request"),
        ({"type": "busy", "token": "x"}, "bad_request"),
        ({"key": "x", "type": "busy"}, "bad_request"),
    ],
)
def test_what_can_not_be_acknowledged(
    daemon_with_rules: Daemon, request_: dict[str, Any], code: str
) -> None:
    assert refusal(daemon_with_rules.ask("ack", **request_)) == code


def test_a_stale_token_is_refused(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        stale = raised(daemon, key)["token"]
        source.tell([key, STRUCT, {"cpu": 1}])
        until(lambda: alarms(daemon) == {})
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
        assert refusal(daemon.ask("ack", key=key, type="busy", token=stale)) == "stale_token"
        assert raised(daemon, key)["ack"] is False


def test_without_rules_there_are_no_alarms_and_nothing_to_acknowledge() -> None:
    with Daemon() as daemon:
        assert daemon.ask("alarms") == {"ok": True, "alarms": {}}
        reply = daemon.ask("ack", key="T:a", type="busy", token="x")
        assert refusal(reply) == "not_found"
        assert daemon.ask("status")["alarms"] is None


# ---- the stream ----------------------------------------------------------------------------------


def test_the_stream_tells_what_is_raised_under_a_topic_of_its_own(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source), daemon.subscribe(f"alarm:{key}") as stream:
        source.tell([key, STRUCT, {"cpu": 95}])
        message = stream.next()
        alarm = raised(daemon, key)
        assert message == {"key": key, "struct": "UVEAlarms", "value": {"alarms": [alarm]}}
        daemon.ask("ack", key=key, type="busy", token=alarm["token"])
        assert stream.next()["value"] == {"alarms": [{**alarm, "ack": True}]}
        source.tell([key, STRUCT, {"cpu": 1}])
        assert stream.next() == {"key": key, "struct": "UVEAlarms", "deleted": True}


def test_who_follows_a_uve_gets_no_alarms_unasked(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source), daemon.subscribe(key) as stream:
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
        source.tell([key, "Last", {"a": 1}])
        assert [stream.next()["struct"], stream.next()["struct"]] == [STRUCT, "Last"]


# ---- other rules, other runs ---------------------------------------------------------------------


def test_sighup_takes_on_rules_and_keeps_the_state_of_those_that_stay(rules: Rules) -> None:
    key = new_key()
    rules.write(rule(), rule("going"))
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        until(lambda: alarms(daemon) == {key: ["busy", "going"]})
        before = daemon.ask("alarms")["alarms"][key][0]
        rules.write(rule(), rule("coming", value=1))
        daemon.signal(signal.SIGHUP)
        until(lambda: alarms(daemon) == {key: ["busy", "coming"]})
        assert daemon.ask("alarms")["alarms"][key][0] == before


def test_a_broken_file_is_refused_whole_and_the_old_rules_go_on(rules: Rules) -> None:
    key = new_key()
    with collector(rules) as (daemon, source):
        rules.write(rule("another"), rule("wrong", operation="~"))
        daemon.signal(signal.SIGHUP)
        line = daemon.await_log("the configuration stays as it was")
        assert "ALARM.rules_file" in line
        assert "'~'" in line
        source.tell([key, STRUCT, {"cpu": 95}])
        assert raised(daemon, key)["type"] == "busy"


def test_rules_can_come_and_go_by_sighup(tmp_path: Path) -> None:
    key = new_key()
    rules = Rules(tmp_path / "rules.json").write()
    rules.path.write_text("[]")
    with collector(rules) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        assert alarms(daemon) == {}
        rules.write(rule())
        daemon.signal(signal.SIGHUP)
        assert raised(daemon, key)["type"] == "busy"
        rules.path.write_text("[]")
        daemon.signal(signal.SIGHUP)
        until(lambda: alarms(daemon) == {})


def test_rules_that_come_with_a_notifier_that_can_not_be_made_change_nothing(
    tmp_path: Path,
) -> None:
    rules = Rules(tmp_path / "rules.json")
    rules.path.write_text("[]")
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    secret.chmod(0o600)
    options = ("--ALARM.webhook=http://127.0.0.1:9/", f"--ALARM.webhook_secret_file={secret}")
    with collector(rules, *options) as (daemon, _):
        secret.unlink()
        rules.write(rule())
        daemon.signal(signal.SIGHUP)
        assert "webhook_secret_file" in daemon.await_log("the configuration stays as it was")
        assert daemon.ask("status")["alarms"] is None


def test_old_alarms_do_not_come_back_with_rules_that_come_later(tmp_path: Path) -> None:
    key = new_key()
    rules = Rules(tmp_path / "rules.json").write(rule(idle_timer=600))
    option = f"--SNAPSHOT.directory={tmp_path / 'state'}"
    with collector(rules, option) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
        source.tell([key, STRUCT, {"cpu": 5}])
    rules.path.write_text("[]")
    with collector(rules, option) as (daemon, source):
        rules.write(rule(idle_timer=600))
        daemon.signal(signal.SIGHUP)
        await_an_alarm(daemon, source)
        assert key not in alarms(daemon)


@pytest.mark.parametrize(
    "wrong",
    [
        "--ALARM.webhook=ftp://somewhere",
        "--ALARM.alertmanager=127.0.0.1:9093",
        "--ALARM.command=/nowhere/program",
        "--ALARM.webhook_secret_file=/nowhere/secret",
    ],
)
@pytest.mark.parametrize("mode", [(), ("--check_config",)], ids=["start", "check_config"])
def test_a_notifier_that_can_not_be_made_is_told_before_anything_starts(
    rules: Rules, wrong: str, mode: tuple[str, ...]
) -> None:
    webhook = () if "webhook=" in wrong else ("--ALARM.webhook=http://127.0.0.1:9/",)
    ended = run(rules.option, *webhook, wrong, *mode)
    assert ended.returncode == 2
    assert wrong.partition("=")[0].strip("-") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_that_is_wrong_is_named(rules: Rules) -> None:
    rules.path.write_text("[")
    assert str(rules.path) in run(rules.option).stderr


def test_a_reload_says_what_is_news_of_the_rules(rules: Rules) -> None:
    with collector(rules.write(rule("stays"), rule("changes"), rule("goes"))) as (daemon, _):
        rules.write(rule("stays"), rule("changes", severity=0), rule("comes"))
        daemon.signal(signal.SIGHUP)
        assert "rules of alarms: 3 (1 new, 1 gone, 1 changed)" in daemon.await_log("reloaded")


def test_rules_that_can_never_hold_here_are_told(rules: Rules) -> None:
    unknown = "AggProxySum-UveDevice-cpu.value.value"
    with collector(rules.write(rule("never", operand1=unknown))) as (daemon, _):
        assert "UveDevice-cpu:AggProxySum" in daemon.await_log("SYS_WARN")


def test_one_large_value_holds_up_nobody(rules: Rules) -> None:
    key, large = new_key(), new_key()
    everything = rule("any", operand1=f"{STRUCT}.list.*", operation="==", value=-1)
    with collector(rules.write(everything, rule())) as (daemon, source):
        for turn in range(3):
            source.tell([large, STRUCT, {"list": [turn] * 300_000}])
            source.tell([key, STRUCT, {"cpu": 95}])
            raised(daemon, key)
            source.tell([key, STRUCT, {"cpu": 5}])
            until(lambda: alarms(daemon) == {})
        assert daemon.ask("status")["health"]["problems"] == []


def test_a_disabled_rule_is_none(rules: Rules) -> None:
    with collector(rules.write(rule("off", enabled=False), rule())) as (daemon, source):
        all_is_evaluated(daemon, source)
        assert daemon.ask("status")["alarms"]["rules"] == 1


def test_what_is_wrong_with_the_rules_is_told_before_anything_starts(rules: Rules) -> None:
    rules.write(rule(operation="~"), rule("busy"))
    ended = run(rules.option)
    assert ended.returncode == 2
    assert "'~'" in ended.stderr
    assert "busy" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run("--ALARM.rules_file=/nowhere/rules.json").returncode == 2


STATES = {
    "SOAK_ACTIVE": ([{"cpu": 95}], {"soaking": 1, "active": 0}),
    "ACTIVE": ([{"cpu": 99}], {"soaking": 1, "active": 1}),
    "SOAK_IDLE": ([{"cpu": 99}, {"cpu": 1}], {"soaking": 0, "active": 1}),
}
"""What leads to each state, and what ``status`` shows then."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("crash", [False, True], ids=["stop", "crash"])
def test_each_state_survives_a_restart(
    rules: Rules, tmp_path: Path, state: str, crash: bool
) -> None:
    steps, shown = STATES[state]
    key = new_key()
    rules.write(rule("soaks", active_timer=600), rule("raised", value=98, idle_timer=600))
    options = (f"--SNAPSHOT.directory={tmp_path / 'state'}", "--SNAPSHOT.interval=1")
    with Daemon(rules.option, *options) as daemon:
        with daemon.source() as source:
            for step in steps:
                evaluated = daemon.counter("alarm_evaluations")
                source.tell([key, STRUCT, step])
                await_evaluation(daemon, evaluated)
            if state != "SOAK_ACTIVE":
                token = raised(daemon, key)["token"]
                daemon.ask("ack", key=key, type="raised", token=token)
            before = daemon.ask("alarms")["alarms"]
            if crash:
                now = time.time_ns() // 1000
                until(lambda: (daemon.ask("status")["snapshot"]["last_time"] or 0) > now)
            name = source.name
        if crash:
            daemon.kill()
    with Daemon(rules.option, *options) as daemon, daemon.source(name) as source:
        until(lambda: daemon.counter("alarm_evaluations"))
        status = daemon.ask("status")["alarms"]
        assert {name: status[name] for name in shown} == shown
        assert daemon.ask("alarms")["alarms"] == before
        assert daemon.counter("alarms_raised") == 0


def test_an_alarm_that_cleared_meanwhile_is_cleared_after_a_restart(
    rules: Rules, tmp_path: Path
) -> None:
    key = new_key()
    option = f"--SNAPSHOT.directory={tmp_path / 'state'}"
    with collector(rules, option) as (daemon, source):
        source.tell([key, STRUCT, {"cpu": 95}])
        raised(daemon, key)
    rules.write(rule(value=1_000))
    with collector(rules, option) as (daemon, _):
        until(lambda: alarms(daemon) == {})
        assert daemon.counter("alarms_cleared") == 1
