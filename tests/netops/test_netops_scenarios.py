"""Failures: how often, how long, in which form, and who fails together.

All draws have fixed seeds; how far they may be off is a matter of how many there are.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collectord.netops.block import SECOND, Stream
from collectord.netops.configuration import Configuration
from collectord.netops.devices import CHUNK, LIFE, DeviceSimulation
from collectord.netops.scenarios import PEAKS, SPAN, Episodes, Failures
from collectord.netops.topology import sites
from netops.drawing import is_near, is_share, life, metric, network

ENTER = 200
"""The step at which devices are sent into a scenario: it goes on after the end of its chunk."""
LENGTH, JOIN = 80, 30
DEVICES = 4000


def entered_by(configuration: Configuration, steps: int, **fields: int) -> list[Episodes]:
    """What the devices enter in so many steps of a life, span by span."""
    emitters = [emitter for site in sites(configuration) for emitter in site.emitters()]
    failures = Failures(configuration, emitters, **fields)
    return [*itertools.islice(failures.spans(), math.ceil(steps / SPAN))]


def begins(configuration: Configuration, steps: int) -> list[set[tuple[int, int]]]:
    """Step and scenario of all that each device enters."""
    found: list[set[tuple[int, int]]] = [set() for _ in range(configuration.deployment.devices)]
    for episodes in entered_by(configuration, steps):
        columns = (episodes.device, episodes.begin, episodes.scenario)
        for device, begin, scenario in zip(*(column.tolist() for column in columns), strict=True):
            if begin < steps:
                found[device].add((begin, scenario))
    return found


def lengths(is_error: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps each device failed in all."""
    return np.asarray(is_error.sum(axis=1))


class Planned:
    """Many devices that enter one scenario at the same step; ``late`` joins in later, low."""

    def __init__(self) -> None:
        low = {"alerts": {"threshold": 0, "type": True}}
        high = {"alerts": {"threshold": 200, "type": False}}
        configuration = network(
            DEVICES,
            metrics={
                "early": {**metric(), **high},
                "late": {**metric(), **low},
                "silent": metric(),
                "never": metric(),
            },
            error_scenarios=[{"length": LENGTH, "early": 0, "late": JOIN, "silent": 5}],
            errors=[{"step": ENTER}],
        )
        self.block = life(configuration, 2 * CHUNK)
        self.ends = ENTER + lengths(self.block.is_error["early"])
        """The step after the last one, of each device."""


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned()


# --- one scenario ----------------------------------------------------------------------------


def test_the_length_is_normal_about_that_of_the_scenario(planned: Planned) -> None:
    length = planned.ends - ENTER
    deviation = np.sqrt((LENGTH / 10) ** 2 + 1 / 12)  # the twelfth is what rounding adds
    assert is_near(length.mean(), LENGTH, deviation, DEVICES)
    # The deviation of a sample's deviation.
    assert is_near(length.std(), deviation, deviation / np.sqrt(2), DEVICES)


def test_each_metric_joins_at_its_own_step_and_fails_to_the_end(planned: Planned) -> None:
    steps = np.arange(planned.block.steps)
    for name, join in (("early", 0), ("late", JOIN), ("silent", 5)):
        expected = (steps >= ENTER + join) & (steps < planned.ends[:, None])
        assert np.array_equal(planned.block.is_error[name], expected)


def test_a_metric_that_the_scenario_does_not_name_stays_well(planned: Planned) -> None:
    assert not planned.block.is_error["never"].any()
    assert planned.block.values["never"].max() < 200


@pytest.mark.parametrize(
    ("name", "join", "extreme"), [("early", 0, 1000), ("late", JOIN, -1000), ("silent", 5, 1000)]
)
def test_the_last_half_is_wholly_at_the_extreme_of_its_alert(
    planned: Planned, name: str, join: int, extreme: float
) -> None:
    values = planned.block.values[name]
    for device, end in enumerate(planned.ends):
        half = (end - ENTER - join) // 2
        assert np.all(values[device, ENTER + join + half : end] == extreme)


@pytest.mark.parametrize(("name", "join"), [("early", 0), ("late", JOIN)])
def test_peaks_of_the_first_half_grow_likelier_step_by_step(
    planned: Planned, name: str, join: int
) -> None:
    peaks = np.abs(planned.block.values[name]) == 1000
    halves = (planned.ends - ENTER - join) // 2
    for position in range(halves.max()):
        in_first_half = position < halves
        likelihood = PEAKS * position / halves[in_first_half]
        deviation = np.sqrt((likelihood * (1 - likelihood)).sum())
        found = int(peaks[in_first_half, ENTER + join + position].sum())
        assert abs(found - likelihood.sum()) <= 5 * deviation, position


def test_peaks_come_one_by_one(planned: Planned) -> None:
    """Two steps of the first half are both peaks as often as independent ones are."""
    halves = (planned.ends - ENTER) // 2
    position = 30
    both_in = position + 1 < halves
    likelihoods = (PEAKS * position / halves * PEAKS * (position + 1) / halves)[both_in]
    peaks = planned.block.values["early"][both_in, ENTER + position : ENTER + position + 2] == 1000
    deviation = np.sqrt((likelihoods * (1 - likelihoods)).sum())
    assert is_near(peaks.all(axis=1).sum(), likelihoods.sum(), deviation)


def test_between_the_peaks_values_are_as_ever(planned: Planned) -> None:
    block = planned.block
    between = block.values["early"][block.is_error["early"] & (block.values["early"] < 1000)]
    assert is_near(between.mean(), 100, 5, len(between))
    assert is_near(between.std(), 5, 5 / np.sqrt(2), len(between))


def test_before_and_after_all_is_well(planned: Planned) -> None:
    for name in ("early", "late", "silent"):
        well = planned.block.values[name][~planned.block.is_error[name]]
        assert is_near(well.mean(), 100, 5, len(well))
        assert np.abs(well - 100).max() < 100
    assert np.all(planned.ends < planned.block.steps)


def test_a_scenario_lasts_until_every_metric_has_joined() -> None:
    configuration = network(
        DEVICES,
        metrics={"load": metric()},
        error_scenarios=[{"length": 20, "load": 19}],
        errors=[{"step": 0}],
    )
    block = life(configuration, 40)
    assert set(block.is_error["load"].argmax(axis=1)) == {19}
    # The length is Normal(20, 2), and rounded, so that a good half is 20 or shorter.
    shortest = lengths(block.is_error["load"]) == 1
    assert shortest.sum() > DEVICES / 2
    assert np.all(block.values["load"][shortest, 19] == 1000)


# --- planned errors --------------------------------------------------------------------------


def test_a_planned_error_takes_the_devices_of_its_pattern() -> None:
    configuration = network(
        devices=2, sites=2, companies=2, errors=[{"devices": "*/1/0", "step": 3}]
    )
    is_error = life(configuration, 10).is_error["throughput"]
    assert is_error.any(axis=1).tolist() == [False, False, True, False] * 2
    assert is_error[2].argmax() == 3


def test_a_planned_error_enters_the_scenario_it_names() -> None:
    configuration = network(
        error_scenarios=[
            {"length": 10, "cpu_utilization": 0},
            {"length": 10, "throughput": 0},
        ],
        errors=[{"step": 300, "scenario": 1}, {"step": 20, "scenario": 0}],
    )
    is_error = life(configuration, 400).is_error
    assert set(is_error["cpu_utilization"].argmax(axis=1)) == {20}
    assert set(is_error["throughput"].argmax(axis=1)) == {300}


def test_a_planned_error_ends_the_scenario_under_way() -> None:
    configuration = network(
        error_scenarios=[
            {"length": 100, "cpu_utilization": 0},
            {"length": 10, "throughput": 0},
        ],
        errors=[{"step": 20, "scenario": 0}, {"step": 50, "scenario": 1}],
    )
    is_error = life(configuration, 200).is_error
    assert np.array_equal(
        is_error["cpu_utilization"],
        np.tile((np.arange(200) >= 20) & (np.arange(200) < 50), (10, 1)),
    )
    assert not is_error["throughput"][:, 100:].any()


def test_a_planned_error_prevails_over_what_its_site_enters_at_the_same_step() -> None:
    scenarios = [{"length": 5, "cpu_utilization": 0}, {"length": 40, "throughput": 0}]
    sites_fail: dict[str, Any] = {"site_error_rate": 0.1, "error_scenarios": scenarios}
    usual = begins(network(2, **sites_fail), SPAN)
    assert usual[0] == usual[1]
    step = next(step for step, scenario in sorted(usual[0]) if scenario == 0)
    planned = [{"devices": "*/1", "step": step, "scenario": 1}]
    other, chosen = begins(network(2, errors=planned, **sites_fail), SPAN)
    assert (step, 0) in other
    assert (step, 1) in chosen
    assert (step, 0) not in chosen


def test_the_last_one_listed_prevails_of_planned_errors_at_the_same_step() -> None:
    scenarios = [{"length": 5, "cpu_utilization": 0}, {"length": 40, "throughput": 0}]
    for order in ((0, 1), (1, 0)):
        errors = [{"step": 7, "scenario": scenario} for scenario in order]
        configuration = network(2, error_scenarios=scenarios, errors=errors)
        assert begins(configuration, SPAN) == [{(7, order[1])}] * 2


@pytest.mark.parametrize("error_rate", [0.0, 0.01])
def test_a_planned_error_goes_on_in_the_next_life(error_rate: float) -> None:
    fields: dict[str, Any] = {
        "metrics": {"load": metric()},
        "error_scenarios": [{"length": 1000, "load": 0}],
        "error_rate": error_rate,
    }
    configuration = network(50, errors=[{"step": 600}], **fields)
    within = life(network(50, errors=[{"step": 600}], **{**fields, "error_rate": 0}), 2200)
    expected = lengths(within.is_error["load"])
    across = life(configuration, 2200, (LIFE - 1100) * SECOND).is_error["load"]
    for row, length in zip(across, expected, strict=True):
        assert row[600 : 600 + length].all()
        if error_rate == 0:
            assert row.sum() == length


def test_of_planned_errors_in_the_life_before_only_what_was_not_cut_short_goes_on() -> None:
    configuration = network(
        error_scenarios=[
            {"length": 1000, "cpu_utilization": 0},
            {"length": 10, "throughput": 0},
        ],
        errors=[{"step": 0}, {"devices": "*/0", "step": 50, "scenario": 1}],
    )
    is_error = life(configuration, 300, (LIFE - 100) * SECOND).is_error["cpu_utilization"]
    assert np.array_equal(is_error[0], np.arange(300) < 50)
    assert is_error[1:].all()


def test_who_was_in_a_planned_error_before_a_life_is_well_when_it_begins() -> None:
    scenarios = [{"length": 10, "throughput": 0}, {"length": 100, "throughput": 0}]
    configuration = network(
        DEVICES, error_rate=0.05, error_scenarios=scenarios, errors=[{"step": 0}]
    )
    (episodes,) = entered_by(configuration, 1, life=1, begin=-100)
    assert episodes.begin.min() == 0
    assert is_share((episodes.begin == 0).sum() / DEVICES, 0.05, DEVICES)


def test_a_planned_error_is_as_long_in_every_life() -> None:
    configuration = network(errors=[{"step": 2 * SPAN - 10}])
    (one, other) = (
        entered_by(configuration, 1, life=number, begin=5 - 2 * SPAN)[0] for number in (0, 9)
    )
    assert np.array_equal(one.length, other.length)
    assert one.begin.tolist() == [-5] * 10
    assert len(set(one.length.tolist())) > 1


def test_without_error_scenarios_nothing_fails() -> None:
    configuration = network(error_scenarios=[], error_rate=1.0, site_error_rate=0.1)
    block = life(configuration, 1000)
    assert not any(is_error.any() for is_error in block.is_error.values())


# --- random ones -----------------------------------------------------------------------------


def renewal(
    rate: float, length: float, spread: float, cells: int, join: int = 0
) -> tuple[float, float]:
    """The share of steps in error, and its standard error.

    A device is well for a geometric number of steps, of mean (1 - rate) / rate, then in a scenario
    for ``length`` of them, of which all after ``join`` are in error. The variance is that of a
    cumulative process (Cox, Renewal Theory, 1962).
    """
    cycle = (1 - rate) / rate + length
    share = (length - join) / cycle
    variance = ((1 - share) ** 2 * spread**2 + share**2 * (1 - rate) / rate**2) / cycle
    return share, float(np.sqrt(variance / cells))


@pytest.mark.parametrize(("rate", "length"), [(0.001, 80), (0.01, 20), (0.5, 10), (1.0, 10)])
def test_the_share_of_steps_in_error_is_that_of_a_renewal_process(rate: float, length: int) -> None:
    devices, steps = 400, 25_000
    configuration = network(
        devices,
        metrics={"load": metric()},
        error_scenarios=[{"length": length, "load": 0}],
        error_rate=rate,
    )
    stream = Stream(DeviceSimulation(configuration), 0, 1)
    found = sum(int(stream.take(1000).is_error["load"].sum()) for _ in range(steps // 1000))
    spread = np.sqrt((length / 10) ** 2 + 1 / 12)
    share, standard_error = renewal(rate, length, spread, devices * steps)
    # All begin well, which is no more than a scenario of each too few.
    assert abs(found / (devices * steps) - share) <= 5 * standard_error + length / steps


def test_a_metric_that_joins_later_fails_for_a_shorter_share() -> None:
    devices, steps = 50, 50_000
    configuration = network(
        devices, error_rate=0.01, error_scenarios=[{"length": 60, "cpu_utilization": 30}]
    )
    is_error = life(configuration, steps).is_error["cpu_utilization"]
    spread = np.sqrt(6**2 + 1 / 12)
    share, standard_error = renewal(0.01, 60, spread, devices * steps, join=30)
    assert abs(is_error.mean() - share) <= 5 * standard_error + 60 / steps
    assert not is_error[:, :30].any()


def test_a_device_that_is_well_enters_a_scenario_with_the_rate_at_each_step() -> None:
    rate = 0.02
    configuration = network(
        200,
        metrics={"load": metric()},
        error_scenarios=[{"length": 5, "load": 0}],
        error_rate=rate,
    )
    entered = begins(configuration, 5000)
    failing = life(configuration, 5000).is_error["load"].sum()
    well = 200 * 5000 - failing
    count = sum(map(len, entered))
    assert is_share(count / (well + count), rate, well + count)


def test_scenarios_are_chosen_alike() -> None:
    configuration = network(
        50, error_rate=0.02, error_scenarios=[{"length": 5, "throughput": 0}] * 3
    )
    chosen = [scenario for entered in begins(configuration, 10_000) for _, scenario in entered]
    for scenario in range(3):
        assert is_share(chosen.count(scenario) / len(chosen), 1 / 3, len(chosen))


def test_devices_fail_at_times_of_their_own() -> None:
    entered = begins(network(50, error_rate=0.001), 20_000)
    for one, other in itertools.combinations(entered, 2):
        assert len(one & other) <= 3  # of some 19: for more, the probability is below 1e-8


@pytest.mark.parametrize("rate", [5e-324, 1e-300])
def test_what_is_all_but_impossible_does_not_happen(rate: float) -> None:
    configuration = network(error_rate=rate, site_error_rate=rate)
    assert begins(configuration, 1000) == [set()] * 10


# --- sites -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_all_devices_of_a_site_enter_the_same_scenario_at_the_same_step(rate: float) -> None:
    configuration = network(
        5,
        sites=4,
        site_error_rate=rate,
        error_scenarios=[{"length": 20, "throughput": 0}, {"length": 30, "cpu_utilization": 0}],
    )
    steps = 20_000
    entered = begins(configuration, steps)
    of_sites = [entered[first : first + 5] for first in range(0, 20, 5)]
    for devices in of_sites:
        assert devices == [devices[0]] * 5
        assert is_share(len(devices[0]) / steps, rate, steps)
        assert {scenario for _, scenario in devices[0]} == {0, 1}
    for one, other in itertools.combinations(of_sites, 2):
        assert one[0] != other[0]


def test_a_site_fails_as_one_even_where_devices_fail_by_themselves() -> None:
    fields: dict[str, Any] = {"site_error_rate": 0.002, "error_rate": 0.01}
    configuration = network(5, error_scenarios=[{"length": 20, "throughput": 0}], **fields)
    steps = 20_000
    together = set.intersection(*begins(configuration, steps))
    assert is_share(len(together) / steps, 0.002, steps)


def test_many_sites_that_fail_all_the_time_fail_each_with_its_rate() -> None:
    companies, sites_each, rate, steps = 2, 100, 0.1, 2 * SPAN
    configuration = network(
        5,
        sites=sites_each,
        companies=companies,
        site_error_rate=rate,
        error_rate=0.01,
        error_scenarios=[{"length": 3, "throughput": 0}, {"length": 30, "cpu_utilization": 0}],
    )
    found = begins(configuration, steps)
    together = [set.intersection(*found[first : first + 5]) for first in range(0, 1000, 5)]
    count = companies * sites_each
    assert is_share(sum(map(len, together)) / (steps * count), rate, steps * count)
    assert all(is_share(len(entered) / steps, rate, steps) for entered in together)
    second = [scenario for entered in together for _, scenario in entered]
    assert is_share(sum(second) / len(second), 1 / 2, len(second))
    # Nobody is in two scenarios, nor twice in one step.
    for episodes in entered_by(configuration, steps):
        order = np.lexsort((episodes.first, episodes.device))
        is_next = np.diff(episodes.device[order]) == 0
        assert np.all(episodes.end[order][:-1][is_next] <= episodes.first[order][1:][is_next])
        assert np.all(episodes.first < episodes.end)
        assert np.all(episodes.end <= episodes.begin + episodes.length)


@pytest.mark.parametrize("size", [1, 7, CHUNK, SPAN])
def test_what_is_within_some_steps_is_what_fails_there(size: int) -> None:
    configuration = network(20, error_rate=0.05, error_scenarios=[{"length": 9, "throughput": 2}])
    (episodes,) = entered_by(configuration, SPAN)
    joins = np.array([2])
    whole = sorted(zip(*(column.tolist() for column in episodes.failing(joins)), strict=True))
    parts = [
        row
        for first in range(0, SPAN, size)
        for row in zip(
            *(
                column.tolist()
                for column in episodes.within(first, min(first + size, SPAN)).failing(joins)
            ),
            strict=True,
        )
    ]
    assert sorted(parts) == whole
