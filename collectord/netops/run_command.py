"""``collectord-netops run``: what it means, how it goes, and what became of all that was sent."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import zmq
from rich.console import Console
from rich.text import Text

from collectord import terminal
from collectord.client import INGEST_ADDRESS, QUERY_ADDRESS, Curve, QueryClient, QueryError, Timeout
from collectord.connection import reach
from collectord.ctl_common import (
    INTERRUPTED,
    NOTHING,
    OK,
    Output,
    UsageError,
    complain,
    curve,
    made,
)
from collectord.netops.collector import CollectorTarget
from collectord.netops.command_common import PROGRAM, configured, log_to
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations, uve_proxy_list
from collectord.netops.progress import follow
from collectord.netops.run import Run
from collectord.netops.target import Target
from collectord.netops.targets import (
    ResponseTarget,
    UnknownTarget,
    functions_of,
    make_target,
    resolved,
    shown,
)

PLACES_SHOWN = 12


def run(options: argparse.Namespace) -> int:
    """``collectord-netops run``."""
    configuration = configured(options)
    keys = curve(options)
    try:
        meant = resolved(configuration.target, functions_of(options.collector))
        batch = configuration.max_samples_per_batch
        target = make_target(meant, functions={}, batch=batch, curve=keys)
    except UnknownTarget as error:
        raise UsageError(str(error)) from error
    if options.check:
        target.close()
        check(configuration, shown(meant), options)
        return OK
    console = Console(stderr=True)
    late = _Late(target, options, keys)
    with contextlib.closing(target):
        if isinstance(target, CollectorTarget):
            reach(zmq.DEALER, target.address, keys, options.timeout)
        running = made(
            Run,
            configuration=configuration,
            target=target,
            history=options.history,
            speed=options.speed,
            duration=options.duration,
        )
        late.begin(configuration)
        log_to(console)
        progress = follow(running, console)
    counts = _counts(target) | late.counts()
    if not isinstance(target, ResponseTarget):
        told = {"values": progress.values, **counts}
        Output(options).one(told, terminal.sent, told)
    elif not progress.error:
        Output(options).one(target.emitters, lambda: Text(f"{len(target.emitters)} emitters"))
    if progress.error or any(counts.get(name) for name in ("rejected", "forgotten", "late")):
        return NOTHING
    return OK if progress.history_done == progress.history_steps else INTERRUPTED


def _counts(target: Target) -> dict[str, int]:
    counts = target.counts()
    if not isinstance(target, CollectorTarget):
        return dict(counts)
    if target.rejection:
        first = target.rejection
        complain(f"first rejected: {first.code}: {first.message}", PROGRAM)
    if counts["returns"] or counts["restarts"]:
        complain(
            "the collector was restarted meanwhile: of what it got again, history that several "
            "sources tell of may have come too late for it",
            PROGRAM,
        )
    return {
        "sent": counts["published"],
        "applied": counts["acknowledged"] - counts["rejected"],
        "rejected": counts["rejected"],
        "forgotten": counts["forgotten"],
    }


class _Late:
    """How many samples came too late for the collector, from whomever: its query socket tells.

    That is the one that ``--query`` names, or the default one of the default collector. Where none
    is known, or none answers, neither is the number.
    """

    def __init__(self, target: Target, options: argparse.Namespace, keys: Curve | None) -> None:
        is_default = isinstance(target, CollectorTarget) and target.address == INGEST_ADDRESS
        self._address = options.query or (QUERY_ADDRESS if is_default else "")
        self._timeout = options.timeout
        self._keys = keys
        self._before: int | None = None

    def begin(self, configuration: Configuration) -> None:
        """Note where it stands, and say what the collector makes no sums of."""
        told = self._asked()
        if told is None:
            return
        self._before, configured = told
        wanted = [one for each in simulations(configuration) for one in each.proxied]
        if missing := [metric for metric in wanted if metric not in configured]:
            complain(
                f"the collector makes no sums of {', '.join(missing)}; run --check prints what "
                "its configuration needs",
                PROGRAM,
            )

    def counts(self) -> dict[str, int]:
        """The number as a count, if it is known."""
        told = None if self._before is None else self._asked()
        # After a restart of the collector it counts from 0.
        return {} if told is None else {"late": told[0] - min(self._before or 0, told[0])}

    def _asked(self) -> tuple[int, Mapping[str, Any]] | None:
        if not self._address:
            return None
        try:
            with made(
                QueryClient, address=self._address, timeout=self._timeout, curve=self._keys
            ) as client:
                late: int = client.status()["counters"]["samples_late"]
                return late, client.menu()["configured"]
        except (Timeout, QueryError) as error:
            complain(f"how many samples come late is not known: {error}", PROGRAM)
            return None


def check(configuration: Configuration, target: str, options: argparse.Namespace) -> None:
    """``run --check``: what the configuration means, and what its collector needs."""
    simulated = simulations(configuration)
    sites: Counter[str] = Counter()
    networks: Counter[str] = Counter()
    for simulation in simulated:
        for emitter in simulation.emitters:
            place, _, _ = emitter.id.rpartition("/")
            (sites if "site" in emitter.labels else networks)[place] += 1
    values = sum(len(simulation.emitters) * len(simulation.metrics) for simulation in simulated)
    meant = {
        "sites": dict(sites),
        "virtual_networks": dict(networks),
        "metrics": [name for simulation in simulated for name in simulation.metrics],
        "interval": configuration.interval,
        "values_per_second": round(values / configuration.interval, 3),
        "target": target,
        "uve_proxy_list": uve_proxy_list(simulated),
    }
    Output(options).one(meant, _meaning, meant)


def _meaning(meant: Mapping[str, Any]) -> Text:
    lines = []
    for name, who in (("sites", "devices"), ("virtual_networks", "vrouters")):
        places = meant[name]
        if places:
            what = name.replace("_", " ")
            lines.append(f"{len(places):,} {what}, {sum(places.values()):,} that report them:")
        lines += [
            f"  {place}, {count:,} {who}" for place, count in [*places.items()][:PLACES_SHOWN]
        ]
        if len(places) > PLACES_SHOWN:
            lines.append(f"  and {len(places) - PLACES_SHOWN:,} more")
    lines += [
        f"metrics: {', '.join(meant['metrics'])}",
        f"every {meant['interval']:g} s, {meant['values_per_second']:,.12g} values/s in all",
        f"target: {meant['target']}",
        "a collector needs in its configuration, under [DEFAULT]:",
        f"uve_proxy_list={meant['uve_proxy_list']}",
    ]
    return Text("\n".join(map(terminal.clean, lines)))
