"""``collectord-netops score``: what each algorithm of the menu finds of failures that are known.

What is measured is ``measures.py``'s, and how the algorithms were heard ``recording.py``'s. Here
they meet: a row for each algorithm and threshold, beside baselines, and how it looks.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from collectord import proxies
from collectord.ctl_common import OK, Output, UsageError
from collectord.netops import measures
from collectord.netops.block import Simulation
from collectord.netops.command import configured, seconds
from collectord.netops.configuration import Configuration
from collectord.netops.measures import Flags, Scores
from collectord.netops.network import simulations
from collectord.netops.progress import interruptible
from collectord.netops.recording import LEVELS, Progress, Recording, minimum, record
from collectord.proxies import PERIOD, REDUCERS, Algorithm

ALGORITHMS = (
    *(f"AggProxy{reducer}AnomalyEWM01" for reducer in REDUCERS),
    *(f"AggProxySumAnomalyEWM{alpha}" for alpha in ("001", "003", "03", "05")),
)
PREFIX = "AggProxy"
"""Of the names of all algorithms."""
ROUNDING = 1e-9
"""The share by which sigma may lie above its bound, and so above a threshold, by mere rounding."""
THRESHOLDS = (2.0, 2.5, 3.0)
HISTORY = 86_400.0
BUFFER = 4
"""Periods: the longest buffer of VUS-PR, half of it on each side of an event."""

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


@dataclass(frozen=True)
class Row:
    """How one algorithm or baseline did at one threshold; None where there is nothing to say."""

    name: str
    threshold: float | None
    found: int
    delay: float | None
    false_alarms: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    vus_pr: float | None


@dataclass(frozen=True)
class Reach:
    """How far sigma of an algorithm can go, and how far it went."""

    algorithm: str
    alpha: float
    bound: float
    greatest: float


@dataclass(frozen=True)
class Result:
    """What a score came to."""

    level: str
    seed: int
    series: int
    periods: int
    """Of each series, without the warm-up."""
    warm_up: int
    """Periods at the beginning that are left out, for some algorithm says nothing yet."""
    events: int
    error_share: float
    """Of all periods."""
    buffer: int
    thresholds: Sequence[float]
    vus_pr_of_truth: float | None
    """What a score has that is the truth itself."""
    rows: Sequence[Row]
    reaches: Sequence[Reach]
    recording: Recording


def score(
    configuration: Configuration,
    *,
    level: str = "",
    algorithms: Sequence[str] = ALGORITHMS,
    thresholds: Sequence[float] = THRESHOLDS,
    history: float = HISTORY,
    buffer: int = BUFFER,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Let algorithms judge a configuration that lives for ``history`` seconds.

    ``level`` is one of ``LEVELS``: by default that of devices, or of virtual networks where there
    are no devices. Raises UsageError for what can't be scored, and what ``record`` raises.
    """
    level = level or ("device" if configuration.deployment.devices else "networks")
    chosen = [_algorithm(name) for name in dict.fromkeys(algorithms)]
    warm_up = max(map(minimum, chosen)) - 1
    periods = int(history // PERIOD)
    if periods <= warm_up:
        raise UsageError(
            f"{chosen[0].name} and the others need {warm_up} periods of {PERIOD} s before all of "
            f"them say something: the history has to be longer than {warm_up * PERIOD} s"
        )
    if configuration.interval > PERIOD:
        raise UsageError(
            f"the interval is {configuration.interval:g} s; it can be {PERIOD} s at most, for "
            "every period needs a sample"
        )
    simulation = _simulation(configuration, level)
    heard = record(simulation, LEVELS[level], chosen, periods, configuration.interval, progress)
    truth = heard.truth[:, warm_up:]
    scores = {name: array[:, warm_up:] for name, array in _scores_of(heard, chosen).items()}
    return Result(
        level=level,
        seed=configuration.seed,
        series=len(truth),
        periods=truth.shape[1],
        warm_up=warm_up,
        events=len(measures.events(truth)),
        error_share=float(truth.mean()),
        buffer=buffer,
        thresholds=thresholds,
        vus_pr_of_truth=_number(measures.vus_pr(truth, truth.astype(float), buffer)),
        rows=_rows(truth, scores, thresholds, buffer),
        reaches=[
            Reach(one.name, one.alpha, bound(one.alpha), float(scores[one.name].max()))
            for one in chosen
        ],
        recording=heard,
    )


def _scores_of(heard: Recording, chosen: Sequence[Algorithm]) -> dict[str, Scores]:
    """|sigma| of each algorithm, and the last value of what the first one's reducer made."""
    scores = {name: np.abs(sigma) for name, sigma in heard.sigmas.items()}
    first = chosen[0]
    unknown = minimum(first) - 1
    known = last_value(heard.values[first.name][:, unknown:])
    scores[f"last value ({first.reducer})"] = np.pad(known, ((0, 0), (unknown, 0)))
    return scores


def _rows(
    truth: Flags, scores: Mapping[str, Scores], thresholds: Sequence[float], buffer: int
) -> list[Row]:
    rows = []
    for name, array in scores.items():
        vus_pr = _number(measures.vus_pr(truth, array, buffer))
        rows += [
            _row(name, threshold, truth, is_flagged(array, threshold), vus_pr)
            for threshold in thresholds
        ]
    by_chance = _number(measures.vus_pr(truth, np.zeros(truth.shape), buffer))
    for name, answer in (("always", True), ("never", False)):
        rows.append(_row(name, None, truth, np.full_like(truth, answer), by_chance))
    return rows


def is_flagged(scores: Scores, threshold: float) -> Flags:
    """What lies above a threshold, and not only by rounding."""
    return scores > threshold * (1 + ROUNDING)


def bound(alpha: float) -> float:
    """What |sigma| of ``AnomalyEWM`` never passes.

    With the deviation d of a sample from the mean before it, sigma is
    ``(1 - alpha) d / sqrt((1 - alpha) (variance + alpha d^2))``, which is greatest where the
    variance before was 0. Rounding may add its share where a flat series changes.
    """
    return math.sqrt((1 - alpha) / alpha)


def last_value(values: Scores) -> Scores:
    """A baseline: how far each value is from the one before, by how far they have been so far.

    That is |x[t] - x[t-1]| over the root of the mean square of the differences before it. 0 where
    nothing changed, or there was none before.
    """
    differences = np.diff(values, axis=1)
    counts = np.arange(1, differences.shape[1])
    squares = np.cumsum(differences[:, :-1] ** 2, axis=1)
    now = np.abs(differences[:, 1:])
    with np.errstate(divide="ignore"):
        scores = np.divide(now, np.sqrt(squares / counts), out=np.zeros_like(now), where=now > 0)
    return np.pad(scores, ((0, 0), (values.shape[1] - scores.shape[1], 0)))


def _algorithm(name: str) -> Algorithm:
    try:
        found = proxies.algorithm(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not found.detector:
        raise UsageError(
            f"{name} detects nothing, so there is nothing to score; {name}AnomalyEWM01 does"
        )
    return found


def _simulation(configuration: Configuration, level: str) -> Simulation:
    struct = LEVELS[level]
    for simulation in simulations(configuration):
        if any(metric.startswith(f"{struct}-") for metric in simulation.proxied):
            return simulation
    missing = "virtual_networks" if level == "networks" else "devices"
    raise UsageError(f"there is nothing to score at level {level}: it has no {missing}")


def _row(
    name: str, threshold: float | None, truth: Flags, flagged: Flags, vus_pr: float | None
) -> Row:
    delays = measures.delays(truth, flagged)
    found = delays[~np.isnan(delays)]
    precision, recall, f1 = measures.precision_recall_f1(truth, flagged)
    return Row(
        name=name,
        threshold=threshold,
        found=len(found),
        delay=float(np.median(found)) if len(found) else None,
        false_alarms=measures.false_alarms(truth, flagged, PERIOD),
        precision=_number(precision),
        recall=_number(recall),
        f1=_number(f1),
        vus_pr=vus_pr,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


# ---- how it looks


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
        metavar="NAME",
        nargs="+",
        default=ALGORITHMS,
        help="in place of every reducer with alpha 0.1, and Sum with four others",
    )
    add(
        "--thresholds",
        metavar="SIGMA",
        type=_threshold,
        nargs="+",
        default=THRESHOLDS,
        help="above which |sigma| is an alarm: 2 2.5 3",
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
            thresholds=sorted(options.thresholds),
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


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _buffer(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)
