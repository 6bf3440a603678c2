"""``collectorctl alarms``, ``ack`` and ``watch --alarms``: what they ask, what they print."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collectord import ctl, ctl_alarms, terminal_alarms
from fake_collector import Answers, FakeServer, FakeStream

Run = Callable[..., tuple[int, str, str]]
Watch = Callable[..., subprocess.Popen[str]]

COMMAND = [sys.executable, "-m", "collectord.ctl"]
NOWHERE = "tcp://127.0.0.1:1"
KEY = "ObjectVNTable:demo:vn1"
OPERAND = "AggProxySumAnomalyEWM01-UveVirtualNetworkAgent-egress_flow_count.value.sigma"


def alarm(kind: str = "FlowFlood", **members: Any) -> dict[str, Any]:
    """An alarm as a collector tells it."""
    condition = {
        "operation": ">=",
        "operand1": OPERAND,
        "operand2": {"json_value": "3"},
        "variables": ["UveVirtualNetworkAgent.acl"],
    }
    match = {"json_operand1_value": "4.5", "json_variables": {"UveVirtualNetworkAgent.acl": '"a"'}}
    held = {"and_list": [{"condition": condition, "match": [match]}]}
    return {
        "type": kind,
        "severity": 1,
        "timestamp": 1_700_000_000_000_000,
        "token": "t1",
        "ack": False,
        "description": "more flows than usual",
        "alarm_rules": {"or_list": [held]},
        **members,
    }


def reply(**fields: Any) -> dict[str, Any]:
    return {"ok": True, **fields}


def refusal(code: str, message: str = "no") -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": message}}


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def query(answers: Answers) -> Iterator[str]:
    with FakeServer(answers) as server:
        yield server.address


@pytest.fixture
def run(query: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against prepared answers: gives exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = ctl.main([*arguments, "--query", query])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# ---- collectorctl alarms -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ([], {}),
        (["T"], {"tablefilt": ["T"]}),
        (["T", "U"], {"tablefilt": ["T", "U"]}),
        (["T:a*", "*b"], {"kfilt": ["T:a*", "*b"]}),
        (["T:a*", "U"], {"kfilt": ["T:a*", "U:*"]}),
        (["--severity", "critical", "2"], {"severity": [0, 2]}),
        (["--severity", "major", "--severity", "0"], {"severity": [1, 0]}),
        (["--acknowledged"], {"ackfilt": True}),
        (["--unacknowledged"], {"ackfilt": False}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_filters_of_the_command_line_are_asked_for(
    run: Run, answers: Answers, arguments: list[str], request_: dict[str, Any]
) -> None:
    answers.replies.append(reply(alarms={KEY: [alarm()]}))

    code, _, err = run("alarms", *arguments)

    assert answers.requests == [{"op": "alarms", "limit": 1000, **request_}]
    assert (code, err) == (0, "")


def test_programs_get_a_line_for_each_alarm_of_all_pages(run: Run, answers: Answers) -> None:
    answers.replies.append(reply(alarms={"T:a": [alarm("A"), alarm("B")]}, next="T:a"))
    answers.replies.append(reply(alarms={}, next="T:k"))
    answers.replies.append(reply(alarms={"T:z": [alarm("A", ack=True)]}))

    code, out, _ = run("alarms")

    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"key": "T:a", **alarm("A")},
        {"key": "T:a", **alarm("B")},
        {"key": "T:z", **alarm("A", ack=True)},
    ]
    assert [request.get("after") for request in answers.requests] == [None, "T:a", "T:k"]


def test_people_get_a_table_that_says_it_in_words(run: Run, answers: Answers) -> None:
    answers.replies.append(reply(alarms={KEY: [alarm(), alarm("Down", severity=0, ack=True)]}))

    code, out, _ = run("alarms", "--table")

    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    why = f'{OPERAND} >= 3: 4.5 (UveVirtualNetworkAgent.acl "a")'
    assert code == 0
    assert [row for row in rows if row] == [
        ["major", "2023-11-14 22:13:20Z", "no", f"{KEY} FlowFlood"],
        ["", "", "", why],
        ["critical", "2023-11-14 22:13:20Z", "yes", f"{KEY} Down"],
        ["", "", "", why],
    ]


def test_people_need_not_wait_for_the_last_of_many(
    run: Run, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctl_alarms, "ROWS_AT_ONCE", 2)
    answers.replies.append(reply(alarms={f"T:{name}": [alarm()] for name in "abc"}))

    _, out, _ = run("alarms", "--table")

    assert out.count("severity") == 2
    assert all(f"T:{name}" in out for name in "abc")


def test_no_alarms_end_it_with_1(run: Run, answers: Answers) -> None:
    answers.replies.append(reply(alarms={}))

    assert run("alarms") == (1, "", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing is raised"),
        (["T"], "nothing like that is raised"),
        (["--severity", "major"], "nothing like that is raised"),
        (["--unacknowledged"], "nothing like that is raised"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_people_are_told_that_there_are_no_alarms(
    run: Run, answers: Answers, arguments: list[str], sentence: str
) -> None:
    answers.replies.append(reply(alarms={}))

    assert run("alarms", "--table", *arguments) == (1, "", f"collectorctl: {sentence}\n")


def test_the_example_of_acknowledging_is_a_rule_that_is_shipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        ctl.main(["ack", "--help"])

    assert "collectorctl ack ObjectVNTable:demo:vn1 vn-egress-flood" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--severity", "dire"], ["--severity", "3"]])
def test_a_severity_that_is_none_ends_it_with_2(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("alarms", *arguments)

    assert ended.value.code == 2
    assert "there are critical, major, minor, 0, 1, 2" in capsys.readouterr().err


def test_a_collector_that_knows_no_alarms_ends_it_with_4(run: Run, answers: Answers) -> None:
    answers.replies.append(refusal("unknown_op", "there is no op alarms"))

    assert run("alarms") == (4, "", "collectorctl: unknown_op: there is no op alarms\n")


def test_what_a_rule_or_source_wrote_is_neither_escape_nor_markup(
    run: Run, answers: Answers
) -> None:
    evil = "\x1b]0;title\x07 [red]bold[/red] \u202egnp.exe"
    held = {
        "condition": {
            "operation": "==",
            "operand1": evil,
            "operand2": {"uve_attribute": evil},
            "variables": [evil],
        },
        "match": [
            {
                "json_operand1_value": evil,
                "json_operand2_value": evil,
                "json_variables": {evil: evil},
            }
        ],
    }
    rules = {"or_list": [{"and_list": [held]}]}
    answers.replies.append(reply(alarms={evil: [alarm(evil, severity=evil, alarm_rules=rules)]}))

    _, out, _ = run("alarms", "--table")

    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "[red]bold[/red]" in out


def test_on_a_terminal_severities_have_colours(answers: Answers, query: str) -> None:
    answers.replies.append(reply(alarms={KEY: [alarm(severity=0)]}))
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            subprocess.run(
                [*COMMAND, "alarms", "--query", query],
                env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
                stdout=theirs,
                check=True,
                timeout=20,
            )
            seen = screen.read(1 << 16).decode()
        finally:
            os.close(theirs)

    assert "\x1b[1;31mcritical\x1b[0m" in seen


@pytest.mark.parametrize(
    ("or_list", "expected"),
    [
        ([], []),
        ([["S.a > 5: 6"]], ["S.a > 5: 6"]),
        ([["S.a > 5: 6", "S.b == S.c: 1 == 1"]], ["S.a > 5: 6", "S.b == S.c: 1 == 1"]),
        ([["S.a > 5: 6"], ["S.b == S.c: 1 == 1"]], ["S.a > 5: 6", "or", "S.b == S.c: 1 == 1"]),
    ],
)
def test_what_holds_is_a_line_for_each_condition(
    or_list: list[list[str]], expected: list[str]
) -> None:
    conditions = {
        "S.a > 5: 6": {
            "condition": {"operation": ">", "operand1": "S.a", "operand2": {"json_value": "5"}},
            "match": [{"json_operand1_value": "6", "json_variables": {}}],
        },
        "S.b == S.c: 1 == 1": {
            "condition": {
                "operation": "==",
                "operand1": "S.b",
                "operand2": {"uve_attribute": "S.c"},
            },
            "match": [{"json_operand1_value": "1", "json_operand2_value": "1"}],
        },
    }
    rules = {"or_list": [{"and_list": [conditions[name] for name in names]} for names in or_list]}

    assert terminal_alarms.what_holds(rules) == expected


def test_many_places_and_long_values_are_cut_short() -> None:
    held = {
        "condition": {"operation": "!=", "operand1": "S.*", "operand2": {"json_value": "5"}},
        "match": [{"json_operand1_value": "x" * 1000, "json_variables": {}}] * 5,
    }

    [line] = terminal_alarms.what_holds({"or_list": [{"and_list": [held]}]})

    assert line.count("…") == 3
    assert line.endswith(", and 2 more")
    assert len(line) < 300


# ---- collectorctl ack --------------------------------------------------------------------------


def test_the_alarm_that_is_raised_now_is_acknowledged(run: Run, answers: Answers) -> None:
    answers.replies.append(
        reply(alarms={KEY: [alarm("A", token="no"), alarm(token="t9")], f"{KEY}0": [alarm()]})
    )
    answers.replies.append(reply(alarm=alarm(token="t9", ack=True)))

    code, out, err = run("ack", KEY, "FlowFlood")

    assert answers.requests[0]["kfilt"] == [KEY]
    assert answers.requests[1] == {"op": "ack", "key": KEY, "type": "FlowFlood", "token": "t9"}
    assert (code, err) == (0, "")
    assert json.loads(out) == {"key": KEY, **alarm(token="t9", ack=True)}


def test_a_token_is_taken_as_it_is_given(run: Run, answers: Answers) -> None:
    answers.replies.append(reply(alarm=alarm(ack=True)))

    code, out, _ = run("ack", KEY, "FlowFlood", "--token", "t1", "--table")

    assert [request["token"] for request in answers.requests] == ["t1"]
    assert code == 0
    assert out == f"acknowledged: major FlowFlood of {KEY}, raised 2023-11-14 22:13:20Z\n"


def test_a_stale_token_ends_it_with_4_and_says_what_to_do(run: Run, answers: Answers) -> None:
    answers.replies.append(refusal("stale_token", "it was raised anew"))

    code, out, err = run("ack", "T:it's", "FlowFlood", "--token", "old")

    assert (code, out) == (4, "")
    assert "stale_token: it was raised anew; " in err
    assert """collectorctl alarms 'T:it'"'"'s' shows what is raised now""" in err


@pytest.mark.parametrize(
    ("alarms", "there"),
    [({}, "none"), ({KEY: [alarm("A"), alarm("B")]}, "'A', 'B'")],
    ids=["none", "others"],
)
def test_where_no_such_alarm_is_raised_it_ends_with_1(
    run: Run, answers: Answers, alarms: dict[str, Any], there: str
) -> None:
    answers.replies.append(reply(alarms=alarms))

    code, out, err = run("ack", KEY, "FlowFlood")

    assert (code, out) == (1, "")
    assert f"{KEY!r} has no alarm 'FlowFlood'; raised there now: {there}" in err
    assert len(answers.requests) == 1


def test_an_alarm_that_was_cleared_since_ends_it_with_1(run: Run, answers: Answers) -> None:
    answers.replies.append(refusal("not_found", "no such alarm"))

    assert run("ack", KEY, "FlowFlood", "--token", "t1")[0] == 1


@pytest.mark.parametrize(
    "arguments", [["alarms"], ["ack", KEY, "A"], ["ack", KEY, "A", "--token", "t"]]
)
def test_without_a_collector_it_ends_with_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main([*arguments, "--query", NOWHERE, "--timeout", "0.02"]) == 3

    assert NOWHERE in capsys.readouterr().err


# ---- collectorctl watch --alarms ---------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[FakeStream]:
    with FakeStream() as running:
        yield running


@pytest.fixture
def watching(stream: FakeStream, query: str) -> Iterator[Watch]:
    """Starts ``watch --alarms`` in a process of its own, and ends it if the test doesn't."""
    started = []

    def start(*arguments: str, prefix: str = "") -> subprocess.Popen[str]:
        addresses = ["--stream", stream.address, "--query", query]
        process = subprocess.Popen(
            [*COMMAND, "watch", "--alarms", *addresses, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        stream.wait_for_subscription(f"alarm:{prefix}")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def printed(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def short(news: dict[str, Any]) -> tuple[str, str, str | None]:
    return news["what"], news["key"], news["type"]


def test_what_becomes_of_an_alarm_is_told_from_the_message_before(
    stream: FakeStream, answers: Answers, watching: Watch
) -> None:
    answers.replies.append(reply(alarms={}))
    process = watching("--count", "5")
    for alarms in (
        [alarm()],
        [alarm(ack=True)],
        [alarm(token="t2")],
        [alarm(token="t2"), alarm("Other")],
        [alarm(token="t2"), alarm("Other")],
        [alarm("Other")],
    ):
        stream.send_alarms("T:1", alarms)

    told = printed(process)

    assert [(news["what"], news["type"]) for news in told] == [
        ("raised", "FlowFlood"),
        ("acknowledged", "FlowFlood"),
        ("changed", "FlowFlood"),
        ("raised", "Other"),
        ("cleared", "FlowFlood"),
    ]
    assert told[0] == {"what": "raised", "key": "T:1", **alarm()}
    assert told[4]["token"] == "t2"


def test_what_was_raised_before_is_asked_for_and_is_no_news(
    stream: FakeStream, answers: Answers, watching: Watch
) -> None:
    answers.replies.append(reply(alarms={"T:1": [alarm("A"), alarm("B")]}, next="T:1"))
    answers.replies.append(reply(alarms={"T:2": [alarm("C")]}))
    process = watching("T:*", "--count", "3", prefix="T:")
    stream.send_alarms("T:1", [alarm("A"), alarm("B")])
    stream.send_alarms("T:1", [alarm("A", ack=True)])
    stream.send_alarms("T:2", None)

    assert [short(news) for news in printed(process)] == [
        ("acknowledged", "T:1", "A"),
        ("cleared", "T:1", "B"),
        ("cleared", "T:2", "C"),
    ]
    assert answers.requests[0]["kfilt"] == ["T:*"]


def test_a_count_ends_it_amid_a_message(
    stream: FakeStream, answers: Answers, watching: Watch
) -> None:
    answers.replies.append(reply(alarms={}))
    process = watching("--count", "2")
    stream.send_alarms("T:1", [alarm("A"), alarm("B"), alarm("C")])

    assert [news["type"] for news in printed(process)] == ["A", "B"]


def test_who_may_not_ask_can_follow_all_the_same(
    stream: FakeStream, answers: Answers, watching: Watch
) -> None:
    answers.replies.append(refusal("unauthorised", "this key may not ask"))
    process = watching("--count", "4")
    stream.send_alarms("T:1", None)
    stream.send_alarms("T:2", [alarm()])
    stream.send_alarms("T:2", None)
    stream.send_alarms("T:2", [alarm()])

    out, err = process.communicate(timeout=20)

    assert [short(json.loads(line)) for line in out.splitlines()] == [
        ("cleared", "T:1", None),
        ("raised", "T:2", "FlowFlood"),
        ("cleared", "T:2", "FlowFlood"),
        ("raised", "T:2", "FlowFlood"),
    ]
    assert "can't ask what is raised already" in err
    assert "this key may not ask" in err


def test_people_get_a_line_for_each(stream: FakeStream, answers: Answers, watching: Watch) -> None:
    answers.replies.append(reply(alarms={}))
    process = watching("--count", "3", "--table")
    stream.send_alarms("T:1", [alarm("\x1b[31mA")])
    stream.send_alarms("T:1", None)
    stream.send("T:1", "S", {"a": 1})
    stream.send_alarms("T:3", [alarm()])

    raised, cleared, other = process.communicate(timeout=20)[0].splitlines()

    assert r"raised major \x1b[31mA T:1 " + OPERAND + " >= 3: 4.5" in raised
    assert cleared.endswith(r"cleared major \x1b[31mA T:1")
    assert "raised major FlowFlood T:3" in other


def test_without_alarms_it_follows_structs_and_not_alarms(
    stream: FakeStream, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "watch", "--count", "1", "--stream", stream.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        stream.wait_for_subscription("")
        stream.send_alarms("T:1", [alarm()])
        stream.send("T:1", "S", {"a": 1})

        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()

    assert json.loads(out)["struct"] == "S"
    assert answers.requests == []
