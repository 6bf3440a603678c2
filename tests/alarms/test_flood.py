"""From a flood in a simulated network to an alert in a real Alertmanager, and to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alertmanager import Alertmanager, running
from collectord import clock
from collectord.netops.block import SECOND
from collectord.netops.collector import CollectorTarget
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations, uve_proxy_list
from collectord.netops.run import MINUTE, Feed
from daemon import Daemon, until

CONF = Path(__file__).parents[2] / "conf"
QUIET = 60
"""Minutes in which nothing happens; then there is one of a flood and of a drop."""
AFTER = 9
"""Minutes of quiet after that."""
LATENESS = 3
"""Seconds after which the collector takes a minute of history for whole, where no more comes."""
FRONTEND, BACKEND = (
    f"ObjectVNTable:default-domain:demo:{name}" for name in ("frontend", "backend")
)


class Network:
    """The example's virtual networks, of which one is flooded in a minute, and one drops."""

    def __init__(self) -> None:
        configured = json.loads((CONF / "netops-virtual-networks.json").read_text())
        configured["virtual_networks"] |= {
            "num_networks": 3,
            "flood_rate": 0,
            "drop_rate": 0,
            "incidents": [
                {"vrouters": "frontend/*", "step": QUIET * 60, "kind": "flood", "length": 60},
                {"vrouters": "backend/*", "step": QUIET * 60, "kind": "drop", "length": 60},
            ],
        }
        self.simulations = simulations(Configuration.model_validate(configured))
        now = clock.now()
        self.start = now - now % MINUTE - (QUIET + 1 + AFTER + 2) * MINUTE


class Life:
    """A network that a collector is told of, as history; it goes on where it was left."""

    def __init__(self, network: Network, target: CollectorTarget) -> None:
        self._feed = Feed(network.simulations, target, network.start, SECOND)
        self._target = target

    def go_on(self, minutes: int) -> None:
        """Live through so many minutes, and wait until the collector has all of it."""
        end = self._feed.next_time + minutes * MINUTE
        while self._feed.next_time < end:
            self._feed.send((end - self._feed.next_time) // SECOND)
        self._target.flush()


def example_rules_without_timers() -> list[dict[str, Any]]:
    """The rules of ``conf/alarms.json``, each of which rings, and ends, at once."""
    rules: list[dict[str, Any]] = json.loads((CONF / "alarms.json").read_text())
    return [{**rule, "active_timer": 0, "idle_timer": 0} for rule in rules]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    with running(tmp_path / "alertmanager") as started:
        yield started


@pytest.fixture
def life(alertmanager: Alertmanager, tmp_path: Path) -> Iterator[Life]:
    network = Network()
    rules = tmp_path / "alarms.json"
    rules.write_text(json.dumps(example_rules_without_timers()))
    with Daemon(
        f"--DEFAULT.uve_proxy_list={uve_proxy_list(network.simulations)}",
        f"--DEFAULT.uve_proxy_lateness={LATENESS}",
        f"--ALARM.rules_file={rules}",
        f"--ALARM.alertmanager={alertmanager.url}",
    ) as collector:
        target = CollectorTarget(collector.ingest)
        try:
            yield Life(network, target)
        finally:
            target.close()


def test_a_flood_becomes_an_alert_which_is_resolved_when_it_ends(
    life: Life, alertmanager: Alertmanager
) -> None:
    def ringing() -> set[tuple[str, str]]:
        labels = [alert["labels"] for alert in alertmanager.alerts()]
        return {(each["alertname"], each["uve"]) for each in labels}

    life.go_on(QUIET + 1)

    flood = {(f"vn-{name}", FRONTEND) for name in ("egress-flood", "ingress-flood")}
    drop = {(f"vn-{name}", BACKEND) for name in ("egress-drop", "ingress-drop")}
    beyond = {("vn-flows-above-plan", FRONTEND), ("vn-flows-vanished", BACKEND)}
    until(lambda: ringing() == flood | drop | beyond)
    alert = alertmanager.alert(alertname="vn-egress-flood")
    assert alert is not None
    assert alert["labels"] == {
        "alertname": "vn-egress-flood",
        "severity": "major",
        "table": "ObjectVNTable",
        "uve": FRONTEND,
        "team": "network",
        "kind": "flood",
        "direction": "egress",
    }
    assert alert["annotations"]["description"].startswith("More flows leave this virtual network")
    assert ".value.sigma >= 2.5" in alert["annotations"]["conditions"]

    life.go_on(AFTER)

    until(lambda: not ringing())
