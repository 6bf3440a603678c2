"""Paths into proxy UVEs that never lead anywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from alarms.writing import condition, parsed, rule_of
from collectord.alarms.rules import impossible

METRIC = "UveVirtualNetworkAgent-egress_flow_count"
SCORE, SUM = f"AggProxySumAnomalyEWM01-{METRIC}", f"AggProxySum-{METRIC}"


def wrong_with(path: str, configured: Mapping[str, Collection[str]] | None = None) -> list[str]:
    """What is impossible about a path, without its place."""
    (rule,) = parsed(rule_of([condition(path, ">", "1")]))
    place = "rule 'rule' alarm_rules.or_list[0].and_list[0].operand1: "
    sentences = impossible(rule, configured)
    assert all(sentence.startswith(place) for sentence in sentences)
    return [sentence.removeprefix(place) for sentence in sentences]


@pytest.mark.parametrize(
    "path",
    [
        SCORE,
        f"{SCORE}.proxy",
        f"{SCORE}.deleted",
        f"{SCORE}.value",
        f"{SCORE}.value.sigma",
        f"{SCORE}.value.state.mean",
        f"{SCORE}.value.state.stddev",
        f"{SCORE}.value.*.mean",
        f"{SCORE}.*.sigma",
        f"{SCORE}.__value.*.stddev",
        f"{SCORE}.value.__key",
        f"{SUM}.value.value",
        f"{SUM}.value.staging",
        f"AggProxyLastAnomalyEWM025-{METRIC}.value.samples",
        "UveVirtualNetworkAgent.value.sigma",
        "Anything.at.all",
        "_Anything9._at.9.all-of-it",
        f"{'S' * 128}.{'a' * 128}",
        "S.*.at-all",
        "S.__key",
        "*.value.sigma",
        "*.*.at-all",
        "__key",
        "__value",
        "UVEAlarm.alarms",
    ],
)
def test_these_paths_may_lead_to_something(path: str) -> None:
    assert wrong_with(path) == []


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            f"{SUM}.value.sigma",
            f"'{SUM}.value.sigma' never exists; there are value, staging",
        ),
        (
            f"{SCORE}.value.state.sigma",
            f"'{SCORE}.value.state.sigma' never exists; there are mean, stddev",
        ),
        (
            f"{SCORE}.value.value",
            f"'{SCORE}.value.value' never exists; "
            "there are algo, config, samples, metric, sigma, state",
        ),
        (f"{SCORE}.sigma", f"'{SCORE}.sigma' never exists; there are proxy, deleted, value"),
        (
            f"{SCORE}.value.*.sigma",
            f"'{SCORE}.value.*.sigma' never exists; there are mean, stddev",
        ),
        (
            f"{SCORE}.value.sigma.x",
            f"'{SCORE}.value.sigma' has no members, so there is no 'x' of it",
        ),
        (
            f"{SUM}.value.*.x",
            f"'{SUM}.value.*' has no members, so there is no 'x' of it",
        ),
        (
            f"{SCORE}.value.__key.x",
            f"'{SCORE}.value.__key' has no members, so there is no 'x' of it",
        ),
    ],
)
def test_members_that_a_proxy_uve_never_has(path: str, sentence: str) -> None:
    assert wrong_with(path) == [sentence]


@pytest.mark.parametrize(
    "name",
    ["AggProxyMedian", "AggProxySumAnomalyZ01", "AggProxySumAnomalyEWM", "Sum", "aggProxySum"],
)
def test_algorithms_that_are_not_on_the_menu(name: str) -> None:
    (sentence,) = wrong_with(f"{name}-{METRIC}.value.value")

    assert sentence.startswith(f"unknown algorithm '{name}'; the menu is AggProxy")


def test_an_alpha_that_is_none() -> None:
    (sentence,) = wrong_with(f"AggProxySumAnomalyEWM2-{METRIC}.value.sigma")

    assert "alpha is above 0 and at most 1" in sentence


@pytest.mark.parametrize(
    "struct",
    ["AggProxySum", "AggProxySum-", "AggProxySum-UveDevice", "AggProxySum-9-x", f"{SUM}-x"],
)
def test_metrics_that_are_none(struct: str) -> None:
    assert wrong_with(f"{struct}.value.value") == [
        f"{struct!r} names no metric; write <algorithm>-<struct>-<attribute>, "
        "as in AggProxySum-UveVirtualNetworkAgent-egress_flow_count"
    ]


NAMED = "made of letters, digits and _, doesn't begin with a digit, and has at most 128 bytes"


@pytest.mark.parametrize("struct", ["9", "Uve Device", "Uve/Device", "Ünit", "S" * 129, "S:a", "$"])
def test_structs_that_no_source_can_tell(struct: str) -> None:
    sentence = f"{struct!r} never exists; the name of a struct is {NAMED}"

    assert wrong_with(f"{struct}.a") == wrong_with(struct) == [sentence]


@pytest.mark.parametrize("name", ["9", "egress flows", "egress-flows", "ü", "a" * 129])
@pytest.mark.parametrize("struct", ["UveDevice", "*", "__value"])
def test_attributes_that_no_source_can_tell(struct: str, name: str) -> None:
    sentence = f"{name!r} never exists; the name of an attribute is {NAMED}"

    assert wrong_with(f"{struct}.{name}.x") == wrong_with(f"{struct}.{name}") == [sentence]


@pytest.mark.parametrize("path", ["UVEAlarms", "UVEAlarms.alarms", "UVEAlarms.alarms.ack"])
def test_the_alarms_themselves_are_seen_by_no_rule(path: str) -> None:
    assert wrong_with(path) == ["'UVEAlarms' is what comes of rules, so no rule sees it"]


def test_proxies_that_are_not_configured() -> None:
    configured = {METRIC: ["AggProxySum"], "UveDevice-cpu": ["AggProxySumAnomalyEWM01"]}

    assert wrong_with(f"{SUM}.value.value", configured) == []
    assert wrong_with(f"{SCORE}.value.sigma", configured) == [
        f"'{SCORE}' is not configured; "
        f"add {METRIC}:AggProxySumAnomalyEWM01 to DEFAULT.uve_proxy_list"
    ]
    assert len(wrong_with("AggProxySum-UveDevice-memory.value.value", configured)) == 1
    assert len(wrong_with(f"{SUM}.value.value", {})) == 1


def test_both_may_be_wrong() -> None:
    assert len(wrong_with(f"{SUM}.value.sigma", {})) == 2


def test_every_path_is_looked_at_and_told_with_its_place() -> None:
    wrong, right = f"{SUM}.value.sigma", f"{SUM}.value.value"
    (rule,) = parsed(
        rule_of(
            [condition(right, ">", "1")],
            [condition(right, ">", "1"), condition(right, ">", f"@{wrong}", right, wrong)],
            name="flood",
        )
    )

    places = [sentence.partition(": ")[0] for sentence in impossible(rule, None)]

    assert places == [
        "rule 'flood' alarm_rules.or_list[1].and_list[1].operand2.uve_attribute",
        "rule 'flood' alarm_rules.or_list[1].and_list[1].variables[1]",
    ]
