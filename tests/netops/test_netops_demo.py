"""``collectord-netops demo`` as a process of its own: what it shows, and that it leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectord.client import QueryClient, Timeout
from collectord.ctl_common import INTERRUPTED
from collectord.netops.block import Block, Simulation
from collectord.netops.configuration import Configuration
from collectord.netops.local import CollectorError, collector
from collectord.netops.marks import MINUTE, Judgement, Mark, Truth
from collectord.netops.network import simulations
from daemon import DEADLINE, clean_environment, until

MARKS = "█▒▲·"


def demo(*, command: str = "demo", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "collectord.netops", command],
        env={**clean_environment(), "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_the_picture_has_sites_sums_sigmas_and_marks() -> None:
    process = demo(DEMO_SECONDS="4")
    shown, complaints = process.communicate(timeout=60)

    assert (process.returncode, complaints) == (0, "")
    assert re.search(r"^a day of history went in: 69\d,\d{3} values in ", shown, re.MULTILINE)
    companies = {emitter.labels["site"] for emitter in the_simulation().emitters}
    for site in companies:
        assert re.search(rf"^{re.escape(site)}  5 devices", shown, re.MULTILINE), shown
    scored = r"^  cpu_utilization +[\d,]+ +[\d,]+ +[+-]\d\.\d\d"
    assert len(re.findall(scored, shown, re.MULTILINE)) == 4
    marks = re.findall(rf"^  last hour +([{MARKS}][{MARKS} ]*)$", shown, re.MULTILINE)
    assert len(marks) == 4, shown
    assert re.search(
        r"failures: \d+ found, \d+ missed.*; false alarms: \d+ in \d+ minutes of sites\n$", shown
    )
    assert max(map(len, shown.splitlines())) <= 80


def the_simulation() -> Simulation:
    from collectord.netops import demo

    (simulation,) = simulations(Configuration.model_validate(demo.NETWORK))
    return simulation


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order_and_its_collector_with_it(number: signal.Signals) -> None:
    process = demo()
    (its_collector,) = until(lambda: children(process.pid))

    process.send_signal(number)
    _, complaints = process.communicate(timeout=DEADLINE)

    assert (process.returncode, complaints) == (0, "")
    assert not is_there(its_collector)


def test_a_score_that_is_ended_leaves_no_collector() -> None:
    process = demo(command="score")
    (its_collector,) = until(lambda: children(process.pid))

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == INTERRUPTED
    assert not is_there(its_collector)


def test_seconds_that_are_none_are_refused() -> None:
    process = demo(DEMO_SECONDS="soon")
    shown, complaints = process.communicate(timeout=DEADLINE)

    assert (process.returncode, shown) == (2, "")
    assert "'soon' is not a time" in complaints


def test_a_collector_lives_as_long_as_its_block() -> None:
    with collector({"DEFAULT.uve_proxy_list": "UveSite-load:AggProxySum"}) as addresses:
        with QueryClient(addresses.query) as client:
            assert client.menu()["configured"] == {"UveSite-load": ["AggProxySum"]}
        (process,) = children(os.getpid())

    assert not is_there(process)
    with QueryClient(addresses.query, timeout=0.05) as client, pytest.raises(Timeout):
        client.menu()


def test_a_collector_that_does_not_start_has_told_why() -> None:
    with (
        pytest.raises(CollectorError, match=r"(?s)did not start \(2\).*malformed entry 'nonsense'"),
        collector({"DEFAULT.uve_proxy_list": "nonsense"}),
    ):
        pass


def crashed() -> None:
    with collector():
        (process,) = children(os.getpid())
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def test_a_collector_that_is_no_longer_there_is_told() -> None:
    with pytest.raises(CollectorError, match="ended with -9"):
        crashed()


def a_block(simulation: Simulation, failing: list[tuple[int, int]], steps: int = 10) -> Block:
    """A step every half minute; ``failing`` are emitters and steps."""
    shape = len(simulation.emitters), steps
    is_error = np.zeros(shape, np.bool_)
    for emitter, step in failing:
        is_error[emitter, step] = True
    times = 100 * MINUTE + np.arange(steps) * (MINUTE // 2)
    return Block(times, {"a": np.zeros(shape)}, {"a": is_error, "b": np.zeros(shape, np.bool_)})


def test_a_site_fails_in_a_minute_in_which_any_of_its_devices_does() -> None:
    simulation = the_simulation()
    truth = Truth()

    truth.observe(simulation, a_block(simulation, [(0, 1), (1, 4), (19, 9)]))

    first, last = (simulation.emitters[at].labels["site"] for at in (0, 19))
    assert truth.failing == {first: {100, 102}, last: {104}}


def judged(*sigmas: float | None) -> Judgement:
    """A site's judgement from minute 100 on, whose series began at minute 90."""
    judgement = Judgement(2.0, first=90, since=100)
    for index, sigma in enumerate(sigmas):
        if sigma is not None:
            score: dict[str, Any] = {"samples": 11 + index, "sigma": sigma}
            judgement.judge({"quiet": {**score, "sigma": 0.0}, "a": score})
    return judgement


def test_marks_tell_where_truth_and_detection_meet() -> None:
    judgement = judged(0.0, 2.1, -2.5, 2.0, None)

    marks = [judgement.mark(minute, {101, 103}) for minute in range(99, 105)]

    assert marks == [
        Mark.UNKNOWN,
        Mark.QUIET,
        Mark.HIT,
        Mark.FALSE_ALARM,
        Mark.MISSED,
        Mark.UNKNOWN,
    ]


def test_minutes_before_it_counts_are_not_judged() -> None:
    judgement = Judgement(2.0, first=90, since=100)
    judgement.judge({"a": {"samples": 10, "sigma": 3.0}})
    assert not judgement.alarms


@pytest.mark.parametrize(
    ("sigmas", "failing", "tally"),
    [
        ([0, 3, 0, 0], {100, 101, 102}, {"found": 1}),
        ([0, 0, 0, 3], {100, 101}, {"missed": 1, "false alarms": 1}),
        ([0, 0, 0, 0], {102, 103, 104}, {"under way": 1}),
        ([3, 0, 3, 0], {100, 102}, {"found": 2}),
        ([0, 0, 3, 0], {99, 100}, {"false alarms": 1}),
    ],
    ids=["found", "missed", "under way", "two", "begun before"],
)
def test_a_failure_is_found_by_an_alarm_in_any_of_its_minutes(
    sigmas: list[float], failing: set[int], tally: dict[str, int]
) -> None:
    counted = judged(*sigmas).tally(failing)
    assert +counted == {**tally, "minutes": len(sigmas)}
