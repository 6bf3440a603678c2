"""UVEs that the example rules are about, as netops and Contrail's agents tell them.

Virtual networks by three vrouters, devices, sites, vrouters, control nodes. In ``populated`` one in
a hundred has something that is worth an alarm, and nothing changes; in ``changing`` all does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from benchmarks import load
from collectord import wire
from collectord.engine import Engine
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations, uve_proxy_list
from collectord.options import BY_NAME
from collectord.proxies import parse_proxy_list, specifications

PROXY_LIST = " ".join(
    [BY_NAME["DEFAULT.uve_proxy_list"].default, uve_proxy_list(simulations(Configuration()))]
)
"""Virtual networks' metrics by default, and those of netops' devices."""
SOURCES = (
    "compute-1:Compute:contrail-vrouter-agent:0",
    "compute-2:Compute:contrail-vrouter-agent:0",
)
"""Of what changes."""
PERIOD = 60_000_000
START = 1_700_000_040_000_000
"""Microseconds: the start of a period."""
PERIODS = 12
"""Lived before anything is measured, so that every detector says something."""
WORTH = 100
"""One UVE in so many is worth an alarm."""

AGGTYPES = {
    "UveVirtualNetworkAgent": {
        **dict.fromkeys(("ingress_flow_count", "egress_flow_count"), "sum"),
        **dict.fromkeys(("in_tpkts", "out_tpkts", "in_bytes", "out_bytes"), "sum"),
        "virtualmachine_list": "union",
        "in_stats": "append:other_vn",
    },
    "UveSite": dict.fromkeys(
        ("cpu_utilization", "throughput", "devices", "devices_in_error"), "sum"
    ),
    "NodeStatus": {"process_status": "append"},
}


def network(number: int, source: int) -> dict[str, dict[str, Any]]:
    """A virtual network on a vrouter; what is wrong: no machines are left, but flows are."""
    machines = [f"vn{number}-vm{source}-{machine}" for machine in range(3)]
    return {
        "UveVirtualNetworkAgent": {
            "ingress_flow_count": 4_000 + number % 20,
            "egress_flow_count": 4_000 + number % 17,
            "in_tpkts": 100_000 + number,
            "out_tpkts": 90_000 + number,
            "in_bytes": 60_000_000 + number,
            "out_bytes": 50_000_000 + number,
            "virtualmachine_list": machines if number % WORTH else [],
            "in_stats": [
                {"other_vn": f"default-domain:demo:vn{peer}", "tpkts": number, "bytes": number}
                for peer in range(4)
            ],
        }
    }


def device(number: int, _: int) -> dict[str, dict[str, Any]]:
    """What is wrong: its processor is busy."""
    metrics = {"cpu_utilization": 75.5 if number % WORTH else 99.5, "throughput": 200.5}
    return {
        "UveDevice": {
            **metrics,
            "is_error": dict.fromkeys(metrics, False),
            "alerts": {} if number % WORTH else {"cpu_utilization": "Utilization (99.5)"},
            "labels": {name: {"ver": 1, "unit": "percent"} for name in metrics},
            "company": "Castillo_Ramirez_and_Mitchell",
            "latitude": 51.5,
            "longitude": -0.1,
        }
    }


def site(number: int, source: int) -> dict[str, dict[str, Any]]:
    """What is wrong: all of its devices are in error."""
    in_error = int(source == 0 or number % WORTH == 0)
    return {
        "UveSite": {
            "cpu_utilization": 75.5,
            "throughput": 200.5,
            "devices": 1,
            "devices_in_error": in_error,
        }
    }


def node(number: int) -> dict[str, dict[str, Any]]:
    """What is wrong: one of its processes does not work."""
    return {
        "NodeStatus": {
            "process_status": [
                {
                    "module_id": f"contrail-{process}",
                    "instance_id": "0",
                    "state": "Functional" if number % WORTH or process else "Non-Functional",
                    "description": "",
                }
                for process in range(4)
            ],
            "disk_usage_info": {
                f"/dev/sda{disk}": {"percentage_partition_space_used": 40 + disk}
                for disk in range(3)
            },
        }
    }


def vrouter(number: int, _: int) -> dict[str, dict[str, Any]]:
    interfaces = {"down_interface_count": 0, "total_interface_count": 40, "error_intf_list": []}
    return {**node(number), "VrouterAgent": interfaces}


def control(number: int, _: int) -> dict[str, dict[str, Any]]:
    parameters = {"address": "10.0.0.5", "port": 179, "autonomous_system": 64512}
    return {
        **node(number),
        "BgpRouterState": {"num_bgp_peer": 8, "num_up_bgp_peer": 8, "router_id": "10.0.0.5"},
        "ContrailConfig": {"elements": {"bgp_router_parameters": json.dumps(parameters)}},
    }


KINDS = (
    (12, "ObjectVNTable:default-domain:demo:vn", network, 3),
    (5, "ObjectDevice:Castillo_Ramirez_and_Mitchell/0/", device, 1),
    (1, "ObjectSite:Castillo_Ramirez_and_Mitchell/", site, 3),
    (1, "ObjectVRouter:compute-", vrouter, 1),
    (1, "ObjectBgpRouter:control-", control, 1),
)
"""How many of twenty UVEs, how their keys begin, what a source tells, and how many sources do."""
MIXED = [kind for kind in KINDS for _ in range(kind[0])]


def populated(count: int) -> Engine:
    """An engine that holds so many UVEs, after ``PERIODS`` periods."""
    engine = Engine(metrics=specifications(parse_proxy_list(PROXY_LIST)))
    batches = [
        wire.encode_batch_head(f"compute-{source}", len(part), aggtypes=AGGTYPES) + b"".join(part)
        for source in range(max(sources for *_, sources in KINDS))
        for part in in_parts(list(told_by(source, count)))
    ]
    for period in range(PERIODS):
        engine.apply_many(batches, START + period * PERIOD)
    for partition in range(engine.partitions):
        engine.advance(partition, START + PERIODS * PERIOD + PERIOD // 2)
    return engine


def told_by(source: int, count: int) -> Iterator[bytes]:
    """The records of one source about so many UVEs."""
    for number in range(count):
        _, prefix, tell, sources = MIXED[number % len(MIXED)]
        if source < sources:
            key = f"{prefix}{number:06}"
            for struct, attributes in tell(number // len(MIXED), source).items():
                yield wire.encode([key, struct, attributes])


def in_parts(records: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(records), load.BATCH):
        yield records[at : at + load.BATCH]


def changing(count: int) -> list[tuple[str, list[bytes]]]:
    """Sources and the bodies of batches that they tell in turns, again and again.

    Half of the UVEs are networks, which two vrouters tell, half are devices, which tell themselves.
    Each record changes all of its attributes, and rules look at all of them; few hold.
    """
    networks = [load.key(number) for number in range(0, count, 2)]
    devices = [f"ObjectDevice:Castillo_Ramirez/0/{number:06}" for number in range(1, count, 2)]
    told = []
    for seed in range(2):
        chosen = random.Random(seed)
        for source in SOURCES:
            records = [changing_network(key, chosen) for key in networks]
            if source == SOURCES[0]:
                records += [changing_device(key, chosen) for key in devices]
            chosen.shuffle(records)
            told.append((source, [b"".join(part) for part in in_parts(records)]))
    return told


def changing_network(key: str, chosen: random.Random) -> bytes:
    return wire.encode(
        [key, load.STRUCT, {name: chosen.uniform(5, 15) for name in load.ATTRIBUTES}]
    )


def changing_device(key: str, chosen: random.Random) -> bytes:
    """The processor has so little to do because sums are of more samples than a device would tell,
    and would all be an alarm."""
    throughput = max(chosen.gauss(200, 70), 0)
    metrics = {"cpu_utilization": chosen.uniform(0.5, 1.5), "throughput": throughput}
    return wire.encode([key, "UveDevice", metrics])
