"""What a supervisor hears of a collector, and when it hears nothing any more."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from collectord.options import BY_NAME, SECTIONS
from collectord.service import Notifier, Pulse, feed_watchdog
from daemon import DEADLINE, Daemon, run, until

DEPLOY = Path(__file__).parent.parent / "deploy"


class Supervisor:
    """The socket that notices come to, as systemd has one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def hear(self) -> str:
        return self._socket.recv(4096).decode()

    def hear_until(self, wanted: str) -> list[str]:
        """What comes before a notice that begins so, and that notice."""
        heard = [self.hear()]
        end = time.monotonic() + DEADLINE
        while not heard[-1].startswith(wanted):
            assert time.monotonic() < end, heard
            heard.append(self.hear())
        return heard

    def has_heard(self) -> list[str]:
        """All that has come until now."""
        heard = []
        while select.select([self._socket], [], [], 0)[0]:
            heard.append(self.hear())
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    path = tmp_path / "notify"
    made = Supervisor(str(path) if request.param == "path" else f"@{path}")
    yield made
    made.close()


@pytest.fixture
def path_supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(str(tmp_path / "notify"))
    yield made
    made.close()


# ---- notices -----------------------------------------------------------------------------------


def test_notices_are_as_sd_notify_has_them(supervisor: Supervisor) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": supervisor.address})

    notifier.ready()
    notifier.status("serves")
    notifier.reloading()
    notifier.alive()
    notifier.more_time(2.5)
    notifier.stopping()

    heard = [supervisor.hear() for _ in range(6)]
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard.pop(2))
    assert heard == [
        "READY=1",
        "STATUS=serves",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
    ]


def test_a_status_is_told_where_it_differs(path_supervisor: Supervisor) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": path_supervisor.address})

    for text in ("serves", "serves", "disk full", "serves"):
        notifier.status(text)

    assert path_supervisor.has_heard() == ["STATUS=serves", "STATUS=disk full", "STATUS=serves"]


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}],
    ids=["none", "empty", "another-kind"],
)
def test_without_a_supervisor_nobody_is_told(
    environ: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(environ).ready()

    assert not caplog.records


def test_a_supervisor_that_is_gone_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()

    assert "READY=1" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(
    environ: Mapping[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog == seconds


# ---- the watchdog ------------------------------------------------------------------------------


class Parts:
    """Two parts of a collector; each look at one finds it moved, unless it stands still."""

    def __init__(self) -> None:
        self.turns = {"ingest": 0, "clock": 0}
        self.still: set[str] = set()
        self.pulse = Pulse({name: lambda name=name: self._look(name) for name in self.turns})  # type: ignore[misc]

    def _look(self, name: str) -> int:
        if name not in self.still:
            self.turns[name] += 1
        return self.turns[name]


@pytest.mark.parametrize("part", ["ingest", "clock"])
def test_the_watchdog_is_fed_as_long_as_every_part_moves(
    path_supervisor: Supervisor, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    parts = Parts()
    notifier = Notifier({"NOTIFY_SOCKET": path_supervisor.address})

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        feeding = asyncio.create_task(feed_watchdog(notifier, parts.pulse, 0.02))
        for _ in range(3):
            assert await loop.run_in_executor(None, path_supervisor.hear) == "WATCHDOG=1"
        parts.still.add(part)
        while f"{part} has not moved" not in caplog.text:
            await asyncio.sleep(0.001)
        path_supervisor.has_heard()
        await asyncio.sleep(0.1)
        assert path_supervisor.has_heard() == []
        parts.still.clear()
        assert await loop.run_in_executor(None, path_supervisor.hear) == "WATCHDOG=1"
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    asyncio.run(scenario())

    assert caplog.text.count("has not moved") == 1


def test_others_who_look_do_not_starve_it(path_supervisor: Supervisor) -> None:
    parts = Parts()
    notifier = Notifier({"NOTIFY_SOCKET": path_supervisor.address})

    async def scenario() -> None:
        feeding = asyncio.create_task(feed_watchdog(notifier, parts.pulse, 0.1))
        heard: list[str] = []
        while len(heard) < 3:
            parts.still.clear()
            parts.pulse.still()  # the move is seen here, and there is none until the next turn
            parts.still.update(parts.turns)
            await asyncio.sleep(0.02)
            heard += path_supervisor.has_heard()
        feeding.cancel()

    asyncio.run(scenario())


def test_once_cleared_only_the_loop_has_to_move(path_supervisor: Supervisor) -> None:
    parts = Parts()
    parts.still.update(parts.turns)
    parts.pulse.clear()

    assert parts.pulse.still() == {}


# ---- a collector -------------------------------------------------------------------------------


def test_a_collector_says_when_it_serves_reloads_and_stops(
    path_supervisor: Supervisor,
) -> None:
    with Daemon(environ={"NOTIFY_SOCKET": path_supervisor.address}) as daemon:
        heard = path_supervisor.hear_until("READY=1")
        assert heard[0] == "STATUS=loading"
        assert daemon.ask("status")["ok"]
        path_supervisor.hear_until("STATUS=serves")

        daemon.signal(signal.SIGHUP)
        assert path_supervisor.hear().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert path_supervisor.hear() == "READY=1"

        daemon.signal(signal.SIGTERM)
        assert path_supervisor.hear() == "STOPPING=1"


def test_a_reload_that_is_refused_ends_as_one_that_is_not(
    path_supervisor: Supervisor, tmp_path: Path
) -> None:
    file = tmp_path / "conf"
    file.write_text("")
    environ = {"NOTIFY_SOCKET": path_supervisor.address}
    with Daemon("--conf_file", str(file), environ=environ) as daemon:
        path_supervisor.hear_until("STATUS=serves")
        file.write_text("nonsense")

        daemon.signal(signal.SIGHUP)

        assert path_supervisor.hear().startswith("RELOADING=1")
        assert path_supervisor.hear() == "READY=1"
        daemon.await_log("stays as it was")


def test_a_collector_feeds_its_watchdog(path_supervisor: Supervisor) -> None:
    environ = {"NOTIFY_SOCKET": path_supervisor.address, "WATCHDOG_USEC": "2000000"}
    with Daemon(environ=environ) as daemon:
        for _ in range(3):
            path_supervisor.hear_until("WATCHDOG=1")

        daemon.await_log("a watchdog of 2 s may bite")


def test_a_collector_whose_ingest_hangs_does_not_feed_it(
    path_supervisor: Supervisor, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\n"
        "from collectord.ingest import Ingest\n"
        "Ingest._drain = lambda self: threading.Event().wait()\n"
    )
    environ = {
        "NOTIFY_SOCKET": path_supervisor.address,
        "WATCHDOG_USEC": "1000000",
        "PYTHONPATH": str(tmp_path),
    }
    with Daemon(environ=environ) as daemon, daemon.source() as source:
        source.post(source.batch())

        line = daemon.await_log("has not moved")

        assert "SYS_CRIT" in line
        assert "ingest" in line
        path_supervisor.has_heard()
        (problem,) = until(lambda: _problems(daemon))
        assert problem.startswith("ingest has not moved since ")
        assert not daemon.ask("status")["health"]["ok"]
        assert [heard for heard in path_supervisor.has_heard() if "WATCHDOG" in heard] == []
        daemon.kill()
        daemon.may_be_critical = True


def _problems(daemon: Daemon) -> list[str]:
    problems: list[str] = daemon.ask("status")["health"]["problems"]
    return problems


# ---- deploy/ -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["collectord.service", "Containerfile"])
def test_options_in_deployed_files_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    options = set(re.findall(rf"\b(?:{'|'.join(SECTIONS)})\.[a-z_]+", text))
    variables = set(re.findall(r"\bCOLLECTORD_[A-Z_]+", text))

    assert options
    assert options <= set(BY_NAME)
    assert variables <= {option.variable for option in BY_NAME.values()}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("collectord.service", r"ExecStart=/usr/bin/collectord (.*)"),
        ("Containerfile", r"ENTRYPOINT \[\"collectord\", (.*)\]"),
    ],
)
def test_a_deployed_command_is_one_that_the_collector_takes(name: str, pattern: str) -> None:
    found = re.search(pattern, (DEPLOY / name).read_text())
    assert found
    arguments = re.sub(r'[",]', " ", found[1]).split()
    configuration = DEPLOY.parent / "conf" / "contrail-collector.conf"
    arguments[arguments.index("/etc/contrail/contrail-collector.conf")] = str(configuration)

    assert run(*arguments, "--check_config").returncode == 0


def test_the_unit_waits_for_ready_and_asks_for_what_the_collector_gives() -> None:
    unit = dict(
        line.split("=", 1)
        for line in (DEPLOY / "collectord.service").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )

    assert unit["Type"] == "notify"
    assert int(unit["WatchdogSec"]) >= 10
    assert unit["StateDirectory"] == "collectord"
    assert unit["RestartPreventExitStatus"] == "2 3"
