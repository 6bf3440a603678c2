"""Closing a period of every series, with its results in numpy; and what waits for it meanwhile.

Two series for each key, each with ``AggProxySumAnomalyEWM01`` and ``AggProxySum``: one close brings
two results a series. Beside it plain Python does the same, and numpy the bare EWM step over arrays,
which has no windows, no lateness and no keys to look after.

How long a lock is held can't be seen from outside. What is measured is how long a thread that reads
keys waits at most while another thread closes, partition after partition: a lock that is held, the
turn of the thread, the GIL. How long it waits at most while nothing happens stands beside it.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import numpy.typing as npt

from benchmarks import load, reference
from benchmarks.report import Report, at_most
from collectord.engine import Engine

PERIOD = 60_000_000
LATENESS = 5_000_000
START = 1_700_000_040_000_000 + 2 * LATENESS
"""Microseconds; within a period, and after the one before was closed."""
ALPHA = 0.1
CALM = 0.2
"""Seconds of reading while nothing else happens."""
Floats = npt.NDArray[np.float64]


def run(report: Report, scale: load.Scale) -> None:
    keys = scale.series // load.SAMPLES
    batches = load.batches(load.bodies(keys, seed=1))
    engine = Engine(metrics=load.METRICS, lateness=LATENESS, limits={"results": 4 * scale.series})
    plain = reference.Reference()
    periods = count()

    def closing() -> Callable[[], None]:
        """Fill the next period; what closes it."""
        begin = START + next(periods) * PERIOD
        engine.apply_many(batches, begin)

        def close_it() -> None:
            results = close(engine, begin + PERIOD)
            if results != 2 * scale.series:
                raise AssertionError(f"{results} results of {scale.series} series")

        return close_it

    def close_plainly(number: int) -> float:
        begin = START + number * PERIOD
        for batch in batches:
            plain.apply(batch, begin)

        def close() -> None:
            plain.advance(begin + PERIOD)
            plain.take_results()

        return timed(close)

    step = numpy_step(scale.series)
    closing()()  # memory is touched for the first time
    by_engine, by_reference, by_numpy, waits, calm_waits = [], [], [], [], []
    gc.collect()
    gc.disable()  # the reference would pay for it
    try:
        for number in range(scale.few_rounds):
            by_engine.append(timed(closing()))
            by_reference.append(close_plainly(number))
            by_numpy.append(timed(step))
            waits.append(longest_wait(engine, keys, closing()))
            calm_waits.append(longest_wait(engine, keys, lambda: time.sleep(CALM)))
    finally:
        gc.enable()
    size = f"{scale.series:,} series"
    nanoseconds = 1e9 / scale.series
    report.add(
        "close",
        f"engine, results in numpy, {size}",
        "ns a series",
        [seconds * nanoseconds for seconds in by_engine],
        at_most(25),
    )
    report.add(
        "close", f"plain Python, {size}", "ns a series", [s * nanoseconds for s in by_reference]
    )
    report.ratio("close", f"plain Python to engine, {size}", by_reference, by_engine)
    report.add(
        "close",
        f"numpy, the EWM step alone, {size}",
        "ns a series",
        [s * nanoseconds for s in by_numpy],
    )
    report.ratio("close", "engine to numpy's EWM step", by_engine, by_numpy)
    report.add(
        "close",
        "longest wait of a read while all is closed",
        "ms",
        [seconds * 1e3 for seconds in waits],
        at_most(5),
    )
    report.add(
        "close",
        "longest wait of a read, else idle",
        "ms",
        [seconds * 1e3 for seconds in calm_waits],
    )


def close(engine: Engine, now: int) -> int:
    """Close what is due in every partition; the number of results, all of them in numpy arrays."""
    results = 0
    for partition in range(engine.partitions):
        engine.advance(partition, now)
        results += len(engine.take_results(partition))
    return results


def numpy_step(series: int) -> Callable[[], object]:
    """The EWM's step and sigma over arrays, without memory that could be used again."""
    sums = np.random.default_rng(1).uniform(0, 1e6, series)
    mean, variance = np.zeros(series), np.zeros(series)
    off, scratch = np.empty(series), np.empty(series)

    def step() -> Floats:
        np.subtract(sums, mean, out=off)
        np.multiply(off, off, out=off)
        np.multiply(off, ALPHA, out=off)
        np.add(variance, off, out=variance)
        np.multiply(variance, 1 - ALPHA, out=variance)
        np.multiply(mean, 1 - ALPHA, out=mean)
        np.multiply(sums, ALPHA, out=scratch)
        np.add(mean, scratch, out=mean)
        np.sqrt(variance, out=scratch)
        np.subtract(sums, mean, out=off)
        return np.divide(off, scratch)

    step()
    return step


def longest_wait(engine: Engine, keys: int, work: Callable[[], object]) -> float:
    """Seconds that a read took at most, of all that a thread did while ``work`` was done here."""
    names = [load.key(number) for number in range(0, keys, max(keys // 1000, 1))]
    longest = [0.0]
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.is_set():
            for name in names:
                start = time.perf_counter()
                engine.read(name)
                longest[0] = max(longest[0], time.perf_counter() - start)
            reading.set()

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait()
    longest[0] = 0.0
    work()
    done.set()
    reader.join()
    return longest[0]


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
