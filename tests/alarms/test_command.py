"""What a command gets, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from alarms.telling import serving, settled, told, until
from collectord.alarms import notifiers
from collectord.alarms.notification import Kind, Notifier
from collectord.alarms.notifiers import command, delivery
from collectord.settings import ConfigurationError


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(command, "START_PAUSE", 0.001)


class Script:
    """A program in Python; ``here`` is its directory, which it begins in."""

    def __init__(self, directory: Path, text: str) -> None:
        self.here = directory
        self.path = directory / "program"
        lines = [
            f"#!{sys.executable} -SE",
            "import json, os, sys, time",
            f"os.chdir({str(directory)!r})",
        ]
        self.path.write_text("\n".join([*lines, text]))
        self.path.chmod(0o755)

    def notifier(self, *options: str, arguments: str = "") -> Notifier:
        line = f"ALARM.command={self.path} {arguments}"
        (notifier,) = notifiers.build(settled("ALARM.log=false", line, *options), "h1")
        return notifier

    def wrote(self, name: str) -> str:
        path = self.here / name
        return path.read_text() if path.exists() else ""


def is_running(process: str) -> bool:
    """Whether the process with that number runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{int(process)}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_gets_the_event_its_arguments_and_some_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTORD_ALARM_WEBHOOK", "http://me:secret@example.com")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("TZ", "UTC")
    script = Script(
        tmp_path,
        "json.dump([sys.argv[1:], dict(os.environ), json.load(sys.stdin)], open('new', 'w'))\n"
        "os.rename('new', 'got')",
    )

    async def run() -> None:
        notifier = script.notifier(arguments="--to 'a b' $HOME;")
        async with serving(notifier):
            notifier.notify(told(Kind.CLEARED, key="T:a\nb"))
            await until(lambda: notifier.counters["command_sent"])
        assert notifier.counters == {"command_sent": 1, "command_failed": 0, "command_dropped": 0}

    asyncio.run(run())
    arguments, variables, event = json.loads(script.wrote("got"))
    assert arguments == ["--to", "a b", "$HOME;"]
    assert event["kind"] == "cleared"
    assert event["key"] == "T:a\nb"
    assert event["collector"] == "h1"
    assert {name: text for name, text in variables.items() if name.startswith("ALARM_")} == {
        "ALARM_KIND": "cleared",
        "ALARM_KEY": "T:a\\nb",
        "ALARM_RULE": "flood",
        "ALARM_SEVERITY": "major",
        "ALARM_TOKEN": "t1",
    }
    assert (variables["LC_TIME"], variables["TZ"]) == ("C", "UTC")
    assert variables["PATH"] == os.environ["PATH"]
    inherited = {name for name in variables if not name.startswith(("ALARM_", "LC_"))}
    assert inherited <= set(command.INHERITED)


def test_what_is_of_one_alarm_is_told_in_order(tmp_path: Path) -> None:
    script = Script(tmp_path, "open('got', 'a').write(os.environ['ALARM_TOKEN'] + ' ')")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            for number in range(10):
                notifier.notify(told(Kind.CHANGED, token=str(number)))
            await until(lambda: notifier.counters["command_sent"] == 10)

    asyncio.run(run())
    assert script.wrote("got") == "0 1 2 3 4 5 6 7 8 9 "


def test_some_run_at_once_but_not_many(tmp_path: Path) -> None:
    script = Script(
        tmp_path,
        "open(f'running-{os.getpid()}', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)",
    )

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            for number in range(50):
                notifier.notify(told(key=f"T:{number}"))
            await until(lambda: len(list(tmp_path.glob("running-*"))) == command.LANES)
            assert notifier.waiting == 50
            (tmp_path / "go").touch()
            await until(lambda: notifier.counters["command_sent"] == 50)

    asyncio.run(run())


def test_one_that_fails_is_run_again_some_times(tmp_path: Path) -> None:
    script = Script(tmp_path, "open('runs', 'a').write('x')\nsys.exit(3)")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_dropped"] == 1)
            assert notifier.counters["command_failed"] == command.ATTEMPTS
            assert notifier.problems() == [
                f"command {str(script.path)!r} is not told of alarms: it ended with exit code 3"
            ]

    asyncio.run(run())
    assert script.wrote("runs") == "x" * command.ATTEMPTS


def test_one_that_succeeds_in_the_end_is_no_problem_any_more(tmp_path: Path) -> None:
    script = Script(tmp_path, "open('runs', 'a').write('x')\nassert os.path.getsize('runs') > 2")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_sent"] == 1)
            assert notifier.counters["command_failed"] == 2
            assert not notifier.problems()

    asyncio.run(run())


def test_one_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = Script(
        tmp_path,
        "child = os.fork()\n"
        "open('child' if child else 'parent', 'w').write(str(child or os.getppid()))\n"
        "time.sleep(3600)",
    )

    async def run() -> None:
        notifier = script.notifier("ALARM.timeout=1")
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: script.wrote("child") and script.wrote("parent"))
            processes = script.wrote("child"), script.wrote("parent")
            await until(lambda: notifier.counters["command_failed"])
            (problem,) = notifier.problems()
            assert problem.endswith("it ran longer than 1 s, and was killed")
            await until(lambda: not any(is_running(process) for process in processes))

    asyncio.run(run())


def test_cancelled_it_leaves_nobody_running_and_the_end_tells_it_anew(tmp_path: Path) -> None:
    script = Script(
        tmp_path,
        "if os.path.exists('go'): sys.exit()\n"
        "open('new', 'w').write(str(os.getpid()))\nos.rename('new', 'running')\n"
        "time.sleep(3600)",
    )

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            process = await until(lambda: script.wrote("running"))
        assert not is_running(process)
        assert notifier.waiting == 1
        (tmp_path / "go").touch()
        await notifier.finish(20)
        assert notifier.counters == {"command_sent": 1, "command_failed": 0, "command_dropped": 0}

    asyncio.run(run())


def test_the_end_leaves_nobody_running(tmp_path: Path) -> None:
    script = Script(
        tmp_path,
        "open('new', 'w').write(str(os.getpid()))\nos.rename('new', 'running')\ntime.sleep(3600)",
    )

    async def run() -> None:
        notifier = script.notifier()
        notifier.notify(told())
        ending = asyncio.create_task(notifier.finish(1))
        process = await until(lambda: script.wrote("running"))
        await ending
        assert not is_running(process)
        assert notifier.counters["command_dropped"] == 1

    asyncio.run(run())


def test_one_that_reads_nothing_is_no_failure(tmp_path: Path) -> None:
    script = Script(tmp_path, "")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            for number in range(10):
                notifier.notify(told(key="T:" + "x" * 1000 + str(number)))
            await until(lambda: notifier.counters["command_sent"] == 10)
        assert notifier.counters["command_failed"] == 0

    asyncio.run(run())


def test_what_it_writes_is_read_and_the_first_of_it_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", command.__name__)
    script = Script(tmp_path, "print('x' * 300_000, file=sys.stderr)\nprint('y')")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_sent"])

    asyncio.run(run())
    assert caplog.messages == [f"command {str(script.path)!r} wrote: {'x' * 1024}"]


def test_one_that_never_stops_writing_is_not_read_for_ever(tmp_path: Path) -> None:
    script = Script(tmp_path, "while True: os.write(1, b'x' * 65536)")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_failed"])
            (problem,) = notifier.problems()
        assert "is not told of alarms: it ended with exit code 1" in problem

    asyncio.run(run())


def test_one_whose_child_lives_on_has_ended(tmp_path: Path) -> None:
    """And what it was told is not told again, though the child has the pipes open."""
    script = Script(
        tmp_path,
        "if child := os.fork(): open('child', 'w').write(str(child)); os._exit(0)\n"
        "time.sleep(3600)",
    )

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_sent"])
        assert notifier.counters["command_failed"] == 0

    try:
        asyncio.run(run())
        assert is_running(script.wrote("child"))
    finally:
        os.kill(int(script.wrote("child")), 9)


def test_one_that_has_vanished_is_a_problem(tmp_path: Path) -> None:
    script = Script(tmp_path, "")

    async def run() -> None:
        notifier = script.notifier()
        script.path.unlink()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_dropped"])
            (problem,) = notifier.problems()
        assert problem.endswith("it can't be started: No such file or directory")

    asyncio.run(run())


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    script = Script(tmp_path, "sys.exit(len(os.listdir('/proc/self/fd')) > 4)")

    async def run() -> None:
        notifier = script.notifier()
        async with serving(notifier):
            notifier.notify(told())
            await until(lambda: notifier.counters["command_sent"] == 1)
            before = len(os.listdir("/proc/self/fd"))
            for number in range(20):
                notifier.notify(told(key=f"T:{number}"))
            await until(lambda: notifier.counters["command_sent"] == 21)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/nonexistent/program a", "'/nonexistent/program' is no program that can be run"),
        ("/etc/passwd", "'/etc/passwd' is no program that can be run"),
        ("/bin/echo 'a", "cannot be split into words: No closing quotation"),
        ("'' a", "'' is no program that can be run"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(line: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        notifiers.build(settled("ALARM.log=false", f"ALARM.command={line}"), "h1")
    (sentence,) = error.value.errors
    assert sentence.startswith(f"command line: ALARM.command: {reason}")
