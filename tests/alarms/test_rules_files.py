"""Files of rules, and texts that are none: read whole or refused whole, whatever they hold."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alarms.writing import condition, errors_in, errors_of, parsed, rule_of
from collectord.alarms.rules import RULES, RULES_BYTES, RulesError, parse, read

ONE = condition("S.a", ">", "5")


def test_names_are_there_once() -> None:
    rules = [rule_of([ONE]), rule_of([ONE], name="other"), rule_of([ONE])]

    assert errors_of(*rules) == ["rules[2] (rule) name: rules[0] has this name already"]


def test_a_name_that_is_written_twice_in_an_object_is_an_error() -> None:
    text = json.dumps([rule_of([ONE], labels={"a": "x"})])
    text = text.replace('"severity": 1', '"severity": 1, "severity": 2, "severity": 0')
    text = text.replace('"operand1": "S.a"', '"operand1": "S.a", "operand1": "S.b"')

    assert sorted(errors_in(text)) == [
        "rules[0] (rule) alarm_rules.or_list[0].and_list[0]: 'operand1' is written twice",
        "rules[0] (rule): 'severity' is written twice",
        "rules[0] (rule): 'severity' is written twice",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "not JSON: line 1, column 1: Expecting value"),
        ('[\n  {"name": }\n]', "not JSON: line 2, column 12: Expecting value"),
        (b"\xff\xfe\xff", "not JSON"),
        (b'["\xff"]', "not JSON: byte 2 is not UTF-8"),
        ("[" * 100_000, "not JSON that can be read: it is nested too deeply"),
        ("[" + "9" * 5000 + "]", "not JSON that can be read: "),
        ("{}", "the rules must be a list of objects, not an object"),
        ("5", "the rules must be a list of objects, not 5"),
        ("null", "the rules must be a list of objects, not null"),
        ("[5]", "rules[0]: must be an object, not 5"),
        ("[null, []]", "rules[0]: must be an object, not null"),
        (" " * (RULES_BYTES + 1), f"the rules have more than {RULES_BYTES} bytes"),
        ("é" * (RULES_BYTES // 2 + 1), f"the rules have more than {RULES_BYTES} bytes"),
        (json.dumps([5] * (RULES + 1)), f"there are {RULES + 1} rules; at most {RULES} are taken"),
    ],
    ids=range(14),
)
def test_a_text_that_is_no_list_of_rules(text: str | bytes, error: str) -> None:
    assert errors_in(text)[0].startswith(error)


def test_the_most_rules_are_taken() -> None:
    rules = [rule_of([ONE], name=f"r{number}") for number in range(RULES)]

    assert len(parsed(*rules)) == RULES


def test_a_hundred_errors_are_told() -> None:
    errors = errors_of(*[{}] * 100)

    assert len(errors) == 101
    assert errors[-1] == "and 300 more are wrong"


def test_a_deep_value_in_an_unknown_field_is_told() -> None:
    text = json.dumps([rule_of([ONE], extra="?")]).replace('"?"', "[" * 900 + "]" * 900)

    (error,) = errors_in(text)

    assert error.startswith("rules[0] (rule) extra: is unknown")


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "alarms.json"
    file.write_text(json.dumps([rule_of([ONE])]))

    assert read(file) == read(str(file)) == parsed(rule_of([ONE]))


def test_an_error_in_a_file_names_it(tmp_path: Path) -> None:
    file = tmp_path / "alarms.json"
    file.write_text("[5]")

    with pytest.raises(RulesError) as caught:
        read(file)

    assert str(caught.value) == f"{file}: rules[0]: must be an object, not 5"


def test_a_file_that_cant_be_read_is_an_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    paths: list[tuple[Path | str, str]] = [
        (tmp_path / "none.json", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (pipe, "it is not a file"),
        ("a\0b", "embedded null byte"),
    ]
    for path, reason in paths:
        with pytest.raises(RulesError) as caught:
            read(path)
        assert caught.value.errors == [f"the file can't be read: {reason}"]


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "alarms.json"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)

    with pytest.raises(RulesError, match=f"more than {RULES_BYTES} bytes"):
        read(file)


# --- whatever people write ----------------------------------------------------------------------

FULL = rule_of(
    [condition("S.a", "range", "[1, 2]", "S.b"), condition("S.a", "in", "@S.c")],
    labels={"team": "x"},
    active_timer=5,
    freq_check_times=3,
    freq_check_seconds=60,
    freq_exceeded_check=True,
    enabled=True,
    description="x",
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", "S.a", "5", "[1]", "ObjectVNTable:*"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "operand1", "and_list", "x\n"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def changed(value: Any, draws: random.Random, other: Any) -> Any:
    """The same, with something at some place exchanged for something else."""
    if not isinstance(value, (dict, list)) or not value or draws.random() < 0.1:
        return other
    if isinstance(value, list):
        index = draws.randrange(len(value))
        return [*value[:index], changed(value[index], draws, other), *value[index + 1 :]]
    name = draws.choice(list(value))
    if draws.random() < 0.2:
        name = draws.choice(["extra", "\ud800", "a.b", "x\n"])
    return {**value, name: changed(value.get(name), draws, other)}


def sentences_about(text: str | bytes) -> list[str]:
    """What is wrong with a text, if something is."""
    try:
        parse(text, "alarms.json")
    except RulesError as error:
        return error.errors
    return []


@given(anything, st.randoms(use_true_random=False))
def test_whatever_is_wrong_is_told_on_lines_that_can_be_printed(
    other: Any, draws: random.Random
) -> None:
    text = json.dumps([changed(FULL, draws, other)])

    for sentence in sentences_about(text):
        assert sentence.isprintable()
        assert sentence.startswith("rules[0]")


@given(st.binary(max_size=50) | st.text(max_size=50) | anything.map(json.dumps))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    assert all(sentence.isprintable() for sentence in sentences_about(text))
