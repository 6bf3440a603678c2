"""Bytes for a record and for a series, as the engine counts them and as the process grows.

Each engine grows in a process of its own: first it is given a struct for every key, which brings
the keys; then another, and what it grows by then is counted. Without a metric that is a record with
two integers; with both attributes proxied it is two series more.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import load
from benchmarks.report import Report, at_most
from collectord.engine import Engine

NOW = 1_700_000_000_000_000
OTHER_STRUCT = "UveVirtualNetworkConfig"
Metrics = Mapping[str, Sequence[tuple[str, int, str, str, float]]]


def run(report: Report, scale: load.Scale) -> None:
    keys = scale.series // load.SAMPLES
    sums_alone = {
        name: [row for row in rows if row[3] == ""] for name, rows in load.METRICS.items()
    }
    ewm_alone = {name: [row for row in rows if row[3]] for name, rows in load.METRICS.items()}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        grown = processes.starmap(
            growth,
            [(keys, {}), (keys, ewm_alone), (keys, load.METRICS), (keys, sums_alone)],
            chunksize=1,
        )
    records, *others = [[size / keys for size in sizes] for sizes in grown]
    for at, by in enumerate(("as counted", "of the process")):
        report.add(
            "memory", f"record with two integers, {by}", "bytes", [records[at]], at_most(150)
        )
        for what, others_sizes in zip(
            ("with its detector", "with its detector and a sum", "with a sum"), others, strict=True
        ):
            each = (others_sizes[at] - records[at]) / load.SAMPLES
            goal = at_most(250) if "detector" in what else None
            report.add("memory", f"series {what}, {by}", "bytes", [each], goal)


def growth(keys: int, metrics: Metrics) -> tuple[int, int]:
    """Bytes that an engine, and its process, grow by with a second struct of every key."""
    # All made beforehand and kept: memory that Python gave back would hide what the engine takes.
    before = load.batches(load.bodies(keys, seed=1, struct=OTHER_STRUCT))
    batches = load.batches(load.bodies(keys, seed=2))
    engine = Engine(metrics=metrics)
    for batch in before:
        engine.apply(batch, NOW)
    counted, resident = engine.sizes()["bytes"], resident_bytes()
    for batch in batches:
        engine.apply(batch, NOW)
    return engine.sizes()["bytes"] - counted, resident_bytes() - resident


def resident_bytes() -> int:
    """What the process has in memory; where the system doesn't tell, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * resource.getpagesize()
