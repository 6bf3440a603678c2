"""What holds for every rule and every view: hypothesis looks for a pair that breaks it."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, TypeAlias

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from alarms import plain_rules
from alarms.writing import condition, rule_of
from collectord import wire
from collectord.alarms import matches
from collectord.alarms.evaluation import compile_rule, is_same
from collectord.alarms.operations import OPERATIONS
from collectord.alarms.paths import RANGES
from collectord.alarms.rules import Rule

Case: TypeAlias = tuple[Rule, dict[str, Any]]

NAMES = ["a", "b", "c"]
STRUCTS = ["S", "T", "AggProxySum-S-a"]
names = st.sampled_from(NAMES)
structs = st.sampled_from(STRUCTS)
numbers = st.sampled_from([0, 1, 2, -1, 0.5, 1.0, 2**64 - 1, math.nan, math.inf, 10**400])
scalars = st.one_of(
    st.integers(-1, 2),
    st.sampled_from([None, True, False]),
    numbers,
    st.sampled_from(["", "a", "x", "1", "0.5", "null", "true", "[1]", '"a"', "NaN", "\udcff", "é"]),
    st.sampled_from([b"", b"a", msgpack.ExtType(1, b"a"), msgpack.Timestamp(1)]),
)
plain = st.recursive(
    st.integers(-1, 2) | st.sampled_from([None, True, "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
keys = names | st.sampled_from([1, 0, True, None, 1.5, math.nan, b"a", "1", '{"a": 1}', "\udcff"])
values = st.recursive(
    scalars | plain.map(json.dumps) | plain.map(json.dumps).map(json.dumps),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, min_size=1, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.lists(st.dictionaries(names, inner, max_size=3), max_size=3),
    ),
    max_leaves=8,
)
views = st.dictionaries(
    structs, st.dictionaries(names, values, min_size=1, max_size=3), min_size=1, max_size=3
)

any_steps = names | st.sampled_from(["*", "__value", "__key", "1"])
any_paths = st.one_of(
    st.tuples(structs, names, any_steps),
    st.tuples(structs, names),
    st.tuples(structs),
    st.tuples(any_steps, any_steps, any_steps),
).map(".".join)


@st.composite
def paths_in(draw: st.DrawFn, view: dict[str, Any]) -> str:
    """Mostly a path that leads to something in the view."""
    if draw(st.integers(0, 7)) == 0:
        return draw(any_paths)
    value: Any = view
    steps: list[str] = []
    while len(steps) < 2 or draw(st.integers(0, 3)):
        inner = plain_rules.meant(value)
        if isinstance(inner, list) and inner:
            value = draw(st.sampled_from(inner))
            if draw(st.booleans()):
                steps.append(draw(st.sampled_from(["*", "__value"])))
        elif isinstance(inner, dict) and inner:
            key = draw(st.sampled_from(list(inner)))
            value = inner[key]
            ranging = ["*", "__value", "__key"]
            is_step = isinstance(key, str) and key.isalnum()
            star = not is_step or (len(steps) > 1 and draw(st.booleans()))
            steps.append(draw(st.sampled_from(ranging)) if star else key)
            if steps[-1] == "__key":
                break
        else:
            break
    return ".".join(steps) if steps else draw(any_paths)


@st.composite
def conditions_in(draw: st.DrawFn, view: dict[str, Any]) -> dict[str, Any]:
    """A condition that a file may have."""
    operand1 = draw(paths_in(view))
    found = [leaf.value for leaf in plain_rules.leaves(view, operand1.split("."))]
    known = [json.dumps(value) for value in found if is_plain_json(value)]
    operand2 = draw(
        st.one_of(
            paths_in(view).map(lambda path: {"uve_attribute": path}),
            plain.map(lambda value: {"json_value": json.dumps(value)}),
            st.sampled_from(known or ["1"]).map(lambda text: {"json_value": text}),
            st.sampled_from(known or ["1"]).map(lambda text: {"json_value": f"[{text}, 2]"}),
        )
    )
    condition = {
        "operation": draw(st.sampled_from(list(OPERATIONS))),
        "operand1": operand1,
        "operand2": operand2,
        "variables": draw(st.lists(beside(operand1) | paths_in(view), max_size=2)),
    }
    return condition if is_meaningful(condition) else {**condition, "operation": "!="}


def beside(path: str) -> st.SearchStrategy[str]:
    """A path that has the same beginning."""
    steps = path.split(".")
    return st.tuples(st.integers(0, len(steps)), st.lists(any_steps, max_size=2)).map(
        lambda drawn: ".".join([*steps[: drawn[0]], *drawn[1]]) or path
    )


def is_plain_json(value: Any) -> bool:
    try:
        return plain_rules.json_of(json.dumps(value, allow_nan=False)) is not plain_rules.NO_WAY
    except (TypeError, ValueError):
        return False


def is_meaningful(condition: dict[str, Any]) -> bool:
    try:
        Rule.model_validate(rule_of([condition]))
    except ValueError:
        return False
    return True


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rule, dict[str, Any]]:
    """A rule and a view for which it was made."""
    view = draw(views)
    and_lists = st.lists(conditions_in(view), min_size=1, max_size=2)
    lists = draw(st.lists(and_lists, min_size=1, max_size=2))
    return Rule.model_validate(rule_of(*lists)), view


@settings(max_examples=3 * settings().max_examples)
@given(cases())
def test_a_rule_finds_what_it_means(case: Case) -> None:
    rule, view = case
    found = compile_rule(rule).holds(view)

    expected = plain_rules.held(rule, view)
    assert (found or []) == [
        {
            "and_list": [
                {
                    "condition": row["condition"],
                    "match": [shown(row["condition"], finding) for finding in findings],
                }
                for row, findings in zip(entry["and_list"], lists, strict=True)
            ]
        }
        for entry, lists in zip(found or [], expected, strict=True)
    ]


def shown(condition: dict[str, Any], finding: plain_rules.Finding) -> dict[str, Any]:
    row = {"json_operand1_value": matches.json_text(finding.operand1)}
    if "uve_attribute" in condition["operand2"]:
        row["json_operand2_value"] = matches.json_text(finding.operand2)
    return {
        **row,
        "json_variables": {
            path: matches.json_text(value) for path, value in finding.variables.items()
        },
    }


@given(cases())
def test_the_conditions_that_are_found_are_those_of_the_rule(case: Case) -> None:
    rule, view = case
    for entry in compile_rule(rule).holds(view) or []:
        conditions = [row["condition"] for row in entry["and_list"]]
        written = [
            [condition.model_dump(mode="json", exclude_none=True) for condition in and_list]
            for and_list in (every.and_list for every in rule.alarm_rules.or_list)
        ]
        assert conditions in written


@given(cases())
def test_what_is_found_can_be_packed_and_shown(case: Case) -> None:
    rule, view = case
    found = compile_rule(rule).holds(view)

    assert wire.decode(wire.encode(found)) == found
    assert json.loads(wire.encode_json({"found": found}))["found"] == found
    for entry in found or []:
        for row in entry["and_list"]:
            for match in row["match"]:
                for text in (match["json_operand1_value"], *match["json_variables"].values()):
                    json.loads(text)


@given(cases())
def test_a_rule_holds_where_all_conditions_of_a_list_are_explained_to_hold(case: Case) -> None:
    rule, view = case
    compiled = compile_rule(rule)
    found = compiled.holds(view) or []

    explained = compiled.explain(view)

    every: Counter[str] = Counter(row.place.partition(".")[0] for row in explained)
    held = Counter(row.place.partition(".")[0] for row in explained if row.holds)
    assert len(found) == sum(held[entry] == count for entry, count in every.items())
    assert len(explained) == sum(len(entry.and_list) for entry in rule.alarm_rules.or_list)
    for row in explained:
        assert row.why.startswith("it holds") == row.holds or row.why.startswith("it holds at none")


@given(cases(), views)
def test_what_a_rule_doesnt_look_at_doesnt_change_what_it_finds(
    case: Case, other: dict[str, Any]
) -> None:
    rule, view = case
    compiled = compile_rule(rule)
    if compiled.structs is None:
        return

    changed = {struct: dict(other.get(struct, {})) for struct in view}
    for (struct, *rest), _ in compiled.looks():
        for name in NAMES if struct in view else ():
            if not rest or rest[0] in (name, *RANGES):
                changed[struct].pop(name, None)
                if name in view[struct]:
                    changed[struct][name] = view[struct][name]

    assert compiled.holds(changed) == compiled.holds(view)


@given(cases(), views)
def test_structs_that_a_rule_doesnt_look_at_may_come_and_go(
    case: Case, other: dict[str, Any]
) -> None:
    rule, view = case
    compiled = compile_rule(rule)
    if compiled.structs is None:
        return

    looked_at = {struct: view[struct] for struct in view if struct in compiled.structs}
    without = {struct: other[struct] for struct in other if struct not in compiled.structs}

    assert compiled.holds({**looked_at, **without}) == compiled.holds(view)
    assert (compiled.holds(without) is not None) is compiled.holds_without_structs


@given(cases())
def test_what_is_found_twice_is_the_same_alarm(case: Case) -> None:
    rule, view = case
    found, again = (compile_rule(rule).holds(view) for _ in range(2))

    assert found == again
    if found is not None and again is not None:
        assert is_same(found, again)
        assert is_same(wire.decode(wire.encode(found)), again)


@given(cases())
def test_a_view_is_left_as_it_is(case: Case) -> None:
    rule, view = case
    before = wire.encode_json(view)

    compile_rule(rule).holds(view)
    compile_rule(rule).explain(view)

    assert wire.encode_json(view) == before


plain_numbers = st.integers(-2, 4) | st.floats(-2, 4) | st.sampled_from([2**53, -(2.0**60)])
constants = plain_numbers | st.lists(plain_numbers, min_size=2, max_size=2).map(sorted)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(OPERATIONS)), constants, st.sampled_from(["S.a", "S.b"])),
        min_size=1,
        max_size=3,
    ),
    plain_numbers,
    plain_numbers,
)
def test_a_number_that_passes_no_threshold_makes_no_other_alarm(
    asked: list[tuple[str, Any, str]], before: float, now: float
) -> None:
    conditions = [
        condition(path, operation, constant)
        for operation, constant, path in asked
        if is_meaningful(condition(path, operation, constant))
    ]
    if not conditions:
        return
    rule = compile_rule(Rule.model_validate(rule_of(*[[one] for one in conditions])))
    thresholds = [numbers for steps, numbers in rule.looks() if steps == ("S", "a")]
    numbers = [number for each in thresholds for number in each or ()]

    held, held_now = (rule.holds({"S": {"a": value, "b": 1}}) for value in (before, now))

    passes = any(
        (before < number) != (now < number) or (before > number) != (now > number)
        for number in numbers
    )
    if None not in thresholds and not passes:
        assert (held is None) == (held_now is None)
        assert held is None or held_now is None or is_same(held, held_now)
