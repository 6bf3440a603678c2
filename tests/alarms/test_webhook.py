"""What webhooks are posted, and what is refused in how they are configured."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from alarms.telling import START, Receiver, matched, rule, says, serving, settled, told, until
from collectord.alarms import notifiers
from collectord.alarms.notification import Kind, Notifier
from collectord.alarms.notifiers import delivery, message, webhook
from collectord.clock import now
from collectord.settings import ConfigurationError


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)


def telling(url: str, *options: str) -> Notifier:
    (notifier,) = notifiers.build(
        settled("ALARM.log=false", f"ALARM.webhook={url}", *options), "h1"
    )
    return notifier


def secret_file(path: Path, content: bytes = b"s3cret\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def errors_of(*options: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as error:
        notifiers.build(settled("ALARM.log=false", *options), "h1")
    return error.value.errors


def test_an_event_is_posted_with_all_that_is_known_of_it() -> None:
    raised = told(time=START + 5)

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(f"{receiver.url}/alarms?to=me")
            async with serving(notifier):
                notifier.notify(raised)
                await until(lambda: notifier.counters["webhook_sent"])
            (request,) = receiver.requests
        assert request.path == "/alarms?to=me"
        assert request.headers["content-type"] == "application/json"
        assert "authorization" not in request.headers
        assert request.json == {
            "version": 1,
            "kind": "raised",
            "key": "ObjectVNTable:demo:vn1",
            "table": "ObjectVNTable",
            "rule": {
                "name": "flood",
                "severity": "major",
                "labels": {"team": "network"},
                "description": "too many errors",
            },
            "alarm": raised.alarm,
            "time": START + 5,
            "collector": "h1",
        }
        assert notifier.counters == {"webhook_sent": 1, "webhook_failed": 0, "webhook_dropped": 0}

    asyncio.run(run())


def test_all_that_happens_is_posted_in_order_but_what_was_so_before() -> None:
    kinds = [Kind.RAISED, Kind.RESTORED, Kind.CHANGED, Kind.ACKNOWLEDGED, Kind.CLEARED]

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                for kind in kinds:
                    notifier.notify(told(kind))
                await until(lambda: notifier.counters["webhook_sent"] == 4)
            assert [body["kind"] for body in receiver.bodies()] == [
                "raised",
                "changed",
                "acknowledged",
                "cleared",
            ]
            assert receiver.most_open == 1

    asyncio.run(run())


def test_a_body_is_signed_with_its_time(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret")

    async def run() -> None:
        before = now() // 1_000_000
        async with Receiver() as receiver:
            notifier = telling(receiver.url, f"ALARM.webhook_secret_file={path}")
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_sent"])
            (request,) = receiver.requests
        timestamp = request.headers["x-collectord-timestamp"]
        assert before <= int(timestamp) <= now() // 1_000_000
        signed = timestamp.encode() + b"." + request.body
        digest = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
        assert request.headers["x-collectord-signature"] == f"sha256={digest}"

    asyncio.run(run())


def test_a_signature_is_as_others_compute_it() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac key
    assert webhook.Signature(b"key").headers(b"{}", 1_700_000_000) == {
        "X-Collectord-Timestamp": "1700000000",
        "X-Collectord-Signature": "sha256="
        "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae",
    }


def test_without_a_secret_there_is_no_signature() -> None:
    assert list(webhook.Signature(b"").headers(b"{}", 5)) == ["X-Collectord-Timestamp"]


def test_all_attempts_to_tell_of_an_event_have_one_name_and_no_other_event_has_it() -> None:
    async def run() -> None:
        async with Receiver(says(500)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: len(receiver.requests) == 3)
                receiver.answer = says(204)
                notifier.notify(told(Kind.CLEARED))
                await until(lambda: notifier.counters["webhook_sent"] == 2)
            names = [request.headers["x-collectord-delivery"] for request in receiver.requests]
        *first, last = names
        assert len(set(first)) == 1
        assert re.fullmatch("[0-9a-f]{16}-1", first[0])
        assert last == first[0].removesuffix("1") + "2"

    asyncio.run(run())


def test_each_address_is_told() -> None:
    async def run() -> None:
        async with Receiver() as one, Receiver() as other:
            notifier = telling(f"{one.url} {other.url}")
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_sent"] == 2)
            assert len(one.requests) == len(other.requests) == 1
            assert notifier.waiting == 0

    asyncio.run(run())


@pytest.mark.parametrize("status", [408, 429, 500, 503, 599])
def test_what_may_be_taken_later_is_posted_again(status: int) -> None:
    async def run() -> None:
        async with Receiver(says(status)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_failed"] == 2)
                receiver.answer = says(200)
                await until(lambda: notifier.counters["webhook_sent"] == 1)
            assert notifier.counters["webhook_dropped"] == 0

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 413])
def test_what_is_refused_is_given_up(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Receiver() as elsewhere:
            moved = f"Location: {elsewhere.url}/there"
            async with Receiver(says(status, "because", moved)) as receiver:
                notifier = telling(receiver.url)
                async with serving(notifier):
                    for kind in (Kind.RAISED, Kind.CHANGED, Kind.CLEARED):
                        notifier.notify(told(kind))
                    await until(lambda: notifier.counters["webhook_dropped"] == 3)
                    (problem,) = notifier.problems()
                    receiver.answer = says(200)
                    notifier.notify(told())
                    await until(lambda: notifier.counters["webhook_sent"] == 1)
                    assert not notifier.problems()
                assert len(receiver.requests) == 4
            assert not elsewhere.requests
        assert f"it answers {status}" in problem
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1

    asyncio.run(run())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_refusal_just_after_a_line_of_the_log_leaves_a_line_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When trouble was over in between, and came again."""

    async def run() -> None:
        async with Receiver(says(404)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_dropped"] == 1)
                receiver.answer = says(200)
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_sent"] == 1)
                receiver.answer = says(413)
                for _ in range(12):
                    notifier.notify(told())
                await until(lambda: notifier.counters["webhook_dropped"] == 13)
                (problem,) = notifier.problems()
                assert problem.endswith("it answers 413")
                assert len(warnings(caplog)) == 1
            await notifier.finish(1)

    asyncio.run(run())
    first, last = warnings(caplog)
    assert first.endswith("is not told of some alarms: 1 change given up: it answers 404")
    assert re.search(r"12 changes given up since \d\d:\d\d:\d\dZ: it answers 413$", last)


def test_refusals_are_summed_up_while_it_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "SELDOM", 0.5)

    async def run() -> None:
        async with Receiver(says(404)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                for _ in range(5):
                    notifier.notify(told())
                await until(lambda: len(warnings(caplog)) == 2)

    asyncio.run(run())
    assert "1 change given up: it answers 404" in warnings(caplog)[0]
    assert "4 changes given up since" in warnings(caplog)[1]


def test_the_problem_is_the_last_one() -> None:
    async def run() -> None:
        async with Receiver(says(500)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told())
                await until(notifier.problems)
                receiver.answer = says(503)
                await until(lambda: notifier.problems()[0].endswith("it answers 503"))

    asyncio.run(run())


def test_an_event_that_is_never_taken_does_not_hold_up_others_for_ever() -> None:
    async def run() -> None:
        async with Receiver(says(500)) as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told(key="T:poison"))
                notifier.notify(told(key="T:next"))
                await until(
                    lambda: receiver.bodies()[-1:] and receiver.bodies()[-1]["key"] == "T:next"
                )
                assert notifier.counters["webhook_dropped"] == 1
            assert len([body for body in receiver.bodies() if body["key"] == "T:poison"]) == 8

    asyncio.run(run())


def test_what_waits_is_bounded_by_its_number_and_the_newest_are_kept() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url, "ALARM.queue=5")
            for number in range(100):
                notifier.notify(told(key=f"T:{number}"))
            assert notifier.waiting == 5
            assert notifier.counters["webhook_dropped"] == 95
            async with serving(notifier):
                await until(lambda: notifier.counters["webhook_sent"] == 5)
            assert [body["key"] for body in receiver.bodies()] == [f"T:{n}" for n in range(95, 100)]
            # A gap in the numbers shows what is missing.
            assert receiver.requests[0].headers["x-collectord-delivery"].endswith("-96")

    asyncio.run(run())


def test_what_waits_is_bounded_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "QUEUE_CHARACTERS", 10_000)
    notifier = telling("http://127.0.0.1:9")
    for number in range(100):
        notifier.notify(told(key=f"T:{number}", or_list=matched(json.dumps("x" * 1000))))
    assert notifier.waiting == 9


def test_a_large_alarm_is_cut_and_says_so() -> None:
    values = [json.dumps("x" * 4000)] * 100

    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told(or_list=matched(*values)))
                await until(lambda: receiver.requests)
            ((request,),) = [receiver.requests]
        assert len(request.body) < 100_000
        ((condition,),) = [entry["and_list"] for entry in or_list_of(request.json)]
        assert len(condition["match"]) + condition["left_out"] == 100
        assert condition["match"][0]["json_operand1_value"] == values[0]

    asyncio.run(run())


def or_list_of(told_of: Any) -> Any:
    return told_of["alarm"]["alarm_rules"]["or_list"]


def test_a_text_that_is_no_utf8_can_be_posted() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            notifier = telling(receiver.url)
            async with serving(notifier):
                notifier.notify(told(key="T:\udcff", or_list=matched('"\udcff"')))
                await until(lambda: notifier.counters["webhook_sent"])
            assert receiver.bodies()[0]["key"] == "T:?"

    asyncio.run(run())


def test_conditions_are_told_in_words() -> None:
    or_list = [
        {
            "and_list": [
                {
                    "condition": {
                        "operation": "<=",
                        "operand1": "A.b",
                        "operand2": {"uve_attribute": "A.c", "json_value": None},
                    },
                    "match": [{"json_operand1_value": "1", "json_operand2_value": "2"}],
                }
            ]
        },
        *matched(*"123456789"),
    ]
    assert message.conditions({"alarm_rules": {"or_list": or_list}}) == [
        "A.b <= A.c: 1 <= 2",
        "Ports.ports.*.errors > 3: 1, 2, 3, 4, 5, and 4 more",
    ]
    assert len(message.conditions({"alarm_rules": {"or_list": or_list * 100}})) == message.LINES + 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://me:pass@example.com", "'ftp://example.com' is not an address of http or https"),
        ("me:pass@example.com/path", "'example.com' is not an address of http or https"),
        ("http://", "is not an address of http or https"),
        ("http://me:pass@[::1/", "is not an address"),
        ("http://example.com:0/", "has a port that there is not"),
        ("http://example.com:99999/", "has a port that there is not"),
        ("http://example.com/#there", "has a fragment"),
        ("http://example.com http://example.com/", "is named twice"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, reason: str) -> None:
    (error,) = errors_of(f"ALARM.webhook={address}")
    assert error.startswith("command line: ALARM.webhook: ")
    assert reason in error
    assert "pass" not in error


def test_an_alertmanager_has_no_query() -> None:
    (error,) = errors_of("ALARM.alertmanager=http://me:pass@example.com/?a=b")
    assert error == (
        "command line: ALARM.alertmanager: 'http://example.com' has a query; leave out what "
        "follows the ?"
    )


def test_all_that_is_wrong_is_told_at_once() -> None:
    errors = errors_of("ALARM.alertmanager=a b", "ALARM.webhook=c", "ALARM.command=/nonexistent")
    assert len(errors) == 4


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"s3cret", 0o604, "is a secret that everybody can get at; chmod o= it"),
        (b" \n", 0o600, "has 2 bytes; name a file with the secret"),
        (b"s3cret" * 20_000, 0o600, "has 65537 bytes; name a file"),
    ],
)
def test_a_secret_that_is_none_is_refused(
    tmp_path: Path, content: bytes, mode: int, reason: str
) -> None:
    path = secret_file(tmp_path / "secret", content, mode)
    (error,) = errors_of("ALARM.webhook=http://a.test", f"ALARM.webhook_secret_file={path}")
    assert error.startswith(f"command line: ALARM.webhook_secret_file: {str(path)!r} {reason}")
    assert "s3cret" not in error


def test_a_secret_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "pipe", "cannot be read: it is not a file"),
    ]:
        (error,) = errors_of("ALARM.webhook=http://a.test", f"ALARM.webhook_secret_file={path}")
        assert reason in error


def test_without_options_only_the_log_is_told() -> None:
    assert [notifier.name for notifier in notifiers.build(settled(), "h1")] == ["log"]
    assert notifiers.build(settled("ALARM.log=false"), "h1") == []


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(notifiers.NOTIFIERS, "ALARM.webhook", "no_such_file")
    (error,) = errors_of("ALARM.webhook=http://a.test")
    assert error.endswith("which is not there; pip install 'collectord[alarms]'")


def test_every_rule_has_a_word_for_its_severity() -> None:
    words = [message.severity(told(of=rule(severity=number))) for number in range(3)]
    assert words == ["critical", "major", "minor"]
