"""Virtual networks as Contrail's vrouters tell them: flows that come and go, floods and drops.

Every vrouter carries every network, and counts for itself: flows in both directions, and the
packets and bytes that they bring. What a network is as a whole, the collector makes of it.

The flows of a network on a vrouter arrive at random and last a while, so that there is always a
number of them under way that wanders about its mean: the queue M/M/∞, here in its limit for many
flows, ``mean + sqrt(mean) * level``. The level has mean 0, deviation 1 and, ``s`` seconds apart,
correlation ``exp(-s / flow_seconds)`` (an Ornstein-Uhlenbeck process). From ten flows on the limit
is close; with fewer, what would be below 0 flows is 0. The mean rises and falls with the day and
the week.

An incident multiplies the mean, from one step to another, by the factor of a flood or of a drop;
floods that come together are no higher than one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import SECOND, Block, Emitter, Measure, Report
from collectord.netops.configuration import Configuration, Distribution, PlannedIncident
from collectord.netops.draws import Draws, generator
from collectord.netops.shapes import Shape
from collectord.views import matches

STRUCT = "UveVirtualNetworkAgent"
TRUTH = "NetopsTruth"
"""What no vrouter knows, and so stands apart from what they tell."""
FLOWS = ("ingress_flow_count", "egress_flow_count")
LABELS = {
    FLOWS: {"unit": "flows", "target_type": "gauge"},
    ("in_tpkts", "out_tpkts"): {"unit": "packets", "target_type": "counter"},
    ("in_bytes", "out_bytes"): {"unit": "bytes", "target_type": "counter"},
}
"""Of what each vrouter measures, what comes in before what goes out."""
NAMES = ("frontend", "backend", "storage")
"""Of the first networks; the others are ``vn4``, ``vn5`` and so on."""

CHUNK = 256
"""Steps that are drawn at once, ..."""
CHUNK_VALUES = 1 << 21
"""... or fewer, if they have more values."""
TOGETHER = 0.8
"""The correlation of ingress and egress flows: most of them are answers to one another."""
PACKETS_PER_FLOW = 10.0
"""In a second."""
PACKET_BYTES = 600.0
JITTER = 0.05
"""The deviation of packets per flow, and of bytes per packet, as a share of their mean."""
PEERS = 4
"""Networks at most that a network has traffic with, itself among them."""


class Incident(NamedTuple):
    """From step ``first`` to before ``end`` these emitters have ``factor`` times as many flows."""

    first: int
    end: int
    emitters: slice | list[int]
    factor: float


class VirtualNetworkSimulation:
    """The ``virtual_networks`` of a configuration; its emitters are networks on vrouters.

    ``FLOWS`` alone are worth a proxy UVE: the packets and bytes are counters that only ever grow,
    and the sum of such a counter over a minute says nothing of the minute. They carry the same
    truth, as they follow the flows. Counters begin at 0 with a stream, as with an agent's start.

    Raises ValueError for a configuration without virtual networks.
    """

    def __init__(self, configuration: Configuration) -> None:
        if configuration.virtual_networks is None:
            raise ValueError("the configuration has no virtual_networks")
        self._settings = configuration.virtual_networks
        self._seed = configuration.seed
        self._networks = [
            NAMES[number] if number < len(NAMES) else f"vn{number + 1}"
            for number in range(self._settings.num_networks)
        ]
        self.emitters: Sequence[Emitter] = [
            _emitter(network, vrouter)
            for network in self._networks
            for vrouter in range(1, self._settings.num_vrouters + 1)
        ]
        self.metrics: Mapping[str, Measure] = {
            name: Measure(labels, _silent) for names, labels in LABELS.items() for name in names
        }
        self.aggtypes: Mapping[str, Mapping[str, str]] = {
            STRUCT: {
                **dict.fromkeys(self.metrics, "sum"),
                "virtualmachine_list": "union",
                "in_stats": "append:other_vn",
            }
        }
        self.proxied: Sequence[str] = [f"{STRUCT}-{name}" for name in FLOWS]

        count = len(self.emitters)
        random = generator(self._seed, Draws.NETWORKS)
        busy = random.uniform(0.5, 1.5, (1, count)) * random.uniform(0.8, 1.2, (2, count))
        self._flows = self._settings.flows * busy[:, :, np.newaxis]
        self._packets = PACKETS_PER_FLOW * random.uniform(0.5, 1.5, (2, count, 1))
        self._bytes = PACKET_BYTES * random.uniform(0.5, 1.5, (2, count, 1))
        self._shape = Shape(
            Distribution(mu=1, sigma=0, daily=self._settings.daily, weekly=self._settings.weekly),
            count,
            random,
        )
        self._shares = random.dirichlet(np.ones(min(PEERS, len(self._networks))), count)
        self._planned = [self._plan(planned) for planned in self._settings.incidents]

    def chunks(self, start: int, interval: float) -> Iterator[Block]:
        """See ``Simulation``."""
        count = len(self.emitters)
        steps = max(min(CHUNK, CHUNK_VALUES // (count * len(self.metrics))), 1)
        period = round(interval * SECOND)
        random = generator(self._seed, Draws.FLOWS)
        incidents = _Incidents(self._incidents(random))
        decay = math.exp(-interval / self._settings.flow_seconds)
        level = random.standard_normal((2, count))
        counters = np.zeros((4, count), np.int64)
        for first in itertools.count(0, steps):
            times = start + period * np.arange(first, first + steps)
            factor = np.ones((count, steps))
            is_error = np.zeros((count, steps), np.bool_)
            for incident in incidents.between(first, first + steps):
                span = slice(max(incident.first - first, 0), incident.end - first)
                factor[incident.emitters, span] *= incident.factor
                is_error[incident.emitters, span] = True
            np.minimum(factor, self._settings.flood_factor, out=factor)

            levels = _wandering(random, level, decay, steps)
            level = levels[:, :, -1].copy()
            flows = self._flows_under_way(times, factor, levels)
            packets = _varied(random, flows * (self._packets * interval))
            brought = np.concatenate([packets, _varied(random, packets * self._bytes)])
            counted = counters[:, :, np.newaxis] + np.cumsum(brought.astype(np.int64), axis=2)
            counters = counted[:, :, -1].copy()

            arrays = itertools.chain(flows.astype(np.int64), counted)
            yield Block(
                times,
                dict(zip(self.metrics, arrays, strict=True)),
                dict.fromkeys(self.metrics, is_error),
            )

    def descriptions(self) -> Iterable[Report]:
        """See ``Simulation``: the virtual machines of each network on each vrouter."""
        for emitter in self.emitters:
            machines = [
                f"{emitter.labels['network']}-{emitter.labels['vrouter']}-vm{number}"
                for number in range(1, self._settings.vms_per_vrouter + 1)
            ]
            yield Report(emitter.source, _key(emitter), STRUCT, {"virtualmachine_list": machines})

    def reports(self, block: Block) -> Iterable[Report]:
        """See ``Simulation``; the truth is told as it is at the last step."""
        for number, emitter in enumerate(self.emitters):
            told: dict[str, Any] = {name: array[number] for name, array in block.values.items()}
            told["in_stats"] = self._in_stats(number, told["in_tpkts"], told["in_bytes"])
            yield Report(emitter.source, _key(emitter), STRUCT, told, block.times)
            truth = {name: array[number, -1:] for name, array in block.is_error.items()}
            yield Report(
                emitter.source, _key(emitter), TRUTH, {"is_error": truth}, block.times[-1:]
            )

    def _flows_under_way(
        self, times: NDArray[np.int64], factor: NDArray[Any], levels: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Whole numbers, of the shape of ``levels``, which are independent of one another."""
        mean = self._flows * (np.maximum(self._shape.mean(times), 0) * factor)
        first, second = levels
        mixed = np.stack([first, TOGETHER * first + math.sqrt(1 - TOGETHER**2) * second])
        flows: NDArray[np.float64] = np.rint(mean + np.sqrt(mean) * mixed)
        return np.maximum(flows, 0, out=flows)

    def _in_stats(
        self, number: int, packets: NDArray[np.int64], octets: NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        """What came in, by the network that it came from."""
        network = number // self._settings.num_vrouters
        return [
            {
                "other_vn": _name(self._networks[(network + peer) % len(self._networks)]),
                "tpkts": (packets * share).astype(np.int64),
                "bytes": (octets * share).astype(np.int64),
            }
            for peer, share in enumerate(self._shares[number])
        ]

    def _incidents(self, random: np.random.Generator) -> Iterator[Incident]:
        """All there will be, in the order in which they begin."""
        networks = (
            self._incidents_of(number, own)
            for number, own in enumerate(random.spawn(len(self._networks)))
        )
        begin = attrgetter("first")
        return heapq.merge(sorted(self._planned, key=begin), *networks, key=begin)

    def _incidents_of(self, network: int, random: np.random.Generator) -> Iterator[Incident]:
        """One after the other, each of a random length, on all of a network or on one vrouter."""
        settings = self._settings
        rate = settings.flood_rate + settings.drop_rate
        vrouters = settings.num_vrouters
        end = 0
        while rate > 0:
            first = end - 1 + int(random.geometric(rate))
            length = random.normal(settings.incident_length, settings.incident_length / 10)
            end = first + max(1, round(length))
            is_flood = random.random() * rate < settings.flood_rate
            begin, count = network * vrouters, vrouters
            if random.random() < settings.local_share:
                begin, count = begin + int(random.integers(vrouters)), 1
            factor = settings.flood_factor if is_flood else settings.drop_factor
            yield Incident(first, end, slice(begin, begin + count), factor)

    def _plan(self, planned: PlannedIncident) -> Incident:
        """One that is wanted, as the configuration has it."""
        settings = self._settings
        emitters = [
            number
            for number, emitter in enumerate(self.emitters)
            if matches(planned.vrouters, emitter.id)
        ]
        end = planned.step + (planned.length or settings.incident_length)
        factor = settings.flood_factor if planned.kind == "flood" else settings.drop_factor
        return Incident(planned.step, end, emitters, factor)


class _Incidents:
    """Incidents that come in the order in which they begin, seen through a window of steps."""

    def __init__(self, coming: Iterator[Incident]) -> None:
        self._coming = coming
        self._seen: list[Incident] = []

    def between(self, first: int, end: int) -> list[Incident]:
        """Those with a step among these; each call goes on where the last one ended."""
        while not self._seen or self._seen[-1].first < end:
            incident = next(self._coming, None)
            if incident is None:
                break
            self._seen.append(incident)
        self._seen = [incident for incident in self._seen if incident.end > first]
        return [incident for incident in self._seen if incident.first < end]


def _wandering(
    random: np.random.Generator, level: NDArray[np.float64], decay: float, steps: int
) -> NDArray[np.float64]:
    """Levels that follow ``level``, with the steps as one more axis.

    ``levels[t] = decay * levels[t - 1] + shock[t]`` for all steps at once: each round adds to every
    level what came twice as long before (Hillis and Steele's scan).
    """
    levels = random.standard_normal((*level.shape, steps)) * math.sqrt(1 - decay**2)
    levels[..., 0] += decay * level
    shift = 1
    while shift < steps:
        levels[..., shift:] += decay**shift * levels[..., :-shift]
        shift *= 2
    return levels


def _varied(random: np.random.Generator, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole numbers about ``mean``."""
    numbers: NDArray[np.float64] = np.rint(mean * random.normal(1, JITTER, mean.shape))
    return numbers


def _emitter(network: str, vrouter: int) -> Emitter:
    host = f"compute-{vrouter}"
    return Emitter(
        f"{network}/{host}",
        f"{host}:Compute:contrail-vrouter-agent:0",
        {"network": network, "vrouter": host},
    )


def _name(network: str) -> str:
    return f"default-domain:demo:{network}"


def _key(emitter: Emitter) -> str:
    return f"ObjectVNTable:{_name(emitter.labels['network'])}"


def _silent(_: float) -> str:
    return ""
