"""What the subcommands of ``collectorctl`` share: rows, exit codes, output, and how they connect.

``collectord-netops`` is a command in the same manner, and takes from here what it can.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from rich.console import Console, RenderableType
from rich.text import Text

from collectord import terminal, wire
from collectord.client import Curve, QueryClient

OK = 0
NOTHING = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
INTERRUPTED = 130

Made = TypeVar("Made")


class Command(NamedTuple):
    """A subcommand: a row of ``ctl.COMMANDS``, or of the ``commands`` of one."""

    run: Callable[[argparse.Namespace], int] | None
    """None where there are ``commands``: one of them has to be chosen."""
    help: str
    example: str
    arguments: Sequence[tuple[str, dict[str, Any]]]
    connects: bool = True
    commands: Mapping[str, Command] = {}


class UsageError(Exception):
    """What was asked for makes no sense: says what, and what would.

    ``errors`` has a sentence for each thing that is wrong, where there may be several.
    """

    def __init__(self, *errors: str) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class Output:
    """Standard output: tables for people, JSON for programs."""

    def __init__(self, options: argparse.Namespace) -> None:
        on_terminal = sys.stdout.isatty()
        self.tables: bool = options.table or (on_terminal and not options.json)
        self._indent = 2 if on_terminal else None
        self._console = Console(markup=False, highlight=False, emoji=False)

    def one(self, value: Any, show: Callable[..., RenderableType], *shown: Any) -> None:
        """The only answer: ``show(*shown)`` for people, ``value`` for programs."""
        self._write(self._drawn(show(*shown)) if self.tables else as_json(value, self._indent))

    def many(self, value: Any, show: Callable[..., RenderableType], *shown: Any) -> None:
        """One of many answers; told at once, so that who reads along need not wait."""
        self._write(self._drawn(show(*shown)) if self.tables else as_json(value))

    def _drawn(self, renderable: RenderableType) -> str:
        # Captured, since a Console that prints to a closed pipe chooses an exit code itself.
        with self._console.capture() as captured:
            # A line is not broken where the terminal ends: it may be copied, or searched.
            self._console.print(renderable, soft_wrap=isinstance(renderable, Text))
        return captured.get().rstrip("\n")

    def _write(self, text: str) -> None:
        print(text, flush=True)


def as_json(value: Any, indent: int | None = None) -> str:
    """For programs. In ASCII: a terminal that gets to see it finds nothing to obey."""
    return json.dumps(wire.json_value(value), indent=indent)


def made(make: Callable[..., Made], **settings: Any) -> Made:
    """``make(**settings)``; what it finds wrong with them came from the command line."""
    try:
        return make(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


def curve(options: argparse.Namespace) -> Curve | None:
    """The keys that the command line names, if it does. Raises UsageError."""
    if not options.key_file and not options.server_key_file:
        return None
    if not options.key_file or not options.server_key_file:
        missing = "--server_key" if options.key_file else "--key"
        raise UsageError(f"keys are two: this client's, and the collector's; {missing} is missing")
    return made(Curve.load, key_file=options.key_file, server_key_file=options.server_key_file)


def client(options: argparse.Namespace) -> QueryClient:
    """What asks the collector of the command line."""
    return made(QueryClient, address=options.query, timeout=options.timeout, curve=curve(options))


def complain(message: str, program: str = "collectorctl") -> None:
    """Say on standard error what is wrong."""
    print(f"{program}: {terminal.clean(message)}", file=sys.stderr)


def address(text: str) -> str:
    """An address of the command line, which may leave out how it is reached."""
    return text if "://" in text else f"tcp://{text}"


def add_keys(group: argparse._ActionsContainer) -> None:
    """The options that ``curve`` reads."""
    for name, meaning in [
        ("key", "file with this client's secret key, where the collector wants keys"),
        ("server_key", "file with the collector's public key"),
    ]:
        variable = f"COLLECTORCTL_{name.upper()}"
        group.add_argument(
            f"--{name}",
            dest=f"{name}_file",
            metavar="FILE",
            default=os.environ.get(variable, ""),
            help=f"{meaning}; or what ${variable} says",
        )


STREAMS = {"stdin": "surrogateescape", "stdout": "backslashreplace", "stderr": "backslashreplace"}
"""What becomes of text that isn't UTF-8, or that a terminal's encoding hasn't: never a crash."""


def prepare() -> None:
    """Make this process one that speaks to people: no text stops it, errors are told once."""
    logging.getLogger("collectord").addHandler(logging.NullHandler())  # errors are told here
    for stream, errors in STREAMS.items():
        if isinstance(file := getattr(sys, stream), io.TextIOWrapper):
            file.reconfigure(errors=errors)


def ended(
    run: Callable[[argparse.Namespace], int],
    options: argparse.Namespace,
    errors: Mapping[type[Exception], int],
    program: str = "collectorctl",
) -> int:
    """The exit code of a subcommand; the first of ``errors`` that fits is told, and has its own.

    An error that has ``errors`` is told in so many sentences.
    """
    try:
        code = run(options)
        sys.stdout.flush()
    except tuple(errors) as error:
        for sentence in getattr(error, "errors", [str(error)]):
            complain(sentence, program)
        return next(code for kind, code in errors.items() if isinstance(error, kind))
    except BrokenPipeError:
        # Nobody reads on, as with ``| head``. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    return code
