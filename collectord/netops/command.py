"""The command ``collectord-netops``: simulate a network, serve it, show it, measure what is found.

What lives here is the command line, in the manner of ``collectorctl``: its options, and a function
for each subcommand. What they need is imported when they run: it may not be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq
from rich.console import Console
from rich.text import Text

from collectord import __version__, terminal
from collectord.client import INGEST_ADDRESS, QueryError, Timeout
from collectord.connection import reach
from collectord.ctl_common import (
    NOTHING,
    OK,
    REFUSED,
    UNREACHABLE,
    USAGE,
    Output,
    UsageError,
    add_keys,
    address,
    complain,
    curve,
    ended,
    made,
    prepare,
)
from collectord.netops.command_common import PROGRAM, Failure, configured, seconds, some_seconds
from collectord.netops.local import CollectorError
from collectord.netops.target import TargetError

if TYPE_CHECKING:
    from collectord.netops.configuration import Configuration

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
PLACES_SHOWN = 12
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
    configuration = configured(options)

    from collectord.netops.collector import CollectorTarget
    from collectord.netops.progress import follow
    from collectord.netops.run import Run
    from collectord.netops.targets import (
        ResponseTarget,
        UnknownTarget,
        functions_of,
        make_target,
        resolved,
        shown,
    )

    keys = curve(options)
    try:
        meant = resolved(configuration.target, functions_of(options.collector))
        batch = configuration.max_samples_per_batch
        target = make_target(meant, functions={}, batch=batch, curve=keys)
    except UnknownTarget as error:
        raise UsageError(str(error)) from error
    if options.check:
        target.close()
        check(configuration, shown(meant), options)
        return OK
    console = Console(stderr=True)
    with contextlib.closing(target):
        if isinstance(target, CollectorTarget):
            reach(zmq.DEALER, target.address, keys, options.timeout)
        running = made(
            Run,
            configuration=configuration,
            target=target,
            history=options.history,
            speed=options.speed,
            duration=options.duration,
        )
        _log_to(console)
        progress = follow(running, console)
    counts = Counter(target.counts())
    if isinstance(target, CollectorTarget):
        counts = Counter(
            sent=counts["published"],
            applied=counts["acknowledged"] - counts["rejected"],
            rejected=counts["rejected"],
        )
        if target.rejection:
            first = target.rejection
            complain(f"first rejected: {first.code}: {first.message}", PROGRAM)
    if isinstance(target, ResponseTarget):
        Output(options).one(target.emitters, lambda: Text(f"{len(target.emitters)} emitters"))
    else:
        told = {"values": progress.values, **counts}
        Output(options).one(told, terminal.sent, told)
    return NOTHING if progress.error or counts["rejected"] else OK


def serve(options: argparse.Namespace) -> int:
    """``collectord-netops serve``. SIGINT and SIGTERM are how it is meant to end."""
    configuration = configured(options) if options.configuration else None

    from collectord.netops.service import ConflictError
    from collectord.netops.service import serve as serve_http
    from collectord.netops.targets import UnknownTarget, functions_of

    _log_to(Console(stderr=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(OK))  # uvicorn, too, raises them at the end
    try:
        serve_http(
            options.host,
            options.port,
            functions=functions_of(options.collector) | dict(options.function),
            configuration=configuration,
            curve=curve(options),
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


def check(configuration: Configuration, target: str, options: argparse.Namespace) -> None:
    """``run --check``: what the configuration means, and what its collector needs."""
    from collectord.netops.network import simulations, uve_proxy_list

    simulated = simulations(configuration)
    sites: Counter[str] = Counter()
    networks: Counter[str] = Counter()
    for simulation in simulated:
        for emitter in simulation.emitters:
            place, _, _ = emitter.id.rpartition("/")
            (sites if "site" in emitter.labels else networks)[place] += 1
    values = sum(len(simulation.emitters) * len(simulation.metrics) for simulation in simulated)
    meant = {
        "sites": dict(sites),
        "virtual_networks": dict(networks),
        "metrics": [name for simulation in simulated for name in simulation.metrics],
        "interval": configuration.interval,
        "values_per_second": round(values / configuration.interval, 3),
        "target": target,
        "uve_proxy_list": uve_proxy_list(simulated),
    }
    Output(options).one(meant, _meaning, meant)


def _meaning(meant: Mapping[str, Any]) -> Text:
    lines = []
    for name, who in (("sites", "devices"), ("virtual_networks", "vrouters")):
        places = meant[name]
        if places:
            what = name.replace("_", " ")
            lines.append(f"{len(places):,} {what}, {sum(places.values()):,} that report them:")
        lines += [
            f"  {place}, {count:,} {who}" for place, count in [*places.items()][:PLACES_SHOWN]
        ]
        if len(places) > PLACES_SHOWN:
            lines.append(f"  and {len(places) - PLACES_SHOWN:,} more")
    lines += [
        f"metrics: {', '.join(meant['metrics'])}",
        f"every {meant['interval']:g} s, {meant['values_per_second']:,.12g} values/s in all",
        f"target: {meant['target']}",
        "a collector needs in its configuration, under [DEFAULT]:",
        f"uve_proxy_list={meant['uve_proxy_list']}",
    ]
    return Text("\n".join(map(terminal.clean, lines)))


class _ConsoleHandler(logging.Handler):
    """Log lines on a console, above the bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = terminal.clean(f"{PROGRAM}: {record.getMessage()}")
        self._console.print(Text(text), soft_wrap=True)


def _log_to(console: Console) -> None:
    logging.getLogger("collectord").addHandler(_ConsoleHandler(console))
    logging.getLogger("collectord.netops").setLevel(logging.INFO)


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
    _add_collector(parser)


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


def _add_collector(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the collector")
    group.add_argument(
        "--collector",
        metavar="ADDRESS",
        type=address,
        default=os.environ.get("COLLECTORCTL_INGEST", INGEST_ADDRESS),
        help="%(default)s, or what $COLLECTORCTL_INGEST says",
    )
    add_keys(group)
    group.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to wait for it: %(default)s",
    )


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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments:
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
