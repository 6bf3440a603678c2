"""``conf/alarms.json``, the rules that people copy: each holds where it should, and only there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from collectord import proxies
from collectord.alarms import rules
from collectord.alarms.evaluation import compile_rule, is_same
from collectord.alarms.rules import Condition, Rule
from collectord.engine import ProxyState
from collectord.netops.configuration import read_file
from collectord.netops.network import simulations, uve_proxy_list
from collectord.options import BY_NAME
from collectord.views import View

CONF = Path(__file__).parents[2] / "conf"
FILE = CONF / "alarms.json"
RULES = {rule.name: rule for rule in rules.read(FILE)}
SCORE, SUM = "AggProxySumAnomalyEWM01", "AggProxySum"
CONSTANT = 1.06
"""|sigma| of a series that never varies is 1 / sqrt(0.9), for rounding is all that is left."""
BOUND = 3.0
"""|sigma| never passes sqrt((1 - alpha) / alpha), and alpha is 0.1."""

VN = "ObjectVNTable:default-domain:demo:frontend"
DEVICE = "ObjectDevice:acme/0/0"
SITE = "ObjectSite:acme/0"
COMPANY = "ObjectCompany:acme"
CONTROL = "ObjectBgpRouter:control-1"
VROUTER = "ObjectVRouter:compute-1"


# ---- views, proxy UVEs as the collector shows them


def scored(metric: str, sigma: float, mean: float = 24_000.0, stddev: float = 3_000.0) -> View:
    """The score of a minute whose sum lies so many deviations off the mean."""
    value = round(mean + sigma * stddev)
    state = ProxyState(metric, SCORE, value, None, 300, mean, stddev, sigma)
    return {proxies.struct_name(state): proxies.struct_value(state)}


def unscored(metric: str) -> View:
    """A detector that has not seen enough to say something."""
    state = ProxyState(metric, SCORE, None, None, 3, 0.0, 0.0, 0.0)
    return {proxies.struct_name(state): proxies.struct_value(state)}


def summed(metric: str, value: int | None, staging: int = 0) -> View:
    """The sum of the last whole minute; None while there was none yet."""
    state = ProxyState(metric, SUM, value, staging, 0, 0.0, 0.0, 0.0)
    return {proxies.struct_name(state): proxies.struct_value(state)}


def flows(**attributes: Any) -> View:
    return {"UveVirtualNetworkAgent": attributes}


def device(**attributes: Any) -> View:
    return {"UveDevice": attributes}


def processes(*states: str) -> View:
    """Processes of a node, one for each state."""
    return {
        "NodeStatus": {
            "process_status": [
                {
                    "module_id": f"contrail-{number}",
                    "instance_id": "0",
                    "state": state,
                    "description": "" if state == "Functional" else "Collector connection down",
                }
                for number, state in enumerate(states)
            ]
        }
    }


def disks(**used: int) -> View:
    partitions = {
        name: {"percentage_partition_space_used": percent} for name, percent in used.items()
    }
    return {"NodeStatus": {"disk_usage_info": partitions}}


def interfaces(down: int, names: list[str]) -> View:
    return {"VrouterAgent": {"down_interface_count": down, "error_intf_list": names}}


def peers(**counts: int) -> View:
    return {"BgpRouterState": counts}


def speaker(address: str, parameters: str) -> View:
    return {
        "BgpRouterState": {"router_id": address},
        "ContrailConfig": {"elements": {"bgp_router_parameters": parameters}},
    }


EGRESS, INGRESS = (f"UveVirtualNetworkAgent-{name}_flow_count" for name in ("egress", "ingress"))
CPU, THROUGHPUT = "UveDevice-cpu_utilization", "UveDevice-throughput"
COMPANY_SUM = "UveCompany-throughput"
SITE_CPU, SITE_THROUGHPUT = "UveSite-cpu_utilization", "UveSite-throughput"

EXAMPLES: dict[str, tuple[str, list[View], list[View]]] = {
    **{
        f"vn-{direction}-flood": (
            VN,
            [scored(metric, 2.9), scored(metric, 2.5, 0.0, 300.0)],
            [
                scored(metric, 2.2),
                scored(metric, -2.9),
                scored(metric, 2.9, 60.0, 18.0),  # a network of a few flows that got one more
                scored(metric, CONSTANT, stddev=1e-12),
                unscored(metric),
                {},
            ],
        )
        for direction, metric in (("egress", EGRESS), ("ingress", INGRESS))
    },
    **{
        f"vn-{direction}-drop": (
            VN,
            [scored(metric, -2.9), scored(metric, -2.5)],
            [
                scored(metric, -2.2),
                scored(metric, 2.9),
                scored(metric, -2.9, 60.0, 18.0),
                scored(metric, -CONSTANT, stddev=1e-12),
                unscored(metric),
                {},
            ],
        )
        for direction, metric in (("egress", EGRESS), ("ingress", INGRESS))
    },
    "vn-flows-above-plan": (
        VN,
        [summed(EGRESS, 60_000), {**summed(EGRESS, 10), **summed(INGRESS, 90_000)}],
        [summed(EGRESS, 59_999), summed(EGRESS, None, staging=90_000), {}],
    ),
    "vn-flows-vanished": (
        VN,
        [{**summed(EGRESS, 0), **flows(virtualmachine_list=["vm1"])}],
        [
            {**summed(EGRESS, 6_001), **flows(virtualmachine_list=["vm1"])},
            {**summed(EGRESS, 0), **flows(virtualmachine_list=[])},
            {**summed(EGRESS, None), **flows(virtualmachine_list=["vm1"])},
            flows(virtualmachine_list=["vm1"]),
        ],
    ),
    "vn-stray-flows": (
        VN,
        [flows(virtualmachine_list=[], egress_flow_count=1)],
        [
            flows(virtualmachine_list=["vm1"], egress_flow_count=1),
            flows(virtualmachine_list=[], egress_flow_count=0),
            flows(virtualmachine_list=[]),
            flows(egress_flow_count=1),
        ],
    ),
    "vn-unknown-peer": (
        VN,
        [flows(in_stats=[{"other_vn": "default-domain:demo:backend"}, {"other_vn": "evil"}])],
        [flows(in_stats=[{"other_vn": "default-domain:demo:vn4"}]), flows(in_stats=[]), flows()],
    ),
    "device-cpu-high": (
        DEVICE,
        [summed(CPU, 4_801)],
        [summed(CPU, 4_800), summed(CPU, None, staging=5_000), {}],
    ),
    "device-cpu-peaks": (
        DEVICE,
        [device(cpu_utilization=95.0)],
        [device(cpu_utilization=94.9), device(throughput=200.0), {}],
    ),
    "device-throughput-low": (
        DEVICE,
        [device(throughput=30), device(throughput=0)],
        [device(throughput=30.1), device(cpu_utilization=75.0), {}],
    ),
    "device-unusual": (
        DEVICE,
        [scored(CPU, 2.3), {**scored(CPU, 0.0), **scored(THROUGHPUT, -2.3)}],
        [scored(CPU, 2.2), scored(CPU, -2.9), scored(THROUGHPUT, 2.9), unscored(CPU), {}],
    ),
    "device-reports-alert": (
        DEVICE,
        [device(alerts={"cpu_utilization": "busy", "throughput": "Low Throughput (3.1)"})],
        [device(alerts={"cpu_utilization": "busy"}), device(alerts={}), device()],
    ),
    "site-unusual": (
        SITE,
        [scored(SITE_CPU, 2.3), scored(SITE_THROUGHPUT, -2.3)],
        [scored(SITE_CPU, -2.9), scored(SITE_THROUGHPUT, 2.9), scored(CPU, 2.9)],
    ),
    "site-down": (
        SITE,
        [{"UveSite": {"devices": 5, "devices_in_error": 5}}],
        [
            {"UveSite": {"devices": 5, "devices_in_error": 4}},
            {"UveSite": {"devices": 0, "devices_in_error": 0}},
            {"UveSite": {}},
        ],
    ),
    "company-throughput-low": (
        COMPANY,
        [summed(COMPANY_SUM, 110_000)],
        [summed(COMPANY_SUM, 110_001), summed(COMPANY_SUM, None), {}],
    ),
    "node-process-not-functional": (
        CONTROL,
        [processes("Functional", "Non-Functional"), {"NodeStatus": {}}],
        [processes("Functional", "Functional"), {}],
    ),
    "node-disk-filling": (
        VROUTER,
        [disks(sda1=79, sda2=80), disks(sda1=100)],
        [disks(sda1=79), disks(), {}],
    ),
    "vrouter-interfaces-down": (
        VROUTER,
        [interfaces(1, ["tap1"])],
        [interfaces(0, ["tap1"]), interfaces(1, []), {}],
    ),
    "bgp-peers-down": (
        CONTROL,
        [peers(num_up_bgp_peer=2, num_bgp_peer=3), peers(num_bgp_peer=3)],
        [peers(num_up_bgp_peer=3, num_bgp_peer=3), peers(), {}],
    ),
    "bgp-address-mismatch": (
        CONTROL,
        [speaker("10.0.0.5", '{"address": "10.0.0.6", "port": 179}')],
        [
            speaker("10.0.0.5", '{"address": "10.0.0.5", "port": 179}'),
            speaker("10.0.0.5", "no JSON"),
            {"BgpRouterState": {"router_id": "10.0.0.5"}},
        ],
    ),
}
"""By rule: a key that it is for, views that it holds on, and views that it doesn't."""


def cases(held: bool) -> list[Any]:
    return [
        pytest.param(name, key, view, id=f"{name}-{number}")
        for name, (key, holding, other) in EXAMPLES.items()
        for number, view in enumerate(holding if held else other)
    ]


# ---- what each rule says


@pytest.mark.parametrize(("name", "key", "view"), cases(held=True))
def test_a_rule_holds(name: str, key: str, view: View) -> None:
    compiled = compile_rule(RULES[name])

    assert compiled.wants(key)
    assert compiled.holds(view)


@pytest.mark.parametrize(("name", "key", "view"), cases(held=False))
def test_a_rule_does_not_hold(name: str, key: str, view: View) -> None:
    assert compile_rule(RULES[name]).holds(view) is None


def test_every_rule_has_its_examples() -> None:
    assert RULES.keys() == EXAMPLES.keys()


def test_an_alarm_names_what_it_is_about() -> None:
    [process] = matches_of("node-process-not-functional", processes("Functional", "Lost"))
    [disk] = matches_of("node-disk-filling", disks(sda1=10, sda2=93))
    [peer] = matches_of("vn-unknown-peer", flows(in_stats=[{"other_vn": "evil"}]))
    [address] = matches_of("bgp-address-mismatch", speaker("10.0.0.5", '{"address": "10.0.0.6"}'))

    assert process["json_variables"]["NodeStatus.process_status.module_id"] == '"contrail-1"'
    assert disk["json_variables"] == {"NodeStatus.disk_usage_info.__key": '"sda2"'}
    assert peer["json_operand1_value"] == '"evil"'
    assert address["json_operand2_value"] == '"10.0.0.6"'


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("vn-egress-flood", scored(EGRESS, 2.6), scored(EGRESS, 2.9, 20_000.0)),
        ("vn-ingress-drop", scored(INGRESS, -2.9), scored(INGRESS, -2.6, 20_000.0)),
        ("vn-flows-above-plan", summed(EGRESS, 60_001), summed(EGRESS, 60_002)),
        (
            "vn-flows-vanished",
            {**summed(EGRESS, 1), **flows(virtualmachine_list=["vm1"])},
            {**summed(EGRESS, 2), **flows(virtualmachine_list=["vm1"])},
        ),
        ("device-throughput-low", device(throughput=1.5), device(throughput=2.5)),
        (
            "device-reports-alert",
            device(alerts={"throughput": "1"}),
            device(alerts={"throughput": "2"}),
        ),
        ("company-throughput-low", summed(COMPANY_SUM, 1), summed(COMPANY_SUM, 2)),
        ("node-disk-filling", disks(sda1=91), disks(sda1=92)),
        (
            "bgp-peers-down",
            peers(num_up_bgp_peer=1, num_bgp_peer=3),
            peers(num_up_bgp_peer=2, num_bgp_peer=3),
        ),
    ],
)
def test_a_number_that_changes_makes_no_new_alarm(name: str, before: View, now: View) -> None:
    first, second = (compile_rule(RULES[name]).holds(view) for view in (before, now))

    assert first is not None
    assert second is not None
    assert is_same(first, second)


def matches_of(name: str, view: View) -> list[dict[str, Any]]:
    """Of the one condition that held."""
    held = compile_rule(RULES[name]).holds(view)
    assert held is not None
    [[condition]] = [either["and_list"] for either in held]
    matches: list[dict[str, Any]] = condition["match"]
    return matches


# ---- the file


def test_every_operation_is_shown() -> None:
    shown = {condition.operation for rule in RULES.values() for condition in conditions(rule)}

    assert shown == {"==", "!=", "<", "<=", ">", ">=", "in", "not in", "range", "size==", "size!="}


def test_every_rule_tells_who_is_woken_up_what_it_means_and_whom_it_concerns() -> None:
    for rule in RULES.values():
        assert len(rule.description) > 80
        assert "team" in rule.labels


def test_a_sigma_can_pass_its_threshold_and_a_series_that_never_varies_does_not() -> None:
    thresholds = [
        abs(json.loads(condition.operand2.json_value or ""))
        for rule in RULES.values()
        for condition in conditions(rule)
        if condition.operand1.endswith(".sigma")
    ]

    assert len(thresholds) == 8
    assert all(2 * CONSTANT < threshold < 0.9 * BOUND for threshold in thresholds)


def conditions(rule: Rule) -> Iterator[Condition]:
    for either in rule.alarm_rules.or_list:
        yield from either.and_list


# ---- the collectors that it is for


def configured(text: str) -> Mapping[str, list[str]]:
    """The names of the algorithms of each metric in a ``uve_proxy_list``."""
    return {
        metric: [algorithm.name for algorithm in algorithms]
        for metric, algorithms in proxies.parse_proxy_list(text).items()
    }


def simulated(name: str) -> str:
    """What ``collectord-netops run --check`` prints for a configuration."""
    return uve_proxy_list(simulations(read_file(CONF / name)))


COLLECTORS = [
    ("ObjectVNTable", BY_NAME["DEFAULT.uve_proxy_list"].default),
    ("ObjectVNTable", simulated("netops-virtual-networks.json")),
    ("ObjectDevice", simulated("netops.json")),
    ("ObjectSite", simulated("netops.json")),
    ("ObjectCompany", simulated("netops.json")),
]


@pytest.mark.parametrize(("table", "proxied"), COLLECTORS)
def test_every_proxy_is_configured_where_its_table_is_told(table: str, proxied: str) -> None:
    meant = [rule for rule in RULES.values() if table_of(rule) == table]

    assert meant
    for rule in meant:
        assert rules.impossible(rule, configured(proxied)) == []


def test_a_proxy_that_is_not_configured_would_be_told() -> None:
    with_proxies = [
        rule
        for rule in RULES.values()
        if any(condition.operand1.startswith("AggProxy") for condition in conditions(rule))
    ]

    assert {table_of(rule) for rule in with_proxies} == {table for table, _ in COLLECTORS}
    assert all(rules.impossible(rule, {}) for rule in with_proxies)


def test_rules_of_other_tables_look_at_no_proxies() -> None:
    tables = {table for table, _ in COLLECTORS}

    for rule in RULES.values():
        if table_of(rule) not in tables:
            assert rules.impossible(rule, {}) == []


def table_of(rule: Rule) -> str:
    return rule.uve_keys[0].partition(":")[0]
