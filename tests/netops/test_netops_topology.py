"""Companies, sites and devices: what they are called, where they stand, and who reports them."""

from __future__ import annotations

import itertools
import re

import pytest

from collectord.netops.configuration import Configuration, ConfigurationError
from collectord.netops.network import simulations
from collectord.netops.topology import companies, sites
from netops.drawing import network

TWO_OF_EACH = network(companies=2, sites=2, devices=2)


def ids(configuration: Configuration) -> list[str]:
    return [emitter.id for site in sites(configuration) for emitter in site.emitters()]


def test_devices_are_numbered_within_their_site_and_sites_within_their_company() -> None:
    first, second = itertools.islice(companies(0), 2)
    assert ids(TWO_OF_EACH) == [
        f"{company}/{site}/{device}"
        for company in (first, second)
        for site in (0, 1)
        for device in (0, 1)
    ]


def test_names_of_companies_are_those_of_faker_without_what_keys_and_paths_use() -> None:
    names = list(itertools.islice(companies(0), 100))
    assert all(re.fullmatch(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*", name) for name in names)
    assert any("_and_" in name for name in names)


def test_the_first_companies_of_seed_0_are_those_of_this_version_of_faker() -> None:
    """Where another version has others, every network of old seeds is another."""
    assert [*itertools.islice(companies(0), 6)] == [
        "Chang-Fisher",
        "Sheppard-Tucker",
        "Faulkner-Howard",
        "Wagner_LLC",
        "Campos_PLC",
        "Archer-Patel",
    ]


def test_no_two_companies_have_the_same_name() -> None:
    names = list(itertools.islice(companies(0), 10_000))
    assert len(set(names)) == 10_000


def test_the_same_seed_gives_the_same_network() -> None:
    again = TWO_OF_EACH.model_copy(deep=True)
    assert sites(again) == sites(TWO_OF_EACH)


def test_another_seed_gives_other_companies_in_other_places() -> None:
    other = sites(network(companies=2, sites=2, seed=1))
    for site, of_other in zip(sites(TWO_OF_EACH), other, strict=True):
        assert site.company != of_other.company
        assert (site.latitude, site.longitude) != (of_other.latitude, of_other.longitude)


def test_a_larger_network_begins_with_the_smaller_one() -> None:
    assert ids(network(companies=3, sites=2, devices=2))[:8] == ids(TWO_OF_EACH)
    larger = sites(network(companies=3, sites=2, devices=2))
    assert larger[:4] == sites(TWO_OF_EACH)


@pytest.mark.parametrize(
    ("one", "other"), [([51, -0.2], [52, -0.1]), ([52, -0.1], [51, -0.2]), ([52, -0.2], [51, -0.1])]
)
def test_sites_stand_within_the_box_whichever_corners_are_given(
    one: list[float], other: list[float]
) -> None:
    deployment = {
        "num_companies": 10,
        "num_sites_per_company": 10,
        "site_locations_bounding_box": {"nw": one, "se": other},
    }
    found = sites(Configuration.model_validate({"deployment": deployment}))
    assert all(51 <= site.latitude <= 52 and -0.2 <= site.longitude <= -0.1 for site in found)
    assert len({(site.latitude, site.longitude) for site in found}) == 100
    assert all(round(site.latitude, 6) == site.latitude for site in found)


def test_a_device_is_labelled_with_its_place() -> None:
    site = sites(TWO_OF_EACH)[1]
    device = [*site.emitters()][1]
    assert device.id == f"{site.company}/1/1"
    assert device.source == f"{device.id}:Device:netops:0"
    assert device.labels == {
        "company": site.company,
        "site": f"{site.company}/1",
        "device": device.id,
        "latitude": site.latitude,
        "longitude": site.longitude,
    }


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, ["DeviceSimulation"]),
        ({"virtual_networks": {}}, ["DeviceSimulation", "VirtualNetworkSimulation"]),
        (
            {"virtual_networks": {}, "deployment": {"num_companies": 0}},
            ["VirtualNetworkSimulation"],
        ),
        ({"virtual_networks": {}, "metrics": {}}, ["VirtualNetworkSimulation"]),
        ({"metrics": {}}, []),
    ],
)
def test_a_network_has_devices_and_virtual_networks_as_configured(
    fields: dict[str, object], kinds: list[str]
) -> None:
    found = simulations(Configuration.model_validate(fields))
    assert [type(simulation).__name__ for simulation in found] == kinds


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"errors": [{"step": 1}, {"devices": "*/9/*", "step": 1}]},
            r"errors\.1\.devices: must fit somebody, not '\*/9/\*'; there is '\S+/0/0'",
        ),
        (
            {"errors": [{"step": 1}], "deployment": {"num_companies": 0}},
            r"errors\.0\.devices: must fit somebody, not '\*'; there are none",
        ),
        (
            {
                "virtual_networks": {
                    "incidents": [{"vrouters": "front?nd/*", "step": 1, "kind": "flood"}]
                }
            },
            r"virtual_networks\.incidents\.0\.vrouters: must fit somebody, not 'front\?nd/\*'; "
            r"there is 'frontend/compute-1', for example",
        ),
    ],
)
def test_a_planned_failure_of_nobody_is_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        simulations(Configuration.model_validate(fields))
