"""``collectord-netops`` as people meet it: processes, their output, their exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord import __version__
from collectord.netops.command import COMMANDS, main
from collectord.netops.command_common import seconds
from daemon import DEADLINE, Daemon, clean_environment, until

SMALL: dict[str, Any] = {
    "deployment": {"num_companies": 1, "num_sites_per_company": 2, "num_devices_per_site": 3}
}
DEVICES = 6
METRICS = ("cpu_utilization", "throughput")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    metrics = (f"Uve{what}-{name}" for what in ("Device", "Site", "Company") for name in METRICS)
    proxied = " ".join(f"{metric}:AggProxySum" for metric in metrics)
    with Daemon("--SNAPSHOT.directory=", f"--DEFAULT.uve_proxy_list={proxied}") as started:
        yield started


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "collectord.netops", *arguments],
        env={
            name: value
            for name, value in clean_environment().items()
            if not name.startswith("COLLECTORCTL_")
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], lines: str = "") -> tuple[int, str, str]:
    out, complaints = process.communicate(lines, timeout=60)
    return process.returncode, out, complaints


def run(*arguments: str, configuration: Any = SMALL) -> tuple[int, str, str]:
    """How ``run -`` ends with this configuration in its standard input."""
    text = configuration if isinstance(configuration, str) else json.dumps(configuration)
    return ended(start("run", "-", *arguments), text)


def test_check_says_what_a_configuration_means() -> None:
    code, out, complaints = run("--check", "--json", "--interval", "0.5")

    assert (code, complaints) == (0, "")
    meant = json.loads(out)
    assert list(meant["sites"].values()) == [3, 3]
    assert meant["virtual_networks"] == {}
    assert meant["metrics"] == list(METRICS)
    assert meant["values_per_second"] == DEVICES * len(METRICS) / 0.5
    assert meant["uve_proxy_list"].split()[0] == (
        "UveDevice-cpu_utilization:AggProxySum:AggProxySumAnomalyEWM01"
    )


def test_the_collector_takes_the_line_that_check_says() -> None:
    _, out, _ = run("--check", "--json", configuration={"virtual_networks": {}})
    line = json.loads(out)["uve_proxy_list"]

    with Daemon("--SNAPSHOT.directory=", f"--DEFAULT.uve_proxy_list={line}") as daemon:
        configured = daemon.ask("menu")["configured"]

    assert len(configured) == 3 * len(METRICS) + 2
    assert "UveVirtualNetworkAgent-egress_flow_count" in configured


def test_check_for_people_can_be_read_and_copied() -> None:
    code, out, _ = run("--check", "--table")

    assert code == 0
    assert "2 sites, 6 that report them:\n" in out
    assert "every 1 s, 12 values/s in all\n" in out
    assert "\nuve_proxy_list=UveDevice-cpu_utilization:" in out


@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "run"])
def test_everything_that_is_wrong_has_a_line(check: list[str]) -> None:
    wrong = {"interval": -1, "deployment": {"num_companies": "two"}}

    code, out, complaints = run(*check, configuration=wrong)

    assert (code, out) == (2, "")
    first, second = sorted(complaints.splitlines())
    assert first.startswith("collectord-netops: deployment.num_companies: must be a whole number")
    assert second.startswith("collectord-netops: interval: must be at least ")


@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "run"])
def test_a_failure_planned_for_nobody_has_a_line(check: list[str]) -> None:
    wrong = {"errors": [{"devices": "nobody", "step": 1}, {"devices": "*/7", "step": 1}]}

    code, out, complaints = run(*check, configuration=wrong)

    assert (code, out) == (2, "")
    first, second = complaints.splitlines()
    assert first.startswith("collectord-netops: errors.0.devices: must fit somebody, not 'nobody'")
    assert second.startswith("collectord-netops: errors.1.devices: must fit somebody, not '*/7'")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "/no/such.json"], "/no/such.json: No such file or directory; write a file"),
        (["run", "--check", "/"], "/: Is a directory; write a file"),
        (["run", "--target", "carrier-pigeon:home"], "there is no target 'carrier-pigeon'; known"),
        (
            ["run", "--check", "--target", "function:nobody"],
            "no function 'nobody'; known are: netops-demo",
        ),
        (["run", "--collector", "tcp://nowhere"], "is no address of a collector"),
        (["run", "--history", "a while"], "'a while' is not a time; write seconds, or a number"),
        (["run", "--interval", "0"], "argument --interval: must be more than 0"),
        (["run", "--speed", "0.5"], "'0.5' is not a factor from 1 on"),
        (["run", "--key", "some.key_secret"], "--server_key is missing"),
        (["run", "--history", "30000d"], "begin before 1970"),
        (["run", "--seed", "-1"], "seed: must be at least 0, not -1"),
        (["serve", "--port", "70000"], "'70000' is not a port"),
        (["serve", "--function", "ingest"], "'ingest' is not NAME=TARGET"),
        (["serve", "--configuration", "/no/such.json"], "No such file"),
        ([], "the following arguments are required: COMMAND"),
        (["explode"], "invalid choice: 'explode'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_ends_with_2_and_a_sentence(
    daemon: Daemon, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[:1] == ["run"] and "--collector" not in arguments:
        arguments = [*arguments, "--collector", daemon.ingest]

    code: object
    try:
        code = main(arguments)
    except SystemExit as ending:
        code = ending.code

    assert code == 2
    assert complaint in capsys.readouterr().err


def test_history_is_applied_and_counted(daemon: Daemon) -> None:
    before = daemon.counter("records")

    code, out, complaints = run("--collector", daemon.ingest, "--history", "5m", "--duration", "0")

    assert (code, complaints) == (0, "")
    counts = json.loads(out)
    assert counts["values"] == 300 * DEVICES * len(METRICS)
    assert counts["rejected"] == 0
    assert counts["sent"] == counts["applied"] > 300 * DEVICES * 3  # device, site and company
    assert daemon.counter("records") - before == counts["applied"]


def test_live_goes_on_for_its_duration(daemon: Daemon) -> None:
    code, out, _ = run(
        *("--collector", daemon.ingest, "--duration", "1s", "--speed", "60", "--interval", "5s")
    )

    assert code == 0
    values = json.loads(out)["values"]
    # A minute of the network, less what a busy machine did not come to.
    assert DEVICES * len(METRICS) <= values <= 13 * DEVICES * len(METRICS)


def test_on_a_terminal_there_is_a_bar_and_a_sentence(daemon: Daemon) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "collectord.netops", "run", "--collector", daemon.ingest),
            *("--history", "12h", "--interval", "10", "--duration", "0"),
        ],
        env={**clean_environment(), "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as screen:
        while part := screen.read(4096):  # ends with an error when nobody has the other end
            written += part

    assert process.wait(DEADLINE) == 0
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert re.search(r"history .*━.*\d+% .* values", seen)
    assert re.search(r"172800 values, (\d+) sent, \1 applied, 0 rejected", seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_with_its_counts(daemon: Daemon, number: signal.Signals) -> None:
    before = daemon.counter("records")
    process = start("run", "--collector", daemon.ingest, "--interval", "0.05")
    until(lambda: daemon.counter("records") > before)

    process.send_signal(number)
    code, out, complaints = ended(process)

    assert code == 0
    assert "Traceback" not in complaints
    counts = json.loads(out)
    assert counts["sent"] >= counts["applied"] > 0


def test_a_history_that_is_interrupted_ends_with_130(daemon: Daemon) -> None:
    before = daemon.counter("records")
    process = start("run", "--collector", daemon.ingest, "--history", "365d", "--duration", "0")
    until(lambda: daemon.counter("records") > before)

    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)

    assert code == 130
    assert json.loads(out)["applied"] > 0


def test_history_that_the_collector_had_before_comes_late_and_ends_with_1() -> None:
    metrics = "UveDevice-throughput:AggProxySum UveDevice-cpu_utilization:AggProxySum"
    with Daemon("--SNAPSHOT.directory=", f"--DEFAULT.uve_proxy_list={metrics}") as daemon:
        whole = (
            *("--collector", daemon.ingest, "--query", daemon.query),
            *("--history", "30m", "--duration", "0"),
        )
        first, out, complaints = run(*whole)
        again, out_again, _ = run(*whole)

    assert (first, json.loads(out)["late"]) == (0, 0)
    assert "makes no sums of UveSite-cpu_utilization, UveSite-throughput, Uve" in complaints
    assert again == 1
    assert json.loads(out_again)["late"] > 0


def test_what_comes_late_is_not_known_where_nobody_can_be_asked(daemon: Daemon) -> None:
    code, out, complaints = run(
        *("--collector", daemon.ingest, "--query", "127.0.0.1:1", "--timeout", "0.2"),
        *("--history", "10", "--duration", "0"),
    )

    assert code == 0
    assert "late" not in json.loads(out)
    assert "how many samples come late is not known: no answer" in complaints


@pytest.mark.parametrize("wrong", ["nan", "-1", "0"])
def test_a_timeout_is_a_time(wrong: str) -> None:
    code, out, complaints = run("--timeout", wrong)

    assert (code, out) == (2, "")
    assert "argument --timeout" in complaints


def test_what_the_collector_rejects_ends_with_1() -> None:
    with Daemon("--SNAPSHOT.directory=", "--LIMITS.keys=2") as daemon:
        code, out, complaints = run(
            *("--collector", daemon.ingest, "--history", "10", "--duration", "0")
        )

    assert code == 1
    assert json.loads(out)["rejected"] > 0
    assert "first rejected: limit" in complaints


def test_without_a_collector_it_ends_with_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, out, complaints = run("--collector", f"127.0.0.1:{port}", "--timeout", "0.1")
    assert (code, out) == (3, "")
    assert complaints == (
        f"collectord-netops: no answer from tcp://127.0.0.1:{port} within 0.1 s\n"
    )


def test_a_target_that_fails_ends_it_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, _, complaints = run("--target", f"http://127.0.0.1:{port}/x", "--history", "5")
    assert code == 1
    assert "collectord-netops: the run ends: POST to http://127.0.0.1:" in complaints


def test_the_target_response_is_standard_output() -> None:
    code, out, _ = run("--target", "response", "--history", "3", "--duration", "0")
    assert code == 0
    emitters = json.loads(out)
    assert len(emitters) == DEVICES
    for emitter in emitters.values():
        assert len(emitter["metrics"]["throughput"]["values"]) == 3


def test_the_target_log_is_told_on_standard_error() -> None:
    code, _, complaints = run("--target", "log", "--history", "2", "--duration", "0")
    assert code == 0
    told = [json.loads(line.split(" ", 1)[1]) for line in complaints.splitlines()]
    assert sum(len(emitters) for emitters in told) == DEVICES


def test_the_same_seed_gives_the_same_series() -> None:
    def names(seed: int) -> Any:
        _, out, _ = run("--check", "--json", "--seed", str(seed))
        return json.loads(out)["sites"]

    assert names(1) == names(1) != names(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_a_signal_ends_it(
    daemon: Daemon, number: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "netops.json"
    file.write_text(json.dumps(SMALL))
    process = start(
        *("serve", "--port", "0", "--collector", daemon.ingest, "--configuration", str(file))
    )
    assert process.stderr
    address = process.stderr.readline().split()[-1]

    with urllib.request.urlopen(f"{address}/sites", timeout=DEADLINE) as answer:
        sites = json.load(answer)
    process.send_signal(number)

    assert [site["devices"] for site in sites] == [3, 3]
    assert ended(process) == (0, "", "")


def test_a_port_that_is_taken_ends_serve_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, complaints = ended(start("serve", "--port", str(port), "--host", "127.0.0.1"))
    assert code == 1
    assert f"can't listen on 127.0.0.1, port {port}: Address already in use" in complaints


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    help_text = capsys.readouterr().out
    assert f"example:\n  collectord-netops {name}" in help_text
    assert "exit codes:" in help_text


def test_the_version_is_collectord_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"collectord-netops {__version__}\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("pydantic", ["run", "--check"], "netops"),
        ("faker", ["run", "--check"], "netops"),
        ("fastapi", ["serve"], "netops"),
        ("faker", ["demo"], "netops"),
        ("faker", ["score"], "netops"),
        ("matplotlib", ["score", "--plot", "score.png"], "plots"),
    ],
    ids=str,
)
def test_what_is_not_installed_is_named_with_its_extra(
    missing: str, arguments: list[str], extra: str
) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"from collectord.netops.command import main; sys.exit(main({arguments!r}))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"collectord-netops: {missing} is missing; install it with: "
        f"pip install 'collectord[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("1.5", 1.5), ("15s", 15), ("15m", 900), ("24h", 86_400), ("1d", 86_400)],
)
def test_times_have_units(text: str, value: float) -> None:
    assert seconds(text) == value
