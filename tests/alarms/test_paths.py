"""Paths: what an operand leads to in a view, and what a variable leads to beside it."""

import json
from typing import Any

import msgpack
import pytest

from collectord.alarms.paths import MISSING, PATH_CHARACTERS, PLACES, Path, counters

VIEW: dict[str, Any] = {
    "UveVirtualNetworkAgent": {
        "flows": 30,
        "name": "vn1",
        "nothing": None,
        "stats": [{"other": "vn2", "bytes": 7}, {"other": "vn3"}, 5, {"other": None}],
        "nested": [[{"a": 1}], [], [{"a": 2}, {"a": 3}]],
        "empty": [],
        "text": json.dumps({"rows": [{"a": 1}, {"a": 2}], "inner": json.dumps({"b": 5})}),
    },
    "AggProxySumAnomalyEWM01-UveVirtualNetworkAgent-flows": {
        "proxy": "UveVirtualNetworkAgent-flows",
        "value": {"sigma": 0.5, "state": {"mean": "36"}},
    },
    "NodeStatus": {
        "ports": {"eth0": {"state": "up", "errors": {"in": 1}}, "eth1": {"state": "down"}},
        "none": {},
        "deep": {"x": {"p": {"v": 1}, "q": {"v": 2}}, "y": {}, "z": {"r": {"v": 3}}},
        "numbered": {"1": "text", 2: "number", True: "truth"},
        "texts": {'{"a": 1}': "of JSON", "b": "plain"},
    },
}


def found(path: str, view: dict[str, Any] = VIEW) -> Any:
    """What a path leads to: a list of it where it ranges."""
    result = Path(path).find(view)
    values = [place.value for place in result.places]
    if result.is_ranged:
        return values
    assert len(values) == 1
    return values[0]


# --- one place ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("UveVirtualNetworkAgent.flows", 30),
        ("AggProxySumAnomalyEWM01-UveVirtualNetworkAgent-flows.value.sigma", 0.5),
        ("AggProxySumAnomalyEWM01-UveVirtualNetworkAgent-flows.value.state.mean", "36"),
        ("NodeStatus.ports.eth0.errors.in", 1),
        ("NodeStatus.none", {}),
    ],
)
def test_each_step_is_a_member_of_a_map(path: str, value: Any) -> None:
    assert found(path) == value


def test_a_path_that_is_used_up_at_a_list_leads_to_the_whole_list() -> None:
    assert found("UveVirtualNetworkAgent.empty") == []
    assert len(found("UveVirtualNetworkAgent.stats")) == 4
    assert not Path("UveVirtualNetworkAgent.stats").find(VIEW).is_ranged


def test_a_path_of_one_step_leads_to_a_whole_struct() -> None:
    assert found("NodeStatus") is VIEW["NodeStatus"]


@pytest.mark.parametrize(
    "path",
    ["UveVirtualNetworkAgent.x", "NodeStatus.ports.eth9", "NodeStatus.ports.eth0.x", "Other"],
)
def test_where_only_the_last_step_is_missing_there_is_null(path: str) -> None:
    assert found(path) is None


def test_a_member_that_is_null_is_null() -> None:
    assert found("UveVirtualNetworkAgent.nothing") is None


@pytest.mark.parametrize(
    "path",
    [
        "Other.x",
        "NodeStatus.x.y",
        "NodeStatus.ports.eth9.state",
        "UveVirtualNetworkAgent.flows.x",
        "UveVirtualNetworkAgent.nothing.x",
        "UveVirtualNetworkAgent.name.x",
        "UveVirtualNetworkAgent.flows.*",
        "UveVirtualNetworkAgent.flows.__key",
        "NodeStatus.x.*",
        "Other.*",
    ],
)
def test_where_a_step_before_the_last_is_missing_there_is_no_way(path: str) -> None:
    assert found(path) is MISSING


@pytest.mark.parametrize(
    "value", [1, 1.5, True, None, b"{}", msgpack.ExtType(1, b"{}"), msgpack.Timestamp(1)]
)
@pytest.mark.parametrize("step", ["a", "*", "__key", "1"])
def test_there_is_no_way_through_what_has_no_members(value: Any, step: str) -> None:
    assert found(f"S.a.{step}", {"S": {"a": value}}) is MISSING


# --- ranging ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["*", "__value"])
def test_a_star_leads_to_all_values_of_a_map(step: str) -> None:
    assert found(f"NodeStatus.ports.{step}.state") == ["up", "down"]


def test_key_leads_to_all_keys_of_a_map() -> None:
    assert found("NodeStatus.ports.__key") == ["eth0", "eth1"]


def test_where_the_last_step_is_missing_at_an_element_it_is_null_there() -> None:
    assert found("NodeStatus.ports.*.errors") == [{"in": 1}, None]


def test_where_there_is_no_way_at_an_element_it_keeps_its_place() -> None:
    assert found("NodeStatus.ports.*.errors.in") == [1, MISSING]


def test_ranging_over_nothing_leads_nowhere() -> None:
    assert found("NodeStatus.none.*") == []
    assert found("NodeStatus.none.__key") == []
    assert found("UveVirtualNetworkAgent.empty.x") == []
    assert found("UveVirtualNetworkAgent.empty.*") == []


def test_a_step_at_a_list_is_taken_at_each_element() -> None:
    assert found("UveVirtualNetworkAgent.stats.other") == ["vn2", "vn3", MISSING, None]
    assert found("UveVirtualNetworkAgent.stats.bytes") == [7, None, MISSING, None]


@pytest.mark.parametrize("step", ["*", "__value"])
def test_a_star_at_a_list_leads_to_its_elements(step: str) -> None:
    assert found(f"UveVirtualNetworkAgent.stats.{step}") == VIEW["UveVirtualNetworkAgent"]["stats"]
    assert found(f"UveVirtualNetworkAgent.stats.{step}.bytes") == [7, None, MISSING, None]


def test_keys_at_a_list_are_those_of_its_elements() -> None:
    assert found("UveVirtualNetworkAgent.stats.__key") == [
        "other",
        "bytes",
        "other",
        MISSING,
        "other",
    ]


def test_lists_of_lists_are_flattened() -> None:
    assert found("UveVirtualNetworkAgent.nested.a") == [1, 2, 3]
    assert found("UveVirtualNetworkAgent.nested.*") == [[{"a": 1}], [], [{"a": 2}, {"a": 3}]]
    assert found("UveVirtualNetworkAgent.nested.*.a") == [1, 2, 3]
    assert found("UveVirtualNetworkAgent.nested.*.*") == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_maps_of_maps_are_flattened() -> None:
    assert found("NodeStatus.deep.*.*.v") == [1, 2, 3]
    assert found("NodeStatus.deep.*.__key") == ["p", "q", "r"]


def test_a_star_at_the_beginning_leads_to_every_struct() -> None:
    assert found("*.proxy") == [None, "UveVirtualNetworkAgent-flows", None]
    assert found("__key") == list(VIEW)


# --- texts of JSON ------------------------------------------------------------------------------


def test_a_step_at_a_text_is_taken_in_the_json_that_it_holds() -> None:
    assert found("UveVirtualNetworkAgent.text.rows.a") == [1, 2]
    assert found("UveVirtualNetworkAgent.text.x") is None
    assert found("UveVirtualNetworkAgent.text.x.y") is MISSING
    assert found("UveVirtualNetworkAgent.text.__key") == ["rows", "inner"]


def test_a_text_within_a_text_is_looked_into_too() -> None:
    assert found("UveVirtualNetworkAgent.text.inner.b") == 5


def test_a_text_of_a_text_of_json_is_looked_into_until_there_is_no_text() -> None:
    view = {"S": {"a": json.dumps(json.dumps(json.dumps({"b": 1})))}}
    assert found("S.a.b", view) == 1


def test_a_path_that_is_used_up_at_a_text_leads_to_the_text_as_it_is() -> None:
    assert found("UveVirtualNetworkAgent.text.inner") == '{"b": 5}'


def test_a_key_that_is_a_text_of_json_is_looked_into_if_there_are_steps_left() -> None:
    assert found("NodeStatus.texts.__key.a") == [1, MISSING]


@pytest.mark.parametrize("text", ["5", '"x"', "null", "[[]", "{", "NaN", "", "[" * 40_000])
def test_there_is_no_way_through_a_text_that_holds_no_members(text: str) -> None:
    assert found("S.a.b", {"S": {"a": text}}) is MISSING


# --- keys that are no texts ---------------------------------------------------------------------


def test_a_whole_number_leads_to_the_member_whose_key_it_is() -> None:
    assert found("NodeStatus.numbered.2") == "number"
    assert found("NodeStatus.numbered.3") is None


def test_a_text_comes_before_a_number() -> None:
    assert found("NodeStatus.numbered.1") == "text"


def test_other_keys_are_reached_by_ranging() -> None:
    members = {None: 1, 1.5: 2, b"x": 3, msgpack.ExtType(1, b"x"): 4, "\udcff": 5}
    assert found("S.a.*", {"S": {"a": members}}) == [1, 2, 3, 4, 5]
    assert found("S.a.__key", {"S": {"a": members}}) == list(members)
    assert found("S.a.None", {"S": {"a": members}}) is None


# --- what is no path ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b"])
def test_an_empty_step_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has an empty step; write names with one dot"):
        Path(text)


def test_a_path_is_not_too_long() -> None:
    Path("a" * PATH_CHARACTERS)
    with pytest.raises(ValueError, match="has 1025 characters; at most 1024 are taken"):
        Path("a" * (PATH_CHARACTERS + 1))


def test_the_longest_path_through_the_deepest_view_leads_somewhere() -> None:
    assert found(".".join("*" * 512), {"S": {"a": [[[[[[]]]]]]}}) == []
    assert found(".".join("a" * 512), {"a": {"a": {"a": {"a": {}}}}}) is MISSING


# --- very many places ---------------------------------------------------------------------------


def test_a_path_leads_to_at_most_so_many_places() -> None:
    everything = list(range(PLACES + 7))
    of_map = {str(number): number for number in everything}
    of_rows = [{"n": number} for number in everything]

    for path, value in [("S.a.*", everything), ("S.a.*", of_map), ("S.a.n", of_rows)]:
        result = Path(path).find({"S": {"a": value}})

        assert [place.value for place in result.places] == everything[:PLACES]
        assert result.cut == 7


def test_as_many_places_as_are_looked_at_are_not_cut() -> None:
    assert Path("S.a.*").find({"S": {"a": [0] * PLACES}}).cut == 0
    assert Path("S.a.*.*").find({"S": {"a": [[0] * 100] * (PLACES // 100)}}).cut == 0


def test_all_places_of_ranging_within_ranging_are_counted_together() -> None:
    result = Path("S.a.*.*").find({"S": {"a": [[0] * 3000] * 6}})

    assert len(result.places) == PLACES
    assert result.cut == 2000 + 2


def test_what_holds_no_places_is_not_looked_for_without_end() -> None:
    result = Path("S.a.*.*").find({"S": {"a": [[]] * PLACES + [{"x": 1}]}})

    assert result.places == []
    assert result.cut == 1


def test_what_is_not_looked_at_is_counted() -> None:
    before = counters["alarm_places_cut"]

    Path("S.a.*").find({"S": {"a": [0] * (PLACES + 7)}})
    Path("S.a.*").find({"S": {"a": [0] * PLACES}})

    assert counters["alarm_places_cut"] - before == 7


# --- beside an operand --------------------------------------------------------------------------


def beside(variable: str, operand: str, index: int = 0, view: dict[str, Any] = VIEW) -> Any:
    """What a variable leads to beside the place with that index of an operand."""
    one, another = Path(variable), Path(operand)
    place = another.find(view).places[index]
    result = one.find_from(*one.beside(another, place, view))
    values = [found.value for found in result.places]
    return values if result.is_ranged else values[0]


def test_a_variable_is_of_the_same_list_element() -> None:
    assert beside("S.rows.b", "S.rows.a", 1, {"S": {"rows": [{"a": 1, "b": 2}, {"b": 3}]}}) == 3


@pytest.mark.parametrize("operand", ["S.rows.*.a", "S.rows.a", "S.rows.__value.a", "S.rows.*"])
@pytest.mark.parametrize("variable", ["S.rows.*.b", "S.rows.b"])
def test_it_is_so_however_the_list_is_ranged_over(variable: str, operand: str) -> None:
    rows = [{"a": 1, "b": 2}, {"a": 2, "b": 3}]
    assert beside(variable, operand, 1, {"S": {"rows": rows}}) == 3


def test_a_variable_is_of_the_same_member_of_a_map() -> None:
    assert beside("NodeStatus.ports.*.errors.in", "NodeStatus.ports.*.state", 0) == 1
    assert beside("NodeStatus.ports.*.errors.in", "NodeStatus.ports.*.state", 1) is MISSING
    assert beside("NodeStatus.ports.__value.state", "NodeStatus.ports.*.errors", 1) == "down"


def test_a_variable_may_be_the_key_of_the_member() -> None:
    assert beside("NodeStatus.ports.__key", "NodeStatus.ports.*.state", 1) == "eth1"
    assert beside("NodeStatus.ports.__key", "NodeStatus.ports.*", 1) == "eth1"


def test_a_variable_may_be_the_member_of_the_key() -> None:
    assert beside("NodeStatus.ports.*.state", "NodeStatus.ports.__key", 1) == "down"


def test_a_variable_may_be_the_operand_itself_or_go_on_from_it() -> None:
    assert beside("NodeStatus.ports.*", "NodeStatus.ports.*", 1) == {"state": "down"}
    assert beside("NodeStatus.ports.*.state", "NodeStatus.ports.*", 1) == "down"


def test_a_variable_that_is_a_beginning_of_the_operand_is_what_lies_on_the_way() -> None:
    assert beside("NodeStatus.deep.*", "NodeStatus.deep.*.*.v", 2) == {"r": {"v": 3}}
    assert beside("NodeStatus.deep", "NodeStatus.deep.*.*.v", 2) == VIEW["NodeStatus"]["deep"]


def test_a_list_on_the_way_is_shown_by_its_element() -> None:
    stats = VIEW["UveVirtualNetworkAgent"]["stats"]
    assert (
        beside("UveVirtualNetworkAgent.stats", "UveVirtualNetworkAgent.stats.bytes", 1) == stats[1]
    )


def test_a_variable_ranges_where_it_parts_from_the_operand() -> None:
    assert beside("NodeStatus.deep.*.*.v", "NodeStatus.deep.*.p", 0) == [1, 2]


def test_a_variable_of_another_member_beside_the_star() -> None:
    view = {"S": {"m": {"x": {"v": 1}, "total": 9}}}
    assert beside("S.m.total", "S.m.*.v", 0, view) == 9


def test_a_variable_that_shares_no_step_is_sought_from_the_top() -> None:
    assert beside("UveVirtualNetworkAgent.name", "NodeStatus.ports.*.state", 1) == "vn1"
    assert beside("Other.x", "NodeStatus.ports.*.state", 1) is MISSING


def test_a_variable_is_of_the_same_element_inside_a_text() -> None:
    rows = json.dumps({"rows": [{"a": 1, "b": 2}, {"a": 2, "b": 3}]})
    assert beside("S.text.rows.b", "S.text.rows.a", 1, {"S": {"text": rows}}) == 3


def test_a_variable_is_found_where_the_last_step_of_the_operand_is_missing() -> None:
    assert beside("NodeStatus.ports.eth0.state", "NodeStatus.ports.eth0.x") == "up"
    assert beside("NodeStatus.ports.eth0.x.y", "NodeStatus.ports.eth0.x") is MISSING
