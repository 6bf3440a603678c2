"""What the subcommands of ``collectord-netops`` share: times, configurations, how they fail."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from collectord import terminal
from collectord.ctl_common import USAGE, UsageError, complain

if TYPE_CHECKING:
    from collectord.netops.configuration import Configuration

PROGRAM = "collectord-netops"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Failure(Exception):  # noqa: N818
    """It ended before its time: says why."""


def seconds(text: str) -> float:
    """A time of the command line."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write seconds, or a number with s, m, h or d, as in 24h"
        )
    return float(found[1]) * UNITS[found[2]]


def some_seconds(text: str) -> float:
    """A time of the command line that is not 0."""
    if not (value := seconds(text)):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def configured(options: argparse.Namespace) -> Configuration:
    """What the command line says, with what its options change. All that is wrong is told."""
    from collectord.netops.configuration import Configuration, ConfigurationError, read
    from collectord.netops.network import simulations

    place = options.configuration
    try:
        if place is None:
            configuration = Configuration.model_validate({})
        elif place == "-":
            configuration = read(sys.stdin.buffer.read())
        else:
            with open(place, "rb") as file:
                configuration = read(file.read())
        changes = {
            name: value
            for name in ("target", "interval", "seed")
            if (value := getattr(options, name, None)) is not None
        }
        configuration = Configuration.model_validate(configuration.model_dump() | changes)
        simulations(configuration)  # it knows the names that planned failures have to fit
        return configuration
    except OSError as error:
        raise UsageError(
            f"{place}: {error.strerror}; write a file, or - for standard input"
        ) from error
    except ConfigurationError as error:
        for sentence in error.errors:
            complain(sentence, PROGRAM)
        raise SystemExit(USAGE) from error


class _ConsoleHandler(logging.Handler):
    """Log lines on a console, above the bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = terminal.clean(f"{PROGRAM}: {record.getMessage()}")
        self._console.print(Text(text), soft_wrap=True)


def log_to(console: Console) -> None:
    """Let what is logged be read there."""
    logging.getLogger("collectord").addHandler(_ConsoleHandler(console))
    logging.getLogger("collectord.netops").setLevel(logging.INFO)
