"""Alarms: how fast the example rules are evaluated, what they cost ingest, and how soon they ring.

The rules are those of ``conf/alarms.json``, the UVEs those of ``uves.py``.

- **Evaluation**: each rule on each UVE of its table, on one core; a pair counts once. With views
  that were read and merged before, and with reading and merging them, which is what it takes.
- **A pass**: ``Alarms`` evaluates all UVEs anew, as a collector does at its start and where it is
  given other rules. It leaves half of the time to others.
- **Cost on ingest**: two collectors, one with the rules and one without, are sent batches in turns;
  the one whose turn it isn't is stopped (SIGSTOP). The first load tells what is known already,
  again and again. In the second every record changes something that rules look at.
- **How soon**: from the sending of a change to the alarm, or its end, in the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import zmq

from benchmarks import load
from benchmarks.close import timed
from benchmarks.processes import ROOT, Collector, running_collector
from benchmarks.report import Report, at_least, at_most
from benchmarks.transport import Sender, full_load
from benchmarks.uves import KINDS, PROXY_LIST, changing, populated
from collectord import wire
from collectord.alarms import rules
from collectord.alarms.alarms import Alarms
from collectord.alarms.evaluation import CompiledRule, compile_rule
from collectord.client import QueryClient
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.reader import Reader
from collectord.views import Filters, View

RULES = ROOT / "conf" / "alarms.json"
PROXIED = (f"--DEFAULT.uve_proxy_list={PROXY_LIST}",)
WITH_ALARMS = (f"--ALARM.rules_file={RULES}", "--ALARM.log=false")
"""Notifiers are not measured here: what they are told of waits in their own queues."""


def run(report: Report, scale: load.Scale) -> None:
    compiled = [compile_rule(rule) for rule in rules.read(RULES) if rule.enabled]
    engine = populated(scale.keys)
    measure_evaluation(report, scale, engine, compiled)
    measure_pass(report, scale, engine, compiled)
    measure_ingest(report, scale)
    with tempfile.TemporaryDirectory(prefix="collectord-benchmark-") as directory:
        measure_delay(report, scale, Path(directory))


# ---- evaluation ----------------------------------------------------------------------------------


class Group(NamedTuple):
    """The rules of a table, and how a view for them is asked for."""

    rules: Sequence[CompiledRule]
    filters: Filters


def by_table(compiled: Sequence[CompiledRule]) -> Mapping[str, Group]:
    """For every table of ``KINDS``; all rules are for whole tables."""
    groups = {}
    for _, prefix, _, _ in KINDS:
        meant = [rule for rule in compiled if rule.wants(prefix)]
        structs = {struct for rule in meant for struct in rule.structs or ()}
        groups[table(prefix)] = Group(
            meant, Filters(cfilt={struct: frozenset() for struct in structs})
        )
    return groups


def table(key: str) -> str:
    return key.partition(":")[0]


def view_of(reader: Reader, group: Group, key: str) -> View:
    view = reader.view(key, group.filters)
    if view is None:
        raise AssertionError(f"{key} is not there")
    return view


def measure_evaluation(
    report: Report, scale: load.Scale, engine: Engine, compiled: Sequence[CompiledRule]
) -> None:
    """Of every tenth UVE."""
    reader, groups = Reader(engine), by_table(compiled)
    keys = [(key, groups[table(key)]) for key in engine.keys(limit=scale.keys)[::10]]
    views = [(view_of(reader, group, key), group.rules) for key, group in keys]
    pairs = sum(len(meant) for _, meant in views)
    held = sum(rule.holds(view) is not None for view, meant in views for rule in meant)
    if not 0 < held < pairs / 50:
        raise AssertionError(f"{held} of {pairs} evaluations held; a few should")

    def evaluate() -> None:
        for view, meant in views:
            for rule in meant:
                rule.holds(view)

    def read_and_evaluate() -> None:
        for key, group in keys:
            view = view_of(reader, group, key)
            for rule in group.rules:
                rule.holds(view)

    rates, with_reading = [], []
    for _ in range(scale.rounds):
        rates.append(pairs / timed(evaluate))
        with_reading.append(pairs / timed(read_and_evaluate))
    reader.close()
    what = f"{len(compiled)} example rules evaluated, one core"
    report.add("alarms", what, "evaluations/s", rates, at_least(5e4))
    report.add("alarms", f"{what}, UVEs read, too", "evaluations/s", with_reading, at_least(5e4))


def measure_pass(
    report: Report, scale: load.Scale, engine: Engine, compiled: Sequence[CompiledRule]
) -> None:
    groups = by_table(compiled)
    pairs = sum(len(groups[table(key)].rules) for key in engine.keys(limit=scale.keys))
    seconds = []
    for _ in range(scale.few_rounds):
        alarms = Alarms(engine, [rule.rule for rule in compiled], clock=Clock(), limit=scale.keys)
        seconds.append(asyncio.run(one_pass(alarms, pairs)))
    what = f"a pass over {scale.keys:,} UVEs, {len(compiled)} rules"
    report.add("alarms", what, "s", seconds)
    report.add("alarms", f"{what}: evaluations", "evaluations", [pairs])
    report.add("alarms", f"{what}: raised or soaking", "alarms", [alarms.registry.held])


async def one_pass(alarms: Alarms, pairs: int) -> float:
    """Seconds until all is evaluated."""

    def evaluated() -> int:
        return alarms.counters["alarm_evaluations"]

    start = time.perf_counter()
    serving = asyncio.create_task(alarms.serve())
    while (evaluated() < pairs or alarms.status()["waiting"]) and not serving.done():
        await asyncio.sleep(0.01)
    took = time.perf_counter() - start
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await alarms.finish()
    # Where a timer runs out meanwhile a few are evaluated once more.
    if not pairs <= evaluated() < 1.01 * pairs:
        raise AssertionError(f"{evaluated()} evaluations, not {pairs}")
    return took


# ---- cost on ingest ------------------------------------------------------------------------------


def measure_ingest(report: Report, scale: load.Scale) -> None:
    known = [(load.SOURCE, load.bodies(scale.keys, seed=1))]
    cost_on_ingest(report, scale, "what is known already", known)
    cost_on_ingest(report, scale, "every value changes", changing(scale.keys))


Told = Sequence[tuple[str, list[bytes]]]
"""Sources, and the bodies of batches that they tell in turns."""


@contextlib.contextmanager
def senders_to(collector: Collector, told: Told) -> Iterator[Mapping[str, Sender]]:
    """Each source of these."""
    with contextlib.ExitStack() as undo:
        sources = dict.fromkeys(source for source, _ in told)
        yield {source: undo.enter_context(Sender(collector.ingest, source)) for source in sources}


class Turn:
    """A collector, which stands still while it isn't its turn, and those who send to it.

    It has been told everything once, and has evaluated it.
    """

    def __init__(self, collector: Collector, told: Told, undo: contextlib.ExitStack) -> None:
        self.rates: list[float] = []
        senders = undo.enter_context(senders_to(collector, told))
        self._process = collector.process
        self._told = [(senders[source], bodies) for source, bodies in told]
        for sender, bodies in self._told:
            sender.send_batches(bodies, 1)
        await_evaluation(collector)
        self.evaluations_before = evaluations(collector)
        undo.callback(self._process.send_signal, signal.SIGCONT)
        self._process.send_signal(signal.SIGSTOP)

    def take(self, seconds: float) -> None:
        """Send for so long, over as many whole passes as the time takes."""
        self._process.send_signal(signal.SIGCONT)
        applied, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for sender, bodies in self._told:
                applied += sender.send_batches(bodies, 1)
        self.rates.append(applied * load.SAMPLES / (time.perf_counter() - start))
        self._process.send_signal(signal.SIGSTOP)


def cost_on_ingest(report: Report, scale: load.Scale, load_name: str, told: Told) -> None:
    with contextlib.ExitStack() as undo:
        collectors = [
            undo.enter_context(running_collector(*PROXIED, *options))
            for options in (WITH_ALARMS, ())
        ]
        with contextlib.ExitStack() as moving_again:
            on, off = (Turn(collector, told, moving_again) for collector in collectors)
            turns = [on, off]
            for _ in range(2 * scale.rounds):
                for turn in turns:
                    turn.take(scale.seconds / 2)
                turns.reverse()
        evaluated = evaluations(collectors[0]) - on.evaluations_before
        with QueryClient(collectors[0].query) as client:
            lag = client.status()["alarms"]["lag"]
    cost = [(1 - a / b) * 100 for a, b in zip(on.rates, off.rates, strict=True)]
    what = f"ingest, {load_name}"
    report.add("alarms", f"{what}: with alarms", "samples/s", on.rates)
    report.add("alarms", f"{what}: without", "samples/s", off.rates)
    report.add("alarms", f"{what}: cost of alarms", "%", cost, at_most(5))
    report.add("alarms", f"{what}: evaluations meanwhile", "evaluations", [evaluated])
    report.add("alarms", f"{what}: how long UVEs wait at the end", "s", [lag])


def await_evaluation(collector: Collector) -> None:
    """Wait until no UVE waits for evaluation any more, if the collector has rules."""
    with QueryClient(collector.query) as client:
        while (client.status()["alarms"] or {}).get("waiting"):
            time.sleep(0.05)


def evaluations(collector: Collector) -> int:
    """How many there were; 0 without rules."""
    with QueryClient(collector.query) as client:
        return int(client.status()["counters"].get("alarm_evaluations", 0))


# ---- how soon ------------------------------------------------------------------------------------

PROBE = {
    "name": "benchmark-probe",
    "uve_keys": ["ObjectProbe"],
    "severity": 2,
    "alarm_rules": {
        "or_list": [
            {
                "and_list": [
                    {
                        "operation": ">=",
                        "operand1": "Probe.level",
                        "operand2": {"json_value": "1"},
                    }
                ]
            }
        ]
    },
}
"""Raised and cleared at once, beside the example rules."""
PROBED = "ObjectProbe:1"
PATIENCE = 60_000
"""Milliseconds to an alarm."""
CHANGES = 5_000
"""UVEs that change in a second, in a network that lives."""


class Probe:
    """Changes one UVE, and waits for what becomes of it. Use it in a ``with`` statement."""

    def __init__(self, collector: Collector) -> None:
        self._context = zmq.Context()
        self._source = self._context.socket(zmq.DEALER)
        self._source.connect(collector.ingest)
        self._stream = self._context.socket(zmq.SUB)
        self._stream.setsockopt(zmq.RCVTIMEO, PATIENCE)
        self._level = 0
        with QueryClient(collector.query) as client:
            before = client.status()["counters"]["subscriptions"]
            self._stream.subscribe(f"alarm:{PROBED}")
            self._stream.connect(collector.stream)
            while client.status()["counters"]["subscriptions"] == before:
                time.sleep(0.01)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def delays(self, count: int) -> list[float]:
        """Milliseconds from so many changes to their alarm or its end, sorted."""
        chosen = random.Random(count)
        taken = []
        for _ in range(count):
            time.sleep(chosen.uniform(0, 0.1))  # no beat with the collector's own
            start = time.perf_counter()
            self._level = 1 - self._level
            record = wire.encode([PROBED, "Probe", {"level": self._level}])
            self._source.send(load.batch(record, 1, source="probe"))
            _, body = self._stream.recv_multipart()
            taken.append((time.perf_counter() - start) * 1e3)
            if ("value" in wire.decode(body)) != bool(self._level):
                raise AssertionError(f"level {self._level} came to {wire.decode(body)}")
        return sorted(taken)


def measure_delay(report: Report, scale: load.Scale, directory: Path) -> None:
    file = directory / "alarms.json"
    file.write_text(json.dumps([*json.loads(RULES.read_text()), PROBE]))
    options = (*PROXIED, f"--ALARM.rules_file={file}", "--ALARM.log=false")
    with running_collector(*options) as collector, Probe(collector) as probe:
        add_delays(report, scale, probe, "idle")
        with changing_load(collector, scale.keys):
            add_delays(report, scale, probe, f"{CHANGES:,} UVEs change a second")
        with full_load(collector, scale.keys) as ingested:
            add_delays(report, scale, probe, "ingest at full speed")
    report.add("alarms", "ingest at that time", "samples/s", ingested)


def add_delays(report: Report, scale: load.Scale, probe: Probe, when: str) -> None:
    probe.delays(2)
    rounds = [probe.delays(scale.alarms) for _ in range(scale.few_rounds)]
    for percent in (50, 99):
        values = [taken[len(taken) * percent // 100] for taken in rounds]
        what = f"from a change to its alarm, {when}: p{percent}"
        report.add("alarms", what, "ms", values, at_most(200))


@contextlib.contextmanager
def changing_load(collector: Collector, keys: int) -> Iterator[None]:
    """A thread sends ``CHANGES`` records a second, each of which changes what rules look at."""
    stop = threading.Event()
    told = changing(keys)
    bodies = [(source, body) for source, bodies in told for body in bodies]

    def send() -> None:
        with senders_to(collector, told) as senders:
            begun, sent = time.perf_counter(), 0
            for source, body in itertools.cycle(bodies):
                if stop.wait(max(begun + sent / CHANGES - time.perf_counter(), 0)):
                    return
                senders[source].send_batches([body], 1)
                sent += load.BATCH

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
