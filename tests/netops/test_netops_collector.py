"""A collector as the target of a simulation."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from collectord.netops import collector as collector_target
from collectord.netops.block import Block, Stream
from collectord.netops.collector import CollectorTarget
from collectord.netops.configuration import Configuration
from collectord.netops.devices import DeviceSimulation
from collectord.netops.run import Run
from collectord.netops.target import TargetClosed, TargetError
from daemon import HISTORY, Daemon, until

NOWHERE = "tcp://127.0.0.1:1"
METRICS = " ".join(
    f"{struct}-throughput:AggProxySum:AggProxyCount"
    for struct in ("UveDevice", "UveSite", "UveCompany")
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(
        f"--DEFAULT.uve_proxy_list={METRICS}", "--DEFAULT.uve_proxy_lateness=300"
    ) as running:
        yield running


@pytest.fixture
def target(daemon: Daemon) -> Iterator[CollectorTarget]:
    made = CollectorTarget(daemon.ingest)
    yield made
    made.close()


def simulation(seed: int, **deployment: int) -> DeviceSimulation:
    """Devices whose names no other test has."""
    sizes = {"num_companies": 1, "num_sites_per_company": 2, "num_devices_per_site": 3}
    return DeviceSimulation(
        Configuration.model_validate({"seed": seed, "deployment": {**sizes, **deployment}})
    )


def site_of(devices: DeviceSimulation, number: int = 0) -> str:
    return f"ObjectSite:{devices.emitters[0].labels['company']}/{number}"


def taken(devices: DeviceSimulation, steps: int) -> Block:
    return Stream(devices, HISTORY, 1.0).take(steps)


def test_a_site_is_the_sum_over_its_devices_as_sources(
    daemon: Daemon, target: CollectorTarget
) -> None:
    devices = simulation(1)
    block = taken(devices, 60)

    target.send(devices, block)
    target.flush()

    uve = daemon.uve(site_of(devices))
    last = block.values["throughput"][:3, -1]
    assert uve["UveSite"]["throughput"] == pytest.approx(last.sum())
    assert uve["UveSite"]["devices"] == 3
    minute = uve["AggProxySum-UveSite-throughput"]["value"]["staging"]
    assert minute == pytest.approx(block.values["throughput"][:3].sum())
    assert uve["AggProxyCount-UveSite-throughput"]["value"]["staging"] == 3 * 60
    sources = daemon.uve(site_of(devices), by_source=True)["UveSite"]["throughput"]
    assert set(sources) == {emitter.source for emitter in devices.emitters[:3]}


def test_a_device_tells_what_it_is_and_whether_it_fails(
    daemon: Daemon, target: CollectorTarget
) -> None:
    devices = simulation(2)
    block = taken(devices, 1)

    target.send(devices, block)
    target.flush()

    emitter = devices.emitters[4]
    told = daemon.uve(f"ObjectDevice:{emitter.id}")["UveDevice"]
    assert told["is_error"] == {"cpu_utilization": False, "throughput": False}
    assert told["labels"]["throughput"] == {
        "ver": 1,
        "unit": "mbyte_sec",
        "target_type": "gauge",
    }
    assert told["site"] == emitter.labels["site"]
    assert told["cpu_utilization"] == block.values["cpu_utilization"][4, 0]


def test_blocks_of_the_ring_s_length_come_in_time_whoever_is_first(
    daemon: Daemon, target: CollectorTarget
) -> None:
    devices = simulation(3)
    stream = Stream(devices, HISTORY + 59_000_000, 1.0)  # at the end of a period: the worst place
    before = daemon.ask("status")["counters"]

    for _ in range(5):
        block = stream.take(int(target.block_seconds))
        target.flush()
        target.send(devices, block)
    target.flush()

    counters = daemon.ask("status")["counters"]
    told = 5 * 420 * 6 * 3
    assert counters["samples_late"] == before["samples_late"]
    assert counters["samples"] - before["samples"] == told
    count = daemon.uve(site_of(devices))["AggProxyCount-UveSite-throughput"]["value"]["value"]
    assert count == 60 * 3
    assert target.counts()["rejected"] == 0


def test_it_tells_everything_again_to_a_collector_that_has_lost_all(daemon: Daemon) -> None:
    devices = simulation(4)
    with Daemon() as first:
        target = CollectorTarget(first.ingest)
        target.send(devices, taken(devices, 1))
        target.flush()
        first.kill()
    port = first.ingest.rsplit(":", 1)[-1]
    with Daemon(f"--COLLECTOR.port={port}") as second:
        target.send(devices, taken(devices, 2).part(1, 2))
        target.flush()

        until(lambda: (second.uve(site_of(devices)) or {}).get("UveSite", {}).get("devices") == 3)
        target.close()


def test_it_describes_itself_again_even_where_its_buffers_are_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_target, "BUFFER_BYTES", 1)
    monkeypatch.setattr(collector_target, "LEAST_BUFFER", 40_000)
    devices = simulation(12)
    stream = Stream(devices, HISTORY, 1.0)
    with Daemon("--SNAPSHOT.directory=") as first:
        target = CollectorTarget(first.ingest)
        for _ in range(3):
            target.send(devices, stream.take(60))
            target.flush()
        assert target.counts()["unprotected"] > 0
        first.kill()
    sender = threading.Thread(target=target.send, args=(devices, stream.take(400)))
    sender.start()
    port = first.ingest.rsplit(":", 1)[-1]
    with Daemon("--SNAPSHOT.directory=", f"--COLLECTOR.port={port}") as second:
        sender.join(60)
        assert not sender.is_alive()
        target.send(devices, stream.take(1))
        target.flush()

        assert second.uve(site_of(devices))["UveSite"]["devices"] == 3
        target.close()


def test_a_collector_that_takes_no_more_sources_is_said_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_target, "PATIENCE", 0.1)
    devices = simulation(13)
    with Daemon("--LIMITS.sources=2", "--SNAPSHOT.directory=") as daemon:
        target = CollectorTarget(daemon.ingest, timeout=1.0)
        target.send(devices, taken(devices, 1))

        with pytest.raises(TargetError, match="it is overloaded, or at one of its limits"):
            target.flush()

        target.close()


def test_what_is_refused_is_counted_and_the_first_of_it_kept(
    daemon: Daemon, target: CollectorTarget
) -> None:
    devices = simulation(5)
    block = taken(devices, 2)
    block.values["throughput"][0, 1] = np.inf

    target.send(devices, block)
    target.flush()

    assert target.counts()["rejected"] == 3  # of the device, its site and its company
    assert target.rejection is not None
    assert target.rejection.code == "bad_value"


@pytest.mark.parametrize("waits", ["flush", "send"])
def test_who_waits_is_told_when_it_is_closed(waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_target, "BUFFER_BYTES", 1)
    monkeypatch.setattr(collector_target, "LEAST_BUFFER", 1 if waits == "send" else 1 << 20)
    devices = simulation(6)
    target = CollectorTarget(NOWHERE)
    ended: list[Exception] = []
    began = threading.Event()

    def wait() -> None:
        try:
            if waits == "flush":
                target.send(devices, taken(devices, 1))
                began.set()
                target.flush()
            began.set()
            target.send(devices, taken(devices, 500))
        except TargetClosed as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert began.wait(10)
    until(lambda: target.counts())
    target.close()
    thread.join(10)

    assert len(ended) == 1
    with pytest.raises(TargetClosed):
        target.send(simulation(7), taken(simulation(7), 1))


def test_it_can_be_closed_by_several_threads_and_again(daemon: Daemon) -> None:
    devices = simulation(11)
    target = CollectorTarget(daemon.ingest)
    target.send(devices, taken(devices, 1))
    threads = [threading.Thread(target=target.close) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert not any(thread.is_alive() for thread in threads)
    target.close()


def test_a_collector_that_does_not_come_is_not_waited_for_beyond_the_timeout() -> None:
    devices = simulation(10)
    target = CollectorTarget(NOWHERE, timeout=0.1)
    target.send(devices, taken(devices, 1))

    with pytest.raises(TargetError, match=r"were not acknowledged by tcp://127\.0\.0\.1:1"):
        target.flush()

    target.close()


def test_too_many_sources_for_the_system_are_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_target, "allow_descriptors", lambda: 20)
    devices = simulation(8)
    target = CollectorTarget(NOWHERE)

    with pytest.raises(TargetError, match=r"6 sources need .*the system allows 20: raise `ulimit"):
        target.send(devices, taken(devices, 1))

    target.close()


def test_an_address_that_can_t_be_is_refused() -> None:
    for address in ("nowhere", "tcp://nowhere", "tcp://host:0", "ipc:///tmp/x", "tcp://a b:1"):
        with pytest.raises(ValueError, match="is not tcp://<host>:<port>"):
            CollectorTarget(address)


def test_a_day_of_a_hundred_and_fifty_devices_arrives_whole() -> None:
    configuration = Configuration.model_validate(
        {
            "deployment": {
                "num_companies": 3,
                "num_sites_per_company": 5,
                "num_devices_per_site": 10,
            }
        }
    )
    structs = ("UveDevice", "UveSite", "UveCompany")
    proxied = " ".join(
        f"{struct}-{metric}:AggProxyCount" for struct in structs for metric in configuration.metrics
    )
    with Daemon(f"--DEFAULT.uve_proxy_list={proxied}", "--SNAPSHOT.directory=") as daemon:
        target = CollectorTarget(daemon.ingest)
        primed = Run(configuration, target, history=86_400, duration=0)
        primed.start()
        assert primed.join(900)

        assert primed.progress().error == ""
        assert primed.progress().values == 150 * 86_400 * 2 == 25_920_000
        counters = daemon.ask("status")["counters"]
        assert counters["samples"] == 25_920_000 * len(structs)
        assert counters["records"] == target.counts()["published"]
        assert not {
            name: count
            for name, count in counters.items()
            if count and (name == "samples_late" or name.startswith(("rejected_", "batches_m")))
        }
        company = DeviceSimulation(configuration).emitters[0].labels["company"]
        count = daemon.uve(f"ObjectCompany:{company}")["AggProxyCount-UveCompany-throughput"]
        assert count["value"]["value"] == 50 * 60
