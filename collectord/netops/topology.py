"""Companies, their sites and the devices there: what they are called and where they stand.

Names are those of the installed Faker: another version of it may have others for the same seed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from faker import Faker

from collectord.netops.block import Emitter
from collectord.netops.configuration import Configuration
from collectord.netops.draws import Draws, generator


@dataclass(frozen=True)
class Site:
    """Where a company has devices."""

    company: str
    number: int
    """From 0, within the company."""
    latitude: float
    longitude: float
    devices: int
    """How many there are."""

    @property
    def id(self) -> str:
        """``<company>/<number>``."""
        return f"{self.company}/{self.number}"

    def emitters(self) -> Iterator[Emitter]:
        """Its devices."""
        for number in range(self.devices):
            device = f"{self.id}/{number}"
            labels = {
                "company": self.company,
                "site": self.id,
                "device": device,
                "latitude": self.latitude,
                "longitude": self.longitude,
            }
            yield Emitter(device, f"{device}:Device:netops:0", labels)


def sites(configuration: Configuration) -> list[Site]:
    """All sites, company by company. A larger network begins with the smaller one of its seed."""
    deployment = configuration.deployment
    box = deployment.site_locations_bounding_box
    random = generator(configuration.seed, Draws.PLACES)
    found = []
    for company in itertools.islice(companies(configuration.seed), deployment.num_companies):
        for number in range(deployment.num_sites_per_company):
            # Which corner is which does not matter: between them is between them.
            latitude, longitude = (
                round(one + (other - one) * share, 6)
                for one, other, share in zip(box.nw, box.se, random.random(2).tolist(), strict=True)
            )
            found.append(
                Site(company, number, latitude, longitude, deployment.num_devices_per_site)
            )
    return found


def companies(seed: int) -> Iterator[str]:
    """Endless names of companies, none twice, as ``Rodriguez_Figueroa_and_Sanchez``."""
    faker = Faker("en_US")
    faker.seed_instance(seed)
    given = set()
    while True:
        name = re.sub(r"[^A-Za-z0-9-]+", "_", faker.company())
        if name not in given:
            given.add(name)
            yield name
