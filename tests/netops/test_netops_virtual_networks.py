"""Virtual networks as vrouters tell them: their flows, what befalls them, and how they read.

What is drawn is held against what its distribution says, to within five deviations of the estimate
or more; seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collectord.netops.block import SECOND, Block, Stream, joined
from collectord.netops.collector import CollectorTarget
from collectord.netops.configuration import (
    FLOODED_FLOWS,
    VROUTER_METRICS,
    Configuration,
    ConfigurationError,
    read_file,
)
from collectord.netops.virtual_networks import STRUCT, TRUTH, VirtualNetworkSimulation
from daemon import Daemon, until

EXAMPLE = Path(__file__).parents[2] / "conf" / "netops-virtual-networks.json"
WEDNESDAY = 1_600_214_400 * SECOND
"""0:00 UTC of a day, and so the start of a period."""
HOUR = 3600
INGRESS, EGRESS = "ingress_flow_count", "egress_flow_count"
COUNTERS = "in_tpkts", "out_tpkts", "in_bytes", "out_bytes"

Array = NDArray[Any]


def simulation(seed: int = 1, **settings: Any) -> VirtualNetworkSimulation:
    """One without incidents or daily shape unless told otherwise."""
    quiet = {"daily": 0.0, "flood_rate": 0.0, "drop_rate": 0.0}
    return VirtualNetworkSimulation(
        Configuration.model_validate(
            {
                "seed": seed,
                "deployment": {"num_companies": 0},
                "virtual_networks": {**quiet, **settings},
            }
        )
    )


def lived(
    steps: int, interval: float = 1, start: int = WEDNESDAY, seed: int = 1, **settings: Any
) -> Block:
    """The first steps of a life of such a simulation."""
    return Stream(simulation(seed, **settings), start, interval).take(steps)


def correlation(left: Array, right: Array) -> float:
    """In the mean of the rows."""
    left = left - left.mean(1, keepdims=True)
    right = right - right.mean(1, keepdims=True)
    return float(np.mean((left * right).mean(1) / (left.std(1) * right.std(1))))


def same(left: Block, right: Block) -> bool:
    return (
        np.array_equal(left.times, right.times)
        and all(np.array_equal(left.values[name], right.values[name]) for name in left.values)
        and all(np.array_equal(left.is_error[name], right.is_error[name]) for name in left.values)
    )


def runs(truth: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """``(row, first, end)`` of all that are true."""
    padded = np.pad(truth, ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(padded, axis=1)
    rows, firsts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(rows.tolist(), firsts.tolist(), ends.tolist(), strict=True))


# ---- who reports


def test_every_vrouter_carries_every_network_and_is_one_source() -> None:
    emitters = simulation(num_networks=4, num_vrouters=2).emitters

    assert [emitter.id for emitter in emitters] == [
        "frontend/compute-1",
        "frontend/compute-2",
        "backend/compute-1",
        "backend/compute-2",
        "storage/compute-1",
        "storage/compute-2",
        "vn4/compute-1",
        "vn4/compute-2",
    ]
    assert emitters[3].source == "compute-2:Compute:contrail-vrouter-agent:0"
    assert emitters[3].labels == {"network": "backend", "vrouter": "compute-2"}


def test_only_flows_are_worth_a_proxy_uve() -> None:
    assert simulation().proxied == [f"{STRUCT}-{INGRESS}", f"{STRUCT}-{EGRESS}"]


def test_what_vrouters_tell_is_merged_as_contrail_declares_it() -> None:
    assert simulation().aggtypes == {
        STRUCT: {
            **dict.fromkeys([INGRESS, EGRESS, *COUNTERS], "sum"),
            "virtualmachine_list": "union",
            "in_stats": "append:other_vn",
        }
    }


def test_a_network_has_traffic_within_and_with_some_of_the_others() -> None:
    networks = simulation(num_networks=6, num_vrouters=2)
    reports = networks.reports(Stream(networks, WEDNESDAY, 1).take(1))
    others = {
        (report.source.partition(":")[0], report.key.rpartition(":")[2]): [
            row["other_vn"].rpartition(":")[2] for row in report.attributes["in_stats"]
        ]
        for report in reports
        if report.struct == STRUCT
    }

    assert len(others) == 12
    assert others["compute-1", "frontend"] == ["frontend", "backend", "storage", "vn4"]
    assert others["compute-2", "vn5"] == ["vn5", "vn6", "frontend", "backend"]


def test_a_configuration_without_virtual_networks_simulates_none() -> None:
    with pytest.raises(ValueError, match="has no virtual_networks"):
        VirtualNetworkSimulation(Configuration())


# ---- flows


def test_flows_have_the_wanted_mean_over_all_vrouters() -> None:
    block = lived(2, num_networks=50, num_vrouters=100, flows=200)

    # A vrouter's mean is flows * Uniform(0.5, 1.5) * Uniform(0.8, 1.2); then, Poisson of it.
    relative = math.sqrt((1 + 1 / 12) * (1 + 0.16 / 12) - 1 + 1 / 200)
    for name in (INGRESS, EGRESS):
        assert block.values[name][:, 0].mean() == pytest.approx(
            200, rel=5 * relative / math.sqrt(5000)
        )


def test_vrouters_differ() -> None:
    means = lived(2560, 30, num_networks=2, num_vrouters=50).values[EGRESS].mean(1)

    # Uniform(0.5, 1.5) * Uniform(0.8, 1.2) of 40, as above.
    assert means.std() == pytest.approx(0.3127 * 40, rel=0.25)
    assert means.min() > 0.4 * 40 - 1
    assert means.max() < 1.8 * 40 + 1


def test_flows_of_a_vrouter_deviate_as_those_that_come_and_go_independently() -> None:
    for flows in (
        lived(2560, 30, num_networks=4, num_vrouters=100).values[name] for name in (INGRESS, EGRESS)
    ):
        # The number of an M/M/∞ queue is Poisson; to be whole adds the variance of a rounding.
        ratio = flows.var(1) / (flows.mean(1) + 1 / 12)

        # Of a million samples with correlation 1/e; their own mean takes 0.1% off.
        assert ratio.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("interval", "lag"), [(30, 1), (30, 2), (10, 3), (5.5, 1), (1, 30)])
def test_flows_last_so_that_their_number_is_correlated_in_time(interval: float, lag: int) -> None:
    flows = lived(10_240, interval, num_networks=1, num_vrouters=100, flow_seconds=30).values[
        EGRESS
    ]

    wanted = math.exp(-interval * lag / 30) * 40 / (40 + 1 / 12)
    assert correlation(flows[:, lag:], flows[:, :-lag]) == pytest.approx(wanted, abs=0.02)


def test_ingress_and_egress_go_together_and_vrouters_apart() -> None:
    values = lived(2560, 30, num_networks=1, num_vrouters=100, flows=400).values

    assert correlation(values[INGRESS], values[EGRESS]) == pytest.approx(0.8, abs=0.01)
    # 100 estimates of 0, each with a deviation of about 1.15 / sqrt(2560).
    others = np.roll(values[EGRESS], 1, axis=0)
    assert correlation(values[EGRESS], others) == pytest.approx(0, abs=0.012)


def test_flows_rise_and_fall_with_the_day() -> None:
    flows = lived(7 * 144, 600, num_networks=4, num_vrouters=100, daily=0.4).values[EGRESS]
    of_day = (flows / flows.mean(1, keepdims=True)).mean(0).reshape(7, 144).mean(0)

    # Peaks lie within 13:00 and 17:00, which takes sin(x) / x off their sum, x = 2 h of the day.
    height = 0.4 * math.sin(math.pi / 6) / (math.pi / 6)
    hours = np.arange(144) / 6
    wanted = 1 + height * np.cos(2 * np.pi * (hours - 15) / 24)
    # Each is the mean of 2,800 samples that deviate by some 20%; peaks vary, too.
    assert np.abs(of_day - wanted).max() < 0.035
    assert abs(hours[of_day.argmax()] - 15) < 2


def test_the_day_is_not_the_same_on_all_vrouters() -> None:
    flows = lived(20 * 144, 600, num_networks=1, num_vrouters=50, flows=4000, daily=0.4).values[
        EGRESS
    ]
    spectrum = flows @ np.exp(-2j * np.pi * np.arange(20 * 144) / 144)
    peaks = -np.angle(spectrum) / (2 * np.pi) * 24 % 24

    assert peaks.min() > 12.9
    assert peaks.max() < 17.1
    # Uniform over four hours.
    assert peaks.std() == pytest.approx(4 / math.sqrt(12), rel=0.25)


def test_flows_fall_on_weekends() -> None:
    flows = lived(7 * 24, 3600, num_networks=4, num_vrouters=100, weekly=0.5).values[EGRESS]
    days = flows.mean(0).reshape(7, 24)  # from Wednesday on

    # 9,600 samples a mean, each with a deviation of 40%.
    assert days[4, 0:18].mean() / days[0].mean() == pytest.approx(0.5, rel=0.03)


def test_no_flows_are_none_at_any_hour() -> None:
    block = lived(48, HOUR, flows=0, daily=1.0, weekly=1.0)

    assert not any(array.any() for array in block.values.values())


def test_flows_are_never_below_zero() -> None:
    flows = lived(7 * 144, 600, flows=3, daily=1.0, weekly=1.0, num_vrouters=50).values[EGRESS]

    assert flows.dtype == np.int64
    assert flows.min() == 0


# ---- floods and drops


@pytest.mark.parametrize(("kind", "factor"), [("flood", 5.0), ("drop", 0.1)])
def test_in_an_incident_flows_are_as_many_times_as_many(kind: str, factor: float) -> None:
    block = lived(
        10_240,
        10,
        num_networks=40,
        num_vrouters=5,
        flows=500,
        incident_length=50,
        **dict[str, Any]({f"{kind}_rate": 0.002, f"{kind}_factor": factor}),
    )

    for name in (INGRESS, EGRESS):
        flows, truth = block.values[name], block.is_error[name]
        usual = np.array([row[~bad].mean() for row, bad in zip(flows, truth, strict=True)])
        relative = (flows / usual[:, np.newaxis])[truth]
        # More than 100,000 samples; the deviation of one is below 15%.
        assert len(relative) > 100_000
        assert relative.mean() == pytest.approx(factor, rel=0.01)
        # And each of them, but for one in a million or so: the truth has no wrong edge.
        assert (relative > 2.5).all() if factor > 1 else (relative < 0.4).all()


@pytest.mark.parametrize("kind", ["flood", "drop"])
def test_incidents_are_as_frequent_and_as_long_as_wanted(kind: str) -> None:
    rate, length, networks = 0.002, 100, 200
    truth = lived(
        12_800,
        num_networks=networks,
        num_vrouters=1,
        incident_length=length,
        **dict[str, Any]({f"{kind}_rate": rate}),
    ).is_error[EGRESS][:, 2560:]
    found = runs(truth)

    # After the first few it makes no difference that all networks began well.
    steps = (1 - rate) / rate + length
    events = networks * truth.shape[1] / steps
    assert len(found) == pytest.approx(events, abs=5 * math.sqrt(events))
    assert truth.mean() == pytest.approx(length / steps, rel=5 / math.sqrt(events))
    # Two that adjoin look like one of twice the length, and the edges cut some.
    whole = [
        end - first
        for _, first, end in found
        if first > 0 and end < truth.shape[1] and end - first < 1.5 * length
    ]
    assert np.mean(whole) == pytest.approx(length, abs=5 * 10 / math.sqrt(len(whole)))
    assert np.std(whole) == pytest.approx(length / 10, rel=5 / math.sqrt(2 * len(whole)))


def test_an_incident_is_on_all_vrouters_of_its_network_or_on_one() -> None:
    block = lived(12_800, num_networks=100, num_vrouters=5, drop_rate=0.001, local_share=0.3)
    truth = block.is_error[EGRESS].reshape(100, 5, -1)
    where = [truth[network, :, first] for network, first, _ in runs(np.any(truth, 1))]
    counts = [int(there.sum()) for there in where]

    assert set(counts) == {1, 5}
    events = len(counts)
    assert counts.count(1) / events == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / events))
    one = [int(there.argmax()) for there in where if there.sum() == 1]
    share = np.bincount(one, minlength=5) / len(one)
    assert share == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / len(one)))


def test_certain_incidents_leave_no_step_between_them() -> None:
    truth = lived(600, flood_rate=0.5, drop_rate=0.5, incident_length=7, local_share=0.0)

    assert truth.is_error[EGRESS].all()


def test_networks_have_incidents_each_at_its_own_time() -> None:
    truth = lived(
        25_600, num_networks=50, num_vrouters=1, flood_rate=0.001, incident_length=100
    ).is_error[EGRESS]

    assert correlation(truth, np.roll(truth, 1, axis=0)) == pytest.approx(0, abs=0.05)


def test_the_truth_is_that_of_all_metrics() -> None:
    block = lived(2560, flood_rate=0.001)

    assert block.is_error.keys() == block.values.keys() == {INGRESS, EGRESS, *COUNTERS}
    assert block.is_error[EGRESS].any()
    for truth in block.is_error.values():
        assert np.array_equal(truth, block.is_error[EGRESS])


def test_a_planned_incident_is_there_and_changes_nothing_else() -> None:
    shape: dict[str, Any] = {"num_networks": 2, "num_vrouters": 3, "flows": 400}
    flood = {"vrouters": "backend/*", "step": 250, "kind": "flood", "length": 10}
    drop = {"vrouters": "*/compute-3", "step": 900, "kind": "drop"}
    without = lived(1024, **shape)
    planned = lived(1024, incidents=[drop, flood], incident_length=77, **shape)

    truth = np.zeros((6, 1024), np.bool_)
    truth[3:, 250:260] = True
    truth[[2, 5], 900:977] = True
    assert np.array_equal(planned.is_error[EGRESS], truth)
    for name in (INGRESS, EGRESS):
        usual, told = without.values[name], planned.values[name]
        assert np.array_equal(told[~truth], usual[~truth])
        # Each of the few incidents is one draw or so of the level: 400 flows deviate by 5%.
        assert told[3:, 250:260].sum() / usual[3:, 250:260].sum() == pytest.approx(5, rel=0.25)
        assert told[[2, 5], 900:977].sum() / usual[[2, 5], 900:977].sum() == pytest.approx(
            0.1, rel=0.5
        )


def test_flows_that_drop_to_nothing_are_none() -> None:
    drop = {"step": 100, "kind": "drop", "length": 50}
    flows = lived(256, incidents=[drop], drop_factor=0.0).values[EGRESS]

    assert not flows[:, 100:150].any()
    assert flows[:, :100].all()


# ---- counters


def test_counters_grow_with_the_flows_from_step_to_step() -> None:
    block = lived(1024, 10, flows=2000, flood_rate=0.001, drop_rate=0.001)

    assert block.is_error[EGRESS].any()
    for flows, packets, octets in (
        (INGRESS, "in_tpkts", "in_bytes"),
        (EGRESS, "out_tpkts", "out_bytes"),
    ):
        assert block.values[packets].dtype == np.int64
        more_packets = np.diff(block.values[packets], prepend=0)
        more_octets = np.diff(block.values[octets], prepend=0)
        assert (more_packets > 0).all()
        for row in range(len(more_packets)):
            # The same for each flow and packet, give or take 5%: 100,000 reach no 6 times that.
            by_flow = more_packets[row] / (10 * block.values[flows][row])
            by_packet = more_octets[row] / more_packets[row]
            # And means of a thousand of them reach no percent.
            assert 0.99 * 5 < by_flow.mean() < 1.01 * 15
            assert 0.99 * 300 < by_packet.mean() < 1.01 * 900
            assert by_flow == pytest.approx(by_flow.mean(), rel=0.3)
            assert by_packet == pytest.approx(by_packet.mean(), rel=0.3)


def test_counters_never_fall_even_where_nothing_flows() -> None:
    block = lived(1024, flows=2, daily=1.0, drop_rate=0.01, drop_factor=0.0, incident_length=20)

    for name in COUNTERS:
        steps = np.diff(block.values[name], prepend=0)
        assert steps.min() == 0
        assert steps.max() > 0


def test_counters_of_an_endless_greatest_flood_grow_for_ten_years() -> None:
    days = 5
    settings: dict[str, Any] = {"flows": FLOODED_FLOWS / 100, "flood_factor": 100, "daily": 1.0}
    block = lived(
        days * 24, HOUR, num_vrouters=1000, incidents=[{"step": 0, "kind": "flood"}] * 3, **settings
    )

    for name in COUNTERS:
        counter = block.values[name]
        assert np.diff(counter, prepend=0).min() >= 0
        assert int(counter.max()) * 366 * 10 // days < 1 << 63


def test_floods_that_come_together_are_no_higher_than_one() -> None:
    flood = {"step": 10, "kind": "flood", "length": 20}
    one, three = (lived(40, incidents=[flood] * count) for count in (1, 3))

    assert same(one, three)


def test_a_vrouter_has_as_many_metrics_as_its_configuration_counts() -> None:
    assert len(simulation().metrics) == VROUTER_METRICS


# ---- one life after the other


LIVELY: dict[str, Any] = {"daily": 0.3, "flood_rate": 0.005, "drop_rate": 0.005}


def test_how_a_life_is_taken_changes_nothing() -> None:
    stream = Stream(simulation(**LIVELY), WEDNESDAY, 0.5)
    pieces = [stream.take(steps) for steps in (1, 255, 1, 700, 3, 64)]

    assert same(joined(pieces), lived(1024, 0.5, **LIVELY))


def test_a_step_comes_every_interval() -> None:
    times = lived(1024, 0.3).times

    assert (times - WEDNESDAY).tolist() == [300_000 * step for step in range(1024)]


def test_a_seed_gives_one_life_and_another_seed_another() -> None:
    first, again, other = (lived(600, seed=seed, **LIVELY) for seed in (7, 7, 8))

    assert same(first, again)
    assert (other.values[EGRESS] == first.values[EGRESS]).mean() < 0.2
    assert not np.array_equal(other.is_error[EGRESS], first.is_error[EGRESS])


def test_a_seed_gives_the_same_incidents_whenever_a_life_begins() -> None:
    morning = lived(600, **LIVELY)
    evening = lived(600, start=WEDNESDAY + 18 * HOUR * SECOND, **LIVELY)

    assert morning.is_error[EGRESS].any()
    assert np.array_equal(morning.is_error[EGRESS], evening.is_error[EGRESS])
    assert evening.values[EGRESS].mean() > 1.2 * morning.values[EGRESS].mean()  # the day's shape


# ---- the configuration


def test_the_example_is_a_configuration_of_virtual_networks_alone() -> None:
    configuration = read_file(EXAMPLE)

    assert configuration.deployment.devices == 0
    networks = configuration.virtual_networks
    assert networks is not None
    assert len(VirtualNetworkSimulation(configuration).emitters) == (
        networks.num_networks * networks.num_vrouters
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_networks": 0}, "num_networks: must be at least 1, not 0"),
        ({"num_vrouters": 2.5}, "num_vrouters: must be a whole number, not 2.5"),
        ({"vms_per_vrouter": -1}, "vms_per_vrouter: must be at least 0, not -1"),
        ({"flows": -1}, "flows: must be at least 0, not -1"),
        ({"flows": "many"}, 'flows: must be a number, not "many"'),
        ({"flows": 3e5}, "flows: must be at most 1000000 / flood_factor, 200000, not 300000"),
        ({"flow_seconds": 0}, "flow_seconds: must be at least 0.001, not 0"),
        ({"daily": 1.5}, "daily: must be at most 1, not 1.5"),
        ({"weekly": -0.5}, "weekly: must be at least 0, not -0.5"),
        ({"flood_rate": 2}, "flood_rate: must be at most 1, not 2"),
        ({"flood_rate": 0.75, "drop_rate": 0.5}, "drop_rate: must be at most 1 - flood_rate, 0.25"),
        ({"flood_factor": 0.5}, "flood_factor: must be at least 1, not 0.5"),
        ({"drop_factor": 2}, "drop_factor: must be at most 1, not 2"),
        ({"incident_length": 0}, "incident_length: must be at least 1, not 0"),
        ({"local_share": 7}, "local_share: must be at most 1, not 7"),
        ({"incidents": [{"kind": "flood"}]}, "incidents.0.step: is required"),
        (
            {"incidents": [{"step": 1, "kind": "storm"}]},
            "incidents.0.kind: must be 'flood' or 'drop', not \"storm\"",
        ),
        (
            {"incidents": [{"step": 1, "kind": "drop", "length": 0}]},
            "incidents.0.length: must be at least 1, not 0",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_name_of_its_field(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Configuration.model_validate({"virtual_networks": settings})

    assert raised.value.errors == [f"virtual_networks.{sentence}"]


# ---- in a collector


@pytest.fixture(scope="module")
def collector() -> Iterator[Daemon]:
    with Daemon(
        "--DEFAULT.uve_proxy_list",
        f"{STRUCT}-{EGRESS}:AggProxySum {STRUCT}-{INGRESS}:AggProxySum",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def told(collector: Daemon) -> Block:
    """Three minutes of two networks on three vrouters, as the collector was told of them."""
    networks = simulation(
        num_networks=2,
        num_vrouters=3,
        vms_per_vrouter=2,
        incidents=[{"vrouters": "backend/compute-2", "step": 160, "kind": "flood"}],
    )
    block = Stream(networks, WEDNESDAY, 1).take(180)
    target = CollectorTarget(collector.ingest)
    try:
        target.send(networks, block.part(0, 100))
        target.send(networks, block.part(100, 180))
        target.flush()
    finally:
        target.close()
    return block


FRONTEND = "ObjectVNTable:default-domain:demo:frontend"
BACKEND = "ObjectVNTable:default-domain:demo:backend"


def test_the_collector_takes_all_that_is_told(collector: Daemon, told: Block) -> None:
    counters = collector.ask("status")["counters"]

    assert counters["samples"] == 2 * told.values[EGRESS].size
    assert counters["samples_late"] == 0
    assert not any(count for name, count in counters.items() if name.startswith("rejected"))


def test_the_collector_adds_up_flows_and_counters(collector: Daemon, told: Block) -> None:
    view = collector.uve(BACKEND)[STRUCT]

    for name, array in told.values.items():
        assert view[name] == array[3:, -1].sum()


def test_the_collector_knows_all_virtual_machines_of_a_network(
    collector: Daemon, told: Block
) -> None:
    machines = collector.uve(FRONTEND)[STRUCT]["virtualmachine_list"]

    assert sorted(machines) == [
        f"frontend-compute-{vrouter}-vm{number}" for vrouter in (1, 2, 3) for number in (1, 2)
    ]


def test_the_collector_adds_up_what_came_from_each_other_network(
    collector: Daemon, told: Block
) -> None:
    rows = collector.uve(FRONTEND)[STRUCT]["in_stats"]

    assert sorted(row["other_vn"] for row in rows) == [
        "default-domain:demo:backend",
        "default-domain:demo:frontend",
    ]
    for member, counter in (("tpkts", "in_tpkts"), ("bytes", "in_bytes")):
        total = sum(row[member] for row in rows)
        # Of each of three vrouters' two shares a part of a packet may be missing.
        assert 0 <= told.values[counter][:3, -1].sum() - total < 6
        assert all(row[member] > 0 for row in rows)


def test_the_truth_stands_apart_and_names_the_vrouters(collector: Daemon, told: Block) -> None:
    names = told.values.keys()
    hosts = [f"compute-{number}:Compute:contrail-vrouter-agent:0" for number in (1, 2, 3)]

    assert collector.uve(FRONTEND)[TRUTH] == {"is_error": dict.fromkeys(names, False)}
    well, flooded = collector.uve(BACKEND)[TRUTH]["is_error"]
    assert well == [dict.fromkeys(names, False), hosts[0], hosts[2]]
    assert flooded == [dict.fromkeys(names, True), hosts[1]]
    assert "is_error" not in collector.uve(BACKEND)[STRUCT]


def test_each_minute_of_flows_is_summed_over_all_vrouters(collector: Daemon, told: Block) -> None:
    sums = {
        f"AggProxySum-{STRUCT}-{name}": told.values[name][3:, 120:].sum()
        for name in (INGRESS, EGRESS)
    }

    def are_told() -> bool:
        view = collector.uve(BACKEND)
        return all(view[proxy]["value"].get("value") == total for proxy, total in sums.items())

    until(are_told)
