"""``collectorctl rules check`` and ``rules test``: what they find, what they print."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord import ctl
from fake_collector import Answers, FakeServer

Run = Callable[..., tuple[int, str, str]]

NOWHERE = "tcp://127.0.0.1:1"
ROOT = Path(__file__).parent.parent
KEY = "ObjectVNTable:demo:vn1"
STRUCT = "UveVirtualNetworkAgent"
METRIC = f"{STRUCT}-egress_flow_count"
SIGMA = f"AggProxySumAnomalyEWM01-{METRIC}.value.sigma"
COUNT = f"{STRUCT}.egress_flow_count"


def condition(
    operand1: str = COUNT, operation: str = ">", value: str = "5", **members: Any
) -> dict[str, Any]:
    operand2 = {"json_value": value}
    return {"operation": operation, "operand1": operand1, "operand2": operand2, **members}


def rule(*conditions: dict[str, Any], name: str = "many-flows", **fields: Any) -> dict[str, Any]:
    """A rule of one ``and_list``."""
    and_list = list(conditions) or [condition()]
    return {
        "name": name,
        "uve_keys": ["ObjectVNTable"],
        "severity": 1,
        "alarm_rules": {"or_list": [{"and_list": and_list}]},
        **fields,
    }


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``rules`` with these rules in a file: gives exit code, output, errors."""

    def run(command: str, rules: Any, *arguments: str) -> tuple[int, str, str]:
        path = tmp_path / "rules.json"
        path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
        code = ctl.main(["rules", command, str(path), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def query(answers: Answers) -> Iterator[str]:
    with FakeServer(answers) as server:
        yield server.address


@pytest.fixture
def view_file(tmp_path: Path) -> Callable[[Any], str]:
    def write(view: Any) -> str:
        path = tmp_path / "view.json"
        path.write_text(view if isinstance(view, str) else json.dumps(view))
        return str(path)

    return write


def standard_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# ---- rules check -------------------------------------------------------------------------------


def test_rules_that_are_right_are_counted(run: Run) -> None:
    code, out, err = run("check", [rule(), rule(name="other", enabled=False)])

    assert (code, err) == (0, "")
    assert json.loads(out) == {"rules": 2, "enabled": 1, "proxies": None}


def test_people_get_a_sentence(run: Run) -> None:
    assert run("check", [rule()], "--table")[1] == "1 rule, nothing wrong\n"
    assert run("check", [rule(), rule(name="b", enabled=False)], "--table")[1] == (
        "2 rules, nothing wrong; 1 of them disabled\n"
    )


def test_every_error_is_a_line_with_its_place_and_ends_it_with_2(run: Run) -> None:
    wrong = [
        rule(condition(operation="=~")),
        rule(name="second", severity=7),
        rule(condition(f"AggProxySumm-{METRIC}.value.value"), name="third", colour="red"),
    ]

    code, out, err = run("check", wrong)

    first, second, third = err.splitlines()
    assert (code, out) == (2, "")
    assert "rules[0] (many-flows) alarm_rules.or_list[0].and_list[0].operation: '=~'" in first
    assert "rules[1] (second) severity" in second
    assert "rules[2] (third)" in third
    assert "colour" in third


def test_paths_that_can_never_be_are_errors_without_any_configuration(run: Run) -> None:
    never = [
        rule(condition(f"AggProxySumm-{METRIC}.value.value")),
        rule(condition(f"AggProxySum-{METRIC}.value.sigma"), name="second"),
    ]

    code, out, err = run("check", never)

    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert "many-flows" in first
    assert "AggProxySumm" in first
    assert "second" in second
    assert "sigma" in second


def test_proxies_that_a_configuration_lacks_are_errors(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "collector.conf"
    rules = [rule(condition(SIGMA)), rule(condition(SIGMA), name="off", enabled=False)]
    path.write_text(f"[DEFAULT]\nuve_proxy_list={METRIC}:AggProxySum\n")

    code, _, err = run("check", rules, "--conf_file", str(path))
    assert code == 2
    assert err.count("\n") == 1
    assert "AggProxySumAnomalyEWM01" in err

    path.write_text(f"[DEFAULT]\nuve_proxy_list={METRIC}:AggProxySumAnomalyEWM01\n")
    code, out, _ = run("check", rules, "--conf_file", str(path))
    assert code == 0
    assert json.loads(out)["proxies"] == str(path)


def test_proxies_that_the_running_collector_lacks_are_errors(
    run: Run, answers: Answers, query: str
) -> None:
    for configured in ({METRIC: ["AggProxySum"]}, {METRIC: ["AggProxySumAnomalyEWM01"]}):
        answers.replies.append({"ok": True, "menu": [], "configured": configured})
    rules = [rule(condition(SIGMA))]

    refused = run("check", rules, "--live", "--query", query)
    fine = run("check", rules, "--live", "--query", query, "--table")

    assert refused[0] == 2
    assert "AggProxySumAnomalyEWM01" in refused[2]
    assert fine == (0, f"1 rule, nothing wrong; proxy UVEs as {query} has them\n", "")


def test_what_is_wrong_with_the_configuration_is_told_with_its_line(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "collector.conf"
    path.write_text("[DEFAULT]\nuve_proxy_list=nonsense\nlog_levle=SYS_INFO\n")

    code, _, err = run("check", [rule()], "--conf_file", str(path))

    assert code == 2
    assert f"collectorctl: {path}:2: DEFAULT.uve_proxy_list: malformed entry 'nonsense'" in err
    assert f"collectorctl: {path}:3: unknown option 'DEFAULT.log_levle'" in err


def test_without_the_collector_that_is_to_be_asked_it_ends_with_3(run: Run) -> None:
    code, _, err = run("check", [rule()], "--live", "--query", NOWHERE, "--timeout", "0.02")

    assert code == 3
    assert NOWHERE in err


def test_rules_are_read_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    standard_input(monkeypatch, json.dumps([rule()]))
    assert ctl.main(["rules", "check", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == 1

    standard_input(monkeypatch, "[" + " " * (1 << 20) + "]")
    assert ctl.main(["rules", "check", "-"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rules"], "required: COMMAND"),
        (["rules", "guess"], "invalid choice: 'guess'"),
        (["rules", "check"], "required: FILE"),
        (["rules", "check", "/nowhere/rules.json"], "/nowhere/rules.json"),
        (["rules", "check", os.devnull], f"{os.devnull}: "),
        (["rules", "check", "{rules}", "--live", "--conf_file", "x"], "give one of them"),
        (["rules", "test", "{rules}"], "--uve KEY, or --view FILE"),
        (["rules", "test", "-", "--view", "-"], "standard input"),
        (["rules", "test", "{rules}", "--view", "/nowhere/view.json"], "can't be read"),
        (["rules", "test", "{rules}", "--view", os.devnull], "is not JSON"),
        (["rules", "test", "{rules}", "--view", "{rules}"], "is no view"),
        (["rules", "test", "/nowhere/rules.json", "--uve", KEY], "/nowhere/rules.json"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_makes_no_sense_ends_with_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([rule()]))
    try:
        code: object = ctl.main([word.format(rules=path) for word in arguments])
    except SystemExit as ended:
        code = ended.code

    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "test"])
def test_each_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main(["rules", command, "--help"])

    assert ended.value.code == 0
    assert f"example:\n  collectorctl rules {command}" in capsys.readouterr().out


def test_without_the_library_it_says_how_to_install_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([rule()]))
    # As if it were not installed: in a process of its own, where nobody has imported it.
    program = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from collectord import ctl; sys.exit(ctl.main(sys.argv[1:]))"
    )
    arguments = ["rules", "check", str(path)]

    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr == (
        "collectorctl: pydantic is missing; install it with: pip install 'collectord[alarms]'\n"
    )


# ---- rules test --------------------------------------------------------------------------------


def test_rules_are_tried_on_the_view_of_a_collector(run: Run, answers: Answers, query: str) -> None:
    view = {STRUCT: {"egress_flow_count": 7}, "UVEAlarms": {"alarms": []}}
    answers.replies.append({"ok": True, "uve": view})
    rules = [
        rule(),
        rule(condition(value="8"), name="more", severity=0, enabled=False, active_timer=60),
        rule(condition("UVEAlarms.alarms", "size==", "0"), name="of-alarms"),
        rule(name="elsewhere", uve_keys=["ObjectVNTable:other:*"]),
    ]

    code, out, err = run("test", rules, "--uve", KEY, "--query", query)

    result = json.loads(out)
    assert (code, err) == (0, "")
    assert answers.requests == [{"op": "get", "key": KEY}]
    assert (result["key"], result["others"]) == (KEY, ["elsewhere"])
    assert [(tried["name"], tried["holds"]) for tried in result["rules"]] == [
        ("many-flows", True),
        ("more", False),
        ("of-alarms", False),
    ]
    [explained] = result["rules"][0]["conditions"]
    assert explained["place"] == "or_list[0].and_list[0]"
    assert explained["condition"]["operand1"] == COUNT
    assert (explained["operand1"], explained["operand2"]) == (["7"], ["5"])
    assert explained["holds"] is True


def test_a_view_in_a_file_does_without_a_collector_and_tries_all_rules(
    run: Run, view_file: Callable[[Any], str]
) -> None:
    file = view_file({STRUCT: {"egress_flow_count": 7}})
    rules = [rule(), rule(name="other", uve_keys=["ObjectVRouter"])]

    without_key = json.loads(run("test", rules, "--view", file)[1])
    with_key = json.loads(run("test", rules, "--view", file, "--uve", KEY)[1])

    assert [tried["holds"] for tried in without_key["rules"]] == [True, True]
    assert [tried["name"] for tried in with_key["rules"]] == ["many-flows"]
    assert with_key["others"] == ["other"]


def test_a_view_is_read_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, json.dumps({STRUCT: {"egress_flow_count": 7}}))

    code, out, _ = run("test", [rule()], "--view", "-")

    assert (code, json.loads(out)["rules"][0]["holds"]) == (0, True)


def test_people_read_whether_each_rule_holds_and_why(
    run: Run, view_file: Callable[[Any], str]
) -> None:
    view = {STRUCT: {"egress_flow_count": 7, "limit": 9, "ports": [{"n": n} for n in range(6)]}}
    rules = [
        rule(
            condition(),
            condition("Gone.a.b"),
            {
                "operation": ">=",
                "operand1": COUNT,
                "operand2": {"uve_attribute": f"{STRUCT}.limit"},
            },
            condition(f"{STRUCT}.ports.*.n", "!=", "4"),
        ),
        rule(name="soaks", active_timer=60, enabled=False),
        rule(name="elsewhere", uve_keys=["ObjectVRouter"]),
    ]

    code, out, _ = run("test", rules, "--view", view_file(view), "--uve", KEY, "--table")

    assert code == 0
    lines = out.splitlines()
    assert lines[:3] == [
        "many-flows (major) doesn't hold",
        f"  yes {COUNT} > 5",
        "      operand1 is 7: it holds",
    ]
    assert lines[3] == "  no  Gone.a.b > 5"
    assert "missing" in lines[4]
    assert "Gone" in lines[4]
    assert lines[5] == f"  no  {COUNT} >= {STRUCT}.limit"
    assert lines[6].startswith("      operand1 is 7, operand2 is 9: ")
    assert lines[8].startswith("      operand1 is 0, 1, 2 and 3 more: it holds at 5 of 6 places")
    assert (
        "soaks (major) holds; it is an alarm once it has done so for 60 s; but it is disabled"
        in lines
    )
    assert lines[-1] == "not for this UVE: elsewhere"


def test_and_lists_are_told_apart(run: Run, view_file: Callable[[Any], str]) -> None:
    rules = [rule()]
    rules[0]["alarm_rules"]["or_list"] *= 2

    out = run("test", rules, "--view", view_file({}), "--table")[1]

    assert out.splitlines().count("  or") == 1


def test_where_no_rule_is_for_the_uve_it_says_so(run: Run, view_file: Callable[[Any], str]) -> None:
    code, out, _ = run("test", [rule()], "--view", view_file({}), "--uve", "T:x", "--table")

    assert (code, out) == (0, "no rule of 1 is for T:x\n")


def test_where_there_is_no_such_uve_it_ends_with_1(run: Run, answers: Answers, query: str) -> None:
    error = {"code": "not_found", "message": "there is no UVE"}
    answers.replies.append({"ok": False, "error": error})

    code, out, err = run("test", [rule()], "--uve", KEY, "--query", query)

    assert (code, out, err) == (1, "", "collectorctl: not_found: there is no UVE\n")


def test_what_a_view_holds_is_neither_escape_nor_markup(
    run: Run, view_file: Callable[[Any], str]
) -> None:
    evil = "\x1b]0;t\x07[red]\u202e"
    view = {STRUCT: {evil: {"a": evil}}}
    rules = [rule(condition(f"{STRUCT}.*.*", "!=", json.dumps(evil + "!")))]

    out = run("test", rules, "--view", view_file(view), "--table")[1]

    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "[red]" in out


# ---- what the documents say ---------------------------------------------------------------------


def test_the_example_of_the_document_is_right_and_holds(
    run: Run, view_file: Callable[[Any], str]
) -> None:
    text = (ROOT / "docs" / "alarms.md").read_text()
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    view = {SIGMA.split(".")[0]: {"value": {"sigma": 2.9}}}

    assert run("check", found[1], "--table")[1] == "1 rule, nothing wrong\n"
    assert json.loads(run("test", found[1], "--view", view_file(view))[1])["rules"][0]["holds"]


def test_the_example_rules_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["rules", "check", str(ROOT / "conf" / "alarms.json")]) == 0
