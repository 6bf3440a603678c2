"""The command ``collectorctl``: ask a collector, follow it, send it something.

What lives here is the command line: its options, a function for each subcommand, and the exit
codes. Talking to the collector is ``client.py``'s; how things look is ``terminal.py``'s.
"""

from __future__ import annotations

import argparse
import bisect
import io
import json
import logging
import math
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from rich.console import Console, RenderableType
from rich.text import Text

from collectord import __version__, records, terminal, wire
from collectord.client import (
    INGEST_ADDRESS,
    QUERY_ADDRESS,
    STREAM_ADDRESS,
    BufferFull,
    FlushTimeout,
    NotFound,
    Publisher,
    PublishError,
    QueryClient,
    QueryError,
    Rejection,
    StaleEpoch,
    Subscriber,
    Timeout,
)

OK = 0
NOTHING = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
INTERRUPTED = 130

ATTEMPTS = 20
"""How often a ``send`` begins while others of the same source, begun later, get in before it."""
LONGEST_PAUSE = 0.1
"""Seconds between two of them; chance decides how many, so that the others get out of step."""

SOURCE = f"{socket.gethostname()}:Tool:collectorctl:0"

EPILOG = """\
Answers are tables on a terminal (or with --table), and JSON anywhere else (or with --json): one
document for one answer, a line for each of many.

exit codes:
  0  done
  1  no such key, nothing matched, or records were rejected
  2  the command line makes no sense
  3  no collector answers
  4  the collector refuses
"""

Made = TypeVar("Made")


class UsageError(Exception):
    """What was asked for makes no sense: says what, and what would."""


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


def get(options: argparse.Namespace) -> int:
    """``collectorctl get``."""
    with _client(options) as client:
        uve = client.get(options.key, **_filters(options))
    Output(options).one(uve, terminal.view, options.key, uve)
    return OK


def find(options: argparse.Namespace) -> int:
    """``collectorctl find``."""
    output = Output(options)
    found = NOTHING
    with _client(options) as client:
        for key, uve in client.find(**_place(options.place or "*"), **_filters(options)):
            output.many({"key": key, "uve": uve}, terminal.view, key, uve)
            found = OK
    return found


def list_(options: argparse.Namespace) -> int:
    """``collectorctl list``."""
    output = Output(options)
    with _client(options) as client:
        if not options.place:
            tables = client.tables()
            output.one(tables, terminal.tables, tables)
            return OK
        found = NOTHING
        for key in client.keys(**_place(options.place)):
            output.many(key, terminal.key, key)
            found = OK
    return found


def sources(options: argparse.Namespace) -> int:
    """``collectorctl sources``."""
    with _client(options) as client:
        answer = client.sources()
    Output(options).one(answer, terminal.sources, answer)
    return OK


def menu(options: argparse.Namespace) -> int:
    """``collectorctl menu``."""
    with _client(options) as client:
        answer = client.menu()
    Output(options).one(answer, terminal.menu, answer)
    return OK


def status(options: argparse.Namespace) -> int:
    """``collectorctl status``."""
    with _client(options) as client:
        answer = client.status()
    Output(options).one(answer, terminal.status, answer)
    return OK


def watch(options: argparse.Namespace) -> int:
    """``collectorctl watch``. Ctrl-C is how it is meant to end."""
    output = Output(options)
    seen = 0
    with _made(
        Subscriber,
        address=options.stream,
        pattern=options.pattern,
        connect_timeout=options.timeout,
    ) as changes:
        end = math.inf if options.seconds is None else time.monotonic() + options.seconds
        try:
            while options.count is None or seen < options.count:
                change = changes.receive(max(0.0, end - time.monotonic()))
                output.many(vars(change), terminal.change, change)
                seen += 1
        except KeyboardInterrupt:
            return OK
        except Timeout:
            pass  # the seconds are over
    return OK if seen else NOTHING


def send(options: argparse.Namespace) -> int:
    """``collectorctl send``."""
    sending = Sending()
    for attempt in range(ATTEMPTS):
        publisher = _made(
            Publisher,
            source=options.source or os.environ.get("COLLECTORCTL_SOURCE", SOURCE),
            address=options.ingest,
            aggtypes=_made(records.aggtypes, texts=options.aggtype, struct=options.struct),
            on_rejected=sending.complain_of,
        )
        try:
            with publisher:
                if options.key is None:
                    sending.lines(publisher, options)
                else:
                    sending.one(publisher, options)
                _flush_while_it_moves(publisher, options.timeout)
            break
        except StaleEpoch:
            # A new publisher has a newer epoch. But what was applied must not be applied again.
            if attempt == ATTEMPTS - 1 or _may_have_arrived(publisher):
                raise
            time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311
    counters = publisher.counters
    result = {
        "acknowledged": counters.acknowledged - counters.rejected,
        "rejected": counters.rejected,
        "unreadable": sending.unreadable,
    }
    Output(options).one(result, terminal.sent, result)
    return NOTHING if counters.rejected or sending.unreadable else OK


class Sending:
    """The records of one ``send``: which line each came from, and what is wrong with them."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._place = 0
        """The number of the line that was read last; 0 where no lines are read."""
        self._skipped: list[int] = []
        """For each line that made no record, the number of the record that was to come next."""
        self._kept: list[str] = []
        """The lines that made records, until any of them may have arrived."""

    def one(self, publisher: Publisher, options: argparse.Namespace) -> None:
        """The record of the command line."""
        if options.struct is None or bool(options.attributes) == options.delete:
            raise UsageError("a record is KEY STRUCT and either ATTRIBUTE=VALUE… or --delete")
        try:
            attributes = (
                None if options.delete else dict(map(records.assignment, options.attributes))
            )
            publisher.publish(options.key, options.struct, attributes, options.time)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def lines(self, publisher: Publisher, options: argparse.Namespace) -> None:
        """The records of standard input, those first that were read for an attempt before."""
        number = 0
        for line in self._kept:
            record = records.from_line(line, options.time)
            number = publisher.publish(*record, timeout=options.timeout) + 1
        for line in sys.stdin:
            self._place += 1
            if not line.strip():
                self._skipped.append(number)
                continue
            try:
                record = records.from_line(line, options.time)
                number = publisher.publish(*record, timeout=options.timeout) + 1
            except ValueError as error:
                self._skipped.append(number)
                self.unreadable += 1
                _complain(f"line {self._place}: {error}")
                continue
            except StaleEpoch:
                self._kept.append(line)
                raise
            if not _may_have_arrived(publisher):
                self._kept.append(line)

    def complain_of(self, rejection: Rejection) -> None:
        """Tell what the collector has refused, by line where there are lines."""
        where = ""
        if self._place:
            where = f"line {self._line(rejection.number)}: "
            if rejection.index is None:
                where = f"{rejection.records} records from line {self._line(rejection.number)} on: "
        _complain(f"{where}rejected, {rejection.code}: {rejection.message}")

    def _line(self, number: int) -> int:
        return number + bisect.bisect_right(self._skipped, number) + 1


def _may_have_arrived(publisher: Publisher) -> bool:
    """Whether the collector has applied any of this, or may have without our hearing of it."""
    counters = publisher.counters
    return bool(counters.acknowledged or counters.resent)


def _flush_while_it_moves(publisher: Publisher, timeout: float) -> None:
    """A long backlog may take its time, as long as something arrives within each ``timeout``."""
    while True:
        before = publisher.counters.acknowledged
        try:
            return publisher.flush(timeout)
        except FlushTimeout:
            if publisher.counters.acknowledged == before:
                raise


def _made(make: Callable[..., Made], **settings: Any) -> Made:
    """``make(**settings)``; what it finds wrong with them came from the command line."""
    try:
        return make(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _client(options: argparse.Namespace) -> QueryClient:
    return _made(QueryClient, address=options.query, timeout=options.timeout)


def _filters(options: argparse.Namespace) -> dict[str, Any]:
    names = ["sfilt", "mfilt", "cfilt", "kfilt", "by_source"]
    return {name: value for name in names if (value := getattr(options, name, None))}


def _place(place: str) -> dict[str, Any]:
    """A word that is a table's name, or with ``*`` or ``:`` a pattern of keys."""
    return {"match": place} if "*" in place or ":" in place else {"table": place}


def _complain(message: str) -> None:
    print(f"collectorctl: {terminal.clean(message)}", file=sys.stderr)


class Command(NamedTuple):
    """A subcommand: a row of the table below."""

    run: Callable[[argparse.Namespace], int]
    help: str
    example: str
    arguments: Sequence[tuple[str, dict[str, Any]]]


FILTERS: list[tuple[str, dict[str, Any]]] = [
    ("--sfilt", {"metavar": "HOST", "help": "only what this host told"}),
    ("--mfilt", {"metavar": "REST", "help": "only what sources named so after the host told"}),
    (
        "--cfilt",
        {
            "metavar": "STRUCT[:ATTRIBUTE]",
            "action": "append",
            "help": "only this struct or attribute; may be given again",
        },
    ),
    (
        "--by-source",
        {"action": "store_true", "help": "each source's value in place of merged ones"},
    ),
]
PLACE = "a table, or a pattern of keys: * is any run of characters"

COMMANDS: dict[str, Command] = {
    "get": Command(
        get,
        "show the merged view of one UVE",
        "collectorctl get ObjectVNTable:demo:vn1 --cfilt UveVirtualNetworkAgent",
        [("key", {"metavar": "KEY"}), *FILTERS],
    ),
    "find": Command(
        find,
        "show the UVEs of a table, or whose key matches a pattern",
        "collectorctl find 'ObjectVNTable:demo:*' --sfilt compute-1 --json",
        [
            ("place", {"metavar": "TABLE|PATTERN", "nargs": "?", "help": f"{PLACE}; all without"}),
            *FILTERS,
            (
                "--kfilt",
                {
                    "metavar": "PATTERN",
                    "action": "append",
                    "help": "only keys that match; may be given again",
                },
            ),
        ],
    ),
    "list": Command(
        list_,
        "list the tables, or the keys of one, or those that match a pattern",
        "collectorctl list ObjectVNTable",
        [("place", {"metavar": "TABLE|PATTERN", "nargs": "?", "help": f"{PLACE}; tables without"})],
    ),
    "sources": Command(
        sources,
        "show who reports, and how far each has come",
        "collectorctl sources --json | jq keys",
        [],
    ),
    "menu": Command(
        menu,
        "show the proxy algorithms there are, and what is configured",
        "collectorctl menu",
        [],
    ),
    "status": Command(
        status,
        "show version, uptime, counters, sizes and memory of the collector",
        "collectorctl status --query tcp://collector-1:8087",
        [],
    ),
    "watch": Command(
        watch,
        "follow what changes, until Ctrl-C",
        "collectorctl watch 'ObjectVNTable:demo:*' --count 10",
        [
            ("pattern", {"metavar": "PATTERN", "nargs": "?", "default": "*", "help": "of keys"}),
            ("--count", {"type": int, "metavar": "N", "help": "end after so many changes"}),
            ("--seconds", {"type": float, "metavar": "S", "help": "end after so long"}),
        ],
    ),
    "send": Command(
        send,
        "send one record, or those that standard input has as lines of JSON",
        "collectorctl send ObjectVNTable:demo:vn1 UveVirtualNetworkAgent egress_flow_count=10 "
        "acl=demo\n"
        """  echo '["ObjectVNTable:demo:vn1", "UveVirtualNetworkAgent", {"acl": null}]' """
        "| collectorctl send",
        [
            ("key", {"metavar": "KEY", "nargs": "?", "help": "without one, lines are read"}),
            ("struct", {"metavar": "STRUCT", "nargs": "?"}),
            (
                "attributes",
                {
                    "metavar": "ATTRIBUTE=VALUE",
                    "nargs": "*",
                    "help": "JSON if it can be read as such, else text; null removes the attribute",
                },
            ),
            ("--delete", {"action": "store_true", "help": "remove this source's whole struct"}),
            (
                "--source",
                {
                    "metavar": "HOST[:TYPE:MODULE:INSTANCE]",
                    "help": f"who reports: {SOURCE}, or what $COLLECTORCTL_SOURCE says",
                },
            ),
            ("--time", {"type": int, "metavar": "µs", "help": "when it was measured (now)"}),
            (
                "--aggtype",
                {
                    "action": "append",
                    "default": [],
                    "metavar": "[STRUCT-]ATTRIBUTE=AGGTYPE",
                    "help": "how values of several sources are merged, as in egress_flow_count=sum",
                },
            ),
        ],
    ),
}


def _address(text: str) -> str:
    return text if "://" in text else f"tcp://{text}"


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("the collector")
    for name, default in [
        ("ingest", INGEST_ADDRESS),
        ("query", QUERY_ADDRESS),
        ("stream", STREAM_ADDRESS),
    ]:
        variable = f"COLLECTORCTL_{name.upper()}"
        group.add_argument(
            f"--{name}",
            metavar="ADDRESS",
            type=_address,
            default=os.environ.get(variable, default),
            help=f"%(default)s, or what ${variable} says",
        )
    group.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to wait for it: %(default)s",
    )
    form = common.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON, as everywhere but on a terminal")
    form.add_argument("--table", action="store_true", help="tables, as on a terminal")

    parser = argparse.ArgumentParser(
        prog="collectorctl",
        description="Ask a collector, follow it, send it something.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"collectorctl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            parents=[common],
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument, settings in command.arguments:
            subparser.add_argument(argument, **settings)
    return parser


ERRORS: dict[type[Exception], int] = {
    UsageError: USAGE,
    NotFound: NOTHING,
    Timeout: UNREACHABLE,
    FlushTimeout: UNREACHABLE,
    BufferFull: UNREACHABLE,
    QueryError: REFUSED,
    PublishError: REFUSED,
    UnicodeEncodeError: USAGE,
}
"""The first that fits an error tells the exit code."""


STREAMS = {"stdin": "surrogateescape", "stdout": "backslashreplace", "stderr": "backslashreplace"}
"""What becomes of text that isn't UTF-8, or that a terminal's encoding hasn't: never a crash."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``collectorctl``; returns its exit code, or raises SystemExit as argparse does."""
    logging.getLogger("collectord").addHandler(logging.NullHandler())  # errors are told here
    for stream, errors in STREAMS.items():
        if isinstance(file := getattr(sys, stream), io.TextIOWrapper):
            file.reconfigure(errors=errors)
    options = _parser().parse_args(argv)
    try:
        code = COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except tuple(ERRORS) as error:
        _complain(str(error))
        return next(code for kind, code in ERRORS.items() if isinstance(error, kind))
    except BrokenPipeError:
        # Nobody reads on, as with ``| head``. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
