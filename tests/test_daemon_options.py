"""The options of a collector, as who runs it sees them: what it takes on, and what it refuses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from daemon import METRIC, Daemon, run

SECTIONS = ["COLLECTOR", "QUERY", "STREAM"]
FREE = [f"--{section}.port=0" for section in SECTIONS]


def write(path: Path, *lines: str) -> list[str]:
    path.write_text("\n".join(["[DEFAULT]", *lines, ""]))
    return ["--conf_file", str(path)]


def proxy_list(algorithm: str) -> str:
    return f"{METRIC}:{algorithm}"


def configured(daemon: Daemon) -> Any:
    return daemon.ask("menu")["configured"][METRIC]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_port_in_use_is_a_clear_error_and_exit_code_1(section: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = run(*FREE, f"--{section}.port={port}")

    assert ended.returncode == 1
    assert ended.stdout == ""
    (sentence,) = ended.stderr.splitlines()
    assert f"cannot listen on tcp://127.0.0.1:{port}" in sentence
    assert "in use" in sentence
    assert f"{section}.port" in sentence


def test_two_sections_with_one_port_are_an_error() -> None:
    with Daemon() as other:
        port = other.query.rsplit(":")[-1]

        ended = run(*FREE, f"--STREAM.port={port}", f"--QUERY.port={port}")

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


def test_an_address_that_is_not_this_host_s_is_an_error_at_run_time() -> None:
    ended = run(*FREE, "--DEFAULT.hostip=192.0.2.1", "--SECURITY.insecure=true")

    assert ended.returncode == 1
    assert "192.0.2.1" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--DEFAULT.uve_proxy_list=A-b:AggProxyMedian", "unknown algorithm 'AggProxyMedian'"),
        ("--DEFAULT.uve_proxy_list=nonsense", "malformed entry 'nonsense'"),
        ("--DEFAULT.colour=blue", "unknown option '--DEFAULT.colour'"),
        ("--COLLECTOR.port=99999", "'99999'"),
        ("--conf_file=/nowhere.conf", "/nowhere.conf"),
        ("--DEFAULT.log_file=/nowhere/x.log", "/nowhere/x.log"),
    ],
)
def test_a_wrong_configuration_is_told_with_exit_code_2(argument: str, sentence: str) -> None:
    ended = run(*FREE, argument)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_checking_the_configuration_shows_no_secrets() -> None:
    secret = "http://me:pass@a.test:9/T0ken?key=s3cret"

    ended = run("--check_config", f"--ALARM.webhook={secret}", f"--ALARM.alertmanager={secret}")

    assert ended.returncode == 2
    assert "'http://a.test:9' has a query" in ended.stderr
    assert not [word for word in ("me:", "T0ken", "s3cret") if word in ended.stderr]

    ended = run("--check_config", f"--ALARM.webhook={secret}")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "what may be secret is left out" in ended.stdout
    assert "\nwebhook=http://a.test:9\n" in ended.stdout


def test_all_that_is_wrong_is_told_at_once() -> None:
    ended = run("--DEFAULT.uve_proxy_list=x y:z", "--QUERY.port=no", "--DEFAULT.colour=blue")

    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 4


def test_the_later_file_wins_over_the_earlier(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one.conf", f"uve_proxy_list={proxy_list('AggProxySum')}", "hostname=one"
    )
    two = write(tmp_path / "two.conf", f"uve_proxy_list={proxy_list('AggProxyMax')}")

    with Daemon(*one, *two) as daemon:
        assert configured(daemon) == ["AggProxyMax"]
        assert daemon.ask("status")["hostname"] == "one"


def test_the_environment_wins_over_files(tmp_path: Path) -> None:
    file = write(tmp_path / "one.conf", f"uve_proxy_list={proxy_list('AggProxySum')}")
    environ = {"COLLECTORD_DEFAULT_UVE_PROXY_LIST": proxy_list("AggProxyMin")}

    with Daemon(*file, environ=environ) as daemon:
        assert configured(daemon) == ["AggProxyMin"]


def test_the_command_line_wins_over_all(tmp_path: Path) -> None:
    file = write(tmp_path / "one.conf", f"uve_proxy_list={proxy_list('AggProxySum')}")
    environ = {"COLLECTORD_DEFAULT_UVE_PROXY_LIST": proxy_list("AggProxyMin")}

    with Daemon(
        "--DEFAULT.uve_proxy_list", proxy_list("AggProxyLast"), *file, environ=environ
    ) as daemon:
        assert configured(daemon) == ["AggProxyLast"]


def test_without_options_it_listens_on_this_host_alone_with_30_partitions() -> None:
    with Daemon() as daemon:
        status = daemon.ask("status")

    assert status["partitions"] == 30
    assert all(endpoint.startswith("tcp://127.0.0.1:") for endpoint in status["listens"].values())


def test_a_section_s_server_wins_over_hostip() -> None:
    with Daemon("--DEFAULT.hostip=127.0.0.2", "--QUERY.server=127.0.0.3") as daemon:
        assert daemon.ingest.startswith("tcp://127.0.0.2:")
        assert daemon.query.startswith("tcp://127.0.0.3:")
        assert daemon.stream.startswith("tcp://127.0.0.2:")
        daemon.assert_goes_on()


def test_the_largest_batch_is_an_option() -> None:
    with Daemon("--COLLECTOR.message_size=2KiB") as daemon, daemon.source() as source:
        batch = source.batch(epoch=1, seq=1, rest=b"x" * 2048)

        assert source.send(batch)["error"]["code"] == "too_large"
        assert source.tell() == {"seq": 1, "applied": 0, "durable": 0}


def test_the_log_goes_to_its_file(tmp_path: Path) -> None:
    log = tmp_path / "collector.log"

    # Whether it serves is told on standard error only where there is no file: so it is not awaited.
    ended = run(
        *FREE, f"--DEFAULT.log_file={log}", "--DEFAULT.hostip=192.0.2.1", "--SECURITY.insecure=true"
    )

    assert ended.returncode == 1
    assert log.exists()
