"""``apply`` in process, on one core, and plain Python beside it: samples merged and summed.

Keys are made in one random order. Updates come in that same order, as from a source that always
walks its objects alike, or in another, so that a batch finds nothing in memory where the one before
left off. Closing periods is measured by ``close.py``; here the clock stands within one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from benchmarks import load, reference
from benchmarks.report import Goal, Report, at_least
from collectord.engine import Engine

NOW = 1_700_000_000_000_000
WHILE_ENGINE = 0.3
"""Seconds that the engine's part of a round lasts at least, in whole passes over the keys."""


def run(report: Report, scale: load.Scale) -> None:
    reference.check()
    measure(report, scale.keys, scale.rounds, at_least(8e6))
    measure(report, scale.many_keys, scale.few_rounds, at_least(5e6))


def measure(report: Report, keys: int, rounds: int, goal: Goal) -> None:
    made = load.batches(load.bodies(keys, seed=1))
    shuffled = load.batches(load.bodies(keys, seed=2))
    engine, plain = Engine(metrics=load.METRICS), reference.Reference()

    def apply_plainly(batches: list[bytes]) -> None:
        for batch in batches:
            plain.apply(batch, NOW)

    engine.apply_many(made, NOW)
    apply_plainly(made)
    in_order, in_disorder, plainly = [], [], []
    samples = keys * load.SAMPLES
    gc.collect()
    gc.disable()  # the reference would pay for it
    try:
        for _ in range(rounds):
            in_order.append(rate(lambda: engine.apply_many(made, NOW), samples, WHILE_ENGINE))
            in_disorder.append(
                rate(lambda: engine.apply_many(shuffled, NOW), samples, WHILE_ENGINE)
            )
            plainly.append(rate(lambda: apply_plainly(shuffled), samples))
    finally:
        gc.enable()
    size = f"{keys:,} keys"
    report.add("apply", f"engine, {size} in one order", "samples/s", in_order, goal)
    report.add("apply", f"engine, {size} in another order", "samples/s", in_disorder, goal)
    report.add("apply", f"plain Python, {size} in another order", "samples/s", plainly)
    report.ratio("apply", f"engine to plain Python, {size}", in_disorder, plainly)


def rate(work: Callable[[], object], samples: int, seconds: float = 0.0) -> float:
    """Samples a second, over as many whole passes as ``seconds`` take, and at least one."""
    passes = 0
    start = time.perf_counter()
    while not passes or time.perf_counter() - start < seconds:
        work()
        passes += 1
    return passes * samples / (time.perf_counter() - start)
