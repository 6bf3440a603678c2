"""What holds for every view, whatever sources told: hypothesis looks for a value that breaks it."""

import fnmatch
import random
import re
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord import wire
from collectord.views import AGGTYPES, Filters, matches, merge

names = st.sampled_from(["a", "b", "name", "n"])
sources = st.sampled_from(["h1", "h1:Compute", "h1:Compute:agent:0", "h2", "é", "😀", "\uffee"])
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.integers(-3, 3)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.sampled_from(["", "1", "x", "h1:x", "\udcff"]) | st.text(max_size=3),
    st.binary(max_size=2),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=2)),
    st.builds(msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 999_999_999)),
)
map_keys = st.one_of(names, st.integers(-1, 2), st.booleans(), st.floats(), st.binary(max_size=1))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(map_keys, inner, max_size=4),
    max_leaves=12,
)
rows = st.lists(st.dictionaries(names, scalars, max_size=3), max_size=4)
attributes = st.dictionaries(names, values | rows, max_size=3)
aggtypes = st.sampled_from([*AGGTYPES, "append:name", "append:n", "nonsense"])
records = st.dictionaries(
    st.tuples(st.sampled_from(["Agent", "Config"]), sources), attributes, max_size=8
).map(lambda told: [[struct, source, attributes] for (struct, source), attributes in told.items()])
types = st.dictionaries(st.sampled_from(["Agent-a", "Agent-name", "Config-n"]), aggtypes)
filters = st.builds(
    Filters,
    sfilt=st.sampled_from(["", "h1"]),
    mfilt=st.sampled_from(["", "Compute"]),
    cfilt=st.dictionaries(st.sampled_from(["Agent", "Config"]), st.frozensets(names)),
    by_source=st.booleans(),
)


def told_by(column: dict[str, Any], aggtype: str) -> Any:
    """The merged value of one attribute, of which ``column`` has each source's value."""
    told = [["Agent", source, {"x": value}] for source, value in column.items()]
    return merge(told, {"Agent-x": aggtype}, {})["Agent"]["x"]


def columns(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(sources, of, min_size=1, max_size=5)


def exact(value: Any) -> bytes:
    """What tells 1 from 1.0 and from true, and one order of a map's entries from another."""
    return wire.encode_view(value)


@given(records, types, filters, st.randoms(use_true_random=False))
def test_a_view_never_depends_on_the_order_of_arrival(
    told: list[Any], types: dict[str, str], filters: Filters, shuffler: random.Random
) -> None:
    later = [
        [struct, source, dict(shuffler.sample(list(attributes.items()), len(attributes)))]
        for struct, source, attributes in told
    ]
    shuffler.shuffle(later)
    assert exact(merge(told, types, {}, filters)) == exact(merge(later, types, {}, filters))


@given(records, types, filters)
def test_a_view_of_anything_can_be_sent(
    told: list[Any], types: dict[str, str], filters: Filters
) -> None:
    view = merge(told, types, {}, filters)
    wire.encode_view(view)
    wire.encode_json(view)


@given(records, types, filters)
def test_merging_changes_nothing_of_what_was_told(
    told: list[Any], types: dict[str, str], filters: Filters
) -> None:
    before = exact(told)
    merge(told, types, {}, filters)
    assert exact(told) == before


@given(records, types, filters)
def test_a_filtered_view_is_the_view_of_the_filtered_records(
    told: list[Any], types: dict[str, str], filters: Filters
) -> None:
    kept = [
        [
            struct,
            source,
            {
                name: value
                for name, value in attributes.items()
                if not filters.cfilt.get(struct) or name in filters.cfilt[struct]
            },
        ]
        for struct, source, attributes in told
        if filters.wants_source(source) and filters.wants_struct(struct)
    ]
    whole = merge(kept, types, {}, Filters(by_source=filters.by_source))
    expected = {
        struct: view for struct, view in whole.items() if view or not filters.cfilt.get(struct)
    }
    assert exact(merge(told, types, {}, filters)) == exact(expected)


@given(columns(values))
def test_by_source_holds_exactly_what_was_told(column: dict[str, Any]) -> None:
    told = [["Agent", source, {"x": value}] for source, value in column.items()]
    view = merge(told, {}, {}, Filters(by_source=True))["Agent"]["x"]
    assert list(view) == sorted(column)
    assert all(view[source] is value for source, value in column.items())


@given(columns(values))
def test_none_names_every_source_once_or_shows_what_all_agree_on(column: dict[str, Any]) -> None:
    shown = told_by(column, "none")
    first, *others = (column[source] for source in sorted(column))
    if shown is first:
        assert all(told_by({"a": first, "b": other}, "none") is first for other in others)
    else:
        assert sorted(source for row in shown for source in row[1:]) == sorted(column)
        assert all(
            told_by({"a": row[0], "b": column[source]}, "none") is row[0]
            for row in shown
            for source in row[1:]
        )


@given(values, values, values)
def test_to_agree_is_an_equivalence(first: Any, second: Any, third: Any) -> None:
    def agree(left: Any, right: Any) -> bool:
        return told_by({"a": left, "b": right}, "none") is left

    assert agree(first, first)
    assert agree(first, second) == agree(second, first)
    if agree(first, second) and agree(second, third):
        assert agree(first, third)


@given(columns(st.integers(-(2**59), 2**59)))
def test_a_sum_of_integers_is_exact(column: dict[str, int]) -> None:
    assert told_by(column, "sum") == sum(column.values())


@given(columns(st.floats(-1e15, 1e15)))
def test_a_sum_of_floats_is_their_sum(column: dict[str, float]) -> None:
    assert told_by(column, "sum") == pytest.approx(sum(column.values()), abs=1)


@given(columns(st.dictionaries(names, st.integers(-(2**50), 2**50) | st.text(max_size=2))))
def test_a_sum_of_maps_is_the_sum_of_each_member(column: dict[str, dict[str, Any]]) -> None:
    expected: dict[str, int] = {}
    for value in column.values():
        for name, member in value.items():
            if isinstance(member, int):
                expected[name] = expected.get(name, 0) + member
    assert told_by(column, "sum") == expected


@given(columns(st.lists(values, max_size=5)))
def test_a_union_of_lists_has_every_element_exactly_once(column: dict[str, list[Any]]) -> None:
    def same(left: Any, right: Any) -> bool:
        return told_by({"a": left, "b": right}, "none") is left

    union = told_by(column, "union")
    for told in column.values():
        for element in told:
            assert sum(same(member, element) for member in union) == 1
    assert len(union) <= sum(map(len, column.values()))


@given(columns(st.dictionaries(st.text("ab:", max_size=3), values, max_size=3)))
def test_a_union_of_maps_loses_no_entry(column: dict[str, dict[str, Any]]) -> None:
    union = told_by(column, "union")
    entries = [(source, *entry) for source, told in column.items() for entry in told.items()]
    if isinstance(union, dict):
        assert len(union) == len(entries)
        assert all(union[f"{source}:{key}"] is value for source, key, value in entries)
    else:
        assert len({f"{source}:{key}" for source, key, _ in entries}) < len(entries)


@given(columns(st.lists(values, max_size=5)))
def test_an_append_has_every_element_of_every_list(column: dict[str, list[Any]]) -> None:
    expected = [element for source in sorted(column) for element in column[source]]
    assert exact(told_by(column, "append")) == exact(expected)


@given(columns(st.lists(st.fixed_dictionaries({"name": names, "n": st.integers(-9, 9)}))))
def test_an_append_by_key_has_one_row_for_each_key_with_the_sum_of_its_rows(
    column: dict[str, list[dict[str, Any]]],
) -> None:
    sums: dict[str, int] = {}
    for source in sorted(column):
        for row in column[source]:
            sums[row["name"]] = sums.get(row["name"], 0) + row["n"]
    expected = [{"name": name, "n": total} for name, total in sums.items()]
    assert told_by(column, "append:name") == expected


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_matches_what_a_shell_would_match(pattern: str, key: str) -> None:
    assert matches(pattern, key) == bool(re.fullmatch(fnmatch.translate(pattern), key))
