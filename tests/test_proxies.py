"""The menu of proxy UVEs: its names, the option that chooses from it, and what a view shows."""

import re
from typing import Any

import pytest

from collectord import proxies
from collectord.engine import ProxyState
from collectord.proxies import Algorithm, ProxyListError, algorithm, parse_proxy_list

EGRESS = "UveVirtualNetworkAgent-egress_flow_count"
INGRESS = "UveVirtualNetworkAgent-ingress_flow_count"


def errors_of(text: str) -> list[str]:
    """What is found wrong with a ``uve_proxy_list``."""
    with pytest.raises(ProxyListError) as caught:
        parse_proxy_list(text)
    return caught.value.errors


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reducer", ["Sum", "Avg", "Min", "Max", "Count", "Last"])
def test_every_reducer_is_on_the_menu_alone(reducer: str) -> None:
    assert algorithm(f"AggProxy{reducer}") == Algorithm(f"AggProxy{reducer}", reducer, "", "")


@pytest.mark.parametrize("reducer", ["Sum", "Avg", "Min", "Max", "Count", "Last"])
def test_every_reducer_is_on_the_menu_with_a_detector(reducer: str) -> None:
    name = f"AggProxy{reducer}AnomalyEWM01"
    assert algorithm(name) == Algorithm(name, reducer, "EWM", "0.1")


@pytest.mark.parametrize(
    ("digits", "config", "alpha"),
    [
        ("01", "0.1", 0.1),
        ("03", "0.3", 0.3),
        ("001", "0.01", 0.01),
        ("025", "0.25", 0.25),
        ("1", "1", 1.0),
        ("10", "1.0", 1.0),
        ("000000000001", "0.00000000001", 1e-11),
    ],
)
def test_alpha_is_written_without_its_point(digits: str, config: str, alpha: float) -> None:
    entry = algorithm(f"AggProxySumAnomalyEWM{digits}")
    assert (entry.config, entry.alpha) == (config, alpha)


@pytest.mark.parametrize("digits", ["0", "00", "11", "2", "999999999999"])
def test_alpha_is_above_0_and_at_most_1(digits: str) -> None:
    with pytest.raises(ValueError, match="alpha is above 0 and at most 1") as caught:
        algorithm(f"AggProxySumAnomalyEWM{digits}")
    assert f"AggProxySumAnomalyEWM{digits}" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "AggProxy",
        "Sum",
        "AggProxySum ",
        "AggProxysum",
        "AggProxyMedian",
        "AggProxySumAnomaly",
        "AggProxySumAnomalyEWM",
        "AggProxySumAnomalyEWM0.1",
        "AggProxySumAnomalyEWM-1",
        "AggProxySumAnomalyEWM٠١",
        "AggProxySumAnomalyEWM0000000000001",
        "AggProxySumAnomalyARIMA01",
        "AggProxySum\n",
    ],
)
def test_a_name_that_is_not_on_the_menu_is_refused_with_the_menu(name: str) -> None:
    message = f"unknown algorithm {name!r}; the menu is AggProxy{{Sum,Avg,Min,Max,Count,Last}}"
    with pytest.raises(ValueError, match=re.escape(message)):
        algorithm(name)


def test_without_a_detector_alpha_is_1() -> None:
    assert algorithm("AggProxySum").alpha == 1.0


# --- uve_proxy_list --------------------------------------------------------------------------


def test_a_list_gives_each_metric_its_algorithms_in_their_order() -> None:
    metrics = parse_proxy_list(
        f"{EGRESS}:AggProxySumAnomalyEWM01:AggProxySum {INGRESS}:AggProxyLast"
    )
    assert {metric: [entry.name for entry in chosen] for metric, chosen in metrics.items()} == {
        EGRESS: ["AggProxySumAnomalyEWM01", "AggProxySum"],
        INGRESS: ["AggProxyLast"],
    }


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_list_has_no_metrics(text: str) -> None:
    assert parse_proxy_list(text) == {}


def test_entries_may_stand_on_several_lines() -> None:
    text = f"\n  {EGRESS}:AggProxySum\n\t{INGRESS}:AggProxySum\n"
    assert list(parse_proxy_list(text)) == [EGRESS, INGRESS]


def test_a_metric_that_is_named_twice_has_the_algorithms_of_both_entries() -> None:
    metrics = parse_proxy_list(f"{EGRESS}:AggProxySum {EGRESS}:AggProxyMax")
    assert [entry.name for entry in metrics[EGRESS]] == ["AggProxySum", "AggProxyMax"]


def test_an_algorithm_that_is_named_twice_runs_once() -> None:
    metrics = parse_proxy_list(f"{EGRESS}:AggProxySum:AggProxySum {EGRESS}:AggProxySum")
    assert [entry.name for entry in metrics[EGRESS]] == ["AggProxySum"]


@pytest.mark.parametrize(
    "entry",
    [
        "AggProxySum",
        EGRESS,
        ":AggProxySum",
        "UveVirtualNetworkAgent:AggProxySum",
        "UveVirtualNetworkAgent-:AggProxySum",
        "-egress_flow_count:AggProxySum",
        "Agent-a-b:AggProxySum",
        "1Agent-x:AggProxySum",
        "Ägent-x:AggProxySum",
        f"{'A' * 129}-x:AggProxySum",
        f"A-{'x' * 129}:AggProxySum",
    ],
)
def test_a_malformed_entry_is_named_and_a_right_one_shown(entry: str) -> None:
    assert errors_of(entry) == [
        f"malformed entry {entry!r}; write <struct>-<attribute>:<algorithm>[:<algorithm>], "
        f"as in {EGRESS}:AggProxySum"
    ]


def test_names_may_be_as_long_as_the_wire_lets_them() -> None:
    metric = f"{'A' * 128}-{'x' * 128}"
    assert list(parse_proxy_list(f"{metric}:AggProxySum")) == [metric]


@pytest.mark.parametrize("entry", [f"{EGRESS}:", f"{EGRESS}::AggProxySum", f"{EGRESS}:Median"])
def test_an_unknown_algorithm_is_named_with_its_entry(entry: str) -> None:
    (error,) = errors_of(entry)
    assert error.startswith("unknown algorithm ")
    assert error.endswith(f", in the entry {entry!r}")


def test_every_wrong_entry_is_named_at_once() -> None:
    errors = errors_of(f"nonsense {EGRESS}:Median:AggProxySum:AggProxySumAnomalyEWM2 {INGRESS}")
    assert [error.split("'")[1] for error in errors] == [
        "nonsense",
        "Median",
        "AggProxySumAnomalyEWM2",
        INGRESS,
    ]


def test_one_metric_has_16_algorithms_at_most() -> None:
    names = [f"AggProxySumAnomalyEWM0{digit}" for digit in range(10, 27)]
    assert len(parse_proxy_list(":".join([EGRESS, *names[:16]]))[EGRESS]) == 16
    assert errors_of(":".join([EGRESS, *names])) == [
        f"'{EGRESS}' has 17 algorithms; at most 16 can run on one metric"
    ]


def test_4096_metrics_can_be_configured_at_most() -> None:
    entries = [f"S-a{number}:AggProxySum" for number in range(4097)]

    assert len(parse_proxy_list(" ".join(entries[:4096]))) == 4096
    assert errors_of(" ".join(entries)) == [
        "4097 metrics are named; at most 4096 can be configured"
    ]


def test_a_metric_with_too_many_algorithms_is_named_once() -> None:
    entries = [f"{EGRESS}:AggProxySumAnomalyEWM0{digit}" for digit in range(10, 30)]
    assert errors_of(" ".join(entries)) == [
        f"'{EGRESS}' has 20 algorithms; at most 16 can run on one metric"
    ]


def test_the_engine_is_told_name_timeout_reducer_detector_and_alpha() -> None:
    metrics = parse_proxy_list(f"{EGRESS}:AggProxySumAnomalyEWM025:AggProxyMax")
    assert proxies.specifications(metrics) == {
        EGRESS: [
            ("AggProxySumAnomalyEWM025", 1, "Sum", "EWM", 0.25),
            ("AggProxyMax", 1, "Max", "", 1.0),
        ]
    }


# --- what a view shows -----------------------------------------------------------------------


def state(name: str, value: float | None, staging: float | None = None) -> ProxyState:
    return ProxyState(
        metric=EGRESS,
        algorithm=name,
        value=value,
        staging=staging,
        samples=235,
        mean=36.0,
        stddev=0.000172333,
        sigma=0.00000764143,
    )


def test_a_proxy_uve_is_named_after_its_algorithm_and_metric() -> None:
    assert proxies.struct_name(state("AggProxySum", 1)) == f"AggProxySum-{EGRESS}"


def test_a_detector_shows_its_last_step() -> None:
    assert proxies.struct_value(state("AggProxySumAnomalyEWM01", 36)) == {
        "proxy": EGRESS,
        "deleted": False,
        "value": {
            "algo": "EWM",
            "config": "0.1",
            "samples": 235,
            "metric": 36,
            "sigma": 0.00000764143,
            "state": {"mean": "36", "stddev": "0.000172333"},
        },
    }


def test_a_detector_that_does_not_report_yet_has_no_value() -> None:
    shown = proxies.struct_value(state("AggProxySumAnomalyEWM01", None, staging=7))
    assert shown == {"proxy": EGRESS, "deleted": False}


def test_a_reducer_shows_its_last_period_and_the_one_in_the_making() -> None:
    shown = proxies.struct_value(state("AggProxyMax", 36, staging=7))
    assert shown == {"proxy": EGRESS, "deleted": False, "value": {"value": 36, "staging": 7}}


@pytest.mark.parametrize(
    ("value", "staging", "shown"), [(0, None, {"value": 0}), (None, 0.0, {"staging": 0.0})]
)
def test_a_reducer_shows_of_the_two_what_there_is(
    value: float | None, staging: float | None, shown: dict[str, float]
) -> None:
    assert proxies.struct_value(state("AggProxySum", value, staging))["value"] == shown


def test_a_reducer_without_either_has_no_value() -> None:
    assert "value" not in proxies.struct_value(state("AggProxySum", None))


def names_of(shape: Any) -> dict[str, Any]:
    return {name: names_of(inner) for name, inner in (shape or {}).items()}


@pytest.mark.parametrize("entry", proxies.menu(), ids=lambda entry: entry["name"])
def test_the_shape_of_a_struct_names_all_that_is_shown_and_nothing_else(
    entry: dict[str, Any],
) -> None:
    name = entry["name"].replace("<alpha>", "01")

    def members(value: Any) -> dict[str, Any]:
        is_map = isinstance(value, dict)
        return {name: members(inner) for name, inner in value.items()} if is_map else {}

    shown = proxies.struct_value(state(name, 36, staging=7))
    assert members(shown) == names_of(proxies.struct_shape(algorithm(name)))


def test_the_name_of_a_struct_is_read_as_it_was_made() -> None:
    name = proxies.struct_name(state("AggProxySumAnomalyEWM01", 36))
    assert proxies.parse_struct_name(name) == (EGRESS, algorithm("AggProxySumAnomalyEWM01"))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("AggProxySum", "names no metric"),
        ("AggProxySum-", "names no metric"),
        (f"AggProxySum-{EGRESS}-x", "names no metric"),
        (f"AggProxyMedian-{EGRESS}", "unknown algorithm 'AggProxyMedian'"),
        (EGRESS, "unknown algorithm 'UveVirtualNetworkAgent'"),
    ],
)
def test_a_name_that_no_struct_has_is_refused(name: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        proxies.parse_struct_name(name)


# --- the menu --------------------------------------------------------------------------------


def test_the_menu_holds_every_reducer_alone_and_with_every_detector() -> None:
    reducers, detectors = proxies.REDUCERS, proxies.DETECTORS
    assert len(proxies.menu()) == len(reducers) * (1 + len(detectors))


def test_every_name_of_the_menu_can_be_configured() -> None:
    for entry in proxies.menu():
        made = algorithm(entry["name"].replace("<alpha>", "01"))
        assert (made.reducer, made.detector) == (entry["reducer"], entry.get("detector", ""))


def test_an_entry_of_the_menu_tells_period_timeout_and_parameters() -> None:
    entries = {entry["name"]: entry for entry in proxies.menu()}
    entry = entries["AggProxySumAnomalyEWM<alpha>"]
    assert (entry["period"], entry["timeout"], list(entry["parameters"])) == (60, 1, ["alpha"])
    assert entries["AggProxySum"]["parameters"] == {}
