"""Devices: what they draw, that it is the same again, and how they tell it to a collector."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord import wire
from collectord.netops.block import SECOND, Block, Report, Stream
from collectord.netops.configuration import Metric, read
from collectord.netops.devices import BLOCK_VALUES, CHUNK, LIFE, DeviceSimulation, alert_text
from netops.drawing import is_near, is_share, life, metric, network
from netops.seed import SEED

FAILING: dict[str, Any] = {
    "error_rate": 0.01,
    "site_error_rate": 0.005,
    "error_scenarios": [{"length": 40, "throughput": 0, "cpu_utilization": 10}],
    "errors": [{"devices": "*/0", "step": 250}],
}
CPU, THROUGHPUT = read(SEED).metrics.values()


def are_same(one: Block, other: Block) -> bool:
    return (
        np.array_equal(one.times, other.times)
        and all(np.array_equal(one.values[name], other.values[name]) for name in one.values)
        and all(np.array_equal(one.is_error[name], other.is_error[name]) for name in one.is_error)
    )


# --- what is drawn ---------------------------------------------------------------------------


def test_a_value_is_of_two_normals_added_up() -> None:
    values = life(network(50, metrics={"load": metric()}), 20_000).values["load"].ravel()
    deviation = math.hypot(3, 4)
    assert is_near(values.mean(), 100, deviation, len(values))
    assert is_near(values.std(), deviation, deviation / math.sqrt(2), len(values))
    for reach in (0.5, 1, 2, 3):
        share = np.mean(np.abs(values - 100) < reach * deviation)
        assert is_share(share, math.erf(reach / math.sqrt(2)), len(values))


def test_steps_and_devices_know_nothing_of_one_another() -> None:
    values = life(network(20, metrics={"load": metric()}), 50_000).values["load"]
    standard_error = 1 / math.sqrt(values.shape[1])
    for row in values:
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 5 * standard_error
    correlations = np.corrcoef(values) - np.eye(20)
    assert np.abs(correlations).max() < 5 * standard_error


def test_values_are_held_within_min_and_max() -> None:
    configuration = network(
        50, metrics={"throughput": metric(mu=200, sigma=50, noise=50, min=0, max=300)}
    )
    values = life(configuration, 20_000).values["throughput"].ravel()
    deviation = math.hypot(50, 50)
    for extreme in (0, 300):
        beyond = math.erfc(abs(extreme - 200) / deviation / math.sqrt(2)) / 2
        assert is_share(np.mean(values == extreme), beyond, len(values))
    assert (values.min(), values.max()) == (0, 300)


def test_the_seed_configuration_is_as_it_says_while_all_is_well() -> None:
    block = life(network(20, **read(SEED).model_dump(include={"metrics"})), 20_000)
    cpu = block.values["cpu_utilization"]
    assert is_near(cpu.mean(), 75, math.hypot(4, 1), cpu.size)
    assert not any(is_error.any() for is_error in block.is_error.values())


def test_a_metric_without_deviation_is_always_its_mean() -> None:
    values = life(network(metrics={"load": metric(sigma=0, noise=0)}), 1000).values["load"]
    assert set(values.ravel()) == {100}


@pytest.mark.parametrize(("interval", "period"), [(1, 1_000_000), (0.1, 100_000), (60, 60_000_000)])
def test_times_are_an_interval_apart(interval: float, period: int) -> None:
    times = life(network(), 3 * CHUNK, start=17, interval=interval).times
    assert times.tolist() == [17 + period * step for step in range(3 * CHUNK)]


# --- the same again --------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_series() -> None:
    one, other = (life(network(sites=2, seed=7, **FAILING), 1000) for _ in range(2))
    assert are_same(one, other)
    assert one.is_error["throughput"].any()


def test_another_seed_gives_other_series() -> None:
    one, other = (life(network(seed=seed, **FAILING), 1000) for seed in (1, 2))
    for name in one.values:
        assert np.mean(one.values[name] == other.values[name]) < 0.5  # both may be at an extreme
        assert not np.array_equal(one.is_error[name], other.is_error[name])


def test_each_device_has_series_of_its_own() -> None:
    block = life(network(10, metrics={"load": metric(), "flow": metric()}), 1000)
    rows = [row.tobytes() for values in block.values.values() for row in values]
    assert len(set(rows)) == len(rows) == 20


def test_lives_of_one_simulation_don_t_touch_each_other() -> None:
    simulation = DeviceSimulation(network(**FAILING))
    one, other = (Stream(simulation, 0, 1) for _ in range(2))
    taken = [(one.take(300), other.take(300)) for _ in range(3)]
    assert all(are_same(*pair) for pair in taken)


@given(st.lists(st.integers(1, 2 * CHUNK), max_size=8))
def test_how_a_life_is_taken_changes_nothing(sizes: list[int]) -> None:
    stream = Stream(DeviceSimulation(network(3, **FAILING)), 0, 1)
    whole = life(network(3, **FAILING), sum(sizes) + 1)
    first = 0
    for size in [*sizes, 1]:
        assert are_same(stream.take(size), whole.part(first, first + size))
        first += size


@pytest.mark.parametrize("begin", [0, 100, CHUNK, 5 * CHUNK + 1])
def test_what_is_drawn_for_a_time_is_the_same_whenever_a_stream_begins(begin: int) -> None:
    unplanned = network(4, sites=2, **{**FAILING, "errors": []})
    first = (LIFE - 3 * CHUNK) * SECOND + 17  # the life in which it begins ends on the way
    whole = life(unplanned, 8 * CHUNK, first)
    later = life(unplanned, 8 * CHUNK - begin, first + begin * SECOND)
    assert are_same(later, whole.part(begin, whole.steps))
    assert whole.is_error["throughput"].any()


def test_lives_are_not_alike() -> None:
    one, other = (life(network(**FAILING), 1000, number * LIFE * SECOND) for number in range(2))
    for name in one.values:
        assert np.mean(one.values[name] == other.values[name]) < 0.5
        assert not np.array_equal(one.is_error[name], other.is_error[name])


def test_planned_errors_count_from_where_the_stream_begins() -> None:
    configuration = network(errors=[{"step": 5}, {"step": 100}])
    for first in (0, 777, LIFE - 50):
        is_error = life(configuration, 200, first * SECOND).is_error["throughput"]
        assert not is_error[:, :5].any()
        assert is_error[:, 5].all()
        assert is_error[:, 100].all()


@pytest.mark.parametrize(("devices", "others"), [(10, 1), (2000, 9)])
def test_other_metrics_leave_one_as_it_is(devices: int, others: int) -> None:
    """Even where they are so many that fewer steps are drawn at once."""
    fields: dict[str, Any] = {**FAILING, "error_scenarios": [{"length": 40, "load": 3}]}
    load = {"load": metric(daily=0.1, drift=0.1)}
    more = {f"flow{number}": metric() for number in range(others)}
    alone = life(network(devices, metrics=load, **fields), 700)
    beside = life(network(devices, metrics={**more, **load}, **fields), 700)
    assert np.array_equal(alone.values["load"], beside.values["load"])
    assert np.array_equal(alone.is_error["load"], beside.is_error["load"])


def test_blocks_of_a_large_network_are_shorter() -> None:
    for devices, steps in ((5, CHUNK), (10_000, BLOCK_VALUES // 20_000)):
        block = next(DeviceSimulation(network(devices)).chunks(0, 1))
        assert block.steps == steps


def test_the_first_block_begins_with_the_first_step_wherever_that_is_in_a_chunk() -> None:
    for first in (0, 1, CHUNK - 1, CHUNK):
        block = next(DeviceSimulation(network(10_000)).chunks(first * SECOND, 1))
        assert block.times[0] == first * SECOND


# --- alerts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (CPU, 79.99, ""),
        (CPU, 80.0, "Operation - Chassis CPU Utilization (80.0) exceed Critical threshold (80.0)"),
        (
            CPU,
            99.96,
            "Operation - Chassis CPU Utilization (100.0) exceed Critical threshold (80.0)",
        ),
        (THROUGHPUT, 30.1, ""),
        (THROUGHPUT, 30.0, "Low Throughput (30.0) below threshold (3.0)"),
        (THROUGHPUT, 1.23456, "Low Throughput (1.23) below threshold (3.0)"),
        (THROUGHPUT, 0.0, "Low Throughput (0) below threshold (3.0)"),
        (Metric.model_validate(metric()), 1e9, ""),
    ],
)
def test_an_alert_has_the_value_that_passed_its_threshold(
    metric: Metric, value: float, text: str
) -> None:
    assert alert_text(metric, value) == text


# --- as UVEs ---------------------------------------------------------------------------------


@pytest.fixture
def simulation() -> DeviceSimulation:
    """Two sites of two devices, the second device of each of which fails from step 5 on."""
    configuration = {
        **read(SEED).model_dump(include={"metrics", "error_scenarios"}),
        "errors": [{"devices": "*/1", "step": 5}],
    }
    return DeviceSimulation(network(2, sites=2, **configuration))


@pytest.fixture
def block(simulation: DeviceSimulation) -> Block:
    return Stream(simulation, 1_000_000, 1).take(60)


def test_each_device_tells_its_own_uve_and_those_of_its_site_and_company(
    simulation: DeviceSimulation, block: Block
) -> None:
    told = [
        (report.source, report.key, report.struct)
        for report in simulation.reports(block)
        if "alerts" not in report.attributes
    ]
    company = simulation.emitters[0].labels["company"]
    assert told == [
        (f"{company}/{site}/{device}:Device:netops:0", key, struct)
        for site, device in itertools.product((0, 1), (0, 1))
        for key, struct in (
            (f"ObjectDevice:{company}/{site}/{device}", "UveDevice"),
            (f"ObjectSite:{company}/{site}", "UveSite"),
            (f"ObjectCompany:{company}", "UveCompany"),
        )
    ]


def test_every_report_has_the_metrics_of_its_device_and_the_truth(
    simulation: DeviceSimulation, block: Block
) -> None:
    reports = iter(simulation.reports(block))
    for row in range(4):
        device, site, company, _ = itertools.islice(reports, 4)
        for report in (device, site, company):
            assert np.array_equal(report.times, block.times)  # type: ignore[arg-type]
            for name, values in block.values.items():
                assert np.array_equal(report.attributes[name], values[row])
        for name, is_error in block.is_error.items():
            assert np.array_equal(device.attributes["is_error"][name], is_error[row])
        for report in (site, company):
            # The first of the seed's metrics to fail fails to the end.
            in_error = block.is_error["cpu_utilization"][row]
            assert np.array_equal(report.attributes["devices_in_error"], in_error)
            assert report.attributes["devices_in_error"].dtype == np.int64
    assert block.is_error["cpu_utilization"].any(axis=1).tolist() == [False, True] * 2


def test_alerts_are_those_of_the_last_step(simulation: DeviceSimulation, block: Block) -> None:
    alerts = [report for report in simulation.reports(block) if "alerts" in report.attributes]
    assert [report.key for report in alerts] == [
        f"ObjectDevice:{emitter.id}" for emitter in simulation.emitters
    ]
    for row, report in enumerate(alerts):
        assert report.times is not None
        assert report.times.tolist() == [block.times[-1]]
        expected = {
            name: alert_text(configured, block.values[name][row, -1])
            for name, configured in zip(block.values, (CPU, THROUGHPUT), strict=True)
        }
        assert report.attributes == {
            "alerts": {name: text for name, text in expected.items() if text}
        }
    assert alerts[1].attributes["alerts"]["cpu_utilization"] == (
        "Operation - Chassis CPU Utilization (100.0) exceed Critical threshold (80.0)"
    )


def test_descriptions_say_what_and_where_everything_is(simulation: DeviceSimulation) -> None:
    told: dict[str, list[Report]] = {}
    for report in simulation.descriptions():
        assert report.times is None
        told.setdefault(report.struct, []).append(report)
    assert {struct: len(reports) for struct, reports in told.items()} == {
        "UveDevice": 4,
        "UveSite": 4,
        "UveCompany": 4,
    }
    emitter = simulation.emitters[0]
    labels = {"ver": 1, "unit": "percent", "target_type": "gauge"}
    everywhere = {
        "company": emitter.labels["company"],
        "labels": {
            "cpu_utilization": labels,
            "throughput": {**labels, "unit": "mbyte_sec"},
        },
    }
    place = {name: emitter.labels[name] for name in ("site", "latitude", "longitude")}
    assert told["UveDevice"][0].attributes == {**everywhere, **place}
    assert told["UveSite"][0].attributes == {**everywhere, **place, "devices": 1}
    assert told["UveCompany"][0].attributes == {**everywhere, "devices": 1}


def test_sites_and_companies_are_summed_over_their_devices(simulation: DeviceSimulation) -> None:
    summed = dict.fromkeys(("cpu_utilization", "throughput", "devices", "devices_in_error"), "sum")
    assert simulation.aggtypes == {"UveSite": summed, "UveCompany": summed}
    assert simulation.proxied == [
        f"{struct}-{name}"
        for struct in ("UveDevice", "UveSite", "UveCompany")
        for name in ("cpu_utilization", "throughput")
    ]


def test_names_are_those_that_a_collector_takes() -> None:
    simulation = DeviceSimulation(network(companies=1000, devices=1))
    for report in simulation.descriptions():
        assert len(report.key) <= wire.KEY_BYTES
        assert len(report.source) <= wire.SOURCE_BYTES
        host, *rest = report.source.split(":")
        assert rest == ["Device", "netops", "0"]
        assert report.key.isascii()
        assert host.isascii()
