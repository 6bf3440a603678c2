"""The command ``collectorctl``: ask a collector, follow it, send it something.

What lives here is the command line: its options, and a function for each subcommand that asks or
follows; ``ctl_send.py``, ``ctl_keys.py``, ``ctl_alarms.py`` and ``ctl_rules.py`` have the others.
Talking to the collector is ``client.py``'s; how things look is ``terminal.py``'s.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collectord import __version__, terminal
from collectord.client import (
    INGEST_ADDRESS,
    QUERY_ADDRESS,
    STREAM_ADDRESS,
    BufferFull,
    Change,
    FlushTimeout,
    NotFound,
    PublishError,
    QueryError,
    Subscriber,
    Timeout,
)
from collectord.ctl_alarms import Following, ack, alarms, severity
from collectord.ctl_common import (
    NOTHING,
    OK,
    REFUSED,
    UNREACHABLE,
    USAGE,
    Command,
    Output,
    UsageError,
    add_keys,
    address,
    client,
    complain,
    curve,
    ended,
    made,
    prepare,
)
from collectord.ctl_keys import keygen
from collectord.ctl_rules import RULES
from collectord.ctl_send import SOURCE, send
from collectord.curve import RIGHTS

EPILOG = """\
Answers are tables on a terminal (or with --table), and JSON anywhere else (or with --json): one
document for one answer, a line for each of many.

exit codes:
  0  done
  1  no such key, nothing matched, records were rejected, or it is not well (health)
  2  the command line makes no sense, or the rules; for health, also where it can't ask
  3  no collector answers
  4  the collector refuses, this key perhaps
"""


def get(options: argparse.Namespace) -> int:
    """``collectorctl get``."""
    with client(options) as collector:
        uve = collector.get(options.key, **_filters(options))
    Output(options).one(uve, terminal.view, options.key, uve)
    return OK


def find(options: argparse.Namespace) -> int:
    """``collectorctl find``."""
    output = Output(options)
    found = NOTHING
    with client(options) as collector:
        for key, uve in collector.find(**_place(options.place or "*"), **_filters(options)):
            output.many({"key": key, "uve": uve}, terminal.view, key, uve)
            found = OK
    return found


def list_(options: argparse.Namespace) -> int:
    """``collectorctl list``."""
    output = Output(options)
    with client(options) as collector:
        if not options.place:
            tables = collector.tables()
            output.one(tables, terminal.tables, tables)
            return OK
        found = NOTHING
        for key in collector.keys(**_place(options.place)):
            output.many(key, terminal.key, key)
            found = OK
    return found


def sources(options: argparse.Namespace) -> int:
    """``collectorctl sources``."""
    with client(options) as collector:
        answer = collector.sources()
    Output(options).one(answer, terminal.sources, answer)
    return OK


def menu(options: argparse.Namespace) -> int:
    """``collectorctl menu``."""
    with client(options) as collector:
        answer = collector.menu()
    Output(options).one(answer, terminal.menu, answer)
    return OK


def status(options: argparse.Namespace) -> int:
    """``collectorctl status``."""
    with client(options) as collector:
        answer = collector.status()
    Output(options).one(answer, terminal.status, answer)
    return OK


def health(options: argparse.Namespace) -> int:
    """``collectorctl health``. Whatever keeps it from asking ends with 2: a probe knows no more."""
    try:
        with client(options) as collector:
            answer = collector.status()
    except (UsageError, QueryError, Timeout) as error:
        complain(str(error))
        return USAGE
    told = answer.get("health")
    # A collector that doesn't tell how it is has answered all the same.
    told = told if isinstance(told, dict) else {}
    problems = [str(problem) for problem in told.get("problems", [])]
    well = bool(told.get("ok", not problems))
    result = {"ok": well, "problems": problems}
    Output(options).one(result, terminal.health, well, problems)
    return OK if well else NOTHING


def watch(options: argparse.Namespace) -> int:
    """``collectorctl watch``. Ctrl-C is how it is meant to end."""
    output = Output(options)
    seen = 0
    with made(
        Subscriber,
        address=options.stream,
        pattern=options.pattern,
        alarms=options.alarms,
        connect_timeout=options.timeout,
        curve=curve(options),
    ) as changes:
        tell = Following(options).tell if options.alarms else _as_it_is
        end = math.inf if options.seconds is None else time.monotonic() + options.seconds
        try:
            while options.count is None or seen < options.count:
                news = tell(changes.receive(max(0.0, end - time.monotonic())))
                for told in itertools.islice(news, options.count and options.count - seen):
                    output.many(*told)
                    seen += 1
        except KeyboardInterrupt:
            return OK
        except Timeout:
            pass  # the seconds are over
    return OK if seen else NOTHING


def _as_it_is(change: Change) -> Iterator[tuple[Any, Any, Any]]:
    """What a message brings, as ``Output.many`` takes it."""
    yield vars(change), terminal.change, change


def _filters(options: argparse.Namespace) -> dict[str, Any]:
    names = ["sfilt", "mfilt", "cfilt", "kfilt", "by_source"]
    return {name: value for name in names if (value := getattr(options, name, None))}


def _place(place: str) -> dict[str, Any]:
    """A word that is a table's name, or with ``*`` or ``:`` a pattern of keys."""
    return {"match": place} if "*" in place or ":" in place else {"table": place}


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
    "health": Command(
        health,
        "say whether the collector is well, for probes: exit code 0, 1, or 2 if it can't be asked",
        "collectorctl health --timeout 2",
        [],
    ),
    "alarms": Command(
        alarms,
        "show the alarms that are raised",
        "collectorctl alarms ObjectVNTable --severity critical major --unacknowledged",
        [
            ("places", {"metavar": "TABLE|PATTERN", "nargs": "*", "help": f"{PLACE}; all without"}),
            (
                "--severity",
                {
                    "metavar": "SEVERITY",
                    "nargs": "+",
                    "action": "extend",
                    "default": [],
                    "type": severity,
                    "help": "only these: critical, major, minor, or 0, 1, 2",
                },
            ),
            *(
                (
                    f"--{word}",
                    {
                        "dest": "acknowledged",
                        "action": "store_const",
                        "const": word == "acknowledged",
                        "help": f"only those that are {word}",
                    },
                )
                for word in ("acknowledged", "unacknowledged")
            ),
        ],
    ),
    "ack": Command(
        ack,
        "acknowledge an alarm: somebody knows, and it stays so until it is raised anew",
        "collectorctl ack ObjectVNTable:demo:vn1 vn-egress-flood",
        [
            ("key", {"metavar": "KEY"}),
            ("type", {"metavar": "TYPE", "help": "the alarm's type, which is its rule's name"}),
            (
                "--token",
                {
                    "metavar": "TOKEN",
                    "help": "the one that was looked at, and no later one; "
                    "without it, what is raised now",
                },
            ),
        ],
    ),
    "rules": Command(
        None,
        "check rules for alarms, or try them on a UVE",
        "collectorctl rules check conf/alarms.json\n"
        "  collectorctl rules test conf/alarms.json --uve ObjectVNTable:demo:vn1",
        [],
        commands=RULES,
    ),
    "keygen": Command(
        keygen,
        "make a key pair, for a client or a collector",
        "collectorctl keygen compute-1 --rights send --sources 'compute-1*'\n"
        "  collectorctl keygen collector --server",
        [
            ("name", {"metavar": "NAME", "help": "NAME.key and NAME.key_secret are made"}),
            ("--directory", {"metavar": "DIR", "default": ".", "help": "where; here without"}),
            (
                "--rights",
                {
                    "nargs": "+",
                    "metavar": "RIGHT",
                    "default": [],
                    "help": f"what the client may do: {', '.join(RIGHTS)}",
                },
            ),
            (
                "--sources",
                {
                    "nargs": "+",
                    "metavar": "PATTERN",
                    "default": [],
                    "help": "the sources it may send as, * is any run of characters; all without",
                },
            ),
            ("--server", {"action": "store_true", "help": "a collector's own pair"}),
        ],
        connects=False,
    ),
    "watch": Command(
        watch,
        "follow what changes, until Ctrl-C",
        "collectorctl watch 'ObjectVNTable:demo:*' --count 10\n"
        "  collectorctl watch --alarms 'ObjectVNTable:*'",
        [
            ("pattern", {"metavar": "PATTERN", "nargs": "?", "default": "*", "help": "of keys"}),
            (
                "--alarms",
                {"action": "store_true", "help": "what becomes of alarms, in place of structs"},
            ),
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


def _parser() -> argparse.ArgumentParser:
    form = argparse.ArgumentParser(add_help=False)
    forms = form.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="JSON, as everywhere but on a terminal")
    forms.add_argument("--table", action="store_true", help="tables, as on a terminal")
    connection = _connection_parser()

    parser = argparse.ArgumentParser(
        prog="collectorctl",
        description="Ask a collector, follow it, send it something.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"collectorctl {__version__}")
    _add_commands(parser, COMMANDS, connection, form)
    return parser


def _add_commands(
    parser: argparse.ArgumentParser,
    rows: Mapping[str, Command],
    connection: argparse.ArgumentParser,
    form: argparse.ArgumentParser,
) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in rows.items():
        common = [] if command.commands else [connection, form] if command.connects else [form]
        subparser = commands.add_parser(
            name,
            parents=common,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument, settings in command.arguments:
            subparser.add_argument(argument, **settings)
        if command.commands:
            _add_commands(subparser, command.commands, connection, form)
        else:
            subparser.set_defaults(run=command.run)


def _connection_parser() -> argparse.ArgumentParser:
    """The options of how the collector is reached."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("the collector")
    for name, default in [
        ("ingest", INGEST_ADDRESS),
        ("query", QUERY_ADDRESS),
        ("stream", STREAM_ADDRESS),
    ]:
        variable = f"COLLECTORCTL_{name.upper()}"
        group.add_argument(
            f"--{name}",
            metavar="ADDRESS",
            type=address,
            default=os.environ.get(variable, default),
            help=f"%(default)s, or what ${variable} says",
        )
    add_keys(group)
    group.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to wait for it: %(default)s",
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``collectorctl``; returns its exit code, or raises SystemExit as argparse does."""
    prepare()
    options = _parser().parse_args(argv)
    return ended(options.run, options, ERRORS)


if __name__ == "__main__":
    sys.exit(main())
