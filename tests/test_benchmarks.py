"""``python -m benchmarks``: it runs, compares like with like, and prints every figure."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FIGURES = {
    "apply": ["engine", "plain Python", "engine to plain Python"],
    "close": ["engine", "plain Python", "numpy", "longest wait of a read"],
    "memory": ["record with two integers", "series with its detector"],
    "transport": [
        "batches of 1,000, acknowledged",
        "messages of one record, no answer",
        "client.Publisher",
    ],
    "query": ["get, told by 3 sources, idle: p50", "get while ingest runs at full speed: p99"],
    "stream": ["received by one subscriber"],
    "snapshot": [
        "longest wait of a read while",
        "batches of 1,000, 8,000 series: cost of saving",
        "restart to serving",
        "on disk, for a series",
    ],
    "netops": ["drawing values", "numpy to plain Python", "history into a collector, nothing lost"],
    "alarms": [
        "20 example rules evaluated, one core",
        "a pass over 4,000 UVEs, 20 rules",
        "ingest, what is known already: cost of alarms",
        "ingest, every value changes: cost of alarms",
        "from a change to its alarm, idle: p99",
        "from a change to its alarm, ingest at full speed: p99",
    ],
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A quick run of all benchmarks: what it printed, and the file it wrote."""
    file = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    ended = run("--quick", "--json", str(file))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(file.read_text())


@pytest.mark.parametrize(
    ("benchmark_name", "figure"),
    [(name, figure) for name, figures in FIGURES.items() for figure in figures],
)
def test_every_figure_has_a_row_in_the_one_table(
    quick: tuple[str, Any], benchmark_name: str, figure: str
) -> None:
    printed, _ = quick
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    assert any(row[0] == benchmark_name and row[1].startswith(figure) for row in rows)


def test_what_must_be_reached_stands_beside_the_figure(quick: tuple[str, Any]) -> None:
    _, written = quick
    goals = {row["what"]: row["goal"] for row in written["rows"] if row["goal"]}
    assert goals["batches of 1,000, acknowledged"] == {"at": "least", "bound": 5e6}
    assert goals["get, told by 3 sources, idle: p99"] == {"at": "most", "bound": 1000}
    assert goals["20 example rules evaluated, one core"] == {"at": "least", "bound": 5e4}
    assert goals["ingest, every value changes: cost of alarms"] == {"at": "most", "bound": 5}


def test_the_file_holds_every_round_and_the_machine(quick: tuple[str, Any]) -> None:
    printed, written = quick
    assert written["machine"]["cpu"] in printed
    assert all(row["values"] for row in written["rows"])


def test_what_is_compared_is_compared_round_by_round(quick: tuple[str, Any]) -> None:
    _, written = quick
    values = {row["what"]: row["values"] for row in written["rows"]}
    what = "batches of 1,000, acknowledged"
    ratios = zip(values[what], values[f"{what}: received and thrown away"], strict=True)
    assert values[f"{what}: to the ceiling"] == [over / under for over, under in ratios]


def test_one_benchmark_can_be_run_alone() -> None:
    printed = run("--quick", "apply").stdout
    assert "| apply " in printed
    assert "| close " not in printed


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    ended = run("--quick", "aply")
    assert ended.returncode == 2
    assert "unknown benchmark 'aply'; there are apply, close" in ended.stderr


def test_a_benchmark_that_fails_is_named_and_costs_no_other_its_figures() -> None:
    script = """
import sys
from benchmarks import __main__ as command

def fail(report, scale):
    report.add("broken", "before it broke", "things", [7.0])
    raise RuntimeError("it broke")

command.BENCHMARKS = {"broken": fail, "whole": lambda r, s: r.add("whole", "all", "things", [8.0])}
sys.exit(command.main([]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "RuntimeError: it broke" in ended.stderr
    assert "failed: broken" in ended.stderr
    for printed in (ended.stdout, ended.stderr):
        assert "| before it broke |" in printed
        assert "| all " in printed
