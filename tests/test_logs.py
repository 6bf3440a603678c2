"""Where log lines go and how they look."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectord import logs
from collectord.settings import ConfigurationError, load

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (?P<host>\S+) (?P<level>SYS_[A-Z]+) "
    r"(?P<logger>[a-z.]+): (?P<message>.*)"
)

log = logging.getLogger("collectord.test")


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Gives the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    names = {number: logging.getLevelName(number) for number in logs.LEVELS.values()}
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, name in names.items():
        logging.addLevelName(number, name)


def setup(*argv: str) -> None:
    logs.setup(load(["--DEFAULT.hostname=here", *argv], {}))


def test_a_line_tells_time_host_level_logger_and_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    log.warning("%d left", 3)
    found = LINE.fullmatch(capsys.readouterr().err.removesuffix("\n"))
    assert found is not None
    assert found.groups() == ("here", "SYS_WARN", "collectord.test", "3 left")


@pytest.mark.parametrize("name", logs.LEVELS)
def test_what_is_at_least_as_severe_as_the_level_is_logged(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(f"--DEFAULT.log_level={name}")
    for level in logs.LEVELS.values():
        log.log(level, "x")
    shown = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert shown == list(logs.LEVELS)[: list(logs.LEVELS).index(name) + 1]


def test_the_level_can_change_at_run_time(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.info("before")
    logs.set_level("SYS_INFO")
    log.info("after")
    logs.set_level("SYS_WARN")
    log.log(logs.NOTICE, "later")
    assert re.findall(r"before|after|later", capsys.readouterr().err) == ["after"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\x1b[2Jb\x00\x7f\x9b", r"a\r\x1b[2Jb\x00\x7f\x9b"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("\udcff", r"\udcff"),
        ("größer 网", "größer 网"),
    ],
)
def test_nothing_in_a_message_can_forge_a_line(message: str, shown: str, tmp_path: Path) -> None:
    setup(f"--DEFAULT.log_file={tmp_path / 'log'}")
    log.error("%s", message)
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert line.endswith(f": {shown}")


def test_a_traceback_is_a_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert r"failed\nTraceback (most recent call last):\n" in line
    assert line.endswith(r"\nKeyError: 'lost'")


def test_a_log_file_is_rotated_and_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "collector.log"
    setup(
        f"--DEFAULT.log_file={path}", "--DEFAULT.log_file_size=200", "--DEFAULT.log_files_count=2"
    )
    for number in range(20):
        log.error("line %d", number)
    assert {file.name for file in tmp_path.iterdir()} == {
        "collector.log",
        "collector.log.1",
        "collector.log.2",
    }
    assert all(file.stat().st_size <= 200 for file in tmp_path.iterdir())
    assert "line 19" in path.read_text()


def test_a_log_file_of_size_0_is_never_rotated(tmp_path: Path) -> None:
    setup(f"--DEFAULT.log_file={tmp_path / 'log'}", "--DEFAULT.log_file_size=0")
    for number in range(20):
        log.error("line %d", number)
    assert len((tmp_path / "log").read_text().splitlines()) == 20


def test_a_log_file_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    setup(f"--DEFAULT.log_file={tmp_path / 'log'}")
    log.error("after")
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_log_file_that_cannot_be_opened_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "none" / "log"
    with pytest.raises(ConfigurationError) as caught:
        setup(f"--DEFAULT.log_file={path}")
    (message,) = caught.value.errors
    assert message.startswith(
        f"command line: DEFAULT.log_file: '{path}' cannot be opened: No such file or directory; "
    )


def test_without_log_local_nothing_is_written_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup("--DEFAULT.log_local=false", f"--DEFAULT.log_file={tmp_path / 'log'}")
    log.critical("x")
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_second_setup_takes_the_place_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup()
    setup(f"--DEFAULT.log_file={tmp_path / 'log'}")
    log.error("x")
    assert capsys.readouterr().err == ""
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("level", "priority"), list(zip(logs.LEVELS, range(8), strict=True)), ids=list(logs.LEVELS)
)
def test_syslog_gets_each_level_at_its_priority(
    level: str,
    priority: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "syslog"
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(path))
        syslog.settimeout(10)
        setup(
            "--DEFAULT.use_syslog=true",
            "--DEFAULT.syslog_facility=LOG_LOCAL3",
            "--DEFAULT.log_level=SYS_DEBUG",
            "--DEFAULT.log_local=false",
        )
        log.log(logs.LEVELS[level], "a\nb")
        received = syslog.recv(4096).decode()
    local3 = 19
    assert re.fullmatch(
        rf"<{local3 * 8 + priority}>collectord\[\d+\]: {level} collectord\.test: a\\nb\x00?",
        received,
    )
    assert capsys.readouterr().err == ""


def test_a_missing_syslog_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError) as caught:
        setup("--DEFAULT.use_syslog=true")
    assert "DEFAULT.use_syslog: no syslog listens on" in caught.value.errors[0]


def test_a_line_that_a_full_disk_refuses_is_counted_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = logs.counters["log_lines_lost"]
    handler = logs.StreamHandler(open("/dev/full", "w"))  # noqa: SIM115
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "lost", None, None)

    handler.handle(record)

    assert logs.counters["log_lines_lost"] == before + 1
    assert capsys.readouterr().err == ""
    with pytest.raises(OSError, match="No space left"):
        handler.stream.close()  # what waits in its buffer is refused again
