"""What a soak comes to: what must hold, the figures in words, and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import in_figures

WARM_UP = 0.25
"""The part of the time that is not judged: keys come first, then those that go leave holes."""
GROWTH = 0.03
"""Of memory from the first third of what is judged to the last third, at most."""
WINDOWS_TO_JUDGE = 6
MEBIBYTE = 1 << 20
Window = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Something that must hold, and whether it does."""

    what: str
    holds: bool
    figures: str


def judged(windows: Sequence[Window]) -> list[Window]:
    """The windows after the warm-up."""
    return list(windows[round(len(windows) * WARM_UP) :])


def thirds(windows: Sequence[Window], name: str) -> tuple[float, float]:
    """The median of a figure over the first and over the last third of what is judged."""
    values = [window[name] for window in judged(windows)]
    third = max(len(values) // 3, 1)
    return median(values[:third]), median(values[-third:])


def slope(windows: Sequence[Window], name: str) -> float:
    """How much a figure grows in a second, by least squares over what is judged."""
    points = [(window["seconds"], window[name]) for window in judged(windows)]
    middle = sum(at for at, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return sum((at - middle) * (value - mean) for at, value in points) / spread if spread else 0.0


def verdicts(windows: Sequence[Window], end: dict[str, Any]) -> list[Verdict]:
    """What must hold at the end; ``end`` is what ``__main__`` found then."""
    sent, applied, counted = (end.get(name) for name in ("sent", "applied", "counted"))
    made = [
        Verdict(
            "nothing is lost: records sent, acknowledged and counted are as many",
            sent is not None and sent == applied == counted,
            " / ".join(
                "?" if count is None else f"{count:,}" for count in (sent, applied, counted)
            ),
        ),
        Verdict(
            "the sums of whole minutes are those of what was sent",
            not end["wrong"],
            f"{end['sums']:,} compared, {len(end['wrong'])} wrong",
        ),
        Verdict(
            "nothing was refused, late or dropped",
            not end.get("refused", {}),
            ", ".join(f"{name} {count:,}" for name, count in end.get("refused", {}).items())
            or "every such counter is 0",
        ),
    ]
    if len(judged(windows)) >= WINDOWS_TO_JUDGE:
        first, last = thirds(windows, "resident")
        hourly = slope(windows, "resident") * 3600 / MEBIBYTE
        made.append(
            Verdict(
                f"memory is flat: it grows by at most {GROWTH:.0%}",
                last <= first * (1 + GROWTH),
                f"{first / MEBIBYTE:,.0f} MiB in the first third, {last / MEBIBYTE:,.0f} in the "
                f"last; {hourly:+,.0f} MiB an hour by least squares",
            )
        )
        first, last = thirds(windows, "p99")
        made.append(
            Verdict(
                "the 99th percentile of queries is flat: the last third is at most 1.5 times "
                "the first",
                last <= first * 1.5,
                f"{first * 1e3:.2f} ms, {last * 1e3:.2f} ms",
            )
        )
    return made


def markdown(windows: Sequence[Window], end: dict[str, Any], about: dict[str, str]) -> str:
    """The summary, as a document."""
    minutes = windows[-1]["seconds"] / 60 if windows else 0
    lines = [
        "# Soak",
        "",
        f"A collector at half its full speed for {minutes:.1f} minutes, while keys come and go: "
        f"`make soak MINUTES={round(minutes)}`. What runs, and how it is measured, is said in "
        "`benchmarks/soak/`.",
        "",
        "Measured: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ". "
        "The load and the questions come from the same machine.",
        "",
        "![memory, latency and load over time](soak.svg)",
        "",
        "| what must hold | does it | figures |",
        "|---|---|---|",
    ]
    lines += [
        f"| {verdict.what} | {'yes' if verdict.holds else '**no**'} | {verdict.figures} |"
        for verdict in verdicts(windows, end)
    ]
    lines += ["", "| figure | |", "|---|--:|"]
    lines += [f"| {name} | {value} |" for name, value in figures(windows, end)]
    lines += ["", "The first quarter of the time is warm-up and is not judged.", ""]
    return "\n".join(lines)


def figures(windows: Sequence[Window], end: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value, as shown."""
    if not windows:
        return []
    later, last = judged(windows), windows[-1]
    found = sum(window["found"] for window in windows) / max(
        sum(window["asked"] for window in windows), 1
    )
    sizes = [window["sizes"] for window in later]
    return [
        ("full speed, measured first", f"{in_figures(end.get('full', 0))} records/s"),
        ("speed held", f"{in_figures(median(window['rate'] for window in later))} records/s"),
        ("records sent", f"{end.get('sent') or last['records']:,}"),
        ("keys there ever were", f"{end.get('made', 0):,}"),
        ("keys held, median", f"{median(size['keys'] for size in sizes):,.0f}"),
        ("series held, median", f"{median(size['series'] for size in sizes):,.0f}"),
        ("sources there ever were", f"{end.get('sources', 0):,}"),
        ("memory, most", f"{max(w['resident'] for w in windows) / MEBIBYTE:,.0f} MiB"),
        ("`get`, p50", f"{median(window['p50'] for window in later) * 1e3:.2f} ms"),
        ("`get`, p99, median of the windows", f"{median(w['p99'] for w in later) * 1e3:.2f} ms"),
        ("`get`, p99, worst window", f"{max(w['p99'] for w in later) * 1e3:.2f} ms"),
        ("`get`, slowest of all", f"{max(w['most'] for w in later) * 1e3:.0f} ms"),
        ("queries", f"{sum(w['asked'] for w in windows):,}, of which {found:.0%} found their key"),
        ("snapshots", f"{end.get('snapshots', 0):,}"),
    ]


def draw(windows: Sequence[Window], file: Path) -> None:
    """Memory, latency and load over time. Wants matplotlib (``pip install collectord[plots]``)."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    minutes = [window["seconds"] / 60 for window in windows]
    figure, (memory, latency, load) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 7.5))
    memory.plot(minutes, [w["resident"] / MEBIBYTE for w in windows], label="of the process")
    memory.plot(
        minutes, [w["sizes"]["bytes"] / MEBIBYTE for w in windows], label="of the state, as counted"
    )
    memory.set_ylabel("memory, MiB")
    latency.plot(minutes, [w["p99"] * 1e3 for w in windows], label="p99")
    latency.plot(minutes, [w["p50"] * 1e3 for w in windows], label="p50")
    latency.set_ylabel("get, ms, in 10 s")
    load.plot(minutes, [w["rate"] / 1e6 for w in windows], label="records, millions a second")
    load.plot(minutes, [w["sizes"]["keys"] / 1e6 for w in windows], label="keys, millions")
    load.set_xlabel("minutes")
    for axes in (memory, latency, load):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
