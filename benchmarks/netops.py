"""The simulated network: how fast it is drawn, and how fast a day of it reaches a collector."""

from __future__ import annotations

import random
import time

from benchmarks.load import Scale
from benchmarks.processes import Collector, running_collector
from benchmarks.report import Report, at_least, at_most
from collectord.client import QueryClient
from collectord.netops.collector import CollectorTarget
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations
from collectord.netops.run import Run

ALGORITHMS = "AggProxySum:AggProxySumAnomalyEWM01"


def run(report: Report, scale: Scale) -> None:
    configuration = Configuration.model_validate(
        {
            "deployment": {
                "num_companies": 3,
                "num_sites_per_company": 5,
                "num_devices_per_site": scale.devices_per_site,
            }
        }
    )
    _draw(report, scale, configuration)
    _day(report, scale, configuration)


def _draw(report: Report, scale: Scale, configuration: Configuration) -> None:
    [simulation] = simulations(configuration)
    rates: list[float] = []
    plain: list[float] = []
    for _ in range(scale.rounds):
        chunks = simulation.chunks(0, configuration.interval)
        start, values = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < scale.seconds / 2:
            values += sum(array.size for array in next(chunks).values.values())
        rates.append(values / took)
        plain.append(_drawn_one_by_one(configuration, scale.seconds / 2))
    report.add("netops", "drawing values, one core", "values/s", rates, at_least(2e6))
    report.add("netops", "the same one by one in plain Python", "values/s", plain)
    report.ratio("netops", "numpy to plain Python", rates, plain)


def _drawn_one_by_one(configuration: Configuration, seconds: float) -> float:
    """Values a second, without failures or alerts."""
    metrics = [metric.metric for metric in configuration.metrics.values()]
    start, values = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds:
        for metric in metrics:
            value = random.gauss(metric.mu, metric.sigma) + random.gauss(0, metric.noise)
            values += metric.min <= max(metric.min, min(metric.max, value))
    return values / took


def _day(report: Report, scale: Scale, configuration: Configuration) -> None:
    [simulation] = simulations(configuration)
    proxied = " ".join(f"{metric}:{ALGORITHMS}" for metric in simulation.proxied)
    with running_collector(f"--DEFAULT.uve_proxy_list={proxied}") as collector:
        target = CollectorTarget(
            collector.ingest, batch_records=configuration.max_samples_per_batch
        )
        primed = Run(configuration, target, history=scale.history, duration=0)
        start = time.perf_counter()
        primed.start()
        primed.join()
        took = time.perf_counter() - start
        progress = primed.progress()
        if progress.error:
            raise AssertionError(progress.error)
        values = round(scale.history / configuration.interval) * len(simulation.emitters)
        values *= len(simulation.metrics)
        _all_arrived(collector, values * len(simulation.proxied) // len(simulation.metrics))
    what = "history into a collector, nothing lost"
    report.add("netops", what, "s", [took], at_most(120))
    report.add("netops", f"{what}: values", "values/s", [values / took])
    report.add("netops", f"{what}: each of them told of device, site, company", "values", [values])


def _all_arrived(collector: Collector, samples: int) -> None:
    """Raises AssertionError where the collector did not take just so many samples in time."""
    with QueryClient(collector.query) as client:
        counters = client.status()["counters"]
    bad = {
        name: count
        for name, count in counters.items()
        if count and ("rejected" in name or "late" in name or "malformed" in name)
    }
    if counters["samples"] != samples or bad:
        raise AssertionError(f"{samples} samples were sent; {counters['samples']} came, {bad}")
