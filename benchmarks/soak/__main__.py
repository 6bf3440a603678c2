"""``python -m benchmarks.soak``: see the package.

Windows go to ``build/soak.jsonl`` as they come, ``docs/soak.md`` is written anew each minute, and
``docs/soak.svg`` at the end, also where the end comes early.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.processes import ROOT, Collector, running_collector
from benchmarks.query import Client
from benchmarks.soak import loader, results
from benchmarks.soak.watch import Watch
from collectord import wire

KEYS = 200_000
SOURCE_TIMEOUT = 30
"""Seconds, so that many a source expires in a short run."""
FULL = 10.0
"""Seconds for which full speed is measured, after as long a run-up."""
PATIENCE = 120.0
"""Seconds for the loader to answer."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--keys", type=int, default=KEYS, help="that are told of at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="for soak.md and soak.svg")
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "soak.jsonl")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    options.rows.write_text("")
    about = report.machine()
    end: dict[str, Any] = {"wrong": [], "sums": 0}
    windows: list[results.Window] = []

    def write() -> None:
        (options.out / "soak.md").write_text(results.markdown(windows, end, about))

    def told(window: results.Window) -> None:
        windows.append(window)
        print(in_short(window), flush=True)
        if len(windows) % 6 == 0:
            write()

    try:
        with tempfile.TemporaryDirectory(prefix="collectord-soak-") as directory:
            snapshots = Path(directory)
            with running_collector(
                f"--SNAPSHOT.directory={snapshots}", f"--COLLECTOR.source_timeout={SOURCE_TIMEOUT}"
            ) as collector:
                soak(collector, options, end, told)
    finally:
        if windows:
            write()
            results.draw(windows, options.out / "soak.svg")
    found = results.verdicts(windows, end)
    for verdict in found:
        print(f"{'yes' if verdict.holds else 'NO '} {verdict.what}: {verdict.figures}")
    for text in end["wrong"][:20]:
        print(text)
    return 0 if all(verdict.holds for verdict in found) else 1


def soak(collector: Collector, options: argparse.Namespace, end: dict[str, Any], told: Any) -> None:
    """The whole run; what it ends with goes into ``end``."""
    processes = multiprocessing.get_context("spawn")
    pipe, others_end = processes.Pipe()
    process = processes.Process(
        target=loader.run, args=(collector.ingest, options.keys, others_end), daemon=True
    )
    process.start()
    others_end.close()  # so that a loader that died is noticed here
    with Client(collector.query) as client:
        before = status(client)
        pipe.send(("fill",))
        print(f"{ask(pipe)[1]:,} keys")
        pipe.send(("full", FULL))
        ask(pipe)
        pipe.send(("full", FULL))
        full = ask(pipe)[1]
        end["full"] = full * 1000
        print(
            f"full speed: {end['full']:,.0f} records a second; half of it from now on", flush=True
        )
        pipe.send(("hold", full / 2))
        watch = Watch(collector, pipe, options.rows, options.keys)
        end["wrong"] = watch.wrong

        def seen(window: results.Window) -> None:
            end["sums"] = watch.sums_compared
            end["snapshots"] = (window["snapshot"] or {}).get("number", 0)
            told(window)

        watch.watch(client, options.minutes * 60, seen)
        pipe.send(("stop",))
        done = ask(pipe)
        while done[0] != "done":  # told just before it stopped
            done = ask(pipe)
        _, end["sent"], end["applied"], end["made"], end["sources"] = done
        settle(client, end, before)
    process.join(PATIENCE)


def settle(client: Client, end: dict[str, Any], before: dict[str, Any]) -> None:
    """Compare what was sent with what the collector counts."""
    after = status(client)
    grown = {
        name: count - before["counters"].get(name, 0) for name, count in after["counters"].items()
    }
    end["counted"] = grown["records"]
    end["snapshots"] = grown.get("snapshots_saved", 0)
    bad = (
        "rejected_",
        "batches_malformed",
        "batches_overloaded",
        "batches_resync",
        "answers_dropped",
        "samples_late",
        "results_dropped",
        "snapshots_failed",
        "batches_too_large",
    )
    end["refused"] = {
        name: count for name, count in grown.items() if count and name.startswith(bad)
    }


def ask(pipe: Any) -> Any:
    """What the loader answers. Raises where it doesn't."""
    if not pipe.poll(PATIENCE):
        raise RuntimeError("the loader does not answer")
    return pipe.recv()


def status(client: Client) -> dict[str, Any]:
    """The reply to ``status``."""
    reply: dict[str, Any] = wire.decode(client.ask(wire.encode({"op": "status"})))
    return reply


def in_short(window: results.Window) -> str:
    """A line for the terminal."""
    return (
        f"{window['seconds']:6.0f} s {window['resident'] / results.MEBIBYTE:8,.0f} MiB "
        f"{window['rate']:12,.0f} records/s {window['sizes']['keys']:9,} keys "
        f"p50 {window['p50'] * 1e3:6.2f} ms p99 {window['p99'] * 1e3:6.2f} ms "
        f"most {window['most'] * 1e3:6.1f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
