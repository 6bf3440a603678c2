"""Saving the state: what it costs those who send and ask, and how soon a collector is back.

- **Waits**, in process: a thread saves one partition after another, as a snapshot does, while
  another reads keys, or applies batches of one record. How long each of them takes at most.
- **Cost on ingest**: two collectors with the same series, one that saves every 10 s and one that
  never does, are sent batches in turns; the one whose turn it isn't is stopped (SIGSTOP), so that
  it takes nothing from the other. A turn with snapshots lasts an interval, and it is an error where
  none came about in it.
- **Restart**: the collector is killed when all is durable. Seconds from the start of the new
  process to its answer to a ``get``, with the value that was sent.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import load
from benchmarks.close import longest_wait
from benchmarks.processes import running_collector
from benchmarks.query import Client
from benchmarks.report import Report, at_most
from benchmarks.transport import Sender
from collectord import wire
from collectord.engine import Engine

NOW = 1_700_000_000_000_000
CALM = 0.2
"""Seconds of waiting for nothing, beside which the waits stand."""


def run(report: Report, scale: load.Scale) -> None:
    keys = scale.series // load.SAMPLES
    bodies = load.bodies(keys, seed=1)
    measure_waits(report, scale, keys, bodies)
    with tempfile.TemporaryDirectory(prefix="collectord-benchmark-") as directory:
        measure_ingest(report, scale, bodies, Path(directory))
        measure_restart(report, scale, keys, bodies, Path(directory))


# ---- waits ---------------------------------------------------------------------------------------


def measure_waits(report: Report, scale: load.Scale, keys: int, bodies: list[bytes]) -> None:
    engine = Engine(metrics=load.METRICS)
    engine.apply_many(load.batches(bodies), NOW)
    reads, calm, applies, taken, copied = [], [], [], [], []

    def save() -> None:
        seconds, most = save_all(engine)
        taken.append(seconds * 1e9 / scale.series)
        copied.append(most * 1e3)

    for _ in range(scale.few_rounds):
        reads.append(longest_wait(engine, keys, save) * 1e3)
        applies.append(longest_apply(engine, keys, save) * 1e3)
        calm.append(longest_apply(engine, keys, lambda: time.sleep(CALM)) * 1e3)
    size = f"{scale.series:,} series"
    report.add(
        "snapshot", f"longest wait of a read while {size} are saved", "ms", reads, at_most(5)
    )
    report.add("snapshot", f"longest wait of a batch while {size} are saved", "ms", applies)
    report.add("snapshot", "longest wait of a batch, else idle", "ms", calm)
    report.add("snapshot", "copying out one partition, the longest", "ms", copied)
    report.add("snapshot", f"copying out, {size}", "ns a series", taken)


def save_all(engine: Engine) -> tuple[float, float]:
    """Seconds that a snapshot takes in the engine, and those of the longest partition."""
    start = time.perf_counter()
    if not engine.begin_save():
        raise AssertionError("no snapshot can be made")
    most = 0.0
    for partition in range(engine.partitions):
        before = time.perf_counter()
        engine.save_partition(partition, NOW)
        most = max(most, time.perf_counter() - before)
    engine.save_head(NOW)
    engine.end_save(True)
    return time.perf_counter() - start, most


def longest_apply(engine: Engine, keys: int, work: Callable[[], object]) -> float:
    """Seconds that a batch of one record took at most, while ``work`` was done here."""
    numbers = range(0, keys, max(keys // 1000, 1))
    batches = [
        load.batch(wire.encode([load.key(number), load.STRUCT, {load.ATTRIBUTES[0]: 1}]), 1)
        for number in numbers
    ]
    longest = [0.0]
    applying, done = threading.Event(), threading.Event()

    def apply() -> None:
        while not done.is_set():
            for batch in batches:
                start = time.perf_counter()
                engine.apply(batch, NOW)
                longest[0] = max(longest[0], time.perf_counter() - start)
            applying.set()

    applier = threading.Thread(target=apply)
    applier.start()
    applying.wait()
    longest[0] = 0.0
    work()
    done.set()
    applier.join()
    return longest[0]


# ---- cost on ingest ------------------------------------------------------------------------------


def measure_ingest(report: Report, scale: load.Scale, bodies: list[bytes], directory: Path) -> None:
    """One collector, which is told again and again to save often, and then not to."""
    snapshots, configuration = directory / "ingest", directory / "collector.conf"
    on, off, made = [], [], []
    interval = scale.snapshot_interval

    def save_every(seconds: float) -> None:
        configuration.write_text(f"[SNAPSHOT]\ndirectory={snapshots}\ninterval={seconds:g}\n")

    save_every(interval)
    with (
        running_collector("--conf_file", str(configuration)) as collector,
        Sender(collector.ingest, load.SOURCE) as sender,
    ):
        sender.send_batches(bodies, 1)
        sender.await_durable()
        for _ in range(scale.few_rounds + 1):
            save_every(3600)
            collector.process.send_signal(signal.SIGHUP)
            off.append(rate(sender, bodies, interval / 2))
            save_every(interval)
            collector.process.send_signal(signal.SIGHUP)
            before = newest(snapshots)
            on.append(rate(sender, bodies, interval))
            made.append(newest(snapshots) - before)
            if not made[-1]:
                raise AssertionError("no snapshot was made in time")
    what = f"batches of {load.BATCH:,}, {scale.series:,} series"
    report.add("snapshot", f"{what}: saved every {interval:g} s", "samples/s", on)
    report.add("snapshot", f"{what}: never saved", "samples/s", off)
    cost = [(1 - a / b) * 100 for a, b in zip(on, off, strict=True)]
    report.add("snapshot", f"{what}: cost of saving", "%", cost, at_most(10))
    report.add("snapshot", "snapshots made in that time", "", made)


def rate(sender: Sender, bodies: list[bytes], seconds: float) -> float:
    """Samples a second that were acknowledged, over as many whole passes as the time takes."""
    applied = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        applied += sender.send_batches(bodies, 1)
    return applied * load.SAMPLES / (time.perf_counter() - start)


def snapshot_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("snapshot-*.collectord"))


def newest(directory: Path) -> int:
    """The number of the newest snapshot."""
    return int(snapshot_files(directory)[-1].name.partition("-")[2].partition(".")[0])


# ---- restart -------------------------------------------------------------------------------------


def measure_restart(
    report: Report, scale: load.Scale, keys: int, bodies: list[bytes], directory: Path
) -> None:
    snapshots = directory / "restart"
    options = (f"--SNAPSHOT.directory={snapshots}", "--SNAPSHOT.interval=1")
    with running_collector(*options) as collector, Sender(collector.ingest, load.SOURCE) as sender:
        sender.send_batches(bodies, 1)
        sender.await_durable()
        collector.process.kill()
    on_disk = snapshot_files(snapshots)[-1].stat().st_size
    request = wire.encode({"op": "get", "key": load.key(keys - 1)})
    seconds = []
    for _ in range(scale.few_rounds):
        start = time.perf_counter()
        with running_collector(*options) as collector, Client(collector.query) as client:
            reply = wire.decode(client.ask(request))
            seconds.append(time.perf_counter() - start)
            if load.ATTRIBUTES[0] not in reply.get("uve", {}).get(load.STRUCT, {}):
                raise AssertionError(f"a collector that was killed came back with {reply}")
            collector.process.kill()
    seconds_empty = []
    for _ in range(scale.few_rounds):
        start = time.perf_counter()
        with running_collector() as collector, Client(collector.query) as client:
            client.ask(request)
            seconds_empty.append(time.perf_counter() - start)
    report.add("snapshot", f"restart to serving, {scale.series:,} series", "s", seconds)
    report.add("snapshot", "start to serving, nothing saved", "s", seconds_empty)
    report.add("snapshot", "on disk, for a series", "bytes", [on_disk / scale.series])
