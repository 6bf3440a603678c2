"""``collectord-netops score``: its options, its tables, and what follows from them."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from collectord.ctl_common import OK, Output, UsageError
from collectord.netops.command_common import configured, seconds
from collectord.netops.progress import interruptible
from collectord.netops.recording import LEVELS
from collectord.netops.score import ALGORITHMS, BUFFER, HISTORY, THRESHOLDS, Result, score

PREFIX = "AggProxy"
"""Of the names of all algorithms."""
NOTES = (
    "An event is a run of periods of 60 s in which the metric failed at any step. A period is "
    "flagged where |sigma| is above the threshold, and an event is found where one of its periods "
    "is; its delay is how many of them came before that, the median here. False alarms are flagged "
    "periods outside of all events, for each series and day. Precision, recall and F1 count "
    "periods. VUS-PR looks at all thresholds; what knows nothing has there what always and never "
    "have.",
    "A detector begins at mean 0, and forgets that in several times 1 / alpha periods. Until then, "
    "and longer than the warm-up, its deviation is too large.",
    "A threshold chosen by this table was chosen on the data that it is judged by, which proves "
    "nothing: look at another --seed, too.",
)


def as_json(result: Result) -> dict[str, Any]:
    """Everything but the recording."""
    shown = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("thresholds", "rows", "reaches", "recording")
    }
    return {
        **shown,
        "thresholds": list(result.thresholds),
        "rows": [dataclasses.asdict(row) for row in result.rows],
        "reaches": [dataclasses.asdict(reach) for reach in result.reaches],
        "conclusion": conclusion(result),
    }


def render(result: Result) -> RenderableType:
    """Tables, and what they mean."""
    return Group(
        _scores(result), Text(), _reaches(result), Text(conclusion(result)), *map(_note, NOTES)
    )


def conclusion(result: Result) -> str:
    """What follows from the bound of sigma for the thresholds there are."""
    bounds = {reach.alpha: reach.bound for reach in result.reaches}
    sentences = [
        "The sample itself is in the deviation that it is divided by, so |sigma| never passes "
        "sqrt((1 - alpha) / alpha), rounding aside, however large an anomaly is."
    ]
    for threshold in result.thresholds:
        silent = [f"{alpha:g}" for alpha in sorted(bounds) if bounds[alpha] <= threshold]
        able = [f"{alpha:g}" for alpha in sorted(bounds) if bounds[alpha] > threshold]
        if silent:
            sentences.append(
                f"An alarm at {threshold:g} never rings with alpha {_listed(silent)}"
                + (f"; with {_listed(able)} it can." if able else ".")
            )
    return " ".join(sentences)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _scores(result: Result) -> Table:
    table = _table(
        f"{result.events} events in {result.series} series at level {result.level}, seed "
        f"{result.seed}: {result.periods} periods of each after {result.warm_up} of warm-up, "
        f"{result.error_share:.1%} of them in events",
        "VUS-PR",
        "above",
        f"found\nof {result.events}",
        "delay",
        "false\nalarms",
        "preci-\nsion",
        "recall",
        "F1",
    )
    before = ""
    for row in result.rows:
        is_new = row.name != before
        before = row.name
        table.add_row(
            row.name.removeprefix(PREFIX) if is_new else "",
            _shown(row.vus_pr, ".3f") if is_new else "",
            _shown(row.threshold, "g"),
            str(row.found),
            _shown(row.delay, "g"),
            _shown(row.false_alarms, ".2f"),
            *(_shown(value, ".3f") for value in (row.precision, row.recall, row.f1)),
        )
    table.caption = (
        f"VUS-PR: buffers of 0 to {result.buffer} periods; the truth itself would have "
        f"{_shown(result.vus_pr_of_truth, '.3f')}"
    )
    return table


def _reaches(result: Result) -> Table:
    table = _table("how far sigma goes", "alpha", "|sigma| can't pass", "greatest |sigma| seen")
    for reach in result.reaches:
        table.add_row(
            reach.algorithm.removeprefix(PREFIX),
            f"{reach.alpha:g}",
            f"{reach.bound:.4f}",
            f"{reach.greatest:.4f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column(f"{PREFIX}…", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _note(text: str) -> Text:
    return Text(text, style="dim")


# ---- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``collectord-netops score``."""
    add = parser.add_argument
    add("configuration", metavar="CONFIG", nargs="?", help="a file; - is standard input")
    add("--seed", metavar="N", type=int, help="in place of the configuration's")
    add("--history", metavar="TIME", type=seconds, default=HISTORY, help="to be lived; a day")
    add("--level", choices=LEVELS, default="", help="what a series is of; a device by default")
    add(
        "--algorithms",
        metavar="NAME,…",
        type=lambda text: text.split(","),
        default=ALGORITHMS,
        help="in place of every reducer with alpha 0.1, and Sum with four others",
    )
    add(
        "--thresholds",
        metavar="SIGMA,…",
        type=_thresholds,
        default=THRESHOLDS,
        help="above which |sigma| is an alarm: 2,2.5,3",
    )
    add(
        "--buffer",
        metavar="N",
        type=_buffer,
        default=BUFFER,
        help="periods of VUS-PR's longest buffer: %(default)s",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="JSON, as everywhere but on a terminal")
    forms.add_argument("--table", action="store_true", help="tables, as on a terminal")
    group = parser.add_argument_group("a picture")
    group.add_argument("--plot", metavar="FILE.png", help="where to; none without")
    group.add_argument(
        "--series",
        metavar="PATTERN",
        default="*",
        help="of '<key> <metric>', * is any run of characters; the first few that fit are shown",
    )
    group.add_argument("--shown", metavar="NAME", help="algorithm to show; the first without")
    group.add_argument(
        "--plot-history", metavar="TIME", type=seconds, default=6 * 3600.0, help="at the end: 6h"
    )


def run(options: argparse.Namespace) -> int:
    """``collectord-netops score``: exit code 0 whatever was found."""
    shown = options.shown or options.algorithms[0]
    if options.plot:
        # Before anything else: it may not be installed, and a score takes its time.
        from collectord.netops.plot import plot

        if shown not in options.algorithms:
            raise UsageError(f"{shown} is not scored; --algorithms names those that are")
    configuration = configured(options)
    console = Console(stderr=True)
    bar = bars.Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("periods", total=None)
    with bar, interruptible() as interrupted:

        def show(done: int, total: int) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt  # whatever the signal was: the collector is to end with us
            bar.update(task, completed=done, total=total)

        result = score(
            configuration,
            level=options.level,
            algorithms=options.algorithms,
            thresholds=options.thresholds,
            history=options.history,
            buffer=options.buffer,
            progress=show,
        )
    Output(options).one(as_json(result), render, result)
    if options.plot:
        plot(
            result,
            options.plot,
            pattern=options.series,
            algorithm=shown,
            history=options.plot_history,
        )
    return OK


def _thresholds(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0, as 2,2.5,3")
    return sorted(values)


def _buffer(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)
