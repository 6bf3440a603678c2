"""``collectorctl rules check`` and ``rules test``: rules for alarms, before they run.

What is wrong with a rule is told by ``alarms/rules.py``, why it holds by ``alarms/evaluation.py``:
the same that the collector runs. They need a library that not everybody has who asks a collector,
so they are imported when they run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectord import terminal_alarms, wire
from collectord.client import View
from collectord.ctl_common import OK, Command, Output, UsageError, client

if TYPE_CHECKING:
    from collectord.alarms.evaluation import CompiledRule
    from collectord.alarms.rules import Rule

Configured = Mapping[str, Collection[str]]
"""The metrics that have proxy UVEs, and the names of their algorithms."""


def check_rules(options: argparse.Namespace) -> int:
    """``collectorctl rules check``."""
    rules = _rules(options.file)
    configured, where = _configured(options)
    from collectord.alarms.rules import impossible

    # What a rule that is disabled looks at need not be configured; but it must be possible.
    errors = [
        sentence
        for rule in rules
        for sentence in impossible(rule, configured if rule.enabled else None)
    ]
    if errors:
        raise UsageError(*_placed(errors, _name(options.file)))
    summary = {
        "rules": len(rules),
        "enabled": sum(rule.enabled for rule in rules),
        "proxies": where,
    }
    Output(options).one(summary, terminal_alarms.checked, summary)
    return OK


def _rules(file: str) -> tuple[Rule, ...]:
    """The rules of a file; - is standard input. Raises UsageError with all that is wrong."""
    try:
        from collectord.alarms.rules import RULES_BYTES, RulesError, parse, read
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        if library == "collectord":
            raise
        raise UsageError(
            f"{library} is missing; install it with: pip install 'collectord[alarms]'"
        ) from error
    try:
        if file == "-":
            return parse(sys.stdin.buffer.read(RULES_BYTES + 1), _name(file))
        return read(file)
    except RulesError as error:
        raise UsageError(*_placed(error.errors, error.origin)) from error


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _placed(errors: Iterable[str], origin: str) -> Iterator[str]:
    return (f"{origin}: {sentence}" for sentence in errors)


def _configured(options: argparse.Namespace) -> tuple[Configured | None, str | None]:
    """The proxies of the collector that the command line names, if it does, and where they stand.

    Of a configuration, as the collector would read it: the environment counts too.
    """
    if options.live:
        if options.conf_file:
            raise UsageError("--live and --conf_file both tell the proxies; give one of them")
        with client(options) as collector:
            return collector.menu()["configured"], options.query
    if not options.conf_file:
        return None, None

    from collectord import proxies, settings

    name = "DEFAULT.uve_proxy_list"
    try:
        settled = settings.load(
            [f"--conf_file={file}" for file in options.conf_file],
            os.environ,
            {name: proxies.parse_proxy_list},
        )
    except settings.ConfigurationError as error:
        raise UsageError(*error.errors) from error
    metrics = proxies.parse_proxy_list(settled.text(name))
    return {
        metric: [algorithm.name for algorithm in algorithms]
        for metric, algorithms in metrics.items()
    }, ", ".join(options.conf_file)


def try_rules(options: argparse.Namespace) -> int:
    """``collectorctl rules test``."""
    if options.uve is None and options.view is None:
        raise UsageError("say what to try the rules on: --uve KEY, or --view FILE")
    if options.file == options.view == "-":
        raise UsageError("standard input can be the rules or the view, but not both")
    rules = _rules(options.file)
    from collectord.alarms.evaluation import compile_rule

    view = _view_of_collector(options) if options.view is None else _view_of_file(options.view)
    # What is raised is told with a view, but no rule is evaluated on it.
    view.pop(wire.ALARMS, None)
    tried: list[dict[str, Any]] = []
    others: list[str] = []
    for rule in rules:
        compiled = compile_rule(rule)
        if options.uve is None or compiled.wants(options.uve):
            tried.append(_tried(compiled, view))
        else:
            others.append(rule.name)
    result = {"key": options.uve, "rules": tried, "others": others}
    Output(options).one(result, terminal_alarms.tried, result)
    return OK


def _view_of_collector(options: argparse.Namespace) -> View:
    with client(options) as collector:
        return collector.get(options.uve)


def _view_of_file(file: str) -> View:
    """A view as ``collectorctl get`` prints it; - is standard input. Raises UsageError."""
    name = _name(file)
    try:
        view = json.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}") from error
    if not isinstance(view, dict) or not all(isinstance(struct, dict) for struct in view.values()):
        raise UsageError(
            f"{name} is no view: that is {{struct: {{attribute: value}}}}, as collectorctl get "
            "prints it"
        )
    return view


def _tried(compiled: CompiledRule, view: View) -> dict[str, Any]:
    """What becomes of a rule in a view, as programs get it."""
    rule = compiled.rule
    return {
        "name": rule.name,
        "severity": rule.severity,
        "enabled": rule.enabled,
        "holds": compiled.holds(view) is not None,
        "active_timer": rule.active_timer,
        "conditions": [
            {
                "place": explained.place,
                "condition": explained.condition.model_dump(mode="json", exclude_none=True),
                "operand1": list(explained.operand1),
                "operand2": list(explained.operand2),
                "holds": explained.holds,
                "why": explained.why,
            }
            for explained in compiled.explain(view)
        ],
    }


RULES: dict[str, Command] = {
    "check": Command(
        check_rules,
        "say all that is wrong with a file of rules",
        "collectorctl rules check conf/alarms.json --conf_file conf/contrail-collector.conf",
        [
            ("file", {"metavar": "FILE", "help": "the rules; - is standard input"}),
            (
                "--conf_file",
                {
                    "metavar": "FILE",
                    "action": "append",
                    "help": "the collector's: proxy UVEs that it doesn't configure are wrong too; "
                    "may be given again",
                },
            ),
            ("--live", {"action": "store_true", "help": "the same, of the running collector"}),
        ],
    ),
    "test": Command(
        try_rules,
        "say which rules would hold for a UVE as it is now, and why",
        "collectorctl rules test conf/alarms.json --uve ObjectVNTable:demo:vn1\n"
        "  collectorctl get ObjectVNTable:demo:vn1 --json > vn1.json\n"
        "  collectorctl rules test conf/alarms.json --view vn1.json",
        [
            ("file", {"metavar": "FILE", "help": "the rules; - is standard input"}),
            (
                "--uve",
                {
                    "metavar": "KEY",
                    "help": "the UVE that is asked for; the rules that are for it are tried",
                },
            ),
            (
                "--view",
                {
                    "metavar": "FILE",
                    "help": "a view as get prints it, in place of the collector's; without --uve "
                    "all rules are tried",
                },
            ),
        ],
    ),
}
