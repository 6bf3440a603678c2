"""A picture of what a score heard: values, truth, sigma, thresholds and what was flagged.

Needs matplotlib, the extra ``plots``; so it is imported by those who are asked for a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from collectord import proxies, wire
from collectord.ctl_common import UsageError
from collectord.netops import measures
from collectord.netops.block import SECOND
from collectord.netops.measures import Flags
from collectord.netops.recording import START
from collectord.netops.score import Result, bound, is_flagged

SERIES_SHOWN = 4
WIDTH = 12.0
HEIGHT = 2.9
"""Inches of a series."""
MARGIN = 1.15
"""Inches for title and legend."""
DPI = 130

VALUE, SIGMA, LIMIT = "#1d3557", "#5c677d", "#9aa0a6"
FOUND, FALSE = "#2a9d3a", "#d62828"
SHADES = {"found": ("#f4a261", 0.45), "missed": ("#d62828", 0.25), "warm-up": ("#9aa0a6", 0.25)}
"""Colours behind the lines, and how thick."""
DASHED, DOTTED = (0, (4, 3)), ":"


def plot(
    result: Result,
    path: str | Path,
    *,
    pattern: str = "*",
    algorithm: str = "",
    history: float = 6 * 3600.0,
) -> None:
    """Draw the first few series whose ``<key> <metric>`` fits the pattern, into a PNG.

    ``algorithm`` is one that was scored, the first by default; ``history`` the seconds to show, the
    last ones. Flagged is what passes the lowest threshold. Raises UsageError where no series fits,
    or the file can't be written.
    """
    heard = result.recording
    algorithm = algorithm or next(iter(heard.sigmas))
    names = [f"{key} {metric}" for key, metric in heard.series]
    fitting = [row for row, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not fitting:
        raise UsageError(f"no series fits {pattern!r}; there is, for example, {names[0]!r}")
    rows = fitting[:SERIES_SHOWN]
    end = heard.truth.shape[1]
    first = max(end - max(int(history // wire.PERIOD), 1), 0)

    height = MARGIN + HEIGHT * len(rows)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        1,
        left=0.075,
        right=0.975,
        top=1 - 0.95 / height,
        bottom=0.4 / height,
        hspace=0.3,
    )
    for place, row in enumerate(rows):
        pair = grid[place].subgridspec(2, 1, height_ratios=(3, 2), hspace=0.07)
        above = figure.add_subplot(pair[0])
        below = figure.add_subplot(pair[1], sharex=above)
        _draw(above, below, result, algorithm, row, first)
        below.xaxis.get_offset_text().set_visible(row == rows[-1])
        above.set_title(names[row], loc="left", fontsize=10, fontweight="bold", color=VALUE)
    shown = f"{len(rows)} of {len(fitting)} series" if len(rows) < len(fitting) else "all series"
    figure.text(
        0.075,
        1 - 0.3 / height,
        f"{algorithm}, seed {result.seed}, {shown} that fit",
        fontsize=13,
        fontweight="bold",
    )
    figure.legend(
        handles=_legend(result, algorithm, first),
        loc="upper left",
        bbox_to_anchor=(0.069, 1 - 0.36 / height),
        ncols=7,
        frameon=False,
        fontsize=9,
        handlelength=1.6,
        columnspacing=1.6,
    )
    figure.align_ylabels()
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _draw(above: Axes, below: Axes, result: Result, algorithm: str, row: int, first: int) -> None:
    heard = result.recording
    truth = heard.truth[row, first:]
    sigma = heard.sigmas[algorithm][row, first:]
    flagged = is_flagged(np.abs(np.nan_to_num(sigma)), min(result.thresholds))
    middles = _days(np.arange(first, first + len(truth)) + 0.5)
    above.plot(
        middles, heard.values[algorithm][row, first:], color=VALUE, lw=1.1, drawstyle="steps-mid"
    )
    below.plot(middles, sigma, color=SIGMA, lw=1.0)
    for begin, end, shade in _spans(truth, flagged, result.warm_up - first):
        color, alpha = SHADES[shade]
        for axes in (above, below):
            left, right = _days(first + begin), _days(first + end)
            axes.axvspan(left, right, color=color, alpha=alpha, lw=0, zorder=0)
    limit = bound(proxies.algorithm(algorithm).alpha)
    for side in (-1, 1):
        for threshold in result.thresholds:
            below.axhline(side * threshold, color=LIMIT, lw=0.8, ls=DASHED, zorder=0.5)
        below.axhline(side * limit, color=FALSE, lw=0.9, ls=DOTTED, zorder=0.6)
    for hits, color, marker in ((flagged & truth, FOUND, "o"), (flagged & ~truth, FALSE, "X")):
        below.plot(
            middles[hits],
            sigma[hits],
            ls="",
            marker=marker,
            ms=5,
            color=color,
            mec="white",
            mew=0.5,
        )
    # The bound is shown unless everything would look small beside it.
    reach = max(*result.thresholds, float(np.abs(np.nan_to_num(sigma)).max()))
    reach = 1.15 * (limit if reach < limit < 2 * reach else reach)
    below.set_ylim(-reach, reach)
    below.set_ylabel("sigma", fontsize=9)
    above.set_ylabel(proxies.algorithm(algorithm).reducer.lower(), fontsize=9)
    above.tick_params(labelbottom=False)
    above.margins(y=0.08)
    locator = AutoDateLocator(minticks=5, maxticks=12)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_formatter(formatter)
    below.set_xlim(_days(first), _days(first + len(truth)))
    for axes in (above, below):
        axes.tick_params(labelsize=8.5, length=3)
        axes.spines[["top", "right"]].set_visible(False)


def _spans(truth: Flags, flagged: Flags, warm_up: int) -> Iterator[tuple[int, int, str]]:
    """What is shaded: from a period to before another, and which way."""
    if warm_up > 0:
        yield 0, warm_up, "warm-up"
    for _, begin, last in measures.events(truth[np.newaxis]).tolist():
        found = flagged[begin : last + 1].any()
        yield begin, last + 1, "found" if found else "missed"


def _legend(result: Result, algorithm: str, first: int) -> list[Line2D | Patch]:
    limit = bound(proxies.algorithm(algorithm).alpha)
    least = min(result.thresholds)
    thresholds = ", ".join(map("{:g}".format, result.thresholds))
    dot: dict[str, Any] = {"ls": "", "ms": 6, "mec": "white"}
    shades = {"found": "it fails, found", "missed": "it fails, missed"}
    if first < result.warm_up:
        shades["warm-up"] = "not scored"
    return [
        *(
            Patch(color=SHADES[shade][0], alpha=SHADES[shade][1], lw=0, label=label)
            for shade, label in shades.items()
        ),
        Line2D([], [], color=FOUND, marker="o", label="flagged", **dot),
        Line2D([], [], color=FALSE, marker="X", label="false alarm", **dot),
        Line2D([], [], color=LIMIT, lw=0.8, ls=DASHED, label=f"±{thresholds}: {least:g} flags"),
        Line2D([], [], color=FALSE, lw=0.9, ls=DOTTED, label=f"sigma can't pass ±{limit:.2f}"),
    ]


def _days(period: Any) -> Any:
    """When periods begin, as matplotlib has it: days since 1970."""
    return (START / SECOND + period * wire.PERIOD) / measures.DAY
