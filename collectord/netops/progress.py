"""How a run is followed on a terminal: a bar while it lasts, and an end in order on Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from rich import progress as bars
from rich.console import Console

from collectord import terminal

if TYPE_CHECKING:
    from collectord.netops.run import Progress, Run, State

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_AGAIN = 0.1
"""Seconds between two looks at a run."""
LINE_SECONDS = 5.0
"""Seconds between two lines where there is no terminal."""
TITLES: dict[State, str] = {"priming": "history", "generating": "live"}


def follow(run: Run, console: Console) -> Progress:
    """Start a run and show how far it is until it ends, or is made to by one of ``SIGNALS``."""
    with interruptible() as interrupted, Display(console) as display:
        run.start()
        while not run.join(LOOK_AGAIN):
            if interrupted.is_set():
                run.stop()
            display.show(run.progress())
    return run.progress()


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """While it lasts, the first of ``SIGNALS`` only sets the event; the next acts as ever."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: FrameType | None) -> None:
        event.set()
        restore()

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield event
    finally:
        restore()


class Display:
    """A bar on a terminal, and now and then a line anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = bars.Progress(
            bars.TextColumn("{task.description:7}"),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TextColumn("{task.fields[told]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(TITLES["priming"], total=None, told="")
        self._state: State = "idle"
        self._longest = 0.0
        """Seconds that were left when the state began."""
        self._next_line = 0.0

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        if (title := TITLES.get(progress.state)) is None:
            return
        if progress.state != self._state:
            self._state = progress.state
            self._longest = 0.0
            self._next_line = time.monotonic() + LINE_SECONDS
        if self._console.is_terminal:
            total, done = self._total_and_done(progress)
            self._bar.update(
                self._task, description=title, total=total, completed=done, told=told(progress)
            )
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._console.print(f"{title}: {told(progress)}", highlight=False, soft_wrap=True)

    def _total_and_done(self, progress: Progress) -> tuple[float | None, float]:
        if progress.state == "priming":
            return progress.history_steps, progress.history_done
        left = progress.seconds_left
        if left is None:
            return None, 0
        self._longest = max(self._longest, left)
        return self._longest, self._longest - left

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def told(progress: Progress) -> str:
    """What there is to say of a run, on one line."""
    parts = [terminal.moment(progress.time)] if progress.state == "generating" else []
    parts += [f"{progress.values:,} values", f"{progress.rate:,.0f}/s"]
    if progress.rejected:
        parts.append(f"{progress.rejected:,} rejected")
    if progress.seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(progress.seconds_left))} left")
    if progress.trouble:
        parts.append(terminal.clean(progress.trouble))
    return ", ".join(parts)
