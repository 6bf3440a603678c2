"""The seed's walk through the service, as its document tells it."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collectord.netops import service as services
from collectord.netops.block import SECOND, Block, Simulation
from collectord.netops.run import Run
from collectord.netops.targets import functions_of
from daemon import Daemon, until
from netops.seed import SEED
from netops.serving import Served, served

DAY = 86_400
METRICS = ("cpu_utilization", "throughput")
PROXIED = " ".join(
    f"{struct}-{metric}:AggProxyCount:AggProxySumAnomalyEWM01"
    for struct in ("UveDevice", "UveSite", "UveCompany")
    for metric in METRICS
)
OPTIONS = f"[DEFAULT]\nuve_proxy_list={PROXIED}\n"


def test_the_seeds_walk_from_configure_to_merged_uves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of history, then live: nothing is lost, and sites are sums over their devices."""
    sent: list[tuple[Simulation, Block]] = []
    observed = functools.partial(Run, observer=lambda *block: sent.append(block))
    monkeypatch.setattr(services, "Run", observed)
    options = tmp_path / "collector.conf"
    # However long the machine stands still meanwhile, no minute is over for that.
    options.write_text(OPTIONS + "uve_proxy_lateness=300\n")
    with (
        Daemon("--conf_file", str(options), "--SNAPSHOT.directory=") as daemon,
        served(functions_of(daemon.ingest)) as http,
    ):
        as_httpie = {"Content-Type": "application/json", "Accept": "application/json, */*;q=0.5"}
        configured = http.post("/configure", content=SEED, headers=as_httpie)
        assert (configured.status_code, configured.json()["state"]) == (200, "idle")
        start = f'{{"num_historical_seconds": {DAY}}}'
        started = http.post("/start", content=start, headers=as_httpie)
        assert (started.status_code, started.json()["state"]) == (200, "priming")
        _until_values(http, (DAY + 2) * DEVICES * len(METRICS))
        assert http.state() == "generating"
        stopped = http.told("/stop")

        # Every second of the day and of the life after it, once.
        times = np.concatenate([block.times for _, block in sent])
        assert np.diff(times).tolist() == [SECOND] * (len(times) - 1)
        assert stopped["state"] == "idle"
        assert stopped["progress"] | {"rate": 0} == {
            "values": len(times) * DEVICES * len(METRICS),
            "history_done": DAY,
            "history_steps": DAY,
            "time": times[-1] / SECOND,
            "rate": 0,
            "seconds_left": None,
            "rejected": 0,
            "trouble": "",
        }
        _assert_that_nothing_was_lost(daemon, len(times), len(sent))

        # All has come: let the minutes end.
        options.write_text(OPTIONS + "uve_proxy_lateness=0.1\n")
        daemon.signal(signal.SIGHUP)

        simulation, last = sent[-1]
        sites = http.get("/sites").json()
        assert len(sites) == 4
        for site in sites:
            rows = [
                row
                for row, emitter in enumerate(simulation.emitters)
                if emitter.labels["site"] == site["name"]
            ]
            _assert_merged(daemon, site["key"], "UveSite", last, rows, times)
        for company in {site["company"] for site in sites}:
            rows = [
                row
                for row, emitter in enumerate(simulation.emitters)
                if emitter.labels["company"] == company
            ]
            _assert_merged(daemon, f"ObjectCompany:{company}", "UveCompany", last, rows, times)


DEVICES = 20
"""Of two companies with two sites of five devices: the seed's document leaves it open."""


def _until_values(http: Served, wanted: int) -> None:
    """Wait until so many were sent, as long as there is any progress."""
    sent = -1

    def more() -> bool:
        return bool(http.progress()["values"] > sent)

    while (now := http.progress()["values"]) < wanted:
        sent = now
        until(more)


def _assert_that_nothing_was_lost(daemon: Daemon, steps: int, blocks: int) -> None:
    counters = daemon.ask("status")["counters"]
    troubles = ("samples_late", "batches_duplicate", "batches_resync", "batches_overloaded")
    assert {name: counters[name] for name in troubles} == dict.fromkeys(troubles, 0)
    assert [name for name, count in counters.items() if "rejected" in name and count] == []
    # Each device tells of itself, its site and its company, the metrics of each at every step.
    assert counters["samples"] == steps * DEVICES * 3 * len(METRICS)
    # It also describes the three of them once, and tells its alerts with each block.
    assert counters["records"] == steps * DEVICES * 3 + DEVICES * (3 + blocks)


def _assert_merged(
    daemon: Daemon, key: str, struct: str, last: Block, rows: list[int], times: NDArray[np.int64]
) -> None:
    """The UVE is what its devices told last, added up, and every minute since the start scored."""
    first_minute, last_minute = (int(time) // SECOND // 60 for time in (times[0], times[-1]))
    in_last_minute = int(np.count_nonzero(times // SECOND // 60 == last_minute))
    minutes = last_minute - first_minute

    def scored() -> Any:
        """The UVE as soon as every algorithm of both metrics is that far."""
        uve = daemon.uve(key)
        scores = [
            uve.get(f"AggProxySumAnomalyEWM01-{struct}-{metric}", {"value": {}})["value"]
            for metric in METRICS
        ]
        return uve if all(score.get("samples", 0) >= minutes for score in scores) else None

    uve = until(scored)

    for metric in METRICS:
        assert uve[struct][metric] == pytest.approx(last.values[metric][rows, -1].sum())
        assert uve[struct]["devices"] == len(rows)
        score = uve[f"AggProxySumAnomalyEWM01-{struct}-{metric}"]["value"]
        count = uve[f"AggProxyCount-{struct}-{metric}"]["value"]["value"]
        # The last minute is over too where this took that long.
        assert (score["samples"], count) in (
            (minutes, 60 * len(rows)),
            (minutes + 1, in_last_minute * len(rows)),
        )
