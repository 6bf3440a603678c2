"""The command ``collectorctl``: what it asks, what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from collectord import ctl, ctl_send, terminal
from fake_collector import Answers, FakeCollector, FakeServer, FakeStream

Run = Callable[..., tuple[int, str, str]]
Watch = Callable[..., subprocess.Popen[str]]

NOWHERE = "tcp://127.0.0.1:1"
COMMAND = [sys.executable, "-m", "collectord.ctl"]
KEY = "ObjectVNTable:demo:vn1"
STRUCT = "UveVirtualNetworkAgent"
METRIC = f"{STRUCT}-egress_flow_count"
UVE = {
    STRUCT: {"egress_flow_count": 7, "acl": "demo", "vms": [["a", "compute-1"]]},
    f"AggProxySum-{METRIC}": {
        "proxy": METRIC,
        "deleted": False,
        "value": {"value": 31, "staging": 12},
    },
    f"AggProxySumAnomalyEWM01-{METRIC}": {
        "proxy": METRIC,
        "deleted": False,
        "value": {
            "algo": "EWM",
            "config": "0.1",
            "metric": 36,
            "samples": 235,
            "sigma": 1.25,
            "state": {"mean": "29.5", "stddev": "0.000472838"},
        },
    },
}
SOURCES = {
    "compute-1:Compute:agent:0": {
        "records": 3,
        "last_seen": 1_700_000_000_000_000,
        "epoch": 1_600_000_000_000_000,
        "seq": 9,
        "durable": 0,
    }
}
MENU = {
    "menu": [{"name": "AggProxySum", "period": 60, "timeout": 1, "help": "the sum"}],
    "configured": {METRIC: ["AggProxySum", "AggProxyMax"]},
}
STATUS = {
    "version": "0.1.0",
    "start_time": 1_700_000_000_000_000,
    "time": 1_700_000_001_000_000,
    "uptime": 1_000_000,
    "counters": {"applied": 5},
    "sizes": {"keys": 3},
    "memory": {"resident": 1 << 20},
}


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def ask(answers: Answers, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a query command against prepared answers: gives exit code, output, errors."""
    with FakeServer(answers) as server:

        def run(*arguments: str) -> tuple[int, str, str]:
            code = ctl.main([*arguments, "--query", server.address])
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        yield run


def reply(**fields: Any) -> dict[str, Any]:
    return {"ok": True, **fields}


def refusal(code: str, message: str = "no") -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": message}}


def words(value: Any) -> str:
    """The name of a test that runs the command with these arguments."""
    is_command = isinstance(value, list) and value and value[0] in list(ctl.COMMANDS)
    return ascii(" ".join(value))[1:40] if is_command else ""


FILTERS = ["--sfilt", "compute-1", "--mfilt", "Compute:agent:0", "--cfilt", "A"]
FILTERS += ["--cfilt", "B:c"]
FILTERED = {"sfilt": "compute-1", "mfilt": "Compute:agent:0", "cfilt": ["A", "B:c"]}


@pytest.mark.parametrize(
    ("arguments", "request_", "answer", "printed"),
    [
        (["get", KEY], {"op": "get", "key": KEY}, {"uve": UVE}, [UVE]),
        (
            ["get", KEY, *FILTERS, "--by-source"],
            {"op": "get", "key": KEY, **FILTERED, "by_source": True},
            {"uve": {}},
            [{}],
        ),
        (
            ["find", "T"],
            {"op": "find", "table": "T", "limit": 100},
            {"uves": {"T:a": UVE, "T:b": {}}},
            [{"key": "T:a", "uve": UVE}, {"key": "T:b", "uve": {}}],
        ),
        (
            ["find", "T:*1", *FILTERS, "--kfilt", "*a*", "--kfilt", "*b*"],
            {"op": "find", "match": "T:*1", "limit": 100, **FILTERED, "kfilt": ["*a*", "*b*"]},
            {"uves": {"T:1": {}}},
            [{"key": "T:1", "uve": {}}],
        ),
        (
            ["find"],
            {"op": "find", "match": "*", "limit": 100},
            {"uves": {"T:1": {}}},
            [{"key": "T:1", "uve": {}}],
        ),
        (["list"], {"op": "list"}, {"tables": {"T": 3}}, [{"T": 3}]),
        (
            ["list", "T"],
            {"op": "list", "table": "T", "limit": 1000},
            {"keys": ["T:a", "T:b"]},
            ["T:a", "T:b"],
        ),
        (["sources"], {"op": "sources"}, {"sources": SOURCES}, [SOURCES]),
        (["menu"], {"op": "menu"}, MENU, [MENU]),
        (["status"], {"op": "status"}, STATUS, [STATUS]),
    ],
    ids=words,
)
def test_a_query_is_asked_and_printed_as_json_lines(
    ask: Run,
    answers: Answers,
    arguments: list[str],
    request_: dict[str, Any],
    answer: dict[str, Any],
    printed: list[Any],
) -> None:
    answers.replies.append(reply(**answer))

    code, out, err = ask(*arguments)

    assert answers.requests == [request_]
    assert [json.loads(line) for line in out.splitlines()] == printed
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "message"),
    [
        (["get", KEY], refusal("not_found", "no such key"), 1, "not_found: no such key"),
        (["find", "T"], reply(uves={}), 1, ""),
        (["list", "T"], reply(keys=[]), 1, ""),
        (["list"], reply(tables={}), 0, ""),
        (["get", KEY], refusal("bad_request"), 4, "bad_request: no"),
        (["status"], refusal("overloaded", "\x1b[31mred"), 4, r"overloaded: \x1b[31mred"),
    ],
    ids=["get", "find", "list", "list-tables", "bad_request", "escapes"],
)
def test_what_is_not_there_or_refused_has_its_exit_code(
    ask: Run,
    answers: Answers,
    arguments: list[str],
    answer: dict[str, Any],
    code: int,
    message: str,
) -> None:
    answers.replies.append(answer)

    got, _, err = ask(*arguments)

    assert (got, err) == (code, f"collectorctl: {message}\n" if message else "")


@pytest.mark.parametrize(
    ("arguments", "answer", "expected"),
    [
        (
            ["get", KEY],
            {"uve": UVE},
            [
                *[KEY, STRUCT, "egress_flow_count", "7", "demo", '[["a", "compute-1"]]'],
                *["AggProxySum", "31", "12"],
                *["AggProxySumAnomalyEWM01", "36", "1.25", "29.5", "0.000472838", "235"],
            ],
        ),
        (["get", KEY, "--cfilt", "S:a"], {"uve": {"S": "odd"}}, [KEY, "S: odd"]),
        (["find", "T"], {"uves": {"T:a": UVE, "T:b": {}}}, ["T:a", "demo", "T:b"]),
        (["list"], {"tables": {"ObjectVNTable": 3}}, ["ObjectVNTable", "3"]),
        (["list", "T"], {"keys": ["T:a", "T:b"]}, ["T:a", "T:b"]),
        (
            ["sources"],
            {"sources": SOURCES},
            ["compute-1:Compute:agent:0", "2023-11-14 22:13:20Z", "2020-09-13 12:26:40Z", "9"],
        ),
        (["menu"], MENU, ["AggProxySum", "60", "the sum", METRIC, "AggProxySum AggProxyMax"]),
        (["status"], STATUS, ["0.1.0", "2023-11-14 22:13:20Z", "applied", "keys", "resident"]),
    ],
    ids=words,
)
def test_tables_show_everything(
    ask: Run,
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    answer: dict[str, Any],
    expected: list[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    answers.replies.append(reply(**answer))

    code, out, _ = ask(*arguments, "--table")

    assert code == 0
    assert [word for word in expected if word not in out] == []


@pytest.mark.parametrize("form", ["--table", "--json"])
def test_text_of_a_source_is_neither_escape_nor_markup(
    ask: Run, answers: Answers, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    evil = "\x1b]0;title\x07 \x9b31m [red]bold[/red] [/] :smile: \u202egnp.exe \r\n end"
    answers.replies.append(reply(uve={evil: {evil: evil}}))

    _, out, _ = ask("get", KEY, form)

    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(out)
    assert "[red]bold[/red] [/] :smile:" in out


@pytest.mark.parametrize("form", ["--table", "--json"])
def test_values_that_are_no_text_and_no_json_are_shown(
    ask: Run, answers: Answers, form: str
) -> None:
    value = {"bytes": b"\xff\x00", "nan": float("nan"), "utf-8": "\udcff"}
    answers.replies.append(
        b"\x82\xa2ok\xc3\xa3uve\x81\xa1S\x83\xa5bytes\xc4\x02\xff\x00\xa3nan"
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xa5utf-8\xa1\xff"
    )

    code, out, _ = ask("get", KEY, form)

    assert code == 0
    assert [name for name in [*value, "NaN", r"\udcff"] if name not in out] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", KEY],
        ["find"],
        ["list"],
        ["sources"],
        ["menu"],
        ["status"],
        ["watch"],
        ["watch", "--seconds", "0.001"],
        ["send", KEY, STRUCT, "a=1"],
    ],
    ids=words,
)
def test_without_a_collector_it_ends_with_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ["--query", NOWHERE, "--stream", NOWHERE, "--ingest", NOWHERE]

    assert ctl.main([*arguments, *addresses, "--timeout", "0.02"]) == 3

    captured = capsys.readouterr()
    assert NOWHERE in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["get"], "required: KEY"),
        (["get", KEY, "--json", "--table"], "not allowed with"),
        (["status", "--query", "tcp://nowhere"], "write tcp://<host>:<port>"),
        (["watch", "--stream", "tcp://nowhere"], "write tcp://<host>:<port>"),
        (["send", "--ingest", "tcp://nowhere"], "write tcp://<host>:<port>"),
        (["send", KEY], "a record is KEY STRUCT and"),
        (["send", KEY, STRUCT], "a record is KEY STRUCT and"),
        (["send", KEY, STRUCT, "a=1", "--delete"], "a record is KEY STRUCT and"),
        (["send", KEY, STRUCT, "a"], "'a' is not ATTRIBUTE=VALUE"),
        (["send", KEY, STRUCT, "1a=1"], "attribute '1a' is not a name"),
        (["send", "no table", STRUCT, "a=1"], "key 'no table' is not <table>:<name>"),
        (["send", KEY, STRUCT, "a=1", "--source", "x" * 257], "must have 1 to 256 bytes"),
        (["send", KEY, STRUCT, "a=1", "--aggtype", "sum"], "write [STRUCT-]ATTRIBUTE=AGGTYPE"),
        (["send", "--aggtype", "a=sum"], "write [STRUCT-]ATTRIBUTE=AGGTYPE"),
        (["get", "T:\udcff"], "surrogates not allowed"),
    ],
    ids=words,
)
def test_what_makes_no_sense_ends_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["--timeout", "0.02", "--ingest", NOWHERE] if arguments[1:] else []
    try:
        code: object = ctl.main([*arguments[:1], *nowhere, *arguments[1:]])
    except SystemExit as ended:
        code = ended.code

    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ctl.COMMANDS)
def test_every_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main([command, "--help"])

    assert ended.value.code == 0
    assert f"example:\n  collectorctl {command}" in capsys.readouterr().out


def test_addresses_come_from_the_environment_and_need_no_scheme(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.replies.append(reply(version="1"))
    with FakeServer(answers) as server:
        monkeypatch.setenv("COLLECTORCTL_QUERY", server.address.removeprefix("tcp://"))

        assert ctl.main(["status"]) == 0


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as running:
        yield running


@pytest.fixture
def send(
    collector: FakeCollector, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs ``send`` with these lines as standard input: gives exit code, output, errors."""

    def run(*arguments: str, lines: Sequence[str] = ()) -> tuple[int, str, str]:
        text = "".join(f"{line}\n" for line in lines)
        stdin = io.BytesIO(text.encode(errors="surrogateescape"))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin, encoding="utf-8"))
        code = ctl.main(["send", *arguments, "--ingest", collector.address])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def summary(acknowledged: int, rejected: int = 0, unreadable: int = 0) -> dict[str, int]:
    return {"acknowledged": acknowledged, "rejected": rejected, "unreadable": unreadable}


def test_a_record_of_the_command_line_is_sent_and_acknowledged(
    send: Run, collector: FakeCollector
) -> None:
    code, out, err = send(
        KEY, STRUCT, "count=10", 'name="x"', "text=x y", "nan=NaN", "gone=null", "list=[1]", "a=b=c"
    )

    assert (code, json.loads(out), err) == (0, summary(1), "")
    attributes = {
        "count": 10,
        "name": "x",
        "text": "x y",
        "nan": "NaN",
        "gone": None,
        "list": [1],
        "a": "b=c",
    }
    assert collector.records == [[KEY, STRUCT, attributes]]


def test_a_record_has_source_time_and_aggtypes_of_the_options(
    send: Run, collector: FakeCollector
) -> None:
    code, _, _ = send(
        *[KEY, STRUCT, "a=1", "--source", "host:T:m:0", "--time", "5"],
        *["--aggtype", "a=sum", "--aggtype", "Other-b=append:k"],
    )

    [batch] = collector.received
    assert code == 0
    assert batch["source"] == "host:T:m:0"
    assert batch["records"] == [[KEY, STRUCT, {"a": 1}, 5]]
    assert batch["aggtypes"] == {STRUCT: {"a": "sum"}, "Other": {"b": "append:k"}}


def test_the_source_comes_from_the_environment_or_is_this_host(
    send: Run, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(KEY, STRUCT, "a=1")
    monkeypatch.setenv("COLLECTORCTL_SOURCE", "elsewhere")
    collector.forget()
    send(KEY, STRUCT, "a=1")

    assert [batch["source"] for batch in collector.received] == [ctl_send.SOURCE, "elsewhere"]


def test_delete_removes_the_struct(send: Run, collector: FakeCollector) -> None:
    code, _, _ = send(KEY, STRUCT, "--delete")

    assert code == 0
    assert collector.records == [[KEY, STRUCT, None]]


def test_lines_of_both_forms_are_sent_in_order(send: Run, collector: FakeCollector) -> None:
    code, out, err = send(
        "--time",
        "7",
        lines=[
            '["T:1", "S", {"a": 1}]',
            '["T:2", "S", null, 8]',
            "",
            '{"key": "T:3", "struct": "S", "attributes": {"a": [1.5]}}',
            '{"key": "T:4", "struct": "S", "attributes": {}, "time": 9}',
        ],
    )

    assert (code, json.loads(out), err) == (0, summary(4), "")
    assert collector.records == [
        ["T:1", "S", {"a": 1}, 7],
        ["T:2", "S", None, 8],
        ["T:3", "S", {"a": [1.5]}, 7],
        ["T:4", "S", {}, 9],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "Expecting value"),
        ("[1, 2]", "a record is [key, struct"),
        ('{"key": "T:1", "struct": "S", "attributes": {}, "tiem": 1}', "a record is [key, struct"),
        ('["no table", "S", {}]', "key 'no table' is not <table>:<name>"),
        ('["T:1", ["S"], {}]', "struct ['S'] is not a text"),
        ('["T:1", "S", [1]]', "attributes [1] are not a map"),
        ('["T:1", "S", {"a": NaN}]', "JSON has no NaN"),
        ('["T:1", "S", {"a": "\udcff"}]', "cannot be encoded"),
        ('["T:1", "S", {}, "now"]', "time 'now' is not in microseconds"),
        ('["T:1", "S", {"\u009b": 1}]', r"attribute '\x9b' is not a name"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: value[:40] if value.isascii() else "not-ascii",
)
def test_a_line_that_cannot_be_read_is_told_and_the_others_are_sent(
    send: Run, collector: FakeCollector, line: str, message: str
) -> None:
    code, out, err = send(lines=['["T:1", "S", {}]', "", line, '["T:2", "S", {}]'])

    assert (code, json.loads(out)) == (1, summary(2, unreadable=1))
    assert err.startswith("collectorctl: line 3: ")
    assert message in err
    assert len(collector.records) == 2


def test_a_rejected_record_is_told_with_its_line(send: Run, collector: FakeCollector) -> None:
    collector.faults.append("reject")

    code, out, err = send(lines=["", '["T:1", "S", {}]', '["T:2", "S", {}]'])

    assert (code, json.loads(out)) == (1, summary(1, rejected=1))
    assert err == "collectorctl: line 2: rejected, future: more than 60 s ahead\n"


def test_a_refused_batch_is_told_with_its_first_line(send: Run, collector: FakeCollector) -> None:
    collector.faults.append("too_large")

    code, out, err = send(lines=["oops", '["T:1", "S", {}]', '["T:2", "S", {}]'])

    assert (code, json.loads(out)) == (1, summary(0, rejected=2, unreadable=1))
    assert err.splitlines()[1] == (
        "collectorctl: 2 records from line 2 on: rejected, too_large: as told"
    )


def test_a_collector_that_refuses_the_source_ends_it_with_4(
    send: Run, collector: FakeCollector
) -> None:
    collector.faults.append("unauthorised")

    code, out, err = send(KEY, STRUCT, "a=1")

    assert (code, out) == (4, "")
    assert "unauthorised: as told" in err


def stale(after: int) -> list[str]:
    """The faults of a collector that hears of a newer run after so many batches."""
    return [*[""] * after, "stale_epoch"]


def test_a_newer_run_that_came_before_is_outdone_and_every_record_is_sent(
    send: Run, collector: FakeCollector
) -> None:
    collector.faults += [*stale(0), *stale(0)]

    code, out, err = send(lines=["", '["T:1", "S", {}]', "oops", '["T:2", "S", {}]'])

    assert (code, json.loads(out)) == (1, summary(2, unreadable=1))
    assert err.count("line 3") == 1
    assert [record[0] for record in collector.records] == ["T:1", "T:2"]
    epochs = [batch["epoch"] for batch in collector.received]
    assert len(set(epochs)) == 3
    assert epochs == sorted(epochs)


def test_a_newer_run_is_noticed_while_lines_are_still_read_and_none_is_lost(
    send: Run, collector: FakeCollector
) -> None:
    collector.faults += stale(0)
    keys = [f"T:{number}" for number in range(20_000)]

    code, out, _ = send(lines=[json.dumps([key, "S", {}]) for key in keys])

    assert (code, json.loads(out)) == (0, summary(20_000))
    assert [record[0] for record in collector.records] == keys


def test_a_rejected_record_is_told_with_its_line_though_all_was_sent_again(
    send: Run, collector: FakeCollector
) -> None:
    collector.faults += [*stale(0), "reject"]

    code, _, err = send(lines=["", '["T:1", "S", {}]', '["T:2", "S", {}]'])

    assert (code, err) == (
        1,
        "collectorctl: line 2: rejected, future: more than 60 s ahead\n",
    )


def test_a_newer_run_that_comes_amid_a_send_ends_it_with_4(
    send: Run, collector: FakeCollector
) -> None:
    collector.faults += stale(1)

    code, out, err = send(lines=[json.dumps([f"T:{n}", "S", {}]) for n in range(1500)])

    assert (code, out) == (4, "")
    assert "newer run" in err
    assert len(collector.records) == 1000


def test_a_newer_run_from_the_future_ends_it_with_4(
    send: Run, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctl_send, "ATTEMPTS", 3)
    collector.epoch = 2**62

    code, _, err = send(KEY, STRUCT, "a=1")

    assert (code, len(collector.received)) == (4, 3)
    assert "newer run" in err


def test_people_get_a_sentence(send: Run) -> None:
    assert send(KEY, STRUCT, "a=1", "--table")[1] == "1 acknowledged, 0 rejected, 0 unreadable\n"


@pytest.fixture
def stream() -> Iterator[FakeStream]:
    with FakeStream() as running:
        yield running


@pytest.fixture
def watching(stream: FakeStream) -> Iterator[Watch]:
    """Starts ``watch`` in a process of its own, and ends it if the test doesn't."""
    started = []

    def start(*arguments: str, prefix: str) -> subprocess.Popen[str]:
        command = [*COMMAND, "watch", *arguments, "--stream", stream.address]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        stream.wait_for_subscription(prefix)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_watch_prints_changes_of_keys_that_match_and_ends_after_count(
    stream: FakeStream, watching: Watch
) -> None:
    process = watching("T:*1", "--count", "2", prefix="T:")
    stream.send("T:2", "S", {"a": 1})
    stream.send("T:1", "S", {"a": 1})
    stream.send("T:11", "S", None)

    out, err = process.communicate(timeout=20)

    assert [json.loads(line) for line in out.splitlines()] == [
        {"key": "T:1", "struct": "S", "value": {"a": 1}, "deleted": False},
        {"key": "T:11", "struct": "S", "value": None, "deleted": True},
    ]
    assert (process.returncode, err) == (0, "")


def test_watch_for_people_is_a_line_for_each_change(stream: FakeStream, watching: Watch) -> None:
    process = watching("--count", "2", "--table", prefix="")
    stream.send("T:1", "S", {"a": "\x1b[31m" + "x" * 200})
    stream.send("T:1", "S", None)

    lines = process.communicate(timeout=20)[0].splitlines()

    assert len(lines) == 2
    assert r'T:1 S {"a": "\u001b[31mxxx' in lines[0]
    assert lines[1].endswith("T:1 S deleted")


def test_watch_ends_quietly_with_ctrl_c(stream: FakeStream, watching: Watch) -> None:
    process = watching(prefix="")
    stream.send("T:1", "S", {})
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_watch_without_changes_ends_with_1_after_its_seconds(
    stream: FakeStream, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["watch", "--seconds", "0.01", "--stream", stream.address]) == 1

    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_ends_it_quietly(stream: FakeStream, watching: Watch) -> None:
    process = watching(prefix="")
    stream.send("T:1", "S", {})
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    stream.send("T:2", "S", {})

    assert process.wait(timeout=20) == 0
    assert process.stderr.read() == ""


def test_on_a_terminal_answers_are_tables(answers: Answers) -> None:
    answers.replies.append(reply(tables={"ObjectVNTable": 3}))
    ours, theirs = pty.openpty()
    with FakeServer(answers) as server, os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            subprocess.run(
                [*COMMAND, "list", "--query", server.address], stdout=theirs, check=True, timeout=20
            )
            seen = screen.read(4096).decode()
        finally:
            os.close(theirs)

    assert "ObjectVNTable" in seen
    assert "{" not in seen


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (1_700_000_000_000_000, "2023-11-14 22:13:20Z"),
        ((1 << 64) - 1, "18446744073709551615"),
        (0, "never"),
        (None, "never"),
    ],
)
def test_moments(microseconds: int | None, text: str) -> None:
    assert terminal.moment(microseconds) == text
