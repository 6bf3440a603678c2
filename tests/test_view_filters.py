"""What a request leaves of a view: the filters, how they are read, and how they are refused."""

from typing import Any

import pytest

from collectord.views import KEY_PATTERNS, Filters, matches, merge
from collectord.wire import WireError

AGENT = "compute-1:Compute:agent:0"
OTHER_AGENT = "compute-2:Compute:agent:0"
CONTROL = "compute-1:Control:control-node:0"
PROXY = {"proxy": "Agent-flows", "deleted": False, "value": {"value": 3}}


def view(**request: Any) -> dict[str, dict[str, Any]]:
    """The view that a request with these filters gets."""
    records = [
        ["Agent", AGENT, {"flows": 1, "name": "vn1"}],
        ["Agent", OTHER_AGENT, {"flows": 2, "name": "vn1"}],
        ["Config", CONTROL, {"name": "vn1"}],
    ]
    proxies = {"AggProxySum-Agent-flows": PROXY}
    return merge(records, {"Agent-flows": "sum"}, proxies, Filters.from_request(request))


def refusal(**request: Any) -> str:
    """The message with which a request is refused."""
    with pytest.raises(WireError) as caught:
        Filters.from_request(request)
    assert caught.value.code == "bad_request"
    return caught.value.message


WHOLE = {
    "Agent": {"flows": 3, "name": "vn1"},
    "AggProxySum-Agent-flows": PROXY,
    "Config": {"name": "vn1"},
}

# --- what they mean --------------------------------------------------------------------------


def test_without_filters_a_view_is_whole() -> None:
    assert view() == WHOLE


def test_fields_that_are_no_filters_are_ignored() -> None:
    assert view(op="get", key="ObjectVNTable:vn1", colour=7) == WHOLE


@pytest.mark.parametrize("empty", [None, "", []])
@pytest.mark.parametrize("name", ["cfilt", "kfilt"])
def test_an_empty_list_filters_nothing(name: str, empty: Any) -> None:
    assert Filters.from_request({name: empty}) == Filters()


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("name", ["sfilt", "mfilt"])
def test_an_empty_text_filters_nothing(name: str, empty: Any) -> None:
    assert view(**{name: empty}) == WHOLE


def test_sfilt_merges_what_sources_of_one_host_told() -> None:
    assert view(sfilt="compute-1") == {
        "Agent": {"flows": 1, "name": "vn1"},
        "Config": {"name": "vn1"},
    }


def test_sfilt_is_the_whole_host() -> None:
    assert view(sfilt="compute") == {}


def test_sfilt_finds_a_source_that_is_only_a_host() -> None:
    assert merge([["Agent", "h", {"x": 1}]], {}, {}, Filters(sfilt="h")) == {"Agent": {"x": 1}}


def test_mfilt_merges_what_sources_of_one_module_told() -> None:
    assert view(mfilt="Compute:agent:0") == {"Agent": {"flows": 3, "name": "vn1"}}


def test_mfilt_is_the_whole_rest_of_a_source() -> None:
    assert view(mfilt="Compute") == {}


def test_sfilt_and_mfilt_hold_together() -> None:
    assert view(sfilt="compute-2", mfilt="Compute:agent:0") == {
        "Agent": {"flows": 2, "name": "vn1"}
    }


@pytest.mark.parametrize("name", ["sfilt", "mfilt"])
def test_proxy_uves_are_no_sources(name: str) -> None:
    chosen = {"sfilt": "compute-1", "mfilt": "Compute:agent:0"}[name]
    assert "AggProxySum-Agent-flows" not in view(**{name: chosen})


def test_cfilt_leaves_the_structs_it_names() -> None:
    assert view(cfilt=["Config"]) == {"Config": {"name": "vn1"}}


def test_cfilt_leaves_the_attributes_it_names() -> None:
    assert view(cfilt=["Agent:flows"]) == {"Agent": {"flows": 3}}


def test_cfilt_with_a_struct_and_one_of_its_attributes_leaves_the_struct() -> None:
    assert view(cfilt=["Agent:flows", "Agent"]) == {"Agent": WHOLE["Agent"]}


def test_cfilt_may_name_several_attributes_of_several_structs() -> None:
    assert view(cfilt=["Agent:flows", "Agent:name", "Config:name"]) == {
        "Agent": WHOLE["Agent"],
        "Config": WHOLE["Config"],
    }


def test_cfilt_with_an_attribute_that_nobody_told_leaves_nothing() -> None:
    assert view(cfilt=["Agent:colour", "AggProxySum-Agent-flows:colour"]) == {}


def test_cfilt_may_name_a_proxy_uve() -> None:
    assert view(cfilt=["AggProxySum-Agent-flows"]) == {"AggProxySum-Agent-flows": PROXY}


def test_cfilt_may_name_an_attribute_of_a_proxy_uve() -> None:
    assert view(cfilt=["AggProxySum-Agent-flows:value"]) == {
        "AggProxySum-Agent-flows": {"value": {"value": 3}}
    }


def test_one_text_is_a_list_of_it() -> None:
    assert view(cfilt="Config") == view(cfilt=["Config"])


def test_kfilt_lets_keys_through_that_match_one_of_its_patterns() -> None:
    filters = Filters.from_request({"kfilt": ["ObjectVNTable:*", "*:vr1"]})
    keys = ["ObjectVNTable:vn1", "ObjectVRouter:vr1", "ObjectVRouter:vr2"]
    assert [filters.wants_key(key) for key in keys] == [True, True, False]


def test_a_key_with_a_comma_is_one_pattern() -> None:
    assert Filters.from_request({"kfilt": "T:a,b"}).wants_key("T:a,b")


def test_without_kfilt_all_keys_pass() -> None:
    assert Filters().wants_key("ObjectVNTable:vn1")


# --- by_source -------------------------------------------------------------------------------


def test_by_source_gives_each_source_its_own_value() -> None:
    assert view(by_source=True)["Agent"] == {
        "flows": {AGENT: 1, OTHER_AGENT: 2},
        "name": {AGENT: "vn1", OTHER_AGENT: "vn1"},
    }


def test_by_source_takes_sources_in_the_order_of_their_names() -> None:
    records = [["Agent", source, {"x": 1}] for source in "cab"]
    assert list(merge(records, {}, {}, Filters(by_source=True))["Agent"]["x"]) == ["a", "b", "c"]


def test_by_source_shows_proxy_uves_as_they_are() -> None:
    assert view(by_source=True)["AggProxySum-Agent-flows"] == PROXY


def test_by_source_holds_together_with_the_filters() -> None:
    assert view(by_source=True, sfilt="compute-2", cfilt=["Agent:flows"]) == {
        "Agent": {"flows": {OTHER_AGENT: 2}}
    }


def test_by_source_false_merges() -> None:
    assert view(by_source=False) == WHOLE


# --- how they are refused --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sfilt", "mfilt"])
@pytest.mark.parametrize("value", [1, True, ["compute-1"], {}, b"compute-1"])
def test_a_source_filter_that_is_no_text_is_refused(name: str, value: Any) -> None:
    assert refusal(**{name: value}).startswith(f"{name} is ")


def test_a_host_with_a_colon_is_refused_and_mfilt_is_named() -> None:
    assert refusal(sfilt=AGENT) == (
        "sfilt is 'compute-1:Compute:agent:0'; a host has no colon: what follows it goes into mfilt"
    )


@pytest.mark.parametrize("name", ["cfilt", "kfilt"])
@pytest.mark.parametrize("value", [1, True, {"Agent": "flows"}, b"Agent"])
def test_a_list_filter_that_is_no_list_is_refused(name: str, value: Any) -> None:
    assert "it is a list of" in refusal(**{name: value})


@pytest.mark.parametrize("name", ["cfilt", "kfilt"])
@pytest.mark.parametrize("value", [1, None, b"Agent", ["Agent"]])
def test_a_list_filter_with_anything_but_texts_is_refused(name: str, value: Any) -> None:
    assert refusal(**{name: ["Agent", value]}).startswith(f"{name}[1] is ")


@pytest.mark.parametrize(
    "component",
    ["", ":", "Agent:", ":flows", "Agent:flows:in", "Agent,Config", "Agent flows", "*", "Ägent"],
)
def test_a_component_that_names_no_struct_is_refused(component: str) -> None:
    message = refusal(cfilt=[component])
    assert message.startswith(f"cfilt has {component!r}; write struct or struct:attribute")


@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_by_source_is_true_or_false(value: Any) -> None:
    assert refusal(by_source=value).endswith("; it is true or false")


def test_more_patterns_than_can_be_tried_are_refused() -> None:
    assert refusal(kfilt=["*"] * (KEY_PATTERNS + 1)) == "kfilt has 101 patterns; it has 100 at most"


def test_a_refusal_never_repeats_more_than_a_line_of_the_request() -> None:
    assert len(refusal(cfilt=["!" * 100_000])) < 300


def test_a_value_nested_too_deep_to_show_is_refused_like_any_other() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert refusal(sfilt=nested).startswith("sfilt is a list")


# --- patterns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("T:vn1", "T:vn1"),
        ("", ""),
        ("*", ""),
        ("*", "T:vn1"),
        ("T:*", "T:"),
        ("T:*", "T:vn1"),
        ("*vn1", "T:vn1"),
        ("T*1", "T:vn1"),
        ("*:v*1", "T:vn1"),
        ("**v**", "T:vn1"),
        ("*ab*ab", "abab"),
        ("*a*a", "aa"),
        ("T:*é*", "T:café au lait"),
        ("T:[a-z]?*", "T:[a-z]?.+"),
    ],
)
def test_a_pattern_matches(pattern: str, key: str) -> None:
    assert matches(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("", "T"),
        ("T:vn", "T:vn1"),
        ("vn1", "T:vn1"),
        ("t:*", "T:vn1"),
        ("*vn", "T:vn1"),
        ("a*a", "a"),
        ("ab*ba", "aba"),
        ("*ab*ab", "ab"),
        ("*a*b*", "ba"),
        ("*a*a*", "a"),
        ("T:?n1", "T:vn1"),
        ("T:.*", "T:vn1"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, key: str) -> None:
    assert not matches(pattern, key)


def test_a_pattern_of_many_stars_is_answered() -> None:
    assert not matches("*a" * 500 + "*b", "a" * 1024)
