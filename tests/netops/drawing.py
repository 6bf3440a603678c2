"""Networks for tests of what is drawn, and how far a sample may be off what is expected of it."""

from __future__ import annotations

import math
from typing import Any

from collectord.netops.block import Block, Stream
from collectord.netops.configuration import Configuration
from collectord.netops.devices import DeviceSimulation

STANDARD_ERRORS = 5.0
"""How far off is too far: less than one in a million samples is."""


def network(devices: int = 10, sites: int = 1, companies: int = 1, **fields: Any) -> Configuration:
    """A configuration of so many devices on each site; unless told otherwise, none ever fails."""
    deployment = {
        "num_companies": companies,
        "num_sites_per_company": sites,
        "num_devices_per_site": devices,
    }
    return Configuration.model_validate({"error_rate": 0, "deployment": deployment, **fields})


def metric(**fields: Any) -> dict[str, Any]:
    """A metric far from its extremes, unless told otherwise."""
    return {"metric": {"mu": 100, "sigma": 3, "noise": 4, "max": 1000, "min": -1000, **fields}}


def life(configuration: Configuration, steps: int, start: int = 0, interval: float = 1.0) -> Block:
    """So many steps of its devices."""
    return Stream(DeviceSimulation(configuration), start, interval).take(steps)


def is_near(value: float, expected: float, deviation: float, count: float = 1) -> bool:
    """Whether the mean of ``count`` draws of this deviation is where it should be."""
    return bool(abs(value - expected) < STANDARD_ERRORS * deviation / math.sqrt(count))


def is_share(value: float, probability: float, count: float) -> bool:
    """Whether so many of ``count`` draws as this share may have this probability."""
    deviation = math.sqrt(probability * (1 - probability))
    return value == probability or is_near(value, probability, deviation, count)
