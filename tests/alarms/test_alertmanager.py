"""What a real Alertmanager knows of alarms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import alertmanager
from alarms.telling import (
    START,
    Receiver,
    matched,
    rule,
    says,
    serving,
    settled,
    told,
    until,
)
from alertmanager import Alertmanager
from collectord.alarms import notifiers
from collectord.alarms.notification import Kind, Notifier
from collectord.alarms.notifiers import alertmanager as notifier_file
from collectord.alarms.notifiers import delivery
from collectord.clock import now
from collectord.options import BY_NAME

SECOND = 1_000_000
KEY = "ObjectVNTable:demo:vn1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """One for all tests that use alerts of their own."""
    with alertmanager.running(tmp_path_factory.mktemp("alertmanager")) as running:
        yield running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(notifier_file, "GATHERING", 0.01)


def telling(*urls: str, interval: float = 60, queue: int = 10_000) -> Notifier:
    (notifier,) = notifiers.build(
        settled(
            "ALARM.log=false",
            f"ALARM.alertmanager={' '.join(urls)}",
            f"ALARM.alertmanager_interval={interval}",
            f"ALARM.queue={queue}",
        ),
        "host",
    )
    return notifier


def moment(text: str) -> int:
    """Microseconds since the Unix epoch."""
    since = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime(
        1970, 1, 1, tzinfo=timezone.utc
    )
    return since // timedelta(microseconds=1)


async def known(running: Alertmanager, **labels: str) -> dict[str, Any]:
    """The alert with these labels, as soon as it is there."""
    return await until(lambda: running.alert(**labels)) or {}


def test_a_raised_alarm_is_an_alert_with_labels_annotations_and_its_time(
    shared: Alertmanager,
) -> None:
    variables = {"Ports.ports.__key": '"eth0"'}
    raised = told(timestamp=now() - 90 * SECOND, or_list=matched("7", "9", variables=variables))

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            notifier.notify(raised)
            alert = await known(shared, alertname="flood")
            await until(lambda: not notifier.waiting)
        assert alert["labels"] == {
            "alertname": "flood",
            "severity": "major",
            "table": "ObjectVNTable",
            "uve": KEY,
            "team": "network",
        }
        assert alert["annotations"] == {
            "description": "too many errors",
            "acknowledged": "false",
            "token": "t1",
            "conditions": "Ports.ports.*.errors > 3: 7, 9",
            "value": "7",
            "variables": 'Ports.ports.__key = "eth0"',
        }
        # Alertmanager tells milliseconds.
        assert moment(alert["startsAt"]) == raised.time // 1000 * 1000
        assert now() + 200 * SECOND < moment(alert["endsAt"]) < now() + 240 * SECOND
        assert notifier.counters == {
            "alertmanager_sent": 1,
            "alertmanager_failed": 0,
            "alertmanager_dropped": 0,
        }

    asyncio.run(run())


def test_a_changed_alarm_changes_its_alert(shared: Alertmanager) -> None:
    changes = rule("changes")
    start = now() - SECOND

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            notifier.notify(told(of=changes, timestamp=start))
            await known(shared, alertname="changes")
            notifier.notify(
                told(
                    Kind.CHANGED,
                    of=changes,
                    timestamp=start + 1000,
                    or_list=matched("8"),
                    token="t2",
                )
            )
            alert = await until(
                lambda: (
                    shared.alerts(alertname="changes")[0]["annotations"]["token"] == "t2"
                    and shared.alert(alertname="changes")
                )
            )
        assert alert
        assert alert["annotations"]["conditions"] == "Ports.ports.*.errors > 3: 8"

    asyncio.run(run())


def test_an_acknowledged_alarm_says_so(shared: Alertmanager) -> None:
    seen = rule("seen")

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            notifier.notify(told(of=seen, timestamp=now()))
            alert = await known(shared, alertname="seen")
            assert alert["annotations"]["acknowledged"] == "false"
            notifier.notify(told(Kind.ACKNOWLEDGED, of=seen, timestamp=now()))
            await until(
                lambda: shared.alerts(alertname="seen")[0]["annotations"]["acknowledged"] == "true"
            )

    asyncio.run(run())


def test_a_cleared_alarm_is_active_no_more(shared: Alertmanager) -> None:
    passing, stays = rule("passing"), rule("stays")
    start = now() - SECOND

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            for each in (passing, stays):
                notifier.notify(told(of=each, timestamp=start))
            await known(shared, alertname="passing")
            notifier.notify(told(Kind.CLEARED, of=passing, timestamp=start, time=now()))
            await until(lambda: not shared.alerts(alertname="passing"))
            assert shared.alerts(alertname="stays")

    asyncio.run(run())


def test_an_alarm_that_comes_again_is_active_again(shared: Alertmanager) -> None:
    again = rule("again")

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            start = now()
            notifier.notify(told(of=again, timestamp=start))
            await known(shared, alertname="again")
            notifier.notify(told(Kind.CLEARED, of=again, timestamp=start, time=now()))
            await until(lambda: not shared.alerts(alertname="again"))
            start = now()
            notifier.notify(told(of=again, timestamp=start))
            alert = await known(shared, alertname="again")
        assert moment(alert["startsAt"]) == start // 1000 * 1000

    asyncio.run(run())


def test_an_alarm_stays_active_as_it_is_sent_again(
    shared: Alertmanager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_file, "LASTS", 2)
    lasting = rule("lasting")

    async def run() -> None:
        notifier = telling(shared.url, interval=1)
        async with serving(notifier):
            notifier.notify(told(of=lasting, timestamp=now()))
            first = moment((await known(shared, alertname="lasting"))["endsAt"])
            await until(lambda: now() > first)  # by then it would have ended
            (alert,) = shared.alerts(alertname="lasting")
            assert moment(alert["endsAt"]) > first
        # Nobody sends it any more.
        await until(lambda: not shared.alerts(alertname="lasting"))

    asyncio.run(run())


def test_an_alarm_is_sent_again_though_others_change_all_the_time() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url, interval=1)
            async with serving(notifier):
                notifier.notify(told(key="T:quiet"))

                def is_sent_again() -> bool:
                    notifier.notify(told(Kind.CHANGED, key="T:loud"))
                    sent = [alert["labels"]["uve"] for body in receiver.bodies() for alert in body]
                    return sent.count("T:quiet") >= 2

                await until(is_sent_again)

    asyncio.run(run())


def test_a_restored_alarm_keeps_the_time_since_when_it_is_so(shared: Alertmanager) -> None:
    old = rule("old")
    start = now() - 3600 * SECOND

    async def run() -> None:
        before, after = telling(shared.url), telling(shared.url)
        async with serving(before):
            before.notify(told(of=old, timestamp=start))
            await known(shared, alertname="old")
            await before.finish(5)
        async with serving(after):
            after.notify(told(Kind.RESTORED, of=old, timestamp=start, time=now()))
            await until(lambda: after.counters["alertmanager_sent"] == 1)
            alert = await known(shared, alertname="old")
        assert moment(alert["startsAt"]) == start // 1000 * 1000

    asyncio.run(run())


def test_another_severity_is_another_alert(shared: Alertmanager) -> None:
    worse = rule("worse", severity=0)

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            notifier.notify(told(of=rule("worse"), timestamp=now() - SECOND))
            await known(shared, alertname="worse", severity="major")
            notifier.notify(told(Kind.CHANGED, of=worse, timestamp=now()))
            await known(shared, alertname="worse", severity="critical")
            await until(lambda: not shared.alerts(alertname="worse", severity="major"))

    asyncio.run(run())


def test_the_uve_of_an_alert_may_have_any_key(shared: Alertmanager) -> None:
    strange = rule("strange")
    keys = ['T:"a"\n\\{}', "T:ß…\U0001f600", "T:\udcff", "T:\udcfe", "T:\x00\x7f", "T: "]

    async def run() -> None:
        notifier = telling(shared.url)
        async with serving(notifier):
            for key in keys:
                notifier.notify(told(key=key, of=strange, timestamp=now()))
            await until(lambda: len(shared.alerts(alertname="strange")) == len(keys))
        assert notifier.counters["alertmanager_dropped"] == 0

    asyncio.run(run())


def test_many_alarms_are_sent_in_pieces() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            for number in range(2000):
                notifier.notify(told(key=f"T:{number}"))
            async with serving(notifier):
                await until(lambda: notifier.counters["alertmanager_sent"] == 2000)
            sizes = [len(body) for body in receiver.bodies()]
            assert max(sizes) <= 500
            uves = {alert["labels"]["uve"] for body in receiver.bodies() for alert in body}
            assert uves == {f"T:{number}" for number in range(2000)}

    asyncio.run(run())


def test_a_real_one_takes_2000_alarms(shared: Alertmanager) -> None:
    many = rule("many")

    async def run() -> None:
        notifier = telling(shared.url)
        for number in range(2000):
            notifier.notify(told(key=f"T:{number}", of=many, timestamp=now()))
        async with serving(notifier):
            await until(lambda: len(shared.alerts(alertname="many")) == 2000)
            for number in range(2000):
                notifier.notify(
                    told(Kind.CLEARED, f"T:{number}", many, timestamp=now() - 1, time=now())
                )
            await until(lambda: not shared.alerts(alertname="many"))

    asyncio.run(run())


def test_a_request_does_not_grow_with_its_alerts() -> None:
    long = matched(json.dumps("x" * 3000), variables={"a.b": json.dumps("y" * 3000)})
    large = rule("large", description="z" * 4000)

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            for number in range(500):
                notifier.notify(told(key=f"T:{number}", of=large, or_list=long))
            async with serving(notifier):
                await until(lambda: notifier.counters["alertmanager_sent"] == 500)
            assert max(len(request.body) for request in receiver.requests) < 600_000
            assert sum(len(body) for body in receiver.bodies()) == 500

    asyncio.run(run())


def test_others_have_their_turn_while_alerts_are_encoded() -> None:
    async def run() -> None:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            assert isinstance(notifier, notifier_file.Alertmanager)
            (target,) = notifier._targets
            alerts = [notifier_file.Alert(told(key=f"T:{number}")) for number in range(500)]
            taking = asyncio.create_task(take_turns())
            due = [notifier_file._Due(alert, False) for alert in alerts]
            _ = [body async for body in target._bodies(due)]
            taking.cancel()
        assert turns >= 500 // notifier_file.AT_ONCE

    asyncio.run(run())


def test_of_two_addresses_one_may_be_dead(shared: Alertmanager, tmp_path: Path) -> None:
    alive = rule("alive")

    async def run() -> None:
        dead = Receiver()
        await dead.start()
        await dead.stop()
        notifier = telling(dead.url, shared.url)
        async with serving(notifier):
            notifier.notify(told(of=alive, timestamp=now()))
            await known(shared, alertname="alive")
            await until(lambda: notifier.counters["alertmanager_failed"] >= 2)
            problem = f"Alertmanager {dead.url} is not told of alarms: it can't be reached: "
            assert notifier.problems() == [f"{problem}Connection refused"]
            await dead.start()
            await until(lambda: dead.requests)
            await until(lambda: not notifier.problems())
        await dead.stop()
        assert dead.bodies()[0][0]["labels"]["alertname"] == "alive"

    asyncio.run(run())


def test_one_that_was_started_anew_is_told_of_all_active_alarms(tmp_path: Path) -> None:
    async def run() -> None:
        with alertmanager.running(tmp_path / "first") as first:
            notifier = telling(first.url, interval=1)
            async with serving(notifier):
                for number in (1, 2):
                    notifier.notify(told(key=f"T:{number}", timestamp=now() - SECOND))
                await until(lambda: len(first.alerts()) == 2)
                notifier.notify(told(Kind.CLEARED, "T:1", timestamp=now() - SECOND, time=now()))
                await until(lambda: len(first.alerts()) == 1)
                first.stop()
                await until(notifier.problems)
                with alertmanager.running(tmp_path / "second", first.address) as second:
                    await until(lambda: [alert["labels"]["uve"] for alert in second.alerts()])
                    assert [alert["labels"]["uve"] for alert in second.alerts()] == ["T:2"]
                    await until(lambda: not notifier.problems())

    asyncio.run(run())


def test_an_end_is_told_again_for_who_has_a_clock_behind() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url, interval=1)
            async with serving(notifier):
                notifier.notify(told(time=START))
                await until(lambda: receiver.requests)
                notifier.notify(told(Kind.CLEARED, time=START + 5 * SECOND))
                await until(lambda: len(receiver.requests) == 3)
                notifier.notify(told(key="T:later"))
                await until(lambda: len(receiver.requests) == 5)
            ends = [[alert["endsAt"] for alert in body] for body in receiver.bodies()]
            assert ends[1] == ends[2]
            assert moment(ends[1][0]) == START + 5 * SECOND
            # Then it is forgotten.
            uves = [[alert["labels"]["uve"] for alert in body] for body in receiver.bodies()]
            assert uves == [[KEY]] * 3 + [["T:later"]] * 2
            assert isinstance(notifier, notifier_file.Alertmanager)
            assert len(notifier._alerts) == 1

    asyncio.run(run())


def test_an_alert_never_ends_before_it_started() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            ahead = now() + 3600 * SECOND
            notifier.notify(told(key="T:1", timestamp=ahead))
            notifier.notify(told(Kind.CLEARED, "T:2", timestamp=ahead, time=now()))
            async with serving(notifier):
                await until(lambda: receiver.requests)
            for alert in receiver.bodies()[0]:
                assert moment(alert["endsAt"]) == moment(alert["startsAt"]) == ahead

    asyncio.run(run())


def test_what_is_refused_is_sent_again_with_the_next_interval() -> None:
    async def run() -> None:
        async with Receiver(says(400, "no")) as receiver:
            notifier = telling(receiver.url, interval=1)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["alertmanager_dropped"] == 1)
                assert notifier.problems() == [
                    f"Alertmanager {receiver.url} is not told of alarms: it answers 400: no"
                ]
                receiver.answer = says(200)
                await until(lambda: notifier.counters["alertmanager_sent"] == 1)
                assert not notifier.problems()

    asyncio.run(run())


def test_ends_that_nobody_takes_are_bounded() -> None:
    async def run() -> None:
        async with Receiver(says(503)) as receiver:
            notifier = telling(receiver.url, queue=10)
            async with serving(notifier):
                for number in range(100):
                    notifier.notify(told(key=f"T:{number}"))
                    notifier.notify(told(Kind.CLEARED, f"T:{number}", time=START + number))
                assert notifier.waiting == 10
                assert notifier.counters["alertmanager_dropped"] == 90
                receiver.answer = says(200)
                await until(lambda: notifier.counters["alertmanager_sent"])
            uves = {alert["labels"]["uve"] for alert in receiver.bodies()[-1]}
            assert uves == {f"T:{number}" for number in range(90, 100)}

    asyncio.run(run())


def test_raised_alarms_are_bounded() -> None:
    most = int(BY_NAME["ALARM.queue"].default) + 5

    async def run() -> None:
        (notifier,) = notifiers.build(
            settled("ALARM.log=false", "ALARM.alertmanager=http://127.0.0.1:9", "LIMITS.alarms=5"),
            "host",
        )
        for number in range(most + 3):
            notifier.notify(told(key=f"T:{number}"))
        assert notifier.waiting == most
        assert notifier.counters["alertmanager_dropped"] == 3
        await notifier.finish(0)

    asyncio.run(run())


def test_the_password_of_an_address_is_sent_and_not_told() -> None:
    async def run() -> None:
        async with Receiver(says(500)) as receiver:
            url = receiver.url.replace("http://", "http://me:p%40ss@") + "/behind/"
            notifier = telling(url)
            async with serving(notifier):
                notifier.notify(told())
                (problem,) = await until(notifier.problems)
            assert "p%40ss" not in problem
            assert "p@ss" not in problem
            (request, *_) = receiver.requests
            assert request.path == "/behind/api/v2/alerts"
            assert request.headers["authorization"] == "Basic bWU6cEBzcw=="
            assert request.headers["host"] == f"127.0.0.1:{receiver.port}"

    asyncio.run(run())


def test_it_is_no_matter_who_has_the_usual_port(tmp_path: Path) -> None:
    """As a service that Debian started may."""
    with alertmanager.running(tmp_path / "a") as one, alertmanager.running(tmp_path / "b") as other:
        assert one.address != other.address


def test_where_alertmanager_is_missing_the_test_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus-alertmanager"):
        alertmanager.program()
