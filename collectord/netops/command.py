"""The command ``collectord-netops``: simulate a network, serve it, show it, measure what is found.

What lives here is the command line, in the manner of ``collectorctl``: its options, and a function
for each subcommand. What they need is imported when they run: it may not be installed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from collectord import __version__
from collectord.client import INGEST_ADDRESS, QueryError, Timeout
from collectord.ctl_common import (
    NOTHING,
    OK,
    REFUSED,
    UNREACHABLE,
    USAGE,
    UsageError,
    add_keys,
    address,
    complain,
    curve,
    ended,
    prepare,
)
from collectord.netops.command_common import (
    PROGRAM,
    Failure,
    configured,
    log_to,
    seconds,
    some_seconds,
)
from collectord.netops.local import CollectorError
from collectord.netops.target import TargetError

if TYPE_CHECKING:
    pass

EPILOG = """\
Times are seconds, or have a unit: 90, 15m, 24h, 1d. A configuration is JSON; - reads it from
standard input, and without one the defaults simulate 2 companies of 2 sites of 5 devices.

exit codes:
  0  done
  1  something was rejected, or it failed on the way
  2  the command line or the configuration makes no sense
  3  no collector answers
  4  the collector refuses, this key perhaps
"""
EXTRAS = {"matplotlib": "plots"}
"""The extra that a library comes with; all others come with ``netops``."""


def factor(text: str) -> float:
    """How many times as fast."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor from 1 on, as in 60")
    return value


def function(text: str) -> tuple[str, str]:
    """A row of the table of functions."""
    name, equals, target = text.partition("=")
    if not (name and equals and target):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TARGET, as in ingest=log")
    return name, target


def port(text: str) -> int:
    """A port to listen on."""
    if not text.isdecimal() or not 0 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """``collectord-netops run``."""
    from collectord.netops import run_command

    return run_command.run(options)


def serve(options: argparse.Namespace) -> int:
    """``collectord-netops serve``. SIGINT and SIGTERM are how it is meant to end."""
    configuration = configured(options) if options.configuration else None

    from collectord.netops.service import ConflictError
    from collectord.netops.service import serve as serve_http
    from collectord.netops.targets import UnknownTarget, functions_of

    log_to(Console(stderr=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(OK))  # uvicorn, too, raises them at the end
    try:
        serve_http(
            options.host,
            options.port,
            functions=functions_of(options.collector) | dict(options.function),
            configuration=configuration,
            curve=curve(options),
            allow_hosts=options.allow_host,
        )
    except (ConflictError, UnknownTarget) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        place = f"{options.host}, port {options.port}"
        raise Failure(f"can't listen on {place}: {error.strerror}; choose another") from error
    return OK


def score(options: argparse.Namespace) -> int:
    """``collectord-netops score``."""
    from collectord.netops import score_command

    return score_command.run(options)


def demo(options: argparse.Namespace) -> int:
    """``collectord-netops demo``."""
    from collectord.netops import demo

    return demo.run(options)


class Command(NamedTuple):
    """A subcommand: a row of the table below."""

    run: Callable[[argparse.Namespace], int]
    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("configuration", metavar="CONFIG", nargs="?", help="a file; - is standard input")
    add("--target", help="where it goes, in place of the configuration's; the collector by default")
    add("--history", metavar="TIME", type=seconds, default=0.0, help="of the past, sent at once")
    add(
        "--speed",
        metavar="X",
        type=factor,
        default=1.0,
        help="of the network's clock, until it has caught up with the real one",
    )
    add(
        "--duration",
        metavar="TIME",
        type=seconds,
        help="to go on live: until Ctrl-C without it, and not at all with 0",
    )
    add("--interval", metavar="TIME", type=some_seconds, help="from step to step")
    add("--seed", metavar="N", type=int, help="the same one gives the same network and series")
    add("--check", action="store_true", help="only say what the configuration means")
    _add_form(parser)
    group = _add_collector(parser)
    group.add_argument(
        "--query",
        metavar="ADDRESS",
        type=address,
        default=os.environ.get("COLLECTORCTL_QUERY") or None,
        help="where it is asked what came late; or what $COLLECTORCTL_QUERY says",
    )
    group.add_argument(
        "--timeout",
        type=some_seconds,
        default=5.0,
        metavar="TIME",
        help="to wait for it: %(default)s s",
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="localhost", help="address to listen on: %(default)s")
    add(
        "--port",
        type=port,
        metavar="PORT",
        default=8100,
        help="port to listen on: %(default)s; 0: any",
    )
    add(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="another name that it may be called by, beside its address; may be given again",
    )
    add("--configuration", metavar="FILE", help="as if it had come by /configure; - reads it")
    add(
        "--function",
        metavar="NAME=TARGET",
        type=function,
        action="append",
        default=[],
        help="what a target function:NAME means; may be given again",
    )
    _add_collector(parser)


def _add_score(parser: argparse.ArgumentParser) -> None:
    from collectord.netops import score_command

    score_command.add_arguments(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=os.environ.get("DEMO_SECONDS") or None,
        metavar="TIME",
        help="of the live network, until Ctrl-C without it; or what $DEMO_SECONDS says",
    )


def _add_form(parser: argparse.ArgumentParser) -> None:
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="JSON, as everywhere but on a terminal")
    forms.add_argument("--table", action="store_true", help="text, as on a terminal")


def _add_collector(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("the collector")
    group.add_argument(
        "--collector",
        metavar="ADDRESS",
        type=address,
        default=os.environ.get("COLLECTORCTL_INGEST", INGEST_ADDRESS),
        help="%(default)s, or what $COLLECTORCTL_INGEST says",
    )
    add_keys(group)
    return group


COMMANDS: dict[str, Command] = {
    "run": Command(
        run,
        "simulate a network, with some history and then live",
        "collectord-netops run conf/netops.json --history 1d --duration 0\n"
        "  collectord-netops run --speed 60 --collector tcp://collector-1:8086\n"
        "  collectord-netops run conf/netops.json --check",
        _add_run,
    ),
    "serve": Command(
        serve,
        "simulate what is asked for by HTTP: /configure, /start, /stop, /generate, /sites",
        "collectord-netops serve --port 8100 --collector tcp://127.0.0.1:8086",
        _add_serve,
    ),
    "score": Command(
        score,
        "measure what each algorithm of the menu finds of failures that are known",
        "collectord-netops score conf/netops.json --plot score.png",
        _add_score,
    ),
    "demo": Command(
        demo,
        "start a collector, send it a day of a network, and show what it finds, live",
        "collectord-netops demo",
        _add_demo,
    ),
}


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments: a subcommand that isn't theirs may need what others don't."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A simulated network whose failures are known, for a collector.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            command.add_arguments(subparser)
    return parser


ERRORS: dict[type[Exception], int] = {
    UsageError: USAGE,
    Timeout: UNREACHABLE,
    QueryError: REFUSED,
    CollectorError: NOTHING,
    TargetError: NOTHING,
    Failure: NOTHING,
    UnicodeEncodeError: USAGE,
}
"""The first that fits an error tells the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``collectord-netops``; returns its exit code, or raises SystemExit as argparse does."""
    prepare()
    try:
        options = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
        return ended(COMMANDS[options.command].run, options, ERRORS, PROGRAM)
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        if library == "collectord":
            raise
        extra = EXTRAS.get(library, "netops")
        complain(
            f"{library} is missing; install it with: pip install 'collectord[{extra}]'", PROGRAM
        )
        return USAGE
