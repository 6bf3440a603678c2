"""Figures and how they are shown: one row for each, with its median and spread over the rounds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Goal:
    """What a figure must reach: at least or at most ``bound``, in the unit of its row."""

    at: str
    bound: float

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at == "least" else value <= self.bound

    def __str__(self) -> str:
        return f"at {self.at} {in_figures(self.bound)}"


def at_least(bound: float) -> Goal:
    return Goal("least", bound)


def at_most(bound: float) -> Goal:
    return Goal("most", bound)


@dataclass(frozen=True)
class Row:
    """One figure, once for each round."""

    benchmark: str
    what: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None

    def cells(self) -> tuple[str, ...]:
        low, high = min(self.values), max(self.values)
        spread = f"{in_figures(low)} … {in_figures(high)}" if len(self.values) > 1 else ""
        goal = ""
        if self.goal:
            goal = str(self.goal) + ("" if self.goal.met(median(self.values)) else ": missed")
        return self.benchmark, self.what, in_figures(median(self.values)), spread, self.unit, goal


HEADINGS = ("benchmark", "what", "median", "min … max", "unit", "must be")
NUMBERS = (2, 3)
"""Columns that are set flush right."""


@dataclass
class Report:
    """The rows of one run, in the order they were measured."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        benchmark: str,
        what: str,
        unit: str,
        values: Sequence[float],
        goal: Goal | None = None,
    ) -> None:
        self.rows.append(Row(benchmark, what, unit, list(values), goal))

    def ratio(
        self, benchmark: str, what: str, over: Sequence[float], under: Sequence[float]
    ) -> None:
        """A row with the ratio of two figures, taken round by round."""
        self.add(benchmark, what, "times", [a / b for a, b in zip(over, under, strict=True)])

    def table(self) -> str:
        """All rows as a Markdown table that is also aligned for a terminal."""
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rules = [
            "-" * (width - 1) + (":" if at in NUMBERS else "-") for at, width in enumerate(widths)
        ]
        shown = []
        for line in [lines[0], tuple(rules), *lines[1:]]:
            cells = [
                cell.rjust(width) if at in NUMBERS else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            shown.append(f"| {' | '.join(cells)} |")
        return "\n".join(shown)

    def as_json(self) -> list[dict[str, Any]]:
        return [{**asdict(row), "median": median(row.values)} for row in self.rows]


def in_figures(value: float) -> str:
    """Three significant digits, thousands set apart."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def machine() -> dict[str, str]:
    """Where and when this was measured."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
