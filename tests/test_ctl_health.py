"""``collectorctl health``: what a probe gets to know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectord import ctl
from fake_collector import Answers, FakeServer

Captured = pytest.CaptureFixture[str]


def health(answer: dict[str, Any], *arguments: str) -> int:
    answers = Answers()
    answers.replies.append({"ok": True, **answer})
    with FakeServer(answers) as server:
        return ctl.main(["health", "--query", server.address, *arguments])


def test_a_collector_that_is_well_ends_it_with_0(capsys: Captured) -> None:
    assert health({"health": {"ok": True, "problems": []}}) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_each_problem_is_a_line_and_ends_it_with_1(capsys: Captured) -> None:
    answer = {"health": {"ok": False, "problems": ["the disk is full", "ingest stands still"]}}

    assert health(answer, "--table") == 1
    assert capsys.readouterr().out == "the disk is full\ningest stands still\n"


def test_a_collector_that_tells_nothing_of_it_but_answers_is_well(capsys: Captured) -> None:
    assert health({"version": "1"}, "--table") == 0
    assert capsys.readouterr().out == "it is well\n"


def test_an_answer_of_another_form_is_no_crash(capsys: Captured) -> None:
    assert health({"health": "fine"}) == 0
    assert health({"health": {"ok": False}}, "--table") == 1
    assert "it is not well" in capsys.readouterr().out


def test_where_it_cannot_ask_it_ends_with_2(capsys: Captured) -> None:
    assert ctl.main(["health", "--query", "127.0.0.1:1", "--timeout", "0.05"]) == 2
    assert "no answer from tcp://127.0.0.1:1" in capsys.readouterr().err


def test_a_refusal_ends_it_with_2(capsys: Captured) -> None:
    answers = Answers()
    answers.replies.append({"ok": False, "error": {"code": "overloaded", "message": "no"}})
    with FakeServer(answers) as server:
        assert ctl.main(["health", "--query", server.address]) == 2
    assert "overloaded: no" in capsys.readouterr().err
