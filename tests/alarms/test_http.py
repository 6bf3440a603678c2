"""What is shown of what servers answer: little, only what can be printed, and no secrets."""

from __future__ import annotations

import asyncio
import base64

import pytest

from alarms.telling import Answer, Receiver, says, serving, settled, told, until
from collectord.alarms import notifiers


def problem_of(answer: Answer, path: str = "/alarms") -> str:
    """What is said of a webhook that answers so."""

    async def run() -> str:
        async with Receiver(answer) as receiver:
            url = f"http://me:pass%21word@127.0.0.1:{receiver.port}{path}"
            (notifier,) = notifiers.build(settled("ALARM.log=false", f"ALARM.webhook={url}"), "h1")
            async with serving(notifier):
                notifier.notify(told())
                (problem,) = await until(notifier.problems)
            return problem.replace(receiver.url, "URL")

    return asyncio.run(run())


def test_of_what_a_server_answers_little_is_shown() -> None:
    said = problem_of(says(400, "no, " + "x" * 1000))
    assert said == f"webhook URL is not told of alarms: it answers 400: no, {'x' * 75}…"


@pytest.mark.parametrize("body", ["\x1b[31mred", "a\u202eb", "zero\x00", "soft\xadhyphen"])
def test_of_what_cannot_be_printed_nothing_is_shown(body: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 \x1b[31m\r\nContent-Length: %d\r\n\r\n" % len(body.encode()))
        writer.write(body.encode())

    assert problem_of(answer) == "webhook URL is not told of alarms: it answers 400"


def test_of_an_answer_in_no_utf8_nothing_is_shown() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nn\xffo")

    assert problem_of(answer) == "webhook URL is not told of alarms: it answers 400"


def test_of_an_answer_that_is_none_nothing_is_shown() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example.com ESMTP\r\n\r\n")

    problem = problem_of(answer)
    assert "smtp" not in problem
    assert problem.endswith("it ended the connection, or answers something else than HTTP")


@pytest.mark.parametrize(
    "body",
    [
        "no hook /hooks/T0ken%21?key=s3cret",
        "no hook T0ken! here",
        "no hook of key s3cret",
        "bad password pass!word",
        "bad password pass%21word",
        f"Basic {base64.b64encode(b'me:pass!word').decode()}",
    ],
)
def test_secrets_that_an_answer_repeats_are_not_shown(body: str) -> None:
    problem = problem_of(says(400, body), "/hooks/T0ken%21?key=s3cret")
    assert "it answers 400: " in problem
    assert "..." in problem
    for secret in ("T0ken", "s3cret", "word!", "pass!word", "pass%21", "bWU6"):
        assert secret not in problem
