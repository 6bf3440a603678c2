"""How values of several sources become one: each aggtype by example, and what fits none."""

import math
from typing import Any

import msgpack
import pytest

from collectord.views import merge

NAN = float("nan")


def merged(aggtype: str, *told: tuple[str, Any]) -> Any:
    """The merged value of one attribute, of which each source told the value beside its name."""
    records = [["Agent", source, {"x": value}] for source, value in told]
    return merge(records, {"Agent-x": aggtype}, {})["Agent"]["x"]


# --- the shape of a view ---------------------------------------------------------------------


def test_a_key_without_records_has_an_empty_view() -> None:
    assert merge([], {}, {}) == {}


def test_one_source_is_shown_as_it_told() -> None:
    records = [["Agent", "compute-1", {"name": "vn1", "flows": 3}]]
    assert merge(records, {}, {}) == {"Agent": {"name": "vn1", "flows": 3}}


def test_attributes_that_different_sources_told_stand_side_by_side() -> None:
    records = [["Agent", "b", {"flows": 3}], ["Agent", "a", {"name": "vn1"}]]
    assert merge(records, {}, {}) == {"Agent": {"name": "vn1", "flows": 3}}


def test_structs_are_merged_each_for_itself() -> None:
    records = [["Agent", "a", {"x": 1}], ["Config", "b", {"x": 2}]]
    assert merge(records, {}, {}) == {"Agent": {"x": 1}, "Config": {"x": 2}}


def test_an_aggtype_is_that_of_an_attribute_of_one_struct() -> None:
    records = [[struct, source, {"x": 2}] for struct in ("Agent", "Config") for source in "ab"]
    assert merge(records, {"Agent-x": "sum"}, {}) == {"Agent": {"x": 4}, "Config": {"x": 2}}


def test_a_struct_without_attributes_is_known_to_be_there() -> None:
    assert merge([["Agent", "a", {}]], {}, {}) == {"Agent": {}}


def test_proxy_uves_are_structs_like_others() -> None:
    proxy = {"proxy": "Agent-x", "deleted": False, "value": {"staging": 1}}
    view = merge([["Agent", "a", {"x": 1}]], {}, {"AggProxySum-Agent-x": proxy})
    assert view == {"Agent": {"x": 1}, "AggProxySum-Agent-x": proxy}


def test_structs_stand_in_the_order_of_their_names() -> None:
    view = merge([["Zone", "a", {}], ["Agent", "a", {}]], {}, {"AggProxySum-Agent-x": {}})
    assert list(view) == ["Agent", "AggProxySum-Agent-x", "Zone"]


def test_attributes_stand_in_the_order_of_their_names() -> None:
    assert list(merge([["Agent", "a", {"z": 1, "b": 2}]], {}, {})["Agent"]) == ["b", "z"]


def test_what_was_given_is_not_changed() -> None:
    rows = [{"name": "e0", "n": 1}]
    records = [["Agent", "b", {"x": rows}], ["Agent", "a", {"x": rows}]]
    merge(records, {"Agent-x": "append:name"}, {})
    assert records == [
        ["Agent", "b", {"x": [{"name": "e0", "n": 1}]}],
        ["Agent", "a", {"x": [{"name": "e0", "n": 1}]}],
    ]


# --- none ------------------------------------------------------------------------------------


def test_none_is_the_value_that_all_sources_agree_on() -> None:
    assert merged("none", ("a", "up"), ("b", "up"), ("c", "up")) == "up"


def test_none_has_a_row_for_each_distinct_value_and_who_told_it() -> None:
    assert merged("none", ("c", "up"), ("b", "down"), ("a", "up")) == [
        ["up", "a", "c"],
        ["down", "b"],
    ]


def test_none_shows_a_list_that_all_agree_on_as_that_list() -> None:
    assert merged("none", ("a", [1, 2]), ("b", [1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (NAN, float("nan")),
        (NAN, -NAN),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "x", "y": [1]}, {"y": [1.0], 1: "x"}),
        ([NAN], [float("nan")]),
        (msgpack.ExtType(5, b"x"), msgpack.ExtType(5, b"x")),
        (msgpack.Timestamp(1, 2), msgpack.Timestamp(1, 2)),
        (2**64 - 1, 2**64 - 1),
    ],
)
def test_values_that_a_reader_would_call_equal_are_one(first: Any, second: Any) -> None:
    assert merged("none", ("a", first), ("b", second)) is first


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, True),
        (0, False),
        (1.0, True),
        ("1", 1),
        ("x", b"x"),
        ("", []),
        ([], {}),
        ([1], [True]),
        ([1], msgpack.packb([1])),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": True}),
        ({1: "x"}, {True: "x"}),
        ({1: "x"}, {"1": "x"}),
        ({"a": None}, {}),
        (2**53 + 1, float(2**53)),
        (2**64 - 1, float(2**64)),
        (math.inf, -math.inf),
        (NAN, 0.0),
        (msgpack.ExtType(5, b"x"), [5, b"x"]),
        (msgpack.ExtType(5, b"x"), msgpack.ExtType(6, b"x")),
        (msgpack.Timestamp(1, 2), msgpack.Timestamp(1, 3)),
    ],
)
def test_values_that_a_reader_would_tell_apart_are_two(first: Any, second: Any) -> None:
    rows = merged("none", ("a", first), ("b", second))
    assert [row[1:] for row in rows] == [["a"], ["b"]]
    assert rows[0][0] is first
    assert rows[1][0] is second


def test_an_attribute_without_an_aggtype_is_none() -> None:
    records = [["Agent", "a", {"x": 1}], ["Agent", "b", {"x": 2}]]
    assert merge(records, {}, {}) == {"Agent": {"x": [[1, "a"], [2, "b"]]}}


@pytest.mark.parametrize("aggtype", ["", "total", "SUM", "sum:x", "union:x", "none:x", ":"])
def test_an_aggtype_that_is_not_known_is_none(aggtype: str) -> None:
    assert merged(aggtype, ("a", 1), ("b", 2)) == [[1, "a"], [2, "b"]]


# --- sum -------------------------------------------------------------------------------------


def test_sum_adds_up_numbers() -> None:
    assert merged("sum", ("a", 1), ("b", 2), ("c", 0.5)) == 3.5


def test_a_sum_of_integers_is_an_integer() -> None:
    assert type(merged("sum", ("a", 2**53), ("b", 1))) is int


@pytest.mark.parametrize(
    ("numbers", "total"),
    [((2**64 - 2, 1), 2**64 - 1), ((1 - 2**63, -1), -(2**63))],
)
def test_a_sum_as_far_out_as_the_wire_can_carry_is_exact(
    numbers: tuple[int, int], total: int
) -> None:
    value = merged("sum", *zip("ab", numbers, strict=True))
    assert (type(value), value) == (int, total)


@pytest.mark.parametrize(
    ("numbers", "total"),
    [((2**64 - 1, 1), 2.0**64), ((-(2**63), -1), -(2.0**63) - 1)],
)
def test_a_sum_that_the_wire_has_no_integer_for_is_a_float(
    numbers: tuple[int, int], total: float
) -> None:
    value = merged("sum", *zip("ab", numbers, strict=True))
    assert (type(value), value) == (float, total)


def test_a_sum_with_infinity_is_infinity() -> None:
    assert merged("sum", ("a", math.inf), ("b", 1)) == math.inf


def test_a_sum_with_nan_is_nan() -> None:
    assert math.isnan(merged("sum", ("a", NAN), ("b", 1)))


def test_sum_of_maps_is_the_sum_of_each_member() -> None:
    assert merged("sum", ("a", {"in": 1, "out": 2}), ("b", {"in": 10, "drop": 5})) == {
        "in": 11,
        "out": 2,
        "drop": 5,
    }


def test_sum_of_maps_leaves_out_what_is_no_number() -> None:
    assert merged("sum", ("a", {"in": 1, "up": True, "name": "x"}), ("b", {"in": "many"})) == {
        "in": 1
    }


def test_sum_of_maps_leaves_out_what_is_no_number_for_one_source_too() -> None:
    assert merged("sum", ("a", {"in": 1, "name": "x"})) == {"in": 1}


def test_sum_of_maps_adds_up_members_whose_keys_are_no_texts() -> None:
    assert merged("sum", ("a", {80: 1, b"x": 2}), ("b", {80: 3})) == {80: 4, b"x": 2}


@pytest.mark.parametrize("misfit", ["3", True, [3], b"3", msgpack.Timestamp(3), {"n": 3}])
def test_a_sum_with_a_value_that_cannot_be_added_lists_all_values(misfit: Any) -> None:
    assert merged("sum", ("a", 1), ("b", misfit)) == [[1, "a"], [misfit, "b"]]


def test_a_sum_of_texts_that_agree_is_that_text() -> None:
    assert merged("sum", ("a", "x"), ("b", "x")) == "x"


# --- union -----------------------------------------------------------------------------------


def test_union_of_lists_has_each_element_once() -> None:
    assert merged("union", ("a", ["vm1", "vm2"]), ("b", ["vm2", "vm3"])) == ["vm1", "vm2", "vm3"]


def test_union_of_lists_takes_sources_in_the_order_of_their_names() -> None:
    assert merged("union", ("b", [1, 2]), ("a", [3, 1])) == [3, 1, 2]


def test_union_of_lists_drops_repetitions_of_one_source_too() -> None:
    assert merged("union", ("a", [1, 1, 2])) == [1, 2]


def test_union_of_lists_knows_elements_that_cannot_be_hashed() -> None:
    rows = [{"name": "e0", "up": True}, [1, 2]]
    assert merged("union", ("a", rows), ("b", [[1.0, 2], {"up": True, "name": "e0"}])) == rows


def test_union_of_lists_tells_true_from_one() -> None:
    union = merged("union", ("a", [1, True, 0, False, "1", b"1", NAN]), ("b", [float("nan"), 1.0]))
    assert [type(element) for element in union] == [int, bool, int, bool, str, bytes, float]


def test_union_of_maps_has_all_entries_each_with_its_source() -> None:
    assert merged("union", ("b", {"vm1": 1}), ("a", {"vm1": 2, "vm2": 3})) == {
        "a:vm1": 2,
        "a:vm2": 3,
        "b:vm1": 1,
    }


def test_union_of_maps_names_the_source_where_there_is_only_one() -> None:
    assert merged("union", ("a", {"vm1": 1})) == {"a:vm1": 1}


def test_union_of_maps_writes_keys_that_are_no_texts_as_json_does() -> None:
    told = {80: "http", True: "on", None: "nil", 0.5: "half", b"\x00\x01": "AAE="}
    assert merged("union", ("a", told)) == {
        "a:80": "http",
        "a:true": "on",
        "a:null": "nil",
        "a:0.5": "half",
        "a:AAE=": "AAE=",
    }


def test_union_of_maps_lists_all_values_where_two_entries_would_be_one() -> None:
    told = (("a", {"b:vm1": 1}), ("a:b", {"vm1": 2}))
    assert merged("union", *told) == [[{"b:vm1": 1}, "a"], [{"vm1": 2}, "a:b"]]


@pytest.mark.parametrize("misfit", [1, "x", None, {"x": 1}])
def test_a_union_with_a_value_that_is_no_list_lists_all_values(misfit: Any) -> None:
    assert merged("union", ("a", [1]), ("b", misfit)) == [[[1], "a"], [misfit, "b"]]


# --- append ----------------------------------------------------------------------------------


def test_append_puts_lists_one_after_the_other_in_the_order_of_the_sources() -> None:
    assert merged("append", ("b", [1, 2]), ("a", [2, 3])) == [2, 3, 1, 2]


@pytest.mark.parametrize("aggtype", ["append", "append:name"])
def test_an_append_with_a_value_that_is_no_list_lists_all_values(aggtype: str) -> None:
    assert merged(aggtype, ("a", [1]), ("b", {"x": 1})) == [[[1], "a"], [{"x": 1}, "b"]]


def test_append_by_key_adds_up_the_numbers_of_rows_that_share_the_key() -> None:
    told = (
        ("a", [{"name": "e0", "in": 1, "out": 0.5}, {"name": "e1", "in": 2}]),
        ("b", [{"name": "e0", "in": 10, "drop": 7}]),
    )
    assert merged("append:name", *told) == [
        {"name": "e0", "in": 11, "out": 0.5, "drop": 7},
        {"name": "e1", "in": 2},
    ]


def test_append_by_key_makes_rows_of_one_source_one_too() -> None:
    rows = [{"name": "e0", "in": 1}, {"name": "e0", "in": 2}]
    assert merged("append:name", ("a", rows)) == [{"name": "e0", "in": 3}]


def test_append_by_key_never_adds_up_the_key() -> None:
    rows = [{"port": 80, "in": 1}, {"port": 80.0, "in": 2}]
    assert merged("append:port", ("a", rows)) == [{"port": 80, "in": 3}]


def test_append_by_key_shows_other_members_that_agree_once() -> None:
    told = (("a", [{"name": "e0", "state": "up"}]), ("b", [{"name": "e0", "state": "up"}]))
    assert merged("append:name", *told) == [{"name": "e0", "state": "up"}]


def test_append_by_key_lists_other_members_that_differ() -> None:
    told = (
        ("a", [{"name": "e0", "up": True}, {"name": "e0", "up": True}]),
        ("b", [{"name": "e0", "up": False}]),
        ("c", [{"name": "e0", "up": True}]),
    )
    assert merged("append:name", *told) == [{"name": "e0", "up": [[True, "a", "c"], [False, "b"]]}]


def test_append_by_key_leaves_rows_without_the_key_where_they_are() -> None:
    told = (
        ("a", [{"in": 1}, {"name": "e0", "in": 1}, "text"]),
        ("b", [{"in": 1}, {"name": "e0", "in": 2}]),
    )
    assert merged("append:name", *told) == [{"in": 1}, {"name": "e0", "in": 3}, "text", {"in": 1}]


def test_append_by_key_tells_keys_apart_that_python_calls_equal() -> None:
    rows = [{"id": 1, "n": 1}, {"id": True, "n": 1}, {"id": [1], "n": 1}, {"id": [True], "n": 1}]
    assert merged("append:id", ("a", rows)) == rows


def test_append_by_key_takes_the_rest_of_the_aggtype_as_the_key() -> None:
    rows = [{"a:b": 1, "n": 1}, {"a:b": 1, "n": 2}]
    assert merged("append:a:b", ("a", rows)) == [{"a:b": 1, "n": 3}]
