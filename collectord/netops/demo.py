"""``make demo``: a collector, a network whose failures are known, and what the collector finds.

A day of the network goes in within seconds, then it lives on: a minute in each second, until it
has caught up with the clock. Whatever is shown is asked of the collector; only what really fails is
known from the simulation. Ends with Ctrl-C, or after so many seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import starmap
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from collectord import terminal
from collectord.client import QueryClient, View
from collectord.clock import now
from collectord.ctl_common import OK
from collectord.netops.block import SECOND
from collectord.netops.collector import CollectorTarget
from collectord.netops.command_common import Failure
from collectord.netops.configuration import Configuration
from collectord.netops.local import Addresses, collector
from collectord.netops.marks import MINUTE, Judgement, Mark, Truth
from collectord.netops.network import simulations, uve_proxy_list
from collectord.netops.progress import LOOK_AGAIN, Display, interruptible
from collectord.netops.run import Progress, Run

NETWORK = {
    "seed": 27,
    "interval": 5,
    "error_rate": 0.0006,
    "error_scenarios": [{"cpu_utilization": 0, "throughput": 30, "length": 80}],
    "deployment": {"num_companies": 2, "num_sites_per_company": 2, "num_devices_per_site": 5},
}
HISTORY = 86_400
SPEED = 60.0
LATENESS = 2
"""Seconds for which the collector waits for more samples of a minute."""
THRESHOLD = 2.2
"""Of |sigma|, above which it is an alarm."""
BEHIND = 60 * SECOND
"""The network lives with the clock where it is no further behind."""
STRUCT = "UveSite"
TABLE = "ObjectSite"
SCORE = "AggProxySumAnomalyEWM01"

MINUTES = 60
"""Marks of a timeline."""
BAR = 9
"""Characters of a sigma of 1; it never passes 3 where alpha is 0.1."""
LIMIT = round(THRESHOLD * BAR)
"""Where an alarm begins, in characters."""
MARKS = {
    Mark.HIT: ("█", "bold green"),
    Mark.MISSED: ("▒", "bold yellow"),
    Mark.FALSE_ALARM: ("▲", "bold red"),
    Mark.QUIET: ("·", "dim"),
    Mark.UNKNOWN: (" ", ""),
}
LEGEND = {
    Mark.HIT: "fails, alarm",
    Mark.MISSED: "fails, no alarm",
    Mark.FALSE_ALARM: "false alarm",
    Mark.QUIET: "all is well",
}


def run(options: argparse.Namespace) -> int:
    """``collectord-netops demo``."""
    console = Console(highlight=False)
    configuration = Configuration.model_validate(NETWORK)
    settings = {
        "DEFAULT.uve_proxy_list": uve_proxy_list(simulations(configuration)),
        "DEFAULT.uve_proxy_lateness": str(LATENESS),
    }
    with interruptible() as interrupted, collector(settings) as addresses:
        truth = Truth()
        running = Run(
            configuration,
            CollectorTarget(addresses.ingest),
            history=HISTORY,
            speed=SPEED,
            observer=truth.observe,
        )
        running.start()
        try:
            send_history(console, running, interrupted)
            if not interrupted.is_set():
                show(console, running, truth, addresses, interrupted, options.seconds)
        finally:
            running.stop()
    return OK


def send_history(console: Console, running: Run, interrupted: Event) -> None:
    """Show how the past goes in, and how long it took."""
    began = time.monotonic()
    with Display(console) as display:
        while (progress := running.progress()).state == "priming" and not interrupted.is_set():
            display.show(progress)
            time.sleep(LOOK_AGAIN)
    if progress.error:
        raise Failure(progress.error)
    if not interrupted.is_set():
        took = time.monotonic() - began
        console.print(f"a day of history went in: {progress.values:,} values in {took:.1f} s")


def show(
    console: Console,
    running: Run,
    truth: Truth,
    addresses: Addresses,
    interrupted: Event,
    duration: float | None,
) -> None:
    """Show what the collector makes of it, until that is over."""
    board = Board(truth, running.live_start)
    ask = Text("\n".join(commands(addresses)))
    if not console.is_terminal:
        console.print(ask, soft_wrap=True)
    end = time.monotonic() + (math.inf if duration is None else duration)
    with (
        QueryClient(addresses.query) as client,
        Live(console=console, auto_refresh=False, transient=True) as screen,
    ):
        while time.monotonic() < end and not interrupted.is_set():
            if error := (progress := running.progress()).error:
                raise Failure(error)
            board.look(dict(client.find(TABLE)))
            picture = board.picture(progress)
            screen.update(Group(picture, ask), refresh=console.is_terminal)
            time.sleep(max(min(LOOK_AGAIN, end - time.monotonic()), 0))
    console.print(board.picture(running.progress()))


def commands(addresses: Addresses) -> Iterator[str]:
    """What to type in another terminal."""
    command = Path(sys.executable).with_name("collectorctl")
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    yield "Ctrl-C ends it. Ask the collector yourself, in another terminal:"
    yield f"  {command} find {TABLE} --query {addresses.query}"
    yield f"  {command} watch '{TABLE}:*' --stream {addresses.stream}"


class Board:
    """What the collector said of each site, minute by minute, beside the truth."""

    def __init__(self, truth: Truth, live_start: int) -> None:
        self._truth = truth
        self._views: Mapping[str, View] = {}
        # The minutes before fill the collector's ring when the history ends, and close together.
        since = live_start // MINUTE
        first = (live_start - HISTORY * SECOND) // MINUTE
        self._judgements: defaultdict[str, Judgement] = defaultdict(
            lambda: Judgement(THRESHOLD, first, since)
        )

    def look(self, views: Mapping[str, View]) -> None:
        """Take in the views of all sites, by their keys."""
        self._views = {key.partition(":")[2]: view for key, view in views.items()}
        for site, view in self._views.items():
            self._judgements[site].judge(scores(view))

    def picture(self, progress: Progress) -> RenderableType:
        """All sites, what the marks mean, and how often the collector was right."""
        is_behind = now() - (progress.time or 0) > BEHIND
        pace = "a minute of it each second" if is_behind else "as fast as the clock"
        lines = [
            Text.assemble(
                ("a network and its failures", "bold"),
                f", {terminal.moment(progress.time)}, {pace}",
            ),
            Text(
                f"{row('', 'minute sum', 'mean', 'sigma')}{'alarm':>{LIMIT - 1}} │ > {THRESHOLD}",
                "dim",
            ),
        ]
        for site, view in self._views.items():
            lines += [self._title(site, view), *starmap(scored, scores(view).items())]
            lines.append(self._timeline(site))
        return Group(*lines, legend(), self._tally())

    def _title(self, site: str, view: View) -> Text:
        told = view.get(STRUCT, {})
        failing = told.get("devices_in_error", 0)
        return Text.assemble(
            (f"{site}", "bold"),
            (f"  {told.get('devices', 0)} devices", "dim"),
            (f", {failing} failing" if failing else "", "bold yellow"),
        )

    def _timeline(self, site: str) -> Text:
        """A mark for each minute, up to the last one that was judged."""
        judgement, failing = self._judgements[site], self._truth.failing[site]
        last = max(judgement.alarms, default=0)
        marks = (
            MARKS[judgement.mark(minute, failing)] for minute in range(last - MINUTES + 1, last + 1)
        )
        return Text.assemble(f"{'  last hour':18}", *marks)

    def _tally(self) -> Text:
        tally: Counter[str] = Counter()
        for site, judgement in self._judgements.items():
            tally += judgement.tally(self._truth.failing[site])
        under_way = f", {tally['under way']} under way" if tally["under way"] else ""
        return Text(
            f"failures: {tally['found']} found, {tally['missed']} missed{under_way}; "
            f"false alarms: {tally['false alarms']} in {tally['minutes']:,} minutes of sites"
        )


def scores(view: View) -> dict[str, dict[str, Any]]:
    """The score of each metric of a site's view, as far as there are some."""
    prefix = f"{SCORE}-{STRUCT}-"
    return {
        struct.removeprefix(prefix): value["value"]
        for struct, value in view.items()
        if struct.startswith(prefix) and value.get("value")
    }


def row(name: str, total: str, mean: str, sigma: str) -> str:
    """A line of the table of metrics, up to where the bar begins."""
    return f"  {name:15.15} {total:>11} {mean:>10} {sigma:>6} "


def scored(metric: str, score: Mapping[str, Any]) -> Text:
    """The last whole minute of a metric: its sum, the mean of all so far, how far off it is."""
    sigma = score["sigma"]
    mean = float(score["state"]["mean"])
    length = min(round(abs(sigma) * BAR), 3 * BAR)
    bar = f"{'█' * length:{LIMIT}}" + ("" if length > LIMIT else "│")
    style = "green" if abs(sigma) < 1 else "yellow" if abs(sigma) <= THRESHOLD else "bold red"
    return Text.assemble(
        row(metric, f"{score['metric']:,.0f}", f"{mean:,.0f}", f"{sigma:+.2f}"), (bar, style)
    )


def legend() -> Text:
    """What the marks mean."""
    return Text("   ").join(
        Text.assemble(MARKS[mark], f" {meaning}") for mark, meaning in LEGEND.items()
    )
