"""``make demo``: a collector, a small virtual network that reports to it, and what it makes of it.

A day and more of history goes in first, so that there are scores at once; then the network is
lived on. Every network is told by several vrouters, and now and then one has a flood. Ends with
Ctrl-C, or after ``DEMO_SECONDS``.
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import zmq
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from collectord import terminal
from collectord.client import Publisher, QueryClient

CONFIGURATION = Path(__file__).parent.parent / "conf" / "contrail-collector.conf"
NETWORKS = ("frontend", "backend", "storage")
VROUTERS = tuple(f"compute-{number}" for number in range(1, 5))
STRUCT = "UveVirtualNetworkAgent"
AGGTYPES = {
    STRUCT: {
        "egress_flow_count": "sum",
        "ingress_flow_count": "sum",
        "virtualmachine_list": "union",
    }
}
PERIOD = 60
START = int(time.time())
PERIODS = 2000
"""Periods of history."""
STEP = 5
"""Seconds between two reports of a vrouter."""
FLUSH_PERIODS = 4
"""How far sources run apart: less than the ring of 8 periods, so that nothing comes late."""
START_SECONDS = 20
REFRESH = 0.5


class Network:
    """A virtual network: what its vrouters see of it, at any second."""

    def __init__(self, name: str, number: int) -> None:
        self.key = f"ObjectVNTable:default-domain:demo:{name}"
        self._base = 40 * (number + 1)
        self._random = random.Random(number)

    def report(self, vrouter: int, second: int, flooded: bool) -> dict[str, object]:
        """What one vrouter tells at that second."""
        daily = 1 + 0.3 * math.sin(2 * math.pi * second / 86_400)
        flows = max(self._random.gauss(self._base * daily, 2), 0)
        return {
            "egress_flow_count": round(flows * (4 if flooded else 1)),
            "ingress_flow_count": round(flows * 0.8),
            "virtualmachine_list": [f"vm-{vrouter + 1}{letter}" for letter in "ab"],
        }


def is_flooded(number: int, second: int) -> bool:
    """Half an hour apart, every network has a minute of flood: the first one's just ended when the
    demo starts, the others' begin a minute and three later."""
    since = second // PERIOD - START // PERIOD
    return since % 30 == (29, 1, 3)[number]


def main() -> int:
    """Run the demo; returns the exit code."""
    try:
        seconds = float(os.environ.get("DEMO_SECONDS") or "inf")
    except ValueError:
        raise SystemExit("DEMO_SECONDS is a number of seconds") from None
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        try:
            console.print("starting a collector on free ports …")
            ingest, query, stream = stack.enter_context(collector())
            # One context for all, so that the demo has one ZeroMQ thread.
            context = stack.enter_context(zmq.Context[zmq.Socket[bytes]]())
            publishers = [
                stack.enter_context(
                    Publisher(
                        f"{vrouter}:Compute:contrail-vrouter-agent:0",
                        ingest,
                        aggtypes=AGGTYPES,
                        context=context,
                    )
                )
                for vrouter in VROUTERS
            ]
            networks = [Network(name, number) for number, name in enumerate(NETWORKS)]
            second = send_history(console, publishers, networks)
            client = stack.enter_context(QueryClient(query))
            addresses = f"--query {query}", f"--stream {stream}"
            live(console, client, publishers, networks, second, seconds, addresses)
        except KeyboardInterrupt:
            console.print("stopping")
    return 0


@contextmanager
def collector() -> Iterator[tuple[str, str, str]]:
    """A collector in a process of its own: the addresses of its ingest, query and stream."""
    arguments = ["--conf_file", str(CONFIGURATION)] if CONFIGURATION.exists() else []
    for section in ("COLLECTOR", "QUERY", "STREAM"):
        arguments += [f"--{section}.port", "0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "collectord", *arguments],
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends it in order
        )
        try:
            yield addresses(process, log.fileno())
        finally:
            process.terminate()
            process.wait()


def addresses(process: subprocess.Popen[bytes], log: int) -> tuple[str, str, str]:
    """What a starting collector logs that it listens on."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        said = os.pread(log, 1 << 16, 0).decode("utf-8", "replace")
        found = re.search(r"serves: ingest (\S+), query (\S+), stream (\S+)", said)
        if found:
            return found[1], found[2], found[3]
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the collector did not start:\n{said}")
        time.sleep(0.05)


def send(publishers: list[Publisher], networks: list[Network], second: int, *, timed: bool) -> None:
    """Let every vrouter report every network once."""
    for number, network in enumerate(networks):
        flooded = is_flooded(number, second)
        for vrouter, publisher in enumerate(publishers):
            report = network.report(vrouter, second, flooded)
            publisher.publish(network.key, STRUCT, report, second * 1_000_000 if timed else None)


def send_history(console: Console, publishers: list[Publisher], networks: list[Network]) -> int:
    """Send what was, up to now; returns the second it ends at."""
    end = int(time.time()) // STEP * STEP
    first = (end // PERIOD - PERIODS) * PERIOD
    began = time.monotonic()
    with console.status(f"sending {PERIODS} periods of history from {len(publishers)} vrouters …"):
        for second in range(first, end, STEP):
            if second % (FLUSH_PERIODS * PERIOD) == 0:
                flush(publishers)
            send(publishers, networks, second, timed=True)
        flush(publishers)
    records = (end - first) // STEP * len(publishers) * len(networks)
    took = time.monotonic() - began
    console.print(f"{records:,} records, {PERIODS} minutes of history, sent in {took:.1f} s")
    return end


def flush(publishers: list[Publisher]) -> None:
    """Wait until every vrouter's records are applied."""
    for publisher in publishers:
        publisher.flush(timeout=30)


def live(
    console: Console,
    client: QueryClient,
    publishers: list[Publisher],
    networks: list[Network],
    second: int,
    seconds: float,
    addresses: tuple[str, ...],
) -> None:
    """Report and show, until the time is over."""
    end = time.monotonic() + seconds
    key = networks[0].key
    console.print("ask it yourself, in another terminal:")
    for command in (f"get {key} {addresses[0]}", f"watch '{key}*' {addresses[1]}"):
        console.print(f"  .venv/bin/collectorctl {command}", style="bold", soft_wrap=True)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        while time.monotonic() < end:
            while second <= time.time():
                send(publishers, networks, second, timed=False)
                second += STEP
            screen.update(picture(client, networks), refresh=console.is_terminal)
            time.sleep(max(min(REFRESH, end - time.monotonic()), 0))
        screen.refresh()


def picture(client: QueryClient, networks: list[Network]) -> RenderableType:
    """All networks' scores, and one UVE whole."""
    views = {network.key: client.get(network.key) for network in networks}
    scores = Table("network", "last minute", "this minute", "mean", "stddev", "sigma", expand=True)
    for key, view in views.items():
        metric = f"{STRUCT}-egress_flow_count"
        value = view.get(f"AggProxySumAnomalyEWM01-{metric}", {}).get("value", {})
        sums = view.get(f"AggProxySum-{metric}", {}).get("value", {})
        state = value.get("state", {})
        scores.add_row(
            key.rpartition(":")[2],
            str(sums.get("value", "")),
            str(sums.get("staging", "")),
            state.get("mean", ""),
            state.get("stddev", ""),
            bar(value.get("sigma")),
        )
    closes = 5 + PERIOD - int(time.time()) % PERIOD
    key = networks[0].key
    return Group(
        Panel(scores, title="egress flows of each virtual network, summed over its vrouters"),
        terminal.view(key, views[key]),
        Text(f"this minute's sums become scores in {closes} s; Ctrl-C ends"),
    )


def bar(sigma: float | None) -> Text:
    """A score as people see it at a glance."""
    if sigma is None:
        return Text("")
    style = "green" if abs(sigma) < 1 else "yellow" if abs(sigma) < 2 else "bold red"
    return Text(f"{sigma:+.2f} " + "█" * round(4 * min(abs(sigma), 3)), style=style)


if __name__ == "__main__":
    sys.exit(main())
