"""The whole network of a configuration, and what a collector needs to be told for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from collectord.netops.block import Emitter, Simulation
from collectord.netops.configuration import Configuration, ConfigurationError
from collectord.netops.devices import DeviceSimulation
from collectord.netops.virtual_networks import VirtualNetworkSimulation
from collectord.views import matches

ALGORITHMS = ("AggProxySum", "AggProxySumAnomalyEWM01")
"""What a collector is to make of every metric that is worth it."""


def simulations(configuration: Configuration) -> list[Simulation]:
    """Its devices and its virtual networks, as far as it has them.

    Raises ConfigurationError for a planned failure of something that it has not.
    """
    found: list[Simulation] = []
    networks = configuration.virtual_networks
    if configuration.deployment.devices and configuration.metrics:
        found.append(DeviceSimulation(configuration))
    devices = [emitter for simulation in found for emitter in simulation.emitters]
    errors = [planned.devices for planned in configuration.errors]
    wrong = list(_strangers("errors.{}.devices", errors, devices))
    if networks:
        found.append(VirtualNetworkSimulation(configuration))
        incidents = [planned.vrouters for planned in networks.incidents]
        place = "virtual_networks.incidents.{}.vrouters"
        wrong += _strangers(place, incidents, found[-1].emitters)
    if wrong:
        raise ConfigurationError(wrong)
    return found


def uve_proxy_list(simulations: Sequence[Simulation]) -> str:
    """The collector's option that lets it make sums and scores of all that is worth it."""
    metrics = dict.fromkeys(metric for simulation in simulations for metric in simulation.proxied)
    return " ".join(":".join([metric, *ALGORITHMS]) for metric in metrics)


def _strangers(place: str, patterns: Iterable[str], emitters: Sequence[Emitter]) -> Iterator[str]:
    """What is wrong with patterns that nobody's id fits."""
    known = f"there is {emitters[0].id!r}, for example" if emitters else "there are none"
    for index, pattern in enumerate(patterns):
        if not any(matches(pattern, emitter.id) for emitter in emitters):
            yield f"{place.format(index)}: must fit somebody, not {pattern!r:.100}; {known}"
