"""The command ``collectord``, as far as it goes without a running collector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collectord import __version__
from collectord.options import listing

REPOSITORY = Path(__file__).parent.parent


def collectord(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COLLECTORD_")}
    return subprocess.run(
        [sys.executable, "-m", "collectord", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
        env={**inherited, **environ},
    )


def test_help_prints_the_listing() -> None:
    run = collectord("--help")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{listing()}\n", "")


def test_version_prints_the_version() -> None:
    run = collectord("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"collectord {__version__}\n", "")


def test_check_config_prints_options_that_can_be_read_back(tmp_path: Path) -> None:
    first = collectord("--check_config", "--QUERY.port=0", COLLECTORD_STREAM_PORT="1")
    assert (first.returncode, first.stderr) == (0, "")
    path = tmp_path / "settled.conf"
    path.write_text(first.stdout)
    second = collectord("--check_config", "--conf_file", str(path))
    assert (second.returncode, second.stderr) == (0, "")
    values = [line for line in first.stdout.splitlines() if not line.startswith("#")]
    assert [line for line in second.stdout.splitlines() if not line.startswith("#")] == values


def test_the_shipped_configuration_is_good() -> None:
    run = collectord("--check_config", "--conf_file", "conf/contrail-collector.conf")
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("check", [["--check_config"], []], ids=["checked", "started"])
def test_a_bad_configuration_is_told_in_full_and_starts_nothing(
    check: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "bad.conf"
    path.write_text(
        "[DEFAULT]\nuve_proxy_list=A-b:AggProxyFoo bad\nlog_file=/tmp/unused\n[QUERY]\nport=x\n"
    )
    run = collectord(*check, "--conf_file", str(path), "--DEFAULT.log_level=INFO")
    assert (run.returncode, run.stdout) == (2, "")
    lines = run.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "command line",
        f"{path}:2",
        f"{path}:2",
        f"{path}:5",
    ]
    assert "AggProxyFoo" in lines[1]
    assert "'bad'" in lines[2]


def test_a_log_file_that_cannot_be_opened_starts_nothing(tmp_path: Path) -> None:
    run = collectord(f"--DEFAULT.log_file={tmp_path}")
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith(
        f"collectord: command line: DEFAULT.log_file: '{tmp_path}' cannot be opened: "
    )
